"""A run's directory: what is there, and what is whole.

A level is done when its level.json is there: it is written last, and holds the
level's row of levels.csv and the checksums of its other files.
"""

import functools
import hashlib
import logging
import os

from keras_lottery import sealed_json
from keras_lottery.errors import DamageError
from keras_lottery.errors import RunError
from keras_lottery.runs import config_file
from keras_lottery.runs import formats
from keras_lottery.runs import identity
from keras_lottery.runs import locks
from keras_lottery.runs import paths
from keras_lottery.runs import records
from keras_lottery.runs import recovery
from keras_lottery.runs import tables
from keras_lottery.runs import writing

log = logging.getLogger(__name__)


class RunDirectory:
    """The files of one run.

    Args:
        path: The run's directory.
    """

    def __init__(self, path):
        self.path = os.fspath(path)
        self._rows = {}  # by (replicate, arm, level), while it is played

    @classmethod
    def of(cls, config, workdir):
        """Returns the directory of a configuration, which need not exist."""
        name = paths.check_name(config.name)
        folder = f"{name}-{identity.identity(config)}"
        return cls(os.path.join(os.fspath(workdir), folder))

    @classmethod
    def open(cls, path):
        """Returns the directory of a run that is there.

        Raises:
            RunError: It is no run, damaged, or of another format.
        """
        run = cls(path)
        run.read_config()
        return run

    def create(self, config, command=""):
        """Makes the directory, or checks that it is of this configuration.

        Levels and replicates grow to the larger number.

        Args:
            config: The tree, an `ml_collections.ConfigDict`.
            command: What was typed, for the report.

        Raises:
            RunError: It cannot be written, or another configuration is there.
        """
        self._write_config(config, command, locks.whole)

    def join(self, config, command=""):
        """Like `create`, beside processes that play parts of the run.

        Raises:
            RunError: Another process plays the whole run, and as `create`.
        """
        self._write_config(config, command, locks.entry)

    def _write_config(self, config, command, lock):
        tree = config_file.plain(config)
        path = paths.inside(self.path, paths.CONFIG)
        try:
            os.makedirs(self.path, exist_ok=True)
            with lock(self.path):  # what another process plays stays as it is
                there = self._config_there(path)
                if there is not None:
                    tree = config_file.merged(there, tree, self.path)
                config_file.write(path, tree, command)
        except OSError as error:
            raise RunError(
                f"Cannot write the run to {self.path}: {error.strerror}. "
                "Choose another place with --workdir."
            ) from error

    def _config_there(self, path):
        """Returns the configuration on disk; None without one that is whole.

        What the directory is of is in its name: a configuration that is
        damaged, or of another run, is set aside, and the numbers of levels and
        replicates are those that are asked for now.
        """
        if not os.path.lexists(path):
            return None
        try:
            found = config_file.read(path)
            if identity.identity(found) not in os.path.basename(self.path):
                raise DamageError(f"{path} is of another run.")
            return found
        except DamageError as error:
            aside = paths.set_aside(self.path, path)
            log.warning("%s It is written again; see %s.", error, aside)
            return None

    def read_config(self):
        """Returns the configuration, a dict. Nothing in it is executed.

        Raises:
            RunError: There is none, it is damaged, or of another format.
        """
        return config_file.read(paths.inside(self.path, paths.CONFIG))

    @functools.cached_property
    def identity(self):
        """12 hex digits that name the configuration."""
        return identity.identity(self.read_config())

    def read_command(self):
        """Returns the command that made the run, or extended it."""
        path = paths.inside(self.path, paths.CONFIG)
        return str(formats.read_json(path).get("command", ""))

    def lock(self):
        """Returns a context that keeps other processes out.

        The system lets go of the lock when its process ends, however it ends.

        Raises:
            RunError: Another process holds it, or that of a part.
        """
        return locks.whole(self.path)

    def lock_part(self, part):
        """Returns a context that keeps other processes out of a part.

        Args:
            part: The `Part`, or its name.

        Raises:
            RunError: Another process plays it, or the whole run.
        """
        return locks.part(self.path, str(part))

    def is_locked(self):
        """Returns whether a process is working on the run."""
        return locks.held(self.path)

    def recover(self, levels=None):
        """Sets damaged levels aside; see `recovery.recover`."""
        recovery.recover(self, levels)

    def levels(self):
        """Returns (replicate, arm, level) of all that is done, in order."""
        done = [each for each in paths.walk(self.path) if self.is_done(*each)]
        return sorted(done, key=_order)

    def is_done(self, replicate, arm, level):
        """Returns whether a level is trained, and whole on disk."""
        return os.path.exists(self.file(replicate, arm, level, paths.DONE))

    def record(self, replicate, arm, level):
        """Returns the record of a level that is done; see `records.py`.

        Raises:
            RunError: It is damaged, or of another run.
        """
        path = self.file(replicate, arm, level, paths.DONE)
        return records.read(path, self.identity, (replicate, arm, level))

    def row(self, replicate, arm, level):
        """Returns the row of a level that is done."""
        return self.record(replicate, arm, level)["row"]

    def rows(self):
        """Returns the rows of all levels that are done, in order."""
        return [self.row(*where) for where in self.levels()]

    def checksums(self, replicate, arm, level):
        """Returns the sha256 of a level's files by name, as they should be."""
        return self.record(replicate, arm, level)["sha256"]

    def parents(self, replicate, arm, level):
        """Returns the sha256 of the tickets that a level came from, by role."""
        return self.record(replicate, arm, level)["from"]

    def save(self, where, row, contents, parents=None, time=None):
        """Writes a level; the record that it is done comes last.

        Args:
            where: (replicate, arm, level).
            row: Dict: the level's row of levels.csv.
            contents: Dict from file name to bytes.
            parents: As `records.pack` takes.
            time: Dict: the level's row of times.csv.
        """
        self.make_folder(where)
        sums = {}
        for name, content in contents.items():
            self.write(self.file(*where, name), content)
            sums[name] = hashlib.sha256(content).hexdigest()
        if time is not None:
            self.write(self.file(*where, paths.TIME), sealed_json.pack(time))
        record = records.pack(self.identity, row, sums, parents or {})
        self.write(self.file(*where, paths.DONE), record)
        self._rows.pop(where, None)

    def forget(self, where):
        """Makes a level one that is not done; its files stay.

        Returns:
            Whether it was done.
        """
        path = self.file(*where, paths.DONE)
        there = os.path.lexists(path)
        if there:
            os.unlink(path)
        self._rows.pop(where, None)
        return there

    def drop(self, where, name):
        """Removes a file of a level that is needed no longer."""
        path = self.file(*where, name)
        if not os.path.exists(path):
            return
        there = self.record(*where)
        sums = {k: v for k, v in there["sha256"].items() if k != name}
        record = records.pack(self.identity, there["row"], sums, there["from"])
        self.write(self.file(*where, paths.DONE), record)
        os.unlink(path)

    def save_tables(self):
        """Writes levels.csv and times.csv from all that is done."""
        tables.save(self)

    def rows_and_times(self):
        """Returns (row, row of times.csv) of all levels that are done.

        Of every level both are read once: a run is locked while it is played,
        and reading all of them after each would take longer with every level.
        """
        levels = self.levels()
        for where in levels:
            if where not in self._rows:
                self._rows[where] = self.row(*where), self.time(*where)
        return [self._rows[each] for each in levels]

    def forget_rows(self):
        """Has all rows read anew, as other processes may have written them."""
        self._rows = {}

    def save_tables_beside(self):
        """Writes the tables beside processes that play parts of the run."""
        with locks.moment(self.path):
            self.forget_rows()
            self.save_tables()

    def time(self, replicate, arm, level):
        """Returns the row of times.csv of a level; empty if it is not known.

        How long a training took changes nothing: a damaged record of it does
        not make the level damaged.
        """
        try:
            path = self.file(replicate, arm, level, paths.TIME)
            return formats.read_sealed(path)
        except RunError:
            return {}

    def write(self, path, content):
        """Writes a file of the run, whole or not at all.

        Raises:
            RunError: It cannot be written; says what to do.
        """
        writing.write(self.path, path, content)

    def make_folder(self, where):
        """Returns the folder of a level, made if it is not there."""
        folder = paths.of_level(self.path, *where)
        with writing.explained(self.path, folder):
            os.makedirs(folder, exist_ok=True)
        return folder

    def file(self, replicate, arm, level, name):
        """Returns the path of a file of a level."""
        return paths.of_level(self.path, replicate, arm, level, name)

    @property
    def levels_path(self):
        """Path of levels.csv."""
        return paths.inside(self.path, paths.LEVELS)

    @property
    def times_path(self):
        """Path of times.csv."""
        return paths.inside(self.path, paths.TIMES)

    @property
    def report_path(self):
        """Path of the report."""
        return paths.inside(self.path, paths.REPORT)

    @property
    def export_path(self):
        """Directory that TF Serving can watch."""
        return paths.inside(self.path, paths.EXPORT)


def find_runs(workdir):
    """Returns the `RunDirectory`s in a directory, by name."""
    return [
        RunDirectory(os.path.join(workdir, name))
        for name in paths.folders(workdir)
        if os.path.exists(os.path.join(workdir, name, paths.CONFIG))
    ]


def _order(where):
    """Tickets come before the other arms of their replicate."""
    replicate, arm, level = where
    return replicate, arm != "ticket", arm, level
