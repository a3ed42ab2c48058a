"""docs/models.md is run, from top to bottom."""

import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "models.md"

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(
        not PAGE.exists(), reason="needs a checkout: docs/ is not installed"
    ),
]


def test_the_page_does_what_it_says():
    text = PAGE.read_text(encoding="utf-8")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(block, names)
    small, large = 64 * 32 + 32 * 10, 64 * 32 + 32 * 32 + 32 * 10
    kept = {
        name: [ticket.mask.kept for ticket in names[name].tickets]
        for name in ("late", "own", "head", "whole", "pair", "counted")
    }
    assert kept == {
        "late": [large, large // 2],
        "own": [small, small // 2],
        "head": [320, 160],
        "whole": [small, small - round(small * 0.8)],
        "pair": [small, small // 2],
        "counted": [small, small // 2],
    }
    assert len(names["counted"].history.epoch) == 2
