"""made.json: which exports and which report a run has."""

import os
import pathlib

import pytest

from keras_lottery import files
from keras_lottery import sealed_json
from keras_lottery.runs import configuration
from keras_lottery.runs import directory
from keras_lottery.runs import made
from keras_lottery.runs import paths


@pytest.fixture
def run(tmp_path):
    """A new run of the default configuration, with two exported versions."""
    config = configuration.defaults()
    found = directory.RunDirectory.of(config, tmp_path / "runs")
    found.create(config)
    for version in ("1", "2"):
        os.makedirs(os.path.join(found.export_path, version))
    return found


def noted(run, **found):
    path = pathlib.Path(run.path, paths.MADE)
    path.write_bytes(sealed_json.pack(found))


def test_exports_are_found_by_their_ticket(run):
    assert made.exported(run, "a") is None
    made.note_export(run, os.path.join(run.export_path, "1"), "a")
    made.note_export(run, os.path.join(run.export_path, "2"), "b")
    assert made.exported(run, "a") == f"{run.export_path}/1"
    assert made.exported(run, "b") == f"{run.export_path}/2"
    assert made.exported(run, "c") is None
    assert made.differences(run) == []
    os.rmdir(f"{run.export_path}/2")
    assert made.exported(run, "b") is None
    assert made.differences(run) == ["export/2 is missing"]


def test_exports_that_point_elsewhere_are_not_followed(run, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    for version in ("..", "../..", str(outside), "../../../outside", "", "١"):
        noted(run, exports={version: "a"})
        assert made.exported(run, "a") is None, version


def test_an_export_that_is_a_link_out_is_refused(run, tmp_path):
    os.rmdir(os.path.join(run.export_path, "1"))
    os.symlink(tmp_path, os.path.join(run.export_path, "1"))
    made.note_export(run, os.path.join(run.export_path, "1"), "a")
    with pytest.raises(directory.RunError, match="leads out of the run"):
        made.exported(run, "a")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"exports": 3}'])
def test_what_is_damaged_is_named_and_made_again(content, run):
    pathlib.Path(run.path, paths.MADE).write_bytes(content)
    assert made.exported(run, "a") is None
    [difference] = made.differences(run)
    assert "made.json is damaged" in difference
    made.note_export(run, os.path.join(run.export_path, "1"), "a")
    assert made.differences(run) == []


def test_exports_that_are_no_object_are_damage(run):
    noted(run, exports=[1])
    assert "it has no exports" in made.differences(run)[0]


@pytest.mark.parametrize("change", ["flip", "truncate", "empty", "mark"])
def test_a_report_that_is_damaged_is_named(change, run):
    path = pathlib.Path(run.report_path)
    assert made.differences(run) == []  # there is none yet
    content = files.seal_page(b"<html>\n</html>\n")
    path.write_bytes(content)
    assert made.differences(run) == []
    path.write_bytes(
        {
            "flip": content.replace(b"<html>", b"<hUml>"),
            "truncate": content[:-40],
            "empty": b"",
            "mark": content[:-3],
        }[change]
    )
    assert "report.html is damaged" in made.differences(run)[0]
