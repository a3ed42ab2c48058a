"""Runs that a disk or a stranger changed: what is damaged is noticed."""

import contextlib
import json
import os
import pathlib

import pytest
from hypothesis import strategies as st

from keras_lottery import sealed_json
from keras_lottery.errors import RunError
from keras_lottery.errors import TicketError
from keras_lottery.report import curves
from keras_lottery.report import page
from keras_lottery.runs import verify
from keras_lottery.runs.directory import RunDirectory

pytestmark = pytest.mark.thorough

_UNCHECKED = (".lock",)  # it is empty
# Without them nothing was made yet, or a process was killed before it wrote
# them: the next command makes them again.
_MAY_BE_GONE = ("made.json", "tables.json", "report.html")


@pytest.fixture(scope="module")
def files(tiny_run):
    """Paths of the files of a run, inside it."""
    found = [
        str(path.relative_to(tiny_run))
        for path in sorted(tiny_run.rglob("*"))
        if path.is_file() and not path.is_symlink()
    ]
    assert len(found) > 10
    return found


@contextlib.contextmanager
def written(path, content):
    """Lends a file another content, or none."""
    before = path.read_bytes()
    try:
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        yield
    finally:
        path.write_bytes(before)


def looked_at(path):
    """Returns what is wrong with a run, reading all of it; raises nothing."""
    found = []
    readers = (rows_of, verify.differences_of_run, reported, looked_for)
    for reader in readers:
        try:
            found += reader(RunDirectory.open(path)) or []
        except (RunError, TicketError, ValueError) as error:
            assert not isinstance(error, UnicodeError)
            found.append(str(error))
    assert len("".join(found)) < 100_000
    return found


def rows_of(run):
    """Reads what `report` reads."""
    for where in run.levels():
        run.checksums(*where)
    run.rows()


def reported(run):
    """Says what a report says in words; the plots are tested elsewhere."""
    rows = run.rows()
    points = curves.pool(rows, "accuracy")
    words = page.summary(rows) + page._caption(points)
    html = page._table(points, "accuracy") + page._facts({"c": words})
    assert "<script" not in html and "\x1b" not in html


def looked_for(run):
    """Reads what `run` reads before it goes on."""
    run.read_command()
    for where in run.levels():
        run.record(*where)


def test_a_whole_run_is_whole(tiny_run):
    """So that the others are found for what they change."""
    assert looked_at(tiny_run) == []


def test_damage_to_any_file_is_noticed(fuzz, drawn, tiny_run, files):
    """Whatever happened to the bytes of one of them, and if it is gone."""

    def holds(given):
        name, damage = given
        path = pathlib.Path(tiny_run, name)
        before = path.read_bytes()
        after = None if damage is None else drawn.damaged(before, damage)
        with written(path, after):
            found = looked_at(tiny_run)
        if os.path.basename(name) in _UNCHECKED:
            return
        if name in _MAY_BE_GONE and after is None:
            return
        assert found or means_the_same(name, before, after), name

    damage = drawn.damage | st.none()
    fuzz(st.tuples(st.sampled_from(files), damage), holds, 30)
    assert looked_at(tiny_run) == []


def means_the_same(name, before, after):
    """Whether two contents of a file hold the same."""
    if after is None or not name.endswith(".json"):
        return before == after
    try:
        return json.loads(before) == json.loads(after)
    except ValueError:
        return False


def test_files_that_changed_places_are_noticed(tiny_run, files):
    """Each is whole by itself, and where another should be."""
    kinds = {}
    for name in files:
        kinds.setdefault(os.path.basename(name), []).append(name)
    pairs = [
        (one, two)
        for base, names in kinds.items()
        if base not in _UNCHECKED
        for one in names
        for two in names
        if one < two
    ]
    assert len(pairs) >= 3

    def holds(pair):
        one, two = (pathlib.Path(tiny_run, each) for each in pair)
        with written(one, two.read_bytes()):
            assert looked_at(tiny_run), pair

    for pair in pairs:
        holds(pair)


def test_forged_records_are_no_surprise(fuzz, drawn, tiny_run, files):
    """Any value anywhere in a record, its checksum right."""
    records = [each for each in files if each.endswith(".json")]

    def holds(given):
        name, steps, value = given
        path = pathlib.Path(tiny_run, name)
        record = json.loads(path.read_bytes())
        record.pop("checksum", None)
        try:
            changed = drawn.changed(record, steps, value)
            sealed = isinstance(changed, dict)
            content = json.dumps(changed).encode()
            if sealed:
                content = sealed_json.pack(changed)
        except (UnicodeError, ValueError):
            return
        with written(path, content):
            looked_at(tiny_run)

    steps = st.lists(drawn.places, min_size=1, max_size=4)
    strategy = st.tuples(st.sampled_from(records), steps, drawn.json)
    fuzz(strategy, holds, 30)
    assert looked_at(tiny_run) == []
