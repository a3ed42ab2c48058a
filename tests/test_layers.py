"""The direction of imports that DESIGN fixes, and other rules of the house."""

import ast
import pathlib

import pytest

import keras_lottery

ROOT = pathlib.Path(keras_lottery.__file__).parent
CONFIGS = ROOT.parent / "configs"
FLOORS = {
    "": 0,
    "tfmot_bridge": 1,
    "data": 1,
    "models": 1,
    "pruning": 2,
    "training": 3,
    "tickets": 4,
    "exporting": 5,
    "interchange": 5,
    "strong": 5,
    "runs": 6,
    "analysis": 7,
    "report": 8,
    "cli": 9,
}


def _modules():
    for path in sorted(ROOT.rglob("*.py")):
        yield path, path.relative_to(ROOT).with_suffix("").parts


def _folder(parts):
    folder = (ROOT / parts[0]).is_dir()
    return parts[0] if folder or parts[0] in FLOORS else ""


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own(name):
    """The parts below `keras_lottery` of an imported name, or None."""
    first, *rest = name.split(".")
    return rest if first == "keras_lottery" and rest else None


def test_every_folder_has_a_floor():
    assert {_folder(parts) for _, parts in _modules()} <= set(FLOORS)


def test_a_file_imports_only_from_its_own_folder_or_from_floors_below():
    wrong = []
    for path, parts in _modules():
        if parts == ("__init__",):
            continue  # the lazy table of public names
        here = _folder(parts)
        for target in filter(None, map(_own, _imports(path))):
            there = _folder(target)
            if there != here and FLOORS[there] >= FLOORS[here]:
                wrong.append(f"{'/'.join(parts)} -> {'.'.join(target)}")
    assert wrong == []


def test_imports_inside_a_folder_make_no_circle():
    graph = {}
    for path, parts in _modules():
        graph["/".join(parts)] = {
            _module_of(target)
            for target in filter(None, map(_own, _top_level_imports(path)))
        }
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, f"circle: {[*open_, name]}"
        if name in done or name not in graph:
            return
        open_.append(name)
        for each in sorted(graph[name]):
            visit(each)
        open_.pop()
        done.add(name)

    for name in graph:
        visit(name)


def _module_of(target):
    """The longest part of an imported name that is a file."""
    while target and not ROOT.joinpath(*target).with_suffix(".py").exists():
        target = target[:-1]
    return "/".join(target)


def _top_level_imports(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _users_of(package, *, inside):
    users = set()
    for path, parts in _modules():
        if any(name.split(".")[0] == package for name in _imports(path)):
            users.add(inside(parts))
    return users


def test_only_the_bridge_imports_tfmot_and_tf_keras():
    for package in ("tensorflow_model_optimization", "tf_keras"):
        assert _users_of(package, inside="/".join) <= {"tfmot_bridge"}


def test_only_the_command_line_sees_absl_and_bars():
    assert _users_of("absl", inside=_folder) == {"cli"}
    assert _users_of("tqdm", inside=_folder) == {"cli"}


def test_configurations_end_where_experiments_are_made():
    """Below, settings are plain arguments."""
    users = _users_of("ml_collections", inside="/".join)
    outside = {user for user in users if not user.startswith("cli/")}
    assert outside == {"runs/configuration", "runs/verify"}
    assert "cli/overrides" in users


@pytest.mark.skipif(not CONFIGS.exists(), reason="needs a checkout: configs/")
def test_configs_import_only_where_they_start_from():
    found = {
        path.name: list(_imports(path))
        for path in CONFIGS.iterdir()
        if path.suffix == ".py"
    }
    assert found
    assert set(map(tuple, found.values())) == {
        ("keras_lottery.runs.configuration",)
    }


def test_locks_are_taken_in_one_place():
    assert _users_of("filelock", inside="/".join) == {"file_lock"}


def test_the_report_knows_nothing_of_tensorflow():
    for package in ("tensorflow", "keras"):
        assert "report" not in _users_of(package, inside=_folder)


def test_no_module_bears_the_name_of_a_public_function():
    modules = {parts[0] for _, parts in _modules()}
    # A folder that is itself what its name stands for shadows nothing.
    same = {n for n, home in keras_lottery._MODULES.items() if n == home}
    assert not (modules - same) & set(keras_lottery.__all__)


def test_files_and_functions_stay_small():
    long_files, long_functions = [], []
    for path, parts in _modules():
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 350:
            long_files.append("/".join(parts))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and _code_lines(node) > 40:
                long_functions.append(f"{'/'.join(parts)}:{node.name}")
    assert long_files == []
    assert long_functions == []


def _code_lines(function):
    has_docstring = ast.get_docstring(function) is not None
    body = function.body[1:] if has_docstring else function.body
    if not body:
        return 0
    return body[-1].end_lineno - body[0].lineno + 1


def test_no_module_asserts_or_prints_traces_of_work_to_do():
    for path, _ in _modules():
        text = path.read_text(encoding="utf-8")
        assert "TODO" not in text and "FIXME" not in text
