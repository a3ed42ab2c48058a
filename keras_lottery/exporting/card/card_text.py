"""A model card as people read it: markdown from the facts."""

import re

from keras_lottery import notation
from keras_lottery.exporting import measuring
from keras_lottery.exporting.card.markdown import escaped
from keras_lottery.exporting.card.markdown import number
from keras_lottery.exporting.card.markdown import table

SERVED = ("compact", "compact-serving", "dense")
SPEED = (
    "It answers at the speed of the dense model: zeros are multiplied like "
    "other numbers, and memory holds all of them."
)
OTHER_SPEED = (
    "Zeros save bytes; whether they save time is up to what runs the file, and "
    "was not measured."
)
ROWS = {
    "export": "**this export**",
    "export_tar_gz": "this export as `.tar.gz`",
    "dense": "SavedModel, each variable once, zeros included",
    "dense_tar_gz": "the same as `.tar.gz`",
    "keras": "Keras's own `model.export`",
    "keras_tar_gz": "the same as `.tar.gz`",
    "bound": "entropy of the places + values as they are + all else",
}


def markdown(facts):
    """Returns the page.

    Args:
        facts: Dict from `model_card.facts`, in plain types.
    """
    parts = [
        f"# {escaped(facts['name'])}",
        _summary(facts),
        "## Bytes",
        _bytes(facts["bytes"]),
        "## Answers",
        _answers(facts),
        *(["## Speed", _speed(facts["measured"])] if facts["measured"] else []),
        "## Weights",
        _weights(facts),
        "## Use",
        _use(facts),
        "## Verify",
        _verify(facts),
        "## Origin",
        _origin(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(facts):
    sizes, sparsity = facts["bytes"], facts["sparsity"]
    own = sizes["export"]["bytes"]
    against = ", ".join(
        f"{_than(sizes[key]['ratio'])} {what}"
        for key, what in (
            ("keras", "Keras's own export"),
            ("dense", "an export that writes each variable once, with zeros"),
            ("dense_tar_gz", "that one as a `.tar.gz`"),
        )
        if "ratio" in sizes[key]
    )
    share = notation.percent(sparsity["density"])
    sentences = [
        *_lossy(facts),
        f"A Keras model in the format {escaped(facts['format'])}: "
        f"{sparsity['kept']:,} of {sparsity['total']:,} weights ({share} %) "
        f"are not 0.",
        f"It takes {own:,} bytes{': ' if against else ''}{against}.",
        SPEED if facts["format"] in SERVED else OTHER_SPEED,
    ]
    if facts["shrink"]:
        sentences.append(
            "Units and channels that change nothing were removed (listed under "
            "Weights); what is gone costs no time either."
        )
    return " ".join(sentences)


def _lossy(facts):
    if facts["values"] == "float32":
        return []
    found = facts["differences"]["outputs"].values()
    text = f"**Lossy: values are stored as {escaped(facts['values'])}.**"
    if found:
        apart = ", ".join(number(each["largest_difference"]) for each in found)
        text += (
            f" Outputs differ from the trained model's by up to {apart} over "
            f"{facts['differences']['samples']:,} probe samples."
        )
    return [text, *_accuracy(facts["accuracy"])]


def _accuracy(accuracy):
    if not accuracy:
        return []
    before, after = (
        notation.with_unit(accuracy[key], "accuracy")
        for key in ("before", "after")
    )
    return [
        f"Accuracy on {accuracy['samples']:,} samples: {before} before, "
        f"{after} after."
    ]


def _than(ratio):
    if 0.95 < ratio < 1.05:
        return "about the size of"
    smaller = ratio > 1
    times = ratio if smaller else 1 / ratio
    return f"{times:.1f} x {'smaller' if smaller else 'larger'} than"


def _bytes(sizes):
    rows = [
        [ROWS[key], f"{entry['bytes']:,}", f"{entry['ratio']:.2f}"]
        if "bytes" in entry
        else [ROWS[key], "not measured", escaped(entry["not_measured"])]
        for key, entry in sizes.items()
    ]
    return (
        f"{table(['what', 'bytes', 'x this export'], rows)}\n\n"
        "Whole directories, without these cards and `assets.extra`. "
        "Compression saves in the values too, so that a file can be smaller "
        "than the last row."
    )


def _answers(facts):
    found = facts["differences"]["outputs"]
    rows = [
        [
            escaped(name),
            number(each["largest_difference"]),
            number(each["largest_output"]),
            number(each["relative"]),
        ]
        for name, each in found.items()
    ]
    headings = ["output", "largest difference", "largest output", "relative"]
    text = (
        "Against the trained Keras model, over "
        f"{facts['differences']['samples']:,} probe samples.\n\n"
        + table(headings, rows)
        if found
        else "Not compared with the trained Keras model."
    )
    return "\n\n".join([text, *_accuracy(facts["accuracy"])])


def _speed(measured):
    lines = [f"- {escaped(each)}" for each in measuring.in_words(measured)]
    rows = [
        [
            escaped(name),
            *(
                _microseconds(measured[batch][name][key])
                for batch in ("batch_1", "batch_64")
                for key in ("p50_seconds", "p99_seconds")
            ),
            f"{1000 * measured['load'][name]['seconds']:.0f}",
            f"{measured['memory'][name]['bytes'] / 1e6:.0f}",
        ]
        for name in measured["compared"]
    ]
    headings = ["export", "1: p50 µs", "1: p99 µs", "64: p50 µs", "64: p99 µs"]
    return (
        "Side by side in one run, through TensorFlow's C API on "
        f"{measured['threads']} thread.\n\n"
        + "\n".join(lines)
        + "\n\n"
        + table([*headings, "load ms", "memory MB"], rows)
    )


def _microseconds(seconds):
    return "–" if seconds is None else f"{1e6 * seconds:,.1f}"


def _weights(facts):
    rows = [
        [
            escaped(name),
            " x ".join(map(str, row["shape"])) or "scalar",
            f"{row['total']:,}",
            f"{row['kept']:,}",
            notation.percent(row["density"]),
            "–" if row["kept_by_mask"] is None else f"{row['kept_by_mask']:,}",
        ]
        for name, row in facts["weights"].items()
    ]
    headings = ["weight", "shape", "all", "not 0", "%", "kept by the mask"]
    mask = facts["mask"]
    parts = [
        table(headings, rows),
        f"Beside them {facts['other_values']:,} other values (biases, "
        f"normalisation). Mask of {mask['of']}: {mask['kept']:,} of "
        f"{mask['total']:,}, sha256 `{mask['sha256']}`.",
    ]
    if facts["shrink"]:
        lines = facts["shrink"].splitlines()
        parts.append("Removed:")
        parts.append("\n".join(f"- {escaped(x)}" for x in lines if x.strip()))
    return "\n\n".join(parts)


def _use(facts):
    inputs = [
        [escaped(name), " x ".join(_shape(each["shape"])), each["dtype"]]
        for name, each in facts["inputs"].items()
    ]
    shown = table(["input", "shape", "dtype"], inputs)
    return f"{shown}\n\n{_commands(facts)}"


def _shape(shape):
    return ["any" if size is None else str(size) for size in shape]


def _commands(facts):
    if facts["format"] not in SERVED:
        return OTHERS.get(facts["format"], "Load it as its format is loaded.")
    name = re.sub(r"[^\w.-]+", "_", facts["name"]).lstrip("-") or "model"
    server = (
        "TensorFlow Serving watches the directory above this one (an absolute "
        "path):\n\n```sh\ntensorflow_model_server --rest_api_port=8501 \\\n"
        f"  --model_name={name} --model_base_path=/models/{name}\n```"
    )
    if facts["format"] == "compact-serving":
        return (
            f"{server}\n\nIn Python `tf.compat.v1.saved_model.load` reads it."
        )
    given = ", ".join(
        f"{key!r}: tf.zeros({_one(each['shape'])}, {each['dtype']!r})"
        for key, each in facts["inputs"].items()
    )
    return (
        f"{server}\n\nIn Python:\n\n```python\nimport tensorflow as tf\n\n"
        'loaded = tf.saved_model.load(".")  # this directory\n'
        f'answers = loaded.signatures["serving_default"](**{{{given}}})\n```'
    )


def _one(shape):
    return tuple([1, *shape[1:]])


OTHERS = {
    "keras": (
        'In Python: `keras.saving.load_model("model.keras")`. TensorFlow '
        "Serving does not load it."
    ),
    "lite": (
        "In Python: `ai_edge_litert.interpreter.Interpreter("
        '"model.tflite")`. TensorFlow Serving loads it with '
        "`--prefer_tflite_model`."
    ),
    "onnx": (
        'In Python: `onnxruntime.InferenceSession("model.onnx")`. TensorFlow '
        "Serving does not load it."
    ),
}


def _verify(facts):
    return (
        "```sh\nkeras-lottery verify .\n```\n\ncompares the checksums of "
        f"{len(facts['files']):,} files with `model_card.json`, and what it "
        "answers with what was recorded, where requests were."
    )


def _origin(facts):
    ticket = facts["ticket"]
    lines = [f"- {k} {escaped(v)}" for k, v in facts["versions"].items()]
    if ticket:
        made = ticket["provenance"]
        known = {k: v for k, v in made.items() if k != "versions"}
        lines.append(f"- ticket of level {ticket['level']}")
        lines += [f"- {escaped(k)}: {escaped(v)}" for k, v in known.items()]
    return "\n".join(lines)
