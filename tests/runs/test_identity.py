"""Identity: which settings make another run, and pinned names of runs."""

import hashlib
import json
import random

import ml_collections
import pytest

from keras_lottery.runs import configuration
from keras_lottery.runs import identity

# Another value would part results from the runs that they came from.
PINNED = {
    "digits": "d1860dee840b",
    "digits:smoke": "754c187d4de1",
    "mnist_lenet": "93eb949beb61",
    "mnist_lenet:short": "a8b2f7936599",
    "fashion_lenet": "019dc058cc20",
    "cifar10_conv2": "d227757850cd",
    "cifar10_conv4": "ae9f8c0596a9",
    "cifar10_conv6": "adb548bf1f29",
    "cifar10_resnet20": "9e4a279feff5",
    "cifar10_vgg19": "6de0a33a0736",
}
OUTSIDE = {
    "replicates",
    "prune.levels",
    "checkpoint.seconds",
    "checkpoint.steps",
    "distribute.strategy",
    "distribute.timeout",
    "export.enabled",
    "export.tolerance",
}
SETTINGS = sorted(configuration.flat(configuration.defaults()))


def changed(path):
    """Returns the defaults with another value at a path."""
    config = configuration.defaults()
    old = configuration.flat(config)[path]
    if isinstance(old, bool):
        new = not old
    elif isinstance(old, dict):
        new = {"more": 1}
    elif isinstance(old, tuple):
        new = (*old, "more")
    else:
        new = old + ("more" if isinstance(old, str) else 1)
    if path.endswith("arguments"):
        config[path.split(".")[0]].arguments.more = 1
    else:
        config.update_from_flattened_dict({path: new})
    assert configuration.flat(config)[path] == new != old
    return config


@pytest.mark.parametrize("reference", PINNED)
def test_names_of_runs_are_pinned(reference):
    config = configuration.load(reference)
    assert identity.identity(config) == PINNED[reference]


def test_pinned_names_differ():
    assert len(set(PINNED.values())) == 10


@pytest.mark.parametrize("path", SETTINGS)
def test_every_setting_is_inside_or_known_to_be_outside(path):
    config, standard = changed(path), configuration.defaults()
    same = identity.identity(config) == identity.identity(standard)
    assert same == (path in OUTSIDE)
    assert list(identity.difference(config)) == [path] * (not same)


def test_changes_of_settings_all_give_different_names():
    found = [identity.identity(changed(path)) for path in SETTINGS]
    # Those outside, and no more, have the name of the defaults.
    assert len(set(found)) == len(SETTINGS) - len(OUTSIDE) + 1


def test_a_setting_at_its_default_leaves_the_name_alone(monkeypatch):
    config = configuration.load("digits:smoke")
    before = identity.identity(config)
    config.train.drop_factor = 0.1
    config.prune.layers = ()
    assert identity.identity(config) == before

    # So does one that a later version adds.
    defaults = configuration.defaults

    def later():
        tree = defaults()
        tree.train.later = 5
        return tree

    monkeypatch.setattr(configuration, "defaults", later)
    config.train.later = 5
    assert identity.identity(config) == before
    config.train.later = 6
    assert identity.identity(config) != before


def test_the_order_of_settings_is_irrelevant():
    config = configuration.load("mnist_lenet").to_dict()
    config["train"]["arguments"] = {"beta_1": 0.8, "beta_2": 0.9}
    expected = identity.identity(config)
    for seed in range(5):
        again = _shuffled(config, random.Random(seed))
        assert identity.identity(again) == expected
        assert identity.identity(ml_collections.ConfigDict(again)) == expected


def _shuffled(tree, generator):
    if not isinstance(tree, dict):
        return tree
    names = list(tree)
    generator.shuffle(names)
    return {name: _shuffled(tree[name], generator) for name in names}


def test_json_and_back_is_the_same():
    for reference in PINNED:
        config = configuration.load(reference)
        again = json.loads(identity.canonical(config.to_dict()))
        assert identity.identity(again) == identity.identity(config)


def test_it_is_the_sha256_of_the_canonical_difference():
    config = configuration.defaults()
    config.seed, config.prune.rates = 7, (("output/*", 0.1),)
    config.replicates = 9
    text = b'{"prune.rates":[["output/*",0.1]],"seed":7}'
    expected = hashlib.sha256(text).hexdigest()[:12]
    assert identity.identity(config) == expected
    nothing = hashlib.sha256(b"{}").hexdigest()[:12]
    assert identity.identity(configuration.defaults()) == nothing
