"""Requests that TF Serving sends itself when it loads a version.

They lie under the version directory as a TFRecord of `PredictionLog`s. The
server does not look at the recorded answers; `keras-lottery verify` does.
"""

import os

import numpy as np
import tensorflow as tf

from keras_lottery import checks

PATH = os.path.join("assets.extra", "tf_serving_warmup_requests")
MOST = 1000  # TF Serving refuses to load a version with more
ROWS = 32
SIGNATURE = "serving_default"


def check():
    """Raises an ImportError unless requests can be written and read."""
    _messages()


def requests(inputs, records=4):
    """Returns the inputs of each request, in the order of the samples.

    The first request holds one row, the others up to 32 rows each: a server
    gets single samples and batches. Samples beyond the last are left out.

    Args:
        inputs: Dict from name to array.
        records: Requests at most.

    Example:

    >>> made = requests({"pixels": np.zeros((40, 2))}, records=4)
    >>> [len(each["pixels"]) for each in made]
    [1, 32, 7]
    """
    if checks.whole("records", records, 1) > MOST:
        raise ValueError(
            f"TF Serving loads no version with more than {MOST:,} warm-up "
            f"records, got records={records}."
        )
    rows = _rows(inputs)
    edges = [0, *range(1, rows, ROWS), rows][: records + 1]
    return [
        {name: value[first:last] for name, value in inputs.items()}
        for first, last in zip(edges, edges[1:])
    ]


def write(path, inputs, outputs, *, model_name, records=4):
    """Writes warm-up requests and their answers into a version directory.

    Args:
        path: The version directory.
        inputs: Dict from input name to array, row by row.
        outputs: Dict from output name to array, row by row; or a function
            from the inputs of one request to such a dict, for answers to the
            bit: rows of a larger batch may differ from it in the last one.
        model_name: The name that a server gives the model.
        records: Requests at most, up to 1,000.

    Returns:
        Number of requests written.

    Raises:
        ImportError: tensorflow-serving-api is not installed.
        ValueError: No rows, rows that differ in number, or too many records.
    """
    if not isinstance(model_name, str) or not model_name:
        raise ValueError(
            f"`model_name` must be a str that is not empty, got {model_name!r}."
        )
    asked = requests(inputs, records)
    answered = _answers(asked, outputs, _rows(inputs))
    logs = [
        _log(given, answer, model_name).SerializeToString(deterministic=True)
        for given, answer in zip(asked, answered, strict=True)
    ]
    file_path = os.path.join(path, PATH)
    os.makedirs(os.path.dirname(file_path), exist_ok=True)
    with tf.io.TFRecordWriter(file_path) as writer:
        for log in logs:
            writer.write(log)
    return len(logs)


def read(path):
    """Returns the requests of a version directory and their answers.

    Args:
        path: The version directory.

    Returns:
        List of `(inputs, outputs)`, dicts from name to array; empty if there
        is no file. Outputs are empty where no answer was recorded.

    Raises:
        ImportError: tensorflow-serving-api is not installed.
        ValueError: The file is damaged, or holds other records.
    """
    file_path = os.path.join(path, PATH)
    if not os.path.exists(file_path):
        return []
    log_type, _ = _messages()
    pairs = []
    try:
        for record in tf.data.TFRecordDataset(file_path).as_numpy_iterator():
            if len(pairs) == MOST:
                raise ValueError(f"more than {MOST:,} records")
            pairs.append(_pair(log_type.FromString(record)))
    except Exception as error:  # TensorFlow's, protobuf's or our own
        raise ValueError(
            f"{PATH} is damaged: {str(error).splitlines()[0]}. Export again."
        ) from error
    return pairs


def _messages():
    try:
        from tensorflow_serving.apis import predict_pb2
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError as error:
        raise ImportError(
            "Warm-up requests are messages of tensorflow-serving-api, which "
            "is not installed. Install it with `pip install "
            "'keras_lottery[serving]'`, or leave `samples` out."
        ) from error
    return prediction_log_pb2.PredictionLog, predict_pb2.PredictRequest


def _rows(inputs):
    rows = {name: len(value) for name, value in inputs.items()}
    if len(set(rows.values())) != 1 or not min(rows.values()):
        raise ValueError(
            f"Inputs need the same number of rows, at least one; got {rows}."
        )
    return next(iter(rows.values()))


def _answers(asked, outputs, rows):
    if callable(outputs):
        return [outputs(given) for given in asked]
    counts = {name: len(value) for name, value in outputs.items()}
    if set(counts.values()) != {rows}:
        raise ValueError(
            f"Outputs have {counts} rows, the inputs {rows}: expected an "
            "answer for every row."
        )
    found, first = [], 0
    for given in asked:
        last = first + _rows(given)
        found.append({name: v[first:last] for name, v in outputs.items()})
        first = last
    return found


def _log(inputs, outputs, model_name):
    log_type, _ = _messages()
    log = log_type()
    request = log.predict_log.request
    response = log.predict_log.response
    for message, values in ((request, inputs), (response, outputs)):
        message.model_spec.name = model_name
        message.model_spec.signature_name = SIGNATURE
        field = message.inputs if message is request else message.outputs
        for name, value in values.items():
            field[name].CopyFrom(tf.make_tensor_proto(np.asarray(value)))
    return log


def _pair(log):
    if log.WhichOneof("log_type") != "predict_log":
        raise ValueError(f"a {log.WhichOneof('log_type')}, not a predict_log")
    request, response = log.predict_log.request, log.predict_log.response
    name = request.model_spec.signature_name
    if name not in ("", SIGNATURE):
        raise ValueError(f"a request of {name!r}, not of {SIGNATURE!r}")
    return _arrays(request.inputs), _arrays(response.outputs)


def _arrays(field):
    return {name: tf.make_ndarray(field[name]) for name in sorted(field)}
