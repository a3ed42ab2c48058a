"""How fast one export answers, measured beside another in the same run.

A machine that other work shares is slow in spells. Rounds take turns, ratios
are taken round by round, and the interval is of their median.
"""

import math
import os

import numpy as np

from keras_lottery import checks

BATCHES = (1, 64)
ENOUGH_FOR_P99 = 100


def measure(paths, inputs, rounds=100):
    """Measures two exports through TensorFlow's C API, on one thread.

    Args:
        paths: Dict from name to version directory, of the two to compare; the
            first is measured against the second.
        inputs: Dict from input name to array; rows are repeated to fill 64.
        rounds: Requests per batch size and export, at least 6; a tenth as
            many loads, but 6, each in a process of its own.

    Returns:
        Dict of plain values: for each batch size and for loading the figures
        of both by name, and the `ratio` with its 95 % interval. `p99_seconds`
        is None below 100 requests, which do not tell.

    Raises:
        ValueError: Not two paths, no rows, or too few rounds.
    """
    from keras_lottery.exporting.verifying import served

    checks.whole("rounds", rounds, 6)
    if len(paths) != 2:
        raise ValueError(f"Expected two exports, got {len(paths)}.")
    names, where = list(paths), [os.fspath(path) for path in paths.values()]
    batches = [filled(inputs, size) for size in BATCHES]
    times = served.request_times(where, batches, rounds, threads=1)
    loads = served.load_times(where, max(6, rounds // 10))
    first, second = ((times[path], loads[path]) for path in where)
    measured = {
        f"batch_{size}": _compared(
            names, first[0][size], second[0][size], _request
        )
        for size in BATCHES
    }
    measured["load"] = _compared(names, first[1][0], second[1][0], _load)
    measured["memory"] = _compared(names, first[1][1], second[1][1], _memory)
    return {"threads": 1, "compared": names, **measured}


def ratio_interval(first, second):
    """Returns the median of first / second, and an interval that holds it.

    The pairs are ordered by ratio, r_1 <= ... <= r_n. The median lies between
    r_k and r_(n + 1 - k) with probability 1 - 2 P(B < k) for B ~ Bin(n, 1/2),
    whatever the distribution; k is the largest that leaves 95 %. Spells in
    which the machine is slow strike both of a pair, and the odd slow request
    does not move a median.

    Args:
        first: Positive numbers, one per round.
        second: As many, of the same rounds.

    Returns:
        `(ratio, low, high)`, floats.

    Raises:
        ValueError: Fewer than 6 pairs, which give no such interval, numbers
            that pair up with none, or that are not positive.

    Example:

    >>> ratio_interval([2, 4, 6, 8, 10, 13], [1, 2, 3, 4, 5, 6])
    (2.0, 2.0, 2.1666666666666665)

    Reference: Conover (1999), Practical Nonparametric Statistics, 3.2.
    """
    first = np.asarray(first, np.float64)
    second = np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 6:
        raise ValueError(
            "Expected as many numbers on both sides, at least 6 (fewer pairs "
            f"give no 95 % interval); got shapes {first.shape} and "
            f"{second.shape}."
        )
    both = np.concatenate([first, second])
    if not (np.isfinite(both) & (both > 0)).all():
        raise ValueError("Ratios are of positive finite numbers only.")
    ratios = np.sort(first / second)
    k = _rank(len(ratios))
    middle = float(np.median(ratios))
    return middle, float(ratios[k - 1]), float(ratios[-k])


def filled(inputs, rows):
    """Returns a batch of `rows` rows: the first ones, repeated as needed."""
    count = min(len(value) for value in inputs.values())
    if not count:
        raise ValueError("There are no rows to ask about.")
    chosen = np.arange(rows) % count
    return {name: np.asarray(v)[chosen] for name, v in inputs.items()}


def in_words(measured):
    """Returns sentences on what `measure` found, each with its interval."""
    _, other = measured["compared"]
    subjects = {
        "batch_1": "A request of one sample takes {} the time",
        "batch_64": "A request of 64 samples takes {} the time",
        "load": "Loading takes {} the time",
        "memory": "Once loaded it takes {} the memory",
    }
    return [
        f"{text.format(_times(measured[key]))} of the {other} export "
        f"({_sure(measured[key])})."
        for key, text in subjects.items()
    ]


def _compared(names, first, second, figures):
    ratio, low, high = ratio_interval(first, second)
    return {
        "ratio": {"median": ratio, "low": low, "high": high},
        "pairs": len(first),
        **{n: figures(v) for n, v in zip(names, (first, second), strict=True)},
    }


def _request(seconds):
    enough = len(seconds) >= ENOUGH_FOR_P99
    return {
        "p50_seconds": float(np.percentile(seconds, 50)),
        "p99_seconds": float(np.percentile(seconds, 99)) if enough else None,
    }


def _load(seconds):
    return {"seconds": float(np.median(seconds))}


def _memory(resident):
    return {"bytes": int(np.median(resident))}


def _rank(n):
    """Returns the largest k with 2 P(B < k) <= 5 % for B ~ Bin(n, 1/2)."""
    k, below = 0, 0
    # In whole numbers: 2^n is no float beyond a thousand rounds.
    while 40 * (below + math.comb(n, k)) <= 2**n:
        below += math.comb(n, k)
        k += 1
    return k


def _times(compared):
    return f"{compared['ratio']['median']:.2f} x"


def _sure(compared):
    ratio, pairs = compared["ratio"], compared["pairs"]
    return (
        f"95 % interval {ratio['low']:.2f} to {ratio['high']:.2f}, "
        f"{pairs} rounds"
    )
