"""Pruning in plain `fit`, for models that cannot be wrapped."""

import weakref

import keras

from keras_lottery.pruning import allocation as allocations
from keras_lottery.pruning import criteria
from keras_lottery.pruning import find
from keras_lottery.pruning import groups
from keras_lottery.pruning import weights
from keras_lottery.pruning.mask import Mask
from keras_lottery.tickets import firing
from keras_lottery.tickets import in_place
from keras_lottery.tickets import zeros
from keras_lottery.tickets.pruned_model import PrunedModel
from keras_lottery.tickets.settings import Settings
from keras_lottery.training import enforce
from keras_lottery.training import keras_private
from keras_lottery.training import workers

_AHEAD = 1000  # steps to look ahead where the length of `fit` is not known
# From a model to a reference to the callback whose mask is attached to it.
_HOLDERS = weakref.WeakKeyDictionary()


class PruningCallback(keras.callbacks.Callback):
    """Prunes a model in the middle of plain `model.fit`.

    One training, in which nothing is rewound. The schedule sees the
    optimizer's step, as in tfmot: the pruning of step s comes before the s-th
    batch. A level schedule needs `steps_per_level` and prunes between two
    levels, after `level * steps_per_level` steps: n levels of pruning are
    (n + 1) * steps_per_level steps. With `steps_per_execution` above 1 what
    falls inside a call is done at its end.

    The mask holds from the first batch to the last, in files that a
    ModelCheckpoint writes too. `fit` logs the column `sparsity`. After it the
    zeros stay, and nothing holds them: the next `fit` needs the callback again,
    which goes on where it was. A fit that begins later than some steps of the
    schedule (a model that was saved and loaded) first prunes to what the
    schedule has reached by then, zeros first. With another model the callback
    begins anew. After an error in a fit the mask still holds, until the next
    fit with a callback or `lottery.detach(model)`.

    Optimizers are found as attributes of the model and its layers, in lists
    and dicts, too. Callbacks that bring weights back (`EarlyStopping`) stand
    before this one.

    Args:
        schedule: Any tfmot `PruningSchedule`, one that counts in levels, or a
            dict of name pattern to schedules, as in `lottery.prune`.
        criterion: As in `lottery.prune`.
        allocation: As in `lottery.prune`.
        layers: As in `lottery.prune`.
        data: Given to the criterion.
        seed: Seed of a criterion that draws.
        mask: What to begin with, as in `lottery.prune`.

    Raises:
        ValueError: In `fit`, before any step: a schedule that would never
            prune in it, a `PrunedModel`, several worker processes, a second
            `PruningCallback`.

    Example:

    >>> import numpy as np, keras_lottery as lottery
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model.compile("adam", "mse")
    >>> pruning = PruningCallback(lottery.OneShot(0.5, steps_per_level=2))
    >>> x, y = np.ones((8, 4)), np.ones((8, 2))
    >>> history = model.fit(x, y, 4, epochs=2, verbose=0, callbacks=[pruning])
    >>> history.history["sparsity"], pruning.mask.kept
    ([0.0, 0.5], 4)

    Reference: Zhu & Gupta (2017), section 3, where the schedule is gradual.
    """

    def __init__(
        self,
        schedule,
        *,
        criterion="magnitude",
        allocation="global",
        layers=None,
        data=None,
        seed=0,
        mask=None,
    ):
        super().__init__()
        self._grouped = groups.check(schedule)
        criteria.get(criterion, seed)
        allocations.get(allocation)
        self._layers, self._given = layers, mask
        self._choices = {
            "criterion": criterion,
            "allocation": allocation,
            "data": data,
            "seed": seed,
        }
        self._begin_anew()

    def _begin_anew(self):
        self._settings = self._mask = self._held = None
        self._level = self._done = self._pruned_through = 0
        self._attached, self._of = False, None

    @property
    def mask(self):
        """The `Mask` now, or that of the last `fit`; None before the first."""
        if self._held is not None and self._held.active:
            return self._held.mask
        return self._mask

    def on_train_begin(self, logs=None):
        """Attaches the mask, and looks whether the schedule ever prunes."""
        model = self.model
        self._check(model)
        self._end_broken_fit(model)
        if self._of is None or self._of() is not model:
            self._begin_anew()
        if self._settings is None:
            self._settle(model)
        self._epochs = self.params.get("epochs", 1)
        self._per_epoch = self.params.get("steps")
        began = _clock(model)
        self._done = max(self._done, began)
        self._plan(0)
        self._attach(model)
        self._catch_up()
        self._began, self._first_epoch = began, True

    def on_epoch_begin(self, epoch, logs=None):
        """Plans anew where another callback has put training elsewhere."""
        if self._first_epoch:
            clock = _clock(self.model)
            if epoch or clock != self._began:  # BackupAndRestore
                self._done = max(self._done, clock)
                self._plan(epoch)
                self._held.apply()
                self._catch_up()
        self._first_epoch, self._first_batch = False, None
        self._before_epoch = self._done

    def on_train_batch_begin(self, batch, logs=None):
        """Prunes before the batch if it is time."""
        if self._first_batch is None:  # not 0 where Keras counts on
            self._first_batch = batch
        self._prune_through(self._done + 1)

    def on_train_batch_end(self, batch, logs=None):
        """Counts, and prunes what fell inside a call of several steps."""
        seen = batch + 1 - self._first_batch
        if self._per_epoch is not None:
            seen = min(seen, self._per_epoch)
        self._done = self._before_epoch + seen
        self._prune_through(self._done)

    def on_epoch_end(self, epoch, logs=None):
        """Adds the sparsity to what Keras notes."""
        if logs is not None:
            logs["sparsity"] = self.mask.sparsity

    def on_train_end(self, logs=None):
        """Lets go of the mask; the zeros stay."""
        self._held.warn_if_bypassed(enforce.compiled_optimizer(self.model))
        self._held.apply()
        self._let_go()

    def _let_go(self):
        """Notes the mask; detaches it if nobody has done so since."""
        self._mask, held, self._held = self.mask, self._held, None
        model, attached = self._of(), self._attached
        self._attached = False
        _HOLDERS.pop(model, None)
        if attached and held.active:
            enforce.detach(model)

    def _end_broken_fit(self, model):
        """Lets go of a mask that a `fit` left when an error ended it."""
        if model not in _HOLDERS:
            return
        holder = _HOLDERS.pop(model)()
        if holder is not None:
            holder._let_go()
        elif enforce.is_attached(model):
            enforce.detach(model)
        # Keras gives all callbacks of a fit the same dict.
        others = holder is not None and holder is not self
        if others and holder.params is self.params:
            raise ValueError(
                "There are two PruningCallbacks in this fit. Give one of them "
                "a dict of name pattern to schedule, such as {'conv*': "
                "schedule_1, '*': schedule_2}, and leave the other out."
            )

    def _check(self, model):
        if isinstance(model, PrunedModel):
            raise ValueError(
                "This model prunes by itself, in its `fit`: leave the callback "
                "out, or use it on `model.strip()`."
            )
        if workers.several(model.distribute_strategy):
            raise ValueError(
                "PruningCallback is for one process; here several train "
                "together. Use `lottery.prune(model, ...).fit`."
            )
        firing.check_lengths(
            self._grouped,
            self.params.get("epochs", 1),
            self.params.get("steps"),
        )

    def _settle(self, model):
        """Looks at the model, once it has weights."""
        settings = Settings(
            grouped=self._grouped,
            names=list(weights.prunable(model, self._layers)),
            rewind=None,
            rewind_step=0,
            mask=self._given,
            **self._choices,
        )
        settings.check(model)
        named = weights.by_name(model)
        self._start = {n: named[n].numpy() for n in settings.governed_names}
        self._settings, self._of = settings, weakref.ref(model)

    def _plan(self, epoch):
        """Notes when to prune, up to the end of this fit."""
        if self._per_epoch is None:
            self._look(self._done + _AHEAD)
            return
        self._look(self._done + (self._epochs - epoch) * self._per_epoch)
        firing.check_some(self._due, self._settings, self._seen_through)

    def _look(self, steps):
        self._due = firing.firings(self._settings, steps)
        self._seen_through = steps

    def _attach(self, model):
        settings, named = self._settings, weights.by_name(model)
        first = {name: named[name] for name in settings.governed_names}
        mask = self._mask
        if mask is None:
            mask = settings.mask or Mask.full(first)
        self._attached = not enforce.is_attached(model)
        if not self._attached:
            mask = _narrowed(enforce.attachment(model).mask, mask)
        enforce.attach(model, mask, _optimizers_in(model))
        if self._attached:
            _HOLDERS[model] = weakref.ref(self)
        if model.train_function is None:  # Keras made it before this callback
            model.make_train_function()
        self._held = enforce.attachment(model)

    def _catch_up(self):
        """Prunes to what the schedule has reached before this fit."""
        past = {}
        for step in sorted(s for s in self._due if s <= self._done):
            past.update(self._due[step])
        if past and self._pruned_through < self._done:
            if self._mask is None:
                self._adopt_zeros(past)
            self._prune(past)
        self._pruned_through = self._done

    def _adopt_zeros(self, sparsities):
        """Removes what is zero already, if that is no more than is asked for.

        A model that was pruned and saved gets the mask it had back, whatever
        the criterion.
        """
        held = self._held
        mask = held.mask & zeros.nonzero(held.variables)
        governed, counts = self._settings.governed, mask.kept_by_name
        budgets = find.budgets_of(governed, sparsities, mask)
        if all(sum(counts[n] for n in each) >= k for each, k in budgets):
            held.set(mask)

    def _prune_through(self, step):
        """Prunes what is due up to a step."""
        if step > self._seen_through:
            self._look(2 * step)
        for each in range(self._pruned_through + 1, step + 1):
            if each in self._due:
                self._prune(self._due[each])
        self._pruned_through = max(self._pruned_through, step)

    def _prune(self, sparsities):
        self._level += 1
        in_place.prune_now(
            self._settings,
            self.model,
            self._held,
            sparsities,
            start=self._start,
            level=self._level,
        )
        self._mask = self._held.mask


def _optimizers_in(model):
    """Returns the optimizers that a model and its layers keep."""
    layers = [model, *model._flatten_layers()]
    held = (value for each in layers for value in vars(each).values())
    return keras_private.optimizers_in(held)


def _clock(model):
    """Returns the optimizer's step; 0 where steps of its own need none."""
    optimizer = enforce.compiled_optimizer(model)
    return 0 if optimizer is None else int(optimizer.iterations.numpy())


def _narrowed(held, mask):
    """Returns a mask of the weights that are held: what both of them keep."""
    if held.shapes != mask.shapes:
        raise ValueError(
            f"A mask of {', '.join(held)} is attached to the model, and the "
            f"callback prunes {', '.join(mask)}. Let go of it first with "
            "`lottery.detach(model)`, or choose the same `layers`."
        )
    return held & mask
