"""keras-lottery: the command line; `keras-lottery run --help` has examples.

Nothing heavy is imported until a command runs.
"""

import contextlib
import difflib
import importlib
import shlex
import sys

import keras_lottery
from keras_lottery.errors import Preempted
from keras_lottery.errors import RunError
from keras_lottery.errors import TicketError
from keras_lottery.errors import WorkerLostError
from keras_lottery.printable import printable
from keras_lottery.training import stopping

HELP = """\
keras-lottery finds winning tickets (sparse networks) in Keras models.

  keras-lottery run                    digits: real data, about a minute
  keras-lottery sweep                  a grid of runs, on all cores or on Ray
  keras-lottery report RUN             its table and report again
  keras-lottery export TICKET --to=serving/digits
  keras-lottery verify PATH            checks a ticket, a run or an export
  keras-lottery list                   configs, networks, data sets, runs, ...
  keras-lottery doctor                 versions, devices, a lottery on each

`keras-lottery COMMAND --help` teaches a command by example.
Exit codes: 0 done, 1 failed or a difference found, 2 wrong usage, 75 stopped:
the same command continues.
"""
_RESUMED = ("run", "sweep")  # SIGTERM makes them exit with 75, not 143
COMMANDS = ("run", "sweep", "report", "export", "verify", "list", "doctor")


def main(typed=None):
    """Runs one command and exits with its code."""
    typed = sys.argv[1:] if typed is None else list(typed)
    if typed[:1] == ["help"] and typed[1:2] and typed[1] in COMMANDS:
        typed = [typed[1], "--help"]
    if typed[:1] == ["--version"]:
        print(f"keras_lottery {keras_lottery.__version__}")
        sys.exit(0)
    if not typed or typed[0] in ("-h", "--help", "help"):
        print(HELP)
        sys.exit(0 if typed else 2)
    command, rest = typed[0], typed[1:]
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        print(
            f"Unknown command {command!r}.{hint} Expected one of "
            f"{', '.join(COMMANDS)}.",
            file=sys.stderr,
        )
        sys.exit(2)
    module = importlib.import_module(f"keras_lottery.cli.{command}")
    hears = stopping.heard if command in _RESUMED else contextlib.nullcontext
    with hears():
        sys.exit(_exit_code(module.main, rest, typed))


def _exit_code(command, rest, typed):
    try:
        return command(rest)
    except (ValueError, ImportError) as error:
        return _told(error, 2)
    except WorkerLostError as error:
        return _told(error, 75)
    except (RunError, TicketError, OSError) as error:
        return _told(error, 1)
    except (KeyboardInterrupt, Preempted):
        again = shlex.join(["keras-lottery", *typed])
        _say(f"\nStopped. To continue:\n  {again}")
        return 75


def _told(error, code):
    """Says what is wrong; what a run calls itself steers no terminal."""
    _say(f"keras-lottery: {printable(error)}")
    return code


def _say(text):
    with contextlib.suppress(OSError):  # nobody may be listening any more
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
