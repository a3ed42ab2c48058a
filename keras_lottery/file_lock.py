"""Locks of folders. The system drops them with their process."""

import filelock

from keras_lottery.errors import RunError


class Locked(RunError):
    """Another process holds a lock."""


def take(path, what, patience=0):
    """Returns a context that keeps other processes out, already taken.

    Args:
        path: The file to lock; it is made, and stays.
        what: What it locks, for the error.
        patience: Seconds to wait for another process.

    Raises:
        Locked: Another process holds it.
        OSError: The file cannot be made.
    """
    try:
        return filelock.FileLock(path).acquire(timeout=patience)
    except filelock.Timeout as error:
        raise Locked(
            f"Another process is working on {what}: wait for it, or stop it. "
            "Nothing needs to be removed by hand."
        ) from error
