"""Every write of a run made to fail: said clearly, and nothing is lost."""

import errno
import os
import pathlib
import re
import tempfile

import pytest

from keras_lottery import files
from keras_lottery.errors import RunError
from keras_lottery.runs import directory
from keras_lottery.runs import play

pytestmark = pytest.mark.thorough

# Of one file, in order: made aside, written, brought to disk, renamed.
OPERATIONS = ("mkstemp", "write", "fsync", "replace")
_WRITE = files.write_whole
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT, errno.EROFS)


class Disk:
    """The functions that `files` calls; each fails once for every file."""

    def __init__(self):
        self._path = None
        self.failed = {}  # (path, operation): error number

    def write_whole(self, path, content):
        """Notes of which file the operations are that follow."""
        self._path = re.sub("checkpoint-.*", "checkpoint", str(path))
        _WRITE(path, content)

    def fail(self, operation):
        """Fails where it has not yet."""
        here = self._path, operation
        if here in self.failed:
            return
        error = ERRORS[len(self.failed) % len(ERRORS)]
        self.failed[here] = error
        raise OSError(error, os.strerror(error))

    def install(self, patch):
        disk = self

        class Handle:
            def __init__(self, file):
                self._file = file

            def __enter__(self):
                return self

            def __exit__(self, *error):
                self._file.close()

            def write(self, content):
                self._file.write(content[: len(content) // 2])
                disk.fail("write")
                self._file.write(content[len(content) // 2 :])

            def __getattr__(self, name):
                return getattr(self._file, name)

        class System:
            def __getattr__(self, name):
                return getattr(os, name)

            def fdopen(self, *arguments):
                return Handle(os.fdopen(*arguments))

            def fsync(self, handle):
                disk.fail("fsync")
                os.fsync(handle)

            def replace(self, aside, path):
                disk.fail("replace")
                os.replace(aside, path)

        class Temporary:
            def mkstemp(self, **where):
                disk.fail("mkstemp")
                return tempfile.mkstemp(**where)

        patch.setattr(files, "os", System())
        patch.setattr(files, "tempfile", Temporary())
        patch.setattr(files, "write_whole", self.write_whole)


def config_of(lab):
    return lab.config(
        {
            "prune.levels": 1,
            "controls.names": (),
            "controls.one_shot": False,
            "checkpoint.steps": 2,
            "rewind.name": "learning_rate",
            "rewind.step": 4,
        }
    )


def test_whatever_write_fails_nothing_is_lost(
    lab, tmp_path, contents, monkeypatch
):
    """Every operation on every file fails once; the run goes on each time."""
    config = config_of(lab)
    whole, _ = lab.play(config, tmp_path / "whole")
    disk, workdir = Disk(), tmp_path / "failing"
    run = directory.RunDirectory.of(config, workdir)
    disk.install(monkeypatch)
    while True:
        before = len(disk.failed)
        try:
            lab.play(config, workdir)
        except RunError as error:
            text = str(error)
        else:
            break
        assert len(disk.failed) == before + 1
        (path, _), error = list(disk.failed.items())[-1]
        assert os.strerror(error) in text and "Cannot write" in text
        if os.path.basename(path) != "config.json":
            full = error in (errno.ENOSPC, errno.EDQUOT)
            assert ("Free room on the disk" in text) == full
            assert "then the same command continues" in text
        assert not list(workdir.rglob(f"{files.ASIDE}*"))
    assert contents(run.path) == contents(whole.path)
    # Nothing is written in another way, or it would not have failed here.
    named = {os.path.relpath(path, run.path) for path, _ in disk.failed}
    there = {
        str(path.relative_to(run.path))
        for path in pathlib.Path(run.path).rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    checkpoints = {name for name in named if name.endswith("checkpoint")}
    assert named - checkpoints == there | {
        "replicate_0/ticket/level_0/end.safetensors"
    }
    assert len(checkpoints) == 2
    assert disk.failed.keys() == {
        (os.path.join(run.path, name), operation)
        for name in named
        for operation in OPERATIONS
    }


def test_a_lock_that_cannot_be_made_is_said(lab, tmp_path):
    config = config_of(lab)
    run = directory.RunDirectory.of(config, tmp_path)
    run.create(config)
    os.remove(os.path.join(run.path, ".lock"))
    os.mkdir(os.path.join(run.path, ".lock"))
    with pytest.raises(RunError, match="Cannot write .*lock"):
        play.play(lab.experiment(config), run)
