"""Plays an experiment: replicates, and in each the ticket and its controls."""

import dataclasses

import keras
import tensorflow as tf

from keras_lottery import seeds
from keras_lottery.data import image_sets
from keras_lottery.models.lenet import lenet
from keras_lottery.pruning import initializers
from keras_lottery.tickets import controls
from keras_lottery.tickets import search
from keras_lottery.tickets import ticket as tickets
from keras_lottery.training import callbacks as hooks
from keras_lottery.training import early_stopping
from keras_lottery.training import enforce
from keras_lottery.training import feeds
from keras_lottery.training import state


def play(experiment, directory, tell=lambda done, total, text: None):
    """Trains what is not there yet, and returns a row per level.

    Args:
        experiment: The `Experiment`.
        directory: Its `RunDirectory`, created.
        tell: Called with (trainings done, in all, what is trained next).

    Returns:
        List of dicts: replicate, arm, level, counts and metrics.
    """
    table = Table(experiment, directory, tell)
    data = image_sets.load(experiment.data)
    model = _build(experiment, data)
    test = accuracy_on(model, *data.test)
    fresh = state.snapshot(model, model.optimizer)
    for replicate in range(experiment.replicates):
        trainer = Trainer(experiment, data, model, test, fresh, replicate)
        found = list(_ticket_arm(trainer, table, replicate))
        for control in experiment.controls:
            _control_arm(control, found, trainer, table, replicate)
    directory.save_levels(table.rows)
    return table.rows


class Table:
    """Collects the rows of a run, and says how far it is."""

    def __init__(self, experiment, directory, tell):
        self.directory, self.rows = directory, []
        self._tell, self._done = tell, 0
        arms = len(experiment.controls)
        per_replicate = 1 + experiment.levels * (1 + arms)
        self._total = experiment.replicates * per_replicate

    def announce(self, replicate, arm, level):
        """Says what is trained next."""
        text = f"replicate {replicate}, {arm}, level {level}"
        self._tell(self._done, self._total, text)

    def add(self, ticket, replicate, arm):
        """Adds the row of a ticket."""
        self._done += 1
        self.rows.append(
            {
                "replicate": replicate,
                "arm": arm,
                "level": ticket.level,
                "density": ticket.density,
                "kept": ticket.mask.kept,
                "size": ticket.mask.size,
                **dict(sorted(ticket.metrics.items())),
            }
        )
        self._tell(self._done, self._total, "")


class Trainer:
    """Trains the same network again and again, as the experiment says.

    The network is compiled once: levels, controls and replicates only restore
    values, so nothing is traced anew.
    """

    def __init__(self, experiment, data, model, test, fresh, replicate):
        self.experiment, self.data, self.model = experiment, data, model
        self.rows, self._test = [], test
        order = seeds.stream(experiment.seed, "data order", replicate)
        self._feed = feeds.ArrayFeed(
            data.train,
            experiment.batch_size,
            experiment.eval_every,
            shuffle=True,
            seed=order,
        )
        self._validation = feeds.quick_to_start(
            tf.data.Dataset.from_tensors(data.validation)
        )
        self._fresh = fresh

    def initialize(self, seed):
        """Gives the network new weights and a fresh optimizer."""
        state.restore(self._fresh, self.model, self.model.optimizer)
        state.restore_model(initializers.draw(self.model, seed), self.model)

    def __call__(self, model, first_step, last_step):
        """Trains from one step to another; returns the metrics.

        The test set is read only where the validation loss is at a new
        minimum, and at the end.
        """
        every = self.experiment.eval_every
        epochs = feeds.Epochs(every, last_step // every)
        steps = hooks.Steps(self._feed, epochs, first_step, {})
        tests = TestAtMinimum(self._test)
        curve = hooks.Curve(steps)
        model.fit(
            **self._feed.arguments(first_step),
            epochs=epochs.count,
            initial_epoch=epochs.place(first_step)[0],
            validation_data=self._validation,
            callbacks=[
                steps,
                hooks.StopOnDivergence(steps, "this training"),
                tests,
                curve,
            ],
            verbose=0,
        )
        self.rows = curve.rows
        metrics = early_stopping.summarize(curve.rows)
        metrics["test_accuracy"] = tests.at_minimum
        metrics["last_test_accuracy"] = self._test()
        return metrics

    def train_control(self, control):
        """Returns an untrained ticket as trained like the others."""
        model = self.model
        state.restore(self._fresh, model, model.optimizer)
        control.restore(model, "start")
        with enforce.masked(model, control.mask):
            metrics = self(model, 0, self.experiment.steps)
        end, end_state = tickets.ended(model, control.mask)
        return dataclasses.replace(
            control, end=end, end_state=end_state, metrics=metrics
        )


class TestAtMinimum(keras.callbacks.Callback):
    """Measures the test accuracy wherever the validation loss is lowest yet."""

    def __init__(self, measure):
        super().__init__()
        self.at_minimum, self._lowest = None, float("inf")
        self._measure = measure

    def on_epoch_end(self, epoch, logs=None):
        """Measures at a new minimum."""
        if logs["val_loss"] < self._lowest:
            self._lowest = logs["val_loss"]
            self.at_minimum = self._measure()


def accuracy_on(model, images, labels):
    """Returns a function that measures the accuracy of `model` as it is."""
    images, labels = tf.constant(images), tf.constant(labels)

    @tf.function
    def accuracy():
        predicted = tf.argmax(model(images, training=False), axis=-1)
        return tf.reduce_mean(tf.cast(predicted == labels, tf.float64))

    return lambda: float(accuracy().numpy())


def _build(experiment, data):
    keras.utils.set_random_seed(seeds.stream(experiment.seed, "init"))
    model = lenet(data.train[0].shape[1:], experiment.hidden)
    model.compile(
        keras.optimizers.Adam(experiment.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=experiment.eval_every,
    )
    return model


def _ticket_arm(trainer, table, replicate):
    """Yields the tickets of all levels, from disk as far as they are there."""
    experiment, directory = trainer.experiment, table.directory
    last = None
    for level in range(experiment.levels + 1):
        table.announce(replicate, "ticket", level)
        found = directory.ticket(replicate, "ticket", level)
        if found is None:
            break
        last = found
        table.add(found, replicate, "ticket")
        yield found
    else:
        return
    trainer.initialize(seeds.stream(experiment.seed, "init", replicate))
    for found in search.find_tickets(
        trainer.model,
        trainer,
        experiment.schedule,
        steps=experiment.steps,
        allocation="layerwise",
        seed=experiment.seed,
        after=last,
    ):
        directory.save(found, trainer.rows, replicate, "ticket")
        table.add(found, replicate, "ticket")
        table.announce(replicate, "ticket", found.level + 1)
        yield found


def _control_arm(control, found, trainer, table, replicate):
    arm = f"{controls.ARMS[control]}_0"
    for ticket in found[1:]:
        table.announce(replicate, arm, ticket.level)
        done = table.directory.ticket(replicate, arm, ticket.level)
        if done is None:
            seed = seeds.stream(trainer.experiment.seed, "controls", replicate)
            make = controls.get(control)
            done = trainer.train_control(make(ticket, trainer.model, seed))
            table.directory.save(done, trainer.rows, replicate, arm)
        table.add(done, replicate, arm)
