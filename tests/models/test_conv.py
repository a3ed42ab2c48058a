"""Conv-2, Conv-4, Conv-6: counts by the sums of the layers' shapes."""

import pytest

from keras_lottery.models import conv
from keras_lottery.pruning import weights


def counts(model):
    """Weights without biases of (convolutions, hidden, output)."""
    sums = {"conv": 0, "fc": 0, "output": 0}
    for name, variable in weights.prunable(model).items():
        family = name.split("/")[0].rstrip("0123456789")
        sums[family] += variable.shape.num_elements()
    return tuple(sums.values())


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (conv.conv2, (38_592, 4_259_840, 2_560)),
        (conv.conv4, (259_776, 2_162_688, 2_560)),
        (conv.conv6, (1_144_512, 1_114_112, 2_560)),
    ],
)
def test_weights_of_the_paper(build, expected):
    assert counts(build()) == expected


def test_order_of_the_layers():
    assert [layer.name for layer in conv.conv4().layers] == [
        "conv1",
        "conv2",
        "pool1",
        "conv3",
        "conv4",
        "pool2",
        "flatten",
        "fc1",
        "fc2",
        "output",
    ]


@pytest.mark.parametrize("depth", [2, 4, 6])
@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (8, 8, 1)])
@pytest.mark.parametrize("width", [0.25, 0.5, 0.01])
def test_width_and_other_images(depth, shape, width):
    model = conv.conv(shape, 3, depth=depth, width=width)
    by_hand = {
        0.25: ([16, 32, 64], 64),
        0.5: ([32, 64, 128], 128),
        0.01: ([1, 1, 3], 3),
    }
    channels, hidden = by_hand[width]
    expected, before = 0, shape[2]
    for each in channels[: depth // 2]:
        expected += 9 * before * each + 9 * each * each
        before = each
    # 28 -> 14 -> 7 -> 3: a pool drops the odd row.
    side = {32: [16, 8, 4], 28: [14, 7, 3], 8: [4, 2, 1]}[shape[0]]
    flat = side[depth // 2 - 1] ** 2 * before
    dense = flat * hidden + hidden * hidden
    assert counts(model) == (expected, dense, 3 * hidden)


def test_a_pool_that_would_leave_nothing_is_refused():
    assert conv.conv4((4, 4, 1), width=0.1).built
    with pytest.raises(ValueError, match="conv6 halves an image 3 times: each"):
        conv.conv6((4, 4, 1))
    with pytest.raises(ValueError, match="conv2 takes images .* such as"):
        conv.conv2((64,))


@pytest.mark.parametrize("depth", [3, 0, 2.0, -2])
def test_a_depth_without_pairs_is_refused(depth):
    with pytest.raises(ValueError, match="`depth` "):
        conv.conv(depth=depth)
