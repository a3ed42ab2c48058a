"""A run's directory: what is there, and what is whole.

A level is done when its level.json is there: it is written last, and holds the
level's row of levels.csv and the checksums of its other files.
"""

import hashlib
import os
import re

from keras_lottery import files
from keras_lottery.errors import RunError
from keras_lottery.runs import config_file
from keras_lottery.runs import formats
from keras_lottery.runs import identity
from keras_lottery.runs import locks
from keras_lottery.runs import paths

_NUMBERS = ("density", "kept", "size", "early_step", "level", "replicate")


class RunDirectory:
    """The files of one run.

    Args:
        path: The run's directory.
    """

    def __init__(self, path):
        self.path = os.fspath(path)
        self._rows = None  # by (replicate, arm, level), while it is played

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
                if os.path.lexists(path):
                    there = config_file.read(path)
                    tree = config_file.merged(there, tree, self.path)
                config_file.write(path, tree, command)
        except OSError as error:
            raise RunError(
                f"Cannot write the run to {self.path}: {error.strerror}. "
                "Choose another place with --workdir."
            ) from error

    def read_config(self):
        """Returns the configuration, a dict. Nothing in it is executed.

        Raises:
            RunError: There is none, it is damaged, or of another format.
        """
        return config_file.read(paths.inside(self.path, paths.CONFIG))

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

    def levels(self):
        """Returns (replicate, arm, level) of all that is done, in order."""
        done = [each for each in paths.walk(self.path) if self.is_done(*each)]
        return sorted(done, key=_order)

    def is_done(self, replicate, arm, level):
        """Returns whether a level is trained, and whole on disk."""
        return os.path.exists(self.file(replicate, arm, level, paths.DONE))

    def row(self, replicate, arm, level):
        """Returns the row of a level that is done."""
        where = (replicate, arm, level)
        row = self._record(where, "row")
        found = tuple(row.get(name) for name in ("replicate", "arm", "level"))
        numbers = [
            value
            for name, value in row.items()
            if name in _NUMBERS or name.startswith(("val_", "test_", "last_"))
        ]
        if found != where or not all(
            isinstance(value, (int, float)) for value in numbers
        ):
            raise RunError(
                f"{self.file(*where, paths.DONE)} is damaged: its row is not "
                "one of this level."
            )
        return row

    def rows(self):
        """Returns the rows of all levels that are done, in order."""
        return [self.row(*where) for where in self.levels()]

    def checksums(self, replicate, arm, level):
        """Returns the sha256 of a level's files by name, as they should be."""
        sums = self._record((replicate, arm, level), "sha256")
        stray = sorted(set(sums) - set(paths.OF_A_LEVEL))
        if stray:
            raise RunError(
                f"{self.file(replicate, arm, level, paths.DONE)} is damaged: "
                f"it names {stray}, which are not files of a level."
            )
        return sums

    def save(self, where, row, contents):
        """Writes a level; the record that it is done comes last.

        Args:
            where: (replicate, arm, level).
            row: Dict: the level's row of levels.csv.
            contents: Dict from file name to bytes.
        """
        os.makedirs(paths.of_level(self.path, *where), exist_ok=True)
        sums = {}
        for name, content in contents.items():
            files.write_whole(self.file(*where, name), content)
            sums[name] = hashlib.sha256(content).hexdigest()
        record = formats.as_json({"row": row, "sha256": sums})
        files.write_whole(self.file(*where, paths.DONE), record)

    def drop(self, where, name):
        """Removes a file of a level that is needed no longer."""
        path = self.file(*where, name)
        if not os.path.exists(path):
            return
        sums = self.checksums(*where)
        sums.pop(name, None)
        record = formats.as_json({"row": self.row(*where), "sha256": sums})
        files.write_whole(self.file(*where, paths.DONE), record)
        os.unlink(path)

    def save_tables(self):
        """Writes levels.csv from all that is done."""
        files.write_whole(self.levels_path, formats.as_csv(self.rows()))

    def save_tables_beside(self):
        """Writes levels.csv beside processes that play parts of the run."""
        with locks.moment(self.path):
            self.save_tables()

    def add_to_tables(self, where, times):
        """Adds a level that was just saved to levels.csv and times.csv.

        Other levels are read once: a run is locked while it is played, and
        reading all of them after each would take longer with every level.
        """
        if self._rows is None:
            self._rows = {each: self.row(*each) for each in self.levels()}
        self._rows[where] = self.row(*where)
        rows = [self._rows[each] for each in sorted(self._rows, key=_order)]
        files.write_whole(self.levels_path, formats.as_csv(rows))
        self._add_to_times(times)

    def add_to_times_beside(self, times):
        """Adds a row to times.csv beside processes that play other parts."""
        with locks.moment(self.path):
            self._add_to_times(times)

    def _add_to_times(self, times):
        path = paths.inside(self.path, paths.TIMES)
        rows = [*formats.read_csv(path), times]
        files.write_whole(path, formats.as_csv(rows))

    def file(self, replicate, arm, level, name):
        """Returns the path of a file of a level."""
        return paths.of_level(self.path, replicate, arm, level, name)

    @property
    def levels_path(self):
        """Path of levels.csv."""
        return paths.inside(self.path, paths.LEVELS)

    @property
    def report_path(self):
        """Path of the report."""
        return paths.inside(self.path, paths.REPORT)

    @property
    def export_path(self):
        """Directory that TF Serving can watch."""
        return paths.inside(self.path, paths.EXPORT)

    def exported(self, ticket):
        """Returns the path of the export of a ticket (its sha256), or None."""
        for version, exported in self._exports().items():
            if exported == ticket and re.fullmatch(r"\d+", version):
                path = paths.inside(self.path, paths.EXPORT, version)
                if os.path.isdir(path):
                    return path
        return None

    def note_export(self, path, ticket):
        """Notes of which ticket (its sha256) an exported version is."""
        noted = {**self._exports(), os.path.basename(path): ticket}
        where = paths.inside(self.path, paths.EXPORTS)
        files.write_whole(where, formats.as_json(noted))

    def _exports(self):
        path = paths.inside(self.path, paths.EXPORTS)
        return formats.read_json(path) if os.path.exists(path) else {}

    def _record(self, where, part):
        path = self.file(*where, paths.DONE)
        found = formats.read_json(path).get(part)
        if not isinstance(found, dict):
            raise RunError(f"{path} is damaged: it has no {part!r}.")
        return found


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
