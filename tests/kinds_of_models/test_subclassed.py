"""Subclassed, nested and shared: what tfmot refused or pruned silently not.

Asked for in tfmot's issues 155, 965, 590, 662 (subclassed), 638, 40, 656, 749
(nested) and 270 (shared).
"""

import keras
import numpy as np
import pytest

import keras_lottery as lottery

pytestmark = pytest.mark.thorough

DENSE = keras.layers.Dense


class InLists(keras.Model):
    """Layers in a list and in a dict; built by its first call."""

    def __init__(self):
        super().__init__()
        self.blocks = [DENSE(6, activation="tanh") for _ in range(2)]
        self.heads = {"a": DENSE(3), "b": DENSE(3)}

    def call(self, inputs):
        """Adds the heads."""
        for block in self.blocks:
            inputs = block(inputs)
        return self.heads["a"](inputs) + self.heads["b"](inputs)


class MadeInBuild(keras.Model):
    """Layers that are made when the shape is known."""

    def build(self, input_shape):
        """Makes them."""
        self.wide = DENSE(2 * input_shape[-1], activation="tanh")
        self.wide.build(input_shape)
        self.last = DENSE(3)
        self.last.build((None, 2 * input_shape[-1]))
        self.built = True

    def call(self, inputs):
        """One after the other."""
        return self.last(self.wide(inputs))


class Around(keras.Model):
    """A subclassed model around another one."""

    def __init__(self, inside, name):
        super().__init__(name=name)
        self.inside, self.extra = inside, DENSE(4)

    def call(self, inputs):
        """The other one, and a layer."""
        return self.extra(self.inside(inputs))


def in_lists():
    """Returns it, called once."""
    model = InLists()
    model(np.zeros((1, 5), np.float32))
    return model


def made_in_build():
    """Returns it, built."""
    model = MadeInBuild()
    model.build((None, 5))
    return model


def nested_deep():
    """Functional in Sequential in subclassed in Functional."""
    inputs = keras.Input((5,))
    core = keras.Model(inputs, DENSE(4, name="core")(inputs), name="f")
    after = keras.Sequential([keras.Input((5,)), core, DENSE(4, name="after")],
                             name="seq")  # fmt: skip
    inputs = keras.Input((5,))
    outputs = DENSE(3, name="out")(Around(after, "mid")(inputs))
    return keras.Model(inputs, outputs)


KINDS = {
    "lists and dicts": (
        in_lists,
        {
            "blocks.0/kernel": 30,
            "blocks.1/kernel": 36,
            "heads.a/kernel": 18,
            "heads.b/kernel": 18,
        },
    ),
    "layers made in build": (
        made_in_build,
        {"wide/kernel": 50, "last/kernel": 30},
    ),
    "nested deep": (
        nested_deep,
        {
            "mid/seq/f/core/kernel": 20,
            "mid/seq/after/kernel": 16,
            "mid/extra/kernel": 16,
            "out/kernel": 12,
        },
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_lottery(kind, played, seeded, compiled, data, tmp_path):
    build, sizes = KINDS[kind]
    x, y = data()
    found = played(
        seeded(build), compiled, {"x": x, "y": y, "batch_size": 8, "epochs": 2}
    )
    found.counts(sizes, 6)
    found.restores()
    found.level_0_is_keras_s()
    found.exports(tmp_path, x)


def test_a_model_that_was_never_called_says_what_to_do():
    with pytest.raises(ValueError, match="not built. Call.*on a batch, first"):
        lottery.prune(InLists())
    lottery.prune(in_lists())


def siamese():
    """Returns a tower that both inputs go through."""
    pair = {name: keras.Input((5,), name=name) for name in ("left", "right")}
    layers = [keras.Input((5,)), DENSE(6, activation="tanh", name="encode")]
    tower = keras.Sequential(layers, name="tower")
    apart = tower(pair["left"]) - tower(pair["right"])
    return keras.Model(pair, DENSE(3, name="out")(apart))


def test_siamese_towers_count_once(played, seeded, compiled, data, tmp_path):
    x, y = data()
    pair = {"left": x, "right": x[::-1].copy()}
    given = {"x": pair, "y": y, "batch_size": 8, "epochs": 2}
    found = played(seeded(siamese), compiled, given)
    found.counts({"tower/encode/kernel": 30, "out/kernel": 18}, 6)
    found.restores()
    found.level_0_is_keras_s()
    found.exports(tmp_path, pair)


def test_a_shared_layer_gets_the_gradients_of_both_uses():
    """By hand: w is used twice, so its gradient is the sum of two."""
    inputs = {name: keras.Input((2,), name=name) for name in ("a", "b")}
    layer = DENSE(1, use_bias=False, name="w", kernel_initializer="ones")
    model = keras.Model(inputs, layer(inputs["a"]) + layer(inputs["b"]))
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    pruned.compile(keras.optimizers.SGD(0.5), lambda y, answer: answer)
    a, b = np.array([[1.0, 0.5]]), np.array([[3.0, 0.25]])
    pruned.fit({"a": a, "b": b}, np.zeros((1, 1)), verbose=0)
    # 1 - 0.5 * (1 + 3) and 1 - 0.5 * (0.5 + 0.25): the smaller one goes.
    dense, sparse = (t.weights("end")["w/kernel"] for t in pruned.tickets)
    assert dense.ravel().tolist() == [-1.0, 0.625]
    assert sparse.ravel().tolist() == [-1.0, 0.0]


class TwoHeads(keras.Model):
    """Dict in, dict out."""

    def __init__(self):
        super().__init__()
        self.body, self.kind, self.size = DENSE(4), DENSE(3), DENSE(1)

    def call(self, inputs):
        """Two answers."""
        x = keras.ops.concatenate([inputs["p"], inputs["q"]], -1)
        x = self.body(x)
        return {"kind": self.kind(x), "size": self.size(x)}


def two_heads():
    """Returns it, called once."""
    model = TwoHeads()
    some = np.zeros((1, 2), np.float32)
    model({"p": some, "q": np.zeros((1, 3), np.float32)})
    return model


def test_dicts_of_inputs_losses_and_metrics(played, seeded, data, tmp_path):
    def compiled(model):
        model.compile(
            keras.optimizers.SGD(0.1),
            {
                "kind": keras.losses.SparseCategoricalCrossentropy(True),
                "size": "mse",
            },
            loss_weights={"kind": 1.0, "size": 0.5},
            metrics={"kind": ["accuracy"], "size": ["mae"]},
        )

    x, y = data()
    inputs = {"p": x[:, :2], "q": x[:, 2:]}
    given = {"x": inputs, "y": {"kind": y, "size": x[:, :1]}, "batch_size": 8}
    found = played(seeded(two_heads), compiled, given)
    found.counts({"body/kernel": 20, "kind/kernel": 12, "size/kernel": 4}, 3)
    found.restores()
    found.level_0_is_keras_s()
    found.exports(tmp_path, inputs)
    columns = set(found.history.history)
    assert {"kind_loss", "size_loss", "kind_accuracy", "size_mae"} < columns
