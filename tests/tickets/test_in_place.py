"""tfmot's own schedules on Keras 3 models, beside tfmot on tf_keras ones."""

import re

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery import tfmot_bridge
from keras_lottery.pruning import weights

ROWS, BATCH = 40, 8
A_EPOCH = ROWS // BATCH  # 5 steps


def data():
    """Returns x and y."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 20)).astype(np.float32)
    return x, rng.normal(size=(ROWS, 10)).astype(np.float32)


def network(library):
    """Returns a network of 400 + 200 weights, always the same, of a Keras."""
    model = library.Sequential(
        [
            library.layers.Dense(20, activation="tanh", name="hidden"),
            library.layers.Dense(10, name="output"),
        ]
    )
    model.build((None, 20))
    rng = np.random.default_rng(1)
    for layer in model.layers:
        shape = tuple(layer.kernel.shape)
        values = rng.normal(size=shape) / np.sqrt(shape[0])
        layer.set_weights([values.astype(np.float32), np.zeros(shape[1])])
    return model


class Watch(keras.callbacks.Callback):
    """Notes masks, levels and leaks after every batch."""

    def __init__(self):
        super().__init__()
        self.kept, self.levels, self.leaks, self.masks = [], [], [], []

    def on_train_batch_end(self, batch, logs=None):
        """Notes them."""
        mask = self.model.mask
        named = weights.by_name(self.model.inner)
        self.masks.append(mask)
        self.kept.append(list(mask.kept_by_name.values()))
        self.levels.append(self.model.level)
        self.leaks.append(
            sum(np.count_nonzero(named[n].numpy()[~mask[n]]) for n in mask)
        )


def pruned_network(schedule, optimizer=None, **choices):
    """Returns a compiled pruned model."""
    choices = {"allocation": "layerwise", **choices}
    pruned = lottery.prune(network(keras), schedule, **choices)
    pruned.compile(optimizer or keras.optimizers.SGD(0.05), "mse")
    return pruned


def fit(pruned, *callbacks, epochs=3):
    """Fits rows in order; 5 steps an epoch."""
    return pruned.fit(
        *data(), epochs=epochs, batch_size=BATCH, shuffle=False, verbose=0,
        callbacks=list(callbacks),
    )  # fmt: skip


class Batches(keras.utils.PyDataset):
    """Batches made in Python, which Keras's own `fit` trains on."""

    def __init__(self, x, y):
        super().__init__()
        self._x, self._y = x, y

    @property
    def num_batches(self):
        """Steps in an epoch."""
        return len(self._x) // BATCH

    def __getitem__(self, index):
        """Returns a batch."""
        rows = slice(index * BATCH, (index + 1) * BATCH)
        return self._x[rows], self._y[rows]


def by_tfmot(schedule, fits):
    """Returns tfmot's masks after every batch, on an equal tf_keras model."""
    import tf_keras

    sparsity = tfmot_bridge.tfmot.sparsity.keras
    model = sparsity.prune_low_magnitude(
        network(tf_keras), pruning_schedule=schedule
    )
    model.compile(tf_keras.optimizers.SGD(0.05), "mse")
    seen = []

    class Record(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(
                [layer.pruning_vars[0][1].numpy() for layer in model.layers]
            )

    for epochs in fits:
        model.fit(
            *data(), epochs=epochs, batch_size=BATCH, shuffle=False, verbose=0,
            callbacks=[sparsity.UpdatePruningStep(), Record()],
        )  # fmt: skip
    return seen


SCHEDULES = {
    "constant": lottery.ConstantSparsity(0.3, begin_step=4, frequency=3),
    "constant from 0": lottery.ConstantSparsity(0.55, 0, frequency=2),
    "constant until": lottery.ConstantSparsity(
        0.25, begin_step=2, end_step=6, frequency=2
    ),
    "quadratic": lottery.PolynomialDecay(
        0.25, 0.75, begin_step=2, end_step=12, power=2, frequency=2
    ),
    "cubic": lottery.PolynomialDecay(
        0.1, 0.8, begin_step=2, end_step=12, power=3, frequency=2
    ),
    "linear": lottery.PolynomialDecay(
        0.0, 0.6, begin_step=1, end_step=11, power=1, frequency=5
    ),
}


@pytest.mark.parametrize("fits", [(3,), (1, 2)], ids=["one fit", "two fits"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_beside_tfmot(name, fits):
    """The same steps, the same sparsity, the same weights, in one process.

    tfmot rounds layer by layer, and here the total is exact. Of the cubic
    schedule the two differ by one weight, so each layer is a group there.
    """
    schedule, watch = SCHEDULES[name], Watch()
    by_layer = {"hidden/*": schedule, "output/*": schedule}
    pruned = pruned_network(by_layer if name == "cubic" else schedule)
    for epochs in fits:
        fit(pruned, watch, epochs=epochs)
    theirs = by_tfmot(schedule, fits)
    counts = [[int(mask.sum()) for mask in masks] for masks in theirs]
    assert len(counts) == 3 * A_EPOCH
    assert watch.kept == counts
    assert counts[-1] != [400, 200]
    for mine, masks in zip(watch.masks, theirs):
        for name, mask in zip(mine, masks):
            assert (mine[name] == mask.astype(bool)).all(), name
    assert watch.leaks == [0] * 3 * A_EPOCH


class TestSteps:
    """When a schedule fires, what is kept, what is recorded."""

    POLYNOMIAL = lottery.PolynomialDecay(
        0.2, 0.8, begin_step=2, end_step=12, power=1, frequency=5
    )

    def test_kept_by_hand(self):
        """20 % before batch 2, 50 % before batch 7, 80 % before batch 12."""
        watch = Watch()
        fit(pruned_network(self.POLYNOMIAL), watch)
        expected = [[400, 200]] + [[320, 160]] * 5 + [[200, 100]] * 5
        assert watch.kept == expected + [[80, 40]] * 4
        assert watch.levels == [0] + [1] * 5 + [2] * 5 + [3] * 4

    def test_nothing_is_revived(self):
        """Each mask is a part of the one before; slots do not leak."""
        watch = Watch()
        optimizer = keras.optimizers.Adam(0.05, global_clipnorm=0.5)
        schedule = SCHEDULES["cubic"]
        fit(pruned_network(schedule, optimizer, allocation="global"), watch)
        assert len({mask.kept for mask in watch.masks}) == 7  # dense and six
        for before, after in zip(watch.masks, watch.masks[1:]):
            assert after.issubset(before)
        assert watch.leaks == [0] * 15

    def test_a_schedule_that_falls_revives_nothing(self):
        """From 80 % to 20 %: everything removed stays removed."""
        watch = Watch()
        falling = lottery.PolynomialDecay(
            0.8, 0.2, begin_step=2, end_step=12, frequency=5
        )
        fit(pruned_network(falling), watch)
        assert watch.kept == [[400, 200]] + [[80, 40]] * 14

    def test_history(self):
        """Level and sparsity of each epoch at its end."""
        history = fit(pruned_network(self.POLYNOMIAL))
        assert history.epoch == [0, 1, 2]
        assert history.history["level"] == [1, 2, 3]
        assert history.history["sparsity"] == pytest.approx([0.2, 0.5, 0.8])

    def test_the_ticket(self):
        """One training, one ticket: from its first weights to its last."""
        pruned = pruned_network(self.POLYNOMIAL)
        first = {
            n: v.numpy().copy()
            for n, v in weights.by_name(pruned.inner).items()
        }
        fit(pruned)
        (ticket,) = pruned.tickets
        assert (ticket.level, ticket.mask.kept) == (3, 120)
        assert ticket.mask == pruned.mask
        for name, value in {**ticket.start, **ticket.start_state}.items():
            assert value.tobytes() == first[name].tobytes()
        now = weights.by_name(pruned.inner)
        for name, value in ticket.weights("end").items():
            assert value.tobytes() == now[name].numpy().tobytes()
        assert ticket.metrics["last_step"] == 15
        assert ticket.provenance["schedule"]["*"]["class_name"] == (
            "PolynomialDecay"
        )

    def test_a_dict_of_patterns(self):
        """Each layer its own; what fits none is dense."""
        watch = Watch()
        schedule = {"output/*": lottery.ConstantSparsity(0.5, 3, frequency=20)}
        fit(pruned_network(schedule), watch, epochs=1)
        assert watch.kept == [[200]] * 2 + [[100]] * 3
        both = {
            "output/*": lottery.ConstantSparsity(0.5, 3, frequency=20),
            "*": lottery.ConstantSparsity(0.25, 5, frequency=20),
        }
        watch = Watch()
        fit(pruned_network(both), watch, epochs=1)
        assert watch.kept == [[400, 200]] * 2 + [[400, 100]] * 2 + [[300, 100]]

    def test_a_schedule_of_one_s_own(self):
        """Any subclass of tfmot's PruningSchedule."""

        class AtSteps(tfmot_bridge.PruningSchedule):
            def __call__(self, step):
                return step % 4 == 0, step / 16

            def get_config(self):
                return {"class_name": "AtSteps", "config": {}}

        watch = Watch()
        fit(pruned_network(AtSteps(), allocation="global"), watch)
        sizes = [sum(kept) for kept in watch.kept]
        assert sizes == [600] * 3 + [450] * 4 + [300] * 4 + [150] * 4

    def test_it_trains_as_a_masked_model(self):
        """Between two firings: `lottery.masked` and Keras's own `fit`."""
        watch = Watch()
        once = lottery.ConstantSparsity(0.5, 1, frequency=100)
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
        pruned = pruned_network(once, optimizer)
        fit(pruned, watch)
        model = network(keras)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
        with lottery.masked(model, watch.masks[0]):
            model.fit(
                *data(), epochs=3, batch_size=BATCH, shuffle=False, verbose=0
            )
        for one, other in zip(model.get_weights(), pruned.inner.get_weights()):
            assert one.tobytes() == other.tobytes()


class TestSecondFit:
    """The steps of all fits are counted together."""

    SCHEDULE = lottery.ConstantSparsity(0.5, begin_step=8, frequency=100)

    def test_it_goes_on_counting(self):
        """Step 8 is the third batch of the second fit."""
        watch, pruned = Watch(), pruned_network(self.SCHEDULE)
        with pytest.raises(ValueError, match="fires at none of the 5 steps"):
            fit(pruned, watch, epochs=1)
        fit(pruned, watch, epochs=2)
        assert watch.kept == [[400, 200]] * 7 + [[200, 100]] * 3
        fit(pruned, watch, epochs=1)
        assert watch.kept[10:] == [[200, 100]] * 5
        assert [t.level for t in pruned.tickets] == [1, 1]
        assert watch.leaks == [0] * 15

    def test_after_an_interruption(self):
        """Ctrl-C after step 6; step 8 is the second batch of the next fit."""

        class Interrupt(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                self.epoch = epoch

            def on_train_batch_end(self, batch, logs=None):
                if (self.epoch, batch) == (1, 0):
                    raise KeyboardInterrupt

        pruned, watch = pruned_network(self.SCHEDULE), Watch()
        with pytest.raises(KeyboardInterrupt):
            fit(pruned, watch, Interrupt())
        fit(pruned, watch, epochs=1)
        assert watch.kept == [[400, 200]] * 7 + [[200, 100]] * 4

    def test_after_loading(self, tmp_path):
        """The count is in the file."""
        pruned = pruned_network(TestSteps.POLYNOMIAL)
        fit(pruned, epochs=1)
        pruned.save(tmp_path / "a.keras")
        loaded, watch = keras.models.load_model(tmp_path / "a.keras"), Watch()
        assert (loaded.level, loaded.mask) == (1, pruned.mask)
        fit(loaded, watch, epochs=2)
        assert watch.kept == [[320, 160]] + [[200, 100]] * 5 + [[80, 40]] * 4
        assert watch.levels == [1] + [2] * 5 + [3] * 4
        assert watch.leaks == [0] * 10


class TestErrors:
    """Before any training."""

    @pytest.mark.parametrize(
        "schedule",
        [
            lottery.ConstantSparsity(0.5, begin_step=16),
            lottery.ConstantSparsity(0.5, begin_step=100, frequency=1),
            lottery.PolynomialDecay(0.1, 0.5, begin_step=200, end_step=300),
        ],
    )
    def test_a_schedule_that_never_fires(self, schedule):
        """The silent no-op of tfmot (its issues 973 and 975)."""
        pruned, watch = pruned_network(schedule), Watch()
        before = pruned.inner.get_weights()
        name = type(schedule).__name__
        with pytest.raises(
            ValueError, match=f"never prune.*none of the 15 steps.*{name}"
        ):
            fit(pruned, watch)
        assert watch.kept == []
        for one, other in zip(before, pruned.inner.get_weights()):
            assert one.tobytes() == other.tobytes()

    @pytest.mark.parametrize(
        "choices",
        [
            {"rewind": "weights"},
            {"rewind": "learning_rate"},
            {"rewind": "fine_tune"},
            {"rewind": "continue"},
            {"rewind": "nonsense"},
            {"rewind_step": 3},
            {"rewind": "none", "rewind_step": 3},
        ],
    )
    def test_there_is_nothing_to_rewind(self, choices):
        """One training has no levels to start again."""
        schedule = lottery.ConstantSparsity(0.5, 2)
        with pytest.raises(
            ValueError, match="ConstantSparsity prunes in place"
        ):
            lottery.prune(network(keras), schedule, **choices)

    def test_none_is_its_default(self):
        """Both ways of leaving it out."""
        schedule = lottery.ConstantSparsity(0.5, 2)
        for rewind in (None, "none"):
            lottery.prune(network(keras), schedule, rewind=rewind)

    def test_inside_a_call_of_several_steps(self):
        """Keras calls back once per call: step 4 cannot be met."""
        pruned = lottery.prune(
            network(keras), lottery.ConstantSparsity(0.5, 4, frequency=100)
        )
        pruned.compile("sgd", "mse", steps_per_execution=5)
        x, y = data()
        with pytest.raises(ValueError, match="Step 3 lies inside a call.*=5"):
            pruned.fit(Batches(x, y), epochs=3, verbose=0)

    @pytest.mark.parametrize("step", [4, 6])
    def test_calls_end_where_the_schedule_prunes(self, step):
        """Whatever `steps_per_execution` says, which is the most of a call."""
        pruned = lottery.prune(
            network(keras), lottery.ConstantSparsity(0.5, step, frequency=100)
        )
        pruned.compile("sgd", "mse", steps_per_execution=5)
        pruned.fit(*data(), epochs=3, batch_size=BATCH, verbose=0)
        assert pruned.mask.kept == 300
        assert int(pruned.clock) == 15
        assert pruned.tickets[0].level == 1

    def test_no_winning_ticket(self):
        """There is no dense level to compare with."""
        pruned = pruned_network(lottery.ConstantSparsity(0.5, 2))
        with pytest.raises(
            ValueError, match="no dense level.*counts in levels"
        ):
            pruned.winning_ticket()

    def test_a_collapse_names_layer_and_level(self):
        """As in a lottery of levels."""
        model = network(keras)
        small = model.get_layer("output").kernel
        small.assign(small * 1e-6)
        pruned = lottery.prune(model, lottery.ConstantSparsity(0.5, 3))
        pruned.compile(keras.optimizers.SGD(0.0), "mse")
        with pytest.warns(
            lottery.LayerCollapseWarning,
            match=re.escape("'output/kernel' has no weight left at level 1"),
        ):
            fit(pruned)
