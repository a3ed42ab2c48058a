"""The notebook for TPUs is executed on a CPU, its TPU cells guarded."""

import pathlib
import re

import pytest

import keras_lottery
from keras_lottery.tickets.ticket import Ticket

ROOT = pathlib.Path(keras_lottery.__file__).resolve().parents[1]
PATH = pathlib.Path(__file__).resolve().parents[2] / "colab/tpu.ipynb"
nbformat = pytest.importorskip("nbformat", reason="needs the extra 'test'")

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(
        not PATH.exists(), reason="needs a checkout: colab/ is not installed"
    ),
]


@pytest.fixture(scope="module")
def done(executed, tmp_path_factory):
    """What the notebook printed, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("tpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        notebook = executed(nbformat.read(PATH, as_version=4), folder)
    text = "".join(
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )
    return text, folder


def test_it_says_that_there_is_no_tpu(done):
    text, _ = done
    if "on a TPU: True" in text:
        pytest.skip("there is a TPU: see what the notebook printed")
    assert "without a TPU: " in text
    assert "on a TPU: False; replicas: 1; TensorFlow " in text
    assert "without a TPU there is nothing to tell" in text
    assert "doctor" not in text


def test_every_batch_is_whole(done):
    text, _ = done
    ((batch, rows, steps),) = re.findall(
        r"batch (\d+), (\d+) rows: (\d+) steps", text
    )
    given = len(keras_lottery.load_digits().train[1])
    assert int(rows) == int(batch) * int(steps)
    assert 0 <= given - int(rows) < int(batch)


def test_the_lottery_is_played_in_bfloat16(done):
    text, folder = done
    size = 64 * 300 + 300 * 100 + 100 * 10
    kept = [size - round(size * (1 - 0.5**n)) for n in range(4)]
    found = re.findall(r"<Ticket of level \d: ([\d,]+) of 50,200", text)
    assert [int(each.replace(",", "")) for each in found] == kept
    assert "level 3; removed weights that are not zero: 0" in text
    assert "weights are float32" in text
    ticket = Ticket.load(folder / "tpu.safetensors")
    assert (ticket.level, ticket.mask.kept) == (3, kept[3])
    assert ticket.metrics["val_accuracy"] > 0.8
    layers = ticket.model_config["config"]["layers"]
    policies = [str(each["config"].get("dtype")) for each in layers]
    assert sum("mixed_bfloat16" in each for each in policies) == 2


def test_what_is_for_a_tpu_is_guarded():
    cells = [
        cell.source
        for cell in nbformat.read(PATH, as_version=4).cells
        if cell.cell_type == "code"
    ]
    (connecting,) = [each for each in cells if "TPUStrategy" in each]
    lines = connecting.splitlines()
    assert (
        lines.index("try:")
        < [
            number for number, line in enumerate(lines) if "TPUStrategy" in line
        ].pop()
    )
    (telling,) = [each for each in cells if '"doctor"' in each]
    assert telling.startswith("if ON_TPU:\n")
