"""A run's directory: what is where, and what is whole. Nobody else joins paths.

runs/digits-0123456789ab/
    config.json
    levels.csv
    report.html
    export/1/
    replicate_0/ticket/level_3/ticket.safetensors, metrics.csv
    replicate_0/reinitialized_0/level_3/...
"""

import csv
import dataclasses
import hashlib
import io
import json
import os

from keras_lottery import files
from keras_lottery.errors import RunError
from keras_lottery.tickets.ticket import Ticket

# A longer run extends a shorter one: these are not part of its identity.
_OUTSIDE = ("levels", "replicates")


class RunDirectory:
    """The files of one run.

    Args:
        experiment: The `Experiment`.
        workdir: Directory that holds all runs.
    """

    def __init__(self, experiment, workdir):
        self.path = os.path.join(
            os.fspath(workdir), f"{experiment.name}-{identity(experiment)}"
        )
        self._config = _config(experiment)

    def create(self):
        """Makes the directory, or checks that it is of this experiment.

        Raises:
            RunError: It cannot be written, or another configuration is there.
        """
        path = self._join("config.json")
        try:
            os.makedirs(self.path, exist_ok=True)
            if not os.path.exists(path):
                files.write_whole(path, _json(self._config))
            with open(path, "rb") as file:
                found = json.loads(file.read())
        except OSError as error:
            raise RunError(
                f"Cannot write the run to {self.path}: {error.strerror}. "
                "Choose another place with --workdir."
            ) from error
        except ValueError as error:
            raise RunError(f"{path} is damaged: {error}.") from error
        differing = {
            k: (found.get(k), v)
            for k, v in json.loads(_json(self._config)).items()
            if found.get(k) != v and k not in _OUTSIDE
        }
        if differing:
            raise RunError(
                f"{self.path} holds a run with another configuration "
                f"(there, here): {differing}. Choose another --workdir."
            )

    def ticket(self, replicate, arm, level):
        """Returns the ticket of a level that is done, or None.

        Raises:
            RunError: The file is there and damaged.
        """
        path = self._level(replicate, arm, level, "ticket.safetensors")
        return Ticket.load(path) if os.path.exists(path) else None

    def save(self, ticket, rows, replicate, arm):
        """Writes a level: its metrics first, the ticket last.

        A level is done when its ticket is there.
        """
        where = (replicate, arm, ticket.level)
        metrics = self._level(*where, "metrics.csv")
        os.makedirs(os.path.dirname(metrics), exist_ok=True)
        files.write_whole(metrics, _csv(rows))
        ticket.save(self._level(*where, "ticket.safetensors"))

    def save_levels(self, rows):
        """Writes levels.csv: one row per replicate, arm and level."""
        files.write_whole(self.levels_path, _csv(rows))

    @property
    def levels_path(self):
        """Path of levels.csv."""
        return self._join("levels.csv")

    @property
    def report_path(self):
        """Path of the report."""
        return self._join("report.html")

    @property
    def export_path(self):
        """Directory that TF Serving can watch."""
        return self._join("export")

    def exported(self, level):
        """Returns the path of the export of a level, or None."""
        for version, exported in self._exports().items():
            path = os.path.join(self.export_path, version)
            if exported == level and os.path.isdir(path):
                return path
        return None

    def note_export(self, path, level):
        """Notes which level an exported version is of."""
        exports = {**self._exports(), os.path.basename(path): level}
        files.write_whole(self._join("exports.json"), _json(exports))

    def _exports(self):
        path = self._join("exports.json")
        if not os.path.exists(path):
            return {}
        with open(path, "rb") as file:
            return json.loads(file.read())

    def ticket_path(self, replicate, arm, level):
        """Path of a level's ticket."""
        return self._level(replicate, arm, level, "ticket.safetensors")

    def _level(self, replicate, arm, level, name):
        return self._join(f"replicate_{replicate}", arm, f"level_{level}", name)

    def _join(self, *parts):
        return os.path.join(self.path, *parts)


def identity(experiment):
    """Returns 12 hex digits that name an experiment: equal ones share a run.

    The sha256 of the canonical JSON of its configuration, levels and
    replicates left out.
    """
    inside = {k: v for k, v in _config(experiment).items() if k not in _OUTSIDE}
    return hashlib.sha256(_json(inside)).hexdigest()[:12]


def _config(experiment):
    return {"format": 1, **dataclasses.asdict(experiment)}


def _json(value):
    return json.dumps(value, sort_keys=True, indent=1).encode()


def _csv(rows):
    columns = list({name: None for row in rows for name in row})
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
