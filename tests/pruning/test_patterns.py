"""N of M and blocks, held against loops over every weight."""

import itertools

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.pruning.mask import Mask
from keras_lottery.pruning.patterns import Blocks
from keras_lottery.pruning.patterns import NOfM
from keras_lottery.pruning.patterns import lowest_first

SHAPES = {"a": (3, 3, 6, 5), "b": (7, 4), "c": (10, 3), "one": (1, 1)}
SIZE = 270 + 28 + 30 + 1


def drawn(seed, ties=False, shapes=SHAPES):
    generator = np.random.default_rng(seed)
    if ties:
        return {n: generator.integers(0, 4, s) / 2 for n, s in shapes.items()}
    return {n: generator.integers(0, 10**6, s) / 8 for n, s in shapes.items()}


def thinned(scores, seed):
    generator = np.random.default_rng(seed)
    return Mask({n: generator.random(s.shape) < 0.7 for n, s in scores.items()})


def rows_of(shape, axis, m):
    """Every row of m places, as lists of indices."""
    axis %= len(shape)
    others = [range(n) for i, n in enumerate(shape) if i != axis]
    for rest in itertools.product(*others):
        places = [(*rest[:axis], i, *rest[axis:]) for i in range(shape[axis])]
        for start in range(0, len(places), m):
            yield places[start : start + m]


def n_of_m(scores, mask, keep, n, m, axis):
    """The rule in loops: rows first, then the lowest of all layers."""
    left = []
    for number, name in enumerate(mask):
        for row in rows_of(mask[name].shape, axis, m):
            alive = [place for place in row if mask[name][place]]
            alive.sort(key=lambda p: -scores[name][p])  # stable: first stays
            for place in alive[:n]:
                flat = np.ravel_multi_index(place, mask[name].shape)
                score = scores[name][place]
                left.append((-score, number, flat, name, place))
    arrays = {name: np.zeros(mask[name].shape, bool) for name in mask}
    for *_, name, place in sorted(left, key=lambda each: each[:3])[:keep]:
        arrays[name][place] = True
    return Mask(arrays)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("n", "m", "axis"),
    [(2, 4, -2), (1, 4, -1), (3, 5, 0), (1, 3, 1), (2, 2, 0)],
)
def test_n_of_m_agrees_with_loops(n, m, axis, ties):
    scores = drawn(m, ties)
    for mask in (Mask.full(scores), thinned(scores, 1)):
        for keep in (mask.kept, mask.kept // 2, 40, 1, 0):
            found = NOfM(n, m, axis)(scores, mask, keep)
            assert found == n_of_m(scores, mask, keep, n, m, axis)
            assert found.kept <= keep and found.issubset(mask)


def test_two_of_four_is_exactly_half_and_no_more():
    scores = drawn(0, shapes={"a": (3, 3, 8, 5), "b": (12, 7)})
    mask = Mask.full(scores)
    for keep in (mask.size, mask.size // 2):
        found = NOfM(2, 4)(scores, mask, keep)
        assert found.kept == mask.size // 2
        for array in found.values():
            for row in rows_of(array.shape, -2, 4):
                assert sum(array[place] for place in row) == 2


@pytest.mark.parametrize(
    "allocate", [NOfM(2, 4), NOfM(1, 3, -1), Blocks(), Blocks((1, 3))]
)
def test_less_is_inside_more_and_of_the_same_mask(allocate):
    scores = drawn(3, ties=True)
    mask = thinned(scores, 2)
    last = allocate(scores, mask, mask.kept)
    for keep in range(mask.kept, -1, -9):
        found = allocate(scores, mask, keep)
        assert found.issubset(last) and list(found) == list(mask)
        again = allocate(scores, last, min(keep, last.kept))
        assert again.issubset(last) and again.kept <= keep
        last = found


def blocks(scores, mask, keep, shape):
    """The rule in loops."""
    found = []
    for name in mask:
        array = mask[name]
        others = [range(n) for n in array.shape[:-2]]
        for rest in itertools.product(*others):
            rows, columns = array.shape[-2:]
            for i in range(0, rows, shape[0]):
                for j in range(0, columns, shape[1]):
                    places = [
                        (*rest, k, n)
                        for k in range(i, min(i + shape[0], rows))
                        for n in range(j, min(j + shape[1], columns))
                        if array[(*rest, k, n)]
                    ]
                    if places:
                        mean = sum(scores[name][p] for p in places)
                        found.append((mean / len(places), name, places))
    arrays = {name: mask[name].copy() for name in mask}
    left = mask.kept
    # Later ones first among equals: reversed, then a stable sort.
    for _, name, places in sorted(found[::-1], key=lambda each: each[0]):
        if left <= keep:
            break
        for place in places:
            arrays[name][place] = False
        left -= len(places)
    return Mask(arrays)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shape", [(4, 4), (1, 3), (2, 1), (99, 1), (1, 1)])
def test_blocks_agree_with_loops(shape, ties):
    scores = drawn(5, ties)
    for mask in (Mask.full(scores), thinned(scores, 1)):
        for keep in (mask.kept, mask.kept - 1, mask.kept // 2, 17, 1, 0):
            found = Blocks(shape)(scores, mask, keep)
            assert found == blocks(scores, mask, keep, shape)


def test_blocks_of_one_weight_keep_the_exact_count():
    scores = drawn(0)
    mask = Mask.full(scores)
    for keep in (SIZE, 200, 3, 0):
        assert Blocks((1, 1))(scores, mask, keep).kept == keep


def test_blocks_of_a_vector_and_of_scores_that_are_minus_infinity():
    scores = {"v": np.array([3.0, 3.0, -np.inf, 5.0, 9.0])}
    found = Blocks((4, 2))(scores, Mask.full(scores), 3)
    assert found["v"].tolist() == [True, True, False, False, True]
    assert NOfM(1, 2, 0)(scores, Mask.full(scores), 5)["v"].tolist() == [
        *(True, False, False, True, True)
    ]


def test_lowest_first_is_a_sort_with_ties_from_behind():
    scores = np.random.default_rng(0).integers(0, 5, 50)
    order = sorted(range(50), key=lambda i: (scores[i], -i))
    assert lowest_first(scores).tolist() == order


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NOfM(3, 2), r"m=2 weights n=3 cannot"),
        (lambda: NOfM(0, 2), r"`n` must be an int >= 1, got 0"),
        (lambda: NOfM(1, 2, axis=0.5), r"`axis` takes an int, got 0.5"),
        (lambda: Blocks(4), r"two ints such as \(4, 4\), got 4"),
        (lambda: Blocks((0, 4)), r"`shape` must be an int >= 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_wrong_axis_is_said_before_anything_is_trained():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    for axis in (1, -2):
        choice = NOfM(2, 4, axis)
        lottery.prune(model, lottery.OneShot(0.5), allocation=choice).strip()
    with pytest.raises(ValueError, match=r"\(4, 8\): no axis 2"):
        lottery.prune(model, lottery.OneShot(0.5), allocation=NOfM(2, 4, 2))


def test_wrong_axes_and_nan_are_named():
    scores = {"kernel": np.ones((2, 3)), "vector": np.ones(3)}
    mask = Mask.full(scores)
    with pytest.raises(ValueError, match=r"'vector' has shape \(3,\): no axis"):
        NOfM(1, 2)(scores, mask, 3)
    scores["kernel"][0, 0] = np.nan
    for allocate in (NOfM(1, 2, -1), Blocks()):
        with pytest.raises(ValueError, match="'kernel' can.*hold NaN"):
            allocate(scores, mask, 3)
