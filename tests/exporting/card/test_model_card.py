"""Model cards: every number counted again here, by other means."""

import hashlib
import io
import json
import math
import os
import re
import socket
import tarfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery import tfmot_bridge
from keras_lottery.exporting import compact
from keras_lottery.exporting import dense
from keras_lottery.exporting.card import card_text
from keras_lottery.exporting.card import markdown
from keras_lottery.exporting.card import model_card
from keras_lottery.exporting.card import sizes
from keras_lottery.tickets.ticket import capture
from keras_lottery.tickets.ticket import ended

HOSTILE = "a|b`<script>*x*\n| # _y_ [z](http://w) \\ &amp; \u202e ~~ ```"


class Refusing(keras.Sequential):
    """A model that Keras's own export stumbles over."""

    def export(self, filepath, **unused):
        raise TypeError(f"Cannot write {filepath}/variables.\nMore lines.")


def network(kind=keras.Sequential):
    keras.utils.set_random_seed(0)
    model = kind(
        [
            keras.Input((20,), name="pixels"),
            keras.layers.Dense(30, activation="relu", name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(3, name="logits"),
        ]
    )
    zeroed = np.zeros((20, 30), np.float32)
    zeroed[3, :7] = 0.5  # 7 of 600
    model.get_layer("hidden").kernel.assign(zeroed)
    kernel = np.ones((30, 3), np.float32)
    kernel[5:] = 0  # 15 of 90
    model.get_layer("logits").kernel.assign(kernel)
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("serving") / "1"
    path.mkdir()
    model = network()
    compact.write_compact(model, str(path))
    (path / "assets.extra").mkdir()
    (path / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"12345")
    return model, path


def facts_of(exported, **changed):
    model, path = exported
    given = {"name": "digits", "format": "compact", "path": path}
    return model_card.facts(model=model, **{**given, **changed})


@pytest.fixture(scope="module")
def facts(exported):
    return facts_of(exported)


def page(facts, **changed):
    return card_text.markdown(model_card.plain({**facts, **changed}))


def test_weights_are_counted(facts):
    assert facts["weights"] == {
        "hidden/kernel": {
            "shape": [20, 30],
            "total": 600,
            "kept": 7,
            "density": 7 / 600,
            "kept_by_mask": None,
        },
        "logits/kernel": {
            "shape": [30, 3],
            "total": 90,
            "kept": 15,
            "density": 15 / 90,
            "kept_by_mask": None,
        },
    }
    assert facts["sparsity"] == {"total": 690, "kept": 22, "density": 22 / 690}
    assert facts["other_values"] == 30 + 4 * 30 + 3
    assert (facts["mask"]["kept"], facts["mask"]["total"]) == (22, 690)


def test_a_ticket_brings_its_mask_and_where_it_is_from(exported):
    model = exported[0]
    mask = lottery.find_mask(model, 0.9)
    end, end_state = ended(model, mask)
    made = {
        "seed": 3,
        "data": "/home/somebody/data",
        "schedule": {"class_name": "OneShot"},
    }
    fields = {"end": end, "end_state": end_state, "level": 2}
    ticket = capture(model, mask, provenance=made, **fields)
    facts = facts_of(exported, ticket=ticket)
    assert facts["mask"]["sha256"] == mask.checksum
    assert facts["ticket"]["level"] == 2
    assert facts["ticket"]["provenance"] == {**made, "data": "data"}
    kept = facts["weights"]["hidden/kernel"]["kept_by_mask"]
    assert kept == np.count_nonzero(mask["hidden/kernel"])
    assert "ticket of level 2" in page(facts) and "seed: 3" in page(facts)
    assert facts_of(exported, mask=mask)["mask"] == facts["mask"]


def test_what_rounding_makes_zero_is_not_kept(exported):
    model = network()
    kernel = np.zeros((20, 30), np.float32)
    kernel[0, :3] = 1, 0.001, -0.5  # int8: steps of 1 / 127
    model.get_layer("hidden").kernel.assign(kernel)
    counts = {
        (values, format): facts_of(
            (model, exported[1]), values=values, format=format
        )["weights"]["hidden/kernel"]["kept"]
        for values in ("float32", "float16", "int8")
        for format in ("compact", "lite")
    }
    assert counts.pop(("int8", "compact")) == 2
    assert set(counts.values()) == {3}


def test_a_legacy_model_has_a_card_too(exported, tmp_path):
    tf_keras = tfmot_bridge.legacy_keras()
    layer = tf_keras.layers.Dense(3, name="out")
    model = tf_keras.Sequential([tf_keras.Input((5,), name="x"), layer])
    kernel = np.zeros((5, 3), np.float32)
    kernel[1] = 1
    layer.kernel.assign(kernel)
    facts = facts_of((model, exported[1]))
    assert facts["weights"]["out/kernel"]["kept"] == 3
    assert facts["inputs"] == {"x": {"shape": [None, 5], "dtype": "float32"}}
    assert facts["bytes"]["keras"]["bytes"] > 0
    model_card.write(tmp_path, facts)


def test_a_weight_more_is_another_mask(exported, facts):
    model = network()
    kernel = model.get_layer("hidden").kernel
    kernel.assign(np.eye(20, 30, dtype=np.float32))
    other = model_card.facts(exported[1], model, name="x", format="compact")
    assert other["mask"]["sha256"] != facts["mask"]["sha256"]
    again = model_card.facts(exported[1], network(), name="x", format="x")
    assert again["mask"] == facts["mask"]


def bytes_of(path, left_out=("assets.extra",)):
    count = 0
    for folder, folders, names in os.walk(path):
        folders[:] = [each for each in folders if each not in left_out]
        count += sum(os.path.getsize(os.path.join(folder, n)) for n in names)
    return count


def test_bytes_are_those_of_the_files(exported, facts, tmp_path):
    model, path = exported
    found = facts["bytes"]
    own = found["export"]["bytes"]
    assert own == bytes_of(path) > 0
    assert found["export"]["ratio"] == 1
    dense.write_dense(model, str(tmp_path / "dense"))
    model.export(str(tmp_path / "keras"), verbose=False)
    for name in ("dense", "keras"):
        expected = bytes_of(tmp_path / name)
        # Numbers that TensorFlow counts on through the process are in them.
        assert found[name]["bytes"] == pytest.approx(expected, rel=0.01)
    for name in ("dense", "keras", "dense_tar_gz", "keras_tar_gz", "bound"):
        assert found[name]["ratio"] == found[name]["bytes"] / own
    assert found["dense_tar_gz"]["bytes"] < found["dense"]["bytes"]


def test_the_archive_holds_the_files_and_no_dates(exported):
    path = exported[1]
    count = sizes.tar_bytes(path)
    os.utime(path / "saved_model.pb", (1e9, 1e9))
    assert sizes.tar_bytes(path) == count
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz", compresslevel=9) as archive:
        for name, file in sizes.files(path):
            if not name.startswith("assets.extra"):
                archive.add(file, name)
    # Plain tarfile writes owners and dates as well: a few bytes more.
    assert count == pytest.approx(len(whole.getvalue()), abs=300)


@pytest.mark.parametrize(
    ("values", "width"), [("float32", 4), ("bfloat16", 2), ("int8", 1)]
)
def test_the_bound_is_entropy_and_values(exported, values, width):
    """The kernels hold 0 and one other value: none of them rounds to 0."""
    bits = 0
    for kept, total in ((7, 600), (15, 90)):
        for count in (kept, total - kept):
            bits += count * math.log2(total / count)
    raw = (30 + 4 * 30 + 3) * 4
    found = facts_of(exported, values=values)["bytes"]
    expected = math.ceil(bits / 8 + 22 * width + raw)
    assert found["bound"]["bytes"] == expected


def test_what_was_not_measured_is_no_number(exported):
    model = network(Refusing)
    facts = facts_of((model, exported[1]))
    for key in ("keras", "keras_tar_gz"):
        assert facts["bytes"][key] == {
            "not_measured": "TypeError: Cannot write (path)"
        }
    text = page(facts)
    assert "not measured | TypeError" in text
    assert "smaller than Keras's own" not in text
    assert "an export that writes each variable once" in text


def test_files_are_known_by_their_checksums(exported, facts):
    path = exported[1]
    expected = {}
    for folder, _, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            with open(file, "rb") as opened:
                digest = hashlib.sha256(opened.read()).hexdigest()
            expected[os.path.relpath(file, path).replace(os.sep, "/")] = digest
    assert facts["files"] == expected
    assert "assets.extra/tf_serving_warmup_requests" in expected


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_the_cards_are_written_and_alike_each_time(exported, facts, tmp_path):
    written = []
    for _ in range(2):
        model_card.write(tmp_path, facts)
        names = ("model_card.json", "MODEL_CARD.md")
        written.append([(tmp_path / name).read_bytes() for name in names])
    assert written[0] == written[1]
    read = json.loads(written[0][0], parse_constant=refuse)
    assert read == json.loads(json.dumps(facts))
    assert sorted(os.listdir(tmp_path)) == ["MODEL_CARD.md", "model_card.json"]
    assert model_card.checksums(tmp_path) == {}
    again = {**facts_of(exported), "bytes": None}
    assert again == {**facts, "bytes": None}  # TensorFlow's own vary a little


def test_no_card_says_where_or_when(exported, tmp_path):
    model, path = exported
    facts = facts_of(exported, name=os.path.join(path, "digits"))
    model_card.write(tmp_path, facts)
    for name in ("model_card.json", "MODEL_CARD.md"):
        text = (tmp_path / name).read_text()
        for secret in (str(path), str(tmp_path), os.path.expanduser("~/")):
            assert secret not in text
        assert socket.gethostname() not in text
        assert not re.search(r"\b20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text)


def test_numbers_that_json_has_not_become_text(facts, tmp_path):
    apart = {
        "largest_difference": float("inf"),
        "largest_output": np.float32(1),
        "relative": float("nan"),
    }
    changed = {"samples": np.int64(16), "outputs": {"logits": apart}}
    model_card.write(tmp_path, {**facts, "differences": changed})
    with open(tmp_path / "model_card.json") as file:
        read = json.load(file, parse_constant=refuse)
    assert read["differences"]["outputs"]["logits"] == {
        "largest_difference": "infinity",
        "largest_output": 1.0,
        "relative": "NaN",
    }
    assert "| logits | infinity | 1 | NaN |" in page(read)


def tables(text):
    """The tables of a page, as lists of rows of cells."""
    found, rows = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append(re.split(r"(?<!\\)\|", line)[1:-1])
        elif rows:
            found.append(rows)
            rows = []
    return found


def without_code(text):
    return re.sub(r"```.*?\n```", "", text, flags=re.S)


def test_no_name_breaks_the_page(facts):
    plain_page = page(facts)
    row = facts["weights"]["hidden/kernel"]
    apart = dict.fromkeys(
        ("largest_difference", "largest_output", "relative"), 0.5
    )
    hostile = page(
        facts,
        name=HOSTILE,
        weights={HOSTILE: row, "hidden/kernel": row},
        inputs={HOSTILE: {"shape": [None, 2], "dtype": "float32"}},
        differences={"samples": 1, "outputs": {HOSTILE: apart}},
        shrink=HOSTILE,
        ticket={"level": 1, "provenance": {HOSTILE: HOSTILE}, "metrics": {}},
    )
    headings = [t[0] for t in tables(hostile)]
    for expected in [t[0] for t in tables(plain_page)]:
        assert expected in headings
    for each in tables(hostile):
        assert {len(cells) for cells in each} == {len(each[0])}
    prose = without_code(hostile)
    assert "<" not in prose and "[z]" not in prose and "\u202e" not in prose
    assert hostile.count("```") % 2 == 1  # the one inside a Python string
    sections = re.findall("^## (.*)$", plain_page, re.M)
    assert re.findall("^## (.*)$", hostile, re.M) == sections
    assert len(re.findall("^# ", without_code(hostile), re.M)) == 1


def test_escaping_is_undone_by_html():
    import html

    text = "a|b`<c>*_d_[e](f)\\&~#!{}"
    shown = markdown.escaped(text)
    assert html.unescape(shown) == text
    assert not set(shown) & set("|`<>*[]\\~!{}")
    assert (
        markdown.escaped("block_1/conv_2d/kernel") == "block_1/conv_2d/kernel"
    )


def test_the_python_of_the_page_runs(exported, facts, monkeypatch):
    model, path = exported
    (code,) = re.findall("```python\n(.*?)```", page(facts), re.S)
    monkeypatch.chdir(path)
    scope = {}
    exec(code, scope)
    (answer,) = scope["answers"].values()
    expected = model(np.zeros((1, 20), np.float32))
    np.testing.assert_allclose(answer, expected, atol=1e-6)
    assert tf.is_tensor(answer)


def test_what_is_lossy_is_said_first(facts):
    accuracy = {"before": 0.975, "after": 0.95, "samples": 1200}
    apart = {
        "largest_difference": 0.0125,
        "largest_output": 2.5,
        "relative": 0.005,
    }
    text = page(
        facts,
        values="int8",
        accuracy=accuracy,
        differences={"samples": 16, "outputs": {"logits": apart}},
    )
    paragraph = text.split("\n\n")[1]
    assert paragraph.startswith("**Lossy: values are stored as int8.**")
    assert "up to 0.0125 over 16 probe samples" in paragraph
    assert "1,200 samples: 97.50 % before, 95.00 % after" in paragraph
    assert "| logits | 0.0125 | 2.5 | 0.005 |" in text
    assert "Lossy" not in page(facts)
    assert "Not compared with the trained" in page(facts)


def test_the_summary_says_what_is_smaller_and_what_is_not_faster(facts):
    own = facts["bytes"]["export"]["bytes"]
    changed = {
        "export": {"bytes": own, "ratio": 1.0},
        "keras": {"bytes": 40 * own, "ratio": 40.0},
        "dense": {"bytes": own, "ratio": 1.01},
        "dense_tar_gz": {"bytes": own // 2, "ratio": 0.5},
    }
    paragraph = page(facts, bytes=changed).split("\n\n")[1]
    assert "22 of 690 weights (3.2 %)" in paragraph
    assert "40.0 x smaller than Keras's own export" in paragraph
    assert "about the size of an export that writes" in paragraph
    assert "2.0 x larger than that one as a `.tar.gz`" in paragraph
    assert "at the speed of the dense model: zeros are mult" in paragraph


@pytest.mark.parametrize("format", ["keras", "lite", "onnx"])
def test_other_files_claim_no_server_and_no_speed(facts, format):
    text = page(facts, format=format)
    assert "at the speed of the dense" not in text
    assert "tensorflow_model_server --" not in text
    assert "keras-lottery verify" in text


def test_what_was_removed_is_listed(facts):
    text = page(facts, shrink="hidden: 30 to 7 units\nnorm: folded")
    assert "\n- hidden&#58; 30 to 7 units\n- norm&#58; folded\n" in text
    assert "Units and channels that change nothing were removed" in text
    assert "Removed:" not in page(facts)


def test_speed_is_shown_only_where_it_was_measured(facts):
    ratio = {"median": 1.02, "low": 0.99, "high": 1.04}
    request = {"p50_seconds": 1.5e-5, "p99_seconds": None}
    both = {"compact": request, "dense": request, "ratio": ratio, "pairs": 30}
    load = {"seconds": 0.05}
    memory = {"bytes": 4_000_000}
    measured = {
        "threads": 1,
        "compared": ["compact", "dense"],
        "batch_1": both,
        "batch_64": both,
        "load": {**both, "compact": load, "dense": load},
        "memory": {**both, "compact": memory, "dense": memory},
    }
    text = page(facts, measured=measured)
    assert "1.02 x the time of the dense export" in text
    assert "0.99 to 1.04, 30 rounds" in text
    assert "| compact | 15.0 | – | 15.0 | – | 50 | 4 |" in text
    assert "## Speed" in text and "## Speed" not in page(facts)
