"""pyproject.toml, environment.yml and requirements.lock ask for the same things."""

import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from replication.paths import ROOT

UPPER_BOUNDS = {"<", "<=", "~=", "=="}


def by_name(lines) -> dict[str, Requirement]:
    found = [Requirement(line) for line in lines]
    assert len({canonicalize_name(one.name) for one in found}) == len(found), "a requirement is listed twice"
    return {canonicalize_name(one.name): one for one in found}


def declared() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return by_name([*project["dependencies"], *project["optional-dependencies"]["test"]])


def conda() -> list:
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def locked() -> dict[str, Requirement]:
    lines = (line.split("#")[0].strip() for line in (ROOT / "requirements.lock").read_text().splitlines())
    return by_name([line for line in lines if line and not line.startswith("--")])  # options such as an index


@pytest.mark.parametrize("name", declared())
def test_every_dependency_has_an_upper_bound(name):
    assert any(one.operator in UPPER_BOUNDS for one in declared()[name].specifier)


def test_conda_installs_what_pyproject_declares():
    [lines] = [entry["pip"] for entry in conda() if isinstance(entry, dict)]
    assert "-e ." in lines
    listed = by_name([line for line in lines if line != "-e ."])
    assert {name: str(one) for name, one in listed.items()} == {name: str(one) for name, one in declared().items()}


def test_conda_has_a_python_that_pyproject_accepts():
    [python] = [entry.split("=")[1] for entry in conda() if isinstance(entry, str) and entry.startswith("python=")]
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert Requirement(f"python{requires}").specifier.contains(python)


def test_every_line_of_the_lock_is_one_version():
    for one in locked().values():
        operators = [(part.operator, "*" in part.version) for part in one.specifier]
        assert operators == [("==", False)], f"{one} is not pinned"


@pytest.mark.parametrize("name", declared())
def test_the_lock_satisfies_what_is_declared(name):
    assert name in locked(), f"{name} is not locked"
    [pin] = locked()[name].specifier
    assert declared()[name].specifier.contains(pin.version, prereleases=True)
