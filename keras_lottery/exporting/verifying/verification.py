"""Whether an export is what it says, from its files and its answers.

What it holds is looked at before any of it runs, and it runs in a process
without TensorFlow's Python.
"""

import os
import shutil

import ml_dtypes
import numpy as np
import tensorflow as tf

from keras_lottery.errors import TicketError
from keras_lottery.exporting import probe
from keras_lottery.exporting import warm_up
from keras_lottery.exporting.verifying import contents
from keras_lottery.exporting.verifying import inspection
from keras_lottery.exporting.verifying import operations
from keras_lottery.exporting.verifying import served
from keras_lottery.exporting.verifying import server

CLOSE = 1e-5  # of the largest number, across CPUs and releases
PROBE_ROWS = 2
SERVED_REQUESTS = 3  # of the recorded ones, by each way


def differences(path):
    """Returns what is wrong with an export, and what was looked at.

    Args:
        path: The version directory.

    Returns:
        (differences, notes): two lists of sentences. Without differences, the
        export is what it says, as far as the notes go.
    """
    path = os.fspath(path)
    found, notes = contents.of_links(path), []
    if found:
        return found, [f"{path} was not opened"]
    found += contents.of_card(path, notes)
    kinds = contents.other_kinds(path)
    if kinds and not os.path.exists(os.path.join(path, contents.SAVED_MODEL)):
        return found, notes + _not_run(kinds)
    try:
        saved = inspection.read(path)
        refused = operations.refused_of(saved)
        if refused:
            notes.append("nothing of it was loaded")
            return found + _of_operations(refused), notes
        signature = inspection.signature_of(inspection.served_graph(saved))
        return found + _of_answers(path, signature, notes), notes
    except (TicketError, ValueError) as error:
        return [*found, str(error)], notes


def _not_run(kinds):
    return [
        f"{name} is for {contents.OTHER_KINDS[ending]}: its answers were not "
        "looked at, only SavedModels are run"
        for name, ending in kinds.items()
    ]


def _of_operations(refused):
    found = []
    for op, nodes in refused.items():
        more = f" and {len(nodes) - 2} more" if len(nodes) > 2 else ""
        found.append(
            f"the graph holds {op}, which no model needs to answer: "
            f"{', '.join(nodes[:2])}{more}"
        )
    return found


def _of_answers(path, signature, notes):
    pairs, found = _recorded(path, signature, notes)
    answers = served.answers(path, [inputs for inputs, _ in pairs])
    by = f"by TensorFlow {served.release()}'s C API"
    notes.append(f"loaded, and requests answered {by}: {len(pairs)}")
    exact = True
    for i, ((_, recorded), answer) in enumerate(
        zip(pairs, answers, strict=True)
    ):
        label = f"request {i + 1}"
        if recorded:
            apart, same = compared(label, recorded, answer)
            found, exact = found + apart, exact and same
        else:
            found += _not_finite(label, answer)
    if any(recorded for _, recorded in pairs) and not found:
        notes.append(f"the answers are the recorded ones, {_how(path, exact)}")
    asked = [
        (inputs, answer)
        for (inputs, _), answer in zip(pairs, answers, strict=True)
    ]
    return found + _of_server(path, asked[:SERVED_REQUESTS], notes)


def _recorded(path, signature, notes):
    """Returns ([(inputs, outputs)], differences): recorded, or a probe."""
    pairs, found = [], []
    try:
        pairs = warm_up.read(path)
    except ImportError as error:
        notes.append(f"the recorded requests were not replayed: {error}")
    except ValueError as error:
        found.append(str(error))
    if pairs:
        return pairs, found
    notes.append(
        f"asked with {PROBE_ROWS} rows of random numbers instead of recorded "
        "requests: answers must be finite, nothing says which"
    )
    return [(_probe(signature), {})], found


def _probe(signature):
    """Returns made-up inputs; what is free beside the batch becomes 4."""
    return probe.batch(
        {
            name: tf.TensorSpec([n or 4 for n in each.shape or ()], each.dtype)
            for name, each in signature.inputs.items()
        },
        rows=PROBE_ROWS,
    )


def compared(label, expected, answer, close=CLOSE):
    """Returns (differences, whether all is equal bit for bit)."""
    if set(expected) != set(answer):
        return [
            f"{label}: the outputs are {sorted(answer)}, expected "
            f"{sorted(expected)}"
        ], False
    found, exact = [], True
    for name, right in expected.items():
        value = answer[name]
        if value.dtype != right.dtype or value.shape != right.shape:
            found.append(
                f"{label}: {name!r} is {value.dtype}{list(value.shape)}, "
                f"expected {right.dtype}{list(right.shape)}"
            )
        elif value.tobytes() != right.tobytes():
            exact = False
            both = {name: right}, {name: value}
            apart = probe.largest_difference(*both)[name]["relative"]
            if apart > _limit(right.dtype, close):
                found.append(
                    f"{label}: {name!r} is {apart:.3g} of its largest number "
                    "apart from what was expected"
                )
    return found, exact and not found


def _limit(dtype, close):
    """No answer is closer than the digits of its dtype; whole ones have all."""
    whole = dtype.kind in "iub"
    return 0.0 if whole else max(close, float(ml_dtypes.finfo(dtype).eps))


def _not_finite(label, answer):
    return [
        f"{label}: {name!r} is not finite"
        for name, value in answer.items()
        if value.dtype.kind not in "iub"
        and not np.isfinite(value.astype(np.float64)).all()
    ]


def _how(path, exact):
    if exact:
        return "bit for bit"
    versions = (contents.card(path) or {}).get("versions", {})
    release = versions.get("tensorflow", "of an unknown release")
    return (
        f"within {CLOSE:g} of the largest number, not bit for bit: they were "
        f"recorded with TensorFlow {release}, maybe on another kind of CPU"
    )


def _of_server(path, asked, notes):
    """Compares the real server's answers with those of the C API."""
    program = shutil.which(server.PROGRAM)
    if program is None:
        notes.append(
            f"{server.PROGRAM} is not on PATH: the C API stands in for it (a "
            "stand-in, not the server)"
        )
        return []
    try:
        with server.Server(path, program) as running:
            return [
                difference
                for way in server.WAYS
                for difference in _of_way(running, way, asked, notes)
            ]
    except (TicketError, OSError) as error:
        return [str(error)]


def _of_way(running, way, asked, notes):
    label = f"{server.PROGRAM} by {way}"
    asked = [pair for pair in asked if server.possible(way, *pair)]
    if not asked:
        notes.append(f"{label}: not asked, JSON does not carry such arrays")
        return []
    found = []
    try:
        for i, (inputs, answer) in enumerate(asked):
            got = server.ask(running, way, inputs, answer)
            found += compared(f"{label}, request {i + 1}", answer, got)[0]
    except ImportError as error:
        notes.append(f"{label}: not asked, {error}")
        return []
    except TicketError as error:
        return [f"{label}: {error}"]
    if not found:
        notes.append(f"{label}: as the C API's, requests: {len(asked)}")
    return found
