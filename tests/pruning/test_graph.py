"""How layers are called, and that looking at it leaves no trace."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_lottery.pruning import graph


def called(model, layer):
    """Returns (inputs, outputs, times) of every call of `layer`."""
    return [tuple(c)[1:] for c in graph.calls(model) if c.layer is layer]


def test_sequential_and_functional_give_shapes_of_one_sample():
    dense = layers.Dense(2)
    sequential = keras.Sequential([keras.Input((4,)), dense])
    assert called(sequential, dense) == [(((1, 4),), ((1, 2),), 1)]
    inputs = keras.Input((4,), batch_size=32)
    functional = keras.Model(inputs, dense(inputs))
    assert called(functional, dense) == [(((1, 4),), ((1, 2),), 1)]


def test_nested_and_shared_layers_have_every_call():
    shared = layers.Dense(3)
    block = keras.Sequential([keras.Input((3,)), shared])
    inputs = keras.Input((5, 3))
    x = shared(inputs[:, 0])
    model = keras.Model(inputs, [block(block(x)), shared(inputs)])
    flat, sequence = ((1, 3),), ((1, 5, 3),)
    assert sorted(called(model, shared)) == [
        (flat, flat, 1),
        (flat, flat, 1),
        (flat, flat, 1),
        (sequence, sequence, 1),
    ]
    assert len(called(model, block)) == 2
    assert graph.calls(model)[0].layer is model


@pytest.mark.filterwarnings("error")
def test_dict_and_list_inputs():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    add = layers.Add()
    out = add([layers.Dense(4)(b), layers.Dense(4)(a)])
    for inputs in ({"b": b, "a": a}, [a, b]):
        model = keras.Model(inputs, out)
        assert called(model, add) == [(((1, 4), (1, 4)), ((1, 4),), 1)]


class TwoInputs(keras.Model):
    """Subclassed: a dict in, and a layer that is never called."""

    def __init__(self):
        super().__init__()
        self.left = layers.Dense(3)
        self.right = layers.Dense(3)
        self.idle = layers.Dense(3)
        self.idle.build((None, 7))

    def call(self, x):
        return self.left(x["a"])[:, None] + self.right(x["b"])


def test_subclassed_model_is_read_on_the_shapes_it_was_built_on():
    model = TwoInputs()
    assert graph.calls(model) is None
    model({"a": np.ones((5, 4)), "b": np.ones((5, 6, 4))})
    assert called(model, model.right) == [(((1, 6, 4),), ((1, 6, 3),), 1)]
    assert called(model, model.idle) == []


class TwoArguments(keras.Model):
    def build(self, x_shape, y_shape):
        self.dense = layers.Dense(2)
        self.dense.build(x_shape)

    def call(self, x, y):
        return self.dense(x) + y


class Lookup(keras.Model):
    """Takes integers only."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(tf.gather(tf.eye(9), x))


def test_subclassed_models_of_two_arguments_and_of_integers():
    model = TwoArguments()
    model(np.ones((5, 4)), np.ones((5, 2)))
    assert called(model, model.dense) == [(((1, 4),), ((1, 2),), 1)]
    model = Lookup()
    model(np.ones((5, 3), "int32"))
    assert called(model, model.dense) == [(((1, 3, 9),), ((1, 3, 2),), 1)]


def test_open_shapes_are_unknown():
    sequence = keras.Sequential([keras.Input((None, 3)), layers.GRU(2)])
    assert graph.input_specs(sequence) is None
    assert graph.calls(sequence) is None


@pytest.mark.parametrize("unroll", [False, True])
def test_recurrent_cells_run_at_every_step(unroll):
    cells = [layers.LSTMCell(4), layers.GRUCell(5)]
    rnn = layers.RNN(cells, unroll=unroll)
    model = keras.Sequential([keras.Input((7, 3)), rnn])
    (inputs, _, times), *others = called(model, cells[1])
    assert inputs[0] == (1, 4)
    assert (times, others) == (7, [])


def fused(self, sequences, initial_state, **unused):
    """As on a GPU: a kernel that calls no cell."""
    return initial_state[0], sequences, initial_state


def test_steps_multiply_and_fused_kernels_are_counted(monkeypatch):
    rnn = layers.LSTM(4)
    outer = layers.TimeDistributed(rnn)
    model = keras.Sequential([keras.Input((6, 7, 3)), outer])
    ((inputs, _, times),) = called(model, rnn.cell)
    assert (inputs[0], times) == ((1, 3), 42)
    monkeypatch.setattr(layers.LSTM, "inner_loop", fused)
    assert called(model, rnn.cell) == [(((1, 3),), (), 42)]


class Loop(layers.Layer):
    """Runs a layer in a loop or in a branch of its own."""

    def __init__(self, run):
        super().__init__()
        self.dense = layers.Dense(3)
        self.run = run

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.run(self.dense, x)


@pytest.mark.parametrize(
    "run",
    [
        lambda f, x: keras.ops.fori_loop(0, 5, lambda i, y: f(y), x),
        lambda f, x: tf.cond(tf.reduce_sum(x) > 0, lambda: f(x), lambda: x),
    ],
)
def test_loops_and_branches_of_ones_own_are_unknown(run):
    loop = Loop(run)
    model = keras.Sequential([keras.Input((3,)), loop])
    assert [call[2] for call in called(model, loop.dense)] == [None]
    assert [call[2] for call in called(model, loop)] == [1]


class Touchy(layers.Layer):
    """Does in `call` what leaves traces, and fails on demand."""

    fail = False

    def call(self, x):
        self.seen = x
        self.add_loss(keras.ops.sum(x))
        if self.fail:
            raise RuntimeError("asked to fail")
        return x


@pytest.mark.parametrize("fail", [False, True])
def test_the_model_is_left_as_it_was(fail):
    touchy, dropout = Touchy(), layers.Dropout(0.5)
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            touchy,
            layers.LSTM(4, dropout=0.5, activity_regularizer="l2"),
            dropout,
        ]
    )
    model(np.ones((2, 5, 3)), training=True)
    touchy.fail = fail
    everything = model._flatten_layers()
    before = [dict(vars(layer)) for layer in everything]
    variables = [v.numpy() for v in model.variables]
    losses = [float(loss) for loss in model.losses]

    assert (graph.calls(model) is None) == fail

    for layer, attributes in zip(everything, before, strict=True):
        assert vars(layer).keys() == attributes.keys()
        assert all(vars(layer)[k] is v for k, v in attributes.items())
        assert "call" not in vars(layer)
    assert [float(loss) for loss in model.losses] == losses
    assert len(losses) == 2
    for variable, value in zip(model.variables, variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert dropout.seed_generator.state.numpy().any()


def test_a_call_of_the_users_own_is_put_back():
    dense = layers.Dense(2)
    model = keras.Sequential([keras.Input((4,)), dense])
    original = dense.call

    def own(x, training=None):
        return 2 * original(x, training)

    dense.call = own
    assert len(called(model, dense)) == 1
    assert dense.call is own
