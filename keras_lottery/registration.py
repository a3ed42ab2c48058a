"""Lets Keras find our classes before they are imported."""

import sys


class NotYetImported:
    """Stands for a class in Keras's registry until it is first needed.

    Keras reads a `.keras` file only with classes that are registered, and
    registering ours means importing TensorFlow, which `import keras_lottery`
    must not do.

    Args:
        load: Function that imports the class and returns it.
    """

    def __init__(self, load):
        self._load = load

    def from_config(self, config):
        """Imports the class and builds one."""
        return self._load().from_config(config)


def announce(name, load):
    """Registers a class by name, if Keras is imported already.

    Args:
        name: Name of the class.
        load: Function that imports the class and returns it.
    """
    if "keras" in sys.modules:
        objects = sys.modules["keras"].saving.get_custom_objects()
        objects.setdefault(f"keras_lottery>{name}", NotYetImported(load))
