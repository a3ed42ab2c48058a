"""Seeds: streams that do not touch each other, and stay what they are."""

import itertools

import numpy as np
import pytest

from keras_lottery import seeds


def test_a_stream_is_that_of_the_seed_sequence():
    for seed, (index, role), replicate, repeat in itertools.product(
        (0, 7), enumerate(seeds.ROLES), (0, 3), (0, 1, 2)
    ):
        entropy = np.random.SeedSequence([seed, replicate, index, repeat])
        expected = int(entropy.generate_state(1)[0]) // 2
        assert seeds.stream(seed, role, replicate, repeat) == expected


def test_the_first_repeat_changes_nothing():
    for role, replicate in itertools.product(seeds.ROLES, range(3)):
        assert seeds.stream(5, role, replicate, 0) == seeds.stream(
            5, role, replicate
        )


def test_streams_are_pinned():
    """Other numbers would part results from their runs."""
    assert [seeds.stream(0, role) for role in seeds.ROLES] == [
        1484405855,
        1915600865,
        1463396095,
        99239235,
        26958566,
    ]
    assert seeds.stream(0, "controls", 1, 2) == 2063466290


def test_streams_all_differ():
    found = [
        seeds.stream(*each)
        for each in itertools.product(range(3), seeds.ROLES, range(3), range(3))
    ]
    assert len(set(found)) == 3 * 5 * 3 * 3
    assert all(type(each) is int and 0 <= each < 2**31 for each in found)


def test_wrong_seeds_and_roles_are_refused():
    with pytest.raises(ValueError, match=r"Unknown role 'weights'.*'init'"):
        seeds.stream(0, "weights")
    for wrong in (-1, 1.5, "1", None, True):
        with pytest.raises(ValueError, match="`seed` must be an int >= 0"):
            seeds.stream(wrong, "init")
