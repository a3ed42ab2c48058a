"""Layouts, proved: a PyTorch twin with our weights gives our answers."""

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery import interchange
from keras_lottery.pruning import weights
from keras_lottery.tickets import ticket as tickets

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")
nn = torch.nn
layers = keras.layers

pytestmark = pytest.mark.thorough


class First(nn.Module):
    """The outputs of a recurrent module, without its states."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)[0]


class Moved(nn.Module):
    """A module on (batch, channels, steps), given and giving steps first."""

    def __init__(self, *modules):
        super().__init__()
        self.module = nn.Sequential(*modules)

    def forward(self, x):
        return self.module(x.transpose(1, 2)).transpose(1, 2)


class Residual(nn.Module):
    """A separable convolution and a skip, made flat and joined."""

    def __init__(self):
        super().__init__()
        self.depthwise = nn.Conv2d(3, 6, 3, groups=3, bias=False, padding=1)
        self.pointwise = nn.Conv2d(6, 4, 1)
        self.norm = nn.BatchNorm1d(4 * 5 * 6 + 3 * 5 * 6, eps=1e-3)
        self.fc = nn.Linear(4 * 5 * 6 + 3 * 5 * 6, 7)

    def forward(self, x):
        y = torch.relu(self.pointwise(self.depthwise(x)))
        return self.fc(self.norm(torch.cat([y.flatten(1), x.flatten(1)], 1)))


class Attention(nn.Module):
    """Heads as Keras has them, of four linear layers."""

    def __init__(self, width=6, heads=2, key=4):
        super().__init__()
        inside = heads * key
        self.query = nn.Linear(width, inside)
        self.key = nn.Linear(width, inside)
        self.value = nn.Linear(width, inside)
        self.out = nn.Linear(inside, width)
        self.heads = heads

    def forward(self, x):
        def split(y):
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = map(split, (self.query(x), self.key(x), self.value(x)))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


def sequential(shape, *stack):
    return keras.Sequential([keras.Input(shape), *stack])


def residual():
    image = keras.Input((5, 6, 3))
    x = layers.SeparableConv2D(4, 3, padding="same", depth_multiplier=2)(image)
    x = layers.Flatten()(keras.ops.relu(x))
    x = layers.Concatenate()([x, layers.Flatten()(image)])
    return keras.Model(image, layers.Dense(7)(layers.BatchNormalization()(x)))


def attention():
    x = keras.Input((5, 6))
    return keras.Model(x, layers.MultiHeadAttention(2, 4)(x, x))


def nested():
    inner = sequential((5, 6, 3), layers.Conv2D(4, 3), layers.ReLU())
    return sequential(
        (5, 6, 3), inner, layers.Flatten(), layers.Dropout(0.5), layers.Dense(2)
    )


# (name, Keras model, twin, whether inputs have channels first in PyTorch)
TWINS = [
    (
        "dense",
        lambda: sequential((6,), layers.Dense(5, "tanh"), layers.Dense(5)),
        lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5)),
    ),
    (
        "conv2d",
        lambda: sequential(
            (6, 7, 3),
            layers.Conv2D(4, (3, 2), activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(5),
        ),
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, (3, 2)),
            nn.ReLU(),
            nn.BatchNorm2d(4, eps=1e-3),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 5),
        ),
    ),
    (
        "grouped and strided",
        lambda: sequential(
            (5, 6, 4), layers.Conv2D(6, 3, 2, groups=2, use_bias=False)
        ),
        lambda: nn.Conv2d(4, 6, 3, 2, groups=2, bias=False),
    ),
    (
        "conv2d transpose",
        lambda: sequential((5, 6, 3), layers.Conv2DTranspose(4, 3, 2)),
        lambda: nn.ConvTranspose2d(3, 4, 3, 2),
    ),
    (
        "depthwise",
        lambda: sequential(
            (5, 6, 3),
            layers.DepthwiseConv2D(3, depth_multiplier=2),
            layers.Flatten(),
            layers.Dense(3),
        ),
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, groups=3), nn.Flatten(), nn.Linear(72, 3)
        ),
    ),
    ("separable, joined", residual, Residual),
    ("nested", nested, lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)
    )),
    (
        "conv3d",
        lambda: sequential(
            (4, 5, 6, 2), layers.Conv3D(3, 2), layers.Flatten(), layers.Dense(2)
        ),
        lambda: nn.Sequential(
            nn.Conv3d(2, 3, 2), nn.Flatten(), nn.Linear(180, 2)
        ),
    ),
    (
        "image of features",
        lambda: sequential(
            (5,),
            layers.Dense(2 * 3 * 4),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Reshape((2, 3, 4)),
            layers.Conv2DTranspose(2, 2, 2),
        ),
        lambda: nn.Sequential(
            nn.Linear(5, 24),
            nn.BatchNorm1d(24, eps=1e-3),
            nn.ReLU(),
            nn.Unflatten(1, (4, 2, 3)),
            nn.ConvTranspose2d(4, 2, 2, 2),
        ),
    ),
    (
        "conv1d",
        lambda: sequential(
            (7, 3), layers.Conv1D(4, 3), layers.Flatten(), layers.Dense(2)
        ),
        lambda: nn.Sequential(
            nn.Conv1d(3, 4, 3), nn.Flatten(), nn.Linear(20, 2)
        ),
    ),
    ("attention", attention, Attention),
    (
        "lstm",
        lambda: sequential(
            (7, 3), layers.LSTM(4, return_sequences=True), layers.Dense(2)
        ),
        lambda: nn.Sequential(
            First(nn.LSTM(3, 4, batch_first=True)), nn.Linear(4, 2)
        ),
    ),
    (
        "lstm, flat",
        lambda: sequential(
            (7, 3),
            layers.LSTM(4, return_sequences=True),
            layers.Flatten(),
            layers.Dense(2),
        ),
        lambda: nn.Sequential(
            First(nn.LSTM(3, 4, batch_first=True)),
            nn.Flatten(),
            nn.Linear(28, 2),
        ),
    ),
    (
        "gru, both ways",
        lambda: sequential(
            (7, 3), layers.Bidirectional(layers.GRU(4, return_sequences=True))
        ),
        lambda: First(nn.GRU(3, 4, batch_first=True, bidirectional=True)),
    ),
    (
        "simple rnn",
        lambda: sequential((7, 3), layers.SimpleRNN(4, return_sequences=True)),
        lambda: First(nn.RNN(3, 4, batch_first=True)),
    ),
]  # fmt: skip
STEPS_FIRST = {
    "attention",
    "lstm",
    "lstm, flat",
    "gru, both ways",
    "simple rnn",
}


def filled(model, seed=0):
    """The model with random weights everywhere, variances above 0."""
    rng = np.random.default_rng(seed)
    model.set_weights(
        [
            (rng.random(w.shape) - 0.3 + 0.4 * (w.ndim < 2)).astype(w.dtype)
            if w.dtype.kind == "f"
            else w
            for w in model.get_weights()
        ]
    )
    return model


def random_mask(model, density=0.5, seed=1):
    rng = np.random.default_rng(seed)
    return lottery.Mask(
        {
            name: rng.random(tuple(v.shape)) < density
            for name, v in weights.prunable(model).items()
        }
    )


def ticket_of(model):
    return tickets.capture(model, random_mask(model))


def loaded(twin, arrays):
    twin.load_state_dict({n: torch.from_numpy(a) for n, a in arrays.items()})
    return twin.eval()


def moved(array, name):
    """An array of ours with channels where PyTorch has them."""
    return array if name in STEPS_FIRST else np.moveaxis(array, -1, 1)


def answers(twin, x, name):
    with torch.no_grad():
        given = torch.from_numpy(np.ascontiguousarray(moved(x, name)))
        return twin(given).numpy()


@pytest.mark.parametrize(
    ("name", "build", "twin"), TWINS, ids=[twin[0] for twin in TWINS]
)
def test_a_ticket_in_a_twin_answers_as_in_the_model(name, build, twin):
    model = filled(build())
    ticket, other = ticket_of(model), twin()
    arrays = interchange.state_dict_of(
        ticket, model, what="start", like=other.state_dict()
    )
    loaded(other, arrays)
    ticket.restore(model, "start")
    x = np.random.default_rng(2).standard_normal((3, *model.input_shape[1:]))
    x = x.astype("float32")
    expected = moved(model.predict(x, verbose=0), name)
    np.testing.assert_allclose(
        answers(other, x, name), expected, rtol=1e-5, atol=1e-5
    )
    # Back again: bit for bit, the mask too.
    back = interchange.restore_state_dict(
        other.state_dict(), filled(build(), 9)
    )
    for ours, theirs in zip(model.get_weights(), back.get_weights()):
        np.testing.assert_array_equal(ours, theirs)
    found = interchange.mask_of_state_dict(other.state_dict(), model)
    assert found == ticket.mask
    masks = interchange.state_dict_of(ticket, model, like=other.state_dict())
    assert interchange.mask_of_state_dict(masks, model) == found


def lenet():
    return sequential(
        (6, 6, 3),
        layers.Conv2D(4, 3, activation="relu", name="conv"),
        layers.Flatten(),
        layers.Dense(12, activation="relu", name="fc1"),
        layers.Dense(5, name="out"),
    )


class Twin(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc1 = nn.Linear(64, 12)
        self.out = nn.Linear(12, 5)

    def forward(self, x):
        x = torch.relu(self.conv(x)).flatten(1)
        return self.out(torch.relu(self.fc1(x)))


def pruned_twin():
    from torch.nn.utils import prune

    torch.manual_seed(0)
    twin = Twin()
    prune.global_unstructured(
        [(twin.conv, "weight"), (twin.fc1, "weight")],
        pruning_method=prune.L1Unstructured,
        amount=0.7,
    )
    return twin


def test_a_network_pruned_by_torch_is_studied_here():
    twin, model = pruned_twin(), lenet()
    theirs = twin.state_dict()
    assert "fc1.weight_orig" in theirs and "fc1.weight" not in theirs
    mask = interchange.mask_of_state_dict(theirs, model)
    size = 4 * 3 * 9 + 64 * 12
    counts = mask.kept_by_name
    assert counts["conv/kernel"] + counts["fc1/kernel"] == size - round(
        0.7 * size
    )
    assert counts["out/kernel"] == 60  # not pruned there: whole
    interchange.restore_state_dict(theirs, model)
    for name, variable in weights.prunable(model).items():
        np.testing.assert_array_equal(variable.numpy() != 0, mask[name])
    x = np.random.default_rng(0).standard_normal((4, 6, 6, 3), "float32")
    expected = answers(twin, x, "lenet")
    np.testing.assert_allclose(
        model.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-5
    )
    lottery.attach(model, mask)


def test_a_ticket_found_here_answers_the_same_there():
    x = np.random.default_rng(0).random((60, 6, 6, 3), "float32")
    y = np.arange(60) % 5
    model = lenet()
    pruned = lottery.prune(model, lottery.IterativePruning(0.5, levels=1))
    pruned.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    pruned.fit(x, y, epochs=1, verbose=0)
    ticket = pruned.tickets[-1]
    twin = loaded(
        Twin(), interchange.state_dict_of(ticket, pruned, what="end")
    )  # names are the same there
    restored = ticket.restore(lenet(), "end")
    expected = restored.predict(x, verbose=0)
    np.testing.assert_allclose(
        answers(twin, x, "lenet"), expected, rtol=1e-5, atol=1e-5
    )


def test_our_mask_goes_into_torch_nn_utils_prune():
    from torch.nn.utils import prune

    model, twin = filled(lenet()), Twin()
    mask = random_mask(model)
    masks = interchange.state_dict_of(mask, model)
    for name in ("conv", "fc1", "out"):
        there = torch.from_numpy(masks[f"{name}.weight_mask"])
        prune.custom_from_mask(getattr(twin, name), "weight", there)
    found = interchange.mask_of_state_dict(twin.state_dict(), model)
    assert found == mask
