"""Callbacks of a training that is saved on the way."""

import copy

import keras


class Watch:
    """The callbacks of one training that note how it goes."""

    def __init__(self, steps, curve, masks, history):
        self.steps = steps
        self._curve, self._masks, self._history = curve, masks, history

    def noted(self):
        """Returns what they have noted."""
        return {
            "curve": self._curve.rows,
            "levels": self._masks.levels,
            "sparsities": self._masks.sparsities,
            "epochs": self._history.epoch,
            "history": self._history.history,
        }

    def put_back(self, record):
        """Gives them what they had noted."""
        # In copies: what is put back twice must not grow.
        record = copy.deepcopy({name: record[name] for name in self.noted()})
        self._curve.rows[:] = record["curve"]
        self._masks.levels[:] = record["levels"]
        self._masks.sparsities[:] = record["sparsities"]
        self._history.epoch = record["epochs"]
        self._history.history = record["history"]


class OnTheWay(keras.callbacks.Callback):
    """Tells a `Saver`; comes last, when all other callbacks are done."""

    def __init__(self, saver):
        super().__init__()
        self._saver = saver

    def on_train_begin(self, logs=None):
        """Tells that a training begins."""
        self._saver.begun()

    def on_epoch_begin(self, epoch, logs=None):
        """Tells that an epoch begins, or goes on."""
        self._saver.begun_epoch()

    def on_train_batch_end(self, batch, logs=None):
        """Tells that a call is done."""
        self._saver.called()

    def on_epoch_end(self, epoch, logs=None):
        """Tells that an epoch is done."""
        self._saver.ended_epoch(epoch)
