"""Measuring: intervals that hold what they should, from a made-up machine."""

import itertools
import json
import math

import numpy as np
import pytest

from keras_lottery.exporting import measuring
from keras_lottery.exporting.verifying import served


def test_the_interval_holds_the_median_of_95_in_100_samples():
    generator = np.random.default_rng(0)
    for n in (6, 11, 30):
        held = 0
        for _ in range(2000):
            # Skewed and heavy-tailed, with spells that strike both of a pair.
            spell = generator.pareto(2, n) + 1
            ratios = 1.1 * np.exp(generator.exponential(1, n) - math.log(2))
            _, low, high = measuring.ratio_interval(spell * ratios, spell)
            held += low <= 1.1 <= high
        # At least 95 %, less three standard errors of counting 2,000 times.
        assert held / 2000 > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize("n", range(6, 15))
def test_the_rank_is_the_largest_that_leaves_95_of_100(n):
    """All 2^n ways in which pairs fall on either side of the median."""
    below = [sum(way) for way in itertools.product((0, 1), repeat=n)]

    def chance(k):
        return np.mean([k <= count <= n - k for count in below])

    rank = measuring._rank(n)
    assert chance(rank) >= 0.95 > chance(rank + 1)


@pytest.mark.parametrize(("n", "rank"), [(20, 6), (25, 8), (50, 18)])
def test_the_rank_is_that_of_published_tables(n, rank):
    """Ranks of the 95 % interval of the median, as statistics books print."""
    assert measuring._rank(n) == rank


def test_the_rank_of_very_many_rounds():
    assert measuring._rank(5000) == pytest.approx(
        2500 - 1.96 * math.sqrt(5000) / 2, abs=2
    )


def test_swapping_sides_turns_the_interval_over():
    generator = np.random.default_rng(1)
    first, second = generator.uniform(1, 2, (2, 31))
    ratio, low, high = measuring.ratio_interval(first, second)
    swapped = measuring.ratio_interval(second, first)
    assert low <= ratio <= high
    assert swapped == pytest.approx((1 / ratio, 1 / high, 1 / low))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1] * 5, [1] * 5, "at least 6"),
        ([1] * 6, [1] * 7, r"\(6,\) and \(7,\)"),
        ([1] * 6, [0] * 6, "positive finite"),
        ([1] * 6, [np.nan] * 6, "positive finite"),
        ([-1] * 6, [-1] * 6, "positive finite"),
    ],
)
def test_what_has_no_interval_is_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        measuring.ratio_interval(first, second)


def test_a_batch_is_filled_by_repeating_rows():
    made = measuring.filled({"x": np.arange(3), "y": np.eye(3)}, 7)
    assert made["x"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert made["y"].shape == (7, 3)
    with pytest.raises(ValueError, match="no rows"):
        measuring.filled({"x": np.zeros((0, 3))}, 7)


@pytest.fixture
def machine(monkeypatch):
    """A machine on which `slow` takes twice as long as `fast`."""
    calls = {}

    def request_times(paths, batches, rounds, threads=1):
        calls.update(requests=rounds, threads=threads)
        calls["sizes"] = [len(batch["x"]) for batch in batches]
        ramp = np.linspace(1, 2, rounds)
        return {
            path: {
                size: ramp * size * (2 if path.endswith("slow") else 1)
                for size in calls["sizes"]
            }
            for path in paths
        }

    def load_times(paths, rounds):
        calls["loads"] = rounds
        return {
            path: (np.full(rounds, 3.0), np.full(rounds, 1000 * (i + 1)))
            for i, path in enumerate(paths)
        }

    monkeypatch.setattr(served, "request_times", request_times)
    monkeypatch.setattr(served, "load_times", load_times)
    return calls


PATHS = {"compact": "at/slow", "dense": "at/fast"}


def test_both_are_measured_beside_each_other(machine):
    found = measuring.measure(PATHS, {"x": np.zeros((5, 2))}, rounds=101)
    assert machine == {
        "requests": 101,
        "threads": 1,
        "sizes": [1, 64],
        "loads": 10,
    }
    two = {"median": 2.0, "low": 2.0, "high": 2.0}
    assert found["batch_1"]["ratio"] == found["batch_64"]["ratio"] == two
    assert found["batch_1"]["compact"] == {
        "p50_seconds": pytest.approx(3.0),
        "p99_seconds": pytest.approx(3.98),
    }
    assert found["batch_64"]["dense"]["p50_seconds"] == pytest.approx(96.0)
    assert found["load"]["ratio"]["median"] == 1.0
    assert found["memory"]["compact"] == {"bytes": 1000}
    assert found["memory"]["ratio"]["high"] == 0.5
    json.dumps(found, allow_nan=False)


def test_a_p99_needs_a_hundred_requests(machine):
    found = measuring.measure(PATHS, {"x": np.zeros((5, 2))}, rounds=99)
    assert found["batch_1"]["compact"]["p99_seconds"] is None
    assert machine["loads"] == 9


def test_it_says_what_it_found_with_its_interval(machine):
    found = measuring.measure(PATHS, {"x": np.zeros((5, 2))}, rounds=30)
    assert machine["loads"] == 6
    one, many, load, memory = measuring.in_words(found)
    assert one == (
        "A request of one sample takes 2.00 x the time of the dense export "
        "(95 % interval 2.00 to 2.00, 30 rounds)."
    )
    assert "64 samples takes 2.00 x the time" in many
    assert load.startswith("Loading takes 1.00 x the time")
    assert "0.50 x the memory" in memory and "6 rounds" in memory


def test_too_little_to_compare_is_refused(machine):
    inputs = {"x": np.zeros((5, 2))}
    with pytest.raises(ValueError, match="`rounds` must be an int >= 6"):
        measuring.measure(PATHS, inputs, rounds=5)
    with pytest.raises(ValueError, match="two exports, got 1"):
        measuring.measure({"dense": "at/fast"}, inputs)
    assert machine == {}
