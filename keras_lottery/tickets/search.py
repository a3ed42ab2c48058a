"""The search for winning tickets: train, prune, rewind, repeat.

`levels` is Frankle & Carbin's algorithm. Everything that finds tickets in this
package goes through it.
"""

import contextlib
import dataclasses
import importlib.metadata
from collections.abc import Callable
from collections.abc import Mapping

from keras_lottery import checks
from keras_lottery.pruning import allocation as allocations
from keras_lottery.pruning import criteria
from keras_lottery.pruning import find
from keras_lottery.pruning import groups
from keras_lottery.pruning import schedules
from keras_lottery.pruning import weights
from keras_lottery.pruning.mask import Mask
from keras_lottery.pruning.mask import kept
from keras_lottery.tickets import rewind as rewinds
from keras_lottery.tickets import ticket as tickets
from keras_lottery.training import callbacks
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
        RunError: Weights are not finite after a training.
    """
    model, rewind = lottery.model, lottery.rewind
    while not progress.finished(lottery.levels):
        if progress.trained:
            attachment.set(lottery.next_mask(attachment.mask, progress))
            rewind.restore(progress.point, model, lottery.optimizer())
            attachment.apply()
            progress.enter(progress.level + 1, lottery.snapshot())
        elif progress.begin is None:
            progress.enter(progress.level, lottery.snapshot())
        else:  # a training was interrupted: it starts again
            state.restore(progress.begin, model, lottery.optimizer())

        first = lottery.first_step(progress.level)
        if progress.level == 0 and lottery.rewind_step == 0:
            progress.point = progress.begin
        metrics = train(
            progress.level, first, lambda: progress.capture(lottery)
        )
        attachment.apply()
        _check_finite(model, progress.level, lottery.steps)
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
    after=None,
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
        after: The `Ticket` of an earlier lottery to continue from.

    Yields:
        A `Ticket` per level, level 0 (dense) first.

    Raises:
        ValueError: Arguments that do not fit together, before any training.
        RunError: Training diverged.

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
    )
    return _found(lottery, train, after)


def _found(lottery, train, after):
    model, k = lottery.model, lottery.rewind_step
    mask = Mask.full({name: lottery.variables[name] for name in lottery.names})
    progress = Progress()
    if after is not None:
        progress.continue_after(after, lottery)
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
        return metrics

    with enforce.masked(model, mask), lottery.held_rate(model):
        attachment = enforce.attachment(model)
        yield from levels(lottery, train_level, attachment, progress)


@dataclasses.dataclass(frozen=True)
class Lottery:
    """All that decides what a search finds, checked."""

    model: object
    names: tuple
    schedule: Mapping
    governed: Mapping
    steps: int
    rewind_name: str
    rewind: rewinds.Rewind
    rewind_step: int
    criterion: object
    allocation: object
    data: object
    seed: int
    optimizer: Callable

    @classmethod
    def of(cls, model, schedule, *, steps, layers=None, **choices):
        """Returns a lottery on a model, after checking all arguments."""
        grouped = groups.check(schedule)
        names = list(weights.prunable(model, layers))
        return cls.named(model, grouped, names, steps=steps, **choices)

    @classmethod
    def named(
        cls, model, grouped, names, *, steps, rewind, rewind_step, **more
    ):
        """Returns a lottery on the weights `names` of a model."""
        name = rewind or "weights"
        if not groups.counts_in_levels(grouped):
            raise ValueError(
                "find_tickets needs a schedule that counts in levels: "
                "IterativePruning, OneShot or ListedSparsities. "
                "`lottery.prune` drives tfmot's own."
            )
        checks.whole("steps", steps, 1)
        checks.whole("rewind_step", rewind_step, 0)
        if rewind_step >= steps:
            raise ValueError(
                f"rewind_step={rewind_step} is not inside a level of {steps} "
                "steps."
            )
        governed = groups.assign(names, list(grouped))
        inside = {name for members in governed.values() for name in members}
        filled = {k: s.with_steps_per_level(steps) for k, s in grouped.items()}
        more.setdefault("optimizer", lambda: enforce.compiled_optimizer(model))
        criteria.get(more["criterion"], checks.whole("seed", more["seed"], 0))
        allocations.get(more["allocation"])
        return cls(
            model=model,
            names=tuple(name for name in names if name in inside),
            schedule=filled,
            governed=governed,
            steps=steps,
            rewind_name=name if isinstance(name, str) else "custom",
            rewind=rewinds.get(name),
            rewind_step=rewind_step,
            **more,
        )

    @property
    def levels(self):
        """Number of prunings."""
        return next(iter(self.schedule.values())).levels

    @property
    def variables(self):
        """The model's variables by name."""
        return weights.by_name(self.model)

    def snapshot(self):
        """Returns a copy of the state that training starts from."""
        return state.snapshot(self.model, self.optimizer())

    def first_step(self, level):
        """Returns the step that the training of a level starts at."""
        return self.rewind_step if level and self.rewind.starts_at_step else 0

    @contextlib.contextmanager
    def held_rate(self, trained):
        """Keeps the last learning rate while fine-tuning; else does nothing.

        Keras's training function has the learning rate of its trace built in,
        so it is traced anew on both ends.

        Args:
            trained: The `keras.Model` whose `fit` or `train_on_batch` runs.
        """
        if self.rewind_name != "fine_tune" or self.optimizer() is None:
            yield
            return
        try:
            with rewinds.held_rate(self.optimizer(), self.steps):
                trained.train_function = None
                yield
        finally:
            trained.train_function = None

    def next_mask(self, before, progress):
        """Returns the mask of the next level, from the weights as trained."""
        level = progress.level + 1
        start = {name: progress.point.model[name] for name in before}
        scores = criteria.scores_of(
            criteria.get(self.criterion, self.seed),
            self.model,
            start,
            self.data,
            before,
        )
        budgets = []
        for pattern, names in self.governed.items():
            size = sum(before.sizes[name] for name in names)
            budgets.append(
                (names, kept(size, self.schedule[pattern].sparsity(level)))
            )
        after = find.spread(scores, before, budgets, self.allocation)
        find.warn_of_collapse(before, after, level)
        return after

    def ticket(self, mask, progress, metrics):
        """Returns the ticket of a level that has just been trained."""
        began = {
            "point": progress.point,
            "zero": progress.zero,
            "level": progress.begin,
        }[self.rewind.start] or progress.begin  # loaded models have no point
        start, start_state = tickets.parted(began.model, mask)
        end, end_state = tickets.ended(self.model, mask)
        return tickets.Ticket(
            mask=mask,
            start=start,
            start_state=start_state,
            end=end,
            end_state=end_state,
            level=progress.level,
            metrics=dict(metrics),
            provenance=self.provenance(),
            model_config=tickets.config_of(self.model),
        )

    def provenance(self):
        """Returns what was chosen, and with which versions."""
        return {
            "schedule": schedules.serialize(dict(self.schedule)),
            "steps": self.steps,
            "rewind": self.rewind_name,
            "rewind_step": self.rewind_step,
            "criterion": name_of(self.criterion),
            "allocation": name_of(self.allocation),
            "seed": self.seed,
            "versions": versions(),
        }


class Progress:
    """How far a lottery is, and the states it goes back to.

    Attributes:
        level: The level that is, or will be, trained.
        trained: Whether that level's training is complete.
        zero: `Snapshot` of step 0.
        point: `Snapshot` of the rewind step, once reached.
        begin: `Snapshot` of where the current level began.
    """

    def __init__(self, level=0):
        self.level, self.trained = level, False
        self.zero = self.point = self.begin = None

    def finished(self, last_level):
        """Returns whether every level is trained."""
        return self.trained and self.level >= last_level

    def enter(self, level, begin):
        """Notes that a level begins from a state."""
        self.level, self.trained, self.begin = level, False, begin
        if level == 0:
            self.zero = begin

    def capture(self, lottery):
        """Takes the rewind point from the model as it is."""
        self.point = lottery.snapshot()

    def continue_after(self, ticket, lottery):
        """Goes on where a lottery was when it gave `ticket`.

        Raises:
            ValueError: What the lottery rewinds to is not all in a ticket.
        """
        if lottery.rewind_name != "weights" or lottery.rewind_step:
            raise ValueError(
                "A ticket holds the weights of the rewind point, not the "
                "optimizer's state there: only rewind='weights' with "
                "rewind_step=0 continues from one."
            )
        if not ticket.end:
            raise ValueError("Cannot continue from a ticket never trained.")
        tickets.check_fits(
            {**ticket.start, **ticket.start_state}, lottery.model
        )
        fresh = lottery.snapshot()
        whole = {**ticket.start, **ticket.start_state}
        self.zero = self.point = fresh._replace(model=whole)
        self.level, self.trained = ticket.level, True
        ticket.restore(lottery.model, "end")


def name_of(choice):
    """Returns the name of a criterion or allocation, for the record."""
    if isinstance(choice, str):
        return choice
    return getattr(choice, "__name__", type(choice).__name__)


def versions():
    """Returns the versions of what computes."""
    packages = ("keras_lottery", "keras", "tensorflow", "numpy")
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _check_finite(model, level, step):
    name = state.first_not_finite(model)
    if name is not None:
        raise callbacks.diverged(
            f"level {level}", step, f"{name} is not finite"
        )
