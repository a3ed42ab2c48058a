"""Mask files of open_lth, written as its own code writes them."""

import json

import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery import interchange
from keras_lottery.errors import TicketError
from keras_lottery.models import lenet
from keras_lottery.pruning import weights

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")

NAMES = {"fc1": "fc_layers.0", "fc2": "fc_layers.1", "output": "fc"}
THEIRS = {
    "fc_layers.0.weight": (12, 16),
    "fc_layers.1.weight": (7, 12),
    "fc.weight": (10, 7),
}


def network():
    return lenet.lenet((4, 4, 1), hidden=(12, 7))


def theirs(seed=0):
    rng = np.random.default_rng(seed)
    return {n: rng.random(shape) < 0.3 for n, shape in THEIRS.items()}


def written(folder, arrays, **told):
    """A folder as open_lth's `Mask.save` leaves it."""
    tensors = {n: torch.as_tensor(a).int() for n, a in arrays.items()}
    torch.save(tensors, folder / "mask.pth")
    total = sum(array.size for array in arrays.values())
    unpruned = sum(array.sum() for array in arrays.values())
    report = {"total": float(total), "unpruned": float(unpruned), **told}
    (folder / "sparsity_report.json").write_text(json.dumps(report, indent=4))
    return folder


@pytest.mark.parametrize("names", [NAMES, None])
def test_their_masks_are_read(tmp_path, names):
    arrays = theirs()
    mask = interchange.load_open_lth(
        written(tmp_path, arrays), network(), names
    )
    assert list(mask) == ["fc1/kernel", "fc2/kernel", "output/kernel"]
    for ours, their in zip(mask, arrays):
        np.testing.assert_array_equal(mask[ours], arrays[their].T)
    again = interchange.load_open_lth(tmp_path / "mask.pth", network(), names)
    assert again == mask


def test_ours_are_written_as_theirs(tmp_path):
    model = network()
    mask = interchange.load_open_lth(written(tmp_path, theirs()), model, NAMES)
    report = json.loads((tmp_path / "sparsity_report.json").read_text())
    interchange.save_open_lth(mask, tmp_path / "ours", model, NAMES)
    interchange.save_open_lth(
        mask, tmp_path / "like", model, like=torch.load(tmp_path / "mask.pth")
    )
    for folder in ("ours", "like"):
        found = torch.load(tmp_path / folder / "mask.pth", weights_only=True)
        assert list(found) == list(THEIRS)
        for name, array in theirs().items():
            assert found[name].dtype == torch.int32
            np.testing.assert_array_equal(found[name].numpy(), array)
        told = tmp_path / folder / "sparsity_report.json"
        assert json.loads(told.read_text()) == report
        back = interchange.load_open_lth(tmp_path / folder, model, NAMES)
        assert back == mask


def test_pruned_layers_only(tmp_path):
    """open_lth leaves out layers that are not pruned."""
    model = network()
    arrays = theirs()
    del arrays["fc.weight"]
    written(tmp_path, arrays)
    with pytest.raises(ValueError, match="output/kernel"):
        interchange.load_open_lth(tmp_path, model)
    names = {"fc1": "fc_layers.0", "fc2": "fc_layers.1"}
    mask = interchange.load_open_lth(tmp_path, model, names)
    assert list(mask) == ["fc1/kernel", "fc2/kernel"]
    lottery.attach(model, mask)
    found = weights.prunable(model)["fc1/kernel"].numpy() != 0
    assert not (found & ~mask["fc1/kernel"]).any()


class Harmful:
    def __reduce__(self):
        return eval, ("1/0",)


def test_code_in_a_file_does_not_run(tmp_path):
    torch.save({"fc.weight": Harmful()}, tmp_path / "mask.pth")
    with pytest.raises(TicketError, match="no mask of open_lth .Unpickling"):
        interchange.load_open_lth(tmp_path, network())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a | {"fc.weight": np.full((10, 7), 2)}, "than 0 and 1"),
        (lambda a: {"fc.weight": 3.0}, "not an array"),
        (
            lambda a: {"fc.weight": torch.ones(1).expand(10**6, 10**6)},
            "repeats itself",
        ),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, change, words):
    changed = change(theirs())
    torch.save(
        {
            n: torch.as_tensor(a) if isinstance(a, np.ndarray) else a
            for n, a in changed.items()
        },
        tmp_path / "mask.pth",
    )
    with pytest.raises(TicketError, match=words):
        interchange.load_open_lth(tmp_path, network())


def test_the_report_is_of_the_mask(tmp_path):
    written(tmp_path, theirs(), unpruned=1.0)
    with pytest.raises(TicketError, match="of another level"):
        interchange.load_open_lth(tmp_path, network())
    (tmp_path / "sparsity_report.json").write_text("{")
    with pytest.raises(TicketError, match="no report of a mask"):
        interchange.load_open_lth(tmp_path, network())


def test_damaged_and_missing_files(tmp_path):
    written(tmp_path, theirs())
    whole = (tmp_path / "mask.pth").read_bytes()
    (tmp_path / "mask.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TicketError, match="no mask of open_lth"):
        interchange.load_open_lth(tmp_path, network())
    with pytest.raises(TicketError, match="Cannot read"):
        interchange.load_open_lth(tmp_path / "missing", network())
