"""A lottery is the same on one device and on several.

Issue 6: a tanh network, the same global batch, no normalisation, 50 steps a
level; identical masks for 2 levels, weights to 1e-5.
"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery

ROWS, BATCH = 161, 32  # 5 whole batches, and one of a single row
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 10)).astype("f")
Y = X[:, :3].argmax(1)
VALIDATION = X[:23], Y[:23]
LEVEL = {"steps_per_epoch": 25, "epochs": 2, "verbose": 0}  # 50 steps

adam = functools.partial(keras.optimizers.Adam, 0.01)
sgd = functools.partial(keras.optimizers.SGD, 0.1, momentum=0.9)
rmsprop = functools.partial(keras.optimizers.RMSprop, 0.01)
amsgrad = functools.partial(keras.optimizers.Adam, 0.01, amsgrad=True)
OPTIMIZERS = {  # fused updates: Adam's and SGD's; Keras's own: the others
    "Adam": adam,
    "Adam, global_clipnorm": functools.partial(adam, global_clipnorm=0.3),
    "Adam, clipvalue": functools.partial(adam, clipvalue=0.02),
    "SGD": sgd,
    "SGD, clipnorm": functools.partial(sgd, clipnorm=0.2),
    "RMSprop": rmsprop,
    "RMSprop, clipnorm": functools.partial(rmsprop, clipnorm=0.1),
    "RMSprop, clipvalue": functools.partial(rmsprop, clipvalue=0.02),
    "AMSGrad, global_clipnorm": functools.partial(amsgrad, global_clipnorm=0.3),
}
QUICK = ("Adam, global_clipnorm", "RMSprop, clipnorm")
OF_FOUR = ("Adam, global_clipnorm", "SGD, clipnorm")


def tanh_network():
    return keras.Sequential(
        [
            keras.Input((10,)),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.Dense(3),
        ]
    )


def batches(shuffled=False, repeated=True):
    rows = tf.data.Dataset.from_tensor_slices((X, Y))
    if shuffled:
        rows = rows.shuffle(ROWS, seed=1)
    found = rows.batch(BATCH)
    return found.repeat() if repeated else found


@pytest.fixture(scope="module")
def play(devices):
    """Returns a function that plays on so many devices, once for a key."""
    played = {}

    def of(several, optimizer="Adam", data="arrays", **choices):
        key = (several, optimizer, data, *choices.items())
        if key not in played:
            made = OPTIMIZERS[optimizer]
            pruned = devices.pruned(several, tanh_network, made, **choices)
            if data == "arrays":
                pruned.fit(X, Y, batch_size=BATCH, **LEVEL)
            elif data == "validated":
                pruned.fit(
                    *(X, Y),
                    batch_size=BATCH,
                    validation_data=VALIDATION,
                    **LEVEL,
                )
            elif data == "stream":
                pruned.fit(batches(), **LEVEL)
            else:
                held_out = batches().take(7)
                pruned.fit(batches(), validation_data=held_out, **LEVEL)
            played[key] = pruned
        return played[key]

    return of


def cases():
    for name in OPTIMIZERS:
        for several in (2, 4) if name in OF_FOUR else (2,):
            quick = name in QUICK and several == 2
            marks = [] if quick else [pytest.mark.thorough]
            yield pytest.param(name, several, marks=marks)


@pytest.mark.parametrize("name, several", list(cases()))
def test_as_on_one_device(play, same, name, several):
    one, many = play(1, name), play(several, name)
    assert [t.mask.kept for t in one.tickets] == [104, 73, 51]
    same.all(one, many)


@pytest.mark.parametrize("name", ["Adam, global_clipnorm", "SGD, clipnorm"])
def test_as_a_loop_by_hand(play, name):
    """Keras's optimizer on gradients of whole batches, masked by products."""
    tickets = play(2, name, "stream").tickets
    assert len(tickets) == 3
    for ticket in tickets:
        found = trained_by_hand(ticket, OPTIMIZERS[name]())
        for weight_name, value in ticket.weights("end").items():
            np.testing.assert_allclose(
                found[weight_name], value, 0, 1e-5, err_msg=weight_name
            )


def trained_by_hand(ticket, optimizer):
    """Trains 50 batches of `batches()` from the start of a ticket."""
    model = tanh_network()
    kernels = {f"{each.name}/kernel": each.kernel for each in model.layers}
    start = dict(zip(ticket.mask, kernels, strict=True))
    masks = {}
    for weight_name, kernel_name in start.items():
        kernel = kernels[kernel_name]
        masks[kernel.path] = ticket.mask[weight_name].astype("f")
        kernel.assign(ticket.weights("start")[weight_name])
    trained = model.trainable_variables
    ones = np.float32(1)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            logits = model(x)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            )
        gradients = tape.gradient(loss, [v.value for v in trained])
        pairs = zip(gradients, trained, strict=True)
        optimizer.apply(
            [g * masks.get(v.path, ones) for g, v in pairs], trained
        )
        for variable in trained:
            variable.assign(variable * masks.get(variable.path, ones))

    optimizer.build(trained)
    for x, y in batches().take(50):
        step(x, y)
    return {name: kernels[start[name]].numpy() for name in start}


@pytest.mark.thorough
def test_streams_and_what_they_measure(play, same):
    one, many = play(1, "Adam", "dataset"), play(2, "Adam", "dataset")
    same.all(one, many)
    assert len(one.history.history["val_loss"]) == 6


@pytest.mark.parametrize(
    "several", [2, pytest.param(4, marks=pytest.mark.thorough)]
)
def test_validation_on_arrays(play, same, several):
    one, many = play(1, "SGD", "validated"), play(several, "SGD", "validated")
    same.all(one, many)
    assert len(one.history.history["val_accuracy"]) == 6


@pytest.mark.thorough
def test_one_pass_over_a_dataset_an_epoch(devices, same):
    """Its last batch has one row: three of four replicas have none."""
    played = []
    for several in (1, 4):
        pruned = devices.pruned(several, tanh_network, sgd, levels=1)
        pruned.fit(batches(True, repeated=False), epochs=3, verbose=0)
        assert pruned.optimizer.iterations.numpy() == 18
        played.append(pruned)
    same.all(*played)


@pytest.mark.thorough
def test_rewinding_to_a_step_inside_an_epoch(play, same):
    """Both kinds of input start level 1 at step 7."""
    for data in ("arrays", "stream"):
        choices = {"rewind_step": 7, "levels": 1}
        one = play(1, "Adam", data, **choices)
        many = play(2, "Adam", data, **choices)
        same.all(one, many)
        first, last = many.tickets
        assert many.optimizer.iterations.numpy() == 50
        for name, value in first.start.items():
            np.testing.assert_array_equal(last.start[name], value)


def test_masks_differ_where_data_does(play, devices):
    """What is compared above can differ: another order, another mask."""
    other = devices.pruned(1, tanh_network, OPTIMIZERS["Adam, global_clipnorm"])
    other.fit(X[::-1].copy(), Y[::-1].copy(), batch_size=BATCH, **LEVEL)
    one = play(1, "Adam, global_clipnorm")
    masks = [each.tickets[2].mask for each in (one, other)]
    assert any((masks[0][n] != masks[1][n]).any() for n in masks[0])


@pytest.mark.thorough
def test_keras_trains_otherwise(devices):
    """Stock Keras clips each replica's gradient: why gradients are ours."""
    ends = []
    for several in (1, 2):
        model = devices.build(several, tanh_network)
        with devices.scope(several):
            model.compile(
                OPTIMIZERS["SGD, clipnorm"](),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            )
        model.fit(batches(), steps_per_epoch=25, verbose=0)
        ends.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    assert np.abs(ends[0] - ends[1]).max() > 1e-3


@pytest.mark.thorough
def test_a_ticket_goes_on_elsewhere(play, devices, tmp_path):
    """Found on two devices, trained on one: the same ticket again."""
    found = play(2, "SGD").tickets
    assert found[1].mask.kept == 73
    path = tmp_path / "ticket.safetensors"
    found[1].save(path)
    one = devices.pruned(1, tanh_network, sgd)
    one.continue_from(lottery.Ticket.load(path))
    one.fit(X, Y, batch_size=BATCH, **LEVEL)
    (last,) = one.tickets
    for name in last.mask:
        np.testing.assert_array_equal(last.mask[name], found[2].mask[name])
        np.testing.assert_allclose(
            last.weights()[name], found[2].weights()[name], 0, 1e-5
        )


def test_a_ticket_restores_on_one_device(play, devices):
    many = play(2, "Adam, global_clipnorm")
    plain = devices.build(1, tanh_network, seed=5)
    many.tickets[-1].restore(plain)
    assert not np.array_equal(plain.predict(X[:3], verbose=0), 0)
    np.testing.assert_allclose(
        plain.predict(X, verbose=0), many.predict(X, verbose=0), 0, 1e-6
    )
    for mine, theirs in zip(
        plain.get_weights(), many.inner.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
