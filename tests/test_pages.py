"""The pages of docs/ are run: their Python, and their commands."""

import ast
import fnmatch
import pathlib
import re
import shlex
import sys

import keras
import pandas as pd
import pytest

from keras_lottery.cli import main
from keras_lottery.cli import start
from keras_lottery.exporting import formats
from keras_lottery.exporting import rounding
from keras_lottery.runs import configuration
from keras_lottery.runs import paths
from keras_lottery.tickets import controls
from keras_lottery.tickets import rewind
from keras_lottery.training import compiling

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"
RUNS = "# seconds"  # behind a command that is run, not only parsed

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(
        not DOCS.exists(), reason="needs a checkout: docs/ is not installed"
    ),
]


class Parsed(BaseException):
    """A command got past its own arguments: what follows is heavy."""


def text_of(page):
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page, languages="python|sh"):
    """Pairs (language, text), in order."""
    pattern = rf"^```({languages})\n(.*?)^```"
    return re.findall(pattern, text_of(page), re.DOTALL | re.MULTILINE)


def commands(block):
    """Pairs (arguments of keras-lottery, whether it is run)."""
    for line in block.splitlines():
        if line.startswith("keras-lottery"):
            typed = shlex.split(line, comments=True)[1:]
            yield typed, RUNS in line


def run(typed):
    """What a command exits with, in this process."""
    with pytest.raises(SystemExit) as stopped:
        main.main(typed)
    return stopped.value.code


def parse(typed):
    """Whether a command's own arguments are understood; nothing is done."""

    def stop():
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "tensorflow", stop)
        patch.setattr(start, "require_matplotlib", stop)
        try:
            main.main(typed)
        except Parsed:
            return True
        except SystemExit as stopped:
            return stopped.code == 0  # a listing that needs nothing heavy
    return False


def played(page):
    """Runs a page from top to bottom in this folder; returns its names.

    Python that begins with `# name.py` is also the file of that name.
    """
    names = {}
    for language, block in blocks(page):
        if language == "python":
            name = re.match(r"# (\w+\.py)\n", block)
            if name:
                pathlib.Path(name[1]).write_text(block, encoding="utf-8")
            exec(block, names)
            continue
        for typed, runs in commands(block):
            assert parse(typed), typed
            if runs:
                assert run(typed) == 0, typed
    return names


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current directory, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(
            str(tmp_path)
        ):
            del sys.modules[name]


@pytest.mark.parametrize(
    "page", ["quickstart.md", "experiments.md", "serving.md"]
)
def test_a_page_has_something_to_run(page):
    languages = [language for language, _ in blocks(page)]
    assert languages.count("python") >= 5
    found = [
        each for _, block in blocks(page, "sh") for each in commands(block)
    ]
    assert sum(runs for _, runs in found) >= 3
    assert len(found) > sum(runs for _, runs in found)


def test_what_is_mistyped_is_not_parsed(folder, capsys):
    assert parse(["run", "--config.prune.levels=4"])
    assert not parse(["run", "--config.prune.levls=4"])
    assert "Did you mean 'prune.levels'?" in capsys.readouterr().err
    assert not parse(["run", "--config=./mine.py"])
    assert not parse(["export", "digits.safetensors"])


def test_structure_does_what_it_says(folder):
    names = played("structure.md")
    assert names["rows"].sum(1).max() == 2
    assert names["mask"].kept <= names["mask"].size // 2
    size = 0
    for path in pathlib.Path(names["path"]).rglob("*"):
        size += path.stat().st_size
    assert size > 0


def test_the_quickstart_does_what_it_says(folder, capsys):
    names = played("quickstart.md")
    kept = [ticket.mask.kept for ticket in names["pruned"].tickets]
    size = 64 * 100 + 100 * 10
    assert kept == [size - round((1 - 0.5**n) * size) for n in range(4)]
    ticket, control = names["ticket"], names["control"]
    assert names["again"].mask == ticket.mask == control.mask
    assert ticket.level >= 1
    before, after = ticket.start, control.start
    assert (before["hidden/kernel"] != after["hidden/kernel"]).all()
    # The page's own export, and the one of its command.
    served = folder / "serving" / "digits"
    assert sorted(path.name for path in served.iterdir()) == ["1", "2"]
    printed = capsys.readouterr().out
    assert "Multiply-adds are not time" in printed
    assert "digits.safetensors: <Ticket of level" in printed
    assert re.search(r"ticket \d+\.\d%, reinitialized \d+\.\d%", printed)


@pytest.mark.thorough
def test_serving_does_what_it_says(folder, capsys):
    pytest.importorskip(
        "tensorflow_serving.apis", reason="needs the extra 'serving'"
    )
    names = played("serving.md")
    printed = capsys.readouterr().out
    # The page's own export, and the one of its command.
    served = folder / "serving" / "digits"
    assert sorted(path.name for path in served.iterdir()) == ["1", "2"]
    size = 64 * 300 + 300 * 100 + 100 * 10
    assert names["ticket"].mask.kept == size - round(0.9 * size)
    # It failed where weights are compared, not in the graph around them.
    assert "inflate() failed" in printed
    for values in ("float16", "bfloat16", "int8"):
        assert f"values={values}: output_0 differs by up to" in printed
    assert "serving/digits/2: as it says" in printed
    assert "serving/smaller/1: as it says" in printed


def test_the_formats_and_values_of_the_page_are_those_of_the_code():
    text = text_of("serving.md")
    table = text.partition("| `format=` |")[2].partition("\n\n")[0]
    assert re.findall(r'^\| `"([\w-]+)"`', table, re.M) == list(formats.FORMATS)
    table = text.partition("| `values=` |")[2].partition("\n\n")[0]
    found = re.findall(r'^\| `"(\w+)"`(?!, `format)', table, re.M)
    assert found == list(rounding.VALUES)


@pytest.mark.thorough
def test_the_experiments_do_what_they_say(folder, capsys):
    names = played("experiments.md")
    printed = capsys.readouterr().out
    check_the_directory(next(folder.glob("runs/mine-*")))
    check_the_columns(next(folder.glob("runs/mine-*/levels.csv")))
    check_the_houses(names)
    assert "done, 20 of 20 trainings" in printed  # mine, by `list runs`
    assert list(names["table"].columns) == [
        "reinitialized",
        "shuffled",
        "ticket",
    ]


def check_the_directory(run):
    """Every file of a run is in the tree of the page, and the reverse."""
    ((_, tree),) = blocks("experiments.md", "text")
    named = set(re.findall(r"[a-z_]+\.(?:json|csv|html|safetensors)", tree))
    found = {
        path.name
        for path in run.rglob("*.*")
        if "export" not in path.relative_to(run).parts and path.is_file()
    }
    assert named == found - {paths.LOCK}
    level = run / "replicate_0" / "reinitialized_0" / "level_1"
    assert {path.name for path in level.iterdir()} == {
        paths.METRICS,
        paths.TIME,
        paths.DONE,
    }
    assert run.name.startswith("mine-") and "mine-0123456789ab/" in tree
    text = text_of("experiments.md")
    assert f"`{paths.POINT}`" in text and f"`{paths.END}`" in text


def check_the_columns(path):
    """Every column is in the table of the page, and the reverse."""
    rows = (
        re.search(
            r"^\| column of levels\.csv \|.*?\n\n",
            text_of("experiments.md"),
            re.DOTALL | re.MULTILINE,
        )[0]
        .strip()
        .splitlines()[2:]
    )
    first = "\n".join(row.split("|")[1] for row in rows)
    patterns = re.findall(r"`([a-z_*]+)`", first)
    columns = list(pd.read_csv(path).columns)
    for column in columns:
        assert any(fnmatch.fnmatch(column, each) for each in patterns), column
    for each in patterns:
        assert fnmatch.filter(columns, each), each
    metrics = pd.read_csv(
        path.parent / "replicate_0/ticket/level_0/metrics.csv"
    )
    assert {"step", "loss", "accuracy", "val_loss", "test_loss"} <= set(metrics)
    times = pd.read_csv(path.parent / "times.csv")
    assert list(times) == ["replicate", "arm", "level", "began", "seconds"]


def check_the_houses(names):
    """A regression: its numbers, by hand, from the ticket that was kept."""
    levels, run = names["levels"], names["run"]
    assert run.name.startswith("houses-")
    assert "test_accuracy" not in levels
    first = levels[(levels.arm == "ticket") & (levels.level == 0)].iloc[0]
    assert first["size"] == 4 * 64 + 64 * 1
    assert first.early_step % 50 == 0
    curve = pd.read_csv(run / "replicate_0/ticket/level_0/metrics.csv")
    lowest = curve.loc[curve.val_loss.idxmin()]
    assert lowest.step == first.early_step
    assert lowest.test_mae == first.test_mae
    assert 0 <= first.test_within_half <= 1
    # Better than the best constant, which knows nothing of x.
    _, _, (_, y) = names["load"](noise=0.05)
    assert first.test_mae < abs(y - sorted(y.ravel())[len(y) // 2]).mean()


def settings_of_the_page():
    """Dict from setting to default, as the table has them."""
    rows = re.findall(
        r"^\| `([a-z_.]+)` \| `([^|]+)` \|.*\|$",
        text_of("experiments.md").partition("| column of")[0],
        re.MULTILINE,
    )
    assert len(rows) == len(dict(rows))  # none twice
    return {name: ast.literal_eval(default) for name, default in rows}


def test_the_table_of_settings_is_the_one_of_the_code():
    assert settings_of_the_page() == configuration.flat(
        configuration.defaults()
    )


def test_the_tables_of_controls_and_rewinds_are_those_of_the_code():
    text = text_of("experiments.md")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)_0` \|", text, re.MULTILINE)
    assert dict(rows) == controls.ARMS
    table = text.partition("| `rewind.name` | a level")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == list(rewind.REWINDS)


def test_there_are_as_many_networks_as_the_quickstart_says():
    config = configuration.load("digits")
    arms = 1 + len(config.controls.names) * config.controls.repeats
    total = config.replicates * (1 + config.prune.levels * arms)
    assert f"trains {total} networks" in text_of("quickstart.md")


def test_speed_does_what_it_says(folder):
    names = played("speed.md")
    assert len(names["pruned"].tickets) == 3


def test_reliability_does_what_it_says(folder, capsys):
    names = played("reliability.md")
    assert [ticket.level for ticket in names["again"]] == [0, 1, 2]
    # The second of two equal commands trained nothing.
    printed = capsys.readouterr().out
    assert printed.count("[100%]") == 1
    assert len(list(folder.glob("kept/digits_smoke-*"))) == 1


def test_devices_do_what_they_say(folder, capsys):
    names = played("devices.md")
    size = 64 * 32 + 32 * 10
    kept = [ticket.mask.kept for ticket in names["pruned"].tickets]
    assert kept == [size - round((1 - 0.5**n) * size) for n in range(3)]
    assert 0 < names["pruned"].evaluate(*names["digits"].test, verbose=0)[1]


def test_tpu_does_what_it_says_on_a_cpu(folder, capsys):
    before = keras.config.dtype_policy()
    try:
        names = played("tpu.md")
    finally:
        keras.config.set_dtype_policy(before)
    size = 64 * 300 + 300 * 10
    kept = [ticket.mask.kept for ticket in names["pruned"].tickets]
    assert kept == [size - round((1 - 0.5**n) * size) for n in range(3)]
    rows = len(names["whole"](*names["digits"].train)[1])
    assert rows % names["batch_size"] == 0
    printed = capsys.readouterr().out
    alone = names["strategy"].num_replicas_in_sync == 1
    assert ("Without a TPU: " in printed) == alone
    assert printed.count("<Ticket of level") == 3


def test_tpu_says_that_it_was_never_run():
    text = text_of("tpu.md")
    assert text.startswith("# TPU\n\n**Never run by us on a TPU.**")
    (row,) = re.findall(
        r"^\| TPU \| (.*) \|$",
        (DOCS.parent / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert row.startswith("never run by us")
    tests = re.search(r"`(tests/[\w/]+\.py)`", text)[1]
    assert (DOCS.parent / tests).exists()


def test_speed_has_the_table_that_decides():
    rows = re.findall(
        r"^\| (CPU|GPU, TPU) \| (.*?) \|.*\| (.*?) \|$",
        text_of("speed.md"),
        re.MULTILINE,
    )
    told = {
        (kind, layers.startswith("only")): mode
        for kind, layers, mode in rows
        if layers != "the same"
    }
    assert told["CPU", True].startswith("XLA")
    assert compiling.TABLE["CPU", True] == "xla"
    assert told["CPU", False] == compiling.TABLE["CPU", False] == "graph"
    assert told["GPU, TPU", False].startswith("graph")
    accelerators = {
        v for (kind, _), v in compiling.TABLE.items() if kind != "CPU"
    }
    assert accelerators == {"graph"}
    assert f"| {compiling.LONG} steps or more |" in text_of("speed.md")
    assert compiling.SMALL == 1_000_000
    assert "a million weights at most" in text_of("speed.md")
