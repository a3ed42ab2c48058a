"""What `fit(checkpoint_dir=)` takes for the same lottery, and what not."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.tickets import fit_descriptions
from keras_lottery.tickets import fit_identity

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype(np.float32)
Y = (X.sum(1) > 0).astype(np.float32)[:, None]


def compiled(source, name="f", file="cell 1", line=0):
    """Returns the function of a source, as a kernel compiles it."""
    found = {"keras": keras, "__name__": "__main__"}
    exec(compile("\n" * line + source, file, "exec"), found)
    return found[name]


def pruned_network(metrics=(), loss="mse", optimizer="adam", layers=()):
    """Returns a small pruned model, compiled."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((3,)), *layers, keras.layers.Dense(1, "sigmoid")]
    )
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    pruned.compile(optimizer, loss, metrics=list(metrics))
    return pruned


def fit(pruned, folder, callbacks=(), epochs=1):
    """Trains two levels."""
    return pruned.fit(
        X, Y, epochs=epochs, batch_size=4, verbose=0,
        validation_data=(X, Y), callbacks=list(callbacks),
        checkpoint_dir=folder,
    )  # fmt: skip


def twice(folder, make, callbacks=(list, list)):
    """Fits what two cells made; returns whether the second was taken over."""
    fit(make(0), folder, callbacks[0]())
    before = {p: p.read_bytes() for p in folder.iterdir()}
    try:
        fit(make(1), folder, callbacks[1]())
    except ValueError as error:
        assert "holds another lottery" in str(error)
        return str(error)
    assert before == {p: p.read_bytes() for p in folder.iterdir()}
    return None


def test_names_that_keras_counts_up(tmp_path):
    """A cell that is run again: its AUC is called `auc_1`."""
    names = []

    def make(time):
        metrics = [keras.metrics.AUC(), keras.metrics.Recall()]
        names.append([each.name for each in metrics])
        return pruned_network(metrics)

    keras.backend.clear_session()
    assert twice(tmp_path, make) is None
    assert names == [["auc", "recall"], ["auc_1", "recall_1"]]


def test_only_the_end_of_a_name_is_left_out():
    described = fit_descriptions.described
    assert described({"name": "top_5_of_10"}) == {"name": "top_5_of"}
    assert described({"fn": "auc_1"}) == {"fn": "auc_1"}
    assert described({"name": None}) == {"name": None}


LAMBDA = "f = lambda x, y: {}"
LOSS = LAMBDA.format("keras.ops.mean((x - y) ** 2)")


@pytest.mark.parametrize(
    "other, taken_over",
    [
        (LOSS, True),
        (LAMBDA.format("keras.ops.mean((x - y) ** 4)"), False),
        (LAMBDA.format("keras.ops.max((x - y) ** 2)"), False),
    ],
    ids=["same", "constant", "name"],
)
def test_a_lambda_as_loss(other, taken_over, tmp_path):
    def make(time):
        source = other if time else LOSS
        return pruned_network(loss=compiled(source, file=f"{time}", line=time))

    said = twice(tmp_path, make)
    assert taken_over == (said is None)
    assert taken_over or "compile loss: " in said


@pytest.mark.parametrize("factor", [2, 3])
def test_a_lambda_layer(factor, tmp_path):
    """Its configuration holds the name of a file that each kernel has."""

    def make(time):
        source = f"f = lambda x: x * {factor if time else 2}"
        function = compiled(source, file=f"kernel_{time}.py", line=time)
        layer = keras.layers.Lambda(function, output_shape=(3,))
        return pruned_network(layers=[layer])

    assert (twice(tmp_path, make) is None) == (factor == 2)


CALLBACKS = keras.callbacks
SETTINGS = {
    "patience": lambda value: CALLBACKS.EarlyStopping(patience=value),
    "schedule": lambda value: CALLBACKS.LearningRateScheduler(
        compiled(f"f = lambda epoch, rate: {value}.0", file=f"{value}")
    ),
    "on_epoch_end": lambda value: CALLBACKS.LambdaCallback(
        on_epoch_end=compiled(f"def f(epoch, logs):\n  return {value}")
    ),
    "factor": lambda value: CALLBACKS.ReduceLROnPlateau(factor=value / 9),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_callbacks(name, tmp_path):
    make = SETTINGS[name]
    plain = lambda time: pruned_network()  # noqa: E731
    same = [lambda: [make(1)]] * 2
    assert twice(tmp_path, plain, same) is None
    other = tmp_path / "other"
    said = twice(other, plain, [lambda: [make(1)], lambda: [make(5)]])
    assert f" {name}: " in said
    assert said.count(" there, ") == 1


def test_what_training_changes_is_no_other_setting(tmp_path):
    """EarlyStopping turns the sign of its `min_delta` while it trains."""
    stop = keras.callbacks.EarlyStopping("val_loss", min_delta=0.5, patience=9)
    once = lambda: [stop]  # noqa: E731
    assert twice(tmp_path, lambda time: pruned_network(), [once, once]) is None
    assert stop.min_delta == -0.5


def test_where_callbacks_write_may_be_elsewhere(tmp_path):
    def writing(name):
        return [keras.callbacks.CSVLogger(tmp_path / name)]

    folder = tmp_path / "digits"
    both = [functools.partial(writing, name) for name in ("one", "two")]
    assert twice(folder, lambda time: pruned_network(), both) is None


def test_a_rate_without_configuration(tmp_path):
    class Warm(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.01 * tf.minimum(1.0, tf.cast(step, "float32") / 10)

    def make(time):
        return pruned_network(optimizer=keras.optimizers.Adam(Warm()))

    assert twice(tmp_path, make) is None

    def other(time):
        adam = keras.optimizers.Adam(Warm(), beta_1=0.5)
        return pruned_network(optimizer=adam)

    assert "optimizer config beta_1: 0.9 there" in twice(
        tmp_path, lambda time: (other if time else make)(time)
    )


def test_differences_name_the_callback():
    there = {"callbacks": [{"class": "A"}, {"class": "B", "patience": 1}]}
    here = {"callbacks": [{"class": "A"}, {"class": "B", "patience": 9}]}
    found = fit_identity.differences(there, here)
    assert found == ["callbacks 1 B patience: 1 there, 9 here"]
    here["callbacks"].pop()
    assert len(fit_identity.differences(there, here)) == 1


# ------------------------------------------------------------------- functions

SAME = [
    ("def f(x):\n  return [x + i for i in (1, 2)]", {}),
    ("def f(x):\n\n\n  return [x + i for i in (1, 2)]", {"file": "b"}),
    ("# A comment.\ndef f(y):\n  return [y + j for j in (1, 2)]", {"line": 7}),
]
OTHERS = [
    "def f(x):\n  return [x + i for i in (1, 3)]",
    "def f(x):\n  return [x - i for i in (1, 2)]",
    "def f(x):\n  return [x + abs(i) for i in (1, 2)]",
    "def f(x, z=1):\n  return [x + i for i in (1, 2)]",
    "def f(x, z=2):\n  return [x + i for i in (1, 2)]",
    "def f(x):\n  return (lambda: {'a', 'b'} == x)",
    "def f(x):\n  return x in {'a', 'b', 'c', 'd'}",
    "def f(x):\n  return x in {'a', 'b', 'c', 'e'}",
]


def test_functions_are_their_code():
    described = fit_descriptions.described
    same = {described(compiled(s, **more)) for s, more in SAME}
    others = {described(compiled(source)) for source in OTHERS}
    assert len(same) == 1
    assert len(others) == len(OTHERS)
    assert not same & others


def test_functions_of_libraries_are_their_names():
    mean = keras.losses.mean_squared_error
    assert fit_descriptions.described(mean) == "mean_squared_error"
    mine = compiled("def f(x):\n  return x")
    traced = tf.function(mine)
    assert fit_descriptions.described(traced).startswith("f ")


def test_sets_of_constants_have_one_order():
    """A set of text is in another order in every process."""
    sets = [frozenset(order) for order in ("ab", "ba")]
    texts = {fit_descriptions._constant(each) for each in sets}
    assert texts == {"[\"'a'\", \"'b'\"]"}
