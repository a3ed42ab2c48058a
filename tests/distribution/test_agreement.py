"""Replicas hold the same, and a difference is noticed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.errors import RunError
from keras_lottery.pruning import weights
from keras_lottery.training import agreement

BATCH = 20
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6)).astype("f")
Y = RNG.integers(0, 3, 60)
BYTES = {  # of the first numbers of a range
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "uint32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
}


def network():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5, activation="tanh", name="hidden"),
            keras.layers.Dense(3, name="output"),
        ]
    )


def momentum():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def copies(variable):
    """The value that each replica has."""
    held = getattr(variable, "value", variable)
    return [each.numpy() for each in held.values]


def flipped(array):
    """Yields an array with one bit changed, for each of its bits."""
    bits = np.unpackbits(np.frombuffer(array.tobytes(), np.uint8))
    for place in range(bits.size):
        other = bits.copy()
        other[place] ^= 1
        changed = np.packbits(other).tobytes()
        yield np.frombuffer(changed, array.dtype).reshape(array.shape)


def as_tensor(array, dtype):
    unsigned = tf.constant(array)
    return tf.bitcast(unsigned, dtype) if dtype != unsigned.dtype else unsigned


@pytest.mark.parametrize("dtype", BYTES)
def test_any_one_bit_changes_a_checksum(dtype):
    size = BYTES[dtype]
    kind = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[size]
    whole = np.random.default_rng(3).integers(0, 2 ** (8 * size) - 1, 6, kind)
    whole = whole.reshape(2, 3)
    digest = agreement.digest
    before = digest(as_tensor(whole, dtype))
    assert before == digest(as_tensor(whole.copy(), dtype))
    changed = [digest(as_tensor(a, dtype)) for a in flipped(whole)]
    assert len(changed) == 6 * 8 * size
    assert before not in changed


def test_any_one_entry_of_a_mask_changes_its_checksum():
    mask = RNG.integers(0, 2, (4, 5)).astype(bool)
    before = agreement.digest(tf.constant(mask))
    for place in range(mask.size):
        other = mask.copy()
        other.flat[place] ^= True
        assert agreement.digest(tf.constant(other)) != before


def test_checksums_of_no_numbers_and_of_one():
    none = agreement.digest(tf.zeros((0, 3)))
    assert none == agreement.digest(tf.zeros((3, 0)))
    one, other = tf.constant(1.5), tf.constant(-1.5)
    assert agreement.digest(one) != agreement.digest(other)


class Tamper(keras.callbacks.Callback):
    """Changes one bit of what the second replica has, in level 1."""

    def __init__(self, pick):
        super().__init__()
        self._pick, self._trainings = pick, 0

    def on_train_begin(self, logs=None):
        """Counts the levels."""
        self._trainings += 1

    def on_epoch_end(self, epoch, logs=None):
        """Changes it."""
        if self._trainings == 2 and epoch == 1:
            found = self._pick(self.model)
            held = getattr(found, "value", found)
            flip_a_bit(held.values[1])


def flip_a_bit(copy):
    """Writes into the variable of one replica."""
    array = np.array(copy.numpy())
    last = array.reshape(-1)[-1:]
    if array.dtype == bool:
        last[:] = ~last
    else:
        last.view(np.uint8)[0] ^= 1
    copy.assign(array)


PLACES = {
    "output/kernel": lambda m: weights.by_name(m.inner)["output/kernel"],
    "hidden/bias": lambda m: weights.by_name(m.inner)["hidden/bias"],
    "the mask of output/kernel": lambda m: m.attachment.masks["output/kernel"],
    r"optimizer: (?i:sgd)\w*/\w*output_kernel_momentum": lambda m: (
        m.optimizer.momentums[2]
    ),
    r"optimizer: (?i:sgd)\w*/learning_rate": lambda m: m.optimizer.variables[1],
}


@pytest.mark.parametrize("named", PLACES)
def test_one_bit_of_one_replica_stops_the_lottery(devices, named):
    pruned = devices.pruned(2, network, momentum)
    told = rf"1 variables are not the same on all replicas \({named};"
    with pytest.raises(RunError, match=told) as caught:
        pruned.fit(
            *(X, Y),
            batch_size=BATCH,
            epochs=2,
            verbose=0,
            callbacks=[Tamper(PLACES[named])],
        )
    assert "not kept" in str(caught.value)
    assert [ticket.level for ticket in pruned.tickets] == [0]


def normalised(momentum=0.5):
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.BatchNormalization(momentum=momentum, name="norm"),
            keras.layers.Dense(3, name="output"),
        ]
    )


def standing_still():
    return keras.optimizers.SGD(0.0)


def statistics_by_hand(several, epochs, momentum=0.5):
    """Each replica those of its own rows; after an epoch their mean.

    Args:
        several: Number of replicas.
        epochs: Lists of batches, which are lists of what each replica has.
        momentum: Of the moving averages.
    """
    means, variances = np.zeros((several, 6)), np.ones((several, 6))
    for batches in epochs:
        for replica, rows in [each for b in batches for each in enumerate(b)]:
            if len(rows):
                means[replica] *= momentum
                means[replica] += (1 - momentum) * rows.mean(0)
                variances[replica] *= momentum
                variances[replica] += (1 - momentum) * rows.var(0)
        means[:], variances[:] = means.mean(0), variances.mean(0)
    return means[0], variances[0]


CUTS = {  # rows of a batch, replicas: how arrays are cut
    (20, 2): [10, 20],
    (7, 2): [4, 7],
    (2, 3): [1, 2, 2],
}


@pytest.mark.parametrize("rows, several", CUTS)
def test_statistics_are_the_mean_over_replicas(devices, rows, several):
    pruned = devices.pruned(
        *(several, normalised, standing_still), compile_with={"metrics": []}
    )
    norm = pruned.inner.get_layer("norm")
    x, y = X[:rows], Y[:rows]
    batch = np.split(x, CUTS[rows, several][:-1])
    expected = statistics_by_hand(several, [[batch]] * 2)
    pruned.fit(x, y, batch_size=rows, epochs=2, shuffle=False, verbose=0)
    for variable, value in zip(
        (norm.moving_mean, norm.moving_variance), expected, strict=True
    ):
        held = copies(variable)
        assert len(held) == several
        np.testing.assert_allclose(held[0], value, 1e-5, 1e-6)
        for other in held[1:]:
            np.testing.assert_array_equal(held[0], other)
    for ticket in pruned.tickets:
        told = ticket.end_state["norm/moving_mean"]
        np.testing.assert_allclose(told, expected[0], 1e-5, 1e-6)


def test_replicas_without_rows_of_a_dataset_keep_their_statistics(devices):
    """8 rows, then one: it is the first replica's."""
    pruned = devices.pruned(4, normalised, standing_still, levels=1)
    dataset = tf.data.Dataset.from_tensor_slices((X[:9], Y[:9])).batch(8)
    expected = statistics_by_hand(
        4, [[np.split(X[:8], 4), [X[8:9], [], [], []]]]
    )
    pruned.fit(dataset, epochs=1, verbose=0)
    norm = pruned.inner.get_layer("norm")
    np.testing.assert_allclose(copies(norm.moving_mean)[3], expected[0], 1e-5)
    np.testing.assert_allclose(
        copies(norm.moving_variance)[3], expected[1], 1e-5
    )


class Statistics(keras.callbacks.Callback):
    """Notes what replicas hold while training, and where it is measured."""

    def __init__(self):
        super().__init__()
        self.trained, self.tested, self.kept = [], [], []

    def _differ(self):
        norm = self.model.inner.get_layer("norm")
        one, other = copies(norm.moving_mean)
        return bool((one != other).any())

    def on_train_batch_end(self, batch, logs=None):
        """After a step."""
        self.trained.append(self._differ())

    def on_test_begin(self, logs=None):
        """Before validation."""
        self.tested.append(self._differ())

    def on_epoch_end(self, epoch, logs=None):
        """Where checkpoints are written."""
        self.kept.append(self._differ())


def test_statistics_are_settled_before_they_are_measured_or_kept(devices):
    pruned = devices.pruned(2, normalised, momentum, levels=1)
    watch = Statistics()
    pruned.fit(
        *(X, Y),
        batch_size=BATCH,
        epochs=2,
        verbose=0,
        validation_data=(X[:9], Y[:9]),
        callbacks=[watch],
    )
    assert watch.trained == [True] * 12
    assert watch.tested == [False] * 4
    assert watch.kept == [False] * 4
    told = pruned.history.history["val_loss"][-1]
    measured = pruned.evaluate(X[:9], Y[:9], verbose=0)[0]
    np.testing.assert_allclose(told, measured, 0, 1e-6)


def test_what_is_frozen_keeps_its_bits(devices):
    """The mean of three equal numbers need not be that number."""

    def frozen():
        model = keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(6, name="frozen"),
                keras.layers.BatchNormalization(name="norm"),
                keras.layers.Dense(3, name="output"),
            ]
        )
        for name in ("frozen", "norm"):
            layer = model.get_layer(name)
            layer.set_weights(
                [RNG.uniform(0.1, 1, w.shape) for w in layer.get_weights()]
            )
            layer.trainable = False
        return model

    pruned = devices.pruned(3, frozen, momentum, levels=1)
    held = pruned.inner.non_trainable_variables
    assert len(held) == 6
    before = [variable.numpy() for variable in held]
    pruned.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0)
    for variable, value in zip(held, before, strict=True):
        assert len(copies(variable)) == 3
        for copy in copies(variable):
            np.testing.assert_array_equal(copy, value)


def test_levels_are_trained_with_one_mask_on_all_replicas(devices):
    pruned = devices.pruned(3, network, momentum)
    pruned.fit(X, Y, batch_size=BATCH, epochs=1, verbose=0)
    assert pruned.mask.kept == 22  # of 45: 30 % less, twice
    for name, mask in pruned.attachment.masks.items():
        kernel = weights.by_name(pruned.inner)[name]
        for copy, values in zip(copies(mask), copies(kernel), strict=True):
            np.testing.assert_array_equal(copy, pruned.mask[name])
            assert np.count_nonzero(values[~copy]) == 0


def test_check_same_tells_how_many_and_three_of_them(devices):
    model = devices.build(2, network)
    named = weights.by_name(model)
    agreement.check_same(model, named)
    for variable in named.values():
        flip_a_bit(variable.value.values[1])
    with pytest.raises(RunError, match=r"^4 variables .*hidden/bias"):
        agreement.check_same(model, named)
    one = devices.build(1, network)
    agreement.check_same(one, weights.by_name(one))


def test_a_mask_that_is_set_is_that_of_every_replica(devices):
    model = devices.build(2, network)
    mask = lottery.find_mask(model, 0.5)
    lottery.attach(model, mask)
    held = weights.by_name(model)
    for name in mask:
        for copy in copies(held[name]):
            np.testing.assert_array_equal(copy != 0, mask[name])
    lottery.detach(model)
