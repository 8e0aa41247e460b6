"""The command line: one clear line and exit code 2 for bad input, JSON that tells the truth."""

import json

import pytest
from typer.testing import CliRunner

from replication import cli, language_models, pages, results
from replication.papers import PAPERS, studies


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(cli, "estimate", lambda study, runs: 2.0 * len(runs))
    return tmp_path


def invoke(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "gao2024", "--preset", "cpuu"], "preset must be one of smoke, cpu, gpu, paper, got 'cpuu'"),
        (["run", "gao2025"], f"paper must be one of {', '.join(PAPERS)}, got 'gao2025'"),
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


def store(preset: str, rows: list[dict]) -> None:
    """Rows in the place where the preset's first study keeps them."""
    for row in rows:
        results.append(studies()[0].path(preset), row)


def toy_rows(preset: str = "cpu") -> list[dict]:
    study = studies()[0]
    measured = {"nmse": 0.5, "l0": 4.0, "nmse_pca": 0.6, "nmse_untrained": 0.9, "dead": 0.0, "seconds": 1.0}
    measured |= {"curve_tokens": [1, 2], "curve_error": [0.9, 0.5]}
    return [
        {"key": study.key(run), "code": study.code(run), "d_sae": run.d_sae, "architecture": run.architecture}
        | {"sparsity": run.sparsity, "seed": run.seed, "tied_init": True, "options": "()", "source": repr(run.source)}
        | run.source.fingerprints()
        | measured
        for run in study.runs(preset)
    ]


def test_show_draws_a_figure_from_stored_rows(empty_store):
    store("smoke", toy_rows("smoke"))
    target = empty_store / "figure.png"
    assert invoke("show", "frontier", "--preset", "smoke", "--out", str(target)).exit_code == 0
    assert target.stat().st_size > 10_000
    missing = invoke("show", "frontier", "--preset", "smoke", "--out", str(empty_store / "nowhere" / "figure.png"))
    assert missing.exit_code == 2 and "nowhere" in missing.stderr


def test_status_sees_rows_of_changed_code(empty_store):
    rows = toy_rows("smoke")
    store("smoke", [rows[0] | {"code": "0" * 12}, *rows[1:-1]])
    frontier = json.loads(invoke("status", "--preset", "smoke", "--json").stdout.splitlines()[0])
    assert (frontier["stored"], frontier["stale"], frontier["missing"]) == (len(rows) - 1, 1, 1)


def test_snapshot_copies_rows_and_rewrites_the_readme(empty_store, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", empty_store)
    (empty_store / "README.md").write_text("before\n<!-- scorecard: x -->\nold\n<!-- end of scorecard -->\nafter\n")
    store("cpu", toy_rows()[:1])
    assert invoke("snapshot", "--preset", "cpu").exit_code == 0
    assert studies()[0].path("cpu", committed=True).read_text() == studies()[0].path("cpu").read_text()
    text = (empty_store / "README.md").read_text()
    assert (
        text.startswith("before\n<!-- scorecard: x -->\n| claim |") and text.endswith("after\n") and "old" not in text
    )
    claims = sum(len(paper.CLAIMS) for paper in PAPERS.values())
    assert f"not tested: {claims} of {claims}" in text


def test_retraining_is_offered_for_known_models_and_its_loss_is_compared(monkeypatch):
    asked = {}

    def train(name, text, tokens):
        asked.update(name=name, tokens=tokens)
        return {"name": name, "tokens": 10_000_000, "val_loss": 5.0}

    monkeypatch.setattr(language_models, "train", train)
    monkeypatch.setattr(cli.PythonSource, "build", lambda self, tokenizer: None)
    done = invoke("models", "--train", "pygpt-0.5m", "--tokens", "1000")
    assert asked == {"name": "pygpt-0.5m", "tokens": 1000} and "the stored curve has" in done.stdout
