"""What can be checked of a run or a ticket from disk alone.

Nothing that a run names is imported or executed.
"""

import hashlib
import os

import ml_collections
import numpy as np

from keras_lottery.errors import RunError
from keras_lottery.errors import TicketError
from keras_lottery.pruning import find
from keras_lottery.pruning import groups
from keras_lottery.runs import arms
from keras_lottery.runs import formats
from keras_lottery.runs import identity
from keras_lottery.runs import paths
from keras_lottery.runs import schedule
from keras_lottery.tickets.ticket import Ticket
from keras_lottery.training import early_stopping

# These rewinds start every level from the same weights.
_SAME_START = ("weights", "continue")


def differences_of_run(run, tell=lambda where: None):
    """Returns what is not as it should be, as sentences; none if all is well.

    Checks the name against the configuration, every file against its
    checksum, levels.csv against the levels, and of the tickets: counts against
    the schedule, masks nested in those of the level before, starts equal to
    that of level 0, numbers finite.

    Args:
        run: A `RunDirectory`.
        tell: Called with (replicate, arm, level) before a level is read.
    """
    config = run.read_config()
    found = _of_name(run, config) + _of_table(run) + _of_gaps(run)
    before = {}
    for where in run.levels():
        tell(where)
        found += _of_files(run, where)
        label = "/".join(map(str, where))
        path = run.file(*where, paths.TICKET)
        if not os.path.exists(path):
            found += [f"{label}: {each}" for each in _of_curve(run, where)]
            continue
        try:
            ticket = Ticket.load(path)
        except TicketError as error:
            found.append(str(error))
            continue
        found += [f"{label}: {each}" for each in differences_of_ticket(ticket)]
        found += [
            f"{label}: {each}"
            for each in [
                *_of_row(run.row(*where), ticket),
                *_of_counts(config, ticket),
                *_of_chain(config, where, ticket, before),
            ]
        ]
        if where[1] == arms.TICKET:
            before[where[0]] = before.get(where[0], {}) | {where[2]: ticket}
            before[where[0]].pop(where[2] - 2 or None, None)
    return found


def differences_of_ticket(ticket):
    """Returns what cannot be right in a ticket by itself, as sentences."""
    found = []
    for which, values in (("start", ticket.start), ("end", ticket.end)):
        for name, value in values.items():
            if not np.isfinite(np.asarray(value, np.float32)).all():
                found.append(f"the {which} of {name} is not finite")
    if ticket.level == 0 and ticket.mask.kept != ticket.mask.size:
        found.append("level 0 is dense, and its mask is not")
    return found


def _of_name(run, config):
    tree = ml_collections.ConfigDict(config)
    right = f"{config['name']}-{identity.identity(tree)}"
    name = os.path.basename(os.path.abspath(run.path))
    if name == right:
        return []
    return [f"the directory is called {name}, its configuration {right}"]


def _of_table(run):
    try:
        written = formats.read_csv(run.levels_path)
    except RunError as error:
        return [str(error)]
    rows = formats.as_csv(run.rows()).decode()
    if formats.as_csv(written).decode() == rows:
        return []
    return ["levels.csv is not what the levels say"]


def _of_gaps(run):
    """A run that was stopped lacks levels at the end, never in between."""
    done = set(run.levels())
    return [
        f"{replicate}/{arms.TICKET}/{earlier} is missing, and what came from "
        "it is there"
        for replicate, earlier in sorted(
            {(r, n - 1) for r, a, n in done if n and a == arms.TICKET}
            | {(r, n) for r, a, n in done if a != arms.TICKET}
        )
        if (replicate, arms.TICKET, earlier) not in done
    ]


def _of_files(run, where):
    found = []
    for name, right in run.checksums(*where).items():
        path = run.file(*where, name)
        label = "/".join([*map(str, where), name])
        if not os.path.exists(path):
            found.append(f"{label} is missing")
            continue
        with open(path, "rb") as file:
            if hashlib.sha256(file.read()).hexdigest() != right:
                found.append(f"{label} differs from its checksum")
    return found


def _of_row(row, ticket):
    there = {
        "kept": ticket.mask.kept,
        "size": ticket.mask.size,
        "level": ticket.level,
        **ticket.metrics,
    }
    return [
        f"{name} is {value} in the ticket and {row.get(name)} in its row"
        for name, value in there.items()
        if _differ(row.get(name), value)
    ]


def _of_curve(run, where):
    """Compares the row of a control without a ticket with its curve."""
    path = run.file(*where, paths.METRICS)
    try:
        curve = [_numbers(row) for row in formats.read_csv(path)]
    except (RunError, ValueError, TypeError) as error:
        return [f"its {paths.METRICS} is damaged: {error}"]
    row = run.row(*where)
    return [
        f"{name} is {value} by its curve and {row.get(name)} in its row"
        for name, value in early_stopping.summarize(curve).items()
        if _differ(row.get(name), value)
    ]


def _numbers(row):
    found = {name: float(value) for name, value in row.items() if value != ""}
    return {**found, "step": int(row["step"])}


def _differ(one, two):
    return one != two and not (one != one and two != two)  # NaN is NaN


def _of_counts(config, ticket):
    if ticket.level == 0:
        return []
    try:
        grouped = schedule.of(ml_collections.ConfigDict(config).prune)
        governed = groups.assign(list(ticket.mask), list(grouped))
        sparsities = groups.sparsities(grouped, ticket.level)
    except (ValueError, AttributeError, TypeError) as error:
        raise RunError(f"Its config.json is damaged: {error}") from error
    budgets = find.budgets_of(governed, sparsities, ticket.mask)
    if ticket.provenance.get("control") == "randomize":  # over all layers
        together = [name for names, _ in budgets for name in names]
        budgets = [(together, sum(count for _, count in budgets))]
    return [
        f"{', '.join(names)}: keeps {kept} weights, the schedule says {count}"
        for names, count in budgets
        if (kept := _kept(ticket.mask, names)) != count
    ]


def _of_chain(config, where, ticket, before):
    replicate, arm, level = where
    if arm != arms.TICKET or level == 0:
        return []
    earlier = before.get(replicate, {})
    found = []
    if level - 1 in earlier and not ticket.mask.issubset(
        earlier[level - 1].mask
    ):
        found.append("its mask keeps weights that the level before removed")
    same = config.get("rewind", {}).get("name") in _SAME_START
    if same and 0 in earlier:
        first = earlier[0].start
        found += [
            f"the start of {name} is not that of level 0"
            for name, value in ticket.start.items()
            if not np.array_equal(value, first.get(name))
        ]
    return found


def _kept(mask, names):
    kept = mask.kept_by_name
    return sum(kept[name] for name in names)
