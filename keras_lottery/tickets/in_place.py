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

    def prune(step):
        pruned.clock.assign(before + step)
        if before + step in due:
            _prune_in_place(pruned, due[before + step], start)

    a_call = pruned.steps_per_execution
    missed = [s for s in due if s > before and (s - before - 1) % a_call]
    if missed:
        raise ValueError(
            f"The schedule prunes at step {missed[0]}, inside a call of "
            f"steps_per_execution={a_call} steps. Compile with "
            "steps_per_execution=1."
        )
    pruned.hold_optimizer()
    hook = hooks.BeforeStep(prune, 0)
    metrics = training.run(0, "training", before=[hook])
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
