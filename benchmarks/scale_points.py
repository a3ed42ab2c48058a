"""The formulas of scale.py beside what is there, at small sizes.

    python benchmarks/scale_points.py

Small runs on the digits, of several networks and sizes: how many files they
leave, and the bytes of each that grows with the network. A step on two devices,
as TensorFlow has traced it: the bytes that they reduce, dense and pruned. A
ticket of ResNet-50, which was never trained. All have to be equal, to the byte;
the exit code is 1 where one is not.
"""

import dataclasses
import os
import pathlib
import tempfile

import keras
import scale
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.runs import configuration
from keras_lottery.runs import paths
from keras_lottery.runs import play
from keras_lottery.runs.directory import RunDirectory
from keras_lottery.runs.experiment import Experiment
from keras_lottery.tickets import ticket as tickets
from keras_lottery.tickets import ticket_file

SMALL = (("lenet", 0.1), ("lenet", 1.0), ("lenet", 3.0), ("resnet14", 0.125))


def small_runs(networks=SMALL, steps=4):
    """Plays small runs; yields (sizes, config, directory) of each.

    Args:
        networks: Pairs (name, width).
        steps: Of a level.
    """
    for index, (name, width) in enumerate(networks):
        config = configuration.load("digits:smoke")
        config.model.name, config.model.width = name, width
        config.model.arguments = {}
        config.train.optimizer, config.train.learning_rate = "sgd", 0.1
        config.train.arguments.momentum = 0.9
        config.train.steps, config.eval_every = steps, steps // 2
        config.rewind.step = steps // 2
        config.controls.one_shot = False
        config.replicates = 1 + index % 2
        with tempfile.TemporaryDirectory() as workdir:
            experiment = Experiment(config)
            directory = RunDirectory.of(config, workdir)
            directory.create(config)
            play.play(experiment, directory)
            yield scale.sizes_of(experiment.model), config, directory


def compared(sizes, config, directory):
    """Returns triples (what, said, found): files and bytes of a small run."""
    controls = len(config.controls.names) * config.controls.repeats
    numbers = (controls, True, config.prune.levels, config.replicates)
    found = sum(len(names) for *_, names in os.walk(directory.path))
    # The report is drawn by the command, when all is trained.
    result = [("files", scale.files(*numbers) - 1, found)]
    rows = {(r["replicate"], r["arm"], r["level"]): r for r in directory.rows()}
    for where in directory.levels():
        counted = rows[where]["kept"]
        for name, said in (
            (paths.TICKET, scale.ticket_bytes(sizes, where[2], counted)),
            (paths.POINT, scale.point_bytes(sizes)),
        ):
            path = pathlib.Path(directory.file(*where, name))
            if path.exists():
                content = path.read_bytes()
                arrays = len(content) - scale.header_bytes(content)
                result.append((f"{where} {name}", said, arrays))
    return result


def sent(prune):
    """Returns (sizes, bytes) that two devices reduce in a step, as traced.

    Args:
        prune: Whether half of the network is pruned.
    """
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model, sizes = _small_network(prune)

    @tf.function(autograph=False)
    def step(x, y):
        strategy.run(model.train_step, args=((x, y),))

    graph = step.get_concrete_function(tf.zeros((4, 6)), tf.zeros((4, 3))).graph
    reduced = [
        each.inputs[0]
        for each in graph.get_operations()
        if each.type == "CollectiveReduceV2"
    ]
    total = sum(each.shape.num_elements() * each.dtype.size for each in reduced)
    return sizes, total // strategy.num_replicas_in_sync


def _small_network(prune):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3),
        ]
    )
    sizes, trained = scale.sizes_of(model), model.trainable_variables
    if prune:
        mask = lottery.find_mask(model, 0.5)
        model = lottery.prune(model, lottery.OneShot(0.5))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.optimizer.build(trained)
    if prune:
        model.hold_optimizer()
        model.adopt_mask(mask, 1)
    return model, sizes


def of_resnet50():
    """Returns the bytes of a ticket of ResNet-50: as said, and as packed."""
    model = scale.resnet50()
    sparsity = 1 - (1 - scale.RATE) ** scale.LEVELS
    # Untrained, a global mask would leave whole layers empty.
    mask = lottery.find_mask(model, sparsity, allocation="layerwise")
    ticket = tickets.capture(model, mask, level=scale.LEVELS)
    end, end_state = tickets.ended(model, mask)
    ticket = dataclasses.replace(ticket, end=end, end_state=end_state)
    content = ticket_file.pack(ticket)
    said = scale.ticket_bytes(scale.sizes_of(model), scale.LEVELS)
    return said, len(content) - scale.header_bytes(content)


def check():
    """Prints how the formulas compare; returns the number of differences."""
    found = []
    for prune in (False, True):
        sizes, size = sent(prune)
        what = f"a step of {'a pruned' if prune else 'a dense'} network"
        said = scale.reduced_bytes(sizes)
        found.append((what, [("bytes", said, size)]))
    for sizes, config, directory in small_runs():
        what = f"{config.model.name} of {sizes.trained:,} weights"
        found.append((what, compared(sizes, config, directory)))
    found.append(("ticket of ResNet-50", [("bytes", *of_resnet50())]))
    for what, triples in found:
        bad = [each for each in triples if each[1] != each[2]]
        print(f"{what}: {len(triples)} compared, {len(bad)} differ", *bad)
    return sum(said != size for _, each in found for _, said, size in each)


if __name__ == "__main__":
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    raise SystemExit(bool(check()))
