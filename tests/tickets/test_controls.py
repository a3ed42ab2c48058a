"""Controls: what each keeps and what each draws anew."""

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.pruning import weights
from keras_lottery.tickets.ticket import capture

CONTROLS = lottery.controls.CONTROLS


@keras.saving.register_keras_serializable("test_controls")
class Forgetful(keras.layers.Layer):
    """A layer that gives `add_weight` an initializer and does not keep it."""

    def __init__(self, units, spread, **kwargs):
        super().__init__(**kwargs)
        self.units, self.spread = units, spread

    def build(self, input_shape):
        """Adds a matrix and a row of constants."""
        self.matrix = self.add_weight(
            shape=(input_shape[-1], self.units),
            initializer=keras.initializers.RandomNormal(stddev=self.spread),
            name="matrix",
        )
        self.shift = self.add_weight(
            shape=(self.units,), initializer="ones", name="shift"
        )

    def call(self, inputs):
        """Multiplies."""
        return keras.ops.matmul(inputs, self.matrix) + self.shift

    def get_config(self):
        """Returns the arguments."""
        config = {"units": self.units, "spread": self.spread}
        return {**super().get_config(), **config}


def network():
    """Returns a network of layers with very different initializers."""
    initializers = keras.initializers
    return keras.Sequential(
        [
            keras.Input((40,)),
            keras.layers.Dense(
                50,
                kernel_initializer=initializers.RandomNormal(stddev=3.0),
                bias_initializer=initializers.RandomUniform(1.0, 2.0),
                name="wide",
            ),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.5, name="drop"),
            keras.layers.Dense(60, name="glorot"),
            keras.layers.Dense(
                20,
                kernel_initializer=initializers.Constant(0.25),
                name="constant",
            ),
            keras.layers.Dense(
                20,
                kernel_initializer=initializers.HeNormal(seed=11),
                name="seeded",
            ),
            Forgetful(30, 7.0, name="forgetful"),
        ],
        name="net",
    )


def values(model):
    """Returns every variable by name."""
    return {n: v.numpy().copy() for n, v in weights.by_name(model).items()}


def same_bits(one, other):
    """Asserts that two dicts of arrays are the same, bit for bit."""
    assert set(one) == set(other)
    for name in one:
        assert one[name].tobytes() == other[name].tobytes(), name


@pytest.fixture(scope="module")
def model():
    """A network as it was built."""
    return network()


@pytest.fixture(scope="module")
def ticket(model):
    """A ticket of a trained network: its start is what it was built with."""
    start = capture(model, lottery.find_mask(model, 0.4))

    def train(model, first_step, last_step):
        for variable in model.trainable_variables:
            bias = len(variable.shape) < 2  # removed weights stay zero
            variable.assign(variable * 1.25 + (0.01 if bias else 0.0))

    *_, found = lottery.find_tickets(
        model, train, lottery.OneShot(0.4), steps=1, seed=5
    )
    same_bits(dict(found.start), dict(start.start))
    return found


@pytest.fixture(params=CONTROLS)
def name(request):
    """Each control in turn."""
    return request.param


class TestAll:
    """What is true of every control."""

    def test_reproducible(self, ticket, model, name):
        """From its seed."""
        one, other = (CONTROLS[name](ticket, model, 3) for _ in range(2))
        assert one.mask == other.mask
        same_bits(dict(one.start), dict(other.start))
        same_bits(dict(one.start_state), dict(other.start_state))
        assert one.provenance == other.provenance

    def test_in_another_model(self, ticket, model, name):
        """Built anew: only classes and initializers count."""
        keras.utils.set_random_seed(9)
        one = CONTROLS[name](ticket, model, 3)
        other = CONTROLS[name](ticket, network(), 3)
        assert one.mask == other.mask
        same_bits(dict(one.start), dict(other.start))
        same_bits(dict(one.start_state), dict(other.start_state))

    def test_other_seeds(self, ticket, model, name):
        """Three seeds, three controls."""
        found = [CONTROLS[name](ticket, model, seed) for seed in (0, 1, 2)]
        keys = {
            (c.mask.checksum, c.start["glorot/kernel"].tobytes()) for c in found
        }
        assert len(keys) == 3

    def test_what_is_not_questioned_stays(self, ticket, model, name):
        """Of the ticket, the model and Python's random numbers."""
        import random

        before, mask = values(model), ticket.mask
        start = {n: v.copy() for n, v in ticket.start.items()}
        state = {n: v.copy() for n, v in ticket.start_state.items()}
        random.seed(4)
        np.random.seed(4)
        expected = random.random(), np.random.random()
        random.seed(4)
        np.random.seed(4)
        CONTROLS[name](ticket, model, 3)
        assert (random.random(), np.random.random()) == expected
        same_bits(values(model), before)
        same_bits(dict(ticket.start), start)
        same_bits(dict(ticket.start_state), state)
        assert ticket.mask == mask
        assert set(ticket.end) == set(mask)

    def test_it_is_not_trained(self, ticket, model, name):
        """No end, no metrics; where it comes from is noted."""
        control = CONTROLS[name](ticket, model, 3)
        assert (control.end, control.end_state) == ({}, {})
        assert control.metrics == {}
        assert control.level == ticket.level
        assert control.provenance["control"] == name
        assert control.provenance["control_seed"] == 3
        assert control.provenance["seed"] == 5
        with pytest.raises(lottery.TicketError, match="was not trained"):
            control.weights("end")

    def test_it_restores_and_trains(self, ticket, name, tmp_path):
        """As a ticket does, from a file too."""
        control = CONTROLS[name](ticket, network(), 3)
        control.save(tmp_path / "control")
        loaded = lottery.Ticket.load(tmp_path / "control")
        model = loaded.restore(network(), "start")
        now = values(model)
        for weight, mask in control.mask.items():
            masked = np.where(mask, control.start[weight], np.float32(0))
            assert now[weight].tobytes() == masked.tobytes()

    def test_keeps_the_number_of_weights(self, ticket, model, name):
        """In all, exactly."""
        control = CONTROLS[name](ticket, model, 3)
        assert control.mask.kept == ticket.mask.kept
        assert control.mask.shapes == ticket.mask.shapes
        assert control.level == 1

    @pytest.mark.parametrize("seed", [-1, 1.5, "1", None, True])
    def test_wrong_seeds(self, ticket, model, name, seed):
        """An int of at least 0."""
        with pytest.raises(ValueError, match="`seed` must be an int >= 0"):
            CONTROLS[name](ticket, model, seed)

    def test_by_name(self, name):
        """`get` finds it, and `lottery.controls` has it."""
        assert lottery.controls.get(name) is CONTROLS[name]
        assert getattr(lottery.controls, name) is CONTROLS[name]


class TestReinitialize:
    """New draws, each from its layer's own initializer."""

    @pytest.fixture(scope="class")
    @classmethod
    def control(cls, ticket, model):
        """One of them."""
        return lottery.controls.reinitialize(ticket, model, 1)

    def test_the_mask_stays(self, ticket, control):
        """Only weights are questioned."""
        assert control.mask == ticket.mask

    @pytest.mark.parametrize(
        "weight, spread",
        [
            ("wide/kernel", 3.0),
            ("glorot/kernel", np.sqrt(2 / (50 + 60))),
            ("seeded/kernel", np.sqrt(2 / 20)),
            ("forgetful/matrix", 7.0),
        ],
    )
    def test_the_distribution(self, ticket, control, weight, spread):
        """Mean 0 and the spread of that layer; nothing of the old values."""
        drawn, old = control.start[weight], ticket.start[weight]
        assert drawn.shape == old.shape
        assert drawn.dtype == old.dtype
        assert abs(drawn.std() / spread - 1) < 0.12
        assert abs(drawn.mean()) < 4 * spread / np.sqrt(drawn.size)
        assert abs(np.corrcoef(drawn.ravel(), old.ravel())[0, 1]) < 0.15
        assert (drawn != old).mean() > 0.999

    def test_uniform_and_normal(self, control):
        """Glorot's draws have a bound, a normal's do not."""
        bound = np.sqrt(6 / (50 + 60))
        glorot = control.start["glorot/kernel"]
        assert 0.95 * bound < abs(glorot).max() <= bound
        assert abs(control.start["wide/kernel"]).max() > 2.5 * 3.0

    def test_a_seeded_initializer_draws_new_values(self, ticket, model):
        """Its own seed would give the old ones; and seeds differ."""
        drawn = [
            lottery.controls.reinitialize(ticket, model, seed).start[
                "seeded/kernel"
            ]
            for seed in (1, 2)
        ]
        old = ticket.start["seeded/kernel"]
        assert (drawn[0] != old).all()
        assert (drawn[1] != old).all()
        assert (drawn[0] != drawn[1]).all()

    def test_constants_stay(self, ticket, control):
        """An initializer that does not draw has nothing new to give."""
        one, other = control.start, ticket.start
        assert one["constant/kernel"].tobytes() == (
            other["constant/kernel"].tobytes()
        )
        kept = set(ticket.start_state) - {"wide/bias"}
        for name in kept:
            assert control.start_state[name].tobytes() == (
                ticket.start_state[name].tobytes()
            ), name
        assert {"norm/gamma", "norm/moving_variance", "forgetful/shift"} < kept

    def test_biases_that_are_drawn(self, ticket, control):
        """Trainable ones too: the whole network starts anew."""
        drawn = control.start_state["wide/bias"]
        assert (drawn != ticket.start_state["wide/bias"]).all()
        assert ((1.0 <= drawn) & (drawn <= 2.0)).all()

    def test_layers_draw_independently(self, model, ticket):
        """Equal layers in one model do not get equal weights."""
        twins = keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(6, name="one"),
                keras.layers.Dense(6, name="two"),
                Forgetful(6, 1.0, name="three"),
                Forgetful(6, 1.0, name="four"),
            ]
        )
        found = capture(twins, lottery.Mask.full(weights.prunable(twins)))
        start = lottery.controls.reinitialize(found, twins, 0).start
        assert (start["one/kernel"] != start["two/kernel"]).all()
        assert (start["three/matrix"] != start["four/matrix"]).all()

    def test_recurrent_and_convolutional_kernels(self):
        """Recurrent kernels are orthogonal again, convolutions bounded."""
        model = keras.Sequential(
            [
                keras.Input((8, 2)),
                keras.layers.Conv1D(4, 3, name="conv"),
                keras.layers.SimpleRNN(5, name="rnn"),
            ]
        )
        ticket = capture(model, lottery.find_mask(model, 0.5))
        start = lottery.controls.reinitialize(ticket, model, 0).start
        recurrent = start["rnn/cell/recurrent_kernel"]
        assert np.abs(recurrent @ recurrent.T - np.eye(5)).max() < 1e-5
        assert (recurrent != ticket.start["rnn/cell/recurrent_kernel"]).any()
        bound = np.sqrt(6 / (3 * 2 + 3 * 4))
        assert 0.7 * bound < abs(start["conv/kernel"]).max() <= bound

    def test_half_precision(self):
        """The dtype of the weight stays."""
        model = keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(9, dtype="bfloat16")]
        )
        ticket = capture(model, lottery.find_mask(model, 0.5))
        for control in ("reinitialize", "reinitialize_signed"):
            start = CONTROLS[control](ticket, model, 0).start
            assert str(start["dense/kernel"].dtype) == "bfloat16"

    def test_what_cannot_be_drawn(self):
        """A layer with neither initializer nor config is named."""

        class Closed(keras.layers.Layer):
            def __init__(self, matrix):
                super().__init__(name="closed")
                self.matrix = self.add_weight(shape=matrix.shape, name="m")
                self.matrix.assign(matrix)

            def call(self, inputs):
                return keras.ops.matmul(inputs, self.matrix)

        model = keras.Sequential([keras.Input((3,)), Closed(np.eye(3))])
        ticket = capture(model, lottery.find_mask(model, 0.5))
        with pytest.raises(
            ValueError, match="'closed/m' cannot be drawn anew.*m_initializer"
        ):
            lottery.controls.reinitialize(ticket, model, 0)


class TestReinitializeSigned:
    """The sizes of `reinitialize`, the signs of the start."""

    def test_signs_and_sizes(self, ticket, model):
        """Zeros of the start have a sign too."""
        free = lottery.controls.reinitialize(ticket, model, 1)
        signed = lottery.controls.reinitialize_signed(ticket, model, 1)
        for name, value in signed.start.items():
            old = ticket.start[name]
            assert (np.signbit(value) == np.signbit(old)).all()
            assert (abs(value) == abs(free.start[name])).all()
        assert (signed.start["wide/kernel"] != free.start["wide/kernel"]).any()
        assert signed.mask == ticket.mask
        same_bits(dict(signed.start_state), dict(free.start_state))


class TestShuffle:
    """Other places in the same layer."""

    def test_counts_per_layer(self, ticket, model):
        """The same, and the start untouched."""
        control = lottery.controls.shuffle(ticket, model, 1)
        assert control.mask.kept_by_name == ticket.mask.kept_by_name
        assert len(set(ticket.mask.kept_by_name.values())) > 1
        same_bits(dict(control.start), dict(ticket.start))
        same_bits(dict(control.start_state), dict(ticket.start_state))

    def test_places(self, ticket, model):
        """As good as independent: the overlap is that of chance."""
        control = lottery.controls.shuffle(ticket, model, 1)
        for name, mask in ticket.mask.items():
            density = mask.mean()
            if mask.size < 1000 or not 0 < density < 1:
                continue
            shared = (mask & control.mask[name]).mean()
            spread = density * (1 - density) / np.sqrt(mask.size)
            assert abs(shared - density**2) < 5 * spread

    def test_layers_are_shuffled_independently(self):
        """Two layers of the same mask do not stay the same."""
        model = keras.Sequential(
            [keras.Input((30,)), *(keras.layers.Dense(30) for _ in range(2))]
        )
        flat = (np.arange(900) < 300).reshape(30, 30)
        mask = lottery.Mask(dict.fromkeys(weights.prunable(model), flat))
        control = lottery.controls.shuffle(capture(model, mask), model, 0)
        one, other = control.mask.values()
        assert (one != other).any()

    def test_layers_that_are_full_or_empty(self):
        """There is only one way."""
        model = keras.Sequential(
            [keras.Input((3,)), *(keras.layers.Dense(3) for _ in range(2))]
        )
        names = list(weights.prunable(model))
        ones = np.ones((3, 3), bool)
        mask = lottery.Mask({names[0]: ones, names[1]: ~ones})
        control = lottery.controls.shuffle(capture(model, mask), model, 0)
        assert control.mask == mask


class TestRandomize:
    """Other places anywhere."""

    def test_layers_come_near_the_same_density(self, ticket, model):
        """The total exact; the start untouched."""
        control = lottery.controls.randomize(ticket, model, 1)
        total = ticket.mask.density
        sizes, kept = control.mask.sizes, control.mask.kept_by_name
        assert control.mask.kept == ticket.mask.kept
        for name, size in sizes.items():
            spread = np.sqrt(total * (1 - total) / size)
            assert abs(kept[name] / size - total) < 4 * spread
        before = ticket.mask.kept_by_name
        assert kept != before
        assert abs(before["wide/kernel"] / 2000 - total) > 0.1  # it was not
        same_bits(dict(control.start), dict(ticket.start))


class TestGet:
    """By name, or a function of one's own."""

    def test_a_function(self):
        """As it is."""

        def mine(ticket, model, seed):
            return ticket

        assert lottery.controls.get(mine) is mine

    @pytest.mark.parametrize("wrong", ["reinit", None, 3])
    def test_unknown(self, wrong):
        """The choices are listed."""
        with pytest.raises(
            ValueError, match="Unknown control.*'reinitialize'.*'randomize'"
        ):
            lottery.controls.get(wrong)
