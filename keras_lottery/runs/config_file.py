"""config.json: what a run was made with. It is read, never executed."""

import json
import math

import keras_lottery
from keras_lottery import files
from keras_lottery import sealed_json
from keras_lottery.errors import DamageError
from keras_lottery.errors import RunError
from keras_lottery.runs import configuration
from keras_lottery.runs import formats
from keras_lottery.runs import identity

_WORDS = ("train.metrics", "controls.names", "prune.layers")


def read(path):
    """Returns the configuration in a file, a dict with settings of their types.

    Raises:
        RunError: There is none, it is damaged, or of another format.
    """
    found = formats.read_json(path)
    # A file of another version is told from a damaged one.
    if "checksum" in found or found.get("format") == identity.FORMAT:
        found = formats.read_sealed(path)
    if found.get("format") != identity.FORMAT:
        raise RunError(
            f"{path} was written by another version of keras_lottery: its "
            f"format is {found.get('format')!r}, version "
            f"{keras_lottery.__version__} reads {identity.FORMAT}. Choose "
            "another --workdir, or use the version that made it."
        )
    config = found.get("config")
    if not isinstance(config, dict) or not isinstance(config.get("name"), str):
        raise DamageError(f"{path} is damaged: it holds no configuration.")
    _check_types(config, path)
    return config


def write(path, tree, command):
    """Writes a configuration, a dict, and the command that it is from."""
    content = {"format": identity.FORMAT, "command": command, "config": tree}
    files.write_whole(path, sealed_json.pack(content))


def plain(config):
    """Returns a configuration as JSON holds it: a dict, tuples as lists."""
    return json.loads(identity.canonical(config.to_dict()))


def merged(there, here, path):
    """Returns what a run goes on with: the larger numbers of both.

    Args:
        there: The configuration on disk, a dict.
        here: The one that is asked for; it is changed.
        path: The run's directory, for the error.

    Raises:
        RunError: They are not of the same run.
    """
    old, new = identity.inside(there), identity.inside(here)
    differing = [
        f"{name}: {old.get(name, 'absent')!r} there, "
        f"{new.get(name, 'absent')!r} here"
        for name in sorted(set(old) | set(new))
        if old.get(name, "absent") != new.get(name, "absent")
    ]
    if differing:
        raise RunError(
            f"{path} holds a run with another configuration, made by another "
            "version or changed by hand:\n  "
            + "\n  ".join(differing)
            + "\nChoose another --workdir."
        )
    here["replicates"] = max(here["replicates"], there["replicates"])
    levels = max(here["prune"]["levels"], there["prune"]["levels"])
    here["prune"]["levels"] = levels
    return here


def _check_types(config, path):
    """Raises unless all settings are known, and of their types."""
    unknown = sorted(_unknown(config, configuration.defaults().to_dict()))
    if unknown:
        raise RunError(
            f"{path} has settings that version {keras_lottery.__version__} "
            f"does not know: {', '.join(unknown)[:200]}. Use the version that "
            "made it."
        )
    for name, right in configuration.flat(configuration.defaults()).items():
        value = _at(config, name, right)
        if not _fits(name, value, right):
            raise DamageError(
                f"{path} is damaged: {name} is {str(value)[:80]!r}, a value "
                f"like {right!r} is expected."
            )


def _unknown(there, known):
    """Yields the settings that defaults lack; a builder's own are its own."""
    for name, value in there.items():
        if name not in known:
            yield repr(name)
        elif isinstance(known[name], dict) and isinstance(value, dict):
            if name != "arguments":
                yield from _unknown(value, known[name])


def _at(config, name, absent):
    """Returns the setting at a dotted path; None where a section is none."""
    *sections, last = name.split(".")
    for section in sections:
        config = config.get(section, {})
        if not isinstance(config, dict):
            return None
    return config.get(last, absent)


def _fits(name, value, right):
    if isinstance(right, tuple):
        words = name in _WORDS
        return isinstance(value, (list, tuple)) and (
            not words or all(isinstance(each, str) for each in value)
        )
    if isinstance(right, float):
        return isinstance(value, (int, float)) and math.isfinite(value)
    return type(value) is type(right)
