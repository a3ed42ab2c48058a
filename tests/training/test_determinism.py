"""Deterministic operations: for the length of a run, and no longer."""

import pytest
import tensorflow as tf

from keras_lottery.training import determinism


def unseeded():
    """An operation that TensorFlow refuses where it has to be deterministic."""
    return tf.random.normal((2,))


def test_they_are_asked_for_inside_only():
    tf.random.set_seed(None)  # tests before this one may have set it
    unseeded()
    with determinism.deterministic():
        assert determinism.is_deterministic()
        with pytest.raises(RuntimeError, match="[Dd]eterminism"):
            unseeded()
    assert not determinism.is_deterministic()
    unseeded()


def test_an_error_ends_them_too():
    with pytest.raises(KeyError), determinism.deterministic():
        raise KeyError
    assert not determinism.is_deterministic()


def test_who_has_asked_for_them_keeps_them():
    with determinism.deterministic():
        with determinism.deterministic():
            pass
        assert determinism.is_deterministic()
        with determinism.deterministic(False):
            assert determinism.is_deterministic()
        with determinism.lifted():
            assert not determinism.is_deterministic()
        assert determinism.is_deterministic()
    with determinism.lifted():
        pass
    assert not determinism.is_deterministic()
