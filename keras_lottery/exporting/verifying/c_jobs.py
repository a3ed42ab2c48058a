"""What a process without TensorFlow's Python does for `served`.

    python -m keras_lottery.exporting.verifying.c_jobs JOB.json

A job is JSON: `task`, one of `TASKS`; `exports`, a list of {path, feeds,
fetches}, the last two from names to places in the graph; `threads` of a
session; `library`, the directory of TensorFlow's libraries, or null; `result`,
the file for {"found": ...} or {"error": message}.
"""

import json
import sys
import time

import numpy as np

from keras_lottery.exporting.verifying import c_library
from keras_lottery.exporting.verifying import c_session

STATUS = "/proc/self/status"


def main(path):
    """Does a job; returns the exit code."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    try:
        result = {"found": TASKS[job["task"]](job)}
        if "tensorflow" in sys.modules:
            result = {"error": "TensorFlow's Python was imported"}
    except (c_library.SessionError, ValueError, OSError) as error:
        result = {"error": str(error)}
    with open(job["result"], "w", encoding="utf-8") as file:
        json.dump(result, file)
    return 1 if "error" in result else 0


def answers(job):
    """Writes what all exports, loaded together, answer; returns the release.

    `given` and `found` of each export are lists of files of arrays.
    """
    sessions = [_session(job, export) for export in job["exports"]]
    for export, session in zip(job["exports"], sessions, strict=True):
        files = zip(export["given"], export["found"], strict=True)
        for given, found in files:
            outputs = session.run(
                _fed(export, given), list(export["fetches"].values())
            )
            write_arrays(
                found, dict(zip(export["fetches"], outputs, strict=True))
            )
    for session in sessions:
        session.close()
    return c_library.version(job["library"])


def timings(job):
    """Returns the seconds of each export, of each batch, of each round.

    All exports are loaded, and take turns within a round: what else the
    machine does meets all of them. The first two rounds are not counted.
    """
    requests = []
    for export in job["exports"]:
        session = _session(job, export)
        fetches = list(export["fetches"].values())
        requests.append(
            [
                session.request(_fed(export, given), fetches)
                for given in export["given"]
            ]
        )
    found = [[[] for _ in row] for row in requests]
    for round_ in range(job["rounds"] + 2):
        for batch in range(len(job["exports"][0]["given"])):
            # Whoever is first in one round is last in the next.
            order = range(len(requests))
            for i in order if round_ % 2 else reversed(order):
                spent = requests[i][batch].seconds()
                if round_ >= 2:
                    found[i][batch].append(spent)
    return found


def loading(job):
    """Returns the seconds and bytes of loading the only export.

    `resident` and `peak` are what the process grew by.
    """
    (export,) = job["exports"]
    c_library.library(job["library"])
    before = memory()
    began = time.perf_counter()
    session = _session(job, export)
    spent = time.perf_counter() - began
    after = memory()
    session.close()
    return {
        "seconds": spent,
        "resident": after["resident"] - before["resident"],
        "peak": after["peak"] - before["resident"],
    }


TASKS = {"answers": answers, "timings": timings, "loading": loading}


def memory():
    """Returns bytes of this process: `resident` now, and at its `peak`.

    Where the system has no /proc, both are the peak.
    """
    try:
        with open(STATUS, encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
    except FileNotFoundError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return {"resident": peak, "peak": peak}
    rows = {"resident": "VmRSS", "peak": "VmHWM"}
    return {k: 1024 * int(lines[v].split()[0]) for k, v in rows.items()}


def write_arrays(path, arrays):
    """Writes a dict of arrays, bfloat16 too, which an .npz does not know."""
    np.savez(
        path,
        **{
            f"{value.dtype} {name}": _as_bytes(value)
            for name, value in arrays.items()
        },
    )


def read_arrays(path):
    """Returns what `write_arrays` wrote."""
    dtypes = {str(dtype): dtype for dtype in c_library.CODES}
    found = {}
    with np.load(path) as file:
        for key in file.files:
            dtype, name = key.split(" ", 1)
            value = file[key]
            found[name] = value.view(dtypes[dtype]).reshape(value.shape[:-1])
    return found


def _as_bytes(value):
    flat = np.ascontiguousarray(value).reshape(-1)
    return flat.view(np.uint8).reshape(*value.shape, value.dtype.itemsize)


def _session(job, export):
    return c_session.Session(export["path"], job["threads"], job["library"])


def _fed(export, path):
    given = read_arrays(path)
    return {place: given[name] for name, place in export["feeds"].items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
