"""How much room a run takes, said before it starts."""

import os
import shutil

from keras_lottery.errors import RunError
from keras_lottery.pruning import weights
from keras_lottery.runs import arms
from keras_lottery.training.checkpoint import KEPT

# A level's json and the header of a ticket: small, never nothing.
_BESIDE = 16_384
_NUMBER = 24  # a float in a curve, and what parts it from the next


def estimate(experiment, directory, *, keep):
    """Returns how many bytes the missing levels of a run will take.

    A ticket holds all weights at the start, the kept ones at the end, a bit
    per weight, and the other variables twice.

    Args:
        experiment: The `Experiment`.
        directory: Its `RunDirectory`.
        keep: `"tickets"` or `"all"`.
    """
    lottery = arms.lottery(experiment, experiment.model)
    others = [arm.name for arm in arms.of(experiment)]
    beside = _BESIDE + _curve_bytes(experiment)
    total = 0
    for replicate in range(experiment.config.replicates):
        for level in range(experiment.levels + 1):
            for arm in [arms.TICKET, *(others if level else ())]:
                if directory.is_done(replicate, arm, level):
                    continue
                kept = arm == arms.TICKET or keep == "all"
                total += beside + kept * _ticket_bytes(lottery, level)
        total += _states_bytes(experiment, lottery, directory, replicate)
    return total


def passing(experiment):
    """Returns how many bytes the checkpoints of a level take, while it lasts.

    Each of the two is of the network and up to three slots per weight; with
    the state of the rewind step, if there is one.
    """
    each = 1 + (experiment.config.rewind.step > 0)
    return KEPT * each * _snapshot_bytes(experiment.model)


def require(needed, path):
    """Raises unless a disk has room.

    Args:
        needed: Bytes.
        path: Where they are to be written; it need not exist.

    Raises:
        RunError: There is less room.
    """
    free = shutil.disk_usage(_existing(path)).free
    if needed > free:
        raise RunError(
            f"The run needs about {size(needed)} in {path}, and only "
            f"{size(free)} are free. Make room, choose another --workdir, or "
            "keep less with --keep=tickets and fewer levels."
        )


def size(count):
    """Returns a number of bytes as people write it.

    Example:

    >>> size(512), size(2_300_000), size(41_000_000_000)
    ('512 B', '2.3 MB', '41.0 GB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def _ticket_bytes(lottery, level):
    bits, start, others = 0, 0, 0
    for name, variable in weights.by_name(lottery.model).items():
        count = int(variable.shape.num_elements())
        if name in lottery.names:
            bits, start = bits + -(-count // 8), start + 4 * count
        else:
            others += 2 * 4 * count
    return bits + start + others + 4 * lottery.kept(level)


def _curve_bytes(experiment):
    validations = experiment.steps // experiment.config.eval_every
    numbers = 1 + 3 * (1 + len(experiment.metrics))
    return validations * numbers * _NUMBER


def _states_bytes(experiment, lottery, directory, replicate):
    """Two snapshots for a moment, with up to three slots per weight."""
    last = (replicate, arms.TICKET, experiment.levels)
    if not arms.needs_point(experiment) or directory.is_done(*last):
        return 0
    snapshots = 1 + 2 * arms.needs_end(experiment)
    return snapshots * _snapshot_bytes(lottery.model)


def _snapshot_bytes(model):
    held = weights.by_name(model).values()
    count = sum(int(variable.shape.num_elements()) for variable in held)
    return 4 * 4 * count


def _existing(path):
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path
