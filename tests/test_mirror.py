"""The tests mirror the code: ``FOLDER/x.py`` has ``tests/FOLDER/test_x.py``, and each test file names its module.

A test file may cover one aspect of a module, such as ``test_x_bad_input.py``.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
CODE = (
    *("maskvolume", "preprocessing", "data_tools", "train_mpi", "train_mask", "render", "scenes"),
    *("examples", "benchmarks"),
)

# Modules without a test file of their own, with the reason. A folder stands for its contents.
UNTESTED_ALONE = {
    "scenes/courtyard": "models of Blender: its programs' tests make a tiny clip of them where bpy is installed",
    "scenes/livingroom": "the same; its prints, which need no bpy, are tested with make_raw_rig",
    **dict.fromkeys(
        (f"maskvolume/data/synthetic/{name}.py" for name in ("patterns", "shapes", "static", "textures")),
        "parts of random worlds: tested through their pictures",
    ),
    "maskvolume/ops/cpu": "kernels: tested through maskvolume.ops, beside the reference",
    "maskvolume/ops/triton": "the same",
}

# Test files that cover more than one module: a whole folder, or a sequence of programs.
ABOUT_MORE = {
    "tests/test_architecture.py": "who may import whom",
    "tests/test_mirror.py": "this file",
    "tests/test_docs.py": "the pages of docs/",
    "tests/test_docs_commands.py": "the commands that the pages show",
    "tests/test_gpu_pipeline.py": "from a clip to pictures on a GPU",
    "tests/preprocessing/test_end_to_end.py": "from text files to weights",
    "tests/render/test_player.py": "render/viewer in a browser",
    "tests/render/test_player_bundled.py": "render/viewer and the renderer on the bundled clip",
    "tests/render/test_player_geometry.py": "render/viewer/camera.js beside geometry/",
    "tests/render/test_render_sh.py": "render/render.sh",
}

# Folders whose tests are still being sorted.
PENDING: tuple[str, ...] = ()


def within(path: str, folders: tuple[str, ...]) -> bool:
    """Return whether a path is one of the folders or files, or inside one of the folders."""
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def modules() -> list[str]:
    """Return the paths of all modules from the root, without ``__init__.py`` files, which only export names."""
    found = [path for folder in CODE for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py"]
    return sorted(path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts)


def files_of_tests() -> list[str]:
    found = [path for path in TESTS.rglob("test_*.py") if "__pycache__" not in path.parts]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def mirror_of(module: str) -> str:
    """Return the path of a module's test file."""
    folder, _, name = module.rpartition("/")
    return f"tests/{folder}/test_{name}"


def faces() -> set[str]:
    """Return the test files of ``__init__.py`` files: ``tests/A/B/test_B.py`` for ``A/B/__init__.py``."""
    packages = {path.parent.relative_to(ROOT) for folder in CODE for path in (ROOT / folder).rglob("__init__.py")}
    return {f"tests/{package.as_posix()}/test_{package.name}.py" for package in packages}


def test_every_module_has_its_test_file() -> None:
    there = {*files_of_tests()}
    spared = (*UNTESTED_ALONE, *PENDING)
    missing = [f"{module}: {mirror_of(module)}" for module in modules() if not within(module, spared)]
    missing = [line for line in missing if line.split(": ")[1] not in there]
    assert not missing


def test_every_test_file_has_its_module() -> None:
    known = {*map(mirror_of, modules()), *faces(), *ABOUT_MORE}
    sides = tuple(path.removesuffix(".py") + "_" for path in map(mirror_of, modules()))
    pending = tuple(f"tests/{folder}" for folder in PENDING)
    assert not [
        path
        for path in files_of_tests()
        if path not in known and not path.startswith(sides) and not within(path, pending)
    ]


@pytest.mark.parametrize("listed", [*UNTESTED_ALONE, *ABOUT_MORE, *PENDING])
def test_the_exceptions_are_there(listed: str) -> None:
    assert (ROOT / listed).exists(), "an exception for what is gone"


def test_no_test_file_is_empty() -> None:
    for path in files_of_tests():
        nodes = [*ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))]
        assert any(isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in nodes), path
        names = {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in nodes}
        checks = any(name.startswith(("assert", "check", "raises")) for name in names)
        assert checks or any(isinstance(node, ast.Assert) for node in nodes), f"{path} asserts nothing"
