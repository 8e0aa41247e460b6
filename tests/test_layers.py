"""A module imports only what stands before it in ORDER, and the compute path needs none of the book's tools."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import replication

PACKAGE = Path(replication.__file__).parent
ORDER = (
    "paths",
    "shapes",
    "fingerprints",
    "metrics",
    "matching",
    "synthetic",
    "corpora",
    "code_labels",
    "language_models",
    "activations",
    "triton_kernels",
    "kernels",
    "sae",
    "inference",
    "optimise",
    "graphs",
    "train",
    "store",
    "evaluate",
    "formats",
    "scaling",
    "results",
    "claims",
    "figures",
    "papers",
    "suite",
    "dashboard_html",
    "pages",
    "book",
    "cli",
)
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
BOOK_TOOLS = (
    "typer",
    "matplotlib",
    "seaborn",
    "IPython",
    "jupytext",
    "papermill",
    "nbformat",
    "datasets",
    "transformer_lens",
    "jaxtyping",
    "beartype",
    "sklearn",
    "triton",
    "pyarrow",
)


def layer(path: Path) -> str:
    """The module or, for a file of a package such as sae/, the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """Layers that a file imports anywhere, inside functions too."""
    dotted = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            dotted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}, line {node.lineno}: a relative import"
            dotted |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in dotted if name.startswith(f"{PACKAGE.name}.")}


def test_every_module_is_in_the_order():
    assert {layer(path) for path in FILES} == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_what_stands_before_it(path):
    own = layer(path)
    allowed = set(ORDER[: ORDER.index(own)]) | ({own} if path.parent != PACKAGE else set())
    assert imported(path) <= allowed


def test_the_compute_path_needs_none_of_the_books_tools():
    """BOOK_TOOLS are absent here, as on a bare GPU machine. yaml is not among them: transformers brings it along."""
    script = f"""
import importlib.machinery, sys

class WithoutBookTools(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {BOOK_TOOLS!r} else super().find_spec(name, path, target)

sys.meta_path = [WithoutBookTools if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
import replication.results, replication.papers, replication.train
assert not set(sys.modules) & set({BOOK_TOOLS!r})
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
