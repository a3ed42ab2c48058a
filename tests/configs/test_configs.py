"""The bundled configs: the paper's numbers, and a smoke run of each."""

import contextlib
import fnmatch
import io
import os
import pathlib
import re
import shlex

import keras
import numpy as np
import pytest

from keras_lottery.cli import main
from keras_lottery.cli import overrides
from keras_lottery.pruning import groups
from keras_lottery.runs import compiling
from keras_lottery.runs import configuration
from keras_lottery.runs.experiment import Experiment

NAMES = configuration.names()
FOLDER = pathlib.Path(__file__).parents[2] / "configs"

OUTPUT = ("output/*", 0.1)
LENET = {"rates": (OUTPUT,), "rate": 0.2}
CONV = {
    "batch": 60,
    "optimizer": "adam",
    "rate": 0.2,
    "allocation": "layerwise",
    "augment": "none",
}
DEEP = {
    "optimizer": "sgd",
    "arguments": {"momentum": 0.9},
    "weight_decay": 1e-4,
    "rate": 0.0,  # dense layers are not pruned
    "allocation": "global",
    "augment": "flip_and_crop",
    "learning_rate": 0.1,
}
# Frankle & Carbin (2019), figure 2 and appendices H and I, written down from
# the paper; what is not here has the default of PLAIN.
PLAIN = {
    "batch": 60,
    "optimizer": "adam",
    "arguments": {},
    "warmup": 0,
    "drops": (),
    "weight_decay": 0.0,
    "allocation": "layerwise",
    "augment": "none",
}
PAPER = {
    "mnist_lenet": {**LENET, "steps": 50_000, "learning_rate": 1.2e-3},
    "cifar10_conv2": {
        **CONV,
        "steps": 20_000,
        "learning_rate": 2e-4,
        "rates": (OUTPUT, ("conv*", 0.1)),
    },
    "cifar10_conv4": {
        **CONV,
        "steps": 25_000,
        "learning_rate": 3e-4,
        "rates": (OUTPUT, ("conv*", 0.1)),
    },
    "cifar10_conv6": {
        **CONV,
        "steps": 30_000,
        "learning_rate": 3e-4,
        "rates": (OUTPUT, ("conv*", 0.15)),
    },
    "cifar10_resnet20": {
        **DEEP,
        "steps": 30_000,
        "batch": 128,
        "drops": (20_000, 25_000),
        "rates": (("*conv*", 0.2),),
    },
    "cifar10_vgg19": {
        **DEEP,
        "steps": 112_480,
        "batch": 64,
        "drops": (80 * 703, 120 * 703),
        "rates": (("conv*", 0.2),),
    },
}
PAPER["cifar10_resnet20:warmup"] = {
    **PAPER["cifar10_resnet20"],
    "learning_rate": 0.03,
    "warmup": 20_000,
}
PAPER["cifar10_resnet20:low"] = {
    **PAPER["cifar10_resnet20"],
    "learning_rate": 0.01,
}
PAPER["cifar10_vgg19:warmup"] = {
    **PAPER["cifar10_vgg19"],
    "warmup": 10_000,
}
PAPER["cifar10_vgg19:low"] = {**PAPER["cifar10_vgg19"], "learning_rate": 0.01}

# Percent of all weights after some levels, as the paper's figures print them.
LABELS = {
    "mnist_lenet": {3: 51.3, 7: 21.1, 9: 13.5, 12: 7.0, 15: 3.6},
    "cifar10_conv2": {11: 8.8, 14: 4.6},
    "cifar10_conv4": {11: 11.1, 12: 9.2, 13: 7.6, 15: 5.4},
    "cifar10_resnet20": {4: 41.7, 6: 27.1, 7: 21.9, 10: 11.8},
    "cifar10_vgg19": {12: 6.9, 15: 3.5, 19: 1.5},
}


def references():
    for name in NAMES:
        yield name
        for variant in configuration.describe(name)[1]:
            yield f"{name}:{variant}"


def settings(reference):
    flat = configuration.flat(configuration.load(reference))
    names = {
        "steps": "train.steps",
        "batch": "train.batch_size",
        "optimizer": "train.optimizer",
        "learning_rate": "train.learning_rate",
        "arguments": "train.arguments",
        "warmup": "train.warmup",
        "drops": "train.drops",
        "weight_decay": "train.weight_decay",
        "rate": "prune.rate",
        "rates": "prune.rates",
        "allocation": "prune.allocation",
        "augment": "data.augment",
    }
    return {short: flat[path] for short, path in names.items()}, flat


def test_there_is_a_table_row_for_every_config_of_the_paper():
    ours = {"digits", "fashion_lenet"}
    assert {name.partition(":")[0] for name in PAPER} == set(NAMES) - ours


@pytest.mark.parametrize("reference", PAPER)
def test_hyperparameters_are_those_of_the_paper(reference):
    found, flat = settings(reference)
    assert found == {**PLAIN, **PAPER[reference]}
    assert flat["prune.criterion"] == "magnitude"
    assert (flat["rewind.name"], flat["rewind.step"]) == ("weights", 0)
    assert flat["train.drop_factor"] == 0.1
    assert flat["model.width"] == 1.0
    assert flat["data.validation"] == 5000 and flat["data.rows"] == 0
    assert flat["prune.levels"] >= max(LABELS.get(flat["name"], [0]))


@pytest.mark.parametrize("name", LABELS)
def test_levels_keep_the_percentages_that_the_paper_prints(name):
    experiment = Experiment(configuration.load(name))
    shape = (28, 28, 1) if name == "mnist_lenet" else (32, 32, 3)
    arguments = experiment.config.model.arguments.to_dict()
    model = experiment.network(input_shape=shape, classes=10, **arguments)
    sizes = {
        v.path.split("/", 1)[-1] if v.path.count("/") > 1 else v.path: v.shape
        for v in model.trainable_weights
        if v.path.endswith("/kernel")
    }
    sizes = {name: int(np.prod(shape)) for name, shape in sizes.items()}
    for level, percent in LABELS[name].items():
        kept = 0.0
        for weight, size in sizes.items():
            rate = _rate(experiment.config.prune, weight)
            kept += size * (1 - rate) ** level
        # Half a digit either way; Conv-4's 7.653 is printed 7.6.
        assert abs(100 * kept / sum(sizes.values()) - percent) < 0.054
    assert groups.sparsities(experiment.schedule, 1)


def _rate(prune, weight):
    """The rate of the first pattern that fits, as the paper's rules read."""
    for pattern, rate in prune.rates:
        if fnmatch.fnmatch(weight, pattern):
            return rate
    return prune.rate


@pytest.mark.parametrize("reference", list(references()))
def test_every_config_and_variant_makes_an_experiment_without_data(
    reference, monkeypatch, tmp_path
):
    monkeypatch.setattr(Experiment, "data", None)
    monkeypatch.chdir(tmp_path)
    config = configuration.load(reference)
    experiment = Experiment(config)
    assert config.name == reference.replace(":", "_")
    assert experiment.levels == config.prune.levels
    assert isinstance(
        compiling.optimizer(config.train), keras.optimizers.Optimizer
    )
    assert (experiment.metric, experiment.mode) == ("accuracy", "max")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_last_learning_rates_are_reached(name):
    config = configuration.load(name)
    rate = compiling.optimizer(config.train).learning_rate
    schedule = getattr(
        compiling.optimizer(config.train), "_learning_rate", rate
    )
    train = config.train
    if not train.drops:
        assert float(rate) == pytest.approx(train.learning_rate)
        return
    for drops, step in enumerate([0, *train.drops]):
        right = train.learning_rate * train.drop_factor**drops
        assert float(schedule(step)) == pytest.approx(right)
    assert max(train.drops) < train.steps


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_claims_something_and_its_command_parses(name):
    summary, variants = configuration.describe(name)
    assert summary.endswith(".") and "smoke" in variants
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    docstring = " ".join(text.split('"""')[1].split())
    (command,) = re.findall(r"Run: `(.*?)`", docstring)
    tool, run, *typed = shlex.split(command)
    assert (tool, run) == ("keras-lottery", "run")
    config, rest = overrides.split(typed, "digits")
    assert config.name.startswith(name) and rest == []
    for variant in re.findall(r"`:(\w+)`", docstring):
        assert variant in variants


@pytest.mark.parametrize("name", NAMES)
def test_a_smoke_run_has_every_kind_of_arm_and_takes_seconds(name):
    config = configuration.load(f"{name}:smoke")
    assert config.controls.one_shot and len(config.controls.names) == 2
    assert (config.replicates, config.prune.levels) == (1, 2)
    assert (config.train.steps, config.data.rows) == (20, 600)
    assert all(drop < config.train.steps for drop in config.train.drops)


def needs(name):
    """The set of tfds that a smoke run reads, or None."""
    data = configuration.load(f"{name}:smoke").data.name
    return None if data == "digits" else data


def is_here(data):
    folder = os.environ.get("TFDS_DATA_DIR")
    return folder is not None and pathlib.Path(folder, data).is_dir()


def told(*typed):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        with pytest.raises(SystemExit) as stopped:
            main.main([str(each) for each in typed])
    return stopped.value.code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[
                pytest.mark.skipif(
                    needs(name) is not None and not is_here(needs(name)),
                    reason=f"needs {needs(name)} of tfds in TFDS_DATA_DIR",
                ),
                *([pytest.mark.thorough] if "cifar10" in name else []),
            ],
        )
        for name in NAMES
    ],
)
def test_the_smoke_run_is_as_it_says(name, tmp_path):
    code, out, err = told(
        "run", f"--config={name}:smoke", f"--workdir={tmp_path}"
    )
    assert code == 0, err
    (path,) = tmp_path.iterdir()
    assert path.name.startswith(f"{name}_smoke-")
    rows = (path / "levels.csv").read_text().splitlines()
    assert len(rows) == 1 + 1 + 2 * 4  # dense, then four arms at two levels
    assert (path / "export" / "1" / "saved_model.pb").exists()
    code, out, err = told("verify", path)
    assert (code, err) == (0, ""), out
    assert out.endswith("9 levels: as it says\n")
