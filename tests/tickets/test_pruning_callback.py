"""Pruning in plain `fit`: when, how many, and that the zeros hold."""

import re

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.pruning import weights
from keras_lottery.training import enforce

pytestmark = pytest.mark.thorough

ROWS, BATCH = 40, 8
A_EPOCH = ROWS // BATCH  # 5 steps
SIZE = 20 * 20 + 20 * 10


def data():
    """Returns x and y."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 20)).astype(np.float32)
    return x, rng.normal(size=(ROWS, 10)).astype(np.float32)


def network(kind=keras.Model):
    """Returns a network of 400 + 200 weights, always the same."""
    inputs = keras.Input((20,))
    hidden = keras.layers.Dense(20, activation="tanh", name="hidden")
    outputs = keras.layers.Dense(10, name="output")(hidden(inputs))
    model = kind(inputs, outputs)
    rng = np.random.default_rng(1)
    for layer in model.layers[1:]:
        shape = tuple(layer.kernel.shape)
        values = rng.normal(size=shape) / np.sqrt(shape[0])
        layer.set_weights([values.astype(np.float32), np.zeros(shape[1])])
    return model


def compiled(optimizer=None, kind=keras.Model, **more):
    """Returns it compiled."""
    model = network(kind)
    model.compile(optimizer or keras.optimizers.SGD(0.05), "mse", **more)
    return model


def fit(model, *callbacks, epochs=3, **more):
    """Fits rows in order; 5 steps an epoch."""
    return model.fit(
        *data(), epochs=epochs, batch_size=BATCH, shuffle=False, verbose=0,
        callbacks=list(callbacks), **more,
    )  # fmt: skip


def zeros_of(model):
    """Returns how many of the kernels' weights are exactly zero."""
    return sum(
        np.count_nonzero(keras.ops.convert_to_numpy(layer.kernel) == 0)
        for layer in model.layers
        if isinstance(layer, keras.layers.Dense)
    )


class Watch(keras.callbacks.Callback):
    """Counts zeros after every batch, and notes the masks of a wrapper."""

    def __init__(self):
        super().__init__()
        self.zeros, self.masks = [], []

    def on_train_batch_end(self, batch, logs=None):
        """Notes them."""
        model = self.model
        if isinstance(model, lottery.PrunedModel):
            self.masks.append(model.mask)
            model = model.inner
        self.zeros.append(zeros_of(model))


class Fail(keras.callbacks.Callback):
    """Raises an error in a step, the first time."""

    def __init__(self, step):
        super().__init__()
        self._step = step

    def on_train_batch_end(self, batch, logs=None):
        """Raises it there."""
        self._step -= 1
        if self._step == 0:
            raise RuntimeError("broken")


class OwnStep(keras.Model):
    """A model with a training step, and an optimizer, of its own."""

    def train_step(self, data):
        """Trains by `second`, which Keras does not know of."""
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self(x, training=True) - y) ** 2)
        found = tape.gradient(loss, self.trainable_variables)
        self.second.apply_gradients(
            zip(found, self.trainable_variables, strict=True)
        )
        return {"loss": loss}


SCHEDULES = {
    "constant": lottery.ConstantSparsity(0.3, begin_step=4, frequency=3),
    "polynomial": lottery.PolynomialDecay(0.1, 0.8, 2, 11, frequency=2),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_it_prunes_as_the_wrapper_does_step_by_step(name):
    schedule = SCHEDULES[name]
    wrapped = lottery.prune(network(), schedule)
    wrapped.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    theirs, ours = Watch(), Watch()
    fit(wrapped, theirs)
    model = compiled(keras.optimizers.SGD(0.05, momentum=0.9))
    pruning = lottery.PruningCallback(schedule)
    fit(model, pruning, ours)
    assert ours.zeros == [m.size - m.kept for m in theirs.masks]
    assert pruning.mask == theirs.masks[-1]
    named = weights.by_name(wrapped.inner)
    for weight, variable in weights.by_name(model).items():
        np.testing.assert_allclose(
            variable.numpy(), named[weight].numpy(), rtol=1e-5, atol=1e-6
        )


def test_levels_end_after_their_steps():
    watch = Watch()
    schedule = lottery.IterativePruning(0.2, 2, steps_per_level=A_EPOCH)
    history = fit(compiled(), lottery.PruningCallback(schedule), watch)
    removed = [round(SIZE * s) for s in (0.0, 0.2, 0.36)]
    assert watch.zeros == [n for n in removed for _ in range(A_EPOCH)]
    np.testing.assert_array_equal(
        history.history["sparsity"], [0.0, 1 - 480 / 600, 1 - 384 / 600]
    )


def optimizers():
    """Returns optimizers for which a constraint alone is not exact."""
    return {
        "clipped": keras.optimizers.AdamW(0.01, global_clipnorm=0.1),
        "averaged": keras.optimizers.SGD(
            0.05, momentum=0.9, use_ema=True, ema_overwrite_frequency=4
        ),
        "lamb": keras.optimizers.Lamb(0.01),
        "scaled": keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(0.01)
        ),
    }


@pytest.mark.parametrize("name", optimizers())
@pytest.mark.parametrize("jit", [False, True])
def test_zeros_are_exact_after_every_batch(name, jit):
    if jit and name != "clipped":
        pytest.skip("XLA is the same for all: one is enough")
    watch = Watch()
    schedule = lottery.OneShot(0.5, steps_per_level=6)
    model = compiled(optimizers()[name], jit_compile=jit)
    fit(model, lottery.PruningCallback(schedule), watch)
    assert watch.zeros == [0] * 6 + [300] * 9
    assert zeros_of(model) == 300


def test_mixed_precision_is_pruned_in_float32():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = compiled(keras.optimizers.Adam(0.01))
        schedule = lottery.OneShot(0.9, steps_per_level=3)
        pruning = lottery.PruningCallback(schedule)
        fit(model, pruning, epochs=1)
    finally:
        keras.config.set_dtype_policy(before)
    assert pruning.mask.kept == 60
    assert zeros_of(model) == 540


def test_a_step_of_its_own_with_an_optimizer_of_its_own():
    model = compiled(kind=OwnStep)
    model.second = keras.optimizers.AdamW(0.01, clipnorm=0.1)
    watch = Watch()
    schedule = lottery.OneShot(0.5, steps_per_level=4)
    fit(model, lottery.PruningCallback(schedule), watch, epochs=2)
    assert watch.zeros == [0] * 4 + [300] * 6
    # The slots of what is removed are as they were built.
    pairs = zip(model.trainable_variables, model.second._momentums, strict=True)
    for variable, slot in pairs:
        removed = variable.numpy() == 0
        assert not slot.numpy()[removed].any(), variable.path


def test_a_step_of_its_own_without_an_optimizer_of_keras():
    model = network(OwnStep)
    model.compile(optimizer=None)
    model.second = keras.optimizers.Adam(0.01)
    watch = Watch()
    schedule = lottery.OneShot(0.5, steps_per_level=4)
    fit(model, lottery.PruningCallback(schedule), watch, epochs=2)
    assert watch.zeros == [0] * 4 + [300] * 6


def test_optimizers_in_dicts_and_lists_see_masked_gradients():
    class Two(keras.Model):
        """Trains its first layer and its second by optimizers of their own."""

        def train_step(self, data):
            """Trains each by its own."""
            import tensorflow as tf

            x, y = data
            with tf.GradientTape() as tape:
                loss = keras.ops.mean((self(x, training=True) - y) ** 2)
            found = tape.gradient(loss, self.trainable_variables)
            pairs = list(zip(found, self.trainable_variables, strict=True))
            self.by_name["hidden"].apply_gradients(pairs[:2])
            self.in_order[0].apply_gradients(pairs[2:])
            return {"loss": loss}

    model = compiled(kind=Two)
    model.by_name = {"hidden": keras.optimizers.Adam(0.01, clipnorm=0.1)}
    model.in_order = [keras.optimizers.Adam(0.01, clipnorm=0.1)]
    schedule = lottery.OneShot(0.5, steps_per_level=4)
    fit(model, lottery.PruningCallback(schedule), epochs=2)
    assert zeros_of(model) == 300
    slots = [model.by_name["hidden"]._momentums[0],
             model.in_order[0]._momentums[0]]  # fmt: skip
    for layer, slot in zip(model.layers[1:], slots, strict=True):
        removed = layer.kernel.numpy() == 0
        assert removed.any() and not slot.numpy()[removed].any()


def test_checkpoints_are_sparse_already(tmp_path):
    path = str(tmp_path / "{epoch}.keras")
    schedule = lottery.IterativePruning(0.5, 2, steps_per_level=3)
    pruning = lottery.PruningCallback(schedule)
    fit(compiled(), keras.callbacks.ModelCheckpoint(path), pruning, epochs=2)
    found = [
        zeros_of(keras.models.load_model(path.format(epoch=epoch)))
        for epoch in (1, 2)
    ]
    assert found == [300, 450]


def test_what_falls_inside_a_call_is_done_at_its_end():
    schedule = lottery.ConstantSparsity(0.5, begin_step=4, frequency=100)
    model = compiled(steps_per_execution=5)
    before, after = Watch(), Watch()
    fit(model, before, lottery.PruningCallback(schedule), after, epochs=2)
    assert (before.zeros, after.zeros) == ([0, 300], [300, 300])


def test_calls_longer_than_an_epoch_do_not_turn_the_clock_forward():
    watch = Watch()
    schedule = lottery.OneShot(0.5, steps_per_level=2 * A_EPOCH)
    model = compiled(steps_per_execution=3)  # 5 steps: 3 and 2
    fit(model, lottery.PruningCallback(schedule), watch, epochs=3)
    assert watch.zeros == [0, 0, 0, 0, 300, 300]


def test_a_second_fit_goes_on():
    schedule = lottery.IterativePruning(0.5, 2, steps_per_level=4)
    model, watch = compiled(), Watch()
    pruning = lottery.PruningCallback(schedule)
    for _ in range(3):  # of 5 steps each; the last has nothing left to prune
        fit(model, pruning, watch, epochs=1)
    assert watch.zeros == [0] * 4 + [300] * 4 + [450] * 7


def test_nothing_holds_after_the_fit():
    model = compiled()
    schedule = lottery.OneShot(0.5, steps_per_level=3)
    pruning = lottery.PruningCallback(schedule)
    fit(model, pruning, epochs=1)
    assert not enforce.is_attached(model)
    assert zeros_of(model) == 300 == pruning.mask.size - pruning.mask.kept
    assert model.layers[1].kernel.constraint is None
    fit(model, epochs=1)
    assert zeros_of(model) < 10


@pytest.mark.parametrize("same", [True, False])
def test_after_an_error_the_next_fit_goes_on_and_lets_go(same):
    schedule = lottery.IterativePruning(0.5, 2, steps_per_level=4)
    model, watch = compiled(), Watch()
    pruning = lottery.PruningCallback(schedule)
    with pytest.raises(RuntimeError, match="broken"):
        fit(model, pruning, Fail(6), epochs=2)
    assert pruning.mask.kept == 300
    before = pruning.mask
    if not same:
        pruning = lottery.PruningCallback(schedule)
    fit(model, pruning, watch, epochs=1)
    assert watch.zeros == [300] * 2 + [450] * 3
    assert pruning.mask.issubset(before)
    assert not enforce.is_attached(model)
    assert model.layers[1].kernel.constraint is None


def test_after_an_error_the_mask_is_kept_by_the_callback():
    schedule = lottery.IterativePruning(0.5, 2, steps_per_level=4)
    model, watch = compiled(), Watch()
    pruning = lottery.PruningCallback(schedule)
    with pytest.raises(RuntimeError, match="broken"):
        fit(model, pruning, Fail(6), epochs=2)
    lottery.detach(model)
    assert pruning.mask == lottery.nonzero_mask(model)
    fit(model, pruning, watch, epochs=1)
    assert watch.zeros == [300] * 2 + [450] * 3


def test_with_another_model_it_begins_anew():
    schedule = lottery.IterativePruning(0.5, 2, steps_per_level=4)
    pruning, watch = lottery.PruningCallback(schedule), Watch()
    fit(compiled(), pruning, epochs=3)
    fit(compiled(), pruning, watch, epochs=2)
    assert watch.zeros == [0] * 4 + [300] * 4 + [450] * 2


def test_two_in_one_fit_are_refused():
    schedule = lottery.OneShot(0.5, steps_per_level=4)
    model = compiled()
    first = lottery.PruningCallback(schedule, layers=["hidden"])
    second = lottery.PruningCallback(schedule, layers=["output"])
    with pytest.raises(ValueError, match="two PruningCallbacks in this fit"):
        fit(model, first, second)
    assert not enforce.is_attached(model)
    fit(model, first, epochs=1)
    assert zeros_of(model) == 200


@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_a_model_that_was_saved_gets_its_mask_back(tmp_path, criterion):
    schedule = lottery.IterativePruning(0.5, 3, steps_per_level=4)
    model = compiled()
    first = lottery.PruningCallback(schedule, criterion=criterion)
    fit(model, first, epochs=2)  # 10 steps: level 2
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    watch = Watch()
    second = lottery.PruningCallback(schedule, criterion=criterion)
    fit(loaded, second, watch, epochs=1)
    assert watch.zeros == [450] * 2 + [525] * 3
    assert second.mask.issubset(first.mask)


def test_a_late_callback_prunes_at_once():
    model, watch = compiled(), Watch()
    fit(model, epochs=2)
    schedule = lottery.PolynomialDecay(0.0, 0.8, 0, 8, frequency=1)
    fit(model, lottery.PruningCallback(schedule), watch, epochs=1)
    assert watch.zeros == [480] * A_EPOCH


def test_it_goes_on_where_backup_and_restore_does(tmp_path):
    class Stop(keras.callbacks.Callback):
        """Is killed in the third epoch."""

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def play(*more):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        schedule = lottery.IterativePruning(0.5, 3, steps_per_level=A_EPOCH)
        model, watch = compiled(), Watch()
        pruning = lottery.PruningCallback(schedule)
        try:
            fit(model, pruning, backup, watch, *more, epochs=4)
        except KeyboardInterrupt:
            pass
        return watch, pruning.mask

    killed, before = play(Stop())
    assert killed.zeros == [0] * A_EPOCH + [300] * A_EPOCH
    went_on, after = play()
    assert went_on.zeros == [450] * A_EPOCH + [525] * A_EPOCH
    assert after.issubset(before)


def test_it_narrows_a_mask_that_is_attached_and_leaves_it():
    model = compiled()
    mask = lottery.find_mask(model, 0.4)
    schedule = lottery.OneShot(0.5, steps_per_level=3)
    with lottery.masked(model, mask):
        pruning = lottery.PruningCallback(schedule)
        history = fit(model, pruning, epochs=1)
        assert enforce.attachment(model).mask == pruning.mask
    assert history.history["sparsity"] == [0.5]
    assert pruning.mask.issubset(mask)


def test_it_begins_with_a_mask():
    model, watch = compiled(), Watch()
    mask = lottery.sparsify(model, 0.3)
    schedule = lottery.IterativePruning(
        0.5, 1, steps_per_level=3, initial_sparsity=0.3
    )
    pruning = lottery.PruningCallback(schedule, mask="nonzero")
    fit(model, pruning, watch, epochs=1)
    assert watch.zeros == [180] * 3 + [390] * 2
    assert pruning.mask.issubset(mask)


def test_data_of_unknown_length_is_pruned_in_time():
    import tensorflow as tf

    x, y = data()
    rows = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    rows = rows.filter(lambda x, y: True)
    schedule = lottery.ConstantSparsity(0.5, begin_step=7, frequency=100)
    model, watch = compiled(), Watch()
    pruning = lottery.PruningCallback(schedule)
    model.fit(rows, epochs=2, verbose=0, callbacks=[pruning, watch])
    assert watch.zeros == [0] * 6 + [300] * 4


def refused(model, pruning, text, epochs=1):
    """Checks an error before training; the model stays as it was."""
    before = [array.copy() for array in model.get_weights()]
    with pytest.raises(ValueError, match=re.escape(text)):
        fit(model, pruning, epochs=epochs)
    for array, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, then)


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (lottery.ConstantSparsity(0.5, begin_step=6), "at none of the 5 steps"),
        (lottery.OneShot(0.5, steps_per_level=5), "at none of the 5 steps"),
    ],
)
def test_a_schedule_that_would_never_prune_is_refused(schedule, text):
    model = compiled()
    refused(model, lottery.PruningCallback(schedule), text)
    assert not enforce.is_attached(model)


def test_levels_without_steps_are_refused_with_the_steps_they_could_have():
    pruning = lottery.PruningCallback(lottery.IterativePruning(0.2, 4))
    text = "`IterativePruning(..., steps_per_level=3)`. The 15 steps of this"
    refused(compiled(), pruning, text, epochs=3)


def test_a_pruned_model_is_refused():
    schedule = lottery.OneShot(0.5, steps_per_level=3)
    pruned = lottery.prune(network(), lottery.OneShot(0.5))
    pruned.compile("sgd", "mse")
    pruning = lottery.PruningCallback(schedule)
    refused(pruned, pruning, "This model prunes by itself")


def test_choices_are_checked_at_once():
    schedule = lottery.OneShot(0.5, steps_per_level=3)
    with pytest.raises(ValueError, match="Unknown criterion"):
        lottery.PruningCallback(schedule, criterion="magnitud")
    with pytest.raises(ValueError, match="tfmot PruningSchedule"):
        lottery.PruningCallback(0.5)
