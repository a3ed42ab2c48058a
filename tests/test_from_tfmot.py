"""The page for users of tfmot is run, block after block, in one namespace."""

import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs/from_tfmot.md"

pytestmark = pytest.mark.skipif(
    not PAGE.exists(), reason="needs a checkout: docs/ is not installed"
)


def test_the_python_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 7
    names = {}
    exec("import keras; keras.utils.set_random_seed(0)", names)
    for block in blocks:
        exec(block, names)
    # Beyond what the page itself asserts: levels of both kinds agree in counts.
    kept = [ticket.mask.kept for ticket in names["pruned"].tickets]
    assert kept == [ticket.mask.kept for ticket in names["legacy"].tickets]
