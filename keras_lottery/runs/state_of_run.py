"""How far each run in a directory is."""

from keras_lottery.errors import RunError
from keras_lottery.runs import directory


def table(workdir):
    """Returns a line per run: its path, how far it is, and in which state.

    Args:
        workdir: Directory that holds runs.
    """
    found = []
    for run in directory.find_runs(workdir):
        try:
            done, total = progress(run)
            locked = run.is_locked()
        except RunError as error:
            found.append(f"{run.path}  unreadable: {error}")
            continue
        if locked:
            state = "running"
        else:
            state = "done" if done >= total else "stopped"
        found.append(f"{run.path}  {state}, {done} of {total} trainings")
    return found


def progress(run):
    """Returns (trainings done, trainings in all) of a run.

    Raises:
        RunError: Its configuration is damaged.
    """
    config = run.read_config()
    try:
        controls = config["controls"]
        arms = len(controls["names"]) * controls["repeats"]
        arms += bool(controls["one_shot"])
        levels = config["prune"]["levels"]
        total = config["replicates"] * (1 + levels * (1 + arms))
    except (KeyError, TypeError) as error:
        raise RunError(f"config.json is damaged: {error!r}.") from error
    return len(run.levels()), total
