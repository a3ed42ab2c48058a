"""A batch that is cut into parts trains as a whole one."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.data import augmentation
from keras_lottery.training import loop
from keras_lottery.training import measure
from keras_lottery.training import replicas
from keras_lottery.training import shares
from keras_lottery.training.array_feed import ArrayFeed

ROWS, BATCH = 25, 8  # 3 whole batches, and one of a single row
A_PASS = 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 6)).astype("f")
Y = RNG.integers(0, 3, ROWS)
WEIGHTS = RNG.uniform(0.1, 3.0, ROWS).astype("f")
LOSS = keras.losses.SparseCategoricalCrossentropy

sgd = functools.partial(keras.optimizers.SGD, learning_rate=0.1, momentum=0.9)
adam = functools.partial(keras.optimizers.Adam, 0.01)


def network(*between, **of_kernel):
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5, activation="tanh", **of_kernel),
            *between,
            keras.layers.Dense(3, **of_kernel),
        ]
    )


def batches():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)


@pytest.fixture
def alike(devices, same):
    """Returns a function that plays on one device and on several."""

    def play(make, optimizer=sgd, data=(X, Y), several=2, **choices):
        fitted = {"batch_size": BATCH, "epochs": 2, "verbose": 0}
        fitted |= choices.pop("fit", {})
        tolerance = choices.pop("tolerance", 1e-5)
        told = choices.pop("told", True)
        choices.setdefault("levels", 1)
        played = []
        for number in (1, several):
            pruned = devices.pruned(number, make, optimizer, **choices)
            pruned.fit(*data, **fitted)
            played.append(pruned)
        same.masks(*played)
        same.weights(*played, tolerance)
        if told:
            same.histories(*[each.history for each in played], tolerance)
        return played[1]

    return play


# ------------------------------------------------------------------ the parts


@pytest.mark.parametrize("several", range(1, 9))
def test_parts_of_a_batch(several):
    for rows in range(30):
        found = [replicas.bounds(rows, several, r) for r in range(several)]
        numbers = [n for first, last in found for n in range(first, last)]
        assert numbers == list(range(rows))
        sizes = [last - first for first, last in found]
        assert max(sizes) - min(sizes) <= 1
        assert sizes == sorted(sizes, reverse=True)


SIZES = {(8, 2): [4, 4], (7, 2): [4, 3], (1, 4): [1], (6, 4): [2, 2, 1, 1]}


@pytest.mark.parametrize("how", ["known", "read from batches", "sums"])
@pytest.mark.parametrize("rows, several", SIZES)
def test_gradients_are_those_of_the_whole_batch(devices, rows, several, how):
    """Least squares, whose gradient numpy computes."""
    strategy = devices.strategy(several)
    x, y, weight = X[:rows], X[:rows, :1], np.ones((6, 1), "f")
    errors = 2 * (x.astype(float) @ weight - y)
    expected = x.T.astype(float) @ errors
    if how != "sums":
        expected /= rows
    starts = np.cumsum([0, *SIZES[rows, several]])
    own = np.zeros((several, 6, 1), "f")  # as Keras: over the replicas
    sizes = [*SIZES[rows, several], *[0] * several][:several]
    for replica, size in enumerate(sizes):
        if size:
            part = slice(starts[replica], starts[replica] + size)
            own[replica] = x[part].T @ errors[part].astype("f")
            own[replica] /= 1 if how == "sums" else size * several

    def on_a_replica():
        replica = replicas.this_replica()
        number, total = sizes[replica], rows
        if how == "read from batches":
            number, total = tf.constant(number), None
        share = shares.Share(number, total, how == "sums")
        gradient = own[replica] if sizes[replica] else own[0] * np.nan
        with shares.sharing(share):
            found = shares.summed([None, tf.constant(gradient)])
        assert found[0] is None
        return found[1]

    found = tf.function(strategy.run, autograph=False)(on_a_replica)
    for value in strategy.experimental_local_results(found):
        np.testing.assert_allclose(value.numpy(), expected, 1e-5, 1e-5)


def test_gradients_without_shares_are_summed(devices):
    """As those of a loop of one's own are."""
    strategy = devices.strategy(2)

    def on_a_replica():
        value = tf.constant(1.0 + replicas.this_replica())
        rows = tf.IndexedSlices(value[None], tf.constant([0]), tf.constant([2]))
        return [
            tf.convert_to_tensor(each) for each in shares.summed([value, rows])
        ]

    found = tf.function(strategy.run, autograph=False)(on_a_replica)
    for values in zip(*map(strategy.experimental_local_results, found)):
        assert [each.numpy().tolist() for each in values] == [3.0, [3.0, 0.0]]
    assert shares.summed([1.0, None]) == [1.0, None]  # on one device


# ---------------------------------------------------------- losses and weights


@pytest.mark.parametrize("rows", [ROWS, ROWS - 1])
def test_losses_that_are_sums(alike, rows):
    """Keras tells the sum of uneven parts as that of an even one."""
    optimizer = functools.partial(
        keras.optimizers.SGD, 0.01, global_clipnorm=2.0
    )
    loss = LOSS(from_logits=True, reduction="sum")
    alike(
        *(network, optimizer, (X[:rows], Y[:rows])),
        compile_with={"loss": loss, "metrics": []},
        told=rows % 2 == 0,
    )


@pytest.mark.thorough
def test_losses_that_are_sums_over_streams(alike):
    optimizer = functools.partial(
        keras.optimizers.SGD, 0.01, global_clipnorm=2.0
    )
    loss = LOSS(from_logits=True, reduction="sum")
    alike(
        *(network, optimizer, (batches(),)),
        compile_with={"loss": loss, "metrics": []},
        fit={"batch_size": None},
        told=False,
    )


@pytest.mark.thorough
def test_weights_of_samples(alike):
    alike(
        network,
        data=(X, Y),
        several=4,
        fit={"sample_weight": WEIGHTS},
        compile_with={"weighted_metrics": ["accuracy"]},
    )


@pytest.mark.thorough
def test_weights_of_classes(alike):
    weights = {0: 0.2, 1: 1.0, 2: 3.0}
    fit = {"class_weight": weights, "batch_size": None}
    alike(network, data=(batches(),), fit=fit)


def two_heads():
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(5, activation="tanh")(inputs)
    return keras.Model(
        inputs,
        {
            "kind": keras.layers.Dense(3, name="kind")(hidden),
            "size": keras.layers.Dense(1, name="size")(hidden),
        },
    )


@pytest.mark.thorough
def test_several_outputs(alike):
    pruned = alike(
        two_heads,
        data=(X[:24], {"kind": Y[:24], "size": X[:24, :1]}),
        compile_with={
            "loss": {"kind": LOSS(from_logits=True), "size": "mse"},
            "loss_weights": {"kind": 1.0, "size": 0.3},
            "metrics": {"kind": ["accuracy"], "size": ["mae"]},
        },
    )
    assert "size_mae" in pruned.history.history


# ------------------------------------------------------------------- networks


class OwnStep(keras.Model):
    """Least squares, by a step of its own."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)
        self.seen = keras.metrics.Mean(name="seen")

    def call(self, inputs):
        return self.dense(inputs)

    @property
    def metrics(self):
        return [self.seen]

    def train_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            error = keras.ops.one_hot(y, 3) - self(x, training=True)
            loss = tf.reduce_mean(tf.square(error))
            several = tf.distribute.get_strategy().num_replicas_in_sync
            part = loss / several  # as Keras's own step does
        weights = self.trainable_variables
        gradients = tape.gradient(part, [v.value for v in weights])
        self.optimizer.apply(gradients, weights)
        self.seen.update_state(loss, sample_weight=tf.shape(x)[0])
        return {"seen": self.seen.result()}


@pytest.mark.thorough
def test_steps_of_ones_own(devices, same):
    played, told = [], []
    for several in (1, 2):

        def own():
            model = OwnStep()
            model(X[:1])
            return model

        pruned = devices.pruned(several, own, sgd, levels=1)
        pruned.fit(X[:24], Y[:24], batch_size=BATCH, epochs=2, verbose=0)
        told.append(pruned.train_on_batch(X[:6], Y[:6]))
        played.append(pruned)
    np.testing.assert_allclose(*told, 0, 1e-5)
    same.masks(*played)
    same.weights(*played)
    same.histories(played[0].history, played[1].history)


def embedding():
    return keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(12, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


@pytest.mark.thorough
def test_embeddings_whose_gradients_are_rows(alike):
    tokens = RNG.integers(0, 12, (ROWS, 4)).astype("int32")
    clipped = functools.partial(adam, global_clipnorm=0.2)
    pruned = alike(embedding, clipped, data=(tokens, Y), layers=["*"])
    assert len(pruned.mask) == 2


@pytest.mark.thorough
def test_regularisers_and_weight_decay(alike):
    regular = functools.partial(
        network, kernel_regularizer=keras.regularizers.L2(0.05)
    )
    decayed = functools.partial(
        keras.optimizers.AdamW, 0.01, weight_decay=0.1, clipnorm=0.3
    )
    alike(regular, decayed)


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(devices, dtype):
    """Half precision rounds as it goes: weights are as near as that."""
    played = []
    for several in (1, 2):
        before = keras.mixed_precision.global_policy()
        keras.mixed_precision.set_global_policy(dtype)
        try:
            pruned = devices.pruned(several, network, sgd, levels=1)
        finally:
            keras.mixed_precision.set_global_policy(before)
        scaled = isinstance(
            pruned.optimizer, keras.optimizers.LossScaleOptimizer
        )
        assert scaled == (dtype == "mixed_float16")
        pruned.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0)
        played.append(pruned)
    one, many = played
    assert many.mask.kept == one.mask.kept == 31
    for mine, theirs in zip(
        one.trainable_variables, many.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), 0, 0.05)
    for name, mask in many.mask.items():
        kernel = many.attachment.variables[name]
        assert np.count_nonzero(kernel.numpy()[~mask]) == 0


@pytest.mark.thorough
def test_scaled_losses(alike):
    """One step is skipped, by all replicas: the scale halves."""

    def scaled():
        return keras.optimizers.LossScaleOptimizer(
            adam(global_clipnorm=0.5), initial_scale=2.0**127
        )

    pruned = alike(network, scaled, data=(20 * X, Y))
    scale = float(pruned.optimizer.dynamic_scale.numpy())
    assert scale < 2.0**127
    skipped = int(np.log2(2.0**127 / scale))
    steps = pruned.optimizer.inner_optimizer.iterations.numpy()
    assert steps == 2 * A_PASS - skipped


@pytest.mark.thorough
def test_moving_averages_of_weights(alike):
    averaged = functools.partial(sgd, use_ema=True, ema_momentum=0.5)
    pruned = alike(network, averaged)
    for name, mask in pruned.mask.items():
        kernel = pruned.attachment.variables[name]
        assert np.count_nonzero(kernel.numpy()[~mask]) == 0


def test_dropout_draws_one_mask_for_all_parts(devices):
    """As with Keras: each replica has the same seeds for rows of its own."""
    strategy = devices.strategy(2)
    model = devices.build(2, lambda: network(keras.layers.Dropout(0.5)))
    layer = model.layers[1]
    ones = tf.ones((4, 5))
    found = tf.function(strategy.run, autograph=False)(
        lambda: layer(ones, training=True)
    )
    one, other = strategy.experimental_local_results(found)
    assert 0 < np.count_nonzero(one) < 20
    np.testing.assert_array_equal(one, other)

    pruned = devices.pruned(
        2, lambda: network(keras.layers.Dropout(0.2)), adam, levels=1
    )
    pruned.fit(X, Y, batch_size=BATCH, epochs=8, verbose=0)
    losses = pruned.history.history["loss"]
    assert losses[7] < losses[0]
    assert len(pruned.tickets) == 2


# --------------------------------------------------------------- augmentation


class Look(keras.layers.Layer):
    """Notes the sum of the squares of what it has seen, row by row."""

    def build(self, shape):
        self.seen = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="seen"
        )

    def call(self, inputs, training=False):
        if training:
            scale = tf.range(1.0, 1.0 + inputs.shape[2])
            total = tf.reduce_sum(tf.square(inputs * scale[:, None]))
            self.seen.assign_add(total)
        return inputs


def looking():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            Look(name="look"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


@pytest.mark.parametrize(
    "several", [2, pytest.param(4, marks=pytest.mark.thorough)]
)
def test_augmented_batches_are_the_same(devices, several):
    """What layers are given is summed over replicas: a moment of each batch."""
    images = RNG.uniform(size=(9, 8, 8, 1)).astype("f")
    sums = []
    for number in (1, several):
        with devices.scope(number):
            keras.utils.set_random_seed(0)
            model = looking()
            model.compile(sgd(), LOSS(from_logits=True))
            model.optimizer.build(model.trainable_variables)
        feed = ArrayFeed(
            *((images, Y[:9]), 4, None, True, 3),
            augment=augmentation.get("flip_and_crop"),
        )
        loop.of(model).run(feed, 0, 6)
        held = model.get_layer("look").seen.value
        copies = getattr(held, "values", [held])
        sums.append(sum(float(copy.numpy()) for copy in copies))
        kernel = model.layers[-1].kernel.numpy()
        sums.append(np.abs(kernel).sum())
    np.testing.assert_allclose(sums[:2], sums[2:], 1e-5)


# --------------------------------------------------------- rows, and a replica


def test_a_replica_without_rows_leaves_metrics_alone(devices):
    """One row on four replicas: its loss, and the hit or miss of one row."""
    pruned = devices.pruned(
        4, network, functools.partial(sgd, learning_rate=0.0), levels=1
    )
    logits = pruned.inner(X[:1]).numpy()[0].astype(float)
    loss = np.log(np.exp(logits).sum()) - logits[Y[0]]
    hit = float(logits.argmax() == Y[0])
    dataset = tf.data.Dataset.from_tensor_slices((X[:1], Y[:1])).batch(4)
    pruned.fit(X[:1], Y[:1], batch_size=4, epochs=1, verbose=0)
    found = pruned.history.history
    np.testing.assert_allclose(found["loss"][0], loss, 1e-5)
    assert found["accuracy"][0] == hit
    # Nor has training moved anything: its rate is 0.
    pruned.adopt_mask(pruned.tickets[0].mask, 0)
    pruned.tickets[0].restore(pruned)
    for data in ((X[:1], Y[:1]), (dataset,)):
        told = pruned.evaluate(*data, verbose=0)
        np.testing.assert_allclose(told, [loss, hit], 1e-5)


# ----------------------------------------------------------------- as on a TPU


@pytest.fixture
def as_on_a_tpu(monkeypatch):
    """One program for all replicas: none knows its number in Python."""
    monkeypatch.setattr(replicas, "this_replica", lambda: None)


@pytest.mark.thorough
def test_even_parts_of_one_program(as_on_a_tpu, alike):
    alike(network, data=(X[:24], Y[:24]), several=4)


def test_uneven_parts_of_one_program_are_refused(as_on_a_tpu, devices):
    pruned = devices.pruned(2, network, sgd, levels=1)
    with pytest.raises(ValueError, match="25 rows cannot be cut into 2 equal"):
        pruned.fit(X, Y, batch_size=ROWS, verbose=0)


def test_any_rows_are_measured_by_one_program(as_on_a_tpu, devices):
    """10 rows on 4 replicas leave 2, and 3 rows are too few for all."""
    told = []
    for several in (1, 4):
        model = devices.build(several, network)
        with devices.scope(several):
            model.compile(sgd(), LOSS(from_logits=True), metrics=["accuracy"])
        measured = measure.measure_on(model, (X[:13], Y[:13]), batch_size=10)
        told.append(measured())
    assert sorted(told[0]) == ["accuracy", "loss"]
    for name, value in told[0].items():
        np.testing.assert_allclose(told[1][name], value, 1e-5)


# ------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "changed",
    [{"gradient_accumulation_steps": 2}, {"ema_overwrite_frequency": 3}],
)
def test_optimizers_that_branch_are_refused(devices, changed):
    (name,) = changed
    more = {"use_ema": True} if "ema" in name else {}
    pruned = devices.pruned(2, network, lambda: adam(**changed, **more))
    before = pruned.get_weights()
    with pytest.raises(ValueError, match=rf"Adam has {name}=\d: Keras takes"):
        pruned.fit(X, Y, batch_size=BATCH, verbose=0)
    assert pruned.tickets == ()
    for mine, theirs in zip(before, pruned.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_they_are_refused_without_fit_too_and_no_mask_is_attached(devices):
    model = devices.build(2, network)
    with devices.scope(2):
        model.compile(adam(gradient_accumulation_steps=2), "mse")
    mask = lottery.find_mask(model, 0.5)
    before = model.get_weights()
    with pytest.raises(ValueError, match="Adam has gradient_accumulation_s"):
        lottery.attach(model, mask)
    with lottery.masked(devices.build(2, network), mask):
        pass  # another model, not compiled
    for mine, theirs in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ValueError, match="No mask is attached"):
        lottery.detach(model)


def test_optimizers_from_outside_the_scope_are_refused(devices):
    pruned = devices.pruned(2, network, sgd)
    outside = keras.optimizers.SGD(0.1)
    with pytest.raises(ValueError):
        pruned.compile(outside, LOSS(from_logits=True))
        pruned.fit(X, Y, batch_size=BATCH, verbose=0)
    assert pruned.tickets == ()


def test_pruned_outside_the_scope_it_was_built_in(devices):
    model = devices.build(2, network)
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    assert pruned.distribute_strategy is devices.strategy(2)
    with devices.scope(2):
        pruned.compile(sgd(), LOSS(from_logits=True))
    pruned.fit(X, Y, batch_size=BATCH, verbose=0)
    assert [ticket.mask.kept for ticket in pruned.tickets] == [45, 23]
