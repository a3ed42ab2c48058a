"""The early-stopping step: where the validation loss was lowest."""

import numpy as np


def at_minimum(rows, of="val_loss"):
    """Returns the row of a curve with the lowest validation loss.

    Found after the fact: training always runs its full length.

    Args:
        rows: List of dicts with `step` and logs; some may lack `of`.
        of: Which log to minimise.

    Returns:
        The first such row, or None if no row has a finite `of`.

    Example:

    >>> at_minimum([{"step": 5, "val_loss": 2.0}, {"step": 10, "val_loss": 1}])
    {'step': 10, 'val_loss': 1}

    Reference: Frankle & Carbin (2019), section 2 and appendix C.
    """
    validated = [row for row in rows if np.isfinite(row.get(of, np.nan))]
    return min(validated, key=lambda row: row[of], default=None)


def summarize(rows):
    """Returns the metrics of one training, as a ticket keeps them.

    Args:
        rows: List of dicts with `step` and logs.

    Returns:
        Dict of floats: `early_step` and every `val_*` and `test_*` there;
        every log of the last row as `last_*`.

    Example:

    >>> rows = [{"step": 5, "loss": 3.0, "val_loss": 2.0}]
    >>> summarize(rows)["early_step"]
    5
    """
    if not rows:
        return {}
    best = at_minimum(rows)
    metrics = {}
    if best is not None:
        metrics["early_step"] = best["step"]
        there = {
            k: v for k, v in best.items() if k.startswith(("val_", "test_"))
        }
        metrics.update(there)
    last = {f"last_{k}": v for k, v in rows[-1].items() if k != "step"}
    return {**metrics, "last_step": rows[-1]["step"], **last}
