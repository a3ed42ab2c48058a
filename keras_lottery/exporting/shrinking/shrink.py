"""A pruned model without what changes nothing: units, channels, inputs.

Batch normalisation is folded into the layer before it, constants into the
biases of the layers after them, and what no output depends on is left out.
Nothing is approximated; where a step is not exact, it is not done.
"""

import dataclasses

import keras
import numpy as np

from keras_lottery.exporting.shrinking import channels
from keras_lottery.exporting.shrinking import folding
from keras_lottery.exporting.shrinking import heads
from keras_lottery.exporting.shrinking import rebuild
from keras_lottery.pruning import channel_kinds as kinds
from keras_lottery.pruning import cost
from keras_lottery.pruning import layer_graph

# Of the largest output. Sums in another order differ by roundings; the halves
# of float32 have coarser ones, and a few of them.
CLOSE = 1e-5
ROUNDINGS = {"float16": 8 * 2**-10, "bfloat16": 8 * 2**-7}


@dataclasses.dataclass(frozen=True)
class LayerSize:
    """What became of a layer.

    Fields:
        name: Its name.
        inputs, units: Features or channels that come in and go out, as
            (before, after); the units of attention are its (query) heads.
        what: What the units are called.
    """

    name: str
    inputs: tuple
    units: tuple
    what: str = "units"

    def __str__(self):
        inputs, units = map(_change, (self.inputs, self.units))
        return f"{self.name}: inputs {inputs}, {self.what} {units}"


@dataclasses.dataclass(frozen=True)
class Shrinkage:
    """What `shrink` removed.

    Fields:
        layers: `LayerSize` of every dense layer, convolution and attention.
        folded: Names of the normalisations that were folded away.
        weights: All numbers that the model holds, as (before, after).
        multiply_adds: Of one sample, as (before, after); None if not known.
        difference: Largest difference of an output on the probe batch, as a
            fraction of the largest output.
    """

    layers: tuple
    folded: tuple
    weights: tuple
    multiply_adds: tuple | None
    difference: float

    def __str__(self):
        lines = [
            str(layer)
            for layer in self.layers
            if len(set(layer.inputs)) > 1 or len(set(layer.units)) > 1
        ] or ["no layer got smaller"]
        if self.folded:
            lines.append(f"{len(self.folded)} normalisations folded away")
        lines.append(f"weights {_change(self.weights)}")
        if self.multiply_adds:
            lines.append(f"multiply-adds {_change(self.multiply_adds)}")
        lines.append(
            f"outputs differ by {self.difference:.1e} of the largest at most"
        )
        return "\n".join(lines)


def shrink(model):
    """Returns a smaller model with the same outputs, and what was removed.

    Inputs and outputs keep their names, shapes, dtypes and structure, layers
    their names; nested models are flattened, weights that need no change are
    equal bit for bit. Layers that look at all channels at once (layer
    normalisation, attention, recurrent ones, shared ones, one's own) keep all
    of them; attention loses heads that reach no output.

    Args:
        model: A built Functional or Sequential `keras.Model`; not changed.

    Returns:
        A new `keras.Model`, not compiled, and a `Shrinkage`.

    Raises:
        ValueError: A subclassed model, a layer that cannot be copied, or
            outputs that differ on a probe batch.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> model.add(keras.layers.Dense(1))
    >>> model.layers[1].set_weights([np.array([[3], [0], [-1]]), np.ones(1)])
    >>> smaller, report = shrink(model)
    >>> print(report.layers[0].units, report.weights)
    (3, 2) (13, 9)
    """
    graph, weights, folded = folding.fold(layer_graph.read(model))
    found = channels.Channels(graph, weights)
    smaller, copies = rebuild.rebuild(model, found)
    report = Shrinkage(
        _sizes(found, copies),
        folded,
        (model.count_params(), smaller.count_params()),
        _multiply_adds(model, smaller),
        _difference(model, smaller),
    )
    return smaller, report


def _sizes(found, copies):
    """Returns the `LayerSize` of every layer that may get smaller."""
    sizes = []
    for call in found.graph.calls:
        kind = found.kinds[call]
        layer, copy = call.operation, copies[id(call.operation)]
        if kind in ("affine", "depthwise"):
            ends = zip(_ends(layer, kind), _ends(copy, kind), strict=True)
            sizes.append(LayerSize(copy.name, *ends))
        elif heads.has(layer):
            ends = zip(heads.ends(layer), heads.ends(copy), strict=True)
            sizes.append(LayerSize(copy.name, *ends, "heads"))
    return tuple(sizes)


def _ends(layer, kind):
    """Returns how many channels go into a layer's kernel, and come out."""
    inputs, outputs = kinds.canonical(layer).shape[-2:]
    return inputs, inputs * outputs if kind == "depthwise" else outputs


def _multiply_adds(*models):
    totals = []
    for model in models:
        counts = cost.multiply_adds(model).values()
        if None in counts:
            return None
        totals.append(sum(counts))
    return tuple(totals)


def _difference(model, smaller):
    """Returns how far outputs are apart on random inputs; raises if far."""
    batch = _probe(model)
    expected = keras.tree.flatten(_answers(model, batch))
    answers = keras.tree.flatten(_answers(smaller, batch))
    bound = max(CLOSE, *(ROUNDINGS.get(d, 0.0) for d in _dtypes(model)))
    largest = 0.0
    for name, one, other in zip(
        rebuild.output_names(model), expected, answers, strict=True
    ):
        difference = _apart(one, other)
        if not difference <= bound:
            raise ValueError(
                f"The output {name!r} of the smaller model differs by "
                f"{difference:.1e} of the largest, expected at most "
                f"{bound:.0e}. A layer that draws random numbers at inference "
                "or hides weights does that, and so do weights that are not "
                "finite. Export with shrink=False."
            )
        largest = max(largest, difference)
    return largest


def _apart(expected, answer):
    if not np.size(expected):
        return 0.0
    scale = float(np.max(np.abs(expected)))
    difference = float(np.max(np.abs(expected - answer)))
    return difference / scale if scale else difference


def _probe(model, batch=4, size=32):
    """Returns random inputs: normal floats, and 0 or 1 for all others."""
    generator = np.random.default_rng(0)

    def drawn(tensor):
        shape = [batch if n is None else n for n in tensor.shape[:1]]
        shape += [size if n is None else n for n in tensor.shape[1:]]
        if "float" in tensor.dtype:
            return keras.ops.cast(generator.normal(size=shape), tensor.dtype)
        return keras.ops.cast(generator.integers(0, 2, shape), tensor.dtype)

    if isinstance(model, keras.Sequential):
        return drawn(model.inputs[0])
    return keras.tree.map_structure(drawn, model.input)


def _answers(model, batch):
    # Stateless: counters, seeds and states of the model stay as they are.
    trainable = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]
    outputs, _ = model.stateless_call(trainable, others, batch, training=False)
    return keras.tree.map_structure(
        lambda each: keras.ops.convert_to_numpy(
            keras.ops.cast(each, "float64")
        ),
        outputs,
    )


def _dtypes(model):
    return {layer.compute_dtype for layer in model._flatten_layers()}


def _change(pair):
    before, after = pair
    return f"{before:,}" if before == after else f"{before:,} -> {after:,}"
