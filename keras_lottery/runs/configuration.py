"""Configurations: one tree of settings, config files that fill it in.

A config file is Python: it is executed. A run directory holds the tree as
JSON, which is only read.
"""

import difflib
import importlib.util
import pathlib

import ml_collections

import keras_lottery

_PACKAGE = pathlib.Path(keras_lottery.__file__).parent
# Installed, config files lie in the package; in a checkout beside it.
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
# A longer run extends a shorter one, on any device: not part of its identity.
OUTSIDE = (
    "replicates",
    "prune.levels",
    "checkpoint",
    "distribute",
    "export",
)


def defaults():
    """Returns the whole tree, every setting at its default.

    Returns:
        An `ml_collections.ConfigDict`.

    Example:

    >>> defaults().rewind.to_dict()
    {'name': 'weights', 'step': 0}
    """
    return _tree(
        name="run",  # what the run directory is called
        seed=0,  # seed of everything
        replicates=3,  # repetitions, each with its own initialisation
        eval_every=100,  # steps between validations
        eval_test="minimum",  # or "always": the test set at every validation
        data=_data(),
        model=_tree(
            name="lenet",  # a network, or "module:function" that builds one
            width=1.0,  # factor on every hidden width
            arguments=_tree(),  # of the builder
        ),
        train=_train(),
        prune=_prune(),
        rewind=_tree(name="weights", step=0),
        controls=_tree(
            names=("reinitialize", "shuffle"),
            repeats=1,  # how many of each
            one_shot=False,  # every level also pruned in one go
        ),
        checkpoint=_tree(
            seconds=30.0,  # between two, and never over 2 % of the time
            steps=0,  # between two; 0 goes by time
        ),
        distribute=_tree(
            strategy="none",  # or "mirrored", "multi_worker", ...
            timeout=600.0,  # seconds to wait for another worker
        ),
        export=_tree(enabled=True, tolerance=0.0),
    )


def _data():
    return _tree(
        name="digits",  # "digits", a tfds name, or "module:function"
        validation=5000,  # rows held out, where the set has no such part
        rows=0,  # only so many training rows; 0 is all
        augment="none",  # or "flip_and_crop"
        normalize=False,  # a first layer that takes out mean and deviation
        arguments=_tree(),  # of a "module:function"
    )


def _train():
    return _tree(
        steps=4000,  # per level
        batch_size=60,
        compile="auto",  # "graph", "xla", or "measure": time both, take one
        deterministic=True,  # the same bits from the same run, on any device
        optimizer="adam",  # any Keras optimizer by name
        learning_rate=1.2e-3,
        warmup=0,  # steps from 0 up to the learning rate
        drops=(),  # steps at which the learning rate is multiplied
        drop_factor=0.1,
        weight_decay=0.0,  # L2 on kernels
        arguments=_tree(),  # of the optimizer
        loss="softmax_crossentropy",  # of logits; or any Keras loss by name
        metrics=("accuracy",),  # Keras metrics by name
        metric="",  # the one that decides; "" is the first
        mode="",  # "max" or "min"; "" where the metric's name says it
    )


def _prune():
    return _tree(
        rate=0.2,  # fraction of the remaining weights removed per level
        rates=(),  # (pattern, rate) pairs that come before `rate`
        sparsities=(),  # instead of rates: total sparsity of each level
        levels=10,  # number of prunings
        criterion="magnitude",
        allocation="layerwise",
        layers=(),  # () is every kernel
    )


def load(reference):
    """Returns the configuration that `NAME[:variant]` refers to.

    Args:
        reference: The name of a bundled config file or, with a slash or
            `.py`, the path of one; then optionally `:` and a variant.

    Returns:
        An `ml_collections.ConfigDict` with the tree of `defaults`.

    Raises:
        ValueError: No such file or variant, or what it returns has settings
            that the tree lacks.

    Example:

    >>> load("digits").data.name
    'digits'
    """
    name, _, variant = reference.partition(":")
    module = _module(_path(name))
    if not hasattr(module, "get_config"):
        raise ValueError(
            f"{name!r} has no function `get_config(variant='')`, which a "
            "config file must have."
        )
    try:
        config = module.get_config(variant)
    except TypeError as error:
        raise ValueError(
            f"{name}: `get_config(variant='')` cannot be called: {error}."
        ) from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise ValueError(
            f"{name}: `get_config` must return what `configuration.defaults()` "
            f"gave it to fill in, got {type(config).__name__}."
        )
    check(config)
    return config


def vary(config, variant, variants):
    """Applies a variant to a configuration and returns it.

    Args:
        config: The full configuration; it is changed.
        variant: A key of `variants`, or "" for none.
        variants: Dict from name to function `(config) -> None`.

    Raises:
        ValueError: No such variant.
    """
    if variant:
        if variant not in variants:
            raise ValueError(
                f"Unknown variant {variant!r} of {config.name!r}. Expected "
                f"one of {', '.join(map(repr, variants))}."
            )
        variants[variant](config)
        config.name = f"{config.name}_{variant}"
    return config


def smoke(config):
    """Makes a configuration one of seconds: for tests, and a first look.

    Every kind of arm, 600 rows, two levels of 20 steps.
    """
    config.replicates = 1
    config.eval_every = 10
    config.data.rows = 600
    config.train.steps = 20
    config.train.batch_size = 20
    config.prune.levels = 2
    config.controls.one_shot = True


def names():
    """Returns the names of the bundled config files, sorted."""
    found = {
        path.stem
        for folder in _FOLDERS
        for path in folder.glob("*.py")
        if not path.stem.startswith("_")
    }
    return sorted(found)


def describe(name):
    """Returns (first line of the docstring, names of the variants)."""
    module = _module(_path(name))
    summary = (module.__doc__ or "").strip().split("\n")[0]
    return summary, list(getattr(module, "VARIANTS", {}))


def check(config):
    """Raises a ValueError unless a configuration has exactly the tree."""
    known, given = flat(defaults()), flat(config)
    for path in given:
        if path not in known:
            raise ValueError(
                f"Unknown setting {path!r}.{_nearest(path, known)} A "
                "configuration starts from `configuration.defaults()`."
            )
    missing = sorted(set(known) - set(given))
    if missing:
        raise ValueError(f"The configuration lacks {', '.join(missing)}.")


def flat(config):
    """Returns settings by dotted path; `arguments` trees stay whole.

    Example:

    >>> flat(defaults())["prune.levels"]
    10
    """
    plain = config.to_dict() if hasattr(config, "to_dict") else config
    found = {}
    for name, value in plain.items():
        if isinstance(value, dict) and name != "arguments":
            found.update({f"{name}.{k}": v for k, v in flat(value).items()})
        else:
            found[name] = value
    return found


def _nearest(path, known):
    close = difflib.get_close_matches(path, known, 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _tree(**settings):
    return ml_collections.ConfigDict(settings)


def _path(name):
    if "/" in name or name.endswith(".py"):
        path = pathlib.Path(name)
        if not path.is_file() or path.suffix != ".py":
            raise ValueError(
                f"{name} is no config file: it must be there and end in .py."
            )
        return path
    for folder in _FOLDERS:
        path = folder / f"{name}.py"
        if path.exists():
            return path
    close = difflib.get_close_matches(name, names(), 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"Unknown config {name!r}.{hint} Expected one of "
        f"{', '.join(names())}, or a path with a slash such as "
        "./my_config.py."
    )


def _module(path):
    spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(
            f"{path}, line {error.lineno}: {error.msg}."
        ) from error
    return module
