"""The winning ticket, from tickets written by hand."""

import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.tickets import winning
from keras_lottery.tickets.ticket import Ticket

SIZE = 1000


def ticket(level, kept, step, **metrics):
    """Returns a ticket of `kept` of 1,000 weights and some metrics."""
    mask = lottery.Mask({"w": np.arange(SIZE) < kept})
    named = {f"val_{name}": value for name, value in metrics.items()}
    return Ticket(
        mask, {}, {}, level=level, metrics={"early_step": step, **named}
    )


def lottery_of(*rows):
    """Returns tickets of rows (kept, step, accuracy), level 0 first."""
    return [
        ticket(level, kept, step, accuracy=accuracy, loss=1 - accuracy)
        for level, (kept, step, accuracy) in enumerate(rows)
    ]


def chosen(rows, **choices):
    """Returns the level that wins."""
    return winning.choose(lottery_of(*rows), **choices).level


DENSE = (1000, 50, 0.90)


class TestRule:
    """Sparsest, no worse than dense, and reached no later."""

    def test_the_sparsest_of_several(self):
        """Not the best one."""
        rows = [DENSE, (800, 50, 0.99), (500, 40, 0.91), (200, 30, 0.90)]
        assert chosen(rows) == 3

    def test_worse_ones_are_left_out(self):
        """A little worse is worse."""
        rows = [DENSE, (800, 50, 0.92), (500, 40, 0.8999), (200, 30, 0.5)]
        assert chosen(rows) == 1

    def test_later_ones_are_left_out(self):
        """One step later is later."""
        rows = [DENSE, (800, 50, 0.90), (500, 51, 0.99)]
        assert chosen(rows) == 1

    def test_equal_is_good_enough(self):
        """The same accuracy at the same step."""
        assert chosen([DENSE, DENSE[:1] + (50, 0.90)]) == 1
        assert chosen([DENSE, (10, 50, 0.90)]) == 1

    def test_a_sparser_one_after_a_bad_one(self):
        """Levels need not be good in a row."""
        assert chosen([DENSE, (800, 60, 0.5), (500, 40, 0.95)]) == 2

    def test_the_dense_one_never_wins(self):
        """It is what tickets are compared with."""
        with pytest.raises(ValueError, match="No pruned level"):
            chosen([DENSE])

    def test_order_does_not_matter(self):
        """Level 0 is found wherever it is."""
        rows = [DENSE, (800, 50, 0.92), (500, 40, 0.91), (200, 30, 0.5)]
        assert winning.choose(lottery_of(*rows)[::-1]).level == 2

    def test_of_equal_density_the_earlier(self):
        """Two levels of the same count: the first of them."""
        rows = [DENSE, (500, 40, 0.91), (500, 40, 0.95)]
        assert chosen(rows) == 1

    def test_nan_never_wins(self):
        """A level whose metric is NaN is no better than the dense one."""
        rows = [DENSE, (800, 50, 0.92), (500, 40, float("nan"))]
        assert chosen(rows) == 1


class TestTolerance:
    """How much worse the metric may be; the step never."""

    ROWS = [DENSE, (800, 50, 0.90), (500, 40, 0.875), (200, 30, 0.75)]

    @pytest.mark.parametrize(
        "tolerance, level",
        [(0, 1), (0.0, 1), (0.01, 1), (0.03, 2), (0.2, 3), (1, 3)],
    )
    def test_it_widens_the_choice(self, tolerance, level):
        """0.90 - 0.03 lies below 0.875, and 0.90 - 0.01 does not."""
        assert chosen(self.ROWS, tolerance=tolerance) == level

    def test_exactly_at_the_bar(self):
        """0.75 - 0.25 is 0.5 in binary too."""
        rows = [(1000, 50, 0.75), (500, 50, 0.5)]
        assert chosen(rows, tolerance=0.25) == 1

    def test_not_of_the_step(self):
        """However tolerant."""
        with pytest.raises(ValueError, match="No pruned level"):
            chosen([DENSE, (500, 51, 0.99)], tolerance=100)

    @pytest.mark.parametrize(
        "tolerance", [-0.1, -1, "0.1", None, float("nan"), True]
    )
    def test_wrong(self, tolerance):
        """It is a number of at least 0."""
        with pytest.raises(ValueError, match="`tolerance` must be"):
            chosen(self.ROWS, tolerance=tolerance)

    def test_numpy_numbers(self):
        """As they come out of a table."""
        for kind in (np.float32, np.float64, np.int64):
            assert chosen(self.ROWS, tolerance=kind(1)) == 3


class TestMetrics:
    """Which is compared, and which way is better."""

    def rows(self, name, dense, *others):
        """Returns tickets with one metric beside the loss."""
        found = [ticket(0, 1000, 50, **{name: dense, "loss": 1.0})]
        for level, value in enumerate(others, start=1):
            metrics = {name: value, "loss": 1.0}
            found.append(ticket(level, 1000 - 100 * level, 50, **metrics))
        return found

    @pytest.mark.parametrize(
        "name",
        [
            "accuracy", "sparse_categorical_accuracy", "auc", "precision",
            "recall", "f1", "mean_iou", "r2", "acc", "auc_1", "f1_score",
            "mean_io_u_2", "true_positives", "cosine_similarity",
        ],
    )  # fmt: skip
    def test_more_is_better(self, name):
        """By the end of its name."""
        found = self.rows(name, 0.5, 0.6, 0.4)
        assert winning.choose(found, metric=name).level == 1

    @pytest.mark.parametrize(
        "name",
        [
            "loss", "kind_loss", "mae", "mean_absolute_error", "mse", "rmse",
            "mean_squared_error_1", "false_positives", "huber", "poisson",
            "mean_relative_error",
        ],
    )  # fmt: skip
    def test_less_is_better(self, name):
        """The same numbers the other way around."""
        found = [
            ticket(level, 1000 - 100 * level, 50, **{name: value})
            for level, value in enumerate([0.5, 0.4, 0.6])
        ]
        assert winning.choose(found, metric=name).level == 1

    def test_accuracy_before_loss(self):
        """The default, if there is one; with or without `val_`."""
        found = [
            ticket(0, 1000, 50, accuracy=0.5, loss=1.0),
            ticket(1, 900, 50, accuracy=0.6, loss=2.0),
            ticket(2, 800, 50, accuracy=0.4, loss=0.5),
        ]
        assert winning.choose(found).level == 1
        assert winning.choose(found, metric="accuracy").level == 1
        assert winning.choose(found, metric="val_accuracy").level == 1
        assert winning.choose(found, metric="loss").level == 2

    def test_loss_without_accuracy(self):
        """The other default."""
        found = [
            ticket(level, 1000 - 100 * level, 50, loss=value)
            for level, value in enumerate([0.5, 0.4, 0.6])
        ]
        assert winning.choose(found).level == 1

    @pytest.mark.parametrize(
        "name", ["fluency", "score", "inaccuracy", "neg_mse"]
    )
    def test_an_unknown_direction(self, name):
        """`mode` says it; otherwise it is an error, not a guess."""
        found = self.rows(name, 0.5, 0.6, 0.4)
        with pytest.raises(ValueError, match=f"{name}.*is not known: pass"):
            winning.choose(found, metric=name)
        assert winning.choose(found, metric=name, mode="max").level == 1
        assert winning.choose(found, metric=name, mode="min").level == 2

    def test_mode_overrides(self):
        """A user knows better."""
        found = self.rows("accuracy", 0.5, 0.6, 0.4)
        assert winning.choose(found, mode="min").level == 2

    @pytest.mark.parametrize("mode", ["maximum", "auto", 1])
    def test_wrong_mode(self, mode):
        """Not taken for `min` in silence."""
        with pytest.raises(ValueError, match="`mode` must be.*'max'.*'min'"):
            winning.choose(self.rows("accuracy", 0.5, 0.6), mode=mode)

    def test_unknown_metric(self):
        """The choices are listed."""
        with pytest.raises(
            ValueError, match="Unknown metric 'auc'.*one of accuracy, loss"
        ):
            winning.choose(lottery_of(DENSE, DENSE), metric="auc")


class TestErrors:
    """What is missing, and what there is."""

    def test_nothing_at_all(self):
        """Before any `fit`."""
        with pytest.raises(ValueError, match="no dense level.*call `fit`"):
            winning.choose([])

    def test_no_dense_level(self):
        """Tickets of later levels only."""
        with pytest.raises(ValueError, match="no dense level"):
            winning.choose(lottery_of(DENSE, DENSE)[1:])

    def test_no_validation_data(self):
        """Chosen on validation, never on training data."""
        found = lottery_of(DENSE, DENSE)
        for each in found:
            metrics = dict(each.metrics)
            each.metrics.clear()
            each.metrics.update({"last_loss": metrics["val_loss"]})
        with pytest.raises(ValueError, match="pass `validation_data` or"):
            winning.choose(found)

    def test_a_later_level_without_validation(self):
        """A second `fit` without it: that level is left out."""
        found = lottery_of(DENSE, (800, 50, 0.95), (500, 50, 0.95))
        found[2].metrics.clear()
        assert winning.choose(found).level == 1
        found[1].metrics.clear()
        with pytest.raises(ValueError, match="No pruned level") as caught:
            winning.choose(found)
        assert len(str(caught.value).splitlines()) == 2

    def test_none_wins(self):
        """Every level with its metric and step; what can be done."""
        rows = [DENSE, (800, 60, 0.95), (500, 40, 0.85)]
        with pytest.raises(ValueError) as caught:
            chosen(rows)
        lines = str(caught.value).splitlines()
        assert "dense network's 0.9000, reached by step 50" in lines[0]
        assert "Allow a tolerance" in lines[0]
        assert lines[1:] == [
            "  level 0: val_accuracy 0.9000 at step 50",
            "  level 1: val_accuracy 0.9500 at step 60",
            "  level 2: val_accuracy 0.8500 at step 40",
        ]
