"""Pooling by hand: means, ranges, counts, and which level wins."""

import math

import numpy as np
import pytest

from keras_lottery import notation
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
        ("one_shot_1", "one_shot"),
        ("\x1b[2Jred\n\ud800_0", "\ufffd[2Jred\ufffd\ufffd"),
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
    assert pooled.test == curves.Spread(0.5, 0.25, 0.75, 3)
    assert pooled.early_step == curves.Spread(300.0, 100.0, 600.0, 3)


def test_pool_counts_only_what_was_measured():
    rows = [row("ticket", 0, test_accuracy=None), row("ticket", 0)]
    rows.append({"arm": "ticket", "level": 0})
    point = curves.pool(rows)[0]
    assert point.n == 3
    assert point.test == curves.Spread(0.9, 0.9, 0.9, 1)
    assert point.early_step.n == 2


def test_pool_takes_any_metric():
    rows = [
        row("ticket", 0, val_mae=1.0, test_mae=2.0, last_test_mae=3.0),
        row("ticket", 0, val_mae="3", test_mae="6"),
    ]
    (point,) = curves.pool(rows, "mae")
    assert point.validation == curves.Spread(2.0, 1.0, 3.0, 2)
    assert point.test == curves.Spread(4.0, 2.0, 6.0, 2)
    assert point.last_test == curves.Spread(3.0, 3.0, 3.0, 1)
    (lacking,) = curves.pool(rows, "auc")
    assert lacking.n == 2
    assert [lacking.validation.n, lacking.test.n, lacking.last_test.n] == [
        0
    ] * 3


def test_one_shot_comes_after_the_ticket():
    arms = ["a", "random_0", "shuffle_0", "reinitialize_0", "one_shot"]
    rows = [row(arm, 1) for arm in [*arms, "ticket", "z"]]
    assert [point.kind for point in curves.pool(rows)] == [
        "ticket",
        "one_shot",
        "reinitialized",
        "shuffled",
        "random",
        "a",
        "z",
    ]


def test_pool_does_not_depend_on_the_order_of_rows():
    rows = [row("ticket", 0, accuracy=a) for a in (0.1, 0.2, 0.3, 0.7)]
    assert curves.pool(rows) == curves.pool(rows[::-1])


def test_pool_takes_rows_of_a_data_frame():
    pandas = pytest.importorskip("pandas")
    rows = [row("ticket", 0), row("ticket", 0, val_accuracy=None)]
    frame = pandas.DataFrame(rows).to_dict("records")
    frame[1]["early_step"] = pandas.NA
    point = curves.pool(frame)[0]
    assert point.validation == curves.Spread(0.9, 0.9, 0.9, 1)
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


def mirrored(rows):
    """The same rows with an error in place of the accuracy."""
    return [
        {
            name.replace("accuracy", "mae"): -value if "acc" in name else value
            for name, value in row.items()
        }
        for row in rows
    ]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("tolerance", [0.0, 0.125])
def test_an_error_is_an_accuracy_the_other_way_around(seed, tolerance):
    draw = np.random.default_rng(seed)
    tickets = [(draw.integers(4) / 8, draw.integers(3)) for _ in range(6)]
    controls = list(draw.integers(4, size=5) / 8)
    rows = lottery(*tickets, reinitialize_0=controls)
    more = curves.winning_level(rows, tolerance)
    less = curves.winning_level(mirrored(rows), tolerance, "mae")
    dense, step = tickets[0]
    good = [
        level
        for level, (accuracy, early) in enumerate(tickets)
        if level and accuracy >= dense - tolerance and early <= step
    ]
    if not good:
        assert more is less is None
        return
    beaten = controls[good[-1] - 1] < tickets[good[-1]][0]
    for winner, mode in ((more, "max"), (less, "min")):
        assert winner.ticket.level == good[-1]
        assert winner.beats_control == beaten
        assert winner.overlaps_control != beaten
        assert winner.mode == mode


def test_a_mode_given_is_the_mode_of_the_winner():
    rows = lottery((0.5, 9), (0.25, 9), (0.75, 9), reinitialize_0=[0.5, 0.5])
    assert curves.winning_level(rows).ticket.level == 2
    winner = curves.winning_level(rows, mode="min")
    assert winner.ticket.level == 1
    assert winner.beats_control


def test_a_metric_whose_direction_is_not_known_is_refused():
    rows = [row("ticket", n, val_fluency=1.0) for n in range(2)]
    with pytest.raises(ValueError, match="'fluency' is better is not known"):
        curves.winning_level(rows, metric="fluency")
    winner = curves.winning_level(rows, metric="fluency", mode="max")
    assert winner.ticket.level == 1
    with pytest.raises(ValueError, match="`mode` must be 'max' or 'min'"):
        curves.winning_level(rows, mode="most")


def test_a_metric_that_no_row_has_makes_no_winner():
    rows = lottery((0.9, 100), (0.9, 100))
    assert curves.winning_level(rows, metric="mae") is None


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_small_and_large_errors_are_told_apart(scale):
    mse = [3 * scale, 3.0001 * scale, 3 * scale * (1 + 2**-24), 2 * scale]
    rows = [
        row("ticket", level, val_mse=value, test_mse=value)
        for level, value in enumerate(mse)
    ]
    found = [
        curves.winning_level([rows[0], each], metric="mse") for each in rows[1:]
    ]
    assert [winner is not None for winner in found] == [False, True, True]


def test_the_step_is_compared_exactly():
    rows = lottery((0.9, 1_000_000_000), (0.9, 1_000_000_001))
    assert curves.winning_level(rows) is None


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
    assert notation.percent(fraction) == text


def test_format_table():
    rows = lottery((0.5, 100), (0.625, 80), shuffle_0=[0.25])
    rows.append(row("shuffle_1", 1, accuracy=0.5, early_step=200))
    rows.append(row("one_shot", 1, test_accuracy=None))
    assert words.format_table(rows).splitlines() == [
        "kept %  ticket        one_shot      shuffled",
        "   100  50.00 % @100",
        "    80  62.50 % @80   –             37.50 % @150",
        "Test accuracy @ step of the lowest validation loss. Means; "
        "n: ticket 1, one shot 1, shuffled 2.",
    ]


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.96, "accuracy", "96.00 %"),
        (1.0, "auc_1", "100.00 %"),
        (0.5, "mae", "0.5000"),
        (0.000123456, "mae", "0.0001235"),
        (0.0000123456, "mae", "1.235e-05"),
        (9.99996, "mae", "10.00"),
        (-0.25, "r2_score", "-0.2500"),
        (1234.56, "mse", "1,235"),
        (123456.7, "mse", "123,457"),
        (1234567, "mse", "1.235e+06"),
        (0, "mse", "0.000"),
        (1e-300, "mse", "1.000e-300"),
    ],
)
def test_a_metric_as_people_write_it(value, metric, text):
    assert notation.with_unit(value, metric) == text


@pytest.mark.parametrize("seed", range(5))
def test_four_digits_are_shown(seed):
    draw = np.random.default_rng(seed)
    for value in 10 ** draw.uniform(-12, 12, 200):
        shown = float(notation.digits(value, "mse").replace(",", ""))
        assert abs(shown / value - 1) <= 5.001e-4


def test_format_table_of_another_metric():
    rows = [row("ticket", 0, test_mae=1.5), row("ticket", 1)]
    assert words.format_table(rows, "mae").splitlines() == [
        "kept %  ticket",
        "   100  1.500 @100",
        "    80  –",
        "Test mae @ step of the lowest validation loss. Means; n: ticket 1.",
    ]
    last = words.format_table(rows, "mean_absolute_error").splitlines()[-1]
    assert last.startswith("Test mean absolute error @")


def test_format_table_steers_no_terminal():
    text = words.format_table([row("\x1b]0;owned\x07_0", 1)])
    assert "\x1b" not in text
    assert "\x07" not in text


def test_format_table_of_nothing():
    assert words.format_table([]).startswith("kept %\n")
