"""The table of networks, and the rates of the paper applied to them.

`tests/pruning/test_find.py` has the same table for the rule of counts; here
the groups come from the networks that this package builds.
"""

import numpy as np
import pytest

from keras_lottery.models import networks
from keras_lottery.pruning import find
from keras_lottery.pruning import groups
from keras_lottery.pruning import weights
from keras_lottery.pruning.mask import Mask
from keras_lottery.pruning.schedules import IterativePruning

# FACTS 1.2: percent of all weights left after round k, to two decimals.
ROUNDS = [*range(1, 17), 19, 20]
P_M = {
    "lenet": (
        "80.04 64.06 51.28 41.05 32.87 26.32 21.07 16.88 13.52 10.83 8.68 "
        "6.95 5.57 4.47 3.58 2.87 1.49 1.19"
    ),
    "conv2": (
        "80.10 64.16 51.41 41.20 33.02 26.47 21.23 17.03 13.66 10.97 8.81 "
        "7.08 5.69 4.57 3.68 2.97 1.56 1.26"
    ),
    "conv4": (
        "81.08 65.84 53.55 43.63 35.61 29.13 23.88 19.62 16.16 13.35 11.06 "
        "9.18 7.65 6.40 5.37 4.51 2.75 2.34"
    ),
    "conv6": (
        "82.54 68.20 56.39 46.68 38.67 32.07 26.61 22.11 18.38 15.29 12.74 "
        "10.62 8.86 7.39 6.18 5.17 3.03 2.54"
    ),
    "resnet20": (
        "80.24 64.43 51.78 41.66 33.56 27.09 21.91 17.76 14.44 11.79 9.67 "
        "7.97 6.61 5.53 4.66 3.96 2.61 2.32"
    ),
    "vgg19": (
        "80.01 64.01 51.21 40.98 32.79 26.23 20.99 16.80 13.44 10.76 8.61 "
        "6.90 5.52 4.42 3.54 2.84 1.47 1.18"
    ),
}


def scheduled(name, model):
    """The weights of a network by pattern, and a schedule for each."""
    patterns = networks.PRUNED[name]
    governed = groups.assign(list(weights.prunable(model)), list(patterns))
    return governed, {
        pattern: IterativePruning(rate, 20)
        for pattern, rate in patterns.items()
    }


def weights_left(governed, schedules, mask, level):
    """By the budgets alone: what fits no pattern stays."""
    sparsities = groups.sparsities(schedules, level)
    budgets = find.budgets_of(governed, sparsities, mask)
    pruned = {name for names, _ in budgets for name in names}
    left = sum(keep for _, keep in budgets)
    left += sum(n for name, n in mask.sizes.items() if name not in pruned)
    return left


@pytest.fixture(scope="module")
def columns():
    """Dict from network to (dict from level to weights left, weights)."""
    found = {}
    for name in P_M:
        model = networks.get(name)()
        full = Mask.full(weights.prunable(model))
        governed, schedules = scheduled(name, model)
        left = {
            level: weights_left(governed, schedules, full, level)
            for level in range(1, 21)
        }
        found[name] = left, full.size
    return found


@pytest.mark.parametrize("name", P_M)
def test_percent_left_at_the_rates_of_the_paper(columns, name):
    left, size = columns[name]
    column = [f"{100 * left[level] / size:.2f}" for level in ROUNDS]
    assert column == P_M[name].split()


def test_conv6_is_near_the_labels_of_the_paper(columns):
    left, size = columns["conv6"]
    assert 100 * left[7] / size == pytest.approx(26.4, rel=0.02)
    assert 100 * left[10] / size == pytest.approx(15.1, rel=0.02)


@pytest.mark.parametrize("name", ["conv4", "resnet20"])
def test_pruned_level_after_level(columns, name):
    model, mask = networks.get(name)(), None
    _, schedules = scheduled(name, model)
    full = Mask.full(weights.prunable(model))
    for level in range(1, 21):
        mask = find.find_mask(
            model,
            groups.sparsities(schedules, level),
            mask=mask,
            # By magnitude an untrained ResNet loses a layer of its last stage.
            criterion="random",
            allocation=networks.ALLOCATION[name],
        )
        assert mask.kept == columns[name][0][level]
        if name == "resnet20":
            whole = [n for n in full if "shortcut" in n or "output" in n]
            assert len(whole) == 3
            assert all(mask[each].all() for each in whole)
        else:
            rate = {"c": 0.9, "f": 0.8, "o": 0.9}
            for each, kept in mask.kept_by_name.items():
                exact = full.sizes[each] * rate[each[0]] ** level
                # A group is rounded once and shared out by remainders.
                assert abs(kept - exact) < 2


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_rates_govern_what_the_paper_prunes(name):
    model = networks.get(name)((16, 16, 1), 4, width=0.1)
    governed, _ = scheduled(name, model)
    of = {
        each: networks.PRUNED[name][pattern]
        for pattern, names in governed.items()
        for each in names
    }
    for each in weights.prunable(model):
        expected = {
            "lenet": 0.2,
            "conv2": 0.1 if "conv" in each else 0.2,
            "conv4": 0.1 if "conv" in each else 0.2,
            "conv6": 0.15 if "conv" in each else 0.2,
        }.get(name, 0.2 if "conv" in each else None)
        if each == "output/kernel":
            expected = None if name.startswith(("resnet", "vgg")) else 0.1
        assert of.get(each) == expected


def test_the_tables_have_the_same_rows():
    assert set(networks.PRUNED) == set(networks.NETWORKS)
    assert set(networks.ALLOCATION) == set(networks.NETWORKS)
    assert [n for n, a in networks.ALLOCATION.items() if a == "layerwise"] == [
        "lenet",
        "conv2",
        "conv4",
        "conv6",
    ]


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_a_line_for_every_network(name):
    line = networks.describe(name)
    assert line.startswith(f"{name}: ") and "\n" not in line
    for pattern, rate in networks.PRUNED[name].items():
        assert f"{round(100 * rate)} % of {pattern}" in line


def test_models_bear_the_names():
    for name, build in networks.NETWORKS.items():
        assert build((16, 16, 1), width=0.05).name == name


def test_unknown_names_list_the_choices():
    listed = ", ".join(map(repr, networks.NETWORKS))
    for ask in (networks.get, networks.describe):
        with pytest.raises(ValueError, match="Unknown network 'lenet5'") as e:
            ask("lenet5")
        assert listed in str(e.value)
    assert networks.get(np.sum) is np.sum
