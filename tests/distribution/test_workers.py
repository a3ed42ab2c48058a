"""Two workers on loopback: the same lottery, and one that is killed."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from keras_lottery.runs.directory import RunDirectory
from keras_lottery.tickets.ticket import Ticket

pytestmark = pytest.mark.thorough

HERE = pathlib.Path(__file__).parent
SLOW = 300  # seconds; nothing here takes a fifth of that on a quiet machine
RUN = (
    *("run", "--config=digits:smoke", "--config.replicates=1"),
    *("--config.train.steps=1500", "--config.eval_every=500"),
    *("--config.model.arguments={'hidden':(8,)}", "--config.controls.names=()"),
    *("--config.controls.one_shot=False", "--config.prune.levels=3"),
)


def free_ports(count):
    """Returns ports on which nothing listens."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def cluster(count=2):
    """Returns the TF_CONFIG of each worker; None for one process alone."""
    if count == 1:
        return [None]
    hosts = [f"127.0.0.1:{port}" for port in free_ports(count)]
    return [
        json.dumps(
            {
                "cluster": {"worker": hosts},
                "task": {"type": "worker", "index": index},
            }
        )
        for index in range(count)
    ]


def start(arguments, tf_config, log):
    """Starts a process of Python; what it prints goes to a file."""
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(HERE.parents[1]),
    }
    environment.pop("TF_CONFIG", None)
    if tf_config is not None:
        environment["TF_CONFIG"] = tf_config
    with open(log, "w") as file:
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
        )


def ended(processes, logs):
    """Waits for processes; returns their exit codes and what they printed."""
    try:
        codes = [each.wait(SLOW) for each in processes]
    finally:
        for each in processes:
            each.kill()
    return codes, [log.read_text() for log in logs]


class Found:
    """What workers left: arrays and facts of each."""

    def __init__(self, folder, count):
        files = [np.load(folder / f"{index}.npz") for index in range(count)]
        self.arrays = [dict(file) for file in files]
        texts = [(folder / f"{i}.json").read_text() for i in range(count)]
        self.facts = [json.loads(text) for text in texts]


def found_by(count, folder):
    """Has so many workers do what `worker.py` says."""
    logs = [folder / f"{index}.log" for index in range(count)]
    processes = [
        start([HERE / "worker.py", folder], tf_config, log)
        for tf_config, log in zip(cluster(count), logs)
    ]
    codes, told = ended(processes, logs)
    assert codes == [0] * count, told
    return Found(folder, count)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Returns what one process on one device has found."""
    return found_by(1, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Returns what two workers have found."""
    return found_by(2, tmp_path_factory.mktemp("two"))


LOTTERIES = ("none", "norm", "all", "ways", "legacy")


@pytest.mark.parametrize("name", LOTTERIES)
def test_two_workers_find_the_masks_and_weights_of_one_device(name, one, two):
    (alone,), together = one.arrays, two.arrays[0]
    masks = [key for key in alone if key.startswith(f"{name}/mask/")]
    assert len(masks) == 3 * 2  # levels, kernels
    for key in masks:
        np.testing.assert_array_equal(together[key], alone[key], key)
    variables = [key for key in alone if key.startswith(f"{name}/variable/")]
    assert len(variables) == 4
    for key in variables:
        np.testing.assert_allclose(together[key], alone[key], 0, 1e-5, key)


def test_both_workers_hold_the_same_bits(two):
    first, second = two.arrays
    assert sorted(first) == sorted(second)
    for key, array in first.items():
        assert array.tobytes() == second[key].tobytes(), key


@pytest.mark.parametrize("name", ["none", "norm", "all", "ways"])
def test_both_workers_are_told_what_one_device_is_told(name, one, two):
    (alone,) = one.facts
    for worker in two.facts:
        assert list(worker[name]) == list(alone[name])
        for key, column in alone[name].items():
            np.testing.assert_allclose(worker[name][key], column, 0, 1e-5, key)


def test_evaluate_and_predict_are_those_of_one_device(one, two):
    (alone,) = one.facts
    for worker in two.facts:
        for way, expected in alone["evaluate"].items():
            np.testing.assert_allclose(
                worker["evaluate"][way], expected, 0, 1e-5, way
            )
    for arrays in two.arrays:
        assert arrays["predict"].shape == (131, 4)
        np.testing.assert_allclose(
            arrays["predict"], one.arrays[0]["predict"], 0, 1e-5
        )


def test_a_worker_that_differs_stops_the_lottery_on_both(two):
    for worker in two.facts:
        message, tickets = worker["differing"]
        assert "1 variables are not the same on all replicas" in message
        assert "dense/bias" in message
        assert tickets == 1  # of level 0, before the difference


def test_workers_with_different_plans_do_not_start(two):
    for worker in two.facts:
        assert worker["disagreeing"].startswith(
            "The workers differ in the plan"
        )


def rows_of(workdir):
    """Returns the directory of the only run, and its rows by level."""
    (path,) = [p for p in workdir.iterdir() if p.is_dir()]
    run = RunDirectory.open(path)
    return run, run.rows()


def command(workdir, strategy):
    """Returns the command of a run under a strategy."""
    return [
        *("-m", "keras_lottery.cli.main", *RUN, f"--workdir={workdir}"),
        f"--config.distribute.strategy={strategy}",
        "--config.distribute.timeout=60",
    ]


def test_a_killed_worker_stops_the_others_and_fewer_go_on(tmp_path):
    workdir = tmp_path / "runs"
    logs = [tmp_path / f"{index}.log" for index in range(2)]
    processes = [
        start(command(workdir, "multi_worker"), tf_config, log)
        for tf_config, log in zip(cluster(), logs)
    ]
    try:
        wait_for_level(1, workdir, processes, logs)
        processes[1].send_signal(signal.SIGKILL)
        began = time.monotonic()
        code = processes[0].wait(SLOW)
        seconds = time.monotonic() - began
    finally:
        _, told = ended(processes, logs)
    assert code == 75, told[0]
    assert seconds < 60 + 30, seconds  # the timeout, and to end the process
    assert "a worker is lost. What is finished is kept. Start all" in told[0]
    _, before = rows_of(workdir)
    assert [row["level"] for row in before][:2] == [0, 1]
    assert len(before) < 4

    log = tmp_path / "again.log"
    again = start(command(workdir, "none"), None, log)
    assert ended([again], [log])[0] == [0], log.read_text()
    run, rows = rows_of(workdir)
    assert rows[: len(before)] == before
    assert [row["level"] for row in rows] == [0, 1, 2, 3]
    assert [row["replicas"] for row in rows[: len(before)]] == [2] * len(before)
    assert [row["replicas"] for row in rows[len(before) :]] == [1] * (
        4 - len(before)
    )
    masks = [
        Ticket.load(run.file(0, "ticket", level, "ticket.safetensors")).mask
        for level in range(4)
    ]
    for above, below in zip(masks, masks[1:]):
        for name in above:  # nothing comes back
            assert not (below[name] & ~above[name]).any()
    assert [mask.kept for mask in masks] == [row["kept"] for row in rows]
    assert os.path.exists(run.report_path)


def wait_for_level(level, workdir, processes, logs):
    """Waits until a level of the tickets is written."""
    pattern = f"*/replicate_0/ticket/level_{level}/level.json"
    began = time.monotonic()
    while not list(workdir.glob(pattern)):
        assert all(each.poll() is None for each in processes), [
            log.read_text() for log in logs
        ]
        assert time.monotonic() - began < SLOW
        time.sleep(0.05)
