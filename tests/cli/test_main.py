"""The command line as a whole: dispatch, exit codes, help that teaches."""

import importlib
import pathlib
import re
import shlex
import subprocess
import sys
import time

import pytest

from keras_lottery.cli import main
from keras_lottery.cli import start
from keras_lottery.errors import RunError
from keras_lottery.errors import TicketError

README = pathlib.Path(__file__).parents[2] / "README.md"
COMMANDS = ("run", "sweep", "report", "export", "verify", "list", "doctor")


class Parsed(BaseException):
    """Raised where a command has understood what was typed."""


@pytest.fixture
def parse_only(monkeypatch, tmp_path):
    """Commands stop where the heavy imports would begin."""

    def stop():
        raise Parsed

    monkeypatch.setattr(start, "tensorflow", stop)
    monkeypatch.setattr(start, "require_matplotlib", stop)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from keras_lottery.runs import configuration\n\n\n"
        "def get_config(variant=''):\n"
        "    return configuration.defaults()\n"
    )


def parses(line):
    """Whether a line is understood, not more."""
    command, *typed = shlex.split(line)
    assert command == "keras-lottery"
    try:
        main.main(typed)
    except Parsed:
        return True
    except SystemExit as stopped:
        return stopped.code == 0
    return False


def fresh(*typed):
    """A command in a process of its own that also says what it imported."""
    code = """
import atexit, sys
atexit.register(
    lambda: print("HEAVY", sorted({"tensorflow", "keras", "matplotlib"}
                                  & set(sys.modules)), file=sys.stderr))
from keras_lottery.cli.main import main
main()
"""
    began = time.perf_counter()
    found = subprocess.run(
        [sys.executable, "-c", code, *typed], capture_output=True, text=True
    )
    return found, time.perf_counter() - began


def test_the_table_of_commands_is_the_files_there_are():
    assert main.COMMANDS == COMMANDS
    for name in COMMANDS:
        module = importlib.import_module(f"keras_lottery.cli.{name}")
        assert callable(module.main) and module.USAGE


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_is_quick_and_imports_nothing_heavy(name):
    found, spent = fresh(*filter(None, [name]), "--help")
    assert found.returncode == 0, found.stderr
    assert "HEAVY []" in found.stderr
    assert f"keras-lottery {name or 'run'}" in found.stdout
    assert spent < 3.0  # under one on a machine that nobody else uses


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_by_example(name, answer, examples, parse_only):
    told = answer(name, "--help")
    assert told.code == 0 and told.err == ""
    assert "Examples:" in told.out
    found = examples(told.out.partition("Examples:")[2])
    assert found
    for line in found:
        assert line.split()[1] == name
        assert parses(line), line


def test_the_first_help_names_every_command(answer, examples, parse_only):
    told = answer("--help")
    found = examples(told.out)
    assert [line.split()[1] for line in found] == list(COMMANDS)
    for line in found:
        assert parses(line), line
    assert "75" in told.out


@pytest.mark.skipif(not README.exists(), reason="needs a checkout: README.md")
def test_commands_in_the_readme_are_understood(parse_only):
    fences = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
    text = README.read_text(encoding="utf-8")
    shell = "".join(m[2] for m in fences.finditer(text) if m[1] == "sh")
    lines = re.findall(r"^(keras-lottery .*?)(?:  +#.*)?$", shell, re.M)
    inline = re.findall(r"`(keras-lottery [^`]*)`", fences.sub("", text))
    lines += [" ".join(line.split()) for line in inline]
    assert len(lines) > 8
    assert [line for line in lines if not parses(line)] == []


def test_run_help_lists_every_setting_with_its_default(answer):
    told = answer("run", "--help")
    for line in ("--config.prune.levels=10", "--config.rewind.name='weights'"):
        assert line in told.out


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("run", "workdir keep data_dir download"),
        ("export", "to format values shrink samples measure version data_dir"),
        ("list", "workdir data_dir"),
    ],
)
def test_help_explains_every_flag(name, flags, answer):
    told = answer(name, "--help").out
    # Beside the examples: each flag at the start of a line of its own.
    found = set(re.findall(r"^ *--(?:\[no\])?(\w+)[: =]", told, re.M))
    assert set(flags.split()) <= found


def test_help_for_a_command_the_other_way_round(answer):
    assert answer("help", "export").out == answer("export", "--help").out


def test_no_command_shows_the_help_and_is_wrong_usage(answer):
    told = answer()
    assert told.code == 2
    assert "keras-lottery run" in told.out


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("runn", "run"), ("verfy", "verify"), ("ls", "list"), ("sing", None)],
)
def test_an_unknown_command_gets_the_nearest_name(typed, meant, answer):
    told = answer(typed)
    assert told.code == 2 and told.out == ""
    assert f"Unknown command {typed!r}." in told.err
    assert ", ".join(COMMANDS) in told.err
    hint = f"Did you mean {meant!r}?"
    assert (hint if meant else "Did you mean") in told.err or not meant


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (0, 0),
        (1, 1),
        (ValueError("what and how"), 2),
        (ImportError("what and how"), 2),
        (RunError("what and how"), 1),
        (TicketError("what and how"), 1),
        (OSError(28, "what and how"), 1),
        (KeyboardInterrupt(), 75),
    ],
    ids=str,
)
def test_exit_codes(outcome, code, answer, monkeypatch):
    module = importlib.import_module("keras_lottery.cli.list")

    def command(typed):
        assert typed == ["with space", "x"]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(module, "main", command)
    told = answer("list", "with space", "x")
    assert told.code == code
    if isinstance(outcome, Exception):
        assert told.err.startswith("keras-lottery: ")
        assert "what and how" in told.err
    if code == 75:
        assert "keras-lottery list 'with space' x\n" in told.err


def test_a_bug_of_ours_is_not_dressed_up_as_wrong_usage(monkeypatch):
    module = importlib.import_module("keras_lottery.cli.list")

    def command(typed):
        raise ZeroDivisionError

    monkeypatch.setattr(module, "main", command)
    with pytest.raises(ZeroDivisionError):
        main.main(["list"])


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("report", "takes 1 PATH, got nothing"),
        ("report a b", "takes 1 PATH, got a b"),
        ("verify", "takes 1 PATH, got nothing"),
        ("export --to=x", "takes 1 PATH, got nothing"),
        ("export a", "--to=serving/NAME"),
        ("export a --two=x", "Unknown flag --two. Did you mean 'to'?"),
        ("export a --to=x --version=one", "version"),
        ("list runz", "Unknown 'runz'. Did you mean 'runs'?"),
        ("doctor now", "takes only flags, got now"),
        ("doctor --fast", "Unknown flag --fast"),
        ("run digits", "takes only flags, got digits"),
        ("run --workdi=x", "Did you mean 'workdir'?"),
        ("run --keep=some", "tickets|all"),
        ("run --levels=3", "Did you mean --config.prune.levels?"),
        ("run --prune.levels=3", "Did you mean --config.prune.levels?"),
    ],
)
def test_wrong_usage_says_why_and_where_help_is(
    typed, told, answer, parse_only
):
    found = answer(*shlex.split(typed))
    assert found.code == 2
    assert told in found.err
    assert "Traceback" not in found.err
