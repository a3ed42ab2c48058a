"""Every public layer of Keras: an example, or why there is none.

A layer belongs into exactly one of `EXAMPLES` (it has weights: it is pruned, or
left alone with a reason), `WITHOUT_WEIGHTS` (built on a sample it has none) and
`NOT_BUILT` (abstract, or it needs what is not installed).
"""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import keras

from keras_lottery.pruning import naming

L = keras.layers
VECTOR = (4,)
STEPS = (5, 4)
IMAGE = (6, 6, 3)
VOLUME = (4, 4, 4, 2)
CLIP = (3, 4, 4, 2)


class Example(NamedTuple):
    """How to make a small layer, and what it is called on.

    Fields:
        layer: Function that makes it.
        shape: Shape of one sample; numbers below 7 where `dtype` is int32.
        dtype: Of the input.
        call: `(layer, inputs) -> outputs`.
        also: Names of public layers that it shows besides its own.
    """

    layer: Callable
    shape: tuple
    dtype: str = "float32"
    call: Callable = lambda layer, inputs: layer(inputs)
    also: tuple = ()


def attend(layer, inputs):
    """Calls a layer on queries and values."""
    return layer(inputs, inputs)


def attend_list(layer, inputs):
    """Calls a layer on a list of queries and values."""
    return layer([inputs, inputs])


def both_ways(layer, inputs):
    """Looks words up, and asks the same table for words again."""
    return layer(layer(inputs), reverse=True)


def read_masked(layer, inputs):
    """Looks words up with a table that masks, and reads them."""
    return layer(L.Embedding(7, 4, mask_zero=True, name="words")(inputs))


EXAMPLES = {
    "Dense": Example(lambda: L.Dense(3), VECTOR),
    "EinsumDense": Example(
        lambda: L.EinsumDense("abc,cde->abde", (5, 2, 3), bias_axes="de"),
        STEPS,
    ),
    "Conv1D": Example(lambda: L.Conv1D(3, 2), STEPS),
    "Conv2D": Example(lambda: L.Conv2D(3, 3), IMAGE),
    "Conv3D": Example(lambda: L.Conv3D(3, 2), VOLUME),
    "Conv1DTranspose": Example(lambda: L.Conv1DTranspose(3, 2), STEPS),
    "Conv2DTranspose": Example(lambda: L.Conv2DTranspose(2, 2), IMAGE),
    "Conv3DTranspose": Example(lambda: L.Conv3DTranspose(2, 2), VOLUME),
    "DepthwiseConv1D": Example(lambda: L.DepthwiseConv1D(2), STEPS),
    "DepthwiseConv2D": Example(lambda: L.DepthwiseConv2D(3), IMAGE),
    "SeparableConv1D": Example(lambda: L.SeparableConv1D(3, 2), STEPS),
    "SeparableConv2D": Example(lambda: L.SeparableConv2D(4, 3), IMAGE),
    "MultiHeadAttention": Example(
        lambda: L.MultiHeadAttention(2, 3), STEPS, call=attend
    ),
    "GroupQueryAttention": Example(
        lambda: L.GroupQueryAttention(3, 4, 2), STEPS, call=attend
    ),
    "Attention": Example(
        lambda: L.Attention(use_scale=True), STEPS, call=attend_list
    ),
    "AdditiveAttention": Example(
        lambda: L.AdditiveAttention(), STEPS, call=attend_list
    ),
    "SimpleRNN": Example(lambda: L.SimpleRNN(3), STEPS),
    "LSTM": Example(lambda: L.LSTM(3), STEPS),
    "GRU": Example(lambda: L.GRU(3), STEPS),
    "ConvLSTM1D": Example(lambda: L.ConvLSTM1D(2, 2), IMAGE),
    "ConvLSTM2D": Example(lambda: L.ConvLSTM2D(2, 2), CLIP),
    "ConvLSTM3D": Example(lambda: L.ConvLSTM3D(2, 2), (2, *CLIP)),
    "Bidirectional": Example(lambda: L.Bidirectional(L.LSTM(2)), STEPS),
    "TimeDistributed": Example(lambda: L.TimeDistributed(L.Dense(3)), STEPS),
    "RNN of a SimpleRNNCell": Example(
        lambda: L.RNN(L.SimpleRNNCell(3)),
        STEPS,
        also=("RNN", "SimpleRNNCell"),
    ),
    "RNN of StackedRNNCells": Example(
        lambda: L.RNN(L.StackedRNNCells([L.LSTMCell(3), L.GRUCell(2)])),
        STEPS,
        also=("RNN", "StackedRNNCells", "LSTMCell", "GRUCell"),
    ),
    "LSTM after Embedding(mask_zero=True)": Example(
        lambda: L.LSTM(3), (5,), "int32", read_masked
    ),
    "Embedding": Example(lambda: L.Embedding(7, 4), (5,), "int32"),
    "ReversibleEmbedding": Example(
        lambda: L.ReversibleEmbedding(7, 4, tie_weights=False),
        (5,),
        "int32",
        both_ways,
    ),
    "PReLU": Example(lambda: L.PReLU(), IMAGE),
    "BatchNormalization": Example(lambda: L.BatchNormalization(), IMAGE),
    "GroupNormalization": Example(lambda: L.GroupNormalization(3), IMAGE),
    "LayerNormalization": Example(
        lambda: L.LayerNormalization(axis=(1, 2)), STEPS
    ),
    "Normalization": Example(lambda: L.Normalization(), VECTOR),
    "RMSNormalization": Example(lambda: L.RMSNormalization(), VECTOR),
    "SpectralNormalization": Example(
        lambda: L.SpectralNormalization(L.Dense(3)), VECTOR
    ),
    "STFTSpectrogram": Example(
        lambda: L.STFTSpectrogram(
            frame_length=8, frame_step=4, fft_length=8, window="hann"
        ),
        (16, 1),
    ),
}

# What `layers=` prunes, and is left alone without it.
ON_REQUEST = ("Embedding", "ReversibleEmbedding", "STFTSpectrogram")

NOT_BUILT = {
    "Layer": "abstract",
    "Wrapper": "abstract",
    "InputLayer": "an input, not called on anything",
    "TFSMLayer": "has a row of its own: the variables of a loaded SavedModel",
    "TorchModuleWrapper": "needs the PyTorch backend of Keras",
    "JaxLayer": "needs JAX: its weights are the user's pytree of parameters",
    "FlaxLayer": "needs JAX and Flax: a JaxLayer",
}

_MERGES = [
    "Add",
    "Average",
    "Concatenate",
    "Maximum",
    "Minimum",
    "Multiply",
    "Subtract",
]
_OF_FACTOR = [
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomContrast",
    "RandomHue",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomZoom",
]
_WITH_DEFAULTS = {
    VECTOR: [
        "ActivityRegularization",
        "ELU",
        "Flatten",
        "Identity",
        "LeakyReLU",
        "Masking",
        "ReLU",
        "Softmax",
        "UnitNormalization",
    ],
    STEPS: [
        "Cropping1D",
        "GlobalAveragePooling1D",
        "GlobalMaxPooling1D",
        "MaxPooling1D",
        "UpSampling1D",
        "ZeroPadding1D",
    ],
    IMAGE: [
        "AugMix",
        "AutoContrast",
        "ContrastLimitedAdaptiveHistogramEqualization",
        "Cropping2D",
        "CutMix",
        "Equalization",
        "GlobalAveragePooling2D",
        "GlobalMaxPooling2D",
        "MaxPooling2D",
        "MixUp",
        "RandAugment",
        "RandomColorJitter",
        "RandomElasticTransform",
        "RandomErasing",
        "RandomFlip",
        "RandomGaussianBlur",
        "RandomGrayscale",
        "RandomInvert",
        "RandomPerspective",
        "RandomShear",
        "Solarization",
        "UpSampling2D",
        "ZeroPadding2D",
    ],
    VOLUME: [
        "Cropping3D",
        "GlobalAveragePooling3D",
        "GlobalMaxPooling3D",
        "MaxPooling3D",
        "UpSampling3D",
        "ZeroPadding3D",
    ],
    (2000,): ["MelSpectrogram"],
}
_WITH_ARGUMENTS = {
    "Activation": (("relu",), VECTOR),
    "AlphaDropout": ((0.5,), VECTOR),
    "CategoryEncoding": ((3,), VECTOR),
    "CenterCrop": ((2, 2), IMAGE),
    "Discretization": (((1,),), VECTOR),
    "Dot": ((1,), [VECTOR, VECTOR]),
    "Dropout": ((0.5,), VECTOR),
    "GaussianDropout": ((0.5,), VECTOR),
    "GaussianNoise": ((0.5,), VECTOR),
    "HashedCrossing": ((3,), [(1,), (1,)]),
    "Hashing": ((3,), VECTOR),
    "IntegerLookup": ((None, 1), VECTOR),
    "Lambda": ((keras.ops.relu,), VECTOR),
    "MaxNumBoundingBoxes": ((3,), IMAGE),
    "Permute": (((2, 1),), STEPS),
    "Pipeline": (([L.Flatten()],), IMAGE),
    "RandomCrop": ((2, 2), IMAGE),
    "RandomPosterization": ((2,), IMAGE),
    "RandomTranslation": ((0.1, 0.1), IMAGE),
    "RepeatVector": ((2,), VECTOR),
    "Rescaling": ((0.5,), VECTOR),
    "Reshape": (((2, 2),), VECTOR),
    "Resizing": ((2, 2), IMAGE),
    "SpatialDropout1D": ((0.5,), STEPS),
    "SpatialDropout2D": ((0.5,), IMAGE),
    "SpatialDropout3D": ((0.5,), VOLUME),
    "StringLookup": ((None, 1), VECTOR),
    "TextVectorization": ((3,), VECTOR),
}
_PER_RANK = {
    f"{kind}{rank}D": ((2,), shape)
    for kind in ("AdaptiveAveragePooling", "AdaptiveMaxPooling")
    + ("AveragePooling",)
    for rank, shape in ((1, STEPS), (2, IMAGE), (3, VOLUME))
}

# Public name -> (arguments, shape of a sample or list of them).
WITHOUT_WEIGHTS = (
    {name: ((), s) for s, names in _WITH_DEFAULTS.items() for name in names}
    | {name: ((), [VECTOR, VECTOR]) for name in _MERGES}
    | {name: ((0.1,), IMAGE) for name in _OF_FACTOR}
    | _PER_RANK
    | _WITH_ARGUMENTS
)


def public_layers():
    """Returns the public layers of this Keras: a dict from name to class.

    Of several names of one class (`Convolution1D`, `MaxPool1D`) it is the
    class's own, or else the first.
    """
    named = {}
    for name in sorted(dir(L)):
        found = getattr(L, name)
        if inspect.isclass(found) and issubclass(found, L.Layer):
            named.setdefault(found, []).append(name)
    own = {c: c.__name__ if c.__name__ in n else n[0] for c, n in named.items()}
    return {name: each for each, name in own.items()}


def shown(label):
    """Returns the names of the public layers that an example is of."""
    example = EXAMPLES[label]
    return example.also or (label.split()[0],)


def existing():
    """Returns the labels of the examples that this Keras has layers for."""
    return [
        label
        for label in EXAMPLES
        if all(hasattr(L, name) for name in shown(label))
    ]


def apply(label, inputs):
    """Returns (layer, outputs) of a new layer called on symbols."""
    example = EXAMPLES[label]
    layer = example.layer()
    return layer, example.call(layer, inputs)


class Together(NamedTuple):
    """Layers side by side in one model.

    Fields:
        model: Functional; inputs `x0`, `x1`, ..., outputs joined as vectors.
        layers: Dict from label to layer.
        widths: List of how many outputs each layer has.
    """

    model: keras.Model
    layers: dict
    widths: list


def together(labels):
    """Returns new layers of examples in one model, as `Together`."""
    inputs, layers, outputs = [], {}, []
    for i, label in enumerate(labels):
        example = EXAMPLES[label]
        x = keras.Input(example.shape, dtype=example.dtype, name=f"x{i}")
        layers[label], found = apply(label, x)
        inputs.append(x)
        outputs.append(L.Flatten()(found))
    joined = outputs[0] if len(outputs) == 1 else L.Concatenate()(outputs)
    model = keras.Model(inputs, joined, name="model")
    return Together(model, layers, [each.shape[1] for each in outputs])


def names_in(model, layer):
    """Returns {name inside the layer: name} of what a layer of a model owns."""
    inside = {id(each) for each in layer._flatten_layers()}
    owned = [w for w in naming.walk(model) if id(w.layer) in inside]
    return {w.name.split("/", 1)[1]: w.name for w in owned}


def weightless(name, layer_class):
    """Returns a layer that should have no weights, called on symbols."""
    arguments, shape = WITHOUT_WEIGHTS[name]
    several = isinstance(shape, list)
    inputs = [keras.Input(each) for each in (shape if several else [shape])]
    layer = layer_class(*arguments)
    layer(inputs if several else inputs[0])
    return layer
