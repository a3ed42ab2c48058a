"""Distribution strategies by name, and those this machine has devices for."""

import contextlib

import tensorflow as tf

from keras_lottery import choices


def none():
    """Returns no strategy: TensorFlow's default device."""
    return None


def one_device():
    """Returns a strategy on the first accelerator, or the CPU."""
    return tf.distribute.OneDeviceStrategy(_accelerators()[0])


def mirrored():
    """Returns a strategy over all accelerators of this machine, or the CPU."""
    return tf.distribute.MirroredStrategy(_accelerators())


def tpu():
    """Returns a strategy over the TPU that this machine is attached to."""
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
    return tf.distribute.TPUStrategy(resolver)


STRATEGIES = {
    "none": none,
    "one_device": one_device,
    "mirrored": mirrored,
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
    return [*names, "tpu"] if tf.config.list_physical_devices("TPU") else names


def _accelerators():
    for kind in ("TPU", "GPU", "CPU"):
        devices = tf.config.list_logical_devices(kind)
        if devices:
            return [device.name for device in devices]
    raise ValueError("TensorFlow finds no device.")
