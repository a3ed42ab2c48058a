"""What is in the wheel, and what installing it gives."""

import os
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(
        not (ROOT / "setup.py").exists(), reason="needs a checkout: setup.py"
    ),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for name in ("keras_lottery", "configs"):
        (source / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q"]
    subprocess.run([*command, "-w", folder, source], check=True, timeout=300)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_module_and_the_data(wheel):
    names = set(wheel.namelist())
    modules = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "keras_lottery").rglob("*.py")
    }
    assert modules <= names
    assert "keras_lottery/py.typed" in names
    assert "keras_lottery/data/digits.csv.gz" in names
    assert "keras_lottery/data/digits_LICENSE.txt" in names
    assert not [name for name in names if name.startswith("tests")]


def test_the_wheel_holds_every_config_in_the_package(wheel):
    files = {f"keras_lottery/configs/{p.name}" for p in _configs()}
    found = [n for n in wheel.namelist() if "configs/" in n]
    assert set(found) == files and len(found) == len(files)
    for path in _configs():
        name = f"keras_lottery/configs/{path.name}"
        assert wheel.read(name) == path.read_bytes()


def test_configs_load_from_the_wheel_with_no_checkout_in_sight(wheel, tmp_path):
    unpacked, elsewhere = tmp_path / "unpacked", tmp_path / "elsewhere"
    elsewhere.mkdir()
    wheel.extractall(unpacked)
    code = (
        "from keras_lottery.runs import configuration as c; "
        "print(c.__file__); print(c.load('digits').name); "
        "print(*c.names()); print(c.load('mnist_lenet:short').train.steps)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    where, name, names, steps = found.stdout.splitlines()
    assert where.startswith(str(unpacked))
    assert (name, steps) == ("digits", "5000")
    assert names.split() == [path.stem for path in _configs()]


def _configs():
    return sorted((ROOT / "configs").glob("*.py"))


def test_the_wheel_installs_the_command(wheel):
    (points,) = [n for n in wheel.namelist() if n.endswith("entry_points.txt")]
    text = wheel.read(points).decode()
    assert "keras-lottery = keras_lottery.cli.main:main" in text


def test_the_metadata_says_what_is_needed(wheel):
    (path,) = [n for n in wheel.namelist() if n.endswith("METADATA")]
    text = wheel.read(path).decode()
    (python,) = re.findall(r"^Requires-Python: (.*)$", text, re.M)
    assert set(python.split(",")) == {">=3.11", "<3.14"}
    needed = re.findall(r"^Requires-Dist: ([\w.-]+)(?![^\n]*extra)", text, re.M)
    names = {name.replace("-", "_") for name in needed}
    assert {"filelock", "ml_collections", "tqdm", "absl_py"} <= names
    for extra in ("report", "data", "all", "test"):
        assert f"Provides-Extra: {extra}" in text
