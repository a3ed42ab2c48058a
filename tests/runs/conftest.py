"""Tiny runs, shared: one compiled network serves all that train alike."""

import json
import os
import pathlib

import pytest

from keras_lottery.runs import configuration
from keras_lottery.runs import directory
from keras_lottery.runs import experiment
from keras_lottery.runs import identity
from keras_lottery.runs import play
from keras_lottery.training import enforce
from keras_lottery.training import state


class Stopped(BaseException):
    """Like a KeyboardInterrupt: no `except Exception` sees it."""


class Lab:
    """Plays experiments as new processes would, without tracing anew."""

    def __init__(self):
        self._networks = {}

    def config(self, changes=None):
        """Returns a tiny configuration; `changes` by dotted path."""
        config = configuration.load("digits:smoke")
        config.model.arguments.hidden = (8,)
        config.data.rows = 90  # 4 whole batches and a smaller one
        config.train.steps = 8
        config.train.learning_rate = 0.1  # not always downhill
        config.eval_every = 2
        for path, value in (changes or {}).items():
            config.update_from_flattened_dict({path: value})
        return config

    def experiment(self, config):
        """Returns an experiment whose network is as it was when built."""
        chosen = experiment.Experiment(config)
        if config.distribute.strategy != "none":
            return chosen  # its network belongs to its strategy
        inside = identity.inside(config)
        about = ("model", "train", "data", "eval_every", "seed")
        key = json.dumps(
            {k: v for k, v in inside.items() if k.startswith(about)}
        )
        if key not in self._networks:
            fresh = state.snapshot(chosen.model, chosen.model.optimizer)
            self._networks[key] = chosen.data, chosen.model, fresh
        chosen.data, chosen.model, fresh = self._networks[key]
        if enforce.is_attached(chosen.model):  # a test before this one failed
            enforce.detach(chosen.model)
        state.restore(fresh, chosen.model, chosen.model.optimizer)
        return chosen

    def play(self, config, workdir, listener=None, **keep):
        """Returns (`RunDirectory`, rows) after playing."""
        run = directory.RunDirectory.of(config, workdir)
        run.create(config)
        return run, play.play(self.experiment(config), run, listener, **keep)

    def play_until(self, position, config, workdir):
        """Plays, stopped in the midst of the training at a position."""
        try:
            self.play(config, workdir, self.stop_at(position))
        except Stopped:
            return True
        return False

    def stop_at(self, position):
        """Returns the listener of `play_until`."""
        return StopAt(position)


class StopAt(play.Silence):
    """Stops a run after the first validation of the training at a position."""

    def __init__(self, position):
        self._left = position + 1

    def begin(self, replicate, arm, level, density):
        """Counts the trainings."""
        self._left -= 1

    def advance(self, steps):
        """Stops in the one that was asked for."""
        if self._left == 0:
            raise Stopped("stopped")


@pytest.fixture(scope="session")
def lab():
    """Returns what plays tiny runs."""
    return Lab()


@pytest.fixture(scope="session")
def whole(lab, tmp_path_factory):
    """Returns (run, rows) of the tiny run, with every kind of arm."""
    return lab.play(lab.config(), tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="session")
def contents():
    """Returns a function: the bytes of a run's files, except its times."""

    def read(path):
        root = pathlib.Path(path)
        found = {
            str(each.relative_to(root)): each.read_bytes()
            for each in root.rglob("*")
            if each.is_file()
        }
        return {
            name: content
            for name, content in found.items()
            if os.path.basename(name)
            not in ("times.csv", "time.json", "tables.json", ".lock")
        }

    return read
