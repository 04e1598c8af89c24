"""The import rules between parts of the library, and the parts that must not access files."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("preprocessing", "data_tools", "train_mpi", "train_mask", "render", "scenes")
PROGRAM_FOLDERS = (*STAGES, "examples", "benchmarks")

# A part of the library imports only from floors below its own, not from its neighbours.
FLOORS = (
    ("runtime",),
    ("geometry",),
    ("io", "ops", "losses", "metrics"),
    ("clips", "networks", "data", "options"),
    ("training", "rendering"),
    ("mpi", "fields", "points"),
    ("web",),
)
MODULE_TEXT = re.compile(r"maskvolume(\.\w+)+")  # a module's name as import_module takes it
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
TOUCHES_NO_FILE = ("geometry", "ops", "networks")
FILE_MODULES = {"io", "os", "pathlib", "shutil", "tempfile", "cv2", "imageio", "PIL", "av"}
FILE_CALLS = {"open", "torch.load", "torch.save"}
FILE_CALLS |= {
    f"np.{name}" for name in ("load", "loadtxt", "genfromtxt", "fromfile", "memmap", "save", "savez", "savetxt")
}
FILE_METHODS = {"tofile", "read_text", "read_bytes", "write_text", "write_bytes", "load_state_dict_from_url"}

# Distributions of pyproject.toml that are imported under another name.
IMPORT_NAMES = {
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "scikit-image": "skimage",
    "yt-dlp": "yt_dlp",
}
BLENDER = {"bpy", "bpy_extras", "mathutils"}  # in a separate environment; see examples/rig/README.md


def python_files(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of the modules that a file imports, inside functions and by import_module too."""
    text = path.read_text(encoding="utf-8")
    for base, name in imported_names(text, path.relative_to(ROOT).parent.parts):
        yield base
        if base == "maskvolume" and name:
            yield f"{base}.{name}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE_TEXT.fullmatch(node.value):
            yield node.value


def imported_names(text: str, package: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield each imported module with the name taken from it ("" for the module itself)."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            yield from ((base, alias.name) for alias in node.names)


def top_names(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def part_of(path: Path) -> str:
    """Return the part of the library that a file belongs to: the name of a module or folder."""
    return path.relative_to(ROOT / "maskvolume").parts[0].removesuffix(".py")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_library_imports_no_program() -> None:
    wrong = [
        f"{relative(path)} imports {name}"
        for path in python_files("maskvolume")
        for name in sorted(top_names(path) & {*PROGRAM_FOLDERS, "tests"})
    ]
    assert not wrong


@pytest.mark.parametrize("stage", STAGES)
def test_stage_imports_no_other_stage(stage: str) -> None:
    others = {*STAGES, "tests"} - {stage}
    wrong = [
        f"{relative(path)} imports {name}" for path in python_files(stage) for name in sorted(top_names(path) & others)
    ]
    assert not wrong


def broken_laws(part: str, names: Iterable[str]) -> list[str]:
    """Return the imports ``names`` that are forbidden for a module of a part."""
    parts = {name: name.split(".")[1] for name in names if name.startswith("maskvolume.")}
    return [name for name, other in parts.items() if other != part and FLOOR_OF.get(other, 99) >= FLOOR_OF[part]]


@pytest.mark.parametrize("part", FLOOR_OF)
def test_part_imports_only_from_floors_below(part: str) -> None:
    wrong = [
        f"{relative(path)} imports {name}"
        for path in python_files("maskvolume")
        if part_of(path) == part
        for name in broken_laws(part, sorted(set(imports(path))))
    ]
    assert not wrong


def test_every_module_has_a_floor() -> None:
    parts = {part_of(path) for path in python_files("maskvolume")} - {"__init__"}
    assert parts <= FLOOR_OF.keys()
    assert "maskvolume" not in top_names(ROOT / "maskvolume/__init__.py")  # it has none


def test_the_law_finds_what_it_forbids() -> None:
    assert broken_laws("rendering", ["maskvolume.mpi.model"]) == ["maskvolume.mpi.model"]
    assert broken_laws("mpi", ["maskvolume.fields.loop"]) == ["maskvolume.fields.loop"]
    assert broken_laws("geometry", ["maskvolume.unknown"]) == ["maskvolume.unknown"]
    assert not broken_laws("mpi", ["maskvolume.rendering.loop", "maskvolume.mpi.image", "torch"])


def test_no_modules_import_each_other() -> None:
    modules = {module_name(path): path for path in python_files("maskvolume")}
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        graph[name] = imported_modules(
            path.read_text(encoding="utf-8"), path.relative_to(ROOT).parent.parts, {*modules}
        )
        graph[name].discard(name)
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(text: str, package: tuple[str, ...], modules: set[str]) -> set[str]:
    """Return those of ``modules`` that a text imports: the module that a name is, or else the one it is taken from."""
    pairs = imported_names(text, package)
    return {full if (full := f"{base}.{name}") in modules else base for base, name in pairs} & modules


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("import maskvolume.ops.dispatch", "maskvolume.ops.dispatch"),
        ("from maskvolume.ops.dispatch import choose", "maskvolume.ops.dispatch"),
        ("from maskvolume.ops import dispatch", "maskvolume.ops.dispatch"),
        ("from maskvolume.ops import choose", "maskvolume.ops"),
        ("from . import dispatch", "maskvolume.ops.dispatch"),
        ("from .dispatch import choose", "maskvolume.ops.dispatch"),
        ("def lazy():\n    from ..ops import dispatch", "maskvolume.ops.dispatch"),
    ],
)
def test_every_form_of_import_is_found(statement: str, found: str) -> None:
    modules = {"maskvolume", "maskvolume.ops", "maskvolume.ops.dispatch"}
    assert imported_modules(statement, ("maskvolume", "ops"), modules) == {found}


def test_only_options_reads_the_command_line() -> None:
    users = {
        relative(path)
        for folder in ("maskvolume", *PROGRAM_FOLDERS)
        for path in python_files(folder)
        if "configargparse" in top_names(path)
    }
    assert users <= {"maskvolume/options/programs.py"}


@pytest.mark.parametrize("part", TOUCHES_NO_FILE)
def test_part_touches_no_file(part: str) -> None:
    for path in python_files("maskvolume"):
        if part_of(path) != part:
            continue
        assert not re.search(r"cv2\.(im|Video|FileStorage)", path.read_text(encoding="utf-8")), relative(path)
        pure = {"cv2"} if part == "geometry" else set()  # for its lens functions; its file functions are rejected above
        assert not top_names(path) & (FILE_MODULES - pure), relative(path)
        assert not any(name.startswith("maskvolume.io") for name in imports(path)), relative(path)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not calls & FILE_CALLS, relative(path)
        assert not {call.rpartition(".")[2] for call in calls} & FILE_METHODS, relative(path)
        assert not any(call.startswith("torch.hub.") for call in calls), relative(path)


@pytest.mark.slow
def test_programs_start_without_the_compiler_of_torch() -> None:
    """Its import takes as long as all others together."""
    stages = ("data_tools", "train_mpi", "train_mask", "render")
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for name in stages for path in python_files(name)]
    script = (
        "import importlib, sys, torch\n"
        "if 'torch._dynamo' in sys.modules: sys.exit()  # by torch itself\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch._dynamo' in sys.modules: sys.exit(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *modules], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_import_is_a_listed_dependency() -> None:
    listed = _distributions("dependencies")
    wrong = []
    for folder in ("maskvolume", *PROGRAM_FOLDERS):
        for path in python_files(folder):
            siblings = {other.stem for other in path.parent.glob("*.py")}
            own = {folder, "maskvolume", *siblings}
            own |= {*PROGRAM_FOLDERS} if folder not in ("maskvolume", *STAGES) else set()
            own |= BLENDER if folder == "scenes" else set()
            # PyTorch installs a matching Triton on supported platforms, under varying distribution names.
            own |= {"triton"} if relative(path).startswith("maskvolume/ops/") else set()
            own |= {"playwright"} if relative(path) == "benchmarks/cost/browser.py" else set()  # of the dev extra
            foreign = top_names(path) - own - listed - set(sys.stdlib_module_names)
            wrong += [f"{relative(path)} imports {name}" for name in sorted(foreign)]
    assert not wrong, "list it in pyproject.toml, or import it from the library"


def _distributions(key: str) -> set[str]:
    """Return the import names of a list in pyproject.toml; Python 3.10 has no tomllib."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(rf"^{key} = \[(.*?)\]\s*$", text, re.MULTILINE | re.DOTALL)
    assert match is not None
    names = re.findall(r'"([A-Za-z0-9_.-]+)[^"]*"', match[1])
    return {IMPORT_NAMES.get(name, name) for name in names}
