"""Proofs: each sees what it is there for, and names the first of it."""

import itertools

import keras
import ml_dtypes
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.pruning.mask import Mask
from keras_lottery.tickets import proofs
from keras_lottery.tickets import proving
from keras_lottery.tickets import rewind as rewinds
from keras_lottery.tickets import search
from keras_lottery.training import state
from keras_lottery.training.state import Snapshot

NAN, INF = float("nan"), float("inf")


def mask(**bits):
    return Mask({name: np.array(each, bool) for name, each in bits.items()})


class TestSame:
    """Bits are compared, and the first that differ are named."""

    @pytest.mark.parametrize(
        "dtype",
        [np.float16, np.float32, np.float64, np.int32, bool, np.uint8,
         ml_dtypes.bfloat16, np.complex64, np.complex128],
        ids=str,
    )  # fmt: skip
    def test_every_single_bit(self, dtype):
        """Of a 2 x 3 array; by brute force."""
        array = np.arange(6).reshape(2, 3).astype(dtype)
        assert proofs.same("w", array, array.copy()) is None
        size = array.dtype.itemsize
        for place, bit in itertools.product(range(6), range(8 * size)):
            other = array.copy()
            flat = other.reshape(-1).view(np.uint8)
            flat[place * size + bit // 8] ^= 1 << bit % 8
            found = proofs.same("w", other, array)
            assert found.startswith(f"w[{place // 3}, {place % 3}] is ")

    def test_the_first_of_several(self):
        one = np.array([[1.0, 2.0], [3.0, 4.0]])
        two = np.array([[1.0, 2.5], [3.5, 4.0]])
        assert proofs.same("w", one, two) == "w[0, 1] is 2.0, expected 2.5"

    def test_what_equality_hides(self):
        """Zeros of two signs are equal, NaN is not equal to itself."""
        zeros = np.array([0.0]), np.array([-0.0])
        assert (zeros[0] == zeros[1]).all()
        assert proofs.same("w", *zeros) == "w[0] is 0.0, expected -0.0"
        assert proofs.same("w", np.array([NAN]), np.array([NAN])) is None

    def test_scalars_and_nothing(self):
        found = proofs.same("step", np.int64(3), np.int64(4))
        assert found == "step is 3, expected 4"
        assert proofs.same("w", np.zeros((0, 3)), np.zeros((0, 3))) is None

    def test_views_that_are_not_contiguous(self):
        array = np.arange(12.0).reshape(3, 4)
        assert proofs.same("w", array.T, array.T.copy()) is None
        other = array.copy()
        other[2, 1] = 7
        found = proofs.same("w", other.T, array.T)
        assert found == "w[1, 2] is 7.0, expected 9.0"

    def test_shape_and_dtype(self):
        one = np.zeros(2, np.float32)
        assert "shape (2,), expected (3,)" in proofs.same("w", one, np.zeros(3))
        found = proofs.same("w", one, np.zeros(2, np.float16))
        assert found == "w has dtype float32, expected float16"


class TestParts:
    """What a rewind returns or keeps."""

    MASK = mask(w=[True, False, True])
    THEN = Snapshot(
        {"w": np.array([1.0, -2.0, -0.0]), "b": np.array([5.0])},
        (np.array(3), np.array([0.5, 0.6, 0.7]), np.array([0.1])),
    )
    LAYOUT = proofs.Layout(
        ("iteration", "w_slot", "b_slot"), frozenset({0}), {1: ("w", 0.1)}
    )

    def rewound(self, w=(1.0, 0.0, -0.0), b=5.0, clock=3,
                slot=(0.5, 0.1, 0.7), other=0.1):  # fmt: skip
        return Snapshot(
            {"w": np.array(w), "b": np.array([b])},
            (np.array(clock), np.array(slot), np.array([other])),
        )

    @pytest.mark.parametrize(
        "change, part, sentence",
        [
            ({}, None, None),
            ({"w": (1, 0.0, 0.0)}, "weights", "w[2] is 0.0, expected -0.0"),
            ({"w": (1, -0.0, -0.0)}, "weights", "w[1] is -0.0, expected 0.0"),
            ({"w": (1, -2.0, -0.0)}, "weights", "w[1] is -2.0, expected 0.0"),
            ({"w": (2.0, 0.0, -0.0)}, "weights", "w[0] is 2.0, expected 1.0"),
            ({"b": 6.0}, "others", "the model's b[0] is 6.0, expected 5.0"),
            ({"clock": 4}, "clock", "the optimizer's iteration is 4, expected "
             "3"),
            ({"slot": (0.5, 0.6, 0.7)}, "slots", "the optimizer's w_slot[1] is "
             "0.6, expected 0.1"),
            ({"slot": (0.4, 0.1, 0.7)}, "slots", "the optimizer's w_slot[0] is "
             "0.4, expected 0.5"),
            ({"other": 0.2}, "slots", "the optimizer's b_slot[0] is 0.2, "
             "expected 0.1"),
        ],
    )  # fmt: skip
    def test_each_change_is_seen_by_one(self, change, part, sentence):
        now = self.rewound(**change)
        found = {
            name: proof(now, self.THEN, self.MASK, self.LAYOUT)
            for name, proof in proofs.PARTS.items()
        }
        assert found == dict.fromkeys(proofs.PARTS) | (
            {} if part is None else {part: sentence}
        )

    def test_without_an_optimizer(self):
        then = Snapshot(self.THEN.model, None)
        for name in ("slots", "clock"):
            proof = proofs.PARTS[name]
            now = self.rewound(clock=9, other=9.0)
            assert proof(now, then, self.MASK, self.LAYOUT) is None

    def test_variables_that_are_missing(self):
        now = Snapshot({"w": self.THEN.model["w"]}, None)
        found = proofs.others(now, self.THEN, self.MASK, self.LAYOUT)
        assert found == "the model's b is missing"


class TestMasks:
    """Nested, counted, unchanged, and zero where it says so."""

    def test_nested_by_brute_force(self):
        for bits in itertools.product([False, True], repeat=4):
            before, after = mask(w=bits[:2]), mask(w=bits[2:])
            revived = [i for i in (0, 1) if bits[2 + i] and not bits[i]]
            found = proofs.nested(after, before)
            assert found == (
                f"w[{revived[0]}] is kept, and was removed before"
                if revived else None
            )  # fmt: skip

    def test_counts(self):
        two = mask(a=[1, 1, 0, 0], b=[1, 0])
        assert proofs.counts(two, [(["a", "b"], 3)]) is None
        assert proofs.counts(two, [(["a"], 2), (["b"], 1)]) is None
        assert proofs.counts(two, [(["a"], 2), (["b"], 2)]) == (
            "b: keeps 1 weights, the schedule says 2"
        )
        assert proofs.counts(two, [(["a", "b"], 2)]) == (
            "a, b: keeps 3 weights, the schedule says 2"
        )

    def test_counts_of_an_allocation_that_may_keep_fewer(self):
        one = mask(a=[1, 0, 0, 0])
        assert proofs.counts(one, [(["a"], 2)], exactly=False) is None
        assert proofs.counts(one, [(["a"], 0)], exactly=False) is not None
        # The next level keeps what there is, though more would be allowed.
        assert proofs.counts(one, [(["a"], 2)], before=one) is None

    def test_zeros(self):
        held = mask(w=[[True, False], [False, True]])
        values = np.array([[1.0, 0.0], [-0.0, 2.0]])
        assert proofs.zeros(held, {"w": values, "b": np.ones(3)}) is None
        for wrong in (1e-45, NAN, -INF):
            values[1, 0] = wrong
            found = proofs.zeros(held, {"w": values.astype(np.float32)})
            assert found.startswith("w[1, 0] is ")

    def test_the_same_mask(self):
        one, two = mask(w=[1, 0, 1]), mask(w=[1, 1, 0])
        assert proofs.same_mask(one, one) is None
        assert proofs.same_mask(two, one) == "the mask of w[1] has changed"


class TestFinite:
    """NaN and infinity, in floats of every kind."""

    @pytest.mark.parametrize(
        "dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16]
    )
    @pytest.mark.parametrize("wrong", [NAN, INF, -INF])
    def test_is_found(self, dtype, wrong):
        values = np.ones((2, 2)).astype(dtype)
        assert proofs.finite({"w": values}) is None
        values[1, 0] = wrong
        assert proofs.finite({"a": np.ones(1), "w": values}) == (
            f"w[1, 0] is {wrong}"
        )

    def test_large_doubles_and_whole_numbers_are_finite(self):
        """1e300 is infinite as a float32."""
        assert proofs.finite({"w": np.array([1e300]), "n": np.array(7)}) is None

    @pytest.mark.parametrize("name", ["loss", "val_loss", "last_test_loss"])
    def test_losses(self, name):
        assert proofs.losses({name: 1.0, "accuracy": NAN}) is None
        assert proofs.losses({name: NAN}) == f"{name} is nan"
        assert proofs.losses({name: np.float32(-INF)}) == f"{name} is -inf"


def build(optimizer="adam"):
    """Returns a network with statistics and a seed."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.2, seed=1, name="drop"),
            keras.layers.Dense(2, name="output"),
        ]
    )
    model.compile(optimizer, "mse")
    return model


def train(model, first_step, last_step):
    """Trains a little."""
    rng = np.random.default_rng(first_step)
    for _ in range(first_step, last_step):
        model.train_on_batch(rng.normal(size=(8, 4)), rng.normal(size=(8, 2)))


def find(model=None, train=train, **more):
    """Returns the tickets of a small lottery."""
    schedule = lottery.IterativePruning(0.5, 2)
    arguments = {"steps": 3, **more}
    return list(
        lottery.find_tickets(model or build(), train, schedule, **arguments)
    )


@pytest.mark.parametrize("name", list(rewinds.REWINDS))
def test_what_a_rewind_declares_is_proved_and_no_more_holds(name, monkeypatch):
    """Declaring the opposite fails: proofs of nothing would not."""
    rewind = rewinds.REWINDS[name]
    assert {*rewind.returns, *rewind.keeps} == set(proofs.PARTS)
    assert not set(rewind.returns) & set(rewind.keeps)
    model = build()
    first = state.snapshot(model, model.optimizer)
    assert len(find(model, rewind=name)) == 3
    for part in proofs.PARTS:
        state.restore(first, model, model.optimizer)
        other = rewind._replace(
            returns=(part,) if part in rewind.keeps else (),
            keeps=(part,) if part in rewind.returns else (),
        )
        with pytest.raises(lottery.RunError, match=rf"level 1.*\({part}: as "):
            find(model, rewind=other)


def test_a_rewind_of_ones_own_is_proved_as_far_as_it_declares():
    """One that keeps statistics and returns all else."""

    def but_statistics(point, model, optimizer):
        kept = {
            name: value
            for name, value in state.snapshot(model).model.items()
            if name.startswith("norm/moving")
        }
        state.restore(point, model, optimizer)
        state.restore_model(kept, model)

    mine = rewinds.Rewind(but_statistics, True, "point")
    assert len(find(rewind=mine)) == 3
    mine = mine._replace(returns=("weights", "slots", "clock"))
    assert len(find(rewind=mine)) == 3
    with pytest.raises(lottery.RunError, match=r"norm/moving_mean\[0\] is"):
        find(rewind=mine._replace(returns=("others",)))


def test_an_error_says_all_that_it_takes():
    """Where, what was claimed, which weight, both values, what to do."""

    def forgetful(point, model, optimizer):
        state.restore(point, model, optimizer)
        bias = model.get_layer("output").bias
        bias.assign([0.0, 0.25])

    mine = rewinds.REWINDS["weights"]._replace(restore=forgetful)
    found = []
    with pytest.raises(lottery.RunError) as caught:
        for ticket in lottery.find_tickets(
            build(), train, lottery.OneShot(0.5), steps=2, rewind=mine
        ):
            found.append(ticket.level)
    assert found == [0]
    assert str(caught.value) == (
        "A proof failed at level 1, after the rewind (others: as at the rewind "
        "point): the model's output/bias[1] is 0.25, expected 0.0. No ticket "
        "was made of it; the levels before it are kept. If a training "
        "function, callback, criterion or rewind of yours changes weights or "
        "masks, that is why; otherwise it is a fault of keras_lottery: please "
        "report it with this message."
    )


def test_a_mask_that_changes_while_a_level_trains_is_found():
    def other_mask(model, first_step, last_step):
        model_mask = lottery.find_mask(model, 0.25)
        lottery.attach(model, model_mask)

    with pytest.raises(lottery.RunError, match=r"the mask stays.*the mask of"):
        find(train=other_mask)


def test_an_allocation_of_ours_that_keeps_too_few_is_found(monkeypatch):
    """A fault of ours: counts are not taken from what made the mask."""
    allocations = lottery.allocation.ALLOCATIONS
    right = allocations["global"]
    monkeypatch.setitem(
        allocations, "global", lambda s, m, keep: right(s, m, keep - 1)
    )
    with pytest.raises(lottery.RunError, match="keeps 17 weights.* says 18"):
        find()


def test_a_fault_in_zeroing_is_found(monkeypatch):
    """The rewound model is mask x start, whoever forgets the mask."""
    from keras_lottery.training.holding import Attachment

    monkeypatch.setattr(Attachment, "apply", lambda self: None)
    with pytest.raises(lottery.RunError, match="expected 0.0"):
        find()


class TestLoading:
    """A lottery goes on from what it gave, and from nothing else."""

    def go_on(self, model, ticket, **more):
        return find(model, after=ticket, **more)

    def test_not_finite(self):
        found = find()
        found[1].end["hidden/kernel"][2] = NAN
        with pytest.raises(lottery.RunError, match=r"hidden/kernel\[.*is nan"):
            self.go_on(build(), found[1])

    def test_counts_of_the_same_schedule(self):
        found = find()
        wrong = lottery.Ticket(
            **{**vars(found[1]), "level": 2},
        )
        schedule = lottery.IterativePruning(0.5, 5)  # it goes on for longer
        with pytest.raises(lottery.RunError, match="keeps 18 .* says 9"):
            next(
                lottery.find_tickets(
                    build(), train, schedule, steps=3, after=wrong
                )
            )

    def test_another_schedule_goes_on_as_it_likes(self):
        found = find()
        rest = lottery.find_tickets(
            build(), train, lottery.ListedSparsities([0.1, 0.9]), steps=3,
            after=found[1],
        )  # fmt: skip
        assert [ticket.mask.kept for ticket in rest] == [4]  # 36 - round(32.4)

    def test_a_point_or_an_end_of_another_lottery(self):
        model, points, ends = build(), [], []

        def noting(model, first_step, last_step):
            train(model, first_step, last_step)
            where = points if last_step == 1 else ends
            where.append(state.snapshot(model, model.optimizer))

        found = find(model, noting, rewind_step=1)
        other = state.snapshot(build(), None)
        (point,), end = points, ends[1]
        whole = find(build(), rewind_step=1)
        rest = self.go_on(build(), found[1], point=point, rewind_step=1)
        assert rest[0].mask == whole[2].mask == found[2].mask
        wrong = point._replace(model=other.model)
        text = r"of the rewind point hidden/bias\[0\] is|hidden/kernel\[0, 0\]"
        with pytest.raises(lottery.RunError, match=text):
            self.go_on(build(), found[1], point=wrong, rewind_step=1)
        wrong = end._replace(model=other.model)
        with pytest.raises(lottery.RunError, match="of the end "):
            self.go_on(build(), found[1], point=point, end=wrong, rewind_step=1)


def test_a_level_that_begins_again_begins_as_it_did(monkeypatch):
    """After a training that was interrupted."""
    pruned = lottery.prune(build(), lottery.OneShot(0.5))
    pruned.compile("adam", "mse")
    x, y = np.ones((8, 4)), np.ones((8, 2))

    class Stop(keras.callbacks.Callback):
        armed = True

        def on_epoch_end(self, epoch, logs=None):
            if self.armed and self.model.level == 1:
                raise KeyboardInterrupt

    stop = Stop()
    with pytest.raises(KeyboardInterrupt):
        pruned.fit(x, y, epochs=2, verbose=0, callbacks=[stop])
    stop.armed = False
    restore = state.restore

    def forgetful(taken, model, optimizer=None):
        restore(taken, model, optimizer)
        model.get_layer("output").bias.assign([0.5, 0.5])

    with monkeypatch.context() as patch:
        patch.setattr(search.state, "restore", forgetful)
        with pytest.raises(lottery.RunError, match="begins again as it began"):
            pruned.fit(x, y, epochs=2, verbose=0, callbacks=[stop])
    pruned.fit(x, y, epochs=2, verbose=0, callbacks=[stop])
    assert [ticket.level for ticket in pruned.tickets] == [0, 1]


def test_a_pruning_without_a_rewind():
    """What schedules that prune in place call."""
    model = build()
    full = lottery.find_mask(model, 0.0)
    half = lottery.find_mask(model, 0.5)
    budgets = [(list(full), 18)]
    arguments = "step 3", full, half, budgets, "global", model
    with pytest.raises(lottery.RunError, match="step 3 .removed weights are"):
        proving.pruning(*arguments)
    lottery.attach(model, half)
    proving.pruning(*arguments)
    with pytest.raises(lottery.RunError, match="masks are nested"):
        proving.pruning("step 3", half, full, budgets, "global", model)
    with pytest.raises(lottery.RunError, match="keeps 18 .* says 17"):
        proving.pruning(
            "step 3", full, half, [(list(full), 17)], "global", model
        )
