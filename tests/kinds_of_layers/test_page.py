"""docs/layers.md says what this package does with every layer."""

import importlib
import pathlib
import re

import pytest

from keras_lottery.pruning import weights

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(pathlib.Path(__file__).parent)
    examples = importlib.import_module("layer_examples")
    page = importlib.import_module("draw_layers")

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(
        not page.PAGE.exists(), reason="needs a checkout: docs/ is not there"
    ),
]


def text():
    return page.PAGE.read_text(encoding="utf-8")


def test_the_table_is_what_the_walk_finds():
    """Row by row: layers that an older Keras lacks may be in the page."""
    _, table, _ = page.parts(text())
    rows = re.findall(r"^\| `.*$", table, re.MULTILINE)
    assert [line.split("`")[1] for line in rows] == list(examples.EXAMPLES)
    remedy = "Run `python tests/kinds_of_layers/draw_layers.py`."
    for label in examples.existing():
        assert page.row(label) in rows, remedy
    (without,) = re.findall(r"^Without weights: (.*)\.$", table, re.MULTILINE)
    assert without.replace("`", "").split(", ") == sorted(
        examples.WITHOUT_WEIGHTS
    ), remedy


def test_the_layers_that_are_not_built_are_in_the_page():
    for name in examples.NOT_BUILT:
        assert f"`{name}`" in text(), name


def test_the_python_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", text(), re.DOTALL)
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(block, names)
    printed = capsys.readouterr().out
    assert "embedding (prune it with layers=)" in printed
    assert printed.endswith("True\n")
    assert list(names["asked"].mask) == ["table/embeddings", "hidden/kernel"]
    assert list(weights.prunable(names["merged"])) == ["hidden/kernel"]
    assert (tmp_path / "serving" / "quantized" / "1").is_dir()
