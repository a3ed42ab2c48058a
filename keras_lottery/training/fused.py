"""Fused updates: TensorFlow's one kernel a weight for what Keras does in many.

Keras writes Adam's update as about twelve operations a weight, each a pass over
memory; TensorFlow has a kernel that makes one. The kernels change the weights
and slots of the Keras optimizer itself, so that snapshots, resets and saving
see them, and they do the same sums in float32, with one exception: they compute
`1 - beta` in float32, where Keras computes it in float64. For `beta_2=0.999`
that changes the second moment by 1.3e-5 of itself (which stays so in the slot)
and the update by half as much, which is taken out again where the moment began
at 0 (`_correction`). Betas that are further off are not served.

Masks: with a masked gradient, and zeros as weight and slots, every update
served leaves a pruned weight at exactly 0.0 without a constraint, as long as
the gradients and the learning rate are finite.
"""

import math
import numbers

import keras
import numpy as np
import tensorflow as tf

from keras_lottery.training import keras_private

# Highest relative error of an update by the float32 `1 - beta` of the kernels,
# before the correction.
BETA_TOLERANCE = 1e-5


def update(optimizer, *, constraints=False):
    """Returns a function that applies gradients as `optimizer.apply` does.

    It clips, decays, updates weights and slots and counts the iteration, in a
    `tf.function`, under XLA or eagerly. It does not go through
    `optimizer.apply`, which may have been replaced: mask gradients before.
    Settings that Keras reads in a trace are read in the trace here, too.

    Args:
        optimizer: A built Keras optimizer.
        constraints: Whether the variables' constraints are applied after.

    Returns:
        A function (gradients) -> None, with one gradient for each variable
        that the optimizer was built for, in that order; for None Keras warns
        and leaves the variable alone. Under a distribution strategy it is for
        replicas, and gradients are summed over those before. None if `reason`
        says why not.

    Raises:
        ValueError: An optimizer that is served but not built.

    Example:

    >>> weight = keras.Variable([1.0, 2.0])
    >>> optimizer = keras.optimizers.SGD(0.5, momentum=0.9)
    >>> optimizer.build([weight])
    >>> apply = update(optimizer)
    >>> apply([tf.constant([1.0, 0.0])])
    >>> weight.numpy().tolist(), int(optimizer.iterations)
    ([0.5, 2.0], 1)
    """
    if reason(optimizer) is not None:
        return None
    kernel = KERNELS[type(optimizer)]

    def apply(gradients):
        _apply(optimizer, kernel, gradients, constraints)

    return apply


def reason(optimizer, gradients=None):
    """Returns why an optimizer has no fused update, or None if it has one.

    Args:
        optimizer: A built Keras optimizer.
        gradients: What it is to apply, where that is known: gradients by rows
            (`tf.IndexedSlices`, of embeddings) are not served.

    Raises:
        ValueError: An optimizer that is served but not built.

    Example:

    >>> optimizer = keras.optimizers.Adam(amsgrad=True)
    >>> optimizer.build([keras.Variable([1.0, 2.0])])
    >>> reason(optimizer)
    'Adam has amsgrad=True'
    """
    kind = type(optimizer)
    if kind not in KERNELS:
        served = ", ".join(each.__name__ for each in KERNELS)
        return f"{kind.__name__} is none of {served}"
    if not optimizer.built:
        raise ValueError(
            f"The optimizer {optimizer.name!r} is not built. Call "
            "`optimizer.build(model.trainable_variables)` before."
        )
    for found in _reasons(optimizer, gradients or ()):
        return f"{kind.__name__} {found}"
    return None


def _reasons(optimizer, gradients):
    for name in ("amsgrad", "use_ema", "gradient_accumulation_steps"):
        if getattr(optimizer, name, None):
            yield f"has {name}={getattr(optimizer, name)}"
    for name in _replaced(optimizer):
        yield f"has a `{name}` of its own"
    if isinstance(optimizer, keras.optimizers.Adam):
        yield from _reasons_of_numbers(optimizer)
    for variable in keras_private.trained_by(optimizer):
        yield from _reasons_of_variable(variable)
    for gradient in gradients:
        if isinstance(gradient, tf.IndexedSlices):
            yield "gets gradients by rows (tf.IndexedSlices)"


def _replaced(optimizer):
    """Yields methods replaced on the instance, but for those we replace.

    `apply` is how masks hold, the other how sums over replicas come before.
    """
    ours = ("apply", keras_private.SUM)
    for name, value in vars(optimizer).items():
        method = getattr(type(optimizer), name, None)
        if callable(value) and callable(method) and name not in ours:
            yield name


def _reasons_of_numbers(adam):
    betas = {"beta_1": adam.beta_1, "beta_2": adam.beta_2}
    for name, beta in betas.items():
        if not isinstance(beta, numbers.Real) or not 0 <= beta < 1:
            yield f"has {name}={beta}, which is no number in [0, 1)"
            return
    # Only the root of the second moment is in the update.
    error = _error(adam.beta_1) + _error(adam.beta_2) / 2
    if error > BETA_TOLERANCE:
        told = ", ".join(f"{name}={beta}" for name, beta in betas.items())
        yield f"has {told}, which float32 kernels change by {error:.1e}"
    # At 0 a pruned weight would become 0 / 0.
    if not np.float32(adam.epsilon) > 0:
        yield f"has epsilon={adam.epsilon}, which is not above 0 in float32"


def _error(beta):
    """Returns by how much the kernels' `1 - beta` is off, relatively."""
    exact = 1 - float(beta)
    return abs((1 - float(np.float32(beta))) / exact - 1)


def _reasons_of_variable(variable):
    if not isinstance(variable, keras.Variable):
        yield f"trains {variable.name!r}, which is no keras.Variable"
        return
    if keras.backend.standardize_dtype(variable.dtype) != "float32":
        yield f"trains {variable.path!r}, which is {variable.dtype}"
    if getattr(variable, "overwrite_with_gradient", False):
        yield f"trains {variable.path!r}, which its gradient overwrites"


def _apply(optimizer, kernel, gradients, constraints):
    slots = keras_private.moments(optimizer)
    gradients, variables, slots = _present(optimizer, gradients, slots)
    if not gradients:
        return
    if optimizer.loss_scale_factor is not None:
        gradients = [g / optimizer.loss_scale_factor for g in gradients]
    gradients = keras_private.clipped(optimizer, gradients)
    rate = tf.cast(optimizer.learning_rate, tf.float32)
    _decay(optimizer, variables, rate)
    kernel(optimizer, zip(variables, slots, gradients, strict=True), rate)
    if constraints:
        _constrain(variables)
    optimizer.iterations.value.assign_add(1)


def _present(optimizer, gradients, slots):
    """Returns gradients that are not None, with their variables and slots."""
    gradients = list(gradients)
    trained = keras_private.trained_by(optimizer)
    if len(gradients) != len(trained):
        raise ValueError(
            f"Expected {len(trained)} gradients, one for each variable that "
            f"the optimizer was built for; got {len(gradients)}."
        )
    if not gradients:
        return [], [], []
    told = reason(optimizer, gradients)
    if told is not None:
        raise ValueError(
            f"There is no fused update: {told}. Call `optimizer.apply`."
        )
    slots = [s for s, g in zip(slots, gradients) if g is not None]
    gradients, variables = keras_private.with_gradients(
        optimizer, gradients, trained
    )
    return [tf.cast(g, tf.float32) for g in gradients], variables, slots


def _decay(optimizer, variables, rate):
    """Shrinks the weights by themselves, before the update: decoupled decay."""
    if optimizer.weight_decay is None:
        return
    factor = rate * tf.constant(optimizer.weight_decay, tf.float32)
    for variable in variables:
        if keras_private.decays(optimizer, variable):
            variable.value.assign_sub(variable.value * factor)


def _constrain(variables):
    for variable in variables:
        if variable.constraint is not None:
            variable.assign(variable.constraint(variable))


def _sgd(optimizer, updates, rate):
    for variable, slots, gradient in updates:
        if not slots:
            tf.raw_ops.ResourceApplyGradientDescent(
                var=variable.value.handle, alpha=rate, delta=gradient
            )
            continue
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.value.handle,
            accum=slots[0].value.handle,
            lr=rate,
            grad=gradient,
            momentum=optimizer.momentum,
            use_nesterov=optimizer.nesterov,
        )


def _adam(optimizer, updates, rate):
    # The powers as Keras takes them, once for all weights.
    step = tf.cast(optimizer.iterations + 1, tf.float32)
    power_1 = tf.pow(tf.constant(optimizer.beta_1, tf.float32), step)
    power_2 = tf.pow(tf.constant(optimizer.beta_2, tf.float32), step)
    rate = rate * _correction(optimizer.beta_2, step)
    for variable, (first, second), gradient in updates:
        tf.raw_ops.ResourceApplyAdam(
            var=variable.value.handle,
            m=first.value.handle,
            v=second.value.handle,
            beta1_power=power_1,
            beta2_power=power_2,
            lr=rate,
            beta1=optimizer.beta_1,
            beta2=optimizer.beta_2,
            epsilon=optimizer.epsilon,
            grad=gradient,
        )


def _correction(beta, step):
    """Returns what takes the kernel's `1 - beta` out of the update again.

    A second moment that began at 0, of gradients of constant size, is off by
    `(1 - kernel ** step) / (1 - beta ** step)`, where `kernel` is what beta is
    in float32; the update divides by its root.
    """
    kernel = float(np.float32(beta))
    if kernel == beta:
        return 1.0
    # `expm1` as float32 has no digits left for 1 - beta ** step.
    sizes = [tf.math.expm1(step * math.log(each)) for each in (kernel, beta)]
    return tf.sqrt(sizes[0] / sizes[1])


KERNELS = {
    keras.optimizers.SGD: _sgd,
    keras.optimizers.Adam: _adam,
    keras.optimizers.AdamW: _adam,
}
