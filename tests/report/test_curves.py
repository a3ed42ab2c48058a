"""Pooling by hand: means, ranges, counts, and which level wins."""

import math

import numpy as np
import pytest

from keras_lottery.report import curves
from keras_lottery.report import words


def row(arm, level, replicate=0, **measured):
    """A row with a density of 80 % per level and equal accuracies."""
    accuracy = measured.pop("accuracy", 0.9)
    return {
        "replicate": replicate,
        "arm": arm,
        "level": level,
        "density": 0.8**level,
        "early_step": 100,
        "val_accuracy": accuracy,
        "test_accuracy": accuracy,
        "last_test_accuracy": accuracy,
        **measured,
    }


def lottery(*tickets, **controls):
    """Rows of one replicate: accuracy and step by level, and controls'."""
    rows = [
        row("ticket", level, accuracy=accuracy, early_step=step)
        for level, (accuracy, step) in enumerate(tickets)
    ]
    for arm, accuracies in controls.items():
        rows += [
            row(arm, level, accuracy=accuracy)
            for level, accuracy in enumerate(accuracies, start=1)
        ]
    return rows


@pytest.mark.parametrize(
    ("arm", "kind"),
    [
        ("ticket", "ticket"),
        ("reinitialized_0", "reinitialized"),
        ("reinitialized_11", "reinitialized"),
        ("reinitialize_0", "reinitialized"),
        ("shuffle_0", "shuffled"),
        ("shuffled_1", "shuffled"),
        ("randomize_0", "random"),
        ("random_0", "random"),
        ("one_shot", "one_shot"),
        ("reinitialize_signed_0", "reinitialize_signed"),
        ("conv2", "conv2"),
    ],
)
def test_kind_of(arm, kind):
    assert curves.kind_of(arm) == kind


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 6], (3.0, 1.0, 6.0, 3)),
        ([None, 4, math.nan, math.inf, "", "8"], (6.0, 4.0, 8.0, 2)),
        ([np.float32(0.5), np.int64(1)], (0.75, 0.5, 1.0, 2)),
    ],
)
def test_spread(values, expected):
    assert curves.spread(values) == curves.Spread(*expected)


@pytest.mark.parametrize("values", [[], [None, math.nan]])
def test_spread_of_nothing(values):
    nothing = curves.spread(values)
    assert nothing.n == 0
    assert math.isnan(nothing.mean)


def test_pool_over_replicates_and_seeds():
    rows = [
        row("shuffled_0", 1, accuracy=0.5, early_step=300),
        row("reinitialized_1", 1, replicate=1, accuracy=0.5, early_step=100),
        row("reinitialized_0", 1, replicate=0, accuracy=0.25, early_step=200),
        row("reinitialized_0", 1, replicate=1, accuracy=0.75, early_step=600),
        row("ticket", 1),
        row("ticket", 0),
    ]
    points = curves.pool(rows)
    assert [(p.kind, p.level, p.n) for p in points] == [
        ("ticket", 0, 1),
        ("ticket", 1, 1),
        ("reinitialized", 1, 3),
        ("shuffled", 1, 1),
    ]
    pooled = points[2]
    assert pooled.density == 0.8
    assert pooled.test_accuracy == curves.Spread(0.5, 0.25, 0.75, 3)
    assert pooled.early_step == curves.Spread(300.0, 100.0, 600.0, 3)


def test_pool_counts_only_what_was_measured():
    rows = [row("ticket", 0, test_accuracy=None), row("ticket", 0)]
    rows.append({"arm": "ticket", "level": 0})
    point = curves.pool(rows)[0]
    assert point.n == 3
    assert point.test_accuracy == curves.Spread(0.9, 0.9, 0.9, 1)
    assert point.early_step.n == 2


def test_pool_does_not_depend_on_the_order_of_rows():
    rows = [row("ticket", 0, accuracy=a) for a in (0.1, 0.2, 0.3, 0.7)]
    assert curves.pool(rows) == curves.pool(rows[::-1])


def test_pool_takes_rows_of_a_data_frame():
    pandas = pytest.importorskip("pandas")
    rows = [row("ticket", 0), row("ticket", 0, val_accuracy=None)]
    frame = pandas.DataFrame(rows).to_dict("records")
    frame[1]["early_step"] = pandas.NA
    point = curves.pool(frame)[0]
    assert point.val_accuracy == curves.Spread(0.9, 0.9, 0.9, 1)
    assert point.early_step.n == 1


def test_winner_is_the_sparsest_as_good_and_as_early():
    rows = lottery((0.9, 100), (0.95, 80), (0.9, 100), (0.9, 101), (0.8, 50))
    winner = curves.winning_level(rows)
    assert winner.ticket.level == 2
    assert winner.dense.level == 0
    assert winner.control is None
    assert not winner.beats_control


def test_tolerance_lets_a_sparser_one_win():
    rows = lottery((0.75, 100), (0.75, 80), (0.5, 80))
    assert curves.winning_level(rows, 0.25).ticket.level == 2
    assert curves.winning_level(rows, 0.2).ticket.level == 1


@pytest.mark.parametrize("tolerance", [-0.1, math.nan])
def test_a_bad_tolerance_is_refused(tolerance):
    with pytest.raises(ValueError, match="`tolerance` must be >= 0, got"):
        curves.winning_level([], tolerance)


def test_winner_is_chosen_on_means_of_replicates():
    rows = [
        row("ticket", 0, 0, accuracy=0.5, early_step=100),
        row("ticket", 0, 1, accuracy=1.0, early_step=200),
        row("ticket", 1, 0, accuracy=0.75, early_step=290),
        row("ticket", 1, 1, accuracy=0.75, early_step=10),
    ]
    assert curves.winning_level(rows).ticket.level == 1


def test_winner_is_not_chosen_on_test():
    rows = [
        row("ticket", 0),
        row("ticket", 1, test_accuracy=0.1),
        row("ticket", 2, val_accuracy=0.1, test_accuracy=1.0),
    ]
    assert curves.winning_level(rows).ticket.level == 1


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row("ticket", 1)],
        [row("ticket", 0)],
        [row("ticket", 0), row("reinitialized_0", 1)],
        [row("ticket", 0), row("ticket", 1, accuracy=0.8)],
        [row("ticket", 0), row("ticket", 1, early_step=None)],
        [row("ticket", 0, val_accuracy=None), row("ticket", 1)],
    ],
)
def test_no_winner(rows):
    assert curves.winning_level(rows) is None


def test_a_replicate_that_diverged_is_not_left_out_of_the_mean():
    rows = [
        row("ticket", 0, 0),
        row("ticket", 0, 1),
        row("ticket", 1, 0, accuracy=0.95),
        row("ticket", 1, 1, accuracy=None),
    ]
    assert curves.winning_level(rows) is None


@pytest.mark.parametrize(
    ("control", "beaten"), [(0.5, True), (0.9, False), (0.95, False)]
)
def test_beats_its_reinitialized_control(control, beaten):
    rows = lottery((0.9, 100), (0.9, 100), reinitialize_0=[control])
    assert curves.winning_level(rows).beats_control is beaten


def test_equal_means_are_equal_whatever_their_last_bit():
    float32 = [float(np.float32(n / 360)) for n in (345, 347, 346)]
    rows = [
        row("ticket", 0, 0, accuracy=float32[0]),
        row("ticket", 0, 1, accuracy=float32[1]),
        row("ticket", 1, 0, accuracy=float32[2]),
        row("ticket", 1, 1, accuracy=float32[2]),
        row("reinitialized_0", 1, 0, accuracy=float32[0]),
        row("reinitialized_0", 1, 1, accuracy=float32[1]),
    ]
    assert float32[0] + float32[1] != 2 * float32[2]
    winner = curves.winning_level(rows)
    assert winner.ticket.level == 1
    assert not winner.beats_control
    swapped = [{**r, "level": 1 - r["level"]} for r in rows[:4]]
    assert curves.winning_level(swapped).ticket.level == 1


def test_controls_of_other_kinds_and_levels_do_not_count():
    rows = lottery((0.9, 100), (0.9, 100), (0.9, 100), shuffled_0=[0.1, 0.1])
    rows.append(row("reinitialized_0", 1, accuracy=0.1))
    assert curves.winning_level(rows).control is None


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (1, "100"),
        (0.512, "51.2"),
        (0.262144, "26.2"),
        (0.13421, "13.4"),
        (0.01, "1"),
        (0.00999, "1.00"),
        (0.0000123, "0.0012"),
        (0, "0"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_percent(fraction, text):
    assert words.percent(fraction) == text


def test_format_table():
    rows = lottery((0.5, 100), (0.625, 80), shuffle_0=[0.25])
    rows.append(row("shuffle_1", 1, accuracy=0.5, early_step=200))
    rows.append(row("one_shot", 1, test_accuracy=None))
    assert words.format_table(rows).splitlines() == [
        "kept %  ticket        shuffled      one_shot",
        "   100  50.00 % @100",
        "    80  62.50 % @80   37.50 % @150  –",
        "Test accuracy @ step of the lowest validation loss. Means; "
        "n: ticket 1, shuffled 2, one shot 1.",
    ]


def test_format_table_of_nothing():
    assert words.format_table([]).startswith("kept %\n")
