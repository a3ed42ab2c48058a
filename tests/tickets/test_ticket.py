"""Tickets as values: their weights, and models they are restored into."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.pruning import weights
from keras_lottery.tickets import ticket as tickets

# What stands for a training here writes into removed weights.
pytestmark = pytest.mark.filterwarnings("ignore:Removed weights")


def network(units=3, names=("hidden", "output"), **more):
    """Returns a new network of random weights."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(units, name=names[0], **more),
            keras.layers.BatchNormalization(name="norm", **more),
            keras.layers.Dropout(0.5, name="drop", seed=3),
            keras.layers.Dense(2, name=names[1], **more),
        ],
        name="net",
    )


def values(model):
    """Returns every variable by name."""
    return {n: v.numpy().copy() for n, v in weights.by_name(model).items()}


def trained(model, mask):
    """Returns a ticket whose end is its start plus one."""
    ticket = tickets.capture(model, mask, level=1)
    with lottery.masked(model, mask):
        for variable in weights.by_name(model).values():
            if "float" in str(variable.dtype):
                variable.assign(variable + 1)
    end, end_state = tickets.ended(model, mask)
    return dataclasses.replace(ticket, end=end, end_state=end_state)


@pytest.fixture
def played():
    """Returns (ticket, all variables at its start, all at its end)."""
    model = network()
    start = values(model)
    mask = lottery.find_mask(model, 0.5)
    ticket = trained(model, mask)
    return ticket, start, values(model)


def test_what_it_holds(played):
    """The start whole, of the end only what is kept, all other variables."""
    ticket, start, end = played
    mask = ticket.mask
    assert set(ticket.start) == {"hidden/kernel", "output/kernel"}
    assert set(ticket.start_state) == set(start) - set(ticket.start)
    assert "drop/seed" in ticket.start_state
    assert "norm/moving_variance" in ticket.end_state
    for name, value in {**ticket.start, **ticket.start_state}.items():
        assert value.tobytes() == start[name].tobytes()
    for name in mask:
        assert ticket.end[name].tobytes() == end[name][mask[name]].tobytes()
        assert ticket.end[name].shape == (mask.kept_by_name[name],)
    for name, value in ticket.end_state.items():
        assert value.tobytes() == end[name].tobytes()
    assert (ticket.density, ticket.sparsity) == (0.5, 0.5)


def test_weights(played):
    """Whole, zeros included."""
    ticket, start, end = played
    for name, mask in ticket.mask.items():
        masked = np.where(mask, start[name], np.float32(0))
        assert ticket.weights("start")[name].tobytes() == masked.tobytes()
        masked = np.where(mask, end[name], np.float32(0))
        assert ticket.weights("end")[name].tobytes() == masked.tobytes()
        assert ticket.weights()[name].tobytes() == masked.tobytes()
        assert ticket.weights("end")[name].dtype == np.float32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes(dtype):
    """Of weights; statistics and seeds have their own."""
    model = network(dtype=dtype)
    ticket = trained(model, lottery.find_mask(model, 0.5))
    assert {str(v.dtype) for v in ticket.weights("end").values()} == {dtype}
    assert {str(v.dtype) for v in ticket.weights("start").values()} == {dtype}
    other = ticket.restore(network(dtype=dtype))
    for name, value in values(other).items():
        expected = {**ticket.weights("end"), **ticket.end_state}[name]
        assert value.tobytes() == expected.tobytes()


@pytest.mark.parametrize("which", ["start", "end"])
def test_restore(played, which):
    """By name, into a model just built; zeros, statistics and seeds too."""
    ticket, start, end = played
    model = network()
    assert ticket.restore(model, which) is model
    state = ticket.start_state if which == "start" else ticket.end_state
    expected = {**ticket.weights(which), **state}
    assert set(expected) == set(start)
    for name, value in values(model).items():
        assert value.tobytes() == expected[name].tobytes()


def test_restore_is_not_bound_to_the_model(played):
    """Training on does not change the ticket; nothing is attached."""
    ticket, _, end = played
    before = {n: v.copy() for n, v in ticket.weights("end").items()}
    model = ticket.restore(network())
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(9, 4))
    model.fit(x, np.ones((9, 2)), verbose=0)
    kernel = model.get_layer("output").kernel.numpy()
    assert kernel[~ticket.mask["output/kernel"]].any()
    for name, value in ticket.weights("end").items():
        assert value.tobytes() == before[name].tobytes()


def test_restore_into_a_pruned_model(played):
    """Its masks and its level follow; the masks hold."""
    ticket, *_ = played
    pruned = lottery.prune(network())
    assert ticket.restore(pruned) is pruned
    assert pruned.mask == ticket.mask
    assert pruned.level == 1
    pruned.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(9, 4))
    pruned.train_on_batch(x, np.ones((9, 2)))
    for name, mask in ticket.mask.items():
        now = weights.by_name(pruned.inner)[name].numpy()
        assert not now[~mask].any()
        assert (now[mask] != ticket.end[name]).any()


@pytest.mark.parametrize(
    "other, texts",
    [
        (
            {"units": 5},
            [
                r"hidden/kernel: ticket (4, 3), model (4, 5)",
                r"hidden/bias: ticket (3,), model (5,)",
                r"norm/moving_mean: ticket (3,), model (5,)",
                r"output/kernel: ticket (3, 2), model (5, 2)",
            ],
        ),
        (
            {"names": ("hidden", "last")},
            [
                r"last/kernel: ticket none, model (3, 2)",
                r"output/kernel: ticket (3, 2), model none",
            ],
        ),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_another_model_is_refused(played, other, texts, wrapped):
    """All that differs is named, with both shapes, and nothing is written."""
    model = network(**other)
    before = values(model)
    target = lottery.prune(model) if wrapped else model
    with pytest.raises(lottery.TicketError) as caught:
        played[0].restore(target)
    assert "The ticket is not for 'net':" in str(caught.value)
    for text in texts:
        assert text in str(caught.value)
    assert "norm/gamma: ticket (3,), model (3,)" not in str(caught.value)
    for name, value in values(model).items():
        assert value.tobytes() == before[name].tobytes()


def test_a_pruned_model_that_prunes_less_is_refused(played):
    """The weights fit, but the wrapper has masks of one layer only."""
    pruned = lottery.prune(network(), layers=["hidden"])
    before = values(pruned.inner)
    with pytest.raises(ValueError, match="prunes hidden/kernel"):
        played[0].restore(pruned)
    for name, value in values(pruned.inner).items():
        assert value.tobytes() == before[name].tobytes()


def test_start_or_end(played):
    """Anything else is refused, and so is an end that is not there."""
    ticket, *_ = played
    for which in ("middle", None, 1):
        with pytest.raises(ValueError, match="Expected 'start' or 'end'"):
            ticket.weights(which)
        with pytest.raises(ValueError, match="Expected 'start' or 'end'"):
            ticket.restore(network(), which)
    control = lottery.controls.shuffle(ticket, network(), seed=0)
    for use in (control.weights, lambda: control.restore(network())):
        with pytest.raises(lottery.TicketError, match="no end: use 'start'"):
            use()


def test_it_is_frozen(played):
    """A ticket is a value."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        played[0].level = 3


def test_it_copies(played):
    """Capturing does not hold on to the model's memory."""
    model = network()
    ticket = tickets.capture(model, lottery.Mask.full(weights.prunable(model)))
    before = {n: v.copy() for n, v in ticket.start.items()}
    for variable in model.trainable_variables:
        variable.assign(variable * 0)
    for name, value in ticket.start.items():
        assert value.tobytes() == before[name].tobytes()


def test_repr(played):
    """Level, counts, density; accuracy where there is one."""
    ticket, *_ = played
    assert repr(ticket) == (
        "<Ticket of level 1: 9 of 18 weights, density 0.5000>"
    )
    measured = dataclasses.replace(ticket, metrics={"val_accuracy": 0.5})
    assert repr(measured).endswith("val_accuracy 0.5000>")
    said = dataclasses.replace(ticket, metrics={"val_accuracy": "good"})
    assert repr(said) == repr(ticket)  # a metric may be anything


class TestRebuild:
    """A ticket carries its model's config."""

    def test_the_same_outputs(self, played):
        """In a model that nobody had to write again."""
        ticket, *_ = played
        model = tickets.rebuild(ticket)
        ticket.restore(model)
        expected = ticket.restore(network())
        x = np.random.default_rng(0).normal(size=(5, 4))
        assert model(x).numpy().tobytes() == expected(x).numpy().tobytes()

    def test_without_a_config(self, played):
        """What to do is said."""
        ticket = dataclasses.replace(played[0], model_config=None)
        with pytest.raises(
            lottery.TicketError, match="build the model yourself"
        ):
            tickets.rebuild(ticket)

    def test_with_an_unknown_class(self, played):
        """The class, and how to register it."""
        config = {"class_name": "Gone", "module": None, "config": {}}
        config["registered_name"] = "mine>Gone"
        ticket = dataclasses.replace(played[0], model_config=config)
        with pytest.raises(
            lottery.TicketError, match="Gone.*register_keras_serializable"
        ):
            tickets.rebuild(ticket)

    def test_twice(self, played):
        """Keras takes a config apart; a ticket is frozen."""
        one, two = (tickets.rebuild(played[0]) for _ in range(2))
        assert values(one).keys() == values(two).keys()

    def test_with_other_weights(self, played):
        """The config is of another network than the arrays."""
        other = tickets.config_of(network(units=5))
        ticket = dataclasses.replace(played[0], model_config=other)
        with pytest.raises(
            lottery.TicketError, match=r"ticket \(4, 3\), model \(4, 5\)"
        ):
            tickets.rebuild(ticket)

    def test_a_compiled_model(self):
        """How it was compiled is not of the ticket: it may be anything."""
        model = network()

        def my_loss(y, prediction):
            return keras.ops.mean((y - prediction) ** 2)

        model.compile("sgd", my_loss)
        ticket = tickets.capture(model, lottery.find_mask(model, 0.5))
        assert tickets.rebuild(ticket).compiled is False
