"""What `--samples` names: rows of a run's test data, or arrays in a file."""

import os
import zipfile

import numpy as np

from keras_lottery.cli import arguments

LABELS = ("y", "labels")


def of(text, run, data_dir=None):
    """Returns samples as `lottery.export` takes them.

    Args:
        text: A number of test rows, or the path of an `.npz` file: labels are
            called `y`, all other arrays are inputs.
        run: The `RunDirectory` that the ticket is from, or None.
        data_dir: Where tfds keeps its sets, or None for its own default.

    Raises:
        Usage: Neither, or a number without a run.
        ValueError: The file is none, or the data are not to be had.
    """
    if text.isdecimal() and int(text):
        return _of_run(int(text), run, data_dir)
    if text.endswith(".npz"):
        return _of_file(text)
    raise arguments.Usage(
        f"--samples={text} is neither a number of test rows (--samples=200, of "
        "a run) nor a file of arrays (--samples=images.npz)."
    )


def _of_run(rows, run, data_dir):
    if run is None:
        raise arguments.Usage(
            f"--samples={rows} takes test rows of a run's data: name the run's "
            "directory, or pass --samples=FILE.npz with arrays x and y."
        )
    from keras_lottery.data import sources

    wanted = run.read_config()["data"]
    if ":" in wanted["name"]:
        # A run may be a stranger's, and a function is code.
        raise ValueError(
            f"The run's data come from a function, {wanted['name']!r}, which "
            "export does not call. Pass --samples=FILE.npz with arrays x and y."
        )
    data = sources.load(
        wanted["name"],
        validation=wanted["validation"],
        rows=wanted["rows"] or None,
        data_dir=data_dir,
        **wanted["arguments"],
    )
    return tuple(part[:rows] for part in data.test)


def _of_file(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{os.path.basename(path)} is no .npz file of plain arrays: "
            f"{error}. Write one with `np.savez(path, x=images, y=labels)`."
        ) from error
    found = [arrays.pop(name) for name in LABELS if name in arrays]
    if len(found) > 1 or not arrays:
        raise ValueError(
            f"{os.path.basename(path)} holds "
            f"{', '.join(sorted(arrays)) or 'no inputs'}: expected inputs "
            "(`x`, or by the names of the model) and labels once, as `y`."
        )
    inputs = arrays if len(arrays) > 1 else next(iter(arrays.values()))
    return (inputs, *found) if found else inputs
