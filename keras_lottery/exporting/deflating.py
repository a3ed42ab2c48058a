"""One zlib stream of several sections, each with tables of its own."""

import zlib


def smallest(sections):
    """Compresses sections into one stream.

    Args:
        sections: Lists of bytes; after each item the tables end.

    Returns:
        The stream, and how many bytes of it each section takes.
    """
    # Gaps and bytes of random numbers hardly repeat: which strategy pays
    # depends on how many are alike, and trying both costs little.
    tried = [
        _deflate(sections, strategy)
        for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED)
    ]
    return min(tried, key=lambda each: len(each[0]))


def inflate(blob, lengths):
    """Returns the sections of a stream, as bytes.

    Raises:
        ValueError: The stream is damaged.
    """
    try:
        data = zlib.decompress(blob)
    except zlib.error as error:
        raise ValueError(f"The payload is damaged: {error}.") from error
    if len(data) != sum(lengths):
        raise ValueError(
            f"The payload is damaged: {len(data)} bytes, expected "
            f"{sum(lengths)}."
        )
    found, first = [], 0
    for length in lengths:
        found.append(data[first : first + length])
        first += length
    return found


def _deflate(sections, strategy):
    stream = zlib.compressobj(9, zlib.DEFLATED, 15, 9, strategy)

    def deflate(part):
        # A flush ends the Huffman tables: each plane gets its own, and the
        # lowest, which are noise, stay as they are.
        return stream.compress(part) + stream.flush(zlib.Z_FULL_FLUSH)

    parts = [b"".join(map(deflate, section)) for section in sections]
    parts[-1] += stream.flush()
    return b"".join(parts), tuple(map(len, parts))
