"""keras-lottery doctor: what is here, and whether a lottery runs on it."""

import os
import platform
import shutil

from keras_lottery.cli import arguments

USAGE = """\
keras-lottery doctor: versions, devices, and a lottery on each of them.

Examples:
  keras-lottery doctor                          the first thing on a GPU or TPU
  CUDA_VISIBLE_DEVICES=0 keras-lottery doctor   with one GPU of several

Plays two levels of 20 steps under each distribution strategy that this
machine has devices for, and compares counts, masks and weights with plain
CPU. Exit code 1 if a strategy fails, keeps other counts, or agrees on less
than 99 % of the masks.
"""
_AGREE = 0.99
_PACKAGES = (
    "keras_lottery",
    "keras",
    "tensorflow",
    "tensorflow-model-optimization",
    "tf_keras",
    "tensorflow-datasets",
    "numpy",
    "safetensors",
    "ml_collections",
    "matplotlib",
    "tensorflow-serving-api",
    "ai-edge-litert",
    "tf2onnx",
)


def main(typed):
    """Runs the command; returns its exit code."""
    parsed = arguments.parse("doctor", USAGE, typed, lambda known: None)
    if parsed is None:
        return 0
    for name, fact in _versions():
        print(f"{name:<32} {fact}")
    from keras_lottery.cli import start

    start.tensorflow()
    for name, fact in _machine():
        print(f"{name:<32} {fact}")
    failures = [name for name in _strategies() if not _examined(name)]
    if failures:
        print(f"\nNot usable here: {', '.join(failures)}.")
        return 1
    print("\nAll strategies found here agree with plain CPU.")
    return 0


def _versions():
    import importlib.metadata

    yield "python", platform.python_version()
    for package in _PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield package, "not installed"


def _machine():
    import tensorflow as tf

    yield "platform", platform.platform()
    yield "cores", os.cpu_count()
    for device in tf.config.list_physical_devices():
        details = tf.config.experimental.get_device_details(device)
        yield device.name, details.get("device_name", device.device_type)
    yield "free disk here", f"{shutil.disk_usage('.').free / 1e9:.1f} GB"
    server = shutil.which("tensorflow_model_server")
    yield "tensorflow_model_server", server or "not on PATH"
    for variable in ("TFDS_DATA_DIR", "KERAS_LOTTERY_DATA", "KERAS_BACKEND"):
        yield variable, os.environ.get(variable, "not set")


def _strategies():
    from keras_lottery.training import strategies

    return strategies.found()


def _examined(name):
    """Prints how a lottery under a strategy compares; returns if it is fine."""
    from keras_lottery.runs import checkup

    try:
        plain = checkup.plain()
        found = checkup.lottery_under(name)
    except Exception as error:  # whatever a device does, the next is tried
        print(
            f"lottery under {name:<18} FAILED: {type(error).__name__}: {error}"
        )
        return False
    difference, agreement = checkup.compare(found, plain)
    # Counts alone follow from the schedule; which weights, from the training.
    same = found.kept == plain.kept and agreement >= _AGREE
    print(
        f"lottery under {name:<18} {'ok' if same else 'DIFFERS'}: kept "
        f"{', '.join(map(str, found.kept))}; masks agree {agreement:.2%}, "
        f"weights to {difference:.1e}; {found.seconds:.1f} s"
    )
    return same
