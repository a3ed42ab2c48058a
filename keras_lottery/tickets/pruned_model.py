"""The wrapper: a `keras.Model` whose `fit` plays the lottery."""

import keras

from keras_lottery.pruning import find
from keras_lottery.pruning import groups
from keras_lottery.pruning import schedules
from keras_lottery.pruning import tables
from keras_lottery.pruning import weights
from keras_lottery.tickets import fitting
from keras_lottery.tickets import search
from keras_lottery.tickets import settings
from keras_lottery.tickets import winning
from keras_lottery.training import enforce
from keras_lottery.training import keras_private


def prune(
    model,
    schedule=None,
    *,
    rewind=None,
    rewind_step=0,
    criterion="magnitude",
    allocation="global",
    layers=None,
    data=None,
    seed=0,
):
    """Wraps a Keras model so that `fit` finds lottery tickets in it.

    The result is a `keras.Model`: compile, fit, evaluate, predict and save it
    as any other. `fit` trains the dense model, then prunes, rewinds and trains
    again, once per level of the schedule. The wrapped model itself is not
    rebuilt or copied; `strip()` returns it.

    Args:
        model: A built Keras 3 model: Sequential, Functional or subclassed.
        schedule: `IterativePruning(0.2, 10)` by default; any tfmot
            `PruningSchedule`, or a dict of name pattern to schedules (fnmatch,
            first match wins, weights that fit none are not pruned).
        rewind: What a level starts from. `"weights"`: all state of the rewind
            step (the default of schedules that count in levels).
            `"learning_rate"`: trained weights, iteration and learning rate of
            that step. `"fine_tune"`: nothing goes back and the last learning
            rate stays. `"continue"`: nothing goes back. `"none"`: the same,
            and the default of tfmot's own schedules, which prune in place.
        rewind_step: The step k to rewind to; 0 is the initialisation.
        criterion: Which weights matter: a name in
            `lottery.criteria.CRITERIA` or a function
            `(model, start, data) -> {name: scores}`.
        allocation: How the budget spreads over layers: `"global"`,
            `"layerwise"`, `"erdos_renyi"`, `"erdos_renyi_kernel"` or a
            function `(scores, mask, keep) -> Mask`.
        layers: None for all kernels, or a list of layers and name patterns;
            embeddings are pruned only when named here.
        data: Given to the criterion.
        seed: Seed of the data order, and of a criterion that draws.

    Returns:
        A `PrunedModel`.

    Raises:
        ValueError: A model that is not built, has nothing to prune or is a
            legacy one; names or numbers out of range.

    Example:

    >>> import keras, numpy as np, keras_lottery as lottery
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> pruned = lottery.prune(model, lottery.IterativePruning(0.5, levels=2))
    >>> pruned.compile("adam", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 2))
    >>> history = pruned.fit(x, y, epochs=3, verbose=0)
    >>> [ticket.mask.kept for ticket in pruned.tickets]
    [8, 4, 2]

    Reference: Frankle & Carbin (2019), section 2.
    """
    _require_keras_3(model)
    if isinstance(model, PrunedModel):
        raise ValueError(
            "This model is pruned already: continue with its `fit`, or prune "
            "`model.strip()`."
        )
    schedule = schedules.IterativePruning() if schedule is None else schedule
    return PrunedModel(
        model,
        schedule,
        names=list(weights.prunable(model, layers)),
        rewind=rewind,
        rewind_step=rewind_step,
        criterion=criterion,
        allocation=allocation,
        data=data,
        seed=seed,
    )


@keras.saving.register_keras_serializable("keras_lottery")
class PrunedModel(keras.Model):
    """A Keras model with masks, whose `fit` plays the lottery.

    Made by `lottery.prune`, which describes the arguments.

    Attributes:
        inner: The model that was wrapped, unchanged.
        tickets: List of `Ticket`, one per level trained so far.
        level: Number of prunings so far.
        mask: The `Mask` that holds now.
    """

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
        )
        self.settings.check(inner)
        self._make_masks()
        self.played = fitting.Played()
        self.built = True

    def _make_masks(self):
        def scalar(name):
            return self.add_weight(
                shape=(), dtype="int32", trainable=False, name=name,
                initializer="zeros", aggregation="only_first_replica",
            )  # fmt: skip

        self._level = scalar("level")
        self.clock = scalar("clock")
        named = weights.by_name(self.inner)
        variables = {n: named[n] for n in self.settings.governed_names}
        masks = {
            weight_name: self.add_weight(
                shape=variable.shape,
                dtype="bool",
                initializer="ones",
                trainable=False,
                name=weight_name.replace("/", ".") + ".mask",
                autocast=False,
                aggregation="only_first_replica",
            )
            for weight_name, variable in variables.items()
        }
        self.attachment = enforce.adopt(
            self.inner, enforce.Attachment(variables, masks)
        )

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
        self.played.progress = search.Progress(level)

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
            enforce.detach(self.inner)
        return self.inner

    # ------------------------------------------------------------- keras.Model

    def call(self, inputs, training=None, mask=None):
        """Calls the wrapped model. (Keras hands `training` on by itself.)"""
        del training, mask
        return self.inner(inputs)

    def build(self, input_shape=None):
        """Does nothing: the wrapped model is built."""
        self.built = True

    @property
    def output_names(self):
        """Names of the outputs, for losses and metrics by name."""
        return getattr(self.inner, "output_names", None)

    def make_train_function(self, force=False):
        """Lets the optimizer see masked gradients, then as Keras does."""
        self.hold_optimizer()
        return super().make_train_function(force)

    def hold_optimizer(self):
        """Makes the masks hold through the compiled optimizer."""
        if self._has_own_step():
            self._compile_inner()
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        self.attachment.hold(self.optimizer)

    def train_step(self, data):
        """Runs the wrapped model's own step if it has one, else Keras's."""
        if self._has_own_step():
            return self.inner.train_step(data)
        return super().train_step(data)

    def test_step(self, data):
        """Runs the wrapped model's own step if it has one, else Keras's."""
        if type(self.inner).test_step is not keras.Model.test_step:
            self._compile_inner()
            return self.inner.test_step(data)
        return super().test_step(data)

    @property
    def metrics(self):
        """The metrics of whichever model runs the step."""
        if self._has_own_step():
            return self.inner.metrics
        return super().metrics

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
        **more,
    ):
        """Plays the lottery: a complete training per level.

        Takes the arguments of `keras.Model.fit`. Each level trains `epochs`
        epochs and calls callbacks as one training does, so that early stopping
        and learning-rate schedules act per level. Levels after the first start
        at the rewind step. A second `fit` continues from the level reached.

        With a schedule that prunes in place (tfmot's own) it is one training.

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
            **more: `class_weight`, `sample_weight`, `initial_epoch`,
                `steps_per_epoch`, `validation_steps`,
                `validation_batch_size`, `validation_freq`, as in Keras.

        Returns:
            A Keras `History` over all levels, with columns `level` and
            `sparsity`. Afterwards the model holds the last level's weights.

        Raises:
            ValueError: Not compiled, all levels played, or a schedule that
                would never fire.
            RunError: Training diverged; earlier levels are kept.
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
            **more,
        )

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

    def get_config(self):
        """Returns the configuration, for saving.

        Raises:
            NotImplementedError: The wrapped model has none.
        """
        try:
            inner = keras.saving.serialize_keras_object(self.inner)
        except NotImplementedError as error:
            raise NotImplementedError(
                f"{type(self.inner).__name__} has no `get_config`, so the "
                "pruned model cannot be saved whole. Give it one, or use "
                "`save_weights`, or save a ticket: `pruned.tickets[-1].save`."
            ) from error
        return {
            "inner": inner,
            "name": self.name,
            **self.settings.get_config(),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Returns the model of a configuration, its masks all ones."""
        config = dict(config)
        inner = keras.saving.deserialize_keras_object(
            config.pop("inner"), custom_objects=custom_objects
        )
        schedule = schedules.deserialize(config.pop("schedule"), custom_objects)
        return cls(inner, schedule, **config)

    def _has_own_step(self):
        return type(self.inner).train_step is not keras.Model.train_step

    def _compile_inner(self):
        """Compiles a model with a step of its own, with our optimizer.

        Not in `compile`: a model that overrides it is not compiled on loading.
        """
        if self.inner.optimizer is not self.optimizer:
            arguments = keras_private.compile_arguments(self)
            arguments.update(optimizer=self.optimizer, auto_scale_loss=False)
            self.inner.compile(**arguments)


def _require_keras_3(model):
    module = type(model).__module__.split(".")[0]
    if module == "tf_keras" or "tf_keras" in {
        each.__module__.split(".")[0] for each in type(model).__mro__
    }:
        raise ValueError(
            f"{type(model).__name__} is a legacy (tf_keras) model, and "
            "`lottery.prune` takes Keras 3 models. Build it with `import "
            "keras` instead of `tf_keras`; if TF_USE_LEGACY_KERAS=1 is set, "
            "`tf.keras` is the legacy one. The schedules of this package also "
            "drive tfmot's own prune_low_magnitude on legacy models."
        )
