"""Networks of strangers: built where they are harmless, refused where not."""

import copy
import json
import resource
import sys
import time

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.models import networks
from keras_lottery.pruning import weights
from keras_lottery.tickets import model_config
from keras_lottery.tickets import ticket as tickets

pytestmark = pytest.mark.thorough

LAYERS = keras.layers


def through(*layers, shape=(4,)):
    """Returns a functional model of layers one after the other."""
    inputs = outputs = keras.Input(shape)
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def ticket_of(model, config=None):
    """Returns a ticket of a model, with a config of somebody."""
    mask = lottery.Mask.full(weights.prunable(model))
    ticket = tickets.capture(model, mask)
    config = ticket.model_config if config is None else config
    # As a file would hold it.
    return tickets.Ticket(
        ticket.mask,
        ticket.start,
        ticket.start_state,
        model_config=json.loads(json.dumps(config)),
    )


def layer(name, /, **config):
    """Returns the config of a layer of Keras."""
    return {
        "module": "keras.layers",
        "class_name": name,
        "config": config,
        "registered_name": None,
    }


def sequence(*layers, shape=(4,)):
    """Returns the config of layers one after the other."""
    shape = [None, *shape]
    first = layer("InputLayer", batch_shape=shape, dtype="float32", name="i")
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "net", "layers": [first, *layers]},
        "registered_name": None,
    }


def refused(config, model=None):
    """Returns what is said where a model is not built, which takes nothing."""
    ticket = ticket_of(model or through(LAYERS.Dense(2, name="d")), config)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    with pytest.raises(lottery.TicketError) as caught:
        tickets.rebuild(ticket)
    assert time.perf_counter() - began < 5
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 200_000  # kB
    assert len(str(caught.value)) < 5000
    return str(caught.value)


def everyday():
    """Returns models of every kind that a ticket is rebuilt from."""
    inputs = keras.Input((4,))
    hidden = LAYERS.Dense(3)(inputs)
    mixed = keras.ops.relu(hidden * 2.0 + np.ones(3, np.float32))
    branch = through(LAYERS.Dense(3))
    branch.compile("adam", "mse")
    joined = keras.ops.concatenate([mixed, branch(inputs)], axis=-1)[:, 1:]
    orthogonal = keras.regularizers.OrthogonalRegularizer()
    return {
        "operations": keras.Model(inputs, LAYERS.Dense(2)(joined)),
        "sequential": keras.Sequential(
            [
                keras.Input((4,)),
                LAYERS.Normalization(mean=np.zeros(4), variance=np.ones(4)),
                LAYERS.Dense(3, "relu", kernel_regularizer=orthogonal),
                LAYERS.Activation(keras.activations.gelu),
                LAYERS.Dense(2, activation=keras.ops.tanh),
            ]
        ),
        "recurrent": through(
            LAYERS.Bidirectional(LAYERS.LSTM(3, return_sequences=True)),
            LAYERS.TimeDistributed(LAYERS.Dense(3)),
            LAYERS.RNN([LAYERS.LSTMCell(3), LAYERS.GRUCell(2)]),
            shape=(5, 3),
        ),
        "convolutions": through(
            LAYERS.RandomFlip(),
            LAYERS.Conv2D(3, 3, dtype="mixed_float16"),
            LAYERS.BatchNormalization(),
            LAYERS.SeparableConv2D(4, 3),
            LAYERS.GlobalAveragePooling2D(),
            LAYERS.Dense(2, dtype="bfloat16"),
            shape=(8, 8, 3),
        ),
        "resnet": networks.NETWORKS["resnet14"]((8, 8, 3), 10),
    }


@pytest.mark.parametrize(
    "kind",
    ["operations", "sequential", "recurrent", "convolutions", "resnet"],
)
def test_everyday_networks_are_built(kind):
    """With the same answers, as often as asked, from a config that stays."""
    model = everyday()[kind]
    ticket = ticket_of(model)
    before = copy.deepcopy(ticket.model_config)
    x = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:]))
    for _ in range(2):
        other = ticket.restore(tickets.rebuild(ticket), "start")
        assert ticket.model_config == before
        # Augmentation is on in Keras unless it is said that it is not.
        answers = [each(x, training=False) for each in (model, other)]
        one, two = (np.asarray(each, np.float32) for each in answers)
        assert np.array_equal(one, two)
        assert not any(
            getattr(each, "compiled", False) for each in other._flatten_layers()
        )


@keras.saving.register_keras_serializable("test_model_config")
class Eager(LAYERS.Layer):
    """A layer of a user, which wants values while it is built."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2), name="kernel")
        self.scale = float(keras.ops.convert_to_numpy(keras.ops.ones(())))

    def call(self, x):
        return self.scale * x @ self.kernel


def test_classes_that_the_user_registered_are_built():
    """Even those that cannot be built in a graph."""
    ticket = ticket_of(through(Eager(), LAYERS.Dense(2)))
    assert isinstance(tickets.rebuild(ticket).layers[1], Eager)


@pytest.mark.parametrize(
    "size",
    [
        sequence(layer("Dense", units=10**12, name="d")),
        sequence(layer("Dense", units=10**7, name="d"), shape=(10**6,)),
        sequence(layer("Dense", units=3, name="d")),
        sequence(layer("Dense", units=2, name="e")),
        sequence(
            layer("Embedding", input_dim=10**9, output_dim=10**3, name="e"),
            layer("GlobalAveragePooling1D", name="g"),
            layer("Dense", units=2, name="d"),
        ),
    ],
    ids=["units", "inputs", "units by one", "name", "embedding"],
)
def test_other_sizes_are_refused_before_they_take_memory(size):
    """All that differs is named."""
    assert "The ticket is not for" in refused(size)


def test_what_building_computes_is_bounded():
    """The weights are right; a constant of 4 GB beside them is not."""
    config = sequence(
        layer("Normalization", mean=0.0, variance=1.0, axis=1, name="n"),
        layer("GlobalAveragePooling1D", name="g"),
        layer("Dense", units=2, name="d"),
        shape=(10**9, 4),
    )
    assert "more than the" in refused(config)


def function(name, module="builtins"):
    """Returns the config of a function."""
    return {
        "module": module,
        "class_name": "function",
        "config": name,
        "registered_name": name,
    }


def array(dtype, value=0, kind="__numpy__"):
    """Returns the config of an array."""
    return {"class_name": kind, "config": {"value": value, "dtype": dtype}}


def dense(**config):
    """Returns the config of the layer that the ticket has, changed."""
    return sequence(layer("Dense", units=2, name="d", **config))


HOSTILE = {
    "Lambda": sequence(layer("Lambda", function=function("abs"))),
    "by its file": sequence(
        layer("Lambda") | {"module": "keras.src.layers.core.lambda_layer"}
    ),
    "bytecode": dense(
        activation={"class_name": "__lambda__", "config": {"value": "4wAAAA"}}
    ),
    # Under the name of a class that is registered, as the user's are.
    **{
        f"{name}, disguised": sequence(
            {
                "class_name": name,
                "registered_name": "test_model_config>Eager",
                "config": {"name": "it", "vocabulary": "/etc/passwd"},
                **more,
            }
        )
        for name in ("Lambda", "StringLookup", "TFSMLayer", "__lambda__")
        for more in ({}, {"module": "builtins"})
    },
    "bytecode, disguised": dense(
        activation={
            "class_name": "__lambda__",
            "registered_name": "test_model_config>Eager",
            "module": "builtins",
            "config": {"value": "4wAAAA"},
        }
    ),
    "another class than is registered": sequence(
        layer("Dense", units=3) | {"registered_name": "test_model_config>Eager"}
    ),
    "TFSMLayer": sequence(layer("TFSMLayer", filepath="/")),
    "TorchModuleWrapper": sequence(layer("TorchModuleWrapper", module="x")),
    "JaxLayer": sequence(layer("JaxLayer", call_fn=function("abs"))),
    "vocabulary": sequence(layer("StringLookup", vocabulary="/etc/passwd")),
    "oov": sequence(
        layer("StringLookup", vocabulary=["a"], num_oov_indices=10**9)
    ),
    "TextVectorization": sequence(layer("TextVectorization")),
    "wrapped": sequence(
        layer("TimeDistributed", layer=layer("Lambda", function="x"))
    ),
    "exec": dense(activation=function("exec")),
    "system": dense(activation=function("system", "os")),
    "load_model": dense(activation=function("load_model", "keras.models")),
    "get_file": dense(activation=function("get_file", "keras.utils")),
    "unsafe": dense(
        activation=function("enable_unsafe_deserialization", "keras.config")
    ),
    "clear_session": dense(
        activation=function("clear_session", "keras.backend")
    ),
    "deserialize": dense(activation=function("deserialize", "keras.layers")),
    "Popen": sequence(layer("Popen") | {"module": "subprocess"}),
    "keras_hub": sequence(layer("Backbone") | {"module": "keras_hub.models"}),
    "test code": sequence(layer("Any") | {"module": "keras.src.testing"}),
    "not imported": sequence(
        layer("X") | {"module": "keras.src.layers.never_there"}
    ),
    "no module": sequence({"class_name": "Lambda", "config": {}}),
    "no config": sequence({"class_name": "Lambda"}),
    "unregistered": sequence(
        layer("Dense", units=2) | {"module": None, "registered_name": "a>B"}
    ),
    "pruned model": {
        "module": None,
        "class_name": "PrunedModel",
        "config": {},
        "registered_name": "keras_lottery>PrunedModel",
    },
    "typespec": dense(
        activation={
            "class_name": "__typespec__",
            "spec_name": "TensorSpec",
            "module": "tensorflow",
            "registered_name": None,
            "config": [],
        }
    ),
    "dtype": dense(bias_initializer=array("S4000000000")),
    "tensor": dense(bias_initializer=array(["f"], kind="__tensor__")),
    "list": sequence(layer(["Dense"])),
    "module list": sequence(layer("Dense") | {"module": ["keras"]}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_holds_code_or_reads_files_is_refused(kind):
    """By name, before Keras sees it."""
    assert "Built from a file are only what Keras has" in refused(HOSTILE[kind])


def test_a_lambda_is_refused_even_where_the_user_allowed_them():
    """That was for the user's own models."""
    inner = through(LAYERS.Lambda(lambda x: x), LAYERS.Dense(2, name="d"))
    scope = keras.src.saving.serialization_lib.SafeModeScope
    with scope(False):
        assert "'Lambda'" in refused(tickets.config_of(inner))


def test_nothing_is_imported():
    """A module that Keras has and did not need stays where it is."""
    before = set(sys.modules)
    for module in ("keras.src.backend.torch", "keras.src.backend.jax.layer"):
        refused(sequence(layer("Layer") | {"module": module}))
    refused(sequence(layer("X") | {"module": "keras_lottery.cli.main"}))
    new = {each for each in set(sys.modules) - before if "lottery" not in each}
    assert not {each for each in new if each.startswith(("keras", "jax"))}


def test_depth_and_number_are_bounded():
    """A recursion error is no answer, and a million layers are none."""
    config = dense()
    for _ in range(60):
        config = sequence(layer("TimeDistributed", layer=config))
    assert "nested too deeply" in refused(config)
    many = [layer("ReLU", name=f"r{i}") for i in range(20_000)]
    assert "more than 10,020 objects" in refused(sequence(*many))


@pytest.mark.parametrize(
    "config",
    [
        {}, {"class_name": "Sequential"}, {"layers": []}, layer("Dense"),
        sequence(layer("Dense", units="many")), sequence(3), sequence(None),
        sequence(layer("Dense", units=-1)), sequence(layer("Dense", nothing=1)),
        sequence(layer("Dense", units=2, name="d", dtype="float99")),
        sequence(layer("Dense", units=2, name="d", activation="no such")),
        sequence(shape=("a",)), sequence(shape=(-1,)), sequence(shape=()),
        function("relu"),
    ],
)  # fmt: skip
def test_configs_of_nothing_are_refused(config):
    """Whatever Keras makes of them: a TicketError."""
    refused(config)


def test_the_walk_does_not_change_what_it_is_given():
    """A ticket is frozen."""
    config = tickets.config_of(everyday()["operations"])
    before = json.dumps(config)
    model_config._Walk(1000).checked(config)
    assert json.dumps(config) == before
