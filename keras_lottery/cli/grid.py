"""`--grid.prune.rate="(0.2,0.5)"`, as typed: the points of a grid."""

import ast
import itertools

from keras_lottery.cli import arguments
from keras_lottery.cli import overrides
from keras_lottery.runs import configuration
from keras_lottery.runs import points

_PREFIX = "--grid."


def split(typed, default):
    """Returns (points of the grid, the arguments without config and grid).

    Args:
        typed: List of arguments.
        default: `NAME[:variant]` where no `--config` is typed.

    Raises:
        Usage: No such config, setting, or value of its type.
    """
    varied, others = _separated(typed)
    config, rest = overrides.split(others, default)
    words = _absent(others, rest)
    for path in varied:
        _check_path(path, config, words)
    listed = [_values(path, text) for path, text in varied.items()]
    found = [
        _point(dict(zip(varied, values)), words, default)
        for values in itertools.product(*listed)
    ]
    return found, rest


def _separated(typed):
    """Returns (text of values by setting, the other arguments)."""
    varied, others = {}, []
    words = iter(typed)
    for word in words:
        if not word.startswith("--grid"):
            others.append(word)
            continue
        name, given, text = word.partition("=")
        path = name.removeprefix(_PREFIX)
        if not name.startswith(_PREFIX) or not path:
            raise arguments.Usage(
                f"{word}: a grid varies a setting, such as "
                '--grid.train.learning_rate="(1e-3,1e-2)".'
            )
        if path in varied:
            raise arguments.Usage(f"{name} is given twice: list all values.")
        varied[path] = text if given else next(words, "")
    return varied, others


def _absent(words, rest):
    """Returns the words that are not in `rest`, which keeps their order."""
    left, absent = list(rest), []
    for word in words:
        if left and left[0] == word:
            left.pop(0)
        else:
            absent.append(word)
    return absent


def _check_path(path, config, words):
    """Raises unless a grid can vary a setting."""
    known = list(configuration.flat(config))
    section = path.rpartition(".")[0]
    if path not in known and not section.endswith(".arguments"):
        raise arguments.Usage(
            f"Unknown setting {_PREFIX}{path}."
            f"{arguments.nearest(path, known)} `keras-lottery run --help` "
            "lists all."
        )
    try:
        points.check_setting(path)
    except ValueError as error:
        raise arguments.Usage(str(error)) from error
    names = {word.lstrip("-").partition("=")[0] for word in words}
    if f"config.{path}" in names:
        raise arguments.Usage(
            f"--config.{path} and {_PREFIX}{path} are both given: leave one "
            "out."
        )


def _values(path, text):
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        found = None
    if not isinstance(found, (tuple, list)) or not found:
        raise arguments.Usage(
            f"{_PREFIX}{path}={text}: values are a tuple in quotes with at "
            f'least one, such as {_PREFIX}train.learning_rate="(1e-3,1e-2)" '
            f"or {_PREFIX}prune.criterion=\"('magnitude','random')\"."
        )
    return list(found)


def _point(settings, words, default):
    """Returns the point that has these settings, as if they were typed."""
    typed = [
        *words,
        *(f"--config.{path}={_typed(v)}" for path, v in settings.items()),
    ]
    config, _ = overrides.split(typed, default)
    for path, value in settings.items():
        found = _at(config, path)
        if found != value and found != tuple(_items(value)):
            raise arguments.Usage(
                f"{_PREFIX}{path}: {value!r} is not a value like {found!r}, "
                "which it would become."
            )
    return points.Point(settings, config, tuple(typed))


def _typed(value):
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


def _at(config, path):
    for name in path.split("."):
        config = config[name]
    return config


def _items(value):
    return value if isinstance(value, (list, tuple)) else (value,)
