"""A stored number's code: what reaches the hash and what does not."""

import pytest

from replication import fingerprints
from replication.fingerprints import code_fingerprint, reachable, types_of
from replication.papers import gao2024
from replication.sae import ReLU, TopK


def forget() -> None:
    for remembered in (fingerprints._module, code_fingerprint, fingerprints.module_fingerprint):
        remembered.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules, and a function that rewrites a module and hashes `a.entry`."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.setattr(fingerprints, "PACKAGE", folder)

    def entry():
        pass

    entry.__module__, entry.__qualname__ = "toy.a", "entry"

    def fingerprint(a: str, b: str) -> str:
        (folder / "a.py").write_text(a)
        (folder / "b.py").write_text(b)
        forget()
        return code_fingerprint(entry)

    yield fingerprint
    forget()


A = "from toy.b import helper\nfrom toy import b\n\ndef entry():\n    return helper() + b.SIZE\n"
B = "SIZE = 3\n\ndef helper():\n    return inner()\n\ndef inner():\n    return 2\n\ndef unused():\n    return 9\n"


@pytest.mark.parametrize(
    "old, new", [("return 2", "return 4"), ("SIZE = 3", "SIZE = 5"), ("return inner()", "return 1")]
)
def test_a_change_that_is_reached_changes_it(package, old, new):
    assert package(A, B) != package(A, B.replace(old, new))


@pytest.mark.parametrize(
    "old, new",
    [
        ("return 9", "return 8"),
        ("def inner():", 'def inner():\n    """Two."""'),
        ("    return 2", "    # two\n    return 2"),
        ("def inner():", "def inner() -> int:"),
        ("SIZE = 3", 'SIZE = 3\n"""Three."""'),
    ],
)
def test_unreached_code_docstrings_and_comments_do_not(package, old, new):
    assert package(A, B) == package(A, B.replace(old, new))


def test_a_module_changes_with_any_of_its_definitions_and_is_not_imported(package):
    package(A, "import absent\n" + B)
    first = fingerprints.module_fingerprint("toy.b")
    package(A, "import absent\n" + B.replace("return 9", "return 8"))
    assert fingerprints.module_fingerprint("toy.b") != first
    with pytest.raises(ValueError, match="toy.*'toy.c'"):
        fingerprints.module_fingerprint("toy.c")


def test_a_row_depends_on_its_own_architecture_and_source_only():
    run = gao2024.frontier.frontier_runs("smoke")[0]
    for used, other in ((TopK, ReLU), (ReLU, TopK)):
        names = {name for _, name in reachable(gao2024.frontier.measure, *types_of(run), used)}
        assert used.__name__ in names and other.__name__ not in names
        assert {"train", "_Trainee", "nmse", "harvest", "SAE", "PythonSource"} <= names
        assert not {"CLAIMS", "frontier_runs", "table", "compare", "HubDataset"} & names
