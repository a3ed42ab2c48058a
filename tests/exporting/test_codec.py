"""The payload: exact for every pattern of zeros, and close to the bound."""

import math
import zlib

import ml_dtypes
import numpy as np
import pytest

from keras_lottery.exporting import codec


def same_bits(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def through(arrays, masks=None):
    return codec.decode(codec.encode(arrays, masks))


def slow_gaps(flat):
    """The index section, one element after the other."""
    codes, zeros = [], 0
    for value in flat:
        if value:
            codes += [255] * (zeros // 255) + [zeros % 255]
            zeros = 0
        else:
            zeros += 1
    return bytes(codes)


@pytest.mark.parametrize("seed", range(20))
def test_random_masks_come_back_bit_for_bit(seed):
    generator = np.random.default_rng(seed)
    arrays, masks = {}, {}
    for i in range(generator.integers(1, 6)):
        shape = tuple(generator.integers(1, 40, generator.integers(0, 4)))
        arrays[f"w{i}"] = generator.normal(size=shape).astype(np.float32)
        density = generator.choice([0, 0.004, 0.1, 0.5, 0.9, 1])
        masks[f"w{i}"] = generator.random(shape) < density
    found = through(arrays, masks)
    assert set(found) == set(arrays)
    for name, value in arrays.items():
        zero = np.zeros_like(value)
        same_bits(found[name], np.where(masks[name], value, zero))


@pytest.mark.parametrize("density", [0, 0.001, 0.05, 0.4])
def test_index_and_values_are_as_the_format_says(density):
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(64, 48)).astype(np.float32)
    kernel[generator.random(kernel.shape) >= density] = 0
    bias = generator.normal(size=3).astype(np.float32)
    payload = codec.encode({"kernel": kernel, "bias": bias})
    flat = kernel.ravel()
    values = flat[flat != 0].view(np.uint8).reshape(-1, 4).T.tobytes()
    raw = np.pad(bias, (0, 13)).view(np.uint8).reshape(-1, 4).T.tobytes()
    expected = slow_gaps(flat) + values + raw
    assert zlib.decompress(payload.blob) == expected
    assert payload.sections == (len(slow_gaps(flat)), len(values), len(raw))
    assert sum(payload.compressed) == len(payload.blob)
    assert [slot.name for slot in payload.slots] == ["kernel", "bias"]
    assert payload.rows == 64 * 48 // 16 + 1


@pytest.mark.parametrize("first", [0, 253, 254, 255, 256, 509, 510, 511, 4000])
def test_gaps_around_what_a_byte_holds(first):
    kernel = np.zeros(5000, np.float32)
    kernel[[first, first + 1, 4999]] = [1.5, -2, 3]
    payload = codec.encode({"kernel": kernel})
    index = zlib.decompress(payload.blob)[: payload.sections[0]]
    assert index == slow_gaps(kernel)
    same_bits(codec.decode(payload)["kernel"], kernel)


def test_scalars_empty_arrays_and_odd_shapes():
    arrays = {
        "scalar": np.array(2.5, np.float32),
        "zero": np.array(0, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "odd": np.eye(17, 19, dtype=np.float32)[None],
        "all_zero": np.zeros((3, 3, 5, 7), np.float32),
        "all_kept": np.arange(1, 101, dtype=np.float32).reshape(4, 25),
        "transposed": np.eye(9, 40, dtype=np.float32).T,
    }
    found = through(arrays)
    assert set(found) == set(arrays)
    for name, value in arrays.items():
        same_bits(found[name], np.ascontiguousarray(value).reshape(value.shape))
    assert through({}) == {}


def test_signs_of_zero_and_values_that_are_no_numbers():
    kernel = np.zeros(64, np.float32)
    kernel[:6] = [-0.0, 0.0, np.nan, np.inf, -np.inf, 1e-45]
    same_bits(through({"w": kernel})["w"], kernel)
    kept = np.ones(64, bool)
    same_bits(through({"w": kernel}, {"w": kept})["w"], kernel)
    kept[0] = False
    expected = kernel.copy()
    expected[0] = 0.0
    same_bits(through({"w": kernel}, {"w": kept})["w"], expected)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_keeps_its_dtype(dtype):
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(30, 50)).astype(dtype)
    kernel[generator.random(kernel.shape) < 0.9] = 0
    bias = generator.normal(size=50).astype(dtype)
    payload = codec.encode({"kernel": kernel, "bias": bias})
    found = codec.decode(payload)
    same_bits(found["kernel"], kernel)
    same_bits(found["bias"], bias)
    assert payload.sections[1] == 2 * np.count_nonzero(kernel)


@pytest.mark.parametrize("dtype", ["float64", "int32", "complex64", "bool"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match=f"one dtype of float32.* got {dtype}"):
        codec.encode({"w": np.zeros(3, dtype)})


def test_several_dtypes_are_refused():
    arrays = {"a": np.zeros(3, np.float16), "b": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match="got float16, float32. Encode"):
        codec.encode(arrays)


def test_two_to_the_31_elements_are_refused():
    many = np.broadcast_to(np.float16(1), (2**16, 2**15))  # 2 bytes
    with pytest.raises(ValueError, match="2,147,483,648. Encode the arrays"):
        codec.encode({"w": many})


def test_masks_that_fit_no_array_are_refused():
    arrays = {"w": np.zeros((2, 3), np.float32)}
    with pytest.raises(ValueError, match=r"shape \(3, 2\), expected \(2, 3\)"):
        codec.encode(arrays, {"w": np.ones((3, 2), bool)})
    with pytest.raises(ValueError, match="'v' has shape .* expected no array"):
        codec.encode(arrays, {"v": np.ones((2, 3), bool)})


def test_one_flipped_bit_is_noticed_or_changes_nothing():
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(100, 100)).astype(np.float32)
    kernel[generator.random(kernel.shape) < 0.95] = 0
    payload = codec.encode({"w": kernel, "b": np.ones(9, np.float32)})
    noticed = 0
    for bit in range(8 * len(payload.blob)):
        blob = bytearray(payload.blob)
        blob[bit // 8] ^= 1 << bit % 8
        try:
            data = zlib.decompress(bytes(blob))
        except zlib.error:
            noticed += 1
        else:
            assert data == zlib.decompress(payload.blob)
    assert noticed > 0.99 * 8 * len(payload.blob)


def test_a_damaged_payload_is_said():
    payload = codec.encode({"w": np.ones(20, np.float32)})
    object.__setattr__(payload, "blob", payload.blob[:-3])
    with pytest.raises(ValueError, match="The payload is damaged: Error -5"):
        codec.decode(payload)
    object.__setattr__(payload, "blob", zlib.compress(b"abc"))
    with pytest.raises(ValueError, match="3 bytes, expected 128"):
        codec.decode(payload)


def test_entropy_is_the_number_of_masks():
    """log2 of n over k, which n H(k / n) bounds from above."""
    for size, kept in [(1000, 10), (5000, 4000), (10**6, 36_000)]:
        masks = math.lgamma(size + 1) - math.lgamma(kept + 1)
        masks -= math.lgamma(size - kept + 1)
        exact = masks / math.log(2) / 8
        assert 0 < codec.entropy_bytes([size], [kept]) - exact < 2
    assert codec.entropy_bytes([7, 7, 0], [7, 0, 0]) == 0
    assert codec.entropy_bytes([16, 16], [8, 8]) == 4


@pytest.mark.parametrize(
    "density, over", [(0.10, 1.12), (0.036, 1.03), (0.01, 1.04)]
)
def test_index_of_a_lenet_is_close_to_the_entropy(density, over):
    generator = np.random.default_rng(0)
    arrays, kept = {}, []
    for i, shape in enumerate([(784, 300), (300, 100), (100, 10)]):
        kernel = generator.normal(size=shape).astype(np.float32)
        kept.append(round(density * kernel.size))
        order = np.argsort(np.abs(kernel), axis=None)
        kernel.ravel()[order[: kernel.size - kept[-1]]] = 0
        arrays[f"w{i}"] = kernel
    payload = codec.encode(arrays)
    sizes = [value.size for value in arrays.values()]
    bound = codec.entropy_bytes(sizes, kept)
    assert sum(np.count_nonzero(value) for value in arrays.values()) == sum(
        kept
    )
    assert len(payload.sparse) == 3
    assert payload.index_bytes / bound <= over
    # An enumerative code cannot do better than the number of masks.
    assert payload.index_bytes > 0.99 * bound


def normal(shape, density, seed=0):
    generator = np.random.default_rng(seed)
    value = generator.normal(0, 0.1, shape).astype(np.float32)
    value[generator.random(shape) >= density] = 0
    return value


@pytest.mark.parametrize("density", [0.04, 0.8, 1])
@pytest.mark.parametrize("values", ["float16", "bfloat16"])
def test_kernels_are_rounded_to_the_nearest_and_biases_are_not(values, density):
    dtype = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[values]
    arrays = {"kernel": normal((40, 30), density), "bias": normal(30, 1)}
    payload = codec.encode(arrays, values=values)
    found = codec.decode(payload)
    same_bits(found["bias"], arrays["bias"])
    nearest = arrays["kernel"].astype(dtype).astype(np.float32)
    same_bits(found["kernel"], np.where(nearest == 0, np.float32(0), nearest))
    assert payload.sections[1] == 2 * np.count_nonzero(found["kernel"])


@pytest.mark.parametrize("density", [0.04, 0.8])
def test_int8_is_within_half_a_step_of_every_kernel(density):
    arrays = {f"w{i}": normal((40, 7 + i), density, i) * 10**i for i in (0, 3)}
    arrays["none"] = np.zeros((20, 20), np.float32)
    payload = codec.encode(arrays, values="int8")
    found = codec.decode(payload)
    for name, value in arrays.items():
        step = np.abs(value).max() / 127
        assert found[name].dtype == np.float32
        assert np.abs(found[name] - value).max() <= step / 2 * (1 + 1e-6)
        assert len(np.unique(found[name])) <= 255
        assert not np.any(found[name][value == 0])
    largest = np.abs(arrays["w3"]).argmax()
    assert found["w3"].flat[largest] == pytest.approx(
        arrays["w3"].flat[largest], rel=1e-6
    )
    kept = sum(np.count_nonzero(value) for value in found.values())
    assert payload.sections[1] == kept


def test_what_float16_does_not_reach_is_refused_by_name():
    arrays = {"big": np.full((4, 4), 65520, np.float32)}
    with pytest.raises(ValueError, match="big has a weight of 65520.*65504"):
        codec.encode(arrays, values="float16")
    found = codec.decode(codec.encode(arrays, values="bfloat16"))
    assert found["big"][0, 0] == 65536
    with pytest.raises(ValueError, match="float32, float16, bfloat16, int8"):
        codec.encode(arrays, values="int4")


def test_weights_that_are_as_narrow_stay_as_they_are():
    kernel = normal((30, 30), 0.1).astype(np.float16)
    for values in ("float16", "bfloat16"):
        found = codec.decode(codec.encode({"w": kernel}, values=values))
        same_bits(found["w"], kernel)
    found = codec.decode(codec.encode({"w": kernel}, values="int8"))["w"]
    assert found.dtype == np.float16
    assert not np.array_equal(found, kernel)
