"""The trainer: one compiled network, trained again and again."""

import dataclasses
import functools

import numpy as np

from keras_lottery import seeds
from keras_lottery.pruning import initializers
from keras_lottery.pruning import naming
from keras_lottery.tickets import proving
from keras_lottery.tickets import ticket as tickets
from keras_lottery.training import agreement
from keras_lottery.training import callbacks
from keras_lottery.training import checkpoint
from keras_lottery.training import compiling
from keras_lottery.training import early_stopping
from keras_lottery.training import enforce
from keras_lottery.training import loop
from keras_lottery.training import measure
from keras_lottery.training import state
from keras_lottery.training.array_feed import ArrayFeed


class Trainer:
    """Trains the network of an experiment, as the experiment says.

    The network is compiled once: levels, controls and replicates only restore
    values, so nothing is traced anew.

    Args:
        experiment: The `Experiment`.
        model: What its `build` returned.
        saver: The `Saver`.
        mode: How steps are compiled; None for what the experiment asks for.

    Attributes:
        rows: Of the last level trained: a dict per validation.
        point: `Snapshot` of the rewind step of this replicate.
        past_point: Whether this training has gone past its rewind step.
        where: What the next training is called in errors; to be set.
        mode: How steps are compiled, `"graph"` or `"xla"`.
    """

    def __init__(self, experiment, model, saver, mode=None):
        self.experiment, self.model = experiment, model
        self.saver, self._checkpoint = saver, None
        self.where, self.past_point = "this training", False
        data = experiment.data
        self._validate = measure.measure_on(model, data.validation)
        self._test = measure.measure_on(model, data.test)
        self._fresh = experiment.fresh
        self._reached = None
        self.mode = mode or self._wanted_mode()

    def begin(self, replicate, advance=lambda steps: None):
        """Gives the network the first weights of a replicate.

        Args:
            replicate: Int >= 0.
            advance: Called with a number of steps when they are trained.
        """
        self._advance = advance
        self.rows = []
        self._feed = self._read(replicate)
        first = initializers.draw(self.model, self._seed("init", replicate))
        dropout = _reseeded(self.model, self._seed("dropout", replicate))
        self._first = {**self._fresh.model, **first, **dropout}
        self.restart()
        self.point = state.snapshot(self.model, self.model.optimizer)

    def restart(self):
        """Puts the network and its optimizer back to step 0."""
        state.restore(self._fresh, self.model, self.model.optimizer)
        state.restore_model(self._first, self.model)

    def __call__(self, model, first_step, last_step):
        """Trains from one step to another; returns the metrics.

        The test set is read only where the validation loss is at a new
        minimum, and at the end.
        """
        if first_step == 0 or first_step != self._reached:
            self.rows = []
        self.past_point = first_step == self._reached != 0
        step = self._go_on(model, first_step, last_step)
        if step is not None:
            self._train(model, step, last_step)
        self._reached = last_step
        if last_step < self.experiment.steps:  # level 0, up to the rewind step
            self.point = state.snapshot(model, model.optimizer)
            return {}
        return early_stopping.summarize(self.rows)

    def _train(self, model, first_step, last_step):
        """Trains steps; those of a stretch that had begun go on with it."""
        scores = Scores(
            self.rows,
            self._validate,
            self._test,
            always=self.experiment.config.eval_test == "always",
        )
        steps = loop.of(model, self.mode)
        for first, last in self._stretches(first_step, last_step):
            self._begin_stretch(model, steps)
            logs = steps.run(
                self._feed, first, last, functools.partial(self._told, last)
            )
            agreement.settle_statistics(model)
            scores.add(last, logs)
            self._advance(last - first)
            if last < last_step:
                self.saver.offer(self, last, inside=False)
        model.optimizer.finalize_variable_values(model.trainable_variables)
        if last_step == self.experiment.steps:
            scores.test()

    def _go_on(self, model, first_step, last_step):
        """Returns the step to train from; None where all were trained before.

        Where the training was stopped, its last checkpoint is put back.
        """
        self._metrics = None
        found = self._checkpoint or self.saver.find(model)
        self._checkpoint = None
        if found is None:
            self.saver.begin(first_step)
            return first_step
        if last_step < self.experiment.steps and "point" in found.snapshots:
            # The call that comes next goes on from it.
            self._checkpoint = found
            state.restore(found.snapshots["point"], model, model.optimizer)
            self._advance(last_step - first_step)
            return None
        record = found.record
        self.mode = record["mode"]
        state.restore(found.snapshots["now"], model, model.optimizer)
        self.rows[:] = record["rows"]
        if record["inside"]:
            self._metrics = found.arrays
        self._advance(record["step"] - first_step)
        return record["step"]

    def _begin_stretch(self, model, steps):
        steps.prepare(self._feed)
        self.mode = steps.mode  # which XLA may have declined
        model.reset_metrics()
        if self._metrics is not None:
            checkpoint.restore_metrics(model, self._metrics)
        self._metrics = None

    def _read(self, replicate):
        experiment = self.experiment
        return ArrayFeed(
            experiment.data.train,
            experiment.config.train.batch_size,
            experiment.config.eval_every,
            shuffle=True,
            seed=self._seed("data order", replicate),
            augment=experiment.augment,
        )

    def _wanted_mode(self):
        """Returns the mode that the configuration asks for."""
        wanted = self.experiment.config.train.compile
        if wanted == "measure":
            return compiling.measured(self.model, self._read(0))
        if wanted == "auto":
            return compiling.mode(self.model, self.experiment.steps)
        return wanted

    def _stretches(self, first, last):
        """Yields (first, last) between validations."""
        every = self.experiment.config.eval_every
        while first < last:
            end = min((first // every + 1) * every, last)
            yield first, end
            first = end

    def _told(self, last, step, logs):
        """Looks at the loss so far, and saves a checkpoint where one is due.

        Raises:
            RunError: The loss is not finite.
        """
        if not np.isfinite(logs.get("loss", 0.0)):
            raise callbacks.diverged(
                self.where, step, f"loss is {logs['loss']}"
            )
        if step < last:
            self.saver.offer(self, step, inside=True)

    def train_control(self, control, first_step):
        """Returns an untrained ticket, trained from a step to the end."""
        model = self.model
        self.restart()
        if first_step:
            state.restore(self.point, model, model.optimizer)
        control.restore(model, "start")
        with enforce.masked(model, control.mask):
            metrics = self(model, first_step, self.experiment.steps)
            attachment = enforce.attachment(model)
            attachment.settle(model, model.optimizer)
            proving.training(
                self.where,
                self.experiment.steps,
                model,
                model.optimizer,
                control.mask,
                attachment.mask,
                metrics,
                begin=control.start_state,
            )
        end, end_state = tickets.ended(model, control.mask)
        return dataclasses.replace(
            control, end=end, end_state=end_state, metrics=metrics
        )

    def seeds(self, replicate):
        """Returns the seeds of a replicate, by what they decide."""
        roles = ("init", "data order", "dropout")
        return {
            f"{role.replace(' ', '_')}_seed": self._seed(role, replicate)
            for role in roles
        }

    def _seed(self, role, replicate):
        return seeds.stream(self.experiment.config.seed, role, replicate)


class Scores:
    """Collects a row at every validation.

    Args:
        rows: List to add to.
        validate: Function `() -> dict` of validation metrics.
        test: The same on test data.
        always: Whether to test at every validation, not only where the
            validation loss is lowest yet.
    """

    def __init__(self, rows, validate, test, *, always=False):
        self._rows, self._validate, self._test = rows, validate, test
        self._always = always

    def add(self, step, logs):
        """Validates; tests where that is due."""
        row = {"step": step, **logs}
        row |= {f"val_{k}": v for k, v in self._validate().items()}
        lowest = early_stopping.at_minimum(self._rows)
        self._rows.append(row)
        new = lowest is None or row["val_loss"] < lowest["val_loss"]
        if new or self._always:
            self.test()

    def test(self):
        """Adds test metrics to the last row, unless they are there."""
        row = self._rows[-1]
        if "test_loss" not in row:
            row |= {f"test_{k}": v for k, v in self._test().items()}


def _reseeded(model, seed):
    """Returns new states of the model's seed generators: of dropout, say."""
    generators = [
        weight.name
        for weight in naming.walk(model)
        if weight.variable.name == "seed_generator_state"
    ]
    return {
        name: [(seed + index) % 2**31, 0]
        for index, name in enumerate(generators)
    }
