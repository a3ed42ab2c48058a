"""Choices: names to things, and functions that a user names."""

import os
import sys

import pytest

from keras_lottery import choices

TABLE = {"one": 1, "two": 2}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Returns a function that writes modules into the current directory."""
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("choices_"):
            del sys.modules[name]


def test_resolve_knows_names_and_callables():
    assert choices.resolve("number", "two", TABLE, "a function") == 2
    assert choices.resolve("number", len, TABLE, "a function") is len


@pytest.mark.parametrize("wrong", ["three", "", None, 3, ("one",)])
def test_resolve_lists_the_choices(wrong):
    with pytest.raises(
        ValueError,
        match=r"Unknown number .* Expected one of "
        r"'one', 'two', or a function \(x\)\.",
    ):
        choices.resolve("number", wrong, TABLE, "a function (x)")


def test_imported_searches_the_current_directory(here):
    here("choices_mine", "def double(x):\n    return 2 * x\n")
    path = list(sys.path)
    assert choices.imported("choices_mine:double", "a function")(4) == 8
    assert sys.path == path


def test_imported_takes_what_is_installed():
    assert choices.imported("os.path:join", "a function") is os.path.join


def test_imported_leaves_the_path_as_a_module_left_it(here):
    """Scripts put their own folder first: that must not be what is taken."""
    here(
        "choices_path",
        "import sys\nsys.path.insert(0, '/of/the/module')\ndef f(): pass\n",
    )
    before = list(sys.path)
    choices.imported("choices_path:f", "a function")
    assert os.getcwd() not in sys.path
    assert sys.path == ["/of/the/module", *before]


@pytest.mark.parametrize("text", ["1 / 0", "import nowhere_at_all", "x ="])
def test_imported_restores_the_path_after_an_error(text, here):
    here("choices_broken", text)
    path = list(sys.path)
    with pytest.raises((ZeroDivisionError, ValueError, SyntaxError)):
        choices.imported("choices_broken:f", "a function")
    assert sys.path == path


def test_imported_says_which_module_is_missing(here):
    with pytest.raises(
        ValueError,
        match=r"'nowhere_at_all:f' names a loss, but"
        r" there is no module 'nowhere_at_all'.*installed",
    ):
        choices.imported("nowhere_at_all:f", "a loss")
    here("choices_needs", "import nowhere_at_all")
    with pytest.raises(ValueError, match="no module 'nowhere_at_all'"):
        choices.imported("choices_needs:f", "a loss")


@pytest.mark.parametrize("name", ["tripel", "NUMBER", ""])
def test_imported_lists_the_functions(name, here):
    here("choices_more", "NUMBER = 3\ndef one(): pass\ndef two(): pass\n")
    with pytest.raises(
        ValueError,
        match=r"'choices_more' has no function "
        rf"'{name}' \(a loss\)\. It has one, two\.",
    ):
        choices.imported(f"choices_more:{name}", "a loss")
    here("choices_none", "NUMBER = 3")
    with pytest.raises(ValueError, match="It has none"):
        choices.imported("choices_none:f", "a loss")


@pytest.mark.parametrize("reference", [":f", ".mine:f", "..:f"])
def test_imported_refuses_names_of_no_module(reference):
    with pytest.raises(ValueError, match=r"names a loss"):
        choices.imported(reference, "a loss")


def test_chosen_imports_only_what_has_a_colon():
    assert choices.chosen("digits", "a set") == "digits"
    assert choices.chosen(len, "a set") is len
    assert choices.chosen(None, "a set") is None
    assert choices.chosen("math:sqrt", "a function")(9) == 3


def test_accepted_drops_what_a_function_does_not_take():
    given = {"width": 2, "classes": 10}
    assert choices.accepted(lambda width: 0, **given) == {"width": 2}
    assert choices.accepted(lambda *, classes=3: 0, **given) == {"classes": 10}
    assert choices.accepted(lambda: 0, **given) == {}
    assert choices.accepted(lambda **more: 0, **given) == given
    assert choices.accepted(lambda *more: 0, **given) == {}
