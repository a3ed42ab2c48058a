"""The folder of `fit(checkpoint_dir=)`: where, and whether, it is."""

import os
import shutil

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.errors import RunError
from keras_lottery.tickets import fit_folder
from keras_lottery.tickets.fit_folder import FitFolder

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = (X.sum(1) > 0).astype(np.float32)[:, None]


def pruned_network():
    """Returns a small pruned model of two levels."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    pruned.compile("adam", "mse")
    return pruned


def fit(pruned, folder, at_end=None):
    """Trains, and calls a function of the number of epochs done."""
    ends = iter(range(1, 99))
    told = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: at_end and at_end(next(ends))
    )
    return pruned.fit(
        X, Y, epochs=2, batch_size=4, verbose=0, callbacks=[told],
        checkpoint_dir=folder, checkpoint_steps=1,
    )  # fmt: skip


def test_a_relative_folder_stays_where_it_is(tmp_path, monkeypatch):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    pruned = pruned_network()
    fit(pruned, "digits", lambda ends: os.chdir(tmp_path / "there"))
    assert len(pruned.tickets) == 2
    assert not os.listdir(tmp_path / "there")
    assert os.listdir(tmp_path / "here") == ["digits"]
    assert (tmp_path / "here" / "digits" / "level_1.json").exists()


@pytest.mark.parametrize("url", ["gs://bucket/digits", "s3://b", b"file:///d"])
def test_urls_are_refused(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="Mount what it names as a folder"):
        fit(pruned_network(), url)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("when", [1, 2, 3, 4])
def test_a_folder_that_is_removed(when, tmp_path):
    """Inside a level, and before its end: nothing begins again in silence."""
    folder = tmp_path / "digits"
    pruned = pruned_network()

    def remove(ends):
        if ends == when:
            shutil.rmtree(folder)

    with pytest.raises(RunError, match="was removed while in use"):
        fit(pruned, folder, remove)
    assert not folder.exists()


def test_only_its_first_file_is_removed(tmp_path):
    """Nothing is written beside what is left."""
    kept = []

    def remove(ends):
        if ends == 2:
            (tmp_path / fit_folder.LOTTERY).unlink()
            kept.append({p: p.read_bytes() for p in tmp_path.iterdir()})

    with pytest.raises(RunError, match="lottery.json is gone"):
        fit(pruned_network(), tmp_path, remove)
    assert kept == [{p: p.read_bytes() for p in tmp_path.iterdir()}]


DIGEST = 32 * "0"
TRACES = {
    "level_notes.txt": False,
    "level_1.csv": False,
    "level_.json": False,
    "my_level_1.json": False,
    "training_0.json": False,
    "checkpoint-1.keras": False,
    f"checkpoint-1-{DIGEST}.safetensors": False,
    "level_0.json": True,
    "level_12.safetensors": True,
    f"checkpoint-00000001-{DIGEST}.safetensors": True,
}


@pytest.mark.parametrize("name", TRACES)
def test_traces_are_files_of_its_own(name, tmp_path):
    (tmp_path / name).write_text("mine")
    folder = FitFolder(tmp_path, {"seed": 1}, "level")
    with folder.locked():
        assert folder.has_traces() == TRACES[name]


def test_files_of_a_user_are_left_alone(tmp_path):
    names = [name for name, trace in TRACES.items() if not trace]
    for name in names:
        (tmp_path / name).write_text("mine")
    pruned = pruned_network()
    fit(pruned, tmp_path)
    assert len(pruned.tickets) == 2
    assert {(tmp_path / name).read_text() for name in names} == {"mine"}
