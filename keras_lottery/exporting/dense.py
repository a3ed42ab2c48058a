"""A SavedModel with weights as they are, zeros included."""

import tensorflow as tf

from keras_lottery.exporting import network as networks
from keras_lottery.exporting import signature


def write_dense(model, path):
    """Writes a model as a SavedModel, each variable once.

    Keras's own `export` writes every variable twice (in 3.15), and names the
    inputs of a subclassed model by position.

    Args:
        model: A built Keras 3 or tf_keras model.
        path: Directory to write into.

    Raises:
        ValueError: What the model is called on is not known, an input's name
            is no parameter's, or the model holds more than weights.
    """
    network = networks.of(model)
    signature.require_parameters(network.specs)
    module = tf.Module()
    module.weights = {
        name: tf.Variable(value, name=name)
        for name, value in network.weights.items()
    }

    def serve(**inputs):
        values = {name: v.read_value() for name, v in module.weights.items()}
        return network.call(values, inputs)

    function = tf.function(serve, autograph=False)
    concrete = function.get_concrete_function(**network.specs)
    networks.require_weights_only(concrete, model, module.weights.values())
    tf.saved_model.save(module, path, signatures={"serving_default": concrete})
