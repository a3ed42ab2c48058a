"""The step loop trains as Keras's `fit` does, and traces once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.training import enforce
from keras_lottery.training import loop
from keras_lottery.training import state
from keras_lottery.training.array_feed import ArrayFeed

ROWS, FEATURES, CLASSES = 53, 6, 3


def network(optimizer="adam", dropout=0.0):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(8, activation="tanh", name="hidden"),
            keras.layers.Dropout(dropout, seed=4),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(CLASSES, name="output"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model


def data(seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS, FEATURES)).astype("f")
    return x, generator.integers(0, CLASSES, ROWS)


def feed(batch_size=10, seed=3, steps=None, **more):
    return ArrayFeed(data(), batch_size, steps, True, seed, **more)


def trained_by_keras(model, given, epochs):
    given.start_epoch(0)

    class Start(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            given.start_epoch(epoch * given.per_epoch)

    return model.fit(
        **given.arguments(0), epochs=epochs, verbose=0, callbacks=[Start()]
    ).history


def values(model):
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


def trained(model, given, last, first=0, per_call=None):
    steps = loop.StepLoop(model)
    if per_call:
        steps._per_call = per_call
        steps._pace = lambda count, seconds: None
    logs = {}
    while first < last:
        end = min((first // given.per_epoch + 1) * given.per_epoch, last)
        model.reset_metrics()
        logs = steps.run(given, first, end)
        first = end
    return logs


@pytest.mark.parametrize("batch_size", [10, 53, 60])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_it_trains_as_keras_does(optimizer, batch_size):
    given = feed(batch_size)
    expected = network(optimizer, dropout=0.3)
    history = trained_by_keras(expected, given, 4)
    found = network(optimizer, dropout=0.3)
    logs = trained(found, given, 4 * given.per_epoch)
    for one, other in zip(values(found), values(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    for name, column in history.items():
        assert logs[name] == pytest.approx(column[-1], rel=1e-5)


@pytest.mark.parametrize("per_call", [1, 2, 7, 100])
def test_how_steps_are_cut_into_calls_changes_nothing(per_call):
    expected, found = network(dropout=0.3), network(dropout=0.3)
    given = feed(steps=9)
    first = trained(expected, given, 31)
    logs = trained(found, given, 31, per_call=per_call)
    assert logs == first
    for one, other in zip(values(found), values(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_it_goes_on_from_any_step():
    expected, found = network(), network()
    given = feed(steps=9)
    trained(expected, given, 31)
    for first, last in [(0, 4), (4, 5), (5, 20), (20, 31)]:
        trained(found, given, last, first=first)
    for one, other in zip(values(found), values(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_trace_serves_all_feeds_and_masks():
    model = network()
    mask = lottery.find_mask(model, 0.5)
    before = state.snapshot(model, model.optimizer)
    with enforce.masked(model, mask):
        steps = loop.of(model)
        steps.run(feed(seed=1), 0, 12)
        (function,) = steps._programs.values()
        for seed in (2, 3):
            state.restore(before, model, model.optimizer)
            enforce.attachment(model).set(lottery.find_mask(model, 0.8))
            assert loop.of(model) is steps
            steps.run(feed(seed=seed), 5, 12)
        assert list(steps._programs.values()) == [function]
        assert function.experimental_get_tracing_count() == 1
        kernel = model.get_layer("hidden").kernel.numpy()
        removed = ~enforce.attachment(model).mask["hidden/kernel"]
        assert removed.any() and not kernel[removed].any()


def test_masks_that_come_and_go_have_loops_of_their_own():
    model = network()
    without = loop.of(model)
    mask = lottery.find_mask(model, 0.5)
    with enforce.masked(model, mask):
        under = loop.of(model)
        assert under is not without
    assert loop.of(model) is without
    with enforce.masked(model, mask):
        assert loop.of(model) is under
    model.compile("sgd", "mse")
    assert loop.of(model) is not without


def test_other_seeds_give_other_batches():
    results = []
    for seed in (1, 1, 2):
        model = network()
        trained(model, feed(seed=seed), 12)
        results.append(np.concatenate([v.ravel() for v in model.get_weights()]))
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_batches_are_augmented_by_step_and_seed():
    def noisy(inputs, seed):
        return inputs + tf.random.stateless_normal(tf.shape(inputs), seed)

    plain, first, again = network(), network(), network()
    trained(plain, feed(), 8)
    trained(first, feed(augment=noisy), 8)
    trained(again, feed(augment=noisy), 8, per_call=3)
    kernels = [
        m.get_layer("hidden").kernel.numpy() for m in (plain, first, again)
    ]
    assert not np.allclose(kernels[0], kernels[1])
    np.testing.assert_array_equal(kernels[1], kernels[2])


def test_a_step_of_ones_own_is_run_and_its_logs_are_told():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.out = keras.layers.Dense(CLASSES)
            self.seen = self.add_weight(
                shape=(), initializer="zeros", trainable=False
            )

        def call(self, inputs):
            return self.out(inputs)

        def train_step(self, data):
            self.seen.assign_add(1.0)
            logs = super().train_step(data)
            return {"steps": self.seen.value * 1.0, **logs}

    model = Own()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    model(np.zeros((1, FEATURES), "f"))
    model.optimizer.build(model.trainable_variables)
    told = []
    loop.StepLoop(model).run(
        feed(), 0, 11, lambda step, logs: told.append((step, logs["steps"]))
    )
    assert told[-1] == (11, 11.0)
    assert [step for step, _ in told] == [int(count) for _, count in told]


def test_calls_last_about_a_quarter_of_a_second():
    steps = loop.StepLoop(network())
    for _ in range(20):
        steps._pace(steps._per_call, 0.001 * steps._per_call)  # 1 ms a step
    assert steps._per_call == 250
    steps._pace(250, 2.5)  # the machine got slower
    assert steps._per_call == 25
    steps._pace(25, 300.0)
    assert steps._per_call == 1


def test_what_is_told_after_every_call_may_stop_it():
    def stop(step, logs):
        assert np.isfinite(logs["loss"])
        raise KeyboardInterrupt

    steps = loop.StepLoop(network())
    with pytest.raises(KeyboardInterrupt):
        steps.run(feed(), 0, 1000, stop)


def test_running_out_of_range_in_a_step_on_arrays_is_an_error():
    """Not the end of a stream: nothing would be trained, for ever."""
    model, given = network(), feed()
    steps = loop.StepLoop(model)

    def out_of_range(*unused):
        raise tf.errors.OutOfRangeError(None, None, "an index of one's own")

    steps._programs[given.key] = out_of_range
    with pytest.raises(tf.errors.OutOfRangeError, match="one's own"):
        steps.run(given, 0, 5)
