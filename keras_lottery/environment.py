"""What the process must provide: Keras 3 on the TensorFlow backend."""

import os
import sys


def require_tensorflow_backend():
    """Raises unless Keras runs, or will run, on TensorFlow.

    The environment is looked at before Keras is imported: importing Keras for
    a backend that is not installed fails with an error about that backend.

    Raises:
        ImportError: The backend is another one, or Keras is older than 3.
    """
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if "keras" not in sys.modules and backend != "tensorflow":
        _refuse(backend, "the environment variable KERAS_BACKEND says so")
    import keras

    if keras.__version__.startswith(("0.", "1.", "2.")):
        raise ImportError(
            f"keras_lottery needs Keras 3, found {keras.__version__}. "
            "Install it with `pip install -U keras`."
        )
    if keras.backend.backend() != "tensorflow":
        _refuse(keras.backend.backend(), "Keras was imported with it")


def is_legacy(model):
    """Returns whether a model is of tf_keras, without importing that."""
    modules = [each.__module__ for each in type(model).__mro__]
    return any(module.split(".")[0] == "tf_keras" for module in modules)


def _refuse(backend, reason):
    raise ImportError(
        "keras_lottery needs Keras on the TensorFlow backend, but the backend "
        f"is {backend!r}: {reason}. Set KERAS_BACKEND=tensorflow before Keras "
        "is first imported."
    )
