"""Deterministic operations: the same bits from the same training."""

import contextlib

# Public names of TensorFlow switch them on for good; what goes on in a process
# after a run should be as it was before.
from tensorflow.python.framework import config as tensorflow_config


@contextlib.contextmanager
def deterministic(wanted=True):
    """Has TensorFlow choose deterministic operations inside.

    On CPU its operations are deterministic anyway (for one number of threads);
    on GPUs some are not, and those that have no deterministic form raise an
    error that says so.

    Args:
        wanted: Whether to; otherwise all stays as it is.

    Example:

    >>> with deterministic():
    ...     is_deterministic()
    True
    """
    before = is_deterministic()
    if wanted and not before:
        tensorflow_config.enable_op_determinism()
    try:
        yield
    finally:
        if wanted and not before:
            tensorflow_config.disable_op_determinism()


@contextlib.contextmanager
def lifted():
    """Has TensorFlow choose any operations inside, as if nobody had asked.

    Keras takes no network to be one for XLA while they have to be
    deterministic: some of XLA's on GPUs are not. On CPU they are.
    """
    before = is_deterministic()
    if before:
        tensorflow_config.disable_op_determinism()
    try:
        yield
    finally:
        if before:
            tensorflow_config.enable_op_determinism()


def is_deterministic():
    """Returns whether TensorFlow chooses deterministic operations now."""
    return tensorflow_config.is_op_determinism_enabled()
