"""Rows: stored once, read back, resumed, told stale, and never silently wrong. The runs here are toy dataclasses."""

import json
from dataclasses import dataclass

import pytest

from replication import results
from replication.results import Study, append, compute, missing, read, table


@dataclass(frozen=True)
class Toy:
    x: int
    seed: int = 0


DONE = []
CORPUS = [""]


def measure(runs):
    for run in runs:
        DONE.append(run.x)
        if run.x == 99:
            raise KeyboardInterrupt
        yield run, {"y": run.x**2, "seconds": 0.5}


def other_measure(runs):
    for run in runs:
        yield run, {"y": -run.x}


def study(*xs, measure=measure, name="toy") -> Study:
    return Study("paper", name, "A toy", lambda preset: [Toy(x) for x in xs], measure)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results, "estimate", lambda study, runs: 0.0)
    DONE.clear()
    return tmp_path


def quiet(line):
    pass


def test_rows_are_computed_once_and_read_back():
    assert compute(study(1, 2), "cpu", report=quiet) == 2
    assert compute(study(1, 2), "cpu", report=quiet) == 0
    found = table(study(1, 2), "cpu")
    assert found.y.tolist() == [1, 4] and not found.stale.any()
    assert {"key", "preset", "commit", "dirty", "device", "torch", "date", "code"} <= set(found.columns)


def test_deleting_one_row_recomputes_only_that_row():
    compute(study(1, 2, 3), "cpu", report=quiet)
    path = study().path("cpu")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[2])
    DONE.clear()
    assert compute(study(1, 2, 3), "cpu", report=quiet) == 1
    assert DONE == [2] and table(study(1, 2, 3), "cpu").y.tolist() == [1, 4, 9]


def test_an_interruption_keeps_what_was_done():
    with pytest.raises(KeyboardInterrupt):
        compute(study(1, 99, 3), "cpu", report=quiet)
    assert [run.x for run in missing(study(1, 99, 3), "cpu")] == [99, 3]


def test_a_torn_last_line_is_dropped_and_cut_off_by_the_next_row():
    compute(study(1), "cpu", report=quiet)
    path = study().path("cpu")
    with path.open("a") as file:
        file.write('{"key": "abc", "y"')
    assert len(read(path)) == 1
    compute(study(1, 2), "cpu", report=quiet)
    assert [json.loads(line)["y"] for line in path.read_text().splitlines()] == [1, 4]


def test_a_measurement_that_is_not_finite_is_refused_by_name():
    def broken(runs):
        yield from ((run, {"y": 1.0 / run.x, "nmse": float("nan") if run.x == 2 else 0.5}) for run in runs)

    with pytest.raises(ValueError, match=r"nmse is nan for Toy\(x=2"):
        compute(study(1, 2, measure=broken), "cpu", report=quiet)
    assert table(study(1, 2, measure=broken), "cpu").nmse.tolist() == [0.5]


@pytest.mark.parametrize("name", ["paper", "seed", "code", "own"])
def test_a_measurement_with_the_name_of_another_column_is_refused(name):
    named = study(1, measure=lambda runs: ((run, {name: 0.5}) for run in runs))
    with pytest.raises(ValueError, match=f"toy: measured {name} is a column of every row"):
        compute(named, "cpu", report=quiet)


@pytest.mark.parametrize("line", ["not json", "[1, 2]", '{"y": 1}'])
def test_a_corrupted_table_is_named_with_its_line_and_left_alone(line):
    compute(study(1), "cpu", report=quiet)
    path = study().path("cpu")
    path.write_text(path.read_text() + line + "\n")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"{path.name}, line 2"):
        compute(study(1, 2), "cpu", report=quiet)
    assert path.read_bytes() == before


def test_keys_that_look_like_numbers_stay_strings(tmp_path):
    append(tmp_path / "t.jsonl", {"key": "12e456789012", "y": 1.0})
    assert list(read(tmp_path / "t.jsonl")) == ["12e456789012"]


def test_a_row_that_is_not_a_number_is_refused(tmp_path):
    with pytest.raises(ValueError):
        append(tmp_path / "t.jsonl", {"key": "a", "y": float("inf")})


def test_changed_code_makes_rows_stale_and_they_are_recomputed_on_request(monkeypatch):
    compute(study(1, 2), "cpu", report=quiet)
    monkeypatch.setattr(Study, "code", lambda self, run: "f" * 12)
    assert table(study(1, 2), "cpu").stale.all()
    assert missing(study(1, 2), "cpu") == []
    assert compute(study(1, 2), "cpu", recompute="stale", report=quiet) == 2
    assert not table(study(1, 2), "cpu").stale.any() and len(table(study(1, 2), "cpu")) == 2


def test_rows_of_a_gpu_are_stale_when_its_kernels_change(monkeypatch):
    compute(study(1), "cpu", report=quiet)
    [row] = read(study().path("cpu")).values()
    assert row["kernels"] is None and not study().is_stale(Toy(1), row, committed=True)
    assert study().is_stale(Toy(1), row | {"kernels": "f" * 12}, committed=True)
    assert not study().is_stale(Toy(1), row | {"kernels": results.module_fingerprint(results.TRITON)}, committed=True)


def test_rows_of_another_subject_or_text_are_stale_on_the_machine_that_made_them():
    @dataclass(frozen=True)
    class Source:
        def fingerprints(self):
            return {"corpus_fingerprint": CORPUS[0]}

    run = type("WithSource", (), {"source": Source()})()
    row = {"code": "c", "corpus_fingerprint": "old"}
    one = study(1)
    object.__setattr__(one, "code", lambda run: "c")
    CORPUS[:] = ["old"]
    assert not one.is_stale(run, row, committed=False)
    CORPUS[:] = ["new"]
    assert one.is_stale(run, row, committed=False) and not one.is_stale(run, row, committed=True)


def test_studies_share_a_row_only_when_they_measure_the_same():
    compute(study(1, 2), "cpu", report=quiet)
    assert missing(study(2, 3, name="another"), "cpu") == [Toy(3)]
    assert missing(study(2, measure=other_measure), "cpu") == [Toy(2)]


def test_presets_have_their_places(folders):
    assert (
        study().path("gpu").parent == folders / "results"
        and study().path("smoke").parent == folders / "cache" / "results"
    )
    assert study().path("cpu", committed=True).parent == folders / "results"
    with pytest.raises(ValueError, match="smoke, cpu, gpu, paper.*'cpuu'"):
        study().runs("cpuu")


def test_rows_that_came_with_the_repository_are_found_and_own_rows_stand_in_for_them():
    compute(study(1, 2), "cpu", report=quiet)
    results.copy_rows([study(1, 2)], "cpu")
    study().path("cpu").unlink()
    DONE.clear()
    assert compute(study(1, 2, 3), "cpu", report=quiet) == 1 and DONE == [3]
    found = table(study(1, 2, 3), "cpu")
    assert found.y.tolist() == [1, 4, 9] and found.own.tolist() == [False, False, True]
    assert len(table(study(1, 2, 3), "cpu", committed=True)) == 2
    assert compute(study(1, 2, 3), "cpu", recompute="committed", report=quiet) == 2
    assert table(study(1, 2, 3), "cpu").own.all()
    results.copy_rows([study(1, 3)], "cpu")
    assert table(study(1, 2, 3), "cpu", committed=True).y.tolist() == [1, 9]


def test_rows_of_a_gpu_are_all_committed_and_cannot_be_asked_for_again():
    with pytest.raises(ValueError, match="'gpu' are all committed"):
        missing(study(1), "gpu", recompute="committed")


def test_a_study_says_what_its_runs_cost(monkeypatch):
    monkeypatch.undo()
    costly = Study("paper", "toy", "A toy", lambda preset: [Toy(2), Toy(3)], measure, cost=lambda run: 10.0 * run.x)
    assert results.estimate(costly, costly.runs("cpu")) == 50


def test_the_cost_is_said_before_the_first_row():
    said = []
    compute(study(1), "cpu", report=lambda line: said.append((line, list(DONE))))
    assert "1 of 1 rows to compute" in said[0][0] and said[0][1] == []


def test_durations():
    assert [results.duration(s) for s in (3, 600, 7200)] == ["3 s", "10 min", "2.0 h"]
