"""Where a lottery goes on: the last whole state in its folder.

That is a checkpoint, if the levels that it builds on are whole. Otherwise the
last level that is, whose ticket says all that rewinds to weights need; or else
the first weights.
"""

import logging
from typing import NamedTuple

from keras_lottery.errors import RunError
from keras_lottery.pruning.mask import Mask
from keras_lottery.tickets import lottery as lotteries
from keras_lottery.tickets import rewind as rewinds
from keras_lottery.training import state
from keras_lottery.training.checkpoint import Checkpoint

STATES = ("zero", "point", "begin")  # of a `Progress`
NOW = "now"

log = logging.getLogger(__name__)


class Resumed(NamedTuple):
    """Where a lottery goes on.

    Fields:
        progress: Its `Progress`; the model is where that says.
        finished: List of (ticket, record) of the levels before.
        checkpoint: The `Checkpoint`, or None for the beginning of a level.
    """

    progress: lotteries.Progress
    finished: list
    checkpoint: Checkpoint | None = None


def resume(pruned, folder, lottery=None):
    """Puts a model where its folder has it.

    Args:
        pruned: The `PrunedModel`, its optimizer built.
        folder: The `FitFolder`, locked.
        lottery: The `Lottery`; None for a schedule that prunes in place.

    Returns:
        A `Resumed`, or None where all has to begin.

    Raises:
        RunError: Too much is damaged to go on.
    """
    finished = folder.finished()

    def builds_on(found):
        needed = found.record["level"] + found.record["trained"]
        if len(finished) < needed:
            raise RunError(f"level {len(finished)} before it is not whole.")

    found = folder.newest(builds_on)
    if found is not None:
        progress = adopt(pruned, found)
        needed = found.record["level"] + found.record["trained"]
        return Resumed(progress, finished[:needed], found)
    if lottery is None:
        resumed = _after_training(pruned, finished)
    else:
        # Of what is too far on, the states to go back to are used.
        further = folder.newest(lambda found: None)
        resumed = _from_tickets(pruned, finished, further, lottery)
    if resumed is None and folder.has_traces():
        raise RunError(
            f"Too much of {folder.path} is damaged to go on from it: no "
            "checkpoint is whole, nor the ticket of level 0. Restore it from "
            "a copy, or remove it to begin anew."
        )
    if resumed is None:
        _check_begins(pruned)
    return resumed


def adopt(pruned, found):
    """Puts a model where a checkpoint has it; returns the `Progress`."""
    record = found.record
    bits = {
        name.removeprefix("mask/"): value
        for name, value in found.arrays.items()
        if name.startswith("mask/")
    }
    mask = Mask.unpack(bits, pruned.mask.shapes)
    pruned.adopt_mask(mask, record["prunings"])
    progress = pruned.played.progress
    progress.level, progress.trained = record["level"], record["trained"]
    for name, held in states_of(found).items():
        setattr(progress, name, held)
    put_back(pruned, found)
    return progress


def put_back(pruned, found):
    """Gives a model's variables the values of a checkpoint, bit for bit."""
    state.restore(found.snapshots[NOW], pruned.inner, pruned.optimizer)
    pruned.clock.assign(found.record["clock"])


def snapshots(now, progress):
    """Returns what to save of a lottery, each state once.

    Args:
        now: `Snapshot` of what is trained.
        progress: The `Progress`.

    Returns:
        Dict from name to `Snapshot`, and dict from each state to the name that
        it is under.
    """
    # Where a trained level began decides nothing of the next one.
    wanted = STATES[:2] if progress.trained else STATES
    held = {name: getattr(progress, name) for name in wanted}
    held = {name: each for name, each in held.items() if each is not None}
    names = {}
    for name, each in held.items():
        names.setdefault(id(each), name)
    unique = {names[id(each)]: each for each in held.values()}
    same = {name: names[id(each)] for name, each in held.items()}
    return {NOW: now, **unique}, same


def states_of(found):
    """Returns the states that a `Progress` holds; several may be one."""
    return {
        name: found.snapshots[same]
        for name, same in found.record["states"].items()
    }


def _check_begins(pruned):
    """Raises a ValueError for a lottery that has begun without the folder."""
    played = pruned.played
    begun = played.progress.begin is not None or played.after is not None
    if pruned.settings.in_levels and (begun or pruned.level):
        raise ValueError(
            f"This lottery is at level {pruned.level}, and the levels before "
            "are not in checkpoint_dir. Begin there with a newly pruned model, "
            "or go on without checkpoint_dir."
        )


def _from_tickets(pruned, finished, further, lottery):
    """Goes on without a checkpoint, or with one that is too far on."""
    kept = states_of(further) if further is not None else {}
    point, whole = kept.get("point"), lottery.rewind.restore
    if finished:
        ticket = finished[-1][0]
        goes_on = whole is rewinds.everything and (
            point is not None or not lottery.rewind_step
        )
        if goes_on or ticket.level >= lottery.levels:
            return _after(pruned, finished, kept, lottery, goes_on)
    zero = kept.get("zero") or _zero_of(pruned, finished, lottery)
    if zero is None:
        return None
    log.warning("The lottery goes back to its first weights.")
    pruned.adopt_mask(lottery.first_mask, 0)
    pruned.played.progress.begin = zero
    pruned.played.progress.zero = zero
    return Resumed(pruned.played.progress, [])


def _after(pruned, finished, kept, lottery, goes_on):
    """Goes on after the last ticket, with the states that are left."""
    ticket = finished[-1][0]
    log.warning("The lottery goes on after level %d.", ticket.level)
    pruned.adopt_mask(ticket.mask, ticket.level)
    progress = pruned.played.progress
    if goes_on:
        progress.continue_after(ticket, lottery, kept.get("point"))
        progress.zero = kept.get("zero") or progress.zero
    else:  # it was the last one
        ticket.restore(pruned.inner, "end")
        progress.level, progress.trained = ticket.level, True
    return Resumed(progress, finished)


def _zero_of(pruned, finished, lottery):
    """Returns the state of step 0 as the first ticket has it, or None."""
    at_step = lottery.rewind.start == "point" and lottery.rewind_step
    if not finished or at_step:
        return None
    ticket = finished[0][0]
    start = {**ticket.start, **ticket.start_state}
    state.restore_model(start, pruned.inner)
    return state.first(pruned.inner, pruned.optimizer)


def _after_training(pruned, finished):
    """Goes on after the one training of a schedule that prunes in place."""
    if not finished:
        return None
    ticket, record = finished[0]
    log.warning("The training was finished; its optimizer's state is lost.")
    ticket.restore(pruned, "end")
    pruned.clock.assign(record["history"]["clock"])
    progress = pruned.played.progress
    progress.level, progress.trained = 0, True
    return Resumed(progress, finished[:1])
