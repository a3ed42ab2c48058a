"""Warm-up requests, read with the protos that TF Serving reads them with."""

import struct
import sys

import numpy as np
import pytest

from keras_lottery.exporting import warm_up

apis = pytest.importorskip(
    "tensorflow_serving.apis", reason="tensorflow-serving-api not installed"
)

DTYPES = ["float32", "float16", "float64", "int32", "int64", "uint8", "bool"]


def arrays(rows, dtype="float32", seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(0, 9, (rows, 3)).astype(dtype)


def doubled(inputs):
    return {name: np.asarray(v, np.float32) * 2 for name, v in inputs.items()}


def raw_records(path):
    """The payloads of a TFRecord file: length, checksum, data, checksum."""
    content, first, found = path.read_bytes(), 0, []
    while first < len(content):
        (length,) = struct.unpack_from("<Q", content, first)
        found.append(content[first + 12 : first + 12 + length])
        first += 12 + length + 4
    return found


def test_the_protos_hold_what_a_server_asks(tmp_path):
    from tensorflow_serving.apis import prediction_log_pb2

    x = arrays(40)
    count = warm_up.write(tmp_path, {"x": x}, doubled, model_name="digits")
    records = raw_records(
        tmp_path / "assets.extra" / "tf_serving_warmup_requests"
    )
    assert count == len(records) == 3
    sizes = []
    for record in records:
        log = prediction_log_pb2.PredictionLog.FromString(record)
        asked, answered = log.predict_log.request, log.predict_log.response
        for message in (asked, answered):
            assert message.model_spec.name == "digits"
            assert message.model_spec.signature_name == "serving_default"
        assert list(asked.inputs) == list(answered.outputs) == ["x"]
        proto = asked.inputs["x"]
        shape = [each.size for each in proto.tensor_shape.dim]
        sizes.append(shape[0])
        first = sum(sizes[:-1])
        values = np.frombuffer(proto.tensor_content, "<f4").reshape(shape)
        assert (values == x[first : first + shape[0]]).all()
    assert sizes == [1, 32, 7]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 70])
def test_what_is_written_is_read(tmp_path, dtype, rows):
    inputs = {"x": arrays(rows, dtype), "y": arrays(rows, seed=1)}
    outputs = {"z": arrays(rows, dtype, seed=2)}
    warm_up.write(tmp_path, inputs, outputs, model_name="m")
    pairs = warm_up.read(tmp_path)
    for name, value in inputs.items():
        found = np.concatenate([each[name] for each, _ in pairs])
        assert found.dtype == value.dtype
        assert (found == value).all() and found.shape == value.shape
    answers = np.concatenate([each["z"] for _, each in pairs])
    assert answers.dtype == outputs["z"].dtype
    assert answers.tobytes() == outputs["z"].tobytes()


def test_bfloat16_is_read_back(tmp_path):
    import ml_dtypes

    x = arrays(4).astype(ml_dtypes.bfloat16)
    warm_up.write(tmp_path, {"x": x}, {"y": x}, model_name="m")
    found = np.concatenate([each["x"] for each, _ in warm_up.read(tmp_path)])
    assert found.dtype == x.dtype and found.tobytes() == x.tobytes()


def test_bytes_are_the_same_each_time(tmp_path):
    names = [f"input_{i}" for i in range(9)]
    written = []
    for order in (names, names[::-1]):
        inputs = {name: arrays(5, seed=int(name[-1])) for name in order}
        path = tmp_path / order[0]
        warm_up.write(path, inputs, doubled, model_name="m")
        written.append((path / warm_up.PATH).read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("rows", [1, 2, 33, 34, 500])
@pytest.mark.parametrize("records", [1, 2, 4, 1000])
def test_requests_are_the_first_rows_in_order(rows, records):
    x = np.arange(rows)
    made = [each["x"] for each in warm_up.requests({"x": x}, records)]
    assert len(made) <= records
    joined = np.concatenate(made)
    assert (joined == x[: len(joined)]).all()
    assert len(made[0]) == 1 and max(map(len, made)) <= 32
    assert len(joined) == min(rows, 1 + 32 * (records - 1))


def test_a_function_answers_each_request_on_its_own(tmp_path):
    asked = []

    def answer(inputs):
        asked.append(len(inputs["x"]))
        return doubled(inputs)

    warm_up.write(tmp_path, {"x": arrays(40)}, answer, model_name="m")
    assert asked == [1, 32, 7]


def test_without_a_file_there_is_nothing_to_ask(tmp_path):
    assert warm_up.read(tmp_path) == []


@pytest.mark.parametrize("place", [0, 9, 40, -1])
def test_a_flipped_bit_is_damage(tmp_path, place):
    warm_up.write(tmp_path, {"x": arrays(4)}, doubled, model_name="m")
    file = tmp_path / warm_up.PATH
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="tf_serving_warmup_requests is dam"):
        warm_up.read(tmp_path)


def test_records_of_another_kind_are_refused(tmp_path):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    file = tmp_path / warm_up.PATH
    file.parent.mkdir()
    log = prediction_log_pb2.PredictionLog()
    log.classify_log.request.model_spec.name = "m"
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(log.SerializeToString())
    with pytest.raises(ValueError, match="a classify_log, not a predict_log"):
        warm_up.read(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"records": 1001}, "no version with more than 1,000"),
        ({"records": 0}, "`records` must be an int >= 1"),
        ({"inputs": {"x": arrays(0)}}, "at least one"),
        ({"inputs": {"x": arrays(3), "y": arrays(4)}}, "same number of rows"),
        ({"outputs": {"y": arrays(3)}}, "an answer for every row"),
        ({"model_name": ""}, "`model_name` must be a str"),
    ],
)
def test_what_no_server_takes_is_refused(tmp_path, changed, message):
    given = {"inputs": {"x": arrays(4)}, "outputs": doubled, "model_name": "m"}
    with pytest.raises(ValueError, match=message):
        warm_up.write(tmp_path, **{**given, **changed})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_before_anything_is_written(
    tmp_path, monkeypatch
):
    warm_up.check()
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(ImportError, match=r"keras_lottery\[serving\]"):
        warm_up.check()
    with pytest.raises(ImportError, match="leave `samples` out"):
        warm_up.write(tmp_path, {"x": arrays(4)}, doubled, model_name="m")
    assert list(tmp_path.iterdir()) == []
