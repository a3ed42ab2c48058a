"""What `fit` of a legacy model plays with: its side of `tickets/fitting.py`."""

from keras_lottery import tfmot_bridge
from keras_lottery.pruning import find
from keras_lottery.pruning import weights
from keras_lottery.tickets import fitting
from keras_lottery.tickets import legacy_masks
from keras_lottery.tickets import lottery
from keras_lottery.tickets.legacy_callbacks import Relay
from keras_lottery.tickets.legacy_optimizer import OptimizerView
from keras_lottery.training import replicas

tf_keras = tfmot_bridge.legacy_keras()


class Player:
    """A wrapped legacy model, as `fitting` needs a `PrunedModel` to be."""

    def __init__(self, model, mirror, chosen, refused):
        self.model, self.inner, self.settings = model, mirror, chosen
        self.refused = refused
        self.attachment = legacy_masks.TfmotMasks(
            model, mirror, chosen.governed_names
        )
        self.played = fitting.Played()
        self.level = 0
        self._view = None

    @property
    def mask(self):
        """The `Mask` that holds now."""
        return self.attachment.mask

    @property
    def distribute_strategy(self):
        """The strategy that the model was built under."""
        return self.model.distribute_strategy

    @property
    def optimizer(self):
        """The view of the optimizer that the model is compiled with."""
        if self._view is None or self._view.legacy is not self.model.optimizer:
            trained = self.model.trainable_variables
            with replicas.in_scope(self.model):  # its slots are made here
                self._view = OptimizerView(self.model.optimizer, trained)
        return self._view

    @property
    def stop_training(self):
        """Whether a callback has ended the training."""
        return self.model.stop_training

    def hold_optimizer(self):
        """Builds the optimizer; tfmot lets it see unmasked gradients."""
        return self.optimizer

    @property
    def steps_per_execution(self):
        """Steps between two calls of the callbacks."""
        found = self.model._steps_per_execution  # a variable, once compiled
        return 1 if found is None else int(found.numpy())

    @property
    def train_function(self):
        """The traced step; None to trace it anew."""
        return self.model.train_function

    @train_function.setter
    def train_function(self, value):
        self.model.train_function = value

    def note_level(self, level):
        """Notes that a level has begun."""
        self.level = level

    def adopt_mask(self, mask, level):
        """Makes another mask hold, as of a level."""
        if mask.shapes != self.mask.shapes:
            find.check_fits(self.inner, mask)
            raise ValueError(
                f"The mask is of {', '.join(mask)}; this model prunes "
                f"{', '.join(self.mask)}."
            )
        self.attachment.set(mask)
        self.level = level
        self.played.progress = lottery.Progress(level)

    def play(self, keras_fit, x, y, *, steps_per_epoch=None, **arguments):
        """Plays the lottery; see `LegacyPruned.fit`."""
        if self.model.optimizer is None:
            raise ValueError(
                "Compile the pruned model before `fit`, for example "
                "`pruned.compile('adam', 'sparse_categorical_crossentropy')`."
            )
        if isinstance(x, tf_keras.utils.Sequence):
            steps_per_epoch = steps_per_epoch or len(x)

        def relayed(*, callbacks, **rest):
            callbacks = [Relay.of(each) for each in callbacks]
            return keras_fit(
                callbacks=[tfmot_bridge.UpdatePruningStep(), *callbacks], **rest
            )

        _refuse_checkpoints(arguments)
        history = fitting.fit(
            self, relayed, x, y, steps_per_epoch=steps_per_epoch, **arguments
        )
        self.model.history = history
        return history

    def as_tfmot(self, keras_fit, x, y, *, callbacks=None, **arguments):
        """One training with tfmot's callback: its schedule does the rest."""
        _refuse_checkpoints(arguments)
        given = callbacks if isinstance(callbacks, (list, tuple)) else []
        given = given or [each for each in [callbacks] if each]
        update = tfmot_bridge.UpdatePruningStep()
        return keras_fit(x, y, callbacks=[update, *given], **arguments)

    def left_alone(self):
        """Returns why each of the other weights is not pruned, by name."""
        reasons = weights.unprunable(self.inner)
        reasons.update(self.settings.ungoverned(self.inner))
        reasons.update(self.refused)
        return {n: why for n, why in reasons.items() if n not in self.mask}


def _refuse_checkpoints(arguments):
    if arguments.get("checkpoint_dir") is not None:
        raise ValueError(
            "checkpoint_dir is for Keras 3 models; this one is of tf_keras. "
            "Use BackupAndRestore of tf_keras, or build the model with Keras 3."
        )
