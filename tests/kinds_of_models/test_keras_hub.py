"""Backbones of keras_hub, built from numbers: nothing is downloaded."""

import keras
import numpy as np
import pytest

models = pytest.importorskip("keras_hub.models", reason="needs the extra 'hub'")

pytestmark = pytest.mark.thorough

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(4, 16, 16, 3)).astype(np.float32)
TOKENS = {
    "token_ids": RNG.integers(0, 20, (4, 6)).astype(np.int32),
    "segment_ids": np.zeros((4, 6), np.int32),
    "padding_mask": np.ones((4, 6), np.int32),
}


def vit():
    """A vision transformer of one block."""
    backbone = models.ViTBackbone(
        image_shape=(16, 16, 3),
        patch_size=8,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
    )
    inputs = keras.Input((16, 16, 3))
    return keras.Model(inputs, headed(backbone(inputs)))


def bert():
    """A BERT of one block, for sentences of 6 tokens."""
    backbone = models.BertBackbone(
        vocabulary_size=20,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=6,
    )
    inputs = {n: keras.Input((6,), dtype="int32", name=n) for n in TOKENS}
    return keras.Model(inputs, headed(backbone(inputs)["sequence_output"]))


def resnet():
    """A ResNet of one block."""
    backbone = models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(16, 16, 3),
    )
    inputs = keras.Input((16, 16, 3))
    features = keras.layers.Flatten()(backbone(inputs)[:, ::8, ::8])
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(features))


def headed(sequence):
    """Returns logits of a sequence."""
    pooled = keras.layers.GlobalAveragePooling1D()(sequence)
    return keras.layers.Dense(3, name="head")(pooled)


KINDS = {
    "vit": (vit, IMAGES),
    "bert": (bert, TOKENS),
    "resnet": (resnet, IMAGES),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_lottery(kind, played, seeded, compiled, tmp_path):
    build, x = KINDS[kind]
    given = {"x": x, "y": np.arange(4) % 3, "batch_size": 4}
    found = played(seeded(build), compiled, given, allocation="layerwise")
    found.counts(found.pruned.mask.sizes, 1)
    found.restores()
    found.exports(tmp_path, x)
    check_what_is_pruned(found.model, found.pruned)


def check_what_is_pruned(model, pruned):
    """Every kernel by Keras's own list; no embedding, bias or normalization."""
    expected = [
        int(np.prod(variable.shape))
        for variable in model.trainable_variables
        if variable.name == "kernel" and len(variable.shape) > 1
    ]
    kernels = {n: s for n, s in pruned.mask.sizes.items() if "kernel" in n}
    assert sorted(kernels.values()) == sorted(expected)
    assert "head/kernel" in kernels
    for name in pruned.mask:
        assert "embeddings" not in name and "bias" not in name
    lines = []
    pruned.summary(print_fn=lines.append)
    assert "not pruned:" in "\n".join(lines)
