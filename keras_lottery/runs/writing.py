"""Writing to a run: whole files, and errors that say what to do."""

import contextlib
import errno

from keras_lottery import files
from keras_lottery.errors import RunError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def write(root, path, content):
    """Writes a file of a run, whole or not at all.

    Args:
        root: The run's directory.
        path: The file, inside.
        content: Bytes.

    Raises:
        RunError: It cannot be written; says what to do.
    """
    with explained(root, path):
        files.write_whole(path, content)


@contextlib.contextmanager
def explained(root, path):
    """Makes an error of the system one that says what to do.

    Args:
        root: The run's directory.
        path: What is written inside.

    Raises:
        RunError: The file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise failed(root, path, error) from error


def failed(root, path, error):
    """Returns the error that says what the system's error means, and to do.

    Args:
        root: The run's directory.
        path: What could not be written.
        error: The OSError.
    """
    if error.errno in _FULL:
        mend = (
            f"Free room on the disk of {root}: its folders damaged and export, "
            "and other runs, are not needed to go on"
        )
    else:
        mend = "Mend that, or choose another --workdir"
    return RunError(
        f"Cannot write {path}: {error.strerror}. What is finished is kept. "
        f"{mend}; then the same command continues."
    )
