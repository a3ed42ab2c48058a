"""What can be checked of a run or a ticket from disk alone.

Nothing that a run names is imported or executed. The proofs are those of
`tickets/proofs.py`, which ran while the run was played.
"""

import hashlib
import os

import ml_collections

from keras_lottery import regular_file
from keras_lottery.errors import RunError
from keras_lottery.errors import TicketError
from keras_lottery.pruning import allocation
from keras_lottery.pruning import find
from keras_lottery.pruning import groups
from keras_lottery.pruning import schedules
from keras_lottery.runs import arms
from keras_lottery.runs import chain
from keras_lottery.runs import formats
from keras_lottery.runs import identity
from keras_lottery.runs import made
from keras_lottery.runs import paths
from keras_lottery.runs import schedule
from keras_lottery.runs import tables
from keras_lottery.tickets import proofs
from keras_lottery.tickets.ticket import Ticket
from keras_lottery.training import early_stopping

_DAMAGE = (RunError, TicketError, OSError)


def differences_of_run(run, tell=lambda where: None):
    """Returns what is not as it should be, as sentences; none if all is well.

    Checks the name against the configuration, every file against its
    checksum, levels.csv against the levels, what was made of the run, and of
    the tickets: counts against the schedule, masks nested in those of the
    level before, starts against what the rewind declares, numbers finite.
    What cannot be read is a difference, and the rest is looked at.

    Args:
        run: A `RunDirectory`.
        tell: Called with (replicate, arm, level) before a level is read.
    """
    found = []
    config = _tried(found, run.read_config)
    if config is not None:
        found += _of_name(run, config)
    found += _tried(found, tables.differences, run) or []
    found += _tried(found, _of_gaps, run) or []
    found += made.differences(run)
    found += _tried(found, _of_times, run) or []
    links = chain.Chain(run, config or {})
    for where in _tried(found, run.levels) or []:
        tell(where)
        found += _of_files(run, where)
        label = "/".join(map(str, where))
        found += [f"{label}: {x}" for x in _of_level(run, config, where, links)]
    return list(dict.fromkeys(found))  # a file may be read for two reasons


def differences_of_ticket(ticket):
    """Returns what cannot be right in a ticket by itself, as sentences."""
    parts = {
        "start": {**ticket.start, **ticket.start_state},
        "end": {**ticket.end, **ticket.end_state},
    }
    found = [
        f"the {which} of {sentence}"
        for which, values in parts.items()
        if (sentence := proofs.finite(values))
    ]
    if sentence := proofs.losses(ticket.metrics):
        found.append(sentence)
    if ticket.level == 0 and ticket.mask.kept != ticket.mask.size:
        found.append("level 0 is dense, and its mask is not")
    recorded = ticket.provenance.get("schedule")
    if recorded and ticket.level:
        found += _of_recorded_counts(ticket, recorded)
    return found


def _of_level(run, config, where, links):
    path = run.file(*where, paths.TICKET)
    if not os.path.exists(path):
        found = []
        return _tried(found, _of_curve, run, where) or []
    found = []
    ticket = _tried(found, Ticket.load, path)
    if ticket is None:
        return found
    found += differences_of_ticket(ticket)
    row = _tried([], run.row, *where)  # of a damaged one is told already
    if row is not None:
        found += _of_row(row, ticket)
        found += links.differences_of_parents(where)
    if config is not None:
        found += _of_counts(config, ticket)
    found += _tried(found, links.differences, where, ticket) or []
    return found


def _tried(found, look, *arguments):
    """Returns what `look` does; None, and one more difference, if it raises."""
    try:
        return look(*arguments)
    except _DAMAGE as error:
        found.append(str(error))
        return None


def _of_name(run, config):
    tree = ml_collections.ConfigDict(config)
    right = f"{config['name']}-{identity.identity(tree)}"
    name = os.path.basename(os.path.abspath(run.path))
    if name == right:
        return []
    return [f"the directory is called {name}, its configuration {right}"]


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
    for name, right in (_tried(found, run.checksums, *where) or {}).items():
        label = "/".join([*map(str, where), name])
        path = _tried(found, run.file, *where, name)
        if path is None:
            continue
        if not os.path.exists(path):
            # Dropped meanwhile by whoever plays the run, or lost.
            if name in (_tried([], run.checksums, *where) or ()):
                found.append(f"{label} is missing")
        elif _tried(found, _digest, path) not in (right, None):
            found.append(f"{label} differs from its checksum")
    return found


def _of_times(run):
    """What does not count for a level, and is named by itself."""
    return [
        f"{'/'.join(map(str, where))}/{paths.TIME} is damaged"
        for where in run.levels()
        if os.path.lexists(run.file(*where, paths.TIME))
        and not run.time(*where)
    ]


def _digest(path):
    with regular_file.opened(path) as (file, _):
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    except (RunError, ValueError, TypeError, KeyError) as error:
        return [f"its {paths.METRICS} is damaged: {error!r}"]
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
        prune = ml_collections.ConfigDict(config).prune
        grouped = schedule.of(prune)
        return _counted(ticket, grouped, prune.allocation)
    except (ValueError, AttributeError, TypeError, IndexError) as error:
        return [f"config.json has no schedule for it: {error}"]


def _of_recorded_counts(ticket, recorded):
    """Compares counts with the schedule in the ticket itself."""
    try:
        grouped = groups.check(schedules.deserialize(recorded))
        if not groups.counts_in_levels(grouped):
            return []  # which of its steps have fired, the ticket does not say
        return _counted(ticket, grouped, ticket.provenance.get("allocation"))
    except Exception as error:  # it may hold anything
        return [
            f"its schedule cannot be read ({type(error).__name__}: {error})"
        ]


def _counted(ticket, grouped, name):
    """Compares the counts of a mask with a schedule.

    Args:
        ticket: The `Ticket`.
        grouped: Dict from pattern to level schedule.
        name: Of the allocation; one that is not ours may keep fewer.
    """
    governed = groups.assign(list(ticket.mask), list(grouped))
    sparsities = groups.sparsities(grouped, ticket.level)
    budgets = find.budgets_of(governed, sparsities, ticket.mask)
    if ticket.provenance.get("control") == "randomize":  # over all layers
        together = [name for names, _ in budgets for name in names]
        budgets = [(together, sum(count for _, count in budgets))]
    exactly = allocation.counts_exactly(name)
    return [
        sentence
        for budget in budgets
        if (sentence := proofs.counts(ticket.mask, [budget], exactly=exactly))
    ]
