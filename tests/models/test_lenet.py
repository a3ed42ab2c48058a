"""LeNet: counts worked out by hand."""

import pytest

from keras_lottery.models.lenet import lenet


def test_weights_and_biases_of_the_paper():
    assert lenet().count_params() == 266_200 + 410
    assert [layer.name for layer in lenet().layers] == [
        "flatten",
        "fc1",
        "fc2",
        "output",
    ]


@pytest.mark.parametrize(
    ("width", "a", "b"), [(0.5, 150, 50), (2, 600, 200), (0.004, 1, 1)]
)
def test_width(width, a, b):
    model = lenet((8, 8, 3), 5, width=width)
    expected = 192 * a + a + a * b + b + b * 5 + 5
    assert model.count_params() == expected


def test_hidden_layers_and_flat_inputs():
    assert lenet((6,), 2, hidden=(4,)).count_params() == 24 + 4 + 8 + 2
    assert lenet((6,), 2, hidden=()).count_params() == 14
    with pytest.raises(ValueError, match="`units` must be an int >= 1, got 0"):
        lenet(hidden=(300, 0))
    with pytest.raises(TypeError):
        lenet((6,), 2, 1.0)
