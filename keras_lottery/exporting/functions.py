"""Functions of a SavedModel, named by what is in them.

TensorFlow numbers them through the process: the same model would give other
bytes each time, and long names. Functions of equal names must be equal where
several exports meet in one graph, and so they are.
"""

import hashlib
import re


def name_by_content(meta_graph):
    """Renames all functions of a MetaGraph, and what refers to them.

    Args:
        meta_graph: A `MetaGraphDef`; it is changed.
    """
    library = meta_graph.graph_def.library
    loaded = _loaded(meta_graph)
    names = {}
    for function in _callees_first(library.function):
        if function.signature.name not in loaded:
            _shorten_arguments(function)
        _rename_in(function.node_def, names)
        _rename_attributes(function.attr, names)
        old = function.signature.name
        names[old] = _name(function, set(names.values()))
        function.signature.name = names[old]
    _rename_in(meta_graph.graph_def.node, names)
    for gradient in library.gradient:
        gradient.function_name = names[gradient.function_name]
        gradient.gradient_func = names[gradient.gradient_func]
    for gradient in library.registered_gradients:
        gradient.gradient_func = names[gradient.gradient_func]
    if loaded:
        _rename_objects(meta_graph.object_graph_def, names)
    ordered = sorted(library.function, key=lambda each: each.signature.name)
    del library.function[:]
    library.function.extend(ordered)


def _loaded(meta_graph):
    """Returns the functions that Python calls, by the names of arguments."""
    # To touch objects would make a graph of signatures look like one of them.
    if not meta_graph.HasField("object_graph_def"):
        return set()
    return set(meta_graph.object_graph_def.concrete_functions)


def _shorten_arguments(function):
    """Numbers the arguments: of loops their names are long, and numbered."""
    signature, names = function.signature, {}
    for i, argument in enumerate(signature.input_arg):
        names[argument.name] = argument.name = f"i{i}"
    for node in function.node_def:
        node.input[:] = [_renamed(each, names) for each in node.input]
    for key, reference in list(function.ret.items()):
        function.ret[key] = _renamed(reference, names)
    for i, argument in enumerate(signature.output_arg):
        function.ret[f"o{i}"] = function.ret.pop(argument.name)
        argument.name = f"o{i}"


def _renamed(reference, names):
    name, colon, output = reference.partition(":")
    return names.get(name, name) + colon + output


def _name(function, taken):
    old = function.signature.name
    function.signature.name = ""
    content = function.SerializeToString(deterministic=True)
    function.signature.name = old
    name = f"f{hashlib.sha256(content).hexdigest()[:12]}"
    # Of equal functions each has an entry of its own: it captures others.
    count = sum(each.split("_")[0] == name for each in taken)
    return f"{name}_{count}" if count else name


def _callees_first(functions):
    by_name = {each.signature.name: each for each in functions}
    done, ordered = set(), []

    def visit(name):
        if name in done:
            return
        done.add(name)
        for called in _called(by_name[name]):
            if called in by_name:
                visit(called)
        ordered.append(by_name[name])

    for name in sorted(by_name, key=_traced):
        visit(name)
    return ordered


def _traced(name):
    """Orders names as the functions were traced."""
    number = re.search(r"_(\d+)$", name)
    return int(number[1]) if number else -1, name


def _called(function):
    holders = [function.attr, *(node.attr for node in function.node_def)]
    return [
        reference.name
        for attributes in holders
        for value in attributes.values()
        for reference in _references(value)
    ] + [node.op for node in function.node_def]


def _references(value):
    found = [value.func] if value.WhichOneof("value") == "func" else []
    return found + list(value.list.func)


def _rename_in(nodes, names):
    for node in nodes:
        node.op = names.get(node.op, node.op)
        _rename_attributes(node.attr, names)


def _rename_attributes(attributes, names):
    for value in attributes.values():
        for reference in _references(value):
            reference.name = names.get(reference.name, reference.name)
        # The forward and backward functions of a gradient.
        text = value.s.decode("latin-1")
        if text in names:
            value.s = names[text].encode()


def _rename_objects(objects, names):
    concrete = dict(objects.concrete_functions)
    copies = {
        names.get(name, name): type(value).FromString(value.SerializeToString())
        for name, value in concrete.items()
    }
    objects.concrete_functions.clear()
    for name, value in copies.items():
        objects.concrete_functions[name].CopyFrom(value)
    for node in objects.nodes:
        kind = node.WhichOneof("kind")
        if kind == "bare_concrete_function":
            bare = node.bare_concrete_function
            name = bare.concrete_function_name
            bare.concrete_function_name = names.get(name, name)
        elif kind == "captured_tensor":
            captured = node.captured_tensor
            name = captured.concrete_function
            captured.concrete_function = names.get(name, name)
        elif kind == "function":
            held = node.function.concrete_functions
            held[:] = [names.get(name, name) for name in held]
