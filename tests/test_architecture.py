"""What import-linter cannot say about the house: sizes, the standard library rule, nothing left for later."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
# What may be longer, and why: "path" or "path:function". Splitting by line count alone is a defect, too.
LONG_FOR_A_REASON = {"src/runyard/config.py": "a table: each setting with what it means"}

# Packages that run where nothing can be installed, or that must stay plain values.
STANDARD_LIBRARY_ONLY = ("domain", "sdk", "keeper")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_keep_to_their_guide_lengths(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    text = path.read_text()
    lengths = {name: (text.count("\n"), FILE_LINES_MAX)}
    for function in functions(ast.parse(text)):
        lines = (function.end_lineno or 0) - function.lineno + 1
        lengths[f"{name}:{function.name}"] = (lines, FUNCTION_LINES_MAX)
    too_long = {key: lines for key, (lines, limit) in lengths.items() if lines > limit}

    assert {} == {key: lines for key, lines in too_long.items() if key not in LONG_FOR_A_REASON}


def test_no_exception_to_the_lengths_outlives_its_need() -> None:
    assert [] == [key for key in LONG_FOR_A_REASON if not (ROOT / key.partition(":")[0]).exists()]


@pytest.mark.parametrize("package", STANDARD_LIBRARY_ONLY)
def test_package_imports_only_the_standard_library_and_itself(package: str) -> None:
    own = f"runyard.{package.removesuffix('.py')}"
    outside = {
        (str(path.relative_to(ROOT)), module)
        for path in SOURCES
        if path.is_relative_to(ROOT / "src/runyard" / package)
        for module in imported_modules(ast.parse(path.read_text()))
        if module.partition(".")[0] not in sys.stdlib_module_names and not f"{module}.".startswith(f"{own}.")
    }

    assert set() == outside


def test_nothing_is_left_for_later() -> None:
    marks = ("TODO", "FIXME", "XXX", "NotImplementedError")
    left = [f"{path.relative_to(ROOT)}: {mark}" for path in SOURCES for mark in marks if mark in path.read_text()]

    assert [] == left


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def imported_modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(level=0, module=str(module)):
                yield module
            case _:
                pass
