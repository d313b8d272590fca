"""The arrows between modules point one way, lib asks nothing of its surroundings, and --help is quick."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(ROOT.glob("[0-9]*-*.py"))
SLOW = ("torch", "pandas", "sklearn", "matplotlib", "cv2", "onnxruntime", "wandb", "torchvision", "mlflow", "tensorboard")

# From the bottom up. A module may import from its own layer (without going in circles) and from those below it.
# A new module needs a place here: name it, or the package that it is in.
LAYERS = (
    ("study", "progress", "packages", "cluster"),
    ("workspace", "imaging", "tracking", "trackers", "devices"),
    ("readers", "tasks", "networks", "data", "evaluation", "reporting", "optimisation", "checkpoints", "prediction",
     "onnx_model", "selection", "evidence"),
    ("validation", "training", "ensemble", "results", "run_tracking", "tested_run"),
    ("preparation", "runs", "crossvalidation", "conversion", "inference", "newdata", "comparison"),
    ("commands",),
)
STAGES = LAYERS[4]
APART = "phantoms"  # example data: knows nothing of the pipeline, and the pipeline nothing of it


def module_name(path: Path) -> str:
    """lib/data/folds.py -> data.folds; lib/data/__init__.py -> data; lib/__init__.py -> ''."""
    parts = path.relative_to(ROOT / "lib").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): ast.parse(path.read_text(encoding="utf-8"), str(path))
           for path in sorted((ROOT / "lib").rglob("*.py"))}


def lib_imports(tree: ast.AST) -> set[str]:
    """Modules of lib that a file imports anywhere, inside functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("lib.") for alias in node.names if alias.name.split(".")[0] == "lib"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; write `from lib...`"
            if node.module == "lib":
                found |= {alias.name for alias in node.names}
            elif (node.module or "").startswith("lib."):
                name = node.module.removeprefix("lib.")
                found |= {f"{name}.{alias.name}" if f"{name}.{alias.name}" in SOURCES else name for alias in node.names}
    return found


IMPORTS = {name: lib_imports(tree) for name, tree in SOURCES.items()}


def package(module: str) -> str:
    return module.split(".")[0]


def layer(module: str) -> int:
    return next((i for i, names in enumerate(LAYERS) if package(module) in names), -1)


def outside_imports(tree: ast.AST) -> set[str]:
    """First names of everything else that is imported."""
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return {name.split(".")[0] for name in names}


def calls(tree: ast.AST) -> set[str]:
    """Last names of everything that is called: open(...), np.load(...) -> open, load."""
    return {getattr(node.func, "attr", getattr(node.func, "id", "")) for node in ast.walk(tree)
            if isinstance(node, ast.Call)}


def test_the_parser_sees_what_it_should():
    tree = ast.parse("import lib.workspace\nfrom lib import study\nfrom lib.data import folds\nfrom os import path\n"
                     "def f():\n    from lib.readers.nifti import NiftiFolders\n    open('x')\n    np.load('x')\n")
    assert lib_imports(tree) == {"workspace", "study", "data.folds", "readers.nifti"}
    assert outside_imports(tree) == {"lib", "os"} and calls(tree) == {"open", "load"}
    assert len(SOURCES) > 30 and "data.folds" in SOURCES and "tasks" in SOURCES


def test_every_module_has_its_layer():
    homeless = {name for name in SOURCES if name and package(name) != APART and layer(name) < 0}
    assert not homeless, f"name them (or their package) in LAYERS of {Path(__file__).name}: {sorted(homeless)}"


def test_imports_point_downwards():
    wrong = [f"{module} -> {other}" for module, others in IMPORTS.items() for other in others
             if package(module) != APART and layer(other) > layer(module)]
    assert not wrong, wrong


def test_no_imports_go_in_circles():
    """Lazy ones count too. (Only a package's registry and its own plugs may know each other.)"""
    state: dict[str, str] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert state.get(module) != "open", " -> ".join((*path[path.index(module):], module))
        if module in state:
            return
        state[module] = "open"
        for other in sorted(IMPORTS.get(module, ())):
            if other != package(module):
                visit(other, (*path, module))
        state[module] = "done"

    for module in SOURCES:
        visit(module, ())


def test_stages_stand_side_by_side():
    between = {(module, other) for module in STAGES for other in IMPORTS[module] if other in STAGES}
    assert not between


def test_only_preparation_and_predict_know_readers():
    knowing = {module for module, others in IMPORTS.items() if any(package(o) == "readers" for o in others)}
    assert {m for m in knowing if package(m) != "readers"} <= {"preparation", "newdata"}


def test_tasks_touch_no_files_and_no_networks():
    for module, tree in SOURCES.items():
        if package(module) != "tasks":
            continue
        forbidden = {"networks", "readers", "workspace", "imaging.nifti", "data.store", "checkpoints", "prediction"}
        assert not {o for o in IMPORTS[module] if o in forbidden or package(o) in forbidden}, module
        libraries = {"os", "pathlib", "shutil", "io", "csv", "json", "tempfile", "nibabel"}
        assert not outside_imports(tree) & libraries, module
        assert not calls(tree) & {"open", "load", "save", "imwrite", "imread", "tofile", "fromfile"}, module


def test_tasks_import_torch_only_where_it_is_needed():
    """Inference decodes and scores with NumPy; torch comes with `loss` and `transform`."""
    for module, tree in SOURCES.items():
        if package(module) == "tasks" and not module.endswith("losses"):
            top = {name for node in tree.body for name in outside_imports(node)
                   if isinstance(node, (ast.Import, ast.ImportFrom))}
            assert "torch" not in top and not {other for node in tree.body if isinstance(node, ast.ImportFrom)
                                               for other in lib_imports(node) if other.endswith("losses")}, module


def test_readers_know_no_tasks_and_no_stages():
    for module, others in IMPORTS.items():
        if package(module) == "readers":
            assert {package(other) for other in others} <= {"readers", "imaging", "data", "study", "progress"}, module


def test_phantoms_stand_apart():
    for module, others in IMPORTS.items():
        if package(module) == APART:
            assert {package(other) for other in others} <= {APART}, module
        else:
            assert APART not in {package(other) for other in others}, module


# What asks the surroundings: the folder we happen to be in, the environment, the user's home.
ASKING = {"getcwd", "getcwdb", "cwd", "environ", "environb", "getenv", "getenvb", "putenv", "chdir", "home",
          "expanduser", "expandvars", "gettempdir", "mkdtemp", "mkstemp", "TemporaryDirectory", "NamedTemporaryFile",
          "gethostname"}
# cluster.py: its children get a copy of our environment, and the GPUs that we were given
ALLOWED = {"cluster": {"environ"}, "trackers.mlflow": {"environ"}}  # MLflow has no other switch for its telemetry


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_lib_does_not_ask_its_surroundings(module):
    names = set()
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
    assert names & ASKING <= ALLOWED.get(module, set())


def test_no_bare_except_and_no_silent_assert():
    """Python -O drops asserts, so lib checks with exceptions."""
    for module, tree in SOURCES.items():
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{module}, line {node.lineno}"
            assert not isinstance(node, ast.Assert), f"{module}, line {node.lineno}"


def test_every_file_says_what_it_is_for():
    missing = [name or "lib" for name, tree in SOURCES.items() if not ast.get_docstring(tree)]
    missing += [path.name for path in SCRIPTS if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not missing, missing


HELP = """
import contextlib, io, json, runpy, sys
slow, scripts, found = sys.argv[1].split(","), sys.argv[2:], {}
sys.argv[1:] = ["--help"]
for script in scripts:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            code = end.code
    found[script] = [code, "--study" in output.getvalue(), [name for name in slow if name in sys.modules]]
print(json.dumps(found))
"""


def test_help_of_every_script_imports_nothing_slow(tmp_path):
    assert len(SCRIPTS) == 5
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{HELP}", ",".join(SLOW)]
    run = subprocess.run([*command, *map(str, SCRIPTS)], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert run.returncode == 0, run.stderr
    for script, (exit_code, helped, slow) in json.loads(run.stdout).items():
        assert exit_code in (0, None) and helped, script
        assert slow == [], f"{Path(script).name} --help imports {slow}"
    assert list(tmp_path.iterdir()) == []  # and it writes nothing
