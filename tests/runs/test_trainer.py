"""The trainer against plain Keras, and every setting of a training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery import seeds
from keras_lottery.data import data_set
from keras_lottery.runs import experiment
from keras_lottery.runs import formats
from keras_lottery.runs import paths
from keras_lottery.tickets.ticket import Ticket

pytestmark = pytest.mark.thorough

REGRESSION = """
import keras
import numpy as np

def data(count):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 3)).astype("float32")
    y = (x @ [1.0, -2.0, 3.0]).astype("float32")[:, None]
    return (x, y), (x[:20], y[:20]), (x[20:50], y[20:50])

def net(input_shape):
    return keras.Sequential([
        keras.Input(input_shape),
        keras.layers.Dense(6, activation="tanh", name="fc1"),
        keras.layers.Dropout(0.5, name="drop"),
        keras.layers.Dense(1, name="output"),
    ])

def data_of(rows):
    return data(rows)

def span(y_true, y_pred):
    return keras.ops.max(y_pred) - keras.ops.min(y_pred) + 0 * y_true[:, 0]

def nets_without_a_model():
    return 3
"""


@pytest.fixture
def regression(lab, tmp_path, monkeypatch):
    """The configuration of a regression, with functions of a module."""
    (tmp_path / "regression_of_test.py").write_text(REGRESSION)
    monkeypatch.chdir(tmp_path)
    config = lab.config()
    config.name = "regression"
    config.data.name = "regression_of_test:data"
    config.data.arguments.count = 60
    config.data.rows = 0
    config.model.name = "regression_of_test:net"
    del config.model.arguments["hidden"]
    config.train.steps = 4
    config.train.loss = "mse"
    config.train.metrics = ("mae", "regression_of_test:span")
    config.prune.rates = ()
    config.prune.levels = 1
    config.replicates = 2
    return config


def ticket_of(run, level, replicate=0):
    return Ticket.load(run.file(replicate, "ticket", level, paths.TICKET))


def curve_of(run, level):
    return formats.read_csv(run.file(0, "ticket", level, paths.METRICS))


def batches(data, batch_size, replicate, steps):
    """Yields the batches of a training, by the formula of the docs."""
    x, y = data.train
    per_pass = -(-len(x) // batch_size)
    seed = seeds.stream(0, "data order", replicate)
    for step in range(steps):
        first = step % per_pass * batch_size
        rows = tf.random.experimental.index_shuffle(
            tf.range(first, min(first + batch_size, len(x)), dtype=tf.int64),
            seed=tf.constant([seed, step // per_pass], tf.int32),
            max_index=len(x) - 1,
        ).numpy()
        yield x[rows], y[rows]


def network(ticket):
    """Returns the tiny network built by hand, at the start of a ticket."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    start = {**ticket.weights("start"), **ticket.start_state}
    model.set_weights(
        [
            start[name]
            for name in (
                "fc1/kernel",
                "fc1/bias",
                "output/kernel",
                "output/bias",
            )
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def assert_row(row, model, data):
    for part, prefix in ((data.validation, "val"), (data.test, "test")):
        if row[f"{prefix}_loss"]:
            loss, accuracy = model.evaluate(*part, verbose=0)
            assert float(row[f"{prefix}_loss"]) == pytest.approx(loss, rel=1e-4)
            assert float(row[f"{prefix}_accuracy"]) == pytest.approx(
                accuracy, abs=1e-6
            )


def test_level_0_is_a_plain_keras_training(lab, whole):
    run, _ = whole
    data = lab.experiment(lab.config()).data
    assert len(data.train[0]) == 90
    ticket = ticket_of(run, 0)
    model = network(ticket)
    rows = iter(curve_of(run, 0))
    seen = []
    for step, batch in enumerate(batches(data, 20, 0, 8), 1):
        model.reset_metrics()  # Keras 3.13 averages over calls
        seen.append([len(batch[0]), *model.train_on_batch(*batch)])
        if step % 2 == 0:
            row, (counts, *logs) = next(rows), np.array(seen, float).T
            loss, accuracy = np.average(logs, axis=1, weights=counts)
            assert int(row["step"]) == step
            assert float(row["loss"]) == pytest.approx(loss, rel=1e-4)
            assert float(row["accuracy"]) == pytest.approx(accuracy, abs=1e-6)
            assert_row(row, model, data)
            seen.clear()
    assert next(rows, None) is None
    end = ticket.weights("end")
    kernel = model.layers[-1].kernel.numpy()
    np.testing.assert_allclose(
        kernel, end["output/kernel"], rtol=1e-3, atol=1e-5
    )


def test_the_test_set_is_read_where_it_is_due(lab, tmp_path):
    """At minima and at the end; with `always` everywhere, the same numbers."""
    bumpy = {"train.learning_rate": 3.0, "train.steps": 12, "replicates": 1}
    minimum, _ = lab.play(lab.config(bumpy), tmp_path)
    always, _ = lab.play(lab.config({**bumpy, "eval_test": "always"}), tmp_path)
    left_out = 0
    for level in range(3):
        rows, lowest = curve_of(minimum, level), np.inf
        for row, full in zip(rows, curve_of(always, level), strict=True):
            due = float(row["val_loss"]) < lowest or row is rows[-1]
            lowest = min(lowest, float(row["val_loss"]))
            assert full["test_loss"]
            assert row["test_loss"] == (full["test_loss"] if due else "")
            left_out += not due
    assert left_out


def test_level_1_is_a_training_under_its_mask(lab, whole):
    run, _ = whole
    data = lab.experiment(lab.config()).data
    ticket = ticket_of(run, 1)
    model = network(ticket)
    masks = [
        ticket.mask["fc1/kernel"],
        True,
        ticket.mask["output/kernel"],
        True,
    ]
    rows = iter(curve_of(run, 1))
    for step, (x, y) in enumerate(batches(data, 20, 0, 8), 1):
        with tf.GradientTape() as tape:
            loss = model.loss(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        masked = [tf.where(m, g, 0.0) for m, g in zip(masks, gradients)]
        model.optimizer.apply(masked, model.trainable_variables)
        if step % 2 == 0:
            assert_row(next(rows), model, data)


def test_a_regression_is_a_run_like_any_other(lab, regression, tmp_path):
    chosen = experiment.Experiment(regression)
    assert (chosen.metric, chosen.mode) == ("mae", "min")
    assert data_set.classes(chosen.data) is None
    run, rows = lab.play(regression, tmp_path)
    assert len(rows) == 2 * (1 + 1 * 4)  # with one_shot and two controls
    for row in rows:
        for name in ("mae", "span", "loss"):
            for prefix in ("val_", "test_", "last_", "last_val_"):
                assert isinstance(row[prefix + name], float)
    ticket = ticket_of(run, 1)
    assert ticket.mask.kept == 24 - round(24 * 0.2)
    model = ticket.restore(lab.experiment(regression).model, "end")
    x, y = chosen.data.validation
    guess = model.predict(x, verbose=0)
    row = next(r for r in rows if r["arm"] == "ticket" and r["level"] == 1)
    mae = np.abs(guess - y).mean()
    assert row["last_val_mae"] == pytest.approx(mae, rel=1e-5)
    span = guess.max() - guess.min()
    assert row["last_val_span"] == pytest.approx(span, rel=1e-5)


def test_dropout_differs_between_replicates_not_levels(
    lab, regression, tmp_path
):
    run, rows = lab.play(regression, tmp_path)
    states = {}
    for replicate in (0, 1):
        for level in (0, 1):
            start = ticket_of(run, level, replicate).start_state
            [state] = [v for n, v in start.items() if "seed" in n]
            states[replicate, level] = state.tolist()
    assert states[0, 0] == states[0, 1] and states[1, 0] == states[1, 1]
    assert states[0, 0] != states[1, 0]
    for row in rows:
        seed = states[row["replicate"], row["level"]][0]
        assert row["dropout_seed"] == seed


@pytest.mark.parametrize(
    "metric", ["mae", "mse", "MeanAbsoluteError", "RootMeanSquaredError"]
)
def test_the_metric_that_decides_is_in_the_logs(metric, regression):
    """By any name that Keras takes."""
    regression.train.mode = "min"
    regression.train.metrics = (metric,)
    chosen = experiment.Experiment(regression)
    logs = chosen.model.evaluate(*chosen.data.test, return_dict=True, verbose=0)
    assert chosen.metric in logs


def test_no_metrics_leave_the_loss_to_decide(lab, regression, tmp_path):
    regression.train.metrics = ()
    regression.replicates = 1
    regression.controls.names = ()
    regression.controls.one_shot = False
    chosen = experiment.Experiment(regression)
    assert (chosen.metric, chosen.mode) == ("loss", "min")
    _, rows = lab.play(regression, tmp_path)
    assert [row["last_step"] for row in rows] == [4, 4]


def test_all_settings_of_a_training_go_through(lab, tmp_path):
    config = lab.config(
        {
            "train.warmup": 2,
            "train.drops": (4, 6),
            "train.drop_factor": 0.5,
            "train.weight_decay": 0.01,
            "train.optimizer": "sgd",
            "data.augment": "flip_and_crop",
            "data.normalize": True,
            "controls.names": (),
            "controls.one_shot": False,
            "prune.levels": 1,
        }
    )
    config.train.arguments.momentum = 0.9
    chosen = lab.experiment(config)
    assert chosen.augment is not None
    optimizer = chosen.model.optimizer
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert optimizer.momentum == 0.9
    rates = [float(chosen.model.optimizer._learning_rate(s)) for s in range(8)]
    expected = [0, 0.05, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025]
    assert rates == pytest.approx(expected)

    x = chosen.data.train[0]
    [decay] = [float(sum(chosen.model.losses))]
    kernels = [
        w.numpy()
        for w in chosen.model.trainable_weights
        if w.path.endswith("kernel")
    ]
    squares = sum((k.astype(np.float64) ** 2).sum() for k in kernels)
    assert decay in (
        pytest.approx(0.01 * squares, rel=1e-4),
        pytest.approx(0.005 * squares, rel=1e-4),
    )

    first = np.array(chosen.model.layers[0](x))
    np.testing.assert_allclose(first, (x - x.mean()) / x.std(), atol=1e-4)
    run, rows = lab.play(config, tmp_path)
    assert [row["kept"] for row in rows] == [592, 482]
    # Statistics are of the data, not of a replicate's initialisation.
    again = lab.experiment(config).model
    ticket_of(run, 1).restore(again, "end")
    np.testing.assert_array_equal(np.array(again.layers[0](x)), first)


@pytest.mark.parametrize("strategy", ["mirrored"])
def test_a_run_under_a_strategy_is_the_same_run(strategy, lab, tmp_path):
    changes = {
        "train.steps": 4,
        "controls.names": (),
        "controls.one_shot": False,
        "prune.levels": 1,
    }
    plain, expected = lab.play(lab.config(changes), tmp_path / "plain")
    config = lab.config({**changes, "distribute.strategy": strategy})
    run, rows = lab.play(config, tmp_path / strategy)
    assert {row["strategy"] for row in rows} == {strategy}
    for row, other in zip(rows, expected, strict=True):
        assert row["kept"] == other["kept"]
        for name in ("val_loss", "test_loss", "last_loss"):
            assert row[name] == pytest.approx(other[name], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "`seed` must be an int >= 0"),
        ({"replicates": 0}, "`replicates` must be an int >= 1"),
        ({"train.batch_size": 0}, "`train.batch_size` must be an int >= 1"),
        ({"prune.levels": 0}, "`prune.levels` must be an int >= 1"),
        (
            {"train.steps": 7},
            "train.steps=7 must be a multiple of eval_every=2",
        ),
        ({"train.metric": "auc"}, "train.metric='auc' is not measured"),
        (
            {"train.metrics": ("acuracy",)},
            "train.metrics='acuracy' is not know",
        ),
        ({"train.mode": "up"}, r"mode.* must be .*'max'.*'up'"),
        ({"train.optimizer": "adamm"}, "train.optimizer=.*adamm.* not known"),
        ({"train.loss": "los"}, "train.loss='los' is not known"),
        ({"model.name": "lenett"}, "Unknown network 'lenett'"),
        ({"prune.criterion": "big"}, "Unknown criterion 'big'"),
        ({"prune.allocation": "even"}, "Unknown allocation 'even'"),
        ({"rewind.name": "back"}, "Unknown rewind 'back'"),
        ({"data.augment": "spin"}, "spin"),
        ({"distribute.strategy": "many"}, "Unknown strategy 'many'"),
        ({"prune.rate": 0.0, "prune.rates": ()}, "nothing is pruned"),
        ({"prune.sparsities": (0.5,)}, "prune.levels=2, but prune.sparsities"),
        ({"controls.names": ("shufle",)}, "Unknown control 'shufle'"),
        ({"rewind.name": "fine_tune", "rewind.step": 2}, "rewind"),
        ({"train.learning_rate": -1.0}, "rate.* must be above 0"),
        ({"eval_test": "never"}, "eval_test='never'.*'minimum'.*'always'"),
    ],
)
def test_what_cannot_be_is_refused_before_data_are_read(
    changes, message, lab, monkeypatch
):
    def read(*unused, **more):
        raise AssertionError("data were read")

    monkeypatch.setattr(experiment.sources, "load", read)
    with pytest.raises(ValueError, match=message):
        experiment.Experiment(lab.config(changes))


def test_a_data_function_may_name_its_arguments_as_it_likes(regression):
    regression.data.name = "regression_of_test:data_of"
    del regression.data.arguments["count"]
    regression.data.arguments.rows = 60
    assert len(experiment.Experiment(regression).data.train[0]) == 60


def test_unknown_arguments_of_a_network_are_said(lab):
    config = lab.config()
    config.model.arguments.hiden = (3,)
    with pytest.raises(ValueError, match="hiden"):
        experiment.Experiment(config).model  # noqa: B018


def test_a_function_that_builds_no_model_is_refused(regression):
    regression.model.name = "regression_of_test:nets_without_a_model"
    with pytest.raises(ValueError, match="must return a built keras.Model"):
        experiment.Experiment(regression).model  # noqa: B018
