"""Schedules that prune in place: one training, pruned at its own steps."""

from keras_lottery.pruning import find
from keras_lottery.pruning import schedules
from keras_lottery.tickets import firing
from keras_lottery.tickets import lottery as lotteries
from keras_lottery.tickets import proving
from keras_lottery.tickets import ticket as tickets
from keras_lottery.training import callbacks as hooks
from keras_lottery.training import state


def play(pruned, training):
    """One training in which the schedules prune at their own steps.

    Raises:
        RunError: It diverged, or a proof failed.
    """
    pruned.hold_optimizer()
    progress = training.saver.go_on(lotteries.Progress())
    if progress.trained:
        return
    if progress.zero is None:
        progress.zero = state.snapshot(pruned.inner)
    first = training.initial_step
    done = training.saver.steps_done(first) - first
    before = int(pruned.clock.numpy()) - done
    end = before + training.epochs.steps
    due = firing.firings(pruned.settings, end)
    firing.check_some(due, pruned.settings, end)
    start = tickets.parted(progress.zero.model, pruned.mask)

    def prune(done):
        step = before + done + 1  # the one that comes next
        if step in due:
            level = pruned.level + 1
            prune_now(
                pruned.settings,
                pruned.inner,
                pruned.attachment,
                due[step],
                start=start[0],
                level=level,
            )
            pruned.note_level(level)

    def count(steps):
        pruned.clock.assign(before + steps)

    stops = [first + step - before - 1 for step in due if step > before]
    hook = hooks.BetweenSteps(prune, count, done)
    metrics = training.run(first, "training", before=[hook], stops=stops)
    ticket = _ticket(pruned, start, metrics)
    pruned.played.tickets.append(ticket)
    training.saver.finish(ticket)


def _ticket(pruned, start, metrics):
    mask, inner = pruned.mask, pruned.inner
    pruned.attachment.settle(inner, pruned.optimizer)
    pruned.attachment.apply()
    step = int(pruned.clock.numpy())
    proving.training(
        "training", step, inner, pruned.optimizer, mask, pruned.mask, metrics
    )
    return tickets.Ticket(
        mask,
        *start,
        *tickets.ended(inner, mask),
        pruned.level,
        metrics,
        {"schedule": schedules.serialize(pruned.settings.grouped)},
        tickets.config_of(inner),
    )


def prune_now(settings, model, attachment, sparsities, *, start, level):
    """Prunes a model while it is trained, and proves it.

    Args:
        settings: The `Settings`: criterion, allocation and so on.
        model: The `keras.Model`.
        attachment: The `Attachment` of its masks.
        sparsities: Dict from pattern to the fraction to remove in all.
        start: Dict from name to the weights at step 0.
        level: Number of prunings, this one counted.

    Raises:
        RunError: A proof failed.
    """
    before = attachment.mask
    budgets = find.budgets_of(settings.governed, sparsities, before)
    after = find.prune_to(
        budgets,
        model,
        before,
        start=start,
        criterion=settings.criterion,
        allocation=settings.allocation,
        data=settings.data,
        seed=settings.seed,
        level=level,
    )
    attachment.set(after)
    where = f"level {level}, pruned in place"
    chosen = settings.allocation
    proving.pruning(where, before, after, budgets, chosen, model)
