"""Tickets and snapshots that a disk or a stranger changed: refused, or right.

What is damaged is never taken for another ticket. What was changed on purpose,
with a right checksum, is refused or keeps what tickets promise.
"""

import json

import keras
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st

import keras_lottery as lottery
from keras_lottery import arrays_file
from keras_lottery.errors import RunError
from keras_lottery.errors import TicketError
from keras_lottery.pruning import weights
from keras_lottery.tickets import ticket as tickets
from keras_lottery.tickets import ticket_file
from keras_lottery.training import state_file
from keras_lottery.training.state import Snapshot

pytestmark = pytest.mark.thorough

PARTS = ("start", "start_state", "end", "end_state")


def network():
    """Returns a network of a few weights."""
    return keras.Sequential(
        [
            keras.Input((3,), name="in"),
            keras.layers.Dense(3, activation="relu", name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(2, name="output"),
        ],
        name="net",
    )


@pytest.fixture(scope="module")
def whole():
    """Returns the bytes of a ticket."""
    keras.utils.set_random_seed(0)
    model = network()
    mask = lottery.find_mask(model, 0.4)
    ticket = tickets.capture(
        model,
        mask,
        level=1,
        metrics={"early_step": 3, "val_loss": 0.5, "val_accuracy": 0.25},
        provenance={"seed": 0, "versions": {"keras": "3"}},
    )
    end, end_state = tickets.ended(model, mask)
    fields = {name: getattr(ticket, name) for name in ticket_file._FIELDS}
    return ticket_file.pack(
        tickets.Ticket(
            mask, ticket.start, ticket.start_state, end, end_state, **fields
        )
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Where the changed files go."""
    return tmp_path_factory.mktemp("fuzz") / "file.safetensors"


def test_a_damaged_ticket_is_refused_or_the_same(fuzz, drawn, whole, path):
    """Whatever happened to its bytes."""

    def holds(damage):
        path.write_bytes(drawn.damaged(whole, damage))
        try:
            found = lottery.Ticket.load(path)
        except TicketError:
            return
        assert ticket_file.pack(found) == whole

    fuzz(drawn.damage, holds, 120)


def opened(whole):
    """Returns (JSON, arrays) of a ticket's bytes."""
    length = int.from_bytes(whole[:8], "little")
    metadata = json.loads(whole[8 : 8 + length])["__metadata__"]
    header = json.loads(metadata["keras_lottery"])
    del header["checksum"]
    return header, safetensors.numpy.load(whole)


def sealed(header, arrays):
    """Returns the bytes of a ticket file with a right checksum."""
    checksum = arrays_file.checksum(json.dumps(header, sort_keys=True), arrays)
    if isinstance(header, dict):
        header = {**header, "checksum": checksum}
    text = json.dumps(header)
    return safetensors.numpy.save(arrays, {"keras_lottery": text})


def keeps_its_promises(ticket):
    """Asserts what holds of every ticket."""
    shapes = {name: mask.shape for name, mask in ticket.mask.items()}
    assert {n: a.shape for n, a in ticket.start.items()} == shapes
    assert ticket.mask.kept == sum(int(m.sum()) for m in ticket.mask.values())
    assert ticket.level >= 0 and type(ticket.level) is int
    assert not set(ticket.mask) & (
        set(ticket.start_state) | set(ticket.end_state)
    )
    for which in ("start", "end") if ticket.end else ("start",):
        for name, value in ticket.weights(which).items():
            mask = ticket.mask[name]
            assert value.dtype == ticket.start[name].dtype
            assert not value[~mask].astype(bool).any()
            if which == "end":
                assert value[mask].tobytes() == ticket.end[name].tobytes()
    assert repr(ticket).startswith("<Ticket of level ")


def read_or_refused(path, content):
    """Returns the ticket in some bytes, or None where it is refused."""
    path.write_bytes(content)
    try:
        found = lottery.Ticket.load(path)
    except TicketError as error:
        assert len(str(error)) < 20_000
        return None
    keeps_its_promises(found)
    path.write_bytes(ticket_file.pack(found))
    assert ticket_file.pack(lottery.Ticket.load(path)) == path.read_bytes()
    return found


def test_a_forged_header_is_refused_or_keeps_promises(fuzz, drawn, whole, path):
    """Any value anywhere in the JSON, the checksum right."""
    header, arrays = opened(whole)

    def holds(drawn_change):
        steps, value = drawn_change
        try:
            content = sealed(drawn.changed(header, steps, value), arrays)
        except (UnicodeError, ValueError):
            return  # no JSON can hold it
        read_or_refused(path, content)

    steps = st.lists(drawn.places, min_size=1, max_size=3)
    fuzz(st.tuples(steps, drawn.json), holds, 80)


def array_changes(names):
    """Returns a strategy of changes to the arrays of a file."""
    name = st.sampled_from(names)
    dtype = st.sampled_from(["f2", "f4", "f8", "u1", "i1", "u2", "?", "i8"])
    shape = st.lists(st.integers(0, 5), max_size=3)
    other = st.text(max_size=8) | st.sampled_from(
        ["start/../x", "mask/", "start/", "end/\x1b[2J", "state/start/hidden"]
    )
    return st.one_of(
        st.tuples(st.just("swap"), name, name),
        st.tuples(st.just("drop"), name),
        st.tuples(st.just("copy"), name, name | other),
        st.tuples(st.just("fill"), name, dtype, shape, st.integers(0, 255)),
    )


def rearranged(arrays, change):
    """Returns arrays after a change."""
    kind, name, *more = change
    arrays = dict(arrays)
    if kind == "swap":
        arrays[name], arrays[more[0]] = arrays[more[0]], arrays[name]
    elif kind == "drop":
        arrays.pop(name)
    elif kind == "copy":
        arrays[more[0]] = arrays[name]
    else:
        dtype, shape, byte = more
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        filled = np.frombuffer(bytes([byte]) * count, dtype)
        arrays[name] = filled.reshape(shape)
    return arrays


def test_forged_arrays_are_refused_or_keep_promises(fuzz, drawn, whole, path):
    """Swapped, left out, given twice, of other types and shapes."""
    header, arrays = opened(whole)

    def holds(change):
        changed = rearranged(arrays, change)
        found = read_or_refused(path, sealed(header, changed))
        if found is None:
            return
        parts = [getattr(found, each) for each in PARTS]
        assert len(found.mask) + sum(map(len, parts)) == len(changed)
        # Of what else a model has, `restore` misses what is not there.
        gone = set(arrays) - set(changed)
        assert all(name.startswith("state/") for name in gone)

    fuzz(array_changes(sorted(arrays)), holds, 80)


def test_a_forged_network_is_refused_or_fits(fuzz, drawn, whole, path):
    """Any value anywhere in the model's config: a model that fits, or none."""
    header, arrays = opened(whole)

    def holds(drawn_change):
        steps, value = drawn_change
        config = drawn.changed(header["model_config"], steps, value)
        try:
            content = sealed({**header, "model_config": config}, arrays)
        except (UnicodeError, ValueError):
            return
        found = read_or_refused(path, content)
        if found is None:
            return
        try:
            model = tickets.rebuild(found)
        except TicketError as error:
            assert len(str(error)) < 20_000
            return
        expected = {**found.start, **found.start_state}
        names = weights.by_name(model)
        assert {n: tuple(v.shape) for n, v in names.items()} == {
            n: v.shape for n, v in expected.items()
        }

    steps = st.lists(drawn.places, min_size=1, max_size=7)
    fuzz(st.tuples(steps, drawn.json), holds, 40)


TAKEN = Snapshot(
    {
        "fc/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fc/half": np.array([1.5, -0.0], np.float16),
        "seed": np.array([3, 2**32 - 1], np.uint32),
    },
    (np.array(2, np.int64), np.array([0.5], np.float32)),
)


def test_a_damaged_snapshot_is_refused_or_the_same(fuzz, drawn, path):
    """What a stopped run rewinds to is never something else."""
    good = state_file.pack(TAKEN)

    def holds(damage):
        path.write_bytes(drawn.damaged(good, damage))
        try:
            found = state_file.read(path)
        except RunError:
            return
        assert state_file.pack(found) == good

    fuzz(drawn.damage, holds, 40)


def test_a_forged_snapshot_is_refused_or_whole(fuzz, drawn, path):
    """Its arrays changed, with a right checksum."""
    arrays = safetensors.numpy.load(state_file.pack(TAKEN))

    def holds(given):
        change, count = given
        try:
            stored = rearranged(arrays, change)
            text = json.dumps(count)
            checksum = arrays_file.checksum(text, stored)
            text = json.dumps({"optimizer": count, "sha256": checksum})
            content = safetensors.numpy.save(stored, {"keras_lottery": text})
        except (UnicodeError, ValueError):
            return
        path.write_bytes(content)
        try:
            found = state_file.read(path)
        except RunError:
            return
        slots = 0 if count is None else count
        assert len(found.model) + slots == len(stored)
        assert len(found.optimizer or ()) == slots

    counts = st.sampled_from([2, 2, 2, 1, 3, None, True, -1, 10**30, "2"])
    changes = array_changes(sorted(arrays))
    fuzz(st.tuples(changes, counts), holds, 40)
