"""Names, errors and refusals of state dictionaries; NumPy only."""

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery import interchange
from keras_lottery.interchange import feature_order
from keras_lottery.interchange import layouts
from keras_lottery.pruning import weights
from keras_lottery.tickets import ticket as tickets

layers = keras.layers
RNG = np.random.default_rng(0)


def mlp(last=5):
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(5, name="fc1"),
            layers.Dense(last, name="fc2"),
        ]
    )


def theirs(*shapes, names=None):
    names = names or [f"{i}.weight" for i in range(len(shapes))]
    return {n: RNG.integers(0, 2, s) * 1.5 for n, s in zip(names, shapes)}


def test_in_order_by_hand():
    given = {
        "a.weight": np.array([[1.0, 0, 2], [0, 0, 3]]),
        "a.bias": np.zeros(2),
        "b.weight": np.array([[0.0, -4]]),
    }
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(2, name="x"),
            layers.Dense(1, name="y"),
        ]
    )
    mask = interchange.mask_of_state_dict(given, model)
    assert mask["x/kernel"].tolist() == [
        [True, False],
        [False, False],
        [True, True],
    ]
    assert mask["y/kernel"].tolist() == [[False], [True]]


def test_a_mask_that_a_model_has_stays():
    dense = {"a": np.ones((5, 3)), "b": np.ones(5), "c": np.ones((5, 5)),
             "d": np.ones(5)}  # fmt: skip
    model = mlp()
    mask = lottery.find_mask(model, 0.5)
    pruned = lottery.prune(mlp(), lottery.OneShot(0.5), mask=mask)
    with lottery.masked(model, mask):
        for each, inner in ((model, model), (pruned, pruned.inner)):
            assert interchange.restore_state_dict(dense, each) is each
            for name in mask:
                kernel = weights.by_name(inner)[name].numpy()
                np.testing.assert_array_equal(kernel, mask[name])


def test_names_of_layers_of_weights_and_functions_say_the_same():
    given = theirs((5, 5), (5, 3), names=["last.weight", "first.weight"])
    model = mlp()
    expected = {
        "fc1/kernel": given["first.weight"].T != 0,
        "fc2/kernel": given["last.weight"].T != 0,
    }
    for names in (
        {"fc1": "first", "fc2": "last"},
        {"fc1/kernel": "first.weight", "fc2/kernel": "last.weight"},
        {"fc1": "first", "fc2/kernel": "last.weight"},
        lambda name: (
            {"fc1/kernel": "first.weight"}.get(name, "last.weight")
            if "kernel" in name
            else None
        ),
        None,  # each shape is there once
    ):
        mask = interchange.mask_of_state_dict(given, model, names)
        assert list(mask) == list(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(mask[name], array)
    only = interchange.mask_of_state_dict(given, model, {"fc2": "last"})
    assert list(only) == ["fc2/kernel"]


def test_names_that_are_the_same_come_before_the_order():
    given = theirs((5, 5), (5, 5), names=["b.weight", "a.weight"])
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(5, name="a"),
            layers.Dense(5, name="b"),
        ]
    )
    mask = interchange.mask_of_state_dict(given, model)
    for name in "ab":
        np.testing.assert_array_equal(
            mask[f"{name}/kernel"], given[f"{name}.weight"].T != 0
        )


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (theirs((5, 3)), None),  # one is missing
        (theirs((5, 3), (4, 5)), None),  # of another shape
        (theirs((5, 3), (5, 5), (5, 5)), None),  # one too many
        (theirs((5, 3), (5, 5)), {"fc1": "1", "fc2": "0"}),  # the wrong ones
        (theirs((5, 3), (5, 5)), {"fc1": "there_is_none"}),
    ],
)
def test_what_does_not_fit_is_listed_side_by_side(given, names):
    with pytest.raises(ValueError) as raised:
        interchange.mask_of_state_dict(given, mlp(), names)
    text = str(raised.value)
    assert "fc1/kernel (5, 3)" in text
    for name, array in given.items():
        assert f"{name} {array.shape}" in text


def test_wrong_names_are_refused():
    given = theirs((5, 3), (5, 5))
    with pytest.raises(ValueError, match=r"names \['fc3'\], which"):
        interchange.mask_of_state_dict(given, mlp(), {"fc3": "0"})
    with pytest.raises(ValueError, match="to several weights"):
        interchange.mask_of_state_dict(given, mlp(), {"fc1": "0", "fc2": "0"})
    with pytest.raises(ValueError, match="got list"):
        interchange.mask_of_state_dict(given, mlp(), ["0"])
    with pytest.raises(ValueError, match="expected a text or None"):
        interchange.mask_of_state_dict(given, mlp(), {"fc1/kernel": 1})


def test_what_is_no_state_dict_is_refused():
    with pytest.raises(ValueError, match="got Sequential"):
        interchange.mask_of_state_dict(mlp(), mlp())
    with pytest.raises(ValueError, match="Expected a Keras 3 model, got"):
        interchange.mask_of_state_dict(theirs((5, 3), (5, 5)), object())
    checkpoint = {"epoch": 3, "state_dict": theirs((5, 3), (5, 5))}
    with pytest.raises(ValueError, match=r"checkpoint\['state_dict'\]"):
        interchange.mask_of_state_dict(checkpoint, mlp())
    masks = {"fc1.weight_mask": np.full((5, 3), 0.5)}
    with pytest.raises(ValueError, match="other numbers than 0 and 1"):
        interchange.mask_of_state_dict(masks, mlp())


def test_embeddings_are_in_the_mask_only_where_they_have_one():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Embedding(6, 3, name="words"),
            layers.Flatten(),
            layers.Dense(2, name="fc"),
        ]
    )
    arrays = theirs((6, 3), (2, 12), names=["e.weight", "f.weight"])
    mask = interchange.mask_of_state_dict(arrays, model)
    assert list(mask) == ["fc/kernel"]
    # Sequences keep their order when they are made flat.
    np.testing.assert_array_equal(mask["fc/kernel"], arrays["f.weight"].T != 0)
    kept = arrays.pop("e.weight") != 0
    arrays = {"e.weight_orig": np.ones((6, 3)), "e.weight_mask": kept, **arrays}
    mask = interchange.mask_of_state_dict(arrays, model)
    np.testing.assert_array_equal(mask["words/embeddings"], kept)
    assert mask.kept_by_name["fc/kernel"] == 24


def test_all_weights_of_a_ticket_or_none():
    model = mlp()
    ticket = tickets.capture(
        model, lottery.Mask({"fc1/kernel": np.eye(3, 5, dtype=bool)})
    )
    arrays = interchange.state_dict_of(ticket, model, what="start")
    assert list(arrays) == [
        "fc1.weight",
        "fc1.bias",
        "fc2.weight",
        "fc2.bias",
    ]
    before = model.get_weights()
    np.testing.assert_array_equal(
        arrays["fc1.weight"], (before[0] * np.eye(3, 5)).T
    )
    np.testing.assert_array_equal(arrays["fc2.weight"], before[2].T)
    with pytest.raises(ValueError, match="Expected 'mask', 'start' or 'end'"):
        interchange.state_dict_of(ticket, model, what="begin")
    with pytest.raises(ValueError, match="Only a `Ticket` has weights"):
        interchange.state_dict_of(ticket.mask, model, what="start")


class Own(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2), name="kernel")

    def call(self, x):
        return x @ self.kernel


@pytest.mark.parametrize(
    "layer", [Own(name="own"), layers.GRU(2, reset_after=False, name="own")]
)
def test_layers_without_a_known_layout_are_named(layer):
    rank = 3 if isinstance(layer, layers.GRU) else 2
    model = keras.Sequential(
        [keras.Input((4, 3)[-rank + 1 :]), layer, layers.Dense(5, name="fc")]
    )
    mask = lottery.Mask.full(weights.prunable(model))
    with pytest.raises(ValueError, match="own/.*kernel.* is not known"):
        interchange.state_dict_of(mask, model)
    found = interchange.state_dict_of(mask, model, {"fc": "fc"})
    assert list(found) == ["fc.weight_mask"]


def test_every_layout_has_its_inverse():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.SeparableConv2D(4, 3, depth_multiplier=3),
            layers.DepthwiseConv2D(2, depth_multiplier=2),
            layers.Conv2DTranspose(3, 2),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )
    for part in layouts.parts(model):
        ours = RNG.random(part.own_shape)
        arrays = part.to_theirs(ours)
        assert {array.shape for array in arrays} == {part.shape}
        np.testing.assert_array_equal(part.to_ours(arrays), ours)


def image(*stack):
    return keras.Sequential([keras.Input((2, 3, 4)), *stack])


@pytest.mark.parametrize(
    "model",
    [
        image(layers.Flatten(), layers.Lambda(lambda x: x[:, ::-1])),
        image(layers.Flatten(), layers.Reshape((4, 6)), layers.Flatten()),
        image(layers.Permute((2, 1, 3)), layers.Reshape((6, 4)),
              layers.Flatten(), layers.Reshape((3, 8)), layers.LSTM(2)),
        image(layers.Reshape((6, 4)), layers.GlobalAveragePooling1D(),
              layers.Dense(24), layers.Reshape((24, 1)), layers.LSTM(24),
              layers.Reshape((2, 3, 4)), layers.Flatten()),
    ],
)  # fmt: skip
def test_orders_that_are_not_followed_are_refused(model):
    if not isinstance(model.layers[-1], layers.LSTM):
        model.add(layers.Dense(2, name="last"))
        with pytest.raises(ValueError, match="'last' reads its inputs"):
            feature_order.of(model)
    else:
        assert not any(
            order is not None
            for order in feature_order.of(model).inputs.values()
        )


def test_images_flattened_by_code_of_its_own_are_refused():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = layers.Conv2D(3, 2)
            self.flat = layers.Flatten()
            self.fc = layers.Dense(2)

        def call(self, x):
            return self.fc(self.flat(self.conv(x)))

    model = Subclassed()
    model(np.zeros((1, 4, 4, 1), "float32"))
    with pytest.raises(ValueError, match="flattens images in code of its own"):
        feature_order.of(model)


def test_a_layer_used_on_features_in_different_orders_is_refused():
    given = keras.Input((2, 3, 4))
    shared = layers.Dense(24, name="shared")
    x = shared(shared(layers.Flatten()(given)))
    model = keras.Model(given, x)
    with pytest.raises(ValueError, match="in different orders"):
        feature_order.of(model)
