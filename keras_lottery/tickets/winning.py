"""Which ticket wins: chosen on validation, never on test."""

import numpy as np

from keras_lottery import directions


def choose(tickets, tolerance=0.0, metric=None, mode=None):
    """Returns the sparsest ticket as good as the dense one, as early.

    Args:
        tickets: Tickets with metrics, one of them of level 0.
        tolerance: How much worse the metric may be, at least 0.
        metric: Name without `val_`; accuracy if there is one, else loss.
        mode: `"max"` or `"min"`; known for common metrics.

    Returns:
        A `Ticket` of level 1 or more.

    Raises:
        ValueError: Nothing to compare, no such ticket, or a metric whose
            direction is not known.
    """
    number = isinstance(tolerance, (int, float, np.integer, np.floating))
    if not number or isinstance(tolerance, bool) or not tolerance >= 0:
        raise ValueError(
            f"`tolerance` must be a number >= 0, got {tolerance!r}."
        )
    dense = next((t for t in tickets if t.level == 0), None)
    if dense is None:
        raise ValueError(
            "There is no dense level to compare with: call `fit` first, with a "
            "schedule that counts in levels."
        )
    if "early_step" not in dense.metrics:
        raise ValueError(
            "A winning ticket is chosen on validation data, and there was "
            "none: pass `validation_data` or `validation_split` to `fit`."
        )
    name = _metric(dense, metric)
    sign = 1 if directions.mode_of(name, mode) == "max" else -1
    bar = sign * dense.metrics[name] - tolerance
    validated = [t for t in tickets if {name, "early_step"} <= set(t.metrics)]
    winners = [
        ticket
        for ticket in validated
        if ticket.level > 0
        and sign * ticket.metrics[name] >= bar
        and ticket.metrics["early_step"] <= dense.metrics["early_step"]
    ]
    if not winners:
        raise ValueError(_none_wins(validated, dense, name))
    return min(winners, key=lambda ticket: ticket.density)


def _metric(dense, metric):
    if metric is None:
        accuracy = "val_accuracy" in dense.metrics
        return "val_accuracy" if accuracy else "val_loss"
    name = metric if metric.startswith("val_") else f"val_{metric}"
    if name not in dense.metrics:
        known = [k[4:] for k in dense.metrics if k.startswith("val_")]
        raise ValueError(
            f"Unknown metric {metric!r}. Expected one of {', '.join(known)}."
        )
    return name


def _none_wins(validated, dense, name):
    rows = "".join(
        f"\n  level {t.level}: {name} {t.metrics[name]:.4f} at step "
        f"{t.metrics['early_step']}"
        for t in validated
    )
    return (
        f"No pruned level has {name} as good as the dense network's "
        f"{dense.metrics[name]:.4f}, reached by step "
        f"{dense.metrics['early_step']}. Allow a tolerance, train longer or "
        f"validate more often.{rows}"
    )
