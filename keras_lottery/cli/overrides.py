"""`--config=NAME[:variant]` and `--config.prune.levels=3`, as typed."""

from absl import flags
from ml_collections import config_dict
from ml_collections import config_flags

from keras_lottery.cli import arguments
from keras_lottery.runs import configuration

_NO_VALUE = ("--config", "-config")
_KINDS = {bool: "true or false", int: "an int", float: "a number"}


def split(typed, default):
    """Returns (configuration, the arguments without those of `--config`).

    Args:
        typed: List of arguments.
        default: `NAME[:variant]` where none is typed.

    Raises:
        Usage: No such config, setting, or value of its type.
    """
    reference, overrides, rest = default, [], []
    words = iter(typed)
    for argument in words:
        name, _, value = argument.partition("=")
        if argument in _NO_VALUE:
            reference = next(words, "")
            if not reference or reference.startswith("-"):
                raise arguments.Usage(
                    "--config needs the name or the path of a config: "
                    "--config=digits."
                )
        elif name in _NO_VALUE:
            reference = value
        elif argument.lstrip("-").startswith(("config.", "noconfig.")):
            if "=" not in argument and _takes_value(argument):
                argument = f"{argument}={next(words, '')}"
            overrides.append(argument)
        else:
            _check_flag(name)
            rest.append(argument)
    try:
        config = configuration.load(reference)
    except ValueError as error:
        raise arguments.Usage(str(error)) from error
    return _applied(config, overrides), rest


def _check_flag(name):
    """Raises for a setting that is typed without its `config.`."""
    typed = name.removeprefix("--")
    for path in configuration.flat(configuration.defaults()):
        if name != typed and typed in (path, path.rpartition(".")[2]):
            raise arguments.Usage(
                f"Unknown flag {name}. Did you mean --config.{path}?"
            )


def _takes_value(argument):
    """Whether the value of a setting is the next word: not of booleans."""
    standard = configuration.flat(configuration.defaults())
    path = argument.lstrip("-").partition(".")[2]
    no = argument.lstrip("-").startswith("no")
    return not no and not isinstance(standard.get(path), bool)


def _applied(config, overrides):
    known = configuration.flat(config)
    for argument in overrides:
        path, _, value = argument.lstrip("-").partition("=")
        path = path.partition(".")[2]
        _check(path, known, config)
        _check_value(path, value, known.get(path), argument)
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=["run", *overrides]
        )
        values(["run", *overrides])
    except (
        flags.Error,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
    ) as error:
        raise arguments.Usage(str(error)) from error
    return values.config


def _check(path, known, config):
    """Raises unless a path is a setting; makes room for new `arguments`."""
    section, _, name = path.rpartition(".")
    if name.isidentifier() and section in known:
        tree = config[section.split(".")[0]].arguments
        if name not in tree:
            tree[name] = config_dict.placeholder(object)
        return
    if path in _sections(known):
        inside = [each for each in known if each.startswith(f"{path}.")]
        raise arguments.Usage(
            f"--config.{path} is a section. Set one of {', '.join(inside)}."
        )
    if path not in known:
        hint = arguments.nearest(path, [*known, *_sections(known)])
        raise arguments.Usage(
            f"Unknown setting --config.{path}.{hint} `keras-lottery run "
            "--help` lists all."
        )


def _check_value(path, value, standard, argument):
    kind = type(standard)
    if kind not in _KINDS or "=" not in argument:
        return
    try:
        right = (
            value.lower() in ("true", "false", "t", "f", "1", "0", "yes", "no")
            if kind is bool
            else kind(value) is not None
        )
    except ValueError:
        right = False
    if not right:
        raise arguments.Usage(
            f"--config.{path}={value}: {path} must be {_KINDS[kind]}, such as "
            f"{standard!r}."
        )


def _sections(known):
    return {path.partition(".")[0] for path in known if "." in path}
