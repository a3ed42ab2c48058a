"""Several processes that train together: who writes, and losing one."""

import contextlib
import zlib

import tensorflow as tf

from keras_lottery.errors import RunError
from keras_lottery.errors import WorkerLostError
from keras_lottery.training import replicas

_LOST = (
    tf.errors.UnavailableError,  # its connection is gone
    tf.errors.AbortedError,  # another worker noticed first
    tf.errors.DeadlineExceededError,  # it did not answer in time
    tf.errors.CancelledError,
)


def is_chief(strategy):
    """Returns whether this process is the one that writes files.

    Args:
        strategy: A `tf.distribute.Strategy`, or None.
    """
    return strategy is None or strategy.extended.should_checkpoint


def several(strategy):
    """Returns whether several processes train together under a strategy."""
    return strategy is not None and replicas.workers(strategy) > 1


@contextlib.contextmanager
def watched(strategy):
    """Makes the loss of a worker an error that says what to do.

    Raises:
        WorkerLostError: A worker ended, or did not answer in time.
    """
    try:
        yield
    except _LOST as error:
        if not several(strategy):
            raise
        reason = str(error).split("Collective ops is aborted by: ")[-1]
        raise WorkerLostError(
            "Training stopped: a worker is lost. What is finished is kept. "
            "Start all workers again, with the same command and any number of "
            "them, and training goes on after the last level that is done. "
            f"TensorFlow says: {' '.join(reason.split())[:500]}"
        ) from error


def agree(strategy, what, text):
    """Raises a RunError unless all workers pass the same text.

    Args:
        strategy: A `tf.distribute.Strategy`, or None.
        what: What the text says, for the error.
        text: Any text.
    """
    if not several(strategy):
        return
    own = tf.constant(zlib.crc32(text.encode()) // 2, tf.int32)
    passed = replicas.result(strategy, replicas.gathered, own).numpy()
    if len(set(passed.tolist())) > 1:
        raise RunError(
            f"The workers differ in {what}: checksums {passed}. Give "
            "all of them the same command and the same --workdir, on a file "
            "system that they share."
        )


def meet(strategy):
    """Waits until every worker is here."""
    agree(strategy, "where they are", "here")
