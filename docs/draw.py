"""Draws the pictures of the README from results/: `python docs/draw.py`."""

import csv
import pathlib

from keras_lottery.report import plots

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    """Writes docs/NAME.svg for every results/NAME/levels.csv."""
    for path in sorted((ROOT / "results").glob("*/levels.csv")):
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        figure = plots.accuracy_and_speed(rows)
        plots.save(figure, ROOT / "docs" / f"{path.parent.name}.svg")


if __name__ == "__main__":
    main()
