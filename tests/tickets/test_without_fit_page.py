"""docs/without_fit.md is run, from top to bottom."""

import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "without_fit.md"

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(
        not PAGE.exists(), reason="needs a checkout: docs/ is not installed"
    ),
]


def test_without_fit_does_what_it_says(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.S | re.M)
    names = {}
    for block in blocks:
        exec(block, names)
    printed = capsys.readouterr().out.splitlines()
    size = 64 * 100 + 100 * 10
    first, sparsities, quarter, levels = printed
    assert first == f"0.8 {size - round(0.8 * size)} of {size}"
    assert eval(sparsities)[-1] == 0.9
    assert int(quarter) == size - round(0.75 * size)
    assert eval(levels) == [
        size - round(size * (1 - 0.5 * 0.8**level)) for level in range(3)
    ]
    # Numbers in comments are those that are printed.
    for line in (first, quarter, levels):
        assert f"# {line}" in PAGE.read_text()
    rising = eval(sparsities)
    assert rising == sorted(rising)
    told = f"# {rising[0]} in the first epoch, {rising[-1]} in the last"
    assert told in PAGE.read_text()
