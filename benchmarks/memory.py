"""Memory over the levels of a lottery: what stays when a level is done.

A network of 1.07 million weights (4.3 MB) on real digits, 20 prunings, few
steps each. With a run directory tickets are read when asked for, so memory must
be flat: from level 5 to level 20 neither what is resident nor its peak grows by
1 % or 5 MB, whichever is more. One more copy of the weights for each level
would be 64 MB. Without a directory tickets are held in memory: one start for
all, the kept weights of each end, masks of one bit a weight. All of the default
lottery's together, 10 prunings of 20 %, take at most 7 times the memory of the
model's weights; by bytes of arrays, each counted once.

    python benchmarks/memory.py

Resident memory is that of /proc/self/status, after each level, each lottery in
a fresh process; nothing is collected or given back before it is read.
"""

import argparse
import json
import subprocess
import sys
import tempfile

import bars
import numpy as np

HIDDEN = (1000, 1000)
FIRST, STEPS, EVERY = 5, 20, 10
FLAT_MB, FLAT_SHARE = 5.0, 0.01
DEFAULT_LEVELS, HELD_BAR = 10, 7.0
NAMES = {"directory": "With a run directory", "memory": "Without"}
HEAD = (
    "level",
    "run directory: MB resident",
    "its peak",
    "`prune().fit()`: MB resident",
    "its peak",
    "of that, tickets",
)


def resident():
    """Returns what is resident and its peak, in MB."""
    found = {}
    with open("/proc/self/status") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                found[name] = int(rest.split()[0]) * 1024 / 1e6
    return found["VmRSS"], found["VmHWM"]


def with_directory(levels):
    """Plays with a run directory; returns what is resident after each level."""
    from keras_lottery.runs import configuration
    from keras_lottery.runs import play
    from keras_lottery.runs.directory import RunDirectory
    from keras_lottery.runs.experiment import Experiment

    class Listener(play.Silence):
        def end(self, row, seconds):
            measured.append(resident())

    measured = []
    config = configuration.load("digits")
    config.model.arguments.hidden = HIDDEN
    config.train.steps, config.eval_every = STEPS, EVERY
    config.prune.levels, config.replicates = levels, 1
    config.controls.names = ()
    with tempfile.TemporaryDirectory() as workdir:
        directory = RunDirectory.of(config, workdir)
        directory.create(config)
        play.play(Experiment(config), directory, Listener())
    return {"resident": measured}


def in_memory(levels):
    """Plays `prune(...).fit(...)`; returns also what the tickets hold."""
    import keras

    import keras_lottery as lottery
    from keras_lottery.models import networks

    class Levels(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            measured.append(resident())

    measured = []
    digits = lottery.load_digits()
    model = networks.get("lenet")((8, 8, 1), 10, hidden=HIDDEN)
    pruned = lottery.prune(model, lottery.IterativePruning(0.2, levels=levels))
    pruned.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    pruned.fit(
        *digits.train,
        batch_size=60,
        epochs=STEPS // EVERY,
        steps_per_epoch=EVERY,
        validation_data=digits.validation,
        callbacks=[Levels()],
        verbose=0,
    )
    return {
        "resident": measured,
        "model": sum(w.nbytes for w in model.get_weights()),
        "tickets": [
            held_bytes(pruned.tickets[: count + 1])
            for count in range(len(pruned.tickets))
        ],
    }


def held_bytes(tickets):
    """Returns the bytes of what tickets hold, shared memory counted once."""
    found = {}
    for ticket in tickets:
        packed, _ = ticket.mask.pack(), ticket.mask.shapes
        found[id(ticket.mask)] = sum(len(bits) for bits in packed.values())
        for part in ("start", "start_state", "end", "end_state"):
            for value in getattr(ticket, part).values():
                whole = base_of(np.asarray(value))
                found[id(whole)] = whole.nbytes
    return sum(found.values())


def base_of(array):
    """Returns the array that owns the memory which `array` shows."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


LOTTERIES = {"directory": with_directory, "memory": in_memory}


def alone(name, levels):
    """Returns what a lottery of the table gives, played in a new process."""
    command = [sys.executable, __file__, f"--only={name}", f"--levels={levels}"]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{name} failed:\n{ended.stderr}")
    return json.loads(ended.stdout.splitlines()[-1])


def slope(values, first=FIRST):
    """Returns MB per level from level `first` on, by least squares."""
    return float(np.polyfit(range(first, len(values)), values[first:], 1)[0])


def bars_of_directory(found):
    """Returns the bars: growth from level 5 to the last, in MB."""
    now, peak = np.transpose(found["resident"])
    allowed = round(max(FLAT_MB, FLAT_SHARE * now[FIRST]), 1)
    span = f"level {FIRST} to {len(now) - 1}, run directory"
    # One reading strays by some MB, as the allocator pleases: the line counts.
    fitted = slope(now) * (len(now) - 1 - FIRST)
    grown = {f"peak memory, {span}": peak[-1] - peak[FIRST]}
    grown[f"resident memory, {span}, by the fitted line"] = fitted
    return [
        bars.of_count(what, mb, "<=", allowed, "MB growth")
        for what, mb in grown.items()
    ]


def bars_in_memory(found):
    """Returns the bars: what tickets hold, over the weights of the model."""
    default = min(len(found["tickets"]) - 1, DEFAULT_LEVELS)
    rows = []
    for level in sorted({default, len(found["tickets"]) - 1}):
        ratio = found["tickets"][level] / found["model"]
        bar = ("<=", HELD_BAR) if level == DEFAULT_LEVELS else ()
        what = f"tickets of {level} prunings in memory / weights"
        rows.append(bars.of_count(what, ratio, *bar))
    return rows


def report(found):
    """Prints memory by level and the bars."""
    with_it, without = found["directory"], found["memory"]
    rows = [
        (level, *(f"{mb:.1f}" for mb in (*one, *two)), f"{held / 1e6:.2f}")
        for level, (one, two, held) in enumerate(
            zip(with_it["resident"], without["resident"], without["tickets"])
        )
    ]
    print(bars.markdown(HEAD, rows) + "\n")
    for name, each in found.items():
        mb = slope([now for now, _ in each["resident"]])
        print(f"{NAMES[name]}: {mb:+.3f} MB a level from level {FIRST} on\n")
    print(bars.table(bars_of_directory(with_it) + bars_in_memory(without)))
    print("\n" + bars.circumstances(weights=f"{without['model'] / 1e6:.2f} MB"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", type=int, default=20)
    parser.add_argument("--only", choices=LOTTERIES, help="as JSON")
    given = parser.parse_args()
    if given.only:
        print(json.dumps(LOTTERIES[given.only](given.levels)))
        return
    if given.levels < FIRST + 2:
        parser.error(f"--levels must be {FIRST + 2} or more, for a line")
    report({name: alone(name, given.levels) for name in LOTTERIES})


if __name__ == "__main__":
    main()
