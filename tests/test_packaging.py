"""What is in the wheel, and what installing it gives."""

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
    (source / "keras_lottery").symlink_to(ROOT / "keras_lottery")
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


def test_the_wheel_installs_the_command(wheel):
    (points,) = [n for n in wheel.namelist() if n.endswith("entry_points.txt")]
    text = wheel.read(points).decode()
    assert "keras-lottery = keras_lottery.cli.main:main" in text


def test_the_metadata_says_what_is_needed(wheel):
    (path,) = [n for n in wheel.namelist() if n.endswith("METADATA")]
    text = wheel.read(path).decode()
    (python,) = re.findall(r"^Requires-Python: (.*)$", text, re.M)
    assert set(python.split(",")) == {">=3.11", "<3.14"}
    for extra in ("report", "data", "all", "test"):
        assert f"Provides-Extra: {extra}" in text
