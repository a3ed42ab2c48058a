"""The page: its words, its numbers, escaping, and whole files only."""

import html.parser
import os
import re
import stat

import pytest

from keras_lottery.report import page

EVIL = "<script>alert('x')</script>&\"--> {brace} $x_y"
VOID = {"meta"}


def row(arm, level, replicate, accuracy, step, **others):
    return {
        "replicate": replicate,
        "arm": arm,
        "level": level,
        "density": [1.0, 0.5, 0.135][level],
        "kept": [1000, 500, 135][level],
        "size": 1000,
        "early_step": step,
        "val_loss": 0.1,
        "val_accuracy": accuracy,
        "test_accuracy": accuracy,
        "last_test_accuracy": accuracy,
        **others,
    }


ROWS = [
    row("ticket", 0, 0, 0.95, 1000),
    row("ticket", 0, 1, 0.97, 3000),
    row("ticket", 1, 0, 0.96, 1000),
    row("ticket", 1, 1, 0.98, 1000),
    row("ticket", 2, 0, 0.96, 1500),
    row("ticket", 2, 1, 0.974, 900),
    row("reinitialized_0", 2, 0, 0.94, 4000),
    row("reinitialized_0", 2, 1, 0.942, 4400),
    row("reinitialized_1", 2, 0, 0.93, 4000),
    row("reinitialized_1", 2, 1, 0.952, 4000),
]
FACTS = {"command": "keras-lottery run", "seed": "0"}


class Outline(html.parser.HTMLParser):
    """Checks that every tag is closed in turn; collects tags and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def render(rows=ROWS, title="digits", facts=FACTS):
    return page.render(rows, title=title, facts=facts)


def cells(text):
    """Returns the table as lists of strings."""
    return [
        re.findall(r"<td>(.*?)</td>", line)
        for line in text.splitlines()
        if line.startswith("<tr>")
    ]


def changed(arm, **changes):
    return [{**r, **changes} if r["arm"] == arm else r for r in ROWS]


def test_summary_of_a_winning_ticket():
    assert page.summary(ROWS) == (
        "The sparsest ticket no worse than the dense network, chosen on "
        "validation data, keeps 13.5 % of the weights (mean of 2 replicates, "
        "test accuracy 96.70 % against 96.00 %, early stopping at iteration "
        "1,200 against 2,000). Reinitialized it reaches 94.10 % (4 "
        "trainings): it is a winning ticket."
    )


def test_summary_says_where_trainings_overlap():
    rows = [*ROWS, row("reinitialized_2", 2, 0, 0.961, 4000)]
    assert page.summary(rows).endswith(
        "Reinitialized it reaches 94.50 % (5 trainings): worse on average, "
        "though single trainings overlap, so it is a winning ticket."
    )


def test_summary_where_the_control_is_as_good():
    rows = changed("reinitialized_0", test_accuracy=0.99)
    rows = [r for r in rows if r["arm"] != "reinitialized_1"]
    assert page.summary(rows).endswith(
        "Reinitialized it reaches 99.00 % (2 trainings): no worse, so it is "
        "not a winning ticket."
    )


@pytest.mark.parametrize(
    "control", [[], [row("reinitialized_0", 2, 0, None, 9)]]
)
def test_summary_without_a_control(control):
    rows = [r for r in ROWS if r["arm"] == "ticket"]
    text = page.summary([*rows, *control])
    assert text.endswith("it is not called winning.")
    assert "it is a winning ticket" not in text


def test_summary_admits_what_test_data_says():
    rows = [
        row("ticket", 0, 0, 0.9, 100, test_accuracy=0.92),
        row("ticket", 1, 0, 0.9, 100, test_accuracy=0.91),
    ]
    text = page.summary(rows)
    assert "mean of 1 replicate," in text
    assert "On test data it is worse than the dense network." in text


def test_summary_where_none_wins():
    rows = [row("ticket", 0, 0, 0.9, 100), row("ticket", 1, 0, 0.8, 100)]
    assert page.summary(rows) == (
        "There is no winning ticket: on validation data no pruned level is as "
        "good as the dense network and as early (mean of 1 replicate, dense "
        "test accuracy 90.00 %)."
    )


def as_errors(rows, metric="mean_absolute_error"):
    """The same rows with 1 - accuracy under the name of an error."""
    return [
        {
            name.replace("accuracy", metric): (
                1 - value if "accuracy" in name and value else value
            )
            for name, value in row.items()
        }
        for row in rows
    ]


def test_summary_of_an_error():
    text = page.summary(as_errors(ROWS), "mean_absolute_error")
    assert text == (
        "The sparsest ticket no worse than the dense network, chosen on "
        "validation data, keeps 13.5 % of the weights (mean of 2 replicates, "
        "test mean absolute error 0.03300 against 0.04000, early stopping at "
        "iteration 1,200 against 2,000). Reinitialized it reaches 0.05900 (4 "
        "trainings): it is a winning ticket."
    )


@pytest.mark.parametrize(
    ("accuracy", "end"),
    [
        (0.94, "0.06000 (1 training): it is a winning ticket."),
        (
            0.961,
            "0.03900 (1 training): worse on average, though single trainings "
            "overlap, so it is a winning ticket.",
        ),
        (
            0.98,
            "0.02000 (1 training): no worse, so it is not a winning ticket.",
        ),
    ],
)
def test_summary_of_an_error_and_its_control(accuracy, end):
    rows = [r for r in ROWS if r["arm"] == "ticket"]
    rows.append(row("reinitialized_0", 2, 0, accuracy, 4000))
    text = page.summary(as_errors(rows), "mean_absolute_error")
    assert text.endswith(f"Reinitialized it reaches {end}")


def test_summary_of_an_error_admits_what_test_data_says():
    worse = "On test data it is worse than the dense network."
    for tested, expected in ((0.2, True), (0.05, False)):
        rows = [
            row("ticket", 0, 0, 0.9, 100, val_mae=0.1, test_mae=0.1),
            row("ticket", 1, 0, 0.9, 100, val_mae=0.1, test_mae=tested),
        ]
        assert (worse in page.summary(rows, "mae")) is expected


def test_summary_goes_by_the_mode_given():
    rows = as_errors(ROWS, "fluency")
    assert "it is a winning ticket" in page.summary(rows, "fluency", "min")
    assert "no winning ticket" in page.summary(rows, "fluency", "max")
    with pytest.raises(ValueError, match="'fluency' is better is not known"):
        page.summary(rows, "fluency")


def test_summary_claims_nothing_of_a_metric_that_was_not_measured():
    assert page.summary(ROWS, "mean_absolute_error") == (
        "Which ticket wins is not known: the dense network has no validation "
        "mean absolute error."
    )


@pytest.mark.parametrize(
    ("rows", "start"),
    [
        ([], "There is no dense network"),
        (ROWS[2:], "There is no dense network"),
        (ROWS[:2], "Only the dense network is trained"),
    ],
)
def test_summary_of_what_is_not_finished(rows, start):
    assert page.summary(rows).startswith(start)


def test_table():
    assert cells(render()) == [
        ["100", "ticket", *["96.00 [95.00, 97.00]"] * 3]
        + ["2,000 [1,000, 3,000]", "2"],
        ["50", "ticket", *["97.00 [96.00, 98.00]"] * 3]
        + ["1,000 [1,000, 1,000]", "2"],
        ["13.5", "ticket", *["96.70 [96.00, 97.40]"] * 3]
        + ["1,200 [900, 1,500]", "2"],
        ["13.5", "reinitialized", *["94.10 [93.00, 95.20]"] * 3]
        + ["4,100 [4,000, 4,400]", "4"],
    ]


def heads(text):
    return re.findall(r"<th>(.*?)</th>", text)


def test_heads_name_the_metric():
    assert heads(render()) == [
        "kept %",
        "arm",
        "validation accuracy (%)",
        "test accuracy (%)",
        "test accuracy, last iteration (%)",
        "early-stopping iteration",
        "n",
    ]


def test_table_of_an_error():
    text = page.render(
        as_errors(ROWS), title="", facts={}, metric="mean_absolute_error"
    )
    assert heads(text)[2:5] == [
        "validation mean absolute error",
        "test mean absolute error",
        "test mean absolute error, last iteration",
    ]
    assert cells(text)[0] == [
        *["100", "ticket", *["0.04000 [0.03000, 0.05000]"] * 3],
        *["2,000 [1,000, 3,000]", "2"],
    ]


def test_rows_without_the_metric_are_shown_without():
    text = page.render(ROWS, title="", facts={}, metric="auc")
    assert [row[2:5] for row in cells(text)] == [["–"] * 3] * 4
    assert "nan" not in "".join(Outline(text).text).lower()


def test_a_metric_of_anyone_is_escaped():
    text = page.render(
        [{**ROWS[0], f"test_{EVIL}": 0.5}],
        title="",
        facts={},
        metric=EVIL,
        mode="max",
    )
    assert "script" not in [tag for tag, _ in Outline(text).tags]
    assert "<td>0.5000 [0.5000, 0.5000]</td>" in text


def test_missing_numbers_are_shown_as_missing():
    rows = [
        row("ticket", 0, 0, 0.95, None, val_accuracy=float("nan")),
        row("ticket", 0, 1, 0.97, 300, val_accuracy=None),
    ]
    rows[0]["test_accuracy"] = None
    del rows[0]["last_test_accuracy"], rows[1]["last_test_accuracy"]
    expected = ["100", "ticket", "–", "97.00 [97.00, 97.00] (n = 1)", "–"]
    expected += ["300 [300, 300] (n = 1)", "2"]
    text = render(rows)
    assert cells(text) == [expected]
    assert "nan" not in "".join(Outline(text).text).lower()


@pytest.mark.parametrize(
    "rows", [ROWS, ROWS[:1], [], changed("ticket", level=0)]
)
def test_html_is_well_formed(rows):
    outline = Outline(render(rows))
    assert "digits" in outline.text
    assert [tag for tag, _ in outline.tags].count("svg") == 1


def test_sample_sizes_stand_beside_the_plots():
    caption = re.search("<figcaption>(.*)</figcaption>", render())[1]
    assert "ticket 2, reinitialized 4." in caption


def test_what_comes_from_data_is_escaped():
    rows = [*ROWS, row(EVIL, 1, 0, 0.9, 100)]
    text = render(rows, title=EVIL, facts={EVIL: EVIL, "n": 3})
    outline = Outline(text)
    assert "<script" not in text
    assert "script" not in [tag for tag, _ in outline.tags]
    assert "".join(outline.text).count(EVIL) == 4  # title, heading, dt, dd
    assert EVIL.replace("_", " ") in "".join(outline.text)  # the table


def test_nothing_is_loaded():
    outline = Outline(render())
    spaces = ("xmlns", "xmlns:xlink")
    for tag, attributes in outline.tags:
        assert tag not in ("script", "link", "img", "iframe", "image")
        for name, value in attributes.items():
            assert name in spaces or "://" not in (value or "")
            if name in ("src", "href", "xlink:href"):
                assert value.startswith("#")
    text = "".join(outline.text)
    assert "://" not in text
    assert "@import" not in text
    assert "url(" not in text.replace("url(#", "")
    assert "default-src 'none'" in outline.tags[3][1]["content"]


def test_light_and_dark():
    text = render()
    assert "prefers-color-scheme: dark" in text
    assert "currentColor" in text


def test_equal_input_gives_equal_bytes(tmp_path):
    for name, rows in (("a.html", ROWS), ("b.html", ROWS[::-1])):
        page.write(rows, tmp_path / name, title="digits", facts=FACTS)
    assert (tmp_path / "a.html").read_bytes() == (
        tmp_path / "b.html"
    ).read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.html", "b.html"]


def test_write_replaces_and_reads_as_other_files_do(tmp_path):
    path, other = tmp_path / "report.html", tmp_path / "other"
    path.write_text("old")
    other.write_text("")
    page.write(ROWS, path, title="Ä", facts={})
    assert "<h1>Ä</h1>" in path.read_text(encoding="utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(
        other.stat().st_mode
    )


def test_write_beside_the_caller(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page.write(ROWS, "report.html", title="digits", facts={})
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, step, error):
    def fail(*arguments):
        raise error

    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)):
        page.write(ROWS, path, title="digits", facts={})
    assert os.listdir(tmp_path) == ["report.html"]
    assert path.read_text() == "old"


def test_write_takes_a_metric(tmp_path):
    path = tmp_path / "report.html"
    choice = {"metric": "mae", "mode": "min"}
    page.write(as_errors(ROWS, "mae"), path, title="", facts={}, **choice)
    assert "test mae 0.03300 against" in path.read_text(encoding="utf-8")


def test_a_metric_without_a_direction_leaves_nothing(tmp_path):
    path = tmp_path / "report.html"
    with pytest.raises(ValueError, match="pass mode='max' or mode='min'"):
        page.write(ROWS, path, title="", facts={}, metric="fluency")
    assert os.listdir(tmp_path) == []


def test_a_failure_to_draw_leaves_nothing(tmp_path):
    with pytest.raises(KeyError):
        page.write([{"level": 0}], tmp_path / "a.html", title="", facts={})
    assert os.listdir(tmp_path) == []


def test_a_folder_that_takes_no_files_is_an_error(tmp_path):
    path = tmp_path / "missing" / "report.html"
    with pytest.raises(OSError, match="missing"):
        page.write(ROWS, path, title="digits", facts={})
    assert os.listdir(tmp_path) == []
