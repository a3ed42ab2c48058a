"""What a training of a run leaves: its row, its files."""

import dataclasses
import os

from keras_lottery.runs import conditions
from keras_lottery.runs import formats
from keras_lottery.runs import paths
from keras_lottery.tickets import ticket_file
from keras_lottery.training import state_file


def named(where):
    """Returns the first columns of a row.

    Args:
        where: (replicate, arm, level).

    Example:

    >>> named((0, "ticket", 3))
    {'replicate': 0, 'arm': 'ticket', 'level': 3}
    """
    return dict(zip(("replicate", "arm", "level"), where))


def row(where, arm, ticket, trainer):
    """Returns a level's row of levels.csv.

    Args:
        where: (replicate, arm, level).
        arm: The `Arm`, or None for the ticket.
        ticket: The `Ticket` that was trained.
        trainer: The `Trainer`.
    """
    replicate = where[0]
    return {
        **named(where),
        "density": ticket.density,
        "kept": ticket.mask.kept,
        "size": ticket.mask.size,
        **dict(sorted(ticket.metrics.items())),
        **trainer.seeds(replicate),
        "control_seed": arm.seed(replicate) if arm and arm.seed else "",
        **conditions.of(
            trainer.model,
            trainer.experiment.config.distribute.strategy,
            trainer.mode,
        ),
        "conditions_changed": trainer.saver.changed,
    }


def contents(result, curve, kept):
    """Returns the files of a level, by name.

    Args:
        result: Dict: the `Ticket` as `"ticket"`, snapshots by file name.
        curve: List of dicts: the rows of metrics.csv.
        kept: Whether the ticket is kept.
    """
    found = {paths.METRICS: formats.as_csv(curve)}
    if kept:
        found[paths.TICKET] = ticket_file.pack(result["ticket"])
    states = {k: v for k, v in result.items() if k != "ticket"}
    return found | {k: state_file.pack(v) for k, v in states.items()}


def signed(ticket, directory, replicate, seeds):
    """Returns a ticket that says which run it is of.

    Args:
        ticket: The `Ticket`.
        directory: The `RunDirectory`.
        replicate: Int >= 0.
        seeds: Dict from role to seed.
    """
    provenance = {
        **ticket.provenance,
        "run": os.path.basename(directory.path),
        "replicate": replicate,
        **seeds,
    }
    # Its number of levels changes when the run is extended: config.json.
    provenance.pop("schedule", None)
    return dataclasses.replace(ticket, provenance=provenance)
