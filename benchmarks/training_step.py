"""What a training step of a masked network takes, and what others take.

Ours is the step loop under masks that keep 20 % of each kernel, in the mode
that the package chooses for the network on a CPU. Others do the same number of
steps of the same network on the same data, each in a process of its own, and
all take turns (`turns.py`). Bounds are sums that no step can avoid
(`step_bare.py`); who the others are is in `step_keras.py`, `step_tfmot.py` and
`step_torch.py` (`pip install -e '.[bench]'`; left out without).

    python benchmarks/training_step.py                       # LeNet-300-100
    python benchmarks/training_step.py --network=resnet20 --threads=2
    python benchmarks/training_step.py --network=conv2 --rounds=60

A round is 200 steps of LeNet, 4 of Conv-2, 2 of ResNet-20. LeNet's epochs of
`fit` are a round long: 12,000 rows for MNIST's 55,000, so what begins and ends
an epoch weighs more than it would there. TensorFlow 2.21 moreover stands idle
at the end of many epochs, for 10 to 600 ms: "cores busy" says so. "One epoch"
is `fit` without all that, as it is for both other networks. "Keras's function"
is what `fit` calls, called directly: as fast as Keras gets.
"""

import argparse
import importlib.util
import sys

import bars
import numpy as np
import turns
from step_tasks import TASKS

TITLES = {
    "lenet": "LeNet-300-100, batch 60, Adam",
    "conv2": "Conv-2, batch 60, Adam",
    "resnet20": "ResNet-20, batch 128, momentum",
}
GRAPH, XLA = "ours, graph", "ours, XLA"
PUBLIC = "ours, a level of `prune().fit`"
BARE = "bare products and fused Adam"
LAYERS = "bare convolutions and products"
FIT = "Keras `fit`"
RECIPE, FUSED = "PyTorch, open_lth's recipe", "PyTorch, fastest with autograd"
BY_HAND, CHANNELS = "PyTorch, gradients by hand", "PyTorch, channels-last"
TFMOT = "tfmot's wrapper"


def several(network):
    """Returns how many steps a call `fit` and Keras's function have."""
    return min(50, TASKS[network].steps)


def contenders(network):
    """Returns dict from name to what `turns.take_turns` takes."""
    given = {"network": network}
    unmasked = given | {"masked": False}
    found = {
        GRAPH: ("step_keras:looped", given),
        f"{GRAPH}, unmasked": ("step_keras:looped", unmasked),
    }
    if network == "lenet":
        under_xla = {"mode": "xla"}
        found |= {
            BARE: ("step_bare:products", given),
            "bare products": (
                "step_bare:products",
                given | {"with_adam": False},
            ),
            XLA: ("step_keras:looped", given | under_xla),
            f"{XLA}, unmasked": ("step_keras:looped", unmasked | under_xla),
            PUBLIC: ("step_keras:by_fit_of_ours", given),
        }
    else:
        # A level of so few steps would measure what a level begins with.
        found[LAYERS] = ("step_bare:layers", given)
    found |= _of_keras(network, given)
    if importlib.util.find_spec("torch"):
        found |= _of_torch(network, given)
    return found


def _of_keras(network, given):
    count, epochs = several(network), "step_keras:fitted_on"
    found = {}
    if network == "lenet":
        # With convolutions an epoch of a round is nothing but its own costs.
        found[f"{FIT}, one epoch"] = (epochs, given)
        epochs = "step_keras:fitted"
    forms = {
        FIT: {},
        f"{FIT}, {count} steps a call": {"steps_per_execution": count},
        f"{FIT}, jit_compile": {"jit_compile": True},
    }
    found |= {name: (epochs, given | more) for name, more in forms.items()}
    found[f"Keras's function, {count} steps a call"] = (
        "step_keras:by_function_of_keras",
        given | {"steps_per_call": count},
    )
    found[TFMOT] = (epochs.replace("keras", "tfmot"), given)
    return found


def _of_torch(network, given):
    if network != "lenet":
        return {CHANNELS: ("step_torch:fast", given)}
    return {
        RECIPE: ("step_torch:to_recipe", given),
        FUSED: ("step_torch:fast", given),
        BY_HAND: ("step_torch:by_hand", given),
    }


def judged(network, wall, ours):
    """Returns the bars of a network.

    Args:
        network: A key of `TASKS`.
        wall: Dict from contender to seconds.
        ours: Which of them is ours.
    """
    rows = [] if network != "lenet" else _of_lenet(wall, ours)
    rows.append(_row(wall, ours, f"{ours}, unmasked", "<=", 1.10))
    if network != "lenet":
        fastest = _fastest(wall, "Keras")
        rows.append(_row(wall, ours, fastest, "<=", 1.0))
    told = {row.what for row in rows}
    # The rest is there to know: who is slower than ours, or ours than bounds.
    for name in wall:
        pair = (ours, name) if name.startswith("bare") else (name, ours)
        if name != ours and not {_named(*pair), _named(*pair[::-1])} & told:
            rows.append(_row(wall, *pair))
    if PUBLIC in wall:
        rows.append(_row(wall, FIT, PUBLIC))
    return rows


def _of_lenet(wall, ours):
    bound = {
        FIT: 3.0,
        f"{FIT}, 50 steps a call": 2.0,
        TFMOT: 3.5,
        RECIPE: 3.0,
    }
    rows = [_row(wall, ours, BARE, "<=", 1.25)]
    rows += [
        _row(wall, name, ours, ">=", bar)
        for name, bar in bound.items()
        if name in wall
    ]
    if FUSED in wall:
        fastest = _fastest({name: wall[name] for name in (FUSED, BY_HAND)}, "")
        rows.append(_row(wall, fastest, ours, ">=", 2.0))
    return rows


def _row(wall, first, second, sign=None, bar=None):
    what = _named(first, second)
    return bars.of_pairs(what, wall[first], wall[second], sign, bar)


def _named(first, second):
    return f"{first} / {second}"


def _fastest(wall, prefix):
    names = [name for name in wall if name.startswith(prefix)]
    return min(names, key=lambda name: np.median(wall[name]))


def chosen(network):
    """Returns the name of ours in the mode of the package's table."""
    from keras_lottery.training import compiling

    # Under XLA convolutions take a hundred times longer: never measured here.
    dense = network == "lenet"
    return {"graph": GRAPH, "xla": XLA}[compiling.TABLE["CPU", dense]]


def main():
    """Measures one network and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=list(TASKS), default="lenet")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=33)
    parser.add_argument("--record", help="csv file for every turn")
    given = parser.parse_args()
    if given.rounds < 6:
        parser.error("an interval needs 6 rounds, a verdict 30")
    named = contenders(given.network)
    if FUSED not in named and CHANNELS not in named:
        print("PyTorch is not installed: left out.", file=sys.stderr)
    times = turns.take_turns(
        named, given.rounds, threads=given.threads, record=given.record
    )
    report(given.network, times, given.threads, given.rounds)


def report(network, times, threads, rounds):
    """Prints the tables of one network."""
    ours, steps = chosen(network), TASKS[network].steps
    count = "1 thread" if threads == 1 else f"{threads} threads"
    print(f"## {TITLES[network]}, {count}\n")
    print(bars.table(judged(network, times.wall, ours)), end="\n\n")
    print(bars.times(*times, steps, "a step"), end="\n\n")
    print("The same ratios by processor time, which others' work moves less:")
    by_processor = judged(network, times.processor, ours)
    head = ("what", "measured", "95 % interval")
    rows = [row.cells[:3] for row in by_processor if row.sign]
    print(f"\n{bars.markdown(head, rows)}\n")
    print(
        bars.circumstances(
            threads=threads, rounds=rounds, steps_of_a_round=steps
        )
    )


if __name__ == "__main__":
    main()
