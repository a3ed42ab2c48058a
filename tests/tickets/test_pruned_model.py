"""PrunedModel: every kind of model and input, callbacks, saving, errors."""

import json
import re
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.pruning import weights

ROWS, BATCH = 24, 8
A_EPOCH = ROWS // BATCH


def dense(units, seed, name, **more):
    """Returns a Dense layer that begins the same at every call."""
    initializer = keras.initializers.GlorotUniform(seed=seed)
    return keras.layers.Dense(
        units, kernel_initializer=initializer, name=name, **more
    )


def network(**more):
    """Returns a new network with 40 + 24 weights to prune."""
    return keras.Sequential(
        [
            keras.Input((5,)),
            dense(8, 1, "hidden", activation="tanh", **more),
            dense(3, 2, "output", **more),
        ],
        name="net",
    )


def stateful():
    """Returns a new network with statistics and a seed generator."""
    return keras.Sequential(
        [
            keras.Input((5,)),
            dense(8, 1, "hidden", activation="tanh"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.3, seed=3, name="drop"),
            dense(3, 2, "output"),
        ],
        name="net",
    )


def data(rows=ROWS):
    """Returns x and y."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 5)).astype(np.float32)
    return x, rng.integers(0, 3, rows)


def loss():
    """Returns a new loss."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def pruned_network(schedule=None, model=None, optimizer=None, **choices):
    """Returns a compiled pruned model."""
    schedule = schedule or lottery.IterativePruning(0.5, levels=2)
    pruned = lottery.prune(model or network(), schedule, **choices)
    optimizer = optimizer or keras.optimizers.SGD(0.1, momentum=0.9)
    pruned.compile(optimizer, loss(), metrics=["accuracy"])
    return pruned


def fit(pruned, *callbacks, **arguments):
    """Fits two epochs a level on `data`."""
    arguments = {"epochs": 2, "batch_size": BATCH, "verbose": 0, **arguments}
    return pruned.fit(*data(), callbacks=list(callbacks), **arguments)


def everything(pruned):
    """Returns every variable of the inner model and the optimizer."""
    found = {n: v.numpy() for n, v in weights.by_name(pruned.inner).items()}
    for index, variable in enumerate(pruned.optimizer.variables):
        found[f"optimizer/{index}"] = variable.numpy()
    return {name: np.array(value) for name, value in found.items()}


def same_bits(one, other):
    """Asserts that two dicts of arrays are the same, bit for bit."""
    assert set(one) == set(other)
    for name in one:
        here, there = np.asarray(one[name]), np.asarray(other[name])
        assert here.tobytes() == there.tobytes(), name


def same_tickets(one, other):
    """Asserts that two tickets hold the same values."""
    assert one.level == other.level
    assert one.mask == other.mask
    for part in ("start", "start_state", "end", "end_state"):
        same_bits(getattr(one, part), getattr(other, part))


def leaks(pruned):
    """Returns how many removed weights are not zero."""
    named, mask = weights.by_name(pruned.inner), pruned.mask
    return sum(np.count_nonzero(named[n].numpy()[~mask[n]]) for n in mask)


class Watch(keras.callbacks.Callback):
    """Notes levels, removed weights that are not zero, and events."""

    def __init__(self):
        super().__init__()
        self.leaks, self.levels, self.events = [], [], []
        self.masks = []

    def on_train_begin(self, logs=None):
        """Notes it, and the rate."""
        rate = float(self.model.optimizer.learning_rate)
        self.events.append(("begin", self.model.level, rate))

    def on_train_end(self, logs=None):
        """Notes it."""
        self.events.append(("end", self.model.level))

    def on_train_batch_end(self, batch, logs=None):
        """Notes zeros and level."""
        self.leaks.append(leaks(self.model))
        self.levels.append(self.model.level)
        self.masks.append(self.model.mask)

    def on_epoch_begin(self, epoch, logs=None):
        """Notes it."""
        self.events.append(("epoch", epoch))


# ------------------------------------------------------------ kinds of models


@keras.saving.register_keras_serializable("test_pruned_model")
class Twice(keras.Model):
    """A subclassed model with a list, a nested model and a shared layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.Dense(4)
        self.shared = keras.layers.Dense(4, activation="tanh")
        self.several = [keras.layers.Dense(4), keras.layers.Dense(3)]
        self.inside = keras.Sequential([keras.layers.Dense(4, name="deep")])

    def call(self, inputs):
        """Uses the shared layer twice."""
        x = self.shared(self.shared(self.first(inputs)))
        for layer in [self.inside, *self.several]:
            x = layer(x)
        return x


def subclassed():
    """Returns it, built."""
    model = Twice()
    model(np.zeros((1, 5), np.float32))
    return model


def functional():
    """Returns a graph with a branch."""
    inputs = keras.Input((5,))
    x = keras.layers.Dense(4, activation="tanh", name="a")(inputs)
    y = keras.layers.Dense(4, name="b")(x)
    outputs = keras.layers.Dense(3, name="c")(keras.layers.add([x, y]))
    return keras.Model(inputs, outputs)


def nested():
    """Returns models in a model."""
    block = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4, name="dense")], name="block"
    )
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(4, name="dense"),
            block,
            keras.layers.Dense(3, name="out"),
        ]
    )


def shared():
    """Returns a graph that calls one layer three times."""
    inputs = keras.Input((5,))
    layer = keras.layers.Dense(5, activation="tanh", name="again")
    x = layer(layer(layer(inputs)))
    return keras.Model(inputs, keras.layers.Dense(3, name="out")(x))


@keras.saving.register_keras_serializable("test_pruned_model")
class Raw(keras.layers.Layer):
    """A layer with a weight of its own, under a name of its own."""

    def build(self, input_shape):
        """Adds it."""
        self.matrix = self.add_weight(shape=(input_shape[-1], 3), name="w")

    def call(self, inputs):
        """Multiplies."""
        return keras.ops.matmul(inputs, self.matrix)


def custom_layer():
    """Returns a model around it."""
    return keras.Sequential([keras.Input((5,)), Raw(name="raw")])


def recurrent():
    """Returns an LSTM and a GRU over steps of one number."""
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Reshape((5, 1)),
            keras.layers.LSTM(3, return_sequences=True, name="lstm"),
            keras.layers.GRU(3, name="gru"),
        ]
    )


@keras.saving.register_keras_serializable("test_pruned_model")
class OwnStep(keras.Sequential):
    """A model whose step doubles the gradients and counts itself."""

    def train_step(self, data):
        """Runs one step."""
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            prediction = self(x, training=True)
            value = self.compute_loss(x=x, y=y, y_pred=prediction)
        found = tape.gradient(value, self.trainable_variables)
        found = [2 * gradient for gradient in found]
        self.optimizer.apply(found, self.trainable_variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(value)
            else:
                metric.update_state(y, prediction)
        return {m.name: m.result() for m in self.metrics} | {"own": value}


def own_step():
    """Returns it, built."""
    layers = [dense(8, 1, "hidden", activation="tanh"), dense(3, 2, "output")]
    return OwnStep([keras.Input((5,)), *layers], name="own")


KINDS = {
    "sequential": (network, ["hidden/kernel", "output/kernel"], 64),
    "functional": (functional, ["a/kernel", "b/kernel", "c/kernel"], 48),
    "subclassed": (
        subclassed,
        [
            "first/kernel",
            "shared/kernel",
            "several.0/kernel",
            "several.1/kernel",
            "inside/deep/kernel",
        ],
        80,
    ),
    "nested": (
        nested,
        ["dense/kernel", "block/dense/kernel", "out/kernel"],
        48,
    ),
    "shared": (shared, ["again/kernel", "out/kernel"], 40),
    "custom layer": (custom_layer, ["raw/w"], 15),
    "recurrent": (
        recurrent,
        [
            "lstm/cell/kernel",
            "lstm/cell/recurrent_kernel",
            "gru/cell/kernel",
            "gru/cell/recurrent_kernel",
        ],
        12 + 36 + 27 + 27,
    ),
    "own step": (own_step, ["hidden/kernel", "output/kernel"], 64),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind):
    """Counts, zeros after every step, the same outputs as the inner model."""
    make, names, size = KINDS[kind]
    model = make()
    pruned = pruned_network(lottery.OneShot(0.5), model)
    assert sorted(pruned.mask) == sorted(names)
    assert pruned.mask.size == size
    assert len(pruned.trainable_variables) == len(model.trainable_variables)
    before = {n: v.numpy() for n, v in weights.by_name(model).items()}
    watch = Watch()
    history = fit(pruned, watch, epochs=1)
    assert watch.leaks == [0] * 2 * A_EPOCH
    assert pruned.mask.kept == size - round(size / 2)
    assert history.history["level"] == [0, 1]
    assert ("own" in history.history) == (kind == "own step")
    x, y = data()
    after = weights.by_name(model)
    for name, mask in pruned.mask.items():  # what is kept has been trained
        moved = after[name].numpy() != before[name]
        assert moved[mask].any(), name
    assert pruned.predict(x, verbose=0).tobytes() == (
        model.predict(x, verbose=0).tobytes()
    )
    assert pruned.strip() is model


def test_several_inputs_and_outputs():
    """Dicts of inputs, of outputs, of losses and of metrics."""
    left, right = (
        keras.Input((2,), name="left"),
        keras.Input((3,), name="right"),
    )
    x = keras.layers.concatenate([left, right])
    x = dense(8, 1, "hidden", activation="tanh")(x)
    outputs = {"kind": dense(3, 2, "kind")(x), "size": dense(1, 3, "size")(x)}
    model = keras.Model({"left": left, "right": right}, outputs)
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    pruned.compile(
        "adam",
        {"kind": loss(), "size": "mse"},
        loss_weights={"kind": 1.0, "size": 0.5},
        metrics={"kind": ["accuracy"], "size": ["mae"]},
    )
    x, y = data()
    inputs = {"left": x[:, :2], "right": x[:, 2:]}
    targets = {"kind": y, "size": x[:, :1]}
    watch = Watch()
    history = pruned.fit(
        inputs, targets, epochs=1, batch_size=BATCH, verbose=0,
        validation_split=0.25, callbacks=[watch],
    )  # fmt: skip
    assert watch.leaks == [0] * len(watch.leaks)
    for column in ("kind_loss", "size_loss", "kind_accuracy", "size_mae"):
        assert len(history.history[column]) == 2
        assert len(history.history["val_" + column]) == 2
    predicted, expected = pruned.predict(inputs, verbose=0), model(inputs)
    for name in outputs:
        close = np.abs(predicted[name] - expected[name].numpy()).max()
        assert close < 1e-6
    named = pruned.evaluate(inputs, targets, verbose=0, return_dict=True)
    assert "size_mae" in named


def test_lists_of_inputs_and_outputs():
    """By position."""
    inputs = [keras.Input((2,)), keras.Input((3,))]
    x = keras.layers.concatenate(inputs)
    x = dense(8, 1, "hidden", activation="tanh")(x)
    model = keras.Model(
        inputs, [dense(3, 2, "kind")(x), dense(1, 3, "size")(x)]
    )
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    pruned.compile("sgd", [loss(), "mse"])
    x, y = data()
    history = pruned.fit(
        [x[:, :2], x[:, 2:]], [y, x[:, :1]], batch_size=BATCH, verbose=0,
        validation_split=0.5,
    )  # fmt: skip
    assert len(history.history["loss"]) == 2
    assert leaks(pruned) == 0


@pytest.mark.thorough
def test_mobile_net():
    """One of `keras.applications`, with depthwise kernels."""
    model = keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), classes=4
    )
    pruned = lottery.prune(model, lottery.OneShot(0.8), allocation="layerwise")
    pruned.compile("sgd", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 32, 32, 3)).astype(np.float32)
    watch = Watch()
    pruned.fit(
        x, rng.integers(0, 4, 8), batch_size=8, verbose=0, callbacks=[watch]
    )
    size = sum(
        int(np.prod(v.shape))
        for v in model.trainable_variables
        if len(v.shape) > 1
    )
    assert pruned.mask.size == size > 2_000_000
    assert pruned.mask.kept == size - round(size * 0.8)
    assert watch.leaks == [0, 0]
    assert any("depthwise" in name for name in pruned.mask)


def test_own_step_is_the_one_that_runs():
    """Doubled gradients are those of a doubled rate."""
    rate = keras.optimizers.SGD
    own = pruned_network(lottery.OneShot(0.5), own_step(), rate(0.125))
    plain = pruned_network(lottery.OneShot(0.5), network(), rate(0.25))
    for pruned in (own, plain):
        fit(pruned)
    same_tickets(own.tickets[1], plain.tickets[1])


# -------------------------------------------------------------------- inputs


class Batches(keras.utils.PyDataset):
    """Rows in order."""

    def __len__(self):
        return A_EPOCH

    def __getitem__(self, index):
        x, y = data()
        rows = slice(index * BATCH, (index + 1) * BATCH)
        return x[rows], y[rows]


def endless():
    """Yields the same batches again and again."""
    while True:
        yield from (Batches()[index] for index in range(A_EPOCH))


def of_arrays():
    """Returns the arguments of `fit` for rows in order, as arrays."""
    x, y = data()
    return {"x": x, "y": y, "batch_size": BATCH, "shuffle": False}


INPUTS = {
    "tensors": lambda: {
        **of_arrays(),
        "x": tf.constant(data()[0]),
        "y": tf.constant(data()[1]),
    },
    "float64": lambda: {**of_arrays(), "x": data()[0].astype(np.float64)},
    "tf.data": lambda: {
        "x": tf.data.Dataset.from_tensor_slices(data()).batch(BATCH)
    },
    "endless tf.data": lambda: {
        "x": tf.data.Dataset.from_tensor_slices(data()).batch(BATCH).repeat(),
        "steps_per_epoch": A_EPOCH,
    },
    "PyDataset": lambda: {"x": Batches(), "shuffle": False},
    "sample_weight of ones": lambda: {
        **of_arrays(),
        "sample_weight": np.ones(ROWS, np.float32),
    },
    "class_weight of ones": lambda: {
        **of_arrays(),
        "class_weight": {0: 1.0, 1: 1.0, 2: 1.0},
    },
    "half epochs": lambda: {
        **of_arrays(),
        "steps_per_epoch": 1,
        "epochs": 2 * A_EPOCH,
    },
}


@pytest.fixture(scope="module")
def from_arrays():
    """The tickets that arrays give, rows in order."""
    pruned = pruned_network()
    pruned.fit(**of_arrays(), epochs=2, verbose=0)
    return pruned.tickets


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs(kind, from_arrays):
    """The same rows give the same tickets, however they come."""
    pruned = pruned_network()
    pruned.fit(**{"epochs": 2, "verbose": 0, **INPUTS[kind]()})
    assert len(pruned.tickets) == 3
    for one, other in zip(pruned.tickets, from_arrays):
        assert one.mask == other.mask
        for name in one.end:
            close = np.abs(one.end[name] - other.end[name]).max()
            assert close < 1e-6, name


def test_a_generator(from_arrays):
    """It only goes on: level 0 is the same, later levels get other rows."""
    pruned, watch = pruned_network(), Watch()
    pruned.fit(
        endless(), steps_per_epoch=A_EPOCH, epochs=2, verbose=0,
        callbacks=[watch],
    )  # fmt: skip
    assert watch.levels == [0] * 6 + [1] * 6 + [2] * 6
    assert watch.leaks == [0] * 18
    end = pruned.tickets[0].end
    for name in end:
        assert np.abs(end[name] - from_arrays[0].end[name]).max() < 1e-6


def test_weights_of_samples_and_classes():
    """Equal weights by class, given either way; not those of no weights."""
    by_class = {0: 3.0, 1: 0.5, 2: 0.0}
    x, y = data()
    by_sample = np.array([by_class[label] for label in y], np.float32)
    ends = []
    for more in ({"class_weight": by_class}, {"sample_weight": by_sample}, {}):
        pruned = pruned_network(lottery.OneShot(0.5))
        fit(pruned, **more)
        ends.append(pruned.tickets[0].end)
    for name in ends[0]:
        assert np.abs(ends[0][name] - ends[1][name]).max() < 1e-6
        assert np.abs(ends[0][name] - ends[2][name]).max() > 1e-3


def test_validation_split_is_keras_s():
    """The last rows, before shuffling; and the arrays stay what they are."""
    x, y = data()
    plain = pruned_network(lottery.OneShot(0.5))
    plain.fit(
        x[:18], y[:18], validation_data=(x[18:], y[18:]), epochs=2,
        batch_size=6, verbose=0,
    )  # fmt: skip
    split = pruned_network(lottery.OneShot(0.5))
    history = split.fit(
        x, y, validation_split=0.25, epochs=2, batch_size=6, verbose=0
    )
    assert history.history == plain.history.history
    assert len(history.history["val_accuracy"]) == 4
    for one, other in zip(split.tickets, plain.tickets):
        same_tickets(one, other)
        assert one.metrics == other.metrics
    row = min(range(2), key=lambda epoch: history.history["val_loss"][epoch])
    metrics = split.tickets[0].metrics
    assert metrics["early_step"] == 3 * (row + 1)
    assert metrics["val_accuracy"] == history.history["val_accuracy"][row]
    assert metrics["last_step"] == 6
    assert metrics["last_val_loss"] == history.history["val_loss"][1]


def test_targets_may_be_none():
    """A model that computes its own loss."""

    class Autoencoder(keras.Model):
        def __init__(self):
            super().__init__()
            self.inside = keras.layers.Dense(3, activation="tanh")
            self.outside = keras.layers.Dense(5)

        def call(self, inputs):
            outputs = self.outside(self.inside(inputs))
            self.add_loss(keras.ops.mean((outputs - inputs) ** 2))
            return outputs

    model = Autoencoder()
    model(np.zeros((1, 5), np.float32))
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    pruned.compile(keras.optimizers.SGD(0.1))
    history = pruned.fit(data()[0], epochs=2, batch_size=BATCH, verbose=0)
    losses = history.history["loss"]
    assert losses[1] < losses[0]
    assert pruned.tickets[1].mask.kept == 15


def test_a_smaller_last_batch():
    """20 rows in batches of 8: the third has 4; k lies before it."""
    x, y = data(20)
    watch = Watch()
    pruned = pruned_network(lottery.OneShot(0.5), rewind_step=5)
    pruned.fit(x, y, epochs=2, batch_size=8, verbose=0, callbacks=[watch])
    assert watch.levels == [0] * 6 + [1]
    assert pruned.tickets[1].metrics["last_step"] == 6


@pytest.mark.parametrize("x", [Batches(), endless()])
def test_these_inputs_start_at_an_epoch(x):
    """Rewinding into an epoch is refused before anything is trained."""
    pruned = pruned_network(rewind_step=A_EPOCH + 1)
    before = pruned.inner.get_weights()
    with pytest.raises(ValueError, match="Step 4 lies inside an epoch of 3"):
        pruned.fit(x, steps_per_epoch=A_EPOCH, epochs=2, verbose=0)
    for one, other in zip(before, pruned.inner.get_weights()):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("kind", ["tf.data", "endless tf.data"])
def test_a_dataset_starts_inside_an_epoch(kind, from_arrays):
    """The same tickets as from arrays, rewinding to step 4."""
    tickets = []
    for arguments in (of_arrays(), INPUTS[kind]()):
        pruned = pruned_network(rewind_step=A_EPOCH + 1)
        pruned.fit(**{"epochs": 2, "verbose": 0, **arguments})
        tickets.append(pruned.tickets)
    for one, other in zip(*tickets):
        same_tickets(one, other)
        same = one.mask == from_arrays[one.level].mask
        assert same or one.level == 2


def test_a_length_that_is_not_known():
    """What to pass is said."""
    pruned = pruned_network()
    with pytest.raises(ValueError, match="pass `steps_per_epoch`"):
        pruned.fit(endless(), verbose=0)
    dataset = tf.data.Dataset.from_tensor_slices(data()).batch(8).repeat()
    with pytest.raises(ValueError, match="pass `steps_per_epoch`"):
        pruned.fit(dataset, verbose=0)


# ------------------------------------------------------- callbacks and History


class TestCallbacks:
    """Each level is one complete Keras training."""

    def test_every_level_begins_and_ends(self):
        """Events in order; the epochs of a level that starts at step 4."""
        watch = Watch()
        history = fit(pruned_network(rewind_step=4), watch)
        level = ["begin", 0, 1, "end"], ["begin", 1, "end"]
        seen = [e[0] if e[0] != "epoch" else e[1] for e in watch.events]
        assert seen == [*level[0], *level[1], *level[1]]
        assert watch.levels == [0] * 6 + [1] * 2 + [2] * 2
        assert history.epoch == [0, 1, 1, 1]
        assert history.history["level"] == [0, 0, 1, 2]

    def test_history(self):
        """Every column has a row per epoch; sparsities are those reached."""
        pruned = pruned_network()
        x, y = data()
        history = fit(pruned, validation_data=(x, y))
        assert isinstance(history, keras.callbacks.History)
        assert set(history.history) == {
            "loss", "accuracy", "val_loss", "val_accuracy", "level", "sparsity",
        }  # fmt: skip
        assert {len(column) for column in history.history.values()} == {6}
        assert history.history["level"] == [0, 0, 1, 1, 2, 2]
        assert history.history["sparsity"] == [0, 0, 0.5, 0.5, 0.75, 0.75]
        assert history.epoch == [0, 1] * 3
        assert pruned.history is history

    def test_early_stopping_ends_the_level(self):
        """And the next level begins, with the callback's state anew."""
        watch, pruned = Watch(), pruned_network()
        stop = keras.callbacks.EarlyStopping(
            "loss", min_delta=9.0, restore_best_weights=True
        )
        history = fit(pruned, watch, stop, epochs=9)
        assert (pruned.level, pruned.mask.kept, leaks(pruned)) == (2, 16, 0)
        assert history.history["level"] == [0, 0, 1, 1, 2, 2]
        assert [e for e in watch.events if e[0] == "end"] == [
            ("end", 0), ("end", 1), ("end", 2),
        ]  # fmt: skip

    def test_early_stopping_before_the_rewind_step(self):
        """There is then nothing to rewind to: an error, no wrong ticket."""
        stop = keras.callbacks.EarlyStopping("loss", min_delta=9.0)
        pruned = pruned_network(rewind_step=7)
        with pytest.raises(ValueError, match="before rewind_step=7"):
            fit(pruned, stop, epochs=3)
        assert pruned.tickets == ()

    def test_initial_epoch(self):
        """As in Keras, in every level."""
        watch = Watch()
        history = fit(pruned_network(), watch, epochs=3, initial_epoch=1)
        assert history.epoch == [1, 2] * 3
        assert watch.levels == [0] * 6 + [1] * 6 + [2] * 6

    def test_a_reduced_learning_rate_goes_back(self):
        """Every level begins with the compiled rate."""
        watch = Watch()
        reduce = keras.callbacks.ReduceLROnPlateau(
            "loss", factor=0.5, patience=0, min_delta=100.0
        )
        pruned = pruned_network()
        history = fit(pruned, watch, reduce, epochs=3)
        begins = [e for e in watch.events if e[0] == "begin"]
        rate = float(np.float32(0.1))
        assert begins == [("begin", level, rate) for level in range(3)]
        assert len(set(history.history["learning_rate"])) > 1

    def test_a_learning_rate_scheduler_counts_per_level(self):
        """It sees the epochs of the level."""
        seen = []

        def schedule(epoch, rate):
            seen.append(epoch)
            return 0.1 / (epoch + 1)

        fit(pruned_network(), keras.callbacks.LearningRateScheduler(schedule))
        assert seen == [0, 1] * 3

    def test_model_checkpoint(self, tmp_path):
        """Files of every level, whole models with their masks."""
        path = str(tmp_path / "{epoch}.keras")
        pruned = pruned_network()
        fit(pruned, keras.callbacks.ModelCheckpoint(path))
        loaded = keras.models.load_model(tmp_path / "2.keras")
        assert loaded.level == 2
        assert loaded.mask == pruned.mask
        same_bits(everything(loaded), everything(pruned))

    def test_one_callback_without_a_list(self):
        """As Keras takes it."""
        watch = Watch()
        pruned_network(lottery.OneShot(0.5)).fit(
            *data(), verbose=0, callbacks=watch
        )
        assert watch.levels == [0, 1]

    def test_a_callback_list_is_refused(self):
        """It is bound to one training."""
        with pytest.raises(ValueError, match="as a list.*many"):
            pruned_network().fit(
                *data(), callbacks=keras.callbacks.CallbackList([])
            )

    def test_progress_is_shown(self, capsys):
        """Level, kept weights and density, where Keras shows progress."""
        fit(pruned_network(lottery.OneShot(0.25)), epochs=1, verbose=2)
        shown = capsys.readouterr().out
        assert "Level 0: 64 of 64 weights (100.0%)" in shown
        assert "Level 1: 48 of 64 weights (75.0%)" in shown
        fit(pruned_network(lottery.OneShot(0.25)), epochs=1, verbose=0)
        assert capsys.readouterr().out == ""


# ------------------------------------------------------------- going on, order


class Interrupt(keras.callbacks.Callback):
    """Presses Ctrl-C once, in the second epoch of a level."""

    def __init__(self, level):
        super().__init__()
        self.level, self.armed = level, True

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Raises."""
        if self.armed and (self.model.level, self.epoch) == (self.level, 1):
            self.armed = False
            raise KeyboardInterrupt


class TestGoingOn:
    """An interrupted lottery goes on as if it had not been interrupted."""

    @pytest.mark.parametrize(
        "rewind, step, level",
        [
            ("weights", 0, 0),
            ("weights", 0, 1),
            ("weights", 4, 1),
            pytest.param("weights", 2, 0, marks=pytest.mark.thorough),
            ("learning_rate", 4, 2),
            pytest.param("fine_tune", 0, 1, marks=pytest.mark.thorough),
            pytest.param("continue", 0, 1, marks=pytest.mark.thorough),
        ],
    )
    def test_after_a_keyboard_interrupt(self, rewind, step, level):
        """Tickets and every variable, bit for bit."""
        ends = []
        for interrupt in (None, Interrupt(level)):
            rates = keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.7)
            pruned = pruned_network(
                model=stateful(),
                optimizer=keras.optimizers.SGD(rates, momentum=0.9),
                rewind=rewind,
                rewind_step=step,
            )
            if interrupt is not None:
                with pytest.raises(KeyboardInterrupt):
                    fit(pruned, interrupt)
                assert len(pruned.tickets) == level
                assert leaks(pruned) == 0
            history = fit(pruned)
            ends.append((pruned.tickets, everything(pruned), history))
        (whole, end, _), (tickets, values, history) = ends
        assert len(whole) == len(tickets) == 3
        for one, other in zip(tickets, whole):
            same_tickets(one, other)
            assert one.metrics == other.metrics
        same_bits(values, end)
        assert history.history["level"][0] == level

    def test_all_levels_played(self):
        """An error that says what can be done instead."""
        pruned = pruned_network()
        fit(pruned)
        before = everything(pruned)
        with pytest.raises(ValueError, match="All 2 levels are played"):
            fit(pruned)
        same_bits(everything(pruned), before)

    def test_a_ticket_is_what_the_model_holds_afterwards(self):
        """The last level's trained weights."""
        pruned = pruned_network()
        fit(pruned)
        last = pruned.tickets[-1]
        now = {n: v.numpy() for n, v in weights.by_name(pruned.inner).items()}
        same_bits({**last.weights("end"), **last.end_state}, now)
        assert pruned.mask == last.mask
        assert pruned.level == 2

    def test_continue_from(self, tmp_path):
        """In a new model, from a file, equal to the uninterrupted lottery."""
        whole = pruned_network(model=stateful())
        fit(whole)
        whole.tickets[1].save(tmp_path / "ticket")
        pruned = pruned_network(model=stateful())
        pruned.continue_from(lottery.Ticket.load(tmp_path / "ticket"))
        assert pruned.level == 1
        fit(pruned)
        (ticket,) = pruned.tickets
        same_tickets(ticket, whole.tickets[2])
        same_bits(everything(pruned), everything(whole))

    def test_continue_from_in_a_model_that_was_trained(self):
        """The point of step 0 has fresh slots, however warm they are now."""
        whole = pruned_network(model=stateful())
        fit(whole)
        whole.continue_from(whole.tickets[1])
        fit(whole)
        same_tickets(whole.tickets[-1], whole.tickets[2])
        assert len(whole.tickets) == 4

    def test_two_optimizers_in_turn(self):
        """Compiling anew between two fits is an error or changes nothing."""
        pruned = pruned_network()
        with pytest.raises(KeyboardInterrupt):
            fit(pruned, Interrupt(1))
        pruned.compile("adam", loss())
        with pytest.raises(ValueError, match="compiled with another optimizer"):
            fit(pruned)


# --------------------------------------------------------- evaluating, tracing


def test_evaluate_and_predict_are_the_inner_model_s():
    """Equal numbers, dropout off."""
    pruned = pruned_network(lottery.OneShot(0.5), stateful())
    fit(pruned)
    x, y = data()
    inner = pruned.inner
    assert pruned.predict(x, verbose=0).tobytes() == (
        inner.predict(x, verbose=0).tobytes()
    )
    found = pruned.evaluate(x, y, verbose=0)
    pruned.strip().compile("sgd", loss(), metrics=["accuracy"])
    assert found == inner.evaluate(x, y, verbose=0)


@pytest.mark.parametrize("rewind", ["weights", "fine_tune"])
def test_levels_add_no_trace(rewind):
    """The step is traced as often for five levels as for one."""
    traced = []
    for levels in (1, 5):
        count = [0]

        class Counting(keras.layers.Layer):
            def call(self, inputs, training=False, count=count):
                count[0] += bool(training)
                return inputs

        model = keras.Sequential(
            [keras.Input((5,)), dense(3, 1, "output"), Counting()]
        )
        pruned = pruned_network(
            lottery.IterativePruning(0.2, levels), model, rewind=rewind
        )
        fit(pruned)
        assert len(pruned.tickets) == levels + 1
        traced.append(count[0])
    assert traced[0] == traced[1] <= 3


class TestWaysToCompute:
    """Zeros after every step, whatever compiles and clips."""

    def check(self, pruned):
        """Plays two levels and looks after every batch."""
        watch = Watch()
        fit(pruned, watch)
        assert watch.leaks == [0] * 18
        assert leaks(pruned) == 0
        assert pruned.mask.kept == 16
        for ticket in pruned.tickets:
            for values in ticket.end.values():
                assert np.isfinite(values.astype(np.float32)).all()

    @pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm"])
    def test_clipping(self, clip):
        """The norm is that of the kept weights."""
        optimizer = keras.optimizers.Adam(0.1, **{clip: 0.01})
        self.check(pruned_network(optimizer=optimizer))

    def test_moving_averages(self):
        """Weights are overwritten by averages at the end."""
        optimizer = keras.optimizers.SGD(
            0.1, momentum=0.9, use_ema=True, ema_overwrite_frequency=2
        )
        self.check(pruned_network(optimizer=optimizer))

    def test_jit(self):
        """The same masks as without."""
        pruned = lottery.prune(network(), lottery.IterativePruning(0.5, 2))
        pruned.compile("adam", loss(), jit_compile=True)
        self.check(pruned)

    def test_run_eagerly(self):
        """Without any compilation, the same to rounding."""
        ends = []
        for eagerly in (True, False):
            pruned = lottery.prune(network(), lottery.OneShot(0.5))
            pruned.compile("sgd", loss(), run_eagerly=eagerly)
            watch = Watch()
            fit(pruned, watch)
            assert watch.leaks == [0] * 12
            ends.append(pruned.tickets[1].end)
        for name in ends[0]:
            assert np.abs(ends[0][name] - ends[1][name]).max() < 1e-6

    def test_mixed_precision(self):
        """Loss scaling and half-precision layers."""
        model = network(dtype="mixed_float16")
        pruned = lottery.prune(model, lottery.IterativePruning(0.5, 2))
        pruned.compile("adam", loss())
        self.check(pruned)
        inner = keras.optimizers.Adam()
        scaled = keras.optimizers.LossScaleOptimizer(inner)
        self.check(
            pruned_network(
                model=network(dtype="mixed_float16"), optimizer=scaled
            )
        )

    def test_several_steps_per_call(self):
        """The same tickets, wherever the rewind step lies."""
        for step in (2, 3):
            tickets = []
            for a_call in (1, 3):
                pruned = lottery.prune(
                    network(), lottery.OneShot(0.5), rewind_step=step
                )
                pruned.compile("sgd", loss(), steps_per_execution=a_call)
                fit(pruned)
                tickets.append(pruned.tickets)
            for one, other in zip(*tickets, strict=True):
                assert one.mask == other.mask
                for name in one.end:
                    assert one.end[name].tobytes() == other.end[name].tobytes()

    def test_a_schedule_and_a_function_as_learning_rate(self):
        """Neither has a config that can be read back; plain Keras trains."""

        class Decay(keras.optimizers.schedules.LearningRateSchedule):
            def __call__(self, step):
                return 0.1 / (1.0 + keras.ops.cast(step, "float32"))

        for rate in (Decay(), lambda: 0.1):
            optimizer = keras.optimizers.SGD(rate, momentum=0.9)
            network().compile(optimizer, loss())
            self.check(pruned_network(optimizer=optimizer))

    def test_the_user_s_constraint_holds_too(self):
        """Columns of norm at most 0.5, zeros exact."""
        norm = keras.constraints.MaxNorm(0.5)
        pruned = pruned_network(model=network(kernel_constraint=norm))
        self.check(pruned)
        kernel = pruned.inner.get_layer("hidden").kernel.numpy()
        assert np.linalg.norm(kernel, axis=0).max() < 0.5 + 1e-5


# -------------------------------------------------------------------- saving


class TestSaving:
    """Masks and level are in the file, and hold after loading."""

    @pytest.fixture(scope="class")
    @classmethod
    def stopped(cls, tmp_path_factory):
        """A lottery stopped in level 2, saved, and the path of the file."""
        pruned = pruned_network(lottery.IterativePruning(0.5, 3), stateful())
        with pytest.raises(KeyboardInterrupt):
            fit(pruned, Interrupt(2))
        path = tmp_path_factory.mktemp("saved") / "pruned.keras"
        pruned.save(path)
        return pruned, path

    def test_round_trip(self, stopped):
        """Every variable, the choices, and compiled."""
        pruned, path = stopped
        loaded = keras.models.load_model(path)
        one, other = everything(loaded), everything(pruned)
        del one["drop/seed"], other["drop/seed"]  # Keras does not save it
        same_bits(one, other)
        assert type(loaded) is lottery.PrunedModel
        assert loaded.mask == pruned.mask
        assert (loaded.level, loaded.mask.kept) == (2, 16)
        assert loaded.compiled
        assert loaded.name == pruned.name
        assert loaded.schedule.get_config() == pruned.schedule.get_config()
        x, y = data()
        assert loaded.predict(x, verbose=0).tobytes() == (
            pruned.predict(x, verbose=0).tobytes()
        )
        assert loaded.evaluate(x, y, verbose=0) == (
            pruned.evaluate(x, y, verbose=0)
        )

    def test_the_masks_hold_through_the_next_training(self, stopped):
        """Batch by batch, by `train_on_batch`, before any `fit`."""
        pruned, path = stopped
        loaded = keras.models.load_model(path)
        x, y = data()
        before = everything(loaded)
        for _ in range(3):
            loaded.train_on_batch(x, y)
            assert leaks(loaded) == 0
        assert loaded.mask == pruned.mask
        after = everything(loaded)
        moved = after["hidden/kernel"] != before["hidden/kernel"]
        assert (moved & ~loaded.mask["hidden/kernel"]).sum() == 0
        assert moved.sum() > 0

    def test_the_last_level_is_trained_with_the_same_masks(self, tmp_path):
        """`fit` after loading holds the masks of the file at that level."""
        pruned = pruned_network(lottery.IterativePruning(0.5, 2))
        with pytest.raises(KeyboardInterrupt):
            fit(pruned, Interrupt(2))
        pruned.save(tmp_path / "a.keras")
        loaded = keras.models.load_model(tmp_path / "a.keras")
        watch = Watch()
        history = fit(loaded, watch)
        assert watch.leaks == [0] * 6
        assert watch.levels == [2] * 6
        assert set(watch.masks) == {pruned.mask}
        assert history.history["level"] == [2, 2]
        assert history.history["sparsity"] == [0.75, 0.75]
        with pytest.raises(ValueError, match="All 2 levels are played"):
            fit(loaded)

    def test_more_levels_need_the_rewind_point(self, stopped):
        """It is not in a .keras file: an error says where it is."""
        loaded = keras.models.load_model(stopped[1])
        with pytest.raises(
            ValueError, match="loaded or cloned at level 2.*continue_from"
        ):
            fit(loaded)

    def test_loaded_and_continued_from_a_ticket(self, stopped):
        """As that error advises: equal to the uninterrupted lottery."""
        pruned, path = stopped
        whole = pruned_network(lottery.IterativePruning(0.5, 3), stateful())
        fit(whole)
        loaded = keras.models.load_model(path)
        loaded.continue_from(pruned.tickets[1])
        fit(loaded)
        assert [ticket.level for ticket in loaded.tickets] == [2, 3]
        for one, other in zip(loaded.tickets, whole.tickets[2:]):
            same_tickets(one, other)

    def test_weights_file(self, stopped, tmp_path):
        """`save_weights` and `load_weights` carry masks and level."""
        pruned, _ = stopped
        pruned.save_weights(tmp_path / "a.weights.h5")
        other = pruned_network(lottery.IterativePruning(0.5, 3), stateful())
        other.load_weights(tmp_path / "a.weights.h5")
        assert other.mask == pruned.mask
        assert other.level == 2
        x, y = data()
        assert other.predict(x, verbose=0).tobytes() == (
            pruned.predict(x, verbose=0).tobytes()
        )
        other.train_on_batch(x, y)
        assert leaks(other) == 0

    def test_the_schedules_are_saved(self, tmp_path):
        """A dict of patterns, and tfmot's."""
        grouped = {
            "output/*": lottery.IterativePruning(0.1, 2),
            "*": lottery.IterativePruning(0.2, 2),
        }
        tfmot_s = lottery.PolynomialDecay(0.1, 0.8, 2, 9, power=2, frequency=3)
        for schedule in (grouped, tfmot_s, lottery.ListedSparsities([0.5])):
            pruned = pruned_network(schedule, allocation="layerwise", seed=4)
            pruned.save(tmp_path / "a.keras")
            loaded = keras.models.load_model(tmp_path / "a.keras")
            one, other = pruned.get_config(), loaded.get_config()
            del one["inner"], other["inner"]
            assert json.dumps(one) == json.dumps(other)
            assert (one["allocation"], one["seed"]) == ("layerwise", 4)

    def test_in_a_fresh_process(self, stopped):
        """Which imports keras and keras_lottery and loads; nothing else."""
        pruned, path = stopped
        code = textwrap.dedent(
            f"""
            import keras, keras_lottery
            model = keras.models.load_model({str(path)!r})
            print(type(model).__name__, model.level, model.mask.checksum)
            print(model.compiled, type(model.optimizer).__name__)
            """
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            f"PrunedModel 2 {pruned.mask.checksum}",
            "True SGD",
        ]

    def test_a_model_without_config(self, tmp_path):
        """What cannot be saved says what can."""

        class Without(keras.Model):
            def __init__(self, layer):
                super().__init__()
                self.layer = layer

            def call(self, inputs):
                return self.layer(inputs)

        model = Without(keras.layers.Dense(3))
        model(np.zeros((1, 5), np.float32))
        pruned = pruned_network(lottery.OneShot(0.5), model)
        fit(pruned)
        with pytest.raises(NotImplementedError, match="Without.*save_weights"):
            pruned.save(tmp_path / "a.keras")
        pruned.tickets[1].save(tmp_path / "ticket")
        ticket = lottery.Ticket.load(tmp_path / "ticket")
        assert ticket.model_config is None

    def test_a_function_as_criterion(self, tmp_path):
        """It plays, and says why it cannot be saved."""

        def smallest(model, start, data):
            return {n: -np.abs(v) for n, v in weights.values(model).items()}

        pruned = pruned_network(lottery.OneShot(0.5), criterion=smallest)
        fit(pruned)
        kept, whole = pruned.mask, pruned.tickets[0].weights("end")
        flat = np.concatenate([whole[n].ravel() for n in kept])
        keep = np.concatenate([kept[n].ravel() for n in kept])
        assert abs(flat[keep]).max() <= abs(flat[~keep]).min()
        with pytest.raises(ValueError, match="criterion is a function"):
            pruned.save(tmp_path / "a.keras")

    @pytest.mark.parametrize("step", ["own", "keras"])
    def test_the_optimizer_is_saved(self, tmp_path, step):
        """Slots and iteration, whichever model runs the step."""
        model = own_step() if step == "own" else network()
        pruned = pruned_network(lottery.OneShot(0.5), model)
        fit(pruned)
        pruned.save(tmp_path / "a.keras")
        loaded = keras.models.load_model(tmp_path / "a.keras")
        assert int(loaded.optimizer.iterations.numpy()) == 2 * A_EPOCH
        same_bits(everything(loaded), everything(pruned))

    @pytest.mark.parametrize("step", ["own", "keras"])
    def test_own_step_after_loading(self, tmp_path, step):
        """A model with a step of its own is compiled and held too."""
        model = own_step() if step == "own" else network()
        pruned = pruned_network(lottery.OneShot(0.5), model)
        fit(pruned, epochs=1)
        pruned.save(tmp_path / "a.keras")
        loaded = keras.models.load_model(tmp_path / "a.keras")
        x, y = data()
        logs = loaded.train_on_batch(x, y, return_dict=True)
        assert ("own" in logs) == (step == "own")
        assert leaks(loaded) == 0


# ---------------------------------------------------- strip, summary, defaults


def test_strip_lets_go():
    """The same object, zeros in place, trained freely from then on."""
    model = network()
    pruned = pruned_network(lottery.OneShot(0.5), model)
    fit(pruned)
    assert pruned.strip() is model
    kernel = model.get_layer("hidden").kernel
    zeros = np.count_nonzero(kernel.numpy() == 0)
    assert zeros == 40 - pruned.tickets[1].mask.kept_by_name["hidden/kernel"]
    assert kernel.constraint is None
    assert type(model) is keras.Sequential
    model.compile("sgd", loss())
    model.fit(*data(), verbose=0)
    assert np.count_nonzero(kernel.numpy() == 0) < zeros


def test_prune_again_after_strip():
    """Another lottery on the same model, as the errors advise."""
    pruned = pruned_network(lottery.OneShot(0.5))
    fit(pruned)
    again = pruned_network(lottery.OneShot(0.25), pruned.strip())
    fit(again)
    assert [t.mask.kept for t in again.tickets] == [64, 48]


def test_summary():
    """The table of the masks, what is left alone and why; printed or given."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Embedding(9, 4, name="words"),
            keras.layers.Flatten(),
            dense(4, 1, "first"),
            dense(2, 2, "second"),
            dense(2, 3, "third"),
        ],
        name="reader",
    )
    schedule = {
        "first/*": lottery.OneShot(0.5),
        "third/*": lottery.OneShot(0.25),
    }
    pruned = lottery.prune(model, schedule, layers=["first", "second", "third"])
    lines = []
    pruned.summary(print_fn=lines.append)
    text = "\n".join(lines)
    assert text.startswith("pruned_reader, level 0\n")
    assert re.search(r"^first/kernel +16x4 +64 +64 +1.0000", text, re.M)
    assert re.search(r"^third/kernel +2x2 +4 +4 +1.0000", text, re.M)
    assert not re.search(r"^second/kernel", text, re.M)
    assert "not pruned: 1 no schedule (second/kernel)" in text
    assert "1 not in layers= (words/embeddings)" in text or (
        "embedding (prune it with layers=) (words/embeddings)" in text
    )
    assert "not pruned: 3 bias (first/bias, second/bias, third/bias)" in text
    assert "Multiply-adds are not time" in text
    pruned.adopt_mask(
        lottery.find_mask(
            model, {"first/*": 0.5, "third/*": 0.25}, layers=["first", "third"]
        ),
        1,
    )
    lines.clear()
    pruned.summary(print_fn=lines.append)
    text = "\n".join(lines)
    assert text.startswith("pruned_reader, level 1\n")
    assert re.search(r"^first/kernel +16x4 +64 +32 +0.5000 +2.00", text, re.M)
    assert re.search(r"^third/kernel +2x2 +4 +3 +0.7500 +1.33", text, re.M)


def test_summary_prints(capsys):
    """As Keras's does."""
    lottery.prune(network()).summary()
    assert "hidden/kernel" in capsys.readouterr().out


def test_defaults():
    """`lottery.prune(model)`: the paper's, ten levels of 20 %."""
    pruned = lottery.prune(network())
    config = pruned.get_config()
    assert config["schedule"]["*"] == {
        "class_name": "IterativePruning",
        "config": {"rate": 0.2, "levels": 10, "steps_per_level": None},
    }
    assert pruned.schedule.levels == 10
    assert (pruned.level, pruned.tickets) == (0, ())
    assert pruned.mask.kept == pruned.mask.size == 64
    assert pruned.name == "pruned_net"
    pruned.compile("sgd", loss())
    fit(pruned, epochs=1, batch_size=ROWS)
    assert [t.mask.kept for t in pruned.tickets] == [
        64 - round(64 * (1 - 0.8**n)) for n in range(11)
    ]
    assert {t.provenance["rewind"] for t in pruned.tickets} == {"weights"}


def test_the_wrapped_model_is_not_changed_by_wrapping():
    """Weights, config and identity."""
    model = network()
    before, config = model.get_weights(), model.get_config()
    pruned = lottery.prune(model)
    assert pruned.inner is model
    assert model.get_config() == config
    for one, other in zip(before, model.get_weights()):
        assert one.tobytes() == other.tobytes()


def test_data_order_follows_the_seed():
    """Another seed, other batches; the same seed, the same tickets."""
    found = []
    for seed in (0, 0, 1):
        pruned = pruned_network(lottery.OneShot(0.5), seed=seed)
        fit(pruned)
        found.append(pruned.tickets[1])
    same_tickets(found[0], found[1])
    one, other = (t.weights("end")["hidden/kernel"] for t in found[1:])
    assert one.tobytes() != other.tobytes()


# -------------------------------------------------------------------- errors


class TestErrors:
    """What is wrong, what was expected, what to do."""

    def test_not_built(self):
        """No weights yet."""
        model = keras.Sequential([keras.layers.Dense(3)])
        with pytest.raises(ValueError, match="not built. Call.*build"):
            lottery.prune(model)

    def test_nothing_to_prune(self):
        """The reasons are listed."""
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.BatchNormalization(name="norm")]
        )
        with pytest.raises(ValueError, match="norm/gamma: normalization"):
            lottery.prune(model)

    def test_frozen(self):
        """The same where nothing is trained."""
        model = network()
        model.trainable = False
        with pytest.raises(ValueError, match=r"hidden/kernel: frozen"):
            lottery.prune(model)

    def test_legacy_keras(self):
        """A tf_keras model, and a subclass of one, get tfmot's wrappers."""
        import tf_keras

        class Mine(tf_keras.Sequential):
            pass

        for kind in (tf_keras.Sequential, Mine):
            model = kind([tf_keras.layers.Dense(2, input_shape=(3,))])
            pruned = lottery.prune(model)
            assert isinstance(pruned, tf_keras.Sequential)
            assert pruned.mask.sizes == {"dense/kernel": 6}

    @pytest.mark.parametrize("thing", [None, "net", keras.layers.Dense])
    def test_not_a_model(self, thing):
        """Anything else."""
        with pytest.raises(ValueError, match="Expected a Keras 3 model"):
            lottery.prune(thing)

    def test_pruned_twice(self):
        """The wrapper, and the model inside it."""
        pruned = pruned_network()
        with pytest.raises(ValueError, match="pruned already.*strip"):
            lottery.prune(pruned)
        with pytest.raises(ValueError, match="attached to 'net' already"):
            lottery.prune(pruned.inner)

    def test_a_refused_model_is_left_as_it_was(self):
        """An error in `prune` attaches nothing."""
        model = network()
        for choices in ({"criterion": "big"}, {"rewind": "weight"}):
            with pytest.raises(ValueError, match="Unknown"):
                lottery.prune(model, **choices)
        assert model.get_layer("hidden").kernel.constraint is None
        lottery.prune(model)

    @pytest.mark.parametrize(
        "choices, text",
        [
            ({"rewind": "weight"}, "Unknown rewind 'weight'.*'learning_rate'"),
            ({"rewind_step": -1}, "`rewind_step` must be an int >= 0, got -1"),
            ({"rewind_step": "3"}, "`rewind_step` must be an int >= 0"),
            ({"criterion": "big"}, "Unknown criterion 'big'.*'magnitude'"),
            ({"allocation": "local"}, "Unknown allocation 'local'.*'global'"),
            ({"layers": ["nowhere"]}, "fits no layer.*hidden, output"),
            ({"seed": 1.5}, r"`seed` must be an int >= 0, got 1\.5"),
            ({"schedule": "iterative"}, "tfmot PruningSchedule"),
            ({"schedule": {}}, "dict of schedules is empty"),
            (
                {
                    "schedule": {
                        "out*": lottery.IterativePruning(0.1, 3),
                        "*": lottery.IterativePruning(0.2, 4),
                    }
                },
                "same number of levels",
            ),
            (
                {
                    "schedule": {
                        "out*": lottery.IterativePruning(0.1, 3),
                        "*": lottery.ConstantSparsity(0.5, 0),
                    }
                },
                "cannot be mixed",
            ),
            (
                {
                    "schedule": lottery.ConstantSparsity(0.5, 0),
                    "allocation": "local",
                },
                "Unknown allocation 'local'.*'global'",
            ),
            (
                {
                    "schedule": lottery.ConstantSparsity(0.5, 0),
                    "criterion": "big",
                },
                "Unknown criterion 'big'.*'magnitude'",
            ),
        ],
    )
    def test_choices(self, choices, text):
        """At `prune`, before any training."""
        with pytest.raises(ValueError, match=re.compile(text, re.DOTALL)):
            lottery.prune(network(), **choices)

    def test_not_compiled(self):
        """As an error of ours, with an example."""
        with pytest.raises(ValueError, match="Compile the pruned model before"):
            lottery.prune(network()).fit(*data())
        with pytest.raises(ValueError, match="Compile the model before"):
            lottery.prune(network()).continue_from(None)

    @pytest.mark.parametrize("epochs", [0, -1, 1.5, "2", None, True])
    def test_epochs(self, epochs):
        """No level can be trained for no epochs."""
        with pytest.raises(ValueError, match="`epochs` must be an int >= 1"):
            fit(pruned_network(), epochs=epochs)

    def test_a_rewind_step_outside_the_level(self):
        """Known only when `fit` counts the steps; nothing is trained."""
        pruned = pruned_network(rewind_step=2 * A_EPOCH)
        before = pruned.inner.get_weights()
        with pytest.raises(ValueError, match="rewind_step=6 is not inside"):
            fit(pruned)
        for one, other in zip(before, pruned.inner.get_weights()):
            assert one.tobytes() == other.tobytes()

    def test_rows_that_differ(self):
        """x and y of different lengths."""
        x, y = data()
        with pytest.raises(ValueError, match="differ in rows"):
            pruned_network().fit(x, y[:-1], verbose=0)

    def test_an_empty_part_of_a_split(self):
        """Nothing left to validate on."""
        with pytest.raises(ValueError, match="leaves one part empty"):
            fit(pruned_network(), validation_split=0.99)
        with pytest.raises(ValueError, match="pass `validation_data`"):
            pruned_network().fit(
                endless(), steps_per_epoch=2, validation_split=0.5
            )

    def test_a_mask_of_other_weights(self):
        """`adopt_mask` names them."""
        pruned = pruned_network(lottery.OneShot(0.5))
        other = keras.Sequential([keras.Input((2,)), dense(2, 1, "x")])
        mask = lottery.Mask.full(weights.prunable(other))
        with pytest.raises(ValueError, match="x/kernel"):
            pruned.adopt_mask(mask, 1)
        part = lottery.Mask({"hidden/kernel": np.ones((5, 8), bool)})
        with pytest.raises(ValueError, match="hidden/kernel, output/kernel"):
            pruned.adopt_mask(part, 1)
