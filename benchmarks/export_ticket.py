"""Real networks in every format: bytes, accuracy, and how far answers are off.

What TF Serving loads is asked through TensorFlow's C API, in a process without
its Python; other files are asked in their own runtimes. The trained network
itself is asked by Keras's `predict`.

    python benchmarks/export_ticket.py --run=runs/fashion_lenet-019dc058cc20
    python benchmarks/export_ticket.py --mobilenet --loads=20
    python benchmarks/export_ticket.py --mobilenet --save=mobilenet_v2.csv

`--run` takes trained tickets and the test set of their run. MobileNetV2 is not
trained: He normal weights, 80 % of each kernel pruned by magnitude, random
normalisation, 1,000 images of noise.
"""

import argparse
import csv
import json
import pathlib
import tempfile
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.data import sources
from keras_lottery.exporting import formats
from keras_lottery.exporting import probe
from keras_lottery.exporting.verifying import inspection
from keras_lottery.exporting.verifying import served
from keras_lottery.pruning import naming
from keras_lottery.runs.directory import RunDirectory
from keras_lottery.tickets.ticket import rebuild

BATCH = 50
AT_A_TIME = 2**27  # bytes that one process is given
SPARSITY = 0.8


class Choice(NamedTuple):
    """One way to export: the arguments of `lottery.export`."""

    format: str
    values: str = "float32"
    shrink: bool = False


OF_TICKETS = (
    *(
        Choice(name, values)
        for name, format in formats.FORMATS.items()
        for values in format.values
    ),
    Choice("compact", shrink=True),
    Choice("compact-serving", shrink=True),
)
OF_MOBILENET = (
    Choice("dense"),
    Choice("compact"),
    Choice("compact-serving"),
    Choice("compact", shrink=True),
)


def mobilenet(sparsity=SPARSITY, seed=0):
    """Returns a pruned MobileNetV2 that answers with logits, and its mask."""
    model = keras.applications.MobileNetV2(
        weights=None, classifier_activation=None
    )
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
    layer, _, role = weight.name.rpartition("/")
    if role == "kernel":
        apart = "depthwise" in layer  # a unit sees its own channel only
        fan_in = np.prod(shape[:2] if apart else shape[:-1])
        return generator.normal(0, np.sqrt(2 / fan_in), shape)
    if role in ("gamma", "moving_variance"):
        return generator.uniform(0.5, 1.5, shape)
    return generator.normal(0, 0.05, shape)


def noise(rows, seed=1):
    """Returns images for MobileNetV2."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((rows, 224, 224, 3), np.float32)


def exported(source, choices, base):
    """Returns {choice: path of a version}.

    Args:
        source: A ticket or a model.
        choices: Of `Choice`.
        base: Directory for all.
    """
    return {
        choice: lottery.export(
            source, pathlib.Path(base, str(i)), **choice._asdict()
        )
        for i, choice in enumerate(choices)
    }


def asked(path, format, images):
    """Returns what an export answers: one output, as an array.

    Args:
        path: Directory of the version.
        format: Its format.
        images: Array of inputs.
    """
    if formats.FORMATS[format].served:
        (name,) = inspection.signature(path, inspection.SERVING).inputs
        return _through_c(path, name, images)
    ask = formats.FORMATS[format].opened(path)
    (name,) = json.loads(pathlib.Path(path, "model_card.json").read_text())[
        "inputs"
    ]
    return np.concatenate([_only(ask({name: b})) for b in _batches(images)])


def _through_c(path, name, images):
    found = []
    batches = [{name: batch} for batch in _batches(images)]
    step = max(1, AT_A_TIME // batches[0][name].nbytes)
    for first in range(0, len(batches), step):
        found += served.answers(path, batches[first : first + step])
    return np.concatenate([_only(answer) for answer in found])


def _batches(images):
    return [images[i : i + BATCH] for i in range(0, len(images), BATCH)]


def _only(answer):
    (value,) = answer.values()
    return value


def answers_of_keras(model, images):
    """Returns what the network as it was trained answers."""
    return model.predict(images, batch_size=BATCH, verbose=0)


def row(choice, path, expected, images, labels=None):
    """Returns what was measured of an export, as a dict.

    Args:
        choice: How it was exported.
        path: Directory of the version.
        expected: What Keras answers.
        images: What it was asked.
        labels: Classes of the images, or None.
    """
    card = json.loads(pathlib.Path(path, "model_card.json").read_text())
    answers = asked(path, choice.format, images)
    apart = probe.largest_difference({"": expected}, {"": answers})[""]
    return {
        **choice._asdict(),
        "bytes": card["bytes"]["export"]["bytes"],
        "dense_bytes": card["bytes"]["dense"].get("bytes"),
        "keras_bytes": card["bytes"]["keras"].get("bytes"),
        "samples": len(images),
        **apart,
        "accuracy_keras": _accuracy(expected, labels),
        "accuracy_export": _accuracy(answers, labels),
    }


def _accuracy(answers, labels):
    return "" if labels is None else probe.accuracy(answers, labels)


def load_milliseconds(exports, rounds):
    """Returns {choice: median}; every time a fresh process, taking turns."""
    paths = {
        path: choice
        for choice, path in exports.items()
        if formats.FORMATS[choice.format].served
    }
    found = served.load_times(list(paths), rounds)
    return {
        paths[path]: 1e3 * float(np.median(seconds))
        for path, (seconds, _) in found.items()
    }


def rows(source, model, choices, images, labels=None, loads=0, **known):
    """Yields a dict per choice.

    Args:
        source: What is exported: a ticket or the model.
        model: The network as it was trained.
        choices: Of `Choice`.
        images, labels: What all are asked; labels may be None.
        loads: How often loading is measured.
        **known: Columns to put first.
    """
    expected = answers_of_keras(model, images)
    with tempfile.TemporaryDirectory() as base:
        exports = exported(source, choices, base)
        times = load_milliseconds(exports, loads) if loads else {}
        for choice, path in exports.items():
            measured = row(choice, path, expected, images, labels)
            seconds = {"load_ms": times.get(choice, "")} if loads else {}
            yield {**known, **measured, **seconds}


def of_run(run, levels, loads):
    """Yields the rows of tickets of a run."""
    directory = RunDirectory.open(run)
    images, labels = sources.load(directory.read_config()["data"]["name"]).test
    for level in levels:
        ticket = lottery.Ticket.load(
            directory.file(0, "ticket", level, "ticket.safetensors")
        )
        model = ticket.restore(rebuild(ticket), "end")
        known = {"level": level, "kept": ticket.mask.kept}
        yield from rows(
            ticket, model, OF_TICKETS, images, labels, loads, **known
        )


def of_mobilenet(loads):
    """Yields the rows of MobileNetV2."""
    model, mask = mobilenet()
    known = {"network": "MobileNetV2", "kept": mask.kept}
    yield from rows(
        model, model, OF_MOBILENET, noise(1000), loads=loads, **known
    )


def show(found):
    """Prints a table of rows as they come; returns them."""
    kept = []
    for each in found:
        if not kept:
            print(f"| {' | '.join(each)} |".replace("_", " "))
            print("|---" * len(each) + "|")
        kept.append(each)
        cells = [
            f"{v:.4g}" if isinstance(v, float) else str(v)
            for v in each.values()
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
    return kept


def save(found, path):
    """Writes rows as a .csv file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", help="a run whose tickets are exported")
    what.add_argument("--mobilenet", action="store_true")
    parser.add_argument("--levels", type=int, nargs="+", default=(9, 15))
    parser.add_argument("--loads", type=int, default=0)
    parser.add_argument("--save", help="a .csv for the rows")
    given = parser.parse_args()
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}\n")
    found = (
        of_mobilenet(given.loads)
        if given.mobilenet
        else of_run(given.run, given.levels, given.loads)
    )
    found = show(found)
    if given.save:
        save(found, given.save)


if __name__ == "__main__":
    main()
