"""Filters, channels and heads: whole units go, wherever they reach.

Held against loops over the units, and against small networks built by hand
with fewer channels.
"""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.exporting.shrinking.shrink import shrink
from keras_lottery.models import networks
from keras_lottery.pruning import allocation
from keras_lottery.pruning import coupling
from keras_lottery.pruning import weights
from keras_lottery.pruning.allocation import Channels
from keras_lottery.pruning.allocation import Filters
from keras_lottery.pruning.allocation import Heads
from keras_lottery.pruning.find import check_reachable
from keras_lottery.pruning.find import find_mask
from keras_lottery.pruning.mask import Mask

pytestmark = pytest.mark.thorough


def filled(model, seed=0):
    """Random weights and statistics, as after training."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        shape = variable.shape
        value = generator.normal(0, 0.3, shape)
        if "variance" in variable.path or "gamma" in variable.path:
            value = generator.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            value *= np.sqrt(9 / np.prod(shape[:-1]))
        variable.assign(value)
    return model


def masked(model, mask):
    for name, variable in weights.by_name(model).items():
        if name in mask:
            variable.assign(variable.numpy() * mask[name])
    return model


def conv(filters, name, size=3, **more):
    return layers.Conv2D(filters, size, padding="same", name=name, **more)


def mlp():
    sizes = [layers.Dense(n, "tanh", name=f"fc{n}") for n in (6, 5)]
    last = layers.Dense(3, name="out")
    return filled(keras.Sequential([keras.Input((4,)), *sizes, last]))


def wired():
    """Residual addition, norms, depthwise, concatenation, gate, Flatten."""
    image = keras.Input((6, 6, 3))
    x = layers.ReLU()(layers.BatchNormalization()(conv(8, "stem")(image)))
    y = layers.ReLU()(layers.BatchNormalization()(conv(10, "inside")(x)))
    y = layers.DepthwiseConv2D(
        3, padding="same", depth_multiplier=2, name="depthwise"
    )(y)
    y = layers.BatchNormalization()(layers.ReLU()(y))
    x = layers.Add()([x, conv(8, "back", use_bias=False)(y)])
    gate = layers.Dense(8, "sigmoid", name="gate")(
        layers.GlobalAveragePooling2D(keepdims=True)(x)
    )
    x = layers.Concatenate()([x * gate, conv(5, "branch", 1)(x)])
    turned = layers.Conv2DTranspose(7, 2, 2, name="turned", activation="tanh")
    x = layers.Flatten()(layers.MaxPooling2D(4)(turned(x)))
    x = layers.Dense(9, "relu", name="wide")(x)
    return filled(keras.Model(image, layers.Dense(4, name="out")(x)))


def owned(units):
    """Dict from (unit) to {name: set of (axis, position)}, out of `Units`."""
    found = {}
    for name, sides in units.sides.items():
        for side in sides:
            for position, unit in enumerate(side.units.tolist()):
                if unit >= 0:
                    places = found.setdefault(unit, {}).setdefault(name, set())
                    places.add((side.axis, position))
    return found


def in_loops(units, scores, mask, keep, spread="global"):
    """The rule with one boolean array per unit and weight."""
    arrays = {}
    for unit, places in owned(units).items():
        arrays[unit] = {name: np.zeros(mask[name].shape, bool) for name in mask}
        for name, found in places.items():
            for axis, position in found:
                index = [slice(None)] * mask[name].ndim
                index[axis] = position
                arrays[unit][name][tuple(index)] = True
    means = {}
    for unit, inside in arrays.items():
        values = [scores[n][inside[n] & mask[n]] for n in mask]
        values = np.concatenate([np.ravel(v) for v in values])
        means[unit] = values.sum() / len(values) if len(values) else None
    groups = {}
    for unit in arrays:
        groups.setdefault(int(units.groups[unit]), []).append(unit)
    queue = []
    for group in groups.values():
        gone = [u for u in group if means[u] is None]
        alive = sorted((u for u in group if u not in gone), reverse=True)
        alive.sort(key=lambda u: means[u])
        for place, unit in enumerate(alive[:-1], len(gone)):
            share = (2 * place + 1) / (2 * len(group))
            queue.append((share, means[unit], -unit, unit))
    if spread == "global":
        queue = [(mean, other, unit) for _, mean, other, unit in queue]
    left = {name: mask[name].copy() for name in mask}
    for *_, unit in sorted(queue):
        if sum(int(a.sum()) for a in left.values()) <= keep:
            break
        for name in left:
            left[name] &= ~arrays[unit][name]
    return Mask(left)


@pytest.mark.parametrize("spread", ["global", "layerwise"])
@pytest.mark.parametrize("make", [Filters, Channels])
@pytest.mark.parametrize("build", [mlp, wired])
def test_units_go_as_in_loops(build, make, spread):
    model = build()
    chosen = make(spread)
    allocate = chosen.of_model(model)
    generator = np.random.default_rng(1)
    mask = Mask.full(weights.prunable(model))
    for density in (0.9, 0.7, 0.55, 0.5):
        # Eighths: sums are exact in any order. Few, so that some are equal.
        scores = {
            n: generator.integers(0, 5, s) / 8 for n, s in mask.shapes.items()
        }
        keep = min(mask.kept, round(mask.size * density))
        found = allocate(scores, mask, keep)
        assert found == in_loops(allocate.units, scores, mask, keep, spread)
        assert found.kept <= keep and found.issubset(mask)
        mask = found


@pytest.mark.parametrize("spread", ["global", "layerwise"])
def test_equal_scores_go_from_behind(spread):
    model = mlp()
    mask = Mask.full(weights.prunable(model))
    scores = {n: np.ones(s) for n, s in mask.shapes.items()}
    allocate = Channels(spread).of_model(model)
    for keep in range(mask.kept, mask.kept - 40, -7):
        found = allocate(scores, mask, keep)
        assert found == in_loops(allocate.units, scores, mask, keep, spread)
    # 24 + 30 + 15 weights. The last unit of fc5 has 6 + 3 of them, that of fc6
    # 4 + 5; a sixth is a smaller share than a fifth.
    found = allocate(scores, mask, 60)
    counts = {"global": [24, 24, 12], "layerwise": [20, 25, 15]}[spread]
    assert list(found.kept_by_name.values()) == counts
    name, axis = ("fc5", 1) if spread == "global" else ("fc6", 1)
    assert not np.take(found[f"{name}/kernel"], -1, axis).any()


@pytest.mark.parametrize("spread", ["global", "layerwise"])
@pytest.mark.parametrize("make", [Filters, Channels])
def test_less_is_inside_more(make, spread):
    model = wired()
    mask = Mask.full(weights.prunable(model))
    generator = np.random.default_rng(0)
    scores = {n: generator.integers(0, 9, s) for n, s in mask.shapes.items()}
    allocate = make(spread).of_model(model)
    last, counts = mask, []
    for keep in range(mask.kept, mask.kept // 2, -61):
        found = allocate(scores, mask, keep)
        assert found.issubset(last) and found.kept <= keep
        last = found
        counts.append(found.kept)
    assert len(set(counts)) > 8


def test_the_count_is_the_nearest_that_units_allow():
    model = wired()
    mask = Mask.full(weights.prunable(model))
    generator = np.random.default_rng(0)
    scores = {n: generator.random(s) for n, s in mask.shapes.items()}
    allocate = Channels().of_model(model)
    for keep in (mask.kept - 1, mask.kept // 2):
        kept = allocate(scores, mask, keep).kept
        assert kept <= keep
        assert allocate(scores, mask, kept).kept == kept
        for more in range(kept + 1, keep + 1):  # no unit less would do
            assert allocate(scores, mask, more).kept == kept


def test_who_goes_together():
    found = owned(coupling.channels(wired()))
    names = [{n.split("/")[0] for n in each} for each in found.values()]
    assert len(found) == 8 + 10 + 5 + 7 + 9
    stream = {"stem", "inside", "back", "gate", "branch", "turned"}
    assert names[:8] == [stream] * 8
    assert names[8:18] == [{"inside", "depthwise", "back"}] * 10
    assert names[18:23] == [{"branch", "turned"}] * 5
    assert names[23:30] == [{"turned", "wide"}] * 7
    assert names[30:] == [{"wide", "out"}] * 9
    # Channel 1 of the stream: a row and a column of the gate, and of the
    # Conv2DTranspose, whose kernel is (..., out, in), what comes in.
    assert found[1]["gate/kernel"] == {(-1, 1), (-2, 1)}
    assert found[1]["turned/kernel"] == {(-1, 1)}
    assert found[19]["turned/kernel"] == {(-1, 8 + 1)}
    # Flatten: (3, 3, 7) features, channel 2 at 9 places.
    places = found[25]["wide/kernel"]
    assert places == {(-2, 7 * place + 2) for place in range(9)}
    # Two channels out of each: rows 6 and 7 of what reads them.
    assert found[8 + 3]["back/kernel"] == {(-2, 6), (-2, 7)}
    assert found[8 + 3]["depthwise/kernel"] == {(-2, 3)}


def test_filters_are_channels_without_rows():
    model = wired()
    found = owned(coupling.filters(model))
    assert len(found) == 39
    assert found[1].keys() == {"stem/kernel", "back/kernel", "gate/kernel"}
    assert found[11].keys() == {"inside/kernel", "depthwise/kernel"}


@pytest.mark.parametrize("spread", ["global", "layerwise"])
@pytest.mark.parametrize("density", [0.8, 0.5, 0.2])
def test_shrinking_leaves_out_exactly_those_channels(spread, density):
    model = wired()
    allocate = Channels(spread).of_model(model)
    mask = Mask.full(weights.prunable(model))
    scores = {n: np.abs(v.numpy()) for n, v in weights.prunable(model).items()}
    found = allocate(scores, mask, round(mask.size * density))
    masked(model, found)
    smaller, report = shrink(model)
    units = {layer.name: layer.units for layer in report.layers}
    for name, array in found.items():
        layer = model.get_layer(name.split("/")[0])
        axis = -2 if layer.name in ("turned", "depthwise") else -1
        others = tuple(a for a in range(-array.ndim, 0) if a != axis)
        left = int(array.any(others).sum())
        left *= 2 if layer.name == "depthwise" else 1
        assert units[layer.name][1] == left
    # What is gone was all that was zero: nothing is left over.
    kernels = [v for v in smaller.weights if v.path.endswith("/kernel")]
    assert sum(int(np.prod(v.shape)) for v in kernels) == found.kept
    images = np.random.default_rng(9).normal(size=(5, 6, 6, 3))
    expected, answer = model(images).numpy(), smaller(images).numpy()
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)


def test_a_network_built_by_hand_with_fewer_channels_answers_the_same():
    def net(width):
        image = keras.Input((5, 5, 2))
        x = conv(width, "one")(image)
        x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
        y = conv(width, "two")(x)
        x = layers.GlobalMaxPooling2D()(layers.Add()([x, y]))
        return keras.Model(image, layers.Dense(3, name="out")(x))

    model = filled(net(6))
    mask = find_mask(model, 0.5, allocation=Channels())
    stays = mask["out/kernel"].any(1)
    assert 1 <= stays.sum() < 6
    by_hand = net(int(stays.sum()))
    for name, axes in (("one", (-1,)), ("two", (-2, -1)), ("out", (-2,))):
        kernel, bias = model.get_layer(name).get_weights()
        for axis in axes:
            kernel = np.compress(stays, kernel, axis)
        bias = bias if name == "out" else bias[stays]
        by_hand.get_layer(name).set_weights([kernel, bias])
    norm = [w[stays] for w in model.get_layer("norm").get_weights()]
    by_hand.get_layer("norm").set_weights(norm)
    count = sum(
        by_hand.get_layer(n).kernel.numpy().size for n in ("one", "two", "out")
    )
    assert count == mask.kept
    smaller, _ = shrink(masked(model, mask))
    images = np.random.default_rng(3).normal(size=(4, 5, 5, 2))
    expected = by_hand(images).numpy()
    for answer in (model(images), smaller(images)):
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)


def test_one_unit_of_every_layer_stays():
    model = mlp()
    least = find_mask(model, 1 - 8 / 69, allocation=Channels())
    assert least.kept_by_name == {  # one unit each: 4 + 1 + 3
        "fc6/kernel": 4,
        "fc5/kernel": 1,
        "out/kernel": 3,
    }
    with pytest.raises(ValueError, match="as few as 7 of 69.* kept is 8"):
        find_mask(model, 1 - 7 / 69, allocation=Channels())
    # With filters the output layer stays: 4 + 6 + 15.
    with pytest.raises(ValueError, match="kept is 25. 54 weights are in"):
        find_mask(model, 0.8, allocation="filters")


def test_a_mask_of_single_weights_goes_on_with_units():
    model = wired()
    before = find_mask(model, 0.5)
    found = find_mask(model, 0.75, mask=before, allocation=Channels())
    assert found.issubset(before) and found.kept <= before.size // 4
    scores = {n: np.abs(v) for n, v in weights.values(model).items()}
    units = coupling.channels(model)
    keep = before.size - round(before.size * 0.75)
    by_loops = in_loops(units, scores, before, keep, Channels().spread)
    assert found == by_loops


def test_units_stay_inside_the_weights_that_are_pruned():
    model = wired()
    chosen = {"allocation": Channels(), "layers": ["wide", "out", "inside"]}
    found = find_mask(model, 0.4, **chosen)
    # Channels between `inside` and `back` need the depthwise kernel.
    assert found.kept_by_name["inside/kernel"] == 3 * 3 * 8 * 10
    assert not found["wide/kernel"].any(0).all()
    chosen["layers"] = ["inside", "back"]
    with pytest.raises(
        ValueError,
        match="No channels lie whole in .* also in .*depthwise/kernel",
    ):
        find_mask(model, 0.4, **chosen)


def test_a_group_that_keeps_all_is_not_reached_into():
    model = wired()
    wanted = {"wide/*": 0.0, "out/*": 0.0, "*": 0.4}
    found = find_mask(model, wanted, allocation="channels")
    counts, sizes = found.kept_by_name, found.sizes
    assert counts["wide/kernel"] == sizes["wide/kernel"]
    assert counts["out/kernel"] == sizes["out/kernel"]
    assert counts["turned/kernel"] < sizes["turned/kernel"]  # reads the stream
    # Its own channels are read by `wide`.
    assert found["turned/kernel"].any((0, 1, 3)).all()
    unnamed = {"inside/*": 0.4, "depthwise/*": 0.4, "back/*": 0.4, "o*": 0.0}
    found = find_mask(model, unnamed, allocation="channels")
    assert found.kept_by_name["stem/kernel"] == sizes["stem/kernel"]
    assert found.kept_by_name["inside/kernel"] <= 0.6 * sizes["inside/kernel"]


def test_units_reach_from_one_group_into_another():
    model = mlp()
    wanted = {"out/*": 0.2, "*": 0.5}
    found = find_mask(model, wanted, allocation="channels")
    units = owned(coupling.channels(model))
    assert found["out/kernel"].sum() <= 12
    assert found["fc6/kernel"].sum() + found["fc5/kernel"].sum() <= 27
    for places in units.values():  # whole, or not at all
        left = {
            np.take(found[name], position, axis).any()
            for name, sides in places.items()
            for axis, position in sides
        }
        assert len(left) == 1


def test_what_cannot_be_reached_is_said_before_anything_is_pruned():
    model = mlp()
    mask = Mask.full(weights.prunable(model))
    for allocate in ("channels", "filters", "2:4", "global"):
        check_reachable([(list(mask), 30)], model, mask, allocate)
    with pytest.raises(ValueError, match="as few as 7 of 69"):
        check_reachable([(list(mask), 7)], model, mask, "channels")


def test_heads_of_every_attention_in_any_model():
    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.one = layers.MultiHeadAttention(4, 3, value_dim=2)
            self.two = layers.GroupQueryAttention(5, 6, 2)
            self.last = layers.Dense(2)

        def call(self, x):
            return self.last(self.two(self.one(x, x), x))

    model = Mine()
    model(np.zeros((1, 3, 8)))
    units = coupling.heads(model)
    assert units.groups.tolist() == [0, 0, 0, 0, 4, 4]
    owner = owned(units)
    assert owner[1] == {
        "one/query/kernel": {(-2, 1)},
        "one/key/kernel": {(-2, 1)},
        "one/value/kernel": {(-2, 1)},
        "one/attention_output/kernel": {(-3, 1)},
    }
    assert owner[5]["two/query/kernel"] == {(-2, 3), (-2, 4), (-2, 5)}
    assert owner[5]["two/key/kernel"] == {(-2, 1)}
    mask = Mask.full(weights.prunable(model))
    generator = np.random.default_rng(0)
    scores = {
        n: generator.integers(0, 9, s) / 8 for n, s in mask.shapes.items()
    }
    for spread in ("global", "layerwise"):
        for keep in (mask.kept - 1, 700, 416):
            found = Heads(spread).of_model(model)(scores, mask, keep)
            assert found == in_loops(units, scores, mask, keep, spread)
    with pytest.raises(ValueError, match="by removing heads: they can remove"):
        find_mask(model, 0.9, allocation="heads")
    with pytest.raises(ValueError, match="need no graph: 'heads', 'blocks'"):
        find_mask(model, 0.5, allocation="channels")


def test_a_model_without_heads_is_told_so():
    with pytest.raises(ValueError, match="No heads lie whole in .*fc6/kernel"):
        find_mask(mlp(), 0.5, allocation="heads")


def test_without_a_model_the_units_are_not_known():
    scores = {"a": np.ones((2, 2))}
    for name in ("filters", "channels", "heads"):
        with pytest.raises(ValueError, match="has to know the model"):
            allocation.get(name)(scores, Mask.full(scores), 2)
    model = mlp()
    mask = Mask.full(weights.prunable(model))
    scores = {n: np.full(s, np.nan) for n, s in mask.shapes.items()}
    with pytest.raises(ValueError, match="'fc6/kernel' cannot .* hold NaN"):
        Channels().of_model(model)(scores, mask, 60)
    with pytest.raises(ValueError, match="'global', 'layerwise'; got 'wide'"):
        Channels("wide")


@pytest.mark.parametrize(
    "build",
    [
        lambda: networks.get("resnet20")((32, 32, 3), 10),
        lambda: keras.applications.MobileNetV2(
            (32, 32, 3), 0.35, weights=None, classes=10
        ),
    ],
    ids=["resnet20", "mobilenet_v2"],
)
def test_networks_of_the_papers_get_smaller(build):
    model = build()
    mask = find_mask(model, 0.5, allocation="channels")
    assert mask.kept <= mask.size - round(mask.size * 0.5) <= mask.kept + 9999
    smaller, _ = shrink(masked(model, mask))
    kernels = [v for v in smaller.weights if v.path.endswith("kernel")]
    assert sum(int(np.prod(v.shape)) for v in kernels) == mask.kept
