"""A run's directory as a worker sees it that writes nothing: the chief does.

What the chief has written is waited for: on a shared file system it may take a
while to be seen.
"""

import contextlib
import os
import time

from keras_lottery.errors import RunError
from keras_lottery.runs import config_file
from keras_lottery.runs import paths
from keras_lottery.runs.directory import RunDirectory

PATIENCE = 120.0  # seconds


class Onlooker(RunDirectory):
    """The files of one run, read only.

    Args:
        path: The run's directory.
    """

    def create(self, config, command=""):
        """Waits for the chief to make the directory."""
        del command
        path = paths.inside(self.path, paths.CONFIG)
        self._wait_for(path)
        config_file.merged(self.read_config(), config_file.plain(config), path)

    join = create

    def lock(self):
        """Returns a context that does nothing: the chief holds the lock."""
        return contextlib.nullcontext()

    def lock_part(self, part):
        """Returns a context that does nothing: the chief holds the lock."""
        del part
        return contextlib.nullcontext()

    def save(self, where, row, contents, parents=None, time=None):
        """Waits until the chief has written a level."""
        del row, contents, parents, time
        self._wait_for(self.file(*where, paths.DONE))

    def recover(self, levels=None):
        """Does nothing: the chief sets aside what is damaged."""

    def forget(self, where):
        """Does nothing: the chief makes levels done, and not."""

    def drop(self, where, name):
        """Does nothing: the chief removes files."""

    def write(self, path, content):
        """Does nothing: the chief writes files."""

    def save_tables(self):
        """Does nothing: the chief writes tables."""

    def save_tables_beside(self):
        """Does nothing: the chief writes tables."""

    def _wait_for(self, path):
        began = time.monotonic()
        while not os.path.exists(path):
            if time.monotonic() - began > PATIENCE:
                raise RunError(
                    f"{path} did not appear within {PATIENCE:.0f} s. The first "
                    "worker writes it: give all workers the same --workdir, on "
                    "a file system that they share."
                )
            time.sleep(0.05)
