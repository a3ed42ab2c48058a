"""How `PrunedModel.fit` plays: one Keras training per level."""

import keras

from keras_lottery import checks
from keras_lottery import seeds
from keras_lottery.errors import RunError
from keras_lottery.pruning import weights
from keras_lottery.tickets import fit_checkpoints
from keras_lottery.tickets import in_place
from keras_lottery.tickets import lottery as lotteries
from keras_lottery.tickets import search
from keras_lottery.tickets.fit_training import Training
from keras_lottery.training import feeds
from keras_lottery.training import given_data
from keras_lottery.training import keras_private
from keras_lottery.training import workers

# What `fit` hands on to Keras as it is.
VALIDATION = ("validation_steps", "validation_batch_size", "validation_freq")


class Played:
    """What `fit` has done so far; not part of a saved model."""

    def __init__(self):
        self.tickets = []
        self.progress = lotteries.Progress()
        self.after = None
        self.compiled_for = None  # the optimizer that the inner model steps by
        self._begun_with = None, []

    def note_rates(self, optimizer):
        """Notes the learning rates that an optimizer begins with."""
        if self._begun_with[0] is not optimizer:
            rates = map(keras_private.learning_rate,
                        keras_private.leaves(optimizer))  # fmt: skip
            numbers = [
                float(rate.numpy())
                for rate in rates
                if isinstance(rate, keras.Variable)
            ]
            self._begun_with = optimizer, numbers

    def rates(self):
        """Returns them: callbacks change them while it trains."""
        return self._begun_with[1]


def fit(
    pruned,
    keras_fit,
    x=None,
    y=None,
    *,
    batch_size=None,
    epochs=1,
    verbose="auto",
    callbacks=None,
    validation_split=0.0,
    validation_data=None,
    shuffle=True,
    class_weight=None,
    sample_weight=None,
    initial_epoch=0,
    steps_per_epoch=None,
    checkpoint_dir=None,
    checkpoint_steps=None,
    checkpoint_seconds=None,
    **validation,
):
    """Plays the lottery on a `PrunedModel`; see its `fit`.

    Args:
        pruned: The `PrunedModel`.
        keras_fit: `keras.Model.fit` bound to it.
        **validation: Those of `VALIDATION`.
    """
    saves = checkpoint_dir, checkpoint_steps, checkpoint_seconds
    _check_known(validation)
    _check_trained(pruned)
    x, y, sample_weight = given_data.as_arrays((x, y, sample_weight))
    if validation_data is not None:
        steps = validation.get("validation_steps")
        given_data.check_validation(validation_data, steps)
        if isinstance(validation_data, tuple):
            validation_data = given_data.as_arrays(validation_data)
    if validation_split and validation_data is None:
        (x, y, sample_weight), validation_data = feeds.split(
            x, y, sample_weight, validation_split
        )
    feed = feeds.make(
        x,
        y,
        sample_weight=sample_weight,
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        shuffle=shuffle,
        class_weight=class_weight,
        seed=seeds.stream(pruned.settings.seed, "data order"),
    )
    epochs = feeds.Epochs(feed.per_epoch, checks.whole("epochs", epochs, 1))
    if batch_size is not None:
        validation.setdefault("validation_batch_size", batch_size)
    arguments = {
        "epochs": epochs.count,
        "verbose": verbose,
        "validation_data": validation_data,
        **validation,
    }
    training = Training(
        pruned, keras_fit, feed, epochs, _as_list(callbacks), arguments
    )
    training.initial_step = initial_epoch * feed.per_epoch
    return _played(pruned, training, saves)


def _played(pruned, training, saves):
    play = _in_levels if pruned.settings.in_levels else in_place.play
    with (
        workers.watched(pruned.distribute_strategy),
        fit_checkpoints.kept(training, *saves) as training.saver,
    ):
        play(pruned, training)
    pruned.history = training.history
    return training.history


def _in_levels(pruned, training):
    played, settings = pruned.played, pruned.settings
    lottery = settings.lottery(
        pruned.inner,
        training.epochs.steps,
        optimizer=lambda: pruned.optimizer,
    )
    if played.progress.begin is None:  # nothing trained by this object yet
        played.progress.level = pruned.level
    training.feed.check_start(lottery.first_step(1))  # refused now, or never
    pruned.hold_optimizer()
    progress = training.saver.go_on(played.progress, lottery)
    if training.saver.found_all and progress.finished(lottery.levels):
        return
    _check_can_go_on(pruned, progress, lottery)
    if played.after is not None:
        progress.continue_after(played.after, lottery)
        played.after = None

    def train(level, first_step, capture):
        pruned.note_level(level)
        training.announce()
        at = {}
        if level == 0 and lottery.rewind_step:
            at[lottery.rewind_step] = capture
        metrics = training.run(first_step, f"level {level}", at)
        _check_whole(training, level, metrics)
        if level == 0 and progress.point is None and lottery.rewind_step:
            raise ValueError(
                f"Level 0 was stopped before rewind_step={lottery.rewind_step}"
                " was reached, so there is no point to rewind to."
            )
        return metrics

    with lottery.held_rate(pruned):
        attachment = pruned.attachment
        for found in search.levels(lottery, train, attachment, progress):
            played.tickets.append(found)
            training.saver.finish(found)


def _check_can_go_on(pruned, progress, lottery):
    if progress.finished(lottery.levels):
        raise ValueError(
            f"All {lottery.levels} levels are played. Look at "
            "`pruned.tickets`, prune `pruned.strip()` further, or train one "
            "ticket on: `with lottery.masked(model, ticket.mask): "
            "model.fit(...)`."
        )
    loaded = progress.level > 0 and progress.point is None
    more = progress.level < lottery.levels and pruned.played.after is None
    if loaded and more:
        raise ValueError(
            "This model was loaded or cloned at level "
            f"{progress.level}, without the point that later levels rewind "
            "to. Continue from a ticket: "
            "`pruned.continue_from(Ticket.load(path))`."
        )


def _check_known(more):
    """Raises a ValueError for arguments that nobody would look at."""
    unknown = sorted(set(more) - set(VALIDATION))
    if unknown:
        raise ValueError(
            f"`fit` takes no {', '.join(unknown)}. It takes the arguments of "
            "`keras.Model.fit`, and `checkpoint_dir`, `checkpoint_steps` and "
            "`checkpoint_seconds`."
        )


def _check_trained(pruned):
    """Raises a ValueError for weights with masks that nothing would train."""
    owned, held = weights.by_name(pruned.inner), pruned.attachment.variables
    replaced = [name for name in held if owned.get(name) is not held[name]]
    if replaced:
        raise ValueError(
            f"{', '.join(replaced)}: replaced since `lottery.prune`, by "
            "`quantize`? Play the lottery first, then quantize "
            "`pruned.strip()`."
        )
    frozen = [name for name in held if not held[name].trainable]
    if frozen:
        raise ValueError(
            f"{', '.join(frozen)}: frozen since `lottery.prune`, which pruned "
            "it as a trained weight. Freeze layers before `prune`, which then "
            "leaves them alone; set `trainable = True` again; or prune "
            "`pruned.strip()` anew."
        )


def _check_whole(training, level, metrics):
    """Raises a RunError if an input of Keras's ran out of data.

    Keras warns, and then trains epochs of no steps.
    """
    steps, per_epoch = training.epochs.steps, training.epochs.per_epoch
    missing = steps - metrics.get("last_step", 0)
    # A dataset may end inside an epoch, which is then shorter.
    fewest = per_epoch if training.by_steps else 1
    # Whoever caps all trainings, to try a script out, wants shorter ones.
    capped = keras.config.max_epochs() or keras.config.max_steps_per_epoch()
    stopped = training.pruned.stop_training or capped
    if stopped or missing < fewest or not metrics:
        return
    kind = type(training.feed.source).__name__
    raise RunError(
        f"The {kind} ran out of data in level {level}, which has {steps} "
        "steps, so that no ticket was made of it. With `steps_per_epoch` it is "
        "read on from epoch to epoch, a generator from level to level, too: "
        "use one that goes on for ever (`.repeat()`), or an input whose length "
        "is known and no `steps_per_epoch`."
    )


def _as_list(callbacks):
    if callbacks is None:
        return []
    if isinstance(callbacks, keras.callbacks.CallbackList):
        raise ValueError(
            "Pass `callbacks` as a list: a CallbackList is bound to one "
            "training, and a lottery is many."
        )
    return (
        list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
    )
