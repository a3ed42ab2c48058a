"""The figure: axes, curves, bands, labels, and files that do not change."""

import subprocess
import sys
import xml.etree.ElementTree

import numpy as np
import pytest

from keras_lottery.report import plots


def row(arm, level, accuracy, step, density=None):
    return {
        "arm": arm,
        "level": level,
        "density": 0.5**level if density is None else density,
        "test_accuracy": accuracy,
        "early_step": step,
    }


ROWS = [
    row("ticket", 0, 0.5, 100),
    row("ticket", 0, 0.7, 300),
    row("ticket", 1, 0.625, 80),
    row("ticket", 1, 0.625, 120),
    row("reinitialized_0", 1, 0.25, 400),
    row("reinitialized_1", 1, 0.75, 600),
]


def lines(axes):
    """Returns the curves by label, without their sample sizes."""
    return {
        line.get_label().partition(" (")[0]: line for line in axes.get_lines()
    }


def test_both_panels_are_logarithmic_and_sparser_to_the_right():
    figure = plots.quality_and_speed(ROWS)
    assert len(figure.axes) == 2
    for axes in figure.axes:
        assert axes.get_xscale() == "log"
        assert axes.xaxis_inverted()
        left, right = axes.get_xlim()
        assert left > 100 > 50 > right


def test_lines_are_means():
    accuracy, speed = plots.quality_and_speed(ROWS).axes
    ticket = lines(accuracy)["ticket"]
    np.testing.assert_allclose(ticket.get_xdata(), [100, 50])
    np.testing.assert_allclose(ticket.get_ydata(), [60, 62.5])
    control = lines(accuracy)["reinitialized"]
    np.testing.assert_allclose(control.get_ydata(), [50])
    assert list(lines(speed)["ticket"].get_ydata()) == [200, 100]
    assert list(lines(speed)["reinitialized"].get_ydata()) == [500]
    np.testing.assert_allclose(
        lines(accuracy)["dense network"].get_ydata(), [60, 60]
    )


def test_bands_reach_from_the_smallest_to_the_largest():
    _, speed = plots.quality_and_speed(ROWS).axes
    ticket, control = (
        band.get_paths()[0].vertices for band in speed.collections
    )
    at_dense = ticket[np.isclose(ticket[:, 0], 100), 1]
    assert (at_dense.min(), at_dense.max()) == (100, 300)
    assert (control[:, 1].min(), control[:, 1].max()) == (400, 600)


def test_the_legend_says_how_many_and_stays_off_the_data():
    figure = plots.quality_and_speed([*ROWS, row("ticket", 2, 0.5, 90)])
    figure.draw_without_rendering()
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [
        "ticket (n = 1–2)",
        "reinitialized (n = 2)",
        "dense network",
    ]
    below = min(axes.get_tightbbox().y0 for axes in figure.axes)
    assert legend.get_window_extent().y1 <= below


def test_ticks_are_plain_numbers_that_do_not_touch():
    rows = [row("ticket", n, 0.5, 9, density=0.8**n) for n in range(31)]
    figure = plots.quality_and_speed(rows)
    figure.draw_without_rendering()
    labels = figure.axes[0].get_xticklabels()
    texts = [label.get_text() for label in labels]
    assert texts[:3] == ["100", "41", "16.8"]
    assert texts[-1] == "0.19"
    boxes = [label.get_window_extent() for label in labels]
    assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))
    assert len(figure.axes[0].xaxis.get_minorticklocs()) == 0


def test_no_two_kinds_look_alike():
    names = ["ticket", "reinitialized_0", "shuffled_0", "random_0", "one_shot"]
    names += "abcdefgh"
    rows = [row(name, 1, 0.5, 9) for name in names]
    drawn = plots.quality_and_speed(rows).axes[0].get_lines()
    looks = {(line.get_color(), line.get_marker()) for line in drawn}
    assert len(looks) == len(names)


def test_one_shot_has_a_look_of_its_own():
    looks = []
    for others in ("ticket", "abc"):
        rows = [row(name, 1, 0.5, 9) for name in [*others.split(), "one_shot"]]
        line = lines(plots.quality_and_speed(rows).axes[0])["one shot"]
        looks.append((line.get_color(), line.get_marker()))
    assert looks[0] == looks[1]


def test_a_spare_look_does_not_depend_on_one_shot():
    for rows in ([row("a", 1, 0.5, 9)], [row("a", 1, 0.5, 9), *ROWS]):
        looks = []
        for more in ([], [row("one_shot", 1, 0.5, 9)]):
            figure = plots.quality_and_speed([*rows, *more])
            line = lines(figure.axes[0])["a"]
            looks.append((line.get_color(), line.get_marker()))
        assert looks[0] == looks[1]


def renamed(rows, metric):
    """Rows with another metric in place of the accuracy."""
    return [
        {name.replace("accuracy", metric): v for name, v in row.items()}
        for row in rows
    ]


def test_a_number_is_drawn_as_it_is_and_a_fraction_in_percent():
    for metric, scale in (("mean_squared_error", 1), ("auc", 100)):
        rows = renamed(ROWS, metric)
        left, right = plots.quality_and_speed(rows, metric).axes
        ticket = lines(left)["ticket"]
        np.testing.assert_allclose(
            ticket.get_ydata(), [0.6 * scale, 0.625 * scale]
        )
        assert list(lines(right)["ticket"].get_ydata()) == [200, 100]


@pytest.mark.parametrize(
    ("metric", "mode", "title", "label"),
    [
        ("accuracy", None, "Test accuracy at early stopping (%)", ""),
        ("mae", None, "Test mae at early stopping", "less is better"),
        ("r2_score", None, "Test r2 score at early stopping", ""),
        ("fluency", "min", "Test fluency at early stopping", "less is better"),
    ],
)
def test_the_left_panel_names_its_metric(metric, mode, title, label):
    rows = renamed(ROWS, metric)
    left, right = plots.quality_and_speed(rows, metric, mode).axes
    assert (left.get_title(loc="left"), left.get_ylabel()) == (title, label)
    assert right.get_title(loc="left") == "Early-stopping iteration"


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e7])
def test_a_long_name_stays_over_its_own_panel(scale):
    metric = "sparse_top_k_mean_absolute_percentage_error"
    rows = [{**r, f"test_{metric}": scale * r["test_accuracy"]} for r in ROWS]
    figure = plots.quality_and_speed(rows, metric)
    figure.draw_without_rendering()
    left, right = figure.axes
    title = left._left_title.get_window_extent()
    assert title.x1 < right.get_tightbbox().x0
    assert title.y1 <= figure.bbox.y1
    offset = left.yaxis.offsetText
    if offset.get_text():
        assert not title.overlaps(offset.get_window_extent())


def test_a_metric_whose_direction_is_not_known_is_refused():
    with pytest.raises(ValueError, match="'fluency' is better is not known"):
        plots.quality_and_speed([], "fluency")


@pytest.mark.parametrize("metric", ["mae", "auc"])
def test_rows_without_the_metric_are_drawn(metric):
    left, _ = plots.quality_and_speed(ROWS, metric).axes
    assert np.isnan(lines(left)["ticket"].get_ydata()).all()
    assert plots.svg(left.figure).startswith("<svg")


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row("ticket", 0, None, None)],
        [row("ticket", 0, 0.5, float("nan"))],
        [{"arm": "ticket", "level": 0}],
        [row("ticket", 0, 0.5, 9), row("ticket", 1, 0.5, 9, density=0.0)],
        [row("ticket", 1, 0.5, 9), row("$x_0", 1, 0.5, 9)],
        [row("ticket", 1, 0.5, 9), row("_hidden", 1, 0.5, 9)],
    ],
)
def test_odd_rows_are_drawn(rows):
    assert plots.svg(plots.quality_and_speed(rows)).startswith("<svg")


def test_svg_is_whole_and_refers_to_nothing_outside():
    text = plots.svg(plots.quality_and_speed(ROWS))
    root = xml.etree.ElementTree.fromstring(text)
    link = "{http://www.w3.org/1999/xlink}href"
    links = [node.get(link) for node in root.iter() if node.get(link)]
    assert links
    assert all(target.startswith("#") for target in links)
    assert "metadata" not in text
    assert "#ffffff" not in text
    assert plots.INK not in text


@pytest.mark.parametrize(
    ("name", "start"),
    [("figure.svg", b"<?xml"), ("figure.png", b"\x89PNG"), ("a.pdf", b"%PDF")],
)
def test_saved_pictures_do_not_change(tmp_path, name, start):
    contents = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / name
        plots.save(plots.quality_and_speed(ROWS), path)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    assert contents[0].startswith(start)
    assert b"dc:date" not in contents[0]


def test_report_imports_only_itself_and_no_window():
    program = (
        "import sys; from keras_lottery.report import page; print(*sys.modules)"
    )
    modules = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    ours = [name for name in modules if name.startswith("keras_lottery.")]
    allowed = (
        "keras_lottery.report",
        "keras_lottery.files",
        "keras_lottery.directions",
        "keras_lottery.notation",
        "keras_lottery.printable",
    )
    ours.remove("keras_lottery.registration")  # by keras_lottery itself
    assert all(name.startswith(allowed) for name in ours)
    banned = {"tensorflow", "keras", "tf_keras", "matplotlib.pyplot"}
    assert not banned & set(modules)
