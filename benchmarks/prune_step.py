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
what is left. Memory is the growth of the peak (VmHWM) of a process that has
done one small prune step.
"""

import argparse
import ctypes
import gc
import subprocess
import sys
import time

import bars
import keras
import numpy as np
import tensorflow as tf
import turns

import keras_lottery as lottery
from keras_lottery.errors import RunError
from keras_lottery.models import networks
from keras_lottery.pruning import weights
from keras_lottery.pruning.mask import kept

NETWORKS = {
    "lenet": lambda: networks.get("lenet")((28, 28, 1), 10),
    "resnet50": lambda: keras.applications.ResNet50(weights=None),
    "vgg16": lambda: keras.applications.VGG16(weights=None),
}
DENSITIES = (1.0, 0.8, 0.2)
PARTITION = "numpy's partition"
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


def interleaved(one, two, pairs):
    """Returns two lists of seconds on the wall, after a warm-up."""
    one(), two()
    seconds = {one: [], two: []}
    for pair in range(pairs):
        for step in (one, two) if pair % 2 else (two, one):
            began = time.perf_counter()
            step()
            seconds[step].append(time.perf_counter() - began)
    return seconds[one], seconds[two]


def compared(network, density, pairs, slow):
    """Returns rows (`Bar`, median seconds of ours, of the rival)."""
    model, mask = prepared(network, density)
    step = ours(model, mask)
    after = step()
    if after.kept != kept(mask.size, 1 - 0.8 * mask.density):
        raise RunError(f"{after.kept} weights were kept.")
    found = []
    for rival, other in rivals(network, model, mask).items():
        if rival == PARTITION and other() != _lowest_kept(model, after):
            raise RunError("The partition finds another threshold.")
        bar = ("<=", BAR) if rival == PARTITION else ()
        times = interleaved(step, other, pairs if bar else slow)
        what = f"{network}, {density:.0%} kept: ours / {rival}"
        row = bars.of_pairs(what, *times, *bar)
        found.append((row, *map(np.median, times)))
        print(*row.cells, file=sys.stderr, flush=True)
    return found


def rivals(network, model, mask):
    """Returns dict from name to the call that is measured beside ours."""
    found = {
        PARTITION: by_numpy(model, mask, settle=np.ndarray.partition),
        "sorting": by_numpy(model, mask, settle=lambda live, _: live.sort()),
    }
    if network != "vgg16" and mask.density == 1:  # half a minute each there
        found["tfmot"] = by_tfmot(model, mask)
    return found


def _lowest_kept(model, mask):
    values = weights.values(model)
    return min(np.abs(values[n][mask[n]]).min() for n in mask if mask[n].any())


def memory(network, density):
    """Returns the bytes that one prune step adds to this process's peak."""
    small, full = prepared("lenet", 1.0)
    ours(small, full)()
    step = ours(*prepared(network, density))
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # room kept free hides a peak
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again at what is held now
    before = _peak()
    step()
    return _peak() - before


def memory_row(network, density, threads):
    """Returns the `Bar` of a process of its own."""
    command = [sys.executable, __file__, network, "--memory"]
    command += [f"--density={density}", f"--threads={threads}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    what = f"{network}, {density:.0%} kept: extra memory"
    bar = MEMORY_BARS.get(network)
    return bars.of_count(
        what,
        int(done.stdout) / 1e6,
        *(() if bar is None else ("<=", bar / 1e6)),
        unit="MB",
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
    parser.add_argument(
        "--slow", type=int, default=6, help="pairs with sorting and tfmot"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--density", type=float, nargs="*", default=DENSITIES)
    parser.add_argument("--memory", action="store_true", help="this process")
    given = parser.parse_args()
    turns.limit_threads(given.threads)
    if given.memory:
        print(memory(given.networks[0], given.density[0]))
        return
    rows, medians = [], []
    for network in given.networks:
        for density in given.density:
            for row, one, two in compared(
                network, density, given.pairs, given.slow
            ):
                rows.append(row)
                medians.append(
                    [row.what, f"{1e3 * one:.1f}", f"{1e3 * two:.1f}"]
                )
            rows.append(memory_row(network, density, given.threads))
    count = "1 thread" if given.threads == 1 else f"{given.threads} threads"
    print(f"## The prune step, {count}\n")
    print(bars.table(rows), end="\n\n")
    head = ["what", "ms, ours (median)", "ms, rival"]
    print(bars.markdown(head, medians), end="\n\n")
    print(bars.circumstances(threads=given.threads))


if __name__ == "__main__":
    main()
