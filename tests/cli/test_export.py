"""`export`: the SavedModel answers as the ticket does."""

import json
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery import sealed_json
from keras_lottery.cli import export
from keras_lottery.data import sources
from keras_lottery.exporting import formats
from keras_lottery.exporting import measuring
from keras_lottery.exporting import rounding
from keras_lottery.runs import identity
from keras_lottery.tickets.ticket import Ticket

pytestmark = pytest.mark.thorough

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
        del record["checksum"]
        record["row"]["val_accuracy"] = accuracy
        path.write_bytes(sealed_json.pack(record))
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


def card(path):
    return json.loads((path / "model_card.json").read_text())


def config_of(run):
    return json.loads((run / "config.json").read_text())["config"]["data"]


def test_help_lists_what_the_package_has():
    assert export.FORMATS == tuple(formats.FORMATS)
    assert export.VALUES == rounding.VALUES


def test_samples_of_the_run_warm_up_and_tell_the_accuracy(
    finished, answer, tmp_path
):
    to = tmp_path / "it"
    told = answer(
        "export", finished, f"--to={to}", "--values=int8", "--samples=40"
    )
    assert told.code == 0, told.err
    found = card(to / "1")
    assert found["accuracy"]["samples"] == 40
    assert found["values"] == "int8"
    x, y = sources.load("digits", rows=config_of(finished)["rows"]).test
    level = re.search(r"replicate 0, level (\d)", told.out)[1]
    logits = by_hand(finished / LEVEL.format(level), x[:40])
    right = logits.argmax(-1) == y[:40]
    assert found["accuracy"]["before"] == np.mean(right)
    assert "values=int8: " in told.out and "accuracy on 40 samples" in told.out
    assert (to / "1/assets.extra/tf_serving_warmup_requests").exists()
    assert answer("verify", to).code == 0


def test_samples_of_a_file(finished, answer, tmp_path, images):
    path = tmp_path / "images.npz"
    ticket = finished / LEVEL.format(1)
    typed = ("export", ticket, f"--to={tmp_path / 'it'}")
    np.savez(path, x=images, y=np.zeros(5, int))
    assert answer(*typed, f"--samples={path}").code == 0
    assert card(tmp_path / "it/1")["accuracy"]["samples"] == 5
    np.savez(path, x=images)
    assert answer(*typed, f"--samples={path}").code == 0
    found = card(tmp_path / "it/2")
    assert found["accuracy"] is None and found["differences"]["samples"] == 5
    np.savez(path, x=images, y=[0], labels=[1])
    told = answer(*typed, f"--samples={path}")
    assert told.code == 2 and "labels once" in told.err
    path.write_bytes(b"PK\x03\x04")
    told = answer(*typed, f"--samples={path}")
    assert told.code in (1, 2) and "is no .npz file" in told.err
    assert sorted(p.name for p in (tmp_path / "it").iterdir()) == ["1", "2"]


@pytest.mark.parametrize("wrong", ["0", "-3", "all", "images.npy"])
def test_samples_that_are_none_are_wrong_usage(
    wrong, finished, answer, tmp_path
):
    told = answer(
        "export", finished, f"--to={tmp_path / 'it'}", f"--samples={wrong}"
    )
    assert told.code == 2 and f"--samples={wrong} is neither" in told.err


def test_a_number_of_samples_needs_a_run(finished, answer, tmp_path):
    told = answer(
        "export",
        finished / LEVEL.format(1),
        f"--to={tmp_path / 'it'}",
        "--samples=9",
    )
    assert told.code == 2 and "name the run's directory" in told.err


def test_a_function_that_a_run_names_is_not_called(finished, answer, tmp_path):
    path = finished / "config.json"
    record = json.loads(path.read_text().replace('"digits"', '"os:abort"'))
    del record["checksum"]
    path.write_bytes(sealed_json.pack(record))
    name = identity.identity(record["config"])
    for level in finished.rglob("level.json"):  # as a stranger would
        record = sealed_json.read(level)
        level.write_bytes(sealed_json.pack({**record, "run": name}))
    told = answer("export", finished, f"--to={tmp_path}", "--samples=9")
    assert told.code in (1, 2) and "which export does not call" in told.err


@pytest.mark.parametrize("format", ["compact-serving", "dense", "keras"])
def test_other_formats(format, finished, answer, tmp_path):
    ticket = finished / LEVEL.format(1)
    told = answer("export", ticket, f"--to={tmp_path}", f"--format={format}")
    assert told.code == 0, told.err
    assert card(tmp_path / "1")["format"] == format
    assert answer("verify", tmp_path).code == 0


def test_shrink_and_measure_are_told(finished, answer, tmp_path, monkeypatch):
    monkeypatch.setattr(
        measuring.measure, "__defaults__", (6,)
    )  # not to wait for
    told = answer(
        "export",
        finished / LEVEL.format(1),
        f"--to={tmp_path / 'it'}",
        "--shrink",
        "--measure",
    )
    assert told.code == 0, told.err
    assert "shrunk: weights" in told.out
    assert "A request of one sample takes" in told.out
    assert card(tmp_path / "it/1")["measured"]["load"]["pairs"] == 6


NO_CONFIG = """
import keras

class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(8, activation="relu", name="hidden")
        self.last = keras.layers.Dense(10, name="output")

    def call(self, inputs):
        return self.last(self.hidden(keras.layers.Flatten()(inputs)))

    def get_config(self):
        raise NotImplementedError

def own(input_shape, classes, hidden):
    model = Own()
    model(keras.ops.zeros((1, *input_shape)))
    return model
"""


def test_a_run_exports_a_network_that_has_no_config(
    answer, tiny, tmp_path, monkeypatch
):
    (tmp_path / "no_config_network.py").write_text(NO_CONFIG)
    monkeypatch.chdir(tmp_path)
    told = answer("run", *tiny, "--config.model.name=no_config_network:own")
    assert told.code == 0, told.err
    assert "export   " in told.out


def test_a_keras_file_is_exported_with_its_zeros(answer, tmp_path):
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(30)])
    kernel = np.zeros((20, 30), np.float32)
    kernel[3, :5] = 1
    model.layers[0].kernel.assign(kernel)
    model.save(tmp_path / "sparse.keras")
    told = answer("export", tmp_path / "sparse.keras", f"--to={tmp_path}")
    assert told.code == 0, told.err
    assert card(tmp_path / "1")["sparsity"]["kept"] == 5
    (tmp_path / "damaged.keras").write_bytes(b"PK")
    for name, said in (("damaged", "Keras cannot load"), ("no", "no file")):
        path = tmp_path / f"{name}.keras"
        told = answer("export", path, f"--to={tmp_path / 'it'}")
        assert told.code in (1, 2) and said in told.err
    assert not (tmp_path / "it").exists()
