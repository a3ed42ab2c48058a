"""The early-stopping step is found after the fact."""

import math

import pytest

from keras_lottery.training.early_stopping import at_minimum
from keras_lottery.training.early_stopping import summarize

CURVE = [
    {"step": 5, "loss": 3.0, "val_loss": 2.0, "val_accuracy": 0.5},
    {"step": 10, "loss": 2.0, "val_loss": 1.0, "val_accuracy": 0.7},
    {"step": 15, "loss": 1.0, "val_loss": 1.5, "val_accuracy": 0.8},
]


def test_the_row_of_the_lowest_validation_loss():
    assert at_minimum(CURVE) is CURVE[1]


def test_another_log_can_be_minimised():
    assert at_minimum(CURVE, of="loss") is CURVE[2]


def test_the_first_of_equal_rows():
    rows = [{"step": s, "val_loss": v} for s, v in [(1, 2), (2, 1), (3, 1)]]
    assert at_minimum(rows)["step"] == 2


@pytest.mark.parametrize("bad", [math.nan, -math.inf, math.inf])
def test_a_validation_loss_that_is_not_finite_is_passed_over(bad):
    rows = [{"step": 1, "val_loss": bad}, {"step": 2, "val_loss": 9.0}]
    assert at_minimum(rows)["step"] == 2
    assert at_minimum(rows[:1]) is None


def test_rows_without_validation_are_passed_over():
    rows = [{"step": 1, "loss": 0.1}, {"step": 2, "val_loss": 9.0}]
    assert at_minimum(rows)["step"] == 2
    assert at_minimum(rows[:1]) is None
    assert at_minimum([]) is None


def test_summary_of_a_curve():
    assert summarize(CURVE) == {
        "early_step": 10,
        "val_loss": 1.0,
        "val_accuracy": 0.7,
        "last_step": 15,
        "last_loss": 1.0,
        "last_val_loss": 1.5,
        "last_val_accuracy": 0.8,
    }


def test_summary_without_validation_has_no_early_step():
    rows = [{"step": 5, "loss": 3.0}, {"step": 10, "loss": 2.0}]
    assert summarize(rows) == {"last_step": 10, "last_loss": 2.0}


def test_summary_of_nothing():
    assert summarize([]) == {}


def test_rows_are_left_alone():
    rows = [dict(row) for row in CURVE]
    summarize(rows)
    assert rows == CURVE
