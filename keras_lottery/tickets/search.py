"""The search for winning tickets: train, prune, rewind, repeat.

`levels` is Frankle & Carbin's algorithm. Everything that finds tickets in this
package goes through it.
"""

from keras_lottery.tickets import proving
from keras_lottery.tickets.lottery import Lottery
from keras_lottery.tickets.lottery import Progress
from keras_lottery.training import enforce
from keras_lottery.training import state


def levels(lottery, train, attachment, progress):
    """Yields the ticket of each level: train, prune, rewind, repeat.

    Args:
        lottery: The `Lottery` to play.
        train: Function `(level, first_step, capture) -> metrics`. At level 0
            it calls `capture()` once the rewind step is reached.
        attachment: The `Attachment` that holds the masks.
        progress: Where an earlier call stopped, or a new `Progress`.

    Raises:
        RunError: Weights, losses or the optimizer's slots are not finite
            after a training, weights are not the same on all replicas, or
            what a rewind has to leave is not there.
    """
    model, rewind = lottery.model, lottery.rewind
    while not progress.finished(lottery.levels):
        progress.check()
        if progress.trained:
            mask = lottery.next_mask(attachment.mask, progress)
            with (
                progress.spoiled_by_errors(),
                proving.rewinding(lottery, attachment, progress),
            ):
                attachment.set(mask)
                rewind.restore(progress.point, model, lottery.optimizer())
                attachment.apply()
                progress.enter(progress.level + 1, lottery.snapshot())
        elif progress.begin is None:
            progress.enter(progress.level, lottery.snapshot())
        else:  # a training was interrupted: it starts again
            state.restore(progress.begin, model, lottery.optimizer())
            where = f"level {progress.level}, begun again"
            proving.beginning(where, progress.begin, model, lottery.optimizer())

        mask, first = attachment.mask, lottery.first_step(progress.level)
        if progress.level == 0 and lottery.rewind_step == 0:
            progress.point = progress.begin
        metrics = train(
            progress.level, first, lambda: progress.capture(lottery)
        )
        attachment.settle(model, lottery.optimizer())
        attachment.apply()
        proving.training(
            f"level {progress.level}",
            lottery.steps,
            model,
            lottery.optimizer(),
            mask,
            attachment.mask,
            metrics or {},
            begin=progress.begin.model,
        )
        progress.trained = True
        yield lottery.ticket(attachment.mask, progress, metrics or {})


def find_tickets(
    model,
    train,
    schedule,
    *,
    steps,
    rewind=None,
    rewind_step=0,
    criterion="magnitude",
    allocation="global",
    layers=None,
    data=None,
    seed=0,
    mask=None,
    after=None,
    point=None,
    end=None,
):
    """Yields the ticket of each level, with a training loop of your own.

    The algorithm of Frankle & Carbin: train the dense network, remove the
    weights that matter least, put the others back to what they were at the
    rewind step, and train again, until the schedule ends. The masks hold while
    `train` runs, through the compiled optimizer or, with another one, through
    `lottery.masked_gradients(gradients, model)`.

    Args:
        model: A built `keras.Model`. Its compiled optimizer, if any, is
            rewound with it; a custom loop makes a new one at `first_step`.
        train: Function `(model, first_step, last_step) -> metrics`, a dict of
            floats or None. With `rewind_step=k` level 0 is trained in two
            calls, 0 to k and k to `steps`.
        schedule: A level schedule such as `IterativePruning`, or a dict of
            name pattern to those.
        steps: Training steps of a whole level.
        rewind: `"weights"` (the default), `"learning_rate"`, `"fine_tune"`,
            `"continue"` or `"none"`.
        rewind_step: The step k to rewind to.
        criterion: As in `lottery.find_mask`.
        allocation: As in `lottery.find_mask`.
        layers: As in `lottery.prune`.
        data: Given to the criterion.
        seed: Seed of a criterion that draws.
        mask: What to begin with, as in `lottery.prune`.
        after: The last `Ticket` of an earlier lottery, to continue from.
        point: `Snapshot` of that lottery's rewind step, needed unless it is 0.
        end: `Snapshot` of the end of the level of `after`, needed by rewinds
            that keep something of it.

    Yields:
        A `Ticket` per level, level 0 (dense) first.

    Raises:
        ValueError: Arguments that do not fit together, before any training.
        RunError: Training diverged, or a proof failed: weights or masks are
            not what the schedule and the rewind make them.

    Example:

    >>> import keras, numpy as np, keras_lottery as lottery
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 2))
    >>> def train(model, first_step, last_step):
    ...     for step in range(first_step, last_step):
    ...         loss = model.train_on_batch(x, y)
    ...     return {"loss": float(loss)}
    >>> schedule = lottery.IterativePruning(rate=0.5, levels=2)
    >>> found = lottery.find_tickets(model, train, schedule, steps=3)
    >>> [ticket.mask.kept for ticket in found]
    [8, 4, 2]

    Reference: Frankle & Carbin (2019), section 2; with k > 0 Frankle et al.
    (2020), algorithm 2.
    """
    lottery = Lottery.of(
        model,
        schedule,
        steps=steps,
        rewind=rewind,
        rewind_step=rewind_step,
        criterion=criterion,
        allocation=allocation,
        layers=layers,
        data=data,
        seed=seed,
        initial_mask=mask,
    )
    return _found(lottery, train, after, point, end)


def _found(lottery, train, after, point, end):
    model, k = lottery.model, lottery.rewind_step
    mask = lottery.first_mask
    progress = Progress()
    if after is not None:
        progress.continue_after(after, lottery, point, end)
        mask = after.mask

    def train_level(level, first, capture):
        attachment = enforce.attachment(model)
        if enforce.compiled_optimizer(model) is not None:
            attachment.hold(model.optimizer)
        if level == 0 and k:
            train(model, 0, k)
            capture()
            first = k
        metrics = train(model, first, lottery.steps)
        attachment.warn_if_bypassed(enforce.compiled_optimizer(model))
        attachment.warn_of_leaks(enforce.compiled_optimizer(model))
        return metrics

    with enforce.masked(model, mask), lottery.held_rate(model):
        attachment = enforce.attachment(model)
        yield from levels(lottery, train_level, attachment, progress)
