"""Do several devices find the tickets of one? overlap.py [dense|conv]

A ReLU network multiplies differences of rounding: two runs on one device whose
sums are in another order do not end with the same masks either. So the bar for
two devices is that difference: their masks have to overlap with those of one
device by as much, and their accuracy has to lie within the spread of
replicates. Other orders on one device: two threads, and the same steps compiled
by XLA. Each run is `keras-lottery run --config=digits` in a process of its
own, of the same seeds; two logical CPU devices stand in for two devices.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import bars
import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RUN = (
    *("-m", "keras_lottery.cli.main", "run", "--config=digits"),
    *("--config.controls.names=()", "--config.export.enabled=False"),
)
NETWORKS = {
    "dense": (),  # the LeNet of the config: 300 and 100 units
    "conv": (
        *("--config.model.name=conv2", "--config.model.width=0.25"),
        *("--config.model.arguments={}", "--config.prune.levels=6"),
        *("--config.train.steps=300", "--config.eval_every=20"),
    ),
}
GRAPH = "--config.train.compile=graph"
RUNS = {
    "1 device": (GRAPH, "--threads=1"),
    "2 threads": (GRAPH, "--threads=2"),
    "XLA": ("--config.train.compile=xla", "--threads=1"),
    "2 devices": (
        *(GRAPH, "--threads=1"),
        "--config.distribute.strategy=overlap:two_devices",
    ),
}


def runs_of(network):
    """Returns the names of what is run; XLA's convolutions take too long."""
    return [name for name in RUNS if (network, name) != ("conv", "XLA")]


def two_devices():
    """Returns a strategy over two logical CPU devices."""
    import tensorflow as tf

    device = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(device, halves)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def play(name, folder, more):
    """Plays a run; returns its directory."""
    from keras_lottery.runs.directory import RunDirectory

    workdir = os.path.join(folder, name.replace(" ", "_"))
    paths = [ROOT, os.path.join(ROOT, "benchmarks")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run(
        [sys.executable, *RUN, f"--workdir={workdir}", *RUNS[name], *more],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (run,) = os.listdir(workdir)
    return RunDirectory.open(os.path.join(workdir, run))


def overlap(one, other):
    """Returns the shares of kept weights that two masks have in common."""
    both = sum(int((one[name] & other[name]).sum()) for name in one)
    either = sum(int((one[name] | other[name]).sum()) for name in one)
    return both / either


def masks(run):
    """Returns the masks of a run by (replicate, level)."""
    from keras_lottery.tickets.ticket import Ticket

    return {
        (row["replicate"], row["level"]): Ticket.load(
            run.file(
                row["replicate"], "ticket", row["level"], "ticket.safetensors"
            )
        ).mask
        for row in run.rows()
        if row["arm"] == "ticket"
    }


def accuracies(run):
    """Returns the test accuracies of a run's tickets by level."""
    found = {}
    for row in run.rows():
        if row["arm"] == "ticket":
            found.setdefault(row["level"], []).append(row["test_accuracy"])
    return found


def table(runs):
    """Returns the lines of the table."""
    found = {name: masks(run) for name, run in runs.items()}
    scores = {name: accuracies(run) for name, run in runs.items()}
    one, *others = runs
    yield (
        "| level | kept | "
        + " | ".join(f"overlap with {name}" for name in others)
        + " | accuracy, 1 device (min to max) | 2 devices |"
    )
    yield "|---" * (len(others) + 4) + "|"
    for level, alone in scores[one].items():
        where = [key for key in found[one] if key[1] == level]
        shares = [
            np.mean([overlap(found[one][k], found[name][k]) for k in where])
            for name in others
        ]
        yield (
            f"| {level} | {found[one][where[0]].density:.1%} | "
            + " | ".join(f"{share:.3f}" for share in shares)
            + f" | {np.mean(alone):.4f} ({min(alone):.4f} to {max(alone):.4f})"
            f" | {np.mean(scores['2 devices'][level]):.4f} |"
        )


def compared(runs):
    """Returns the `Bar` of overlap with two devices / with two threads.

    Both are means over the levels above 0 of a replicate.
    """
    found = {name: masks(run) for name, run in runs.items()}
    means = {"2 devices": {}, "2 threads": {}}
    for name, by_replicate in means.items():
        for where, mask in found["1 device"].items():
            if where[1]:
                share = overlap(mask, found[name][where])
                by_replicate.setdefault(where[0], []).append(share)
    devices, threads = (
        [float(np.mean(each)) for each in by_replicate.values()]
        for by_replicate in means.values()
    )
    told = "overlap with 2 devices / with 2 threads"
    return bars.of_pairs(told, devices, threads, ">=", 1.0)


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("network", nargs="?", default="dense", choices=NETWORKS)
    known, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = [*NETWORKS[known.network], *more]
        runs = {
            name: play(name, folder, settings)
            for name in runs_of(known.network)
        }
        print("\n".join(table(runs)))
        print("\n" + bars.table([compared(runs)]))


if __name__ == "__main__":
    main()
