"""Writes the table of docs/layers.md.

`python tests/kinds_of_layers/draw_layers.py` walks the layers of the Keras that
is installed; a test compares what it finds with the page.
"""

import pathlib

import layer_examples as examples

from keras_lottery.pruning import weights

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "layers.md"
BEGIN = "<!-- python tests/kinds_of_layers/draw_layers.py -->\n"
END = "<!-- end -->\n"
HEAD = ["| layer | pruned | left alone, and why |", "|---|---|---|"]


def row(label):
    """Returns the line of the table for one example."""
    model, layers, _ = examples.together([label])
    short = {n: s for s, n in examples.names_in(model, layers[label]).items()}
    left = weights.unprunable(model)
    pruned = [
        f"`{short.get(name, name)}`"
        for name in weights.by_name(model)
        if name not in left
    ]
    grouped = {}
    for name, reason in left.items():
        if not name.endswith("/seed"):  # of a generator: no weight
            grouped.setdefault(reason, []).append(f"`{short.get(name, name)}`")
    reasons = [f"{', '.join(n)}: {why}" for why, n in grouped.items()]
    cells = (f"`{label}`", ", ".join(pruned), "; ".join(reasons))
    return "| " + " | ".join(cells) + " |"


def drawn():
    """Returns the generated part of the page."""
    found = examples.public_layers()
    without = [f"`{n}`" for n in sorted(examples.WITHOUT_WEIGHTS) if n in found]
    return "\n".join(
        [
            *HEAD,
            *map(row, examples.existing()),
            "",
            f"Without weights: {', '.join(without)}.",
            "",
        ]
    )


def parts(text):
    """Returns (before, generated part, after) of the page's text."""
    before, rest = text.split(BEGIN)
    table, after = rest.split(END)
    return before, table, after


def main():
    """Writes the generated part into the page."""
    before, _, after = parts(PAGE.read_text(encoding="utf-8"))
    text = before + BEGIN + drawn() + END + after
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
