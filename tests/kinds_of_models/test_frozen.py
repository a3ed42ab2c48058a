"""Frozen parts stay what they are, bit for bit; transfer learning.

Asked for in tfmot's issues 749 and 155.
"""

import keras
import numpy as np
import pytest

import keras_lottery as lottery

pytestmark = pytest.mark.thorough


def whole():
    """Returns a small classifier."""
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(8, activation="tanh", name="base"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(6, activation="tanh", name="middle"),
            keras.layers.Dense(3, name="head"),
        ]
    )


def partly_frozen():
    """Returns it with its first layers frozen."""
    model = whole()
    for name in ("base", "norm"):
        model.get_layer(name).trainable = False
    return model


def summary(pruned):
    """Returns what `summary` prints."""
    lines = []
    pruned.summary(print_fn=lines.append)
    return "\n".join(lines)


def test_frozen_layers_are_left_alone(played, seeded, compiled, data, tmp_path):
    x, y = data()
    given = {"x": x, "y": y, "batch_size": 8, "epochs": 2}
    found = played(seeded(partly_frozen), compiled, given)
    found.counts({"middle/kernel": 48, "head/kernel": 18}, 6)
    found.restores()
    found.level_0_is_keras_s()
    found.exports(tmp_path, x)
    after = found.model
    for name in ("base", "norm"):
        frozen = seeded(partly_frozen)().get_layer(name).get_weights()
        for one, other in zip(after.get_layer(name).get_weights(), frozen):
            assert one.tobytes() == other.tobytes()
    assert "frozen (trainable=False)" in summary(found.pruned)
    assert "base/kernel" in summary(found.pruned)


def test_frozen_between_compile_and_fit(seeded, compiled, data):
    """Said before anything is trained, not after a level."""
    x, y = data()
    model = seeded(whole)()
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    compiled(pruned)
    before = model.get_weights()
    model.get_layer("base").trainable = False
    with pytest.raises(ValueError, match=r"base/kernel: frozen since.*strip"):
        pruned.fit(x, y, verbose=0)
    for one, other in zip(before, model.get_weights()):
        assert one.tobytes() == other.tobytes()
    assert pruned.optimizer.iterations == 0
    model.get_layer("base").trainable = True  # as the error says
    pruned.fit(x, y, verbose=0)
    assert [t.mask.kept for t in pruned.tickets] == [106, 53]


def test_transfer_learning(seeded, compiled, data):
    """A lottery of the head; then, unfrozen, one of everything."""
    x, y = data()
    model = seeded(partly_frozen)()
    head = lottery.prune(model, lottery.OneShot(0.5))
    compiled(head)
    base = model.get_layer("base").get_weights()[0]
    head.fit(x, y, verbose=0)
    assert model.get_layer("base").get_weights()[0].tobytes() == base.tobytes()
    assert head.mask.kept == 66 - round(66 * 0.5)
    for layer in head.strip().layers:
        layer.trainable = True
    everything = lottery.prune(model, lottery.OneShot(0.5))
    compiled(everything)
    everything.fit(x, y, verbose=0)
    assert [t.mask.kept for t in everything.tickets] == [106, 53]
    assert everything.mask.sizes == {
        "base/kernel": 40,
        "middle/kernel": 48,
        "head/kernel": 18,
    }


def test_unfrozen_after_prune_is_trained_and_not_pruned(compiled, data):
    """`prune` decides what has a mask."""
    model = partly_frozen()
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    model.get_layer("base").trainable = True
    compiled(pruned)
    before = model.get_layer("base").get_weights()[0]
    pruned.fit(*data(), verbose=0)
    after = model.get_layer("base").get_weights()[0]
    assert set(pruned.mask) == {"middle/kernel", "head/kernel"}
    assert (before != after).any() and np.count_nonzero(after) == after.size
