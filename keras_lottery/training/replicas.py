"""What replicas are, and how they are given parts of a batch.

A strategy runs a function on every replica, in its own thread while traced. One
process has some of them (all, but with several workers).
"""

import functools

import tensorflow as tf

from keras_lottery.training import keras_private


def count(model):
    """Returns how many replicas a model is trained on; 1 without a strategy."""
    strategy = getattr(model, "distribute_strategy", None)
    return getattr(strategy, "num_replicas_in_sync", 1)


def in_scope(model):
    """Returns a context: the scope of the strategy a model was built under."""
    found = getattr(model, "distribute_strategy", tf.distribute.get_strategy())
    return keras_private.in_scope(found)


def check_scope(model):
    """Raises a ValueError for an optimizer made outside the model's strategy.

    Its slots and counters would not be those of every replica.
    """
    trained_by = keras_private.strategy(model.optimizer)
    if trained_by is not model.distribute_strategy:
        raise ValueError(
            f"{model.name!r} was built under "
            f"{type(model.distribute_strategy).__name__}, its optimizer under "
            f"{type(trained_by).__name__}. Build, prune and compile inside "
            "one `with strategy.scope():`."
        )


def strategy_of(variables):
    """Returns the strategy that distributes some variables, or None."""
    for variable in variables:
        if isinstance(variable.value, tf.distribute.DistributedValues):
            return variable.value.distribute_strategy
    return None


def workers(strategy):
    """Returns how many processes train together under a strategy."""
    if strategy.num_replicas_in_sync == 1:
        return 1
    here = len(strategy.extended.worker_devices)
    return strategy.num_replicas_in_sync // here


def compiled(strategy, function):
    """Returns a function that runs another on every replica, in a graph."""

    @tf.function(autograph=False, reduce_retracing=True)
    def of_all(*arguments):
        return strategy.run(function, args=arguments)

    return of_all


def result(strategy, function, value):
    """Returns what a function of a value returns, the same on all replicas.

    It is traced once for a strategy and a function.
    """
    found = _compiled_once(strategy, function)(value)
    return strategy.experimental_local_results(found)[0]


def placed(strategy, tensors):
    """Returns tensors with a copy on every device that is not the host's.

    A step would fetch the whole of them otherwise, to take some rows.

    Args:
        strategy: The strategy in use.
        tensors: Structure of tensors.
    """
    if all("CPU" in device for device in strategy.extended.worker_devices):
        return tensors

    def here(*flat):
        return tuple(map(tf.identity, flat))

    flat = tf.nest.flatten(tensors)
    copies = compiled(strategy, here)(*flat)
    return tf.nest.pack_sequence_as(tensors, copies)


def gathered(value):
    """Returns, on a replica, what all have of a value, in rows."""
    context = tf.distribute.get_replica_context()
    return context.all_gather(value[tf.newaxis], axis=0)


def bounds(rows, replicas, replica):
    """Returns (first, last) of the rows of a batch that a replica has.

    Parts are in order and differ by one row at most.

    Args:
        rows: Of the whole batch.
        replicas: How many there are.
        replica: Which one: an int.

    Example:

    >>> [bounds(5, 2, replica) for replica in range(2)]
    [(0, 3), (3, 5)]
    """
    each, more = divmod(rows, replicas)
    first = replica * each + min(replica, more)
    return first, first + each + (replica < more)


def this_replica():
    """Returns the number of the replica, as an int, or None.

    A TPU has one program for all its cores: there it is known in a step only.
    """
    context = tf.distribute.get_replica_context()
    found = tf.get_static_value(context.replica_id_in_sync_group)
    return None if found is None else int(found)


def mean(strategy, logs):
    """Returns the mean over replicas of each value in some logs."""

    def of(value):
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None)

    return tf.nest.map_structure(of, logs)


def cut(data, first, count):
    """Returns `count` rows of each tensor; unlike slices, of known shape."""
    return tf.nest.map_structure(
        lambda each: tf.slice(
            each,
            [first, *[0] * (len(each.shape) - 1)],
            [count, *each.shape[1:]],
        ),
        data,
    )


def counted(model, step, there):
    """Runs a step of a model that leaves no trace unless `there`.

    Metrics, and what layers note while they train (the statistics of batch
    normalisation), stay as they were.

    Args:
        model: A compiled `keras.Model`.
        step: Function () -> logs.
        there: bool scalar.
    """
    noted = [v for metric in model.metrics for v in metric.variables]
    states = [v.value for v in (*noted, *_statistics(model))]
    before = [tf.identity(state) for state in states]
    logs = step()
    for state, old in zip(states, before, strict=True):
        state.assign(tf.where(there, tf.identity(state), old))
    return logs


def _statistics(model):
    """Returns the floats that each replica notes for itself while training.

    Others (`aggregation="mean"` and so on) are assigned by all replicas
    together, so that none can leave its own as it was.
    """
    frozen = {
        id(variable)
        for layer in model._flatten_layers()
        if not layer.trainable
        for variable in layer.variables
    }
    return [
        variable
        for variable in model.non_trainable_weights
        if tf.as_dtype(variable.dtype).is_floating
        and variable.aggregation in (None, "none")
        and id(variable) not in frozen
    ]


_compiled_once = functools.lru_cache(maxsize=16)(compiled)
