"""find_tickets: one algorithm, for custom loops and for `PrunedModel.fit`."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.pruning import weights
from keras_lottery.tickets import rewind as rewinds
from keras_lottery.training import loop
from keras_lottery.training.array_feed import ArrayFeed

ROWS, BATCH, EPOCHS = 24, 6, 2
A_EPOCH = ROWS // BATCH
STEPS = A_EPOCH * EPOCHS


def dense(units, seed, name, **more):
    """Returns a Dense layer that begins the same at every call."""
    initializer = keras.initializers.GlorotUniform(seed=seed)
    return keras.layers.Dense(
        units, kernel_initializer=initializer, name=name, **more
    )


def build(optimizer="sgd"):
    """Returns a new network with dropout, statistics and momentum."""
    model = keras.Sequential(
        [
            keras.Input((5,)),
            dense(8, 1, "hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Activation("tanh"),
            keras.layers.Dropout(0.2, seed=4, name="drop"),
            dense(2, 2, "output"),
        ],
        name="net",
    )
    if optimizer == "sgd":
        optimizer = sgd()
    if optimizer is not None:
        model.compile(optimizer, _loss())
    return model


def sgd():
    """Returns a new optimizer whose rate is another at every step."""
    rates = keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.8)
    return keras.optimizers.SGD(rates, momentum=0.9)


def _loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def data():
    """Returns x and y."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 5)).astype(np.float32)
    return x, rng.integers(0, 2, ROWS)


def rows(step):
    """Returns the rows of a step, in order."""
    first = step % A_EPOCH * BATCH
    return slice(first, first + BATCH)


def by_batches(model, first_step, last_step):
    """Trains with the step loop that `fit` has, a call for every step."""
    feed = ArrayFeed(data(), BATCH, None, False, 0)
    for step in range(first_step, last_step):
        loop.of(model).call(feed, step, step + 1)
    return {"last_step": last_step}


def nothing(model, first_step, last_step):
    """Trains not at all: for what only the search decides."""


def same_bits(one, other):
    """Asserts that two dicts of arrays are the same, bit for bit."""
    assert set(one) == set(other)
    for name in one:
        here, there = np.asarray(one[name]), np.asarray(other[name])
        assert here.dtype == there.dtype, name
        assert here.tobytes() == there.tobytes(), name


def same_tickets(one, other):
    """Asserts that two tickets hold the same values."""
    assert one.level == other.level
    assert one.mask == other.mask
    for part in ("start", "start_state", "end", "end_state"):
        same_bits(getattr(one, part), getattr(other, part))


class TestOneImplementation:
    """The same batches give the same tickets, whoever trains."""

    SCHEDULE = lottery.IterativePruning(0.4, levels=2)
    REWINDS = [(name, 0) for name in rewinds.REWINDS]
    REWINDS += [("weights", 4), ("weights", 5), ("learning_rate", 5)]

    @pytest.mark.parametrize("rewind, step", REWINDS)
    def test_find_tickets_equals_fit(self, rewind, step):
        """Masks, starts, ends and states of all levels, bit for bit."""
        choices = {"rewind": rewind, "rewind_step": step}
        found = list(
            lottery.find_tickets(
                build(), by_batches, self.SCHEDULE, steps=STEPS, **choices
            )
        )
        pruned = lottery.prune(build(), self.SCHEDULE, **choices)
        pruned.compile(sgd(), _loss())
        x, y = data()
        pruned.fit(
            x, y, batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0
        )
        assert [ticket.level for ticket in found] == [0, 1, 2]
        assert len(pruned.tickets) == 3
        for one, other in zip(found, pruned.tickets):
            same_tickets(one, other)
            assert one.provenance == other.provenance

    def test_they_share_the_function(self, monkeypatch):
        """Both go through `search.levels`."""
        from keras_lottery.tickets import search

        calls = []

        def levels(*arguments):
            calls.append(arguments)
            return iter(())

        monkeypatch.setattr(search, "levels", levels)
        list(lottery.find_tickets(build(), nothing, self.SCHEDULE, steps=3))
        pruned = lottery.prune(build(), self.SCHEDULE)
        pruned.compile(sgd(), _loss())
        pruned.fit(*data(), verbose=0)
        assert len(calls) == 2


class TestCustomLoop:
    """A loop with `tf.GradientTape` and an optimizer of its own."""

    def loop(self, seen):
        """Returns a loop that notes what it was asked to train."""
        x, y = data()
        loss = _loss()
        kept = {}

        def train(model, first_step, last_step):
            if not seen or first_step == 0:
                kept["optimizer"] = keras.optimizers.Adam(0.05, clipnorm=0.1)
                kept["optimizer"].build(model.trainable_variables)
            optimizer = kept["optimizer"]

            @tf.function
            def train_step(x, y):
                with tf.GradientTape() as tape:
                    value = loss(y, model(x, training=True))
                gradients = tape.gradient(value, model.trainable_variables)
                gradients = lottery.masked_gradients(gradients, model)
                optimizer.apply(gradients, model.trainable_variables)
                return value

            begin = model.get_layer("hidden").kernel.numpy().copy()
            moved = 0
            for step in range(first_step, last_step):
                value = train_step(x[rows(step)], y[rows(step)])
                now = model.get_layer("hidden").kernel.numpy()
                assert not now[begin == 0].any()  # after every step
                moved += np.count_nonzero(now != begin)
            seen.append((first_step, last_step, np.count_nonzero(begin)))
            assert moved > 0
            return {"loss": float(value)}

        return train

    def test_weights_at_0(self):
        """Levels, counts, starts, metrics; zeros at every step."""
        model, seen = build(optimizer=None), []
        first = {n: v.numpy().copy() for n, v in weights.by_name(model).items()}
        schedule = lottery.IterativePruning(0.5, levels=2)
        found = list(
            lottery.find_tickets(model, self.loop(seen), schedule, steps=STEPS)
        )
        assert [ticket.mask.kept for ticket in found] == [56, 28, 14]
        kept = [ticket.mask.kept_by_name["hidden/kernel"] for ticket in found]
        assert seen == [(0, STEPS, count) for count in kept]
        for ticket in found:
            same_bits({**ticket.start, **ticket.start_state}, first)
            assert set(ticket.metrics) == {"loss"}
            for name, whole in ticket.weights("end").items():
                assert not whole[~ticket.mask[name]].any()
                assert whole[ticket.mask[name]].all()

    def test_a_level_equals_the_loop_under_a_preset_mask(self):
        """A second model under the ticket's mask trains to the same bits."""
        schedule = lottery.IterativePruning(0.5, levels=1)
        *_, ticket = lottery.find_tickets(
            build(optimizer=None), self.loop([]), schedule, steps=STEPS
        )
        model = build(optimizer=None)
        with lottery.masked(model, ticket.mask):
            self.loop([])(model, 0, STEPS)
        now = {n: v.numpy() for n, v in weights.by_name(model).items()}
        same_bits({**ticket.weights("end"), **ticket.end_state}, now)

    @pytest.mark.filterwarnings("ignore:Removed weights")
    def test_level_0_is_trained_in_two_calls_to_rewind_to_k(self):
        """0 to k, then k to the end; later levels from k on."""
        seen = []

        def train(model, first_step, last_step):
            seen.append((first_step, last_step))
            kernel = model.get_layer("hidden").kernel
            kernel.assign_add(tf.ones_like(kernel) * last_step)

        model = build(optimizer=None)
        first = model.get_layer("hidden").kernel.numpy().copy()
        found = lottery.find_tickets(
            model,
            train,
            lottery.OneShot(0.5),
            steps=9,
            rewind_step=4,
            allocation="layerwise",
        )
        starts = [ticket.start["hidden/kernel"] for ticket in found]
        assert seen == [(0, 4), (4, 9), (4, 9)]
        for start in starts:
            assert (start == first + np.float32(4)).all()

    def test_it_is_lazy_and_lets_go(self):
        """Nothing happens before `next`; closing lets go of the masks."""
        model = build(optimizer=None)
        found = lottery.find_tickets(
            model, nothing, lottery.OneShot(0.5), steps=1
        )
        with lottery.masked(model, lottery.Mask.full(weights.prunable(model))):
            pass  # nothing is attached yet
        assert next(found).level == 0
        with pytest.raises(ValueError, match="attached to 'net' already"):
            lottery.prune(model)
        found.close()
        lottery.prune(model)


class TestCounts:
    """`kept = n - round(n * sparsity)` at every level."""

    def found(self, schedule, **choices):
        """Plays levels without training."""
        model = build(optimizer=None)
        return list(
            lottery.find_tickets(model, nothing, schedule, steps=1, **choices)
        )

    @pytest.mark.parametrize("allocation", ["global", "layerwise"])
    def test_iterative(self, allocation):
        """56 weights, 20 % of the rest per level."""
        schedule = lottery.IterativePruning(0.2, levels=10)
        found = self.found(schedule, allocation=allocation)
        expected = [56 - round(56 * (1 - 0.8**n)) for n in range(11)]
        assert [ticket.mask.kept for ticket in found] == expected
        assert expected[:4] == [56, 45, 36, 29]  # by hand
        for before, after in zip(found, found[1:]):
            assert after.mask.issubset(before.mask)

    def test_patterns(self):
        """Frankle's LeNet: half the rate for the output layer."""
        schedule = {
            "output/*": lottery.IterativePruning(0.1, levels=8),
            "*": lottery.IterativePruning(0.2, levels=8),
        }
        found = self.found(schedule, allocation="layerwise")
        for ticket in found:
            n = ticket.level
            assert ticket.mask.kept_by_name == {
                "hidden/kernel": 40 - round(40 * (1 - 0.8**n)),
                "output/kernel": 16 - round(16 * (1 - 0.9**n)),
            }

    def test_what_no_pattern_governs_stays(self):
        """Its mask is not even in the ticket."""
        schedule = {"hidden/*": lottery.ListedSparsities([0.25, 0.9])}
        found = self.found(schedule)
        assert [t.mask.kept_by_name for t in found] == [
            {"hidden/kernel": 40},
            {"hidden/kernel": 30},
            {"hidden/kernel": 4},
        ]
        assert "output/kernel" in found[0].start_state

    def test_layers(self):
        """`layers=` as in `lottery.prune`."""
        found = self.found(lottery.OneShot(0.5), layers=["output"])
        assert [t.mask.kept_by_name for t in found] == [
            {"output/kernel": 16},
            {"output/kernel": 8},
        ]


class TestAfter:
    """A lottery goes on from a ticket as if it had never stopped."""

    SCHEDULE = lottery.IterativePruning(0.4, levels=3)

    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls):
        """The tickets of the lottery that is not interrupted."""
        return list(
            lottery.find_tickets(
                build(), by_batches, cls.SCHEDULE, steps=STEPS
            )
        )  # fmt: skip

    def go_on(self, model, ticket):
        """Returns the tickets after one."""
        found = lottery.find_tickets(
            model, by_batches, self.SCHEDULE, steps=STEPS, after=ticket
        )
        return list(found)

    @pytest.mark.parametrize("level", [0, 1, 2])
    def test_in_a_new_model(self, whole, level, tmp_path):
        """As in a new process, with the ticket read from its file."""
        path = tmp_path / "ticket.safetensors"
        whole[level].save(path)
        rest = self.go_on(build(), lottery.Ticket.load(path))
        assert [t.level for t in rest] == list(range(level + 1, 4))
        for one, other in zip(rest, whole[level + 1 :]):
            same_tickets(one, other)

    def test_in_the_model_that_was_interrupted(self, whole):
        """Its optimizer is warm; the rewind point of step 0 is not."""
        model = build()
        found = lottery.find_tickets(
            model, by_batches, self.SCHEDULE, steps=STEPS
        )
        next(found)
        ticket = next(found)
        found.close()
        for one, other in zip(self.go_on(model, ticket), whole[2:]):
            same_tickets(one, other)

    def test_after_the_last_there_is_nothing(self, whole):
        """No level is left."""
        assert self.go_on(build(), whole[3]) == []

    @pytest.mark.parametrize("rewind, step", [("weights", 2), ("continue", 0)])
    def test_only_what_a_ticket_holds(self, whole, rewind, step):
        """Slots at step k are not in a ticket, so this is refused."""
        found = lottery.find_tickets(
            build(), nothing, self.SCHEDULE, steps=STEPS, after=whole[1],
            rewind=rewind, rewind_step=step,
        )  # fmt: skip
        with pytest.raises(ValueError, match="only rewind='weights' with"):
            next(found)

    def test_an_untrained_ticket_is_refused(self, whole):
        """A control has no end to prune."""
        control = lottery.controls.shuffle(whole[1], build(), seed=0)
        with pytest.raises(ValueError, match="never trained"):
            self.go_on(build(), control)

    def test_a_ticket_of_another_model_is_refused(self, whole):
        """With names and shapes."""
        other = keras.Sequential([keras.Input((5,)), dense(3, 1, "hidden")])
        with pytest.raises(
            lottery.TicketError,
            match=r"hidden/kernel: ticket \(5, 8\), model \(5, 3\)",
        ):
            self.go_on(other, whole[1])


def test_metrics_may_be_numbers_of_any_library():
    """A ticket's file holds them as numbers, not as their names."""
    model = build(optimizer=None)
    given = {"a": keras.ops.convert_to_tensor(0.5), "b": np.float32(0.25)}
    given |= {"c": 3, "d": np.int64(4), "e": "text"}
    schedule = lottery.IterativePruning(0.2, levels=1)
    [ticket, _] = lottery.find_tickets(
        model, lambda *where: given, schedule, steps=1
    )
    found = {name: ticket.metrics[name] for name in given}
    assert found == {"a": 0.5, "b": 0.25, "c": 3, "d": 4, "e": "text"}
    kinds = [type(found[name]) for name in "abcd"]
    assert kinds == [float, float, int, int]


class TestDivergence:
    """NaN stops the lottery; what was found before is kept."""

    def test_what_was_infinite_before_and_is_not_trained_may_be(self):
        """A running minimum that nothing has lowered yet."""

        @keras.saving.register_keras_serializable("test_search")
        class Lowest(keras.layers.Layer):
            def build(self, shape):
                self.lowest = self.add_weight(
                    shape=(), initializer="zeros", trainable=False, name="low"
                )

            def call(self, x):
                return x

        layers = [keras.Input((4,)), Lowest(), keras.layers.Dense(2)]
        model = keras.Sequential(layers)
        schedule = lottery.IterativePruning(0.5, levels=1)

        def found(value):
            model.layers[0].lowest.assign(0.0)

            def train(model, *steps):
                model.layers[0].lowest.assign(value)

            if not np.isfinite(value):
                model.layers[0].lowest.assign(value)
            return list(lottery.find_tickets(model, train, schedule, steps=1))

        assert len(found(np.inf)) == len(found(1.0)) == 2
        model.layers[0].lowest.assign(0.0)
        with pytest.raises(lottery.RunError, match="low is not finite"):
            list(
                lottery.find_tickets(
                    model,
                    lambda model, *steps: model.layers[0].lowest.assign(np.inf),
                    schedule,
                    steps=1,
                )
            )

    def test_a_metric_of_ones_own_may_be_infinite(self):
        """Only losses are what is minimised."""
        schedule = lottery.IterativePruning(0.2, levels=1)
        for name, stops in (
            ("val_log_loss", False),
            ("accuracy", False),
            ("last_loss", True),
            ("val_loss", True),
        ):
            search = lottery.find_tickets(
                build(optimizer=None),
                lambda *where, name=name: {name: np.inf},
                schedule,
                steps=1,
            )
            if not stops:
                assert len(list(search)) == 2
                continue
            with pytest.raises(lottery.RunError, match=f"{name} is inf"):
                list(search)

    def test_nothing_is_trained_after_a_rewind_that_failed(self, monkeypatch):
        """The model is not what the ticket would say."""
        from keras_lottery.tickets import rewind

        def wrong(point, model, optimizer):
            rewind.everything(point, model, optimizer)
            kernel = model.get_layer("output").kernel
            kernel.assign(kernel + 1.0)

        right = rewind.REWINDS["weights"]
        broken = right._replace(restore=wrong)
        monkeypatch.setitem(rewind.REWINDS, "weights", broken)
        pruned = lottery.prune(build(optimizer=None))
        pruned.compile("sgd", "mse")
        x = np.ones((4, *pruned.inner.input_shape[1:]))
        y = np.ones((4, *pruned.inner.output_shape[1:]))
        for _ in range(2):
            with pytest.raises(lottery.RunError, match="output/kernel"):
                pruned.fit(x, y, verbose=0)
        assert len(pruned.tickets) == 1

    def test_in_a_custom_loop(self):
        """The level and its last step are named."""

        def train(model, first_step, last_step):
            train.level += 1
            if train.level == 2:
                kernel = model.get_layer("output").kernel
                kernel.assign(kernel * np.nan)

        train.level, found = -1, []
        model = build(optimizer=None)
        schedule = lottery.IterativePruning(0.2, levels=4)
        with pytest.raises(
            lottery.RunError,
            match="level 2, step 7: output/kernel is not finite.*kept",
        ):
            for ticket in lottery.find_tickets(model, train, schedule, steps=7):
                found.append(ticket)
        assert [ticket.level for ticket in found] == [0, 1]
        lottery.prune(model)  # the masks are let go of

    @pytest.fixture
    def poison(self):
        """A callback that spoils the weights before step 6 of level 2."""

        class Poison(keras.callbacks.Callback):
            armed = True

            def on_epoch_begin(self, epoch, logs=None):
                self.epoch = epoch

            def on_train_batch_begin(self, batch, logs=None):
                now = self.model.level, self.epoch, batch
                if self.armed and now == (2, 1, 2):
                    kernel = self.model.inner.get_layer("output").kernel
                    kernel.assign(kernel * np.nan)

        return Poison()

    def test_in_fit(self, poison):
        """Step 7 is the one whose loss is NaN: 4 of the first epoch and 3."""
        x, y = data()
        schedule = lottery.IterativePruning(0.2, levels=3)
        pruned = lottery.prune(build(None), schedule)
        pruned.compile(sgd(), _loss())
        arguments = dict(
            batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[poison]
        )
        with pytest.raises(
            lottery.RunError, match="level 2, step 7: loss is nan.*kept"
        ):
            pruned.fit(x, y, **arguments)
        assert [ticket.level for ticket in pruned.tickets] == [0, 1]
        assert len(pruned.mask) == 2
        for values in pruned.tickets[1].weights("end").values():
            assert np.isfinite(values).all()

        # The next `fit` begins the level anew, as if nothing had been.
        poison.armed = False
        pruned.fit(x, y, **arguments)
        whole = lottery.prune(build(None), schedule)
        whole.compile(sgd(), _loss())
        whole.fit(x, y, **arguments)
        assert [ticket.level for ticket in pruned.tickets] == [0, 1, 2, 3]
        for one, other in zip(pruned.tickets, whole.tickets):
            same_tickets(one, other)

    def test_a_loss_that_is_nan_from_the_data(self):
        """Level 0, the step of the bad row."""
        x, y = data()
        x[BATCH + 1] = np.nan
        pruned = lottery.prune(build(None), lottery.OneShot(0.5))
        pruned.compile(sgd(), _loss())
        with pytest.raises(lottery.RunError, match="level 0, step 2: loss is"):
            pruned.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
        assert pruned.tickets == ()

    def spoilt(self, change, model=None, **more):
        """Returns the levels found when `change` is done to level 1."""
        levels = []

        def train(model, first_step, last_step):
            train.level += 1
            by_batches(model, first_step, last_step)
            return change(model) if train.level == 1 else None

        train.level = -1
        schedule = lottery.IterativePruning(0.2, levels=2)
        with pytest.raises(lottery.RunError, match="level 1") as caught:
            for ticket in lottery.find_tickets(
                model or build(), train, schedule, steps=2, **more
            ):
                levels.append(ticket.level)
        assert levels == [0]  # and no ticket of level 1
        return str(caught.value)

    @pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize(
        "name", ["output/bias", "norm/moving_variance", "hidden/kernel"]
    )
    def test_any_variable(self, name, wrong):
        """Statistics and biases, too, behind a loss that is finite."""

        def change(model):
            variable = weights.by_name(model)[name]
            values = variable.numpy()
            values[np.nonzero(values)[0][0]] = wrong
            variable.assign(values)
            return {"loss": 0.5}

        assert f"step 2: {name} is not finite" in self.spoilt(change)

    @pytest.mark.parametrize("name", ["loss", "last_val_loss"])
    def test_a_loss_that_a_loop_returns(self, name):
        """The weights are finite."""
        told = self.spoilt(lambda model: {name: np.inf, "accuracy": np.nan})
        assert f"step 2: {name} is inf" in told

    def test_a_constraint_that_gives_infinity_after_the_last_step(self):
        """The loss of the last step was of the weights before."""
        limit = np.float32(3e38)

        class Grow(keras.constraints.Constraint):
            def __call__(self, weight):
                return weight * limit

        model = build(None)
        model.get_layer("output").kernel.constraint = Grow()
        model.compile(keras.optimizers.SGD(1e-3), _loss())
        pruned = lottery.prune(model, lottery.OneShot(0.5))
        pruned.compile(keras.optimizers.SGD(1e-3), _loss())
        x, y = data()
        with pytest.raises(lottery.RunError, match="diverged at level 0"):
            pruned.fit(x[:6], y[:6], batch_size=6, epochs=2, verbose=0)
        assert pruned.tickets == ()

    def test_a_gradient_that_overflows_in_adam(self):
        """The second moment is infinite: that weight never moves again."""
        adam = keras.optimizers.Adam(1e-3)
        model = build(adam)

        def overflow(model):
            inputs = np.full((6, 5), 1e25, np.float32)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model.get_layer("hidden")(inputs))
            kernel = model.get_layer("hidden").kernel
            kernels = model.trainable_variables
            found = dict.fromkeys(map(id, kernels))
            found[id(kernel)] = tape.gradient(loss, kernel)
            assert np.isfinite(found[id(kernel)]).all()
            gradients = [
                tf.zeros_like(v) if found[id(v)] is None else found[id(v)]
                for v in kernels
            ]
            adam.apply(gradients, kernels)
            assert all(np.isfinite(v.numpy()).all() for v in kernels)
            return {"loss": float(loss) * 0}

        told = self.spoilt(overflow, model)
        assert "hidden_kernel_velocity is not finite" in told

    def test_steps_that_a_loss_scale_skips_are_normal(self):
        """Gradients that are not finite, and slots that never see them."""
        inner = keras.optimizers.Adam(1e-3)
        scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=64.0)
        seen = []

        def train(model, first_step, last_step):
            trained = model.trainable_variables
            for step in range(first_step, last_step):
                by_batches(model, step, step + 1)
                wrong = [np.inf if step % 2 else np.nan] * len(trained)
                gradients = [
                    tf.fill(v.shape, tf.cast(each, v.dtype))
                    for v, each in zip(trained, wrong)
                ]
                scaled.apply(gradients, trained)
            seen.append((int(inner.iterations), float(scaled.dynamic_scale)))

        schedule = lottery.IterativePruning(0.2, levels=2)
        found = list(
            lottery.find_tickets(build(scaled), train, schedule, steps=4)
        )
        assert [ticket.level for ticket in found] == [0, 1, 2]
        # Of 8 steps a level 4 are skipped, and each halves the scale.
        assert seen == [(4, 4.0)] * 3
        for ticket in found:
            assert all(np.isfinite(v).all() for v in ticket.end.values())


class TestArguments:
    """Errors come at the call, before any training, and say what to do."""

    def find(self, schedule=None, **choices):
        """Calls with one wrong argument; must not need `next`."""

        def train(model, first_step, last_step):
            raise AssertionError("trained")

        schedule = schedule or lottery.IterativePruning(0.2, 3)
        choices = {"steps": 10, **choices}
        return lottery.find_tickets(build(None), train, schedule, **choices)

    @pytest.mark.parametrize(
        "choices, text",
        [
            ({"steps": 0}, "`steps` must be an int >= 1, got 0"),
            ({"steps": -3}, "`steps` must be an int >= 1, got -3"),
            ({"steps": 2.0}, r"`steps` must be an int >= 1, got 2\.0"),
            ({"steps": "9"}, "`steps` must be an int >= 1, got '9'"),
            ({"steps": None}, "`steps` must be an int >= 1, got None"),
            ({"steps": True}, "`steps` must be an int >= 1, got True"),
            ({"rewind_step": -1}, "`rewind_step` must be an int >= 0, got -1"),
            ({"rewind_step": 1.5}, "`rewind_step` must be an int >= 0"),
            ({"rewind_step": None}, "`rewind_step` must be an int >= 0"),
            ({"rewind_step": 10}, "rewind_step=10 is not inside.* 10 steps"),
            ({"rewind_step": 99}, "rewind_step=99 is not inside.* 10 steps"),
            (
                {"rewind": "weight"},
                "Unknown rewind 'weight'. Expected one of 'weights', "
                "'learning_rate', 'fine_tune', 'continue', 'none'",
            ),
            ({"rewind": 3}, "Unknown rewind 3. Expected one of 'weights'"),
            ({"criterion": "big"}, "Unknown criterion 'big'.*'magnitude'"),
            ({"criterion": None}, "Unknown criterion None"),
            ({"allocation": "local"}, "Unknown allocation 'local'.*'global'"),
            ({"layers": ["nowhere"]}, "fits no layer.*hidden, norm"),
            ({"layers": 3}, "`layers` takes layers and name patterns"),
            ({"layers": []}, "has no weight to prune"),
            ({"seed": -1}, "`seed` must be an int >= 0, got -1"),
            ({"seed": 0.5}, r"`seed` must be an int >= 0, got 0\.5"),
            ({"seed": None}, "`seed` must be an int >= 0, got None"),
            ({"schedule": 0.2}, "tfmot PruningSchedule.*got 0.2"),
            ({"schedule": {"*": 3}}, "tfmot PruningSchedule.*got 3"),
            (
                {"schedule": {"out/*": lottery.OneShot(0.5)}},
                "'out/.' governs no weight.*hidden/kernel, output/kernel",
            ),
            (
                {"schedule": lottery.OneShot(0.5, steps_per_level=7)},
                "says steps_per_level=7, but a level trains for 10",
            ),
            (
                {"schedule": lottery.ConstantSparsity(0.5, 2)},
                "find_tickets needs a schedule that counts in levels",
            ),
        ],
    )
    def test_wrong(self, choices, text):
        """What was given, what was expected."""
        with pytest.raises(ValueError, match=re.compile(text, re.DOTALL)):
            self.find(**choices)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: lottery.IterativePruning(0.2, 0),
            lambda: lottery.IterativePruning(0.2, levels=-1),
            lambda: lottery.IterativePruning(0.2, levels=2.0),
            lambda: lottery.IterativePruning(1.0, 3),
            lambda: lottery.IterativePruning("0.2", 3),
            lambda: lottery.OneShot(1.0),
            lambda: lottery.ListedSparsities([]),
        ],
    )
    def test_wrong_schedules(self, make):
        """Zero levels and fractions out of range are refused at once."""
        with pytest.raises(ValueError, match="must"):
            make()

    def test_a_model_that_is_not_built(self):
        """What to do is said."""
        model = keras.Sequential([keras.layers.Dense(2)])
        with pytest.raises(ValueError, match=r"not built. Call.*build"):
            lottery.find_tickets(model, nothing, lottery.OneShot(0.5), steps=1)

    def test_not_a_model(self):
        """A legacy model, or none at all."""
        with pytest.raises(ValueError, match=r"keras.Model.*builtins.str"):
            lottery.find_tickets("net", nothing, lottery.OneShot(0.5), steps=1)

    def test_numbers_of_numpy(self, tmp_path):
        """An int is an int, as it is for levels; it can be saved too."""
        schedule = lottery.OneShot(np.float32(0.5))
        *_, ticket = lottery.find_tickets(
            build(None), nothing, schedule, steps=np.int64(4),
            rewind_step=np.int32(1), seed=np.int16(3),
        )  # fmt: skip
        ticket.save(tmp_path / "a")
        record = lottery.Ticket.load(tmp_path / "a").provenance
        names = ("steps", "rewind_step", "seed")
        assert [record[name] for name in names] == [4, 1, 3]


class TestCollapse:
    """A layer that loses all its weights is named, and the level."""

    def test_it_warns_once(self):
        """The output's weights are tiny, so level 2 takes the last ones."""
        model = build(optimizer=None)
        model.get_layer("hidden").kernel.assign(np.full((5, 8), 9.0))
        small = 0.001 * np.arange(1, 17).reshape(8, 2)
        model.get_layer("output").kernel.assign(small)
        schedule = lottery.ListedSparsities([0.25, 0.5, 0.6])
        found = lottery.find_tickets(model, nothing, schedule, steps=1)
        with pytest.warns(lottery.LayerCollapseWarning) as warned:
            kept = [t.mask.kept_by_name["output/kernel"] for t in found]
        assert kept == [16, 2, 0, 0]
        (warning,) = warned
        assert re.search(
            "'output/kernel' has no weight left at level 2",
            str(warning.message),
        )

    def test_layerwise_does_not_collapse(self, recwarn):
        """Each layer keeps its share."""
        model = build(optimizer=None)
        schedule = lottery.ListedSparsities([0.5, 0.9])
        for ticket in lottery.find_tickets(
            model, nothing, schedule, steps=1, allocation="layerwise"
        ):
            assert all(ticket.mask.kept_by_name.values())
        kinds = [each.category for each in recwarn]
        assert lottery.LayerCollapseWarning not in kinds


class TestRecords:
    """What a ticket says about where it comes from."""

    def test_provenance(self):
        """Choices, steps, seed and versions; no times."""
        *_, ticket = lottery.find_tickets(
            build(None), nothing, lottery.OneShot(0.5), steps=4, rewind_step=2,
            criterion="random", seed=7,
        )  # fmt: skip
        record = dict(ticket.provenance)
        assert set(record.pop("versions")) == {
            "keras_lottery", "keras", "tensorflow", "numpy",
        }  # fmt: skip
        assert record == {
            "schedule": {
                "*": {
                    "class_name": "OneShot",
                    "config": {"sparsity": 0.5, "steps_per_level": 4},
                }
            },
            "steps": 4,
            "rewind": "weights",
            "rewind_step": 2,
            "criterion": "random",
            "allocation": "global",
            "seed": 7,
        }

    def test_metrics_are_those_of_the_loop(self):
        """None is no metrics."""

        def train(model, first_step, last_step):
            return {"accuracy": 0.5, "steps": last_step - first_step}

        found = lottery.find_tickets(
            build(None), train, lottery.OneShot(0.5), steps=4, rewind_step=3
        )
        assert [dict(ticket.metrics) for ticket in found] == [
            {"accuracy": 0.5, "steps": 1}
        ] * 2
        found = lottery.find_tickets(
            build(None), nothing, lottery.OneShot(0.5), steps=4
        )
        assert [dict(ticket.metrics) for ticket in found] == [{}, {}]

    def test_a_found_ticket_does_not_change_later(self):
        """Later levels train the same variables, not the same arrays."""
        schedule = lottery.IterativePruning(0.4, levels=2)
        copies, tickets = [], []
        for ticket in lottery.find_tickets(
            build(), by_batches, schedule, steps=3, rewind="continue"
        ):
            tickets.append(ticket)
            copies.append({n: v.copy() for n, v in ticket.end.items()})
        for ticket, copy in zip(tickets, copies):
            same_bits(ticket.end, copy)


def test_an_allocation_that_keeps_less_than_allowed_never_has_to_revive():
    """A structured one keeps what it can; the next level goes on from there."""
    asked = []

    def tens(scores, mask, keep):
        asked.append((keep, mask.kept))
        keep_tens = lottery.allocation.get("global")
        return keep_tens(scores, mask, keep - keep % 10)

    found = lottery.find_tickets(
        build(None),
        nothing,
        lottery.ListedSparsities([0.5, 0.52, 0.7]),
        steps=1,
        allocation=tens,
    )
    assert [ticket.mask.kept for ticket in found] == [56, 20, 20, 10]
    assert asked == [(28, 56), (20, 20), (17, 20)]
