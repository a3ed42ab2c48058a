"""`export`: the SavedModel answers as the ticket does."""

import json
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.tickets.ticket import Ticket

LEVEL = "replicate_0/ticket/level_{}/ticket.safetensors"


def served(path, x):
    function = tf.saved_model.load(str(path)).signatures["serving_default"]
    (name,) = function.structured_input_signature[1]
    (answer,) = function(**{name: tf.constant(x)}).values()
    return answer.numpy()


def by_hand(path, x):
    """LeNet with the ticket's trained weights, in NumPy."""
    ticket = Ticket.load(path)
    weights = {**ticket.weights("end"), **ticket.end_state}
    x = x.reshape(len(x), -1)
    for name in ("fc1", "fc2", "output"):
        x = x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]
        x = x if name == "output" else np.maximum(x, 0)
    return x


@pytest.fixture
def images():
    return np.random.default_rng(0).random((5, 8, 8, 1), np.float32)


def test_of_a_run_it_exports_the_level_that_the_run_exported(
    made, finished, answer, tmp_path, images
):
    level = re.search(r"\(replicate 0, level (\d)\)", made[1].out)[1]
    told = answer("export", finished, f"--to={tmp_path / 'served'}")
    assert told.code == 0, told.err
    assert f"replicate 0, level {level} of {finished}" in told.out
    path = told.out.splitlines()[-1]
    assert path == str(tmp_path / "served" / "1")
    right = by_hand(finished / LEVEL.format(level), images)
    np.testing.assert_allclose(
        served(path, images), right, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(
        served(path, images), served(finished / "export" / "1", images)
    )


def test_of_a_ticket_file_it_exports_that_one(
    finished, answer, tmp_path, images
):
    path = finished / LEVEL.format(1)
    told = answer("export", path, "--to", tmp_path / "served")
    assert told.code == 0, told.err
    assert "<Ticket of level 1" in told.out
    np.testing.assert_allclose(
        served(tmp_path / "served/1", images),
        by_hand(path, images),
        rtol=1e-4,
        atol=1e-5,
    )


def test_versions_count_up_and_are_never_overwritten(
    finished, answer, tmp_path
):
    typed = ("export", finished / LEVEL.format(1), f"--to={tmp_path / 'it'}")
    assert answer(*typed, "--version=7").code == 0
    assert answer(*typed).code == 0
    told = answer(*typed, "--version=7")
    assert told.code in (1, 2) and "never overwritten" in told.err
    assert sorted(p.name for p in (tmp_path / "it").iterdir()) == ["7", "8"]


@pytest.mark.parametrize("version", ["-1", "one", "1.5"])
def test_a_version_that_is_none_is_wrong_usage(
    version, finished, answer, tmp_path
):
    typed = ("export", finished / LEVEL.format(1), f"--to={tmp_path / 'it'}")
    told = answer(*typed, f"--version={version}")
    assert told.code == 2 and "version" in told.err
    assert not (tmp_path / "it").exists()


def test_a_run_without_a_ticket_exits_1_and_says_so(finished, answer, tmp_path):
    for level in (1, 2):
        shutil.rmtree(finished / "replicate_0" / "ticket" / f"level_{level}")
    told = answer("export", finished, f"--to={tmp_path / 'it'}")
    assert told.code == 1
    assert "ticket" in told.err and str(finished) in told.err
    shutil.rmtree(finished / "replicate_0")
    told = answer("export", finished, f"--to={tmp_path / 'it'}")
    assert told.code == 1 and "max()" not in told.err
    assert not (tmp_path / "it").exists()


def test_without_a_winner_it_is_the_best_on_validation_data(
    finished, answer, tmp_path
):
    for level, accuracy in ((0, 1.0), (1, 0.7), (2, 0.6)):
        path = finished / f"replicate_0/ticket/level_{level}/level.json"
        record = json.loads(path.read_text())
        record["row"]["val_accuracy"] = accuracy
        path.write_text(json.dumps(record))
    told = answer("export", finished, f"--to={tmp_path / 'it'}")
    assert told.code == 0, told.err
    assert "replicate 0, level 1 of" in told.out


def test_an_export_can_be_read_by_keras_too(finished, images):
    layer = keras.layers.TFSMLayer(
        str(finished / "export" / "1"), call_endpoint="serving_default"
    )
    (found,) = layer(images).values()
    assert found.shape == (5, 10)


@pytest.mark.parametrize("name", ["nowhere", "levels.csv", "config.json"])
def test_what_is_no_ticket_exits_1(name, finished, answer, tmp_path):
    told = answer("export", finished / name, f"--to={tmp_path / 'it'}")
    assert told.code == 1 and name in told.err
    assert not (tmp_path / "it").exists()
