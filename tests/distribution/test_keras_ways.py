"""What else Keras does with a model, on several devices as on one."""

import csv
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery import tfmot_bridge
from keras_lottery.pruning import criteria
from keras_lottery.pruning import weights

ROWS, BATCH = 131, 20  # 6 whole batches, and one of 11 rows
A_PASS = 7
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 6)).astype("f")
Y = RNG.integers(0, 3, ROWS)
LOSS = keras.losses.SparseCategoricalCrossentropy

sgd = functools.partial(keras.optimizers.SGD, 0.1, momentum=0.9)
clipped = functools.partial(sgd, global_clipnorm=0.3)


def network():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5, activation="tanh", name="hidden"),
            keras.layers.Dense(3, name="output"),
        ]
    )


def batches(policy=None):
    found = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)
    if policy is None:
        return found
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = policy
    return found.with_options(options)


class Pieces(keras.utils.PyDataset):
    """The same batches, made in Python."""

    def __len__(self):
        return A_PASS

    def __getitem__(self, number):
        rows = slice(number * BATCH, (number + 1) * BATCH)
        return X[rows], Y[rows]


def endless():
    pieces, number = Pieces(), 0
    while True:
        yield pieces[number % A_PASS]
        number += 1


def copies(variable):
    held = variable.value
    return [each.numpy() for each in getattr(held, "values", [held])]


# -------------------------------------------------------- evaluate and predict


@pytest.fixture(scope="module")
def trained(devices):
    """Models on one device and on two, with the same weights."""
    return {
        several: devices.pruned(several, network, sgd) for several in (1, 2)
    }


def test_evaluate(trained):
    one, many = trained[1], trained[2]
    expected = one.evaluate(X, Y, batch_size=BATCH, verbose=0)
    by_hand = np.mean(one.predict(X, verbose=0).argmax(1) == Y)
    np.testing.assert_allclose(expected[1], by_hand, 0, 1e-6)
    unknown = batches().filter(lambda x, y: tf.size(y) > 0)
    assert unknown.cardinality() == tf.data.UNKNOWN_CARDINALITY
    for data in ((X, Y), (batches(),), (unknown,), (Pieces(),)):
        more = {"batch_size": BATCH} if len(data) > 1 else {}
        found = many.evaluate(*data, verbose=0, **more)
        np.testing.assert_allclose(found, expected, 0, 1e-6)


def test_predict_in_order(trained):
    expected = trained[1].inner(X).numpy()
    images = batches().map(lambda x, y: x)
    for data in (X, images, X[:3]):
        found = trained[2].predict(data, batch_size=BATCH, verbose=0)
        np.testing.assert_allclose(found, expected[: len(found)], 0, 1e-6)
        assert len(found) == (
            3 if data is not X and data is not images else ROWS
        )


# --------------------------------------------------------------- batch by batch


def test_train_on_batch_and_test_on_batch(devices, same):
    one, many = (devices.pruned(n, network, clipped) for n in (1, 2))
    for rows in (BATCH, 11, 1):
        told = [each.train_on_batch(X[:rows], Y[:rows]) for each in (one, many)]
        np.testing.assert_allclose(*told, 0, 1e-5)
    same.weights(one, many)
    told = [each.test_on_batch(X, Y) for each in (one, many)]
    np.testing.assert_allclose(*told, 0, 1e-5)


@pytest.mark.parametrize(
    "source",
    [
        "PyDataset",
        pytest.param("weighed", marks=pytest.mark.thorough),
    ],
)
def test_inputs_made_in_python(devices, same, source):
    """Keras's own `fit`: one step after the other."""
    fit = {"epochs": 1, "verbose": 0}
    if source == "PyDataset":
        fit["validation_data"] = batches()
    if source == "weighed":
        fit["class_weight"] = {0: 0.3, 1: 2.0, 2: 1.0}
    played = []
    for several in (1, 2):
        pruned = devices.pruned(several, network, clipped, levels=1)
        pruned.fit(Pieces(), **fit)
        played.append(pruned)
    same.all(*played)


@pytest.mark.thorough
def test_generators(devices):
    """Level 0: later ones go on behind what was read ahead, as in Keras."""
    found = []
    for several in (1, 2):
        pruned = devices.pruned(several, network, clipped, levels=1)
        pruned.fit(endless(), steps_per_epoch=A_PASS, epochs=1, verbose=0)
        found.append(pruned.tickets[0].weights())
        assert len(pruned.tickets) == 2
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, 0, 1e-5)


@pytest.mark.thorough
def test_several_steps_a_call(devices, same):
    """The last call of an epoch is cut, and trains no step on nothing."""
    played = []
    for several in (1, 2):
        pruned = devices.pruned(
            *(several, network, clipped),
            levels=1,
            compile_with={"steps_per_execution": 3},
        )
        pruned.fit(Pieces(), epochs=2, verbose=0)
        played.append(pruned)
    assert played[1].optimizer.iterations.numpy() == 2 * A_PASS
    same.all(*played)


@pytest.mark.thorough
def test_part_of_an_endless_dataset_an_epoch(devices, same):
    played = []
    for several in (1, 4):
        pruned = devices.pruned(several, network, clipped, levels=1)
        fit = {"steps_per_epoch": 3, "epochs": 3, "verbose": 0}
        pruned.fit(batches().repeat(), **fit)
        played.append(pruned)
    same.all(*played)


@pytest.mark.thorough
def test_any_way_of_sharding_reads_the_same(devices, same):
    """In one process there is nothing to shard."""
    policies = tf.data.experimental.AutoShardPolicy
    played = []
    for policy in (policies.DATA, policies.OFF):
        pruned = devices.pruned(2, network, sgd, levels=1)
        pruned.fit(batches(policy), epochs=1, verbose=0)
        played.append(pruned)
    same.all(*played)


# -------------------------------------------------------------------- callbacks


class EveryStep(keras.callbacks.Callback):
    """A user's own: notes what every step has told."""

    def __init__(self):
        super().__init__()
        self.batches, self.losses, self.iterations = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        """Notes it."""
        self.batches.append(batch)
        self.losses.append(float(logs["loss"]))
        self.iterations.append(int(self.model.optimizer.iterations.numpy()))


def test_a_callback_with_a_hook_for_steps_sees_each(devices):
    seen = []
    for several in (1, 2):
        watch = EveryStep()
        pruned = devices.pruned(several, network, sgd, levels=1)
        fit = {"epochs": 1, "verbose": 0, "callbacks": [watch]}
        pruned.fit(X, Y, batch_size=BATCH, **fit)
        assert watch.batches == [*range(A_PASS)] * 2
        assert watch.iterations == [*range(1, A_PASS + 1)] * 2
        seen.append(watch.losses)
    np.testing.assert_allclose(*seen, 0, 1e-5)


@pytest.mark.thorough
def test_callbacks_of_keras(devices, same, tmp_path):
    def halved(epoch, rate):
        return rate * 0.5 if epoch else 0.1

    played = []
    for several in (1, 2):
        path = tmp_path / str(several)
        path.mkdir()
        callbacks = [
            keras.callbacks.LearningRateScheduler(halved),
            keras.callbacks.CSVLogger(path / "log.csv"),
            keras.callbacks.ModelCheckpoint(path / "{epoch}.weights.h5",
                                            save_weights_only=True),
            keras.callbacks.EarlyStopping("loss", patience=0, mode="max"),
        ]  # fmt: skip
        pruned = devices.pruned(several, network, sgd, levels=1)
        pruned.fit(
            *(X, Y),
            batch_size=BATCH,
            epochs=4,
            validation_data=(X[:31], Y[:31]),
            verbose=0,
            callbacks=callbacks,
        )
        played.append(pruned)
        with open(path / "log.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        told = [float(row["loss"]) for row in rows]
        kept = pruned.history.history["loss"][-len(told) :]
        np.testing.assert_allclose(told, kept, 0, 1e-6)
        assert (path / "1.weights.h5").exists()
        before = [variable.numpy() for variable in pruned.variables]
        last = max(path.glob("*.h5"), key=lambda each: each.stat().st_mtime_ns)
        pruned.load_weights(last)
        for variable, value in zip(pruned.variables, before, strict=True):
            for copy in copies(variable):
                np.testing.assert_array_equal(copy, value)
    same.all(*played)
    assert len(played[1].history.history["loss"]) < 8  # stopped early


@pytest.mark.thorough
def test_the_rate_is_reduced_where_it_no_longer_gets_better(devices, same):
    played, reached = [], set()
    for several in (1, 2):
        reduce = keras.callbacks.ReduceLROnPlateau(
            "loss", 0.1, patience=1, min_delta=10.0
        )
        pruned = devices.pruned(several, network, sgd, levels=1)
        fit = {"epochs": 4, "verbose": 0, "callbacks": [reduce]}
        pruned.fit(X, Y, batch_size=BATCH, **fit)
        rates = copies(pruned.optimizer._learning_rate)
        # How often a level reduces it differs between versions of Keras.
        assert max(rates) < 1e-3
        assert len(rates) == several
        reached.update(map(float, rates))
        played.append(pruned)
    assert len(reached) == 1
    same.all(*played)


# -------------------------------------------------------------------- the rest


def test_saved_and_loaded_under_another_strategy(devices, tmp_path):
    pruned = devices.pruned(2, network, sgd, levels=1)
    pruned.fit(X, Y, batch_size=BATCH, verbose=0)
    path = tmp_path / "model.keras"
    with devices.scope(2):
        pruned.save(path)
    expected = pruned.predict(X, verbose=0)
    for several in (1, 4):
        with devices.scope(several):
            loaded = keras.saving.load_model(path)
        assert loaded.mask.kept == pruned.mask.kept == 31
        for name in pruned.mask:
            np.testing.assert_array_equal(loaded.mask[name], pruned.mask[name])
        assert len(copies(loaded.trainable_variables[0])) == several
        found = loaded.predict(X, verbose=0)
        np.testing.assert_allclose(found, expected, 0, 1e-6)
        loaded.train_on_batch(X[:BATCH], Y[:BATCH])
        for name, mask in loaded.mask.items():
            for copy in copies(loaded.attachment.variables[name]):
                assert np.count_nonzero(copy[~mask]) == 0


@pytest.mark.parametrize("criterion", criteria.CRITERIA)
def test_every_criterion_finds_the_mask_of_one_device(devices, criterion):
    found = []
    for several in (1, 2):
        model = devices.build(several, network)
        start = weights.values(model)
        moved = np.random.default_rng(1)
        for value in model.trainable_variables:
            value.assign(value.numpy() + moved.normal(size=value.shape))
        found.append(
            lottery.find_mask(model, 0.6, criterion=criterion, start=start)
        )
    one, many = found
    assert one.kept == many.kept == 18
    for name in one:
        np.testing.assert_array_equal(one[name], many[name])


def test_a_loop_of_ones_own(devices):
    """`find_tickets` with a tape under `strategy.run`: clipped as one batch."""
    found = {}
    for several in (1, 2):
        model = devices.build(several, network)
        strategy = devices.strategy(several) or tf.distribute.get_strategy()
        found[several] = list(
            lottery.find_tickets(
                model,
                own_loop(strategy),
                lottery.IterativePruning(0.3, levels=1),
                steps=12,
            )
        )
    for one, many in zip(found[1], found[2], strict=True):
        for name, value in one.weights().items():
            np.testing.assert_array_equal(one.mask[name], many.mask[name])
            np.testing.assert_allclose(many.weights()[name], value, 0, 1e-5)
            assert np.count_nonzero(many.weights()[name][~many.mask[name]]) == 0
    assert [ticket.mask.kept for ticket in found[2]] == [45, 31]


def own_loop(strategy):
    """Returns a training loop as TensorFlow's guide writes it."""
    dataset = tf.data.Dataset.from_tensor_slices((X[:120], Y[:120]))
    parts = strategy.experimental_distribute_dataset(dataset.batch(BATCH))

    def train(model, first_step, last_step):
        trained = model.trainable_variables
        with strategy.scope():
            optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
            optimizer.build(trained)

        def on_a_replica(x, y):
            with tf.GradientTape() as tape:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    y, model(x, training=True)
                )
                loss = tf.nn.compute_average_loss(
                    losses, global_batch_size=BATCH
                )
            gradients = tape.gradient(loss, [v.value for v in trained])
            gradients = lottery.masked_gradients(gradients, model)
            optimizer.apply(gradients, trained)

        step = tf.function(lambda x, y: strategy.run(on_a_replica, args=(x, y)))
        several = list(parts)
        for number in range(first_step, last_step):
            step(*several[number % len(several)])

    return train


@pytest.mark.thorough
def test_masked_keras_fit_keeps_zeros_on_every_replica(devices):
    model = devices.build(2, network)
    with devices.scope(2):
        model.compile(keras.optimizers.Adam(0.01), LOSS(from_logits=True))
    mask = lottery.find_mask(model, 0.5)
    before = model.get_weights()
    with lottery.masked(model, mask):
        model.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0)
        named = weights.by_name(model)
        for name in mask:
            one, other = copies(named[name])
            np.testing.assert_array_equal(one, other)
            assert np.count_nonzero(one[~mask[name]]) == 0
    assert mask.kept == 23
    assert (
        np.abs(model.get_weights()[0] - before[0] * mask["hidden/kernel"]).max()
        > 0.01
    )
    model.fit(X, Y, batch_size=BATCH, verbose=0)  # let go of
    assert np.count_nonzero(model.get_weights()[0]) == 30


@pytest.mark.thorough
def test_schedules_of_tfmot_in_place(devices, same):
    schedule = functools.partial(
        tfmot_bridge.tfmot.sparsity.keras.PolynomialDecay,
        *(0.2, 0.6, 2, 12),
        frequency=4,
    )
    played = []
    for several in (1, 2):
        pruned = devices.pruned(several, network, clipped, schedule=schedule())
        pruned.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0)
        played.append(pruned)
    for name, mask in played[0].mask.items():
        np.testing.assert_array_equal(mask, played[1].mask[name])
    assert played[1].mask.kept == 18  # 40 % of each layer: 12 + 6
    same.weights(*played)


@pytest.mark.thorough
def test_one_device_strategy_changes_no_bit():
    ends = []
    for strategy in (None, tf.distribute.OneDeviceStrategy("CPU:0")):
        with (strategy or tf.distribute.get_strategy()).scope():
            keras.utils.set_random_seed(0)
            pruned = lottery.prune(network(), lottery.OneShot(0.5))
            pruned.compile(clipped(), LOSS(from_logits=True))
        pruned.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0)
        ends.append(pruned.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)
