"""Pictures show the masks that are there; tables are those of brute force."""

import itertools
import sys
import warnings

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.pruning import weights
from keras_lottery.tickets import pictures
from keras_lottery.tickets import ticket as tickets
from keras_lottery.tickets.pictures import images
from keras_lottery.tickets.pictures import tables

pyplot = pytest.importorskip(
    "matplotlib.pyplot", reason="needs the extra 'report'"
)
pytestmark = pytest.mark.thorough

layers = keras.layers


def sequential(shape, *stack):
    return keras.Sequential([keras.Input(shape), *stack])


def mlp():
    return sequential(
        (6, 5, 1),
        layers.Flatten(),
        layers.Dense(12, name="fc1"),
        layers.Dense(4, name="out"),
    )


def conv():
    return sequential(
        (6, 6, 2),
        layers.Conv2D(3, 3, name="conv"),
        layers.DepthwiseConv2D(2, depth_multiplier=2, name="each"),
        layers.Conv2DTranspose(5, 2, name="up"),
        layers.SeparableConv2D(4, 2, name="apart"),
    )


def sequence():
    x = keras.Input((5, 6))
    y = layers.LSTM(4, return_sequences=True)(x)
    return keras.Model(x, layers.MultiHeadAttention(2, 3)(y, y))


def random_mask(model, density, seed=0, within=None):
    rng = np.random.default_rng(seed)
    return lottery.Mask(
        {
            name: (rng.random(tuple(v.shape)) < density)
            & (True if within is None else within[name])
            for name, v in weights.prunable(model).items()
        }
    )


def lottery_of(build, levels=3, seed=0):
    """Tickets with random masks, each in the one before, and random ends."""
    model, rng = build(), np.random.default_rng(seed)
    mask, found = lottery.Mask.full(weights.prunable(model)), []
    for level in range(levels):
        start = tickets.capture(model, mask, level=level)
        end = {
            n: (w + rng.normal(0, 0.3, w.shape).astype(w.dtype))[mask[n]]
            for n, w in start.start.items()
        }
        found.append(tickets.capture(model, mask, level=level, end=end))
        mask = random_mask(model, 0.5, level, within=mask)
    return model, found


def drawn(figure):
    """Pairs (title, array) of all images, in order."""
    return [
        (axes.get_title(), np.asarray(axes.images[0].get_array()))
        for axes in figure.axes
    ]


def units_of(layer, role, kept):
    """Lists the weights of each input and of each output, index by index."""
    inputs, outputs = {}, {}
    for index in itertools.product(*map(range, kept.shape)):
        *_, before, last = index
        one, two = (before,), (last,)
        kind = type(layer).__name__
        if "Transpose" in kind:
            one, two = two, one
        if kind == "DepthwiseConv2D" or role == "depthwise_kernel":
            two = (before, last)
        if kind == "EinsumDense" and layer.name == "attention_output":
            one, two = index[:2], index[2:]
        elif kind == "EinsumDense":
            one, two = index[:1], index[1:]
        inputs.setdefault(one, []).append(kept[index])
        outputs.setdefault(two, []).append(kept[index])
    return inputs, outputs


@pytest.mark.parametrize("build", [mlp, conv, sequence])
def test_dead_units_are_those_of_brute_force(build):
    model = build()
    owners = {w.name: w.layer for w in weights.walk(model)}
    any_dead = 0
    for density in (0.05, 0.2, 1.0):
        mask = random_mask(model, density)
        found = pictures.dead_units(mask, model)
        assert list(found) == list(mask)
        for name, counts in found.items():
            sides = units_of(owners[name], name.split("/")[-1], mask[name])
            expected = tuple(
                sum(not any(held) for held in side.values()) for side in sides
            )
            assert counts == expected, name
            any_dead += sum(counts)
    assert any_dead
    if build is not conv:  # without the model names say enough
        assert pictures.dead_units(mask) == found


def test_fate_by_hand():
    start = {"w": np.array([[1.0, -2.0], [3.0, 0.0]])}
    masks = [
        np.array([[True, True], [True, True]]),
        np.array([[False, True], [True, False]]),
    ]
    ends = [np.array([-1.0, -4.0, 5.0, 0.5]), np.array([2.0, 6.0])]
    first, second = pictures.fate(
        lottery.Ticket(
            lottery.Mask({"w": mask}), start, {}, {"w": end}, {}, level
        )
        for level, (mask, end) in enumerate(zip(masks, ends))
    )
    assert first == {
        "name": "w",
        "level": 0,
        "alive": 4,
        "sign_changes": 2,
        "kept": 2,
        "removed": 2,
        "start_kept": 2.5,
        "start_removed": 0.5,
        "end_kept": 4.5,
        "end_removed": 0.75,
    }
    assert second["alive"] == 2 and second["sign_changes"] == 1
    assert second["kept"] is second["end_kept"] is None


def test_fate_of_what_has_none():
    _, (first, *_) = lottery_of(mlp, 2)
    _, (other, *_) = lottery_of(conv, 2)
    untrained = tickets.capture(mlp(), first.mask)
    with pytest.raises(ValueError, match="level 0 was not trained"):
        pictures.fate([untrained])
    with pytest.raises(ValueError, match="different networks.*fc1/kernel"):
        pictures.fate([first, other])
    with pytest.raises(ValueError, match="got none: `pruned.tickets` after"):
        pictures.fate([])


def test_the_images_of_dense_layers_are_the_masks():
    model, found = lottery_of(mlp)
    figure = pictures.plot(found)
    pairs = drawn(figure)
    assert len(pairs) == 3 * 4  # two kernels, pixels and fate, three levels
    for place, ticket in enumerate(found):
        for row, name in ((0, "fc1/kernel"), (2, "out/kernel")):
            title, array = pairs[3 * row + place]
            np.testing.assert_array_equal(array, ticket.mask[name])
            part = 100 * ticket.mask[name].mean()
            assert title.startswith(f"{part:.1f}".removesuffix(".0") + " %")
        pixels = pairs[3 + place][1]
        counts = ticket.mask["fc1/kernel"].sum(axis=1).reshape(6, 5)
        np.testing.assert_array_equal(pixels, counts)
    words = [text.get_text() for text in figure.texts]
    assert "level 0: 100 %" in words and "12 × 4" in words


def test_the_images_of_convolutions_are_blocks_of_filters():
    model = conv()
    mask = random_mask(model, 0.5)
    figure = pictures.plot(mask, model=model)
    images_by_row = dict(zip(mask, (array for _, array in drawn(figure))))
    kernel, image = mask["conv/kernel"], images_by_row["conv/kernel"]
    for i, o in itertools.product(range(2), range(3)):
        block = image[3 * i : 3 * i + 3, 3 * o : 3 * o + 3]
        np.testing.assert_array_equal(block, kernel[:, :, i, o])
    kernel, image = mask["up/kernel"], images_by_row["up/kernel"]
    for i, o in itertools.product(range(6), range(5)):
        block = image[2 * i : 2 * i + 2, 2 * o : 2 * o + 2]
        np.testing.assert_array_equal(block, kernel[:, :, o, i])
    assert sum(image.sum() for image in images_by_row.values()) == mask.kept


def test_large_kernels_are_block_means():
    rng = np.random.default_rng(0)
    kept = rng.random((2 * images.LARGEST, 3 * images.LARGEST)) < 0.3
    image, *_ = images.of_mask(kept, (0,), (1,))
    size = images.LARGEST
    blocks = kept.reshape(size, 2, size, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(image, blocks, atol=1e-6)
    figure = pictures.plot(lottery.Mask({"wide": kept}))
    np.testing.assert_array_equal(drawn(figure)[0][1], image)
    assert "grey is a mean" in " ".join(figure.texts[0].get_text().split())
    # Lengths that no block divides: each is there, none twice.
    odd = rng.random((size + 7, 2 * size + 1))
    found = images.smaller(odd)
    assert found.shape == (size, size)
    edges = np.arange(size) * odd.shape[0] // size
    np.testing.assert_allclose(
        images.smaller(odd[:, :5])[3],
        odd[edges[3] : edges[4], :5].mean(axis=0),
        rtol=1e-5,
    )


def test_the_counts_of_the_fate_are_those_of_numpy():
    _, found = lottery_of(mlp, 2)
    weight = tables.alive("fc1/kernel", *found)
    start, end, kept = weight
    for chosen, counts in zip((kept, ~kept), images.of_fate([weight], (9, 9))):
        bins = np.linspace(-9, 9, counts.shape[0] + 1)
        expected, *_ = np.histogram2d(end[chosen], start[chosen], [bins, bins])
        np.testing.assert_array_equal(counts, expected)
    thin = tables.alive("fc1/kernel", *found, step=7)
    for whole, part in zip(weight, thin):
        np.testing.assert_array_equal(whole[::7], part)


@pytest.mark.parametrize("build", [mlp, conv, sequence])
def test_all_kinds_are_drawn_without_warnings(build, tmp_path):
    model, found = lottery_of(build, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masks = [ticket.mask for ticket in found[:3]]
        for given in (found, found[0], masks[0], masks):
            figure = pictures.plot(given, model=model)
            figure.savefig(tmp_path / "picture.png", dpi=50)
    assert pyplot.get_fignums() == []  # nothing shared, nothing shown twice


def test_no_text_lies_on_another():
    _, found = lottery_of(sequence, 9)
    figure = pictures.plot(found)
    figure.savefig("/dev/null", format="png")
    boxes = [t.get_window_extent() for t in figure.texts if t.get_text()]
    boxes += [axes.title.get_window_extent() for axes in figure.axes]
    inside = figure.bbox.padded(1)
    for one, two in itertools.combinations(boxes, 2):
        assert not one.overlaps(two)
    for box in boxes:
        assert inside.contains(box.x0, box.y0)
        assert inside.contains(box.x1, box.y1)


def test_long_names_and_large_counts_have_room():
    kept = np.zeros((2_000, 1_200), bool)
    kept[0, 0] = True
    mask = lottery.Mask({"a_rather_long_name_of_a_dense_layer/kernel": kept})
    figure = pictures.plot([mask, mask])
    figure.savefig("/dev/null", format="png")
    axes = [each.get_window_extent() for each in figure.axes]
    titles = [each.title.get_window_extent() for each in figure.axes]
    texts = [each.get_window_extent() for each in figure.texts]
    assert "dead 1,999 in, 1,199 out" in figure.axes[0].title.get_text()
    for one, two in itertools.combinations([*texts, *titles, *axes], 2):
        assert not one.overlaps(two)


def test_what_is_drawn_can_be_chosen():
    _, found = lottery_of(mlp, 12)
    figure = pictures.plot(found, names="out/kernel", levels=[2, 11])
    pairs = drawn(figure)
    assert len(pairs) == 4
    for (_, array), level in zip(pairs, (2, 11)):
        np.testing.assert_array_equal(array, found[level].mask["out/kernel"])
    assert any("fc1/kernel (" in text.get_text() for text in figure.texts)
    columns = [t for t in pictures.plot(found).texts if "level" in t.get_text()]
    heads = [t.get_text().split(":")[0] for t in columns if ":" in t.get_text()]
    heads = [head for head in heads if head.startswith("level")]
    assert len(heads) == 8
    assert (heads[0], heads[-1]) == ("level 0", "level 11")


def test_pixels_that_are_told():
    mask = lottery.Mask({"fc1/kernel": np.eye(12, 5, dtype=bool)})
    ((_, _), (_, array)) = drawn(pictures.plot(mask, image=(2, 2, 3)))
    assert array.tolist() == [[3, 2], [0, 0]]
    assert len(drawn(pictures.plot(mask))) == 1
    with pytest.raises(ValueError, match="12 values, which are no image"):
        pictures.plot(mask, image=(3, 3))


def test_what_cannot_be_drawn_is_refused(monkeypatch):
    _, found = lottery_of(mlp, 2)
    with pytest.raises(ValueError, match="at least one, got none"):
        pictures.plot([])
    with pytest.raises(ValueError, match="got ndarray"):
        pictures.plot([np.ones(3)])
    with pytest.raises(ValueError, match=r"\['fc3'\]. It has: fc1/kernel"):
        pictures.plot(found, names=["fc3"])
    with pytest.raises(ValueError, match=r"levels \[7\]. There are: 0, 1"):
        pictures.plot(found, levels=[7])
    with pytest.raises(ValueError, match="`levels` is empty. There are: 0, 1"):
        pictures.plot(found, levels=[])
    with pytest.raises(ValueError, match="`names` is empty. There are: fc1"):
        pictures.plot(found, names=[])
    with pytest.raises(ValueError, match="is a shape, .*, got 28"):
        pictures.plot(found, image=28)
    for wrong in (None, 5, keras.Sequential()):
        with pytest.raises(ValueError, match=type(wrong).__name__):
            pictures.plot(wrong)
    assert len(drawn(pictures.plot(found, levels=np.int64(1)))) == 4
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(
        sys.modules, "keras_lottery.tickets.pictures.page", raising=False
    )
    monkeypatch.delattr("keras_lottery.tickets.pictures.page", raising=False)
    with pytest.raises(ImportError, match=r"keras_lottery\[report\]"):
        pictures.plot(found)
