"""Strategies by name, on whatever devices there are."""

import pytest
import tensorflow as tf

from keras_lottery.training import strategies


def test_every_found_strategy_can_be_made():
    assert set(strategies.found()) <= set(strategies.STRATEGIES)
    for name in strategies.found():
        made = strategies.get(name)()
        assert (made is None) == (name == "none")
        with strategies.scope(made):
            inside = tf.distribute.has_strategy()
        assert inside == (name != "none")
        assert not tf.distribute.has_strategy()


def test_tpu_is_found_only_where_there_is_one():
    there = bool(tf.config.list_physical_devices("TPU"))
    assert ("tpu" in strategies.found()) == there


def test_kinds_and_devices():
    accelerators = [
        each.name
        for kind in ("TPU", "GPU")
        for each in tf.config.list_logical_devices(kind)
    ]
    devices = accelerators or [
        each.name for each in tf.config.list_logical_devices("CPU")
    ]
    one = strategies.one_device()
    assert isinstance(one, tf.distribute.OneDeviceStrategy)
    assert one.num_replicas_in_sync == 1
    many = strategies.mirrored()
    assert isinstance(many, tf.distribute.MirroredStrategy)
    assert many.num_replicas_in_sync == len(devices)


def test_unknown_names_are_refused():
    with pytest.raises(
        ValueError,
        match=r"Unknown strategy 'miror'\. Expected "
        r"one of 'none', 'one_device', 'mirrored', 'multi_worker', 'tpu', or a",
    ):
        strategies.get("miror")


@pytest.mark.parametrize("cluster", [None, "", "{", "[]", '{"task": {}}'])
def test_workers_without_a_cluster_are_told_what_it_looks_like(
    cluster, monkeypatch
):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if cluster is not None:
        monkeypatch.setenv("TF_CONFIG", cluster)
    with pytest.raises(ValueError, match=r"needs TF_CONFIG: .*\n  TF_CONFIG='"):
        strategies.get("multi_worker")()


def test_a_function_is_taken_as_it_is():
    assert strategies.get(strategies.mirrored) is strategies.mirrored
