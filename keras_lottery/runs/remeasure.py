"""Measures tickets again, and compares with what their runs say of them.

The network and the data are those that the configuration of a run names, and
only where all of it is in this package: nothing of a stranger's is imported,
nothing downloaded, and no memory taken for weights that the tickets have not.
"""

import math
import re
from typing import NamedTuple

from keras_lottery.data import sources
from keras_lottery.errors import TicketError
from keras_lottery.models.networks import NETWORKS
from keras_lottery.runs import conditions
from keras_lottery.runs import configuration
from keras_lottery.runs import paths
from keras_lottery.runs.experiment import Experiment
from keras_lottery.tickets import ticket as tickets
from keras_lottery.tickets.ticket import Ticket
from keras_lottery.training import determinism
from keras_lottery.training import keras_private
from keras_lottery.training import measure

# What the numbers of a forward pass depend on, of what a run records.
_CONDITIONS = re.compile(
    "device|processor|strategy|replicas|deterministic|threads_.*|version_.*"
)
# Where conditions differ, so does the order of sums. On CPUs (1 and 2 threads,
# oneDNN or not) the losses of LeNet, ResNet-20 and VGG-19 were seen to differ
# by 2e-7, relative; GPUs round factors to 10 bits (TF32), which is 5e-4 each.
TOLERANCE = 1e-3


class Measured(NamedTuple):
    """What came of measuring again.

    Fields:
        differences: Sentences, of numbers that are not reproduced.
        note: A line on what was measured, or why nothing was.
    """

    differences: tuple
    note: str


class NotMeasured(Exception):
    """Why the numbers of a run cannot be measured here."""


def of_run(run, tell=lambda where: None):
    """Returns the `Measured` of all tickets of a run whose files are whole.

    Args:
        run: A `RunDirectory`.
        tell: Called with (replicate, arm, level) before a ticket is measured.
    """
    wheres = [
        where for where in run.levels() if paths.TICKET in run.checksums(*where)
    ]
    if not wheres:
        return Measured((), "metrics not measured again: no ticket is there")
    try:
        return _measured(run, wheres, tell)
    except NotMeasured as error:
        text = " ".join(str(error).split())[:500]  # a stranger's may be long
        return Measured((), f"metrics not measured again: {text}")


def _measured(run, wheres, tell):
    first = Ticket.load(run.file(*wheres[0], paths.TICKET))
    experiment = _experiment(run.read_config(), first)
    found, exact, changed = [], True, {}
    wanted = run.row(*wheres[0]).get("deterministic")
    with determinism.deterministic(bool(wanted)):
        ruler = Ruler(experiment)
        for where in wheres:
            tell(where)
            row = run.row(*where)
            ticket = Ticket.load(run.file(*where, paths.TICKET))
            others = ruler.changed(row)
            changed |= dict.fromkeys(others)
            sentences, bits = ruler.differences(ticket, exactly=not others)
            label = "/".join(map(str, where))
            found += [f"{label}: {each}" for each in sentences]
            exact = exact and bits
    return Measured(tuple(found), _note(len(wheres), found, exact, changed))


def _experiment(config, ticket):
    """Returns the `Experiment` of a configuration that can be trusted.

    Raises:
        NotMeasured: Why it is not made.
    """
    try:
        _check_trusted(config)
        experiment = Experiment(needed(config))
        check_size(experiment, ticket)
        return experiment
    except NotMeasured:
        raise
    except Exception as error:  # a stranger's settings may be anything
        raise NotMeasured(f"{type(error).__name__}: {error}") from error


class Ruler:
    """Measures tickets on the data of an experiment.

    Args:
        experiment: The `Experiment`.
    """

    def __init__(self, experiment):
        self._model, data = experiment.model, experiment.data
        self._rows = min(len(data.validation[1]), len(data.test[1]))
        self._sets = {
            "last_val_": measure.measure_on(self._model, data.validation),
            "last_test_": measure.measure_on(self._model, data.test),
        }
        self._model.optimizer.build(self._model.trainable_variables)
        self._here = conditions.of(self._model, "none", "graph")

    def changed(self, row):
        """Returns which conditions that a row records are others here."""
        return [
            name
            for name, value in row.items()
            if _CONDITIONS.fullmatch(name) and self._here.get(name) != value
        ]

    def differences(self, ticket, *, exactly):
        """Returns (sentences, whether all is the same bit for bit).

        Args:
            ticket: A trained `Ticket`.
            exactly: Whether the last bit counts.
        """
        ticket.restore(self._model, "end")
        found, exact = [], True
        for prefix, look in self._sets.items():
            for name, value in look().items():
                name = f"{prefix}{name}"
                recorded = ticket.metrics.get(name)
                if not isinstance(recorded, (int, float)):
                    continue
                tolerance = 0.0 if exactly else self.tolerance(name, recorded)
                exact = exact and _same(value, recorded, 0.0)
                if not _same(value, recorded, tolerance):
                    found.append(
                        f"{name} is {recorded} in the ticket, and its end "
                        f"weights give {value}" + _told(tolerance)
                    )
        return found, exact

    def tolerance(self, name, value):
        """Returns how far a number may be off under other conditions.

        A loss is a mean of smooth functions. Others may count samples, of
        which one that lies between two classes changes sides.
        """
        counted = 0.0 if name.endswith("loss") else 2 / self._rows
        return TOLERANCE * max(1.0, abs(value)) + counted


def needed(config):
    """Returns the configuration of what is measured, and of nothing else.

    Args:
        config: The configuration of a run, a dict.
    """
    found = configuration.defaults()
    found.seed = config["seed"]
    for name in ("name", "validation", "rows", "normalize"):
        found.data[name] = config["data"][name]
    for name in ("name", "width"):
        found.model[name] = config["model"][name]
    for name, value in config["model"]["arguments"].items():
        found.model.arguments[name] = value
    for name in ("loss", "metric", "mode", "weight_decay"):
        found.train[name] = config["train"][name]
    found.train.metrics = tuple(config["train"]["metrics"])
    return found


def check_size(experiment, ticket):
    """Raises unless the network has the weights of a ticket.

    Before it is built, as a stranger's configuration may name any width.

    Raises:
        NotMeasured: It has others.
    """
    start = {**ticket.start, **ticket.start_state}
    arguments = experiment.network_arguments()
    for name, value in arguments.items():
        count = len(value) if isinstance(value, (list, tuple)) else value
        if name in ("depth", "hidden") and not count <= len(start):
            raise NotMeasured(f"model.arguments.{name} is not the tickets'")
    try:
        with keras_private.without_values():
            tickets.check_fits(start, experiment.network(**arguments))
    except TicketError as error:
        raise NotMeasured(
            f"the network of config.json is another one. {error}"
        ) from error


def _check_trusted(config):
    """Raises where measuring would run what is not in this package."""
    data, train = config["data"], config["train"]
    names = [train["loss"], *train["metrics"]]
    if config["model"]["name"] not in NETWORKS:
        names.append(config["model"]["name"])
    if data["name"] not in sources.DATA_SETS:
        names.append(data["name"].replace("/", "_"))
    stranger = [each for each in names if not each.isidentifier()]
    if stranger:
        raise NotMeasured(
            f"config.json names {stranger[0]!r}, and what is not in this "
            "package is not imported to verify"
        )
    if data["arguments"]:
        raise NotMeasured("its data set takes arguments of its own")
    if train["arguments"].get("use_ema"):
        raise NotMeasured(
            "its optimizer averages weights, which are measured before the "
            "averages take their place"
        )


def _same(one, two, tolerance):
    if math.isnan(one) or math.isnan(two):
        return math.isnan(one) and math.isnan(two)
    return one == two or abs(one - two) <= tolerance


def _told(tolerance):
    if not tolerance:
        return ""
    return f" (more than {tolerance:.1e} apart, under other conditions)"


def _note(count, found, exact, changed):
    what = f"metrics of {count} ticket{'s' if count > 1 else ''} measured again"
    if found:
        return f"{what}: not reproduced"
    if exact:
        return f"{what}: the same, bit for bit"
    return (
        f"{what}: the same within {TOLERANCE:g}, and 2 samples where samples "
        "are counted; not bit for bit: not as recorded here are "
        f"{', '.join(changed) or 'perhaps the processor'}"
    )
