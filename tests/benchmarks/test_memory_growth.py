"""What the memory benchmark counts, against arrays of known size."""

import importlib
import pathlib

import numpy as np
import pytest

from keras_lottery.pruning.mask import Mask
from keras_lottery.tickets.ticket import Ticket

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("memory")


def ticket(start, end):
    mask = Mask({"kernel": np.ones((4, 4), bool)})
    return Ticket(
        mask,
        start={"kernel": start},
        start_state={"bias": np.zeros(2, np.float32)},
        end={"kernel": end},
        end_state={},
    )


def test_bytes_of_a_shared_start_are_counted_once(memory):
    start, ends = np.zeros((4, 4), np.float32), np.zeros((2, 16), np.float32)
    one, two = ticket(start, ends[0].copy()), ticket(start, ends[1].copy())
    # Start 64, end 64, bias 8, and 16 bits of mask.
    assert memory.held_bytes([one]) == 64 + 64 + 8 + 2
    assert memory.held_bytes([one, two]) == 64 + 2 * (64 + 8 + 2)


def test_a_view_holds_all_of_what_it_shows(memory):
    large = np.zeros(1000, np.float32)
    held = ticket(np.zeros((4, 4), np.float32), large[:16])
    assert memory.held_bytes([held]) == 64 + 4000 + 8 + 2


def test_a_leak_of_one_megabyte_a_level_misses_the_bar(memory):
    flat = [[900.0 + n % 3, 910.0] for n in range(21)]
    leaking = [[900.0 + n, 910.0 + n] for n in range(21)]
    for resident, verdicts in (
        (flat, ["holds"] * 2),
        (leaking, ["MISSED"] * 2),
    ):
        found = memory.bars_of_directory({"resident": resident})
        assert [bar.verdict for bar in found] == verdicts


def test_the_slope_begins_at_level_5(memory):
    values = [0, 100, 200, 300, 400] + [500 + 2 * n for n in range(16)]
    assert memory.slope(values) == pytest.approx(2.0)


def test_the_bar_in_memory_is_of_the_default_lottery(memory):
    tickets = [100 * (level + 1) for level in range(21)]
    found = memory.bars_in_memory({"tickets": tickets, "model": 100})
    assert [bar.measured for bar in found] == [11, 21]
    assert [bar.verdict for bar in found] == ["MISSED", ""]
