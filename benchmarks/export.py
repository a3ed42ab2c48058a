"""Every figure that is promised of exports, measured in one run.

Sizes, requests, loading and damage, beside the dense export and Keras's own.
The networks are not trained: weights are Glorot normal, pruned by magnitude
layer by layer, biases and normalisation random as after training. How small a
payload gets depends on how weights are distributed: `--run` puts the tickets
of a real run beside them.

    python benchmarks/export.py                       # all, about 5 minutes
    python benchmarks/export.py sizes entropy
    python benchmarks/export.py --run=runs/fashion_lenet-019dc058cc20

Upper bars are judged by the 95 % interval of interleaved pairs: one holds when
the lower end of the interval is under it.
"""

import argparse
import contextlib
import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.exporting import codec
from keras_lottery.exporting import compact
from keras_lottery.exporting import decoding
from keras_lottery.exporting import dense
from keras_lottery.exporting import measuring
from keras_lottery.exporting import network as networks
from keras_lottery.exporting.compact_serving import write_compact_serving
from keras_lottery.exporting.shrinking.shrink import shrink
from keras_lottery.exporting.verifying import served
from keras_lottery.models import networks as models
from keras_lottery.pruning import naming
from keras_lottery.runs.directory import RunDirectory

SPARSITY = 0.964
INPUTS = {
    "lenet": (28, 28, 1),
    "resnet20": (32, 32, 3),
    "conv4": (32, 32, 3),
    "mlp": (1000,),
}
SHRUNK = ("resnet20",)
WRITERS = {
    "keras": lambda model, path: model.export(path, verbose=False),
    "dense": dense.write_dense,
    "compact": compact.write_compact,
    "compact-serving": write_compact_serving,
}
SIZE_BARS = {
    ("lenet", "compact"): 52_000,
    ("resnet20", "compact"): 66_000,
    ("lenet", "compact-serving"): 45_000,
    ("resnet20", "compact-serving"): 57_000,
}
INDEX_BARS = {0.9: 1.12, 0.964: 1.03, 0.99: 1.04}
REQUEST_BAR, LOAD_BAR = 1.05, 3.0


def mlp(input_shape, classes):
    """Returns a network of 5.6 million parameters."""
    widths = (1500, 1500, 1200)
    return keras.Sequential(
        [
            keras.Input(input_shape),
            *(keras.layers.Dense(n, activation="relu") for n in widths),
            keras.layers.Dense(classes),
        ]
    )


def filled(name, sparsity=SPARSITY, seed=0):
    """Returns a pruned network whose weights no training chose, and a mask."""
    build = mlp if name == "mlp" else models.get(name)
    model = build(INPUTS[name], 10)
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


def trained(run, density):
    """Returns the network of the ticket of a run nearest to a density."""
    directory = RunDirectory.open(run)
    levels = [
        row["level"] for row in directory.rows() if row["arm"] == "ticket"
    ]
    tickets = [
        lottery.Ticket.load(
            directory.file(0, "ticket", level, "ticket.safetensors")
        )
        for level in sorted(set(levels))
    ]
    ticket = min(tickets, key=lambda each: abs(each.density - density))
    from keras_lottery.tickets.ticket import rebuild

    return ticket.restore(rebuild(ticket), "end"), ticket.mask


@contextlib.contextmanager
def written(model, *writers):
    """Yields paths of a model, written by each, for as long as it lasts."""
    with tempfile.TemporaryDirectory() as base:
        paths = []
        for writer in writers:
            path = pathlib.Path(base, writer, "1")
            path.mkdir(parents=True)
            WRITERS[writer](model, str(path))
            paths.append(str(path))
        yield paths


def size(path):
    return sum(
        each.stat().st_size
        for each in pathlib.Path(path).rglob("*")
        if each.is_file()
    )


def row(*cells):
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def head(title, *cells):
    print(f"\n## {title}\n")
    row(*cells)
    print("|---" * len(cells) + "|")


def verdict(held):
    return "holds" if held else "MISSED"


def sizes(given):
    """Bytes of whole version directories; the bars are at 96.4 %."""
    head(
        "Bytes",
        "network",
        "format",
        "values",
        "bytes",
        "x keras",
        "x dense",
        "bar",
    )
    cases = [(name, filled(name)[0]) for name in ("lenet", "resnet20")]
    if given.run:
        cases.append(("trained lenet", trained(given.run, 1 - SPARSITY)[0]))
    for name, model in cases:
        with written(model, "keras", "dense") as paths:
            others = [size(path) for path in paths]
        row(name, "keras", "float32", f"{others[0]:,}", "", "", "")
        row(name, "dense", "float32", f"{others[1]:,}", "", "", "")
        small = shrink(model)[0] if name in SHRUNK else model
        shown = f"{name}, shrunk" if name in SHRUNK else name
        for format in ("compact", "compact-serving"):
            for values in ("float32", "float16", "bfloat16", "int8"):
                found = _bytes(small, format, values)
                bar = SIZE_BARS.get((name, format))
                judged = ""
                if bar and values == "float32":
                    judged = f"<= {bar:,}: {verdict(found <= bar)}"
                    if format == "compact":
                        judged += (
                            f"; >= 40 x keras: "
                            f"{verdict(others[0] >= 40 * found)}"
                        )
                ratios = [f"{each / found:.1f}" for each in others]
                row(shown, format, values, f"{found:,}", *ratios, judged)


def _bytes(model, format, values):
    with tempfile.TemporaryDirectory() as path:
        WRITERS[format](model, path, values=values)
        return size(path)


def entropy(given):
    """Bytes that say where the kept weights are, over the least there is."""
    head(
        "Index over the entropy",
        "network",
        "sparsity",
        "index",
        "bound",
        "ratio",
        "bar",
    )
    for name in ("lenet", "resnet20"):
        for sparsity, bar in INDEX_BARS.items():
            _index_row(name, sparsity, *filled(name, sparsity), bar)
    if given.run:
        for sparsity in INDEX_BARS:
            model, mask = trained(given.run, 1 - sparsity)
            _index_row("trained lenet", mask.sparsity, model, mask, None)


def _index_row(name, sparsity, model, mask, bar):
    (payload,), _ = compact.encoded(networks.of(model))
    bound = codec.entropy_bytes(
        list(mask.sizes.values()), list(mask.kept_by_name.values())
    )
    ratio = payload.index_bytes / bound
    # The promise is of LeNet; other networks are shown beside it.
    judged = f"<= {bar}: {verdict(ratio <= bar)}" if bar else ""
    row(
        name,
        f"{sparsity:.1%}",
        f"{payload.index_bytes:,}",
        f"{bound:,.0f}",
        f"{ratio:.3f}",
        judged,
    )


def requests(given):
    """Seconds of a request through the C API, compact over dense."""
    head(
        "Requests, compact over dense",
        "network",
        "batch",
        "dense p50 µs",
        "format",
        "p50 µs",
        "ratio",
        "95 % interval",
        "pairs",
        "bar",
    )
    for name in ("lenet", "resnet20"):
        model, _ = filled(name)
        (input_name,) = networks.of(model).specs
        generator = np.random.default_rng(1)
        batches = [
            {input_name: generator.random((n, *INPUTS[name]), np.float32)}
            for n in (1, 64)
        ]
        formats = ("compact", "compact-serving")
        with written(model, "dense", *formats) as paths:
            rounds = {"lenet": 3000, "resnet20": 100}[name]
            rounds = max(30, int(rounds * given.effort))
            found = served.request_times(paths, batches, rounds)
            for n in (1, 64):
                for format, path in zip(formats, paths[1:]):
                    _time_row(
                        name,
                        n,
                        format,
                        found[path][n],
                        found[paths[0]][n],
                        REQUEST_BAR,
                        1e6,
                    )


def _time_row(name, batch, format, first, second, bar, scale):
    ratio, low, high = measuring.ratio_interval(first, second)
    row(
        name,
        batch,
        f"{np.median(second) * scale:,.1f}",
        format,
        f"{np.median(first) * scale:,.1f}",
        f"{ratio:.3f}",
        f"{low:.3f} to {high:.3f}",
        len(first),
        f"<= {bar}: {verdict(low < bar)}",
    )


def loading(given):
    """Seconds to load, each time in a fresh process."""
    head(
        "Loading, compact over dense",
        "network",
        "",
        "dense ms",
        "format",
        "ms",
        "ratio",
        "95 % interval",
        "pairs",
        "bar",
    )
    model, _ = filled("mlp")
    formats = ("compact", "compact-serving")
    with written(model, "dense", *formats) as paths:
        rounds = max(30, int(40 * given.effort))
        found = served.load_times(paths, rounds)
        for format, path in zip(formats, paths[1:]):
            _time_row(
                f"MLP, {model.count_params():,} parameters",
                "",
                format,
                found[path][0],
                found[paths[0]][0],
                LOAD_BAR,
                1e3,
            )
        for name, path in zip(("dense", *formats), paths):
            resident = np.median(found[path][1]) / 1e6
            print(f"\n{name}: {resident:.1f} MB of memory once loaded", end="")
    print()


def structured(given):
    """What removing whole filters gives in time: half of each, zeroed."""
    head(
        "Requests, shrunk over whole, half of the filters of each layer zero",
        "network",
        "batch",
        "whole p50 µs",
        "shrunk p50 µs",
        "ratio",
        "95 % interval",
        "pairs",
        "multiply-adds",
    )
    model = _half("conv4")
    smaller, report = shrink(model)
    (input_name,) = networks.of(model).specs
    generator = np.random.default_rng(1)
    batches = [
        {input_name: generator.random((n, *INPUTS["conv4"]), np.float32)}
        for n in (1, 64)
    ]
    with (
        written(model, "compact") as (whole,),
        written(smaller, "compact") as (shrunk,),
    ):
        rounds = max(30, int(100 * given.effort))
        found = served.request_times([shrunk, whole], batches, rounds)
    for n in (1, 64):
        first, second = found[shrunk][n], found[whole][n]
        ratio, low, high = measuring.ratio_interval(first, second)
        row(
            "conv4",
            n,
            f"{np.median(second) * 1e6:,.1f}",
            f"{np.median(first) * 1e6:,.1f}",
            f"{ratio:.3f}",
            f"{low:.3f} to {high:.3f}",
            len(first),
            "{:,} -> {:,}".format(*report.multiply_adds),
        )


def _half(name):
    """Returns a network in which every second filter or unit is zero."""
    model, _ = filled(name, 0.0)
    for layer in model.layers[:-1]:
        if len(layer.weights) == 2 and hasattr(layer, "kernel"):
            kernel, bias = layer.get_weights()
            kernel[..., ::2], bias[::2] = 0, 0
            layer.set_weights([kernel, bias])
    return model


def damage(given):
    """One flipped bit anywhere in the payload, 1,000 tried."""
    head(
        "One flipped bit",
        "network",
        "tried",
        "refused",
        "same answers",
        "wrong answers",
        "bar",
    )
    for name in ("lenet", "resnet20"):
        (payload,), _ = compact.encoded(networks.of(filled(name)[0]))
        expected = decoding.decode(tf.constant(payload.blob), payload).numpy()
        counts = {"refused": 0, "same": 0, "wrong": 0}
        generator = np.random.default_rng(0)
        for bit in generator.choice(8 * len(payload.blob), 1000, replace=False):
            counts[_flipped(payload, int(bit), expected)] += 1
        row(
            name,
            1000,
            *counts.values(),
            f"0 wrong: {verdict(not counts['wrong'])}",
        )


def _flipped(payload, bit, expected):
    blob = bytearray(payload.blob)
    blob[bit // 8] ^= 1 << bit % 8
    try:
        found = decoding.decode(tf.constant(bytes(blob)), payload).numpy()
    except tf.errors.OpError:
        return "refused"
    return "same" if found.tobytes() == expected.tobytes() else "wrong"


SECTIONS = {
    each.__name__: each
    for each in (sizes, entropy, requests, loading, structured, damage)
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "sections", nargs="*", help=f"of {', '.join(SECTIONS)}; all if none"
    )
    parser.add_argument("--run", help="a run of a LeNet, for trained tickets")
    parser.add_argument(
        "--effort", type=float, default=1.0, help="multiplies the rounds"
    )
    given = parser.parse_args()
    unknown = set(given.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}")
    for name in given.sections or SECTIONS:
        SECTIONS[name](given)


if __name__ == "__main__":
    main()
