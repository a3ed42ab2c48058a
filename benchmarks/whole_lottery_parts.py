"""The parts of a whole lottery, measured alone: what it cannot be below.

Start-up is all until one step has been trained and one validation has been
made: imports, building, tracing. Then the step and the validation are measured
where nothing is traced any more, and counted as often as the lottery has them.
What is missing are prunings, rewinds, snapshots, tickets and what `fit` does
around the steps.
"""

import time

import numpy as np
import turns
import whole_lottery_ours as ours
import whole_lottery_task as tasks

import keras_lottery as lottery
from keras_lottery.training import enforce
from keras_lottery.training import loop
from keras_lottery.training import measure
from keras_lottery.training.array_feed import ArrayFeed

STRETCH, TIMES = 500, 9


def play(task):
    turns.limit_threads(task.threads)
    train_x, train_y, *validation = tasks.read_data(task.data)
    model = ours.compiled(ours.network())
    mask = lottery.find_mask(model, 0.5, allocation="layerwise")
    enforce.attach(model, mask)
    feed = ArrayFeed((train_x, train_y), tasks.BATCH, task.every, True, 0)
    validate = measure.measure_on(model, tuple(validation))
    steps = loop.of(model)
    steps.run(feed, 0, 1)
    validate()
    start = time.time() - task.began
    steps.run(feed, 0, STRETCH)  # finds out how many steps a call takes
    step = typical(lambda: steps.run(feed, 0, STRETCH)) / STRETCH
    validation = typical(validate)
    count = task.levels * task.steps
    return {
        "kept": "",
        "accuracy": validate()["accuracy"],
        "seconds": start + count * step + count // task.every * validation,
        "start": start,
        "step": step,
        "validation": validation,
    }


def typical(call):
    """Returns the median of the seconds of a call."""
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


if __name__ == "__main__":
    tasks.answer(play)
