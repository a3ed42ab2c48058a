"""Configurations that nobody could mean: said, and no traceback."""

import copy
import json
import pathlib

import pytest
from hypothesis import strategies as st

from keras_lottery import sealed_json
from keras_lottery.cli import arguments
from keras_lottery.cli import overrides
from keras_lottery.errors import RunError
from keras_lottery.pruning import schedules
from keras_lottery.runs import config_file
from keras_lottery.runs import configuration
from keras_lottery.runs import identity

pytestmark = pytest.mark.thorough


@pytest.fixture
def path(tmp_path):
    """Where the changed files go."""
    return tmp_path / "config.json"


def test_a_changed_config_file_is_refused_or_of_its_types(
    fuzz, drawn, tiny_run, path
):
    """Any value anywhere, its checksum right."""
    record = json.loads(pathlib.Path(tiny_run, "config.json").read_bytes())
    del record["checksum"]
    standard = configuration.flat(configuration.defaults())

    def holds(given):
        steps, value = given
        try:
            changed = drawn.changed(copy.deepcopy(record), steps, value)
            path.write_bytes(sealed_json.pack(changed))
        except (UnicodeError, ValueError, TypeError):
            return
        try:
            found = config_file.read(path)
        except RunError as error:
            assert len(str(error)) < 20_000
            return
        for name, right in configuration.flat(found).items():
            if isinstance(standard.get(name), (bool, int, str)):
                assert type(right) is type(standard[name]), name
        assert len(identity.identity(found)) == 12

    steps = st.lists(drawn.places, min_size=1, max_size=4)
    fuzz(st.tuples(steps, drawn.json), holds, 15)


WORDS = st.one_of(
    st.sampled_from(
        [
            "--config=digits:smoke", "--config", "--config=", "--config=../x",
            "--config=digits:", "--config=:smoke", "--config=no_such",
            "--config.seed=3", "--config.seed", "--noconfig.seed",
            "--config.train", "--config.", "--config..", "--config.a.b.c=1",
            "--noconfig.controls.one_shot", "--config.prune.rate=nan",
            "--config.model.arguments.x=(", "--config.model.arguments.x=[1]",
            "--config.data.arguments.__class__=1", "--", "-", "",
        ]
    ),
    st.builds(
        "--config.{}={}".format,
        st.sampled_from(sorted(configuration.flat(configuration.defaults()))),
        st.one_of(
            st.integers().map(str),
            st.floats().map(str),
            st.text(max_size=6),
            st.sampled_from(
                [
                    "__import__('os').abort()", "(" * 50, "1" * 5000, "()",
                    "(1,", "{'a': 1}", "True", "None", "9" * 400, "\0", "\x1b",
                    "1e999", "-1", "('a', 'b')", "../../etc", "os:abort",
                ]
            ),
        ),
    ),
    st.text(max_size=12),
)  # fmt: skip


def test_what_is_typed_is_refused_or_a_configuration(fuzz):
    """Overrides of any kind: a usage error, or settings that can be run."""

    def holds(typed):
        try:
            config, rest = overrides.split(typed, "digits:smoke")
        except arguments.Usage as error:
            assert len(str(error)) < 20_000
            return
        assert set(rest) <= set(typed)
        try:
            configuration.check(config)
        except ValueError as error:
            assert str(error)
        identity.canonical(config.to_dict())

    fuzz(st.lists(WORDS, max_size=4), holds, 15)


def test_schedules_of_any_config_are_schedules_or_refused(fuzz, drawn):
    """As they stand in tickets and in saved models."""
    good = [
        schedules.serialize(schedules.IterativePruning(0.5, 3)),
        schedules.serialize(schedules.ListedSparsities([0.5, 0.75])),
        {"*": schedules.serialize(schedules.OneShot(0.5))},
    ]

    def holds(given):
        which, steps, value = given
        config = drawn.changed(copy.deepcopy(good[which]), steps, value)
        try:
            found = schedules.deserialize(config)
        except ValueError as error:
            assert len(str(error)) < 20_000
            return
        for each in found.values() if isinstance(found, dict) else [found]:
            assert isinstance(each, (dict, schedules.PruningSchedule))

    steps = st.lists(drawn.places, min_size=1, max_size=3)
    fuzz(st.tuples(st.integers(0, 2), steps, drawn.json), holds, 10)
