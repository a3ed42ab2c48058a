"""Schedules: totals per level, tfmot's protocol, and tfmot itself."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_lottery import tfmot_bridge
from keras_lottery.pruning import schedules
from keras_lottery.pruning.schedules import IterativePruning
from keras_lottery.pruning.schedules import LevelSchedule
from keras_lottery.pruning.schedules import ListedSparsities
from keras_lottery.pruning.schedules import OneShot
from keras_lottery.tfmot_bridge import ConstantSparsity
from keras_lottery.tfmot_bridge import PolynomialDecay

OURS = [
    IterativePruning(0.2, 3),
    IterativePruning(rate=0.1, levels=20, steps_per_level=7),
    OneShot(0.9),
    OneShot(0.0, steps_per_level=5),
    ListedSparsities([0.5, 0.75, 0.9]),
    ListedSparsities((0.0, 0.5), steps_per_level=2),
]
TFMOT = [
    ConstantSparsity(0.5, begin_step=2, frequency=3),
    ConstantSparsity(0.8, begin_step=0, end_step=9, frequency=4),
    ConstantSparsity(0.3, begin_step=1, frequency=1),
    PolynomialDecay(0.1, 0.8, begin_step=3, end_step=12, frequency=2),
    PolynomialDecay(0.0, 0.9, begin_step=0, end_step=10, power=1, frequency=1),
]


def type_name(schedule):
    return type(schedule).__name__


@pytest.mark.parametrize("schedule", OURS, ids=type_name)
def test_ours_are_schedules_of_tfmot(schedule):
    import tensorflow_model_optimization as tfmot

    assert isinstance(schedule, tfmot.sparsity.keras.PruningSchedule)
    assert isinstance(schedule, LevelSchedule)


def test_iterative_pruning_removes_a_fraction_of_what_is_left():
    schedule = IterativePruning(rate=0.25, levels=3)
    assert schedule.levels == 3
    assert [schedule.sparsity(level) for level in range(4)] == [
        0.0,
        0.25,
        0.4375,
        0.578125,
    ]


def test_a_last_level_that_would_remove_everything_is_refused():
    # 1 - 0.01**9 is 1.0 in float64: find_mask refuses it, after training.
    with pytest.raises(ValueError, match="levels"):
        IterativePruning(rate=0.99, levels=9)


def test_one_shot_prunes_once():
    assert OneShot(0.9).levels == 1
    assert [OneShot(0.9).sparsity(level) for level in (0, 1)] == [0.0, 0.9]


def test_listed_sparsities_are_totals():
    schedule = ListedSparsities(np.array([0.5, 0.75, 0.9]))
    assert schedule.levels == 3
    assert [schedule.sparsity(level) for level in range(4)] == [
        0.0,
        0.5,
        0.75,
        0.9,
    ]


@pytest.mark.parametrize(
    ("schedule", "sparsities"),
    [
        (IterativePruning(0.5, 3, steps_per_level=4), [0, 0.5, 0.75, 0.875]),
        (OneShot(0.25, steps_per_level=5), [0, 0.25]),
        (ListedSparsities([0.5, 0.75], steps_per_level=1), [0, 0.5, 0.75]),
    ],
)
def test_they_fire_when_a_level_ends_and_at_no_other_step(schedule, sparsities):
    steps, levels = schedule.steps_per_level, len(sparsities) - 1
    for step in range(steps * (levels + 2)):
        fires, sparsity = schedule(tf.constant(step))
        expected = step in [steps * level for level in range(1, levels + 1)]
        assert bool(fires) == expected
        assert float(sparsity) == sparsities[min(step // steps, levels)]


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_a_schedule_can_be_called_in_a_graph(dtype):
    schedule = OneShot(0.25, steps_per_level=3)
    traced = tf.function(schedule)
    assert [bool(traced(tf.constant(s, dtype))[0]) for s in range(5)] == [
        False,
        False,
        False,
        True,
        False,
    ]
    assert traced(tf.constant(3, dtype))[1].dtype == tf.float32
    assert bool(schedule(3)[0])


@pytest.mark.parametrize(
    "schedule", [IterativePruning(), OneShot(0.5), ListedSparsities([0.5])]
)
def test_an_unfilled_schedule_says_so(schedule):
    name = type(schedule).__name__
    with pytest.raises(
        ValueError, match=rf"^{name} counts in levels.*steps_per_level=1000"
    ):
        schedule(3)
    with pytest.raises(ValueError, match="steps_per_level"):
        schedules.firings(schedule, 3)
    # `tf.map_fn` would leave one, and break every later MirroredStrategy.
    assert tf.compat.v1.get_variable_scope().caching_device is None


@pytest.mark.parametrize(
    "schedule", [IterativePruning(), OneShot(0.5), ListedSparsities([0.5])]
)
def test_with_steps_per_level_returns_a_filled_copy(schedule):
    filled = schedule.with_steps_per_level(6)
    assert schedule.steps_per_level is None
    assert filled.steps_per_level == 6
    assert type(filled) is type(schedule)
    assert filled.levels == schedule.levels
    assert bool(filled(6)[0])
    assert filled.with_steps_per_level(6).get_config() == filled.get_config()
    with pytest.raises(
        ValueError, match="says steps_per_level=6, but a level trains for 7"
    ):
        filled.with_steps_per_level(7)


@pytest.mark.parametrize("schedule", [*OURS, *TFMOT], ids=type_name)
def test_config_round_trip_through_json(schedule):
    config = json.loads(json.dumps(schedules.serialize(schedule)))
    back = schedules.deserialize(config)
    assert type(back) is type(schedule)
    assert back.get_config() == schedule.get_config()
    if isinstance(schedule, LevelSchedule):
        assert back.steps_per_level == schedule.steps_per_level
        assert back.levels == schedule.levels
        for level in range(schedule.levels + 1):
            assert back.sparsity(level) == schedule.sparsity(level)


def test_a_dict_of_schedules_round_trips_in_order():
    grouped = {"output/*": OURS[0], "class_name": OURS[2], "*": OURS[4]}
    config = json.loads(json.dumps(schedules.serialize(grouped)))
    back = schedules.deserialize(config)
    assert list(back) == list(grouped)
    for pattern, schedule in grouped.items():
        assert back[pattern].get_config() == schedule.get_config()


def test_every_schedule_of_the_table_is_round_tripped_above():
    assert set(schedules.SCHEDULES) == {
        type(each).__name__ for each in [*OURS, *TFMOT]
    }


class Own(LevelSchedule):
    """A user's schedule with as little as is asked for."""

    levels = 2

    def __init__(self, top, steps_per_level=None):
        self.top = top
        self.steps_per_level = steps_per_level

    def sparsity(self, level):
        return self.top * level / 2

    def get_config(self):
        return self._configured(top=self.top)


def test_a_schedule_of_ones_own():
    schedule = Own(0.5, steps_per_level=2)
    assert schedules.firings(schedule, 9) == {2: 0.25, 4: 0.5}
    config = json.loads(json.dumps(schedule.get_config()))
    with pytest.raises(ValueError) as raised:
        schedules.deserialize(config)
    for told in ("Unknown schedule 'Own'", "OneShot", "custom_objects"):
        assert told in str(raised.value)
    back = schedules.deserialize(config, {"Own": Own})
    assert back.get_config() == config
    with keras.saving.custom_object_scope({"Own": Own}):
        assert schedules.deserialize(config).top == 0.5


@pytest.mark.parametrize("rate", [0, 0.0, 1, -0.2, 20, "0.2", None, True])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match=r"`rate` (is .* got|must be above 0)"):
        IterativePruning(rate=rate)


@pytest.mark.parametrize("value", [1, 1.0, -0.1, float("nan"), "a", None, True])
def test_a_sparsity_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=r"`sparsity` .*\[0, 1\); got "):
        OneShot(value)
    with pytest.raises(ValueError, match=r"`sparsities` .*\[0, 1\); got "):
        ListedSparsities([value])


@pytest.mark.parametrize("levels", [0, -1, 2.0, "3", None, True])
def test_levels_are_a_positive_int(levels):
    with pytest.raises(ValueError, match=rf"`levels` must be.*{levels}"):
        IterativePruning(levels=levels)


@pytest.mark.parametrize("steps", [0, -1, 2.0, "3", True])
def test_steps_per_level_is_a_positive_int(steps):
    for build in (
        lambda: IterativePruning(steps_per_level=steps),
        lambda: OneShot(0.5, steps_per_level=steps),
        lambda: ListedSparsities([0.5], steps_per_level=steps),
    ):
        with pytest.raises(ValueError, match="`steps_per_level` must be"):
            build()


@pytest.mark.parametrize("listed", [[], (), 0.5, "0.5"])
def test_listed_sparsities_are_a_list(listed):
    with pytest.raises(ValueError, match="must be a list of one or more"):
        ListedSparsities(listed)


@pytest.mark.parametrize("listed", [[0.5, 0.5], [0.9, 0.5], [0.1, 0.3, 0.2]])
def test_listed_sparsities_increase(listed):
    with pytest.raises(ValueError, match="must increase"):
        ListedSparsities(listed)


@pytest.mark.parametrize("schedule", TFMOT, ids=type_name)
@pytest.mark.parametrize("steps", [1, 15])
def test_firings_agree_with_calling_step_by_step(schedule, steps):
    expected = {}
    for step in range(1, steps + 1):
        fires, sparsity = schedule(tf.constant(step, tf.int64))
        if bool(fires):
            expected[step] = np.float32(sparsity)
    found = schedules.firings(schedule, steps)
    assert list(found) == list(expected)
    for step, sparsity in found.items():
        # Graph and eager float32 arithmetic differ in the last bit.
        assert abs(sparsity - expected[step]) <= 2**-23
        if isinstance(schedule, ConstantSparsity):
            assert np.float32(sparsity) == expected[step]


def test_firings_by_hand():
    assert schedules.firings(TFMOT[0], 9) == {2: 0.5, 5: 0.5, 8: 0.5}
    assert schedules.firings(TFMOT[1], 20) == {4: 0.8, 8: 0.8}
    linear = PolynomialDecay(0.0, 0.5, 0, 4, power=1, frequency=1)
    assert schedules.firings(linear, 5) == {
        1: 0.125,
        2: 0.25,
        3: 0.375,
        4: 0.5,
    }
    assert schedules.firings(OneShot(0.9, steps_per_level=3), 9) == {3: 0.9}
    late = ConstantSparsity(0.5, begin_step=100)
    assert schedules.firings(late, 50) == {}


def test_firings_of_a_schedule_that_returns_plain_numbers():
    class Always(tfmot_bridge.PruningSchedule):
        def __call__(self, step):
            return True, 0.3

        def get_config(self):
            return {"class_name": "Always", "config": {}}

    assert schedules.firings(Always(), 2) == {1: 0.3, 2: 0.3}


def masks_after_each_step(schedule, steps):
    """Trains tfmot's own wrapper; returns its mask before each step's end."""
    sparsity = tfmot_bridge.tfmot.sparsity.keras
    model = sparsity.prune_low_magnitude(
        tf_keras.Sequential([tf_keras.layers.Dense(10, input_shape=(8,))]),
        pruning_schedule=schedule,
    )
    model.compile("sgd", "mse")
    seen = []

    class Look(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            layer = self.model.layers[0]
            mask = next(w for w in layer.weights if "mask" in w.name)
            seen.append(mask.numpy().astype(bool))

    rng = np.random.default_rng(0)
    model.fit(
        rng.normal(size=(steps * 4, 8)),
        rng.normal(size=(steps * 4, 10)),
        batch_size=4,
        verbose=0,
        callbacks=[sparsity.UpdatePruningStep(), Look()],
    )
    kernel = next(w for w in model.layers[0].weights if "kernel" in w.name)
    return seen, kernel.numpy()


@pytest.mark.parametrize(
    ("schedule", "counts"),
    [
        # tfmot adds one to its step before it prunes: steps count from 1.
        (IterativePruning(0.5, 2, steps_per_level=2), [80, 40, 40, 20, 20, 20]),
        (OneShot(0.9, steps_per_level=3), [80, 80, 8, 8, 8]),
    ],
)
def test_our_schedules_drive_tfmot(schedule, counts):
    masks, kernel = masks_after_each_step(schedule, len(counts))
    assert [int(mask.sum()) for mask in masks] == counts
    for before, after in zip(masks, masks[1:], strict=False):
        assert not (after & ~before).any()
    assert not kernel[~masks[-1]].any()
    fired = schedules.firings(schedule, len(counts))
    changes = [
        step
        for step in range(1, len(counts) + 1)
        if counts[step - 1] != [80, *counts][step - 1]
    ]
    assert list(fired) == changes


PROBE = """
import os
import keras_lottery.tfmot_bridge
import keras
import tensorflow as tf
from keras_lottery.pruning import find
print(os.environ.get("TF_USE_LEGACY_KERAS"), tf.keras.Model is keras.Model)
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("set_before", "printed"), [(None, "None True"), ("1", "1 False")]
)
def test_importing_tfmot_leaves_the_users_keras_alone(set_before, printed):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    if set_before is not None:
        environment["TF_USE_LEGACY_KERAS"] = set_before
    root = pathlib.Path(__file__).parents[2]
    environment["PYTHONPATH"] = str(root)
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == printed


class TestSchedulesOfStrangers:
    """A config names a schedule; nothing else is built from it."""

    @pytest.mark.parametrize(
        "config",
        [
            None, 3, "OneShot", [], {"class_name": "OneShot", "config": None},
            {"class_name": ["OneShot"], "config": {}},
            {"class_name": "Dense", "config": {"units": 3}},
            {"class_name": "os.system", "config": {}},
            {"class_name": "keras_lottery>PrunedModel", "config": {}},
            {"class_name": "OneShot", "config": {"nothing": 1}},
            {"class_name": "OneShot", "config": [0.5]},
            {"*": {"*": {"class_name": "OneShot", "config": {}}}}, {"*": 3},
        ],
    )  # fmt: skip
    def test_refused(self, config):
        """With a ValueError."""
        with pytest.raises(ValueError):
            schedules.deserialize(config)

    def test_deep_nesting_is_no_recursion(self):
        """Patterns are one level deep."""
        config = {"class_name": "OneShot", "config": {"sparsity": 0.5}}
        assert schedules.deserialize({"*": config})["*"].levels == 1
        for _ in range(5000):
            config = {"*": config}
        with pytest.raises(ValueError, match="A schedule is written as"):
            schedules.deserialize(config)
