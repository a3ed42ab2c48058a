"""Arrays and tensors of others, by name; PyTorch itself is not imported."""

from collections.abc import Mapping

import numpy as np

_MASK, _ORIG = "_mask", "_orig"
_COUNTER = "num_batches_tracked"


def arrays_of(state_dict):
    """Returns a dict from name to NumPy array, of arrays or tensors.

    Counters of batches are left out: Keras has none.

    Raises:
        ValueError: It is no dict of them.
    """
    if not isinstance(state_dict, Mapping):
        raise ValueError(
            "Expected a state dictionary (name to array or tensor), got "
            f"{type(state_dict).__name__}. Of a module, pass "
            "`module.state_dict()`."
        )
    return {
        name: _array(name, value)
        for name, value in state_dict.items()
        if str(name).rpartition(".")[2] != _COUNTER
    }


def parted(arrays):
    """Returns (weights, masks) by the names that weights have unpruned.

    `torch.nn.utils.prune` keeps `weight` as `weight_orig` and `weight_mask`.
    Where all names end in `_mask`, they are masks without weights.

    Example:

    >>> weights, masks = parted({"a.weight_orig": 2.0, "a.weight_mask": 1.0})
    >>> weights, masks
    ({'a.weight': 2.0}, {'a.weight': 1.0})
    """
    only_masks = all(name.endswith(_MASK) for name in arrays)
    masks = {
        name.removesuffix(_MASK): array
        for name, array in arrays.items()
        if name.endswith(_MASK)
        and (only_masks or name.removesuffix(_MASK) + _ORIG in arrays)
    }
    weights = {}
    for name, array in arrays.items():
        base = name.removesuffix(_ORIG)
        if name.removesuffix(_MASK) in masks and name.endswith(_MASK):
            continue
        weights[base if base in masks else name] = array
    return weights, masks


def _array(name, value):
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if "bfloat16" in str(value.dtype):  # NumPy has none
            value = value.float()
        value = value.numpy()
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise ValueError(
            f"The state dictionary holds a {type(value).__name__} as {name!r}, "
            "not an array. Of a checkpoint pass the entry with the weights, "
            "often `checkpoint['state_dict']` or `checkpoint['model']`."
        )
    return np.asarray(value)
