"""A lottery: what is played, how far it is, and what it leaves on record."""

import contextlib
import dataclasses
import importlib.metadata
from collections.abc import Callable
from collections.abc import Mapping

import keras_lottery
from keras_lottery import checks
from keras_lottery.errors import RunError
from keras_lottery.pruning import allocation as allocations
from keras_lottery.pruning import criteria
from keras_lottery.pruning import find
from keras_lottery.pruning import groups
from keras_lottery.pruning import schedules
from keras_lottery.pruning import weights
from keras_lottery.pruning.mask import Mask
from keras_lottery.tickets import proving
from keras_lottery.tickets import records
from keras_lottery.tickets import rewind as rewinds
from keras_lottery.tickets import sparse_start
from keras_lottery.tickets import ticket as tickets
from keras_lottery.training import enforce
from keras_lottery.training import state


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
    initial_mask: Mask | None = None  # of level 0; None for a dense one

    @classmethod
    def of(cls, model, schedule, *, steps, layers=None, **choices):
        """Returns a lottery on a model, after checking all arguments."""
        grouped = groups.check(schedule)
        names = list(weights.prunable(model, layers))
        lottery = cls.named(model, grouped, names, steps=steps, **choices)
        lottery.check_reachable()
        return lottery

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
        chosen = rewinds.get(name)
        _check_steps(steps, rewind_step, name, chosen)
        governed = groups.assign(names, list(grouped))
        inside = {name for members in governed.values() for name in members}
        filled = {k: s.with_steps_per_level(steps) for k, s in grouped.items()}
        more.setdefault("optimizer", lambda: enforce.compiled_optimizer(model))
        names = [name for name in names if name in inside]
        begun = sparse_start.mask_of(
            more.pop("initial_mask", None), model, names
        )
        sparse_start.check(begun, governed, filled)
        criteria.get(more["criterion"], checks.whole("seed", more["seed"], 0))
        allocations.get(more["allocation"])
        return cls(
            model=model,
            names=tuple(names),
            schedule=filled,
            governed=governed,
            steps=steps,
            rewind_name=name if isinstance(name, str) else "custom",
            rewind=chosen,
            rewind_step=rewind_step,
            initial_mask=begun,
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

    @property
    def first_mask(self):
        """The `Mask` of level 0."""
        if self.initial_mask is not None:
            return self.initial_mask
        variables = self.variables
        return Mask.full({name: variables[name] for name in self.names})

    def snapshot(self):
        """Returns a copy of the state that training starts from."""
        return state.snapshot(self.model, self.optimizer())

    def kept(self, level):
        """Returns how many weights are kept at a level, by the schedule."""
        return sum(count for _, count in self.budgets(level))

    def budgets(self, level):
        """Returns (names, how many of them are kept) of each group."""
        first = self.first_mask
        if not level:
            counts = first.kept_by_name
            return [
                (names, sum(counts[name] for name in names))
                for names in self.governed.values()
            ]
        sparsities = groups.sparsities(self.schedule, level)
        return find.budgets_of(self.governed, sparsities, first)

    def check_reachable(self):
        """Raises a ValueError if the last level cannot keep as few."""
        last, first = self.budgets(self.levels), self.first_mask
        find.check_reachable(last, self.model, first, self.allocation)

    def is_of(self, ticket):
        """Returns whether a ticket was found by the same schedule.

        More levels, or longer ones, are of the same.
        """
        recorded = ticket.provenance.get("schedule")
        return recorded is not None and records.endless(
            recorded
        ) == records.endless(schedules.serialize(dict(self.schedule)))

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
        sparsities = groups.sparsities(self.schedule, level)
        return find.prune_to(
            find.budgets_of(self.governed, sparsities, before),
            self.model,
            before,
            start={name: progress.point.model[name] for name in before},
            criterion=self.criterion,
            allocation=self.allocation,
            data=self.data,
            seed=self.seed,
            level=level,
        )

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
            metrics={
                name: records.plain(value) for name, value in metrics.items()
            },
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
        self._error = None

    def check(self):
        """Raises the error of a rewind that did not do what it declares."""
        if self._error is not None:
            raise self._error

    @contextlib.contextmanager
    def spoiled_by_errors(self):
        """After an error inside nothing is trained on: the state is wrong."""
        try:
            yield
        except RunError as error:
            self._error = error
            raise

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

    def continue_after(self, ticket, lottery, point=None, end=None):
        """Goes on where a lottery was when it gave `ticket`.

        Args:
            ticket: The last `Ticket` it gave.
            lottery: The `Lottery`, which goes on.
            point: `Snapshot` of the rewind step; not needed at step 0.
            end: `Snapshot` of the end of the ticket's level; needed where a
                rewind keeps something of it.

        Raises:
            ValueError: What the lottery rewinds to is not all there.
            RunError: What is there is not of one lottery.
        """
        whole = lottery.rewind.restore is rewinds.everything
        if (lottery.rewind_step and not point) or not (whole or end):
            raise ValueError(
                "A ticket holds weights, not the optimizer's state: without "
                "snapshots only rewind='weights' with rewind_step=0 continues "
                "from one."
            )
        if not ticket.end:
            raise ValueError("Cannot continue from a ticket never trained.")
        start = {**ticket.start, **ticket.start_state}
        tickets.check_fits(start, lottery.model)
        proving.loading(lottery, ticket, point, end)
        state.restore_model(start, lottery.model)
        self.zero = state.first(lottery.model, lottery.optimizer())
        self.point = point or self.zero
        self.level, self.trained = ticket.level, True
        if end is None:
            ticket.restore(lottery.model, "end")
        else:
            state.restore(end, lottery.model, lottery.optimizer())


def _check_steps(steps, rewind_step, name, rewind):
    """Raises a ValueError for a rewind step that is none of a level."""
    checks.whole("steps", steps, 1)
    checks.whole("rewind_step", rewind_step, 0)
    if rewind_step >= steps:
        raise ValueError(
            f"rewind_step={rewind_step} is not inside a level of {steps} steps."
        )
    if rewind_step and not rewind.starts_at_step:
        raise ValueError(
            f"rewind={name!r} goes back to no step, so rewind_step="
            f"{rewind_step} means nothing. Leave it out, or use "
            "rewind='weights' or 'learning_rate'."
        )


def name_of(choice):
    """Returns the name of a criterion or allocation, for the record."""
    if isinstance(choice, str):
        return choice
    return getattr(choice, "__name__", type(choice).__name__)


def versions():
    """Returns the versions of what computes."""
    packages = ("keras", "tensorflow", "numpy")
    found = {"keras_lottery": keras_lottery.__version__}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
