"""The page on scale is what its script computes, and that what runs write."""

import importlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "scale.md"

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(
        not PAGE.exists(), reason="needs a checkout: docs/ is not installed"
    ),
]


@pytest.fixture
def scale(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("scale")


def test_the_tables_of_the_page_are_those_that_are_computed(scale):
    text = PAGE.read_text(encoding="utf-8")
    tables = scale.tables()
    assert [table for table in tables if table not in text] == []
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows == "\n".join(tables).splitlines()  # and no others


def test_the_page_calls_itself_an_estimate():
    text = PAGE.read_text(encoding="utf-8")
    assert text.startswith("# Scale\n\n**An estimate.**")
    # No time but the one that was measured: a formula, to be filled in.
    assert re.findall(r"\d[\d.,]* (?:s|ms|hours|days)\b", text) == ["0.06 s"]


def test_the_formulas_by_hand(scale):
    sizes = scale.Sizes(trained=30, others=4, masks=(9, 16))
    assert scale.kept(sizes, 0) == 25
    assert scale.kept(sizes, 1) == 20
    assert scale.kept(sizes, 2) == 16
    # 2 bytes and 2 bytes of bits; 25 and 20 kernels; 5 + 4 others, twice.
    assert scale.ticket_bytes(sizes, 1) == 4 + 4 * (25 + 20 + 2 * 9)
    # 30 + 4 values and 30 of momentum; a step and a learning rate.
    assert scale.point_bytes(sizes) == 4 * 64 + 12
    assert scale.reduced_bytes(sizes) == 120
    assert [scale.ring_bytes(120, n) for n in (1, 2, 4)] == [0, 120, 180]
    assert scale.steps(rows=10, batch=4, epochs=3) == 9
    assert scale.trainings(0, levels=2, replicates=3) == 9
    assert scale.trainings(2, levels=2, replicates=3) == 21


def test_open_lths_recipe_on_imagenet(scale):
    assert scale.steps() == 90 * 1252
    assert scale.trainings() == 5 * 21
    # Of the paper's ResNet-50, biases beside: 25.6 million parameters.
    sizes = scale.sizes_of(scale.resnet50())
    assert sizes.trained == 25_583_592
    assert sizes.trained + sizes.others == 25_636_712  # as Keras's page has it


def test_small_runs_and_steps_are_as_the_formulas_say():
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "scale_points.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.findall(r": (\d+) compared, 0 differ$", done.stdout, re.M)
    # Two steps; four runs of 3 tickets a replicate, its point, and the files;
    # one large ticket.
    assert list(map(int, counts)) == [1, 1, 5, 9, 5, 9, 1]
