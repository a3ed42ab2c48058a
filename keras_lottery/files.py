"""Files that appear under their name only when they are whole."""

import contextlib
import hashlib
import os
import tempfile

_MARK = b"<!-- sha256 "
ASIDE = ".writing-"  # what is written begins with this, until it is whole


def write_whole(path, content):
    """Writes bytes so that `path` holds all of them, or what it held before.

    When it returns, they are there even if the machine goes: the file and its
    folder are on disk.

    Args:
        path: File to write.
        content: Bytes.

    Raises:
        OSError: The file could not be written; nothing is left behind.
    """
    path = os.fspath(path)
    folder = os.path.dirname(path) or "."
    handle, aside = tempfile.mkstemp(dir=folder, prefix=ASIDE)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, path)
        _settle(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise


def seal_page(content):
    """Returns the bytes of a page of HTML with their own checksum at the end.

    Example:

    >>> is_sealed(seal_page(b"<html></html>")), is_sealed(b"<html></html>")
    (True, False)
    """
    return content + _seal(content)


def is_sealed(content):
    """Returns whether a page is, byte for byte, as it was sealed."""
    body, mark, _ = content.rpartition(_MARK)
    return bool(mark) and content == body + _seal(body)


def _seal(content):
    digest = hashlib.sha256(content).hexdigest()
    return _MARK + f"{digest} of what is above -->\n".encode()


def remove_unfinished(folder):
    """Removes what processes were writing to a folder when they were killed.

    Call it only where no other process writes there.
    """
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.startswith(ASIDE) and os.path.isfile(path):
            os.unlink(path)


def _settle(folder):
    """Has the names in a folder written to disk, where its system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # not a system that opens folders
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _umask():
    current = os.umask(0)
    os.umask(current)
    return current
