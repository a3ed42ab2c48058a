"""The prune step: from weights and a mask to the mask of the next level.

Ours is all of `find_mask(model, sparsity, mask=mask)` with its defaults: names,
scores, checks, selection, and the packed mask. The bar is `numpy.partition`
straight on TensorFlow's memory: the absolute values of the live weights
gathered into one array, partitioned in place; it ends with a threshold, and
makes no mask. Masks as bool arrays are handed to it for nothing. Sorting does
the same with `ndarray.sort`. tfmot's own update goes layer by layer.

    python benchmarks/prune_step.py                     # about 10 minutes
    python benchmarks/prune_step.py lenet resnet50 --pairs=30 --threads=1
    python benchmarks/prune_step.py vgg16 --pairs=10

Weights are He normal, removed ones are zero. Every step removes a fifth of
what is left. Times are of the processor, from interleaved pairs; memory is the
growth of the peak (VmHWM) of a process that has done one small prune step, and
what Python's allocators saw (tracemalloc).
"""

import argparse
import ctypes
import gc
import os
import subprocess
import sys
import time
import tracemalloc

import keras
import numpy as np
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.models import networks
from keras_lottery.pruning import weights
from keras_lottery.pruning.mask import kept

NETWORKS = {
    "lenet": lambda: networks.get("lenet")((28, 28, 1), 10),
    "resnet50": lambda: keras.applications.ResNet50(weights=None),
    "vgg16": lambda: keras.applications.VGG16(weights=None),
}
DENSITIES = (1.0, 0.8, 0.2)
BAR = 1.5
MEMORY_BARS = {"resnet50": 100e6, "vgg16": 2 * 2**30}


def prepared(network, density):
    """Returns a model with random weights, and its mask, removed ones zero."""
    model = NETWORKS[network]()
    generator = np.random.default_rng(0)
    for variable in weights.prunable(model).values():
        fan_in = np.prod(variable.shape[:-1])
        value = generator.standard_normal(variable.shape, np.float32)
        variable.assign(value * np.float32(np.sqrt(2 / fan_in)))
    mask = lottery.find_mask(model, 1 - density)
    for name, variable in weights.prunable(model).items():
        if density < 1:
            variable.assign(np.where(mask[name], variable.numpy(), 0))
    return model, mask


def ours(model, mask):
    """Returns the measured call: the whole step."""
    sparsity = 1 - 0.8 * mask.density

    def step():
        return lottery.find_mask(model, sparsity, mask=mask)

    return step


def by_numpy(model, mask, *, settle):
    """Returns the bar: live magnitudes gathered, then `settle(array, place)`.

    Args:
        model: A built `keras.Model`.
        mask: The current `Mask`.
        settle: Puts the value of rank `place` where it belongs, in place.
    """
    variables = weights.by_name(model)
    alive = {
        name: None if mask[name].all() else mask[name].ravel() for name in mask
    }
    counts = mask.kept_by_name
    place = mask.kept - kept(mask.size, 1 - 0.8 * mask.density)

    def step():
        live = np.empty(sum(counts.values()), np.float32)
        start = 0
        for name, bits in alive.items():
            view = np.asarray(tf.convert_to_tensor(variables[name].value))
            flat = view.ravel() if bits is None else view.ravel()[bits]
            end = start + counts[name]
            np.abs(flat, out=live[start:end])
            start = end
        settle(live, place)
        return live[place]

    return step


def by_tfmot(model, mask):
    """Returns tfmot's update of every layer's mask, in a compiled function."""
    from keras_lottery.tfmot_bridge import ConstantSparsity  # noqa: I001
    from tensorflow_model_optimization.python.core.sparsity.keras import (
        pruning_impl,
    )

    schedule = ConstantSparsity(1 - 0.8 * mask.density, 0)
    variables = weights.prunable(model).values()
    update = pruning_impl.Pruning(lambda: 0, [], schedule, (1, 1), "AVG")

    @tf.function
    def step():
        return [update._update_mask(variable.value) for variable in variables]

    return step


def timed(step):
    """Returns the processor's seconds and those on the wall."""
    wall, processor = time.perf_counter(), time.process_time()
    step()
    return time.process_time() - processor, time.perf_counter() - wall


def interleaved(one, two, pairs):
    """Returns an array (pair, which, clock) of seconds, after a warm-up."""
    one(), two()
    times = np.empty((pairs, 2, 2))
    for pair in range(pairs):
        order = ((0, one), (1, two)) if pair % 2 else ((1, two), (0, one))
        for which, step in order:
            times[pair, which] = timed(step)
    return times


def interval(ratios):
    """Returns the median and its 95 % interval, by resampling."""
    drawn = np.random.default_rng(0).choice(ratios, (4000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def report(network, density, pairs, slow):
    """Prints one row per rival: milliseconds, ratios, whether the bar holds."""
    model, mask = prepared(network, density)
    step = ours(model, mask)
    after = step()
    assert after.kept == kept(mask.size, 1 - 0.8 * mask.density)
    rivals = {
        "partition": by_numpy(model, mask, settle=np.ndarray.partition),
        "sort": by_numpy(model, mask, settle=lambda live, _: live.sort()),
        "tfmot": by_tfmot(model, mask),
    }
    assert rivals["partition"]() == _lowest_kept(model, after)
    for rival, other in rivals.items():
        count = slow if rival == "tfmot" else pairs
        if not count:
            continue
        times = interleaved(step, other, count)
        milliseconds = 1000 * np.median(times, axis=0)
        ratios = [
            interval(times[:, 0, clock] / times[:, 1, clock])
            for clock in (0, 1)
        ]
        held = ""
        if rival == "partition":
            held = "held" if ratios[0][1] <= BAR else "MISSED"
        print(
            f"{network:9} {density:4.0%} {rival:10}"
            f"{milliseconds[0, 0]:9.1f} {milliseconds[1, 0]:9.1f} ms  "
            + "  ".join(f"{m:.3f} [{a:.3f}, {b:.3f}]" for m, a, b in ratios)
            + f"  {count} pairs {held}",
            flush=True,
        )


def _lowest_kept(model, mask):
    values = weights.values(model)
    return min(np.abs(values[n][mask[n]]).min() for n in mask if mask[n].any())


def report_memory(network, density):
    """Prints what one prune step adds to the peak of this process."""
    small, full = prepared("lenet", 1.0)
    ours(small, full)()
    step = ours(*prepared(network, density))
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # room kept free hides a peak
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again at what is held now
    before = _peak()
    step()
    grown = _peak() - before
    tracemalloc.start()
    step()
    traced = tracemalloc.get_traced_memory()[1]
    bar = MEMORY_BARS.get(network)
    held = "" if bar is None else "held" if grown < bar else "MISSED"
    print(
        f"{network:9} {density:4.0%} memory: {grown / 1e6:.1f} MB of the "
        f"process, {traced / 1e6:.1f} MB by tracemalloc {held}",
        flush=True,
    )


def _peak():
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main():
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--slow", type=int, default=3, help="tfmot's pairs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--density", type=float, nargs="*", default=DENSITIES)
    parser.add_argument("--memory", action="store_true", help="this process")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    if arguments.memory:
        report_memory(arguments.networks[0], arguments.density[0])
        return
    print(
        f"{arguments.threads} threads; ours, rival (medians); ratio of "
        "processor times, of wall times, each with its 95 % interval"
    )
    for network in arguments.networks:
        for density in arguments.density:
            report(network, density, arguments.pairs, arguments.slow)
            command = [sys.executable, __file__, network, "--memory"]
            command += [f"--density={density}"]
            subprocess.run(command, check=True, env=os.environ)


if __name__ == "__main__":
    main()
