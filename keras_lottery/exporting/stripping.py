"""What TensorFlow writes into a SavedModel and no loader needs, taken out."""

import itertools
import os

from tensorflow.core.protobuf import saved_model_pb2

from keras_lottery.exporting import functions

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
        strip(meta_graph)
        functions.name_by_content(meta_graph)
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


def strip(meta_graph):
    """Drops what only describes the graph; no loader needs it."""
    meta_graph.meta_info_def.ClearField("stripped_op_list")
    _drop_unused_constants(meta_graph)
    nodes = list(meta_graph.graph_def.node)
    renamed = {}
    for function in meta_graph.graph_def.library.function:
        merged = _merge_constants(function.node_def)
        _rename_function(function, merged)
        taken = {argument.name for argument in function.signature.input_arg}
        short = _short_names(function.node_def, taken)
        _rename_function(function, short)
        renamed[function.signature.name] = (merged, short)
        nodes.extend([*function.node_def, *function.arg_attr.values()])
    _rename_captured(meta_graph.object_graph_def.nodes, renamed)
    for node in nodes:
        if hasattr(node, "experimental_debug_info"):
            node.ClearField("experimental_debug_info")
        for attribute in DESCRIPTIVE:
            node.attr.pop(attribute, None)


def _drop_unused_constants(meta_graph):
    """Drops what a checkpoint would hold of the objects: nothing saves one."""
    nodes = meta_graph.graph_def.node
    saver = meta_graph.saver_def
    named = [
        saver.filename_tensor_name,
        saver.save_tensor_name,
        saver.restore_op_name,
    ]
    named += [
        tensor.name
        for signature in meta_graph.signature_def.values()
        for tensor in (*signature.inputs.values(), *signature.outputs.values())
    ]
    named += [each for node in nodes for each in node.input]
    used = {each.removeprefix("^").split(":")[0] for each in named}
    _keep(nodes, [n for n in nodes if n.op != "Const" or n.name in used])


def strip_graph(meta_graph):
    """Drops nodes that no signature needs, and shortens the names of others.

    For a graph that is loaded by its signatures alone: TensorFlow's own loader
    of objects refers to nodes by name.
    """
    nodes = meta_graph.graph_def.node
    signed = [
        tensor
        for signature in meta_graph.signature_def.values()
        for tensor in (*signature.inputs.values(), *signature.outputs.values())
    ]
    used = _reached(nodes, [tensor.name for tensor in signed])
    _keep(nodes, [node for node in nodes if node.name in used])
    for names in (_merge_constants(nodes), _short_names(nodes)):
        _rename_nodes(nodes, names)
        for tensor in signed:
            tensor.name = _renamed(tensor.name, names)


def _reached(nodes, references):
    inputs = {node.name: node.input for node in nodes}
    reached, open_names = set(), list(references)
    while open_names:
        name = open_names.pop().removeprefix("^").split(":")[0]
        if name not in reached:
            reached.add(name)
            open_names.extend(inputs[name])
    return reached


def _keep(nodes, kept):
    del nodes[:]
    nodes.extend(kept)


def _merge_constants(nodes):
    """Keeps one of equal constants; returns which replaces which."""
    first, same = {}, {}
    for node in nodes:
        if node.op == "Const" and not node.input:
            value = node.attr["value"].SerializeToString(deterministic=True)
            key = (value, node.device)
            same[node.name] = first.setdefault(key, node.name)
    _keep(nodes, [n for n in nodes if same.get(n.name, n.name) == n.name])
    return same


def _short_names(nodes, taken=()):
    """Returns numbers for names: those are scopes, a third of a small graph."""
    free = (f"{i:x}" for i in itertools.count() if f"{i:x}" not in taken)
    names = {node.name: next(free) for node in nodes}
    for node in nodes:
        node.name = names[node.name]
    return names


def _rename_function(function, names):
    """Rewrites all that refers to a node of a function."""
    _rename_nodes(function.node_def, names)
    for returned in (function.ret, function.control_ret):
        for key, reference in list(returned.items()):
            returned[key] = _renamed(reference, names)


def _rename_nodes(nodes, names):
    for node in nodes:
        node.input[:] = [_renamed(each, names) for each in node.input]
        together = node.attr["_class"].list.s if "_class" in node.attr else []
        for i, place in enumerate(together):
            name = place.decode().removeprefix("loc:@")
            together[i] = f"loc:@{names.get(name, name)}".encode()


def _rename_captured(objects, renamed):
    """Rewrites what a custom gradient takes from the function it is of."""
    for node in objects:
        if node.WhichOneof("kind") == "captured_tensor":
            captured = node.captured_tensor
            for names in renamed.get(captured.concrete_function, ()):
                captured.name = _renamed(captured.name, names)


def _renamed(reference, names):
    mark = "^" if reference.startswith("^") else ""
    name, colon, output = reference.removeprefix("^").partition(":")
    return mark + names.get(name, name) + colon + output
