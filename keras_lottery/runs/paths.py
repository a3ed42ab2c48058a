"""Where the files of a run are. Nobody else joins paths of a run.

runs/digits-0123456789ab/
    config.json, levels.csv, times.csv, tables.json
    report.html, made.json, export/1/
    replicate_0/ticket/level_3/ticket.safetensors, metrics.csv, time.json,
                               level.json
    replicate_0/ticket/level_4/checkpoint-00000002-....safetensors
    replicate_0/reinitialized_0/level_3/...
    damaged/0/...               what was found damaged, and is made again
"""

import os
import re

from keras_lottery.errors import RunError

CONFIG, LEVELS, TIMES, REPORT = (
    "config.json",
    "levels.csv",
    "times.csv",
    "report.html",
)
TABLES = "tables.json"
EXPORT, MADE, LOCK, DAMAGED = "export", "made.json", ".lock", "damaged"
TICKET, METRICS, DONE = "ticket.safetensors", "metrics.csv", "level.json"
TIME, TICKET_ARM = "time.json", "ticket"
CHECKPOINT = "checkpoint-"  # how the names of checkpoints begin
# What a rewind needs to go on after a stop, beside tickets.
POINT, END = "point.safetensors", "end.safetensors"
OF_A_LEVEL = (TICKET, METRICS, POINT, END)

_LEVEL = re.compile(
    r"replicate_(0|[1-9][0-9]*)/([A-Za-z0-9_]+)/level_(0|[1-9][0-9]*)"
)


def inside(root, *parts):
    """Returns a path below `root`.

    Raises:
        RunError: It leads out of it, as the links of a stranger's run may.
    """
    path = os.path.join(root, *parts)
    real = os.path.realpath(root)
    if os.path.commonpath([real, os.path.realpath(path)]) != real:
        raise RunError(f"{path} leads out of the run: remove it.")
    return path


def of_level(root, replicate, arm, level, *name):
    """Returns the folder of a level, or the path of a file in it.

    Example:

    >>> of_level("run", 0, "ticket", 3, TICKET)
    'run/replicate_0/ticket/level_3/ticket.safetensors'
    """
    folder = f"replicate_{replicate}/{arm}/level_{level}"
    if not _LEVEL.fullmatch(folder):
        raise RunError(f"{folder} is not the name of a level.")
    return inside(root, *folder.split("/"), *name)


def lock_of_part(part):
    """Returns the name of the lock of a part.

    Example:

    >>> lock_of_part("replicate_0/ticket")
    '.lock-replicate_0-ticket'
    """
    return f"{LOCK}-{part}".replace("/", "-")


def locks_of_parts(root):
    """Returns the names of the locks of parts that were ever played alone."""
    if not os.path.isdir(root):
        return []
    return sorted(n for n in os.listdir(root) if n.startswith(f"{LOCK}-"))


def walk(root):
    """Yields (replicate, arm, level) of every folder of a level."""
    for replicate in folders(root):
        for arm in folders(inside(root, replicate)):
            for level in folders(inside(root, replicate, arm)):
                match = _LEVEL.fullmatch(f"{replicate}/{arm}/{level}")
                if match:
                    yield int(match[1]), match[2], int(match[3])


def folders(path):
    """Returns the names of the folders in a folder, sorted."""
    if not os.path.isdir(path):
        return []
    return sorted(n for n in os.listdir(path) if os.path.isdir(f"{path}/{n}"))


def set_aside(root, path):
    """Moves a file or folder of a run to a new place in its folder `damaged`.

    Returns:
        Where it is now.
    """
    number = 0
    while os.path.lexists(inside(root, DAMAGED, str(number))):
        number += 1
    place = inside(root, DAMAGED, str(number), os.path.relpath(path, root))
    os.makedirs(os.path.dirname(place))
    os.rename(path, place)
    return place


def check_name(name):
    """Returns the name of an experiment, which becomes part of a directory.

    Raises:
        ValueError: It has characters that a directory should not have.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(
            f"The name {name!r} becomes part of a directory: use letters, "
            "digits, '-', '_' and '.'."
        )
    return name
