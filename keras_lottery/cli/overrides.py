"""`--config=NAME[:variant]` and `--config.prune.levels=3`, as typed."""

from absl import flags
from ml_collections import config_dict
from ml_collections import config_flags

from keras_lottery.cli import arguments
from keras_lottery.runs import configuration

_NO_VALUE = ("--config", "-config")


def split(typed, default):
    """Returns (configuration, the arguments without those of `--config`).

    Args:
        typed: List of arguments.
        default: `NAME[:variant]` where none is typed.

    Raises:
        Usage: No such config, setting, or value of its type.
    """
    reference, overrides, rest = default, [], []
    waiting = False
    for argument in typed:
        name, _, value = argument.partition("=")
        if waiting:
            reference, waiting = argument, False
        elif argument in _NO_VALUE:
            waiting = True
        elif name in _NO_VALUE:
            reference = value
        elif argument.lstrip("-").startswith(("config.", "noconfig.")):
            overrides.append(argument)
        else:
            rest.append(argument)
    try:
        config = configuration.load(reference)
    except ValueError as error:
        raise arguments.Usage(str(error)) from error
    return _applied(config, overrides), rest


def _applied(config, overrides):
    known = configuration.flat(config)
    for argument in overrides:
        path = argument.lstrip("-").partition("=")[0].partition(".")[2]
        _check(path, known, config)
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=["run", *overrides]
        )
        values(["run", *overrides])
    except (flags.Error, ValueError, TypeError) as error:
        raise arguments.Usage(str(error)) from error
    return values.config


def _check(path, known, config):
    """Raises unless a path is a setting; makes room for new `arguments`."""
    section, _, name = path.rpartition(".")
    if section.endswith("arguments") and section in known:
        tree = config[section.split(".")[0]].arguments
        if name not in tree:
            tree[name] = config_dict.placeholder(object)
        return
    if path not in known:
        hint = arguments.nearest(path, [*known, *_sections(known)])
        raise arguments.Usage(
            f"Unknown setting --config.{path}.{hint} `keras-lottery run "
            "--help` lists all."
        )


def _sections(known):
    return {path.partition(".")[0] for path in known if "." in path}
