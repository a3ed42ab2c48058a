"""The effect itself, on real data. By hand: `make test-slow`."""

import os

import numpy as np
import pytest

from keras_lottery.runs import configuration
from keras_lottery.runs import directory
from keras_lottery.runs import experiment
from keras_lottery.runs import play

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        "TFDS_DATA_DIR" not in os.environ,
        reason="needs Fashion-MNIST prepared by tfds: set TFDS_DATA_DIR",
    ),
]


def test_a_ticket_beats_dense_and_its_reinitialization(tmp_path):
    config = configuration.load("fashion_lenet")
    config.prune.levels = 9
    config.replicates = 2
    config.controls.names = ("reinitialize",)
    run = directory.RunDirectory.of(config, tmp_path)
    run.create(config)
    rows = play.play(experiment.Experiment(config), run)

    def accuracy(arm, level):
        found = [
            row["test_accuracy"]
            for row in rows
            if (row["arm"], row["level"]) == (arm, level)
        ]
        assert len(found) == 2
        return np.mean(found)

    ticket = accuracy("ticket", 9)
    assert {row["kept"] for row in rows if row["level"] == 9} == {35982}
    assert ticket > accuracy("ticket", 0)
    assert ticket > accuracy("reinitialized_0", 9)
