"""A whole lottery with a run directory, as `keras-lottery run` plays it.

It also tests on 1,000 rows at every new minimum, and writes tickets and tables.
"""

import tempfile

import turns
import whole_lottery_task as tasks

from keras_lottery.runs import configuration
from keras_lottery.runs import play as runs
from keras_lottery.runs.directory import RunDirectory
from keras_lottery.runs.experiment import Experiment


def configured(task):
    """Returns the task as a configuration."""
    config = configuration.load("digits")
    config.data.name = "whole_lottery_task:load"
    config.data.arguments = {"folder": task.data}
    config.train.steps, config.eval_every = task.steps, task.every
    config.train.batch_size = tasks.BATCH
    config.train.learning_rate = tasks.RATE
    config.prune.rate = tasks.REMOVED
    config.prune.rates = (("output/*", tasks.REMOVED_FROM_OUTPUT),)
    config.prune.levels = task.levels - 1
    config.replicates, config.controls.names = 1, ()
    return config


def play(task):
    turns.limit_threads(task.threads)
    config = configured(task)
    with tempfile.TemporaryDirectory() as workdir:
        directory = RunDirectory.of(config, workdir)
        directory.create(config)
        rows = runs.play(Experiment(config), directory)
    last = max(rows, key=lambda row: row["level"])
    return {"kept": last["kept"], "accuracy": last["last_val_accuracy"]}


if __name__ == "__main__":
    tasks.answer(play)
