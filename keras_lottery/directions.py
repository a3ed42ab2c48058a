"""Directions: whether more or less of a metric is better, by its name."""

import re

# Fractions lie in [0, 1] whatever the data: people read them in percent.
_FRACTIONS = {
    "max": """
        accuracy acc auc precision recall sensitivity specificity
        f1 f1_score fbeta fbeta_score f_beta_score
        iou io_u dice dice_coefficient true_positive_rate true_negative_rate
    """,
    "min": "false_positive_rate false_negative_rate false_discovery_rate",
}
_NUMBERS = {
    "max": """
        r2 r2_score cosine_similarity correlation log_likelihood
        true_positives true_negatives
    """,
    "min": """
        loss logloss error error_rate mae mse rmse mape msle rmsle
        entropy crossentropy bce nll negative_log_likelihood perplexity
        huber log_cosh logcosh divergence kld hinge poisson brier_score
        false_positives false_negatives
    """,
}
_DIRECTIONS = {
    ending: mode
    for table in (_FRACTIONS, _NUMBERS)
    for mode, endings in table.items()
    for ending in endings.split()
}
# `neg_mean_squared_error` is better the larger it is: no ending is believed
# behind one of these.
_TURNING = {"inverse", "inverted", "minus", "neg", "negated", "negative"}
_PREFIXES = ("val", "test", "last")


def mode_of(metric, mode=None):
    """Returns `"max"` where more of a metric is better, else `"min"`.

    A name tells by its last words, after `val_`, `test_` or `last_` and
    without the number that Keras appends.

    Args:
        metric: Name of a metric.
        mode: `"max"` or `"min"` where the user says so; None to go by name.

    Returns:
        `"max"` or `"min"`.

    Raises:
        ValueError: The name does not tell, or `mode` is something else.

    Example:

    >>> mode_of("val_auc_1"), mode_of("mean_absolute_error")
    ('max', 'min')
    """
    if mode not in (None, "max", "min"):
        raise ValueError(f"`mode` must be 'max' or 'min', got {mode!r}.")
    mode = mode or _DIRECTIONS.get(_ending(metric))
    if mode is None:
        raise ValueError(
            f"Whether more or less {metric!r} is better is not known: pass "
            "mode='max' or mode='min'."
        )
    return mode


def is_fraction(metric):
    """Returns whether a metric lies in [0, 1] by its nature.

    Example:

    >>> is_fraction("test_accuracy"), is_fraction("loss")
    (True, False)
    """
    ending = _ending(metric)
    return any(ending in endings.split() for endings in _FRACTIONS.values())


def _ending(metric):
    """Returns the longest known ending of a name, or None."""
    words = re.split(r"[\W_]+", str(metric).lower())
    while words and words[0] in _PREFIXES:
        words = words[1:]
    # `precision_at_recall` is a precision, and `recall_at_5` a recall.
    if "at" in words:
        words = words[: words.index("at")]
    while words and words[-1].isdecimal():
        words = words[:-1]
    for start in range(len(words)):
        ending = "_".join(words[start:])
        if ending in _DIRECTIONS:
            return None if _TURNING & set(words[:start]) else ending
    return None
