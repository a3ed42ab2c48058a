"""Files of strangers: read only where they are files, and of a known size.

Opening a pipe waits for ever, and a device has no end. A link is followed:
`runs.paths` says where one may lead.
"""

import contextlib
import errno
import os
import stat

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # or a pipe without a writer blocks
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


@contextlib.contextmanager
def opened(path):
    """Yields (binary file, its size in bytes).

    Args:
        path: Of a regular file, or of a link to one.

    Raises:
        OSError: It cannot be read, or is a folder, a pipe, a device.
    """
    handle = os.open(path, _FLAGS)
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        yield file, found.st_size


def read(path, most=None):
    """Returns the bytes of a file.

    Args:
        path: As `opened` takes it.
        most: Number of bytes that such a file may have, or None.

    Raises:
        OSError: It cannot be read, is no regular file, or is longer.

    Example:

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b"0.5"), file.flush()
    ...     read(file.name)
    b'0.5'
    """
    with opened(path) as (file, size):
        if most is not None and size > most:
            raise OSError(
                errno.EFBIG,
                f"it has {size:,} bytes, {most:,} are the most expected",
                str(path),
            )
        return file.read(size)
