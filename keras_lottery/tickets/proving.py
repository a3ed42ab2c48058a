"""Runs the proofs while a lottery is played: a failed one is a RunError.

What is proved of a rewind it declares itself: see `Rewind`.
"""

import contextlib

from keras_lottery.errors import RunError
from keras_lottery.pruning import allocation as allocations
from keras_lottery.pruning import weights
from keras_lottery.tickets import proofs
from keras_lottery.training import callbacks
from keras_lottery.training import keras_private
from keras_lottery.training import state
from keras_lottery.training.holding import Attachment


@contextlib.contextmanager
def rewinding(lottery, attachment, progress):
    """Proves what is done inside: pruning, and going back.

    The new mask is nested in the old one and keeps as many weights as the
    schedule says; the next level begins with what the rewind declares to
    return and to keep.

    Args:
        lottery: The `Lottery`.
        attachment: What holds the masks.
        progress: The `Progress`, which enters the next level inside.

    Raises:
        RunError: One of it does not hold.
    """
    before, trained = attachment.mask, None
    rewind = lottery.rewind
    if rewind.keeps:
        progress.begin = None  # not two copies of all weights at once
        trained = lottery.snapshot()
    yield
    where = f"level {progress.level}, after the rewind"
    budgets = lottery.budgets(progress.level)
    after, begin = attachment.mask, progress.begin
    _of_pruning(where, before, after, budgets, lottery.allocation)
    layout = layout_of(lottery.optimizer(), attachment)
    if "weights" not in (*rewind.returns, *rewind.keeps):
        _prove(where, "removed weights are zero", proofs.zeros, after,
               begin.model)  # fmt: skip
    for parts, then, whose in (
        (rewind.returns, progress.point, "as at the rewind point"),
        (rewind.keeps, trained, "as they were trained"),
    ):
        for part in parts:
            claim = f"{part}: {whose}"
            proof = proofs.PARTS[part]
            _prove(where, claim, proof, begin, then, after, layout)


def pruning(where, before, after, budgets, allocation, model):
    """Proves a pruning that no rewind follows.

    Args:
        where: What to call the moment, in the error: `"level 3"`.
        before: The `Mask` before.
        after: The `Mask` that holds now.
        budgets: What `find.budgets_of` says.
        allocation: The allocation, or its name.
        model: The model that is pruned.

    Raises:
        RunError: The masks are not nested, the counts not the schedule's, or
            a removed weight is not zero.
    """
    _of_pruning(where, before, after, budgets, allocation)
    _prove(where, "removed weights are zero", proofs.zeros, after,
           _values(model, after))  # fmt: skip


def training(
    where, step, model, optimizer, before, after, metrics, *, begin=None
):
    """Proves what a training leaves, before a ticket is made of it.

    Args:
        where: What to call the training, in errors: `"level 3"`.
        step: Its last step.
        model: The model, trained.
        optimizer: What trained it, or None.
        before: The `Mask` that it began with.
        after: The `Mask` that holds now.
        metrics: Dict of what was measured.
        begin: Dict from name to what variables were before. Those that are not
            trained, and were not finite then, need not be: a running minimum.

    Raises:
        RunError: A weight, a slot of the optimizer or a loss is not finite;
            the mask has changed, or a removed weight is not zero.
    """
    name = state.first_not_finite(model, optimizer, begin or {})
    what = f"{name} is not finite" if name else proofs.losses(metrics)
    if what is not None:
        raise callbacks.diverged(where, step, what)
    where = f"{where}, after its training"
    _prove(where, "the mask stays", proofs.same_mask, after, before)
    _prove(where, "removed weights are zero", proofs.zeros, after,
           _values(model, after))  # fmt: skip


def beginning(where, begin, model, optimizer=None):
    """Proves that a model is as it was when a snapshot was taken.

    Args:
        where: What to call the moment, in the error.
        begin: The `Snapshot`.
        model: The model.
        optimizer: Its optimizer, or None.

    Raises:
        RunError: It is not.
    """
    now = state.snapshot(model, optimizer)
    claim = "the level begins again as it began"
    _prove(where, claim, proofs.of_all, now.model, begin.model)
    if now.optimizer is not None and begin.optimizer is not None:
        found, expected = (
            {f"variable {place} of the optimizer": value
             for place, value in enumerate(each.optimizer)}
            for each in (now, begin)
        )  # fmt: skip
        _prove(where, claim, proofs.of_all, found, expected)


def loading(lottery, ticket, point=None, end=None):
    """Proves that a lottery can go on from what was loaded.

    Args:
        lottery: The `Lottery`, which goes on.
        ticket: The last `Ticket` that it gave.
        point: `Snapshot` of the rewind step, or None.
        end: `Snapshot` of the end of the ticket's level, or None.

    Raises:
        RunError: A number in the ticket is not finite, it keeps other weights
            than the schedule says, or the snapshots are not of its lottery.
    """
    start = {**ticket.start, **ticket.start_state}
    last = {**ticket.weights("end"), **ticket.end_state}
    one_start = lottery.rewind.start != "level"
    found = proofs.finite(start) or proofs.finite(last)
    if found is None and lottery.is_of(ticket):
        budgets = lottery.budgets(ticket.level)
        exactly = allocations.counts_exactly(lottery.allocation)
        found = proofs.counts(ticket.mask, budgets, exactly=exactly)
    if found is None and point is not None and one_start:
        found = proofs.of_all(point.model, start, "of the rewind point ")
    if found is None and end is not None:
        found = proofs.of_all(end.model, last, "of the end ")
    if found is not None:
        raise RunError(
            f"Cannot continue from the ticket of level {ticket.level}: "
            f"{found}. The ticket, the rewind point and the end have to be of "
            "one lottery, as it saved them: continue from an earlier ticket, "
            "or play the level again."
        )


def layout_of(optimizer, attachment):
    """Returns the `Layout` of an optimizer under the masks that hold."""
    if optimizer is None:
        return proofs.Layout()
    variables = keras_private.variables(optimizer)
    places = {id(each): place for place, each in enumerate(variables)}
    clock = keras_private.clock_variables(optimizer)
    first = {}
    # Without our masked gradients nobody resets slots: tfmot does not.
    if isinstance(attachment, Attachment) and attachment.holds(optimizer):
        first = dict(_first_values(optimizer, attachment.variables, places))
    return proofs.Layout(
        tuple(state.name_of(each) for each in variables),
        frozenset(places[id(each)] for each in clock),
        first,
    )


def _first_values(optimizer, pruned, places):
    for leaf in keras_private.leaves(optimizer):
        names = {keras_private.key(leaf, v): name for name, v in pruned.items()}
        built = keras_private.built_values(leaf)
        for where, index, variable, slot in keras_private.slots(leaf):
            name = names.get(keras_private.key(leaf, variable))
            if name is not None and id(slot) in places:
                yield places[id(slot)], (name, built[where, index])


def _of_pruning(where, before, after, budgets, allocation):
    _prove(where, "masks are nested", proofs.nested, after, before)
    _prove(
        where,
        "counts are the schedule's",
        proofs.counts,
        after,
        budgets,
        before,
        exactly=allocations.counts_exactly(allocation),
    )


def _values(model, mask):
    variables = weights.by_name(model)
    return {name: variables[name].numpy() for name in mask}


def _prove(where, claim, proof, *arguments, **more):
    found = proof(*arguments, **more)
    if found is not None:
        raise RunError(
            f"A proof failed at {where} ({claim}): {found}. No ticket was "
            "made of it; the levels before it are kept. If a training "
            "function, callback, criterion or rewind of yours changes weights "
            "or masks, that is why; otherwise it is a fault of keras_lottery: "
            "please report it with this message."
        )
