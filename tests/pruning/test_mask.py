"""The mask: counts, packing, algebra, checksum, frozen."""

import copy
import hashlib
import pickle

import numpy as np
import pytest

from keras_lottery.pruning.mask import Mask
from keras_lottery.pruning.mask import kept

SHAPES = {"a": (3, 5), "b/kernel": (8,), "c": (2, 3, 4), "d": (1,), "e": ()}


def some_mask(seed=0, shapes=None):
    rng = np.random.default_rng(seed)
    shapes = SHAPES if shapes is None else shapes
    return Mask({n: np.asarray(rng.random(s) < 0.5) for n, s in shapes.items()})


def bits_of(mask):
    """Every (name, flat index) that is kept, by a plain loop."""
    return {
        (name, index)
        for name in mask
        for index, bit in enumerate(mask[name].ravel().tolist())
        if bit
    }


@pytest.mark.parametrize(
    ("size", "sparsity", "expected"),
    [
        (10, 0.0, 10),
        (10, 0.2, 8),
        (10, 1.0, 0),
        (1, 0.5, 1),  # round(0.5) is 0: halves go to even
        (3, 0.5, 1),  # round(1.5) is 2
        (5, 0.5, 3),  # round(2.5) is 2
        (7, 0.5, 3),  # round(3.5) is 4
        (266_200, 0.2, 212_960),
        (0, 0.5, 0),
    ],
)
def test_kept_is_size_minus_the_rounded_removed(size, sparsity, expected):
    assert kept(size, sparsity) == expected


def test_kept_returns_a_python_int_for_numpy_numbers():
    count = kept(np.int64(10), np.float32(0.25))
    assert type(count) is int
    assert count == 8  # 10 - round(2.5)


def test_counts():
    mask = Mask(
        {
            "a": np.array([[True, False], [False, False]]),
            "b": np.array([True, True, False]),
        }
    )
    assert list(mask) == ["a", "b"]
    assert len(mask) == 2
    assert mask.size == 7
    assert mask.sizes == {"a": 4, "b": 3}
    assert mask.kept == 3
    assert mask.kept_by_name == {"a": 1, "b": 2}
    assert mask.shapes == {"a": (2, 2), "b": (3,)}
    assert mask.density == 3 / 7
    assert mask.sparsity == 1 - 3 / 7
    assert repr(mask) == ("<Mask of 2 weights: 3 of 7 kept, density 0.4286>")


def test_counts_of_random_masks_agree_with_plain_loops():
    for seed in range(5):
        mask = some_mask(seed)
        assert mask.kept == len(bits_of(mask))
        assert mask.kept == sum(mask.kept_by_name.values())
        assert mask.size == 15 + 8 + 24 + 1 + 1


def test_a_mask_of_nothing_is_dense():
    assert Mask({}).density == 1.0
    assert Mask({"a": np.zeros((0, 3), bool)}).density == 1.0
    assert Mask({"a": np.zeros((0, 3), bool)})["a"].shape == (0, 3)


def test_arrays_come_back_as_they_went_in():
    rng = np.random.default_rng(1)
    array = rng.random((5, 7)) < 0.3
    mask = Mask({"c order": array, "transposed": array.T, "sliced": array[::2]})
    np.testing.assert_array_equal(mask["c order"], array)
    np.testing.assert_array_equal(mask["transposed"], array.T)
    np.testing.assert_array_equal(mask["sliced"], array[::2])
    assert mask["sliced"].dtype == bool


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64", "object"])
def test_only_bool_arrays_are_masks(dtype):
    with pytest.raises(ValueError, match=f"'a' has dtype {dtype}.*!= 0"):
        Mask({"a": np.ones(3, dtype)})


def test_a_mask_is_frozen():
    mask = some_mask()
    before = bits_of(mask)
    with pytest.raises(AttributeError, match="frozen"):
        mask.kept = 3
    with pytest.raises(AttributeError, match="frozen"):
        mask._bits = {}
    with pytest.raises(AttributeError, match="frozen"):
        del mask._bits
    with pytest.raises(TypeError):
        mask["a"] = np.ones((3, 5), bool)
    with pytest.raises(ValueError, match="read-only"):
        mask["a"][0] = True
    with pytest.raises(ValueError, match="read-only"):
        mask.pack()["a"][0] = 255
    mask.shapes["a"] = (1,)
    mask.kept_by_name["a"] = 0
    assert bits_of(mask) == before
    assert mask.shapes["a"] == (3, 5)


def test_a_mask_does_not_share_the_array_it_was_given():
    array = np.ones(4, bool)
    mask = Mask({"a": array})
    array[:] = False
    assert mask.kept == 4
    assert mask["a"].all()


def test_equality_is_of_names_shapes_and_bits():
    mask = some_mask(0)
    assert mask == some_mask(0)
    assert hash(mask) == hash(some_mask(0))
    assert mask != some_mask(1)
    assert mask != {name: mask[name] for name in mask}
    line = Mask({"a": np.ones(4, bool)})
    assert line != Mask({"a": np.ones((2, 2), bool)})
    assert line != Mask({"b": np.ones(4, bool)})


def test_equal_masks_have_equal_hashes_in_any_order_of_names():
    mask = some_mask()
    other = Mask({name: mask[name] for name in reversed(list(mask))})
    assert mask != other or hash(mask) == hash(other)


def test_pack_unpack_round_trip():
    for size in range(0, 26):
        mask = some_mask(size, {"w": (size,), "v": (size, 2)})
        packed = mask.pack()
        assert packed["w"].dtype == np.uint8
        assert packed["w"].shape == (-(-size // 8),)
        assert Mask.unpack(packed, mask.shapes) == mask


def test_pack_is_little_endian_in_c_order():
    array = np.zeros((2, 5), bool)
    array[0, 1] = True  # flat index 1: byte 0, bit 1
    array[1, 3] = True  # flat index 8: byte 1, bit 0
    assert Mask({"a": array}).pack()["a"].tolist() == [0b10, 0b1]


def test_unpack_takes_shapes_as_json_gives_them():
    mask = some_mask()
    shapes = {name: list(shape) for name, shape in mask.shapes.items()}
    assert Mask.unpack(mask.pack(), shapes) == mask
    assert Mask.unpack(mask.pack(), shapes).checksum == mask.checksum


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (np.zeros(1, np.uint8), (9,)),  # a byte short
        (np.zeros(3, np.uint8), (9,)),  # a byte over
        (np.zeros(0, np.uint8), (9,)),
        (np.zeros((2, 1), np.uint8), (9,)),
        (np.uint8(0), (8,)),
        (np.zeros(0, np.uint8), (2**32, 2**32)),  # 2**64 is 0 in int64
    ],
)
def test_unpack_refuses_the_wrong_number_of_bytes(array, shape):
    with pytest.raises(ValueError):
        Mask.unpack({"a": array}, {"a": shape})


@pytest.mark.parametrize("bit", range(1, 8))
def test_unpack_refuses_bits_past_the_end(bit):
    packed = {"a": np.array([0, 1 << bit], np.uint8)}
    with pytest.raises(ValueError, match="'a' has bits past its end"):
        Mask.unpack(packed, {"a": (8 + bit,)})
    assert Mask.unpack(packed, {"a": (8 + bit + 1,)}).kept == 1


@pytest.mark.parametrize("array", [np.array([257]), np.array([1.7])])
def test_unpack_refuses_what_is_not_uint8(array):
    with pytest.raises(ValueError):
        Mask.unpack({"a": array}, {"a": (8,)})


@pytest.mark.parametrize("shape", [(-1,), (-1, 0)])
def test_unpack_refuses_negative_shapes(shape):
    with pytest.raises(ValueError):
        Mask.unpack({"a": np.zeros(0, np.uint8)}, {"a": shape})


def test_unpack_refuses_other_names_than_the_shapes_have():
    byte = np.zeros(1, np.uint8)
    with pytest.raises(ValueError, match="'b'"):
        Mask.unpack({"a": byte}, {"a": (8,), "b": (8,)})
    with pytest.raises(ValueError, match="'b'"):
        Mask.unpack({"a": byte, "b": byte}, {"a": (8,)})


def test_full_keeps_everything():
    mask = Mask.full({n: np.zeros(s) for n, s in SHAPES.items()})
    assert mask.kept == mask.size == 49
    assert mask.shapes == SHAPES
    assert mask.density == 1.0
    assert mask.sparsity == 0.0


def test_and_overlap_issubset_agree_with_sets():
    for seed in range(6):
        one, other = some_mask(seed), some_mask(seed + 100)
        a, b = bits_of(one), bits_of(other)
        both = one & other
        assert bits_of(both) == a & b
        assert both.kept == len(a & b)
        assert one.overlap(other) == len(a & b) / len(a | b)
        assert one.overlap(other) == other.overlap(one)
        assert one.issubset(other) == (a <= b)
        assert both.issubset(one) and both.issubset(other)
        assert both.issubset(one) == (a & b <= a)
        assert one.issubset(one)


def test_overlap_at_its_ends():
    none = Mask({"w": np.zeros(3, bool)})
    full = Mask({"w": np.ones(3, bool)})
    assert none.overlap(none) == 1.0
    assert full.overlap(full) == 1.0
    assert none.overlap(full) == 0.0
    assert none.issubset(full)
    assert not full.issubset(none)


@pytest.mark.parametrize("combine", [Mask.__and__, Mask.issubset, Mask.overlap])
@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"w": np.ones(4, bool)}, r"w \(3,\), w \(4,\)"),
        ({"v": np.ones(3, bool)}, r"v \(3,\), w \(3,\)"),
        ({}, r"w \(3,\)"),
    ],
)
def test_masks_of_different_weights_do_not_combine(combine, other, told):
    mask = Mask({"w": np.ones(3, bool)})
    with pytest.raises(ValueError, match=f"different weights: {told}"):
        combine(mask, Mask(other))


def test_checksum_changes_with_any_bit():
    array = np.random.default_rng(2).random((3, 6)) < 0.5
    seen = {Mask({"w": array, "v": array}).checksum}
    for index in range(array.size):
        flipped = array.copy()
        flipped.flat[index] = not flipped.flat[index]
        seen.add(Mask({"w": flipped, "v": array}).checksum)
        seen.add(Mask({"w": array, "v": flipped}).checksum)
    assert len(seen) == 1 + 2 * array.size


def test_checksum_changes_with_names_and_shapes():
    ones, zeros = np.ones(8, bool), np.zeros(8, bool)
    masks = [
        Mask({"a": ones, "b": zeros}),
        Mask({"b": zeros, "a": ones}),  # the order breaks ties: it counts
        Mask({"a": zeros, "b": ones}),
        Mask({"a": ones}),
        Mask({"a": ones.reshape(2, 4)}),
        Mask({"a": ones.reshape(4, 2)}),
        Mask({"c": ones}),
        Mask({"a": np.ones(7, bool)}),
        Mask({"a": np.ones(16, bool)}),
        Mask({}),
    ]
    assert len({mask.checksum for mask in masks}) == len(masks)


def test_checksum_is_the_sha256_of_names_shapes_and_bits():
    mask = Mask({"a": np.array([[True, False, True]])})
    expected = hashlib.sha256(b"('a', (1, 3))" + bytes([0b101])).hexdigest()
    assert mask.checksum == expected


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        lambda mask: pickle.loads(pickle.dumps(mask)),
        lambda mask: pickle.loads(pickle.dumps(mask, protocol=2)),
    ],
)
def test_copies_are_equal_and_frozen(duplicate):
    mask = some_mask()
    other = duplicate(mask)
    assert other == mask
    assert other.checksum == mask.checksum
    assert list(other) == list(mask)
    with pytest.raises(AttributeError, match="frozen"):
        other.kept = 0


def test_a_mask_costs_one_bit_a_weight():
    mask = Mask({"w": np.ones((1000, 1000), bool)})
    assert sum(each.nbytes for each in mask.pack().values()) == 125_000
    assert not hasattr(mask, "__dict__")
