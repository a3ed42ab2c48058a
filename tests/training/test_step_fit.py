"""`StepFit` trains, measures and calls back as Keras's `fit` does."""

import _thread
import itertools
import logging
import re
import signal
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.training import callbacks as hooks
from keras_lottery.training import feeds
from keras_lottery.training import step_fit

pytestmark = pytest.mark.thorough

ROWS, FEATURES, CLASSES, BATCH = 53, 6, 3, 10  # 5 whole batches, and 3 rows
A_PASS = 6
LOSS = "sparse_categorical_crossentropy"
OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01),
    "accumulating": lambda: keras.optimizers.Adam(
        0.01, gradient_accumulation_steps=4
    ),
    "averaging": lambda: keras.optimizers.SGD(0.1, use_ema=True),
    "overwritten by averages": lambda: keras.optimizers.SGD(
        0.1, use_ema=True, ema_overwrite_frequency=5
    ),
}


def numbers(rows=ROWS, seed=0):
    """Inputs and labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, FEATURES)).astype("f")
    return x, rng.integers(0, CLASSES, rows)


X, Y = numbers()
WEIGHTS = np.random.default_rng(2).uniform(0.1, 3.0, ROWS).astype("f")
VALIDATION = numbers(25, seed=1)


def batches(x=X, y=Y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)


@keras.saving.register_keras_serializable("tests")
class Largest(keras.metrics.Metric):
    """The largest logit so far: no mean, so that its state matters."""

    def __init__(self, name="largest", **kwargs):
        super().__init__(name=name, **kwargs)
        self.seen = self.add_variable((), "zeros", name="seen")

    def update_state(self, y_true, y_pred, sample_weight=None):
        highest = tf.cast(tf.reduce_max(y_pred), self.seen.dtype)
        self.seen.assign(tf.maximum(self.seen.value, highest))

    def result(self):
        return self.seen.value + 0.0  # not the variable, which changes


class Own(keras.Sequential):
    """A model with steps of its own: smaller losses, and logs of its own."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = 0.5 * self.compute_loss(y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"half": loss, "rows": tf.cast(tf.shape(x)[0], "float32")}

    def test_step(self, data):
        x, y = data
        return {"twice": 2 * self.compute_loss(y=y, y_pred=self(x))}


def layers(dtype=None):
    return [
        keras.Input((FEATURES,)),
        keras.layers.Dense(8, activation="tanh", name="hidden", dtype=dtype),
        keras.layers.Dropout(0.3, seed=4, dtype=dtype),
        keras.layers.BatchNormalization(dtype=dtype),
        keras.layers.Dense(CLASSES, activation="softmax", name="output"),
    ]


def network(optimizer="momentum", kind=keras.Sequential, dtype=None, **more):
    keras.utils.set_random_seed(1)
    model = kind(layers(dtype))
    metrics = ["accuracy"] if kind is keras.Sequential else None
    more = {"loss": LOSS, "metrics": metrics, **more}
    model.compile(OPTIMIZERS[optimizer](), jit_compile=False, **more)
    return model


def two_headed(x, y):
    """A model of dicts or lists of inputs and outputs, as `x` and `y` are."""
    keras.utils.set_random_seed(1)
    a, b = keras.Input((FEATURES,), name="a"), keras.Input((2,), name="b")
    hidden = keras.layers.Dense(8, activation="tanh")(
        keras.layers.Concatenate()([a, b])
    )
    one = keras.layers.Dense(CLASSES, activation="softmax", name="c")(hidden)
    other = keras.layers.Dense(1, name="d")(hidden)
    named = isinstance(x, dict)
    model = keras.Model(
        {"a": a, "b": b} if named else [a, b],
        {"c": one, "d": other} if isinstance(y, dict) else [one, other],
    )
    loss, metrics = [LOSS, "mse"], [["accuracy"], ["mae"]]
    if isinstance(y, dict):
        loss = dict(zip("cd", loss))
        metrics = dict(zip("cd", metrics))
    model.compile(
        OPTIMIZERS["adam"](), loss, metrics=metrics, jit_compile=False
    )
    return model


def by_steps(
    model,
    x,
    y=None,
    *,
    epochs=3,
    callbacks=(),
    verbose=0,
    stops=(),
    first_step=0,
    batch_size=BATCH,
    **more,
):
    """Trains by `StepFit`, called as Keras's `fit`; rows in order."""
    made = {
        name: more.pop(name, None)
        for name in ("sample_weight", "class_weight", "steps_per_epoch")
    }
    feed = feeds.make(
        x, y, batch_size=batch_size, shuffle=False, seed=0, **made
    )
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    if not isinstance(x, tf.data.Dataset):
        more.setdefault("validation_batch_size", batch_size)
    fit = step_fit.StepFit(
        model,
        feed,
        feeds.Epochs(feed.per_epoch, epochs),
        {"verbose": verbose, **more},
    )
    return fit(first_step, list(callbacks), stops)


def by_keras(model, x, y=None, *, epochs=3, verbose=0, **more):
    if not isinstance(x, tf.data.Dataset):
        more.setdefault("batch_size", BATCH)
    return model.fit(
        x, y, epochs=epochs, verbose=verbose, shuffle=False, **more
    )


def values(model):
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


def assert_alike(found, expected, tolerance=1e-5):
    """Histories have the same columns, and these the same numbers."""
    assert list(found.history) == list(expected.history)
    assert found.epoch == expected.epoch
    for name, column in expected.history.items():
        np.testing.assert_allclose(
            found.history[name], column, rtol=tolerance, err_msg=name
        )


def assert_equal_models(found, expected, tolerance=1e-5):
    for one, other in zip(values(found), values(expected), strict=True):
        np.testing.assert_allclose(
            one, other, rtol=tolerance, atol=tolerance / 10
        )


def compare(make, *data, tolerance=1e-5, callbacks=lambda: [], **arguments):
    """Trains twins in both ways, compares them; returns the steps' history."""
    expected, found = make(), make()
    theirs = by_keras(expected, *data, callbacks=callbacks(), **arguments)
    ours = by_steps(found, *data, callbacks=callbacks(), **arguments)
    assert_alike(ours, theirs, tolerance)
    assert_equal_models(found, expected, tolerance)
    return ours


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers(optimizer):
    history = compare(lambda: network(optimizer), X, Y, epochs=4)
    assert list(history.history) == ["accuracy", "loss"]
    assert len(set(history.history["loss"])) == 4


ONE, OTHER = X[:, :2], X[:, :1]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ({"a": X, "b": ONE}, {"c": Y, "d": OTHER}),
        ([X, ONE], [Y, OTHER]),
        ({"a": X, "b": ONE}, [Y, OTHER]),
    ],
    ids=["dicts", "lists", "both"],
)
def test_several_inputs_and_outputs(x, y):
    history = compare(lambda: two_headed(x, y), x, y).history
    assert {"c_accuracy", "c_loss", "d_mae", "d_loss", "loss"} == set(history)


def test_validation_of_several_outputs():
    """On whole batches: Keras weighs a smaller one like the others."""
    x, y = {"a": X, "b": ONE}, {"c": Y, "d": OTHER}
    some = keras.tree.map_structure(lambda each: each[: 2 * BATCH], (x, y))
    history = compare(
        lambda: two_headed(x, y), x, y, validation_data=some
    ).history
    assert {"val_c_accuracy", "val_c_loss", "val_loss"} <= set(history)


def test_losses_of_outputs_are_means_over_samples():
    x, y = {"a": X, "b": ONE}, {"c": Y, "d": OTHER}
    model = two_headed(x, y)
    by_steps(model, x, y, validation_data=(x, y))
    assert len(X) % BATCH
    whole = model.evaluate(x, y, batch_size=len(X), return_dict=True, verbose=0)
    for name in ("c_loss", "d_loss", "loss"):
        found = model.history.history[f"val_{name}"][-1]
        np.testing.assert_allclose(found, whole[name], rtol=1e-5)


@pytest.mark.parametrize(
    "more",
    [
        {"sample_weight": WEIGHTS},
        {"class_weight": {0: 0.5, 1: 1.0, 2: 4.0}},
        {"class_weight": {2: 7.0}},
    ],
    ids=["sample_weight", "class_weight", "one class"],
)
def test_weights_of_samples(more):
    plain = network()
    by_steps(plain, X, Y)

    def make():
        return network(weighted_metrics=["accuracy"])

    history = compare(make, X, Y, **more).history
    assert history["loss"] != plain.history.history["loss"]


def test_class_weights_of_a_dataset():
    weights = {0: 0.5, 1: 1.0, 2: 4.0}
    of_arrays = network()
    by_steps(of_arrays, X, Y, class_weight=weights)
    history = compare(network, batches(), class_weight=weights)
    assert_alike(history, of_arrays.history)


@pytest.mark.parametrize(
    "more",
    [
        {"validation_data": VALIDATION},
        {"validation_data": (*VALIDATION, WEIGHTS[:25])},
        {"validation_data": batches(*VALIDATION)},
        {"validation_data": VALIDATION, "validation_steps": 2},
        {"validation_data": batches(*VALIDATION), "validation_steps": 1},
        {"validation_data": VALIDATION, "validation_batch_size": 4},
        {"validation_data": VALIDATION, "validation_freq": 2},
        {"validation_data": VALIDATION, "validation_freq": [1, 4]},
    ],
    ids=[
        "arrays",
        "weighted",
        "dataset",
        "arrays, 2 steps",
        "dataset, 1 step",
        "batches of 4",
        "every 2",
        "epochs 1 and 4",
    ],
)
def test_validation(more):
    history = compare(network, X, Y, epochs=5, **more).history
    due = 2 if "validation_freq" in more else 5
    assert len(history["val_loss"]) == len(history["val_accuracy"]) == due


def test_validation_by_a_generator():
    def make():
        return network()

    def endless():
        while True:
            for first in range(0, 20, BATCH):
                rows = slice(first, first + BATCH)
                yield VALIDATION[0][rows], VALIDATION[1][rows]

    expected, found = make(), make()
    more = {"validation_steps": 2}
    theirs = by_keras(expected, X, Y, validation_data=endless(), **more)
    ours = by_steps(found, X, Y, validation_data=endless(), **more)
    assert_alike(ours, theirs)


@pytest.mark.parametrize("steps", [4, 9])
def test_epochs_that_are_no_pass(steps):
    data = batches().repeat()
    history = compare(network, data, steps_per_epoch=steps, epochs=4)
    assert len(history.epoch) == 4


def test_epochs_of_arrays_that_are_no_pass_go_on_through_them():
    found, expected = network(), network()
    by_steps(found, X, Y, steps_per_epoch=4, epochs=3)
    by_keras(expected, X, Y, epochs=2)
    assert_equal_models(found, expected)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(dtype):
    def make():
        model = network("adam", dtype=dtype)
        if dtype == "mixed_float16":
            scaled = keras.optimizers.LossScaleOptimizer(
                OPTIMIZERS["adam"](), initial_scale=64, dynamic_growth_steps=4
            )
            model.compile(scaled, LOSS, metrics=["accuracy"], jit_compile=False)
        return model

    compare(make, X, Y, tolerance=2e-2, validation_data=VALIDATION)


def test_metrics_of_ones_own():
    def spread(y_true, y_pred):
        return tf.math.reduce_std(y_pred, -1)

    history = compare(
        lambda: network(metrics=[Largest(), spread]),
        *(X, Y),
        validation_data=VALIDATION,
    ).history
    assert {"largest", "spread", "val_largest", "val_spread"} <= set(history)


def test_a_metric_with_a_value_for_each_class():
    one_hot = np.eye(CLASSES, dtype="f")

    def make():
        return network(
            loss="categorical_crossentropy", metrics=[keras.metrics.F1Score()]
        )

    data = X, one_hot[Y]
    history = compare(make, *data).history
    assert np.shape(history["f1_score"]) == (3, CLASSES)
    validation = VALIDATION[0], one_hot[VALIDATION[1]]
    history = compare(make, *data, validation_data=validation).history
    assert np.shape(history["val_f1_score"]) == (3, CLASSES)


def test_steps_of_ones_own():
    history = compare(lambda: network(kind=Own), X, Y).history
    assert list(history) == ["half", "rows"]
    assert history["rows"] == [3.0] * 3  # of the last batch
    history = compare(
        lambda: network(kind=Own), X, Y, validation_data=VALIDATION
    ).history
    assert list(history) == ["half", "rows", "val_twice"]


def test_it_goes_on_inside_an_epoch():
    found, expected = network(), network()
    by_steps(found, X[:40], Y[:40], epochs=1)
    history = by_steps(found, X, Y, epochs=2, first_step=4)
    by_keras(expected, X, Y, epochs=2)
    assert history.epoch == [0, 1]
    assert_equal_models(found, expected)


# ------------------------------------------------------- Keras's own callbacks


class Rates(keras.callbacks.Callback):
    """Puts the learning rate into the logs."""

    def on_epoch_end(self, epoch, logs=None):
        logs["rate"] = float(self.model.optimizer.learning_rate.value)


@pytest.mark.parametrize(
    "callbacks",
    [
        lambda: [
            keras.callbacks.EarlyStopping(
                "val_loss",
                patience=1,
                min_delta=0.05,
                restore_best_weights=True,
            )
        ],
        lambda: [
            keras.callbacks.ReduceLROnPlateau(
                "loss", patience=0, min_delta=0.5, min_lr=1e-4
            ),
            Rates(),
        ],
        lambda: [
            keras.callbacks.LearningRateScheduler(lambda n: 0.1 / (n + 1)),
            Rates(),
        ],
    ],
    ids=["EarlyStopping", "ReduceLROnPlateau", "LearningRateScheduler"],
)
def test_keras_callbacks(callbacks):
    history = compare(
        *(network, X, Y),
        callbacks=callbacks,
        epochs=8,
        validation_data=VALIDATION,
    )
    if "rate" in history.history:
        assert len(set(history.history["rate"])) > 2
    else:
        assert 1 < len(history.epoch) < 8


def test_checkpoints_and_logs_are_written_as_by_keras(tmp_path):
    for name, fit in {"keras": by_keras, "steps": by_steps}.items():
        path = tmp_path / name
        path.mkdir()
        files = str(path / "{epoch}-{val_loss:.3f}.weights.h5")
        fit(
            network(),
            *(X, Y),
            validation_data=VALIDATION,
            callbacks=[
                keras.callbacks.ModelCheckpoint(files, save_weights_only=True),
                keras.callbacks.CSVLogger(path / "log.csv"),
            ],
        )
    theirs, ours = (
        sorted(each.name for each in (tmp_path / name).iterdir())
        for name in ("keras", "steps")
    )
    assert ours == theirs and len(ours) == 4
    tables = [
        np.genfromtxt(tmp_path / name / "log.csv", delimiter=",", names=True)
        for name in ("keras", "steps")
    ]
    assert tables[0].dtype == tables[1].dtype
    for name in tables[0].dtype.names:
        np.testing.assert_allclose(tables[0][name], tables[1][name], rtol=1e-5)
    for name in ours[:-1]:
        one, other = network(), network()
        one.load_weights(tmp_path / "keras" / name)
        other.load_weights(tmp_path / "steps" / name)
        for a, b in zip(one.weights, other.weights, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_nan_terminates():
    spoiled = X.copy()
    spoiled[12] = np.nan  # of the second batch
    ends = {}
    for name, fit in {"keras": by_keras, "steps": by_steps}.items():
        model = network()
        terminate = keras.callbacks.TerminateOnNaN()
        history = fit(model, spoiled, Y, callbacks=[terminate])
        ends[name] = history.epoch, model.stop_training
    assert ends["steps"] == ends["keras"] == ([0], True)


# ------------------------------------------------------------- who sees what


class Every(keras.callbacks.Callback):
    """Notes all that it is told, in order."""

    def __init__(self):
        super().__init__()
        self.told = []

    def on_epoch_begin(self, epoch, logs=None):
        self.told.append(("epoch", epoch))

    def on_train_batch_begin(self, batch, logs=None):
        self.told.append(("begin", batch))

    def on_train_batch_end(self, batch, logs=None):
        self.told.append(("end", batch, sorted(logs), round(logs["loss"], 4)))

    def on_test_begin(self, logs=None):
        self.told.append("test")

    def on_test_batch_end(self, batch, logs=None):
        self.told.append(("tested", batch))

    def on_test_end(self, logs=None):
        self.told.append(("end of test", sorted(logs)))

    def on_epoch_end(self, epoch, logs=None):
        self.told.append(("end of epoch", epoch, sorted(logs)))

    def on_train_end(self, logs=None):
        self.told.append(("end of training", sorted(logs)))


@pytest.mark.parametrize("data", ["arrays", "dataset", "ran out"])
def test_a_callback_of_ones_own_is_told_what_keras_tells(data):
    arguments = {"validation_data": VALIDATION, "epochs": 2}
    given = (X, Y) if data == "arrays" else (batches(),)
    if data == "ran out":
        arguments["steps_per_epoch"] = 4
    told = []
    for fit in (by_keras, by_steps):
        every = Every()
        fit(network(), *given, callbacks=[every], **arguments)
        told.append(every.told)
    assert told[1] == told[0]
    steps = [each[1] for each in told[0] if each[0] == "begin"]
    assert steps == (
        [0, 1, 2, 3, 0, 1] if data == "ran out" else [*range(A_PASS)] * 2
    )


def test_a_lambda_callback_sees_every_step():
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    assert step_fit.watching([watch]) == "LambdaCallback"
    by_steps(network(), X, Y, callbacks=[watch], epochs=2)
    assert seen == [*range(A_PASS)] * 2


def test_who_watches_every_step():
    class OldName(keras.callbacks.Callback):
        def on_batch_end(self, batch, logs=None):
            """Keras calls it, too."""

    unwatching = [
        keras.callbacks.EarlyStopping(),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
        keras.callbacks.TerminateOnNaN(),
        hooks.BetweenSteps(int, int),
        Rates(),
    ]
    assert step_fit.watching(unwatching) is None
    assert step_fit.watching([*unwatching, OldName()]) == "OldName"
    assert step_fit.watching([*unwatching, Every()]) == "Every"


def test_calls_end_at_epochs_and_stops():
    ends = []
    many = by_steps(
        network(),
        *(np.tile(X, (20, 1)), np.tile(Y, 20)),
        epochs=4,
        stops=[5, 110, 107, 400],
        callbacks=[hooks.BetweenSteps(lambda step: None, ends.append)],
    )
    a_pass = 106
    assert many.params["steps"] == a_pass
    assert {5, 107, 110, 400, *range(a_pass, 4 * a_pass + 1, a_pass)} <= {*ends}
    assert ends == sorted(set(ends)) and ends[-1] == 4 * a_pass
    assert len(ends) < 3 * a_pass  # calls, not steps


def test_steps_per_execution_bounds_calls():
    ends, begins = [], []
    model = network(steps_per_execution=7)
    between = hooks.BetweenSteps(begins.append, ends.append)
    by_steps(
        model,
        *(np.tile(X, (10, 1)), np.tile(Y, 10)),
        epochs=2,
        callbacks=[between],
    )
    assert ends[-1] == 106 and begins[0] == 0
    assert begins[1:] == ends[:-1]
    sizes = np.subtract(ends, begins)
    assert sizes.max() == 7 and sizes.sum() == 106


@pytest.mark.parametrize("verbose", [1, 2])
def test_progress_ends_at_the_right_count(verbose, capsys):
    counts = []
    for fit in (by_keras, by_steps):
        fit(network(), X, Y, epochs=2, verbose=verbose)
        text = capsys.readouterr().out
        text = text.replace("\r", "\n").replace("\b", "")
        last = []
        for epoch in re.split(r"Epoch \d/2", text)[1:]:
            found = re.findall(r"(\d+)/(\d+)", epoch)
            assert all(int(a) <= int(b) == A_PASS for a, b in found)
            last.append(found[-1])
        counts.append(last)
    assert counts[0] == counts[1] == [("6", "6")] * 2


def stop_at(hook, when):
    """A callback that asks to stop where `when` says so."""

    def ask(number, logs=None):
        if number == when:
            callback.model.stop_training = True

    callback = keras.callbacks.LambdaCallback(**{hook: ask})
    return callback


@pytest.mark.parametrize(
    ("hook", "when"),
    [
        ("on_train_batch_end", 2),
        ("on_train_batch_begin", 3),
        ("on_epoch_begin", 1),
        ("on_epoch_end", 1),
    ],
)
def test_a_stop(hook, when):
    history = compare(
        *(network, X, Y),
        callbacks=lambda: [stop_at(hook, when)],
        validation_data=VALIDATION,
    )
    assert history.epoch == ([0, 1] if "epoch" in hook else [0])


def test_a_stopped_model_trains_on():
    found, expected = network(), network()
    for fit, model in ((by_steps, found), (by_keras, expected)):
        fit(model, X, Y, callbacks=[stop_at("on_train_batch_end", 2)])
        fit(model, X, Y, epochs=1)
    assert_equal_models(found, expected)


def test_after_an_exception_the_model_trains_on():
    def fail(batch, logs):
        if batch == 3:
            raise RuntimeError("mine")

    found, expected = network("adam"), network("adam")
    for fit, model in ((by_steps, found), (by_keras, expected)):
        failing = keras.callbacks.LambdaCallback(on_train_batch_end=fail)
        with pytest.raises(RuntimeError, match="mine"):
            fit(model, X, Y, callbacks=[failing])
        assert "apply" not in vars(model.optimizer)
        fit(model, X, Y, epochs=2)
    assert_equal_models(found, expected)
    assert_alike(found.history, expected.history)


@pytest.fixture
def interruptible():
    """A process in the background of a shell may ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def test_an_interrupt_is_seen_within_a_second(interruptible):
    asked = []

    def interrupt():
        asked.append(time.perf_counter())
        _thread.interrupt_main()

    def begin(step):
        if step > 2000 and not asked and not timer.is_alive():
            timer.start()

    timer = threading.Timer(0.1, interrupt)
    model = network()
    with pytest.raises(KeyboardInterrupt):
        by_steps(
            model,
            *(X, Y),
            epochs=2,
            steps_per_epoch=10**6,
            callbacks=[hooks.BetweenSteps(begin, lambda step: None)],
        )
    assert time.perf_counter() - asked[0] < 1.0
    assert int(model.optimizer.iterations) > 2000


# ---------------------------------------------------------- PrunedModel.fit


class Batches(keras.utils.PyDataset):
    """The rows in batches."""

    def __len__(self):
        return A_PASS

    def __getitem__(self, index):
        rows = slice(index * BATCH, (index + 1) * BATCH)
        return X[rows], Y[rows]


def pruned_network(optimizer="momentum", kind=keras.Sequential, **more):
    keras.utils.set_random_seed(1)
    choices = {
        name: more.pop(name) for name in ("rewind_step", "seed") if name in more
    }
    schedule = lottery.IterativePruning(rate=0.5, levels=2)
    pruned = lottery.prune(kind(layers()), schedule, **choices)
    pruned.compile(
        OPTIMIZERS[optimizer](),
        LOSS,
        metrics=["accuracy"] if kind is keras.Sequential else None,
        **{"jit_compile": False, **more},
    )
    return pruned


def messages(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("keras_lottery")
    ]


@pytest.mark.parametrize("kind", [keras.Sequential, Own])
@pytest.mark.parametrize("given", ["arrays", "dataset"])
def test_a_lottery_is_played_alike(given, kind, monkeypatch):
    data = (X, Y) if given == "arrays" else (batches(),)
    more = {"batch_size": BATCH} if given == "arrays" else {}
    played = []
    for reason in (None, "for once"):
        if reason:
            monkeypatch.setattr(
                step_fit, "reason_against", lambda *_: "for once"
            )
        pruned = pruned_network("adam", kind, rewind_step=8, seed=3)
        history = pruned.fit(
            *data,
            epochs=3,
            verbose=0,
            validation_data=VALIDATION,
            **more,
        )
        played.append((pruned, history))
    (ours, found), (theirs, expected) = played
    assert_alike(found, expected)
    # Levels 1 and 2 start at step 8, inside the second epoch.
    assert found.history["level"] == [0, 0, 0, 1, 1, 2, 2]
    assert len(ours.tickets) == len(theirs.tickets) == 3
    for one, other in zip(ours.tickets, theirs.tickets, strict=True):
        assert one.mask == other.mask
        for name, value in other.end.items():
            np.testing.assert_allclose(
                one.end[name], value, rtol=1e-4, atol=1e-5
            )
    kernel = ours.inner.get_layer("hidden").kernel.numpy()
    removed = ~ours.mask["hidden/kernel"]
    assert removed.any() and not np.count_nonzero(kernel[removed])


class Mirror(keras.Sequential):
    """Learns its inputs, of whichever structure the data are."""

    def train_step(self, data):
        x = data["x"] if isinstance(data, dict) else data
        x = x[0] if isinstance(x, tuple) else x
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=x, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"mirrored": loss}


@pytest.mark.parametrize(
    "given",
    [
        X,
        tf.data.Dataset.from_tensor_slices(X).batch(BATCH),
        tf.data.Dataset.from_tensor_slices({"x": X}).batch(BATCH),
    ],
    ids=["array", "dataset", "dicts"],
)
def test_a_step_of_ones_own_may_read_what_it_likes(given, monkeypatch):
    found = []
    for reason in (None, "for once"):
        if reason:
            monkeypatch.setattr(
                step_fit, "reason_against", lambda *_: "for once"
            )
        keras.utils.set_random_seed(1)
        units = keras.layers.Dense(4, "tanh"), keras.layers.Dense(FEATURES)
        model = Mirror([keras.Input((FEATURES,)), *units])
        pruned = lottery.prune(model, lottery.OneShot(0.5))
        pruned.compile("sgd", "mse", jit_compile=False)
        found.append(pruned.fit(given, epochs=2, verbose=0, shuffle=False))
    assert_alike(*found)


def generated():
    while True:
        yield from (Batches()[index] for index in range(A_PASS))


@pytest.mark.parametrize(
    ("why", "data", "fitted", "compiled"),
    [
        ("made in Python", lambda: Batches(), {}, {}),
        ("made in Python", generated, {"steps_per_epoch": A_PASS}, {}),
        ("run_eagerly=True", lambda: batches(), {}, {"run_eagerly": True}),
        ("BackupAndRestore", lambda: batches(), {"callbacks": "backup"}, {}),
        ("max_epochs()", lambda: batches(), {"epochs": 9}, {}),
        ("max_steps_per_epoch()", lambda: batches().repeat(), {}, {}),
    ],
    ids=["PyDataset", "generator", "eager", "backup", "epochs", "steps"],
)
def test_what_keras_has_to_train(why, data, fitted, compiled, tmp_path, caplog):
    caplog.set_level(logging.INFO, "keras_lottery")
    if "callbacks" in fitted:
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        fitted = {"callbacks": [backup]}
    arguments = {"epochs": 2, "verbose": 0, **fitted}
    limit = None
    if why.startswith("max"):
        limit = getattr(keras.config, "set_" + why[:-2])
        if "steps" in why:
            arguments["steps_per_epoch"] = 9
    pruned = pruned_network(**compiled)
    try:
        if limit:
            limit(2 if "epochs" in why else A_PASS)
        history = pruned.fit(data(), **arguments)
    finally:
        if limit:
            limit(None)
    (line,) = messages(caplog)
    assert line.startswith("Keras's own fit trains, step by step: ")
    assert why in line
    assert history.history["level"] == [0, 0, 1, 1, 2, 2]
    assert int(pruned.optimizer.iterations) == 2 * A_PASS  # rewound to 0


def test_what_the_loop_trains_is_not_remarked_on(caplog):
    caplog.set_level(logging.INFO, "keras_lottery")
    stopping = keras.callbacks.EarlyStopping("loss", patience=5)
    pruned_network().fit(X, Y, verbose=0, callbacks=[stopping])
    assert messages(caplog) == []


def test_what_a_callback_for_every_step_costs_is_said(caplog):
    caplog.set_level(logging.INFO, "keras_lottery")
    every = Every()
    pruned_network().fit(X, Y, batch_size=BATCH, verbose=0, callbacks=[every])
    (line,) = messages(caplog)
    assert line.startswith("Every has a hook for every step")
    steps = [each[1] for each in every.told if each[0] == "end"]
    assert steps == [*range(A_PASS)] * 3  # levels


def test_a_dataset_is_trained_as_its_arrays():
    """Two feeds, one result: rows in order."""
    found = [
        pruned_network().fit(*data, epochs=2, verbose=0, **more)
        for data, more in (
            ((X, Y), {"batch_size": BATCH, "shuffle": False}),
            ((batches(),), {}),
        )
    ]
    assert_alike(*found)
    pairs = itertools.pairwise(found[0].history["sparsity"][::2])
    assert all(one < other for one, other in pairs)
