"""Masks and weights to and from others: NumPy files, PyTorch, open_lth."""

from keras_lottery.interchange.npz import load_npz
from keras_lottery.interchange.npz import save_npz
from keras_lottery.interchange.open_lth import load_open_lth
from keras_lottery.interchange.open_lth import save_open_lth
from keras_lottery.interchange.state_dict import mask_of_state_dict
from keras_lottery.interchange.state_dict import restore_state_dict
from keras_lottery.interchange.state_dict import state_dict_of

__all__ = [
    "load_npz",
    "load_open_lth",
    "mask_of_state_dict",
    "restore_state_dict",
    "save_npz",
    "save_open_lth",
    "state_dict_of",
]
