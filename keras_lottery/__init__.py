"""keras_lottery: finds, questions and ships lottery tickets in Keras.

Importing the package imports neither TensorFlow nor tfmot; each name is loaded
when it is first used.
"""

import importlib

from keras_lottery import registration

__version__ = "0.1.0"

_HOMES = {
    "ConstantSparsity": "tfmot_bridge",
    "IterativePruning": "pruning.schedules",
    "LayerCollapseWarning": "errors",
    "InexactMaskWarning": "errors",
    "ListedSparsities": "pruning.schedules",
    "Mask": "pruning.mask",
    "OneShot": "pruning.schedules",
    "PolynomialDecay": "tfmot_bridge",
    "PrunedModel": "tickets.pruned_model",
    "PruningCallback": "tickets.pruning_callback",
    "RunError": "errors",
    "Ticket": "tickets.ticket",
    "TicketError": "errors",
    "attach": "training.enforce",
    "dead_units": "tickets.pictures.tables",
    "detach": "training.enforce",
    "export": "exporting.saved_model",
    "find_mask": "pruning.find",
    "find_tickets": "tickets.search",
    "load_digits": "data.digits",
    "masked": "training.enforce",
    "masked_gradients": "training.enforce",
    "nonzero_mask": "tickets.zeros",
    "prune": "tickets.wrap",
    "sparsify": "tickets.one_shot",
    "sparsity": "tickets.zeros",
}
_MODULES = {
    "allocation": "pruning.allocation",
    "controls": "tickets.controls",
    "criteria": "pruning.criteria",
    "interchange": "interchange",
    "legacy": "tickets.legacy",
    "pictures": "tickets.pictures",
}
_WITHOUT_KERAS = {"errors", "data.digits", "pruning.mask"}

__all__ = sorted([*_HOMES, *_MODULES])


def __getattr__(name):
    home = _HOMES.get(name) or _MODULES.get(name)
    if home is None:
        raise AttributeError(f"module 'keras_lottery' has no name {name!r}")
    if home not in _WITHOUT_KERAS:
        from keras_lottery.environment import require_tensorflow_backend

        require_tensorflow_backend()
        _announce()
    module = importlib.import_module(f"keras_lottery.{home}")
    found = module if name in _MODULES else getattr(module, name)
    globals()[name] = found
    return found


def __dir__():
    return sorted({*globals(), *__all__})


def _announce():
    registration.announce("PrunedModel", lambda: __getattr__("PrunedModel"))
    registration.announce("TakeFeatures", _take_features)


def _take_features():
    home = importlib.import_module("keras_lottery.exporting.shrinking.features")
    return home.TakeFeatures


_announce()
