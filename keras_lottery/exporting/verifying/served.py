"""What an export answers, how fast, and what it takes, as a server sees it.

All is measured in processes without TensorFlow's Python, by the C++ loader
that TF Serving calls.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import keras_lottery
from keras_lottery.errors import TicketError
from keras_lottery.exporting.verifying import c_jobs
from keras_lottery.exporting.verifying import c_library
from keras_lottery.exporting.verifying import inspection

TIMEOUT = 600  # seconds for all that a process is asked


def answers(path, batches, signature=inspection.SERVING, library=None):
    """Returns what a SavedModel answers: a list of {name: array}.

    Args:
        path: Directory of the SavedModel.
        batches: List of {input: array}, of the dtypes of the signature.
        signature: Which one.
        library: Directory of the libraries of another TensorFlow release.

    Raises:
        ValueError: A batch does not fit the signature.
        TicketError: It does not load or run; the message is TensorFlow's.
    """
    return together([(path, batches)], signature, library)[0]


def together(asked, signature=inspection.SERVING, library=None):
    """Returns what several SavedModels answer, loaded in one process.

    Args:
        asked: List of (path, batches); see `answers`.
        signature: Which one, of all.
        library: Directory of the libraries of another TensorFlow release.

    Returns:
        A list of answers for each of `asked`.
    """
    with tempfile.TemporaryDirectory() as folder:
        exports = []
        for i, (path, batches) in enumerate(asked):
            export = _export(path, batches, signature, f"{folder}/{i}")
            export["found"] = [
                f"{folder}/{i}_found_{n}.npz" for n in range(len(batches))
            ]
            exports.append(export)
        _done("answers", exports, folder, library=library)
        return [
            [c_jobs.read_arrays(found) for found in export["found"]]
            for export in exports
        ]


def request_times(
    paths, batches, rounds, threads=1, signature=inspection.SERVING
):
    """Measures requests to several SavedModels side by side, in one process.

    Args:
        paths: Directories of SavedModels with equal inputs.
        batches: List of {input: array}, of different batch sizes.
        rounds: How often each is asked; in each round all take turns.
        threads: Of an operation, and operations at a time.
        signature: Which one.

    Returns:
        {path: {batch size: array of seconds}}: of TensorFlow alone, no
        network and no Python.
    """
    paths = [os.fspath(path) for path in paths]
    sizes = [_batch_size(batch) for batch in batches]
    if len(set(sizes)) != len(sizes) or not sizes:
        raise ValueError(f"Expected batches of different sizes, got {sizes}.")
    with tempfile.TemporaryDirectory() as folder:
        exports = [
            _export(path, batches, signature, f"{folder}/{i}")
            for i, path in enumerate(paths)
        ]
        found = _done(
            "timings", exports, folder, rounds=rounds, threads=threads
        )
    return {
        path: {
            size: np.array(seconds)
            for size, seconds in zip(sizes, each, strict=True)
        }
        for path, each in zip(paths, found, strict=True)
    }


def load_times(paths, rounds):
    """Measures loading, each time in a fresh process; paths take turns.

    Returns:
        {path: (array of seconds, array of bytes)}: what the resident memory
        of the process grew by.
    """
    return {
        path: tuple(
            np.array([each[key] for each in found])
            for key in ("seconds", "resident")
        )
        for path, found in loads(paths, rounds).items()
    }


def loads(paths, rounds):
    """Returns {path: list of {seconds, resident, peak}}; see `load_times`.

    `peak` is the most that memory grew by while it was loaded.
    """
    found = {os.fspath(path): [] for path in paths}
    for _ in range(rounds):
        for path, each in found.items():
            with tempfile.TemporaryDirectory() as folder:
                export = {"path": path, "feeds": {}, "fetches": {}}
                each.append(_done("loading", [export], folder))
    return found


def release(library=None):
    """Returns the release of the C++ libraries: `"2.21.0"`."""
    with tempfile.TemporaryDirectory() as folder:
        return _done("answers", [], folder, library=library)


def _export(path, batches, signature, prefix):
    """Returns an export of a job; its batches are written into files."""
    known = inspection.signature(path, signature)
    given = [f"{prefix}_given_{n}.npz" for n in range(len(batches))]
    for file, batch in zip(given, batches, strict=True):
        c_jobs.write_arrays(file, fitting(batch, known))
    return {
        "path": os.fspath(path),
        "feeds": known.feeds,
        "fetches": known.fetches,
        "given": given,
    }


def fitting(batch, signature):
    """Returns a batch as arrays.

    Raises:
        ValueError: Names or dtypes are not those of the signature.
    """
    if set(batch) != set(signature.inputs):
        raise ValueError(
            f"Got the inputs {sorted(batch)}, expected "
            f"{sorted(signature.inputs)}."
        )
    arrays = {name: np.asarray(value) for name, value in batch.items()}
    for name, value in arrays.items():
        code = signature.inputs[name].dtype
        if code not in c_library.DTYPES:
            raise ValueError(
                f"The input {name!r} is of TensorFlow's type {code}, and only "
                "numbers and booleans can be fed."
            )
        if value.dtype != c_library.DTYPES[code]:
            raise ValueError(
                f"The input {name!r} is {value.dtype}, expected "
                f"{c_library.DTYPES[code]}: convert it with `astype`."
            )
    return arrays


def _batch_size(batch):
    return next(len(value) for value in batch.values())


def _done(task, exports, folder, library=None, threads=1, **settings):
    """Returns what a process found out."""
    job, result = f"{folder}/job.json", f"{folder}/result.json"
    with open(job, "w", encoding="utf-8") as file:
        json.dump(
            {
                "task": task,
                "exports": exports,
                "threads": threads,
                "library": None if library is None else os.fspath(library),
                "result": result,
                **settings,
            },
            file,
        )
    said = _run(job)
    if not os.path.exists(result):
        raise TicketError(
            f"The process that loads the export ended without an answer: {said}"
        )
    with open(result, encoding="utf-8") as file:
        found = json.load(file)
    if "error" in found:
        raise TicketError(found["error"])
    return found["found"]


def _run(job):
    root = str(pathlib.Path(keras_lottery.__file__).parent.parent)
    search = [root, os.environ.get("PYTHONPATH", "")]
    environment = {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, search)),
    }
    try:
        # -P: modules that lie where the user is are not imported.
        done = subprocess.run(
            [sys.executable, "-P", "-m", c_jobs.__name__, job],
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise TicketError(
            f"The process that loads the export took over {TIMEOUT} seconds "
            "and was ended."
        ) from error
    return f"exit code {done.returncode}: {done.stderr[-2000:].strip()}"
