"""Imports run one way, and each concern has one owner."""

import ast
import re
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("model", "training", "service")
LEAVES = ("ambisonics", "sphere", "media", "features")


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, anywhere: bool = True) -> set[str]:
    """Full names of what a file imports: anywhere in it, or as it is loaded."""
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    for node in ast.walk(tree) if anywhere else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def starts_with(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_imports_run_one_way(path: Path) -> None:
    forbidden = {
        "model": ["training", "service", "fastapi", "celery", "redis", "pydantic"],
        "training": ["service", "fastapi", "celery", "redis"],
        "service": ["training"],
    }
    package = module_name(path).split(".")[0]

    wrong = [n for n in imports(path) for f in forbidden[package] if starts_with(n, f)]

    assert not wrong


def test_no_module_needs_itself_to_be_loaded() -> None:
    modules = {module_name(path): path for path in sources()}

    needs = {}
    for name, path in modules.items():
        found = imports(path, anywhere=False) & modules.keys() - {name}
        # What is asked of a package by name may be one of its modules.
        needs[name] = {n for n in found if not any(starts_with(m, n) for m in found - {n})}

    TopologicalSorter(needs).prepare()  # or a CycleError that names the circle


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("model", "model detector"),
        ("training", "model training"),
        ("service", "service traces"),
        ("tests", "model detector training service traces dev"),
    ],
)
def test_what_is_imported_is_declared_and_pinned(package: str, extras: str) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    of_extras = declared["optional-dependencies"]
    asked = {distribution(line) for extra in extras.split() for line in of_extras[extra]}
    pinned = {distribution(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    ours = {*PACKAGES, "tests", "__future__", *sys.stdlib_module_names}
    sold_as = packages_distributions()
    found = {
        name.split(".")[0] for path in (ROOT / package).rglob("*.py") for name in imports(path)
    }

    for name in found - ours:
        assert name in sold_as, f"{name} is not installed"
        assert {distribution(sold) for sold in sold_as[name]} & asked & pinned, name
    assert asked <= pinned


def distribution(line: str) -> str:
    """The name in a requirement, as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=;\[]", line)[0]).lower()


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_know_only_errors_and_themselves(leaf: str) -> None:
    allowed = {"model.errors", "model.output", f"model.{leaf}"}
    for path in sources():
        if starts_with(module_name(path), f"model.{leaf}"):
            of_model = {n for n in imports(path) if starts_with(n, "model") and n != "model"}
            assert all(any(starts_with(n, a) for a in allowed) for n in of_model), path


def test_media_is_the_only_user_of_ffmpeg_and_libsndfile() -> None:
    users = {
        module_name(path)
        for path in sources()
        for name in imports(path)
        if starts_with(name, "av") or starts_with(name, "soundfile")
    }

    assert users
    assert all(starts_with(user, "model.media") for user in users)


def test_commands_that_are_told_are_those_of_the_venv() -> None:
    """Who has run `make setup` has no other torchrun; in a container, all are."""
    told = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    inside = ("docker compose exec", "the same for containers")
    bare = re.compile(r"(^|[\s`])(python3?|pip|torchrun) (-|install)")

    for path in told:
        for line in path.read_text().splitlines():
            assert not bare.search(line) or any(words in line for words in inside), line


def test_files_and_functions_stay_readable() -> None:
    """Caps that call for a split before a reader does: 450 lines a file, 60 a function body."""
    for path in sources():
        text = path.read_text()
        assert text.count("\n") <= 450, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body:
                    length = (body[-1].end_lineno or 0) - body[0].lineno + 1
                    assert length <= 60, f"{path}: {node.name} has {length} lines"
