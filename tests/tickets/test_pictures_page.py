"""The page on pictures is run, from top to bottom."""

import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "pictures.md"

pytest.importorskip("matplotlib", reason="needs the extra 'report'")
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(
        not PAGE.exists(), reason="needs a checkout: docs/ is not installed"
    ),
]


def test_the_page_does_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert len(blocks) == 4
    names = {}
    for block in blocks:
        exec(block, names)
    assert (tmp_path / "pictures.png").read_bytes()[1:4] == b"PNG"
    assert len(names["figure"].axes) == 4 * 5  # rows, levels
    assert len(names["last"].axes) == 3 * 2
    size = 64 * 100 + 100 * 10
    for level, ticket in enumerate(names["pruned"].tickets):
        rows = [row for row in names["rows"] if row["level"] == level]
        alive = sum(row["alive"] for row in rows)
        assert alive == size - round((1 - 0.5**level) * size)
        assert alive == ticket.mask.kept
    assert "4 {'hidden/kernel': (" in capsys.readouterr().out
