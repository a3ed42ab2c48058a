"""The fit of growth, against times made from known exponents."""

import importlib
import pathlib

import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def growth_fit(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("growth_fit")


@pytest.mark.parametrize("exponent", [0.5, 0.9, 1.0, 1.1, 1.5, 2.0])
@pytest.mark.parametrize("fixed", [0.0, 0.3, 5.0])
def test_the_exponent_is_found_whatever_is_fixed(growth_fit, exponent, fixed):
    sizes = [2, 4, 8, 16, 50]
    seconds = [fixed + 0.2 * n**exponent for n in sizes]
    found = growth_fit.fit(sizes, seconds)
    assert found.exponent == pytest.approx(exponent, abs=2e-3)
    assert found.rate == pytest.approx(0.2, rel=2e-2)
    assert found.fixed == pytest.approx(fixed, rel=2e-2, abs=5e-3)
    assert found.at(8) == pytest.approx(seconds[2], rel=1e-3)


def test_a_quadratic_part_shows_where_a_plain_slope_hides_it(growth_fit):
    sizes = np.array([2, 4, 8, 16])
    seconds = 10 + 0.1 * sizes + 0.02 * sizes**2
    slope = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    assert slope < 0.3
    assert growth_fit.fit(list(sizes), list(seconds)).exponent > 1.3


def test_what_is_fixed_is_never_negative(growth_fit):
    sizes = [1, 2, 4, 8]
    found = growth_fit.fit(sizes, [n - 0.5 for n in sizes])
    assert found.fixed >= 0
    assert found.exponent > 1


def test_sizes_scale_out(growth_fit):
    seconds = [1.0, 1.4, 2.3, 4.1]
    small = growth_fit.fit([1, 2, 4, 8], seconds)
    large = growth_fit.fit([10**6 * n for n in (1, 2, 4, 8)], seconds)
    assert large.exponent == small.exponent
    assert large.at(4 * 10**6) == pytest.approx(small.at(4))


def test_three_sizes_are_too_few(growth_fit):
    with pytest.raises(ValueError, match="at least 4 sizes, got 3 of 3"):
        growth_fit.fit([1, 2, 4], [1.0, 2.0, 4.0])
