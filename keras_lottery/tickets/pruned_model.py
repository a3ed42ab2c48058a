"""The wrapper: a `keras.Model` whose `fit` plays the lottery."""

import keras

from keras_lottery.pruning import find
from keras_lottery.pruning import groups
from keras_lottery.pruning import tables
from keras_lottery.pruning import weights
from keras_lottery.tickets import copying
from keras_lottery.tickets import fitting
from keras_lottery.tickets import lottery
from keras_lottery.tickets import mask_variables
from keras_lottery.tickets import saving
from keras_lottery.tickets import settings
from keras_lottery.tickets import winning
from keras_lottery.tickets.around import Around
from keras_lottery.tickets.pictures import plotting
from keras_lottery.training import enforce
from keras_lottery.training import replicas


@keras.saving.register_keras_serializable("keras_lottery")
class PrunedModel(Around):
    """A Keras model with masks, whose `fit` plays the lottery.

    Made by `lottery.prune`, which describes the arguments.

    Attributes:
        inner: The model that was wrapped, unchanged.
        tickets: List of `Ticket`, one per level trained so far.
        level: Number of prunings so far.
        mask: The `Mask` that holds now.
        step_mode: How `fit` compiles steps: `"graph"`, `"xla"`, or None for
            what `training/compiling.py` chooses; not saved.
    """

    step_mode = None

    def __init__(
        self,
        inner,
        schedule,
        *,
        names,
        rewind=None,
        rewind_step=0,
        criterion="magnitude",
        allocation="global",
        data=None,
        seed=0,
        mask=None,
        name=None,
        **kwargs,
    ):
        super().__init__(name=name or f"pruned_{inner.name}", **kwargs)
        self.inner = inner
        # Keras wraps dicts and lists that are set on a model; this stays ours.
        self.settings = settings.Settings(
            grouped=groups.check(schedule),
            names=names,
            rewind=rewind,
            rewind_step=rewind_step,
            criterion=criterion,
            allocation=allocation,
            data=data,
            seed=seed,
            mask=mask,
        )
        self.settings.check(inner)
        self._level = mask_variables.scalar(self, "level")
        self.clock = mask_variables.scalar(self, "clock")
        self.attachment = mask_variables.attached(self)
        if self.settings.mask is not None:
            self.attachment.set(self.settings.mask)
        self.played = fitting.Played()
        self.built = True

    # ---------------------------------------------------------------- state

    @property
    def mask(self):
        """The `Mask` that holds now."""
        return self.attachment.mask

    @property
    def level(self):
        """Number of prunings so far; 0 is dense."""
        return int(self._level.numpy())

    @property
    def tickets(self):
        """The tickets found so far, level 0 first."""
        return tuple(self.played.tickets)

    @property
    def schedule(self):
        """The schedule, or dict of schedules, as given to `prune`."""
        grouped = self.settings.grouped
        return grouped["*"] if list(grouped) == ["*"] else dict(grouped)

    def note_level(self, level):
        """Notes in the saved state that a level has begun."""
        self._level.assign(level)

    def adopt_mask(self, mask, level):
        """Makes another mask hold, as of a level; nothing is rewound.

        Raises:
            ValueError: The mask is of other weights.
        """
        if mask.shapes != self.mask.shapes:
            find.check_fits(self.inner, mask)
            raise ValueError(
                f"The mask is of {', '.join(mask)}; this model prunes "
                f"{', '.join(self.mask)}."
            )
        self.attachment.set(mask)
        self._level.assign(level)
        self.played.progress = lottery.Progress(level)

    def continue_from(self, ticket):
        """Puts the lottery where it was when it found `ticket`.

        The next `fit` prunes on from there. Needs `rewind="weights"` and
        `rewind_step=0`: other rewind points are not in a ticket.

        Args:
            ticket: A trained `Ticket` of this lottery, such as one loaded
                after an interruption.
        """
        if not self.compiled:
            raise ValueError("Compile the model before `continue_from`.")
        self.adopt_mask(ticket.mask, ticket.level)
        self.played.after = ticket

    def strip(self):
        """Returns the wrapped model, zeros in place and no longer held."""
        if self.attachment.active:
            enforce.let_go(self.inner)
        if self.played.compiled_for is not None:
            self.inner.optimizer = self.played.compiled_for
        return self.inner

    # ------------------------------------------------------------- keras.Model

    def make_train_function(self, force=False):
        """Lets the optimizer see masked gradients, then as Keras does."""
        self.hold_optimizer()
        return super().make_train_function(force)

    def hold_optimizer(self):
        """Makes the masks hold through the compiled optimizer."""
        replicas.check_scope(self)
        for optimizer in self.optimizers():
            self.attachment.hold(optimizer)
        self.played.note_rates(self.optimizer)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        *,
        checkpoint_dir=None,
        **more,
    ):
        """Plays the lottery: a complete training per level.

        Takes the arguments of `keras.Model.fit`. Each level trains `epochs`
        epochs and calls callbacks as one training does, so that early stopping
        and learning-rate schedules act per level. Levels after the first start
        at the rewind step. A second `fit` continues from the level reached.

        With a schedule that prunes in place (tfmot's own) it is one training.

        With `checkpoint_dir` nothing is lost: after a crash, SIGTERM (exit code
        75) or Ctrl-C the same script goes on where it was, with a model built
        anew, and ends with the same tickets, weights and `History`, bit for
        bit; once all is done it gets them without training. Kept of callbacks
        is what is plain: numbers, text, arrays, lists and dicts of those.
        Random numbers drawn outside layers are not kept. A dataset has to give
        the same order whenever it is read: `shuffle(n, seed,
        reshuffle_each_iteration=False)`. Keras's own loop, which trains
        `PyDataset`s, is saved at epochs; a generator only at levels, as it
        begins anew.

        Args:
            x: Arrays, a `tf.data.Dataset`, a `PyDataset` or a generator; the
                last two need `steps_per_epoch` where the length is not known.
            y: Arrays, or None.
            batch_size: Rows per step, 32 by default.
            epochs: Epochs of a whole level.
            verbose: As in Keras; levels are announced unless 0.
            callbacks: A list of Keras callbacks.
            validation_split: Fraction of the arrays to validate on.
            validation_data: What to validate on; needed for winning tickets.
            shuffle: Whether arrays get a new order in every pass.
            checkpoint_dir: A folder for this lottery, to go on from.
            **more: `class_weight`, `sample_weight`, `initial_epoch`,
                `steps_per_epoch`, `validation_steps`,
                `validation_batch_size`, `validation_freq`, as in Keras.
                `checkpoint_seconds` (30) between two checkpoints, or
                `checkpoint_steps`. They cost under 2 % of the time.

        Returns:
            A Keras `History` over all levels, with columns `level` and
            `sparsity`. Afterwards the model holds the last level's weights.

        Raises:
            ValueError: Not compiled, all levels played, a schedule that would
                never fire, or a `checkpoint_dir` of something else.
            RunError: Training diverged or lost a worker; earlier levels stay.
                Or `checkpoint_dir` is in use, damaged or not writable.
        """
        if not self.compiled:
            raise ValueError(
                "Compile the pruned model before `fit`, for example "
                "`pruned.compile('adam', 'sparse_categorical_crossentropy')`."
            )
        return fitting.fit(
            self,
            super().fit,
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            checkpoint_dir=checkpoint_dir,
            **more,
        )

    def plot(self, **choices):
        """Draws the masks so far, level by level: see `pictures.plot`.

        Before any training, the mask that holds now.

        Args:
            **choices: `names`, `levels`, `image`, as for `pictures.plot`.

        Returns:
            A `matplotlib.figure.Figure`; a notebook shows it.
        """
        shown = self.tickets or self.mask
        return plotting.plot(shown, model=self.inner, **choices)

    def winning_ticket(self, tolerance=0.0, metric=None, mode=None):
        """Returns the sparsest ticket as good as the dense network.

        Its validation metric at its early-stopping step (the minimum of the
        validation loss) is no worse than level 0's minus `tolerance`, and it
        got there no later.

        Args:
            tolerance: How much worse it may be, in units of the metric.
            metric: `"accuracy"` if compiled, else `"loss"`.
            mode: `"max"` or `"min"` for a metric whose direction is unknown.

        Returns:
            A `Ticket`.

        Raises:
            ValueError: No validation data, no dense level, or no such ticket.

        Reference: Frankle & Carbin (2019), section 1.
        """
        return winning.choose(self.tickets, tolerance, metric, mode)

    def summary(self, print_fn=None, **unused):
        """Prints what is pruned, what is not and why, and multiply-adds."""
        del unused
        reasons = weights.unprunable(self.inner)
        reasons.update(self.settings.ungoverned(self.inner))
        held = self.mask
        left = {n: why for n, why in reasons.items() if n not in held}
        table = tables.format_table(tables.layer_table(self.inner, held), left)
        (print_fn or print)(f"{self.name}, level {self.level}\n{table}")

    def __deepcopy__(self, memo):
        """Returns an independent lottery, as far as this one is."""
        return copying.copied(self, memo)

    def get_config(self):
        """Returns the configuration, for saving.

        With level and mask, but without weights. So `clone_model` and
        `to_json` give new weights under the same mask; `load_model` and pickle
        the same weights. The point to rewind to is not there: all three
        continue from a ticket, and `copy.deepcopy` goes on by itself.

        Raises:
            NotImplementedError: The wrapped model has none.
        """
        return {
            "inner": saving.config_of(self.inner),
            "name": self.name,
            **self.settings.get_config(),
            **saving.reached(self),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Returns the model of a configuration, at its level."""
        config = dict(config)
        there = config.pop("reached", None)
        pruned = cls(**saving.arguments(config, custom_objects))
        saving.go_to(pruned, there)
        return pruned
