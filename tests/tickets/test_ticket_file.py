"""Ticket files: equal after loading, and damaged ones are always refused."""

import dataclasses
import json
import os
import pickle

import keras
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import keras_lottery as lottery
from keras_lottery.pruning import weights
from keras_lottery.tickets import ticket_file
from keras_lottery.tickets.ticket import Ticket

PARTS = ("start", "start_state", "end", "end_state")


def ticket_of(dtype=np.float32, **fields):
    """Returns a ticket written by hand: odd sizes, an emptied layer."""
    rng = np.random.default_rng(0)
    arrays = {
        "hidden/kernel": rng.random((5, 7)) < 0.4,
        "empty/kernel": np.zeros((3, 3), bool),
        "full/kernel": np.ones((1, 8), bool),
        "a/ü~1": rng.random((2, 3, 2, 1)) < 0.5,
    }
    mask = lottery.Mask(arrays)

    def values(shape):
        return rng.normal(size=shape).astype(dtype)

    state = {
        "hidden/bias": values(7),
        "norm/moving_mean": rng.normal(size=3).astype(np.float32),
        "drop/seed": np.array([3, 2**32 - 1], np.uint32),
        "count": np.array(7, np.int64),
        "flag": np.array(True),
        "rate": values(()),
        "nothing": values((0, 4)),
    }
    given = {
        "mask": mask,
        "start": {n: values(m.shape) for n, m in arrays.items()},
        "start_state": state,
        "end": {n: values(int(m.sum())) for n, m in arrays.items()},
        "end_state": {n: v + v for n, v in state.items()},
        "level": 3,
        "metrics": {"early_step": 40, "val_loss": 0.1},
        "provenance": {"seed": 1, "versions": {"keras": "3"}},
        "model_config": None,
    }
    return Ticket(**{**given, **fields})


def same(one, other):
    """Asserts that two tickets are the same, bit for bit, dtypes and shapes."""
    assert one.mask == other.mask
    assert one.mask.shapes == other.mask.shapes
    for part in PARTS:
        here, there = getattr(one, part), getattr(other, part)
        assert set(here) == set(there), part
        for name in here:
            assert here[name].dtype == there[name].dtype, (part, name)
            assert here[name].shape == there[name].shape, (part, name)
            assert here[name].tobytes() == there[name].tobytes(), (part, name)
    for field in ("level", "metrics", "provenance", "model_config"):
        texts = [
            json.dumps(getattr(each, field), sort_keys=True)
            for each in (one, other)
        ]
        assert texts[0] == texts[1], field


@pytest.fixture
def path(tmp_path):
    """Where a ticket goes."""
    return tmp_path / "ticket.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a good file."""
    path = tmp_path_factory.mktemp("whole") / "ticket"
    ticket_of().save(path)
    return path.read_bytes()


def refused(path, content):
    """Asserts that such a file is refused, and returns what is said."""
    path.write_bytes(content)
    with pytest.raises(lottery.TicketError) as caught:
        Ticket.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


class TestRoundTrip:
    """What was saved is what is loaded."""

    @pytest.mark.parametrize(
        "dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64]
    )
    def test_bit_for_bit(self, path, dtype):
        """Values, dtypes, shapes (scalars too), emptied layers."""
        ticket = ticket_of(dtype)
        ticket.save(path)
        same(Ticket.load(path), ticket)

    def test_special_values(self, path):
        """NaN with its payload, infinities, negative zero, subnormals."""
        bits = [0x7FC00001, 0xFFC12345, 0x7F800000, 0x80000000, 1, 0xFF800000]
        values = np.array(bits, np.uint32).view(np.float32)
        mask = lottery.Mask({"w": np.arange(6) % 2 == 0})
        end = {"w": values[mask["w"]]}
        ticket = Ticket(mask, {"w": values}, {}, end)
        ticket.save(path)
        same(Ticket.load(path), ticket)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-300])
    def test_metrics_that_are_not_finite(self, path, value):
        """NaN is a result too."""
        ticket = ticket_of(metrics={"val_loss": value, "early_step": 3})
        ticket.save(path)
        same(Ticket.load(path), ticket)

    def test_numpy_metrics(self, path):
        """They come back as numbers."""
        ticket_of(
            metrics={"a": np.float32(0.5), "b": np.int64(3), "c": np.arange(2)}
        ).save(path)
        metrics = Ticket.load(path).metrics
        assert metrics == {"a": 0.5, "b": 3, "c": [0, 1]}

    def test_an_untrained_ticket(self, path):
        """A control has no end."""
        ticket = ticket_of(end={}, end_state={})
        ticket.save(path)
        same(Ticket.load(path), ticket)
        assert Ticket.load(path).end == {}

    def test_views_and_other_orders(self, path):
        """Arrays need not be contiguous."""
        values = np.arange(12, dtype=np.float32).reshape(3, 4)
        for array in (values.T, values[::-1], values[:, ::2], values[:1]):
            mask = lottery.Mask({"w": array > 3})
            Ticket(mask, {"w": array}, {}, {"w": array[array > 3]}).save(path)
            loaded = Ticket.load(path)
            assert (loaded.start["w"] == array).all()
            assert (loaded.weights("end")["w"] == array * (array > 3)).all()

    def test_through_a_model(self, path):
        """Saved, loaded, restored by name into a model just built."""
        keras.utils.set_random_seed(0)  # or a layer may be emptied

        def build():
            return keras.Sequential(
                [
                    keras.Input((4,)),
                    keras.layers.Normalization(),
                    keras.layers.Dense(3, name="hidden"),
                    keras.layers.Dropout(0.5),
                    keras.layers.Dense(2, name="output"),
                ]
            )

        model = build()
        model.layers[0].adapt(np.random.default_rng(0).normal(size=(9, 4)))

        def train(model, first_step, last_step):
            kernel = model.get_layer("hidden").kernel
            kernel.assign(kernel * 1.5)

        *_, ticket = lottery.find_tickets(
            model, train, lottery.OneShot(0.5), steps=1
        )
        ticket.save(path)
        loaded = Ticket.load(path)
        same(loaded, ticket)
        other = loaded.restore(build())
        now = {n: v.numpy() for n, v in weights.by_name(model).items()}
        for name, value in weights.by_name(other).items():
            assert value.numpy().tobytes() == now[name].tobytes(), name

    def test_path_kinds(self, tmp_path):
        """Strings and paths; a relative one; over an older file."""
        ticket = ticket_of()
        ticket.save(str(tmp_path / "a"))
        same(Ticket.load(tmp_path / "a"), ticket)
        here = os.getcwd()
        os.chdir(tmp_path)
        try:
            ticket_of(level=9).save("a")
            assert Ticket.load("a").level == 9
        finally:
            os.chdir(here)
        assert os.listdir(tmp_path) == ["a"]

    def test_the_documented_keys(self, path):
        """DESIGN contract 8: any reader of safetensors finds its way."""
        ticket = ticket_of()
        ticket.save(path)
        stored = safetensors.numpy.load_file(path)
        kinds = {name.split("/")[0] for name in stored}
        assert kinds == {"mask", "start", "end", "state"}
        for name, mask in ticket.mask.items():
            packed = np.packbits(mask.ravel(), bitorder="little")
            assert stored[f"mask/{name}"].tobytes() == packed.tobytes()
            assert stored[f"start/{name}"].shape == mask.shape
            assert stored[f"end/{name}"].shape == (mask.sum(),)
        with safetensors.safe_open(path, "numpy") as file:
            assert set(file.metadata()) == {"keras_lottery"}
            header = json.loads(file.metadata()["keras_lottery"])
        assert header["format"] == 1
        assert header["level"] == 3
        assert b"pickle" not in path.read_bytes()


class TestEqualBytes:
    """Equal tickets are equal files: no times, no addresses, no order."""

    def test_twice(self, tmp_path):
        """Saved again, and saved after loading."""
        ticket_of().save(tmp_path / "a")
        ticket_of().save(tmp_path / "b")
        Ticket.load(tmp_path / "a").save(tmp_path / "c")
        contents = {(tmp_path / n).read_bytes() for n in "abc"}
        assert len(contents) == 1

    def test_in_another_order(self, tmp_path):
        """Of dicts, in every field but the mask."""
        ticket = ticket_of()
        turned = {
            part: dict(reversed(getattr(ticket, part).items()))
            for part in (*PARTS, "metrics", "provenance")
        }
        ticket.save(tmp_path / "a")
        dataclasses.replace(ticket, **turned).save(tmp_path / "b")
        contents = {(tmp_path / n).read_bytes() for n in "ab"}
        assert len(contents) == 1

    def test_of_two_lotteries(self, tmp_path):
        """The same search in another model, built in between others."""
        contents = set()
        for _ in range(2):
            keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
            inputs = keras.Input((4,), name="in")
            seeded = keras.initializers.GlorotUniform(seed=1)
            policy = keras.DTypePolicy("float32")
            hidden = keras.layers.Dense(
                3, kernel_initializer=seeded, dtype=policy, name="hidden"
            )
            norm = keras.layers.BatchNormalization(dtype=policy, name="norm")
            model = keras.Model(inputs, norm(hidden(inputs)), name="net")
            *_, ticket = lottery.find_tickets(
                model, lambda *steps: None, lottery.OneShot(0.5), steps=1
            )
            ticket.save(tmp_path / "a")
            contents.add((tmp_path / "a").read_bytes())
        assert len(contents) == 1

    def test_other_tickets_have_other_bytes(self, tmp_path):
        """Of course."""
        for index, fields in enumerate([{}, {"level": 4}, {"metrics": {}}]):
            ticket_of(**fields).save(tmp_path / str(index))
        contents = {(tmp_path / n).read_bytes() for n in "012"}
        assert len(contents) == 3


class TestDamage:
    """Whatever has happened to a file: TicketError, and nothing else."""

    def test_truncated_anywhere(self, path, whole):
        """At every offset of the header and 200 of the rest."""
        header = 8 + int.from_bytes(whole[:8], "little")
        offsets = {*range(0, header, 7), *range(16), header - 1, header}
        rest = np.linspace(header, len(whole) - 1, 200)
        offsets |= {int(offset) for offset in rest}
        assert len(offsets) > 250
        for offset in offsets:
            refused(path, whole[:offset])

    def test_a_flipped_bit_anywhere(self, path, whole):
        """In the length, all over the header and all over the data."""
        header = 8 + int.from_bytes(whole[:8], "little")
        rng = np.random.default_rng(0)
        offsets = [
            *range(8),
            *rng.choice(header, 300, replace=False),
            *range(header - 40, header),
            *rng.choice(range(header, len(whole)), 300, replace=False),
        ]
        for offset in map(int, offsets):
            content = bytearray(whole)
            content[offset] ^= 1 << int(rng.integers(8))
            refused(path, bytes(content))

    def test_a_byte_too_many(self, path, whole):
        """At the end, at the start, in the middle."""
        refused(path, whole + b"\0")
        refused(path, b"\0" + whole)
        refused(path, whole[:999] + b"\0" + whole[999:])
        refused(path, whole + whole)

    def test_blocks_swapped_and_zeroed(self, path, whole):
        """As a broken disk does it."""
        for start in range(0, len(whole) - 64, 64):
            content = bytearray(whole)
            if any(content[start : start + 64]):
                content[start : start + 64] = bytes(64)
                refused(path, bytes(content))
        content = whole[:-64] + whole[-32:] + whole[-64:-32]
        refused(path, content)

    @pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, 10_000])
    def test_random_bytes(self, path, size):
        """Of several lengths, several times."""
        rng = np.random.default_rng(size)
        for _ in range(20):
            refused(path, rng.bytes(size))
        refused(path, bytes(size))
        refused(path, b"\xff" * size)

    @pytest.mark.parametrize(
        "length", [2**63, 2**64 - 1, 2**40, 2**31, 10**9, 1, 0]
    )
    def test_a_wrong_header_length(self, path, whole, length):
        """No memory is asked for on its word."""
        refused(path, length.to_bytes(8, "little") + whole[8:])

    @pytest.mark.parametrize(
        "text",
        [
            "", "{}", "[]", "null", "3", '"a"', '{"__metadata__": {}}',
            '{"__metadata__": []}', '{"__metadata__": {"keras_lottery": 3}}',
            '{"__metadata__": {"keras_lottery": "[]"}}',
            '{"__metadata__": {"keras_lottery": "null"}}',
            '{"__metadata__": {"keras_lottery": "{}"}}',
            '{"__metadata__": {"keras_lottery": "{\\"format\\": 1}"}}',
            "[" * 100_000, '{"a":' * 100_000, "\ud800", "NaN",
            '{"__metadata__": {"keras_lottery": "{\\"format\\": 1}"}, "a":'
            '{"dtype": "F32", "shape": [4611686018427387904, 4],'
            ' "data_offsets": [0, 0]}}',
        ],
    )  # fmt: skip
    def test_hostile_headers(self, path, text):
        """JSON that is well formed and means nothing, or worse."""
        encoded = text.encode("utf-8", "surrogatepass")
        refused(path, len(encoded).to_bytes(8, "little") + encoded)

    def test_other_files(self, path):
        """A pickle is not unpickled; an archive, a text, safetensors."""

        class Bomb:
            def __reduce__(self):
                return os.mkdir, (str(path) + ".bomb",)

        refused(path, pickle.dumps(Bomb()))
        refused(path, pickle.dumps(ticket_of().start))
        assert not os.path.exists(str(path) + ".bomb")
        np.savez(path.parent / "a.npz", np.ones(3))
        refused(path, (path.parent / "a.npz").read_bytes())
        refused(path, b"mask: all of it\n" * 20)
        refused(path, safetensors.numpy.save({"w": np.ones(3)}))
        refused(path, safetensors.numpy.save({"w": np.ones(3)}, {"a": "b"}))

    def test_no_file(self, tmp_path):
        """A missing one, a folder, a path through a file."""
        (tmp_path / "file").write_bytes(b"")
        for wrong in ("missing", ".", "file/inside"):
            with pytest.raises(lottery.TicketError, match="Cannot read"):
                Ticket.load(tmp_path / wrong)


def forge(whole, change, arrays=None):
    """Returns a file with a changed JSON and a right checksum."""
    length = int.from_bytes(whole[:8], "little")
    metadata = json.loads(whole[8 : 8 + length])["__metadata__"]
    header = json.loads(metadata["keras_lottery"])
    stored = safetensors.numpy.load(whole)
    stored.update(arrays or {})
    stored = {name: a for name, a in stored.items() if a is not None}
    del header["checksum"]
    header.update(change)
    header["checksum"] = ticket_file._checksum(header, stored)
    return safetensors.numpy.save(stored, {"keras_lottery": json.dumps(header)})


SHAPES = {
    "hidden/kernel": [5, 7],
    "empty/kernel": [3, 3],
    "full/kernel": [1, 8],
    "a/ü~1": [2, 3, 2, 1],
}


def sealed_bools(whole, byte):
    """Returns a file whose bool is a byte, with a right checksum."""
    flag = np.array(byte, np.uint8)
    return forge(whole, {}, {"state/start/flag": flag.view(bool)})


class TestHostileFiles:
    """What opens like a file, and would not end, or is not what it says."""

    def test_a_pipe_and_devices_are_not_waited_for(self, path):
        """Nor is memory asked for until there is none."""
        os.mkfifo(path)
        for each in (path, "/dev/zero", "/dev/null"):
            with pytest.raises(lottery.TicketError, match="Cannot read"):
                Ticket.load(each)
        path.unlink()
        path.symlink_to("/dev/zero")
        with pytest.raises(lottery.TicketError, match="no regular file"):
            Ticket.load(path)

    def test_a_large_file_is_refused_by_its_first_bytes(self, path, whole):
        """A hole of a terabyte takes no room on a disk, and all memory."""
        with open(path, "wb") as file:
            file.write(whole)
            file.truncate(2**40)
        with pytest.raises(lottery.TicketError, match="bytes of arrays"):
            Ticket.load(path)

    def test_a_key_twice(self, path, whole):
        """Two readers would read two tickets."""
        length = int.from_bytes(whole[:8], "little")
        text = whole[8 : 8 + length]
        twice = text.replace(b'{\\"bfloat16', b'{\\"level\\":1,\\"bfloat16')
        assert twice != text
        content = len(twice).to_bytes(8, "little") + twice + whole[8 + length :]
        assert "'level' is there twice" in refused(path, content)

    def test_other_metadata(self, path, whole):
        """No checksum is over them."""
        stored = safetensors.numpy.load(whole)
        with_more = safetensors.numpy.save(
            stored, {"keras_lottery": "{}", "more": "x"}
        )
        assert "metadata are" in refused(path, with_more)

    def test_bools_that_are_none(self, path, whole):
        """NumPy takes any byte for a bool, and computes on with it."""
        assert "bools" in refused(path, sealed_bools(whole, 2))
        path.write_bytes(sealed_bools(whole, 0))
        assert not Ticket.load(path).start_state["flag"]


class TestForgery:
    """Whole files with a right checksum that contradict themselves."""

    def test_a_forgery_of_nothing_is_read(self, path, whole):
        """So that the others are refused for what they change."""
        path.write_bytes(forge(whole, {"masks": SHAPES}))
        same(Ticket.load(path), ticket_of())

    @pytest.mark.parametrize("number", [0, 2, 99, -1, "1", 1.5, None, [1]])
    def test_unknown_format(self, path, whole, number):
        """Named, with the one that is known."""
        said = refused(path, forge(whole, {"format": number}))
        assert f"format {number!r} is not known" in said
        assert "reads format 1" in said

    @pytest.mark.parametrize(
        "shape",
        [
            [5, 8], [7, 5], [35], [5, 7, 1], [], [0], [-5, -7], [-5, 7],
            [5.0, 7], ["5", 7], "57", 35, None, {}, [True, 35], [2**40, 2**40],
            [2**62, 4], [10**30], [5, [7]],
        ],
    )  # fmt: skip
    def test_wrong_shapes(self, path, whole, shape):
        """No memory is asked for on their word."""
        masks = {**SHAPES, "hidden/kernel": shape}
        refused(path, forge(whole, {"masks": masks}))

    @pytest.mark.parametrize(
        "masks", [{}, [], None, "x", {**SHAPES, "more": [2]}]
    )
    def test_wrong_names(self, path, whole, masks):
        """More masks than there are, or none."""
        refused(path, forge(whole, {"masks": masks}))

    def test_a_name_less(self, path, whole):
        """A mask that is stored and not listed."""
        masks = {n: s for n, s in SHAPES.items() if n != "hidden/kernel"}
        refused(path, forge(whole, {"masks": masks}))

    @pytest.mark.parametrize(
        "arrays",
        [
            {"start/hidden/kernel": None},
            {"start/hidden/kernel": np.ones((7, 5), np.float32)},
            {"start/hidden/kernel": np.ones((), np.float32)},
            {"start/more": np.ones(3, np.float32)},
            {"end/hidden/kernel": None},
            {"end/hidden/kernel": np.ones(35, np.float32)},
            {"end/more": np.ones(3, np.float32)},
            {"end/hidden/kernel": np.ones((1, 14), np.float32)},
            {"mask/hidden/kernel": None},
            {"mask/hidden/kernel": np.ones(5, np.int8)},
            {"mask/hidden/kernel": np.ones(6, np.uint8)},
            {"mask/hidden/kernel": np.full(5, 255, np.uint8)},
            {"mask/more": np.ones(1, np.uint8)},
            {"other": np.ones(3, np.float32)},
            {"start/hidden/kernel": np.ones((5, 7), np.int32)},
            {"start/hidden/kernel": np.ones((5, 7), np.float64)},
            {"state/start/hidden/kernel": np.ones((5, 7), np.float32)},
            {"state/end/hidden/kernel": np.ones((5, 7), np.float32)},
        ],
    )
    def test_wrong_arrays(self, path, whole, arrays):
        """Missing, of another shape, one that belongs to nothing."""
        refused(path, forge(whole, {}, arrays))

    @pytest.mark.parametrize(
        "change",
        [
            {"level": "3"}, {"level": -1}, {"level": 1.5}, {"level": None},
            {"level": True}, {"metrics": []}, {"metrics": None},
            {"metrics": "x"}, {"provenance": 3}, {"provenance": None},
            {"model_config": "x"}, {"model_config": [1]}, {"bfloat16": 3},
            {"bfloat16": None}, {"bfloat16": ["start/hidden/kernel"]},
            {"bfloat16": ["nothing like it"]}, {"bfloat16": [["a"]]},
            {"bfloat16": {}}, {"bfloat16": ""}, {"level": 10**400},
            {"format": True}, {"format": 1.0}, {"more": 1}, {"masks": "x"},
        ],
    )  # fmt: skip
    def test_wrong_fields(self, path, whole, change):
        """Of a type that later code would trip over."""
        refused(path, forge(whole, change))

    @pytest.mark.parametrize("field", ["level", "metrics", "masks", "bfloat16"])
    def test_missing_fields(self, path, whole, field):
        """A KeyError is not an answer."""
        content = forge(whole, {})
        length = int.from_bytes(content[:8], "little")
        text = content[8 : 8 + length].replace(
            f'\\"{field}\\"'.encode(), f'\\"{field[:-1]}_\\"'.encode()
        )
        refused(path, content[:8] + text + content[8 + length :])


class TestWriting:
    """A file is there whole or not at all."""

    def test_a_failure_leaves_the_old_file(self, tmp_path, monkeypatch):
        """And nothing beside it."""
        path = tmp_path / "ticket"
        ticket_of().save(path)
        before = path.read_bytes()

        def fail(*arguments):
            raise OSError(28, "No space left on device")

        for name in ("replace", "fsync", "chmod"):
            with monkeypatch.context() as patch:
                patch.setattr(os, name, fail)
                with pytest.raises(OSError, match="No space left"):
                    ticket_of(level=5).save(path)
            assert path.read_bytes() == before
            assert os.listdir(tmp_path) == ["ticket"]

    def test_an_interruption_leaves_the_old_file(self, tmp_path, monkeypatch):
        """Ctrl-C is not an OSError."""

        def interrupt(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ticket_of().save(tmp_path / "ticket")
        assert os.listdir(tmp_path) == []

    def test_a_place_that_cannot_be_written(self, tmp_path):
        """A folder that is a file, one that is missing, one in the way."""
        (tmp_path / "file").write_bytes(b"old")
        (tmp_path / "folder").mkdir()
        for wrong in ("file/ticket", "missing/ticket", "folder"):
            with pytest.raises(OSError):
                ticket_of().save(tmp_path / wrong)
        assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
        assert os.listdir(tmp_path / "folder") == []
        assert (tmp_path / "file").read_bytes() == b"old"

    def test_it_may_be_read_by_others(self, tmp_path):
        """As any file that is written in the usual way."""
        ticket_of().save(tmp_path / "a")
        (tmp_path / "b").write_bytes(b"")
        modes = {os.stat(tmp_path / name).st_mode for name in "ab"}
        assert len(modes) == 1


def test_memory_of_the_default_lottery():
    """All 11 tickets: at most 7 times the weights, each buffer counted once."""
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(300),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(100),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(10),
        ]
    )
    pruned = lottery.prune(model)
    pruned.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    pruned.fit(x, np.zeros((8, 10)), verbose=0)
    found = pruned.tickets
    assert len(found) == 11
    buffers = {}
    for ticket in found:
        arrays = [a for part in PARTS for a in getattr(ticket, part).values()]
        arrays += ticket.mask.pack().values()
        for array in arrays:
            owner = array
            while isinstance(getattr(owner, "base", None), np.ndarray):
                owner = owner.base
            address = owner.__array_interface__["data"][0]
            buffers[address] = max(buffers.get(address, 0), owner.nbytes)
    of_weights = sum(w.nbytes for w in model.get_weights())
    assert of_weights > 4 * 50_000
    assert sum(buffers.values()) <= 7 * of_weights
    assert sum(buffers.values()) > 5 * of_weights  # so all were counted
    whole = found[5].weights("end")["dense/kernel"]
    mask = found[5].mask["dense/kernel"]
    assert np.count_nonzero(whole) <= np.count_nonzero(mask)
