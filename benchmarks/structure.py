"""What removing channels gives: bytes, multiply-adds and time of requests.

Channels go layer by layer (`allocation="channels"`) until half or three
quarters of the pruned weights are gone; the network is exported dense as it is,
with its zeros, and with `shrink=True`. Both answer the same requests in turn,
through TensorFlow's C API. The networks are not trained: which channels go does
not change how long the others take.

    python benchmarks/structure.py                      # 6 minutes
    python benchmarks/structure.py resnet20 --pairs=6   # seconds
"""

import argparse
import pathlib
import tempfile

import bars
import keras
import numpy as np

import keras_lottery as lottery
from keras_lottery.exporting import network as networks
from keras_lottery.exporting.shrinking.shrink import shrink
from keras_lottery.exporting.verifying import served
from keras_lottery.models import networks as models
from keras_lottery.pruning import weights

SPARSITIES = (0.5, 0.75)
BATCHES = (1, 16)


def mobilenet_v2(size):
    """Returns Keras's MobileNetV2 for images of a size, untrained."""
    return keras.applications.MobileNetV2(
        (size, size, 3), weights=None, classes=10
    )


NETWORKS = {
    "resnet20": lambda: models.get("resnet20")((32, 32, 3), 10),
    "mobilenet_v2_32": lambda: mobilenet_v2(32),
    "mobilenet_v2_96": lambda: mobilenet_v2(96),
}


def pruned(name, sparsity):
    """Returns a network without some of its channels: zeros are there."""
    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    mask = lottery.find_mask(model, sparsity, allocation="channels")
    variables = weights.by_name(model)
    for kernel in mask:
        variables[kernel].assign(variables[kernel].numpy() * mask[kernel])
    return model


def measure(name, sparsity, pairs):
    """Returns the bars and the row of sizes of a network at a sparsity."""
    model = pruned(name, sparsity)
    _, report = shrink(model)
    ((input_name, _),) = networks.of(model).specs.items()
    generator = np.random.default_rng(1)
    shape = model.input_shape[1:]
    batches = [
        {input_name: generator.random((n, *shape), np.float32)} for n in BATCHES
    ]
    with tempfile.TemporaryDirectory() as base:
        whole, small = (
            lottery.export(model, f"{base}/{each}", format="dense", shrink=each)
            for each in (False, True)
        )
        found = served.request_times([str(small), str(whole)], batches, pairs)
        sizes = [size(path) for path in (whole, small)]
    rows = [
        bars.of_pairs(
            f"{name}, {sparsity:.0%} removed, batch {n}: shrunk / dense",
            *(found[str(path)][n] for path in (small, whole)),
            "<=",
            1.0,
        )
        for n in BATCHES
    ]
    counts = (sizes, report.weights, report.multiply_adds)
    cells = [f"{a:,} -> {b:,} ({a / b:.2f} x)" for a, b in counts]
    return rows, [name, f"{sparsity:.0%}", *cells]


def size(path):
    """Returns the bytes of all files below a path."""
    return sum(
        each.stat().st_size
        for each in pathlib.Path(path).rglob("*")
        if each.is_file()
    )


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--pairs", type=int, default=40)
    given = parser.parse_args()
    rows, sizes = [], []
    for name in given.networks:
        for sparsity in SPARSITIES:
            found, cells = measure(name, sparsity, given.pairs)
            rows += found
            sizes.append(cells)
    print(bars.table(rows))
    head = ["network", "removed", "bytes, dense export", "numbers"]
    print("\n" + bars.markdown([*head, "multiply-adds"], sizes))
    print("\n" + bars.circumstances(pairs=given.pairs))


if __name__ == "__main__":
    main()
