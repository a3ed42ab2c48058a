"""Every layer of Keras: what is pruned, that it trains, that it is exported."""

import importlib
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.exporting.card import sizes
from keras_lottery.pruning import cost
from keras_lottery.pruning import weights

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(pathlib.Path(__file__).parent)
    examples = importlib.import_module("layer_examples")

pytestmark = pytest.mark.thorough

RATE, ROWS = 0.5, 8
# By hand, from the sources of Keras: what each layer of weights has to offer.
KERNELS = {
    "Dense": {"kernel": (4, 3)},
    "EinsumDense": {"kernel": (4, 2, 3)},
    "Conv1D": {"kernel": (2, 4, 3)},
    "Conv2D": {"kernel": (3, 3, 3, 3)},
    "Conv3D": {"kernel": (2, 2, 2, 2, 3)},
    "Conv1DTranspose": {"kernel": (2, 3, 4)},
    "Conv2DTranspose": {"kernel": (2, 2, 2, 3)},
    "Conv3DTranspose": {"kernel": (2, 2, 2, 2, 2)},
    "DepthwiseConv1D": {"kernel": (2, 4, 1)},
    "DepthwiseConv2D": {"kernel": (3, 3, 3, 1)},
    "SeparableConv1D": {
        "depthwise_kernel": (2, 4, 1),
        "pointwise_kernel": (1, 4, 3),
    },
    "SeparableConv2D": {
        "depthwise_kernel": (3, 3, 3, 1),
        "pointwise_kernel": (1, 1, 3, 4),
    },
    "MultiHeadAttention": {
        "query/kernel": (4, 2, 3),
        "key/kernel": (4, 2, 3),
        "value/kernel": (4, 2, 3),
        "attention_output/kernel": (2, 3, 4),
    },
    "GroupQueryAttention": {
        "query/kernel": (4, 4, 3),
        "key/kernel": (4, 2, 3),
        "value/kernel": (4, 2, 3),
        "attention_output/kernel": (4, 3, 4),
    },
    "SimpleRNN": {"cell/kernel": (4, 3), "cell/recurrent_kernel": (3, 3)},
    "LSTM": {"cell/kernel": (4, 12), "cell/recurrent_kernel": (3, 12)},
    "GRU": {"cell/kernel": (4, 9), "cell/recurrent_kernel": (3, 9)},
    "ConvLSTM1D": {
        "cell/kernel": (2, 3, 8),
        "cell/recurrent_kernel": (2, 2, 8),
    },
    "ConvLSTM2D": {
        "cell/kernel": (2, 2, 2, 8),
        "cell/recurrent_kernel": (2, 2, 2, 8),
    },
    "ConvLSTM3D": {
        "cell/kernel": (2, 2, 2, 2, 8),
        "cell/recurrent_kernel": (2, 2, 2, 2, 8),
    },
    "Bidirectional": {
        "forward_layer/cell/kernel": (4, 8),
        "forward_layer/cell/recurrent_kernel": (2, 8),
        "backward_layer/cell/kernel": (4, 8),
        "backward_layer/cell/recurrent_kernel": (2, 8),
    },
    "TimeDistributed": {"layer/kernel": (4, 3)},
    "RNN of a SimpleRNNCell": {
        "cell/kernel": (4, 3),
        "cell/recurrent_kernel": (3, 3),
    },
    "RNN of StackedRNNCells": {
        "cell/cells.0/kernel": (4, 12),
        "cell/cells.0/recurrent_kernel": (3, 12),
        "cell/cells.1/kernel": (3, 6),
        "cell/cells.1/recurrent_kernel": (2, 6),
    },
    "LSTM after Embedding(mask_zero=True)": {
        "cell/kernel": (4, 12),
        "cell/recurrent_kernel": (3, 12),
    },
    "SpectralNormalization": {"layer/kernel": (4, 3)},
}
REQUESTED = {
    "Embedding": {"embeddings": (7, 4)},
    "ReversibleEmbedding": {
        "embeddings": (7, 4),
        "reverse_embeddings": (4, 7),
    },
    "STFTSpectrogram": {"real_kernel": (8, 1, 5), "imag_kernel": (8, 1, 5)},
}
NONE = [e for e in examples.EXAMPLES if e not in {**KERNELS, **REQUESTED}]


def drawn(labels):
    """Random samples for the examples, by input."""
    generator = np.random.default_rng(0)
    found = {}
    for i, label in enumerate(labels):
        shape = (ROWS, *examples.EXAMPLES[label].shape)
        whole = examples.EXAMPLES[label].dtype == "int32"
        found[f"x{i}"] = (
            generator.integers(0, 7, shape).astype("int32")
            if whole
            else generator.normal(size=shape).astype("float32")
        )
    return found


def served(pruned, base, inputs):
    """What the compact export of a model answers."""
    with pytest.MonkeyPatch.context() as patch:
        # Other exporters' sizes for the card take longer than the export.
        skipped = {"not_measured": "not here"}
        patch.setattr(
            sizes,
            "_other_writer",
            lambda name, *rest: {name: skipped, f"{name}_tar_gz": skipped},
        )
        path = lottery.export(pruned, base)
    loaded = tf.saved_model.load(path)
    given = {name: tf.constant(value) for name, value in inputs.items()}
    (found,) = loaded.signatures["serving_default"](**given).values()
    return found.numpy()


class Played:
    """A lottery over layers side by side, and its compact export.

    Every weight has a schedule of its own, so that counts are per weight.
    """

    def __init__(self, labels, requested, base):
        keras.utils.set_random_seed(0)
        model, layers, widths = examples.together(labels)
        asked = list(layers.values()) if requested else None
        found = weights.prunable(model, asked)
        self.names = {
            label: [
                n
                for n in examples.names_in(model, layer).values()
                if n in found
            ]
            for label, layer in layers.items()
        }
        schedule = {name: lottery.IterativePruning(RATE, 2) for name in found}
        pruned = lottery.prune(model, schedule, layers=asked)
        pruned.compile("sgd", "mse")
        x = drawn(labels)
        pruned.fit(
            x, np.ones((ROWS, sum(widths))), epochs=1, batch_size=4, verbose=0
        )
        self.tickets = pruned.tickets
        self.left = weights.by_name(model)
        ends = np.cumsum(widths)[:-1]
        both = (model.predict_on_batch(x), served(pruned, base, x))
        self.answers = {
            label: parts
            for label, *parts in zip(
                labels, *(np.split(each, ends, axis=1) for each in both)
            )
        }


@pytest.fixture(scope="module")
def play(tmp_path_factory):
    """Plays a label's layer, with its like where that works: it takes less."""
    known = {}

    def played(label):
        requested = label in REQUESTED
        like = REQUESTED if requested else KERNELS
        labels = [each for each in examples.existing() if each in like]
        base = tmp_path_factory.mktemp("served")
        if requested not in known:
            try:
                known[requested] = Played(labels, requested, base / "all")
            except Exception as error:  # then each tells of itself
                known[requested] = error
        if isinstance(known[requested], Exception):
            Played([label], requested, base / "alone")
            raise known[requested]
        return known[requested]

    return played


def test_every_layer_of_keras_is_in_one_list():
    found = examples.public_layers()
    shown = {n for e in examples.EXAMPLES for n in examples.shown(e)}
    lists = [shown, set(examples.WITHOUT_WEIGHTS), set(examples.NOT_BUILT)]
    unknown = set(found) - set.union(*lists)
    assert not unknown, (
        f"Keras {keras.__version__} has layers that nobody has looked at: "
        f"{sorted(unknown)}. Add each to EXAMPLES of layer_examples.py (it has "
        "weights), to WITHOUT_WEIGHTS, or to NOT_BUILT with a reason; then "
        "`python tests/kinds_of_layers/draw_layers.py`."
    )
    assert sum(map(len, lists)) == len(set.union(*lists))
    assert set(KERNELS) | set(REQUESTED) | set(NONE) == set(examples.EXAMPLES)
    assert set(REQUESTED) == set(examples.ON_REQUEST)


@pytest.mark.parametrize("label", examples.EXAMPLES)
def test_the_examples_show_the_layers_they_name(label):
    if label not in examples.existing():
        pytest.skip(f"Keras {keras.__version__} has no such layer")
    model, _, _ = examples.together([label])
    classes = {type(each) for each in model._flatten_layers()}
    found = examples.public_layers()
    assert {found[name] for name in examples.shown(label)} <= classes


@pytest.mark.parametrize("name", sorted(examples.WITHOUT_WEIGHTS))
def test_what_is_said_to_have_no_weights_has_none(name):
    found = examples.public_layers()
    if name not in found:
        pytest.skip(f"Keras {keras.__version__} has no such layer")
    layer = examples.weightless(name, found[name])
    assert layer.built
    assert layer.weights == []


def shapes_in(model, layer, found):
    return {
        short: tuple(found[name].shape)
        for short, name in examples.names_in(model, layer).items()
        if name in found
    }


@pytest.mark.parametrize("label", examples.existing())
def test_what_is_pruned(label):
    model, layers, _ = examples.together([label])
    left = weights.unprunable(model)
    named = weights.by_name(model)
    assert all(left.values())
    pruned = {name: v for name, v in named.items() if name not in left}
    found = shapes_in(model, layers[label], pruned)
    assert found == KERNELS.get(label, {})
    if label in KERNELS:
        assert list(weights.prunable(model)) == list(pruned)
    else:
        with pytest.raises(ValueError, match="no weight to prune"):
            weights.prunable(model)
    if label in REQUESTED:
        asked = weights.prunable(model, [layers[label]])
        found = shapes_in(model, layers[label], asked)
        assert found == REQUESTED[label]
        assert all("prune it with layers=" in left[name] for name in asked)


@pytest.mark.parametrize(
    "label", [e for e in examples.existing() if e not in NONE]
)
def test_two_levels_and_an_export(label, play):
    played = play(label)
    expected = REQUESTED.get(label) or KERNELS[label]
    assert len(played.names[label]) == len(expected)
    for name in played.names[label]:
        size = played.left[name].numpy().size
        counts = [t.mask.kept_by_name[name] for t in played.tickets]
        assert counts == [
            size - round(size * sparsity) for sparsity in (0, 0.5, 0.75)
        ]
        for before, after in zip(played.tickets, played.tickets[1:]):
            trained = np.abs(before.weights("end")[name])
            kept, was = after.mask[name], before.mask[name]
            assert not (kept & ~was).any()
            assert trained[kept].min() >= trained[was & ~kept].max()
        value = played.left[name].numpy()
        np.testing.assert_array_equal(value[~played.tickets[-1].mask[name]], 0)
        assert np.count_nonzero(value) == counts[-1]
    expected, found = played.answers[label]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("label", KERNELS)
def test_multiply_adds_are_known(label):
    model, _, _ = examples.together([label])
    found = cost.multiply_adds(model)
    for name, variable in weights.prunable(model).items():
        size = variable.numpy().size
        assert found[name] >= size and found[name] % size == 0
