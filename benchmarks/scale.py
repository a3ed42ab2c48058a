"""What a lottery of ResNet-50 on ImageNet would take: the tables of a page.

    python benchmarks/scale.py           # the tables of docs/scale.md
    python benchmarks/scale_points.py    # its formulas, beside small points

Nothing of this size was trained. The formulas count steps, bytes and files, and
are compared with what small runs send and write. Time is not estimated: a step
takes what it takes on your machine.
"""

import math
from typing import NamedTuple

import keras
import numpy as np

from keras_lottery.pruning import weights
from keras_lottery.pruning.mask import Mask
from keras_lottery.runs import paths
from keras_lottery.tickets import ticket as tickets
from keras_lottery.tickets import ticket_file

# ImageNet-1k, and open_lth's recipe: batch 1024, 90 epochs, momentum, 20 %.
IMAGES, BATCH, EPOCHS, RATE = 1_281_167, 1024, 90, 0.2
LEVELS, REPLICATES, CONTROLS = 20, 5, 2
ACCELERATORS = (8, 64)
PIXELS = 224 * 224 * 3
SLOTS = 1  # per trained weight: momentum
FLOAT = 4  # bytes
OF_A_RUN = (
    paths.CONFIG,
    paths.LEVELS,
    paths.TIMES,
    paths.TABLES,
    paths.REPORT,
    paths.LOCK,
)


class Sizes(NamedTuple):
    """Numbers of a network.

    Fields:
        trained: Values in trainable variables.
        others: Values in all other variables: statistics, seeds.
        masks: Values in each weight that is pruned.
    """

    trained: int
    others: int
    masks: tuple

    @property
    def prunable(self):
        """Weights that are pruned."""
        return sum(self.masks)


def sizes_of(model):
    """Returns the `Sizes` of a built model."""
    masks = tuple(map(_count, weights.prunable(model).values()))
    everything = sum(map(_count, weights.by_name(model).values()))
    trained = sum(map(_count, model.trainable_variables))
    return Sizes(trained, everything - trained, masks)


def kept(sizes, level, rate=RATE):
    """Returns how many weights a level keeps, of one group."""
    removed = round(sizes.prunable * (1 - (1 - rate) ** level))
    return sizes.prunable - removed


def steps(rows=IMAGES, batch=BATCH, epochs=EPOCHS):
    """Returns the steps of a training; the last batch of a pass is smaller."""
    return epochs * math.ceil(rows / batch)


def trainings(controls=0, levels=LEVELS, replicates=REPLICATES):
    """Returns how many networks are trained; controls begin at level 1."""
    return replicates * (1 + levels * (1 + controls))


def ticket_bytes(sizes, level, counted=None):
    """Returns the bytes of the arrays of a ticket file.

    A bit per prunable weight, each of them at the start, the kept ones at the
    end, and every other variable at both.

    Args:
        sizes: `Sizes`.
        level: Of the ticket.
        counted: Weights kept, where several groups were pruned.
    """
    bits = sum(math.ceil(each / 8) for each in sizes.masks)
    counted = kept(sizes, level) if counted is None else counted
    beside = sizes.trained + sizes.others - sizes.prunable
    return bits + FLOAT * (sizes.prunable + counted + 2 * beside)


def point_bytes(sizes, slots=SLOTS):
    """Returns the bytes of the arrays of a point to rewind to.

    All variables, the optimizer's slots, its step (eight bytes) and its
    learning rate.
    """
    values = sizes.trained + sizes.others + slots * sizes.trained
    return FLOAT * values + 8 + FLOAT


def reduced_bytes(sizes):
    """Returns the bytes of the gradients of a step: a float per trained value.

    Masks are the same on all devices and stay there. Keras sends no statistics
    of batch normalisation, but of layers with `synchronized=True`.
    """
    return FLOAT * sizes.trained


def ring_bytes(size, devices):
    """Returns what each device sends, and receives, to sum `size` bytes.

    2 (R - 1) / R of them, in a ring: the least that any all-reduce can do.
    """
    return 2 * (devices - 1) * size / devices


def files(controls=0, point=True, levels=LEVELS, replicates=REPLICATES):
    """Returns how many files a run leaves, without an export."""
    of_tickets = 4 * (levels + 1) + point
    return len(OF_A_RUN) + replicates * (of_tickets + 3 * controls * levels)


def header_bytes(content):
    """Returns the bytes of a safetensors file that are not its arrays."""
    return 8 + int.from_bytes(content[:8], "little")


def resnet50():
    """Returns ResNet-50 as `keras.applications` builds it, untrained."""
    return keras.applications.ResNet50(weights=None)


def header_of(model, level=LEVELS):
    """Returns the bytes of a ticket of a model beside its arrays."""
    mask = Mask(
        {
            name: np.zeros(variable.shape, bool)
            for name, variable in weights.prunable(model).items()
        }
    )
    empty = {name: np.zeros(0, "float32") for name in mask}
    ticket = tickets.capture(model, mask, level=level)
    others = {name: np.zeros(0, "float32") for name in ticket.start_state}
    config = ticket.model_config
    light = tickets.Ticket(
        mask, empty, others, empty, others, level=level, model_config=config
    )
    return header_bytes(ticket_file.pack(light))


def tables():
    """Returns the tables of the page, in Markdown, in order."""
    model = resnet50()
    sizes, header = sizes_of(model), header_of(model)
    parts = [_network(sizes), _steps(), _devices(sizes), _disk(sizes, header)]
    return ["\n".join(part) for part in parts]


def _network(sizes):
    return [
        "| ResNet-50 of `keras.applications` | |",
        "|---|---|",
        f"| trained values | {sizes.trained:,} |",
        f"| of these in kernels, which are pruned | {sizes.prunable:,} |",
        f"| statistics of batch normalisation | {sizes.others:,} |",
        f"| kept at level {LEVELS} | {kept(sizes, LEVELS):,} "
        f"({kept(sizes, LEVELS) / sizes.prunable:.2%}) |",
    ]


def _steps():
    alone, beside = trainings(), trainings(CONTROLS)
    even = IMAGES // BATCH * BATCH
    return [
        f"| batch {BATCH}, {EPOCHS} epochs | |",
        "|---|---|",
        f"| steps of a training | {steps():,} |",
        f"| trainings: {REPLICATES} x (1 + {LEVELS}) tickets | {alone:,} |",
        f"| steps of all tickets | {alone * steps():,} |",
        f"| trainings with {CONTROLS} controls at each level | {beside:,} |",
        f"| steps of all of these | {beside * steps():,} |",
        f"| rows of the last batch of a pass | {IMAGES % BATCH} |",
        f"| images, where every batch has to be whole | {even:,} |",
    ]


def _devices(sizes):
    size = reduced_bytes(sizes)
    rows = {
        "rows of a batch on each": lambda n: str(BATCH // n),
        "gradients, all-reduced in each step": lambda n: _size(size),
        "each sends and receives for that, in a ring": lambda n: _size(
            ring_bytes(size, n)
        ),
        "masks, sent in a step": lambda n: "none",
        "weights, momentum and masks on each": lambda n: _size(
            _on_device(sizes)
        ),
    }
    head = " | ".join(f"{each} accelerators" for each in ACCELERATORS)
    return [
        f"| | {head} |",
        "|---|" + "---|" * len(ACCELERATORS),
        *(
            f"| {name} | {' | '.join(map(of, ACCELERATORS))} |"
            for name, of in rows.items()
        ),
    ]


def _on_device(sizes):
    floats = sizes.trained + sizes.others + SLOTS * sizes.trained
    return FLOAT * floats + sizes.prunable  # a bool takes a byte


def _disk(sizes, header):
    of_level = [
        header + ticket_bytes(sizes, level) for level in range(LEVELS + 1)
    ]
    point = point_bytes(sizes)
    everything = REPLICATES * (sum(of_level) + point)
    pixels = IMAGES * PIXELS
    return [
        "| on disk | |",
        "|---|---|",
        f"| a ticket: level 0, level {LEVELS} | {_size(of_level[0])}, "
        f"{_size(of_level[-1])} |",
        f"| of each, names, shapes and config | {_size(header)} |",
        f"| the point to rewind to, once a replicate | {_size(point)} |",
        f"| all tickets and points | {_size(everything)} |",
        f"| files of the run, without controls | {files():,} |",
        f"| files with {CONTROLS} controls | {files(CONTROLS):,} |",
        f"| ImageNet as arrays of float32 | {_size(FLOAT * pixels)} |",
    ]


def _size(count):
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count} B"


def _count(variable):
    return int(np.prod(variable.shape))


if __name__ == "__main__":
    print("\n\n".join(tables()))
