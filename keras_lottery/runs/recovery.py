"""Recovery: what is damaged is named and set aside, so that it is made again.

Called before a run is played, by the process that holds its lock. Nothing is
thrown away: what is damaged lies in the run's folder `damaged`.
"""

import hashlib
import logging
import os

from keras_lottery import files
from keras_lottery import regular_file
from keras_lottery.errors import DamageError
from keras_lottery.runs import made
from keras_lottery.runs import paths
from keras_lottery.runs import tables
from keras_lottery.runs import writing

log = logging.getLogger(__name__)


def recover(run, levels=None):
    """Sets damaged levels aside; tells of each in a warning.

    Args:
        run: The `RunDirectory`, locked.
        levels: List of the (replicate, arm, level) that may be touched; None
            for all of the run.
    """
    aside = None
    for where in paths.walk(run.path) if levels is None else levels:
        _tidy(run, where)
        if not run.is_done(*where):
            continue
        found = differences(run, where)
        if found:
            folder = paths.of_level(run.path, *where)
            with writing.explained(run.path, folder):
                aside = paths.set_aside(run.path, folder)
            log.warning(
                "Replicate %d, %s, level %d is damaged, and is trained again: "
                "%s. What was there is in %s.",
                *where,
                "; ".join(found),
                aside,
            )
        elif not _time_is_whole(run, where):
            path = run.file(*where, paths.TIME)
            moved = paths.set_aside(run.path, path)
            log.warning(
                "%s is damaged: that time is not known. See %s.", path, moved
            )
    if levels is None:
        files.remove_unfinished(run.path)
        again = [] if aside else tables.differences_now(run)
        for each in again + made.differences(run):
            log.warning("%s: %s. It is made again.", run.path, each)


def differences(run, where):
    """Returns what is not as it was written in a level, as sentences.

    Args:
        run: The `RunDirectory`.
        where: (replicate, arm, level) of a level that is done.
    """
    try:
        sums = run.checksums(*where)
    except DamageError as error:
        return [str(error)]
    wanted = {paths.METRICS} | ({paths.TICKET} & _of_tickets(where))
    found = [f"level.json names no {name}" for name in wanted - set(sums)]
    for name, right in sums.items():
        path = run.file(*where, name)
        if not os.path.isfile(path):
            found.append(f"{name} is missing")
        elif _digest(path) != right:
            found.append(f"{name} differs from its checksum")
    return found


def _of_tickets(where):
    return {paths.TICKET} if where[1] == paths.TICKET_ARM else set()


def _time_is_whole(run, where):
    path = run.file(*where, paths.TIME)
    return bool(run.time(*where)) or not os.path.lexists(path)


def _tidy(run, where):
    """Removes what a killed process left in a level that it was working on."""
    folder = paths.of_level(run.path, *where)
    if not os.path.isdir(folder):
        return
    files.remove_unfinished(folder)
    if run.is_done(*where):
        for name in os.listdir(folder):
            if name.startswith(paths.CHECKPOINT):
                os.unlink(os.path.join(folder, name))


def _digest(path):
    with regular_file.opened(path) as (file, _):
        return hashlib.file_digest(file, "sha256").hexdigest()
