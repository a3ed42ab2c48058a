"""The mask: which weights are kept. A frozen value, one bit per weight."""

import hashlib
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np


def kept(size, sparsity):
    """Returns how many of `size` weights a total sparsity leaves.

    `kept(n, s) = n - round(n * s)` in float64, rounding halves to even.

    Args:
        size: Number of weights, pruned ones included.
        sparsity: Fraction removed in all, in [0, 1].

    Returns:
        The exact count as an int.

    Example:

    >>> kept(10, 0.2)
    8
    """
    return int(size) - round(int(size) * float(sparsity))


class _Bits(NamedTuple):
    """One packed array: `np.packbits(..., bitorder="little")` in C order."""

    packed: bytes
    shape: tuple


class Mask(Mapping):
    """Which weights are kept: a frozen mapping from weight name to bool array.

    `sparsity = removed / size` and `density = kept / size`, over all weights
    of the mask. Arrays are stored as bits and unpacked when asked for, so the
    masks of many tickets cost little memory.

    Args:
        arrays: Dict from weight name to bool array (True is kept).

    Example:

    >>> mask = Mask({"a": np.array([True, False]), "b": np.array([True])})
    >>> mask.kept, mask.size, mask["a"].tolist()
    (2, 3, [True, False])

    Reference: Frankle & Carbin (2019), section 1: m in {0, 1}^|theta|.
    """

    __slots__ = ("_bits", "_kept")

    def __init__(self, arrays):
        bits, counts = {}, {}
        for name, array in dict(arrays).items():
            array = np.asarray(array)
            if array.dtype != bool:
                raise ValueError(
                    f"A mask holds bool arrays; {name!r} has dtype "
                    f"{array.dtype}. Compare first, as in `weights != 0`."
                )
            packed = np.packbits(array.ravel(), bitorder="little")
            bits[name] = _Bits(packed.tobytes(), array.shape)
            counts[name] = int(np.count_nonzero(array))
        self._hold(bits, counts)

    def _hold(self, bits, counts):
        object.__setattr__(self, "_bits", MappingProxyType(bits))
        object.__setattr__(self, "_kept", MappingProxyType(counts))

    def __setattr__(self, *unused):
        raise AttributeError("A Mask is frozen: build a new one.")

    __delattr__ = __setattr__

    def __getitem__(self, name):
        packed, shape = self._bits[name]
        flat = np.unpackbits(
            np.frombuffer(packed, np.uint8),
            count=math.prod(shape),
            bitorder="little",
        )
        array = flat.view(bool).reshape(shape)
        array.setflags(write=False)
        return array

    def __iter__(self):
        return iter(self._bits)

    def __len__(self):
        return len(self._bits)

    def __eq__(self, other):
        if not isinstance(other, Mask):
            return NotImplemented
        return dict(self._bits) == dict(other._bits)

    def __hash__(self):
        return hash(frozenset(self._bits.items()))

    def __reduce__(self):
        return Mask, (dict(self),)

    def __repr__(self):
        return (
            f"<Mask of {len(self)} weights: {self.kept:,} of {self.size:,} "
            f"kept, density {self.density:.4f}>"
        )

    @property
    def shapes(self):
        """Dict from name to shape."""
        return {name: bits.shape for name, bits in self._bits.items()}

    @property
    def size(self):
        """Number of weights, kept and removed."""
        return sum(self.sizes.values())

    @property
    def sizes(self):
        """Dict from name to number of weights, kept and removed."""
        return {
            name: math.prod(bits.shape) for name, bits in self._bits.items()
        }

    @property
    def kept(self):
        """Number of weights kept."""
        return sum(self._kept.values())

    @property
    def kept_by_name(self):
        """Dict from name to number of weights kept."""
        return dict(self._kept)

    @property
    def density(self):
        """Fraction of weights kept."""
        return self.kept / self.size if self.size else 1.0

    @property
    def sparsity(self):
        """Fraction of weights removed."""
        return 1.0 - self.density

    def __and__(self, other):
        """Returns the mask that keeps what both keep."""
        _require_same_shapes(self, other)
        one, two = self.pack(), other.pack()
        both = {name: one[name] & two[name] for name in self}
        return Mask.unpack(both, self.shapes)

    def issubset(self, other):
        """Returns whether `other` keeps everything that this mask keeps."""
        return (self & other) == self

    def overlap(self, other):
        """Returns kept by both / kept by either (Jaccard), 1.0 if both empty.

        Example:

        >>> a = Mask({"w": np.array([True, True, False])})
        >>> b = Mask({"w": np.array([False, True, False])})
        >>> a.overlap(b)
        0.5
        """
        both = (self & other).kept
        either = self.kept + other.kept - both
        return both / either if either else 1.0

    def pack(self):
        """Returns a dict from name to uint8 array, 8 weights a byte."""
        return {
            name: np.frombuffer(bits.packed, np.uint8)
            for name, bits in self._bits.items()
        }

    @classmethod
    def unpack(cls, packed, shapes):
        """Returns the mask that `pack` packed; the inverse, given `shapes`.

        Raises:
            ValueError: An array has not the bytes that its shape needs, or
                bits set beyond its end; a shape is none.
        """
        if set(packed) != set(shapes):
            raise ValueError(
                f"Packed are {sorted(packed)}, shapes are of {sorted(shapes)}."
            )
        bits, counts = {}, {}
        for name, shape in shapes.items():
            size = _size(name, shape)
            array = np.asarray(packed[name])
            if array.dtype != np.uint8:
                raise ValueError(
                    f"The mask of {name!r} has dtype {array.dtype}, not uint8."
                )
            if array.shape != ((size + 7) // 8,):
                raise ValueError(
                    f"The mask of {name!r} has shape {array.shape}; "
                    f"{size} weights need ({(size + 7) // 8},)."
                )
            if size % 8 and array[-1] >> size % 8:
                raise ValueError(f"The mask of {name!r} has bits past its end.")
            bits[name] = _Bits(array.tobytes(), tuple(map(int, shape)))
            counts[name] = int(np.bitwise_count(array).sum(dtype=np.int64))
        mask = cls.__new__(cls)
        mask._hold(bits, counts)
        return mask

    @classmethod
    def full(cls, variables):
        """Returns the mask that keeps every weight of `variables`.

        Args:
            variables: Dict from name to anything with a `shape`.
        """
        return cls(
            {
                name: np.ones(tuple(v.shape), bool)
                for name, v in variables.items()
            }
        )

    @property
    def checksum(self):
        """Hex sha256 over names, shapes and bits, in order."""
        digest = hashlib.sha256()
        for name, (packed, shape) in self._bits.items():
            digest.update(repr((name, tuple(map(int, shape)))).encode())
            digest.update(packed)
        return digest.hexdigest()


def _size(name, shape):
    """Returns how many weights a shape has, which may come from a file."""
    if len(shape) > 64 or not all(_is_length(length) for length in shape):
        raise ValueError(
            f"The shape of {name!r} is none of an array: {shape!r:.80}."
        )
    return math.prod(map(int, shape))


def _is_length(length):
    """Whether NumPy can have an array of this length."""
    whole = isinstance(length, (int, np.integer))
    return whole and type(length) is not bool and 0 <= length < 2**63


def _require_same_shapes(one, other):
    if one.shapes != other.shapes:
        differing = set(one.shapes.items()) ^ set(other.shapes.items())
        raise ValueError(
            "The masks are of different weights: "
            + ", ".join(f"{name} {shape}" for name, shape in sorted(differing))
        )
