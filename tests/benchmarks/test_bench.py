"""Sections appear when a benchmark is done, and only then."""

import importlib
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
GOOD = """
import sys
sys.path.insert(0, {folder!r})
import bars
print("## A good one, 1 thread\\n")
print(bars.table([
    bars.of_pairs("a / b", [2.0] * 6, [1.0] * 6, "<=", 1.5),
    bars.of_pairs("b / a", [1.0] * 30, [2.0] * 30, "<=", 1.5),
    bars.of_pairs("few", [1.0] * 29, [2.0] * 29, "<=", 1.5),
    bars.of_count("counted", 1, "<=", 2),
    bars.of_pairs("to know", [1.0] * 6, [2.0] * 6),
]))
"""


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("bench")


@pytest.fixture
def bench(module, tmp_path):
    (tmp_path / "good.py").write_text(GOOD.format(folder=str(FOLDER)))
    (tmp_path / "plain.py").write_text("print('1.5 ms  held')")
    (tmp_path / "bad.py").write_text("print('half', flush=True); 1 / 0")
    return module.Bench(
        tmp_path,
        {
            "good": ("good.py", "--threads=1"),
            "plain": ("plain.py",),
            "bad": ("bad.py",),
        },
    )


def test_bars_of_all_sections_are_in_one_table(bench):
    assert bench.run("good") and bench.run("plain")
    bench.compose()
    text = (bench.folder / "RESULTS.md").read_text()
    assert "2 of 4 hold." in text
    assert "| 29 | <= 1.5 | holds so far, too few rounds |" in text
    assert "| 1 | <= 2 | holds |" in text
    link = "[good](#a-good-one-1-thread)"
    row = f"| {link} | a / b | 2.00 | 2.00 to 2.00 | 6 | <= 1.5 | MISSED |"
    assert row in text
    assert text.count(link) == 4
    assert "Not measured yet: `bad`." in text
    assert "`python benchmarks/good.py --threads=1`: " in text
    assert "## Plain\n\n```\n1.5 ms  held\n```" in text


def test_a_failure_leaves_the_last_good_section(bench):
    bench.path("bad").parent.mkdir()
    bench.path("bad").write_text("## Once it worked\n")
    assert not bench.run("bad")
    assert bench.path("bad").read_text() == "## Once it worked\n"
    assert bench.path("bad").with_suffix(".partial").read_text() == "half\n"
    assert bench.missing() == ["good", "plain"]


def test_limits_are_included_where_somebody_wrote_them(bench):
    bench.compose()
    assert "## Limits" not in (bench.folder / "RESULTS.md").read_text()
    (bench.folder / "limits.md").write_text("## Limits\n\nMemory.\n")
    bench.compose()
    assert "## Limits\n\nMemory." in (bench.folder / "RESULTS.md").read_text()


def test_every_script_is_there_and_takes_its_options(module):
    for script, *options in module.BENCHMARKS.values():
        text = (FOLDER / script).read_text()
        for option in options:
            assert f'"{option.split("=")[0]}"' in text, (script, option)
