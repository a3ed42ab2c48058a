"""What the C++ libraries of older TensorFlow releases answer for our exports.

TF Serving is seldom of the release that a model was exported with. Each export
is loaded by the libraries that older releases ship, in a process of its own
without TensorFlow's Python, and its answers are compared with those of the
installed release and of Keras. The wheels (200 to 250 MB each) come from pip.

    python benchmarks/older_tensorflow.py             # about 2 minutes
    python benchmarks/older_tensorflow.py --releases 2.17.1 --cache wheels
    python benchmarks/older_tensorflow.py --save=older_tensorflow.csv

Answers of two releases hold within 1e-6 of the largest one: their kernels
differ in the last digits, of loops above all, and of a dense export as much.
"""

import argparse
import contextlib
import csv
import itertools
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from export import filled

from keras_lottery.exporting import codec
from keras_lottery.exporting import compact
from keras_lottery.exporting import formats
from keras_lottery.exporting import network as networks
from keras_lottery.exporting import probe
from keras_lottery.exporting import rounding
from keras_lottery.exporting.shrinking.shrink import shrink
from keras_lottery.exporting.verifying import served

RELEASES = ("2.16.2", "2.19.1")
LIBRARIES = ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2")
ROWS = 32
TOKENS = 50
BAR = 1e-6  # of the largest output
APART = ("from_current", "from_keras", "current_from_keras")
SERVED = ("dense", "compact", "compact-serving")


class Case(NamedTuple):
    """An export, and what is known of its answers.

    Fields:
        network: Name of the network.
        format, values: Of the export.
        path: Directory of the SavedModel.
        inputs: Dict from name to array.
        expected: What Keras answers, of the weights that were written.
    """

    network: str
    format: str
    values: str
    path: str
    inputs: dict
    expected: dict


def lenet():
    return filled("lenet")[0]


def resnet20():
    return filled("resnet20")[0]


def resnet20_shrunk():
    return shrink(resnet20())[0]


def sequences():
    """Loops, whose bodies are functions of their own, and attention."""
    inputs = keras.Input((5, 6), name="steps")
    x = keras.layers.LSTM(32, return_sequences=True)(inputs)
    x = keras.layers.Bidirectional(
        keras.layers.LSTM(16, return_sequences=True)
    )(x)
    attended = keras.layers.MultiHeadAttention(4, 8)(x, x)
    x = keras.layers.LayerNormalization()(x + attended)
    return pruned(keras.Model(inputs, keras.layers.GRU(8)(x)))


def tokens():
    """Integer inputs, into an embedding."""
    inputs = keras.Input((12,), name="tokens", dtype="int32")
    x = keras.layers.Embedding(TOKENS, 64)(inputs)
    x = keras.layers.Conv1D(32, 3, activation="relu")(x)
    x = keras.layers.GlobalMaxPooling1D()(x)
    return pruned(keras.Model(inputs, keras.layers.Dense(4)(x)))


def mixed_dtypes():
    """Three payloads in one export; sums in halves differ from Keras's."""
    inputs = keras.Input((64,), name="pixels")
    branches = [
        keras.layers.Dense(96, activation="relu", dtype=dtype)(inputs)
        for dtype in ("float16", "bfloat16", "float32")
    ]
    wide = [keras.layers.Activation("linear", dtype="float32") for _ in "123"]
    x = keras.layers.add([f(x) for f, x in zip(wide, branches)])
    return pruned(keras.Model(inputs, keras.layers.Dense(5)(x)))


def apart():
    """A kernel that ends within a row: it gets a variable of its own."""
    return pruned(
        keras.Sequential(
            [
                keras.Input((1001,), name="pixels"),
                keras.layers.Dense(999, activation="relu"),
                keras.layers.Dense(7),
            ]
        )
    )


NETWORKS = {
    function.__name__: function
    for function in (
        lenet,
        resnet20,
        resnet20_shrunk,
        sequences,
        tokens,
        mixed_dtypes,
        apart,
    )
}
# Keras rounds sums of halves once before the bias is added, a graph only after.
KERAS_BARS = {"mixed_dtypes": 2.0**-7}


def pruned(model, sparsity=0.9):
    """Gives a model random weights; of the kernels the largest stay."""
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if "float" not in variable.dtype:
            continue
        value = generator.normal(0, 0.1, variable.shape)
        if len(variable.shape) > 1:
            value[np.abs(value) < np.quantile(np.abs(value), sparsity)] = 0
        variable.assign(value)
    return model


@contextlib.contextmanager
def exported(names=tuple(NETWORKS)):
    """Yields a list of `Case`: every network in every format and values."""
    with tempfile.TemporaryDirectory() as folder:
        yield [
            case
            for name in names
            for case in _written(name, NETWORKS[name](), folder)
        ]


def _written(name, model, folder):
    network = networks.of(model)
    inputs = _drawn(network.specs)
    for format, values in itertools.product(SERVED, rounding.VALUES):
        chosen = formats.FORMATS[format]
        if values not in chosen.values:
            continue
        path = pathlib.Path(folder, name, format, values)
        path.mkdir(parents=True)
        chosen.write(model, str(path), values=values)
        found = network.call(_as_written(network, values), inputs)
        expected = {key: np.asarray(value) for key, value in found.items()}
        yield Case(name, format, values, str(path), inputs, expected)


def _drawn(specs):
    generator = np.random.default_rng(1)
    drawn = probe.batch(specs, ROWS, seed=1)
    return {
        name: generator.integers(0, TOKENS, value.shape).astype(value.dtype)
        if specs[name].dtype.is_integer
        else value
        for name, value in drawn.items()
    }


def _as_written(network, values):
    """Returns the weights as `values` rounds them, decoded by numpy."""
    payloads, weights = compact.encoded(network, values)
    for payload in payloads:
        weights = {**weights, **codec.decode(payload)}
    return weights


def libraries(release, cache):
    """Returns a directory with the C++ libraries of a release.

    Args:
        release: As pip knows it: `"2.16.2"`.
        cache: Directory; what is there already is not downloaded again.

    Raises:
        subprocess.CalledProcessError: pip cannot download it; `stderr` says
            why.
    """
    place = pathlib.Path(cache, release)
    if all((place / name).exists() for name in LIBRARIES):
        return str(place)
    with tempfile.TemporaryDirectory(dir=_made(cache)) as folder:
        wheel = _downloaded(release, folder)
        with zipfile.ZipFile(wheel) as archive:
            for name in LIBRARIES:
                part = pathlib.Path(folder, name)
                with archive.open(f"tensorflow/{name}") as source:
                    with open(part, "wb") as target:
                        shutil.copyfileobj(source, target)
                # Whole, or not there: the next run takes what it finds.
                part.replace(_made(place) / name)
    return str(place)


def _downloaded(release, folder):
    """Returns the path of a wheel. Its libraries do not depend on Python."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version=3.11"]
    command += [f"--dest={folder}", f"tensorflow_cpu=={release}"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (wheel,) = pathlib.Path(folder).glob("*.whl")
    return wheel


def _made(directory):
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def answers(cases, library=None):
    """Returns what each case answers, all loaded in one process."""
    asked = [(case.path, [case.inputs]) for case in cases]
    return [found for (found,) in served.together(asked, library=library)]


def compared(cases, release, found, current):
    """Yields a dict per case: how far a release's answers are apart.

    Args:
        cases: List of `Case`.
        release: The older one.
        found: Its answers, for each case.
        current: Those of the installed release.
    """
    for case, answer, now in zip(cases, found, current, strict=True):
        from_current = _relative(now, answer)
        from_keras = _relative(case.expected, answer)
        bar = KERAS_BARS.get(case.network, BAR)
        yield {
            "release": release,
            "network": case.network,
            "format": case.format,
            "values": case.values,
            "from_current": from_current,
            "from_keras": from_keras,
            "current_from_keras": _relative(case.expected, now),
            "holds": from_current <= BAR and from_keras <= bar,
        }


def _relative(expected, found):
    apart_by = probe.largest_difference(expected, found)
    return max(each["relative"] for each in apart_by.values())


def measured(cases, releases, cache):
    """Yields the rows of all releases; see `compared`."""
    current = answers(cases)
    for release in releases:
        library = libraries(release, cache)
        there = served.release(library)
        if there != release:
            raise ValueError(
                f"{library} holds TensorFlow {there}, expected {release}: "
                "remove it, or name another --cache."
            )
        yield from compared(cases, release, answers(cases, library), current)


def shown(row):
    """Returns a row as a line of a table."""
    cells = [
        "equal" if cell == 0.0 else f"{cell:.1e}"
        for cell in (row[key] for key in APART)
    ]
    names = [row[key] for key in ("release", "network", "format", "values")]
    judged = "holds" if row["holds"] else "MISSED"
    return f"| {' | '.join([*names, *cells, judged])} |"


def save(rows, path):
    """Writes rows as a .csv file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--releases", nargs="+", default=RELEASES)
    parser.add_argument("--networks", nargs="+", default=tuple(NETWORKS))
    parser.add_argument(
        "--cache", help="keeps the libraries; removed at the end by default"
    )
    parser.add_argument("--save", help="a .csv for the rows")
    given = parser.parse_args()
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}\n")
    head = ["release", "network", "format", "values", *APART, "bar"]
    print(f"| {' | '.join(head)} |".replace("_", " "))
    print("|---" * len(head) + "|")
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        exported(given.networks) as cases,
    ):
        for row in measured(cases, given.releases, given.cache or folder):
            rows.append(row)
            print(shown(row), flush=True)
    if given.save:
        save(rows, given.save)
    sys.exit(not all(row["holds"] for row in rows))


if __name__ == "__main__":
    main()
