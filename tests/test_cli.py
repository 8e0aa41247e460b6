"""The command line: one clear line and exit code 2 for bad input, JSON that tells the truth."""

import json

import pytest
from typer.testing import CliRunner

from replication import cli, results
from replication.papers import studies


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(cli, "estimate", lambda runs: 2.0 * len(runs))
    return tmp_path


def invoke(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "gao2024", "--preset", "cpuu"], "preset must be one of smoke, cpu, gpu, paper, got 'cpuu'"),
        (["run", "gao2025"], "paper must be one of gao2024, got 'gao2025'"),
        (["show", "frontiers"], "figure must be one of frontier, error-gap"),
        (["show", "frontier"], "no rows are stored for preset cpu"),
        (["book", "--page", "gao"], "page must be one of"),
        (["scorecard", "--preset", "x"], "preset must be one of"),
        (["status", "--preset", "x"], "preset must be one of"),
        (["models", "--train", "pygpt-9m"], "pygpt-9m"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message):
    done = invoke(*arguments)
    assert done.exit_code == 2 and message in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_status_counts_every_study():
    rows = [json.loads(line) for line in invoke("status", "--json").stdout.splitlines()]
    assert [row["study"] for row in rows] == [study.name for study in studies()]
    for row, study in zip(rows, studies(), strict=True):
        assert row["stored"] == 0 == row["stale"] and row["missing"] == row["rows"] == len(study.runs("cpu"))
        assert row["seconds_to_compute"] == 2.0 * row["missing"]


def test_scorecard_without_rows_tests_nothing():
    rows = [json.loads(line) for line in invoke("scorecard", "--json").stdout.splitlines()]
    assert {"gao2024-C1", "gao2024-C2", "gao2024-C13", "gao2024-C14"} <= {row["claim"] for row in rows}
    assert {row["verdict"] for row in rows} == {"not tested"}
    assert rows[0].keys() >= {
        "claim",
        "paper",
        "statement",
        "rule",
        "published",
        "ours",
        "interval",
        "verdict",
        "subject",
        "preset",
        "seeds",
        "stale",
    }


def test_a_corrupted_table_stops_with_its_line(empty_store):
    path = studies()[0].path("cpu")
    path.parent.mkdir(parents=True)
    path.write_text("garbage\n")
    done = invoke("status")
    assert done.exit_code == 2 and "line 1: not a row" in done.stderr and path.read_text() == "garbage\n"


def test_models_are_listed():
    assert "pygpt-2m" in invoke("models").stdout
