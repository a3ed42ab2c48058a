"""Executors: order, retries, failures, stops; with processes that are tiny."""

import functools
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from keras_lottery.runs import executors
from keras_lottery.runs import trials
from keras_lottery.runs.trials import Trial

ROOT = pathlib.Path(trials.__file__).parents[2]
# Says when it began and ended; fails as often as it is told to.
WORK = """
import pathlib, sys, time
name, failures, code, seconds = sys.argv[1:]
with open("events", "a") as file:
    file.write(f"begin {name}\\n")
time.sleep(float(seconds))
failed = pathlib.Path("events").read_text().count(f"begin {name}\\n")
print(f"{name} is at its attempt {failed}")
with open("events", "a") as file:
    file.write(f"end {name}\\n")
sys.exit(int(code) if failed <= int(failures) else 0)
"""
HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="needs the extra 'ray'")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for workers of Ray
    return tmp_path


def work(name, *after, failures=0, code=1, seconds=0):
    words = [name, *map(str, (failures, code, seconds))]
    log = os.path.abspath(f"logs/{name}.log")
    return Trial(name, ("-c", WORK, *words), log, after)


def events():
    return pathlib.Path("events").read_text().split("\n")[:-1]


def attempts(name):
    return events().count(f"begin {name}")


def play(wanted, **options):
    """Returns (outcome codes by name, the names in the order of ending)."""
    told = []
    options = {"jobs": 2, "retries": 1, **options}
    outcomes = executors.local(
        wanted, lambda t, o: told.append(t.name), **options
    )
    return {name: each.code for name, each in outcomes.items()}, told


def play_on_ray(wanted, *, jobs, retries):
    from keras_lottery.runs import ray_executor

    told = []
    outcomes = ray_executor.on_ray(
        wanted,
        lambda t, o: told.append(t.name),
        jobs=jobs,
        retries=retries,
        threads=1,
    )
    return {name: each.code for name, each in outcomes.items()}, told


@pytest.mark.parametrize(
    "run",
    [play, pytest.param(play_on_ray, marks=[needs_ray, pytest.mark.thorough])],
)
def test_order_retries_and_failures(run):
    """The same on every executor, in one go: a Ray cluster takes seconds."""
    codes, told = run(
        [
            work("a"),
            work("flaky", failures=1),
            work("broken", failures=9, code=3),
            work("usage", failures=9, code=2),
            work("after_a", "a"),
            work("after_both", "a", "flaky"),
            work("after_broken", "a", "broken"),
            work("last", "after_broken"),
        ],
        jobs=2,
        retries=1,
    )
    assert codes == {
        "a": 0,
        "flaky": 0,
        "broken": 3,
        "usage": 2,
        "after_a": 0,
        "after_both": 0,
        "after_broken": None,
        "last": None,
    }
    assert sorted(told) == sorted(codes)  # each of them once
    assert attempts("flaky") == 2 and attempts("broken") == 2
    assert attempts("usage") == 1  # trying again changes nothing
    assert "begin last" not in events()
    assert "begin after_broken" not in events()
    ends = {name: max(_where(f"end {name}")) for name in ("a", "flaky")}
    assert ends["a"] < min(_where("begin after_a"))
    assert max(ends.values()) < min(_where("begin after_both"))
    log = pathlib.Path("logs/flaky.log")
    assert trials.tail(log)[-1] == "flaky is at its attempt 2"
    assert len([x for x in trials.tail(log, 99) if x.startswith("---")]) == 2


def _where(event):
    return [n for n, each in enumerate(events()) if each == event]


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_more_at_once_than_jobs(jobs):
    play([work(f"t{n}", seconds=0.3) for n in range(4)], jobs=jobs)
    at_once, most = 0, 0
    for event in events():
        at_once += 1 if event.startswith("begin") else -1
        most = max(most, at_once)
    assert most == jobs


def test_every_trial_has_a_gpu_of_its_own():
    code = (
        "import os, time; time.sleep(0.3); "
        "open('seen', 'a').write(os.environ['CUDA_VISIBLE_DEVICES'] + ' ')"
    )
    wanted = [
        Trial(f"t{n}", ("-c", code), os.path.abspath(f"{n}.log"))
        for n in range(4)
    ]
    codes, _ = play(wanted, jobs=4, devices=("5", "GPU-7"))
    assert set(codes.values()) == {0}
    seen = pathlib.Path("seen").read_text().split()
    # Two at once, never both on one.
    assert {*seen[:2]} == {*seen[2:]} == {"5", "GPU-7"}


STOPPED = """
import signal
import sys
from keras_lottery.runs import executors, trials
# What was started in the background may be told to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
command = ("-c", "import time; time.sleep(60)")
wanted = [
    trials.Trial(str(n), command, f"{sys.argv[1]}/{n}.log") for n in range(3)
]
try:
    with trials.interruptible():
        executors.local(wanted, None, jobs=2, retries=5)
except KeyboardInterrupt:
    sys.exit(75)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_processes_and_starts_none(number, folder):
    sweep = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(folder)],
    )
    pids = [_pid(folder / f"{n}.log") for n in range(2)]
    sweep.send_signal(number)
    assert sweep.wait(30) == 75
    assert not any(_is_alive(pid) for pid in pids)
    assert not (folder / "2.log").exists() or not _pids(folder / "2.log")


def test_a_process_ends_with_whoever_started_it(folder):
    """Also by kill -9: what goes on training would hold its lock."""
    code = (
        "import time; from keras_lottery.cli import trial; trial.watch(); "
        "print('watching', flush=True); time.sleep(60)"
    )
    parent = (
        "import sys; from keras_lottery.runs import trials; "
        f"trials.Processes().run(trials.Trial('t', ('-c', {code!r}), "
        "sys.argv[1]))"
    )
    log = folder / "t.log"
    process = subprocess.Popen(
        [sys.executable, "-c", parent, str(log)],
    )
    pid = _pid(log)
    _until(lambda: "watching" in log.read_text())
    assert _is_alive(pid)
    process.kill()
    process.wait()
    _until(lambda: not _is_alive(pid))


def test_a_tail_steers_no_terminal_and_is_short(folder):
    log = folder / "log"
    log.write_bytes(b"x\n" * 50_000 + b"\x1b[2Jred\xff\n\n" + b"y" * 10_000)
    found = trials.tail(log, 3)
    assert found[0] == "x" and "red" in found[1] and len(found[2]) == 300
    assert not any("\x1b" in line for line in found)
    assert trials.tail(folder / "none") == []


def test_outside_the_main_thread_signals_stay_as_they_are():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def enter():
        with trials.interruptible():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


def _until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def _pids(log):
    lines = log.read_text().splitlines() if log.exists() else []
    return [int(x.split()[2]) for x in lines if x.startswith("--- process ")]


def _pid(log):
    _until(functools.partial(_pids, log))
    return _pids(log)[-1]


def _is_alive(pid):
    """A zombie whose parent died before it is not."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
