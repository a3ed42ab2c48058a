"""What a model scores on a whole data set, as compiled."""

import tensorflow as tf

from keras_lottery.training import dense_networks
from keras_lottery.training import replicas


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
    test = _tested
    if replicas.count(model) > 1:
        test = _tested_by_parts
        data = replicas.placed(model.distribute_strategy, data)

    @tf.function
    def pass_over():
        model.reset_metrics()
        for batch in tf.range(whole):
            test(model, data, batch * batch_size, batch_size)
        if rows % batch_size:
            rest = whole * batch_size
            test(model, data, rest, rows - rest)
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


def _tested(model, data, first, count):
    model.test_step(replicas.cut(data, first, count))


def _tested_by_parts(model, data, first, count):
    """Tests rows on several replicas, a part of them on each."""
    several = replicas.count(model)
    each, more = divmod(count, several)

    def on_a_replica(data, first):
        replica = replicas.this_replica()
        if replica is not None:
            start, end = replicas.bounds(count, several, replica)
            if start < end:
                _tested(model, data, first + start, end - start)
            return
        # A TPU needs parts of one size: the rest is measured by all of them,
        # and counted by one.
        context = tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group, first.dtype)
        if each:
            _tested(model, data, first + replica * each, each)
        if more:
            replicas.counted(
                model,
                lambda: _tested(model, data, first + several * each, more),
                tf.equal(replica, 0),
            )

    arguments = data, tf.convert_to_tensor(first)
    model.distribute_strategy.run(on_a_replica, args=arguments)
