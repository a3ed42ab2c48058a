"""What makes two runs the same: a hash over what differs from the defaults."""

import hashlib
import json

from keras_lottery.runs import configuration

# Of config.json and of all other files of a run.
FORMAT = 3


def identity(config):
    """Returns 12 hex digits that name a configuration: equal ones share a run.

    The sha256 of the canonical JSON of its difference from the defaults.
    Levels, replicates, `distribute` and `export` stay outside. A setting that
    a later version adds changes no name as long as it has its default.

    Args:
        config: The tree, as an `ml_collections.ConfigDict` or a dict.

    Example:

    >>> config = configuration.defaults()
    >>> first = identity(config)
    >>> config.prune.levels += 1
    >>> identity(config) == first
    True
    """
    return hashlib.sha256(canonical(difference(config))).hexdigest()[:12]


def difference(config):
    """Returns the settings that are inside and not at their default, by path.

    Example:

    >>> config = configuration.defaults()
    >>> config.seed = 7
    >>> difference(config)
    {'seed': 7}
    """
    standard = inside(configuration.defaults())
    return {
        path: value
        for path, value in inside(config).items()
        if path not in standard or standard[path] != value
    }


def inside(config):
    """Returns the settings that are part of the identity, by path, as JSON."""
    found = json.loads(canonical(configuration.flat(config)))
    return {
        path: value
        for path, value in found.items()
        if not path.startswith(configuration.OUTSIDE)
    }


def canonical(value):
    """Returns the one JSON of a value, as bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
