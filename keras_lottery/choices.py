"""One way to turn a name into the thing it names, for every family."""


def resolve(family, identifier, table, expected):
    """Returns the entry of `table` called `identifier`, or a callable as it is.

    Args:
        family: What the table holds, for the error: `"criterion"`.
        identifier: A key of `table`, or any callable.
        table: Dict from name to entry.
        expected: What a callable must look like, for the error.

    Returns:
        The entry, or `identifier` itself.

    Raises:
        ValueError: The name is not in the table.

    Example:

    >>> resolve("letter", "a", {"a": 1}, "a function")
    1
    """
    if callable(identifier):
        return identifier
    if isinstance(identifier, str) and identifier in table:
        return table[identifier]
    names = ", ".join(repr(name) for name in table)
    raise ValueError(
        f"Unknown {family} {identifier!r}. Expected one of {names}, "
        f"or {expected}."
    )
