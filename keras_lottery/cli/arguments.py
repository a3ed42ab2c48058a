"""Flags and words of a command line; every command parses its own."""

import difflib

from absl import flags


class Usage(ValueError):
    """Wrong usage: exit code 2."""


def parse(command, usage, arguments, define, words=(0, 0)):
    """Returns (flags, words), or None where help was asked for and given.

    Args:
        command: `"run"`.
        usage: Text that teaches the command by example.
        arguments: What was typed after the command.
        define: Function `(flag_values) -> None` that defines the flags.
        words: How many words beside flags there may be: (least, most).

    Raises:
        Usage: Something else was typed.
    """
    known = flags.FlagValues()
    define(known)
    if {"--help", "-h", "--helpfull", "help"} & set(arguments):
        print(f"{usage.rstrip()}\n\n{_explained(known)}".rstrip())
        return None
    try:
        found = known([command, *arguments], known_only=False)[1:]
    except flags.UnrecognizedFlagError as error:
        raise Usage(_unknown(error.flagname, list(known), command)) from error
    except flags.Error as error:
        raise Usage(f"{error}. {_see(command)}") from error
    least, most = words
    if not least <= len(found) <= most:
        raise Usage(_wrong_words(command, found, least, most))
    return known, found


def define_places(known):
    """Defines the flags of a command that trains: what it reads and keeps."""
    text = {"flag_values": known}
    flags.DEFINE_string("workdir", "runs", "Where runs are kept.", **text)
    flags.DEFINE_enum(
        "keep",
        "tickets",
        ["tickets", "all"],
        "Of controls keep only the numbers, or the trained networks too.",
        **text,
    )
    flags.DEFINE_string(
        "data_dir", None, "Where tfds keeps its sets (TFDS_DATA_DIR).", **text
    )
    flags.DEFINE_boolean(
        "download", False, "Let tfds download a set that is missing.", **text
    )


def nearest(name, known):
    """Returns a sentence with the name most like `name`, or nothing."""
    close = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _explained(known):
    """Returns a line per flag: absl lists those of the main module only."""
    lines = []
    for name in known:
        flag = known[name]
        shown = f"--[no]{name}" if flag.boolean else f"--{name}"
        default = f" (default: {flag.default})" if flag.default else ""
        lines.append(f"  {shown:<16} {flag.help}{default}")
    return "\n".join(["Flags:", *lines]) if lines else ""


def _unknown(name, known, command):
    hint = nearest(name, known)
    return f"Unknown flag --{name}.{hint} {_see(command)}"


def _wrong_words(command, found, least, most):
    given = " ".join(found) or "nothing"
    if most == 0:
        return f"`{command}` takes only flags, got {given}. {_see(command)}"
    count = str(least) if least == most else f"{least} to {most}"
    return f"`{command}` takes {count} PATH, got {given}. {_see(command)}"


def _see(command):
    return f"See `keras-lottery {command} --help`."
