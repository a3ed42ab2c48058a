"""Names of weights, and which of them are pruned."""

import keras
import numpy as np
import pytest
import tf_keras

from keras_lottery.pruning import weights
from keras_lottery.pruning.find import find_mask

layers = keras.layers


@keras.saving.register_keras_serializable("test_weights")
class Bare(layers.Layer):
    """Weights without names, held as an attribute, privately, in a list."""

    def build(self, shape):
        self.mixing = self.add_weight(shape=(shape[-1], shape[-1]))
        self._shift = self.add_weight(shape=(shape[-1],))
        self.pair = [self.add_weight(shape=(2, 2)) for _ in range(2)]

    def call(self, x):
        return (
            x @ self.mixing + self._shift + sum(map(keras.ops.sum, self.pair))
        )


@keras.saving.register_keras_serializable("test_weights")
class Subclassed(keras.Model):
    """Children in a list, a dict, a nested list, privately and by name."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [layers.Dense(4), layers.Dense(4)]
        self.heads = {"one": layers.Dense(4), "two": layers.Dense(4)}
        self.nest = [[layers.Dense(4)], [layers.Dense(4)]]
        self._hidden = layers.Dense(4)
        self.titled = layers.Dense(4, name="title")
        self.inner = keras.Sequential([layers.Dense(4), layers.Dense(4)])
        self.drop = layers.Dropout(0.5)

    def build(self, shape):
        every = [*self.blocks, *self.heads.values(), self._hidden]
        every += [self.nest[0][0], self.nest[1][0], self.titled, self.inner]
        for layer in every:
            layer.build((None, 4))
        self.built = True

    def call(self, x):
        for layer in (*self.blocks, *self.heads.values(), self._hidden):
            x = layer(x)
        x = self.nest[1][0](self.nest[0][0](x))
        return self.inner(self.titled(self.drop(x)))


def sequential():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(2, 3),
            layers.BatchNormalization(),
            layers.Conv2D(3, 3),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(4, name="output"),
        ]
    )


def functional():
    inputs = keras.Input((4,))
    x = layers.Dense(4)(inputs)
    y = layers.Dense(4)(inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.Add()([x, y])))


def nested():
    block = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4), layers.Dense(4)]
    )
    inputs = keras.Input((4,))
    other = keras.Model(inputs, layers.Dense(4)(inputs), name="tail")
    outer = keras.Input((4,))
    return keras.Model(outer, other(block(layers.Dense(4)(outer))))


def subclassed():
    model = Subclassed()
    model.build((None, 4))
    return model


def attention():
    inputs = keras.Input((5, 8))
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    return keras.Model(inputs, layers.GRU(2)(x))


def shared():
    inputs = keras.Input((4,))
    dense = layers.Dense(4)
    return keras.Model(inputs, layers.Dense(2)(dense(dense(inputs))))


def unnamed():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2)(Bare()(Bare()(inputs))))


def distributed():
    inputs = keras.Input((5, 3, 4))
    x = layers.TimeDistributed(layers.Dense(3))(inputs)
    x = layers.TimeDistributed(layers.GRU(2))(x)
    x = layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)])(x)
    return keras.Model(inputs, x)


def mobile_net():
    return keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), classes=4
    )


def normalized():
    inputs = keras.Input((4,))
    dense = layers.SpectralNormalization(layers.Dense(3, name="inside"))
    return keras.Model(inputs, dense(inputs))


MODELS = [
    sequential,
    functional,
    nested,
    subclassed,
    attention,
    shared,
    unnamed,
    distributed,
    mobile_net,
    normalized,
]


def names_of(model):
    return [weight.name for weight in weights.walk(model)]


@pytest.mark.parametrize("build", MODELS)
def test_names_are_unique_stable_and_cover_the_variables(build, tmp_path):
    model = build()
    walked = weights.walk(model)
    names = [weight.name for weight in walked]
    assert len(set(names)) == len(names)
    assert len({id(weight.variable) for weight in walked}) == len(walked)
    assert {id(weight.variable) for weight in walked} == {
        id(variable) for variable in model.variables
    }
    for weight in walked:
        assert weight.name.startswith(weight.layer_path)
        assert not weight.name.startswith("/")
        assert any(v is weight.variable for v in weight.layer.variables)
    assert names_of(model) == names

    for _ in range(3):  # move the counters of automatic names
        layers.Dense(1)
        layers.Conv2D(1, 1)
        layers.GRU(1)
        Bare()
    other = build()
    assert names_of(other) == names
    assert {n: v.shape for n, v in weights.by_name(other).items()} == {
        n: v.shape for n, v in weights.by_name(model).items()
    }

    if build is not subclassed:  # Keras clones graphs only
        clone = keras.models.clone_model(model)
        assert names_of(clone) == names
    if build is shared:  # Keras cannot read this one back
        return
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert names_of(loaded) == names
    again = weights.by_name(loaded)
    for name, variable in weights.by_name(model).items():
        if not name.endswith("seed"):  # a .keras file does not hold these
            np.testing.assert_array_equal(variable.numpy(), again[name].numpy())


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (
            sequential,
            [
                "conv2d/kernel",
                "conv2d/bias",
                "batch_normalization/gamma",
                "batch_normalization/beta",
                "batch_normalization/moving_mean",
                "batch_normalization/moving_variance",
                "conv2d_1/kernel",
                "conv2d_1/bias",
                "dropout/seed",
                "output/kernel",
                "output/bias",
            ],
        ),
        (
            functional,
            [
                f"{layer}/{role}"
                for layer in ("dense", "dense_1", "dense_2")
                for role in ("kernel", "bias")
            ],
        ),
        (
            nested,
            [
                f"{layer}/{role}"
                for layer in (
                    "dense",
                    "sequential/dense",
                    "sequential/dense_1",
                    "tail/dense",
                )
                for role in ("kernel", "bias")
            ],
        ),
        (
            subclassed,
            [
                *(
                    f"{layer}/{role}"
                    for layer in (
                        "blocks.0",
                        "blocks.1",
                        "heads.one",
                        "heads.two",
                        "nest.0.0",
                        "nest.1.0",
                        "hidden",
                        "title",
                        "inner/dense",
                        "inner/dense_1",
                    )
                    for role in ("kernel", "bias")
                ),
                "drop/seed",
            ],
        ),
        (
            shared,
            ["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"],
        ),
        (
            unnamed,
            [
                *(
                    f"{layer}/{role}"
                    for layer in ("bare", "bare_1")
                    for role in ("mixing", "shift", "variable", "variable~1")
                ),
                "dense/kernel",
                "dense/bias",
            ],
        ),
    ],
)
def test_names_by_hand(build, expected):
    assert sorted(names_of(build())) == sorted(expected)


def test_a_layer_named_by_the_user_keeps_its_name():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(2, name="Stem.block-1"),
            layers.Dense(2, name="dense_head"),
            layers.Dense(2),
        ]
    )
    assert [n for n in names_of(model) if n.endswith("kernel")] == [
        "Stem.block-1/kernel",
        "dense_head/kernel",
        "dense/kernel",
    ]


def test_layers_added_to_a_functional_subclass_are_found():
    class Extended(keras.Model):
        def __init__(self):
            inputs = keras.Input((3,))
            super().__init__(inputs, layers.Dense(2)(inputs))
            self.extra = layers.Dense(4)
            self.extra.build((None, 3))

    model = Extended()
    found = {id(weight.variable) for weight in weights.walk(model)}
    assert found == {id(variable) for variable in model.variables}
    tracked = any(v is model.extra.kernel for v in model.variables)
    assert ("extra/kernel" in names_of(model)) == tracked
    assert tracked or keras.__version__ < "3.14"  # Keras itself forgot them


def test_tied_weights_are_counted_once():
    class Decode(layers.Layer):
        def __init__(self, encode):
            super().__init__()
            self.tied = encode.kernel

        def call(self, x):
            return x @ keras.ops.transpose(self.tied)

    encode = layers.Dense(3, use_bias=False)
    encode.build((None, 4))
    model = keras.Sequential([keras.Input((4,)), encode, Decode(encode)])
    assert names_of(model) == ["dense/kernel"]
    assert find_mask(model, 0.5).sizes == {"dense/kernel": 12}


def test_by_name_and_values():
    model = sequential()
    assert list(weights.by_name(model)) == names_of(model)
    assert weights.by_name(model)["output/kernel"] is (
        model.get_layer("output").kernel
    )
    values = weights.values(model)
    assert list(values) == [
        n
        for n in names_of(model)
        if "moving" not in n and not n.endswith("seed")
    ]
    assert isinstance(values["output/kernel"], np.ndarray)


def test_kernels_are_pruned_and_nothing_else():
    model = sequential()
    assert list(weights.prunable(model)) == [
        "conv2d/kernel",
        "conv2d_1/kernel",
        "output/kernel",
    ]
    assert weights.prunable(model)["output/kernel"] is (
        model.get_layer("output").kernel
    )
    assert weights.unprunable(model) == {
        "conv2d/bias": "bias",
        "batch_normalization/gamma": "normalization",
        "batch_normalization/beta": "normalization",
        "batch_normalization/moving_mean": "not trained",
        "batch_normalization/moving_variance": "not trained",
        "conv2d_1/bias": "bias",
        "dropout/seed": "not trained",
        "output/bias": "bias",
    }


@pytest.mark.parametrize("build", MODELS)
def test_every_variable_is_pruned_or_has_a_reason(build):
    model = build()
    pruned = set(weights.prunable(model))
    left = weights.unprunable(model)
    assert not pruned & set(left)
    assert pruned | set(left) == set(names_of(model))
    assert all(left.values())


def test_a_shared_kernel_is_pruned_once():
    sizes = find_mask(shared(), 0.5).sizes
    assert sizes == {"dense/kernel": 16, "dense_1/kernel": 8}


def test_biases_of_rank_two_are_not_pruned():
    inputs = keras.Input((5, 4))
    x = layers.EinsumDense("abc,cd->abd", (5, 3), bias_axes="bd")(inputs)
    model = keras.Model(inputs, layers.GRU(2)(x))
    by_name = weights.by_name(model)
    biases = ["einsum_dense/bias", "gru/cell/bias"]
    assert [len(by_name[name].shape) for name in biases] == [2, 2]
    assert list(weights.prunable(model)) == [
        "einsum_dense/kernel",
        "gru/cell/kernel",
        "gru/cell/recurrent_kernel",
    ]
    for name in biases:
        assert weights.unprunable(model)[name] == "bias"


def test_attention_and_recurrent_kernels_are_pruned():
    names = list(weights.prunable(attention()))
    assert sorted(names) == sorted(
        [
            *(
                f"multi_head_attention/{part}/kernel"
                for part in ("query", "key", "value", "attention_output")
            ),
            *(
                f"bidirectional/{way}_layer/cell/{role}"
                for way in ("forward", "backward")
                for role in ("kernel", "recurrent_kernel")
            ),
            "gru/cell/kernel",
            "gru/cell/recurrent_kernel",
        ]
    )


def test_separable_and_depthwise_kernels_are_pruned():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.SeparableConv2D(4, 3),
            layers.DepthwiseConv2D(3),
            layers.Conv2DTranspose(2, 3),
        ]
    )
    assert list(weights.prunable(model)) == [
        "separable_conv2d/depthwise_kernel",
        "separable_conv2d/pointwise_kernel",
        "depthwise_conv2d/kernel",
        "conv2d_transpose/kernel",
    ]


@pytest.mark.parametrize(
    "normalization",
    [
        getattr(layers, name)
        for name in dir(layers)
        if name.endswith("Normalization")
        and name.startswith(("Batch", "Layer", "Group", "RMS"))
    ],  # RMSNormalization is newer than the oldest Keras supported
)
def test_normalization_is_not_pruned(normalization):
    axis = {"groups": 2} if normalization is layers.GroupNormalization else {}
    model = keras.Sequential(
        [keras.Input((3, 4)), layers.Dense(4), normalization(**axis)]
    )
    assert list(weights.prunable(model)) == ["dense/kernel"]
    left = weights.unprunable(model)
    assert "normalization" in left.values()


def test_normalization_over_two_axes_is_not_pruned():
    model = keras.Sequential(
        [
            keras.Input((3, 4)),
            layers.Dense(4),
            layers.LayerNormalization(axis=(1, 2)),
        ]
    )
    left = weights.unprunable(model)
    assert left["layer_normalization/gamma"] == "normalization"
    assert left["layer_normalization/beta"] == "normalization"


def test_the_slope_of_prelu_is_not_pruned():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Conv2D(2, 3), layers.PReLU()]
    )
    assert list(weights.prunable(model)) == ["conv2d/kernel"]
    assert weights.unprunable(model)["p_re_lu/alpha"] == "not a kernel (alpha)"


def test_matrices_of_custom_layers_are_pruned():
    assert list(weights.prunable(unnamed())) == [
        "bare/mixing",
        "bare/variable",
        "bare/variable~1",
        "bare_1/mixing",
        "bare_1/variable",
        "bare_1/variable~1",
        "dense/kernel",
    ]
    assert weights.unprunable(unnamed())["bare/shift"] == "rank 1"


def test_frozen_layers_are_not_pruned():
    model = nested()
    model.get_layer("tail").trainable = False
    left = weights.unprunable(model)
    assert left["tail/dense/kernel"] == "frozen (trainable=False)"
    assert "tail/dense/kernel" not in weights.prunable(model)
    assert "sequential/dense/kernel" in weights.prunable(model)


def test_integer_weights_are_not_pruned():
    class Counting(layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(
                shape=(2, 2), dtype="int32", initializer="zeros"
            )
            self.scale = self.add_weight(shape=(2, 2))

        def call(self, x):
            return x

    model = keras.Sequential([keras.Input((2,)), Counting()])
    assert list(weights.prunable(model)) == ["counting/scale"]
    assert weights.unprunable(model)["counting/table"] == "dtype int32"
    assert list(weights.values(model)) == ["counting/scale"]


def embedded():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4, name="tokens")(inputs)
    x = layers.Dense(3, name="hidden")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(2, name="output")(x))


def test_embeddings_are_pruned_only_on_request():
    model = embedded()
    assert list(weights.prunable(model)) == ["hidden/kernel", "output/kernel"]
    assert weights.unprunable(model)["tokens/embeddings"].startswith(
        "embedding"
    )
    asked = ["tokens", "output"]
    assert list(weights.prunable(model, asked)) == [
        "tokens/embeddings",
        "output/kernel",
    ]
    assert weights.unprunable(model, asked)["hidden/kernel"] == "not in layers="
    assert list(weights.prunable(model, ["hidden"])) == ["hidden/kernel"]
    everything = weights.prunable(model, ["*"])
    assert list(everything) == [
        "tokens/embeddings",
        "hidden/kernel",
        "output/kernel",
    ]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("dense", ["dense"]),
        ("sequential", ["sequential/dense", "sequential/dense_1"]),
        ("sequential/*", ["sequential/dense", "sequential/dense_1"]),
        ("sequential/dense_1", ["sequential/dense_1"]),
        ("*/dense", ["sequential/dense", "tail/dense"]),
        ("t*", ["tail/dense"]),
        (["tail", "dense"], ["dense", "tail/dense"]),
        (("sequential/dense*",), ["sequential/dense", "sequential/dense_1"]),
    ],
)
def test_layers_by_pattern(entry, expected):
    assert list(weights.prunable(nested(), entry)) == [
        f"{path}/kernel" for path in expected
    ]


def test_layers_by_object():
    model = nested()
    tail, block = model.get_layer("tail"), model.layers[2]
    assert list(weights.prunable(model, tail)) == ["tail/dense/kernel"]
    assert list(weights.prunable(model, [block])) == [
        "sequential/dense/kernel",
        "sequential/dense_1/kernel",
    ]
    assert list(weights.prunable(model, [block.layers[1], "tail"])) == [
        "sequential/dense_1/kernel",
        "tail/dense/kernel",
    ]
    assert list(weights.prunable(model, model)) == list(weights.prunable(model))


def test_layers_that_name_no_bias_or_normalization():
    with pytest.raises(ValueError, match="no weight to prune"):
        weights.prunable(sequential(), ["batch_normalization"])


@pytest.mark.parametrize(
    "entry", ["outptu", "dense/kernel", "flatten", "Conv2D"]
)
def test_a_pattern_that_fits_nothing_is_refused(entry):
    with pytest.raises(ValueError) as raised:
        weights.prunable(sequential(), ["output", entry])
    assert f"layers='{entry}' fits no layer" in str(raised.value)
    assert "conv2d, conv2d_1, dropout, output" in str(raised.value)


def test_a_layer_of_another_model_is_refused():
    other = sequential().get_layer("output")
    with pytest.raises(ValueError, match="layers='layer output' fits no layer"):
        weights.prunable(sequential(), [other])


@pytest.mark.parametrize("entry", [3, [3], [None]])
def test_layers_takes_layers_and_patterns(entry):
    with pytest.raises(ValueError, match="takes layers and name patterns, got"):
        weights.prunable(sequential(), entry)


def test_no_layers_is_nothing_to_prune():
    with pytest.raises(ValueError, match="no weight to prune"):
        weights.prunable(sequential(), [])


@pytest.mark.parametrize(
    "model", [keras.Sequential([layers.Dense(2)]), Subclassed()]
)
def test_an_unbuilt_model_is_refused(model):
    for function in (weights.prunable, weights.unprunable):
        with pytest.raises(ValueError, match="not built.*build"):
            function(model)
    with pytest.raises(ValueError, match="not built"):
        find_mask(model, 0.5)


def test_a_model_with_nothing_to_prune_tells_why():
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Embedding(7, 4),
            layers.Dense(2, trainable=False),
            layers.LayerNormalization(),
        ]
    )
    with pytest.raises(ValueError) as raised:
        weights.prunable(model)
    for line in (
        "embedding/embeddings: embedding (prune it with layers=)",
        "dense/kernel: frozen (trainable=False)",
        "layer_normalization/gamma: normalization",
    ):
        assert f"\n  {line}" in str(raised.value)


@pytest.mark.parametrize("function", [weights.prunable, weights.unprunable])
def test_what_is_no_keras_3_model_is_refused(function):
    legacy = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
    with pytest.raises(ValueError, match=r"Keras 3 model.*got tf_keras.*Seque"):
        function(legacy)
    with pytest.raises(ValueError, match="Keras 3 model.*got builtins.dict"):
        function({})


def test_a_variable_belongs_to_the_innermost_layer_that_holds_it():
    model = normalized()
    assert names_of(model) == [
        "spectral_normalization/vector_u",
        "spectral_normalization/inside/kernel",
        "spectral_normalization/inside/bias",
    ]
    owner = {w.name.split("/")[-1]: w.layer for w in weights.walk(model)}
    assert owner["kernel"] is model.layers[-1].layer
    assert owner["vector_u"] is model.layers[-1]


def test_spectral_normalization_hides_no_kernel():
    assert list(weights.prunable(normalized())) == [
        "spectral_normalization/inside/kernel"
    ]
    assert weights.unprunable(normalized()) == {
        "spectral_normalization/vector_u": "not trained",
        "spectral_normalization/inside/bias": "bias",
    }


def test_a_fourier_basis_is_pruned_only_on_request():
    spectrogram = layers.STFTSpectrogram(
        frame_length=8, frame_step=4, fft_length=8
    )
    model = keras.Sequential(
        [
            keras.Input((16, 1)),
            spectrogram,
            layers.Flatten(),
            layers.Dense(2, name="output"),
        ]
    )
    assert list(weights.prunable(model)) == ["output/kernel"]
    asked = weights.prunable(model, [spectrogram])
    assert [name.split("/")[1] for name in asked] == [
        "real_kernel",
        "imag_kernel",
    ]


def test_adapters_and_what_is_under_them():
    model = embedded()
    model.get_layer("hidden").enable_lora(2)
    assert list(weights.prunable(model)) == ["output/kernel"]
    left = weights.unprunable(model)
    assert left["hidden/kernel"] == "frozen by enable_lora"
    assert left["hidden/lora_kernel_a"].startswith("LoRA adapter")
    assert list(weights.prunable(model, ["hidden"])) == [
        "hidden/lora_kernel_a",
        "hidden/lora_kernel_b",
    ]


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (lambda layer: layer.enable_lora(2), "Prune before `enable_lora`"),
        (lambda layer: layer.quantize("int8"), "Prune first, then `quantize`"),
    ],
)
def test_the_advice_is_about_what_was_done(change, advice):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(2)])
    change(model.layers[-1])
    with pytest.raises(ValueError, match=f"(?s)no weight to prune.*{advice}"):
        weights.prunable(model)
