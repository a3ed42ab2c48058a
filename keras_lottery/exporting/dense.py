"""A SavedModel with weights as they are, zeros included."""

import tensorflow as tf

from keras_lottery.exporting import signature
from keras_lottery.pruning import naming


def write_dense(model, path):
    """Writes a Keras model as a SavedModel, each variable once.

    Keras's own `export` writes every variable twice (in 3.15), and names the
    inputs of a subclassed model by position.
    """
    module = tf.Module()
    module.weights = [w.variable.value for w in naming.walk(model)]
    specs, arranged = signature.signature(model)

    def serve(**inputs):
        return signature.named_outputs(
            model, model(arranged(inputs), training=False)
        )

    function = tf.function(serve).get_concrete_function(**specs)
    tf.saved_model.save(module, path, signatures={"serving_default": function})
