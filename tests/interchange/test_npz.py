"""Masks as .npz: what NumPy reads, and what is refused."""

import io
import zipfile

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery import interchange
from keras_lottery.errors import TicketError
from keras_lottery.pruning import weights
from keras_lottery.tickets import ticket as tickets

RNG = np.random.default_rng(0)
MASK = lottery.Mask(
    {
        "fc1/kernel": RNG.random((5, 3)) < 0.5,
        "block/conv/kernel": RNG.random((3, 3, 2, 4)) < 0.2,
        "none left": np.zeros((2, 2), bool),
        "empty": np.zeros((0, 3), bool),
    }
)


def network(units=2):
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(units, name="fc1")]
    )


def test_round_trip(tmp_path):
    interchange.save_npz(MASK, tmp_path / "mask.npz")
    assert interchange.load_npz(tmp_path / "mask.npz") == MASK


def test_numpy_reads_it_and_what_numpy_writes_is_read(tmp_path):
    interchange.save_npz(MASK, tmp_path / "mask.npz")
    with np.load(tmp_path / "mask.npz") as arrays:
        assert list(arrays) == list(MASK)
        for name, array in arrays.items():
            assert array.dtype == bool
            np.testing.assert_array_equal(array, MASK[name])
    for save in (np.savez, np.savez_compressed):
        for dtype in ("bool", "uint8", "int64", "float32"):
            save(
                tmp_path / "theirs.npz",
                **{name: array.astype(dtype) for name, array in MASK.items()},
            )
            assert interchange.load_npz(tmp_path / "theirs.npz") == MASK


def test_equal_masks_give_equal_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        interchange.save_npz(lottery.Mask(dict(MASK)), tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (
        tmp_path / "b.npz"
    ).read_bytes()


def test_tickets_and_pruned_models_have_masks(tmp_path):
    model = network()
    mask = lottery.Mask.full(weights.prunable(model))
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    for given in (tickets.capture(model, mask), pruned):
        interchange.save_npz(given, tmp_path / "mask.npz")
        assert interchange.load_npz(tmp_path / "mask.npz", model) == mask
        assert interchange.load_npz(tmp_path / "mask.npz", pruned) == mask
    with pytest.raises(ValueError, match="`PrunedModel`, got Sequential"):
        interchange.save_npz(model, tmp_path / "mask.npz")
    with pytest.raises(ValueError, match="fc1/kernel"):
        interchange.load_npz(tmp_path / "mask.npz", network(units=3))


def damaged(kind):
    """Bytes of a file that is no .npz of masks."""
    packed = io.BytesIO()
    if kind == "text":
        return b"no zip file"
    if kind == "weights":
        np.savez(packed, kernel=np.array([0.5, 0.0]))
    if kind == "objects":
        np.savez(packed, kernel=np.array([{}], dtype=object))
    if kind == "nothing":
        np.savez(packed)
    if kind == "text array":
        np.savez(packed, kernel=np.array(["a"]))
    if kind == "longer than it is":
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header,
            {"descr": "|b1", "fortran_order": False, "shape": (10**12,)},
        )
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("kernel.npy", header.getvalue() + b"\1")
    if kind == "twice":
        with pytest.warns(UserWarning), zipfile.ZipFile(packed, "w") as archive:
            for _ in range(2):
                archive.writestr("kernel.npy", b"")
    return packed.getvalue()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text", "no .npz of masks"),
        ("weights", "other numbers than 0 and 1"),
        ("objects", "not the array it says"),
        ("nothing", "there is no array in it"),
        ("text array", "which is no mask's"),
        ("longer than it is", "not the array it says"),
        ("twice", "there twice"),
    ],
)
def test_other_files_are_refused(tmp_path, kind, words):
    (tmp_path / "mask.npz").write_bytes(damaged(kind))
    with pytest.raises(TicketError, match=words):
        interchange.load_npz(tmp_path / "mask.npz")


def test_damage_anywhere_is_refused_or_changes_nothing(tmp_path):
    path = tmp_path / "mask.npz"
    interchange.save_npz(MASK, path)
    whole = path.read_bytes()
    with pytest.raises(TicketError, match="Cannot read"):
        interchange.load_npz(tmp_path)
    refused = 0
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        try:
            found = interchange.load_npz(path)
        except TicketError:
            refused += 1
        else:  # dates and the list of entries are under no checksum
            whole_ones = [array.tolist() for array in MASK.values()]
            assert all(a.tolist() in whole_ones for a in found.values())
    assert refused
