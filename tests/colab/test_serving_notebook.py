"""The notebook on serving is executed, and says what is stored in it."""

import json
import os
import pathlib
import re
import shutil
import stat
import sys

import numpy as np
import pytest

import keras_lottery
from keras_lottery.exporting.verifying import server

ROOT = pathlib.Path(keras_lottery.__file__).resolve().parents[1]
PATH = pathlib.Path(__file__).resolve().parents[2] / "colab/serving.ipynb"
STAND_IN = (
    pathlib.Path(__file__).resolve().parents[1]
    / "exporting/verifying/stand_in_server.py"
)
nbformat = pytest.importorskip("nbformat", reason="needs the extra 'test'")
pytest.importorskip(
    "tensorflow_serving.apis", reason="needs the extra 'serving'"
)

pytestmark = pytest.mark.skipif(
    not PATH.exists(), reason="needs a checkout: colab/ is not installed"
)


def stored():
    return nbformat.read(PATH, as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def cell_with(text):
    """The source of the only cell that holds a text."""
    (found,) = [c.source for c in code_of(stored()) if text in c.source]
    return found


def printed(notebook):
    """What each cell wrote to stdout."""
    return [
        "".join(
            output.text
            for output in cell.outputs
            if output.output_type == "stream" and output.name == "stdout"
        )
        for cell in code_of(notebook)
    ]


def without_numbers(text):
    """A text as it is on any machine: numbers and columns differ."""
    # Functions are named by what is in them, trained weights too.
    text = re.sub(r"\bf[0-9a-f]{12}(_\d+)?\b", "#", text)
    text = re.sub(r"-?[\d,.]*\d(e[+-]\d+)?", "#", text)
    return re.sub(r"[ \t]+", " ", text)


@pytest.fixture(scope="module")
def done(executed, tmp_path_factory):
    """The executed notebook, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("serving")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("MPLBACKEND", raising=False)
        # With the real server more would be printed than is stored.
        without = [
            each
            for each in os.environ["PATH"].split(os.pathsep)
            if not shutil.which(server.PROGRAM, path=each)
        ]
        patch.setenv("PATH", os.pathsep.join(without))
        return executed(stored(), folder), folder


def card_of(folder, name):
    path = folder / "serving" / name / "1" / "model_card.json"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.thorough
def test_what_is_stored_is_what_it_says(done):
    notebook, _ = done
    fresh, kept = printed(notebook), printed(stored())
    for cell, now, then in zip(code_of(notebook), fresh, kept, strict=True):
        assert without_numbers(now) == without_numbers(then), cell.source


@pytest.mark.thorough
def test_what_it_shows_is_what_was_written(done):
    notebook, folder = done
    text = "".join(printed(notebook))
    version = folder / "serving" / "digits" / "1"
    listed = dict(re.findall(r"([\d,]+) bytes  (\S+)", text))
    files = [path for path in version.rglob("*") if path.is_file()]
    assert {
        name: int(size.replace(",", "")) for size, name in listed.items()
    } == {p.relative_to(version).as_posix(): p.stat().st_size for p in files}
    (shown,) = [
        output.data["text/markdown"]
        for cell in code_of(notebook)
        for output in cell.outputs
        if "text/markdown" in output.get("data", {})
    ]
    assert shown == (version / "MODEL_CARD.md").read_text(encoding="utf-8")
    pictures = [
        output
        for cell in code_of(notebook)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 1


@pytest.mark.thorough
def test_formats_and_values_are_those_that_are_claimed(done):
    _, folder = done
    cards = {
        path.name: card_of(folder, path.name)
        for path in (folder / "serving").iterdir()
    }
    found = {k: (v["format"], v["values"]) for k, v in cards.items()}
    assert found == {
        "digits": ("compact", "float32"),
        "float16": ("compact", "float16"),
        "int8": ("compact", "int8"),
        "shrink": ("compact", "float32"),
        "compact-serving": ("compact-serving", "float32"),
        "dense": ("dense", "float32"),
        "lite": ("lite", "float32"),
        "keras": ("keras", "float32"),
    }
    size = 64 * 300 + 300 * 100 + 100 * 10
    kept = size - round((1 - 0.25**2) * size)
    sparsity = cards["digits"]["sparsity"]
    assert (sparsity["kept"], sparsity["total"]) == (kept, size)
    sizes = {k: v["bytes"]["export"]["bytes"] for k, v in cards.items()}
    # What the text says of the picture.
    assert sizes["compact-serving"] < sizes["digits"] < sizes["dense"]
    assert sizes["int8"] < sizes["float16"] < sizes["digits"]
    pb = folder / "serving/digits/1/saved_model.pb"
    bound = cards["digits"]["bytes"]["bound"]["bytes"]
    assert bound > pb.stat().st_size / 2  # so its middle is of the weights


@pytest.mark.thorough
def test_its_answers_are_keras_and_damage_is_found(done):
    notebook, folder = done
    text = "".join(printed(notebook))
    assert "the same class for 300 of 300 images" in text
    (difference,) = re.findall(r"largest difference: (\S+)", text)
    assert float(difference) < 1e-5
    *_, sound, damaged = [each for each in printed(notebook) if each]
    assert sound.endswith("as it says\nexit code 0\n")
    assert damaged.endswith("damaged/1: 2 differences\nexit code 1\n")
    assert "DIFFERS  damaged/1 does not load" in damaged
    names = [
        folder / place / "1" / "saved_model.pb"
        for place in ("damaged", "serving/digits")
    ]
    first, second = (np.frombuffer(p.read_bytes(), np.uint8) for p in names)
    assert np.unpackbits(first ^ second).sum() == 1


def test_where_there_is_a_server_it_is_asked_by_rest(
    tmp_path, monkeypatch, capfd
):
    import keras

    program = tmp_path / "bin" / server.PROGRAM
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="pixels"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, bias_initializer="normal"),
        ]
    )
    images = keras_lottery.load_digits().test[0]
    expected = model.predict(images, verbose=0)
    names = {
        "np": np,
        "images": images,
        "expected": expected,
        "path": keras_lottery.export(model, tmp_path / "serving"),
    }
    capfd.readouterr()
    exec(cell_with("running.rest"), names)
    said = capfd.readouterr().out
    assert f"by REST: {expected[:5].argmax(1).tolist()}" in said
    (difference,) = re.findall(r"largest difference: (\S+)", said)
    assert float(difference) < 1e-5
