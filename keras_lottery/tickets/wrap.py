"""`lottery.prune`: where a user begins."""

from keras_lottery.environment import is_legacy
from keras_lottery.pruning import schedules
from keras_lottery.pruning import weights
from keras_lottery.tickets.pruned_model import PrunedModel
from keras_lottery.training import replicas


def prune(
    model,
    schedule=None,
    *,
    rewind=None,
    rewind_step=0,
    criterion="magnitude",
    allocation="global",
    layers=None,
    data=None,
    seed=0,
    mask=None,
):
    """Wraps a Keras model so that `fit` finds lottery tickets in it.

    The result is a `keras.Model`: compile, fit, evaluate, predict and save it
    as any other. `fit` trains the dense model, then prunes, rewinds and trains
    again, once per level of the schedule. The wrapped model itself is not
    rebuilt or copied; `strip()` returns it.

    A legacy (tf_keras) model gets tfmot's own wrappers around its layers and
    the same `fit`; see `tickets/legacy.py`.

    Args:
        model: A built Keras 3 model, Sequential, Functional or subclassed; or
            a legacy one that is Sequential or Functional.
        schedule: `IterativePruning(0.2, 10)` by default; any tfmot
            `PruningSchedule`, or a dict of name pattern to schedules (fnmatch,
            first match wins, weights that fit none are not pruned).
        rewind: What a level starts from. `"weights"`: all state of the rewind
            step (the default of schedules that count in levels).
            `"learning_rate"`: trained weights, iteration and learning rate of
            that step. `"fine_tune"`: nothing goes back and the last learning
            rate stays. `"continue"`: nothing goes back. `"none"`: the same,
            and the default of tfmot's own schedules, which prune in place.
        rewind_step: The step k to rewind to; 0 is the initialisation.
        criterion: Which weights matter: a name in
            `lottery.criteria.CRITERIA` or a function
            `(model, start, data) -> {name: scores}`.
        allocation: How the budget spreads over layers: `"global"`,
            `"layerwise"`, `"erdos_renyi"`, `"erdos_renyi_kernel"` or a
            function `(scores, mask, keep) -> Mask`.
        layers: None for all kernels, or a list of layers and name patterns;
            embeddings are pruned only when named here.
        data: Given to the criterion.
        seed: Seed of the data order, and of a criterion that draws.
        mask: What to begin with: a `Mask`, a `Ticket` (its mask; `restore` puts
            back its weights), or `"nonzero"` for a model that is sparse
            already. Level 0 is trained under it, and the schedule goes on from
            there: `IterativePruning(0.2, 5, initial_sparsity=0.5)`.

    Returns:
        A `PrunedModel`; of a legacy model a `tf_keras` one.

    Raises:
        ValueError: A model that is not built or has nothing to prune, a
            legacy one that is subclassed; names or numbers out of range; a
            schedule that asks for less sparsity than `mask` has.

    Example:

    >>> import keras, numpy as np, keras_lottery as lottery
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> pruned = lottery.prune(model, lottery.IterativePruning(0.5, levels=2))
    >>> pruned.compile("adam", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 2))
    >>> history = pruned.fit(x, y, epochs=3, verbose=0)
    >>> [ticket.mask.kept for ticket in pruned.tickets]
    [8, 4, 2]

    Reference: Frankle & Carbin (2019), section 2.
    """
    choices = {
        "rewind": rewind,
        "rewind_step": rewind_step,
        "criterion": criterion,
        "allocation": allocation,
        "data": data,
        "seed": seed,
    }
    if is_legacy(model):
        from keras_lottery.tickets import legacy

        if mask is not None:
            raise ValueError(
                "`mask` is for Keras 3 models; this one is of tf_keras. "
                "Restore a ticket into its Keras 3 twin, and prune that."
            )
        return legacy.prune(model, schedule, layers=layers, **choices)
    if isinstance(model, PrunedModel):
        raise ValueError(
            "This model is pruned already: continue with its `fit`, or prune "
            "`model.strip()`."
        )
    schedule = schedules.IterativePruning() if schedule is None else schedule
    names = list(weights.prunable(model, layers))  # refuses what is no model
    # Masks live where the weights do, wherever `prune` is called.
    with replicas.in_scope(model):
        return PrunedModel(
            model,
            schedule,
            names=names,
            mask=mask,
            **choices,
        )
