"""Masks hold: attached, detached, attached again, in every kind of loop."""

import contextlib
import gc
import warnings
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.errors import InexactMaskWarning
from keras_lottery.pruning import weights
from keras_lottery.pruning.mask import Mask
from keras_lottery.training import enforce
from keras_lottery.training import holding
from keras_lottery.training.enforce import attach
from keras_lottery.training.enforce import attachment
from keras_lottery.training.enforce import detach
from keras_lottery.training.enforce import is_attached
from keras_lottery.training.enforce import masked
from keras_lottery.training.enforce import masked_gradients
from keras_lottery.training.holding import Attachment

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 6)).astype("float32")
Y = RNG.normal(size=(48, 3)).astype("float32")
SHAPES = {"hidden/kernel": (6, 8), "output/kernel": (8, 3)}


class Traced(keras.layers.Layer):
    """Passes its input on and counts how often it is traced."""

    def __init__(self, calls):
        super().__init__()
        self._count = lambda: calls.append(1)

    def call(self, inputs):
        self._count()
        return inputs


def model_of(calls=None, constraint=None):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            Traced([] if calls is None else calls),
            keras.layers.Dense(
                8, "tanh", kernel_constraint=constraint, name="hidden"
            ),
            keras.layers.Dense(3, name="output"),
        ]
    )
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def compiled(optimizer="adam", calls=None, constraint=None, **arguments):
    model = model_of(calls, constraint)
    model.compile(optimizer, "mse", **arguments)
    return model


def random_mask(seed=0, density=0.4):
    rng = np.random.default_rng(seed)
    return Mask({n: rng.random(s) < density for n, s in SHAPES.items()})


def non_zeros(model, mask):
    """How many removed weights are not zero."""
    variables = weights.by_name(model)
    return sum(
        int(np.count_nonzero(variables[name].numpy()[~mask[name]]))
        for name in mask
    )


class AfterBatch(keras.callbacks.Callback):
    """Counts the removed weights that are not zero, after every batch."""

    def __init__(self, mask):
        super().__init__()
        self.mask, self.found = mask, []

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(non_zeros(self.model, self.mask))


def fit(model, mask=None, batch_size=16, epochs=1, rows=48):
    """Trains; returns the non-zeros among removed weights per batch."""
    watch = AfterBatch(Mask({}) if mask is None else mask)
    model.fit(
        X[:rows],
        Y[:rows],
        batch_size=batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[watch],
    )
    return watch.found


def gradients_of(model, rows=slice(None)):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(X[rows]) - Y[rows]))
    return tape.gradient(loss, model.trainable_variables)


def assert_same(one, two):
    assert len(one) == len(two)
    assert all((a == b).all() for a, b in zip(one, two))


# ------------------------------------------------------------------ the parts


def bool_variable(array):
    return keras.Variable(np.array(array), dtype="bool", trainable=False)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_zeroed_is_no_product(dtype):
    mask = bool_variable([[True, False], [False, True]])
    given = tf.constant([[1.5, np.inf], [np.nan, -2.5]], dtype)
    found = holding.zeroed(given, mask)
    assert found.dtype == given.dtype
    assert found.numpy().astype(float).tolist() == [[1.5, 0.0], [0.0, -2.5]]


def test_zeroed_gradient_of_nothing_and_of_a_dense_one():
    mask = bool_variable([True, False])
    assert holding.zeroed_gradient(None, mask) is None
    found = holding.zeroed_gradient(tf.constant([3.0, np.inf]), mask)
    assert found.numpy().tolist() == [3.0, 0.0]


def test_zeroed_gradient_by_rows():
    kept = np.array(
        [[True, False], [False, False], [True, True], [False, True]]
    )
    slices = tf.IndexedSlices(
        tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, np.inf], [7.0, 8.0]]),
        tf.constant([3, 0, 0, 3]),
        tf.constant([4, 2]),
    )
    found = holding.zeroed_gradient(slices, bool_variable(kept))
    assert isinstance(found, tf.IndexedSlices)
    assert found.indices.numpy().tolist() == [3, 0, 0, 3]
    assert found.dense_shape.numpy().tolist() == [4, 2]
    dense = tf.convert_to_tensor(found).numpy().tolist()
    assert dense == [[8.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 10.0]]


def test_the_constraint_comes_after_the_users_own():
    plus_one = holding.MaskConstraint(
        bool_variable([True, False]), then=lambda weight: weight + 1.0
    )
    assert plus_one(tf.constant([1.0, 1.0])).numpy().tolist() == [2.0, 0.0]
    alone = holding.MaskConstraint(bool_variable([True, False]))
    assert alone(tf.constant([1.0, 1.0])).numpy().tolist() == [1.0, 0.0]


def test_the_users_constraint_sees_masked_weights():
    """The norm is that of the kept weights, whatever moved the others."""
    unit = holding.MaskConstraint(
        bool_variable([[True], [True], [False]]),
        then=keras.constraints.UnitNorm(),
    )
    found = unit(tf.constant([[3.0], [4.0], [12.0]])).numpy().ravel()
    assert found == pytest.approx([0.6, 0.8, 0.0], abs=1e-6)


# ------------------------------------------------------------ attach and detach


def test_attach_zeroes_removed_weights_and_nothing_else():
    model, mask = model_of(), random_mask()
    before = {n: v.numpy() for n, v in weights.by_name(model).items()}
    attach(model, mask)
    assert is_attached(model)
    assert attachment(model).mask == mask
    for name, variable in weights.by_name(model).items():
        kept = mask[name] if name in mask else True
        assert (variable.numpy() == np.where(kept, before[name], 0)).all()


def test_class_and_configuration_of_the_optimizer_stay():
    optimizer = keras.optimizers.Adam(0.01, clipnorm=1.0)
    model = compiled(optimizer)
    config = optimizer.get_config()
    attach(model, random_mask())
    assert model.optimizer is optimizer
    assert type(optimizer) is keras.optimizers.Adam
    assert optimizer.get_config() == config
    assert "apply" in vars(optimizer)


def test_detach_restores_constraints_and_the_method_of_the_class():
    own = keras.constraints.UnitNorm()
    model = compiled(constraint=own)
    hidden, _, output, _ = model.trainable_variables
    before = (hidden.constraint, output.constraint)
    for seed in range(2):
        attach(model, random_mask(seed))
        assert isinstance(hidden.constraint, holding.MaskConstraint)
        assert hidden.constraint.then is before[0]
        detach(model)
        assert not is_attached(model)
        assert (hidden.constraint, output.constraint) == before
        assert "apply" not in vars(model.optimizer)
        assert model.optimizer.apply.__func__ is keras.optimizers.Adam.apply


def test_zeros_stay_after_detach_and_move_in_training():
    model, mask = compiled(), random_mask()
    attach(model, mask)
    assert fit(model, mask) == [0, 0, 0]
    detach(model)
    assert non_zeros(model, mask) == 0
    fit(model)
    removed = mask.size - mask.kept
    assert non_zeros(model, mask) == removed


def test_a_mask_that_keeps_all_changes_no_bit():
    free, held = compiled(), compiled()
    attach(held, Mask({n: np.ones(s, bool) for n, s in SHAPES.items()}))
    fit(free, epochs=2)
    fit(held, epochs=2)
    assert_same(held.get_weights(), free.get_weights())


def test_a_mask_that_keeps_nothing_of_a_weight():
    mask = Mask({"hidden/kernel": np.zeros((6, 8), bool)})
    model = compiled()
    attach(model, mask)
    assert fit(model, mask) == [0, 0, 0]
    assert np.count_nonzero(model.get_weights()[0]) == 0
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_any_weight_can_be_masked():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            keras.layers.Conv2D(3, 2, name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, name="dense"),
        ]
    )
    rng = np.random.default_rng(2)
    mask = Mask(
        {
            "conv/kernel": rng.random((2, 2, 2, 3)) < 0.5,
            "conv/bias": np.array([True, False, True]),
        }
    )
    model.compile("adam", "mse")
    attach(model, mask)
    watch = AfterBatch(mask)
    images = rng.normal(size=(8, 4, 4, 2))
    model.fit(images, Y[:8, :2], batch_size=4, verbose=0, callbacks=[watch])
    assert watch.found == [0, 0]
    assert np.count_nonzero(model.get_weights()[1]) == 2


def test_two_models_do_not_mix():
    one, two = compiled(), compiled()
    first, second = random_mask(0), random_mask(1)
    attach(one, first)
    attach(two, second)
    assert fit(one, first) == [0, 0, 0]
    assert fit(two, second) == [0, 0, 0]
    detach(one)
    assert attachment(two).mask == second
    assert fit(two, second) == [0, 0, 0]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"hidden/kernel": np.ones((6, 8), bool)}, "Expected a Mask, got dict"),
        (
            Mask({"hidden/kernel": np.ones((8, 6), bool)}),
            r"hidden/kernel: mask \(8, 6\), model \(6, 8\)",
        ),
        (Mask({"other": np.ones(3, bool)}), r"other: mask \(3,\), model none"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, message):
    model = compiled()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        attach(model, mask)
    assert not is_attached(model)
    assert_same(model.get_weights(), before)
    with pytest.raises(ValueError, match=message), masked(model, mask):
        pass
    assert not is_attached(model)


def test_what_needs_an_attached_mask_says_so():
    model = model_of()
    for function in (detach, attachment, lambda m: masked_gradients([], m)):
        with pytest.raises(ValueError, match="No mask is attached to"):
            function(model)
    attach(model, random_mask())
    detach(model)
    with pytest.raises(ValueError, match="call `lottery.attach"):
        detach(model)


def test_another_mask_can_replace_an_attached_one():
    model, one, two = compiled(), random_mask(0), random_mask(1)
    attach(model, one)
    fit(model)
    held = attachment(model)
    attach(model, two)
    assert attachment(model) is held
    assert non_zeros(model, two) == 0
    assert fit(model, two) == [0, 0, 0]
    assert non_zeros(model, one) > 0


def test_a_mask_of_other_weights_can_replace_an_attached_one():
    model, both = compiled(), random_mask()
    one = Mask({"output/kernel": random_mask(5)["output/kernel"]})
    attach(model, both)
    fit(model)
    attach(model, one)
    assert attachment(model).mask == one
    assert fit(model, one) == [0, 0, 0]
    removed = Mask({"hidden/kernel": both["hidden/kernel"]})
    assert non_zeros(model, removed) == removed.size - removed.kept
    attach(model, both)
    assert fit(model, both) == [0, 0, 0]
    detach(model)
    assert model.trainable_variables[0].constraint is None


def test_adopt():
    model, mask = compiled(), random_mask()
    named = weights.by_name(model)
    held = Attachment(
        {n: named[n] for n in mask},
        {n: bool_variable(np.ones(SHAPES[n], bool)) for n in mask},
    )
    assert enforce.adopt(model, held) is held
    with pytest.raises(ValueError, match="attached to .sequential.* already"):
        enforce.adopt(model, held)
    held.set(mask)
    held.hold(model.optimizer)
    held.hold(model.optimizer)
    assert fit(model, mask) == [0, 0, 0]
    detach(model)
    assert "apply" not in vars(model.optimizer)


# ------------------------------------------------- cached training functions


def test_attached_again_through_the_cached_function_of_keras():
    """Zeros after each batch, free in between, and no trace too many."""
    calls = []
    model = compiled(calls=calls)
    one, two = random_mask(0), random_mask(1)
    attach(model, one)
    assert fit(model, one) == [0, 0, 0]
    detach(model)
    fit(model)
    assert non_zeros(model, one) == one.size - one.kept
    traced = len(calls)
    for mask in (two, one, two):
        attach(model, mask)
        assert fit(model, mask) == [0, 0, 0]
        detach(model)
        fit(model)
        assert non_zeros(model, mask) == mask.size - mask.kept
    assert len(calls) == traced


def test_levels_trace_once():
    calls = []
    model, mask = compiled(calls=calls), random_mask()
    attach(model, mask)
    assert fit(model, mask) == [0, 0, 0]
    traced = len(calls)
    for seed in range(1, 4):
        mask = mask & random_mask(seed, 0.8)
        attachment(model).set(mask)
        assert fit(model, mask) == [0, 0, 0]
    attach(model, random_mask(9))
    assert fit(model, random_mask(9)) == [0, 0, 0]
    assert len(calls) == traced


def test_attached_after_training_without():
    calls = []
    model, mask = compiled(calls=calls), random_mask()
    fit(model)
    attach(model, mask)
    assert fit(model, mask) == [0, 0, 0]
    traced = len(calls)
    detach(model)
    attach(model, mask)
    assert fit(model, mask) == [0, 0, 0]
    assert len(calls) == traced


def test_attached_again_with_nothing_trained_under_the_first_mask():
    model, mask = compiled(), random_mask()
    attach(model, mask)
    detach(model)
    fit(model)
    attach(model, mask)
    assert fit(model, mask) == [0, 0, 0]


@pytest.mark.parametrize("size", [24, 20], ids=["other", "smaller last"])
def test_batches_of_a_new_shape_while_detached(size):
    """They make Keras's function trace anew, without the mask."""
    model, mask = compiled(), random_mask()
    attach(model, mask)
    assert fit(model, mask, batch_size=16) == [0, 0, 0]
    detach(model)
    fit(model, batch_size=size)
    attach(model, mask)
    assert set(fit(model, mask, batch_size=size)) == {0}
    assert set(fit(model, mask, batch_size=16)) == {0}


def test_compiled_anew_while_detached():
    model, mask = compiled("sgd"), random_mask()
    attach(model, mask)
    fit(model)
    detach(model)
    model.compile("adam", "mse")
    fit(model)
    attach(model, mask)
    assert fit(model, mask) == [0, 0, 0]
    assert "apply" in vars(model.optimizer)


def test_compiled_anew_while_attached_then_attached_again():
    """The new function trained with an optimizer that nobody held."""
    model, mask = compiled("sgd"), random_mask()
    attach(model, mask)
    averaged = keras.optimizers.SGD(0.1, use_ema=True)
    model.compile(averaged, "mse")
    fit(model)
    attach(model, mask)
    # Keras ends `fit` by putting the averages in place of the weights.
    assert fit(model, mask) == [0, 0, 0]
    assert non_zeros(model, mask) == 0


def test_compiled_only_after_attach_then_detached_and_attached_again():
    model, mask = model_of(), random_mask()
    attach(model, mask)
    model.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
    fit(model)
    detach(model)
    attach(model, mask)
    fit(model)
    assert non_zeros(model, mask) == 0


def test_a_model_that_was_trained_adopted_and_let_go():
    """As after `lottery.prune(model)`, its `fit`, and `strip()`."""
    model, mask = compiled(), random_mask()
    fit(model)
    named = weights.by_name(model)
    masks = {n: bool_variable(np.ones(SHAPES[n], bool)) for n in mask}
    enforce.adopt(model, Attachment({n: named[n] for n in mask}, masks))
    detach(model)
    with masked(model, mask):
        assert fit(model, mask) == [0, 0, 0]


def test_a_model_can_be_forgotten():
    def lost(hold):
        model = compiled()
        if hold:
            attach(model, random_mask())
        fit(model)
        if hold:
            detach(model)
        reference = weakref.ref(model)
        del model
        gc.collect()
        return reference() is None

    assert lost(hold=False)
    assert lost(hold=True)


# ---------------------------------------------------------- kinds of training


@pytest.mark.parametrize(
    "arguments",
    [{"steps_per_execution": 3}, {"run_eagerly": True}],
    ids=["three steps a call", "eagerly"],
)
def test_other_ways_to_fit(arguments):
    mask = random_mask()
    plain, other = compiled(), compiled(**arguments)
    for model in (plain, other):
        attach(model, mask)
    assert set(fit(plain, mask)) == {0}
    assert set(fit(other, mask)) == {0}
    for one, two in zip(plain.get_weights(), other.get_weights()):
        assert np.abs(one - two).max() < 1e-5


def test_train_on_batch():
    model, mask = compiled(), random_mask()
    attach(model, mask)
    before = model.get_weights()
    for _ in range(3):
        model.train_on_batch(X[:16], Y[:16])
        assert non_zeros(model, mask) == 0
    assert (model.get_weights()[0] != before[0]).sum() == mask.kept_by_name[
        "hidden/kernel"
    ]


def test_gradients_by_rows():
    model = keras.Sequential(
        [
            keras.Input((2,), dtype="int32"),
            keras.layers.Embedding(5, 3, name="embedding"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, name="output"),
        ]
    )
    kept = np.random.default_rng(3).random((5, 3)) < 0.5
    mask = Mask({"embedding/embeddings": kept})
    words, labels = np.array([[0, 1], [1, 1], [4, 2]]), Y[:3, :2]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(words) - labels))
    grads = tape.gradient(loss, model.trainable_variables)
    assert isinstance(grads[0], tf.IndexedSlices)
    start = model.get_weights()[0]

    for name in ("sgd", "adam"):
        optimizer = keras.optimizers.get(name)
        optimizer.build(model.trainable_variables)
        model.compile(optimizer, "mse")
        attach(model, mask)
        optimizer.apply(grads)
        moved = model.get_weights()[0] != start
        assert non_zeros(model, mask) == 0
        assert moved[0][kept[0]].all()
        watch = AfterBatch(mask)
        model.fit(words, labels, epochs=2, verbose=0, callbacks=[watch])
        assert watch.found == [0, 0]
        detach(model)
    assert (model.get_weights()[0][3] == np.where(kept[3], start[3], 0)).all()


@pytest.mark.parametrize(
    "arguments",
    [{}, {"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"use_ema": True}],
    ids=["plain", "clipnorm", "global_clipnorm", "ema"],
)
@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Adagrad"])
def test_an_infinite_gradient_of_a_removed_weight(name, arguments):
    """It counts as zero: no NaN, no clipping to nothing."""
    results = []
    for bad in (np.inf, np.nan, 0.0):
        model = compiled(getattr(keras.optimizers, name)(0.1, **arguments))
        mask = random_mask()
        attach(model, mask)
        grads = [g.numpy() for g in gradients_of(model)]
        for index, each in zip((0, 2), mask.values()):
            grads[index][~each] = bad
        model.optimizer.apply(
            [tf.constant(g) for g in grads], model.trainable_variables
        )
        assert non_zeros(model, mask) == 0
        results.append(model.get_weights())
    assert all(np.isfinite(w).all() for w in results[0])
    assert_same(results[0], results[2])
    assert_same(results[1], results[2])


def test_an_infinite_gradient_of_a_removed_weight_skips_no_scaled_step():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    model, mask = compiled(optimizer), random_mask()
    attach(model, mask)
    grads = [g.numpy() for g in gradients_of(model)]
    grads[0][~mask["hidden/kernel"]] = np.inf
    grads = [tf.constant(g) for g in grads]
    optimizer.apply(grads, model.trainable_variables)
    assert int(optimizer.iterations) == 1


def test_missing_gradients():
    optimizer = keras.optimizers.SGD(0.1)
    model, mask = compiled(optimizer), random_mask()
    attach(model, mask)
    before = model.get_weights()
    grads = gradients_of(model)
    grads[0] = None
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply(grads, model.trainable_variables)
    after = model.get_weights()
    assert (after[0] == before[0]).all()
    assert (after[2] != before[2]).sum() == mask.kept_by_name["output/kernel"]


def test_every_way_to_call_the_optimizer():
    results = []
    for way in ("list", "generator", "built", "pairs"):
        optimizer = keras.optimizers.SGD(0.1)
        model, mask = compiled(optimizer), random_mask()
        attach(model, mask)
        grads, variables = gradients_of(model), model.trainable_variables
        if way == "list":
            optimizer.apply(grads, variables)
        elif way == "generator":
            optimizer.apply(grads, (v for v in variables))
        elif way == "built":
            optimizer.build(variables)
            optimizer.apply(grads)
        else:
            optimizer.apply_gradients(zip(grads, variables))
        assert non_zeros(model, mask) == 0
        results.append(model.get_weights())
    for result in results[1:]:
        assert_same(result, results[0])


def test_some_variables_only():
    optimizer = keras.optimizers.SGD(0.1)
    model, mask = compiled(optimizer), random_mask()
    attach(model, mask)
    before = model.get_weights()
    optimizer.build(model.trainable_variables)
    grads = gradients_of(model)
    optimizer.apply([grads[2]], [model.trainable_variables[2]])
    after = model.get_weights()
    changed = [int((a != b).sum()) for a, b in zip(after, before)]
    assert changed == [0, 0, mask.kept_by_name["output/kernel"], 0]


@pytest.mark.parametrize(
    "name",
    [n for n in ("SGD", "Adam", "Muon") if hasattr(keras.optimizers, n)],
)
def test_a_kernel_constraint_of_the_users_own(name):
    optimizer = getattr(keras.optimizers, name)(0.1)
    model = compiled(optimizer, constraint=keras.constraints.UnitNorm())
    mask = random_mask(density=0.7)
    assert mask["hidden/kernel"].any(axis=0).all()
    attach(model, mask)
    for rows in (slice(0, 16), slice(16, 32), slice(32, 48)):
        model.optimizer.apply(
            gradients_of(model, rows), model.trainable_variables
        )
        assert non_zeros(model, mask) == 0
        norms = np.linalg.norm(model.get_weights()[0], axis=0)
        assert np.abs(norms - 1.0).max() < 1e-5


def test_a_custom_loop_with_an_optimizer_of_its_own():
    """Masked gradients under clipping and averages equal a held optimizer."""

    def optimizer_of():
        return keras.optimizers.Adam(0.05, global_clipnorm=0.1)

    mask = random_mask()
    model, held = model_of(), compiled(optimizer_of())
    attach(model, mask)
    attach(held, mask)
    optimizer = optimizer_of()
    optimizer.build(model.trainable_variables)
    traces = []

    @tf.function
    def step(x, y):
        traces.append(1)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x) - y))
        grads = tape.gradient(loss, model.trainable_variables)
        grads = masked_gradients(grads, model)
        optimizer.apply(grads, model.trainable_variables)

    for first in (0, 16, 32, 0, 16):
        rows = slice(first, first + 16)
        step(X[rows], Y[rows])
        assert non_zeros(model, mask) == 0
        held.optimizer.apply(gradients_of(held, rows), held.trainable_variables)
    for one, two in zip(model.get_weights(), held.get_weights()):
        assert np.abs(one - two).max() < 1e-6

    smaller = mask & random_mask(4)
    attachment(model).set(smaller)
    for first in (0, 16):
        step(X[first : first + 16], Y[first : first + 16])
        assert non_zeros(model, smaller) == 0
    assert len(traces) == 1


def test_masked_gradients():
    model = model_of()
    mask = Mask({"output/kernel": random_mask()["output/kernel"]})
    attach(model, mask)
    given = [tf.ones(v.shape) for v in model.trainable_variables]
    found = masked_gradients(given, model)
    assert [f is g for f, g in zip(found, given)] == [True, True, False, True]
    assert (found[2].numpy() == mask["output/kernel"]).all()
    assert masked_gradients([None] * 4, model) == [None] * 4
    with pytest.raises(ValueError, match="each of the 4 trainable .* got 3"):
        masked_gradients(given[:3], model)


def test_a_frozen_weight_stays_zero_and_is_no_gradient():
    model, mask = model_of(), random_mask()
    model.get_layer("hidden").trainable = False
    model.compile("adam", "mse")
    attach(model, mask)
    frozen = model.get_layer("hidden").kernel.numpy()
    assert fit(model, mask) == [0, 0, 0]
    assert (model.get_layer("hidden").kernel.numpy() == frozen).all()
    given = [tf.ones(v.shape) for v in model.trainable_variables]
    assert len(masked_gradients(given, model)) == 2


def test_saved_while_attached(tmp_path):
    model, mask = compiled(), random_mask()
    model = keras.Sequential(
        [keras.Input((6,)), *[each for each in model.layers if each.weights]]
    )
    model.compile("adam", "mse")
    attach(model, mask)
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded.get_weights(), model.get_weights())
    assert not is_attached(loaded)
    assert "apply" not in vars(loaded.optimizer)
    assert loaded.trainable_variables[0].constraint is None
    attach(loaded, mask)
    assert fit(loaded, mask) == [0, 0, 0]


# ------------------------------------------------------------- changing masks


def test_slots_of_removed_weights_go_back_to_what_they_were_when_built():
    model = compiled(keras.optimizers.Adagrad(0.1))
    attach(model, random_mask(0, 0.9))
    fit(model)
    mask = random_mask(0, 0.5)
    attachment(model).set(mask)
    slots = {tuple(v.shape): v.numpy() for v in model.optimizer.variables}
    for kept in mask.values():
        slot = slots[kept.shape]
        assert (slot[~kept] == np.float32(0.1)).all()
        assert (slot[kept] > np.float32(0.1)).all()


class OwnSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """As users write them: no `get_config`, not registered."""

    def __call__(self, step):
        return 0.1


@pytest.mark.parametrize(
    "rate", [OwnSchedule(), lambda: 0.1], ids=["schedule", "function"]
)
def test_a_learning_rate_that_does_not_serialize(rate):
    model = compiled(keras.optimizers.SGD(rate, momentum=0.9))
    attach(model, random_mask())
    fit(model)
    mask = random_mask(0, 0.2)
    attachment(model).set(mask)
    assert fit(model, mask) == [0, 0, 0]


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "Muon"), reason="this Keras has no Muon"
)
def test_muon_that_leaves_a_layer_to_adam():
    model = compiled(keras.optimizers.Muon(0.01, exclude_layers=["output"]))
    attach(model, random_mask())
    fit(model)
    mask = random_mask(0, 0.2)
    attachment(model).set(mask)
    assert fit(model, mask) == [0, 0, 0]


def test_held_optimizers_all_follow_a_mask():
    model, mask = model_of(), random_mask()
    attach(model, mask)
    optimizers = [keras.optimizers.Adam(0.1), keras.optimizers.Adagrad(0.1)]
    for optimizer in optimizers:
        optimizer.build(model.trainable_variables)
        attachment(model).hold(optimizer)
    for step in range(4):
        optimizers[step % 2].apply(gradients_of(model))
        assert non_zeros(model, mask) == 0
    smaller = mask & random_mask(3)
    attachment(model).set(smaller)
    for step in range(4):
        optimizers[step % 2].apply(gradients_of(model))
        assert non_zeros(model, smaller) == 0
    detach(model)
    assert all("apply" not in vars(each) for each in optimizers)


# ------------------------------------------------------------- masked(...)


def test_masked_holds_inside_and_lets_go():
    model, mask = compiled(), random_mask()
    with masked(model, mask) as inside:
        assert inside is model
        assert attachment(model).mask == mask
        assert fit(model, mask) == [0, 0, 0]
    assert not is_attached(model)
    assert non_zeros(model, mask) == 0
    assert "apply" not in vars(model.optimizer)


def test_masked_lets_go_after_an_error():
    model, mask = compiled(), random_mask()
    with pytest.raises(KeyError, match="inside"), masked(model, mask):
        fit(model)
        raise KeyError("inside")
    assert not is_attached(model)
    assert non_zeros(model, mask) == 0
    assert model.trainable_variables[0].constraint is None
    with masked(model, mask):
        assert fit(model, mask) == [0, 0, 0]


def test_masked_zeroes_what_was_written_inside():
    model, mask = compiled(), random_mask()
    with pytest.warns(InexactMaskWarning, match=r"hidden/kernel \(\d+\)"):
        with masked(model, mask):
            model.set_weights([np.ones(w.shape) for w in model.get_weights()])
    assert non_zeros(model, mask) == 0
    assert (
        np.count_nonzero(model.get_weights()[0])
        == mask.kept_by_name["hidden/kernel"]
    )


def test_masked_does_not_nest():
    model, mask = compiled(), random_mask()
    with masked(model, mask):
        with pytest.raises(ValueError, match="attached to .* already"):
            with masked(model, random_mask(1)):
                pass
        assert attachment(model).mask == mask
    assert not is_attached(model)


def test_detached_inside_masked():
    model, mask = compiled(), random_mask()
    with masked(model, mask):
        detach(model)
    assert not is_attached(model)


BYPASSING = {
    "clipnorm": lambda: keras.optimizers.SGD(0.1, clipnorm=0.1),
    "global_clipnorm": lambda: keras.optimizers.Adam(global_clipnorm=0.1),
    "use_ema": lambda: keras.optimizers.SGD(0.1, use_ema=True),
    "Lamb": lambda: keras.optimizers.Lamb(0.1),
    "Adafactor": lambda: keras.optimizers.Adafactor(0.1),
}


@pytest.mark.parametrize("cause", BYPASSING)
def test_an_optimizer_compiled_inside_masked_is_warned_about(cause):
    model, mask = compiled(), random_mask()
    with pytest.warns(InexactMaskWarning, match=f"with {cause} the kept"):
        with masked(model, mask):
            model.compile(BYPASSING[cause](), "mse")
            assert fit(model, mask) == [0, 0, 0]
    assert not is_attached(model)
    assert non_zeros(model, mask) == 0


def test_the_warning_names_every_cause_of_a_wrapped_optimizer():
    inner = keras.optimizers.SGD(0.1, clipnorm=0.1, use_ema=True)
    model = compiled()
    with pytest.warns(InexactMaskWarning, match="with clipnorm, use_ema the"):
        with masked(model, random_mask()):
            scaled = keras.optimizers.LossScaleOptimizer(inner)
            model.compile(scaled, "mse")


def test_the_warning_as_an_error_leaves_no_mask_behind():
    model, mask = compiled(), random_mask()
    with warnings.catch_warnings():
        warnings.simplefilter("error", InexactMaskWarning)
        with pytest.raises(InexactMaskWarning):
            with masked(model, mask):
                model.compile(BYPASSING["clipnorm"](), "mse")
    assert not is_attached(model)
    assert "apply" not in vars(model.optimizer)


@pytest.mark.parametrize("compiling", ["never", "before", "inside"])
def test_no_warning_where_training_is_exact(compiling):
    model = model_of()
    if compiling == "before":
        model.compile(BYPASSING["clipnorm"](), "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with masked(model, random_mask()):
            if compiling == "inside":
                model.compile(keras.optimizers.Adam(), "mse")


def test_an_error_inside_is_not_hidden_by_the_warning():
    model = compiled()
    with contextlib.suppress(KeyError), warnings.catch_warnings():
        warnings.simplefilter("error")
        with masked(model, random_mask()):
            model.compile(BYPASSING["clipnorm"](), "mse")
            raise KeyError
    assert not is_attached(model)
