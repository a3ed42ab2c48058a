"""What the machine itself makes of more weights: the sums of a step, bare.

Three dense layers without activations, biases or loss: forward and backward
products, then a pass of fused Adam over all kernels, which reads and writes 28
bytes a weight. Past the caches these bytes come from memory, so that the time
of the same sums grows faster than their number; what a training step grows by
beyond that is its own.
"""

import tensorflow as tf

INPUTS, HIDDEN, CLASSES = 784, (300, 100), 10
RATE = 1e-9  # the numbers stay what they are


def sizes(width):
    """Returns the units of every layer, that of the images first."""
    return (INPUTS, *(max(1, round(n * width)) for n in HIDDEN), CLASSES)


def products(width, batch, steps):
    """Returns a function that does the products of some steps.

    Args:
        width: Factor on the hidden units of LeNet-300-100.
        batch: Rows.
        steps: Of a call.
    """
    images, kernels = _filled((batch, INPUTS)), _kernels(width)

    def step():
        return sum(each[0, 0] for each in _gradients(images, kernels))

    return _repeated(step, steps)


def products_and_adam(width, batch, steps):
    """Returns the same followed by Adam's pass; see `products`."""
    images, kernels = _filled((batch, INPUTS)), _kernels(width)
    moments = [
        [tf.Variable(tf.zeros(k.shape)) for _ in range(2)] for k in kernels
    ]

    def step():
        gradients = _gradients(images, kernels)
        for kernel, slots, gradient in zip(kernels, moments, gradients):
            _adam(kernel, *slots, gradient)
        return gradients[0][0, 0]

    return _repeated(step, steps)


def _gradients(images, kernels):
    kernels, inputs = [tf.identity(each) for each in kernels], [images]
    for kernel in kernels:
        inputs.append(inputs[-1] @ kernel)
    behind, gradients = inputs.pop(), []
    for number in reversed(range(len(kernels))):
        gradients.append(tf.matmul(inputs[number], behind, transpose_a=True))
        if number:  # nobody asks for the gradient of the images
            behind = tf.matmul(behind, kernels[number], transpose_b=True)
    return gradients[::-1]


def _adam(kernel, first, second, gradient):
    tf.raw_ops.ResourceApplyAdam(
        var=kernel.handle,
        m=first.handle,
        v=second.handle,
        beta1_power=0.9,
        beta2_power=0.999,
        lr=RATE,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-7,
        grad=gradient,
    )


def _kernels(width):
    units = sizes(width)
    return [
        tf.Variable(tf.random.normal(shape, stddev=shape[0] ** -0.5))
        for shape in zip(units, units[1:])
    ]


def _filled(shape):
    # A variable: what is read from one TensorFlow does not compute beforehand.
    return tf.Variable(tf.random.normal(shape))


def _repeated(step, steps):
    @tf.function(autograph=False)
    def run():
        _, total = tf.while_loop(
            lambda number, total: number < steps,
            lambda number, total: (number + 1, total + step()),
            (0, 0.0),
        )
        return total

    return lambda: float(run())
