"""Text of strangers: shown as it is, and steering nothing."""


def printable(text):
    """Returns a text in which only tabs and line ends are not to be seen.

    What clears a terminal, renames its window or turns the direction of
    writing becomes a sign that says that something was there.

    Args:
        text: Anything; its text is taken.

    Example:

    >>> printable("dense/kernel"), printable("a\\x1b[2Jb")
    ('dense/kernel', 'a�[2Jb')
    """
    return "".join(
        each if each.isprintable() or each in "\t\n" else "\ufffd"
        for each in str(text)
    )
