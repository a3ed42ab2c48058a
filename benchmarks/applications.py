"""Every network of `keras.applications`, pruned: which ones work.

Each is built with random weights for the smallest images that it takes, pruned
to 20 % by `lottery.prune` and trained for a step at both levels. Then it is
looked at: weights kept (to one), removed weights that are not zero after any
step, and whether the ticket gives a fresh model every variable, bit for bit.

    nice -n 15 python benchmarks/applications.py
    python benchmarks/applications.py --only=ResNet50,VGG16 --save=some.csv
    python benchmarks/applications.py --page  # the table of docs/models.md

Every network has a process of its own, so that its memory is free afterwards,
and `--limit` seconds. Rows are added to the file as they come; networks that
are "ok" in it are not run again, others are.
"""

import argparse
import csv
import inspect
import json
import pathlib
import subprocess
import sys
import time

import keras
import numpy as np

import keras_lottery as lottery
from keras_lottery.pruning import weights

ROOT = pathlib.Path(__file__).resolve().parents[1]
SAVE = ROOT / "results" / "applications.csv"
PAGE = ROOT / "docs" / "models.md"
MARK = "<!-- results/applications.csv -->\n"
COLUMNS = (
    "model",
    "image",
    "parameters",
    "prunable",
    "layers",
    "kept",
    "seconds",
    "result",
)
SPARSITY = 0.8
CLASSES = 10
# The smallest that Keras builds; all others take images of 32 x 32.
IMAGES = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}


def names():
    """Returns the names of all networks of this Keras, sorted."""
    return sorted(
        name
        for name, build in vars(keras.applications).items()
        if callable(build)
        and "include_top" in inspect.signature(build).parameters
    )


def side(name):
    """Returns how many pixels wide and high the images of a network are."""
    return IMAGES.get(name, 32)


def build(name):
    """Returns a network with random weights, and 10 classes."""
    shape = (side(name), side(name), 3)
    return getattr(keras.applications, name)(
        weights=None, input_shape=shape, classes=CLASSES
    )


class Leaks(keras.callbacks.Callback):
    """Counts removed weights that are not zero, after every step."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_end(self, batch, logs=None):
        """Counts."""
        named = weights.by_name(self.model.inner)
        self.found.append(
            sum(
                np.count_nonzero(named[name].numpy()[~mask])
                for name, mask in self.model.mask.items()
            )
        )


def played(name, model):
    """Returns a network that was pruned and trained, and its `Leaks`."""
    # Layer by layer: of untrained weights the largest are in a few layers.
    schedule = lottery.OneShot(SPARSITY)
    pruned = lottery.prune(model, schedule, allocation="layerwise")
    pruned.compile("sgd", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, side(name), side(name), 3)).astype(np.float32)
    leaks = Leaks()
    y = np.arange(2) % CLASSES
    pruned.fit(x, y, batch_size=2, verbose=0, callbacks=[leaks])
    return pruned, leaks


def measured(name):
    """Returns the row of a network.

    Its `result` is `"ok"`, or what is wrong.
    """
    began = time.perf_counter()
    model = build(name)
    expected = sizes(model)
    pruned, leaks = played(name, model)
    return {
        "model": name,
        "image": side(name),
        "parameters": model.count_params(),
        "prunable": sum(expected.values()),
        "layers": len(expected),
        "kept": pruned.mask.kept,
        "seconds": round(time.perf_counter() - began, 1),
        "result": "; ".join(faults(name, pruned, expected, leaks)) or "ok",
    }


def sizes(model):
    """Returns the sizes of the kernels by Keras's path, from its weights.

    Counted without keras_lottery: rank 2 and more, called a kernel.
    """
    return {
        variable.path: int(np.prod(variable.shape))
        for variable in model.trainable_variables
        if len(variable.shape) > 1 and "kernel" in variable.name
    }


def faults(name, pruned, expected, leaks):
    """Yields what is not as it has to be."""
    ticket = pruned.tickets[-1]
    if sorted(pruned.mask.sizes.values()) != sorted(expected.values()):
        yield "other weights are pruned than the kernels"
    whole = sum(expected.values())
    if pruned.mask.kept != whole - round(whole * SPARSITY):
        yield f"{pruned.mask.kept} of {whole} weights are kept"
    if leaks.found != [0, 0]:
        yield f"removed weights that are not zero: {leaks.found}"
    fresh = weights.by_name(ticket.restore(build(name), "end"))
    for each, variable in weights.by_name(pruned.inner).items():
        if fresh[each].numpy().tobytes() != variable.numpy().tobytes():
            yield f"{each} is not restored"


def in_a_process(name, limit):
    """Returns the row of a network, made in a process of its own."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--one", name]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return _failed(name, began, f"not done in {limit} s")
    if done.returncode:
        told = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        return _failed(name, began, told[-1])
    return json.loads(done.stdout.splitlines()[-1])


def _failed(name, began, why):
    seconds = round(time.perf_counter() - began, 1)
    return {"model": name, "seconds": seconds, "result": why}


def read(path):
    """Returns the rows of a file, or none where there is no file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path, rows):
    """Writes a file of rows."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def add(path, row):
    """Adds a row to a file, in place of an earlier one of the network."""
    others = [each for each in read(path) if each["model"] != row["model"]]
    rows = sorted([*others, row], key=lambda each: each["model"])
    write(path, rows)


def table(rows):
    """Returns rows as the table of the page."""
    lines = [
        "| network | parameters | in kernels | kernels | kept | result |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["model"]):
        numbers = [
            f"{int(row[name]):,}" if row[name] else ""
            for name in ("parameters", "prunable", "layers", "kept")
        ]
        cells = [f"`{row['model']}`", *numbers, row["result"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_page(rows, path=PAGE):
    """Puts the table of rows into the page, between its two marks."""
    before, _, after = path.read_text(encoding="utf-8").split(MARK)
    text = f"{before}{MARK}{table(rows)}{MARK}{after}"
    path.write_text(text, encoding="utf-8")


def main():
    """Runs what is asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="names of networks, with commas")
    parser.add_argument("--save", type=pathlib.Path, default=SAVE)
    parser.add_argument("--limit", type=float, default=600, help="seconds")
    parser.add_argument("--page", action="store_true", help="write its table")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.page:
        write_page(read(given.save))
        return
    if given.one:
        print(json.dumps(measured(given.one)))
        return
    wanted = given.only.split(",") if given.only else names()
    there = {row["model"] for row in read(given.save) if row["result"] == "ok"}
    for name in wanted:
        if name not in there:
            row = in_a_process(name, given.limit)
            add(given.save, row)
            print(f"{name}: {row['result']}, {row['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
