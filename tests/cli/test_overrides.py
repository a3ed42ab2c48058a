"""`--config`: names, variants, files, and single settings."""

import pytest

from keras_lottery.cli import overrides
from keras_lottery.cli.arguments import Usage
from keras_lottery.runs import configuration

MINE = """
from keras_lottery.runs import configuration


def get_config(variant=""):
    config = configuration.defaults()
    config.name = "mine"
    return configuration.vary(config, variant, {"long": long})


def long(config):
    config.train.steps = 9000
"""


def split(*typed):
    return overrides.split(list(typed), "digits")


def settings(*typed):
    return configuration.flat(split(*typed)[0])


def changed(*typed):
    """The settings that differ from those of `digits`."""
    standard = settings()
    return {k: v for k, v in settings(*typed).items() if standard[k] != v}


def refused(*typed):
    with pytest.raises(Usage) as refusal:
        split(*typed)
    return str(refusal.value)


def test_nothing_typed_is_the_default():
    config, rest = split()
    assert config.to_dict() == configuration.load("digits").to_dict()
    assert rest == []


@pytest.mark.parametrize("name", configuration.names())
def test_every_bundled_config_by_name_and_as_a_separate_word(name):
    right = configuration.load(name).to_dict()
    assert right["name"] == name
    for typed in ([f"--config={name}"], ["--config", name]):
        assert split(*typed)[0].to_dict() == right


def test_a_variant_is_applied_and_named():
    config, _ = split("--config=mnist_lenet:short")
    assert (config.name, config.train.steps) == ("mnist_lenet_short", 5000)


def test_a_file_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    for path in ("./mine.py", "mine.py", str(tmp_path / "mine.py")):
        assert split(f"--config={path}")[0].name == "mine"
    config, _ = split("--config=./mine.py:long", "--config.seed=3")
    assert (config.train.steps, config.seed) == (9000, 3)


def test_the_last_one_wins_wherever_it_stands():
    assert split("--config=digits", "--config=mnist_lenet")[0].name == (
        "mnist_lenet"
    )
    assert changed("--config.seed=1", "--config.seed=2") == {"seed": 2}
    config, _ = split("--config.seed=3", "--config=mnist_lenet")
    assert (config.name, config.seed) == ("mnist_lenet", 3)


def test_what_is_no_setting_is_left_for_the_command():
    _, rest = split("--keep=all", "--config.seed=1", "--workdir", "x", "word")
    assert rest == ["--keep=all", "--workdir", "x", "word"]


def test_a_mistyped_setting_is_refused_with_the_nearest():
    told = refused("--config.prune.leves=3")
    assert "Unknown setting --config.prune.leves" in told
    assert "Did you mean 'prune.levels'?" in told


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--config.train.step=3", "train.steps"),
        ("--config.levels=3", "prune.levels"),
        ("--config.rewind.nam=none", "rewind.name"),
        ("--config.sed=3", "seed"),
    ],
)
def test_other_mistypings(typed, meant):
    assert f"Did you mean {meant!r}?" in refused(typed)


def test_a_section_is_no_setting_and_is_told_apart():
    told = refused("--config.prune=3")
    assert "Did you mean 'prune'?" not in told  # it is what was typed
    assert "prune.levels" in told


# Typed and meant, by the type of the default; none is any setting's default.
TYPED = {
    bool: [("true", True), ("false", False)],
    int: [("7", 7), ("1_000", 1000)],
    float: [("0.25", 0.25), ("1e-3", 1e-3), ("2", 2.0)],
    str: [("word", "word"), ("module:function", "module:function")],
    tuple: [
        ("('a','b')", ("a", "b")),
        ("(0.5,0.75)", (0.5, 0.75)),
        ("(('a/*',0.1),('b',0.2))", (("a/*", 0.1), ("b", 0.2))),
        ("()", ()),
        ("word", ("word",)),
    ],
}


@pytest.mark.parametrize(
    "path",
    [p for p, v in configuration.flat(configuration.defaults()).items()],
)
def test_every_setting_takes_a_value_of_its_type(path):
    default = configuration.flat(configuration.defaults())[path]
    if isinstance(default, dict):
        found = settings(f"--config.{path}.some_thing=3")[path]
        assert found["some_thing"] == 3
        return
    standard = settings()
    for typed, meant in TYPED[type(default)]:
        found = settings(f"--config.{path}={typed}")
        assert found[path] == meant and type(found[path]) is type(default)
        assert {**found, path: None} == {**standard, path: None}


def test_a_value_may_be_a_separate_word_as_with_every_other_flag():
    assert changed("--config.seed", "7") == {"seed": 7}
    config, rest = split("--config.train.loss", "mse", "--keep", "all")
    assert config.train.loss == "mse" and rest == ["--keep", "all"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--config.export.enabled=0", False),
        ("--noconfig.export.enabled", False),
        ("--config.export.enabled", True),
        ("-config.export.enabled=False", False),
    ],
)
def test_booleans_in_all_their_spellings(typed, meant):
    assert settings(typed)["export.enabled"] is meant


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("relu", "relu"),
        ("true", True),
        ("(3, 4)", (3, 4)),
        ("./some where.csv", "./some where.csv"),
    ],
)
def test_a_new_argument_is_read_as_a_literal_else_as_text(typed, meant):
    found = settings(f"--config.model.arguments.new={typed}")
    assert found["model.arguments"] == {"hidden": (300, 100), "new": meant}
    assert type(found["model.arguments"]["new"]) is type(meant)


def test_an_argument_that_is_there_keeps_its_type():
    found = settings("--config.model.arguments.hidden=(30,10)")
    assert found["model.arguments"] == {"hidden": (30, 10)}
    assert changed("--config.train.arguments.momentum=0.9") == {
        "train.arguments": {"momentum": 0.9}
    }


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("--config.prune.levels=three", "prune.levels=three"),
        ("--config.prune.levels=3.5", "prune.levels=3.5"),
        ("--config.train.learning_rate=fast", "train.learning_rate=fast"),
        ("--config.export.enabled=maybe", "export.enabled=maybe"),
        ("--config.model.arguments=5", "model.arguments=5"),
        ("--config.seed", "seed"),
        ("--noconfig.prune.levels", "prune.levels"),
        ("--config.model.arguments.", "model.arguments."),
        ("--config.=3", "config."),
    ],
)
def test_values_of_another_type_are_refused(typed, told):
    assert told in refused(typed)


def test_wrong_values_are_told_in_words_for_users():
    told = refused("--config.prune.levels=three")
    assert "base 10" not in told and "int" in told
    told = refused("--config.export.enabled=maybe")
    assert "('Non-boolean" not in told


def test_unknown_configs_variants_and_files():
    told = refused("--config=digit")
    assert "Did you mean 'digits'?" in told and "'digit'" in told
    assert ", ".join(configuration.names()) in told
    told = refused("--config=cifar10_vgg19:warm")
    for variant in ("'smoke'", "'warmup'", "'low'", "'warm'"):
        assert variant in told
    assert "./nowhere.py" in refused("--config=./nowhere.py")
    assert "Expected one of" in refused("--config=")


def test_config_without_a_name_is_refused():
    """Else a typo trains the default for a minute."""
    assert "--config" in refused("--config")
    assert "--config" in refused("--config.seed=1", "--config")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("folder/", None, "folder"),
        ("mine.py", "x = 1", "get_config"),
        ("mine.py", "def get_config(:", "mine.py"),
        ("mine.py", "def get_config(variant=''): return None", "mine.py"),
        ("mine.txt", "text", "mine.txt"),
        ("mine.py", "def get_config(): return None", "mine.py"),
    ],
)
def test_a_file_that_is_no_config_is_wrong_usage(
    name, text, told, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.mkdir() if text is None else path.write_text(text)
    assert told in refused(f"--config=./{name}")


def test_settings_that_the_tree_lacks_are_refused(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from keras_lottery.runs import configuration\n\n\n"
        "def get_config(variant=''):\n"
        "    config = configuration.defaults()\n"
        "    with config.unlocked():\n"
        "        config.prune.leves = 3\n"
        "    return config\n"
    )
    told = refused(f"--config={path}")
    assert "'prune.leves'" in told and "'prune.levels'" in told
