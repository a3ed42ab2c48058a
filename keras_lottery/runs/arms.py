"""Arms: the ticket, and what it is compared with at every level."""

import dataclasses
import re
from collections.abc import Callable
from typing import NamedTuple

from keras_lottery import choices
from keras_lottery import seeds
from keras_lottery.pruning import find
from keras_lottery.pruning import groups
from keras_lottery.runs import paths
from keras_lottery.tickets import controls
from keras_lottery.tickets import rewind
from keras_lottery.tickets.lottery import Lottery

TICKET = paths.TICKET_ARM
_ANEW = ("reinitialize", "reinitialize_signed")


class Arm(NamedTuple):
    """A comparison, trained once per level after the ticket itself.

    Fields:
        name: The folder: `reinitialized_0`.
        seed: Function from replicate to the seed of `make`, or None.
        make: Function `(dense, ticket, model, seed) -> Ticket`, untrained;
            `dense` is the ticket of level 0.
        anew: Whether it starts at step 0 from new weights, not at the rewind
            step from the ticket's.
    """

    name: str
    seed: Callable | None
    make: Callable
    anew: bool = False


def of(experiment):
    """Returns the arms of an experiment beside the ticket's."""
    wanted = experiment.config.controls
    found = [
        _control(experiment, name, repeat)
        for name in wanted.names
        for repeat in range(wanted.repeats)
    ]
    if wanted.one_shot:
        found.insert(0, Arm("one_shot", None, _one_shot(experiment)))
    for arm in found:
        _check_defined(arm, experiment)
    _check_names([arm.name for arm in found])
    return found


def lottery(experiment, model):
    """Returns the `Lottery` that an experiment plays on a model."""
    return Lottery.of(model, **search_arguments(experiment))


def search_arguments(experiment):
    """Returns the arguments of `find_tickets`, beside model and train."""
    config = experiment.config
    return {
        "schedule": experiment.schedule,
        "steps": experiment.steps,
        "rewind": config.rewind.name,
        "rewind_step": config.rewind.step,
        "criterion": experiment.criterion,
        "allocation": experiment.allocation,
        "layers": list(config.prune.layers) or None,
        "data": experiment.data.train,
        "seed": config.seed,
    }


def _control(experiment, name, repeat):
    function = controls.get(
        choices.chosen(name, "a control (ticket, model, seed) -> Ticket")
    )
    label = controls.ARMS.get(name, getattr(function, "__name__", "control"))

    def seed(replicate):
        root = experiment.config.seed
        return seeds.stream(root, "controls", replicate, repeat)

    def make(dense, ticket, model, seed):
        del dense
        return function(ticket, model, seed)

    return Arm(f"{label}_{repeat}", seed, make, name in _ANEW)


def _one_shot(experiment):
    def make(dense, ticket, model, seed):
        """Prunes the dense network in one go to what the ticket keeps."""
        del seed
        played = lottery(experiment, model)
        dense.restore(model, "end")
        sparsities = groups.sparsities(played.schedule, ticket.level)
        budgets = find.budgets_of(played.governed, sparsities, dense.mask)
        mask = find.prune_to(
            budgets,
            model,
            dense.mask,
            start=dense.start,
            criterion=played.criterion,
            allocation=played.allocation,
            data=played.data,
            seed=played.seed,
            level=ticket.level,
        )
        return dataclasses.replace(
            dense,
            mask=mask,
            end={},
            end_state={},
            level=ticket.level,
            metrics={},
            provenance={**ticket.provenance, "control": "one_shot"},
        )

    return make


def _check_names(names):
    """An arm is a folder: each needs a name of its own that can be one."""
    wrong = [n for n in names if not re.fullmatch(r"[A-Za-z0-9_]+", n)]
    if wrong or len(set(names)) < len(names):
        raise ValueError(
            f"controls.names gives the arms {', '.join(names)}: each needs a "
            "name of its own, of letters, digits and '_'. Use controls.repeats "
            "for more of one kind, and give functions other names."
        )


def _check_defined(arm, experiment):
    """A control keeps the start of its ticket, so there must be one start."""
    name = experiment.config.rewind.name
    if name not in ("weights", "continue") and not arm.anew:
        raise ValueError(
            f"The arm {arm.name!r} starts from the weights of the rewind "
            f"point, and rewind.name={name!r} has none. Leave it out: "
            "--config.controls.names=\"('reinitialize',)\" and "
            "--config.controls.one_shot=false are defined for every rewind."
        )


def needs_point(experiment):
    """Returns whether a stopped run needs the state of the rewind step."""
    return experiment.config.rewind.step > 0 or needs_end(experiment)


def needs_end(experiment):
    """Returns whether a stopped run needs the state its last level ended in."""
    chosen = rewind.get(experiment.config.rewind.name)
    return chosen.restore is not rewind.everything
