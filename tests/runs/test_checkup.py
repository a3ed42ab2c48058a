"""The checkup: a small lottery, the same under every strategy here."""

import numpy as np
import pytest

from keras_lottery.runs import checkup
from keras_lottery.training import strategies


def test_counts_are_those_of_the_schedule():
    found = checkup.plain()
    size = 64 * 32 + 32 * 10
    kept = [size - round(size * (1 - 0.8**level)) for level in range(3)]
    assert list(found.kept) == kept == [2368, 1894, 1516]
    assert found.weights.shape == found.masks.shape == (size,)
    assert found.masks.sum() == found.kept[-1]
    assert not found.weights[~found.masks].any()
    assert found.weights[found.masks].all() and found.seconds > 0


def test_plain_is_played_once():
    assert checkup.plain() is checkup.plain()


@pytest.mark.parametrize("name", ["none", "mirrored"])
def test_a_strategy_gives_the_same_tickets(name):
    assert name in strategies.found()
    found = checkup.lottery_under(name)
    assert found.kept == checkup.plain().kept
    difference, equal = checkup.compare(found, checkup.plain())
    assert difference < 1e-3 and equal > 0.99


def test_compare_measures_by_hand():
    one = checkup.Checkup(
        (3,), np.array([1.0, 0.0, 2.0, 4.0]), np.array([1, 0, 1, 1], bool), 1.0
    )
    two = one._replace(
        weights=np.array([1.5, 3.0, 0.0, 3.75]),
        masks=np.array([1, 1, 0, 1], bool),
    )
    assert checkup.compare(one, one) == (0.0, 1.0)
    assert checkup.compare(one, two) == (3.0, 0.5)


def test_unknown_strategies_are_refused():
    with pytest.raises(ValueError, match="Unknown strategy 'many'"):
        checkup.lottery_under("many")
