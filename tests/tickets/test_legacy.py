"""Lotteries with tf_keras models, against plain tfmot and tf_keras runs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras import (
    pruning_wrapper,
)

import keras_lottery as lottery
from keras_lottery.errors import RunError
from keras_lottery.errors import TicketError
from keras_lottery.tfmot_bridge import tfmot
from keras_lottery.tickets import legacy

pytestmark = pytest.mark.thorough

layers = tf_keras.layers
RNG = np.random.default_rng(0)
X = RNG.random((120, 6), np.float32)
Y = X[:, :3].argmax(1)
LOSS = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PER_EPOCH = 6  # batches of 20


def network(seed=0):
    """30 + 24 prunable weights, tanh: no kinks that magnify rounding."""
    tf_keras.utils.set_random_seed(seed)
    return tf_keras.Sequential(
        [
            tf_keras.Input((6,)),
            layers.Dense(6, activation="tanh", name="fc1"),
            layers.Dense(3, name="out"),
        ]
    )


def sgd(rate=0.1):
    return tf_keras.optimizers.SGD(rate, momentum=0.9)


def pruned_network(schedule=None, optimizer=None, seed=0, **choices):
    schedule = schedule or lottery.IterativePruning(0.2, levels=2)
    pruned = lottery.prune(network(seed), schedule, **choices)
    pruned.compile(optimizer or sgd(), LOSS, metrics=["accuracy"])
    return pruned


def play(pruned, epochs=2, **more):
    more = {"batch_size": 20, "shuffle": False, "verbose": 0, **more}
    return pruned.fit(X, Y, epochs=epochs, **more)


class Silent(tfmot.sparsity.keras.PruningSchedule):
    """Independent of the package's own: leaves the masks alone."""

    def __call__(self, step):
        return tf.constant(False), tf.constant(0.0)

    def get_config(self):
        return {"class_name": "Silent", "config": {}}


class Reference:
    """A plain tfmot-wrapped model, trained and masked by hand."""

    def __init__(self, optimizer, start=None):
        self.model = tfmot.sparsity.keras.prune_low_magnitude(
            network(), pruning_schedule=Silent()
        )
        self.model.compile(optimizer, LOSS, metrics=["accuracy"])
        for name, value in (start or {}).items():
            self.variables[name].assign(value)

    @property
    def variables(self):
        found = {}
        for layer in ("fc1", "out"):
            inner = self.model.get_layer(f"prune_low_magnitude_{layer}").layer
            found[f"{layer}/kernel"] = inner.kernel
            found[f"{layer}/bias"] = inner.bias
        return found

    def mask(self, mask):
        for layer in ("fc1", "out"):
            wrapper = self.model.get_layer(f"prune_low_magnitude_{layer}")
            ((weight, variable, _),) = wrapper.pruning_vars
            keep = mask[f"{layer}/kernel"]
            variable.assign(keep.astype("float32"))
            weight.assign(np.where(keep, weight.numpy(), np.float32(0)))
        return self

    def fit(self, epochs):
        update = tfmot.sparsity.keras.UpdatePruningStep()
        self.model.fit(
            X, Y, batch_size=20, epochs=epochs, shuffle=False, verbose=0,
            callbacks=[update],
        )  # fmt: skip
        return self

    def has_ended_as(self, ticket):
        """Whether every weight is the ticket's, bit for bit."""
        ended = {**ticket.weights("end"), **ticket.end_state}
        mine = {n: v.numpy() for n, v in self.variables.items()}
        for name in ticket.mask:
            mine[name] = np.where(ticket.mask[name], mine[name], 0)
        assert set(ended) == set(mine)
        return all(np.array_equal(mine[n], ended[n]) for n in ended)


def brute_force(values, before, keep):
    """The `keep` largest magnitudes of all kernels, by sorting a list."""
    ranked = sorted(
        (-abs(float(values[name][index])), position, index)
        for position, name in enumerate(before)
        for index in np.ndindex(values[name].shape)
        if before[name][index]
    )
    arrays = {name: np.zeros(s, bool) for name, s in before.shapes.items()}
    names = list(before)
    for _, position, index in ranked[:keep]:
        arrays[names[position]][index] = True
    return lottery.Mask(arrays)


def in_model(model):
    """Masks and kernels, straight from tfmot's variables."""
    found = {}
    for layer in ("fc1", "out"):
        wrapper = model.get_layer(f"prune_low_magnitude_{layer}")
        ((weight, mask, _),) = wrapper.pruning_vars
        found[f"{layer}/kernel"] = mask.numpy(), weight.numpy()
    return found


class TestWhatComesBack:
    """A tf_keras model with tfmot's own wrappers."""

    def test_the_model(self):
        """It is of the kind that was given, and its masks are tfmot's."""
        pruned = pruned_network()
        assert isinstance(pruned, tf_keras.Sequential)
        wrapped = pruning_wrapper.collect_prunable_layers(pruned)
        assert [layer.layer.name for layer in wrapped] == ["fc1", "out"]
        assert pruned.mask == lottery.Mask(
            {n: mask != 0 for n, (mask, _) in in_model(pruned).items()}
        )

    def test_the_weights_are_the_users(self):
        """Nothing is copied, and nothing is left on the layers."""
        model = network()
        pruned = lottery.prune(model, lottery.OneShot(0.5))
        assert pruned.trainable_weights[0] is model.layers[0].kernel
        assert not hasattr(model.layers[0], "get_prunable_weights")

    def test_levels(self):
        """Counts, history and tickets of three levels of two epochs."""
        pruned = pruned_network()
        history = play(pruned, validation_data=(X[:40], Y[:40])).history
        n = 54
        counts = [n, n - round(n * 0.2), n - round(n * (1 - 0.8**2))]
        assert [t.mask.kept for t in pruned.tickets] == counts
        assert [t.level for t in pruned.tickets] == [0, 1, 2]
        assert history["level"] == [0, 0, 1, 1, 2, 2]
        assert history["sparsity"] == [
            t.mask.sparsity for t in pruned.tickets for _ in range(2)
        ]
        assert len(history["val_accuracy"]) == 6
        for number, ticket in enumerate(pruned.tickets):
            epochs = history["val_loss"][2 * number : 2 * number + 2]
            best = int(np.argmin(epochs))
            assert ticket.metrics["early_step"] == PER_EPOCH * (best + 1)
            assert ticket.metrics["val_loss"] == epochs[best]
            assert ticket.provenance["steps"] == 2 * PER_EPOCH
        assert pruned.level == 2
        with pytest.raises(ValueError, match="All 2 levels are played"):
            play(pruned)

    def test_what_is_removed_are_the_smallest(self):
        """Against a sort in plain Python, level by level."""
        pruned = pruned_network()
        play(pruned)
        for before, after in zip(pruned.tickets, pruned.tickets[1:]):
            expected = brute_force(
                before.weights("end"), before.mask, after.mask.kept
            )
            assert after.mask == expected

    @pytest.mark.parametrize("rewind", ["weights", "learning_rate", "continue"])
    def test_zeros_are_zeros(self, rewind):
        """In the variables themselves, and in the outputs, at every level."""
        pruned = pruned_network(rewind=rewind)
        seen = []

        class Look(tf_keras.callbacks.Callback):
            def on_train_end(self, logs=None):
                for mask, weight in in_model(self.model).values():
                    assert set(np.unique(mask)) <= {0.0, 1.0}
                    assert np.all(weight[mask == 0] == 0.0)
                    seen.append(int(np.sum(mask)))

        play(pruned, callbacks=[Look()])
        kept = [t.mask.kept_by_name.values() for t in pruned.tickets]
        assert seen == [count for counts in kept for count in counts]
        for mask, weight in in_model(pruned).values():
            assert np.count_nonzero(weight) == mask.sum()

    def test_strip(self):
        """A plain model of the same kind: same outputs, zeros kept."""
        pruned = pruned_network()
        play(pruned)
        plain = pruned.strip()
        assert type(plain) is tf_keras.Sequential
        assert [type(layer).__name__ for layer in plain.layers] == ["Dense"] * 2
        kernels = [layer.kernel.numpy() for layer in plain.layers]
        kept = sum(map(np.count_nonzero, kernels))
        assert kept == pruned.tickets[-1].mask.kept
        assert np.array_equal(plain(X[:9]), pruned(X[:9]))
        again = lottery.prune(plain, lottery.OneShot(0.9), layers=["fc1"])
        assert list(again.mask) == ["fc1/kernel"]

    def test_summary(self, capsys):
        """It says what is pruned, what is not and why."""
        pruned_network({"fc1/*": lottery.OneShot(0.5)}).summary()
        printed = capsys.readouterr().out
        assert "Level 0, <Mask of 1 weights: 36 of 36" in printed
        assert "  fc1/kernel: 36 of 36\n" in printed
        assert "  out/kernel: not pruned, no schedule" in printed
        assert "  fc1/bias: not pruned, bias" in printed

    def test_winning_ticket(self):
        """The sparsest one, where anything is good enough and early."""
        pruned = pruned_network(optimizer=sgd(0.01))
        play(pruned, validation_data=(X, Y))
        dense, *others = pruned.tickets
        early = dense.metrics["early_step"]
        fit = [t for t in others if t.metrics["early_step"] <= early]
        assert pruned.winning_ticket(tolerance=1.0) is fit[-1]


ADAMS = {
    "new": lambda: tf_keras.optimizers.Adam(0.01),
    "legacy": lambda: tf_keras.optimizers.legacy.Adam(0.01),
    "momentum": sgd,
    "clipped": lambda: tf_keras.optimizers.SGD(0.1, 0.9, clipnorm=0.1),
}


class TestRewinds:
    """Against trainings that were masked by hand, bit for bit."""

    @pytest.mark.parametrize("name", ADAMS)
    def test_to_the_start(self, name):
        """Level 1 is a fresh run of a plain tfmot model with the mask set."""
        pruned = pruned_network(optimizer=ADAMS[name]())
        play(pruned)
        dense, ticket, _ = pruned.tickets
        start = {n: v.numpy() for n, v in Reference(sgd()).variables.items()}
        whole = {**ticket.start, **ticket.start_state}
        assert all(np.array_equal(whole[n], v) for n, v in start.items())
        assert Reference(ADAMS[name]()).fit(2).has_ended_as(dense)
        fresh = Reference(ADAMS[name]()).mask(ticket.mask).fit(2)
        assert fresh.has_ended_as(ticket)

    @pytest.mark.parametrize("name", ["new", "legacy"])
    def test_to_a_step(self, name):
        """Weights and slots of step 6; levels train the 6 steps that follow."""
        pruned = pruned_network(
            optimizer=ADAMS[name](), rewind="weights", rewind_step=PER_EPOCH
        )
        history = play(pruned).history
        assert history["level"] == [0, 0, 1, 2]
        reference = Reference(ADAMS[name]()).fit(1)
        ticket = pruned.tickets[1]
        for layer, value in ticket.start.items():
            assert np.array_equal(value, reference.variables[layer].numpy())
        assert reference.mask(ticket.mask).fit(1).has_ended_as(ticket)
        assert int(pruned.optimizer.iterations.numpy()) == 2 * PER_EPOCH

    @pytest.mark.parametrize("name", ["new", "legacy"])
    def test_learning_rate(self, name):
        """Weights and slots go on; iteration and schedule start again."""
        kind = (
            tf_keras.optimizers.SGD
            if name == "new"
            else tf_keras.optimizers.legacy.SGD
        )

        def falling():
            rates = tf_keras.optimizers.schedules.PiecewiseConstantDecay
            return kind(rates([5], [0.5, 0.1]), momentum=0.9)

        pruned = pruned_network(optimizer=falling(), rewind="learning_rate")
        play(pruned)
        ticket = pruned.tickets[1]
        reference = Reference(falling()).fit(2).mask(ticket.mask)
        reference.model.optimizer.iterations.assign(0)
        assert reference.fit(2).has_ended_as(ticket)

    def test_learning_rate_that_a_callback_sets(self):
        """The rate of the rewind step is back before the level starts."""
        pruned = pruned_network(rewind="learning_rate")
        rates = []

        class Halve(tf_keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                rates.append(float(self.model.optimizer.learning_rate))

            def on_epoch_end(self, epoch, logs=None):
                rate = self.model.optimizer.learning_rate
                rate.assign(rate / 2)

        play(pruned, callbacks=[Halve()])
        assert rates == pytest.approx([0.1, 0.05] * 3)

    def test_continue(self):
        """Nothing goes back; the tickets' start is that of step 0."""
        pruned = pruned_network(rewind="continue")
        play(pruned)
        reference = Reference(sgd()).fit(2)
        for ticket in pruned.tickets[1:]:
            reference.mask(ticket.mask).fit(2)
            assert reference.has_ended_as(ticket)
            for name, value in pruned.tickets[0].start.items():
                assert np.array_equal(value, ticket.start[name])

    @pytest.mark.parametrize("kind", ["new", "legacy"])
    def test_fine_tune(self, kind):
        """The last learning rate of level 0 stays: 0.5 is never reached."""

        def run(boundaries, values, rewind):
            rates = tf_keras.optimizers.schedules.PiecewiseConstantDecay
            where = tf_keras.optimizers
            where = where.legacy if kind == "legacy" else where
            optimizer = where.SGD(rates(boundaries, values), momentum=0.9)
            pruned = pruned_network(optimizer=optimizer, rewind=rewind)
            play(pruned)
            return pruned

        held = run([5, 13], [0.1, 0.01, 0.5], "fine_tune")
        constant = run([5], [0.1, 0.01], "continue")
        for one, other in zip(held.tickets, constant.tickets, strict=True):
            for name in one.end:
                assert np.array_equal(one.end[name], other.end[name])
        rate = held.optimizer.get_config()["learning_rate"]["config"]["values"]
        assert rate == [0.1, 0.01, 0.5]  # the user's schedule is back

    def test_each_level_sees_the_rows_in_the_same_order(self):
        """Shuffled by (seed, step); another seed gives another order."""

        def order(seed):
            seen = []
            pruned = pruned_network(lottery.OneShot(0.5), seed=0)
            pruned._player.settings.seed = seed
            pruned.run_eagerly = True
            step = pruned.train_step
            pruned.train_step = lambda data: (
                seen.append(np.asarray(data[0])[:, 0]),
                step(data),
            )[1]
            play(pruned, shuffle=True)
            return np.array(seen)

        first = order(0)
        half = len(first) // 2
        assert half == 2 * PER_EPOCH
        assert np.array_equal(first[:half], first[half:])
        assert not np.array_equal(first[0], first[PER_EPOCH])
        assert not np.array_equal(first, order(1))

    def test_a_step_inside_an_epoch(self):
        """Arrays can start anywhere: level 1 trains steps 4 to 11."""
        pruned = pruned_network(lottery.OneShot(0.5), rewind_step=4)
        assert play(pruned).history["level"] == [0, 0, 1, 1]
        assert int(pruned.optimizer.iterations.numpy()) == 12
        assert pruned.tickets[1].metrics["last_step"] == 12

    def test_a_step_inside_an_epoch_of_a_sequence(self):
        """Where the data cannot start there it is refused before training."""

        class Rows(tf_keras.utils.Sequence):
            def __len__(self):
                return PER_EPOCH

            def __getitem__(self, index):
                rows = slice(20 * index, 20 * index + 20)
                return X[rows], Y[rows]

        pruned = pruned_network(rewind_step=4)
        with pytest.raises(ValueError, match="multiple of 6"):
            pruned.fit(Rows(), epochs=2, verbose=0)
        assert pruned.tickets == ()
        pruned = pruned_network(lottery.OneShot(0.5), rewind_step=6)
        pruned.fit(Rows(), epochs=2, verbose=0)
        assert [t.mask.kept for t in pruned.tickets] == [54, 27]


class TestCallbacks:
    """Those of tf_keras, which act per level."""

    def test_early_stopping_acts_in_every_level(self):
        """A loss that never falls by 100 stops each level at epoch 2 of 4."""
        pruned = pruned_network()
        stop = tf_keras.callbacks.EarlyStopping("loss", 100.0, patience=1)
        history = play(pruned, epochs=4, callbacks=[stop]).history
        assert history["level"] == [0, 0, 1, 1, 2, 2]

    def test_divergence(self):
        """Level 0 is lost, with a reason."""
        pruned = pruned_network(optimizer=tf_keras.optimizers.SGD(1e38))
        with pytest.raises(RunError, match="diverged at level 0"):
            play(pruned)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    """Also with a layer that stays in float32, where tfmot itself raises."""
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        body = [tf_keras.Input((6,)), layers.Dense(8)]
        body.append(layers.Dense(3, dtype="float32"))
        pruned = lottery.prune(tf_keras.Sequential(body), lottery.OneShot(0.5))
        pruned.compile("adam", LOSS)
        play(pruned)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    assert [t.mask.kept for t in pruned.tickets] == [72, 36]
    assert {v.dtype.name for v in pruned.tickets[1].end.values()} == {"float32"}


TWINS = [
    ("magnitude", "global"),
    ("magnitude", "layerwise"),
    ("magnitude", "erdos_renyi"),
    ("random", "global"),
    ("large_init", "layerwise"),
    ("movement", "global"),
    ("magnitude_increase_same_sign", "erdos_renyi_kernel"),
]


class TestMasks:
    """The masks of level 1 are those of a Keras 3 twin."""

    @pytest.mark.parametrize(("criterion", "allocation"), TWINS)
    def test_as_in_keras_3(self, criterion, allocation):
        """The same criterion, counts and ties on the twin's weights."""
        pruned = pruned_network(
            lottery.OneShot(0.6),
            criterion=criterion,
            allocation=allocation,
        )
        play(pruned, epochs=1)
        twin = keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(6, activation="tanh", name="fc1"),
                keras.layers.Dense(3, name="out"),
            ]
        )
        dense, ticket = pruned.tickets
        expected = lottery.find_mask(
            dense.restore(twin, "end"),
            0.6,
            start=dense.start,
            criterion=criterion,
            allocation=allocation,
        )
        assert ticket.mask == expected
        assert ticket.mask.kept == 54 - round(54 * 0.6)

    def test_groups(self):
        """A rate for each pattern, first match first."""
        pruned = pruned_network(
            {
                "out/*": lottery.IterativePruning(0.1, 2),
                "*": lottery.IterativePruning(0.5, 2),
            }
        )
        play(pruned, epochs=1)
        assert [t.mask.kept_by_name for t in pruned.tickets] == [
            {"fc1/kernel": 36, "out/kernel": 18},
            {"fc1/kernel": 18, "out/kernel": 16},
            {"fc1/kernel": 9, "out/kernel": 15},
        ]

    def test_a_criterion_of_the_user(self):
        """It gets names and weights; the model itself cannot be called."""

        def by_name(model, start, data):
            del data
            assert len(model.trainable_variables) == 4
            return {
                n: np.arange(w.size).reshape(w.shape) for n, w in start.items()
            }

        pruned = pruned_network(lottery.OneShot(0.5), criterion=by_name)
        play(pruned, epochs=1)
        # 18 to 35 are above all of out; 17 to 14 are in both; of 13 the first.
        assert pruned.mask.kept_by_name == {"fc1/kernel": 23, "out/kernel": 4}

        def by_data(model, start, data):
            return model(data)

        pruned = pruned_network(lottery.OneShot(0.5), criterion=by_data)
        with pytest.raises(ValueError, match="calls the model on data"):
            play(pruned, epochs=1)

    def test_of_a_model_that_tfmot_wrapped(self):
        """Masks of `ConstantSparsity`, read out and put into another."""
        model = tfmot.sparsity.keras.prune_low_magnitude(
            network(), tfmot.sparsity.keras.ConstantSparsity(0.5, 0, -1, 1)
        )
        model.compile(sgd(), LOSS)
        update = tfmot.sparsity.keras.UpdatePruningStep()
        model.fit(X, Y, epochs=1, verbose=0, callbacks=[update])
        found = legacy.legacy_masks.mask_of(model)
        assert found.kept_by_name == {"fc1/kernel": 18, "out/kernel": 9}
        for name, (mask, _) in in_model(model).items():
            assert np.array_equal(found[name], mask == 1)

        other = pruned_network()
        legacy.legacy_masks.set_mask(other, found)
        assert other.mask == found
        for name, (mask, weight) in in_model(other).items():
            assert np.array_equal(mask, found[name].astype("float32"))
            assert np.all(weight[~found[name]] == 0)

    def test_that_do_not_fit(self):
        """What has no wrapper, and no wrapper at all."""
        bias = lottery.Mask({"fc1/bias": np.ones(6, bool)})
        with pytest.raises(ValueError, match="no tfmot wrapper.*fc1/bias"):
            legacy.legacy_masks.set_mask(pruned_network(), bias)
        with pytest.raises(ValueError, match="no layer wrapped"):
            legacy.legacy_masks.mask_of(network())


class TestInPlace:
    """tfmot's own schedules are tfmot's ordinary behaviour."""

    @pytest.mark.parametrize(
        "schedule",
        [
            tfmot.sparsity.keras.ConstantSparsity(0.5, 2, -1, 3),
            tfmot.sparsity.keras.PolynomialDecay(0.1, 0.8, 0, 9, frequency=2),
        ],
        ids=["constant", "polynomial"],
    )
    def test_as_tfmot(self, schedule):
        """Bit for bit, without the callback that tfmot asks for."""
        pruned = pruned_network(schedule)
        history = play(pruned).history
        model = tfmot.sparsity.keras.prune_low_magnitude(network(), schedule)
        model.compile(sgd(), LOSS, metrics=["accuracy"])
        update = tfmot.sparsity.keras.UpdatePruningStep()
        theirs = model.fit(
            X, Y, batch_size=20, epochs=2, shuffle=False, verbose=0,
            callbacks=[update],
        ).history  # fmt: skip
        assert history["loss"] == theirs["loss"]
        for (m, w), (n, v) in zip(
            in_model(pruned).values(), in_model(model).values(), strict=True
        ):
            assert np.array_equal(m, n)
            assert np.array_equal(w, v)
        assert 0 < pruned.mask.kept < 54
        assert pruned.tickets == ()

    def test_saved(self, tmp_path):
        """It loads as any model of tfmot's does, in `prune_scope`."""
        pruned = pruned_network(tfmot.sparsity.keras.ConstantSparsity(0.5, 0))
        play(pruned)
        pruned.save(tmp_path / "model.h5")
        with tfmot.sparsity.keras.prune_scope():
            loaded = tf_keras.models.load_model(tmp_path / "model.h5")
        assert type(loaded) is tf_keras.Sequential
        assert np.array_equal(loaded(X[:9]), pruned(X[:9]))

    def test_a_rewind_or_another_criterion(self):
        """There is nothing to rewind to, and tfmot knows one criterion."""
        half = lottery.ConstantSparsity(0.5, 0)
        with pytest.raises(ValueError, match="prunes in place"):
            pruned_network(half, rewind="weights")
        with pytest.raises(ValueError, match="got criterion='random'"):
            pruned_network(half, criterion="random")


class TestRefusals:
    """What cannot be pruned, and what to do."""

    def test_subclassed(self):
        """A model, and one inside another."""

        class Mine(tf_keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = layers.Dense(2)

            def call(self, x):
                return self.dense(x)

        mine = Mine()
        mine(X)
        outer = tf_keras.Sequential([tf_keras.Input((6,)), mine])
        for model in (mine, outer):
            with pytest.raises(ValueError, match="subclassed.*Functional"):
                lottery.prune(model)

    def test_unknown_layers(self):
        """They are left alone and named; the rest is pruned."""

        class Strange(layers.Layer):
            def build(self, shape):
                self.kernel = self.add_weight("kernel", (shape[-1], 4))

            def call(self, x):
                return x @ self.kernel

        class Known(Strange):
            def get_prunable_weights(self):
                return [self.kernel]

        def build(kind):
            body = [tf_keras.Input((6,)), kind(name="odd"), layers.Dense(3)]
            return tf_keras.Sequential(body)

        with pytest.warns(UserWarning, match="know the layers of odd/kernel"):
            pruned = lottery.prune(build(Strange), lottery.OneShot(0.5))
        assert list(pruned.mask) == ["dense/kernel"]
        lines = []
        pruned.summary(print_fn=lines.append)
        assert "odd/kernel: not pruned, its layer is unknown" in lines[-1]
        pruned = lottery.prune(build(Known), lottery.OneShot(0.5))
        assert list(pruned.mask) == ["odd/kernel", "dense/kernel"]
        with pytest.raises(ValueError, match="know the layers of odd/kernel"):
            lottery.prune(build(Strange), lottery.OneShot(0.5), layers=["odd"])

    def test_wrapped_already(self):
        """By us or by tfmot."""
        with pytest.raises(ValueError, match="wrappers already"):
            lottery.prune(pruned_network())

    def test_not_built(self):
        """What to call is said."""
        with pytest.raises(ValueError, match="not built. Call"):
            lottery.prune(tf_keras.Sequential([layers.Dense(2)]))

    def test_not_compiled(self):
        """The same as with Keras 3."""
        pruned = lottery.prune(network(), lottery.OneShot(0.5))
        with pytest.raises(ValueError, match="Compile the pruned model"):
            play(pruned)

    def test_layers_that_are_not_in_the_model(self):
        """A layer of another model; one of this model is fine."""
        model = network()
        with pytest.raises(ValueError, match="'fc1', which is not in"):
            lottery.prune(model, layers=[network().layers[0]])
        pruned = lottery.prune(model, layers=[model.layers[1]])
        assert list(pruned.mask) == ["out/kernel"]

    def test_a_ticket_of_another_network(self):
        """All differences are named."""
        pruned = pruned_network(lottery.OneShot(0.5))
        play(pruned, epochs=1)
        other = tf_keras.Sequential(
            [layers.Dense(2, input_shape=(6,), name="fc1")]
        )
        with pytest.raises(TicketError, match=r"fc1/bias: ticket \(6,\)"):
            legacy.restore(pruned.tickets[1], other)


def test_a_ticket_restores_itself_into_plain_and_wrapped_legacy_models():
    pruned = pruned_network()
    play(pruned)
    ticket = pruned.tickets[2]
    plain = ticket.restore(network(seed=5), "end")
    expected = ticket.weights("end")["fc1/kernel"]
    np.testing.assert_array_equal(plain.layers[0].kernel.numpy(), expected)
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(network(seed=5))
    ticket.restore(wrapped, "end")
    assert lottery.legacy.mask_of(wrapped) == ticket.mask
