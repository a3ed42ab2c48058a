"""Allocations: exact counts, the ERK table, largest remainders."""

import fractions
import json
import math
import random

import numpy as np
import pytest

from keras_lottery.pruning import allocation
from keras_lottery.pruning.mask import Mask
from keras_lottery.pruning.mask import kept

LENET = {"fc1": (784, 300), "fc2": (300, 100), "out": (100, 10)}
CONV_2 = {
    "c1": (3, 3, 3, 64),
    "c2": (3, 3, 64, 64),
    "fc1": (16384, 256),
    "fc2": (256, 256),
    "out": (256, 10),
}
RESNET_20 = {
    "conv": (3, 3, 3, 16),
    **{f"s0.{i}": (3, 3, 16, 16) for i in range(6)},
    "s1b0c1": (3, 3, 16, 32),
    **{f"s1.{i}": (3, 3, 32, 32) for i in range(5)},
    "s1 shortcut": (1, 1, 16, 32),
    "s2b0c1": (3, 3, 32, 64),
    **{f"s2.{i}": (3, 3, 64, 64) for i in range(5)},
    "s2 shortcut": (1, 1, 32, 64),
    "fc": (64, 10),
}


def water_fill(total, shares, capacities):
    """The naive exact rule: find the level t at which the vessels of width
    `share` and volume `capacity` hold `total`, then largest remainders."""
    level = fractions.Fraction(0)
    tops = sorted(
        fractions.Fraction(c, s)
        for s, c in zip(shares, capacities, strict=True)
        if s
    )

    def held(t):
        return sum(
            min(fractions.Fraction(c), t * s)
            for s, c in zip(shares, capacities, strict=True)
        )

    for top in tops:
        if held(top) >= total:
            # Linear between the last top and this one.
            low, high = held(level), held(top)
            if high > low:
                level += (top - level) * (total - low) / (high - low)
            break
        level = top
    exact = [
        min(fractions.Fraction(c), level * s)
        for s, c in zip(shares, capacities, strict=True)
    ]
    given = [math.floor(each) for each in exact]
    while sum(given) < total:
        left = [e - g for e, g in zip(exact, given, strict=True)]
        given[left.index(max(left))] += 1
    return given


def random_scores(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {n: rng.random(s, dtype=np.float32) for n, s in shapes.items()}


def tied_scores(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {n: rng.integers(0, 4, s) / 2 for n, s in shapes.items()}


@pytest.mark.parametrize(
    ("total", "shares", "capacities", "expected"),
    [
        (10, [1, 1, 1], [10, 10, 2], [4, 4, 2]),
        (10, [1, 1, 1], [10, 10, 10], [4, 3, 3]),  # ties: the earlier one
        (11, [1, 1, 1], [10, 10, 10], [4, 4, 3]),
        (1, [1, 2], [9, 9], [0, 1]),  # remainders 1/3 and 2/3
        (5, [3, 3, 4], [5, 5, 5], [2, 1, 2]),  # 1.5 1.5 2
        (0, [1, 2], [5, 5], [0, 0]),
        (10, [1, 2], [5, 5], [5, 5]),
        (0, [], [], []),
        (3, [5, 1], [0, 9], [0, 3]),
        (12, [100, 10, 1], [4, 5, 9], [4, 5, 3]),  # one overflow, then another
    ],
)
def test_apportion_by_hand(total, shares, capacities, expected):
    assert allocation.apportion(total, shares, capacities) == expected


def test_apportion_is_exact_and_within_capacity_for_any_ints():
    rng = random.Random(0)
    for _ in range(3000):
        count = rng.randint(1, 6)
        top = rng.choice([3, 30, 10**6, 10**12])
        shares = [rng.randint(1, top) for _ in range(count)]
        capacities = [rng.randint(0, top) for _ in range(count)]
        total = rng.randint(0, sum(capacities))
        given = allocation.apportion(total, shares, capacities)
        assert sum(given) == total
        assert all(
            0 <= each <= capacity
            for each, capacity in zip(given, capacities, strict=True)
        )
        assert all(type(each) is int for each in given)
        assert given == water_fill(total, shares, capacities)


def test_apportion_with_a_share_of_zero():
    # A share of 0 takes only what the others cannot.
    assert allocation.apportion(5, [1, 0], [5, 5]) == [5, 0]
    assert allocation.apportion(5, [1, 0], [2, 9]) == [2, 3]
    assert sum(allocation.apportion(5, [0, 0], [5, 5])) == 5


@pytest.mark.parametrize("total", [-1, 11])
def test_apportion_refuses_what_does_not_fit(total):
    with pytest.raises(ValueError, match=rf"split {total} into \[5, 5\]"):
        allocation.apportion(total, [1, 1], [5, 5])


@pytest.mark.parametrize("name", allocation.EXACT)
@pytest.mark.parametrize("scores_of", [random_scores, tied_scores])
def test_counts_are_exact_and_the_naive_rule_holds(name, scores_of):
    shapes = {"a": (3, 3, 2, 5), "b": (7, 4), "one": (1, 1), "c": (10, 3)}
    mask = Mask.full({n: np.zeros(s) for n, s in shapes.items()})
    allocate = allocation.get(name)
    size = 90 + 28 + 1 + 30
    for level, keep in enumerate([size, 140, 77, 76, 20, 3, 1, 0, 0]):
        scores = scores_of(shapes, seed=level)
        found = allocate(scores, mask, keep)
        assert found.kept == keep
        assert found.issubset(mask)
        assert list(found) == list(shapes)
        assert found == allocate(scores, mask, keep)
        for layer, count in found.kept_by_name.items():
            alive = np.flatnonzero(mask[layer]).tolist()
            flat = scores[layer].ravel().tolist()
            order = sorted((flat[index], -index) for index in alive)
            best = {-index for _, index in order[len(order) - count :]}
            assert set(np.flatnonzero(found[layer]).tolist()) == best
        mask = found


@pytest.mark.parametrize("name", ["layerwise", "erdos_renyi_kernel"])
def test_quotas_agree_with_exact_water_filling(name):
    shapes = {"a": (3, 3, 2, 5), "b": (7, 4), "one": (1, 1), "c": (10, 3)}
    shares = {
        "layerwise": [90, 28, 1, 30],
        "erdos_renyi_kernel": [13, 11, 2, 13],
    }[name]
    mask = Mask.full({n: np.zeros(s) for n, s in shapes.items()})
    allocate = allocation.get(name)
    for keep in range(149, -1, -7):
        capacities = list(mask.kept_by_name.values())
        mask = allocate(random_scores(shapes, keep), mask, keep)
        counts = list(mask.kept_by_name.values())
        assert counts == water_fill(keep, shares, capacities)


def test_global_breaks_ties_over_the_concatenation_in_mask_order():
    for names in (["a", "b"], ["b", "a"]):
        scores = {"a": np.zeros((2, 2)), "b": np.zeros(3)}
        mask = Mask({n: np.ones(scores[n].shape, bool) for n in names})
        for keep in range(8):
            found = allocation.global_(scores, mask, keep)
            flat = np.concatenate([found[n].ravel() for n in names])
            assert flat.tolist() == [True] * keep + [False] * (7 - keep)


def test_global_agrees_with_a_sort_of_all_scores():
    shapes = {"a": (4, 5), "b": (3, 3, 2), "c": (6,)}
    mask = Mask.full({n: np.zeros(s) for n, s in shapes.items()})
    for level, keep in enumerate([40, 33, 20, 11, 5, 1, 0]):
        scores = tied_scores(shapes, level)
        scores["b"] = np.where(scores["b"] == 0, -np.inf, scores["b"])
        flat = [s for n in mask for s in scores[n].ravel().tolist()]
        alive = [bit for n in mask for bit in mask[n].ravel().tolist()]
        order = sorted(
            (score, -index) for index, score in enumerate(flat) if alive[index]
        )
        best = {-index for _, index in order[len(order) - keep :]}
        mask = allocation.global_(scores, mask, keep)
        found = np.concatenate([mask[n].ravel() for n in mask])
        assert set(np.flatnonzero(found).tolist()) == best


def test_scores_are_matched_by_name_whatever_their_order():
    scores = {"b": np.array([5.0, 6.0]), "a": np.array([1.0, 2.0])}
    mask = Mask({"a": np.ones(2, bool), "b": np.ones(2, bool)})
    for name in allocation.EXACT:
        found = allocation.get(name)(scores, mask, 2)
        assert list(found) == ["a", "b"]
    assert allocation.global_(scores, mask, 2).kept_by_name == {"a": 0, "b": 2}


def test_layerwise_gives_what_a_thin_layer_lacks_to_the_others():
    mask = Mask(
        {
            "thin": np.array([True] + [False] * 9),
            "full": np.ones(10, bool),
        }
    )
    scores = {"thin": np.ones(10), "full": np.ones(10)}
    found = allocation.layerwise(scores, mask, 8)  # 4 each, were it there
    assert found.kept_by_name == {"thin": 1, "full": 7}


@pytest.mark.parametrize("name", allocation.EXACT)
def test_an_all_zero_layer_and_a_layer_already_empty(name):
    mask = Mask(
        {
            "zero": np.ones((4, 4), bool),
            "empty": np.zeros((4, 4), bool),
            "rest": np.ones((4, 4), bool),
        }
    )
    scores = {n: np.full((4, 4), float(n == "rest")) for n in mask}
    found = allocation.get(name)(scores, mask, 16)
    assert found.kept == 16
    assert found.kept_by_name["empty"] == 0
    if name == "global":
        assert found.kept_by_name == {"zero": 0, "empty": 0, "rest": 16}
    else:
        assert found.kept_by_name == {"zero": 8, "empty": 0, "rest": 8}


@pytest.mark.parametrize("name", allocation.EXACT)
def test_what_cannot_be_kept_is_refused(name):
    mask = Mask({"a": np.array([[True, True, False]])})
    scores = {"a": np.zeros((1, 3))}
    allocate = allocation.get(name)
    for keep in (3, -1):
        with pytest.raises(ValueError, match=f"keep {keep} .* has 2 left"):
            allocate(scores, mask, keep)
    with pytest.raises(ValueError, match=r"Scores are of \['b'\].*\['a'\]"):
        allocate({"b": np.zeros((1, 3))}, mask, 1)


# FACTS 2.5, derived there from the formula of Evci et al. (2020).
ERK_TABLE = [
    (LENET, 0.5, {"fc1": 0.434099, "fc2": 1, "out": 1}),
    (LENET, 0.2, {"fc1": 0.162241, "fc2": 0.469362, "out": 1}),
    (LENET, 0.1, {"fc1": 0.079568, "fc2": 0.230189, "out": 1}),
    (LENET, 0.05, {"fc1": 0.038484, "fc2": 0.111334, "out": 0.918507}),
    (
        CONV_2,
        0.1,
        {"c1": 1, "c2": 0.089542, "fc1": 0.097727, "fc2": 0.192448, "out": 1},
    ),
    (
        RESNET_20,
        0.1,
        {
            "conv": 0.982985,
            **{f"s0.{i}": 0.280151 for i in range(6)},
            "s1b0c1": 0.199055,
            **{f"s1.{i}": 0.129017 for i in range(5)},
            "s1 shortcut": 1,
            "s2b0c1": 0.093998,
            **{f"s2.{i}": 0.061744 for i in range(5)},
            "s2 shortcut": 0.812806,
            "fc": 1,
        },
    ),
]
ER_TABLE = [
    (
        CONV_2,
        0.1,
        {"c1": 1, "c2": 0.726978, "fc1": 0.092292, "fc2": 0.181744, "out": 1},
    ),
    *ERK_TABLE[:4],  # without convolutions the two rules are one
]


def densities(density, sizes, raw):
    """Evci et al.'s rule in fractions: scale, fix what passes 1, repeat."""
    dense, budget = set(), fractions.Fraction(density) * sum(sizes.values())
    while True:
        rest = budget - sum(sizes[n] for n in dense)
        whole = sum(raw[n] * sizes[n] for n in sizes if n not in dense)
        scaled = {n: raw[n] * rest / whole for n in sizes if n not in dense}
        over = {n for n, each in scaled.items() if each > 1}
        if not over:
            return {n: scaled.get(n, fractions.Fraction(1)) for n in sizes}
        most = max(raw[n] for n in over)
        dense |= {n for n in over if raw[n] == most}


@pytest.mark.parametrize(
    ("name", "shapes", "density", "table"),
    [
        *(("erdos_renyi_kernel", *row) for row in ERK_TABLE),
        *(("erdos_renyi", *row) for row in ER_TABLE),
    ],
)
def test_erdos_renyi_densities(name, shapes, density, table):
    mask = Mask.full({n: np.broadcast_to(0, s) for n, s in shapes.items()})
    keep = kept(mask.size, 1 - density)
    found = allocation.get(name)(random_scores(shapes), mask, keep)
    assert found.kept == keep
    dimensions = {
        n: shape if name == "erdos_renyi_kernel" else shape[-2:]
        for n, shape in shapes.items()
    }
    raw = {
        n: fractions.Fraction(sum(d), math.prod(d))
        for n, d in dimensions.items()
    }
    sizes = {n: math.prod(shape) for n, shape in shapes.items()}
    exact = densities(fractions.Fraction(keep, mask.size), sizes, raw)
    for layer, count in found.kept_by_name.items():
        size = sizes[layer]
        assert abs(count - exact[layer] * size) < 1
        # Within one weight of the table, printed to six decimals.
        assert abs(count - table[layer] * size) <= 1 + 5e-7 * size
        assert table[layer] != 1 or count == size


def test_the_shapes_of_the_table_are_those_of_the_paper():
    assert sum(math.prod(s) for s in LENET.values()) == 266_200
    assert sum(math.prod(s) for s in CONV_2.values()) == 4_300_992
    assert sum(math.prod(s) for s in RESNET_20.values()) == 270_896


def test_get_resolves_names_and_callables():
    def mine(scores, mask, keep):
        return mask

    assert allocation.get(mine) is mine
    for name, function in allocation.ALLOCATIONS.items():
        assert allocation.get(name) is function


@pytest.mark.parametrize("wrong", ["globl", "", "layer-wise", None, 0.5])
def test_unknown_names_list_the_choices(wrong):
    with pytest.raises(ValueError) as raised:
        allocation.get(wrong)
    text = str(raised.value)
    assert text.startswith(f"Unknown allocation {wrong!r}. Expected one of '")
    assert all(repr(name) in text for name in allocation.ALLOCATIONS)
    assert text.endswith("a function (scores, mask, keep) -> Mask.")


def test_n_of_m_by_name():
    assert allocation.get("2:4") == allocation.NOfM(2, 4)
    assert allocation.get("4:8") == allocation.NOfM(4, 8)
    for wrong in ("2:", "a:4", "2:4:8", "-1:4"):
        with pytest.raises(ValueError, match="Unknown allocation .*'4:8'"):
            allocation.get(wrong)
    with pytest.raises(ValueError, match="m=4 weights n=5 cannot stay"):
        allocation.get("5:4")


def test_a_class_is_no_allocation():
    with pytest.raises(ValueError, match=r"Channels is a class.*Channels\("):
        allocation.get(allocation.Channels)


def test_which_count_exactly():
    exact = {n for n in allocation.ALLOCATIONS if allocation.counts_exactly(n)}
    assert exact == {"global", "layerwise", "erdos_renyi", "erdos_renyi_kernel"}
    assert allocation.counts_exactly(allocation.global_)
    for other in ("channels(spread='global')", "mine", None, [], lambda: 0):
        assert not allocation.counts_exactly(other)


CHOSEN = [
    *allocation.ALLOCATIONS.values(),
    allocation.NOfM(1, 4, axis=0),
    allocation.Blocks((1, 16)),
    *(
        each(spread)
        for each in (
            allocation.Filters,
            allocation.Channels,
            allocation.Heads,
        )
        for spread in ("global", "layerwise")
    ),
]


def called(chosen):
    """The same in every process: the repr of a function has its address."""
    return chosen.__name__


@pytest.mark.parametrize("chosen", CHOSEN, ids=called)
def test_what_is_serialized_comes_back(chosen):
    text = json.dumps(allocation.serialize(chosen))
    again = allocation.deserialize(json.loads(text))
    assert allocation.get(again) == chosen


def test_names_say_what_differs_from_the_default():
    names = [each.__name__ for each in CHOSEN[4:11]]
    assert names == [
        *("2:4", "blocks", "filters", "channels", "heads"),
        *("1:4 (axis=0)", "blocks(shape=(1, 16))"),
    ]
    assert len({each.__name__ for each in CHOSEN}) == len(set(CHOSEN))


@pytest.mark.parametrize(
    "wrong",
    [
        "globl",
        None,
        {},
        {"class_name": "Layer", "config": {}},
        {"class_name": "NOfM", "config": {"n": 1}},
        {"class_name": "NOfM", "config": {"n": 3, "m": 2, "axis": 0}},
        {"class_name": "Channels", "config": {"spread": "wide"}},
    ],
)
def test_what_is_no_config_is_refused(wrong):
    with pytest.raises(ValueError):
        allocation.deserialize(wrong)


def test_a_function_is_not_serialized():
    with pytest.raises(ValueError, match="a function, which a .keras file"):
        allocation.serialize(lambda scores, mask, keep: mask)
