"""`fit(checkpoint_dir=)`: stopped anywhere, it ends with the same bits."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.errors import Preempted
from keras_lottery.errors import RunError
from keras_lottery.pruning import weights
from keras_lottery.training import checkpoint

ROWS, BATCH, EPOCHS = 40, 8, 4
A_EPOCH = ROWS // BATCH  # 5 steps
pytestmark = pytest.mark.thorough
HERE = pathlib.Path(__file__).parent


class Crash(Exception):
    """Stands for a process that is gone."""


class CrashAfter(keras.callbacks.Callback):
    """Raises after so many calls.

    They are counted by an iterator, which checkpoints do not keep. A callback
    of a user's own would make every step a call.
    """

    __module__ = "keras_lottery.crash"

    def __init__(self, calls):
        super().__init__()
        self._left = iter(range(calls - 1) if calls else iter(int, 1))

    def on_train_batch_end(self, batch, logs=None):
        """Counts."""
        if next(self._left, None) is None:
            raise Crash


class Rate(keras.callbacks.Callback):
    """Changes the learning rate whenever an epoch begins, and counts them."""

    def __init__(self):
        super().__init__()
        self.seen = {"epochs": 0, "values": np.zeros(2, np.float32)}

    def on_epoch_begin(self, epoch, logs=None):
        """Makes it smaller than it was."""
        rate = self.model.optimizer.learning_rate
        rate.assign(rate * 0.9)
        self.seen["epochs"] += 1
        self.seen["values"][0] += float(rate.numpy())


def data(rows=ROWS, seed=0):
    """Returns x and y."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 5)).astype(np.float32)
    return x, rng.integers(0, 3, rows)


def network(kind=keras.Sequential):
    """Returns a new network with statistics and random draws."""
    inputs = keras.Input((5,))
    x = keras.layers.Dense(8, activation="tanh", name="hidden")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.3, name="drop")(x)
    outputs = keras.layers.Dense(3, name="output")(x)
    kind = keras.Model if kind is keras.Sequential else kind
    return kind(inputs, outputs, name="net")


def pruned_network(draw, schedule=None, model=None, mode=None, **choices):
    """Returns a compiled pruned model whose first weights `draw` decides."""
    keras.utils.set_random_seed(draw)
    schedule = schedule or lottery.IterativePruning(0.5, levels=2)
    pruned = lottery.prune((model or network)(), schedule, **choices)
    pruned.step_mode = mode
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(keras.optimizers.Adam(0.05), loss, metrics=["accuracy"])
    return pruned


def fit(pruned, folder, calls=None, read=data, callbacks=None, **more):
    """Fits four epochs a level; crashes after some calls."""
    if callbacks is None:
        callbacks = [
            keras.callbacks.EarlyStopping(
                patience=2, min_delta=0.01, restore_best_weights=True
            ),
            keras.callbacks.ReduceLROnPlateau(patience=1, factor=0.5),
            Rate(),
        ]
    x, y = read()
    given = {"x": x} if y is None else {"x": x, "y": y, "batch_size": BATCH}
    if folder is not None:
        more = {"checkpoint_steps": 3, **more}
    arguments = {"epochs": EPOCHS, "verbose": 0, **more}
    history = pruned.fit(
        **given,
        validation_data=data(16, 1),
        callbacks=[*callbacks, CrashAfter(calls)],
        checkpoint_dir=folder,
        **arguments,
    )
    seen = [each.seen for each in callbacks if isinstance(each, Rate)]
    return history, seen


def everything(pruned):
    """Returns every variable of the inner model and the optimizer."""
    found = {n: v.numpy() for n, v in weights.by_name(pruned.inner).items()}
    for index, variable in enumerate(pruned.optimizer.variables):
        found[f"optimizer/{index}"] = variable.numpy()
    found["level"], found["clock"] = pruned.level, pruned.clock.numpy()
    return found | {f"mask {k}": v for k, v in pruned.mask.items()}


def same_bits(one, other):
    """Asserts that two dicts of arrays are the same, bit for bit."""
    assert set(one) == set(other)
    for name in one:
        here, there = np.asarray(one[name]), np.asarray(other[name])
        assert here.dtype == there.dtype, name
        assert here.tobytes() == there.tobytes(), name


def same(one, other, slots=True):
    """Asserts that two (pruned model, what `fit` returned) are the same."""
    (pruned, (history, seen)), (twin, (twin_history, twin_seen)) = one, other
    assert len(pruned.tickets) == len(twin.tickets)
    for here, there in zip(pruned.tickets, twin.tickets, strict=True):
        assert (here.level, here.mask) == (there.level, there.mask)
        assert dict(here.metrics) == dict(there.metrics)
        for part in ("start", "start_state", "end", "end_state"):
            same_bits(getattr(here, part), getattr(there, part))
    assert history.history == twin_history.history
    assert history.epoch == twin_history.epoch
    if slots:
        same_bits(everything(pruned), everything(twin))
        assert str(seen) == str(twin_seen)


def whole(choices, **more):
    """Returns a lottery that nothing stops, saved nowhere."""
    pruned = pruned_network(1, **choices)
    return pruned, fit(pruned, None, **more)


def in_pieces(folder, calls, choices, **more):
    """Returns a lottery that crashes again and again, and how often it did.

    Every time a new model with other first weights goes on.
    """
    for crashes, after in enumerate([*calls, None]):
        pruned = pruned_network(1 + crashes, **choices)
        try:
            return (pruned, fit(pruned, folder, after, **more)), crashes
        except Crash:
            continue
    raise AssertionError("it never ended")


class Batches(keras.utils.PyDataset):
    """Batches made in Python, which Keras's own `fit` trains on."""

    @property
    def num_batches(self):
        """Steps in an epoch."""
        return A_EPOCH

    def __getitem__(self, index):
        """Returns a batch."""
        rows = slice(index * BATCH, (index + 1) * BATCH)
        return tuple(each[rows] for each in data())


class OwnStep(keras.Model):
    """A model that trains by a step of its own."""

    def train_step(self, data):
        """As Keras's."""
        return super().train_step(data)


def dataset():
    """Returns a dataset in the same order whenever it is read."""
    tf.random.set_seed(0)  # `shuffle` adds it to its own
    found = tf.data.Dataset.from_tensor_slices(data())
    found = found.shuffle(ROWS, seed=4, reshuffle_each_iteration=False)
    return found.batch(BATCH), None


def py_dataset():
    """Returns a PyDataset, and no labels."""
    return Batches(), None


IN_PLACE = lottery.PolynomialDecay(0.2, 0.7, 2, 14, power=1, frequency=3)
# Of 3 steps at most; a level has 20 and is saved at 3, 5, 6, 9, 10...
CASES = {
    "weights": ({}, (1, 2, 4, 7, 2), {}),
    "later": ({"rewind_step": 7}, (5, 9), {}),
    "at an epoch": ({"rewind_step": A_EPOCH}, (3, 8), {}),
    "learning rate": (
        {"rewind": "learning_rate", "rewind_step": 4}, (12,), {},
    ),
    "fine tune": ({"rewind": "fine_tune"}, (11,), {}),
    "in place": ({"schedule": IN_PLACE}, (2, 3), {}),
    "xla": ({"mode": "xla"}, (12,), {}),
    "dataset": ({}, (2, 12), {"read": dataset}),
    "py dataset": ({}, (18,), {"read": py_dataset, "shuffle": False}),
    "own step": ({"model": lambda: network(OwnStep)}, (5,), {}),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    CASES,
)
def test_in_pieces_as_whole(name, tmp_path):
    choices, calls, more = CASES[name]
    expected = whole(choices, **more)
    found, crashes = in_pieces(tmp_path, calls, choices, **more)
    assert crashes == len(calls)
    same(found, expected)


def test_a_finished_folder_trains_nothing(tmp_path):
    """The same call again returns at once: a crash at the first call is not."""
    for choices in ({}, {"schedule": IN_PLACE}):
        folder = tmp_path / str(len(choices))
        pruned = pruned_network(1, **choices)
        first = pruned, fit(pruned, folder)
        other = pruned_network(2, **choices)
        same((other, fit(other, folder, calls=1)), first)
        tickets = pruned.tickets
        same((pruned, fit(pruned, folder, calls=1)), first)  # itself, again
        assert len(pruned.tickets) == len(tickets)


def test_the_same_model_goes_on(tmp_path):
    """As in a notebook whose cell was stopped, and run again."""
    expected = whole({})
    pruned = pruned_network(1)
    with pytest.raises(Crash):
        fit(pruned, tmp_path, calls=10)
    same((pruned, fit(pruned, tmp_path)), expected)


def test_saving_changes_nothing(tmp_path):
    pruned = pruned_network(1)
    same((pruned, fit(pruned, tmp_path, checkpoint_steps=1)), whole({}))


def test_a_generator_goes_on_at_a_level(tmp_path):
    """Inside a level nothing is saved: its batches would be others."""

    def batches():
        while True:
            yield from (Batches()[index] for index in range(A_EPOCH))

    def read():
        return batches(), None

    more = {"read": read, "steps_per_epoch": A_EPOCH}
    pruned = pruned_network(1)
    with pytest.raises(Crash):
        fit(pruned, tmp_path, 33, callbacks=[], **more)
    assert len(pruned.tickets) == 1
    other = pruned_network(2)
    history, _ = fit(other, tmp_path, callbacks=[], **more)
    same_bits(other.tickets[0].end, pruned.tickets[0].end)
    same_bits(other.tickets[2].start, pruned.tickets[0].start)
    assert history.history["level"] == [0] * 4 + [1] * 4 + [2] * 4


# ------------------------------------------------------------------- processes


SCRIPT = """
import time
import keras
import test_fit_checkpoints as tests

class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        print("called", flush=True)
        time.sleep(0.05)

pruned = tests.pruned_network(1)
tests.fit(pruned, {folder!r}, callbacks=[Slow()], checkpoint_steps=2)
"""


def stopped(folder, number, calls):
    """Returns the exit code of a process that a signal was sent to."""
    paths = [str(HERE), str(HERE.parent.parent)]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(folder=str(folder))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for _ in range(calls):
        assert process.stdout.readline() == "called\n"
    process.send_signal(number)
    process.stdout.close()
    return process.wait(60)


class Slow(keras.callbacks.Callback):
    """Stands in for that of the script, which has its name."""

    def on_train_batch_end(self, batch, logs=None):
        """Does nothing."""


@pytest.mark.parametrize(
    "number, calls, code", [(signal.SIGKILL, 13, -9), (signal.SIGTERM, 17, 75)]
)
def test_processes_that_are_stopped(number, calls, code, tmp_path):
    assert stopped(tmp_path, number, calls) == code
    pruned = pruned_network(2)
    # What is kept is of level 0 or later, and of a later step than the first.
    reached = sorted(tmp_path.glob("checkpoint-*"))
    assert len(reached) == 2
    found = fit(pruned, tmp_path, callbacks=[Slow()], checkpoint_steps=2)
    same((pruned, found), whole({}, callbacks=[Slow()]))


class Signal(keras.callbacks.Callback):
    """Sends a signal to its own process after some calls."""

    def __init__(self, number, calls):
        super().__init__()
        self._number, self._left = number, iter(range(calls))

    def on_train_batch_end(self, batch, logs=None):
        """Counts."""
        if next(self._left, None) is None and self._number is not None:
            number, self._number = self._number, None
            os.kill(os.getpid(), number)


@pytest.fixture
def ctrl_c():
    """Ctrl-C is heard, as at a terminal: in the background it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    "number, error",
    [(signal.SIGTERM, Preempted), (signal.SIGINT, KeyboardInterrupt)],
)
def test_a_signal_saves_first(number, error, tmp_path):
    """The call that is under way is kept, not only what was saved before."""
    before = signal.getsignal(number)
    expected = whole({}, callbacks=[Signal(None, 0)])
    pruned = pruned_network(1)
    with pytest.raises(error):
        fit(
            pruned, tmp_path, callbacks=[Signal(number, 3)],
            checkpoint_steps=None, checkpoint_seconds=1e6,
        )  # fmt: skip
    assert signal.getsignal(number) is before
    calls = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: calls.append(batch)
    )
    again = pruned_network(2)
    with pytest.raises(ValueError, match="callbacks"):
        fit(again, tmp_path, callbacks=[Signal(None, 0), count])
    same((again, fit(again, tmp_path, callbacks=[Signal(None, 0)])), expected)


def test_a_second_process_is_refused(tmp_path):
    inside, go_on = threading.Event(), threading.Event()

    class Wait(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            inside.set()
            go_on.wait(60)

    first = pruned_network(1)
    thread = threading.Thread(
        target=fit, args=(first, tmp_path), kwargs={"callbacks": [Wait()]}
    )
    thread.start()
    try:
        assert inside.wait(60)
        with pytest.raises(RunError, match="Another process is working on"):
            fit(pruned_network(1), tmp_path, callbacks=[Wait()])
    finally:
        go_on.set()
        thread.join()
    assert len(first.tickets) == 3


# ---------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def stopped_lottery(tmp_path_factory):
    """Returns a folder that a lottery left in level 2, and how it has to end.

    And one of another lottery with the same settings.
    """
    folder = tmp_path_factory.mktemp("stopped")
    for name, seed in (("one", 1), ("other", 5)):
        with pytest.raises(Crash):
            fit(pruned_network(seed), folder / name, 22, callbacks=[])
    return folder / "one", folder / "other", whole({}, callbacks=[])


def flipped(path):
    """Flips a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path):
    """Leaves half of a file, or nothing."""
    size = path.stat().st_size if path.suffix == ".json" else 0
    path.write_bytes(path.read_bytes()[: size // 2])


def copied(source, target):
    """Returns a copy of a folder."""
    return pathlib.Path(shutil.copytree(source, target))


def test_what_a_stopped_lottery_leaves(stopped_lottery):
    names = sorted(path.name for path in stopped_lottery[0].iterdir())
    kept = [n for n in names if n.startswith("checkpoint-")]
    assert len(kept) == 2
    numbers = [int(name.split("-")[1]) for name in kept]
    assert [n for n in names if n not in kept] == [
        "level_0.json", "level_0.safetensors", "level_1.json",
        "level_1.safetensors", "lottery.json", "lottery.lock",
    ]  # fmt: skip
    assert numbers[1] == numbers[0] + 1


@pytest.mark.parametrize(
    "damage",
    [flipped, cut, os.unlink],
)
def test_damage(damage, stopped_lottery, tmp_path, caplog):
    """Any one file: it is named, and all ends as if nothing had been.

    But for the spare checkpoint, which is read only if the other is damaged.
    """
    one, _, expected = stopped_lottery
    files = [p for p in sorted(one.iterdir()) if p.name != "lottery.lock"]
    assert len(files) == 7
    spare = files[0].name
    for path in files:
        folder = copied(one, tmp_path / path.name)
        damage(folder / path.name)
        caplog.clear()
        pruned = pruned_network(2)
        found = pruned, fit(pruned, folder, callbacks=[])
        same(found, expected)
        if damage is not os.unlink and path.name != spare:
            assert path.name in caplog.text
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "pattern", ["lottery.json", "level_1.*", "checkpoint-*"]
)
def test_files_of_another_lottery(pattern, stopped_lottery, tmp_path, caplog):
    """Of the same settings, but other first weights."""
    one, other, expected = stopped_lottery
    folder = copied(one, tmp_path / "one")
    for path in folder.glob(pattern):
        path.unlink()
    for path in other.glob(pattern):
        shutil.copy(path, folder)
    pruned = pruned_network(2)
    if pattern == "lottery.json":  # nothing else here is of that one
        with pytest.raises(RunError, match="Too much of .* is damaged"):
            fit(pruned, folder, callbacks=[])
        return
    same((pruned, fit(pruned, folder, callbacks=[])), expected)
    assert re.search(r"(level_1|checkpoint-).* of another lottery", caplog.text)


CHOICES = {
    "weights": {},
    "later": {"rewind_step": 3},
    "learning rate": {"rewind": "learning_rate"},
}


@pytest.mark.parametrize("name", CHOICES)
def test_both_checkpoints_are_lost(name, tmp_path):
    """The tickets are enough, but for a rewind point that is in none."""
    choices = CHOICES[name]
    with pytest.raises(Crash):
        fit(pruned_network(1, **choices), tmp_path, 22, callbacks=[])
    for path in tmp_path.glob("checkpoint-*"):
        flipped(path)
    pruned = pruned_network(2, **choices)
    if name == "later":
        with pytest.raises(RunError, match="remove it to begin anew"):
            fit(pruned, tmp_path, callbacks=[])
        return
    found = pruned, fit(pruned, tmp_path, callbacks=[])
    same(found, whole(choices, callbacks=[]))


def test_leftovers_are_removed(tmp_path):
    (tmp_path / ".writing-x").write_bytes(b"half")
    fit(pruned_network(1), tmp_path, callbacks=[])
    assert not list(tmp_path.glob(".writing-*"))


def test_a_full_disk(tmp_path, monkeypatch):
    """It says so; with room again all goes on."""
    real, left = lottery.files.write_whole, iter(range(6))

    def write(path, content):
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(lottery.files, "write_whole", write)
    with pytest.raises(RunError, match="Free room on its disk"):
        fit(pruned_network(1), tmp_path, callbacks=[])
    monkeypatch.undo()
    pruned = pruned_network(2)
    found = pruned, fit(pruned, tmp_path, callbacks=[])
    same(found, whole({}, callbacks=[]))


# --------------------------------------------------------------------- refused


def other_data():
    """Returns data of which one bit differs."""
    x, y = data()
    x.view(np.uint8)[0, 0] ^= 1
    return x, y


OTHERS = {
    "prune rewind_step": ({"rewind_step": 2}, {}),
    "prune seed": ({"seed": 3}, {}),
    "fit epochs: 4 there, 5 here": ({}, {"epochs": 5}),
    "callbacks": ({}, {"callbacks": [Rate()]}),
    "data": ({}, {"read": other_data}),
    "step mode": ({"mode": "xla"}, {}),
    "model": ({"model": lambda: network(OwnStep)}, {}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_lottery_is_refused(name, stopped_lottery):
    """With what differs; the folder stays as it is."""
    choices, more = OTHERS[name]
    folder = stopped_lottery[0]
    before = {p: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ValueError, match=f"holds another lottery: .*{name}"):
        fit(pruned_network(1, **choices), folder, **{"callbacks": [], **more})
    assert before == {p: p.read_bytes() for p in folder.iterdir()}


def test_what_cannot_be_saved_is_refused(tmp_path):
    pruned = pruned_network(1)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(ValueError, match="leave out the callback"):
        fit(pruned, tmp_path, callbacks=[backup])
    with pytest.raises(ValueError, match="say where, too"):
        fit(pruned, None, checkpoint_seconds=3)
    with pytest.raises(Crash):
        fit(pruned, None, calls=9)
    with pytest.raises(ValueError, match="the levels before are not in"):
        fit(pruned, tmp_path / "late")


def test_legacy_models_are_refused(tmp_path):
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(3)])
    model.build((None, 5))
    for schedule in (lottery.OneShot(0.5), IN_PLACE):
        pruned = lottery.prune(model, schedule, allocation="layerwise")
        pruned.compile("sgd", "mse")
        with pytest.raises(ValueError, match="this one is of tf_keras"):
            pruned.fit(*data(), checkpoint_dir=tmp_path)


def test_the_default_pace(tmp_path, monkeypatch):
    """The first state, and one at the end of each level; no more in 30 s."""
    saved = []
    real = checkpoint.Checkpoints.save

    def save(self, each):
        saved.append((each.record["level"], each.record["trained"]))
        real(self, each)

    monkeypatch.setattr(checkpoint.Checkpoints, "save", save)
    fit(pruned_network(1), tmp_path, callbacks=[], checkpoint_steps=None)
    assert saved == [(0, False), (0, True), (1, True), (2, True)]
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: 100 * now())
    saved.clear()
    other = tmp_path / "other"
    fit(pruned_network(1), other, callbacks=[], checkpoint_steps=None)
    assert len(saved) >= 4


def test_diverged_in_place(tmp_path):
    """Weights that are not finite make no ticket."""

    class Spoil(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            bias = self.model.inner.layers[-1].bias
            bias.assign(bias * np.nan)

    pruned = pruned_network(1, schedule=IN_PLACE)
    with pytest.raises(RunError, match="output/bias is not finite"):
        fit(pruned, None, callbacks=[Spoil()])
    assert pruned.tickets == ()
