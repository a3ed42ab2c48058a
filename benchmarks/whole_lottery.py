"""A whole lottery, start-up included, against others that play the same.

LeNet-300-100, batch 60, Adam 1.2e-3: 10 trainings of 2,000 steps, one dense and
nine after prunings, rewound to the first weights; validation on 5,000 rows
every 100 steps; a fifth of each kernel removed per level, of the output layer a
tenth. 12,000 training rows of noise whose labels a linear network can learn,
the same for all.

Each contender is a process of its own, timed from its start to its end: what
imports, building and tracing cost is in it. They take turns, round by round.
What they do is in whole_lottery_ours.py and its neighbours; "the sum of its
parts" is not a lottery but what its steps, its validations and one start-up
take when measured alone.

    python benchmarks/whole_lottery.py --rounds=30        # more than an hour
    python benchmarks/whole_lottery.py --rounds=6 --threads=2
    python benchmarks/whole_lottery.py --rounds=30 --resume --csv=seconds.csv

Fewer rounds give a wider interval, and fewer than 6 none. Seconds go to the csv
file as they come; `--resume` plays what it lacks.
"""

import argparse
import csv
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import bars
import numpy as np
import turns
import whole_lottery_task as tasks

OURS = "ours"
CONTENDERS = {  # name: (script, what it is)
    OURS: ("ours", "`lottery.prune(...).fit(...)`"),
    "run": ("run", "ours with a run directory, as `keras-lottery run`"),
    "parts": ("parts", "the sum of its parts, ours"),
    "keras": ("keras", "naive Keras: new model, `compile`, `fit` per level"),
    "tfmot": ("tfmot", "tfmot, legacy Keras, rewound by hand"),
    "torch": ("torch", "PyTorch to open_lth's recipe, data in memory"),
}
RATIOS = (  # first, second, sign and bar of first / second
    ("keras", OURS, ">=", 3.0),
    ("torch", OURS, ">=", 2.5),
    ("tfmot", OURS, None, None),
    (OURS, "parts", None, None),
    ("run", "parts", None, None),
)
ANSWERS = (
    "whole lottery",
    "seconds (median)",
    "of the processor",
    "weights kept at last",
    "accuracy at last",
)
CONDITIONS = ("levels", "steps", "every", "threads")
PARTS = {  # of the sum: (what it is, factor, unit)
    "start": ("start-up, to the end of the first step and validation", 1, "s"),
    "step": ("a step", 1e3, "ms"),
    "validation": ("a validation", 1e3, "ms"),
}
FIELDS = (
    *("round", "contender", "seconds", "cpu_seconds", "kept", "accuracy"),
    *PARTS,
    *CONDITIONS,
)


def played(contender, task):
    """Returns a dict of what one process of a contender took and answered."""
    script = pathlib.Path(__file__).with_name(
        f"whole_lottery_{CONTENDERS[contender][0]}.py"
    )
    before, began = _processor(), time.time()
    task = task._replace(began=began)
    ended = subprocess.run(
        [sys.executable, str(script), json.dumps(task._asdict())],
        env=turns.environment(task.threads),
        capture_output=True,
        text=True,
    )
    seconds = time.time() - began
    if ended.returncode:
        sys.exit(f"{script.name} failed:\n{ended.stderr}")
    answer = json.loads(ended.stdout.splitlines()[-1])
    return {"seconds": seconds, "cpu_seconds": _processor() - before, **answer}


def _processor():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def order(contenders, number):
    """Returns the order of a round: every contender comes first at times."""
    first = number % len(contenders)
    return [*contenders[first:], *contenders[:first]]


def measure(contenders, rounds, task, path, resume):
    """Plays what is missing; returns the rows of the csv file."""
    rows = _read(path, task) if resume and path.exists() else []
    done = {(row["round"], row["contender"]) for row in rows}
    with open(path, "a" if rows else "w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, extrasaction="ignore")
        if not rows:
            writer.writeheader()
        for number in range(rounds):
            for name in order(contenders, number):
                if (number, name) in done:
                    continue
                found = {**task._asdict(), **played(name, task)}
                row = {**found, "round": number, "contender": name}
                rows.append(row)
                writer.writerow(row)
                file.flush()
                os.fsync(file.fileno())
                told = f"round {number}, {name}: {row['seconds']:.2f} s"
                print(told, file=sys.stderr, flush=True)
    return rows


def _read(path, task):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["round"] = int(row["round"])
        for name in ("seconds", "cpu_seconds", "accuracy", *PARTS):
            row[name] = float(row[name] or "nan")
        if any(int(row[each]) != getattr(task, each) for each in CONDITIONS):
            sys.exit(
                f"{path} holds seconds of another task: {row}. Measure with "
                "the same options, or leave --resume out to start anew."
            )
    return rows


def seconds_of(rows, contenders):
    """Returns dict from contender to its seconds in the complete rounds."""
    by_round = {}
    for row in rows:
        by_round.setdefault(row["round"], {})[row["contender"]] = row["seconds"]
    whole = [
        by_round[number]
        for number in sorted(by_round)
        if set(contenders) <= set(by_round[number])
    ]
    return {name: [each[name] for each in whole] for name in contenders}


def report(rows, contenders):
    """Prints the tables: what each took and answered, and the bars."""
    seconds = seconds_of(rows, contenders)
    answers = []
    for name in contenders:
        own = [row for row in rows if row["contender"] == name]
        processor = np.median([row["cpu_seconds"] for row in own])
        accuracy = np.median([row["accuracy"] for row in own])
        answers.append(
            (
                CONTENDERS[name][1],
                f"{np.median(seconds[name]):.2f}",
                "" if name == "parts" else f"{processor:.2f}",
                own[-1]["kept"],
                f"{accuracy:.3f}",
            )
        )
    print(bars.markdown(ANSWERS, answers) + "\n")
    if "parts" in contenders:
        print(parts_of(rows) + "\n")
    rounds = len(seconds[contenders[0]])
    ratios = [
        (f"{first} / {second}", seconds[first], seconds[second], *bar)
        for first, second, *bar in RATIOS
        if {first, second} <= set(contenders)
    ]
    if rounds >= 6:
        print(bars.table([bars.of_pairs(*ratio) for ratio in ratios]))
        return
    for what, first, second, *_ in ratios:
        ratio = np.median(np.divide(first, second))
        print(f"{what}: {ratio:.2f}; {rounds} rounds give no interval")


def parts_of(rows):
    """Returns the table of the parts, medians of all rounds."""
    own = [row for row in rows if row["contender"] == "parts"]
    cells = []
    for part, (what, factor, unit) in PARTS.items():
        typical = factor * np.median([row[part] for row in own])
        cells.append((what, f"{typical:.3f} {unit}"))
    return bars.markdown(("part", "median"), cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contenders", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--levels", type=int, default=10, help="trainings")
    parser.add_argument("--steps", type=int, default=2000, help="of each")
    parser.add_argument("--every", type=int, default=100, help="validations")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=pathlib.Path)
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tasks.make_data(folder)
        task = tasks.Task(
            folder, given.levels, given.steps, given.every, given.threads
        )
        path = given.csv or pathlib.Path(folder, "seconds.csv")
        rows = measure(given.contenders, given.rounds, task, path, given.resume)
    report(rows, given.contenders)
    told = {name: getattr(task, name) for name in CONDITIONS}
    print("\n" + bars.circumstances(rounds=given.rounds, **told))


if __name__ == "__main__":
    main()
