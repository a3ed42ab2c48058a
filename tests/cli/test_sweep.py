"""`sweep`: what it refuses and plans; its numbers are those of a run."""

import csv
import importlib.util
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import threading

import pytest

from keras_lottery.cli import grid
from keras_lottery.cli import sweep
from keras_lottery.runs import executors
from keras_lottery.runs import identity
from keras_lottery.runs import paths
from keras_lottery.runs.directory import RunDirectory

ROOT = pathlib.Path(executors.__file__).parents[2]
LEVELS = 4
# Levels long enough to be stopped in, for who looks every few milliseconds.
SLOW = (
    "--config=digits:smoke",
    "--config.eval_every=100",
    "--config.train.steps=2000",
    f"--config.prune.levels={LEVELS}",
    "--noconfig.controls.one_shot",
)
GRID = "--grid.train.learning_rate=(5e-3,1e30)"
TICKET = "replicate_0/ticket"


@pytest.fixture
def untouched(tmp_path, monkeypatch):
    """Neither trains nor writes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(executors, "local", None)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("--grid.prune.criterio=('magnitude',)", "mean 'prune.criterion'?"),
        ("--grid.prune.criterion=('magnitud','random')", "Expected one of 'ma"),
        ("--grid.prune.criterion=magnitude,random", "tuple in quotes"),
        ("--grid.prune.criterion=('magnitude')", "tuple in quotes"),
        ("--grid.seed=()", "at least one"),
        ("--grid.seed=(0,'a')", "seed must be an int"),
        ("--grid.seed=(0,-1)", "seed=-1: `seed` must be an int >= 0"),
        ("--grid.train.optimizer=(1,2)", "1 is not a value like '1'"),
        ("--grid.train.learning_rate=(1e-3,0.001)", "one point twice"),
        ("--grid.replicates=(1,2)", "--config.replicates"),
        ("--grid.prune.levels=(1,2)", "does not tell runs apart"),
        ("--grid.export.tolerance=(0.0,0.1)", "does not tell runs apart"),
        ("--grid.seed=(0,1) --grid.seed=(2,)", "given twice"),
        ("--grid.seed=(0,1) --config.seed=3", "both given"),
        ("--grid=(0,1)", "a grid varies a setting"),
        ("--grid.prune=(0,1)", "Unknown setting --grid.prune"),
        ("--config.distribute.strategy=mirrored", "one device of its own"),
        ("--jobs=0", "jobs"),
        ("--threads=0", "threads"),
        ("--retries=-1", "retries"),
        ("--executor=rai", "local|ray"),
        ("--address=auto", "--executor=ray"),
        ("--executor=ray --address=auto --jobs=2", "for Ray to decide"),
        ("--jbos=2", "Did you mean 'jobs'?"),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_trained(
    typed, told, answer, untouched
):
    found = answer("sweep", "--config=digits:smoke", *typed.split())
    assert found.code == 2, found
    assert told in found.err


def test_without_ray_the_error_says_how_to_get_it(
    answer, untouched, monkeypatch
):
    monkeypatch.setitem(sys.modules, "ray", None)
    found = answer("sweep", "--executor=ray")
    assert found.code == 2 and "keras_lottery[ray]" in found.err


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("seed=(0,1)", [0, 1]),
        ("train.learning_rate=1e-3,1", [1e-3, 1.0]),
        ("train.optimizer=['sgd','adam']", ["sgd", "adam"]),
        ("train.drops=((),(5,),(5,10))", [(), (5,), (5, 10)]),
        ("data.normalize=(True,False)", [True, False]),
        ("model.arguments.hidden=((30,10),(5,))", [(30, 10), (5,)]),
        ("prune.rates=((('output/*',0.1),),())", [(("output/*", 0.1),), ()]),
    ],
)
def test_a_point_is_what_run_makes_of_the_same_settings(typed, values):
    words = ["--config", "digits:smoke", "--jobs=3", f"--grid.{typed}"]
    points, rest = grid.split(words, "mnist_lenet")
    path = typed.partition("=")[0]
    assert rest == ["--jobs=3"]
    assert [point.settings for point in points] == [{path: v} for v in values]
    for point, value in zip(points, values):
        found = point.config
        for name in path.split("."):
            found = found[name]
        assert found == value and type(found) is type(value)
        (again,), _ = grid.split(list(point.typed), "mnist_lenet")
        assert identity.identity(again.config) == identity.identity(
            point.config
        )
    assert len({identity.identity(p.config) for p in points}) == len(values)


def test_a_grid_is_the_product_and_a_dry_run_lists_it(answer, untouched):
    found = answer(
        "sweep",
        "--config=digits:smoke",
        "--config.controls.names=('shuffle',)",
        "--grid.seed=(0,1)",
        "--grid.prune.criterion=('magnitude','random','movement')",
        "--dry_run",
        "--workdir=mine",
    )
    assert found.code == 0, found.err
    heads = re.findall(r"^mine/\S+  (seed.*)$", found.out, re.M)
    assert heads == [
        f"seed={s}, prune.criterion={c}"
        for s in (0, 1)
        for c in ("magnitude", "random", "movement")
    ]
    names = re.findall(r"^  (\S+)(?:  after (\S+))?$", found.out, re.M)
    assert len(names) == 6 * 3  # ticket, shuffled, one shot
    for name, after in names:
        run, _, part = name.partition("/")
        assert after == ("" if part == TICKET else f"{run}/{TICKET}")
    assert [bool(after) for _, after in names] == [False] * 6 + [True] * 12


def test_where_modes_are_measured_one_process_measures(answer, untouched):
    found = answer(
        "sweep",
        "--config=digits:smoke",
        "--config.replicates=2",
        "--config.train.compile=measure",
        "--dry_run",
    )
    lines = [line.split() for line in found.out.splitlines()]
    after = {
        words[0].partition("/")[2]: {
            word.strip(",").partition("/")[2] for word in words[2:]
        }
        for words in lines
        if "/replicate_" in words[0]
    }
    assert after[TICKET] == set()
    assert after["replicate_0/shuffled_0"] == {TICKET}
    assert after["replicate_1/ticket"] == {TICKET}
    assert after["replicate_1/shuffled_0"] == {TICKET, "replicate_1/ticket"}


class When(threading.Thread):
    """Does something once, as soon as a file is there."""

    def __init__(self, path, act):
        super().__init__(daemon=True)
        self.path, self.act, self.done = path, act, False
        self._over = threading.Event()

    def run(self):
        while not self._over.wait(0.003):
            if os.path.exists(self.path):
                self.act()
                self.done = True
                return

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *unused):
        self._over.set()
        self.join()


def terminate_sweep():
    """Sends SIGTERM to this process, which is the sweep's."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        os.kill(os.getpid(), signal.SIGTERM)


def pids(log):
    """The processes of a trial, from its log."""
    text = pathlib.Path(log).read_text()
    return [int(n) for n in re.findall(r"^--- process (\d+) on", text, re.M)]


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def level_of(run, level, part=TICKET):
    return pathlib.Path(run, part, f"level_{level}", paths.DONE)


def levels_of(run, part=TICKET):
    return [n for n in range(LEVELS + 1) if level_of(run, n, part).exists()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A function: the directory that `run` made of the same settings."""
    workdir = tmp_path_factory.mktemp("whole")
    typed = ["run", *SLOW, "--threads=1", f"--workdir={workdir}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_lottery.cli.main", *typed],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    def finished():
        assert process.wait(300) == 0
        (found,) = (p for p in workdir.iterdir() if p.is_dir())
        return found

    yield finished
    process.kill()
    process.wait()


def check_equal(run, whole, contents):
    """Every file that training wrote, byte for byte, and a time of each."""
    found, right = (
        {
            name: content
            for name, content in contents(path).items()
            if name.startswith("replicate_0/") or name == paths.LEVELS
            if not name.endswith(paths.TIME)
        }
        for path in (run, whole)
    )
    assert len(right) == 3 * (LEVELS + 1) + 2 * 2 * LEVELS + 1
    assert set(found) == set(right)
    assert [name for name in right if found[name] != right[name]] == []
    rows = rows_of(pathlib.Path(run, paths.LEVELS))
    times = rows_of(pathlib.Path(run, paths.TIMES))
    assert [(row["arm"], row["level"]) for row in times] == [
        (row["arm"], row["level"]) for row in rows
    ]


@pytest.mark.thorough
def test_a_sweep_that_is_stopped_and_loses_a_process_ends_as_run_does(
    answer, tmp_path, monkeypatch, whole, contents
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sweep, "_trial", failing(sweep._trial))
    workdir = tmp_path / "my runs"
    typed = ["sweep", *SLOW, GRID, "--jobs=2", "--retries=1"]
    typed += [f"--workdir={workdir}"]
    planned = answer(*typed, "--dry_run")
    good, bad = re.findall(r"^(.*)  train\.learning_rate=", planned.out, re.M)
    (table,) = re.findall(r"^sweep +(.*)$", planned.out, re.M)
    log = f"{table}/logs/{os.path.basename(good)}/replicate_0-ticket.log"

    with When(level_of(good, 0), terminate_sweep) as stop:
        stopped = answer(*typed)
    assert stop.done and stopped.code == 75, stopped
    assert shlex.split(stopped.err.splitlines()[-1]) == [
        "keras-lottery",
        *typed,
    ]
    left = levels_of(good)
    assert 0 < len(left) <= LEVELS
    assert not RunDirectory(good).is_locked()  # nothing went on
    assert not pathlib.Path(good, "replicate_0/shuffled_0").exists()

    with When(
        level_of(good, len(left)), lambda: os.kill(pids(log)[-1], 9)
    ) as kill:
        ended = answer(*typed)
    assert kill.done and len(pids(log)) == 3  # stopped, killed, whole
    check_equal(good, whole(), contents)
    check_failure(ended, bad)
    check_table(f"{table}/levels.csv", good, ended)
    command = json.loads(pathlib.Path(good, paths.CONFIG).read_text())
    assert shlex.split(command["command"]) == [
        "keras-lottery",
        "run",
        *SLOW,
        "--config.train.learning_rate=0.005",
        f"--workdir={workdir}",
        "--threads=1",
    ]
    assert answer("verify", good).code == 0


def failing(plain):
    """The second point fails at once, which takes no second each."""

    def command(point, part, chosen):
        if point.settings["train.learning_rate"] == 5e-3:
            return plain(point, part, chosen)
        return ("-c", "raise SystemExit('loss is nan at level 0')")

    return command


def check_failure(ended, bad):
    """The point that fails is tried twice and told; its controls wait."""
    assert ended.code == 1
    assert "3 of 6 trials failed" in ended.out
    failures = ended.out.partition("trials failed:")[2]
    name = os.path.basename(bad)
    assert f"{name}/{TICKET}: exit code 1, 1 retries; " in failures
    # Two attempts each of the sweep that was stopped, and of this one.
    assert failures.count("    | loss is nan at level 0\n") == 4
    for arm in ("reinitialized_0", "shuffled_0"):
        assert f"replicate_0/{arm}: not started, as {name}/{TICKET}" in failures
    assert levels_of(bad) == []
    assert f"] {name}/{TICKET} FAILED (" in ended.out
    assert f"] {name}/replicate_0/shuffled_0 not started\n" in ended.out
    shares = re.findall(r"^\[ *(\d+)%\] ", ended.out, re.M)
    assert shares == ["17", "33", "50", "67", "83", "100"]


def check_table(path, good, ended):
    rows = rows_of(path)
    own = rows_of(f"{good}/levels.csv")
    extra = {"run": os.path.basename(good), "train.learning_rate": "0.005"}
    assert rows == [{**extra, **row} for row in own]
    assert list(rows[0])[:2] == list(extra)
    assert len(rows) == 1 + LEVELS * 3
    (dense,) = (r for r in rows if (r["arm"], r["level"]) == ("ticket", "0"))
    shown = f"{100 * float(dense['test_accuracy']):.2f} %"
    assert re.search(
        rf"^train.learning_rate=0.005 +1 +{shown} +\S+", ended.out, re.M
    )
    assert re.search(
        r"^train.learning_rate=1e\+30 +0 +nothing trained$", ended.out, re.M
    )
    assert os.path.exists(f"{good}/report.html")


@pytest.mark.thorough
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the extra 'ray'"
)
def test_on_ray_a_lost_worker_is_replaced_and_the_numbers_are_a_runs(
    answer, tmp_path, monkeypatch, whole, contents
):
    """Killed is the worker: its trial must end with it, and go on elsewhere."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    typed = ["sweep", *SLOW, "--jobs=2", "--executor=ray", "--retries=1"]
    planned = answer(*typed, "--dry_run")
    (path,) = re.findall(r"^sweep +(.*)$", planned.out, re.M)
    (run,) = re.findall(rf"^({tmp_path}\S+)$", planned.out, re.M)
    log = f"{path}/logs/{os.path.basename(run)}/replicate_0-ticket.log"

    def kill_the_worker():
        stat = pathlib.Path(f"/proc/{pids(log)[-1]}/stat").read_text()
        os.kill(int(stat.rpartition(")")[2].split()[1]), 9)

    with When(level_of(run, 0), kill_the_worker) as kill:
        ended = answer(*typed)
    assert ended.code == 0, ended
    assert kill.done and len(pids(log)) == 2
    check_equal(run, whole(), contents)
    assert ended.out.count(" done (") == 3
    assert len(rows_of(f"{path}/levels.csv")) == 1 + LEVELS * 3
