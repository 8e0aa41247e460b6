"""The benchmark's own arithmetic and its drivers' promise. Nothing here is timed, and no peer needs to be installed."""

import csv
import json
import math
import sys

import pytest
import torch

from replication.paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import environments
import memory
import timing
import train_step

SIZE = (4, 8, 2, 16)  # d, n, k, batch
LINE = {"implementation", "version", "method", "d", "n", "k", "batch", "dead", "precision", "ms", "peak_gib", "note"}


def toy(moves: bool):
    """A trainer that counts the batches it gets; its AuxK moves the decoder, or does not."""

    def build(case, sample):
        weights, silence = torch.ones(2, case.n, case.d), torch.zeros(case.n, dtype=torch.int64)

        def loop(batches):
            for x in batches:
                weights[1] += float(moves)
                silence.add_(len(x))[case.n // 2 :] = 0

        return timing.Subject(loop, lambda: weights[0], lambda: weights[1], lambda: silence, 10**6)

    return build


def drive(monkeypatch, capsys, build, *arguments: str) -> list[dict]:
    size = [f"--{name}={value}" for name, value in zip(train_step.SIZE, SIZE, strict=True)]
    monkeypatch.setattr(sys, "argv", ["driver.py", *size, *arguments])
    timing.drive("toy", "1.0", build)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_driver_prints_one_line_per_case(monkeypatch, capsys):
    lines = drive(monkeypatch, capsys, toy(moves=True), "--method", "topk", "relu", "--dead", "0.25", "0")
    assert [set(line) for line in lines] == [LINE, LINE]
    assert [(line["method"], line["dead"]) for line in lines] == [("topk", 0.25), ("relu", 0)]
    assert all(line["ms"] > 0 and line["note"] == "" for line in lines)
    assert [lines[0][name] for name in train_step.SIZE] == list(SIZE)


def test_dead_latents_that_auxk_leaves_alone_are_a_failure(monkeypatch, capsys):
    [line] = drive(monkeypatch, capsys, toy(moves=False), "--dead", "0.25")
    assert line["ms"] is None
    assert line["note"] == "failed: RuntimeError: of the sleeping latents 100% slept on and AuxK moved 0%"


def test_a_stream_reads_the_clock_between_steps_and_ends():
    pulls = []
    stream = timing.Stream([torch.zeros(1), torch.ones(1)], 3, pulls.append)
    assert [x.item() for x in stream] == [0, 1, 0]
    assert (pulls, len(stream.marks)) == ([0, 1, 2, 3], 4)
    with pytest.raises(StopIteration):
        next(stream)
    assert len(stream.marks) == 4


def test_the_mixture_is_seeded_and_of_unit_length_on_average():
    x = torch.stack(timing.mixture(8, 256, 2))
    assert x.shape == (2, 256, 8)
    assert x.square().sum(-1).mean() == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(x, torch.stack(timing.mixture(8, 256, 2)))


def test_the_floor_by_hand():
    # pre-activations 2 * 16 * 8 = 256 bytes, gradients and Adam 64 * 4 * 8 = 2048: 2304 bytes at 1e-6 GB/s are 2304 ms;
    # a gather moves 4 * 16 * 2 * 4 = 512 bytes, 512 ms
    assert train_step.floor_ms(SIZE, 2, 10, 1e9, 1e-6) == pytest.approx(10 + 4 * 512 + 2304)
    assert train_step.floor_ms(SIZE, 2, 10, 5, 1e-6) == pytest.approx(10 + 4 * 5 + 2304)


def row(implementation: str, ms: float | None, method: str = "topk", dead: float = 0.0, **more) -> dict:
    size = dict(zip(train_step.SIZE, SIZE, strict=True))
    return {"implementation": implementation, "method": method, "dead": dead, "ms": ms, **size, **more}


def test_ratios_are_to_our_row_of_the_same_case_and_to_the_floor_of_the_size():
    measured = [row("floor", 1.0), row("replication", 2.0), row("replication", 4.0, dead=0.1)]
    measured += [row("peer", 10.0, dead=0.1), row("peer", 3.0, method="gated"), row("peer", None)]
    rows = train_step.tabulate(measured, "a machine", "2000-01-01")
    assert all(list(found) == train_step.COLUMNS for found in rows)
    assert [found["ratio_to_ours"] for found in rows] == [0.5, 1, 1, 2.5, None, None]
    assert [found["ratio_to_floor"] for found in rows] == [1, 2, 4, 10, 3, None]
    assert rows[3]["tokens_per_s"] == 1600


def test_a_peer_that_is_not_there_has_a_row_with_the_reason(tmp_path):
    stderr = "WARNING: noise\nERROR: first\nERROR: No matching distribution found for peer\nWARNING: more noise\n"
    found = train_step.skipped_row("peer", environments.reason(stderr))
    train_step.write(tmp_path / "cpu.csv", train_step.COLUMNS, train_step.tabulate([found], "a machine", "2000-01-01"))
    [stored] = csv.DictReader((tmp_path / "cpu.csv").read_text().splitlines())
    assert stored["note"] == "skipped: ERROR: No matching distribution found for peer"
    assert (stored["implementation"], stored["ms"]) == ("peer", "")
    assert [path.name for path in tmp_path.iterdir()] == ["cpu.csv"]


def test_a_driver_that_dies_leaves_a_reason_for_each_of_its_cases(tmp_path):
    script = tmp_path / "dies.py"
    script.write_text("raise SystemExit('no such library')")
    program = train_step.Program("peer", str(script), train_step.TOPK, "fp32")
    rows = list(train_step.measure(program, sys.executable, SIZE, "cpu", 1))
    assert [(found["dead"], found["ms"], found["note"]) for found in rows] == [
        (0.0, None, "failed: no such library"),
        (0.1, None, "failed: no such library"),
    ]


def test_of_two_rounds_the_faster_one_counts_and_a_failure_never_does():
    slow, fast, failed = row("peer", 2.0), row("peer", 1.0), row("peer", None)
    assert train_step.better(None, failed) is failed
    assert train_step.better(failed, slow) is slow
    assert train_step.better(slow, fast) is fast
    assert train_step.better(fast, slow) is train_step.better(fast, failed) is fast


def test_every_program_has_its_script_and_every_peer_its_driver():
    for device in ("cpu", "cuda"):
        for program in train_step.programs(device):
            assert (ROOT / "benchmarks" / program.script).exists()
            assert set(dict(program.cases)) <= {"topk", "batchtopk", "jumprelu", "topafa", "relu"}
    drivers = {path.stem for path in (ROOT / "benchmarks" / "peers").glob("*.py")}
    assert drivers == environments.PEERS.keys()
    assert all("<" in peer.requirement for peer in environments.PEERS.values())


def test_our_own_driver_runs_auxk(tmp_path):
    """A real step of the library at a small size, in a process of its own as in the benchmark."""
    program = train_step.Program("replication", "ours.py", (("topk", 0.1),), train_step.precision("cpu"))
    [line] = train_step.measure(program, sys.executable, (16, 256, 4, 64), "cpu", 1)
    assert line["note"] == "" and line["ms"] > 0
    assert math.isfinite(line["peak_gib"])


def test_the_larger_batch_is_for_this_library_and_the_leanest_peer():
    rows = [{"implementation": name, "peak_gib": gib} for name, gib in (("a", 3.0), ("b", 2.0), ("c", None))]
    wanted = [train_step.Program(name, "x.py", (), "fp32") for name in ("replication", "a", "b", "c")]
    assert [one.name for one in memory.leanest(wanted, rows)] == ["replication", "b"]
    assert [one.name for one in memory.leanest(wanted, [])] == ["replication"]


def test_the_stored_memory_has_every_program_once():
    table = list(csv.DictReader((ROOT / "benchmarks" / "results" / "cpu_memory.csv").read_text().splitlines()))
    there = [row for row in table if row["batch"] == str(memory.SIZES[0][-1])]
    skipped = {row["implementation"] for row in table} - {row["implementation"] for row in there}
    wanted = [one.name for one in memory.contestants() if one.name not in skipped]
    assert [row["implementation"] for row in there] == wanted
    assert list(table[0]) == memory.COLUMNS
    assert all(row["peak_gib"] or row["note"].startswith("failed") for row in there)


@pytest.mark.parametrize("script", ["limits.py", "parts.py"])
def test_limits_and_parts_print_their_milliseconds(script):
    program = train_step.Program("floor", script, train_step.TOPK[:1], train_step.precision("cpu"))
    [found], failure = train_step.run(train_step.command(sys.executable, program, (16, 256, 4, 64), "cpu", 1), 1)
    assert failure == "" and all(value > 0 for value in found.values())


def test_stored_tables_have_the_columns_of_the_benchmark():
    for path in (ROOT / "benchmarks" / "results").glob("?pu.csv"):
        table = csv.DictReader(path.read_text().splitlines())
        assert table.fieldnames == train_step.COLUMNS
        assert all(stored["ms"] or stored["note"].startswith(("skipped", "failed")) for stored in table)
