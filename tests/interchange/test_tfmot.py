"""tfmot's masks in Keras 3 models, and back, in one call each."""

import keras
import numpy as np
import pytest
import tf_keras

import keras_lottery as lottery
from keras_lottery import interchange
from keras_lottery.pruning import weights
from keras_lottery.tfmot_bridge import tfmot

pytestmark = pytest.mark.thorough


def network(library):
    return library.Sequential(
        [
            library.Input((6, 6, 2)),
            library.layers.Conv2D(3, 3, name="conv"),
            library.layers.Flatten(),
            library.layers.Dense(4, name="out"),
        ]
    )


def test_there_and_back(tmp_path):
    keep = tfmot.sparsity.keras
    wrapped = keep.prune_low_magnitude(
        network(tf_keras), keep.ConstantSparsity(0.6, 0, frequency=1)
    )
    wrapped.compile("sgd", "mse")
    x = np.random.default_rng(0).random((8, 6, 6, 2), "float32")
    steps = [keep.UpdatePruningStep()]
    wrapped.fit(x, np.zeros((8, 4)), epochs=1, verbose=0, callbacks=steps)

    found = lottery.legacy.mask_of(wrapped)
    assert found.kept_by_name == {"conv/kernel": 22, "out/kernel": 77}
    model = network(keras)
    lottery.attach(model, found)  # one call
    for name, variable in weights.prunable(model).items():
        np.testing.assert_array_equal(variable.numpy() != 0, found[name])

    rng = np.random.default_rng(1)
    ours = lottery.Mask(
        {n: rng.random(a.shape) < 0.5 for n, a in found.items()}
    )
    lottery.legacy.set_mask(wrapped, ours)  # one call
    assert lottery.legacy.mask_of(wrapped) == ours
    interchange.save_npz(ours, tmp_path / "mask.npz")
    assert interchange.load_npz(tmp_path / "mask.npz", model) == ours
