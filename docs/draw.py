"""Draws the picture of the README from results/: `python docs/draw.py`."""

import csv
import pathlib

from keras_lottery.report import plots

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    """Writes docs/fashion_lenet.svg."""
    with open(ROOT / "results/fashion_lenet/levels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    figure = plots.quality_and_speed(rows)
    plots.save(figure, ROOT / "docs" / "fashion_lenet.svg")


if __name__ == "__main__":
    main()
