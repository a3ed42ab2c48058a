"""Whatever Keras's `fit` takes: the same rows give the same tickets."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.errors import RunError

pytestmark = pytest.mark.thorough

ROWS, BATCH, STEPS = 24, 8, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 5)).astype(np.float32)
X *= X > -0.5  # a third of it is zero
Y = RNG.integers(0, 3, ROWS)


def network(sparse=False):
    """Returns the same network at every call."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,), sparse=sparse)
    hidden = keras.layers.Dense(8, activation="tanh", name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="output")(hidden))


def batch(index):
    """Returns rows in order."""
    rows = slice(index % STEPS * BATCH, (index % STEPS + 1) * BATCH)
    return X[rows], Y[rows]


def batches(count=None):
    """Yields batches in order, for ever or so many."""
    index = 0
    while count is None or index < count:
        yield batch(index)
        index += 1


def dataset():
    """Returns batches whose number tf.data does not know."""
    spec = tf.TensorSpec((None, 5)), tf.TensorSpec((None,), tf.int64)
    return tf.data.Dataset.from_generator(
        lambda: batches(STEPS), output_signature=spec
    )


class Unsized(keras.utils.PyDataset):
    """Batches for ever."""

    num_batches = None

    def __getitem__(self, index):
        return batch(index)


def frames():
    """pandas: a frame and a series."""
    pd = pytest.importorskip("pandas", reason="needs pandas")
    return {"x": pd.DataFrame(X), "y": pd.Series(Y), "batch_size": BATCH}


def torch_tensors():
    """Of torch."""
    torch = pytest.importorskip("torch", reason="needs the extra 'bench'")
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    return {"x": x, "y": y, "batch_size": BATCH}


def data_loader():
    """torch's; its length is known."""
    torch = pytest.importorskip("torch", reason="needs the extra 'bench'")
    rows = torch.utils.data.TensorDataset(
        torch.from_numpy(X), torch.from_numpy(Y)
    )
    return {"x": torch.utils.data.DataLoader(rows, batch_size=BATCH)}


def scipy_rows():
    """Rows of scipy."""
    sparse = pytest.importorskip("scipy.sparse", reason="needs scipy")
    return {"x": sparse.csr_matrix(X), "y": Y, "batch_size": BATCH}


KINDS = {
    "pandas": frames,
    "torch tensors": torch_tensors,
    "torch DataLoader": data_loader,
    "sparse tensor": lambda: {
        "x": tf.sparse.from_dense(X),
        "y": Y,
        "batch_size": BATCH,
    },
    "scipy": scipy_rows,
    "sparse tf.data": lambda: {
        "x": tf.data.Dataset.from_tensor_slices(
            (tf.sparse.from_dense(X), Y)
        ).batch(BATCH)
    },
    "tf.data of unknown length": lambda: {
        "x": dataset().repeat(),
        "steps_per_epoch": STEPS,
    },
    "PyDataset of unknown length": lambda: {
        "x": Unsized(),
        "steps_per_epoch": STEPS,
    },
}


def played(arguments, sparse=False):
    """Returns the pruned network after two levels of two epochs."""
    pruned = lottery.prune(network(sparse), lottery.OneShot(0.5))
    pruned.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    pruned.fit(**{"epochs": 2, "verbose": 0, "shuffle": False, **arguments})
    return pruned


@pytest.fixture(scope="module")
def expected():
    """The tickets that arrays give."""
    return played({"x": X, "y": Y, "batch_size": BATCH}).tickets


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_give_the_same_tickets(kind, expected):
    found = played(KINDS[kind](), "sparse" in kind or kind == "scipy").tickets
    assert [ticket.mask.kept for ticket in found] == [64, 32]
    for one, other in zip(found, expected, strict=True):
        assert one.mask == other.mask
        for name, values in one.weights("end").items():
            assert np.abs(values - other.weights("end")[name]).max() < 1e-6


@pytest.mark.parametrize("kind", ["pandas", "torch DataLoader"])
def test_validation_data_of_each_kind(kind):
    given = KINDS[kind]()
    data = given["x"] if "y" not in given else (given["x"], given["y"])
    found, arrays = (
        played({"x": X, "y": Y, "batch_size": BATCH, "validation_data": each})
        for each in (data, (X, Y))
    )
    column = found.history.history["val_loss"]
    assert len(column) == 4
    assert column == pytest.approx(arrays.history.history["val_loss"], rel=1e-5)
    assert found.winning_ticket(tolerance=9.0).level == 1


def test_a_generator_for_validation():
    given = {"x": X, "y": Y, "batch_size": BATCH, "validation_steps": STEPS}
    pruned = played({**given, "validation_data": batches()})
    assert len(pruned.history.history["val_loss"]) == 4


def test_pandas_is_split_as_keras_splits_it():
    arguments = {**frames(), "validation_split": 0.25}
    pruned = played(arguments)
    plain = network()
    plain.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    history = plain.fit(**arguments, epochs=2, shuffle=False, verbose=0).history
    for name in ("loss", "val_loss"):
        found = pruned.history.history[name][:2]
        assert found == pytest.approx(history[name], rel=1e-5)


def ragged():
    """Returns a network of words, and sentences of 1 to 3 words."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(9, 4),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3, name="output"),
        ]
    )
    words = tf.ragged.constant([[1, 2, 3][: 1 + n % 3] for n in range(ROWS)])
    return model, words


def test_ragged_rows():
    model, words = ragged()
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile("sgd", loss)
    pruned.fit(words, Y, batch_size=BATCH, shuffle=False, verbose=0)
    assert [ticket.mask.kept for ticket in pruned.tickets] == [12, 6]
    plain, words = ragged()
    plain.compile("sgd", loss)
    plain.fit(words, Y, batch_size=BATCH, shuffle=False, verbose=0)
    found = pruned.tickets[0].weights("end")["output/kernel"]
    kernel = plain.get_layer("output").kernel.numpy()
    assert np.abs(found - kernel).max() < 1e-6


def forever():
    """A dataset that does not end."""
    return tf.data.Dataset.from_tensors((X, Y)).repeat()


REFUSED = {
    "generator": (lambda: {"x": batches()}, "generator.*`steps_per_epoch`"),
    "unknown length": (lambda: {"x": dataset()}, "pass `steps_per_epoch`"),
    "endless": (lambda: {"x": forever()}, "pass `steps_per_epoch`"),
    "PyDataset": (lambda: {"x": Unsized()}, "Unsized.*`steps_per_epoch`"),
    "lists": (lambda: {"x": X.tolist(), "y": Y}, r"np\.asarray\(x\)"),
    "list": (lambda: {"x": X, "y": Y.tolist()}, r"`y` is.*np\.asarray\(y\)"),
    "nothing": (lambda: {"x": None}, "nothing to train on"),
    "no rows": (lambda: {"x": X[:0], "y": Y[:0]}, "arrays are empty"),
    "no batches": (lambda: {"x": forever().take(0)}, "has no batches"),
    "y twice": (lambda: {"x": dataset(), "y": Y}, "Leave `y` out"),
    "no steps": (
        lambda: {"x": X, "y": Y, "steps_per_epoch": 0},
        "`steps_per_epoch` must be an int >= 1",
    ),
    "batches of none": (
        lambda: {"x": X, "y": Y, "batch_size": 0},
        "`batch_size` must be an int >= 1",
    ),
    "no inputs": (lambda: {"x": {}, "y": Y}, "nothing to train on: `x` is {}"),
    "one value": (
        lambda: {"x": np.array(3.0), "y": Y},
        r"one per sample: got a single value, of shape \(\)",
    ),
    "not an argument": (
        lambda: {"x": X, "y": Y, "bacth_size": 4},
        "`fit` takes no bacth_size",
    ),
    "validation that is read once": (
        lambda: {"x": X, "y": Y, "validation_data": batches(STEPS)},
        "read once only.*pass `validation_steps`",
    ),
    "validation without end": (
        lambda: {"x": X, "y": Y, "validation_data": forever()},
        "never ends.*pass `validation_steps`",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_before_anything_is_trained(kind):
    given, text = REFUSED[kind]
    model = network()
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    pruned.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"(?s){text}"):
        pruned.fit(**given(), verbose=0)
    for one, other in zip(before, model.get_weights()):
        assert one.tobytes() == other.tobytes()
    assert (pruned.tickets, pruned.level) == ((), 0)
    assert not pruned.optimizer.built


def test_frames_that_are_no_arrays():
    pd = pytest.importorskip("pandas", reason="needs pandas")
    frame = pd.DataFrame({"a": ["c", "d"], "b": [1.0, 2.0]})
    column = pd.array([1.0, None], dtype="Float32")
    missing = pd.DataFrame({"a": column, "b": column})
    empty = pd.DataFrame({"a": []}, dtype=object)
    given = {"float64": frame, "Float32": missing, "object": empty}
    for dtype, each in given.items():
        with pytest.raises(ValueError, match=f"of NumPy's in common.*{dtype}"):
            played({"x": each, "y": Y[:2]})


def test_bfloat16_of_torch_which_numpy_does_not_have(expected):
    torch = pytest.importorskip("torch", reason="needs the extra 'bench'")
    halves = torch.from_numpy(X).bfloat16()
    found, rounded = (
        played({"x": x, "y": Y, "batch_size": BATCH}).tickets[-1]
        for x in (halves, halves.float().numpy())
    )
    assert found.mask == rounded.mask
    for name, values in found.weights("end").items():
        assert values.tobytes() == rounded.weights("end")[name].tobytes()
        assert values.tobytes() != expected[-1].weights("end")[name].tobytes()


class OneOfTwo(keras.layers.Layer):
    """Hands on the first; the second may be missing."""

    def call(self, first, second=None):
        """Adds them."""
        return first if second is None else first + second


def test_an_input_that_may_be_missing(expected):
    keras.utils.set_random_seed(1)
    here = keras.Input((5,), name="here")
    there = keras.Input((5,), name="there", optional=True)
    hidden = keras.layers.Dense(8, activation="tanh", name="hidden")
    x = hidden(OneOfTwo()(here, there))
    output = keras.layers.Dense(3, name="output")(x)
    model = keras.Model({"here": here, "there": there}, output)
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    given = {"epochs": 2, "batch_size": BATCH, "shuffle": False, "verbose": 0}
    pruned.fit({"here": X, "there": None}, Y, **given)
    assert pruned.mask == expected[-1].mask


@pytest.mark.filterwarnings("ignore:.*ran out of data")
def test_data_that_runs_out_makes_no_ticket():
    """Keras would train epochs of no steps, and say so in a warning."""
    for source in (batches(2 * STEPS + 2), dataset()):
        with pytest.raises(RunError, match="ran out of data in level"):
            played({"x": source, "steps_per_epoch": STEPS})
