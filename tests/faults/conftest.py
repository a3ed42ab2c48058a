"""What the fuzz tests share: how many inputs, how long, how much memory."""

import contextlib
import io
import math
import time
import tracemalloc

import hypothesis
import pytest
from hypothesis import strategies as st

from keras_lottery.cli import main

MOST_SECONDS = 1.0
MOST_BYTES = 50 * 2**20  # the whole files have a few kB


@pytest.fixture(
    params=[
        pytest.param(1, id="of_500"),
        pytest.param(20, id="of_10000", marks=pytest.mark.slow),
    ]
)
def fuzz(request):
    """Returns a function that tries a property on many inputs.

    The inputs named in these files are 500 in all; in the slow tier 20 times
    as many. They are the same every time.
    """

    def run(strategy, holds, inputs):
        tried = []

        @hypothesis.settings(
            max_examples=inputs * request.param,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(strategy)
        def property(given):
            tried.append(given)
            _within_bounds(holds, given)

        property()
        # A few are drawn twice, and left out.
        assert len(tried) >= 0.9 * inputs * request.param
        return tried

    return run


def _within_bounds(holds, given):
    began = time.process_time()
    tracemalloc.start()
    try:
        holds(given)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES
    assert time.process_time() - began < MOST_SECONDS


NUMBERS = st.one_of(
    st.integers(-3, 12),
    st.sampled_from([2**31, 2**63, -(2**63), 10**30, 10**4000]),
    st.floats(),
)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", "../../x", "/etc/passwd", "\x1b[2J", "<script>"]),
    st.sampled_from(["x" * 5000, "\udc80", "a\0b", "NaN", "__class__"]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(TEXTS, inner, max_size=4),
    ),
    max_leaves=8,
)
PLACES = st.floats(0, 1, exclude_max=True)
DAMAGE = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), PLACES, st.integers(0, 7)),
        st.tuples(st.just("cut"), PLACES),
        st.tuples(st.just("zero"), PLACES, st.integers(1, 64)),
        st.tuples(st.just("write"), PLACES, st.binary(max_size=16)),
        st.tuples(st.just("insert"), PLACES, st.binary(max_size=16)),
        st.tuples(st.just("move"), PLACES, PLACES, st.integers(1, 256)),
        st.tuples(st.just("repeat"), PLACES, st.integers(1, 256)),
        st.tuples(st.just("all"), st.binary(max_size=64)),
    ),
    min_size=1,
    max_size=3,
)


class Drawn:
    """Strategies: JSON of anybody, and what a disk does to bytes."""

    json = JSON
    places = PLACES
    damage = DAMAGE

    @staticmethod
    def damaged(content, damage):
        """Returns bytes after what was drawn happened to them."""
        for kind, *more in damage:
            content = _damaged(content, kind, *more)
        return content

    @staticmethod
    def changed(tree, path, value):
        """Returns a copy of JSON with another value somewhere inside.

        Args:
            tree: What JSON holds.
            path: List of fractions: which child to go to, again and again.
            value: What to put there; an empty text takes the place away.
        """
        return _changed(tree, path, value)


def _damaged(content, kind, *more):
    if kind == "all":
        return more[0]
    at = math.floor(more[0] * len(content))
    if kind == "flip":
        return _written(content, at, bytes([_at(content, at) ^ 1 << more[1]]))
    if kind == "cut":
        return content[:at]
    if kind == "zero":
        return _written(content, at, bytes(more[1]))
    if kind == "write":
        return _written(content, at, more[1])
    if kind == "insert":
        return content[:at] + more[1] + content[at:]
    if kind == "move":
        to = math.floor(more[1] * len(content))
        return _written(content, to, content[at : at + more[2]])
    return content[: at + more[1]] + content[at:]


def _at(content, at):
    return content[at] if at < len(content) else 0


def _written(content, at, piece):
    piece = piece[: len(content) - at]
    return content[:at] + piece + content[at + len(piece) :]


def _changed(tree, path, value):
    if not path or not isinstance(tree, (list, dict)) or not tree:
        return value
    first, *rest = path
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = keys[math.floor(first * len(keys))]
    copy = tree.copy()
    if not rest and value == "":
        del copy[key]
    else:
        copy[key] = _changed(tree[key], rest, value)
    return copy


@pytest.fixture(scope="session")
def drawn():
    """Returns the strategies."""
    return Drawn


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """Path of a run of a second: a ticket, a control, a point to rewind to."""
    workdir = tmp_path_factory.mktemp("runs")
    typed = [
        "run",
        "--config=digits:smoke",
        "--config.eval_every=2",
        "--config.train.steps=4",
        "--config.prune.levels=1",
        "--config.model.arguments.hidden=(4,)",
        "--config.controls.names=('reinitialize',)",
        "--config.rewind.name=learning_rate",
        "--noconfig.controls.one_shot",
        "--noconfig.export.enabled",
        f"--workdir={workdir}",
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        with pytest.raises(SystemExit) as ended:
            main.main(typed)
    assert not ended.value.code
    (path,) = workdir.iterdir()
    return path
