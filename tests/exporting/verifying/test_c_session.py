"""TensorFlow's C API in a process of its own, and what `served` makes of it."""

import os
import re
import shutil

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.errors import TicketError
from keras_lottery.exporting.verifying import c_jobs
from keras_lottery.exporting.verifying import c_library
from keras_lottery.exporting.verifying import c_session
from keras_lottery.exporting.verifying import inspection
from keras_lottery.exporting.verifying import served

pytestmark = pytest.mark.thorough

NAMES = [str(dtype) for dtype in c_library.CODES]


def save(path, function, specs):
    """Writes a SavedModel with one signature."""
    module = tf.Module()
    module.function = tf.function(function)
    signature = module.function.get_concrete_function(**specs)
    tf.saved_model.save(
        module, str(path), signatures={"serving_default": signature}
    )
    return str(path)


@pytest.fixture(scope="module")
def affine(tmp_path_factory):
    """y = 3 x + 1 and its sum: two outputs, a name that numpy claims."""
    path = tmp_path_factory.mktemp("affine")
    specs = {"file": tf.TensorSpec((None, 2), name="file")}
    return save(
        path,
        lambda file: {
            "a/b": file @ tf.eye(2) * 3 + 1,
            "sum": tf.reduce_sum(file),
        },
        specs,
    )


@pytest.fixture(scope="module")
def every_dtype(tmp_path_factory):
    path = tmp_path_factory.mktemp("every_dtype")
    specs = {n: tf.TensorSpec((None, 3), n, name=n) for n in NAMES}
    return save(
        path, lambda **given: {f"{n}_": v for n, v in given.items()}, specs
    )


def test_it_answers_batch_by_batch(affine):
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    first, second = served.answers(affine, [{"file": x}, {"file": x[:0]}])
    np.testing.assert_array_equal(first["a/b"], 3 * x + 1)
    assert first["sum"] == 15 and first["sum"].shape == ()
    assert second["a/b"].shape == (0, 2) and second["sum"] == 0


def test_every_dtype_goes_in_and_comes_out(every_dtype):
    given = {}
    for name in NAMES:
        dtype = tf.as_dtype(name).as_numpy_dtype
        given[name] = np.array([[0, 1, 1]], dtype)
        if dtype is not np.bool_:
            top = (ml_dtypes.finfo if "float" in name else ml_dtypes.iinfo)(
                dtype
            )
            given[name] = np.array([[top.min, 7, top.max]], dtype)
    assert len(given) == 13
    (found,) = served.answers(every_dtype, [given])
    for name, value in given.items():
        assert found[f"{name}_"].dtype == value.dtype
        assert found[f"{name}_"].tobytes() == value.tobytes()


def test_codes_are_those_of_tensorflow():
    for code, dtype in c_library.DTYPES.items():
        assert tf.as_dtype(code).as_numpy_dtype == dtype.type


def test_several_exports_in_one_process(affine, tmp_path):
    other = save(
        tmp_path, lambda x: {"y": -x}, {"x": tf.TensorSpec((None,), name="x")}
    )
    x = np.float32([1, 2])
    found = served.together(
        [(affine, [{"file": x[None]}]), (other, [{"x": x}, {"x": 2 * x}])]
    )
    assert [len(each) for each in found] == [1, 2]
    assert found[0][0]["sum"] == 3
    np.testing.assert_array_equal(found[1][1]["y"], [-2, -4])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, r"inputs \[\], expected \['file'\]"),
        (
            {"file": [[1.0, 2.0]]},
            "'file' is float64, expected float32: convert",
        ),
    ],
)
def test_what_does_not_fit_the_signature_is_refused(batch, message, affine):
    with pytest.raises(ValueError, match=message):
        served.answers(affine, [batch])


def test_errors_carry_what_tensorflow_says(affine, tmp_path):
    with pytest.raises(TicketError, match="(?i)size-incompatible"):
        served.answers(affine, [{"file": np.zeros((2, 3), np.float32)}])
    broken = tmp_path / "broken"
    shutil.copytree(affine, broken)
    pb = broken / "saved_model.pb"
    content = pb.read_bytes().replace(b"AddV2", b"AddV9")
    pb.write_bytes(content)
    with pytest.raises(TicketError, match="does not load: .*AddV9"):
        served.answers(str(broken), [{"file": np.zeros((1, 2), np.float32)}])
    with pytest.raises(
        TicketError, match="has no signature 'other', but .*def"
    ):
        served.answers(affine, [], "other")
    with pytest.raises(TicketError, match="nowhere.*cannot be read"):
        served.answers(str(tmp_path / "nowhere"), [])


def test_a_process_that_dies_or_hangs_is_an_error(affine, monkeypatch):
    monkeypatch.setattr(served, "TIMEOUT", 0.01)
    with pytest.raises(TicketError, match="took over 0.01 seconds"):
        served.answers(affine, [])
    monkeypatch.undo()
    monkeypatch.setattr(c_jobs, "__name__", "keras_lottery.exporting.nothing")
    with pytest.raises(TicketError, match="(?s)without an answer.*exit code 1"):
        served.answers(affine, [])


def test_tensorflows_python_in_the_process_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types; sys.modules['tensorflow'] = types.ModuleType('tf')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(c_library.ENVIRONMENT, os.path.dirname(tf.__file__))
    with pytest.raises(TicketError, match="TensorFlow's Python was imported"):
        served.release()


def test_libraries_are_found_elsewhere_or_not_at_all(tmp_path, monkeypatch):
    assert served.release() == tf.__version__.split("-")[0]
    package = os.path.dirname(tf.__file__)
    for name in os.listdir(package):
        if re.match(r"libtensorflow_(cc|framework)\.", name):
            os.symlink(os.path.join(package, name), tmp_path / name)
    assert served.release(tmp_path) == served.release()
    with pytest.raises(TicketError, match="holds none of libtensorflow_frame"):
        served.release(tmp_path / "nowhere")
    monkeypatch.setenv(c_library.ENVIRONMENT, str(tmp_path / "elsewhere"))
    with pytest.raises(TicketError, match="elsewhere holds none of"):
        served.release()


def test_sessions_in_this_process(affine):
    known = inspection.signature(affine)
    x = np.float32([[1, 2]])
    feeds = {known.feeds["file"]: x}
    with c_session.Session(affine, threads=2) as session:
        (found,) = session.run(feeds, [known.fetches["a/b"]])
        np.testing.assert_array_equal(found, [[4, 7]])
        with session.request(feeds, list(known.fetches.values())) as request:
            assert request.seconds() > 0
            assert len(request.run()) == 2
        for place in ("nothing:0", known.feeds["file"].replace(":0", ":7")):
            with pytest.raises(c_library.SessionError, match="has no"):
                session.run({place: x}, [])
        with pytest.raises(ValueError, match="complex64 cannot be fed"):
            session.run({known.feeds["file"]: x.astype(np.complex64)}, [])
    session.close()  # twice is fine
    with pytest.raises(ValueError, match="1 to 127, got 0"):
        c_session.Session(affine, threads=0)


def test_what_is_allocated_is_released(affine):
    known = inspection.signature(affine)
    feeds = {known.feeds["file"]: np.zeros((250_000, 2), np.float32)}
    fetches = list(known.fetches.values())
    with c_session.Session(affine) as session:
        session.run(feeds, fetches)
        before = c_jobs.memory()["resident"]
        for _ in range(100):
            session.run(feeds, fetches)
        # 400 MB would be left by forgetting either side.
        assert c_jobs.memory()["resident"] - before < 100e6


def test_request_times_are_those_of_each_batch_size(affine):
    def batch(rows):
        return {"file": np.zeros((rows, 2), np.float32)}

    batches = [batch(1), batch(500_000)]
    times = served.request_times([affine], batches, rounds=5)
    assert list(times) == [affine]
    assert {n: len(t) for n, t in times[affine].items()} == {1: 5, 500_000: 5}
    assert (times[affine][1] > 0).all()
    assert np.median(times[affine][500_000]) > 3 * np.median(times[affine][1])
    with pytest.raises(ValueError, match=r"different sizes, got \[1, 1\]"):
        served.request_times([affine], [batch(1), batch(1)], rounds=1)


def test_load_times_count_the_memory_of_the_weights(affine, tmp_path):
    module = tf.Module()
    module.weight = tf.Variable(np.ones((8_000_000,), np.float32))
    module.serve = tf.function(
        lambda x: {"y": x + module.weight[:1]},
        input_signature=[tf.TensorSpec((None,), name="x")],
    )
    heavy = str(tmp_path)
    tf.saved_model.save(module, heavy, signatures=module.serve)
    found = served.load_times([affine, heavy], rounds=2)
    assert {path: len(each[0]) for path, each in found.items()} == {
        affine: 2,
        heavy: 2,
    }
    grown = found[heavy][1].min() - found[affine][1].max()
    assert 24e6 < grown < 100e6
    assert (found[affine][0] > 0).all()
