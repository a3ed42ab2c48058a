"""`doctor`: what is here, and whether a lottery runs on it."""

import re

import keras
import pytest

from keras_lottery.runs import checkup
from keras_lottery.training import strategies


@pytest.fixture
def quick(monkeypatch):
    """Strategies give what plain CPU gives, without training it again."""

    def lottery_under(name):
        strategies.get(name)()
        return checkup.plain()

    monkeypatch.setattr(checkup, "lottery_under", lottery_under)


def under(out):
    """{strategy: what is said of it}."""
    return dict(re.findall(r"^lottery under (\w+) +(.*)$", out, re.M))


def test_all_that_is_found_here_is_tried_and_compared(answer, monkeypatch):
    monkeypatch.delenv("KERAS_LOTTERY_DATA", raising=False)
    told = answer("doctor")
    assert told.code == 0, told
    found = under(told.out)
    assert list(found) == strategies.found()
    # 64x32 and 32x10, two levels of 20 %: by hand, rounded per lottery.
    dense = 64 * 32 + 32 * 10
    for line in found.values():
        kept = [int(n) for n in re.findall(r"\d+", line.partition(";")[0])]
        assert kept == [dense, round(dense * 0.8), round(dense * 0.64)]
        assert line.startswith("ok: kept ") and " s" in line
    facts = dict(line.split(None, 1) for line in told.out.splitlines() if line)
    assert facts["keras"] == keras.__version__
    assert facts["KERAS_LOTTERY_DATA"] == "not set"


def test_a_strategy_that_raises_fails_and_the_others_still_run(
    quick, answer, monkeypatch
):
    def broken():
        raise RuntimeError("no such device today")

    monkeypatch.setitem(strategies.STRATEGIES, "one_device", broken)
    told = answer("doctor")
    assert told.code == 1
    found = under(told.out)
    assert list(found) == strategies.found()
    assert "FAILED: RuntimeError: no such device today" in found["one_device"]
    others = [v for k, v in found.items() if k != "one_device"]
    assert len(others) >= 2 and all(v.startswith("ok") for v in others)
    assert "Not usable here: one_device." in told.out


def test_a_strategy_that_keeps_other_weights_exits_1(
    quick, answer, monkeypatch
):
    plain = checkup.plain()
    other = plain._replace(kept=(*plain.kept[:-1], plain.kept[-1] + 1))
    monkeypatch.setattr(
        checkup,
        "lottery_under",
        lambda name: other if name == "mirrored" else plain,
    )
    told = answer("doctor")
    assert told.code == 1
    assert under(told.out)["mirrored"].startswith("DIFFERS")
    assert "Not usable here: mirrored." in told.out


def test_a_strategy_that_keeps_as_many_others_exits_1(
    quick, answer, monkeypatch
):
    plain = checkup.plain()
    other = plain._replace(masks=plain.masks[::-1])
    assert (other.masks == plain.masks).mean() < 0.99
    monkeypatch.setattr(
        checkup,
        "lottery_under",
        lambda name: other if name == "mirrored" else plain,
    )
    told = answer("doctor")
    assert told.code == 1
    assert under(told.out)["mirrored"].startswith("DIFFERS")


def test_what_is_not_installed_is_said(quick, answer, monkeypatch):
    import importlib.metadata

    plain = importlib.metadata.version

    def version(name):
        if name == "matplotlib":
            raise importlib.metadata.PackageNotFoundError(name)
        return plain(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    told = answer("doctor")
    assert re.search(r"^matplotlib +not installed$", told.out, re.M)
