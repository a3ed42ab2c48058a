"""A second lottery as far as the first, that shares nothing which changes."""

import copy

from keras_lottery.training import replicas
from keras_lottery.training import state


def copied(pruned, memo):
    """Returns a deep copy of a `PrunedModel`, tickets and rewind point too.

    Criteria, allocations, data and tickets are the same objects: nothing in a
    lottery changes them.

    Args:
        pruned: The `PrunedModel`.
        memo: As in `__deepcopy__`.
    """
    chosen = pruned.settings
    with replicas.in_scope(pruned):
        twin = type(pruned)(
            copy.deepcopy(pruned.inner, memo),
            pruned.schedule,
            names=list(chosen.names),
            mask=chosen.mask,
            name=pruned.name,
            **chosen.choices(),
        )
    memo[id(pruned)] = twin
    twin.step_mode = pruned.step_mode
    optimizer = _compiled_as(pruned, twin)
    now = state.snapshot(pruned.inner, optimizer)
    twin.adopt_mask(pruned.mask, pruned.level)
    state.restore(now, twin.inner, twin.optimizer if optimizer else None)
    twin.clock.assign(pruned.clock.numpy())
    _go_on(pruned.played, twin.played)
    return twin


def _compiled_as(pruned, twin):
    """Compiles the twin; returns the first one's optimizer if it is built."""
    if not pruned.compiled:
        return None
    with replicas.in_scope(pruned):
        twin.compile_from_config(pruned.get_compile_config())
    if not pruned.optimizer.built:
        return None
    twin.hold_optimizer()
    return pruned.optimizer


def _go_on(played, twin):
    twin.tickets = list(played.tickets)
    twin.progress = copy.copy(played.progress)
    twin.after = played.after
