"""An ONNX file, through Keras's own export."""

import importlib.util
import os
import tempfile
import warnings

import keras

from keras_lottery.exporting import probe
from keras_lottery.exporting import signature

FILE = "model.onnx"


def write_onnx(model, path, *, values="float32"):
    """Writes a Keras model as `model.onnx`, with any batch size.

    Keras's export converts the model through tf2onnx. Weights are dense: ONNX
    runtimes have no use for sparse ones.

    Args:
        model: A built `keras.Model` with float32 weights.
        path: Directory to write into.
        values: Only `"float32"`.

    Raises:
        ValueError: Other values, tf2onnx is not installed, an input and an
            output of one name, or ONNX has no operation for what the model
            does. Nothing is written.
    """
    if values != "float32":
        raise ValueError(
            f"An ONNX file holds float32 weights, got values={values!r}. Leave "
            "`values` out, or export with format='compact', 'compact-serving' "
            "or 'lite', which have others."
        )
    require_onnx()
    specs, arranged = signature.signature(model)
    _require_distinct_names(model, specs, arranged)
    with tempfile.TemporaryDirectory(dir=path, prefix=".writing-") as aside:
        file_path = os.path.join(aside, FILE)
        with warnings.catch_warnings():
            # Keras makes tf2onnx run with NumPy 2; its asking for np.object
            # warns.
            warnings.simplefilter("ignore", FutureWarning)
            _Named(model).export(
                file_path, format="onnx", input_signature=[specs], verbose=False
            )
        _check(file_path, model)
        os.replace(file_path, os.path.join(path, FILE))


def answers_onnx(path, inputs):
    """Returns what a `model.onnx` answers.

    Args:
        path: Directory that it was written into.
        inputs: Dict from input name to array, as `signature` names them.

    Returns:
        Dict from output name to array, or None where onnxruntime is not
        installed: the file is not checked then.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(
        os.path.join(path, FILE), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def require_onnx():
    """Raises a ValueError unless ONNX files can be written."""
    needed = ("onnx", "tf2onnx")
    missing = [n for n in needed if importlib.util.find_spec(n) is None]
    if missing:
        raise ValueError(
            f"format='onnx' needs {' and '.join(missing)}. Install with: pip "
            "install 'keras_lottery[onnx]'"
        )


class _Named(keras.Model):
    """A model from dict to dict: only those keep their names in the file."""

    def __init__(self, model):
        super().__init__(name=model.name)
        self._model = model
        _, self._arranged = signature.signature(model)
        self.built = True

    def call(self, inputs):
        outputs = self._model(self._arranged(inputs), training=False)
        return signature.named_outputs(self._model, outputs)


def _require_distinct_names(model, specs, arranged):
    outputs = model(arranged(probe.batch(specs, rows=1)), training=False)
    both = sorted(set(specs) & set(signature.named_outputs(model, outputs)))
    if both:
        raise ValueError(
            f"{', '.join(map(repr, both))} names an input and an output, which "
            "ONNX keeps in one table. Rename one, or export with "
            "format='compact'."
        )


def _check(file_path, model):
    import onnx

    try:
        onnx.checker.check_model(file_path, full_check=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        # tf2onnx goes on where it finds no operation, and leaves TensorFlow's.
        raise ValueError(
            f"{model.name!r} does not convert to ONNX: "
            f"{str(error).splitlines()[0]}. Export with format='compact'."
        ) from error
