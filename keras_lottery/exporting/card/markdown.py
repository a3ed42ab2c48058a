"""Text and tables in markdown, whatever names they hold."""

import re

# Line ends, other controls, and marks that turn the direction of writing.
UNSEEN = (
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069]+"
)


def escaped(text):
    """Returns text that markdown and HTML show as it is, on one line.

    Example:

    >>> escaped("dense/kernel"), escaped("a|<b>\\n*c*")
    ('dense/kernel', 'a&#124;&#60;b&#62; &#42;c&#42;')
    """
    line = re.sub(UNSEEN, " ", str(text))
    return re.sub(
        r"[^\w\s./,;()+=%'\"-]|(?<!\w)_|_(?!\w)",
        lambda found: f"&#{ord(found.group())};",
        line,
    )


def table(headings, rows):
    """Returns a markdown table; cells are escaped already."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def number(value):
    """Returns a measured number with three digits that count.

    Example:

    >>> number(0), number(1.23456e-7), number(12.3456), number("infinity")
    ('0', '1.23e-07', '12.3', 'infinity')
    """
    return value if isinstance(value, str) else f"{value:.3g}"
