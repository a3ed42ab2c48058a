"""find_mask: every criterion with every allocation, and the published P_m."""

import re
import warnings

import keras
import numpy as np
import pytest

from keras_lottery.errors import LayerCollapseWarning
from keras_lottery.pruning import allocation as allocations
from keras_lottery.pruning import criteria
from keras_lottery.pruning import find
from keras_lottery.pruning import weights
from keras_lottery.pruning.find import find_mask
from keras_lottery.pruning.mask import Mask
from keras_lottery.pruning.mask import kept
from keras_lottery.pruning.schedules import IterativePruning

SIZES = {
    "conv/kernel": 72,
    "hidden/kernel": 576,
    "narrow/kernel": 9,
    "gain/kernel": 1,
    "zero/kernel": 5,
}
SPARSITIES = [0.0, 0.2, 0.5, 0.75, 0.9, 0.999]


@pytest.fixture(scope="module")
def toy():
    """A model with a kernel of one weight and, once filled, one of zeros."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(9, name="hidden"),
            keras.layers.Dense(1, name="narrow"),
            keras.layers.Dense(1, name="gain"),
            keras.layers.Dense(5, name="zero"),
        ]
    )


def fill(model, seed, mask=None):
    """Assigns weights on a coarse grid, so that ties abound.

    What `mask` has removed becomes huge: reviving it would be tempting.
    """
    rng = np.random.default_rng(seed)
    for name, variable in weights.prunable(model).items():
        value = rng.integers(-8, 9, variable.shape) / 4
        if name == "zero/kernel":
            value = np.zeros(variable.shape)
        if mask is not None:
            value = np.where(mask[name], value, 100.0)
        variable.assign(value)
    return weights.values(model)


def concatenated(mask, arrays):
    return [each for name in mask for each in arrays[name].ravel().tolist()]


def naive(scores, alive, count):
    """The positions kept: all (score, -index) sorted, the first removed."""
    order = sorted(
        (score, -index) for index, score in enumerate(scores) if alive[index]
    )
    return {-index for _, index in order[len(order) - count :]}


def positions(flat):
    return {index for index, bit in enumerate(flat) if bit}


@pytest.mark.filterwarnings("ignore::keras_lottery.errors.LayerCollapseWarning")
@pytest.mark.parametrize("allocation", allocations.EXACT)
@pytest.mark.parametrize("criterion", criteria.CRITERIA)
def test_conformance(toy, criterion, allocation):
    mask = None
    start = fill(toy, 99)
    for level, sparsity in enumerate(SPARSITIES):
        now = fill(toy, level, mask)
        if mask is not None:
            start = {
                n: np.where(mask[n], w, 50.0) if n in mask else w
                for n, w in start.items()
            }
        options = {
            "mask": mask,
            "start": start,
            "criterion": criterion,
            "allocation": allocation,
            "seed": 11,
        }
        before = mask if mask is not None else Mask.full(weights.prunable(toy))
        after = find_mask(toy, sparsity, **options)

        assert after.sizes == SIZES
        assert after.kept == 663 - round(663 * sparsity)
        assert positions(concatenated(after, after)) <= positions(
            concatenated(before, before)
        )
        assert find_mask(toy, sparsity, **options) == after
        for name, array in weights.values(toy).items():
            np.testing.assert_array_equal(array, now[name])

        scores = criteria.get(criterion, 11)(toy, start, None)
        if allocation == "global":
            assert positions(concatenated(after, after)) == naive(
                concatenated(after, scores),
                concatenated(before, before),
                after.kept,
            )
        for name, count in after.kept_by_name.items():
            assert positions(after[name].ravel().tolist()) == naive(
                scores[name].ravel().tolist(),
                before[name].ravel().tolist(),
                count,
            )
        mask = after
    assert mask.kept == 1


@pytest.mark.filterwarnings("ignore::keras_lottery.errors.LayerCollapseWarning")
@pytest.mark.parametrize("allocation", allocations.EXACT)
@pytest.mark.parametrize(
    "criterion", [name for name in criteria.CRITERIA if name != "random"]
)
def test_conformance_when_all_scores_tie(toy, criterion, allocation):
    for variable in weights.prunable(toy).values():
        variable.assign(np.zeros(variable.shape))
    mask = find_mask(
        toy,
        0.5,
        start=weights.values(toy),
        criterion=criterion,
        allocation=allocation,
    )
    assert mask.kept == 331
    if allocation == "global":
        flat = concatenated(mask, mask)
        assert flat == [True] * 331 + [False] * 332
    for name, count in mask.kept_by_name.items():
        flat = mask[name].ravel().tolist()
        assert flat == [True] * count + [False] * (SIZES[name] - count)


def test_without_a_mask_sparsity_zero_keeps_everything(toy):
    mask = find_mask(toy, 0)
    assert mask.kept == mask.size == 663
    assert list(mask) == list(SIZES)


def test_pruning_to_the_sparsity_reached_changes_nothing(toy):
    fill(toy, 0)
    mask = find_mask(toy, 0.3, allocation="layerwise")
    fill(toy, 1)
    assert find_mask(toy, 0.3, mask=mask, allocation="global") == mask


def test_an_emptied_layer_warns_naming_layer_and_level(toy):
    fill(toy, 0)
    toy.get_layer("gain").kernel.assign([[2.0]])
    with pytest.warns(LayerCollapseWarning) as caught:
        mask = find_mask(toy, 0.2, level=3)
    assert [str(each.message).split(":")[0] for each in caught] == [
        "'zero/kernel' has no weight left at level 3"
    ]
    assert "allocation='layerwise'" in str(caught[0].message)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", LayerCollapseWarning)
        find_mask(toy, 0.2, mask=mask, level=4)  # was empty before: no news


def test_a_layer_of_one_weight_that_is_removed_warns(toy):
    fill(toy, 0)
    toy.get_layer("gain").kernel.assign([[0.0]])
    toy.get_layer("zero").kernel.assign(np.ones((1, 5)))
    with pytest.warns(
        LayerCollapseWarning, match="'gain/kernel' has no weight left: "
    ):
        # 663 * .1 = 66; a 17th of the grid, about 38 weights, is 0.
        assert find_mask(toy, 0.1)["gain/kernel"].tolist() == [[False]]


def test_no_warning_where_no_layer_is_emptied(toy):
    fill(toy, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mask = find_mask(toy, 0.5, allocation="layerwise")
    assert min(mask.kept_by_name.values()) >= 1


def test_one_weight_of_many_can_be_kept(toy):
    fill(toy, 0)
    value = toy.get_layer("hidden").kernel.numpy()
    value[3, 4] = -9.0
    toy.get_layer("hidden").kernel.assign(value)
    with pytest.warns(LayerCollapseWarning):
        mask = find_mask(toy, 0.999)
    assert mask.kept == 1
    assert mask["hidden/kernel"][3, 4]


def test_custom_criterion_and_allocation(toy):
    fill(toy, 0)
    start, data = {"any": "thing"}, object()
    seen = {}

    def backwards(model, start, data):
        seen.update(model=model, start=start, data=data)
        return {
            name: np.arange(w.size).reshape(w.shape)
            for name, w in weights.values(model).items()
        }

    def all_from_hidden(scores, mask, keep):
        seen.update(keep=keep, names=list(scores))
        rest = keep - (mask.kept - mask.kept_by_name["hidden/kernel"])
        order = np.argsort(-scores["hidden/kernel"].ravel())[:rest]
        flat = np.zeros(576, bool)
        flat[order] = True
        return Mask({**mask, "hidden/kernel": flat.reshape(64, 9)})

    mask = find_mask(
        toy,
        0.5,
        start=start,
        data=data,
        criterion=backwards,
        allocation=all_from_hidden,
    )
    assert seen["model"] is toy
    assert seen["start"] is start
    assert seen["data"] is data
    assert seen["keep"] == 331
    assert seen["names"] == list(SIZES)
    assert mask.kept_by_name == {**SIZES, "hidden/kernel": 331 - 87}
    flat = mask["hidden/kernel"].ravel()
    assert flat.tolist() == [False] * 332 + [True] * 244


def test_the_seed_reaches_a_criterion_that_takes_one(toy):
    fill(toy, 0)
    seen = []

    def drawn(model, start, data, seed):
        seen.append(seed)
        return criteria.random(model, start, data, seed)

    mask = find_mask(toy, 0.5, criterion=drawn, seed=5, allocation="layerwise")
    same = find_mask(
        toy, 0.5, criterion="random", seed=5, allocation="layerwise"
    )
    other = find_mask(
        toy, 0.5, criterion="random", seed=6, allocation="layerwise"
    )
    assert seen == [5]
    assert mask == same
    assert mask != other
    assert mask.kept_by_name == other.kept_by_name


def test_an_allocation_may_keep_fewer_but_not_more(toy):
    fill(toy, 0)
    half = find_mask(toy, 0.5, allocation="layerwise")

    def returning(mask):
        return lambda scores, before, keep: mask

    assert find_mask(toy, 0.4, allocation=returning(half)) == half
    with pytest.raises(ValueError, match="kept 332 weights, 66 allowed"):
        find_mask(
            toy, 0.9, allocation=returning(Mask({**half, **one_more(half)}))
        )


def one_more(mask):
    array = mask["hidden/kernel"].copy()
    array.flat[np.flatnonzero(~array)[0]] = True
    return {"hidden/kernel": array}


def test_an_allocation_may_not_revive(toy):
    fill(toy, 0)
    half = find_mask(toy, 0.5, allocation="layerwise")

    def moves_one(scores, mask, keep):
        array = one_more(mask)["hidden/kernel"]
        array.flat[np.flatnonzero(array)[-1]] = False
        return Mask({**mask, "hidden/kernel": array})

    with pytest.raises(ValueError, match="revived"):
        find_mask(toy, 0.5, mask=half, allocation=moves_one)


@pytest.mark.parametrize(
    "found",
    [
        None,
        {"hidden/kernel": np.zeros((64, 9), bool)},
        Mask({"hidden/kernel": np.zeros((64, 9), bool)}),
    ],
)
def test_an_allocation_must_return_a_mask_of_what_it_was_given(toy, found):
    with pytest.raises(ValueError, match="must return a Mask of the weights"):
        find_mask(toy, 0.5, allocation=lambda scores, mask, keep: found)


@pytest.mark.parametrize(
    "sparsity", [1, 1.0, 1.5, -0.1, float("nan"), "0.5", None, True, [0.5]]
)
def test_a_sparsity_out_of_range_is_refused(toy, sparsity):
    told = rf"`sparsity` .*\[0, 1\); got {re.escape(repr(sparsity))}"
    with pytest.raises(ValueError, match=told):
        find_mask(toy, sparsity)


def test_a_sparsity_below_that_of_the_mask_is_refused(toy):
    fill(toy, 0)
    mask = find_mask(toy, 0.5, allocation="layerwise")
    with pytest.raises(
        ValueError, match="keeps 331 of 663 .* would keep 332, and pruning rev"
    ):
        find_mask(toy, 331 / 663, mask=mask)


@pytest.mark.parametrize("family", ["criterion", "allocation"])
def test_unknown_names_list_the_choices(toy, family):
    table = {
        "criterion": criteria.CRITERIA,
        "allocation": allocations.ALLOCATIONS,
    }[family]
    listed = ", ".join(map(repr, table))
    with pytest.raises(
        ValueError, match=f"Unknown {family} 'none'. Expected one of {listed}, "
    ):
        find_mask(toy, 0.5, **{family: "none"})


def test_a_mask_that_does_not_fit_is_refused(toy):
    mask = find_mask(toy, 0)
    turned = Mask(
        {
            **mask,
            "hidden/kernel": np.ones((9, 64), bool),
            "other/kernel": np.ones((2, 2), bool),
        }
    )
    with pytest.raises(ValueError) as raised:
        find_mask(toy, 0.5, mask=turned)
    lines = str(raised.value).splitlines()[1:]
    assert lines == [
        "  hidden/kernel: mask (9, 64), model (64, 9)",
        "  other/kernel: mask (2, 2), model none",
    ]
    with pytest.raises(ValueError, match="Expected a Mask, got dict"):
        find.check_fits(toy, dict(mask))
    assert find.check_fits(toy, mask) is None


def test_current_mask(toy):
    full = find.current_mask(toy)
    assert full == Mask.full(weights.prunable(toy))
    assert find.current_mask(toy, layers=["hidden"]).sizes == {
        "hidden/kernel": 576
    }
    part = Mask({"hidden/kernel": np.zeros((64, 9), bool)})
    assert find.current_mask(toy, part) is part


def test_a_mask_of_some_layers_prunes_only_those(toy):
    fill(toy, 0)
    mask = find_mask(toy, 0.5, layers=["hidden", "conv"])
    assert mask.sizes == {"conv/kernel": 72, "hidden/kernel": 576}
    assert mask.kept == 324
    again = find_mask(toy, 0.75, mask=mask)
    assert again.sizes == mask.sizes
    assert again.kept == 162


def test_groups_are_counted_apart_and_the_rest_is_left_alone(toy):
    fill(toy, 0)
    mask = find_mask(toy, {"hidden/*": 0.5, "[cn]*": 0.25, "gain/*": 0.0})
    assert mask.sizes == SIZES
    counts = mask.kept_by_name
    assert counts["hidden/kernel"] == 576 - 288
    # 81 - round(20.25), shared by score between the two.
    assert counts["conv/kernel"] + counts["narrow/kernel"] == 81 - 20
    assert counts["gain/kernel"] == 1
    assert counts["zero/kernel"] == 5
    with pytest.raises(ValueError, match=r"'outptu/\*' governs no weight"):
        find_mask(toy, {"outptu/*": 0.5})


# FACTS 1.2: percent of all weights left after round k, to two decimals.
# Frankle & Carbin (2019) print those of PRINTED to one decimal.
ROUNDS = [*range(1, 17), 19, 20]
P_M = {
    "LeNet": (
        "80.04 64.06 51.28 41.05 32.87 26.32 21.07 16.88 13.52 10.83 8.68 "
        "6.95 5.57 4.47 3.58 2.87 1.49 1.19"
    ),
    "Conv-2": (
        "80.10 64.16 51.41 41.20 33.02 26.47 21.23 17.03 13.66 10.97 8.81 "
        "7.08 5.69 4.57 3.68 2.97 1.56 1.26"
    ),
    "Conv-4": (
        "81.08 65.84 53.55 43.63 35.61 29.13 23.88 19.62 16.16 13.35 11.06 "
        "9.18 7.65 6.40 5.37 4.51 2.75 2.34"
    ),
    "Conv-6": (
        "82.54 68.20 56.39 46.68 38.67 32.07 26.61 22.11 18.38 15.29 12.74 "
        "10.62 8.86 7.39 6.18 5.17 3.03 2.54"
    ),
    "ResNet-18": (
        "80.24 64.43 51.78 41.66 33.56 27.09 21.91 17.76 14.44 11.79 9.67 "
        "7.97 6.61 5.53 4.66 3.96 2.61 2.32"
    ),
    "VGG-19": (
        "80.01 64.01 51.21 40.98 32.79 26.23 20.99 16.80 13.44 10.76 8.61 "
        "6.90 5.52 4.42 3.54 2.84 1.47 1.18"
    ),
}
# Per network: (weights, rate) of each group; rate 0 is not pruned.
GROUPS = {
    "LeNet": [(265_200, 0.2), (1_000, 0.1)],
    "Conv-2": [(38_592, 0.1), (4_259_840, 0.2), (2_560, 0.1)],
    "Conv-4": [(259_776, 0.1), (2_162_688, 0.2), (2_560, 0.1)],
    "Conv-6": [(1_144_512, 0.15), (1_114_112, 0.2), (2_560, 0.1)],
    "ResNet-18": [(267_696, 0.2), (2_560, 0), (640, 0)],
    "VGG-19": [(20_018_880, 0.2), (5_120, 0)],
}
PRINTED = {
    "LeNet": {
        3: 51.3,
        6: 26.3,
        7: 21.1,
        9: 13.5,
        12: 7.0,
        15: 3.6,
        16: 2.9,
    },
    "Conv-2": {11: 8.8, 14: 4.6},
    "Conv-4": {11: 11.1, 12: 9.2, 15: 5.4},
    "ResNet-18": {4: 41.7, 6: 27.1, 7: 21.9, 10: 11.8},
    "VGG-19": {12: 6.9, 15: 3.5, 19: 1.5},
}


def percent_left(network, level):
    total = sum(size for size, _ in GROUPS[network])
    left = sum(
        kept(size, 1 - (1 - rate) ** level) for size, rate in GROUPS[network]
    )
    return 100 * left / total


@pytest.mark.parametrize("network", P_M)
def test_percent_left_by_the_count_rule(network):
    column = [f"{percent_left(network, level):.2f}" for level in ROUNDS]
    assert column == P_M[network].split()


@pytest.mark.parametrize("network", PRINTED)
def test_percent_left_as_the_paper_prints_it(network):
    for level, printed in PRINTED[network].items():
        assert f"{percent_left(network, level):.1f}" == str(printed)


def test_percent_left_where_the_paper_rounds_down():
    # The paper prints 7.6; the figure-2 rates give 7.6526.
    assert f"{percent_left('Conv-4', 13):.4f}" == "7.6526"


def test_lenet_through_find_mask():
    model = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(300, name="hidden_a"),
            keras.layers.Dense(100, name="hidden_b"),
            keras.layers.Dense(10, name="output"),
        ]
    )
    schedules = {
        "output/*": IterativePruning(0.1, 20),
        "*": IterativePruning(0.2, 20),
    }
    column, mask = {}, None
    for level in range(1, 21):
        mask = find_mask(
            model,
            {key: each.sparsity(level) for key, each in schedules.items()},
            mask=mask,
            allocation="layerwise",
        )
        hidden = 265_200 - round(265_200 * (1 - 0.8**level))
        # Of two remainders that add up to one the larger gets the unit.
        a, remainder = divmod(hidden * 235_200, 265_200)
        a += remainder * 2 >= 265_200
        assert mask.kept_by_name == {
            "hidden_a/kernel": a,
            "hidden_b/kernel": hidden - a,
            "output/kernel": 1_000 - round(1_000 * (1 - 0.9**level)),
        }
        column[level] = f"{100 * mask.density:.2f}"
    assert mask.size == 266_200
    assert [column[level] for level in ROUNDS] == P_M["LeNet"].split()


def test_resnet_through_find_mask_prunes_convolutions_only():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(16, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Conv2D(32, 1, name="shortcut")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(10, name="output")(x))
    mask = None
    for level in range(1, 6):
        mask = find_mask(model, {"conv/*": 1 - 0.8**level}, mask=mask)
        assert mask.kept_by_name == {
            "conv/kernel": 432 - round(432 * (1 - 0.8**level)),
            "shortcut/kernel": 512,
            "output/kernel": 320,
        }
