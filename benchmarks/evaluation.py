"""What it takes to evaluate a validation set, over its bare products.

Ours is `measure.measure_on`: loss and accuracy of a whole set in one compiled
function. The bound is the forward products (convolutions) of the same batches
in one compiled function, without biases, activations, pooling or metrics
(`step_bare.layers`). Keras's `evaluate` is there to know. A round evaluates
5,000 rows of MNIST's shape 5 times by LeNet-300-100, or 1,000 rows of CIFAR's
once by Conv-2; all take turns, each in a process of its own.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py lenet --threads=2 --rounds=60
"""

import argparse

import bars
import turns

BAR = 1.15
BATCH = {"lenet": 5_000, "conv2": 1_000}  # as `measure_on` chooses
OURS, BARE, KERAS = "ours", "bare products", "Keras `evaluate`"
ROWS = {"lenet": 5_000, "conv2": 1_000}
PASSES = {"lenet": 5, "conv2": 1}
TITLES = {
    "lenet": "LeNet-300-100, 5,000 rows",
    "conv2": "Conv-2, 1,000 rows",
}


def contenders(network):
    """Returns dict from name to what `turns.take_turns` takes."""
    given = {
        "network": network,
        "rows": ROWS[network],
        "passes": PASSES[network],
    }
    batches = {
        "network": network,
        "batch": BATCH[network],
        "repeats": PASSES[network] * ROWS[network] // BATCH[network],
        "backward": False,
    }
    return {
        OURS: ("evaluation_keras:ours", given),
        BARE: ("step_bare:layers", batches),
        KERAS: ("evaluation_keras:evaluated", given),
    }


def report(network, rounds, threads):
    """Measures one network and prints its tables."""
    times = turns.take_turns(contenders(network), rounds, threads=threads)
    wall = times.wall
    rows = [
        bars.of_pairs(f"{OURS} / {BARE}", wall[OURS], wall[BARE], "<=", BAR),
        bars.of_pairs(f"{KERAS} / {OURS}", wall[KERAS], wall[OURS]),
    ]
    count = "1 thread" if threads == 1 else f"{threads} threads"
    print(f"## Evaluation: {TITLES[network]}, {count}\n")
    print(bars.table(rows), end="\n\n")
    print(bars.times(*times, PASSES[network], "a pass"), end="\n\n")


def main():
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(ROWS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=33)
    given = parser.parse_args()
    if given.rounds < 6:
        parser.error("an interval needs 6 rounds, a verdict 30")
    unknown = set(given.networks) - set(ROWS)
    if unknown:
        parser.error(f"no such network: {', '.join(sorted(unknown))}")
    for network in given.networks:
        report(network, given.rounds, given.threads)
    print(bars.circumstances(threads=given.threads, rounds=given.rounds))


if __name__ == "__main__":
    main()
