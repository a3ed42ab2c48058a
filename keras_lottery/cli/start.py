"""What commands do before the heavy imports."""

import contextlib
import os


def tensorflow():
    """Checks the backend, and keeps TensorFlow's notes off the terminal."""
    wanted = "TF_CPP_MIN_LOG_LEVEL" in os.environ
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.nullcontext() if wanted else _quiet():
        import tensorflow  # noqa: F401

        from keras_lottery.environment import require_tensorflow_backend

        require_tensorflow_backend()


def threads(count):
    """Sets how many threads TensorFlow has; None leaves it its own number.

    Set by a call and not by its environment variables: what is set by those
    does not appear among the conditions that a run records.
    """
    if count is None:
        return
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


def require_matplotlib():
    """Raises an ImportError that says how to get matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "The report draws with matplotlib, which is not installed: pip "
            "install 'keras_lottery[report]'."
        ) from error


@contextlib.contextmanager
def _quiet():
    """Turns away what C++ writes to file descriptor 2; errors still raise.

    TensorFlow's notes on being loaded heed no TF_CPP_MIN_LOG_LEVEL: they come
    before its logging is set up.
    """
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
