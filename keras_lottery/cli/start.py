"""What commands do before the heavy imports."""

import os


def tensorflow():
    """Checks the backend, and keeps TensorFlow's notes off the terminal."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from keras_lottery.environment import require_tensorflow_backend

    require_tensorflow_backend()


def require_matplotlib():
    """Raises an ImportError that says how to get matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "The report draws with matplotlib, which is not installed: pip "
            "install 'keras_lottery[report]'."
        ) from error
