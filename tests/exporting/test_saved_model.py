"""Exports: what they answer, what they are called, what they leave behind."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.exporting import formats
from keras_lottery.tickets.ticket import capture
from keras_lottery.tickets.ticket import ended

pytestmark = pytest.mark.thorough

SERVED = [name for name, each in formats.FORMATS.items() if each.served]


def dense(name="digits"):
    return keras.Sequential(
        [
            keras.Input((6,), name="pixels"),
            keras.layers.Dense(5, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, name="logits"),
        ],
        name=name,
    )


def convolutional():
    inputs = keras.Input((8, 8, 2), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    y = keras.layers.Conv2D(4, 1)(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.add([x, y]))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def two_in_two_out():
    a = keras.Input((4,), name="left")
    b = keras.Input((2,), name="right", dtype="int32")
    embedded = keras.layers.Embedding(7, 3)(b)
    both = keras.layers.Concatenate()([a, keras.layers.Flatten()(embedded)])
    return keras.Model(
        {"left": a, "right": b},
        {
            "one": keras.layers.Dense(2)(both),
            "two": keras.layers.Dense(1)(both),
        },
    )


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(5, activation="relu")
        self.out = keras.layers.Dense(2)

    def call(self, inputs):
        return self.out(self.hidden(inputs))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 6), np.float32))
    return model


def pruned_ticket(model, sparsity=0.6):
    mask = lottery.find_mask(model, sparsity)
    ticket = capture(model, mask)
    lottery.attach(model, mask)
    lottery.detach(model)
    end, end_state = ended(model, mask)
    fields = {"end": end, "end_state": end_state, "level": 1}
    return capture(model, mask, **fields), ticket


def close(found, expected):
    """A compiled graph merges a batch normalisation into few operations."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)


def sample(model, rows=5):
    generator = np.random.default_rng(0)
    if not getattr(model, "inputs", None):
        return generator.random((rows, 6), np.float32)
    single = isinstance(model, keras.Sequential)
    inputs = model.inputs[0] if single else model.input

    def draw(tensor):
        shape = (rows, *tensor.shape[1:])
        if "int" in tensor.dtype:
            return generator.integers(0, 7, shape).astype(tensor.dtype)
        return generator.random(shape, np.float32)

    return keras.tree.map_structure(draw, inputs)


@pytest.mark.parametrize("format", SERVED)
@pytest.mark.parametrize(
    "build", [dense, convolutional, two_in_two_out, subclassed]
)
def test_a_served_model_answers_as_the_keras_model(build, format, tmp_path):
    model = build()
    x = sample(model)
    expected = keras.tree.flatten(model(x, training=False))
    path = lottery.export(model, tmp_path, format=format)
    serve = tf.saved_model.load(path).signatures["serving_default"]
    given = x if isinstance(x, dict) else {_input_name(model): x}
    found = serve(**{k: tf.constant(v) for k, v in given.items()})
    names = list(keras.tree.flatten(list(found)))
    assert len(found) == len(expected)
    answers = [found[name] for name in sorted(names)]
    for answer, value in zip(answers, expected, strict=True):
        close(answer, value)


def _input_name(model):
    return model.inputs[0].name if getattr(model, "inputs", None) else "inputs"


@pytest.mark.parametrize("format", SERVED)
def test_names_dtypes_and_free_batch_size(format, tmp_path):
    path = lottery.export(two_in_two_out(), tmp_path, format=format)
    serve = tf.saved_model.load(path).signatures["serving_default"]
    _, specs = serve.structured_input_signature
    assert set(specs) == {"left", "right"}
    assert specs["right"].dtype == tf.int32
    assert specs["left"].shape.as_list() == [None, 4]
    assert set(serve.structured_outputs) == {"one", "two"}


def test_every_variable_is_written_once(tmp_path):
    model = keras.Sequential([keras.Input((50,)), keras.layers.Dense(100)])
    path = lottery.export(model, tmp_path, format="dense")
    data = os.path.join(path, "variables", "variables.data-00000-of-00001")
    assert os.path.getsize(data) < 1.5 * 4 * model.count_params()


def test_a_ticket_is_exported_as_trained_with_its_zeros(tmp_path):
    model = dense()
    ticket, _ = pruned_ticket(model)
    expected = model(sample(model), training=False)
    compact = lottery.export(ticket, tmp_path / "compact")
    serve = tf.saved_model.load(compact).signatures["serving_default"]
    found = serve(pixels=tf.constant(sample(model)))
    close(next(iter(found.values())), expected)
    path = lottery.export(ticket, tmp_path / "dense", format="dense")
    loaded = tf.saved_model.load(path)
    found = loaded.signatures["serving_default"](
        pixels=tf.constant(sample(model))
    )
    close(next(iter(found.values())), expected)
    zeros = sum(int(np.sum(v.numpy() == 0)) for v in loaded.weights.values())
    assert zeros >= ticket.mask.size - ticket.mask.kept


def test_a_lent_model_is_given_back_as_it_was(tmp_path):
    model = dense()
    ticket, _ = pruned_ticket(model)
    other = dense()
    before = [w.copy() for w in other.get_weights()]
    lottery.export(ticket, tmp_path, model=other)
    for found, expected in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_pruned_model_exports_what_it_wraps(tmp_path):
    model = dense()
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    path = lottery.export(pruned, tmp_path)
    serve = tf.saved_model.load(path).signatures["serving_default"]
    found = serve(pixels=tf.constant(sample(model)))
    expected = model(sample(model), training=False)
    close(next(iter(found.values())), expected)


def test_versions_count_up_and_are_never_overwritten(tmp_path):
    model = dense()
    assert os.path.basename(lottery.export(model, tmp_path)) == "1"
    assert os.path.basename(lottery.export(model, tmp_path)) == "2"
    assert os.path.basename(lottery.export(model, tmp_path, version=9)) == "9"
    assert os.path.basename(lottery.export(model, tmp_path)) == "10"
    with pytest.raises(ValueError, match="exists, and an export is never"):
        lottery.export(model, tmp_path, version=9)
    assert sorted(os.listdir(tmp_path), key=int) == ["1", "2", "9", "10"]


@pytest.mark.parametrize("version", [-1, "1", 1.0])
def test_a_version_is_a_whole_number(version, tmp_path):
    with pytest.raises(ValueError, match="`version` must be an int"):
        lottery.export(dense(), tmp_path, version=version)
    assert os.listdir(tmp_path) == []


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def fail(model, path, *, values):
        with open(os.path.join(path, "saved_model.pb"), "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    full = formats.FORMATS["compact"]._replace(write=fail)
    monkeypatch.setitem(formats.FORMATS, "compact", full)
    base = tmp_path / "not" / "there"
    with pytest.raises(OSError, match="There is no room for the export in"):
        lottery.export(dense(), base)
    assert os.listdir(tmp_path) == []


def test_weights_that_are_not_finite_are_refused(tmp_path):
    model = dense()
    model.layers[0].kernel.assign(np.full((6, 5), np.nan))
    with pytest.raises(ValueError, match="dense/kernel' is not finite"):
        lottery.export(model, tmp_path)
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_exported_is_said(tmp_path):
    with pytest.raises(ValueError, match="Unknown format 'compactt'"):
        lottery.export(dense(), tmp_path, format="compactt")
    with pytest.raises(ValueError, match="Expected a Ticket, a PrunedModel"):
        lottery.export("model.keras", tmp_path)
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="not built"):
        lottery.export(unbuilt, tmp_path)
    _, untrained = pruned_ticket(dense())
    with pytest.raises(lottery.TicketError, match="was not trained"):
        lottery.export(untrained, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_ticket_without_config_needs_its_model(tmp_path):
    class Local(Subclassed):
        def get_config(self):
            raise NotImplementedError

    model = Local()
    model(np.zeros((1, 6), np.float32))
    ticket, _ = pruned_ticket(model)
    assert ticket.model_config is None
    with pytest.raises(lottery.TicketError, match="has no Keras config"):
        lottery.export(ticket, tmp_path)
    assert lottery.export(ticket, tmp_path, model=model)
