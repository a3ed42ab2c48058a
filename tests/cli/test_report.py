"""`report`: the table and the page again, from what is on disk."""

import shutil

import pytest


def table(out):
    """What is printed from the table on."""
    return out[out.index("kept %") :].partition("\nexport ")[0].rstrip()


def test_it_prints_what_the_run_printed(made, finished, answer):
    told = answer("report", finished)
    assert told.code == 0 and told.err == ""
    right = made[1].out.replace(str(made[0]), str(finished))
    assert table(told.out) == table(right)


def test_it_makes_page_and_table_again_byte_for_byte(finished, answer):
    levels = (finished / "levels.csv").read_bytes()
    (finished / "levels.csv").unlink()
    (finished / "report.html").unlink()
    assert answer("report", finished).code == 0
    page = (finished / "report.html").read_bytes()
    assert (finished / "levels.csv").read_bytes() == levels
    assert answer("report", finished).code == 0
    assert (finished / "report.html").read_bytes() == page
    assert b"<svg" in page and b"<h1>digits_smoke</h1>" in page


def test_it_changes_nothing_else(finished, answer, contents):
    before = contents(finished)
    assert answer("report", finished).code == 0
    after = contents(finished)
    differing = {n for n in after if before.get(n) != after[n]}
    assert differing <= {"report.html", ".lock"}


def test_it_works_for_a_run_that_was_stopped(finished, answer):
    shutil.rmtree(finished / "replicate_0" / "shuffled_0")
    shutil.rmtree(finished / "replicate_0" / "ticket" / "level_2")
    told = answer("report", finished)
    assert told.code == 0, told.err
    assert "shuffled" not in told.out
    assert "ticket 1" in told.out


def test_with_the_dense_network_alone_it_says_so(finished, answer):
    for arm in ("one_shot", "shuffled_0", "reinitialized_0"):
        shutil.rmtree(finished / "replicate_0" / arm)
    for level in (1, 2):
        shutil.rmtree(finished / "replicate_0" / "ticket" / f"level_{level}")
    told = answer("report", finished)
    assert told.code == 0, told.err
    assert "there is no ticket yet" in told.out


def test_with_no_level_there_is_nothing_to_report(finished, answer):
    shutil.rmtree(finished / "replicate_0")
    told = answer("report", finished)
    assert told.code == 1
    assert "nothing to report" in told.err


def test_while_the_run_goes_on_its_table_is_left_to_it(finished, answer, held):
    held(finished)
    (finished / "levels.csv").write_text("of the run")
    told = answer("report", finished)
    assert told.code == 0, told.err
    assert (finished / "levels.csv").read_text() == "of the run"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("config.json", None, "not a run"),
        ("config.json", "{", "damaged"),
        ("config.json", "[]", "damaged"),
        ("config.json", '{"format": 1}', "another version"),
        ("config.json", '{"format": 3, "config": {}}', "damaged"),
        (".", None, "not a run"),
    ],
)
def test_what_is_no_run_exits_1(name, text, told, finished, answer):
    path = finished / name
    if text is not None:
        path.write_text(text)
    elif path.is_dir():
        shutil.rmtree(finished)
    else:
        path.unlink()
    found = answer("report", finished)
    assert found.code == 1 and found.out == ""
    assert told in found.err and str(finished) in found.err


def test_a_directory_that_cannot_be_written_exits_1(
    finished, answer, monkeypatch
):
    def full(path, content):
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr("keras_lottery.files.write_whole", full)
    told = answer("report", finished)
    assert told.code == 1
    assert "No space left on device" in told.err
