"""Which code a stored number depends on: a hash over the definitions that a function can reach inside this package.

A row is stale when the code that made it has changed. Hashing whole modules would make every row stale whenever an
unrelated function is added, so the unit is the top-level definition: starting from the given functions and classes,
names are followed through the package's modules, and everything reached is hashed, without docstrings, comments and
annotations. Names that a registry looks up at run time cannot be seen this way: pass them as roots.
"""

import ast
import hashlib
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent
# Dictionaries over every member: what a row used of them is passed as a root.
REGISTRIES = {"ARCHITECTURES", "NORMALISATIONS"}
UNHASHED = {"annotation", "returns", "type_params", "type_comment", "kind"}


class _Module(NamedTuple):
    definitions: dict[str, list[ast.stmt]]
    imports: dict[str, tuple[str, str | None]]  # local name -> (module, name in it; None: the module itself)


@cache
def _module(name: str) -> _Module | None:
    path = PACKAGE.parent / Path(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.exists():
        return None
    definitions: dict[str, list[ast.stmt]] = {}
    imports: dict[str, tuple[str, str | None]] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            definitions.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for leaf in ast.walk(target):
                    if isinstance(leaf, ast.Name):
                        definitions.setdefault(leaf.id, []).append(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE.name):
            for alias in node.names:
                submodule = _module_exists(f"{node.module}.{alias.name}")
                target = (f"{node.module}.{alias.name}", None) if submodule else (node.module, alias.name)
                imports[alias.asname or alias.name] = target
    return _Module(definitions, imports)


def _module_exists(name: str) -> bool:
    path = PACKAGE.parent / Path(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def _form(node) -> object:
    """A syntax tree as nested tuples, the same in every version of Python, without positions, annotations, docstrings
    and any other bare string."""
    if isinstance(node, ast.AST):
        kept = ((name, _form(value)) for name, value in ast.iter_fields(node) if name not in UNHASHED)
        return type(node).__name__, *((name, value) for name, value in kept if value not in (None, ()))
    if isinstance(node, list):
        return tuple(_form(item) for item in node if not _is_bare_string(item))
    return repr(node) if node is not None else None


def _is_bare_string(node) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def types_of(value) -> list[type]:
    """The classes of a frozen dataclass and of those it holds: a run, its source, its corpus."""
    if not is_dataclass(value):
        return []
    return [type(value)] + [one for f in fields(value) for one in types_of(getattr(value, f.name))]


def reachable(*roots: Callable) -> dict[tuple[str, str], str]:
    """(module, name) -> form of every definition of this package that `roots` lead to."""
    found: dict[tuple[str, str], str] = {}
    todo = [(root.__module__, root.__qualname__.split(".")[0]) for root in roots]
    while todo:
        module_name, name = todo.pop()
        module = _module(module_name)
        if module is None or (module_name, name) in found or name in REGISTRIES:
            continue
        if name in module.imports:
            target, original = module.imports[name]
            if original is not None:
                todo.append((target, original))
            continue
        if name not in module.definitions:
            continue
        nodes = module.definitions[name]
        found[module_name, name] = repr([_form(node) for node in nodes])
        for leaf in (leaf for node in nodes for leaf in ast.walk(node)):
            if isinstance(leaf, ast.Name):
                todo.append((module_name, leaf.id))
            elif isinstance(leaf, ast.Attribute) and isinstance(leaf.value, ast.Name):
                target, original = module.imports.get(leaf.value.id, (None, ""))
                if original is None:
                    todo.append((target, leaf.attr))
    return found


@cache
def code_fingerprint(*roots: Callable) -> str:
    """12 hexadecimal digits that change when a definition reachable from `roots` changes. A process has one version of
    the code, and many rows that depend on it."""
    return _digest(sorted(reachable(*roots).items()))


@cache
def module_fingerprint(name: str) -> str:
    """12 hexadecimal digits that change when any definition of a module of this package changes. It is not imported:
    what it needs may not be installed here."""
    module = _module(name)
    if module is None:
        raise ValueError(f"name must be a module of {PACKAGE.name}, got {name!r}")
    return _digest([(one, [_form(node) for node in nodes]) for one, nodes in sorted(module.definitions.items())])


def _digest(value) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]
