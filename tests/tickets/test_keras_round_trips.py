"""What Keras and Python do to a pruned model: copies, files, configurations."""

import copy
import pickle

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.training import enforce

pytestmark = pytest.mark.thorough

SIZE = 8 * 20 + 20 * 2  # 200


def data():
    """Returns x and y of 32 rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8)).astype(np.float32)
    return x, rng.normal(size=(32, 2)).astype(np.float32)


def network():
    """Returns a network of 200 weights with dropout, not compiled."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(20, activation="tanh", name="hidden"),
            keras.layers.Dropout(0.1, seed=3),
            keras.layers.Dense(2, name="output"),
        ]
    )


def fit(model, **more):
    """Fits two epochs."""
    return model.fit(
        *data(), epochs=2, batch_size=8, shuffle=False, verbose=0, **more
    )


def lottery_of(levels=2, **choices):
    """Returns a compiled pruned model that has not been trained."""
    schedule = lottery.IterativePruning(0.5, levels)
    pruned = lottery.prune(network(), schedule, **choices)
    pruned.compile(keras.optimizers.Adam(0.01), "mse")
    return pruned


def answers(model):
    """Returns what a model predicts."""
    return model.predict(data()[0], verbose=0)


class StopAfter(keras.callbacks.Callback):
    """Ends a `fit` when a level begins, as Ctrl-C does."""

    def __init__(self, level):
        super().__init__()
        self._level = level

    def on_train_begin(self, logs=None):
        """Stops it there."""
        if self.model.level == self._level:
            raise KeyboardInterrupt


def midway():
    """Returns a lottery of three levels that has trained two of them."""
    pruned = lottery_of(3)
    with pytest.raises(KeyboardInterrupt):
        fit(pruned, callbacks=[StopAfter(2)])
    return pruned


def same(one, other):
    """Checks masks, level and every variable."""
    assert (one.mask, one.level) == (other.mask, other.level)
    for mine, theirs in zip(
        one.inner.variables, other.inner.variables, strict=True
    ):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), mine.path)


def test_a_deep_copy_goes_on_as_the_first_would():
    pruned = midway()
    twin = copy.deepcopy(pruned)
    same(pruned, twin)
    assert twin.inner is not pruned.inner
    assert [t.mask for t in twin.tickets] == [t.mask for t in pruned.tickets]
    for model in (pruned, twin):
        fit(model)
    same(pruned, twin)
    left = [SIZE - round(SIZE * (1 - 0.5**level)) for level in range(4)]
    assert [ticket.mask.kept for ticket in twin.tickets] == left
    for one, other in zip(pruned.tickets, twin.tickets, strict=True):
        for name, array in one.end.items():
            np.testing.assert_array_equal(array, other.end[name], name)


def test_a_deep_copy_is_independent():
    pruned = midway()
    before, weights = pruned.mask, pruned.inner.get_weights()
    twin = copy.deepcopy(pruned)
    fit(twin)
    assert pruned.mask == before and pruned.level == 2 and twin.level == 3
    for array, then in zip(pruned.inner.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(array, then)
    assert len(pruned.tickets) == 2 and len(twin.tickets) == 4


def test_a_deep_copy_keeps_a_criterion_that_is_a_function():
    def largest(model, start, data):
        return lottery.criteria.get("magnitude", 0)(model, start, data)

    pruned = lottery_of(criterion=largest)
    twin = copy.deepcopy(pruned)
    assert twin.settings.criterion is largest
    fit(twin)
    assert [ticket.mask.kept for ticket in twin.tickets] == [200, 100, 50]


def test_a_deep_copy_before_compile_is_not_compiled():
    pruned = lottery.prune(network(), lottery.OneShot(0.5))
    twin = copy.deepcopy(pruned)
    assert not twin.compiled
    same(pruned, twin)


@pytest.mark.parametrize("way", ["pickle", "file"])
def test_a_pickle_is_a_file(way, tmp_path):
    pruned = midway()
    if way == "pickle":
        loaded = pickle.loads(pickle.dumps(pruned))
    else:
        pruned.save(tmp_path / "midway.keras")
        loaded = keras.models.load_model(tmp_path / "midway.keras")
    assert (loaded.mask, loaded.level) == (pruned.mask, 2)
    np.testing.assert_array_equal(answers(loaded), answers(pruned))
    with pytest.raises(ValueError, match="Continue from a ticket"):
        fit(loaded)
    loaded.continue_from(pruned.tickets[-1])
    fit(loaded)
    assert [ticket.mask.kept for ticket in loaded.tickets] == [50, 25]


def test_what_is_loaded_at_the_last_level_holds_its_masks_in_a_keras_step():
    pruned = lottery_of(1)
    fit(pruned)
    loaded = pickle.loads(pickle.dumps(pruned))
    for _ in range(3):
        loaded.train_on_batch(*data())
    kernel, mask = loaded.inner.layers[0].kernel.numpy(), loaded.mask
    assert not kernel[~mask["hidden/kernel"]].any()
    before = pruned.inner.layers[0].kernel.numpy()
    assert (kernel != before).any()


def described_again(pruned):
    """Returns models of a pruned model's configuration, made in three ways."""
    return (
        keras.models.clone_model(pruned),
        keras.models.model_from_json(pruned.to_json()),
        lottery.PrunedModel.from_config(pruned.get_config()),
    )


def test_clones_and_configurations_hold_the_masks():
    pruned = midway()
    for model in described_again(pruned):
        assert isinstance(model, lottery.PrunedModel)
        assert (model.level, model.mask) == (2, pruned.mask)
        assert lottery.nonzero_mask(model) == pruned.mask
        model.compile(keras.optimizers.Adam(0.01), "mse")
        with pytest.raises(ValueError, match="Continue from a ticket"):
            fit(model)
        model.train_on_batch(*data())
        assert lottery.nonzero_mask(model) == pruned.mask
        model.continue_from(pruned.tickets[-1])
        fit(model)
        assert [ticket.mask.kept for ticket in model.tickets] == [50, 25]


def test_a_clone_in_place_goes_on_with_the_schedule():
    pruned = lottery.prune(
        network(), lottery.PolynomialDecay(0.2, 0.8, 0, 8, frequency=4)
    )
    pruned.compile(keras.optimizers.Adam(0.01), "mse")
    pruned.fit(*data(), batch_size=8, epochs=1, verbose=0)  # 4 steps of 8
    clone = keras.models.clone_model(pruned)
    assert clone.mask == pruned.mask and 0 < clone.mask.sparsity < 0.8
    clone.compile(keras.optimizers.Adam(0.01), "mse")
    clone.fit(*data(), batch_size=8, epochs=2, verbose=0)
    assert clone.mask.sparsity == 0.8 and clone.mask.issubset(pruned.mask)


@pytest.mark.parametrize(
    "there",
    [{}, {"level": 1}, 5, {"level": 1, "clock": 0, "mask": None},
     {"level": 1, "clock": 0, "mask": {"x": 1}},
     {"level": 0, "clock": 0, "mask": {}}],
)  # fmt: skip
def test_a_configuration_of_anybodys_is_checked(there):
    config = {**lottery_of().get_config(), "reached": there}
    with pytest.raises(ValueError):
        lottery.PrunedModel.from_config(config)


def test_clones_of_what_was_not_trained_begin_anew():
    pruned = lottery_of(3)
    for model in described_again(pruned):
        assert model.level == 0 and model.mask.sparsity == 0
        assert model.schedule.get_config() == pruned.schedule.get_config()
        model.compile(keras.optimizers.Adam(0.01), "mse")
        fit(model)
        assert [t.mask.kept for t in model.tickets] == [200, 100, 50, 25]


def test_an_allocation_with_settings_comes_along():
    blocks = lottery.allocation.Blocks((1, 2))
    pruned = lottery.prune(network(), lottery.OneShot(0.5), allocation=blocks)
    for twin in (keras.models.clone_model(pruned), copy.deepcopy(pruned)):
        assert twin.settings.allocation == blocks


def test_load_weights_brings_masks_to_a_model_from_json(tmp_path):
    pruned = midway()
    pruned.save_weights(tmp_path / "midway.weights.h5")
    model = keras.models.model_from_json(pruned.to_json())
    model.load_weights(tmp_path / "midway.weights.h5")
    assert (model.mask, model.level) == (pruned.mask, 2)
    np.testing.assert_array_equal(answers(model), answers(pruned))


def test_get_weights_and_set_weights_carry_masks():
    pruned, other = midway(), lottery_of(3)
    other.set_weights(pruned.get_weights())
    assert (other.mask, other.level) == (pruned.mask, 2)
    np.testing.assert_array_equal(answers(other), answers(pruned))


def test_the_model_inside_is_a_model_as_it_was(tmp_path):
    pruned = lottery_of(1)
    fit(pruned)
    pruned.inner.save_weights(tmp_path / "inner.weights.h5")
    keras.models.save_model(pruned.inner, tmp_path / "inner.keras")
    plain = network()
    plain.load_weights(tmp_path / "inner.weights.h5")
    loaded = keras.models.load_model(tmp_path / "inner.keras")
    for model in (plain, loaded):
        assert type(model) is keras.Sequential
        assert lottery.sparsity(model) == 0.5
        assert lottery.nonzero_mask(model) == pruned.mask
        np.testing.assert_array_equal(answers(model), answers(pruned))


def test_keras_exports_the_model_inside(tmp_path):
    pruned = lottery_of(1)
    fit(pruned)
    pruned.export(tmp_path / "served", verbose=False)
    import tensorflow as tf

    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(
        served.serve(data()[0]), answers(pruned), rtol=1e-5, atol=1e-6
    )


def test_what_is_looked_up_is_that_of_the_model_inside(capsys):
    pruned = lottery_of(1)
    assert pruned.get_layer("hidden") is pruned.inner.get_layer("hidden")
    assert pruned.count_params() == pruned.inner.count_params() == 222
    assert pruned.layers == [pruned.inner]
    pruned.summary(expand_nested=True, line_length=120)
    assert "hidden/kernel" in capsys.readouterr().out


def test_a_copy_of_a_masked_model_has_the_zeros_and_can_have_the_mask():
    model = network()
    model.compile(keras.optimizers.Adam(0.01), "mse")
    mask = lottery.find_mask(model, 0.5)
    with lottery.masked(model, mask):
        fit(model)
        twin = copy.deepcopy(model)
        assert not enforce.is_attached(twin)
        assert lottery.nonzero_mask(twin) == mask
        with lottery.masked(twin, lottery.nonzero_mask(twin)):
            for _ in range(2):  # interleaved
                fit(model)
                fit(twin)
            assert lottery.sparsity(model) == lottery.sparsity(twin) == 0.5
            assert lottery.nonzero_mask(model) == mask
            assert lottery.nonzero_mask(twin) == mask
