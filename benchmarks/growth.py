"""How the time of a lottery grows: levels, replicates, weights, samples.

Each axis is measured at sizes far apart, in turns, round by round, by seconds
of the processor. To each round `growth_fit.fit` fits t(n) = fixed + rate * n **
exponent: what no size changes (a trace, a call, a table) is fitted, not
subtracted by hand. The exponent is the median over the rounds, with its 95 %
interval; at most 1.05 is promised of each, by the lower end.

    python benchmarks/growth.py
    python benchmarks/growth.py levels replicates --rounds=20 --threads=2

"levels" and "replicates" are whole runs with a directory and a traced network;
"levels in memory" is all of `prune(...)`, `compile` and `fit`, tracing
included. Weights are those of LeNet, widened: "weights, step" is the training
step, "weights, prune" is `find_mask`, "weights, level" is all that happens
between two trainings: prune, snapshot, rewind, ticket. The two "bare" axes are
the sums of a step alone: what the machine makes of more weights, once they are
past its caches, no loop can undo. Rows are trained on for two passes, and
evaluated once.
"""

import argparse
import gc
import sys
import time

import bars
import growth_fit
import keras
import numpy as np
import turns
from growth_axes import AXES
from growth_axes import STEP
from growth_axes import SUMS
from growth_axes import UNJUDGED

BAR = 1.05


def measured(calls, rounds):
    """Returns dict from size to seconds of the processor, by round."""
    for call in calls.values():  # traces; and finds how long a call takes
        call(), call()
    seconds = {size: [] for size in calls}
    for number in range(rounds):
        order = list(calls) if number % 2 else list(calls)[::-1]
        for size in order:
            gc.collect()  # what others left is not this size's
            seconds[size].append(timed(calls[size]))
    return seconds


def timed(call):
    """Returns the processor's seconds of a call; short calls are repeated."""
    began, count = time.process_time(), 0
    while time.process_time() - began < 0.05:
        call()
        count += 1
    return (time.process_time() - began) / count


def judged(axis, seconds):
    """Returns the `Bar` of an axis: the exponents of its rounds."""
    sizes = list(seconds)
    exponents = [
        growth_fit.fit(sizes, each).exponent
        for each in zip(*seconds.values(), strict=True)
    ]
    what = f"exponent of time by {axis}"
    bar = (None, None) if axis in UNJUDGED else ("<=", BAR)
    return bars.of_samples(what, exponents, *bar, unit="")


def table(axis, seconds):
    """Returns the table of an axis: its times, and what was fitted."""
    typical = {size: np.median(each) for size, each in seconds.items()}
    growth = growth_fit.fit(list(typical), list(typical.values()))
    rows = [
        (f"{size:,}", f"{1e3 * each:,.2f}", f"{1e3 * growth.at(size):,.2f}")
        for size, each in typical.items()
    ]
    (one, faster), (two, slower) = list(typical.items())[-2:]
    last = np.log(slower / faster) / np.log(two / one)
    return (
        bars.markdown((axis, "ms (median)", "ms fitted"), rows)
        + f"\n\nFitted: {1e3 * growth.fixed:.2f} ms + "
        f"{1e3 * growth.rate:.3g} ms * n^{growth.exponent:.2f}; "
        f"between the two largest: n^{last:.2f}\n"
    )


def beside_bare(found):
    """Returns the table of the step over its own sums, by weights."""
    ours, sums = found[STEP], found[SUMS]
    rows = [
        (f"{size:,}", f"{np.median(ours[size]) / np.median(sums[size]):.2f}")
        for size in ours
    ]
    return bars.markdown((STEP, "step / bare products and Adam"), rows) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("axes", nargs="*", default=list(AXES))
    parser.add_argument("--rounds", type=int, default=12, help="at least 6")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    unknown = set(given.axes) - set(AXES)
    if unknown or given.rounds < 6:
        parser.error(f"axes are {', '.join(AXES)}; rounds at least 6")
    turns.limit_threads(given.threads)
    found = {}
    for axis in given.axes:
        began = time.time()
        found[axis] = measured(AXES[axis](), given.rounds)
        print(table(axis, found[axis]), flush=True)
        told = f"{axis}: {time.time() - began:.0f} s"
        print(told, file=sys.stderr, flush=True)
        keras.backend.clear_session()
    if {STEP, SUMS} <= set(found):
        print(beside_bare(found))
    print(bars.table([judged(*each) for each in found.items()]))
    print("\n" + bars.circumstances(threads=given.threads, rounds=given.rounds))


if __name__ == "__main__":
    main()
