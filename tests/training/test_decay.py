"""Weight decay against SGD with momentum written out in numpy."""

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.training.decay import decay

RATE, MOMENTUM, DECAY = 0.1, 0.9, 0.05
NAMES = ("first/kernel", "first/bias", "last/kernel", "last/bias")


@pytest.fixture
def data():
    draw = np.random.default_rng(0)
    return draw.normal(size=(24, 5)), draw.normal(size=(24, 2))


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(4, bias_initializer="ones", name="first"),
            keras.layers.Dense(2, bias_initializer="ones", name="last"),
        ]
    )


def compiled(model, jit=False):
    optimizer = keras.optimizers.SGD(RATE, momentum=MOMENTUM)
    model.compile(optimizer, "mse", jit_compile=jit)
    return model


def fit(model, data, epochs=2):
    return model.fit(
        *data, batch_size=6, epochs=epochs, shuffle=False, verbose=0
    )


def gradients(values, inputs, targets):
    """Of the mean squared error of two linear layers."""
    kernel, bias, last_kernel, last_bias = values
    hidden = inputs @ kernel + bias
    error = hidden @ last_kernel + last_bias - targets
    error = 2 * error / error.size
    back = error @ last_kernel.T
    return [
        inputs.T @ back,
        back.sum(axis=0),
        hidden.T @ error,
        error.sum(axis=0),
    ]


def by_hand(values, data, decays, masks=(1, 1, 1, 1), epochs=2):
    values = [np.float64(v) * m for v, m in zip(values, masks)]
    velocities = [np.zeros_like(value) for value in values]
    for step in range(4 * epochs):
        rows = slice(step % 4 * 6, step % 4 * 6 + 6)
        found = gradients(values, data[0][rows], data[1][rows])
        for i, gradient in enumerate(found):
            full = (gradient + decays[i] * values[i]) * masks[i]
            velocities[i] = MOMENTUM * velocities[i] - RATE * full
            values[i] = values[i] + velocities[i]
    return values


@pytest.mark.parametrize("jit", [False, True])
def test_sgd_with_momentum_as_by_hand(model, data, jit):
    start = model.get_weights()
    decay(compiled(model, jit), DECAY)
    fit(model, data)
    expected = by_hand(start, data, [DECAY, 0, DECAY, 0])
    for found, value in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=0, atol=1e-6)
    # The test would see a decay left out, or one of the biases.
    for decays in ([0, 0, 0, 0], [DECAY] * 4):
        other = by_hand(start, data, decays)
        assert max(abs(a - b).max() for a, b in zip(expected, other)) > 1e-3


@pytest.mark.parametrize("names", [["last/*"], "last/*", ("la*", "first/bias")])
def test_named_weights_only(model, data, names):
    start = model.get_weights()
    decay(compiled(model), DECAY, names)
    fit(model, data)
    bias = DECAY * ("first/bias" in names)
    last_bias = DECAY
    expected = by_hand(start, data, [0, bias, DECAY, last_bias])
    for found, value in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=0, atol=1e-6)


def test_pruned_weights_stay_zero_and_the_others_go_as_by_hand(model, data):
    start = model.get_weights()
    decay(compiled(model), DECAY)
    mask = lottery.find_mask(model, 0.5)
    with lottery.masked(model, mask):
        fit(model, data)
    for name, kernel in zip(NAMES[::2], model.get_weights()[::2]):
        assert (kernel[~mask[name]] == 0).all()
        assert (kernel[mask[name]] != 0).all()
    masks = [mask.get(name, np.array(1)) for name in NAMES]
    expected = by_hand(start, data, [DECAY, 0, DECAY, 0], masks)
    for found, value in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=0, atol=1e-6)


def test_it_holds_in_every_level_of_a_lottery(model, data):
    start = model.get_weights()
    decay(model, DECAY)
    pruned = lottery.prune(model, lottery.IterativePruning(0.5, levels=2))
    compiled(pruned)
    fit(pruned, data)
    for ticket in pruned.tickets:
        masks = [ticket.mask.get(name, np.array(1)) for name in NAMES]
        expected = by_hand(start, data, [DECAY, 0, DECAY, 0], masks)
        for name, value in zip(NAMES[::2], expected[::2]):
            kept = ticket.mask[name]
            found = np.zeros(kept.shape)
            found[kept] = ticket.end[name].ravel()
            np.testing.assert_allclose(found, value, rtol=0, atol=1e-6)
    assert [ticket.level for ticket in pruned.tickets] == [0, 1, 2]


def test_the_penalty_is_in_the_loss(model, data):
    without = compiled(model).evaluate(*data, verbose=0)
    decay(model, DECAY)
    kernels = model.get_weights()[::2]
    penalty = DECAY / 2 * sum((each**2).sum() for each in kernels)
    assert model.evaluate(*data, verbose=0) == pytest.approx(
        without + penalty, rel=1e-5
    )


def test_it_can_be_changed_after_a_training_without_compiling(model, data):
    decay(compiled(model), 0.7)
    fit(model, data)
    decay(model, DECAY)
    assert len(model.losses) == 2
    start = model.get_weights()
    for slot in model.optimizer.momentums:
        slot.assign(np.zeros(slot.shape))
    fit(model, data)
    expected = by_hand(start, data, [DECAY, 0, DECAY, 0])
    for found, value in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=0, atol=1e-6)
    decay(model, 0)
    assert model.losses == []


def test_it_enters_no_config_and_no_file(model, tmp_path):
    before = keras.saving.serialize_keras_object(model)
    decay(model, DECAY)
    assert len(model.losses) == 2
    assert keras.saving.serialize_keras_object(model) == before
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.losses == []
    assert keras.models.clone_model(model).losses == []


@pytest.mark.parametrize(
    "bad", [-1e-4, float("nan"), float("inf"), "1e-4", None, True]
)
def test_a_factor_out_of_range_is_refused(model, bad):
    with pytest.raises(ValueError, match="`weight_decay` must be a finite num"):
        decay(model, bad)


def test_a_regularizer_of_the_users_own_is_left_alone(data):
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(4, name="first"),
            keras.layers.Dense(2, kernel_regularizer="l2", name="last"),
        ]
    )
    with pytest.raises(ValueError, match="'last/kernel' has a regularizer of"):
        decay(model, DECAY)
    assert len(model.losses) == 1
    decay(model, DECAY, ["first/*"])
    assert len(model.losses) == 3


def test_names_that_fit_nothing_are_refused(model):
    with pytest.raises(ValueError, match=r"'lst/\*' governs no weight"):
        decay(model, DECAY, ["lst/*"])
    assert model.losses == []
    with pytest.raises(ValueError, match="is not built"):
        decay(keras.Sequential([keras.layers.Dense(2)]), DECAY)
