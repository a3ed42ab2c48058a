"""State dictionaries of PyTorch: masks and weights from them and to them."""

import numpy as np

from keras_lottery.interchange import layouts
from keras_lottery.interchange import matching
from keras_lottery.interchange import tensors
from keras_lottery.interchange.npz import as_bools
from keras_lottery.interchange.npz import inner_of
from keras_lottery.interchange.npz import mask_in
from keras_lottery.pruning import find
from keras_lottery.pruning import weights
from keras_lottery.pruning.mask import Mask
from keras_lottery.tickets import ticket as tickets
from keras_lottery.training import enforce


def mask_of_state_dict(state_dict, model, names=None):
    """Returns the `Mask` that a pruned PyTorch network has.

    Masks of `torch.nn.utils.prune` (`weight_mask`) are taken where there are
    any, and a weight without one is whole. Without any, `mask = weight != 0`.

    Args:
        state_dict: Dict from name to array or tensor, in PyTorch's layout:
            `module.state_dict()`, or what `state_dict_of` returns.
        model: The Keras model of the same network, built.
        names: Dict from our names to theirs, of weights (`"fc1/kernel"`) or
            layers (`"fc1"`), or a function from the name of a weight; only
            what it names is in the mask. None: by equal names, else in order,
            if the shapes agree one by one.

    Raises:
        ValueError: The two do not fit, both are listed; or a mask holds other
            numbers than 0 and 1.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential(
    ...     [keras.Input((3,)), keras.layers.Dense(2, name="fc1")]
    ... )
    >>> theirs = {"fc1.weight": np.array([[0.5, 0.0, 0.1], [0.0, 0.0, 2.0]])}
    >>> mask_of_state_dict(theirs, model)["fc1/kernel"].tolist()
    [[True, False], [False, False], [True, True]]

    Reference: PyTorch, `torch.nn.utils.prune`.
    """
    model = inner_of(model)
    values, masks = tensors.parted(tensors.arrays_of(state_dict))
    pairs = _kernel_pairs({**values, **masks}, model, names)
    if names is None:
        ours = weights.prunable(model)
        pairs = [
            p for p in pairs if p.part.name in ours or p.theirs[0] in masks
        ]
    return Mask(
        {
            pair.part.name: pair.part.to_ours(
                [_kept(name, values, masks) for name in pair.theirs]
            )
            for pair in pairs
        }
    )


def state_dict_of(given, model, names=None, *, what="mask", like=None):
    """Returns masks or weights as PyTorch has them: names, layout, order.

    Args:
        given: A `Ticket`; for masks a `Mask` or a `PrunedModel`, too.
        model: The Keras model it is of, built. It is not changed.
        names: As in `mask_of_state_dict`; None for names like ours
            (`"fc1.weight"` for `"fc1/kernel"`), unless `like` is there.
        what: `"mask"` for bools called `weight_mask`, as in
            `torch.nn.utils.prune`; `"start"` or `"end"` for all weights of a
            ticket, zeros where it removes them.
        like: State dictionary of the twin, whose names are taken as in
            `mask_of_state_dict`.

    Returns:
        Dict from name to array; `torch.from_numpy` takes each.

    Raises:
        ValueError: No layout is known for a weight, or the twin does not fit.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential(
    ...     [keras.Input((3,)), keras.layers.Dense(2, name="fc1")]
    ... )
    >>> mask = Mask({"fc1/kernel": np.eye(3, 2, dtype=bool)})
    >>> theirs = state_dict_of(mask, model)
    >>> {name: array.shape for name, array in theirs.items()}
    {'fc1.weight_mask': (2, 3)}
    """
    model = inner_of(model)
    if what == "mask":
        masks = masks_of(given, model, names, like)
        return {f"{name}_mask": array for name, array in masks.items()}
    if what not in ("start", "end"):
        raise ValueError(f"Expected 'mask', 'start' or 'end', got {what!r}.")
    if not isinstance(given, tickets.Ticket):
        raise ValueError(
            f"Only a `Ticket` has weights at its {what}, got "
            f"{type(given).__name__}. Of a `PrunedModel`, pass one of its "
            "`tickets`."
        )
    others = given.start_state if what == "start" else given.end_state
    values = {**given.weights(what), **others}
    tickets.check_fits(values, model)
    if names is None and like is not None:
        pairs = _all_pairs(
            tensors.parted(tensors.arrays_of(like))[0], model, None
        )
    else:
        pairs = matching.named(layouts.parts(model), names)
    return _theirs(pairs, values)


def restore_state_dict(state_dict, model, names=None):
    """Writes the weights of a PyTorch network into its Keras twin.

    Weights under masks of `torch.nn.utils.prune` are zero where removed. The
    zeros are not held by this: `lottery.attach` holds them. A mask that the
    model has already, attached or by `lottery.prune`, removes what it removes.

    Args:
        state_dict: As in `mask_of_state_dict`.
        model: A built model.
        names: As in `mask_of_state_dict`; what is not named stays as it is.

    Returns:
        The model.

    Raises:
        ValueError: The two do not fit; both are listed.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential(
    ...     [keras.Input((2,)), keras.layers.Dense(1, name="fc1")]
    ... )
    >>> theirs = {"0.weight": np.ones((1, 2)), "0.bias": np.array([3.0])}
    >>> float(restore_state_dict(theirs, model)(np.ones((1, 2)))[0, 0])
    5.0
    """
    target = inner_of(model)
    values, masks = tensors.parted(tensors.arrays_of(state_dict))
    pairs = _all_pairs(values, target, names)
    variables = weights.by_name(target)
    for part, theirs in pairs:
        arrays = [
            values[n] * _kept(n, values, masks) if n in masks else values[n]
            for n in theirs
        ]
        variables[part.name].assign(part.to_ours(arrays))
    if enforce.is_attached(target):
        enforce.attachment(target).apply()
    return model


def masks_of(given, model, names=None, like=None):
    """Returns bool arrays by their names, in their layout.

    Args:
        given: A `Mask`, or what has one.
        model: A built `keras.Model`.
        names: As in `mask_of_state_dict`.
        like: As in `state_dict_of`.

    Raises:
        ValueError: The mask does not fit the model, or this the twin.
    """
    mask = mask_in(given)
    find.check_fits(model, mask)
    if names is None and like is not None:
        values, masks = tensors.parted(tensors.arrays_of(like))
        pairs = _kernel_pairs({**values, **masks}, model, None)
    else:
        pairs = matching.named(layouts.parts(model), names)
    return _theirs([p for p in pairs if p.part.name in mask], mask)


def _kernel_pairs(arrays, model, names):
    """Returns the `Pair`s of the model's kernels with theirs."""
    parts = layouts.parts(model)
    kernels = [p for p in parts if p.shape is None or len(p.shape) > 1]
    shapes = {n: tuple(a.shape) for n, a in arrays.items() if a.ndim > 1}
    if names is not None:
        pairs = matching.named(parts, names)
        ours = {part.name for part in kernels}
        pairs = [pair for pair in pairs if pair.part.name in ours]
        return matching.checked(pairs, shapes)
    return matching.found(kernels, shapes, weights.prunable(model))


def _all_pairs(arrays, model, names):
    parts = layouts.parts(model)
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if names is not None:
        return matching.checked(matching.named(parts, names), shapes)
    return matching.found(parts, shapes)


def _theirs(pairs, values):
    """Returns dict from their names to arrays in their layout."""
    if unknown := [p.part.name for p in pairs if p.part.turn is None]:
        raise ValueError(
            f"How PyTorch lays out {', '.join(unknown)} is not known: known "
            "are dense, convolutional and embedding layers, attention, and "
            "LSTM, GRU (reset_after=True) and SimpleRNN. Leave others out with "
            "`names`."
        )
    return {
        name: array
        for part, theirs in pairs
        for name, array in zip(theirs, part.to_theirs(values[part.name]))
    }


def _kept(name, values, masks):
    """Returns what is kept of one of their weights, as bools."""
    if name not in masks:
        value = values[name]
        return np.ones(value.shape, bool) if masks else value != 0
    kept = as_bools(name, masks[name])
    if name in values and values[name].shape != kept.shape:
        raise ValueError(
            f"{name!r} has shape {values[name].shape}, its mask {kept.shape}."
        )
    return kept
