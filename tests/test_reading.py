"""Reading what strangers wrote: regular files, strict JSON, sized arrays."""

import io
import json
import os

import numpy as np
import pytest

from keras_lottery import arrays_file
from keras_lottery import regular_file
from keras_lottery import strict_json
from keras_lottery.printable import printable


class TestRegularFile:
    """Files, and nothing that is called like one."""

    def test_its_bytes(self, tmp_path):
        """All of them, through a link, too."""
        path = tmp_path / "a"
        path.write_bytes(b"\r\n\x00" * 9)
        (tmp_path / "link").symlink_to(path)
        for each in (path, str(path), tmp_path / "link"):
            assert regular_file.read(each) == b"\r\n\x00" * 9

    def test_what_is_no_file(self, tmp_path):
        """A folder, a pipe, a device, nothing at all."""
        os.mkfifo(tmp_path / "pipe")
        for each in (tmp_path, tmp_path / "pipe", "/dev/zero", tmp_path / "x"):
            with pytest.raises(OSError):
                regular_file.read(each)

    def test_no_more_than_expected(self, tmp_path):
        """A bound is the number of bytes that are still read."""
        path = tmp_path / "a"
        path.write_bytes(b"12345")
        assert regular_file.read(path, 5) == b"12345"
        with pytest.raises(OSError, match="5 bytes, 4 are the most"):
            regular_file.read(path, 4)


class TestStrictJson:
    """JSON that has one meaning."""

    @pytest.mark.parametrize(
        "value", [None, 3, "a", [1, [2]], {"a": {"b": 1}, "b": [{"a": 0.5}]}]
    )
    def test_as_json_has_it(self, value):
        """Whole values come back."""
        assert strict_json.loads(json.dumps(value)) == value

    @pytest.mark.parametrize(
        "text", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "b": 2, "a": 3}}]']
    )
    def test_a_key_twice(self, text):
        """At any depth."""
        with pytest.raises(ValueError, match="'a' is there twice"):
            strict_json.loads(text)

    @pytest.mark.parametrize(
        "text", ["[" * 10**5, '{"a":' * 10**5, "", "{", "9" * 10**5]
    )
    def test_a_value_error_and_nothing_else(self, text):
        """Deep nesting and huge numbers are no crash."""
        with pytest.raises(ValueError):
            strict_json.loads(text)


class TestArraysFile:
    """safetensors whose sizes are those of the file."""

    def packed(self):
        """Returns the bytes of a file."""
        arrays = {"a": np.arange(3, dtype=np.float32), "b": np.array(True)}
        return arrays_file.pack(arrays, {"m": "x"})

    def load(self, content):
        """Returns what is in some bytes."""
        return arrays_file.load(io.BytesIO(content), len(content))

    def test_whole(self):
        """Metadata and arrays."""
        metadata, arrays = self.load(self.packed())
        assert metadata == {"m": "x"}
        assert arrays["a"].tolist() == [0, 1, 2] and arrays["b"].shape == ()

    def test_cut_and_longer(self):
        """At every byte."""
        content = self.packed()
        for count in range(len(content)):
            with pytest.raises((ValueError, KeyError)):
                self.load(content[:count])
        with pytest.raises(ValueError, match="bytes of arrays"):
            self.load(content + b"\0")

    @pytest.mark.parametrize(
        "entry",
        [
            {"shape": [10**12], "dtype": "F32"},
            {"shape": [2**62, 4], "dtype": "F32"},
            {"shape": [-3], "dtype": "F32"},
            {"shape": [True], "dtype": "F32"},
            {"shape": [1] * 65, "dtype": "F32"},
            {"shape": 3, "dtype": "F32"},
            {"shape": [3], "dtype": "F31"},
        ],
    )
    def test_sizes_that_are_not_there(self, entry):
        """Nothing is allocated on their word."""
        entry = {**entry, "data_offsets": [0, 12]}
        text = json.dumps({"a": entry, "__metadata__": {}}).encode()
        content = len(text).to_bytes(8, "little") + text + bytes(12)
        with pytest.raises(ValueError):
            self.load(content)

    def test_checksums_are_of_names_types_shapes_and_bytes(self):
        """Each of them counts."""
        one = np.arange(6, dtype=np.float32)
        others = [
            ("", {"a": one}), ("x", {"a": one}), ("", {"b": one}),
            ("", {"a": one.reshape(2, 3)}), ("", {"a": one.view(np.int32)}),
            ("", {"a": one[::-1]}), ("", {}), ("", {"a": one[:0]}),
            ("", {"a": np.array(0, np.float32)}), ("", {"a": one[:1]}),
        ]  # fmt: skip
        sums = {arrays_file.checksum(*each) for each in others}
        assert len(sums) == len(others)
        turned = arrays_file.checksum("", {"a": one.reshape(3, 2).T})
        copied = {"a": np.array(one.reshape(3, 2).T, order="C")}
        assert turned == arrays_file.checksum("", copied)


@pytest.mark.parametrize(
    "text, shown",
    [
        ("dense/kernel", "dense/kernel"),
        ("a\nb", "a\nb"),
        ("ü 漢 🎟", "ü 漢 🎟"),
        ("\x1b]0;owned\x07", "\ufffd]0;owned\ufffd"),
        ("a\u202eb\x9b2J\r", "a\ufffdb\ufffd2J\ufffd"),
        (None, "None"),
    ],
)
def test_printable(text, shown):
    """What steers a terminal is shown as a sign."""
    assert printable(text) == shown
