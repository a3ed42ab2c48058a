"""Schedules that prune in place: one training, pruned at its own steps."""

from keras_lottery.pruning import find
from keras_lottery.pruning import schedules
from keras_lottery.tickets import ticket as tickets
from keras_lottery.training import callbacks as hooks
from keras_lottery.training import state


def play(pruned, training):
    """One training in which the schedules prune at their own steps."""
    before = int(pruned.clock.numpy())
    last = before + training.epochs.steps
    due = _due(pruned.settings.grouped, last)
    start, start_state = tickets.parted(
        state.snapshot(pruned.inner).model, pruned.mask
    )

    def prune(done):
        step = before + done + 1  # the one that comes next
        if step in due:
            _prune_in_place(pruned, due[step], start)

    def count(steps):
        pruned.clock.assign(before + steps)

    pruned.hold_optimizer()
    stops = [step - before - 1 for step in due if step > before]
    hook = hooks.BetweenSteps(prune, count)
    metrics = training.run(0, "training", before=[hook], stops=stops)
    pruned.attachment.settle(pruned.inner, pruned.optimizer)
    pruned.attachment.apply()
    end, end_state = tickets.ended(pruned.inner, pruned.mask)
    pruned.played.tickets.append(
        tickets.Ticket(
            pruned.mask,
            start,
            start_state,
            end,
            end_state,
            pruned.level,
            metrics,
            {"schedule": schedules.serialize(pruned.settings.grouped)},
            tickets.config_of(pruned.inner),
        )
    )


def _due(grouped, steps):
    """Returns {step: {pattern: sparsity}} for all prunings up to `steps`."""
    due = {}
    for pattern, schedule in grouped.items():
        for step, sparsity in schedules.firings(schedule, steps).items():
            due.setdefault(step, {})[pattern] = sparsity
    if not due:
        config = schedules.serialize(grouped)
        raise ValueError(
            f"The schedule would never prune: it fires at none of the {steps} "
            f"steps of this training. Train longer, or change {config}."
        )
    return due


def _prune_in_place(pruned, sparsities, start):
    settings, before = pruned.settings, pruned.mask
    level = pruned.level + 1
    after = find.prune_to(
        find.budgets_of(settings.governed, sparsities, before),
        pruned.inner,
        before,
        start=start,
        criterion=settings.criterion,
        allocation=settings.allocation,
        data=settings.data,
        seed=settings.seed,
        level=level,
    )
    pruned.attachment.set(after)
    pruned.note_level(level)
