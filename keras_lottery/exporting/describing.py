"""What is found out about an export while it is written."""

import numpy as np

from keras_lottery import notation
from keras_lottery.exporting import formats
from keras_lottery.exporting import network as networks
from keras_lottery.exporting import probe
from keras_lottery.exporting import warm_up
from keras_lottery.exporting.card import markdown
from keras_lottery.exporting.card import model_card

ROWS = 256  # asked at a time: any number of samples in little memory


class Probe:
    """Inputs, and what the trained model answers to them.

    Args:
        model: The model as it was trained.
        samples: As in `export`; made-up inputs if None.

    Attributes:
        inputs: Dict from input name to array.
        labels: Array, or None.
        given: Whether they are a user's.
        rows: How many.
        expected: Dict from output name to array.

    Raises:
        ValueError: Samples that do not fit the model.
    """

    def __init__(self, model, samples=None):
        network = networks.of(model)
        self.given = samples is not None
        self.labels = None
        if samples is None:
            self.inputs = probe.batch(network.specs)
        else:
            self.inputs, self.labels = probe.samples(samples, network)
        self.rows = min(map(len, self.inputs.values()))
        self.expected = self.answers(
            lambda inputs: network.call(network.weights, inputs)
        )
        self.accuracy(self.expected)  # says now that labels do not fit

    def answers(self, ask):
        """Returns what a function from inputs to outputs answers, or None."""
        parts = []
        for first in range(0, self.rows, ROWS):
            asked = {n: v[first : first + ROWS] for n, v in self.inputs.items()}
            found = ask(asked)
            if found is None:
                return None
            parts.append({n: np.asarray(value) for n, value in found.items()})
        return {
            name: np.concatenate([each[name] for each in parts])
            for name in parts[0]
        }

    def differences(self, found):
        """Returns how far answers are from the trained model's, by output."""
        return probe.largest_difference(self.expected, found)

    def accuracy(self, found):
        """Returns accuracy before and after, or None without labels."""
        if self.labels is None:
            return None
        return {
            "before": probe.accuracy(self.expected, self.labels),
            "after": probe.accuracy(found, self.labels),
            "samples": self.rows,
        }


def describe(path, model, asked, *, ask, name, format, **known):
    """Asks an export, records what it answers, and returns the facts.

    Args:
        path: The version directory, written.
        model: The model as it was trained.
        asked: A `Probe` of it.
        ask: Function from inputs to what the export answers, or to None where
            nothing can run it.
        name: What the served model is called.
        format: Of the export.
        **known: As in `model_card.facts`.
    """
    found = asked.answers(ask)
    if asked.given and formats.FORMATS[format].served:
        warm_up.write(path, asked.inputs, ask, model_name=name)
    return model_card.facts(
        path,
        model,
        name=name,
        format=format,
        differences=None if found is None else asked.differences(found),
        accuracy=None if found is None else asked.accuracy(found),
        rows=asked.rows,
        **known,
    )


def in_words(facts):
    """Yields what is said of an export where its values are not as trained.

    Args:
        facts: As returned by `describe`.
    """
    outputs = facts["differences"]["outputs"]
    if facts["values"] != "float32":
        for name, apart in outputs.items():
            share = apart["relative"]  # without bound it is text, as in JSON
            if not isinstance(share, str):
                share = f"{notation.percent(share)} %"
            yield (
                f"values={facts['values']}: {name} differs by up to "
                f"{markdown.number(apart['largest_difference'])}, {share} of "
                f"the largest, on {facts['differences']['samples']:,} samples"
            )
    accuracy = facts["accuracy"]
    if accuracy:
        before, after = (
            notation.with_unit(accuracy[key], "accuracy")
            for key in ("before", "after")
        )
        yield (
            f"accuracy on {accuracy['samples']:,} samples: {before} before, "
            f"{after} after"
        )
