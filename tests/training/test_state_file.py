"""Snapshots on disk: what is written is read, what is damaged is refused."""

import json

import keras
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from keras_lottery import arrays_file
from keras_lottery.errors import RunError
from keras_lottery.training import state
from keras_lottery.training import state_file
from keras_lottery.training.state import Snapshot

TAKEN = Snapshot(
    {
        "fc/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fc/half": np.array([1.5, -0.0, np.inf], np.float16),
        "fc/brain": np.array([[1.5, 3.0]], ml_dtypes.bfloat16),
        "bfloat16/name": np.array([7], np.uint16),
        "optimizer/0": np.array(4.0, np.float64),
        "scalar": np.array(3, np.int64),
        "drop/seed_generator_state": np.array([2**40, 0], np.int64),
        "seeds": np.array([2**32 - 1, 0], np.uint32),
        "mask": np.array([True, False]),
        "nothing": np.zeros((0, 3), np.float32),
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "nan": np.array([np.nan], np.float32),
    },
    (np.array(2, np.int64), np.array([0.5], ml_dtypes.bfloat16)),
)


def assert_same(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert found.tobytes() == np.asarray(expected, order="C").tobytes()


def test_round_trip():
    found = state_file.unpack(state_file.pack(TAKEN))
    assert found.model.keys() == TAKEN.model.keys()
    for name, value in TAKEN.model.items():
        assert_same(found.model[name], value)
    assert len(found.optimizer) == 2
    for one, two in zip(found.optimizer, TAKEN.optimizer):
        assert_same(one, two)


@pytest.mark.parametrize("slots", [None, ()])
def test_without_slots(slots):
    taken = Snapshot({"a": np.ones(2)}, slots)
    assert state_file.unpack(state_file.pack(taken)).optimizer == slots


def test_slots_stay_in_order():
    slots = tuple(np.array([i], np.float32) for i in range(12))
    found = state_file.unpack(state_file.pack(Snapshot({}, slots)))
    assert [int(each[0]) for each in found.optimizer] == list(range(12))


def test_equal_snapshots_have_equal_bytes():
    turned = Snapshot(
        dict(reversed(list(TAKEN.model.items()))), TAKEN.optimizer
    )
    assert state_file.pack(TAKEN) == state_file.pack(TAKEN)
    found = state_file.unpack(state_file.pack(turned))
    assert found.model.keys() == TAKEN.model.keys()


def test_a_model_with_dropout_and_statistics(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
        ]
    )
    model.compile("adam", "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 3)), epochs=2, verbose=0)
    taken = state.snapshot(model, model.optimizer)
    path = tmp_path / "point.safetensors"
    path.write_bytes(state_file.pack(taken))
    model.fit(np.ones((8, 4)), np.ones((8, 3)), epochs=1, verbose=0)
    state.restore(state_file.read(path), model, model.optimizer)
    again = state.snapshot(model, model.optimizer)
    assert again.model.keys() == taken.model.keys()
    for name, value in taken.model.items():
        assert_same(again.model[name], value)
    for one, two in zip(again.optimizer, taken.optimizer, strict=True):
        assert_same(one, two)


@pytest.mark.parametrize("kept", [0, 5, 8, 100, -1])
def test_a_cut_file_is_refused(kept, tmp_path):
    path = tmp_path / "end.safetensors"
    path.write_bytes(state_file.pack(TAKEN)[:kept])
    with pytest.raises(RunError, match="end.safetensors.*not a whole snapshot"):
        state_file.read(path)


def test_other_bytes_are_refused():
    good = state_file.pack(TAKEN)
    length = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + length])
    del header["__metadata__"]
    text = json.dumps(header).encode()
    bare = len(text).to_bytes(8, "little") + text + good[8 + length :]
    for wrong in (b"", b"\xff" * 100, b"[" * 9, bare, good + b"more"):
        with pytest.raises(RunError, match="not a whole snapshot"):
            state_file.unpack(wrong)


def test_missing_slots_are_refused():
    stored = safetensors.numpy.load(state_file.pack(TAKEN))
    for count, said in ((3, "optimizer/2"), (1, "optimizer/1"), (True, "True")):
        text = json.dumps(
            {
                "optimizer": count,
                "sha256": arrays_file.checksum(json.dumps(count), stored),
            }
        )
        wrong = safetensors.numpy.save(stored, {"keras_lottery": text})
        with pytest.raises(RunError, match=said):
            state_file.unpack(wrong)


def test_a_flipped_bit_anywhere_is_noticed():
    good = state_file.pack(TAKEN)
    for offset in range(len(good)):
        wrong = bytearray(good)
        wrong[offset] ^= 1 << offset % 8
        with pytest.raises(RunError, match="not a whole snapshot"):
            state_file.unpack(bytes(wrong))


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(RunError, match="Cannot read .*gone"):
        state_file.read(tmp_path / "gone")
