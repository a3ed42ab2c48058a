"""What `lottery.prune` was given, checked and as Keras saves it."""

import dataclasses

from keras_lottery import checks
from keras_lottery.pruning import allocation as allocations
from keras_lottery.pruning import criteria
from keras_lottery.pruning import groups
from keras_lottery.pruning import schedules
from keras_lottery.pruning import weights
from keras_lottery.pruning.mask import Mask
from keras_lottery.tickets import lottery
from keras_lottery.tickets import sparse_start


@dataclasses.dataclass
class Settings:
    """What `prune` was given, beside the model."""

    grouped: dict
    names: list
    rewind: str | None
    rewind_step: int
    criterion: object
    allocation: object
    data: object
    seed: int
    mask: Mask | None = None  # to begin with, once checked

    def check(self, model):
        """Raises a ValueError for what cannot be right, before any training."""
        self.in_levels = groups.counts_in_levels(self.grouped)
        self.governed = groups.assign(self.names, list(self.grouped))
        self.mask = sparse_start.mask_of(self.mask, model, self.governed_names)
        if self.in_levels:
            checks.whole("rewind_step", self.rewind_step, 0)
            given = [each.steps_per_level for each in self.grouped.values()]
            steps = max([s for s in given if s] or [self.rewind_step + 1])
            self.lottery(model, steps).check_reachable()
            return
        if self.rewind not in (None, "none") or self.rewind_step:
            raise ValueError(
                f"{type(next(iter(self.grouped.values()))).__name__} prunes in "
                "place, in one training: there is nothing to rewind. Leave "
                "`rewind` out, or use a schedule that counts in levels, such "
                f"as IterativePruning; got rewind={self.rewind!r}."
            )
        allocations.of_model(self.allocation, model)
        criteria.get(self.criterion, checks.whole("seed", self.seed, 0))

    @property
    def governed_names(self):
        """Names of the weights that some schedule prunes, in walking order."""
        inside = {name for each in self.governed.values() for name in each}
        return [name for name in self.names if name in inside]

    def ungoverned(self, model):
        """Returns why prunable weights outside `names` are left alone."""
        inside = set(self.governed_names)
        return {
            name: "no schedule" if name in self.names else "not in layers="
            for name in weights.prunable(model)
            if name not in inside
        }

    def choices(self):
        """Returns what `prune` was given by name, `layers` and `mask` aside."""
        names = "rewind rewind_step criterion allocation data seed".split()
        return {name: getattr(self, name) for name in names}

    def lottery(self, model, steps, **more):
        """Returns the `Lottery` of levels of `steps` steps."""
        return lottery.Lottery.named(
            model,
            self.grouped,
            self.names,
            steps=steps,
            initial_mask=self.mask,
            **self.choices(),
            **more,
        )

    def get_config(self):
        """Returns the settings as Keras can save them.

        Raises:
            ValueError: A function that has no name to be found by.
        """
        if not isinstance(self.criterion, str):
            raise ValueError(
                "The criterion is a function, which a .keras file cannot hold. "
                "Use `save_weights`, or save a ticket."
            )
        config = {
            "schedule": schedules.serialize(self.grouped),
            "names": list(self.names),
            "rewind": self.rewind,
            "rewind_step": self.rewind_step,
            "criterion": self.criterion,
            "allocation": allocations.serialize(self.allocation),
            "seed": self.seed,
        }
        if self.mask is not None:
            config["mask"] = sparse_start.serialize(self.mask)
        return config
