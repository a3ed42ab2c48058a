"""One way from a name to a data set: the table, tfds, or a user's function."""

import difflib
import inspect

from keras_lottery.data import data_set
from keras_lottery.data import digits
from keras_lottery.data import raw_sets
from keras_lottery.data import tfds_images


def _digits(*, validation, rows):
    del validation  # the split is fixed
    return data_set.first(digits.load_digits(), rows)


def _rt_polarity(*, validation, rows, length=56, words=10000):
    del validation  # the split is fixed
    return raw_sets.load_rt_polarity(length=length, words=words, rows=rows)


DATA_SETS = {
    "digits": _digits,
    "emnist_letters": raw_sets.load_emnist_letters,
    "rt_polarity": _rt_polarity,
}


def load(
    identifier,
    *,
    validation=5000,
    rows=None,
    data_dir=None,
    download=False,
    **arguments,
):
    """Returns a data set by name, or from a function.

    Args:
        identifier: A key of `DATA_SETS`, any image classification set of tfds
            (`"fashion_mnist"`, `"cmaterdb/bangla"`), or a function that returns
            three pairs (x, y).
        validation: Rows to hold out of the training part for validation.
            Ignored where the split is fixed: by `"digits"`, `"rt_polarity"`,
            sets of tfds with their own validation split, and functions.
        rows: For quick tries: at most so many rows of each part.
        data_dir: tfds's directory; None for `TFDS_DATA_DIR`, or its default.
        download: Whether tfds may download the set.
        **arguments: For the function, or for the entry of the table.

    Returns:
        A `DataSet`.

    Raises:
        ValueError: The set is not known or not there, and how to get it; or
            what the function returned is no data set.

    Example:

    >>> load("digits", rows=50).validation[0].shape
    (50, 8, 8, 1)
    """
    if callable(identifier):
        _check_arguments(identifier, arguments)
        found = data_set.check(identifier(**arguments))
        return data_set.first(found, rows)
    if isinstance(identifier, str) and identifier in DATA_SETS:
        arguments = {"validation": validation, "rows": rows, **arguments}
        _check_arguments(DATA_SETS[identifier], arguments, identifier)
        return DATA_SETS[identifier](**arguments)
    _check_known(identifier, data_dir, download)
    if arguments:
        raise ValueError(
            f"Sets of tfds take no arguments of their own; {identifier!r} got "
            f"{', '.join(arguments)}. Leave them out."
        )
    return tfds_images.load_tfds(
        identifier,
        validation=validation,
        rows=rows,
        data_dir=data_dir,
        download=download,
    )


def known(data_dir=None):
    """Returns the sets that can be named here, for a listing.

    Nothing is loaded and tfds is not imported.

    Returns:
        List of (name, where it is or belongs, whether it can be loaded).

    Example:

    >>> known()[0]
    ('digits', 'in the package', True)
    """
    found = [("digits", "in the package", True)]
    for name in raw_sets.FILES:
        place = raw_sets.folder(name)
        where = str(place) if place else f"${raw_sets.VARIABLE}/{name}"
        found.append((name, where, not raw_sets.missing(name)))
    for name, place in tfds_images.prepared(data_dir).items():
        found.append((name, str(place), tfds_images.holds_images(place)))
    return found


def _check_known(identifier, data_dir, download):
    if isinstance(identifier, str) and download:
        return  # tfds's catalogue decides
    names = [name for name, _, _ in known(data_dir)]
    if not isinstance(identifier, str):
        raise ValueError(
            f"{identifier!r} is no data set. Expected one of {_listed(names)}, "
            "another set of tfds, or a function that returns three pairs "
            "(x, y)."
        )
    if tfds_images.is_there(identifier, data_dir):
        return
    close = difflib.get_close_matches(identifier, names, n=3, cutoff=0.5)
    meant = f"Did you mean {_listed(close)}? " if close else ""
    raise ValueError(
        f"Unknown data set {identifier!r}. {meant}Known here are "
        f"{_listed(names)}. {tfds_images.how_to_get(identifier, data_dir)}"
    )


def _listed(names):
    return ", ".join(map(repr, names))


def _check_arguments(function, arguments, name=None):
    """Raises before the call: a TypeError from inside is the function's own."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # built in: it says itself what it takes
    try:
        signature.bind(**arguments)
    except TypeError as error:
        name = name or getattr(function, "__name__", repr(function))
        raise ValueError(
            f"The data set {name!r} cannot be loaded with "
            f"{sorted(arguments)}: {error}. It takes {signature}."
        ) from error
