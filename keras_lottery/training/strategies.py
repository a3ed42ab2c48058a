"""Distribution strategies by name, and those this machine has devices for."""

import contextlib
import functools
import json
import os

import tensorflow as tf

from keras_lottery import choices

_NO_CLUSTER = """\
The strategy 'multi_worker' needs TF_CONFIG: the same cluster on every worker, \
and an index of its own on each. For example
  TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, \
"task": {"type": "worker", "index": 0}}'
For a cluster resolver of your own name a function, 'module:function', that \
returns the strategy."""


def none():
    """Returns no strategy: TensorFlow's default device."""
    return None


@functools.cache
def one_device():
    """Returns a strategy on the first accelerator, or the CPU."""
    return tf.distribute.OneDeviceStrategy(_accelerators()[0])


@functools.cache
def mirrored():
    """Returns a strategy over all accelerators of this machine, or the CPU.

    One for a process: TensorFlow numbers the sums of each from the same number
    on, and a second one over other shapes is aborted.
    """
    return tf.distribute.MirroredStrategy(_accelerators())


@functools.cache
def multi_worker(timeout=600.0):
    """Returns a strategy over the workers that TF_CONFIG names.

    To be called before TensorFlow does anything else.

    Args:
        timeout: Seconds after which a worker that does not answer is lost.

    Raises:
        ValueError: TF_CONFIG names no cluster.
    """
    if not _names_a_cluster(os.environ.get("TF_CONFIG", "")):
        raise ValueError(_NO_CLUSTER)
    options = tf.distribute.experimental.CommunicationOptions(
        timeout_seconds=timeout
    )
    return tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=options
    )


@functools.cache
def tpu():
    """Returns a strategy over the TPU of TPU_NAME, or of this machine."""
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(
        os.environ.get("TPU_NAME", "local")
    )
    return tf.distribute.TPUStrategy(resolver)


STRATEGIES = {
    "none": none,
    "one_device": one_device,
    "mirrored": mirrored,
    "multi_worker": multi_worker,
    "tpu": tpu,
}


def get(identifier):
    """Returns the function that makes the strategy called `identifier`."""
    return choices.resolve(
        "strategy",
        identifier,
        STRATEGIES,
        "a function () -> tf.distribute.Strategy",
    )


def scope(strategy):
    """Returns the strategy's scope; for None a context that does nothing."""
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def found():
    """Returns the names of the strategies that can run on this machine."""
    names = ["none", "one_device", "mirrored"]
    there = tf.config.list_physical_devices("TPU") or os.environ.get("TPU_NAME")
    return [*names, "tpu"] if there else names


def _names_a_cluster(text):
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and {"cluster", "task"} <= set(found)


def _accelerators():
    for kind in ("TPU", "GPU", "CPU"):
        devices = tf.config.list_logical_devices(kind)
        if devices:
            return [device.name for device in devices]
    raise ValueError("TensorFlow finds no device.")
