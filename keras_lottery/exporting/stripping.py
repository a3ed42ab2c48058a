"""What TensorFlow writes into a SavedModel and no loader needs, taken out."""

import itertools
import os

from tensorflow.core.protobuf import saved_model_pb2

# Attributes of nodes that say what TensorFlow works out again on its own.
DESCRIPTIVE = ("_output_shapes", "_user_specified_name")


def finish(path):
    """Rewrites the graph of a SavedModel: smaller, and its own owner.

    Args:
        path: Its directory.
    """
    file_path = os.path.join(path, "saved_model.pb")
    saved = saved_model_pb2.SavedModel()
    with open(file_path, "rb") as file:
        saved.ParseFromString(file.read())
    for meta_graph in saved.meta_graphs:
        tie(meta_graph.object_graph_def)
        _strip(meta_graph)
    with open(file_path, "wb") as file:
        file.write(saved.SerializeToString(deterministic=True))
    # It is the hash of what the file was before.
    fingerprint = os.path.join(path, "fingerprint.pb")
    if os.path.exists(fingerprint):
        os.remove(fingerprint)


def tie(objects):
    """Makes the signature own the stores.

    It captures their handles only: a caller that keeps the signature and drops
    the loaded object would have the variables deleted under it.
    """
    stores = [
        number
        for number, node in enumerate(objects.nodes)
        if node.WhichOneof("kind") == "resource"
    ]
    for node in objects.nodes:
        if node.WhichOneof("kind") == "bare_concrete_function":
            for number in stores:
                node.children.add(node_id=number, local_name=f"_s{number}")


def _strip(meta_graph):
    """Drops what only describes the graph; no loader needs it."""
    meta_graph.meta_info_def.ClearField("stripped_op_list")
    nodes = list(meta_graph.graph_def.node)
    for function in meta_graph.graph_def.library.function:
        _merge_constants(function)
        _shorten_names(function)
        nodes.extend(function.node_def)
    for node in nodes:
        node.ClearField("experimental_debug_info")
        for attribute in DESCRIPTIVE:
            node.attr.pop(attribute, None)


def _merge_constants(function):
    """Keeps one of the constants that are equal."""
    first, same = {}, {}
    for node in function.node_def:
        if node.op == "Const" and not node.input:
            value = node.attr["value"].SerializeToString(deterministic=True)
            key = (value, node.device)
            same[node.name] = first.setdefault(key, node.name)
    kept = [n for n in function.node_def if same.get(n.name, n.name) == n.name]
    del function.node_def[:]
    function.node_def.extend(kept)
    _rename(function, same)


def _shorten_names(function):
    """Numbers the nodes: their names are scopes, a third of a small graph."""
    taken = {argument.name for argument in function.signature.input_arg}
    free = (f"{i:x}" for i in itertools.count() if f"{i:x}" not in taken)
    names = {node.name: next(free) for node in function.node_def}
    for node in function.node_def:
        node.name = names[node.name]
    _rename(function, names)


def _rename(function, names):
    """Rewrites all that refers to a node of a function."""

    def renamed(reference):
        mark = "^" if reference.startswith("^") else ""
        name, colon, output = reference.removeprefix("^").partition(":")
        return mark + names.get(name, name) + colon + output

    for node in function.node_def:
        node.input[:] = [renamed(reference) for reference in node.input]
        together = node.attr["_class"].list.s if "_class" in node.attr else []
        for i, place in enumerate(together):
            name = place.decode().removeprefix("loc:@")
            together[i] = f"loc:@{names.get(name, name)}".encode()
    for returned in (function.ret, function.control_ret):
        for key, reference in list(returned.items()):
            returned[key] = renamed(reference)
