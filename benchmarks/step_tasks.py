"""What the contenders of `training_step.py` train: network, data, optimizer.

No framework is imported here: PyTorch's contenders read it too.
"""

from typing import NamedTuple

import numpy as np

CLASSES = 10
KEPT = 0.2  # of each kernel, where masks hold


class Task(NamedTuple):
    """One network and how it is trained.

    Fields:
        shape: Of an image.
        batch: Rows a step.
        rows: Of the data; whole batches.
        steps: Of a round.
        optimizer: `"adam"` or `"momentum"`.
        rate: Its learning rate.
    """

    shape: tuple
    batch: int
    rows: int
    steps: int
    optimizer: str
    rate: float


TASKS = {
    "lenet": Task((28, 28, 1), 60, 12_000, 200, "adam", 1.2e-3),
    "conv2": Task((32, 32, 3), 60, 1_200, 4, "adam", 2e-4),
    "resnet20": Task((32, 32, 3), 128, 1_024, 2, "momentum", 0.03),
}


def data(network):
    """Returns images and labels that no training can finish with.

    Example:

    >>> data("lenet")[0].shape
    (12000, 28, 28, 1)
    """
    task = TASKS[network]
    generator = np.random.default_rng(0)
    images = generator.random((task.rows, *task.shape), np.float32)
    return images, generator.integers(0, CLASSES, task.rows)
