"""What a TPU needs of the step loop, looked at without one.

A TPU runs what XLA compiles: every length known, no way back to the host, many
steps in a call. XLA on the CPU stands in for it. What XLA compiles for a TPU is
not to be asked here; TensorFlow's registry says what it compiles for CPU and
for GPU, and of what is in both, TensorFlow's TpuOpFilter leaves nothing out.

The networks beside LeNet and ResNet-20 are for `make test-slow`.
"""

import functools
import re
from typing import Any
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager.polymorphic_function import compiler_ir
from tensorflow.python.framework import kernels
from tensorflow.python.framework import op_def_registry

import keras_lottery as lottery
from keras_lottery.data import augmentation
from keras_lottery.models import networks
from keras_lottery.pruning import weights
from keras_lottery.runs import compiling
from keras_lottery.runs import configuration
from keras_lottery.training import decay
from keras_lottery.training import enforce
from keras_lottery.training import loop
from keras_lottery.training import programs
from keras_lottery.training import replica_steps
from keras_lottery.training.array_feed import ArrayFeed

pytestmark = pytest.mark.thorough

ROWS, BATCH, CLASSES, STEPS = 7, 4, 4, 6  # batches of 4 and of 3
IN_CI = ("lenet", "resnet20")
SMALL = ("lenet", "conv", "resnet")  # VGG halves its images five times
CONFIGS = {  # of others: that of VGG
    "lenet": "fashion_lenet",
    "conv": "cifar10_conv2",
    "resnet": "cifar10_resnet20",
}
# kTpuAllTypes of TensorFlow's tpu_defs.h, as HLO spells them.
TYPES = set("pred bf16 f16 f32 f64 c64 s8 s16 s32 s64 u8 u16 u32 u64".split())
TO_THE_HOST = re.compile(
    "PyFunc|Host|Infeed|Outfeed|Send|Recv|Print|Assert|Summary|Iterator"
)
OF_HLO_TO_THE_HOST = re.compile(
    r" (custom-call|infeed|outfeed|send|recv|send-done|recv-done)\("
)


class Trained(NamedTuple):
    """A network after two calls of the step loop.

    Fields:
        model: The network.
        mask: The mask that held.
        before: Its weights before, by name.
        reached: The steps after both calls.
        losses: After both calls.
        steps: The `StepLoop`.
        program: The compiled function.
        feed: What it trained on.
    """

    model: keras.Model
    mask: lottery.Mask
    before: dict
    reached: tuple
    losses: tuple
    steps: loop.StepLoop
    program: Any
    feed: ArrayFeed


def trained(name, loss=None, mode="xla"):
    """Trains a network of the table as its config does, but a small one."""
    family = re.match("[a-z]+", name)[0]
    config = configuration.load(CONFIGS.get(family, "cifar10_vgg19"))
    side = 8 if family in SMALL else 32
    keras.utils.set_random_seed(0)
    width = 1.0 if family == "lenet" else 0.125
    model = networks.get(name)((side, side, 3), CLASSES, width=width)
    decay.decay(model, config.train.weight_decay)
    loss = loss or compiling.loss(config.train.loss)
    model.compile(compiling.optimizer(config.train), loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, side, side, 3)).astype("f")
    feed = ArrayFeed(
        (x, rng.integers(0, CLASSES, ROWS)),
        *(BATCH, None, True, 3),
        augment=augmentation.get(config.data.augment),
    )
    return called(model, feed, mode)


def called(model, feed, mode):
    """Trains in two calls under a mask."""
    mask, steps = lottery.find_mask(model, 0.5), None
    before = {name: v.copy() for name, v in weights.values(model).items()}
    with enforce.masked(model, mask):
        steps = loop.of(model, mode)
        steps._per_call = STEPS
        first, logs = steps.call(feed, 0, STEPS)
        steps._per_call = STEPS
        last, more = steps.call(feed, first, 2 * STEPS)
    (program,) = steps._programs.values()
    losses = (logs["loss"], more["loss"])
    return Trained(
        model, mask, before, (first, last), losses, steps, program, feed
    )


@pytest.fixture(
    scope="module",
    params=[
        name if name in IN_CI else pytest.param(name, marks=pytest.mark.slow)
        for name in networks.NETWORKS
    ],
)
def under_xla(request):
    return trained(request.param)


def compiled(program):
    """The function in a program that XLA has to compile."""
    (inner,) = [
        cell.cell_contents
        for cell in program.python_function.__closure__
        if hasattr(cell.cell_contents, "experimental_get_tracing_count")
    ]
    return inner


def hlo(function):
    """The text that XLA is given of a function, as it was traced last."""
    *_, concrete = function._list_all_concrete_functions()
    return compiler_ir.from_concrete_function(concrete)(stage="hlo")


def lengths(text):
    """All lengths of all dimensions that HLO has, as it spells them."""
    found = re.findall(r"\b[a-z]+[0-9]*\[([^\]{}]*)\]", text)
    return {each for shape in found for each in shape.split(",") if shape}


def types(text):
    return set(re.findall(r"\b([a-z]+[0-9]*)\[[^\]{}]*\]", text))


def nodes(function):
    """The nodes of a function as it was traced last, and of all it calls."""
    *_, concrete = function._list_all_concrete_functions()
    definition = concrete.graph.as_graph_def()
    yield from definition.node
    for each in definition.library.function:
        yield from each.node_def


def backends(operation):
    """The backends of XLA that compile an operation."""
    found = kernels.get_registered_kernels_for_op(operation).kernel
    return {each.device_type for each in found if "XLA" in each.device_type}


def has_text(node):
    """Whether a node takes or gives text."""
    known = op_def_registry.get(node.op)
    types = {each.type for each in node.attr.values()}
    if known is not None:
        types |= {each.type for each in known.input_arg}
        types |= {each.type for each in known.output_arg}
    return tf.string.as_datatype_enum in types


def test_many_steps_are_trained_in_one_compiled_call(under_xla):
    assert under_xla.steps.mode == "xla"
    assert under_xla.reached == (STEPS, 2 * STEPS)
    assert int(under_xla.model.optimizer.iterations) == 2 * STEPS
    assert np.isfinite(under_xla.losses).all()
    program = under_xla.program
    assert program.experimental_get_tracing_count() == 1
    assert compiled(program).experimental_get_tracing_count() == 1


def test_masks_hold_and_what_is_kept_is_trained(under_xla):
    now = weights.values(under_xla.model)
    removed = 0
    for name, kept in under_xla.mask.items():
        assert np.count_nonzero(now[name][~kept]) == 0
        removed += np.count_nonzero(~kept)
        # A ReLU that is dead on seven images moves none of its weights.
        moved = now[name][kept] != under_xla.before[name][kept]
        assert moved.mean() > 0.2, name
    size = under_xla.mask.size
    assert removed == round(size * 0.5) == size - under_xla.mask.kept


def test_every_length_is_known_and_every_type_is_one_of_a_tpu(under_xla):
    text = hlo(compiled(under_xla.program))
    found = lengths(text)
    assert {str(BATCH), str(ROWS % BATCH), str(ROWS)} <= found
    assert [each for each in found if not each.isdecimal()] == []
    assert {"f32", "pred"} <= types(text) <= TYPES


def test_nothing_goes_back_to_the_host(under_xla):
    inside = list(nodes(compiled(under_xla.program)))
    operations = {node.op for node in inside}
    assert "StatelessWhile" in operations or "While" in operations
    assert {op for op in operations if TO_THE_HOST.search(op)} == set()
    assert [node.name for node in inside if has_text(node)] == []
    assert OF_HLO_TO_THE_HOST.findall(hlo(compiled(under_xla.program))) == []


def test_xla_compiles_every_operation_for_more_than_the_cpu(under_xla):
    operations = {node.op for node in nodes(compiled(under_xla.program))}
    operations -= {"Placeholder"}  # arguments
    assert len(operations) > 30
    missing = {op for op in operations if len(backends(op)) < 2}
    assert missing == set()


# That the four looks above can fail.


def by_host(y_true, y_pred):
    """A loss that asks Python, and writes a number as text."""
    one = tf.ensure_shape(tf.py_function(lambda: 1.0, [], tf.float32), [])
    two = tf.strings.to_number(tf.strings.as_string(one + 1))
    error = keras.losses.sparse_categorical_crossentropy(y_true, y_pred, True)
    return error * one * two


def test_a_loss_that_asks_the_host_is_seen():
    found = trained("lenet", by_host)
    assert found.steps.mode == "graph"
    inside = list(nodes(found.program))
    operations = {node.op for node in inside}
    asked = {op for op in operations if TO_THE_HOST.search(op)}
    assert asked == {"EagerPyFunc"}
    text = {node.op for node in inside if has_text(node)}
    assert text == {"AsString", "StringToNumber"}
    assert all(backends(op) == set() for op in (*asked, *text))


def test_a_length_that_is_not_known_is_seen():
    @tf.function(jit_compile=True)
    def positive(x):
        return tf.reduce_sum(tf.boolean_mask(x, x > 0))

    assert float(positive(tf.constant([1.0, -2.0, 3.0]))) == 4.0
    assert "<=3" in lengths(hlo(positive))


def test_row_numbers_are_drawn_outside(under_xla):
    # RandomIndexShuffle is the one operation of ours without a kernel for XLA.
    assert backends("RandomIndexShuffle") == set()
    outside = {node.op for node in nodes(under_xla.program)}
    assert "RandomIndexShuffle" in outside
    inside = {node.op for node in nodes(compiled(under_xla.program))}
    assert "RandomIndexShuffle" not in inside


# Levels, by `lottery.prune`: the same compiled function, also in bfloat16.

RATE, LEVELS, EPOCHS = 0.5, 2, 8


@functools.cache
def digits():
    images, labels = lottery.load_digits().train
    return images[:240], labels[:240]


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def played(mode, monkeypatch, activation="relu", batch_size=50):
    """A lottery on digits; returns it, its losses and all its programs."""
    made = []
    make = getattr(programs, mode)

    def spied(*args):
        made.append(make(*args))
        return made[-1]

    monkeypatch.setattr(programs, mode, spied)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(90, activation, name="hidden1"),
            keras.layers.Dense(30, activation, name="hidden2"),
            keras.layers.Dense(10, name="output", dtype="float32"),
        ]
    )
    schedule = lottery.IterativePruning(RATE, levels=LEVELS)
    pruned = lottery.prune(model, schedule)
    pruned.compile(
        keras.optimizers.Adam(5e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    pruned.step_mode = mode
    history = pruned.fit(
        *digits(), batch_size=batch_size, epochs=EPOCHS, verbose=0
    )
    return pruned, history.history["loss"], made


def check_counts_and_zeros(pruned):
    size = 64 * 90 + 90 * 30 + 30 * 10
    wanted = [size - round(size * (1 - RATE**n)) for n in range(LEVELS + 1)]
    assert [ticket.mask.kept for ticket in pruned.tickets] == wanted
    found = weights.values(pruned.inner)
    kept = pruned.tickets[-1].mask
    for name, mask in kept.items():
        assert np.count_nonzero(found[name][~mask]) == 0
    assert sum(map(np.count_nonzero, kept.values())) == wanted[-1]


@pytest.mark.parametrize("mode", ["graph", "xla"])
@pytest.mark.parametrize("policy", ["mixed_bfloat16"], indirect=True)
def test_bfloat16(policy, mode, monkeypatch):
    pruned, losses, (program,) = played(mode, monkeypatch)
    check_counts_and_zeros(pruned)
    held = [*pruned.trainable_variables, *pruned.optimizer.variables]
    floats = {v.dtype for v in held} - {"int64", "int32"}
    assert floats == {"float32"}
    dense = pruned.inner.layers[1:3]
    assert {each.compute_dtype for each in dense} == {"bfloat16"}
    inside = nodes(compiled(program) if mode == "xla" else program)
    products = [node.attr["T"].type for node in inside if node.op == "MatMul"]
    # Two forward, three back; the output layer is told to stay in float32.
    assert products.count(tf.bfloat16.as_datatype_enum) > products.count(
        tf.float32.as_datatype_enum
    )
    assert np.isfinite(losses).all()
    for level in range(LEVELS + 1):
        first, *_, last = losses[level * EPOCHS : (level + 1) * EPOCHS]
        assert last < first / 3
    if mode == "xla":
        assert types(hlo(compiled(program))) >= {"bf16", "f32", "pred"}


def test_a_lottery_under_xla_is_that_of_graph_mode(monkeypatch):
    tanh = functools.partial(played, activation="tanh")
    with monkeypatch.context() as patch:
        graph, expected, _ = tanh("graph", patch)
    pruned, losses, made = tanh("xla", monkeypatch)
    check_counts_and_zeros(pruned)
    for one, other in zip(pruned.tickets, graph.tickets, strict=True):
        assert one.mask == other.mask
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    values = weights.values(graph.inner)
    for name, value in weights.values(pruned.inner).items():
        np.testing.assert_allclose(value, values[name], atol=1e-3)
    # All levels in one program that was traced once.
    (program,) = made
    assert program.experimental_get_tracing_count() == 1
    assert compiled(program).experimental_get_tracing_count() == 1


# One step on one of several cores, as `TPUStrategy.run` would compile it. On a
# TPU the number of the core is known in the step only; so it is here.

CORES = 2


class Core:
    """Stands for a strategy, and for the context of one of its replicas.

    Args:
        number: Of the core.

    Attributes:
        made: The compiled steps.
    """

    num_replicas_in_sync = CORES

    def __init__(self, number):
        self._number = number
        self.replica_id_in_sync_group = None
        self.made = []

    def run(self, step, args):
        @tf.function(autograph=False, jit_compile=True)
        def compiled(number, *args):
            self.replica_id_in_sync_group = number
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    tf.distribute, "get_replica_context", lambda: self
                )
                return step(*args)

        self.made.append(compiled)
        return compiled(tf.constant(self._number), *args)

    def all_reduce(self, operation, values):
        """The sum over cores, all of which have the same rows.

        Under a strategy Keras would have divided each by the number of cores.
        """
        assert operation == tf.distribute.ReduceOp.SUM
        return tf.nest.map_structure(lambda g: CORES * (g / CORES), values)


class OnCores:
    """A model whose steps go to another strategy than its own."""

    def __init__(self, model, strategy):
        self._model, self.distribute_strategy = model, strategy

    def __getattr__(self, name):
        return getattr(self._model, name)


def doubled(rows, batch_size):
    """Arrays in which the second half of each batch is as the first half."""
    rng = np.random.default_rng(0)
    half = batch_size // CORES
    x = rng.normal(size=(rows // CORES, 8, 8, 1)).astype("f")
    y = rng.integers(0, 10, len(x))
    halves = [np.r_[i : i + half] for i in range(0, len(x), half)]
    order = np.concatenate([np.tile(each[each < len(x)], 2) for each in halves])
    return x[order], y[order]


def tanh_network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(20, "tanh", name="hidden"),
            keras.layers.Dense(10, name="output"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(1e-2, global_clipnorm=0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    return model


def test_a_step_on_a_core_is_compiled_and_is_that_of_one_device():
    feed = ArrayFeed(doubled(12, 8), 8, None, False, 0)  # batches of 8 and 4
    models = tanh_network(), tanh_network()
    mask = lottery.find_mask(models[0], 0.5)
    core = Core(1)
    with enforce.masked(models[0], mask), enforce.masked(models[1], mask):
        step = replica_steps.of_recipe(
            OnCores(models[0], core), feed.recipe, lambda logs: {}
        )
        steps = tf.function(step, autograph=False)
        for index in range(STEPS):
            steps(feed.tensors, feed.seeds, tf.constant(index, tf.int64))
        loop.of(models[1], "graph").run(feed, 0, STEPS)
        found, expected = map(weights.values, models)
        for name, kept in mask.items():
            assert np.count_nonzero(found[name][~kept]) == 0
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)
    assert len(core.made) == 2  # a full batch, and the last one
    for compiled in core.made:
        inside = list(nodes(compiled))
        operations = {node.op for node in inside} - {"Placeholder"}
        assert {op for op in operations if len(backends(op)) < 2} == set()
        assert {op for op in operations if TO_THE_HOST.search(op)} == set()
        assert not any(map(has_text, inside))
        assert all(each.isdecimal() for each in lengths(hlo(compiled)))


def test_a_batch_that_cores_cannot_share_is_refused():
    x, y = doubled(12, 8)
    feed = ArrayFeed((x[:11], y[:11]), 8, None, False, 0)  # the last of 3
    model = tanh_network()
    step = replica_steps.of_recipe(
        OnCores(model, Core(0)), feed.recipe, lambda logs: {}
    )
    with pytest.raises(ValueError, match="3 rows cannot be cut into 2 equal"):
        tf.function(step, autograph=False)(
            feed.tensors, feed.seeds, tf.constant(0, tf.int64)
        )
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("number", range(CORES))
@pytest.mark.parametrize("rows", [8, 12])  # whole batches only, and not
def test_a_core_gets_its_rows(rows, number):
    feed = ArrayFeed((np.arange(rows), np.arange(rows)), 8, None, False, 0)
    seen = tf.Variable(tf.zeros((4,), tf.int64))

    def read(batch):
        seen.assign(tf.pad(batch[0], [[0, 4 - batch[0].shape[0]]]))
        return {}

    model = OnCores(tanh_network(), Core(number))
    model.train_step = read
    step = tf.function(
        replica_steps.of_recipe(model, feed.recipe, lambda logs: {}),
        autograph=False,
    )
    for index, first in enumerate(range(0, rows, 8)):
        step(feed.tensors, feed.seeds, tf.constant(index, tf.int64))
        each = min(8, rows - first) // CORES
        expected = [first + number * each + i for i in range(each)]
        assert seen.numpy().tolist() == expected + [0] * (4 - each)
