"""The errors and warnings of this package beside `ValueError`."""


class TicketError(Exception):
    """A ticket that cannot be read, or that does not fit the model."""


class RunError(Exception):
    """A lottery that cannot go on: diverged training, a damaged run."""


class WorkerLostError(RunError):
    """One of several workers ended: start all again, and training goes on."""


class LayerCollapseWarning(UserWarning):
    """A pruning emptied a whole layer, so nothing passes through it."""


class InexactMaskWarning(UserWarning):
    """Zeros hold, but training differs from the sub-network's own."""
