"""Groups: patterns, first match wins, schedules that fire together."""

import pytest

from keras_lottery.pruning import groups
from keras_lottery.pruning.schedules import IterativePruning
from keras_lottery.pruning.schedules import ListedSparsities
from keras_lottery.pruning.schedules import OneShot
from keras_lottery.tfmot_bridge import ConstantSparsity
from keras_lottery.tfmot_bridge import PolynomialDecay

NAMES = ["conv/kernel", "block/conv/kernel", "hidden/kernel", "output/kernel"]


def test_check_makes_one_schedule_a_dict():
    schedule = IterativePruning(0.2, 3)
    assert groups.check(schedule) == {"*": schedule}


def test_check_returns_a_copy_in_order():
    given = {"output/*": OneShot(0.1), "*": OneShot(0.2)}
    checked = groups.check(given)
    assert checked == given
    assert checked is not given
    assert list(checked) == ["output/*", "*"]


@pytest.mark.parametrize(
    "given", [0.5, None, "IterativePruning", {"*": 0.5}, IterativePruning]
)
def test_check_refuses_what_is_no_schedule(given):
    with pytest.raises(ValueError, match=r"tfmot PruningSchedule.*got "):
        groups.check(given)


def test_check_refuses_an_empty_dict():
    with pytest.raises(ValueError, match="empty"):
        groups.check({})


def test_check_refuses_levels_mixed_with_steps():
    mixed = {"a/*": OneShot(0.5), "*": ConstantSparsity(0.5, begin_step=2)}
    with pytest.raises(ValueError, match="cannot be mixed"):
        groups.check(mixed)


def test_check_refuses_different_numbers_of_levels():
    unequal = {"a/*": IterativePruning(0.2, 3), "*": ListedSparsities([0.5])}
    with pytest.raises(ValueError, match=r"levels: {'a/\*': 3, '\*': 1}"):
        groups.check(unequal)


def test_check_allows_different_kinds_with_the_same_levels():
    together = {"a/*": IterativePruning(0.2, 1), "*": OneShot(0.5)}
    assert groups.check(together) == together


def test_counts_in_levels():
    levels = {"a": OneShot(0.5), "b": ListedSparsities([0.5])}
    steps = {
        "a": ConstantSparsity(0.5, begin_step=2),
        "b": PolynomialDecay(0.0, 0.5, begin_step=0, end_step=10),
    }
    assert groups.counts_in_levels(levels)
    assert not groups.counts_in_levels(steps)
    assert not groups.counts_in_levels({**levels, "c": steps["a"]})


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*"], {"*": NAMES}),
        (
            ["output/*", "*"],
            {"output/*": ["output/kernel"], "*": NAMES[:3]},
        ),
        (
            ["*conv/*", "hidden/kernel"],
            {"*conv/*": NAMES[:2], "hidden/kernel": ["hidden/kernel"]},
        ),
        (["conv/*"], {"conv/*": ["conv/kernel"]}),  # from the root on
        (["block/*"], {"block/*": ["block/conv/kernel"]}),  # * crosses /
        (["[ch]*/kernel"], {"[ch]*/kernel": ["conv/kernel", "hidden/kernel"]}),
        (["?onv/kernel"], {"?onv/kernel": ["conv/kernel"]}),
    ],
)
def test_assign(patterns, expected):
    governed = groups.assign(NAMES, patterns)
    assert governed == expected
    assert list(governed) == patterns


@pytest.mark.parametrize(
    ("patterns", "lost"),
    [
        (["*", "output/*"], "output/*"),  # nothing is left for the second
        (["outptu/*", "*"], "outptu/*"),
        (["OUTPUT/*", "*"], "OUTPUT/*"),  # case counts on every system
        (["output", "*"], "output"),
    ],
)
def test_a_pattern_that_governs_nothing_is_refused(patterns, lost):
    with pytest.raises(ValueError) as raised:
        groups.assign(NAMES, patterns)
    assert f"pattern {lost!r} governs no weight" in str(raised.value)
    assert "hidden/kernel, output/kernel" in str(raised.value)


def test_sparsities():
    grouped = {"output/*": IterativePruning(0.1, 2), "*": OneShot(0.5)}
    assert groups.sparsities(grouped, 0) == {"output/*": 0.0, "*": 0.0}
    assert groups.sparsities(grouped, 1) == {
        "output/*": 1 - 0.9,
        "*": 0.5,
    }
