"""keras-lottery: the command line; `keras-lottery run --help` has examples.

Nothing heavy is imported until a command runs.
"""

import sys

from keras_lottery.errors import RunError
from keras_lottery.errors import TicketError

HELP = """\
keras-lottery finds winning tickets (sparse networks) in Keras models.

  keras-lottery run                    digits: real data, about a minute
  keras-lottery run --help             what `run` can do

Exit codes: 0 done, 1 failed, 2 wrong usage.
"""


def main(arguments=None):
    """Runs one command and exits with its code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP)
        sys.exit(0 if arguments else 2)
    command, rest = arguments[0], arguments[1:]
    if command != "run":
        print(f"Unknown command {command!r}. Expected: run.", file=sys.stderr)
        sys.exit(2)
    from keras_lottery.cli import run

    sys.exit(_exit_code(run.main, rest))


def _exit_code(command, arguments):
    try:
        return command(arguments)
    except (ValueError, ImportError) as error:
        print(f"keras-lottery: {error}", file=sys.stderr)
        return 2
    except (RunError, TicketError, OSError) as error:
        print(f"keras-lottery: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command continues.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    main()
