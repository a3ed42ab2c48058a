"""Experiments: a network, its data and what is done with them, by name."""

import dataclasses

from keras_lottery import checks
from keras_lottery.pruning import schedules
from keras_lottery.tickets import controls


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A lottery with controls and replicates.

    Fields:
        name: What the run directory is called.
        data: `"digits"` or the name of a tfds set.
        hidden: Units of LeNet's hidden layers.
        rate: Fraction of the remaining weights removed per level.
        output_rate: The same, in the output layer.
        levels: Number of prunings.
        steps: Training steps per level.
        batch_size: Rows per step.
        learning_rate: Adam's.
        eval_every: Steps between validations.
        replicates: Repetitions, each with its own initialisation and order.
        controls: Names of controls to train at every level, once each.
        seed: Seed of everything.
    """

    name: str
    data: str
    hidden: tuple = (300, 100)
    rate: float = 0.2
    output_rate: float = 0.1
    levels: int = 10
    steps: int = 4000
    batch_size: int = 60
    learning_rate: float = 1.2e-3
    eval_every: int = 100
    replicates: int = 2
    controls: tuple = ("reinitialize", "shuffle")
    seed: int = 0

    def __post_init__(self):
        for name in ("levels", "steps", "batch_size", "eval_every"):
            checks.whole(name, getattr(self, name), 1)
        checks.whole("replicates", self.replicates, 1)
        for control in self.controls:
            controls.get(control)
        if self.steps % self.eval_every:
            raise ValueError(
                f"steps={self.steps} must be a multiple of eval_every="
                f"{self.eval_every}."
            )

    @property
    def schedule(self):
        """Layer-wise rates, the output layer at its own."""
        return {
            "output/*": schedules.IterativePruning(
                self.output_rate, self.levels
            ),
            "*": schedules.IterativePruning(self.rate, self.levels),
        }


EXPERIMENTS = {
    # Real digits that ship with the package; about a minute on two cores. The
    # learning rate is high so that 600 steps go past the validation minimum.
    "digits": Experiment(
        name="digits",
        data="digits",
        levels=8,
        steps=600,
        eval_every=30,
        learning_rate=5e-3,
        replicates=3,
    ),
    # Frankle & Carbin's LeNet on Fashion-MNIST, with fewer steps.
    "fashion_lenet": Experiment(
        name="fashion_lenet", data="fashion_mnist", levels=15, steps=4000
    ),
    # The same on MNIST: figures 1, 3 and 4, with a tenth of the steps.
    "mnist_lenet": Experiment(
        name="mnist_lenet", data="mnist", levels=15, steps=5000
    ),
}


def get(name, **changes):
    """Returns the experiment called `name`, with some fields changed.

    Args:
        name: A key of `EXPERIMENTS`.
        **changes: Fields to change; None leaves a field as it is.

    Raises:
        ValueError: No such experiment.

    Example:

    >>> get("digits", levels=3).levels
    3
    """
    if name not in EXPERIMENTS:
        known = ", ".join(EXPERIMENTS)
        raise ValueError(
            f"Unknown experiment {name!r}. Expected one of {known}."
        )
    changed = {k: v for k, v in changes.items() if v is not None}
    return dataclasses.replace(EXPERIMENTS[name], **changed)
