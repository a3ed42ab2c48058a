"""The directory that TF Serving polls: one subdirectory a version."""

import contextlib
import errno
import os
import re
import shutil
import tempfile


@contextlib.contextmanager
def written(base, version=None):
    """Yields a directory to write into, which then becomes a version.

    Servers poll `base`: the version appears under its number only when the
    block has ended, whole. If the block raises, nothing of it is left, not
    `base` either if it was not there.

    Args:
        base: Directory of the served model; made if it is not there.
        version: Int >= 0, or None for the next free one, from 1.

    Yields:
        A `Writing`, whose `path` is to be written into; once the block has
        ended its `final` is the path of the version.

    Raises:
        ValueError: The version exists, or is no such int.
        OSError: There is no room; says how to go on.
    """
    _check(version)
    base = os.fspath(base)
    made = _make(base)
    writing = Writing(base, version)
    try:
        writing.begin()
        yield writing
        writing.finish()
    except BaseException as error:
        writing.abandon()
        for folder in made:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if _is_full(error):
            raise OSError(
                errno.ENOSPC,
                f"There is no room for the export in {base}, and nothing of it "
                "was left behind. Free some and export again",
            ) from error
        raise


class Writing:
    """A version that is being written aside.

    Attributes:
        path: Where to write.
        final: Path of the version.
    """

    def __init__(self, base, version):
        self._base = base
        self._counts_up = version is None
        self.path = None
        self.final = os.path.join(base, str(version or 0))

    def begin(self):
        """Makes the directory to write into."""
        self._number()
        self.path = tempfile.mkdtemp(dir=self._base, prefix=".writing-")

    def finish(self):
        """Gives the directory its name."""
        os.chmod(self.path, 0o755)
        while True:
            self._number()
            try:
                # Onto a directory that is not empty it fails: another export
                # that was faster is not overwritten.
                os.rename(self.path, self.final)
                return
            except OSError as error:
                taken = error.errno in (errno.ENOTEMPTY, errno.EEXIST)
                if not (taken and self._counts_up):
                    raise

    def abandon(self):
        """Removes what was written."""
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)

    def _number(self):
        if self._counts_up:
            self.final = os.path.join(self._base, str(_next(self._base)))
        elif os.path.lexists(self.final):
            raise ValueError(
                f"{self.final} exists, and an export is never overwritten. "
                "Leave `version` out for the next free one."
            )


def _check(version):
    whole = isinstance(version, int) and not isinstance(version, bool)
    if version is not None and (not whole or version < 0):
        raise ValueError(f"`version` must be an int >= 0, got {version!r}.")


def _make(base):
    """Makes a directory; returns those that were not there, deepest first."""
    missing, folder = [], base
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder) or "."
    os.makedirs(base, exist_ok=True)
    return missing


def _next(base):
    taken = [int(n) for n in os.listdir(base) if re.fullmatch(r"\d+", n)]
    return max(taken, default=0) + 1


def _is_full(error):
    """Returns whether an error, TensorFlow's too, says that a disk is full."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return full or "No space left on device" in str(error)
