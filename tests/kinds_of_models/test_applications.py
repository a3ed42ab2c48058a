"""Six networks of `keras.applications`, as they are; all in the slow tests.

Asked for in tfmot's issues 638, 40 and 656.
"""

import csv
import importlib
import pathlib

import keras
import pytest

pytestmark = pytest.mark.thorough

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "applications.csv"
SIX = (
    "DenseNet121",
    "EfficientNetV2B0",
    "MobileNetV2",
    "MobileNetV3Small",
    "NASNetMobile",
    "ResNet50",
)


@pytest.fixture(scope="module")
def applications():
    """The script that makes results/applications.csv, as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("applications")


@pytest.fixture(scope="module")
def rows():
    """What was found when all were run, by name."""
    if not RESULTS.exists():
        pytest.skip("needs a checkout: results/ is not installed")
    with open(RESULTS, newline="", encoding="utf-8") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("name", SIX)
def test_counts_zeros_and_tickets(name, applications):
    keras.backend.clear_session()
    row = applications.measured(name)
    assert row["result"] == "ok"
    size = row["prunable"]
    assert row["kept"] == size - round(size * 0.8)
    assert 0 < size < row["parameters"]


def test_every_network_of_this_keras_has_a_row(applications, rows):
    assert set(applications.names()) == set(rows)
    assert {row["result"] for row in rows.values()} == {"ok"}


def test_the_table_of_the_page_is_that_of_the_results(applications, rows):
    text = applications.PAGE.read_text(encoding="utf-8")
    assert applications.table(rows.values()) in text


def test_a_fault_is_found(applications, monkeypatch):
    """A ticket that restores nothing, and counts that are off."""
    model = applications.build("MobileNetV3Small")
    expected = applications.sizes(model)

    class Nothing:
        mask = {}

        def restore(self, model, which):
            return model

    class Pruned:
        tickets = [Nothing()]
        inner = model

        class mask:
            sizes = dict(list(expected.items())[1:])
            kept = 1

    leaks = applications.Leaks()
    leaks.found = [0, 3]
    monkeypatch.setattr(applications, "build", lambda name: other)
    other = keras.models.clone_model(model)
    told = list(applications.faults("any", Pruned, expected, leaks))
    assert told[0] == "other weights are pruned than the kernels"
    assert told[1].startswith("1 of ") and "[0, 3]" in told[2]
    assert any(each.endswith("/kernel is not restored") for each in told)
