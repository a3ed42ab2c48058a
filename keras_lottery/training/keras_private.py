"""The private names of Keras's optimizers, all in one place.

`pruning/weights.py` holds those of layers. A test runs over the oldest and the
newest Keras that is supported.
"""

import contextlib
import weakref
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.trainers.trainer import model_supports_jit

from keras_lottery.training import determinism

SUM = "_all_reduce_sum_gradients"  # a method of every optimizer
_BUILT = weakref.WeakKeyDictionary()  # see `built_values`
_BESIDE = weakref.WeakKeyDictionary()  # see `accompany`


def key(optimizer, variable):
    """Returns what identifies `variable` to `optimizer`."""
    return optimizer._var_key(variable)


def trained_by(optimizer):
    """Returns the variables an optimizer was built for, in its order."""
    return list(optimizer._trainable_variables)


def leaves(optimizer):
    """Returns the optimizers that update weights: the inner ones, if any.

    LossScaleOptimizer wraps one optimizer, MultiOptimizer several. Those that
    `accompany` it come last.
    """
    inner = optimizers_in(vars(optimizer).values())
    found = [leaf for each in inner for leaf in leaves(each)] or [optimizer]
    return found + [leaf for each in beside(optimizer) for leaf in leaves(each)]


def optimizers_in(values):
    """Returns optimizers among values, lists and dicts of them, each once."""
    held = []
    for value in values:
        value = list(value.values()) if isinstance(value, Mapping) else value
        held.extend(value if isinstance(value, (list, tuple)) else [value])
    found = [v for v in held if isinstance(v, keras.optimizers.Optimizer)]
    return list({id(each): each for each in found}.values())


def accompany(optimizer, others):
    """Notes that others train the same model, as in a GAN.

    Their variables are part of the state from then on. Not an attribute: Keras
    would save it.
    """
    if others:
        _BESIDE[optimizer] = list(others)
    else:
        _BESIDE.pop(optimizer, None)


def beside(optimizer):
    """Returns the optimizers that `accompany` one."""
    return _BESIDE.get(optimizer, [])


def averages(leaf):
    """Returns (variable, its moving average) pairs of a leaf with EMA."""
    if not leaf.use_ema or not leaf.built:
        return []
    return list(
        zip(
            leaf._trainable_variables,
            leaf._model_variables_moving_average,
            strict=True,
        )
    )


def slots(leaf):
    """Yields (list name, index, variable, slot) for slots shaped like weights.

    Every Keras optimizer keeps its slots in lists aligned with the variables
    it was built for.
    """
    trained = leaf._trainable_variables
    for name, held in vars(leaf).items():
        aligned = isinstance(held, list) and len(held) == len(trained)
        if not aligned or name in ("_variables", "_trainable_variables"):
            continue
        for index, (variable, slot) in enumerate(zip(trained, held)):
            is_slot = isinstance(slot, (keras.Variable, tf.Variable))
            if is_slot and tuple(slot.shape) == tuple(variable.shape):
                yield name, index, variable, slot


def built_values(leaf):
    """Returns the value each slot had when built: {(list name, index): float}.

    Found from a fresh optimizer of the same configuration, built on weights
    of one entry each: a slot's first value does not depend on the size. (An
    optimizer that starts a slot as a copy of the weight finds 0, which is what
    a pruned weight is.) Looked up once: it takes 8 ms for LeNet, 75 for
    ResNet-20.
    """
    trained = [id(variable) for variable in leaf._trainable_variables]
    of, values = _BUILT.get(leaf, (None, None))
    if of != trained:
        with in_scope(strategy(leaf)):
            stand_ins = [_stand_in(v) for v in leaf._trainable_variables]
        values = {
            (name, index): float(slot.numpy().ravel()[0])
            for name, index, _, slot in slots(fresh(leaf, stand_ins))
        }
        _BUILT[leaf] = trained, values
    return values


def fresh(optimizer, variables):
    """Returns a new optimizer of the same configuration, built.

    Its learning rate is not the same where that is a schedule or a function,
    which need not have a configuration.

    Args:
        optimizer: Any Keras optimizer.
        variables: The variables to build the new one for.
    """
    rates = [(leaf, learning_rate(leaf)) for leaf in leaves(optimizer)]
    moving = [each for each in rates if not isinstance(each[1], keras.Variable)]
    some = keras.optimizers.schedules.ExponentialDecay(0.0, 1, 1.0)
    for leaf, _ in moving:
        set_learning_rate(leaf, some)
    try:
        with in_scope(strategy(optimizer)):
            new = type(optimizer).from_config(optimizer.get_config())
    finally:
        for leaf, rate in moving:
            set_learning_rate(leaf, rate)
    build(new, variables)
    accompany(new, [fresh(e, trained_by(e)) for e in beside(optimizer)])
    return new


def build(optimizer, variables):
    """Makes the slots of an optimizer, wherever they are called for."""
    with in_scope(strategy(optimizer)):
        optimizer.build(variables)


def in_scope(strategy):
    """Returns a context: the scope of a strategy, entered where it is not."""
    if strategy is tf.distribute.get_strategy():
        return contextlib.nullcontext()
    return strategy.scope()


@contextlib.contextmanager
def without_values():
    """Networks built inside have shapes, and take no memory for weights.

    They are to be looked at and thrown away: nothing ever gives them values.
    """
    waiting = "uninitialized_variables"
    before = list(global_state.get_global_attribute(waiting) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:  # else whatever scope ends next would make them
        global_state.set_global_attribute(waiting, before)


def safe_mode():
    """Returns a context in which Keras loads no code that a config holds.

    `keras.config.enable_unsafe_deserialization` does not count inside.
    """
    return SafeModeScope(safe_mode=True)


def _stand_in(variable):
    """Returns a weight of one entry under the same path: Muon goes by it."""
    stand_in = keras.Variable(
        np.zeros((1,) * len(variable.shape)),
        dtype=variable.dtype,
        name=variable.name,
    )
    stand_in._path = variable.path
    return stand_in


def moments(leaf):
    """Returns each weight's slots in order: a list of tuples of variables.

    Args:
        leaf: A built SGD (momentum; none if that is 0), Adam or AdamW
            (first and second moment).
    """
    if isinstance(leaf, keras.optimizers.Adam):
        return list(zip(leaf._momentums, leaf._velocities, strict=True))
    if leaf.momentum == 0:
        return [()] * len(leaf._trainable_variables)
    return [(momentum,) for momentum in leaf.momentums]


def strategy(leaf):
    """Returns the distribution strategy an optimizer was made under."""
    return leaf._distribution_strategy


def leave_sums_alone(leaf):
    """Has an optimizer take gradients as summed over replicas already."""
    setattr(leaf, SUM, list)


def leave_sums_to_keras(leaf):
    """Undoes `leave_sums_alone`."""
    vars(leaf).pop(SUM, None)


def with_gradients(leaf, gradients, variables):
    """Returns the gradients that are there, and their variables.

    Keras warns of those that are None, and raises a ValueError if all are.
    """
    return leaf._filter_empty_gradients(gradients, variables)


def clipped(leaf, gradients):
    """Returns the gradients after whichever clipping the optimizer asks for."""
    return leaf._clip_gradients(gradients)


def decays(leaf, variable):
    """Returns whether the optimizer's `weight_decay` is for `variable`.

    Names are matched as Keras does it here: TensorFlow's, "kernel:0".
    """
    return leaf._use_weight_decay(variable.value)


def variables(optimizer):
    """Returns every variable of an optimizer, once, in a fixed order.

    Inside a LossScaleOptimizer Keras forgets to track Nadam's product of
    momenta; it is found as an attribute.
    """
    held = list(optimizer.variables)
    for each in beside(optimizer):
        held.extend(variables(each))
    for leaf in leaves(optimizer):
        attributes = vars(leaf).values()
        held.extend(v for v in attributes if isinstance(v, keras.Variable))
    return list({id(variable): variable for variable in held}.values())


def clock_variables(optimizer):
    """Returns the variables that say where in its schedule an optimizer is.

    These are its scalars: the iteration, a learning rate that callbacks set,
    Nadam's product of momenta. The loss scale is not one of them, and neither
    is a slot of a weight that is itself a scalar.
    """
    return [
        variable
        for leaf in leaves(optimizer)
        for variable in _without_slots(leaf)
        if len(variable.shape) == 0
    ]


def _without_slots(leaf):
    slotted = {id(slot) for *_, slot in slots(leaf)}
    return [v for v in variables(leaf) if id(v) not in slotted]


def learning_rate(leaf):
    """Returns the learning rate as given: a variable, schedule or function."""
    return leaf._learning_rate


def set_learning_rate(leaf, value):
    """Replaces the learning rate, a schedule included."""
    leaf._learning_rate = value


def compilation(model):
    """Returns an object that every `compile` of a model makes anew."""
    return getattr(model, "_compile_config", None)


def compile_arguments(model):
    """Returns the arguments `model.compile` was called with, as objects."""
    return dict(model._compile_config.config)


def supports_jit(model):
    """Returns whether Keras would compile a model with XLA at all.

    Not with layers that say no.
    """
    with determinism.lifted():
        return model_supports_jit(model)


def build_compiled(model, batch):
    """Makes the variables of metrics and losses, as `fit` does at its start.

    Args:
        model: A compiled model.
        batch: What `train_step` takes; only shapes and dtypes count.
    """
    with in_scope(model.distribute_strategy):
        model._symbolic_build(data_batch=batch)


def example_of(iterator):
    """Returns what a batch of Keras's epoch iterator looks like; reads none.

    Args:
        iterator: A `TFEpochIterator` over a distributed data set.
    """

    def of_one(spec):
        # Of several replicas: as the first one's.
        return getattr(spec, "_value_specs", (spec,))[0]

    spec = iterator._distributed_dataset.element_spec
    return tf.nest.map_structure(of_one, spec)


def sums_losses(model):
    """Returns whether a compiled loss is a sum over rows, not a mean."""
    loss = getattr(model._compile_loss, "_user_loss", None)
    flat = keras.tree.flatten(loss)
    return any(getattr(each, "reduction", "") in ("sum", None) for each in flat)
