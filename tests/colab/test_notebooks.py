"""Every notebook is executed, from top to bottom, by the running Python."""

import csv
import json
import pathlib
import re

import pytest

import keras_lottery

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "colab"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LONGEST_CELL = 25  # lines: more are not read
SHOWN = ["serving"]  # with what its cells answered, for those who only read
PLACES = r"/(work|home|tmp|root)\b"
nbformat = pytest.importorskip("nbformat", reason="needs the extra 'test'")

pytestmark = pytest.mark.skipif(
    not FOLDER.exists(), reason="needs a checkout: colab/ is not installed"
)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_quickstart_is_there():
    assert "quickstart" in [path.stem for path in NOTEBOOKS]


def test_no_outputs_are_stored_but_of_notebooks_to_be_read(request, notebook):
    nbformat.validate(notebook)
    cells = code_of(notebook)
    if request.node.callspec.id in SHOWN:
        # From top to bottom, in one session.
        counts = [cell.execution_count for cell in cells]
        assert counts == list(range(1, len(cells) + 1))
        return
    for cell in cells:
        assert cell.outputs == [], cell.source
        assert cell.execution_count is None, cell.source


def test_stored_outputs_are_no_errors_and_name_no_place(notebook):
    for cell in code_of(notebook):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name", "stdout") == "stdout", cell.source
            text = json.dumps({**output, "data": texts_of(output)})
            assert not re.search(PLACES, text), cell.source


def texts_of(output):
    """What an output shows, without pictures: these are letters by chance."""
    shown = output.get("data", {})
    return {k: v for k, v in shown.items() if not k.startswith("image/")}


def test_cells_are_short_and_name_no_place_of_this_machine(notebook):
    for cell in notebook.cells:
        assert len(cell.source.splitlines()) <= LONGEST_CELL, cell.source
        assert not re.search(PLACES, cell.source)


def test_it_installs_only_what_is_missing(notebook):
    first = code_of(notebook)[0].source
    guard, install = first.index("find_spec"), first.index("%pip install")
    assert guard < install
    assert re.search(r"^    %pip install", first, re.M)  # under the `if`
    assert "%pip install" not in "".join(
        cell.source for cell in code_of(notebook)[1:]
    )


def printed(notebook):
    """What the cells wrote to stdout, in order."""
    return "".join(
        output.text
        for cell in code_of(notebook)
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )


def kinds(notebook):
    """The kinds of what the cells showed."""
    return [
        kind
        for cell in code_of(notebook)
        for output in cell.outputs
        if output.output_type in ("display_data", "execute_result")
        for kind in output.data
    ]


@pytest.mark.thorough
def test_the_quickstart_finds_exports_and_continues(
    executed, tmp_path, monkeypatch
):
    # Cells run elsewhere, so a relative path of the tests would be lost.
    root = pathlib.Path(keras_lottery.__file__).resolve().parents[1]
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    path = FOLDER / "quickstart.ipynb"
    done = executed(nbformat.read(path, as_version=4), tmp_path)
    text = printed(done)
    check_the_ticket(text, tmp_path)
    check_the_export(text)
    check_the_run(text, tmp_path)
    assert kinds(done).count("image/png") == 2  # accuracy, and the mask
    assert kinds(done).count("image/svg+xml") == 1  # of the report
    assert kinds(done).count("text/html") == 1  # the table


def check_the_ticket(text, folder):
    from keras_lottery.tickets.ticket import Ticket

    kept = re.findall(r"<Ticket of level \d: ([\d,]+) of 50,200", text)
    # Halves, as the README counts: kept = size - round(sparsity * size).
    expected = [50_200 - round((1 - 0.5**n) * 50_200) for n in range(7)]
    assert [int(each.replace(",", "")) for each in kept] == expected
    (level,) = re.findall(r"found a ticket: level (\d)", text)
    ticket = Ticket.load(folder / "digits.safetensors")
    assert ticket.level == int(level) >= 1
    assert ticket.mask.kept == expected[ticket.level]
    (constant,) = re.findall(r"(\d+) pixels never change", text)
    images = keras_lottery.load_digits().train[0]
    assert int(constant) == (images == images[0]).all(axis=0).sum()


def check_the_export(text):
    assert "the same class for 300 of 300 images" in text
    (difference,) = re.findall(r"largest difference: (\S+)", text)
    assert float(difference) < 1e-5


def check_the_run(text, folder):
    """One level, then two more, each with a ticket and three controls."""
    here = "Fashion-MNIST is here." in text
    assert here != ("Fashion-MNIST is left out" in text)
    name = "fashion_lenet_smoke" if here else "digits_smoke"
    (run,) = folder.glob(f"keras_lottery_runs/{name}-*")
    with open(run / "times.csv", newline="") as file:
        trained = [(row["arm"], row["level"]) for row in csv.DictReader(file)]
    assert len(trained) == len(set(trained)) == 1 + 3 * 4
    assert {level for _, level in trained} == {"0", "1", "2", "3"}
    assert "13 trainings, 0 of them twice" in text
    # It said what it found after one level, and again after three.
    assert text.count(f"report   keras_lottery_runs/{run.name}") == 2
