"""Locks: who works on a run. The system drops them with their process.

A run has one lock, and one per part (`replicate_0/ticket`). Who plays the whole
run holds the first; who plays a part holds the part's, and the first only for a
moment: to begin, and to write a table.
"""

import os

from keras_lottery import file_lock
from keras_lottery.errors import RunError
from keras_lottery.runs import paths
from keras_lottery.runs import writing

# How long to wait for what is held for a moment, in seconds: a run that is
# played whole holds it for hours. Of tables nothing may be lost.
_TO_BEGIN, _TO_WRITE = 5, 120
# Who asks whether a run is being played holds it for an instant.
_TO_ASK = 1


def whole(root):
    """Returns a context that keeps all other processes out of a run.

    Args:
        root: The run's directory.

    Raises:
        RunError: Another process plays it, or a part of it.
    """
    held = _taken(root, paths.LOCK, _TO_ASK, root)
    try:
        for name in paths.locks_of_parts(root):
            _taken(root, name, 0, f"a part of {root}").lock.release()
    except BaseException:
        held.lock.release()
        raise
    return held


def part(root, name):
    """Returns a context that keeps others out of a part: `replicate_0/ticket`.

    Raises:
        RunError: Another process plays the part, or the whole run.
    """
    with entry(root):
        lock = paths.lock_of_part(name)
        return _taken(root, lock, 0, f"{name} of {root}")


def entry(root):
    """Returns a context for a moment, in which a process joins others.

    Raises:
        RunError: Another process plays the whole run.
    """
    return _taken(root, paths.LOCK, _TO_BEGIN, root)


def moment(root):
    """Returns a context for writing beside processes that play parts.

    Raises:
        RunError: Another process plays the whole run.
    """
    return _taken(root, paths.LOCK, _TO_WRITE, root)


def held(root):
    """Returns whether a process is working on a run, or on a part of it."""
    locks = [paths.LOCK, *paths.locks_of_parts(root)]
    if not any(os.path.exists(os.path.join(root, name)) for name in locks):
        return False
    try:
        with whole(root):
            return False
    except file_lock.Locked:
        return True
    except RunError:  # no lock can be made here, so nobody holds one
        return False


def _taken(root, name, patience, what):
    path = paths.inside(root, name)
    with writing.explained(root, path):
        return file_lock.take(path, what, patience)
