"""Flips and crops, against loops over pixels."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.data import augmentation
from keras_lottery.data.augmentation import draw
from keras_lottery.data.augmentation import flip_and_crop

SEED = tf.constant([3, 5], tf.int64)


def images(count, height=5, width=7, channels=2, dtype="float32"):
    """All values differ, and none is 0, as the border is."""
    size = count * height * width * channels
    values = np.arange(1, 1 + size).reshape(count, height, width, channels)
    return values.astype(dtype)


def by_pixel(batch, seed, padding):
    """The same with the same draws, pixel by pixel."""
    count, height, width, _ = batch.shape
    draws = zip(*(each.numpy() for each in draw(count, seed, padding)))
    result = np.zeros_like(batch)
    for image, (flip, down, right) in enumerate(draws):
        for i, j in np.ndindex(height, width):
            across = width - 1 - j if flip else j
            row, column = i + down - padding, across + right - padding
            if 0 <= row < height and 0 <= column < width:
                result[image, i, j] = batch[image, row, column]
    return result


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_pixels_are_where_a_loop_puts_them(padding, dtype):
    batch = images(20, dtype=dtype)
    found = flip_and_crop(batch, SEED, padding).numpy()
    assert found.dtype == batch.dtype
    np.testing.assert_array_equal(found, by_pixel(batch, SEED, padding))


def test_all_offsets_and_both_flips_are_equally_likely():
    count = 162 * 200
    found = collections.Counter(
        zip(*(each.numpy().tolist() for each in draw(count, SEED, 4)))
    )
    assert set(found) == {
        (f, d, r) for f in (False, True) for d in range(9) for r in range(9)
    }
    # Chi-squared with 161 degrees of freedom: mean 161, deviation 18.
    chi = sum((n - 200) ** 2 / 200 for n in found.values())
    assert 90 < chi < 250


def test_the_same_seed_gives_the_same_images():
    batch = images(30)
    one = flip_and_crop(batch, SEED)
    np.testing.assert_array_equal(one, flip_and_crop(batch, SEED))
    for other in ([3, 6], [4, 5], [5, 3]):
        changed = flip_and_crop(batch, tf.constant(other, tf.int64))
        assert (one.numpy() != changed.numpy()).any()


def test_images_of_a_batch_are_changed_independently():
    same = np.repeat(images(1), 50, axis=0)
    found = {each.tobytes() for each in flip_and_crop(same, SEED).numpy()}
    assert len(found) > 25


def test_in_a_graph_and_in_a_pipeline_it_is_the_same():
    batch = images(12)
    expected = flip_and_crop(batch, SEED).numpy()
    compiled = tf.function(
        flip_and_crop,
        input_signature=[
            tf.TensorSpec([None, 5, 7, 2]),
            tf.TensorSpec([2], tf.int64),
        ],
    )
    traced = compiled.get_concrete_function()
    np.testing.assert_array_equal(compiled(batch, SEED), expected)
    assert traced.structured_outputs.shape.as_list() == [None, 5, 7, 2]
    dataset = tf.data.Dataset.from_tensors(batch)
    (found,) = dataset.map(lambda x: flip_and_crop(x, SEED))
    np.testing.assert_array_equal(found, expected)


def test_names():
    assert augmentation.get("none") is None
    assert augmentation.get("flip_and_crop") is flip_and_crop
    assert augmentation.get(by_pixel) is by_pixel
    with pytest.raises(ValueError, match="Unknown augmentation 'flip'.*'none'"):
        augmentation.get("flip")


@pytest.mark.parametrize(
    "function", [f for f in augmentation.AUGMENTATIONS.values() if f]
)
def test_every_augmentation_keeps_shape_and_type(function):
    batch = images(6)
    found = function(tf.constant(batch), SEED)
    assert found.shape == batch.shape and found.dtype == tf.float32
