"""Lotteries that begin with a sparse network: counts, refusals, round trips."""

import re

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.pruning import weights
from keras_lottery.tickets import sparse_start

pytestmark = pytest.mark.thorough

SIZE = 8 * 20 + 20 * 2  # 200


def data():
    """Returns x and y of 32 rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8)).astype(np.float32)
    return x, rng.normal(size=(32, 2)).astype(np.float32)


def network(seed=0):
    """Returns a network of 200 weights."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(20, activation="tanh", name="hidden"),
            keras.layers.Dense(2, name="output"),
        ]
    )


def sparse(fraction=0.335, seed=0):
    """Returns a network some of whose weights are zero, and its mask."""
    model = network(seed)
    return model, lottery.sparsify(model, fraction)


def going_on(fraction=0.335, rate=0.5, levels=2):
    """Returns a schedule that begins with a sparsity."""
    return lottery.IterativePruning(rate, levels, initial_sparsity=fraction)


def played(pruned, **more):
    """Returns it, after a `fit` of two epochs a level."""
    pruned.compile(keras.optimizers.Adam(0.01), "mse")
    pruned.fit(*data(), epochs=2, batch_size=8, verbose=0, **more)
    return pruned


def check_levels(tickets, first):
    """Checks counts by hand, nesting, and zeros in what is trained."""
    left = [133, SIZE - round(SIZE * (1 - 0.665 * 0.5)),
            SIZE - round(SIZE * (1 - 0.665 * 0.25))]  # fmt: skip
    assert left == [133, 66, 33]
    assert [ticket.mask.kept for ticket in tickets] == left
    assert tickets[0].mask == first
    for before, after in zip(tickets, tickets[1:]):
        assert after.mask.issubset(before.mask)
    for ticket in tickets:
        for name, whole in ticket.weights("end").items():
            assert not whole[~ticket.mask[name]].any()
            assert whole[ticket.mask[name]].all()


@pytest.mark.parametrize("given", ["mask", "nonzero", "ticket"])
def test_level_0_is_sparse_and_the_levels_go_on(given):
    model, mask = sparse()
    if given == "ticket":
        one = lottery.prune(network(), lottery.OneShot(0.335))
        ticket = played(one).tickets[-1]
        model, mask = ticket.restore(network(), "start"), ticket.mask
    start = {"mask": mask, "nonzero": "nonzero"}.get(given) or ticket
    before = model.layers[0].kernel.numpy()
    pruned = played(lottery.prune(model, going_on(), mask=start))
    check_levels(pruned.tickets, mask)
    np.testing.assert_array_equal(
        pruned.tickets[2].start["hidden/kernel"],
        np.where(mask["hidden/kernel"], before, 0),
    )


def test_a_schedule_without_initial_sparsity_is_as_it_was():
    config = lottery.IterativePruning(0.2, 3).get_config()
    assert config["config"] == {
        "rate": 0.2,
        "levels": 3,
        "steps_per_level": None,
    }
    again = lottery.IterativePruning.from_config(
        going_on().get_config()["config"]
    )
    assert again.initial_sparsity == 0.335
    assert [again.sparsity(level) for level in range(3)] == [
        0.335,
        1 - 0.665 * 0.5,
        1 - 0.665 * 0.5**2,
    ]


def test_find_tickets_begins_with_a_mask():
    model, mask = sparse()
    model.compile(keras.optimizers.Adam(0.01), "mse")

    def train(model, first, last):
        for _ in range(first, last):
            model.train_on_batch(*data())

    found = list(
        lottery.find_tickets(model, train, going_on(), steps=3, mask="nonzero")
    )
    check_levels(found, mask)
    # From the ticket of level 0, which keeps fewer than a dense network.
    again = lottery.find_tickets(
        model, train, going_on(), steps=3, mask=mask, after=found[0]
    )
    for ticket, then in zip(again, found[1:], strict=True):
        assert ticket.mask == then.mask


def test_groups_are_counted_each_by_itself():
    model, _ = sparse(0.0)
    mask = lottery.sparsify(model, {"hidden/*": 0.25, "output/*": 0.5})
    schedule = {
        "output/*": going_on(0.5, 0.2, 1),
        "*": going_on(0.25, 0.5, 1),
    }
    pruned = played(lottery.prune(model, schedule, mask=mask))
    assert [t.mask.kept_by_name for t in pruned.tickets] == [
        {"hidden/kernel": 120, "output/kernel": 20},
        {"hidden/kernel": 60, "output/kernel": 16},
    ]


def test_weights_that_the_mask_does_not_name_are_kept():
    model = network()
    mask = lottery.sparsify(model, 0.5, layers=["hidden"])
    pruned = lottery.prune(model, lottery.OneShot(0.75), mask=mask)
    assert pruned.mask.kept_by_name == {
        "hidden/kernel": 80,
        "output/kernel": 40,
    }
    assert [t.mask.kept for t in played(pruned).tickets] == [120, 50]


def test_a_schedule_that_prunes_in_place_begins_with_a_mask():
    model, mask = sparse(0.5)
    schedule = lottery.PolynomialDecay(0.5, 0.8, 2, 6, frequency=1)
    pruned = played(lottery.prune(model, schedule, mask=mask))
    assert pruned.tickets[0].mask.kept == 40
    assert pruned.tickets[0].mask.issubset(mask)


REFUSED = {
    "pruning revives none. .* pass initial_sparsity=0.335 to": (
        lottery.IterativePruning(0.2, 2),
        lambda mask: mask,
    ),
    "the schedule's level 1 asks for sparsity 0.3, which keeps 140": (
        lottery.ListedSparsities([0.3, 0.5]),
        lambda mask: mask,
    ),
    "level 0 is dense. Pass the mask that it is of": (
        going_on(),
        lambda mask: None,
    ),
    "does not fit": (
        going_on(),
        lambda mask: lottery.Mask({"hidden/kernel": np.ones((2, 2), bool)}),
    ),
    "`mask` takes a Mask, a Ticket, or 'nonzero'": (
        going_on(),
        lambda mask: "zeros",
    ),
    "The mask keeps no weight": (
        going_on(),
        lambda mask: lottery.Mask({n: mask[n] & False for n in mask}),
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_done(text):
    model, mask = sparse()
    before = model.get_weights()
    schedule, start = REFUSED[text]
    with pytest.raises(ValueError, match=text):
        lottery.prune(model, schedule, mask=start(mask))
    for array, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, then)


def test_a_mask_of_what_is_not_pruned_is_refused():
    model, mask = sparse()
    with pytest.raises(ValueError, match="also of output/kernel"):
        lottery.prune(model, going_on(), layers=["hidden"], mask=mask)


def test_in_place_less_sparsity_is_refused_before_training():
    model, mask = sparse(0.5)
    pruned = lottery.prune(
        model, lottery.PolynomialDecay(0.0, 0.8, 0, 6, frequency=1), mask=mask
    )
    with pytest.raises(ValueError, match=re.escape("initial_sparsity=0.5")):
        played(pruned)
    assert not pruned.tickets


@pytest.mark.parametrize("left", [1, 66, 67, 133, 199])
def test_the_fraction_that_is_suggested_gives_the_count(left):
    fraction = sparse_start.fraction_of(left, SIZE)
    assert SIZE - round(SIZE * fraction) == left
    assert sparse_start.fraction_of(2_000_001, 3_000_000) == pytest.approx(
        1 / 3, abs=1e-6
    )


def test_saved_and_loaded_it_begins_as_it_did(tmp_path):
    model, mask = sparse()
    pruned = lottery.prune(model, going_on(), mask=mask)
    pruned.compile(keras.optimizers.Adam(0.01), "mse")
    pruned.save(tmp_path / "begun.keras")
    loaded = keras.models.load_model(tmp_path / "begun.keras")
    assert loaded.mask == mask == loaded.settings.mask
    clone = keras.models.clone_model(pruned)
    assert clone.mask == mask and clone.level == 0
    played(pruned)
    check_levels(played(loaded).tickets, mask)
    for one, other in zip(pruned.tickets, loaded.tickets, strict=True):
        assert one.mask == other.mask


def test_it_is_continued_from_the_ticket_of_level_0(tmp_path):
    model, mask = sparse()
    whole = played(lottery.prune(model, going_on(), mask=mask))
    whole.tickets[0].save(tmp_path / "level_0.safetensors")
    ticket = lottery.Ticket.load(tmp_path / "level_0.safetensors")
    model, mask = sparse()
    again = lottery.prune(model, going_on(), mask=mask)
    again.compile(keras.optimizers.Adam(0.01), "mse")
    again.continue_from(ticket)
    again.fit(*data(), epochs=2, batch_size=8, verbose=0)
    for one, other in zip(whole.tickets[1:], again.tickets, strict=True):
        assert one.mask == other.mask


class Stop(keras.callbacks.Callback):
    """Fails in the middle of level 1, while it is armed."""

    armed = False  # of the class: not part of what a folder is of

    def on_epoch_begin(self, epoch, logs=None):
        """Fails, or not."""
        if Stop.armed and self.model.level == 1 and epoch == 1:
            raise RuntimeError("stopped")


def test_a_folder_of_checkpoints_is_of_its_mask(tmp_path, monkeypatch):
    keeping = {"checkpoint_dir": tmp_path / "kept", "checkpoint_steps": 1}

    def play(turn=0, **more):
        model = network()
        mask = lottery.find_mask(model, 0.335)
        mask = lottery.Mask({n: np.roll(mask[n], turn) for n in mask})
        pruned = lottery.prune(model, going_on(), mask=mask)
        return played(pruned, callbacks=[Stop()], **more)

    whole = play()
    monkeypatch.setattr(Stop, "armed", True)
    with pytest.raises(RuntimeError, match="stopped"):
        play(**keeping)
    monkeypatch.setattr(Stop, "armed", False)
    with pytest.raises(ValueError, match="prune mask: .* there, .* here"):
        play(turn=1, **keeping)
    resumed = play(**keeping)
    for one, two in zip(whole.tickets, resumed.tickets, strict=True):
        assert one.mask == two.mask
        for name, array in one.end.items():
            np.testing.assert_array_equal(two.end[name], array)


def test_configs_of_strangers_are_looked_at():
    _, mask = sparse()
    config = sparse_start.serialize(mask)
    assert sparse_start.deserialize(config) == mask
    for broken in (
        {"hidden/kernel": {"shape": [8, 20]}},
        {"hidden/kernel": {"shape": [8, 20], "bits": "!!"}},
        {"hidden/kernel": {"shape": [8, 21], "bits": config[
            "hidden/kernel"]["bits"]}},
        {"hidden/kernel": {"shape": [-1], "bits": config[
            "hidden/kernel"]["bits"]}},
        ["hidden/kernel"],
    ):  # fmt: skip
        with pytest.raises(ValueError):
            sparse_start.deserialize(broken)


def test_legacy_models_are_refused():
    tf_keras = pytest.importorskip("tf_keras", reason="needs tf_keras")
    model = tf_keras.Sequential([tf_keras.layers.Dense(2)])
    model.build((None, 4))
    with pytest.raises(ValueError, match="is for Keras 3 models"):
        lottery.prune(model, going_on(), mask="nonzero")


def test_what_the_mask_removes_is_zero_at_once():
    model = network()
    mask = lottery.find_mask(model, 0.335)
    lottery.prune(model, going_on(), mask=mask)
    named = weights.by_name(model)
    for name in mask:
        assert not named[name].numpy()[~mask[name]].any()
