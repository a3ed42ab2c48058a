"""The page on interchange is run, from top to bottom."""

import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "interchange.md"

pytest.importorskip("torch", reason="needs PyTorch: pip install torch")
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(
        not PAGE.exists(), reason="needs a checkout: docs/ is not installed"
    ),
]


def test_the_page_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert len(blocks) == 8
    names = {}
    for block in blocks:
        exec(block, names)
    size = 4 * 3 * 9 + 64 * 12 + 12 * 5
    assert names["ticket"].mask.kept == size - round(0.5 * size)
    assert names["mask"].kept == size - round(0.7 * (4 * 3 * 9 + 64 * 12))
    written = sorted(path.name for path in tmp_path.rglob("*.*"))
    assert written == ["mask.npz", "mask.pth", "sparsity_report.json"]
