"""level.json: the record that a level is done, and of which files.

It names the run, so that the level of another run is not taken for one of this,
and the tickets that the level came from, so that what came from a ticket that
was trained again, and came out otherwise, is trained again, too.
"""

from keras_lottery import sealed_json
from keras_lottery.errors import DamageError
from keras_lottery.runs import formats
from keras_lottery.runs import paths

_NUMBERS = ("density", "kept", "size", "early_step", "level", "replicate")


def pack(run, row, sums, parents):
    """Returns the bytes of a record.

    Args:
        run: Identity of the run: 12 hex digits.
        row: Dict: the level's row of levels.csv.
        sums: Dict from file name to sha256.
        parents: Dict from `"ticket"` and `"dense"` to the sha256 of the ticket
            files that the level came from.
    """
    found = {"run": run, "row": row, "sha256": sums, "from": parents}
    return sealed_json.pack(found)


def read(path, run, where):
    """Returns a record, checked.

    Args:
        path: Path of the level.json.
        run: Identity of the run.
        where: (replicate, arm, level).

    Raises:
        RunError: There is none.
        DamageError: It is damaged, or of another run or level.
    """
    found = formats.read_sealed(path)
    for part in ("row", "sha256", "from"):
        if not isinstance(found.get(part), dict):
            raise DamageError(f"{path} is damaged: it has no {part!r}.")
    if found.get("run") != run:
        raise DamageError(
            f"{path} is of another run: of {found.get('run')!r}, not {run!r}."
        )
    _check_row(path, found["row"], where)
    stray = sorted(set(found["sha256"]) - set(paths.OF_A_LEVEL))
    if stray:
        raise DamageError(
            f"{path} is damaged: it names {stray}, which are not files of a "
            "level."
        )
    return found


def _check_row(path, row, where):
    found = tuple(row.get(name) for name in ("replicate", "arm", "level"))
    numbers = [
        value
        for name, value in row.items()
        if name in _NUMBERS or name.startswith(("val_", "test_", "last_"))
    ]
    if found != where or not all(
        isinstance(value, (int, float)) for value in numbers
    ):
        raise DamageError(
            f"{path} is damaged: its row is not one of this level."
        )
