"""Parts of a run: what one process can train beside others.

The tickets of a replicate are one part, each of its controls is another, which
can begin when the tickets are there.
"""

import re
from typing import NamedTuple

from keras_lottery.errors import RunError
from keras_lottery.runs import arms
from keras_lottery.runs import recovery

_NAME = re.compile(r"replicate_(0|[1-9][0-9]*)/([A-Za-z0-9_]+)")


class Part(NamedTuple):
    """One arm of one replicate, at all levels.

    Example:

    >>> str(Part(0, "shuffled_0"))
    'replicate_0/shuffled_0'
    """

    replicate: int
    arm: str

    def __str__(self):
        return f"replicate_{self.replicate}/{self.arm}"

    @property
    def tickets(self):
        """The part whose tickets this one starts from; itself, or another."""
        return Part(self.replicate, arms.TICKET)


def of(experiment):
    """Returns the parts of an experiment, tickets first in each replicate.

    Args:
        experiment: The `Experiment`.
    """
    names = [arms.TICKET, *(arm.name for arm in arms.of(experiment))]
    replicates = range(experiment.config.replicates)
    return [Part(replicate, name) for replicate in replicates for name in names]


def named(name, experiment):
    """Returns the part of an experiment that has a name.

    Raises:
        ValueError: It has no such part.
    """
    known = of(experiment)
    match = _NAME.fullmatch(name)
    part = Part(int(match[1]), match[2]) if match else None
    if part not in known:
        arm_names = dict.fromkeys(each.arm for each in known)
        raise ValueError(
            f"{name!r} is no part of this run. Expected replicate_N/ARM with N "
            f"from 0 to {experiment.config.replicates - 1} and ARM one of "
            f"{', '.join(arm_names)}."
        )
    return part


def levels(part, experiment):
    """Returns the levels that a part trains: of controls not the dense one."""
    first = 0 if part.arm == arms.TICKET else 1
    return range(first, experiment.levels + 1)


def is_done(part, experiment, directory):
    """Returns whether all levels of a part are trained."""
    return all(
        directory.is_done(*part, level) for level in levels(part, experiment)
    )


def check_tickets(part, experiment, directory):
    """Raises unless the tickets that a control starts from are there.

    Raises:
        RunError: Some are missing, or damaged.
    """
    if part.arm == arms.TICKET:
        return
    again = f"the same command with --part={part.tickets}"
    if not is_done(part.tickets, experiment, directory):
        raise RunError(
            f"{part} of {directory.path} starts from tickets that are not all "
            f"there. Train them first: {again}."
        )
    for level in levels(part.tickets, experiment):
        found = recovery.differences(directory, (*part.tickets, level))
        if found:
            raise RunError(
                f"{part} of {directory.path} starts from tickets, and that of "
                f"level {level} is damaged: {'; '.join(found)}. Train it "
                f"again: {again}."
            )
