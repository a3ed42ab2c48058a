"""What trains beside the weights: averages, sums, recurrent state, scales.

Asked for in tfmot's issue 409 (mixed precision).
"""

import keras
import numpy as np
import pytest

import keras_lottery as lottery

pytestmark = pytest.mark.thorough

SIZES = {"hidden/kernel": 40, "output/kernel": 24}


def network(dtype=None):
    """Returns a small classifier."""
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(
                8, activation="tanh", name="hidden", dtype=dtype
            ),
            keras.layers.Dense(3, name="output", dtype=dtype),
        ]
    )


def noisy():
    """Returns one with seed generators and statistics."""
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.GaussianNoise(0.1, seed=3),
            keras.layers.Dense(8, activation="tanh", name="hidden"),
            keras.layers.Dropout(0.3, seed=4),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3, name="output"),
        ]
    )


def compiled_with(optimizer):
    """Returns a function that compiles with a new optimizer each time."""

    def compiled(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer(), loss, metrics=["accuracy"])

    return compiled


OPTIMIZERS = {
    "averages": lambda: keras.optimizers.SGD(
        0.1, momentum=0.9, use_ema=True, ema_momentum=0.5
    ),
    "averages that overwrite": lambda: keras.optimizers.Adam(
        0.05, use_ema=True, ema_overwrite_frequency=2
    ),
    "accumulation over 2 steps": lambda: keras.optimizers.Adam(
        0.05, gradient_accumulation_steps=2
    ),
    # 6 steps of a level: the last 2 gradients are thrown away by a rewind.
    "accumulation over 4 steps": lambda: keras.optimizers.SGD(
        0.1, gradient_accumulation_steps=4
    ),
}


@pytest.fixture
def given(data):
    """The arguments of `fit`: 6 steps of a level."""
    x, y = data()
    return {"x": x, "y": y, "batch_size": 8, "epochs": 2}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_averages_and_accumulation(kind, played, seeded, given):
    found = played(seeded(network), compiled_with(OPTIMIZERS[kind]), given)
    found.counts(SIZES, 6)
    found.restores()
    found.level_0_is_keras_s()


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(dtype, played, seeded, given):
    compiled = compiled_with(lambda: keras.optimizers.Adam(0.05))
    found = played(seeded(lambda: network(dtype)), compiled, given)
    found.counts(SIZES, 6)
    found.restores()
    found.level_0_is_keras_s(1e-3)


def test_a_global_policy_scales_the_loss(played, seeded, given):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        compiled = compiled_with(lambda: keras.optimizers.Adam(0.05))
        found = played(seeded(network), compiled, given)
        found.counts(SIZES, 6)
        found.level_0_is_keras_s(1e-3)
        kind = type(found.pruned.optimizer)
        plain = network()
        compiled(plain)
        assert (
            kind is type(plain.optimizer) is keras.optimizers.LossScaleOptimizer
        )
    finally:
        keras.config.set_dtype_policy("float32")


def test_seed_generators_and_statistics(played, seeded, compiled, given):
    found = played(seeded(noisy), compiled, given)
    found.counts(SIZES, 6)
    found.restores()
    found.level_0_is_keras_s()


def stateful():
    """Returns recurrent layers that remember from batch to batch."""
    return keras.Sequential(
        [
            keras.Input(batch_shape=(8, 5)),
            keras.layers.Reshape((5, 1)),
            keras.layers.LSTM(
                4, stateful=True, return_sequences=True, name="lstm"
            ),
            keras.layers.GRU(3, stateful=True, name="gru"),
            keras.layers.Dense(3, name="output"),
        ]
    )


def test_stateful_recurrent_layers(played, seeded, compiled, given):
    """As in Keras: the state goes on from epoch to epoch."""
    found = played(seeded(stateful), compiled, given)
    found.counts(
        {
            "lstm/cell/kernel": 16,
            "lstm/cell/recurrent_kernel": 64,
            "gru/cell/kernel": 36,
            "gru/cell/recurrent_kernel": 27,
            "output/kernel": 9,
        },
        6,
    )
    found.restores()
    found.level_0_is_keras_s()


@pytest.mark.parametrize("build", [stateful, noisy])
def test_rewinding_resets_states_and_seeds(build, seeded, compiled, given):
    """A level that removes nothing is level 0 again, bit for bit."""
    pruned = lottery.prune(
        seeded(build)(), lottery.OneShot(0.01), layers=["output"]
    )
    compiled(pruned)
    pruned.fit(**given, shuffle=False, verbose=0)
    first, second = pruned.tickets
    assert first.mask == second.mask  # round(24 * 0.01) == 0
    assert any(np.any(each) for each in first.end_state.values())
    for name, value in first.end_state.items():
        assert value.tobytes() == second.end_state[name].tobytes(), name


class Stop(keras.callbacks.Callback):
    """Ends a training after some batches, as a crash would."""

    def __init__(self, batches):
        super().__init__()
        self.left = iter(range(batches - 1))  # no value that is kept

    def on_train_batch_end(self, batch, logs=None):
        """Counts down."""
        if next(self.left, None) is None:
            raise InterruptedError


def test_what_is_remembered_is_in_a_checkpoint(
    seeded, compiled, given, tmp_path
):
    """Stopped inside a level, it goes on with the states it had."""

    def play(callbacks=(), **more):
        pruned = lottery.prune(
            seeded(stateful)(), lottery.OneShot(0.5), allocation="layerwise"
        )
        compiled(pruned)
        pruned.fit(
            **given,
            shuffle=False,
            verbose=0,
            callbacks=list(callbacks),
            **more,
        )
        return pruned.tickets

    whole = play([Stop(10**9)])
    folder = {"checkpoint_dir": tmp_path / "fit", "checkpoint_steps": 1}
    with pytest.raises(InterruptedError):
        play([Stop(2)], **folder)
    resumed = play([Stop(10**9)], **folder)
    for one, other in zip(whole, resumed, strict=True):
        assert one.mask == other.mask
        for name, value in one.weights("end").items():
            assert value.tobytes() == other.weights("end")[name].tobytes()
