"""What a level of a lottery needs to hear from Keras's `fit`."""

import keras
import numpy as np

from keras_lottery.errors import RunError


class Steps(keras.callbacks.Callback):
    """Counts steps over epochs, and calls back at some of them.

    Args:
        feed: A feed of `training/feeds.py`.
        epochs: The `Epochs` of a level.
        first_step: Where the level starts; it may lie inside an epoch, whose
            remaining steps are then trained.
        at: Dict from step to function; called when so many steps are done.
    """

    def __init__(self, feed, epochs, first_step, at):
        super().__init__()
        self.step = first_step
        self._feed, self._epochs, self._at = feed, epochs, dict(at)
        self._first_epoch, self._done = epochs.place(first_step)
        self._before, self.cut = None, False

    def on_epoch_begin(self, epoch, logs=None):
        """Puts the data where the epoch starts."""
        inside = self._done if epoch == self._first_epoch else 0
        self._epoch_step = epoch * self._epochs.per_epoch + inside
        self._feed.start_epoch(self._epoch_step)
        self._before = None

    def on_train_batch_begin(self, batch, logs=None):
        """Notes the number of the first batch: not 0 where an epoch goes on."""
        if self._before is None:
            self._before = batch

    def on_train_batch_end(self, batch, logs=None):
        """Counts, and calls back."""
        done = batch + 1 - (self._before or 0)
        self.step = self._epoch_step + min(done, self._left())
        if self.step in self._at:
            self._at.pop(self.step)()

    def on_epoch_end(self, epoch, logs=None):
        """Lets the level go on after an epoch that was cut."""
        if self.cut:
            self.model.stop_training = self.cut = False

    def cut_after(self, batch):
        """Returns whether the level began inside this epoch and it is over."""
        left = self._left()
        return left < self._epochs.per_epoch and batch + 1 >= left

    def _left(self):
        done = self._epoch_step % self._epochs.per_epoch
        return self._epochs.per_epoch - done


class CutEpoch(keras.callbacks.Callback):
    """Ends the first epoch early where the level starts inside it.

    Comes last in the list: a stop that another callback asked for at the same
    batch is then seen, and left alone.
    """

    def __init__(self, steps):
        super().__init__()
        self._steps = steps

    def on_train_batch_end(self, batch, logs=None):
        """Asks Keras to leave the epoch; `Steps` lets it go on."""
        if self._steps.cut_after(batch) and not self.model.stop_training:
            self.model.stop_training = self._steps.cut = True


class Curve(keras.callbacks.Callback):
    """Collects the logs of every epoch with the step at its end.

    Args:
        steps: The `Steps` callback of the same level.
    """

    def __init__(self, steps):
        super().__init__()
        self._steps = steps
        self.rows = []

    def on_epoch_end(self, epoch, logs=None):
        """Adds a row."""
        numbers = {
            k: float(v) for k, v in (logs or {}).items() if np.ndim(v) == 0
        }
        self.rows.append({"step": self._steps.step, **numbers})


class Masks(keras.callbacks.Callback):
    """Collects the level and the sparsity at the end of every epoch."""

    def __init__(self):
        super().__init__()
        self.levels, self.sparsities = [], []

    def on_epoch_end(self, epoch, logs=None):
        """Adds both."""
        self.levels.append(self.model.level)
        self.sparsities.append(self.model.mask.sparsity)


class Settle(keras.callbacks.Callback):
    """Gives replicas the same statistics before they are measured or kept.

    Args:
        settle: Function () -> None.
    """

    def __init__(self, settle):
        super().__init__()
        self._settle = settle

    def on_test_begin(self, logs=None):
        """Settles before validation."""
        self._settle()

    def on_epoch_end(self, epoch, logs=None):
        """Settles before callbacks that may save the model."""
        self._settle()


class StopOnDivergence(keras.callbacks.Callback):
    """Stops the lottery where a loss is not finite: NaNs are never pruned.

    Args:
        steps: The `Steps` callback of the same level.
        where: What to call this training in the error: `"level 3"`.
    """

    def __init__(self, steps, where):
        super().__init__()
        self._steps, self._where = steps, where

    def on_train_batch_end(self, batch, logs=None):
        """Raises a RunError where the loss so far is NaN or infinite."""
        loss = (logs or {}).get("loss")
        if loss is not None and not np.isfinite(float(loss)):
            raise diverged(self._where, self._steps.step, f"loss is {loss}")


class BetweenSteps(keras.callbacks.Callback):
    """Calls functions before and after the steps of every call.

    Args:
        before: Function of the number of steps done before.
        after: Function of the number of steps done then.
        done: Number of steps done already.
    """

    def __init__(self, before, after, done=0):
        super().__init__()
        self._before, self._after = before, after
        self._epoch_step, self._seen, self._first = done, 0, None

    def on_epoch_begin(self, epoch, logs=None):
        """Counts the steps of the epochs before."""
        self._epoch_step += self._seen
        self._seen, self._first = 0, None

    def on_train_batch_begin(self, batch, logs=None):
        """Calls before the batches are trained."""
        if self._first is None:  # not 0 where an epoch goes on
            self._first = batch
        self._before(self._epoch_step + batch - self._first)

    def on_train_batch_end(self, batch, logs=None):
        """Calls after, and notes how many batches this epoch has had."""
        self._seen = batch + 1 - (self._first or 0)
        self._after(self._epoch_step + self._seen)


def diverged(where, step, what):
    """Returns the error for training that is no longer finite."""
    return RunError(
        f"Training diverged at {where}, step {step}: {what}. The levels before "
        "it are kept. Lower the learning rate or clip gradients (clipnorm=1.0)."
    )


def hears(callback, hook):
    """Returns whether a callback does anything in a hook, by its name."""
    base = getattr(keras.callbacks.Callback, hook)
    return hook in vars(callback) or getattr(type(callback), hook) is not base
