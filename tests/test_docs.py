"""The documentation is run, and its numbers are those of the results."""

import csv
import pathlib
import re

import pytest

import keras_lottery
from keras_lottery import notation
from keras_lottery.report import curves

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(
    not README.exists(), reason="needs a checkout: README.md is not installed"
)


def rows_of(name):
    with open(ROOT / "results" / name / "levels.csv", newline="") as file:
        return list(csv.DictReader(file))


def markdown_table(name):
    """The table of the README, from the rows of a result."""
    points = curves.pool(rows_of(name))
    kinds = list(dict.fromkeys(point.kind for point in points))
    lines = [
        "| % of weights | " + " | ".join(kinds) + " |",
        "|---|" + "---|" * len(kinds),
    ]
    for level in sorted({point.level for point in points}):
        at = {p.kind: p for p in points if p.level == level}
        cells = [
            f"{at[kind].test.mean:.2%}" if kind in at else "" for kind in kinds
        ]
        kept = notation.percent(next(iter(at.values())).density)
        lines.append(f"| {kept} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(blocks) == 2
    names = {}
    exec("import keras; keras.utils.set_random_seed(0)", names)
    for block in blocks:
        exec(block, names)
    assert (tmp_path / "serving" / "digits" / "1" / "saved_model.pb").exists()
    assert "Multiply-adds are not time" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["fashion_lenet"])
def test_the_tables_of_the_readme_are_those_of_the_results(name):
    assert markdown_table(name) in README.read_text()
    assert (ROOT / "docs" / f"{name}.svg").exists()


@pytest.mark.parametrize(
    ("kind", "level", "network"),
    [
        ("ticket", 0, "dense"),
        ("ticket", 7, "ticket"),
        ("reinitialized", 7, "reinitialized"),
    ],
)
def test_the_mnist_figures_are_those_of_the_results(kind, level, network):
    (point,) = [
        point
        for point in curves.pool(rows_of("mnist_lenet"))
        if (point.kind, point.level) == (kind, level)
    ]
    row = (
        f"| {notation.percent(point.density)} | {network} | "
        f"{point.test.mean:.2%} | {point.early_step.mean:.0f} |"
    )
    assert row in README.read_text()


def test_every_public_name_is_in_the_readme():
    text = README.read_text()
    unexplained = {
        "InexactMaskWarning",
        "LayerCollapseWarning",
        "Mask",
        "PrunedModel",
        "RunError",
        "TicketError",
        "allocation",
        "criteria",
    }
    missing = [
        name
        for name in keras_lottery.__all__
        if name not in unexplained and name not in text
    ]
    assert missing == []


def test_the_links_of_the_documentation_lead_somewhere():
    for path in [README, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), (path, target)


def test_no_placeholder_is_left():
    for path in [README, *ROOT.glob("docs/*.md")]:
        assert not re.search(r"\{[a-z_]+\}", path.read_text()), path


SPEED = {  # in the README: what the benchmark calls it
    "its matrix products": "bare products and fused Adam",
    "**ours**": "ours, XLA",
    "PyTorch: gradients by hand": "PyTorch, gradients by hand",
    "PyTorch: autograd": "PyTorch, fastest with autograd",
    "Keras `fit`, 50 steps": "Keras `fit`, 50 steps a call",
    "Keras `fit`, one long epoch": "Keras `fit`, one epoch",
    "PyTorch to open_lth's recipe": "PyTorch, open_lth's recipe",
    "Keras `fit`, epochs": "Keras `fit`",
    "tfmot's wrapper": "tfmot's wrapper",
}


def measured(threads):
    """Milliseconds a step by contender, from the section of the benchmark."""
    section = f"benchmarks/sections/training_step_lenet_{threads}.md"
    rows = re.findall(
        r"^\| ([^|]+) \| ([\d.]+) \| [\d.]+ \|$",
        (ROOT / section).read_text(),
        re.MULTILINE,
    )
    return {name: float(value) for name, value in rows}


def test_the_speeds_in_the_readme_are_those_that_were_measured():
    text = README.read_text().split("## Speed")[1].split("\n## ")[0]
    number = r" (\d\.\d\d) \|"
    told = re.findall(rf"^\| ([^|]+) \|{number}{number}$", text, re.MULTILINE)
    assert len(told) == len(SPEED)
    for name, *values in told:
        (key,) = [key for key in SPEED if name.startswith(key)]
        for threads, value in enumerate(values, 1):
            found = measured(threads)[SPEED[key]]
            assert abs(found - float(value)) < 0.0051, (name, threads)
