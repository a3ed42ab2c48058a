"""Files that appear under their name only when they are whole."""

import contextlib
import os
import tempfile


def write_whole(path, content):
    """Writes bytes so that `path` holds all of them, or what it held before.

    Args:
        path: File to write.
        content: Bytes.

    Raises:
        OSError: The file could not be written; nothing is left behind.
    """
    path = os.fspath(path)
    folder = os.path.dirname(path) or "."
    handle, aside = tempfile.mkstemp(dir=folder, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise


def _umask():
    current = os.umask(0)
    os.umask(current)
    return current
