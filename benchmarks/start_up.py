"""What it takes until something happens: the import, and `--help`.

Everything heavy is imported when it is first used: `import keras_lottery` takes
under 0.1 s and imports neither TensorFlow nor tfmot, `keras-lottery --help` is
there within 1 s. Each is timed in fresh processes that take turns; the import
inside the process, the command from outside, from its start to its end. Python
alone is beside it to know what is left to save.

    python benchmarks/start_up.py
    python benchmarks/start_up.py --rounds=60
"""

import argparse
import json
import subprocess
import sys
import time

import bars

HEAVY = ("tensorflow", "tensorflow_model_optimization", "keras", "tf_keras")
IMPORT = f"""
import json, sys, time
began = time.perf_counter()
import keras_lottery
seconds = time.perf_counter() - began
heavy = [name for name in {HEAVY} if name in sys.modules]
print(json.dumps([seconds, heavy]))
"""
# What the installed command does.
COMMAND = """
import sys
from keras_lottery.cli.main import main
sys.argv[0] = "keras-lottery"
sys.exit(main())
"""


def imported():
    """Returns seconds of the import, and which of `HEAVY` it imported."""
    return json.loads(_ran(IMPORT))


def command(program, *arguments):
    """Returns seconds of a whole process of Python."""
    began = time.perf_counter()
    _ran(program, *arguments)
    return time.perf_counter() - began


def measured(rounds):
    """Returns the bars, of so many fresh processes each."""
    imports, helps, alone, heavy = [], [], [], set()
    for number in range(-1, rounds):
        seconds, found = imported()
        heavy |= set(found)
        if number < 0:  # Python writes its byte code once
            command(COMMAND, "--help")
            continue
        imports.append(seconds)
        helps.append(command(COMMAND, "--help"))
        alone.append(command("pass"))
    return [
        bars.of_samples("`import keras_lottery`", imports, "<=", 0.1),
        bars.of_count(
            f"of {', '.join(HEAVY)}: imported by it", len(heavy), "<=", 0
        ),
        bars.of_samples("`keras-lottery --help`", helps, "<=", 1.0),
        bars.of_samples("Python alone", alone),
    ]


def _ran(program, *arguments):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def main():
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    if given.rounds < 6:
        parser.error("an interval needs 6 rounds, a verdict 30")
    print("## Start-up\n")
    print(bars.table(measured(given.rounds)), end="\n\n")
    print(bars.circumstances(rounds=given.rounds))


if __name__ == "__main__":
    main()
