"""What exports of pruned networks take on disk, whole version directories.

Glorot-normal weights, pruned by magnitude layer by layer; biases and
normalisation random, as after training. No network is trained: sizes depend on
how the weights are distributed, and a trained ticket differs by a few percent.

    python benchmarks/export_size.py
    python benchmarks/export_size.py --sparsity=0.9 0.964 0.99
"""

import argparse
import pathlib
import tempfile

import numpy as np

import keras_lottery as lottery
from keras_lottery.exporting import codec
from keras_lottery.exporting import compact
from keras_lottery.exporting import dense
from keras_lottery.models import networks
from keras_lottery.pruning import naming

INPUTS = {"lenet": (28, 28, 1), "resnet20": (32, 32, 3)}


def filled(name, sparsity, seed):
    """Returns a pruned network whose weights no training chose."""
    model = networks.get(name)(INPUTS[name], 10)
    generator = np.random.default_rng(seed)
    for weight in naming.walk(model):
        weight.variable.assign(_drawn(weight, generator))
    mask = lottery.find_mask(model, sparsity, allocation="layerwise")
    for weight in naming.walk(model):
        if weight.name in mask:
            value = weight.variable.numpy()
            weight.variable.assign(np.where(mask[weight.name], value, 0))
    return model, mask


def _drawn(weight, generator):
    shape = weight.variable.shape
    role = weight.name.split("/")[-1]
    if role == "kernel":
        fans = np.prod(shape[:-2]) * (shape[-2] + shape[-1])
        return generator.normal(0, np.sqrt(2 / fans), shape)
    if role in ("gamma", "moving_variance"):
        return generator.uniform(0.5, 1.5, shape)
    return generator.normal(0, 0.05, shape)


def measured(name, sparsity, seed):
    """Returns dict from what is measured to bytes."""
    model, mask = filled(name, sparsity, seed)
    (store,), _ = compact._stored(model)
    payload = store.payload
    bound = codec.entropy_bytes(
        [mask[name].size for name in mask],
        [np.count_nonzero(mask[name]) for name in mask],
    )
    writers = {
        "keras": lambda m, path: m.export(path, verbose=False),
        "dense": dense.write_dense,
        "compact": compact.write_compact,
    }
    sizes = {kind: _written(model, write) for kind, write in writers.items()}
    return {
        **sizes,
        "payload": len(payload.blob),
        "index": payload.compressed[0],
        "values": payload.compressed[1],
        "raw": payload.compressed[2],
        "bound": round(bound),
    }


def _written(model, write):
    with tempfile.TemporaryDirectory() as base:
        path = pathlib.Path(base, "1")
        path.mkdir()
        write(model, str(path))
        files = (each for each in path.rglob("*") if each.is_file())
        return sum(each.stat().st_size for each in files)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--networks", nargs="+", default=list(INPUTS), choices=list(INPUTS)
    )
    parser.add_argument("--sparsity", nargs="+", type=float, default=[0.964])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    header = None
    for name in given.networks:
        for sparsity in given.sparsity:
            found = measured(name, sparsity, given.seed)
            if header is None:
                header = ["network", "sparsity", *found, "x keras", "x dense"]
                print("| " + " | ".join(header) + " |")
                print("|---" * len(header) + "|")
            ratios = [found[k] / found["compact"] for k in ("keras", "dense")]
            cells = [name, sparsity, *(f"{v:,}" for v in found.values())]
            cells += [f"{ratio:.1f}" for ratio in ratios]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
