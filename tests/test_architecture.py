"""The walls between the parts: who may import whom, and who may touch a file."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("preprocessing", "data_tools", "train_mpi", "train_mask", "render")
PROGRAM_FOLDERS = (*STAGES, "examples", "benchmarks")

# What each part of the library may import from the library, itself apart. Parts that are not here
# are free, within the other rules.
MAY_IMPORT = {
    "errors": set(),
    "cameras": {"errors"},
    "planes": {"cameras", "errors"},
    "homography": {"cameras", "errors"},
    "loops": set(),
    "ops": {"loops", "cameras", "homography", "planes", "errors"},
    "networks": {"loops", "ops", "planes", "errors"},
    "mpi": {"cameras", "homography", "ops", "planes", "errors"},
    "consistency": {"cameras", "homography", "ops"},
    "model": {"cameras", "consistency", "mpi", "networks", "ops", "planes", "errors"},
    "heap": set(),
    "tiles": {"cameras", "consistency", "heap", "model", "mpi", "networks", "ops", "errors"},
    "memory": {"model", "networks", "tiles", "errors"},
    "lenses": {"errors"},
    "io": {"cameras", "lenses", "errors"},
    "rig": {"cameras", "io", "planes", "errors"},
    "processes": {"errors"},
    "streams": set(),
    "graphs": set(),
    "threads": set(),
    "web_server": {"errors"},
    "filling": {"filling_kernels", "loops", "ops"},
    "filling_kernels": {"loops"},
    "options": {"io", "option_fields", "errors"},
    "web": {
        *(
            "cameras",
            "filling",
            "io",
            "metrics",
            "mpi",
            "ops",
            "outputs",
            "paths",
            "pipeline",
            "rendering",
            "rig",
            "threads",
        ),
        "errors",
    },
}
TOUCHES_NO_FILE = ("cameras", "planes", "homography", "ops", "networks", "mpi", "consistency")
FILE_MODULES = {"io", "os", "pathlib", "shutil", "tempfile", "cv2", "imageio", "PIL"}
FILE_CALLS = {"open", "torch.load", "torch.save", "np.load", "np.save"}

# Distributions of pyproject.toml that are imported under another name.
IMPORT_NAMES = {
    "imageio-ffmpeg": "imageio_ffmpeg",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "scikit-image": "skimage",
    "yt-dlp": "yt_dlp",
}
BLENDER = {"bpy", "bpy_extras", "mathutils"}  # in an environment of its own; see examples/rig/README.md


def python_files(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, also those inside functions."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            yield base
            if base == "maskvolume":
                yield from (f"{base}.{alias.name}" for alias in node.names)


def top_names(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def part_of(path: Path) -> str:
    """The part of the library that a file belongs to: a module's or a folder's name."""
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


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_part_imports_only_what_it_may(part: str) -> None:
    known = {part_of(path) for path in python_files("maskvolume")}
    allowed = MAY_IMPORT[part] | {part}
    wrong = [
        f"{relative(path)} imports {name}"
        for path in python_files("maskvolume")
        if part_of(path) == part
        for name in sorted(set(imports(path)))
        if name.startswith("maskvolume.") and name.split(".")[1] in known - allowed
    ]
    assert not wrong


def test_only_options_reads_the_command_line() -> None:
    users = {
        relative(path)
        for folder in ("maskvolume", *PROGRAM_FOLDERS)
        for path in python_files(folder)
        if "configargparse" in top_names(path)
    }
    assert users <= {"maskvolume/options.py"}


@pytest.mark.parametrize("part", TOUCHES_NO_FILE)
def test_part_touches_no_file(part: str) -> None:
    for path in python_files("maskvolume"):
        if part_of(path) != part:
            continue
        assert not re.search(r"cv2\.(im|Video|FileStorage)", path.read_text(encoding="utf-8")), relative(path)
        assert not top_names(path) & FILE_MODULES, relative(path)
        assert not any(name.startswith("maskvolume.io") for name in imports(path)), relative(path)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not calls & FILE_CALLS, relative(path)


def test_every_import_is_a_listed_dependency() -> None:
    listed = _distributions("dependencies")
    wrong = []
    for folder in ("maskvolume", *PROGRAM_FOLDERS):
        for path in python_files(folder):
            siblings = {other.stem for other in path.parent.glob("*.py")}
            own = {folder, "maskvolume", *siblings}
            own |= {*PROGRAM_FOLDERS} if folder not in ("maskvolume", *STAGES) else set()
            own |= BLENDER if folder == "data_tools" else set()
            # PyTorch comes with the Triton that fits it, under one name or another, where there is one.
            own |= {"triton"} if relative(path).startswith("maskvolume/ops/") else set()
            own |= {"playwright"} if relative(path) == "benchmarks/browser.py" else set()  # of the dev extra
            foreign = top_names(path) - own - listed - set(sys.stdlib_module_names)
            wrong += [f"{relative(path)} imports {name}" for name in sorted(foreign)]
    assert not wrong, "list it in pyproject.toml, or import it from the library"


def _distributions(key: str) -> set[str]:
    """Import names of one list of pyproject.toml; tomllib is not in Python 3.10."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(rf"^{key} = \[(.*?)\]\s*$", text, re.MULTILINE | re.DOTALL)
    assert match is not None
    names = re.findall(r'"([A-Za-z0-9_.-]+)[^"]*"', match[1])
    return {IMPORT_NAMES.get(name, name) for name in names}
