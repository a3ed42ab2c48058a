"""The directory that TF Serving polls: one subdirectory a version."""

import contextlib
import errno
import os
import re
import shutil
import tempfile

MOST = 2**63 - 1  # servers read versions as int64


@contextlib.contextmanager
def written(base, version=None):
    """Yields a directory to write into, which then becomes a version.

    Servers poll `base`: the version appears under its number only when the
    block has ended, whole. If the block raises, nothing of it is left, not
    `base` either if it was not there.

    Args:
        base: Directory of the served model; made if it is not there.
        version: Int from 0 to 2^63 - 1, or None for the next free one, from 1.

    Yields:
        A `Writing`, whose `path` is to be written into; once the block has
        ended its `final` is the path of the version.

    Raises:
        ValueError: The version exists, or is no such int; `base` is no path of
            a local directory.
        OSError: There is no room; says how to go on.
    """
    _check(version)
    base = local(base)
    missing = _missing(base)
    writing = Writing(base, version)
    try:
        os.makedirs(base, exist_ok=True)
        writing.begin()
        yield writing
        writing.finish()
    except BaseException as error:
        writing.abandon()
        for folder in missing:
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
                # Now that it is there, the next round says so or counts up.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise

    def abandon(self):
        """Removes what was written."""
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)

    def _number(self):
        taken = _versions(self._base)
        if self._counts_up:
            self.final = os.path.join(self._base, str(_next(taken, self._base)))
            return
        name = taken.get(int(os.path.basename(self.final)))
        if name is not None:
            raise ValueError(
                f"{os.path.join(self._base, name)} exists, and an export is "
                "never overwritten. Leave `version` out for the next free one."
            )


def local(base):
    """Returns `base` as a str.

    Raises:
        ValueError: It is no path, or a URL.
    """
    path = isinstance(base, (str, bytes, os.PathLike)) and os.fsdecode(base)
    if not path or re.match(r"\w+://", path):
        raise ValueError(
            "`base` must be the path of a local directory, got "
            f"{base!r}. Export into one, and copy the version from there."
        )
    return path


def _check(version):
    whole = isinstance(version, int) and not isinstance(version, bool)
    if version is not None and (not whole or not 0 <= version <= MOST):
        raise ValueError(
            f"`version` must be an int >= 0 and below 2^63, got {version!r}."
        )


def _missing(base):
    """Returns the directories that are not there, deepest first."""
    missing, folder = [], base
    while not os.path.isdir(folder):
        if os.path.lexists(folder):
            raise ValueError(
                f"`base` is the directory of a served model, got {base}, and "
                f"{folder} is a file or a broken link. Name another one."
            )
        missing.append(folder)
        folder = os.path.dirname(folder) or "."
    return missing


def _versions(base):
    """Returns what lies there as a server counts it: {version: name}."""
    names = [n for n in os.listdir(base) if re.fullmatch("[0-9]+", n)]
    return {int(n): n for n in names if int(n) <= MOST}


def _next(taken, base):
    version = max(taken, default=0) + 1
    if version > MOST:
        raise ValueError(
            f"{base} holds the highest version there is, so that no version "
            "above it is free. Pass a lower one as `version`."
        )
    return version


def _is_full(error):
    """Returns whether an error, TensorFlow's too, says that a disk is full."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return full or "No space left on device" in str(error)
