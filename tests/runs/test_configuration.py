"""Configurations: the tree, files that fill it in, and what is refused."""

import pathlib

import ml_collections
import pytest

from keras_lottery.runs import configuration

NAMES = [
    "cifar10_conv2",
    "cifar10_conv4",
    "cifar10_conv6",
    "cifar10_resnet20",
    "cifar10_vgg19",
    "digits",
    "fashion_lenet",
    "mnist_lenet",
]
MINE = """'''My own lottery.'''
from keras_lottery.runs import configuration

def get_config(variant=""):
    config = configuration.defaults()
    config.name = "mine"
    {body}
    return configuration.vary(config, variant, VARIANTS)

def shorter(config):
    config.train.steps = 100

VARIANTS = {{"shorter": shorter}}
"""


@pytest.fixture
def write(tmp_path):
    """Returns a function that writes a config file and returns its path."""

    def written(body="pass", text=MINE):
        path = tmp_path / "mine.py"
        path.write_text(text.format(body=body))
        return str(path)

    return written


def test_defaults_are_new_each_time_and_pass():
    first, second = configuration.defaults(), configuration.defaults()
    configuration.check(first)
    first.model.arguments.hidden = (3,)
    first.seed = 5
    assert second.seed == 0
    assert second.model.arguments.to_dict() == {}


def test_flat_goes_through_sections_but_not_arguments():
    config = configuration.defaults()
    config.model.arguments.hidden = (3,)
    flat = configuration.flat(config)
    assert flat["model.arguments"] == {"hidden": (3,)}
    assert flat["export.enabled"] is True and flat["seed"] == 0
    assert not set(flat) & {"model", "train", "data", "export"}
    assert flat == configuration.flat(config.to_dict())


def test_the_bundled_files_are_listed():
    assert configuration.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_bundled_file_loads_with_every_variant(name):
    summary, variants = configuration.describe(name)
    assert summary.endswith(".") and "smoke" in variants
    assert configuration.load(name).name == name
    for variant in variants:
        config = configuration.load(f"{name}:{variant}")
        assert config.name == f"{name}_{variant}"
        assert config.train.steps % config.eval_every == 0
    smoke = configuration.load(f"{name}:smoke")
    assert (smoke.train.steps, smoke.prune.levels) == (20, 2)
    assert smoke.controls.one_shot and smoke.data.rows == 600


def test_a_file_loads_by_its_path(write, monkeypatch):
    path = write("config.train.steps = 700")
    assert configuration.load(path).train.steps == 700
    assert configuration.load(f"{path}:shorter").train.steps == 100
    monkeypatch.chdir(pathlib.Path(path).parent)
    for reference in ("./mine.py", "mine.py"):
        assert configuration.load(reference).train.steps == 700


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(
        ValueError,
        match=r"Unknown config 'mnist_lent'\. Did yo"
        r"u mean 'mnist_lenet'\?.*digits.*slash",
    ):
        configuration.load("mnist_lent")
    with pytest.raises(ValueError, match="./not.py is no config file"):
        configuration.load("./not.py")
    with pytest.raises(
        ValueError,
        match=r"Unknown variant 'smok' of 'digits'\."
        r" Expected one of 'smoke'",
    ):
        configuration.load("digits:smok")
    with pytest.raises(ValueError, match="Unknown config ''"):
        configuration.load("")


def test_a_folder_is_no_config_file(tmp_path):
    with pytest.raises(ValueError, match="config file"):
        configuration.load(f"{tmp_path}/")


def test_unknown_settings_are_answered_with_the_nearest(write):
    path = write("config.train.step = 3")
    with pytest.raises(
        ValueError,
        match=r"Unknown setting 'train.step'\. Did y"
        r"ou mean 'train.steps'\?.*configuration.defaults",
    ):
        configuration.load(path)
    path = write("config.zzz = ml = 3")
    with pytest.raises(ValueError, match=r"Unknown setting 'zzz'\. A conf"):
        configuration.load(path)


def test_missing_settings_are_named():
    config = configuration.defaults()
    del config.train.steps
    del config.seed
    with pytest.raises(ValueError, match=r"lacks seed, train\.steps"):
        configuration.check(config)


def test_a_file_without_get_config_is_refused(write):
    path = write(text="def config(): pass")
    with pytest.raises(ValueError, match=r"has no function `get_config"):
        configuration.load(path)


@pytest.mark.parametrize("found", ["None", "{{}}", "3"])
def test_a_get_config_that_returns_no_tree_is_refused(found, write):
    path = write(text=f"def get_config(variant=''): return {found}")
    with pytest.raises(ValueError, match="get_config|lacks"):
        configuration.load(path)


def test_a_dict_is_no_configuration(write):
    text = (
        "from keras_lottery.runs import configuration\n"
        "def get_config(variant=''):\n"
        "    return configuration.defaults().to_dict()\n"
    )
    with pytest.raises(ValueError, match="must return .*got dict"):
        configuration.load(write(text=text))


@pytest.mark.parametrize(
    "body",
    [
        "config.train.steps = 'many'",
        "config.train.steps = 1.5",
        "config.controls.names = 3",
        "config.data.normalize = 'yes'",
    ],
)
def test_a_setting_of_a_wrong_type_is_refused(body, write):
    with pytest.raises((ValueError, TypeError), match=r"steps|names|normalize"):
        configuration.load(write(body))


def test_whole_numbers_do_for_fractions(write):
    width = configuration.load(write("config.model.width = 2")).model.width
    assert width == 2.0 and isinstance(width, float)


def test_describe_reads_the_docstring(write):
    path = write()
    assert configuration.describe(path) == ("My own lottery.", ["shorter"])
    assert configuration.describe(write(text="x = 1")) == ("", [])


def test_vary_without_a_variant_changes_nothing():
    config = configuration.defaults()
    assert configuration.vary(config, "", {}) is config
    assert config.to_dict() == configuration.defaults().to_dict()


def test_the_tree_is_of_plain_values():
    """It becomes JSON: anything else would be lost on the way."""
    kinds = (int, float, str, bool, tuple, dict)
    for path, value in configuration.flat(configuration.defaults()).items():
        assert isinstance(value, kinds), path
    assert isinstance(configuration.defaults(), ml_collections.ConfigDict)
