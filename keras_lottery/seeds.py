"""One seed, many independent streams: one for each role and replicate."""

import numpy as np

from keras_lottery import checks

ROLES = ("init", "data order", "augmentation", "dropout", "controls")


def stream(seed, role, replicate=0, repeat=0):
    """Returns the seed of one role, independent of those of the others.

    `SeedSequence([seed, replicate, index of role, repeat])`, as an int below
    2**31.

    Args:
        seed: The lottery's seed, an int >= 0.
        role: One of `ROLES`.
        replicate: Which repetition of the experiment, an int >= 0.
        repeat: Which of several controls of one kind, an int >= 0.

    Example:

    >>> stream(0, "init") != stream(0, "data order")
    True
    """
    if role not in ROLES:
        raise ValueError(f"Unknown role {role!r}. Expected one of {ROLES}.")
    entropy = [checks.whole("seed", seed, 0), int(replicate), ROLES.index(role)]
    # A zero at the end changes nothing, so the first repeat adds none.
    entropy += [int(repeat)] if repeat else []
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
