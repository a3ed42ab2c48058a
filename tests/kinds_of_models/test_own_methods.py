"""Steps, losses, metrics and `compile` of a model's own are the ones that run.

Asked for in tfmot's issues 271, 387 and 590.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery

pytestmark = pytest.mark.thorough

SIZES = {"hidden/kernel": 40, "output/kernel": 24}


def layers(**more):
    """Returns the layers of a small classifier."""
    return [
        keras.Input((5,)),
        keras.layers.Dense(8, activation="tanh", name="hidden", **more),
        keras.layers.Dense(3, name="output"),
    ]


class OwnLoss(keras.Sequential):
    """Doubles the loss."""

    def compute_loss(self, *args, **kwargs):
        """Twice Keras's."""
        return 2 * super().compute_loss(*args, **kwargs)


class OwnMetrics(keras.Sequential):
    """Adds a number to the logs."""

    def compute_metrics(self, *args, **kwargs):
        """One more."""
        return {**super().compute_metrics(*args, **kwargs), "mine": 7.0}


class OwnTest(keras.Sequential):
    """Counts rows where it is tested, and answers with fives."""

    def __init__(self, *args):
        super().__init__(*args)
        self.rows = keras.metrics.Sum(name="rows")

    def test_step(self, data):
        """Counts."""
        self.rows.update_state(keras.ops.ones_like(data[1]))
        return {"rows": self.rows.result()}

    def predict_step(self, data):
        """Fives."""
        return 0 * super().predict_step(data) + 5


class OwnCompile(keras.Sequential):
    """Takes a factor for the loss where it is compiled."""

    def compile(self, factor, **kwargs):
        """Keeps the factor."""
        super().compile(**kwargs)
        self.factor = factor

    def compute_loss(self, *args, **kwargs):
        """As many times Keras's."""
        return self.factor * super().compute_loss(*args, **kwargs)


class AddsLosses(keras.Model):
    """A regularizer of activities, one of weights, and `add_loss`."""

    def __init__(self):
        super().__init__()
        regularizers = keras.regularizers
        self.hidden = keras.layers.Dense(
            8,
            activation="tanh",
            activity_regularizer=regularizers.L2(0.1),
            kernel_regularizer=regularizers.L1(0.01),
        )
        self.output_ = keras.layers.Dense(3, name="output")

    def call(self, inputs):
        """Adds the mean square of the units to the loss."""
        units = self.hidden(inputs)
        self.add_loss(0.5 * keras.ops.mean(units**2))
        return self.output_(units)


def adds_losses():
    """Returns it, called once."""
    model = AddsLosses()
    model(np.zeros((1, 5), np.float32))
    return model


KINDS = {
    "compute_loss": lambda: OwnLoss(layers()),
    "compute_metrics": lambda: OwnMetrics(layers()),
    "test_step": lambda: OwnTest(layers()),
    "add_loss": adds_losses,
}


@pytest.fixture(scope="module")
def given():
    """The arguments of `fit`, with validation."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 5)).astype("float32"), rng.integers(0, 3, 24)
    return {"x": x, "y": y, "batch_size": 8, "validation_data": (x, y)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_lottery(kind, played, seeded, compiled, given):
    found = played(seeded(KINDS[kind]), compiled, given)
    found.counts(SIZES, 3)
    found.restores()
    found.level_0_is_keras_s()
    plain = seeded(KINDS[kind])()
    compiled(plain)
    expected = plain.fit(**given, shuffle=False, verbose=0).history
    columns = found.history.history
    assert set(columns) == {*expected, "level", "sparsity"}
    for name, column in expected.items():  # what level 0 logs is what Keras's
        assert columns[name][0] == pytest.approx(column[0], rel=1e-5), name


def test_metrics_of_an_own_test_step_begin_anew(seeded, compiled, given):
    pruned = lottery.prune(seeded(KINDS["test_step"])(), lottery.OneShot(0.5))
    compiled(pruned)
    history = pruned.fit(**given, epochs=2, verbose=0).history
    assert history["val_rows"] == [24.0] * 4
    x, y = given["x"], given["y"]
    assert pruned.evaluate(x, y, verbose=0, return_dict=True)["rows"] == 24
    assert (pruned.predict(x, verbose=0) == 5).all()


def test_a_compile_of_ones_own_gets_its_arguments(played, seeded, given):
    def compiled(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(3.0, optimizer=keras.optimizers.SGD(0.1), loss=loss)

    found = played(seeded(lambda: OwnCompile(layers())), compiled, given)
    assert found.model.factor == 3.0
    found.counts(SIZES, 3)
    found.level_0_is_keras_s()


def test_a_compile_that_never_reaches_keras(seeded):
    class Alone(keras.Sequential):
        def compile(self, optimizer):
            self.mine = optimizer

    pruned = lottery.prune(Alone(layers()))
    with pytest.raises(ValueError, match=r"Alone does not call Keras's.*super"):
        pruned.compile("sgd")


class Told(OwnCompile):
    """Says what it was compiled with."""

    def get_compile_config(self):
        """The optimizer as it is at that moment."""
        optimizer = keras.saving.serialize_keras_object(self.optimizer)
        return {"factor": self.factor, "optimizer": optimizer}

    def compile_from_config(self, config):
        """The loss is always the same."""
        optimizer = keras.saving.deserialize_keras_object(config["optimizer"])
        compiled_with(config["factor"], optimizer)(self)


def compiled_with(factor, optimizer):
    """Returns a function that compiles an `OwnCompile`."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return lambda model: model.compile(factor, optimizer=optimizer, loss=loss)


def test_a_compile_of_ones_own_is_saved_by_a_model_that_says_how(
    seeded, given, tmp_path
):
    keras.saving.register_keras_serializable("kinds_of_models")(Told)
    pruned = lottery.prune(
        seeded(lambda: Told(layers()))(), lottery.OneShot(0.5)
    )
    compiled_with(3.0, keras.optimizers.Adam(0.1))(pruned)
    pruned.fit(**given, verbose=0)
    pruned.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert loaded.compiled and loaded.inner.factor == 3.0
    pairs = zip(pruned.optimizer.variables, loaded.optimizer.variables)
    for one, other in pairs:
        assert one.numpy().tobytes() == other.numpy().tobytes()
    assert loaded.optimizer.iterations == 3
    found, expected = (
        each.evaluate(given["x"], given["y"], verbose=0)
        for each in (loaded, pruned)
    )
    assert found == expected


@pytest.mark.filterwarnings("ignore:.*was not called as part of model loading")
def test_a_compile_of_ones_own_is_called_again_where_nobody_says_how(
    seeded, given, tmp_path
):
    keras.saving.register_keras_serializable("kinds_of_models")(OwnCompile)
    pruned = lottery.prune(
        seeded(lambda: OwnCompile(layers()))(), lottery.OneShot(0.5)
    )
    compiled_with(3.0, "sgd")(pruned)
    pruned.fit(**given, verbose=0)
    pruned.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert not loaded.compiled
    with pytest.raises(ValueError, match="OwnCompile .* call `compile` again"):
        loaded.compile_from_config(pruned.get_compile_config())
    compiled_with(3.0, "sgd")(loaded)
    x, y = given["x"], given["y"]
    expected = pruned.evaluate(x, y, verbose=0)
    assert loaded.evaluate(x, y, verbose=0) == expected


def test_an_own_loss_is_saved_and_goes_on(
    seeded, compiled, given, tmp_path, recwarn
):
    keras.saving.register_keras_serializable("kinds_of_models")(OwnLoss)
    pruned = lottery.prune(
        seeded(KINDS["compute_loss"])(), lottery.OneShot(0.5)
    )
    compiled(pruned)
    pruned.fit(**given, verbose=0)
    pruned.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert loaded.compiled and loaded.mask == pruned.mask
    skipped = [w for w in recwarn if "Skipping variable" in str(w.message)]
    assert not skipped  # there is one optimizer, and it is loaded
    assert loaded.optimizer.iterations == pruned.optimizer.iterations
    x, y = given["x"], given["y"]
    found, expected = (
        each.evaluate(x, y, verbose=0, return_dict=True)
        for each in (loaded, pruned)
    )
    assert found == expected


class Gan(keras.Model):
    """Two networks, two optimizers, random numbers of its own."""

    def __init__(self):
        super().__init__()
        self.maker = keras.Sequential([keras.Input((2,)), *of(6, 5)])
        self.critic = keras.Sequential([keras.Input((5,)), *of(6, 1)])
        self.noise = keras.random.SeedGenerator(3)

    def call(self, inputs):
        """What the critic says."""
        return self.critic(inputs)

    def compile(self, maker_optimizer, critic_optimizer):
        """Keras's `optimizer` stays what it is by default, and unused."""
        super().compile()
        self.maker_optimizer = maker_optimizer
        self.critic_optimizer = critic_optimizer

    def train_step(self, real):
        """One step of each."""
        noise = keras.random.normal((8, 2), seed=self.noise)
        with tf.GradientTape() as tape:
            lost = said(self.critic(real), 1) + said(
                self.critic(self.maker(noise)), 0
            )
        step(self.critic, self.critic_optimizer, tape, lost)
        with tf.GradientTape() as tape:
            fooled = said(self.critic(self.maker(noise)), 1)
        step(self.maker, self.maker_optimizer, tape, fooled)
        return {"critic": lost, "maker": fooled}


def of(*units):
    """Returns dense layers."""
    return [keras.layers.Dense(each, name=f"dense_of_{each}") for each in units]


def said(answers, truth):
    """Returns the mean loss of answers."""
    truths = truth * keras.ops.ones_like(answers)
    losses = keras.losses.binary_crossentropy(truths, answers, from_logits=True)
    return keras.ops.mean(losses)


def step(network, optimizer, tape, loss):
    """Trains one network."""
    trained = network.trainable_variables
    optimizer.apply(tape.gradient(loss, trained), trained)


def gan():
    """Returns it, built."""
    model = Gan()
    model(np.zeros((1, 5), np.float32))
    return model


def gan_compiled(model):
    """Compiles it as its own `compile` wants it."""
    model.compile(
        maker_optimizer=keras.optimizers.Adam(0.02),
        critic_optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
    )


def test_a_gan_with_two_optimizers(played, seeded, given):
    rows = {"x": given["x"], "batch_size": 8, "epochs": 2}
    found = played(seeded(gan), gan_compiled, rows)
    found.counts(
        {
            "maker/dense_of_6/kernel": 12,
            "maker/dense_of_5/kernel": 30,
            "critic/dense_of_6/kernel": 30,
            "critic/dense_of_1/kernel": 6,
        },
        6,
    )
    found.restores()
    found.level_0_is_keras_s()


def test_rewinding_rewinds_both_optimizers(seeded, given):
    """A level that removes next to nothing trains as level 0 did."""
    # 1 of 78 weights: the smallest, of a generator that is left alone here.
    pruned = lottery.prune(
        seeded(gan)(), lottery.OneShot(0.02), layers=["maker/dense_of_6"]
    )
    gan_compiled(pruned)
    pruned.fit(given["x"], batch_size=8, epochs=2, shuffle=False, verbose=0)
    first, second = pruned.tickets
    assert first.mask == second.mask  # round(12 * 0.02) == 0
    for name in first.end_state:
        one, other = first.end_state[name], second.end_state[name]
        assert one.tobytes() == other.tobytes(), name
    model = pruned.inner
    assert model.maker_optimizer.iterations == 6
    assert model.critic_optimizer.iterations == 6
