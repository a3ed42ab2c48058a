"""Contenders of `training_step.py`: the sums that no training step can avoid.

For LeNet the products of a network without activations, biases or loss: the
forward products, whose last result stands for the gradient of the logits, and
the backward ones, without that of the images. Each needs the one before, and
what comes out of it is handed to Adam's fused kernel, so TensorFlow can leave
out none. The learning rate is next to nothing: the numbers stay what they are.

For networks with convolutions the forward, filter and input gradients of every
layer on fixed activations of the right shapes; the sum of one number of each
result is the answer, so none is left out. No normalisation, pooling, ReLU,
loss or optimizer.
"""

import tensorflow as tf
from step_tasks import CLASSES
from step_tasks import TASKS

from keras_lottery.models import networks

WIDTHS = (784, 300, 100, CLASSES)
RATE = 1e-9


def products(network, with_adam=True):
    """Returns a function that does the matrix products of LeNet's steps.

    Args:
        network: `"lenet"`.
        with_adam: Whether one pass of fused Adam over all weights, biases
            included (their gradients are constant), follows the products.
    """
    task = TASKS[network]
    images = tf.random.normal((task.batch, WIDTHS[0]))
    kernels = [
        tf.Variable(tf.random.normal(shape, stddev=shape[0] ** -0.5))
        for shape in zip(WIDTHS, WIDTHS[1:])
    ]
    biases = [tf.Variable(tf.zeros(units)) for units in WIDTHS[1:]]
    update = _adam(kernels + biases) if with_adam else None
    constant = [tf.ones(units) for units in WIDTHS[1:]]

    def step():
        gradients = _gradients(images, [tf.identity(k) for k in kernels])
        if with_adam:
            update([*gradients, *constant])
        return sum(each[0, 0] for each in gradients)

    return _repeated(step, task.steps)


def layers(network, batch=None, repeats=None, backward=True):
    """Returns a function that does a network's convolutions and products.

    Args:
        network: A key of `TASKS`.
        batch: Rows; the task's by default.
        repeats: How often; the task's steps of a round by default.
        backward: Whether gradients are among them.
    """
    task = TASKS[network]
    model = networks.get(network)(task.shape, CLASSES)
    with_kernels = [each for each in model.layers if hasattr(each, "kernel")]
    sums = [
        Layer(layer, batch or task.batch, is_first=layer is with_kernels[0])
        for layer in with_kernels
    ]

    def step():
        found = [each.forward() for each in sums]
        if backward:
            for each in sums:
                found += each.backward()
        return sum(tf.reshape(each, [-1])[0] for each in found)

    return _repeated(step, repeats or task.steps)


def _gradients(images, kernels):
    inputs = [images]
    for kernel in kernels:
        inputs.append(inputs[-1] @ kernel)
    behind, gradients = inputs.pop(), []
    for number in reversed(range(len(kernels))):
        gradients.append(tf.matmul(inputs[number], behind, transpose_a=True))
        if number:  # nobody asks for the gradient of the images
            behind = tf.matmul(behind, kernels[number], transpose_b=True)
    return gradients[::-1]


def _adam(variables):
    moments = [
        [tf.Variable(tf.zeros(each.shape)) for _ in range(2)]
        for each in variables
    ]

    def update(gradients):
        for variable, (first, second), gradient in zip(
            variables, moments, gradients, strict=True
        ):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
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

    return update


class Layer:
    """The sums of one layer, on activations that stay what they are.

    They are variables: what is read from one may differ in every turn of a
    loop, so TensorFlow does not move the sums out of it.
    """

    def __init__(self, layer, batch, is_first):
        self._input = _filled((batch, *layer.input.shape[1:]))
        self._gradient = _filled((batch, *layer.output.shape[1:]))
        self._kernel = _filled(layer.kernel.shape)
        self._is_first = is_first
        if not self._is_dense:
            self._how = {
                "strides": [1, *layer.strides, 1],
                "padding": layer.padding.upper(),
            }

    @property
    def _is_dense(self):
        return len(self._kernel.shape) == 2

    def forward(self):
        """Returns the output."""
        if self._is_dense:
            return self._input @ self._kernel
        return tf.nn.conv2d(self._input, self._kernel, **self._how)

    def backward(self):
        """Returns the gradients of kernel and, behind others, of the input."""
        if self._is_dense:
            return self._backward_of_products()
        found = [
            tf.raw_ops.Conv2DBackpropFilter(
                input=self._input,
                filter_sizes=self._kernel.shape,
                out_backprop=self._gradient,
                **self._how,
            )
        ]
        if not self._is_first:
            inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=self._input.shape,
                filter=self._kernel,
                out_backprop=self._gradient,
                **self._how,
            )
            found.append(inputs)
        return found

    def _backward_of_products(self):
        found = [tf.matmul(self._input, self._gradient, transpose_a=True)]
        if not self._is_first:
            found.append(
                tf.matmul(self._gradient, self._kernel, transpose_b=True)
            )
        return found


def _filled(shape):
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
