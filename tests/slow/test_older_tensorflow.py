"""Exports in the C++ libraries of older releases. By hand: `make test-slow`."""

import collections
import importlib
import pathlib
import subprocess
import tempfile

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def older():
    """The script that is documented, as a module."""
    folder = pathlib.Path(__file__).parents[2] / "benchmarks"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("older_tensorflow")


@pytest.fixture(scope="module")
def rows(older):
    # Not pytest's directories, which stay: the libraries take 1.4 GB.
    with tempfile.TemporaryDirectory() as cache:
        try:
            for release in older.RELEASES:
                older.libraries(release, cache)
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip().splitlines() or ["no reason given"]
            pytest.skip(f"pip cannot download a wheel: {said[-1]}")
        with older.exported() as cases:
            yield list(older.measured(cases, older.RELEASES, cache))


def test_every_export_is_asked_in_every_release(older, rows):
    # 1 dense, and 2 compact formats with 4 kinds of values.
    expected = {
        (release, network): 9
        for release in older.RELEASES
        for network in older.NETWORKS
    }
    counts = collections.Counter((r["release"], r["network"]) for r in rows)
    assert counts == expected


def test_older_releases_answer_as_this_one_and_as_keras(rows):
    assert [row for row in rows if not row["holds"]] == []


def test_no_older_release_answers_otherwise_than_for_a_dense_export(rows):
    of_dense = {
        (row["release"], row["network"]): row["from_current"]
        for row in rows
        if row["format"] == "dense"
    }
    for row in rows:
        # Roundings of a kernel that changed; none is of ours.
        if of_dense[row["release"], row["network"]] == 0:
            assert row["from_current"] == 0, row


def test_an_answer_that_is_off_is_missed(older):
    with older.exported(["lenet"]) as cases:
        right = older.answers(cases)
        wrong = [
            {
                name: value + 1e-5 * np.abs(value).max()
                for name, value in found.items()
            }
            for found in right
        ]
        rows = list(older.compared(cases, "9.9.9", wrong, right))
    assert len(rows) == 9
    assert not any(row["holds"] for row in rows)
