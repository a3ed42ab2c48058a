"""The errors and warnings of this package beside `ValueError`."""


class TicketError(Exception):
    """A ticket that cannot be read, or that does not fit the model."""


class RunError(Exception):
    """A lottery that cannot go on: diverged training, a damaged run."""


class DamageError(RunError):
    """A file of a run that is not as it was written, or not of this run."""


class WorkerLostError(RunError):
    """One of several workers ended: start all again, and training goes on."""


class Preempted(SystemExit):
    """Asked to stop by SIGTERM, after saving: the same call goes on later.

    Uncaught, it ends the process with its exit code, 75.
    """


class LayerCollapseWarning(UserWarning):
    """A pruning emptied a whole layer, so nothing passes through it."""


class InexactMaskWarning(UserWarning):
    """Zeros hold, but training differs from the sub-network's own."""
