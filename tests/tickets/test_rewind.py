"""Rewinds: every variable, bit for bit, against trainings without a lottery.

The network has all that a rewind can forget: dropout with a seed generator,
batch normalization with moving statistics, momentum, an iteration counter, a
learning-rate schedule and shuffled data. Its first layer keeps the numbers of
the rows it was last trained on, so a training's record tells its batches.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.pruning import weights
from keras_lottery.pruning.mask import kept
from keras_lottery.tickets import proving
from keras_lottery.tickets import rewind as rewinds
from keras_lottery.training import state
from keras_lottery.training import step_fit
from keras_lottery.training.feeds import DatasetFeed
from keras_lottery.training.feeds import Epochs

ROWS, BATCH, EPOCHS, FEATURES = 32, 8, 3, 6
A_EPOCH = ROWS // BATCH
STEPS = A_EPOCH * EPOCHS
RATE = 0.3
SILENT = {"verbose": 0}


class SeenRows(keras.layers.Layer):
    """Notes the first column, the row's number, and passes the others on."""

    def build(self, input_shape):
        """Adds what notes them."""
        self.rows = self.add_weight(
            shape=(BATCH,), initializer="zeros", trainable=False, name="rows"
        )

    def call(self, inputs, training=False):
        """Notes them in training."""
        if training:
            self.rows.assign(inputs[:, 0])
        return inputs[:, 1:]


def rates():
    """Returns a schedule that is different at every step."""
    return keras.optimizers.schedules.ExponentialDecay(0.2, 3, 0.7)


def sgd(rate=None):
    """Returns a new optimizer with momentum."""
    return keras.optimizers.SGD(rate or rates(), momentum=0.9)


def build(optimizer=None):
    """Returns a new compiled network, the same at every call."""

    def dense(units, seed, name):
        initializer = keras.initializers.GlorotUniform(seed=seed)
        return keras.layers.Dense(
            units, kernel_initializer=initializer, name=name
        )

    model = keras.Sequential(
        [
            keras.Input((FEATURES + 1,)),
            SeenRows(name="seen"),
            dense(8, 1, "hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Activation("tanh"),
            keras.layers.Dropout(0.3, seed=5, name="drop"),
            dense(3, 2, "output"),
        ],
        name="net",
    )
    model.compile(optimizer or sgd(), _loss())
    return model


def _loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def data():
    """Returns x, whose first column numbers the rows, and y."""
    rng = np.random.default_rng(0)
    numbers = np.arange(ROWS, dtype=np.float32)[:, None]
    x = np.hstack([numbers, rng.normal(size=(ROWS, FEATURES))])
    return x.astype(np.float32), rng.integers(0, 3, ROWS)


def everything(model, optimizer):
    """Returns every variable of both, and the learning rate, by name."""
    found = {n: v.numpy().copy() for n, v in weights.by_name(model).items()}
    for index, variable in enumerate(optimizer.variables):
        found[f"optimizer/{index}/{variable.name}"] = variable.numpy().copy()
    return found


def put(values, model):
    """Makes a model and its optimizer what `everything` found."""
    for name, variable in weights.by_name(model).items():
        variable.assign(values[name])
    for index, variable in enumerate(_built(model).variables):
        variable.assign(values[f"optimizer/{index}/{variable.name}"])


def differing(one, other):
    """Returns the names whose values are not the same bits."""
    assert set(one) == set(other)
    return [n for n in one if one[n].tobytes() != other[n].tobytes()]


class Recorder(keras.callbacks.Callback):
    """Keeps all variables after every batch and the learning rate before."""

    def __init__(self):
        super().__init__()
        self.trainings, self.rates = [], []

    def on_train_begin(self, logs=None):
        """Begins a record."""
        self.trainings.append([])
        self.rates.append([])

    def on_train_batch_begin(self, batch, logs=None):
        """Notes the rate that this step will use."""
        self.rates[-1].append(float(self.model.optimizer.learning_rate))

    def on_train_batch_end(self, batch, logs=None):
        """Notes everything."""
        model = getattr(self.model, "inner", self.model)
        found = everything(model, self.model.optimizer)
        self.trainings[-1].append(found)


def rows_of(record):
    """Returns the row numbers of each batch of a training."""
    return [values["seen/rows"].astype(int).tolist() for values in record]


def train_plainly(model, rows, mask=None):
    """Trains on batches given by their rows, without a lottery."""
    x, y = data()
    batches = [(x[r], y[r]) for r in rows]
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(batches),
        output_signature=(
            tf.TensorSpec((BATCH, FEATURES + 1)),
            tf.TensorSpec((BATCH,), tf.int64),
        ),
    ).apply(tf.data.experimental.assert_cardinality(len(rows)))
    recorder = Recorder()
    mask = mask or lottery.Mask.full(weights.prunable(model))
    with lottery.masked(model, mask):
        train = step_fit.StepFit(
            model, DatasetFeed(dataset, None), Epochs(len(rows), 1), SILENT
        )
        train(0, [recorder])
    (record,) = recorder.trainings
    return record


class Played:
    """A lottery of three levels, and all that was seen in it."""

    def __init__(self, rewind, step):
        self.model = build()
        self.pruned = lottery.prune(
            self.model,
            lottery.IterativePruning(RATE, levels=2),
            rewind=rewind,
            rewind_step=step,
            seed=3,
        )
        self.first = everything(self.model, _built(self.model))
        self.pruned.compile(sgd(), _loss())
        recorder = Recorder()
        x, y = data()
        self.pruned.fit(
            x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0,
            callbacks=[recorder],
        )  # fmt: skip
        self.levels, self.rates = recorder.trainings, recorder.rates
        self.tickets = self.pruned.tickets


def _built(model):
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return model.optimizer


def within(rewind, step):
    """The step, or 0 for a rewind that goes back to none."""
    return step if rewinds.get(rewind).starts_at_step else 0


@pytest.fixture(scope="module")
def play():
    """Returns a function that plays each lottery once."""
    played = {}

    def once(rewind, step=0):
        key = rewind, step
        if key not in played:
            played[key] = Played(rewind, step)
        return played[key]

    return once


@pytest.fixture(scope="module")
def plain(play):
    """The record of one plain training on the batches of level 0."""
    rows = rows_of(play("weights").levels[0])
    return train_plainly(build(), rows)


def same_records(one, other):
    """Asserts that two trainings were the same after every batch."""
    assert len(one) == len(other)
    for step, (here, there) in enumerate(zip(one, other)):
        assert differing(here, there) == [], f"after batch {step}"


def clock_name(values):
    """Returns the name under which the iteration was recorded."""
    (name,) = [n for n in values if n.endswith("/iteration")]
    return name


def test_the_record_tells_everything(play):
    """The names that the other tests compare, so that none goes missing."""
    names = set(play("weights").levels[0][0])
    assert {
        "seen/rows",
        "hidden/kernel",
        "hidden/bias",
        "norm/gamma",
        "norm/beta",
        "norm/moving_mean",
        "norm/moving_variance",
        "drop/seed",
        "output/kernel",
        "output/bias",
    } < names
    slots = [n for n in names if n.startswith("optimizer/")]
    assert len(slots) == 1 + 6  # the iteration, a momentum per weight
    moved = differing(
        play("weights").levels[0][0], play("weights").levels[0][-1]
    )
    assert set(moved) == names  # all of it changes in training


@pytest.mark.parametrize("rewind", list(rewinds.REWINDS))
def test_level_0_is_a_plain_training(play, plain, rewind):
    """Whatever comes later: no level before has been seen."""
    same_records(play(rewind, within(rewind, 6)).levels[0], plain)


@pytest.mark.parametrize("rewind", list(rewinds.REWINDS))
@pytest.mark.parametrize("level", [0, 1])
def test_masks_come_from_the_trained_weights(play, rewind, level):
    """The next mask, by brute force from the last batch of the level before."""
    played = play(rewind, within(rewind, 6))
    trained, before = played.levels[level][-1], played.tickets[level].mask
    size, after = before.size, played.tickets[level + 1].mask
    keep = kept(size, 1 - (1 - RATE) ** (level + 1))
    scores = np.concatenate(
        [
            np.where(before[n], abs(trained[n]), -1.0).ravel()
            for n in before
        ]
    )  # fmt: skip
    best = np.sort(np.argsort(-scores, kind="stable")[:keep])
    flat = np.concatenate([after[n].ravel() for n in after])
    assert np.flatnonzero(flat).tolist() == best.tolist()


@pytest.mark.parametrize("level", [1, 2])
def test_weights_at_0_is_a_fresh_run_with_the_mask(play, level):
    """As in a new process: new model, new optimizer, the mask preset."""
    played = play("weights")
    rows = rows_of(played.levels[0])
    assert rows_of(played.levels[level]) == rows
    record = train_plainly(build(), rows, played.tickets[level].mask)
    same_records(played.levels[level], record)


@pytest.mark.parametrize("step", [0, 4, 6, STEPS - 1])
def test_the_point_is_a_plain_training_stopped_there(play, plain, step):
    """Epochs have 4 steps: 6 and 11 lie inside one."""
    played = play("weights", step)
    expected = plain[step - 1] if step else played.first
    for ticket in played.tickets:
        found = {**ticket.start, **ticket.start_state}
        model = {n: v for n, v in expected.items() if n in found}
        assert differing(found, model) == []
    point = played.pruned.played.progress.point
    slots = [v for n, v in expected.items() if n.startswith("optimizer/")]
    assert len(slots) == len(point.optimizer) == 7
    for value, slot in zip(point.optimizer, slots):
        assert value.tobytes() == slot.tobytes()


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("step", [4, 6, STEPS - 1])
def test_weights_at_k_goes_on_from_step_k(play, plain, step, level):
    """Another model that is given the state of step k trains the same."""
    played = play("weights", step)
    rows = rows_of(plain)
    assert rows_of(played.levels[level]) == rows[step:]
    model = build()
    put(plain[step - 1], model)
    record = train_plainly(model, rows[step:], played.tickets[level].mask)
    same_records(played.levels[level], record)


@pytest.mark.parametrize("step", [0, 6])
def test_learning_rate_restores_the_clock_only(play, plain, step):
    """Weights, statistics, seeds and slots as trained; the rest from k."""
    played = play("learning_rate", step)
    rows = rows_of(plain)
    assert rows_of(played.levels[1]) == rows[step:]
    begin = dict(plain[-1])
    begin[clock_name(begin)] = np.array(step, begin[clock_name(begin)].dtype)
    model = build()
    put(begin, model)
    record = train_plainly(model, rows[step:], played.tickets[1].mask)
    same_records(played.levels[1], record)
    schedule = rates()
    expected = [float(schedule(s)) for s in range(step, STEPS)]
    assert played.rates[1] == played.rates[2] == expected


def test_fine_tune_stays_at_the_last_rate(play, plain):
    """Every step of every later level, as recorded and as computed."""
    played = play("fine_tune")
    schedule = rates()
    expected = [float(schedule(s)) for s in range(STEPS)]
    assert played.rates[0] == expected
    assert len(set(expected)) == STEPS
    last = expected[-1]
    assert played.rates[1] == played.rates[2] == [last] * STEPS

    constant = keras.optimizers.schedules.PiecewiseConstantDecay
    before = plain[-1]
    for level in (1, 2):
        model = build(sgd(constant([1000], [last, last])))
        put(before, model)
        rows = rows_of(plain)
        record = train_plainly(model, rows, played.tickets[level].mask)
        same_records(played.levels[level], record)
        before = record[-1]
    assert int(before[clock_name(before)]) == 3 * STEPS


def test_fine_tune_gives_the_schedule_back(play):
    """Afterwards the optimizer is the one that was compiled."""
    config = play("fine_tune").pruned.optimizer.get_config()
    assert config["learning_rate"]["class_name"] == "ExponentialDecay"


@pytest.mark.parametrize("rewind", ["continue", "none"])
def test_continue_resets_nothing(play, plain, rewind):
    """Strategy 2: each level begins where the one before ended."""
    played, before = play(rewind), plain[-1]
    rows = rows_of(plain)
    for level in (1, 2):
        model = build()
        put(before, model)
        record = train_plainly(model, rows, played.tickets[level].mask)
        same_records(played.levels[level], record)
        before = record[-1]
    assert int(before[clock_name(before)]) == 3 * STEPS


@pytest.mark.parametrize("rewind", ["fine_tune", "continue", "none"])
def test_what_goes_back_to_nothing_takes_no_rewind_step(play, rewind):
    """So every level has its whole length."""
    with pytest.raises(ValueError, match=f"'{rewind}' goes back to no step"):
        play(rewind, 6)
    for level in (1, 2):
        assert len(play(rewind).levels[level]) == STEPS


@pytest.mark.parametrize("rewind", list(rewinds.REWINDS))
def test_removed_weights_have_no_momentum(play, rewind):
    """After every batch, and so none that a later step could follow."""
    played = play(rewind, within(rewind, 6))
    for level in (1, 2):
        for name, mask in played.tickets[level].mask.items():
            slot = f"net_{name.replace('/', '_')}_momentum"
            for values in played.levels[level]:
                (key,) = [key for key in values if key.endswith(slot)]
                assert not values[key][~mask].any()
                assert values[key][mask].any()


def test_the_start_of_continue_is_theta_0(play):
    """Only at the very end does strategy 2 put weights back."""
    played = play("continue")
    for ticket in played.tickets:
        found = {**ticket.start, **ticket.start_state}
        first = {n: v for n, v in played.first.items() if n in found}
        assert differing(found, first) == []


@pytest.mark.parametrize("rewind", ["learning_rate", "fine_tune", "none"])
@pytest.mark.parametrize("level", [1, 2])
def test_the_start_of_others_is_where_the_level_began(play, rewind, level):
    """The trained weights of the level before, under the new mask."""
    played = play(rewind)
    before, ticket = played.tickets[level - 1 : level + 1]
    whole = before.weights("end")
    for name in ticket.mask:
        expected = np.where(ticket.mask[name], whole[name], np.float32(0))
        assert ticket.start[name].tobytes() == expected.tobytes()
    assert differing(ticket.start_state, before.end_state) == []


PIECES = [
    "hidden/kernel",
    "hidden/bias",
    "norm/gamma",
    "norm/beta",
    "norm/moving_mean",
    "norm/moving_variance",
    "drop/seed",
    "output/kernel",
    "output/bias",
    "iteration",
    *(f"slot {index}" for index in range(6)),
    "data",
]


@pytest.fixture(scope="module")
def trainer():
    """Returns a lottery that plays again and again in one model.

    With `forget`, its rewind leaves that piece as training has made it.
    """
    model, (x, y) = build(), data()
    first = everything(model, _built(model))
    rows = np.arange(ROWS).reshape(A_EPOCH, BATCH)
    shift, restore = [0], state.restore

    def train(model, first_step, last_step):
        for step in range(first_step, last_step):
            batch = rows[(step + shift[0]) % A_EPOCH]
            model.train_on_batch(x[batch], y[batch])

    def play(forget=None, proved=False):
        put(first, model)
        shift[0] = 0

        def forgetful(point, model, optimizer=None):
            piece = _pieces(model).get(forget)
            before = None if piece is None else piece.numpy().copy()
            restore(point, model, optimizer)
            shift[0] = 1 if forget == "data" else 0
            if piece is not None:
                piece.assign(before)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(state, "restore", forgetful)
            if not proved:
                patch.setattr(proving, "_prove", lambda *given, **more: None)
            schedule = lottery.OneShot(0.5)
            found = lottery.find_tickets(
                model, train, schedule, steps=STEPS, rewind_step=6
            )
            assert [ticket.level for ticket in found] == [0, 1]
        return everything(model, model.optimizer)

    return play


def _pieces(model):
    """Returns the variables that `PIECES` names."""
    named = dict(weights.by_name(model))
    named["iteration"] = model.optimizer.iterations
    slots = model.optimizer.variables[-6:]
    assert all(slot.name.endswith("momentum") for slot in slots)
    named.update({f"slot {i}": slot for i, slot in enumerate(slots)})
    assert set(PIECES) - set(named) == {"data"}
    return named


def test_two_lotteries_in_one_model_are_the_same(trainer):
    """So that a difference, below, is due to the piece that was forgotten."""
    assert differing(trainer(), trainer()) == []


@pytest.mark.parametrize("piece", PIECES)
def test_each_piece_matters(trainer, piece):
    """A rewind that forgets any one piece is seen by these comparisons."""
    assert differing(trainer(), trainer(forget=piece)) != []


@pytest.mark.parametrize("piece", [each for each in PIECES if each != "data"])
def test_each_piece_is_proved(trainer, piece):
    """And by the proofs, before anything is trained from there.

    Data are read by the training function, where no proof reaches.
    """
    with pytest.raises(lottery.RunError, match="A proof failed at level 1"):
        trainer(forget=piece, proved=True)


def played_by_batches(model, rewind):
    """Plays two levels with `train_on_batch` and returns the second."""
    x, y = data()

    def train(model, first_step, last_step):
        for step in range(first_step, last_step):
            first = step % A_EPOCH * BATCH
            rows = slice(first, first + BATCH)
            model.train_on_batch(x[rows], y[rows])

    found = lottery.find_tickets(
        model, train, lottery.OneShot(0.5), steps=STEPS, rewind=rewind
    )
    return list(found)[-1]


class TestTheHeldRateInCompiledFunctions:
    """The rate is part of what Keras compiles: no stale one may be used."""

    def test_after_another_lottery(self):
        """A function compiled for a lottery before has the moving rate."""
        expected = played_by_batches(build(), "fine_tune")
        model = build()
        first = everything(model, _built(model))
        played_by_batches(model, "weights")
        put(first, model)
        again = played_by_batches(model, "fine_tune")
        assert differing(dict(again.end), dict(expected.end)) == []

    def test_training_afterwards_follows_the_schedule(self):
        """The held rate ends with the lottery, in the compiled step too."""
        model, (x, y) = build(), data()
        played_by_batches(model, "fine_tune")
        other = build()
        put(everything(model, model.optimizer), other)
        for each in (model, other):
            each.train_on_batch(x[:BATCH], y[:BATCH])
        one = everything(model, model.optimizer)
        assert differing(one, everything(other, other.optimizer)) == []

    def test_the_wrapper_afterwards_follows_the_schedule(self):
        """The same for a model pruned by `lottery.prune`."""
        pruned, (x, y) = Played("fine_tune", 0).pruned, data()
        other = build()
        put(everything(pruned.inner, pruned.optimizer), other)
        pruned.train_on_batch(x[:BATCH], y[:BATCH])
        with lottery.masked(other, pruned.mask):
            other.train_on_batch(x[:BATCH], y[:BATCH])
        one = everything(pruned.inner, pruned.optimizer)
        assert differing(one, everything(other, other.optimizer)) == []


class TestLearningRateVariable:
    """A rate without a schedule is a variable: callbacks may change it."""

    def play(self, rewind):
        """Returns the rate before each batch of two levels, halved in each."""

        class Halve(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                rate = self.model.optimizer.learning_rate
                rate.assign(rate / 2)

        pruned = lottery.prune(build(), lottery.OneShot(0.5), rewind=rewind)
        pruned.compile(sgd(0.5), _loss())
        recorder, (x, y) = Recorder(), data()
        pruned.fit(
            x, y, batch_size=ROWS // 2, epochs=2, verbose=0,
            callbacks=[recorder, Halve()],
        )  # fmt: skip
        return recorder.rates

    @pytest.fixture(autouse=True)
    def without_rows(self, monkeypatch):
        """The batches are larger here: nothing to note."""
        monkeypatch.setattr(SeenRows, "call", lambda self, inputs: inputs)

    @pytest.mark.parametrize("rewind", ["weights", "learning_rate"])
    def test_it_goes_back(self, rewind):
        """Every level begins with the compiled rate."""
        assert self.play(rewind) == [[0.5, 0.5, 0.25, 0.25]] * 2

    @pytest.mark.parametrize("rewind", ["fine_tune", "continue"])
    def test_it_stays(self, rewind):
        """The next level begins with the last rate."""
        assert self.play(rewind)[1] == [0.125, 0.125, 0.0625, 0.0625]


def test_held_schedule_round_trips():
    """It is saved with a model that is saved while it is held."""
    held = rewinds.HeldSchedule(rates(), 4)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(held)
    )
    assert [float(again(np.float32(s))) for s in range(9)] == [
        float(rates()(min(s, 4))) for s in range(9)
    ]


def test_unknown_rewind_lists_the_choices():
    """A typo is answered with the names."""
    with pytest.raises(ValueError, match="'weight'.*'weights'.*'fine_tune'"):
        rewinds.get("weight")
