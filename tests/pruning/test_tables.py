"""Tables of what a mask leaves, against numbers made by hand."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.pruning import tables
from keras_lottery.pruning import weights
from keras_lottery.pruning.find import find_mask
from keras_lottery.pruning.mask import Mask


def lenet():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(),
            layers.Dense(300, activation="tanh"),
            layers.Dense(100, activation="tanh"),
            layers.Dense(10),
        ]
    )


def toy():
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(4), layers.Dense(2)]
    )
    first, second = np.zeros((8, 4), bool), np.zeros((4, 2), bool)
    first[:2], second[0] = True, True
    return model, Mask({"dense/kernel": first, "dense_1/kernel": second})


def test_layer_table():
    model, mask = toy()
    assert tables.layer_table(model, mask) == [
        {
            "name": "dense/kernel",
            "shape": (8, 4),
            "parameters": 32,
            "nonzero": 8,
            "density": 0.25,
            "compression": 4.0,
            "multiply_adds": 32,
            "nonzero_multiply_adds": 8,
        },
        {
            "name": "dense_1/kernel",
            "shape": (4, 2),
            "parameters": 8,
            "nonzero": 2,
            "density": 0.25,
            "compression": 4.0,
            "multiply_adds": 8,
            "nonzero_multiply_adds": 2,
        },
        {
            "name": "total",
            "shape": (),
            "parameters": 40,
            "nonzero": 10,
            "density": 0.25,
            "compression": 4.0,
            "multiply_adds": 40,
            "nonzero_multiply_adds": 10,
            "all_parameters": 46,
            "all_compression": 46 / 16,
        },
    ]


def test_layer_table_refuses_the_mask_of_another_model():
    with pytest.raises(ValueError, match="that the model has not: .'other'"):
        tables.layer_table(toy()[0], Mask({"other": np.ones((2, 2), bool)}))


def test_empty_layers_and_unknown_costs():
    model = keras.Sequential([keras.Input((None, 3)), layers.LSTM(2)])
    mask = Mask(
        {
            name: np.zeros(variable.shape, bool)
            for name, variable in weights.prunable(model).items()
        }
    )
    rows = tables.layer_table(model, mask)
    assert rows[-1]["compression"] == np.inf
    assert rows[-1]["multiply_adds"] is None
    total = tables.format_table(rows, {}).splitlines()[5].split()
    assert total == ["total", "40", "0", "0.0000", "inf", "-", "-"]


def test_format_table():
    model, mask = toy()
    text = tables.format_table(
        tables.layer_table(model, mask), weights.unprunable(model)
    )
    assert text == "\n".join(
        [
            "                        para-                        com-"
            "  multiply-    nonzero",
            "weight          shape  meters  nonzero  density  pression"
            "       adds  mult-adds",
            "dense/kernel      8x4      32        8   0.2500      4.00"
            "         32          8",
            "dense_1/kernel    4x2       8        2   0.2500      4.00"
            "          8          2",
            "-" * 79,
            "total                      40       10   0.2500      4.00"
            "         40         10",
            "parameters in all: 46 (40 in the mask, 6 not pruned)",
            "compression of all parameters: 2.88",
            "not pruned: 2 bias (dense/bias, dense_1/bias)",
            "Multiply-adds are not time: a masked network runs as fast as the "
            "dense one.",
        ]
    )


def test_format_table_never_passes_100_columns():
    columns = (2_000_000_000, 3, 1.5e-9, 6.7e8, 9 * 10**13, 135_000_000)
    keys = tables._costs(1, 1, 1, 1)
    row = {
        "name": "backbone/" * 9 + "kernel",
        "shape": (3, 3, 20_000, 50_000, 10),
        **dict(zip(keys, columns, strict=True)),
    }
    total = {**row, "all_parameters": 3 * 10**9, "all_compression": 1}
    many = {"x" * 90 + str(i): "frozen (trainable=False)" for i in range(9)}
    lines = tables.format_table([row, total], many).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[2].split() == [
        lines[2].split()[0],
        "3x3x20...00x10",
        "2.000G",
        "3",
        "0.0000",
        "6.7e+08",
        "90.00T",
        "135.0M",
    ]
    assert lines[2].startswith("back") and "..." in lines[2].split()[0]
    assert any(line.startswith("not pruned: 9 frozen") for line in lines)
    assert lines[-2].endswith("...)")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (9_999, "9,999"),
        (10_000, "10.00K"),
        (999_949, "999.9K"),
        (999_999, "1.000M"),
        (3_857_973_248, "3.858G"),
    ],
)
def test_rounded_numbers(value, expected):
    assert tables._rounded(value) == expected


def test_lenet_under_a_mask():
    model = lenet()
    *_, total = tables.layer_table(model, find_mask(model, 0.9))
    assert total["nonzero_multiply_adds"] == total["nonzero"] == 26_620
    assert total["all_parameters"] == 266_610
