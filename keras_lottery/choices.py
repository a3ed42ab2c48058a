"""One way to turn a name into the thing it names, for every family."""

import importlib
import inspect
import os
import sys


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


def imported(reference, expected):
    """Returns the function that `"module:function"` names.

    The module is imported, which runs it: only for what a user has typed. The
    current directory is searched too, first.

    Args:
        reference: A dotted module, a colon, and the name of a function in it.
        expected: What the function must look like, for the error.

    Raises:
        ValueError: There is no such module or function.

    Example:

    >>> imported("math:sqrt", "a function of a number")(9)
    3.0
    """
    module_name, _, name = reference.partition(":")
    if not module_name or module_name.startswith("."):
        raise ValueError(
            f"{reference!r} names {expected}, but its part before the colon is "
            "no module: write it as in an import, such as my_module:function."
        )
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{reference!r} names {expected}, but there is no module "
            f"{error.name!r}: it must be installed, or lie in the current "
            "directory."
        ) from error
    finally:
        if here in sys.path:  # the module may have put another first
            sys.path.remove(here)
    function = getattr(module, name, None)
    if not callable(function):
        functions = ", ".join(
            n for n, v in vars(module).items() if inspect.isfunction(v)
        )
        raise ValueError(
            f"{module_name!r} has no function {name!r} ({expected}). It has "
            f"{functions or 'none'}."
        )
    return function


def chosen(identifier, expected):
    """Returns `"module:function"` imported, and anything else as it is.

    `"mnist:3.0.1"` is not one: what follows the colon must be a name.
    """
    if not isinstance(identifier, str):
        return identifier
    module, colon, name = identifier.partition(":")
    if not (module and colon and name.isidentifier()):
        return identifier
    return imported(identifier, expected)


def accepted(function, **arguments):
    """Returns those of the arguments that a function takes by name.

    Example:

    >>> accepted(lambda width: None, width=2, classes=10)
    {'width': 2}
    """
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return arguments
    return {k: v for k, v in arguments.items() if k in parameters}
