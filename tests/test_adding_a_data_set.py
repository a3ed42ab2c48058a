"""The Python of docs/adding_a_data_set.md runs, and does what it says."""

import pathlib
import re

import keras
import pytest

from keras_lottery.data import data_set
from keras_lottery.data import sources
from keras_lottery.data import tfds_images

PAGE = pathlib.Path(__file__).resolve().parent.parent / (
    "docs/adding_a_data_set.md"
)

pytestmark = pytest.mark.skipif(
    not PAGE.exists(), reason="needs a checkout: docs/ is not installed"
)


def blocks(language="python"):
    pattern = rf"```{language}\n(.*?)```"
    return re.findall(pattern, PAGE.read_text(encoding="utf-8"), re.S)


def needs_tfds(block):
    return '"fashion_mnist"' in block


def claims(block):
    """What the comments say that `print` prints."""
    return re.findall(r"^(?:print\(.*\)  )?# ([\[(f].*)$", block, re.M)


def test_the_page_runs_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    names = {}
    run = [block for block in blocks() if not needs_tfds(block)]
    assert len(run) == 6
    for block in run:
        exec(block, names)
        printed = capsys.readouterr().out
        for claim in claims(block):
            assert claim in printed, (claim, printed)
    assert sum(len(claims(block)) for block in run) == 3
    assert data_set.classes(names["pictures"]) == 2
    assert data_set.classes(names["houses"]) is None
    assert names["pictures"].train[0].max() == 1.0


def test_the_pictures_keep_their_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks()[:5]:
        if not needs_tfds(block):
            exec(block, names)
    for x, y in sources.load(names["load_pictures"]):
        striped = (x[:, :, 5:7] == 1.0).all(axis=(1, 2, 3))
        assert (striped == y).all()


def test_the_block_about_tfds_runs(capsys):
    if "fashion_mnist" not in tfds_images.prepared():
        pytest.skip("needs tfds's fashion_mnist: set TFDS_DATA_DIR")
    (block,) = filter(needs_tfds, blocks())
    exec(block, {"sources": sources})
    (claim,) = claims(block)
    assert capsys.readouterr().out.strip() == claim


def test_the_table_of_files_is_the_one_of_the_code():
    from keras_lottery.data import raw_sets

    text = PAGE.read_text(encoding="utf-8")
    for name in raw_sets.FILES:
        assert f"| `{name}` | `{name}/" in text
    for name in raw_sets.FILES["rt_polarity"]:
        assert f"rt_polarity/{name}" in text


def test_the_error_of_tfds_and_the_page_give_the_same_command():
    (command,) = re.findall(
        r"^python -m (.*) build", "\n".join(blocks("sh")), re.M
    )
    assert f"python -m {command} build mnist" in tfds_images.how_to_get("mnist")
