"""Augmentations: random changes of a batch of images, repeatable by seed."""

import tensorflow as tf

from keras_lottery.choices import resolve


def flip_and_crop(images, seed, padding=4):
    """Flips each image with probability 1/2, and crops it from a zero border.

    As for CIFAR in He et al. (2016): the image is padded on all sides and an
    image of the old size is cut out, at each place with equal probability.

    Args:
        images: Tensor of shape (n, height, width, channels).
        seed: Integer tensor of shape (2,). Equal seeds change images equally.
        padding: Rows and columns of zeros at each side.

    Returns:
        Tensor of the shape and dtype of `images`.

    Example:

    >>> images = tf.reshape(tf.range(4.0), (1, 2, 2, 1))
    >>> flip_and_crop(images, (0, 1), padding=0)[0, :, :, 0].numpy().tolist()
    [[1.0, 0.0], [3.0, 2.0]]
    """
    images = tf.convert_to_tensor(images)
    shape = tf.shape(images)
    flips, down, right = draw(shape[0], seed, padding)
    rows = down[:, None] + tf.range(shape[1])
    columns = tf.range(shape[2])
    mirrored = tf.where(flips[:, None], shape[2] - 1 - columns, columns)
    border = [padding, padding]
    padded = tf.pad(images, [[0, 0], border, border, [0, 0]])
    padded = tf.gather(padded, rows, axis=1, batch_dims=1)
    changed = tf.gather(padded, right[:, None] + mirrored, axis=2, batch_dims=1)
    return tf.ensure_shape(changed, images.shape)


def draw(count, seed, padding):
    """Returns what `flip_and_crop` draws for each of `count` images.

    Returns:
        (flips, down, right): booleans, and offsets in 0..2 * padding.
    """
    places = 2 * padding + 1
    # One number holds all three: no seed has to be derived from another. The
    # algorithm is named, so that devices agree.
    drawn = tf.random.stateless_uniform(
        [count], seed, 0, 2 * places**2, tf.int32, alg="philox"
    )
    return drawn % 2 == 1, drawn // 2 % places, drawn // 2 // places


AUGMENTATIONS = {"none": None, "flip_and_crop": flip_and_crop}


def get(identifier):
    """Returns the augmentation called `identifier`, or a function as it is.

    Returns:
        A function (images, seed) -> images, or None for `"none"`.
    """
    return resolve(
        "augmentation",
        identifier,
        AUGMENTATIONS,
        "a function (inputs, seed) -> inputs",
    )
