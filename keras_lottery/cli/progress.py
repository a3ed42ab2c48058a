"""How far a run is: a bar on a terminal, quiet lines elsewhere."""

import sys

import tqdm

from keras_lottery import notation
from keras_lottery.runs.play import Silence


def listener(metric):
    """Returns what suits where the output goes."""
    return Bar(metric) if sys.stderr.isatty() else Lines(metric)


class Bar(Silence):
    """One bar over all steps that are left, with what is trained now."""

    def __init__(self, metric):
        del metric

    def start(self, steps):
        """Shows the bar."""
        self._bar = tqdm.tqdm(
            total=steps,
            unit="step",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not steps,
            bar_format="{desc} |{bar}| {percentage:3.0f} % [{remaining} left]",
        )
        self._left = steps

    def begin(self, replicate, arm, level, density):
        """Says what is trained."""
        self._bar.set_description_str(
            f"replicate {replicate} · {arm} · level {level} · "
            f"{notation.percent(density)} % kept"
        )

    def advance(self, steps):
        """Moves the bar."""
        self._bar.update(steps)
        self._left -= steps

    def end(self, row, seconds):
        """Closes the bar after the last training."""
        if self._left <= 0:
            self._bar.close()


class Lines(Silence):
    """A line per training."""

    def __init__(self, metric):
        self._metric = metric
        self._done = 0

    def start(self, steps):
        """Remembers how much there is to do."""
        self._steps = steps

    def advance(self, steps):
        """Counts."""
        self._done += steps

    def end(self, row, seconds):
        """Says what came out."""
        value = row.get(f"test_{self._metric}")
        shown = "" if value is None else f", test {self._metric} {value:.4f}"
        print(
            f"[{self._done / self._steps:4.0%}] replicate {row['replicate']}, "
            f"{row['arm']}, level {row['level']}, "
            f"{notation.percent(row['density'])} % kept{shown} "
            f"({seconds:.1f} s)",
            flush=True,
        )
