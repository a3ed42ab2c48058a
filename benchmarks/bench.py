"""All benchmarks of speed and size, and `RESULTS.md` made of what they print.

Each is a script in a process of its own. What it prints becomes a section in
`benchmarks/sections/` as soon as it is done; one that fails leaves the last
good section as it is, and what it printed until then in `NAME.partial`.
`RESULTS.md` has all bars in one table, what limits those not met
(`limits.md`, written by hand), and the sections.

    python benchmarks/bench.py                      # hours, on a quiet machine
    python benchmarks/bench.py --missing            # go on after a stop
    python benchmarks/bench.py --only start_up training_step_lenet_1
    python benchmarks/bench.py --only               # compose RESULTS.md again
"""

import argparse
import datetime
import pathlib
import shlex
import subprocess
import sys
import time

import bars

FOLDER = pathlib.Path(__file__).parent
SECTIONS = "sections"
HEAD = """\
# What was measured

Ratios of times are medians over interleaved rounds, with an interval that
holds the median with 95 %. An upper bar holds when the lower end of the
interval is not above it, a lower bar when the upper end is not below it; `n`
counts rounds, and fewer than 30 are no verdict. How each was measured is at
the top of its script. Every section says on which machine, with which
versions and when; `make bench` measures all anew.
"""


def _benchmarks():
    """Returns dict from name to (script, options), in the order of reading."""
    found = {
        f"training_step_{network}_{threads}": (
            "training_step.py",
            f"--network={network}",
            f"--threads={threads}",
        )
        for network in ("lenet", "resnet20", "conv2")
        for threads in (1, 2)
    }
    for threads in (1, 2):
        found[f"whole_lottery_{threads}"] = (
            "whole_lottery.py",
            *("ours", "parts", "keras", "torch"),
            "--rounds=6",
            f"--threads={threads}",
            f"--csv={FOLDER / SECTIONS / f'whole_lottery_{threads}.csv'}",
            "--resume",
        )
    for script in ("prune_step", "evaluation"):
        for threads in (1, 2):
            found[f"{script}_{threads}"] = (
                f"{script}.py",
                f"--threads={threads}",
            )
    for script in (
        "start_up",
        "memory",
        "growth",
        "distribution",
        "reliability",
        "structure",
    ):
        found[script] = (f"{script}.py",)
    return found


BENCHMARKS = _benchmarks()


class Bench:
    """The benchmarks of a folder and what they have printed.

    Args:
        folder: Where the scripts are.
        benchmarks: Dict from name to (script, options).
    """

    def __init__(self, folder=FOLDER, benchmarks=BENCHMARKS):
        self.folder = pathlib.Path(folder)
        self.benchmarks = benchmarks

    def path(self, name):
        """Returns where the section of a benchmark is."""
        return self.folder / SECTIONS / f"{name}.md"

    def missing(self):
        """Returns the names of benchmarks without a section."""
        return [
            each for each in self.benchmarks if not self.path(each).exists()
        ]

    def run(self, name):
        """Runs a benchmark; returns whether it ended well.

        Its section is written only then.
        """
        self.path(name).parent.mkdir(exist_ok=True)
        partial = self.path(name).with_suffix(".partial")
        script, *options = self.benchmarks[name]
        command = [sys.executable, str(self.folder / script), *options]
        began = time.perf_counter()
        with open(partial, "w") as file:
            code = subprocess.run(command, stdout=file).returncode
        seconds = time.perf_counter() - began
        if code:
            _say(f"{name} ended with code {code}; see {partial}")
            return False
        section = self._section(name, partial.read_text(), seconds)
        partial.write_text(section)
        partial.replace(self.path(name))
        return True

    def compose(self):
        """Writes `RESULTS.md` of the sections that there are."""
        sections = {
            name: self.path(name).read_text()
            for name in self.benchmarks
            if self.path(name).exists()
        }
        limits = self.folder / "limits.md"
        parts = [
            HEAD.strip(),
            bars.circumstances(),
            _all_bars(sections),
            *([limits.read_text().strip()] if limits.exists() else []),
            *(text.strip() for text in sections.values()),
        ]
        if self.missing():
            left = ", ".join(f"`{name}`" for name in self.missing())
            parts.insert(2, f"Not measured yet: {left}.")
        text = "\n\n".join(parts) + "\n"
        (self.folder / "RESULTS.md").write_text(text)

    def _section(self, name, printed, seconds):
        script, *options = self.benchmarks[name]
        options = [each.replace(f"{self.folder}/", "benchmarks/")
                   for each in options]  # fmt: skip
        typed = shlex.join(["python", f"benchmarks/{script}", *options])
        printed = printed.strip()
        if "\n|" not in printed:  # no tables: columns made of blanks
            printed = f"```\n{printed}\n```"
        if not printed.startswith("## "):
            printed = f"## {name.replace('_', ' ').capitalize()}\n\n{printed}"
        today = datetime.date.today().isoformat()
        return f"{printed}\n\n`{typed}`: {seconds:,.0f} s, {today}.\n"


def _all_bars(sections):
    """Returns all rows with a bar in one table, and how many hold."""
    rows = [
        (f"[{name}](#{_anchor(text)})", *_judged(cells))
        for name, text in sections.items()
        for cells in bars.collected(text)
        if cells[-1]
    ]
    held = sum(row[-1] == "holds" for row in rows)
    table = bars.markdown(("section", *bars.HEAD), rows)
    return f"## All bars\n\n{held} of {len(rows)} hold.\n\n{table}"


def _judged(cells):
    """Returns cells that say so where a bar held in fewer than 30 rounds.

    What is counted once has no rounds. A bar that was missed stays missed.
    """
    *others, rounds, bar, verdict = cells
    if verdict == "holds" and 1 < int(rounds.replace(",", "")) < 30:
        verdict = "holds so far, too few rounds"
    return (*others, rounds, bar, verdict)


def _anchor(text):
    """Returns what GitHub links the first heading of a text by."""
    heading = text.splitlines()[0].lstrip("# ").lower()
    kept = [each for each in heading if each.isalnum() or each in " -_"]
    return "".join(kept).replace(" ", "-")


def _say(text):
    print(text, file=sys.stderr, flush=True)


def main():
    """Runs what the command line asks for; exits with 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", metavar="NAME")
    parser.add_argument("--missing", action="store_true")
    given = parser.parse_args()
    bench = Bench()
    names = list(BENCHMARKS) if given.only is None else given.only
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(
            f"no such benchmark: {', '.join(unknown)}; there are "
            f"{', '.join(BENCHMARKS)}"
        )
    if given.missing:
        names = [name for name in names if name in bench.missing()]
    failed = []
    for name in names:
        _say(f"== {name}")
        if not bench.run(name):
            failed.append(name)
        bench.compose()
    bench.compose()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
