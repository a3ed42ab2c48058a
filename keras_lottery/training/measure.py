"""What a model scores on a whole data set, as compiled."""

import tensorflow as tf

from keras_lottery.training import dense_networks


def measure_on(model, data, batch_size=None):
    """Returns a function that gives the compiled loss and metrics on a set.

    Like `model.evaluate` without its iterators, which cost more than a small
    network's answers: for sets that are measured every few steps. Inside `fit`
    call it only between epochs, as a model has one set of metric states.

    Args:
        model: A compiled `keras.Model`.
        data: What `test_step` takes: structure of arrays, rows first.
        batch_size: Rows at a time; None for 1,000, or 5,000 of a dense network,
            whose activations are small: its products are faster at that size.

    Returns:
        Function `() -> dict` from metric name to float or array.
    """
    data = tf.nest.map_structure(tf.convert_to_tensor, data)
    rows = len(tf.nest.flatten(data)[0])
    batch_size = batch_size or (
        5000 if dense_networks.is_dense(model) else 1000
    )
    whole = rows // batch_size

    @tf.function
    def pass_over():
        model.reset_metrics()
        for batch in tf.range(whole):
            model.test_step(_rows(data, batch * batch_size, batch_size))
        if rows % batch_size:
            rest = whole * batch_size
            model.test_step(_rows(data, rest, rows - rest))
        return model.get_metrics_result()

    def measure():
        return plain(pass_over())

    return measure


def plain(logs):
    """Returns logs as floats, and as arrays what has several values.

    Logs within logs are put beside the others, as Keras does.

    Args:
        logs: Dict from name to tensor or to such a dict.
    """
    found = {}
    for name, value in sorted(logs.items()):
        if isinstance(value, dict):
            found.update(plain(value))
            continue
        value = value.numpy()
        found[name] = float(value) if value.ndim == 0 else value
    return found


def _rows(data, first, count):
    """Returns `count` rows of each tensor; unlike slices, of known shape."""
    return tf.nest.map_structure(
        lambda each: tf.slice(
            each,
            [first, *[0] * (len(each.shape) - 1)],
            [count, *each.shape[1:]],
        ),
        data,
    )
