"""Selection: the same weights as a sort of all of them, whatever the scores."""

import ml_dtypes
import numpy as np
import pytest

from keras_lottery.pruning import selection
from keras_lottery.pruning.mask import Mask


def sorted_all(scores, mask, keep):
    """The naive rule: a stable sort of everything alive, the first kept."""
    flat = np.concatenate(
        [np.asarray(scores[name], np.float64).ravel() for name in mask]
    )
    alive = np.flatnonzero(
        np.concatenate([mask[name].ravel() for name in mask])
    )
    order = np.argsort(-flat[alive], kind="stable")[:keep]
    chosen = np.zeros(flat.size, bool)
    chosen[alive[order]] = True
    ends = np.cumsum([mask.sizes[name] for name in mask])[:-1]
    parts = np.split(chosen, ends)
    return Mask(
        {
            name: part.reshape(mask.shapes[name])
            for name, part in zip(mask, parts, strict=True)
        }
    )


def partitioned_all(scores, mask, keep):
    """How it was done before: every live score gathered, then partitioned."""
    alive = {name: np.flatnonzero(mask[name]) for name in mask}
    live = np.concatenate(
        [np.asarray(scores[name]).ravel()[alive[name]] for name in mask]
    )
    chosen = np.zeros(len(live), bool)
    if keep:
        threshold = np.partition(live, len(live) - keep)[len(live) - keep]
        chosen = live > threshold
        ties = np.flatnonzero(live == threshold)
        chosen[ties[: keep - np.count_nonzero(chosen)]] = True
    arrays, start = {}, 0
    for name in mask:
        flat = np.zeros(mask.sizes[name], bool)
        flat[alive[name]] = chosen[start : start + len(alive[name])]
        arrays[name] = flat.reshape(mask.shapes[name])
        start += len(alive[name])
    return Mask(arrays)


def selected(scores, mask, keep):
    layers = selection.layers(scores, mask)
    packed = selection.highest(list(layers.values()), keep)
    return Mask.unpack(dict(zip(layers, packed, strict=True)), mask.shapes)


def mask_of(scores, density, seed=0):
    rng = np.random.default_rng(seed)
    return Mask(
        {
            name: np.asarray(rng.random(np.shape(array)) < density)
            for name, array in scores.items()
        }
    )


def some(kind, size, rng):
    """Scores of one of many kinds, ties and infinities among them."""
    if kind == "normal":
        return rng.standard_normal(size).astype(np.float32)
    if kind == "few values":
        return rng.integers(0, 4, size).astype(np.float32)
    if kind == "equal":
        return np.full(size, 2.5, np.float32)
    if kind == "mostly zero":
        return np.where(rng.random(size) < 0.6, 0, rng.random(size))
    if kind == "rising":
        return np.arange(size, dtype=np.float32)
    if kind == "periodic":
        return (np.arange(size) % 97).astype(np.float32)
    found = rng.standard_normal(size)
    found[rng.random(size) < 0.3] = -np.inf
    found[rng.random(size) < 0.1] = np.inf
    return found


KINDS = [
    "normal",
    "few values",
    "equal",
    "mostly zero",
    "rising",
    "periodic",
    "infinite",
]


@pytest.fixture
def small_pieces(monkeypatch):
    """Many pieces and a real sample in arrays that a sort still likes."""
    monkeypatch.setattr(selection, "PIECE", 64)
    monkeypatch.setattr(selection, "_FEWEST", 4)


@pytest.mark.parametrize("density", [1.0, 0.8, 0.2, 0.01])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_weights_as_a_sort_of_everything(small_pieces, kind, density):
    rng = np.random.default_rng(7)
    scores = {
        "none": some(kind, 0, rng).reshape(0, 3),
        "one": some(kind, 1, rng).reshape(1, 1),
        "wide": some(kind, 1501, rng),
        "deep": some(kind, 3 * 5 * 20 * 3, rng).reshape(3, 5, 20, 3),
        "scalar": some(kind, 1, rng).reshape(()),
    }
    mask = mask_of(scores, density)
    live = mask.kept
    counts = {0, 1, 2, live // 5, live // 2, live * 4 // 5, live - 1, live}
    for keep in sorted(count for count in counts if 0 <= count <= live):
        found = selected(scores, mask, keep)
        assert found.kept == keep
        assert found.issubset(mask)
        assert found == sorted_all(scores, mask, keep)
        assert found == partitioned_all(scores, mask, keep)


def test_any_scores_by_chance(small_pieces):
    rng = np.random.default_rng(1)
    for _ in range(400):
        sizes = rng.integers(0, rng.choice([3, 40, 700]), rng.integers(1, 6))
        scores = {
            str(i): some(rng.choice(KINDS), size, rng)
            for i, size in enumerate(sizes)
        }
        mask = mask_of(scores, rng.random(), seed=rng.integers(1000))
        keep = int(rng.integers(0, mask.kept + 1))
        found = selected(scores, mask, keep)
        assert found == partitioned_all(scores, mask, keep)


@pytest.mark.parametrize("kind", KINDS)
def test_large_layers_with_the_pieces_as_they_are(kind):
    rng = np.random.default_rng(3)
    scores = {
        "a": some(kind, 2 * selection.PIECE + 3, rng),
        "b": some(kind, selection.PIECE, rng),
    }
    for density in (1.0, 0.3):
        mask = mask_of(scores, density)
        keep = mask.kept * 4 // 5
        found = selected(scores, mask, keep)
        assert found.kept == keep
        assert found == partitioned_all(scores, mask, keep)


@pytest.mark.parametrize(
    "dtype",
    [
        np.float16,
        ml_dtypes.bfloat16,
        np.float32,
        np.float64,
        np.int8,
        np.int64,
        np.uint32,
        bool,
    ],
)
def test_scores_of_any_dtype(small_pieces, dtype):
    rng = np.random.default_rng(5)
    scores = {"a": (4 * rng.standard_normal((30, 40))).astype(dtype)}
    mask = mask_of(scores, 0.7)
    for keep in (0, 1, mask.kept // 3, mask.kept - 1, mask.kept):
        found = selected(scores, mask, keep)
        assert found == sorted_all(scores, mask, keep)


def test_layers_of_different_dtypes_are_compared_as_numbers(small_pieces):
    rng = np.random.default_rng(5)
    scores = {
        "a": rng.standard_normal(300),
        "b": rng.standard_normal(300).astype(np.float32),
        "c": rng.integers(-2, 2, 300),
        "d": rng.standard_normal(300).astype(ml_dtypes.bfloat16),
    }
    mask = mask_of(scores, 0.9)
    for keep in range(0, mask.kept, 50):
        assert selected(scores, mask, keep) == sorted_all(scores, mask, keep)


def test_doubles_that_are_equal_as_singles_are_told_apart():
    scores = {"a": 1 + np.arange(5.0) * 2.0**-40, "b": np.ones(1, np.float32)}
    found = selected(scores, Mask.full(scores), 2)
    assert found["a"].tolist() == [False, False, False, True, True]
    assert not found["b"].any()


def test_arrays_that_are_not_contiguous(small_pieces):
    whole = np.random.default_rng(2).integers(0, 50, (40, 60)).astype("f4")
    scores = {
        "turned": whole.T,
        "every other": whole[::2, 1::3],
        "backwards": whole[::-1],
        "spread": np.broadcast_to(whole[0], (7, 60)),
        "fortran": np.asfortranarray(whole),
    }
    mask = mask_of(scores, 0.6)
    for keep in (1, 777, mask.kept - 3):
        assert selected(scores, mask, keep) == sorted_all(scores, mask, keep)


def test_a_sample_that_misleads_costs_time_and_no_weight(monkeypatch):
    # The sample sees the first weights only, which are all low.
    monkeypatch.setattr(
        selection,
        "_sample",
        lambda layers: np.sort(layers[0].read(slice(0, 100))),
    )
    counted, brackets = selection._counted, []

    def noted(layers, low, high):
        brackets.append((low, high))
        return counted(layers, low, high)

    monkeypatch.setattr(selection, "_counted", noted)
    scores = {"a": np.arange(10_000, dtype=np.float32)}
    mask = Mask.full(scores)
    assert selected(scores, mask, 5000) == sorted_all(scores, mask, 5000)
    assert len(brackets) > 1
    assert all(low <= high for low, high in brackets)


def test_ties_are_counted_and_not_gathered(monkeypatch):
    counted, gathered = selection._counted, []

    def noted(layers, low, high):
        found = counted(layers, low, high)
        gathered.append(len(found.inside))
        return found

    monkeypatch.setattr(selection, "_counted", noted)
    rng = np.random.default_rng(0)
    array = np.where(rng.random(300_000) < 0.5, 0, rng.random(300_000))
    mask = Mask.full({"a": array})
    zeros = np.count_nonzero(array == 0)
    for keep in (300_000 - zeros, 300_000 - zeros + 1, 300_000 - zeros // 2):
        gathered.clear()
        found = selected({"a": array}, mask, keep)
        assert found == partitioned_all({"a": array}, mask, keep)
        assert max(gathered) < 30_000  # the zeros are five times as many


def test_a_real_sample_gathers_few():
    scores = {"a": np.random.default_rng(0).random(2_000_000, np.float32)}
    layers = list(selection.layers(scores, Mask.full(scores)).values())
    sample = selection._sample(layers)
    assert len(sample) == round(2_000_000 ** (2 / 3))
    low, high = selection._bracket(sample, 0.2, selection._MARGIN)
    assert low < np.quantile(scores["a"], 0.2) < high
    inside = np.count_nonzero((scores["a"] > low) & (scores["a"] < high))
    assert inside < 2_000_000 * 0.04


def test_scores_that_are_not_numbers_end_with_an_error(small_pieces):
    array = np.arange(1000.0)
    array[::2] = np.nan
    scores = {"a": array}
    with pytest.raises(ValueError, match="some of the 1000 scores .* NaN"):
        selected(scores, Mask.full(scores), 700)


def test_scores_are_computed_when_they_are_read(small_pieces):
    values = {
        "a": np.random.default_rng(0).standard_normal((50, 20)),
        "b": np.random.default_rng(1).standard_normal(33).astype(np.float16),
    }
    lazy = selection.Scores(values, np.abs)
    given = {name: np.abs(array) for name, array in values.items()}
    mask = mask_of(values, 0.7)
    assert selected(lazy, mask, 300) == selected(given, mask, 300)
    assert list(lazy) == ["a", "b"] and len(lazy) == 2
    np.testing.assert_array_equal(lazy["a"], given["a"])
    assert lazy["b"].dtype == np.float32  # what can be sorted
    assert list(lazy.only(["b"])) == ["b"]
    assert (lazy.only(["b"])["b"] >= 0).all()


def test_nothing_is_changed(small_pieces):
    array = np.random.default_rng(0).standard_normal((40, 50))
    before, mask = array.copy(), mask_of({"a": array}, 0.5)
    checksum = mask.checksum
    array.setflags(write=False)
    selected({"a": array}, mask, 100)
    np.testing.assert_array_equal(array, before)
    assert mask.checksum == checksum


def test_the_memory_is_a_fraction_of_the_scores():
    tracemalloc = pytest.importorskip("tracemalloc")
    scores = {"a": np.random.default_rng(0).random(4_000_000, np.float32)}
    mask = Mask.full(scores)
    tracemalloc.start()
    try:
        selected(scores, mask, 3_200_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < scores["a"].nbytes / 3
