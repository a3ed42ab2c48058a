"""The conditions of a training: what its numbers are reproducible on."""

import tensorflow as tf

from keras_lottery.runs import machine
from keras_lottery.tickets.lottery import versions
from keras_lottery.training import determinism
from keras_lottery.training import fused
from keras_lottery.training import replicas


def of(model, strategy, mode):
    """Returns versions, devices, threads and how steps are compiled.

    With the same conditions, on the same machine, the same run gives the same
    bits.

    Args:
        model: The compiled `keras.Model`, its optimizer built.
        strategy: Name of the distribution strategy.
        mode: `"graph"` or `"xla"`.

    Returns:
        Dict of text and numbers.
    """
    threads = tf.config.threading
    return {
        "device": device(),
        "processor": machine.processor(),
        "strategy": strategy,
        "replicas": replicas.count(model),
        "compiled": mode,
        "update": update(model.optimizer, mode),
        "deterministic": determinism.is_deterministic(),
        "threads_inside_ops": threads.get_intra_op_parallelism_threads(),
        "threads_between_ops": threads.get_inter_op_parallelism_threads(),
        **{f"version_{name}": v for name, v in versions().items()},
    }


def update(optimizer, mode):
    """Returns what updates weights: `"fused"` kernels or `"keras"`."""
    served = mode == "graph" and fused.reason(optimizer) is None
    return "fused" if served else "keras"


def device():
    """Returns what TensorFlow computes on: `CPU`, or names of accelerators."""
    found = [
        tf.config.experimental.get_device_details(each).get(
            "device_name", each.device_type
        )
        for kind in ("TPU", "GPU")
        for each in tf.config.list_physical_devices(kind)
    ]
    return ", ".join(found) or "CPU"
