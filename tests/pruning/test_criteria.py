"""Criteria: scores by hand, scores refused, names unknown."""

import inspect
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.pruning import criteria
from keras_lottery.pruning import weights
from keras_lottery.pruning.find import find_mask

KERNEL = [[1.0, -2.0, 3.0], [-4.0, 0.5, 0.0]]
START = [[2.0, -1.0, -3.0], [4.0, 0.5, 0.0]]
BY_HAND = {
    "magnitude": [[1, 2, 3], [4, 0.5, 0]],
    "large_init": [[2, 1, 3], [4, 0.5, 0]],
    "magnitude_increase": [[-1, 1, 0], [0, 0, 0]],
    "movement": [[1, 1, 6], [8, 0, 0]],
    "magnitude_same_sign": [[1, 2, 0], [0, 0.5, 0]],
    "magnitude_increase_same_sign": [[-1, 1, -np.inf], [-np.inf, 0, 0]],
}
# The first draws of seed 3 for "first/kernel": results of a seed
# must not change with a release.
PINNED = [
    [0.3525422772537633, 0.8403414205628686, 0.1964255779742583],
    [0.9891681310832163, 0.2665957408180428, 0.2674200412286678],
]


@pytest.fixture
def model():
    built = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(3, name="first"),
            keras.layers.Dense(3, name="second"),
        ]
    )
    built.get_layer("first").kernel.assign(KERNEL)
    return built


@pytest.fixture
def start(model):
    return {**weights.values(model), "first/kernel": np.float32(START)}


@pytest.mark.parametrize("name", BY_HAND)
def test_scores_by_hand(model, start, name):
    scores = criteria.CRITERIA[name](model, start)["first/kernel"]
    np.testing.assert_array_equal(scores, np.float32(BY_HAND[name]))


@pytest.mark.parametrize("name", criteria.CRITERIA)
def test_the_family_shares_one_signature(name):
    parameters = inspect.signature(criteria.CRITERIA[name]).parameters
    assert list(parameters)[:3] == ["model", "start", "data"]


@pytest.mark.parametrize("name", criteria.CRITERIA)
def test_every_weight_has_scores_and_the_model_is_unchanged(model, start, name):
    before = weights.values(model)
    scores = criteria.CRITERIA[name](model, start, None)
    after = weights.values(model)
    assert {n: s.shape for n, s in scores.items()} == {
        n: w.shape for n, w in before.items()
    }
    for each in before:
        np.testing.assert_array_equal(before[each], after[each])


@pytest.mark.parametrize(
    "name",
    [
        "large_init",
        "magnitude_increase",
        "movement",
        "magnitude_same_sign",
        "magnitude_increase_same_sign",
    ],
)
def test_criteria_that_compare_ask_for_the_start(model, name):
    with pytest.raises(ValueError, match=r"rewind point.*start="):
        criteria.CRITERIA[name](model, None)


@pytest.mark.parametrize("name", ["magnitude", "random"])
def test_criteria_that_do_not_compare_need_no_start(model, name):
    assert "first/kernel" in criteria.CRITERIA[name](model)


def test_a_flipped_sign_goes_before_a_weight_that_shrank(model, start):
    mask = find_mask(
        model,
        {"first/*": 3 / 6},
        start=start,
        criterion="magnitude_increase_same_sign",
    )
    # Scores -1 1 -inf / -inf 0 0: both flips go, then the one that shrank.
    assert mask["first/kernel"].tolist() == [
        [False, True, False],
        [False, True, True],
    ]


def test_start_may_hold_every_variable_of_the_model():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(3, name="first"),
            keras.layers.BatchNormalization(name="norm"),
        ]
    )
    start = {n: v.numpy() for n, v in weights.by_name(model).items()}
    assert find_mask(model, 0.5, start=start, criterion="movement").kept == 3


def test_start_without_a_pruned_weight_is_refused(model, start):
    del start["first/kernel"]
    with pytest.raises(ValueError, match="no scores for 'first/kernel'"):
        find_mask(model, 0.5, start=start, criterion="movement")


@pytest.mark.parametrize("shape", [(3,), (1, 3), (3, 2), (1, 2, 3)])
@pytest.mark.parametrize("name", ["large_init", "movement"])
def test_start_of_another_shape_is_refused(model, start, name, shape):
    start["first/kernel"] = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match="first/kernel"):
        find_mask(model, 0.5, start=start, criterion=name)


def test_random_depends_on_seed_and_name_only(model):
    zero, again = criteria.random(model), criteria.random(model, seed=0)
    one = criteria.random(model, seed=1)
    model.get_layer("first").kernel.assign(np.zeros((2, 3)))
    moved = criteria.random(model, seed=0)
    for name in ("first/kernel", "second/kernel"):
        np.testing.assert_array_equal(zero[name], again[name])
        np.testing.assert_array_equal(zero[name], moved[name])
        assert (zero[name] != one[name]).all()
    first = set(zero["first/kernel"].ravel())
    assert not first & set(zero["second/kernel"].ravel())
    alone = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(3, name="first")]
    )
    np.testing.assert_array_equal(
        criteria.random(alone)["first/kernel"], zero["first/kernel"]
    )


def test_random_is_the_same_in_every_version(model):
    assert criteria.random(model, seed=3)["first/kernel"].tolist() == PINNED


def test_random_is_uniform():
    model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(100)])
    scores = criteria.random(model, seed=5)["dense/kernel"].ravel()
    assert scores.min() >= 0 and scores.max() < 1
    tenths = np.bincount((scores * 10).astype(int), minlength=10)
    # 1,000 expected in each; 6 standard deviations are 180.
    assert tenths.min() > 820 and tenths.max() < 1180


def test_get_resolves_names_and_callables():
    def mine(model, start, data):
        return {}

    assert criteria.get(mine) is mine
    for name in criteria.CRITERIA:
        assert callable(criteria.get(name))


def test_get_gives_the_seed_to_a_criterion_that_takes_one():
    def seeded(model, start, data, seed):
        return seed

    def keyword(model, start, data, *, seed=3):
        return seed

    class Seeded:
        def __call__(self, model, start, data, seed):
            return seed

    for criterion in (seeded, keyword, Seeded()):
        assert criteria.get(criterion, seed=7)(None, None, None) == 7


@pytest.mark.parametrize("wrong", ["magnitud", "", "Magnitude", None, 3])
def test_unknown_names_list_the_choices(wrong):
    with pytest.raises(ValueError) as raised:
        criteria.get(wrong)
    text = str(raised.value)
    assert text.startswith(f"Unknown criterion {wrong!r}. Expected one of '")
    assert all(repr(name) in text for name in criteria.CRITERIA)
    assert text.endswith("a function (model, start, data) -> {name: scores}.")


def scored(array, model, names=("first/kernel",)):
    def criterion(model, start, data):
        return {"first/kernel": array}

    return criteria.scores_of(criterion, model, None, None, names)


@pytest.mark.parametrize(
    "array",
    [
        np.float32([[1, 2, 3], [4, 5, 6]]),
        np.float16([[1, 2, 3], [4, 5, 6]]),
        np.int64([[1, 2, 3], [4, 5, 6]]),
        [[1, 2, 3], [4, 5, 6]],
        tf.constant([[1, 2, 3], [4, 5, 6]], tf.bfloat16),
        tf.constant([[1, 2, 3], [4, 5, 6]], tf.float64),
    ],
)
def test_scores_may_be_anything_numpy_understands(model, array):
    scores = scored(array, model)["first/kernel"]
    assert isinstance(scores, np.ndarray)
    assert scores.dtype.itemsize >= 4
    assert scores.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("shape", [(3, 2), (6,), (2, 3, 1), (1, 3), ()])
def test_scores_of_another_shape_are_refused(model, shape):
    told = rf"'first/kernel' scores of shape {re.escape(str(shape))}; .*\(2, 3"
    with pytest.raises(ValueError, match=told):
        scored(np.zeros(shape), model)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_scores_are_refused(model, dtype):
    array = np.zeros((2, 3), dtype)
    array[1, 2] = np.nan
    with pytest.raises(ValueError, match="'first/kernel' hold NaN"):
        scored(array, model)


def test_infinite_scores_are_allowed(model):
    array = np.array([[np.inf, -np.inf, 0], [0, 0, 0]])
    assert scored(array, model)["first/kernel"].tolist() == array.tolist()


def test_nan_weights_are_refused(model):
    model.get_layer("second").kernel.assign(np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match="'second/kernel' hold NaN.*finite"):
        find_mask(model, 0.5)


def test_missing_scores_are_refused(model):
    with pytest.raises(ValueError, match="no scores for 'second/kernel'.*firs"):
        scored(np.zeros((2, 3)), model, ["first/kernel", "second/kernel"])
    with pytest.raises(ValueError, match="it gave them for nothing"):
        criteria.scores_of(
            lambda *unused: {}, model, None, None, ["first/kernel"]
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_weights_of_other_precision_are_scored(dtype):
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(3, dtype=dtype)]
    )
    model.layers[0].kernel.assign(KERNEL)
    mask = find_mask(model, 0.5)
    assert mask["dense/kernel"].tolist() == [
        [False, True, True],
        [True, False, False],
    ]
