"""keras-lottery list: what there is to choose from, and the runs there are."""

import os

from absl import flags

from keras_lottery.cli import arguments
from keras_lottery.printable import printable

USAGE = """\
keras-lottery list [WHAT]: what there is to choose from, and the runs there are.

Examples:
  keras-lottery list
  keras-lottery list runs --workdir=runs
  keras-lottery list configs

WHAT is one of configs, networks, data, criteria, allocations, rewinds,
controls, strategies, runs.
"""


def main(typed):
    """Runs the command; returns its exit code."""
    parsed = arguments.parse("list", USAGE, typed, _define, (0, 1))
    if parsed is None:
        return 0
    chosen, words = parsed
    if words and words[0] not in _SECTIONS:
        hint = arguments.nearest(words[0], _SECTIONS)
        raise arguments.Usage(
            f"Unknown {words[0]!r}.{hint} Expected one of "
            f"{', '.join(_SECTIONS)}."
        )
    sections = words or list(_SECTIONS)
    if not set(sections) <= _LIGHT:
        from keras_lottery.cli import start

        start.tensorflow()
    for section in sections:
        print(f"{section}")
        for line in _SECTIONS[section](chosen):
            print(printable(f"  {line}"))
    return 0


def _define(known):
    text = {"flag_values": known}
    flags.DEFINE_string("workdir", "runs", "Where runs are kept.", **text)
    flags.DEFINE_string(
        "data_dir", None, "Where tfds keeps its sets (TFDS_DATA_DIR).", **text
    )


def _configs(chosen):
    from keras_lottery.runs import configuration

    del chosen
    for name in configuration.names():
        summary, variants = configuration.describe(name)
        extra = f" (:{', :'.join(variants)})" if variants else ""
        yield f"{name:<18} {summary}{extra}"


def _networks(chosen):
    from keras_lottery.models import networks

    del chosen
    for name in networks.NETWORKS:
        yield networks.describe(name)


def _data(chosen):
    from keras_lottery.data import sources

    for name, where, ready in sources.known(chosen.data_dir):
        absent = "no images" if os.path.isdir(where) else "missing"
        yield f"{name:<24} {'ready' if ready else absent:<10} {where}"


def _criteria(chosen):
    from keras_lottery.pruning import criteria

    return _table(criteria.CRITERIA)


def _allocations(chosen):
    from keras_lottery.pruning import allocation

    return _table(allocation.ALLOCATIONS)


def _rewinds(chosen):
    from keras_lottery.tickets import rewind

    del chosen
    return [f"{name:<30} {_REWINDS.get(name, '')}" for name in rewind.REWINDS]


def _controls(chosen):
    from keras_lottery.tickets import controls

    return _table(controls.CONTROLS)


def _strategies(chosen):
    from keras_lottery.training import strategies

    del chosen
    here = strategies.found()
    for name, function in strategies.STRATEGIES.items():
        note = "" if name in here else " (no such device here)"
        summary = _summary(function).removeprefix("Returns ")
        yield f"{name:<30} {summary}{note}"


def _runs(chosen):
    from keras_lottery.runs import state_of_run

    found = state_of_run.table(chosen.workdir)
    return found or [f"none in {chosen.workdir}"]


def _table(functions):
    return [f"{name:<30} {_summary(f)}" for name, f in functions.items()]


def _summary(function):
    return (function.__doc__ or "").strip().split("\n")[0]


_REWINDS = {
    "weights": "weights and learning rate as at the rewind step",
    "learning_rate": "weights stay, the learning rate starts again",
    "fine_tune": "weights stay, trained on at the last learning rate",
    "continue": "trained on without a rewind; the ticket starts at step 0",
    "none": "trained on without a rewind",
}
_LIGHT = {"configs", "data", "runs"}  # they need no TensorFlow
_SECTIONS = {
    "configs": _configs,
    "networks": _networks,
    "data": _data,
    "criteria": _criteria,
    "allocations": _allocations,
    "rewinds": _rewinds,
    "controls": _controls,
    "strategies": _strategies,
    "runs": _runs,
}
