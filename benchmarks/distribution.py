"""`fit` on several devices beside Keras's, and what a step sends.

Time: `lottery.prune(model).fit` of a network masked to 20 % and Keras's `fit`
of the same network without masks, on the same data (arrays, `tf.data`), under
the same strategy: none, a `MirroredStrategy` of one and of two logical CPU
devices. Each has a process of its own; those of one network and strategy take
turns (`turns.py`), and a round is an epoch: 200 steps of LeNet-300-100, 50 of
Conv-2 at a quarter of its width, batches of 60, Adam. Two devices share the
cores of one machine: nothing is faster by them here, and ratios are between
equals.

Bytes: what each of two worker processes hands to collective operations in a
step, a call and at the end of a level, counted in the traced graphs
(`distribution_bytes.py`); `scale_points.py` counts those of two devices of one
process.

    python benchmarks/distribution.py
    python benchmarks/distribution.py --networks lenet --devices 2 --rounds=60
    python benchmarks/distribution.py --networks    # bytes alone
    python benchmarks/distribution.py --page        # tables of docs/speed.md
"""

import argparse
import pathlib
import re

import bars
import scale
import turns

from keras_lottery.errors import RunError

DEVICES = {0: "no strategy", 1: "1 device", 2: "2 devices"}
SOURCES = {"arrays": False, "tf.data": True}
TITLES = {
    "lenet": "LeNet-300-100",
    "conv2": "Conv-2, a quarter as wide",
}
OURS, FIT = "ours", "Keras `fit`"
SECTION = pathlib.Path(__file__).parent / "sections" / "distribution.md"
SEVERAL = 50  # steps a call


def contenders(network, devices):
    """Returns dict from name to what `turns.take_turns` takes."""
    found = {}
    for source, streamed in SOURCES.items():
        given = {"network": network, "devices": devices, "streamed": streamed}
        keras_fit = "distribution_fit:keras_fit"
        found[_named(OURS, source)] = ("distribution_fit:ours", given)
        found[_named(FIT, source)] = (keras_fit, given)
        many = given | {"steps_per_call": SEVERAL}
        found[_named(_in_calls(), source)] = (keras_fit, many)
    return found


def judged(network, devices, wall):
    """Returns the bars of one network and strategy.

    Args:
        network: A key of `TITLES`.
        devices: A key of `DEVICES`.
        wall: Dict from contender to seconds.
    """
    rows = []
    for source in SOURCES:
        ours = wall[_named(OURS, source)]
        for name in (FIT, _in_calls()):
            theirs = wall.get(_named(name, source))
            where = f"{network}, {DEVICES[devices]}, {source}"
            what = f"{where}: {OURS} / {name}"
            if theirs is not None:
                rows.append(bars.of_pairs(what, ours, theirs, "<=", 1.0))
    return rows


def failure(name, what, threads):
    """Returns how a contender fails in its first rounds, or None."""
    try:
        with turns.Child(name, *what, threads) as child:
            child.wait()
            child.turn()
    except RunError as error:
        # A status of TensorFlow says more than the errors that follow it.
        told = re.findall(r"[A-Z]+_[A-Z]+: .*", str(error))
        return told[0].strip() if told else str(error).splitlines()[-1]
    return None


def time_steps(network, devices, rounds, threads):
    """Measures one network under one strategy, and prints its tables."""
    named, failed = contenders(network, devices), {}
    for name in list(named):
        if devices > 1 and name.startswith(_in_calls()):
            why = failure(name, named[name], threads)
            if why is not None:
                failed[name] = why
                del named[name]
    times = turns.take_turns(named, rounds, threads=threads)
    print(f"### {TITLES[network]}, {DEVICES[devices]}\n")
    print(bars.table(judged(network, devices, times.wall)), end="\n\n")
    for name, why in failed.items():
        print(f"{name}: cannot be compared, it fails: `{why}`", end="\n\n")
    print(bars.times(*times, _steps(network), "a step"), end="\n\n")


def count_bytes():
    """Counts what two workers send, and prints its tables."""
    import distribution_bytes

    found = distribution_bytes.counted()
    print("### Bytes that a worker hands over, of two\n")
    print(bars.table(_added(found)), end="\n\n")
    head = ("network", "trained", *(f"a step, {n}" for n in _kinds(found)))
    head += ("a call", "the end of a level")
    print(bars.markdown(head, map(_row, found.items())), end="\n\n")


def page(section):
    """Returns the tables of docs/speed.md, from a section that was printed.

    Args:
        section: Text of `sections/distribution.md`.
    """
    parts = dict(part.split("\n", 1) for part in section.split("### ")[1:])
    rows = []
    for network, title in TITLES.items():
        found = [
            dict(re.findall(r"^\| (.+) \| ([\d.]+) \| [\d.]+ \|$", part, re.M))
            for part in (parts[f"{title}, {each}"] for each in DEVICES.values())
        ]
        for name in contenders(network, 0):
            cells = [each.get(name) for each in found]
            cells = [f"{float(c):.1f}" if c else "fails" for c in cells]
            rows.append([f"{title}: {name}", *cells])
    times = bars.markdown(["", *DEVICES.values()], rows)
    (sizes,) = re.findall(r"^\| network .*?(?=\n\n)", section, re.M | re.S)
    return times, sizes


def _added(found):
    """Returns the bars of bytes: the most that any case sends in addition."""
    steps = [case["step"] for case in found.values()]
    masks = [max(s["masked"]) - max(s["unmasked"]) for s in steps]
    more = [max(s["masked"]) - max(s["plain Keras"]) for s in steps]
    beside = []
    for case in map(found.get, TITLES):
        sizes = scale.Sizes(case["trained"], 0, (case["prunable"],))
        gradients = scale.reduced_bytes(sizes)
        beside.append(max(case["step"]["masked"]) - gradients)
    told = {
        "masked - unmasked": (masks, 0),
        # How many rows a batch has, where that is not known before.
        "masked - plain Keras": (more, 4),
        "masked - 4 for each trained weight": (beside, 0),
    }
    return [
        bars.of_count(
            f"a step, {what}, most of {len(each)} networks",
            max(each),
            "<=",
            bar,
            "bytes",
        )
        for what, (each, bar) in told.items()
    ]


def _kinds(found):
    return next(iter(found.values()))["step"]


def _row(item):
    name, case = item
    steps = [
        ", ".join(f"{n:,}" for n in each) for each in case["step"].values()
    ]
    level = sum(size for _, size in case["level"])
    return name, f"{case['trained']:,}", *steps, sum(case["call"]), f"{level:,}"


def _steps(network):
    import distribution_fit

    return distribution_fit.STEPS[network]


def _in_calls():
    return f"{FIT}, {SEVERAL} steps a call"


def _named(name, source):
    return f"{name}, {source}"


def main():
    """Measures what the command line asks for, and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--networks", nargs="*", choices=list(TITLES), default=list(TITLES)
    )
    parser.add_argument(
        "--devices", nargs="+", type=int, choices=DEVICES, default=list(DEVICES)
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=33)
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    if given.page:
        return print(*page(SECTION.read_text()), sep="\n\n")
    if given.rounds < 6:
        parser.error("an interval needs 6 rounds, a verdict 30")
    print("## Several devices\n", flush=True)
    for network in given.networks:
        for devices in given.devices:
            time_steps(network, devices, given.rounds, given.threads)
    count_bytes()
    print(bars.circumstances(threads=given.threads, rounds=given.rounds))


if __name__ == "__main__":
    main()
