"""Checkpoints: whole or not used, two at most, and all that they hold."""

import json
import time

import keras
import ml_dtypes
import numpy as np
import pytest

from keras_lottery.errors import RunError
from keras_lottery.training import checkpoint
from keras_lottery.training import state_file
from keras_lottery.training.state import Snapshot

RECORD = {
    "step": 7,
    "rows": [{"loss": 0.1, "by_class": np.float32([0.1, 0.2])}],
    "seconds": 1.5,
    "count": np.int64(3),
    "name": None,
}
SNAPSHOTS = {
    "now": Snapshot(
        {
            "a/kernel": np.float32([[1.0, -0.0], [np.nan, 1e-40]]),
            "b": np.zeros((), ml_dtypes.bfloat16),
        },
        tuple(np.full((2,), number) for number in range(12)),
    ),
    "point": Snapshot({"seed": np.uint32([1, 2])}, None),
}
ARRAYS = {"mask/a/kernel": np.uint8([3]), "metric/10": np.zeros((2, 2))}


def made(**record):
    return checkpoint.Checkpoint({**RECORD, **record}, SNAPSHOTS, ARRAYS)


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        value = np.asarray(value)
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].tobytes() == value.tobytes()


def test_all_comes_back_bit_for_bit():
    found = checkpoint.unpack(checkpoint.pack(made(), "this"), "this")
    rows = found.record.pop("rows")
    assert found.record == {k: v for k, v in RECORD.items() if k != "rows"}
    assert rows[0]["loss"] == 0.1
    np.testing.assert_array_equal(
        rows[0]["by_class"], RECORD["rows"][0]["by_class"], strict=True
    )
    same(found.arrays, ARRAYS)
    for name, taken in SNAPSHOTS.items():
        same(found.snapshots[name].model, taken.model)
        slots = found.snapshots[name].optimizer
        assert (slots is None) == (taken.optimizer is None)
        for one, other in zip(slots or (), taken.optimizer or (), strict=True):
            np.testing.assert_array_equal(one, other, strict=True)


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="set is not kept in a checkpoint"):
        checkpoint.pack(made(more={1}), "this")


def header(change):
    """The bytes of a checkpoint with another header."""
    arrays = state_file.unpack(checkpoint.pack(made(), "this")).model
    found = json.loads(arrays["header"].tobytes())
    text = change(found)
    text = text if isinstance(text, str) else json.dumps(found)
    arrays["header"] = np.frombuffer(text.encode(), np.uint8)
    return state_file.pack(Snapshot(arrays, None))


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop("record"),
        lambda found: found.pop("of"),
        lambda found: found["slots"].update(now=13),
        lambda found: found["slots"].update(now="x"),
        lambda found: found.update(slots=[]),
        lambda found: "[" * 100_000,
        lambda found: "[]",
        lambda found: '{"array of numpy": [""], "dtype": "U400000000"}',
        lambda found: '{"array of numpy": [""], "dtype": 3}',
    ],
)
def test_forged_headers_are_damage(change):
    with pytest.raises(RunError, match="not a whole checkpoint"):
        checkpoint.unpack(header(change), "this")


def test_one_of_something_else_is_not_read(tmp_path, caplog):
    checkpoint.Checkpoints(tmp_path, "that").save(made())
    assert checkpoint.Checkpoints(tmp_path, "this").newest() is None
    assert "it is of 'that', not of 'this'" in caplog.text


def test_two_are_kept_and_never_three(tmp_path, monkeypatch):
    kept, most = checkpoint.Checkpoints(tmp_path, "this"), []
    write = checkpoint.files.write_whole

    def written(path, content):
        write(path, content)
        most.append(len(list(tmp_path.glob("checkpoint-*"))))

    monkeypatch.setattr(checkpoint.files, "write_whole", written)
    for step in range(5):
        kept.save(made(step=step))
    assert most == [1, 2, 2, 2, 2]
    assert kept.newest().record["step"] == 4
    kept.clear()
    assert list(tmp_path.iterdir()) == [] and kept.newest() is None


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "folder", "rename"])
def test_a_damaged_one_is_named_and_the_one_before_is_used(
    how, tmp_path, caplog
):
    kept = checkpoint.Checkpoints(tmp_path, "this")
    for step in (1, 2):
        kept.save(made(step=step))
    path = sorted(tmp_path.iterdir())[-1]
    content = bytearray(path.read_bytes())
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "rename":  # the older one under the newer one's name
        path.write_bytes(next(tmp_path.iterdir()).read_bytes())
    else:
        content[len(content) // 3] ^= 16
        path.write_bytes({"flip": content, "cut": content[:99]}.get(how, b""))
    assert kept.newest().record["step"] == 1
    assert path.name in caplog.text


def test_a_check_of_ones_own_is_heeded(tmp_path):
    kept = checkpoint.Checkpoints(tmp_path, "this")
    for step in (1, 2):
        kept.save(made(step=step))

    def first_only(found):
        if found.record["step"] > 1:
            raise RunError("not this one.")

    assert kept.newest(first_only).record["step"] == 1


@pytest.mark.parametrize("names", [("auc",), ("accuracy", "auc", "mse")])
def test_states_of_metrics_of_any_shapes_come_back(names, tmp_path):
    """Files give arrays back in an order of their own."""
    make = {"auc": lambda: keras.metrics.AUC(name="area")}

    def build():
        model = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")]
        )
        metrics = [make.get(name, lambda name=name: name)() for name in names]
        model.compile("sgd", "binary_crossentropy", metrics=metrics)
        return model

    generator = np.random.default_rng(0)
    x, y = generator.random((20, 3)), generator.integers(0, 2, (20, 1))
    model, other = build(), build()
    model.evaluate(x, y, verbose=0)
    other.evaluate(x[:3], y[:3], verbose=0)
    kept = checkpoint.Checkpoints(tmp_path, "this")
    kept.save(checkpoint.Checkpoint({}, {}, checkpoint.metric_values(model)))
    checkpoint.restore_metrics(other, kept.newest().arrays)
    found, expected = other.get_metrics_result(), model.get_metrics_result()
    assert {k: float(v) for k, v in found.items()} == {
        k: float(v) for k, v in expected.items()
    }


def test_other_metrics_are_refused():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(RunError, match="metrics are others"):
        checkpoint.restore_metrics(model, {"metric/0": np.zeros(3)})


class TestPace:
    """When the next one is due."""

    def test_by_steps(self):
        """Counted from where a training began, or was saved."""
        pace = checkpoint.Pace(steps=10, seconds=0)
        pace.begin(5)
        assert [pace.due(step) for step in (5, 14, 15)] == [False, False, True]
        with pace.saving(15):
            pass
        assert [pace.due(step) for step in (24, 25)] == [False, True]

    def test_by_time_and_never_above_two_percent(self, monkeypatch):
        """50 times what the last one took, or what is asked for."""
        now = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        pace = checkpoint.Pace(seconds=30.0)
        now[0] = 129.9
        assert not pace.due(1)
        now[0] = 130.0
        assert pace.due(1)
        with pace.saving(1):
            now[0] = 132.0  # it takes 2 s
        for seconds, due in ((30, False), (99.9, False), (100, True)):
            now[0] = 132.0 + seconds
            assert pace.due(2) == due

    @pytest.mark.parametrize("given", [{"steps": 0}, {"seconds": -1}])
    def test_what_cannot_be_is_refused(self, given):
        """Zero steps, and time that runs backwards."""
        with pytest.raises(ValueError, match="checkpoint"):
            checkpoint.Pace(**given)
