"""Time and memory of one training step: this library, plain autograd, its peers and the limits of the machine.

    python benchmarks/train_step.py            # writes benchmarks/results/cpu.csv and cpu_parts.csv, or gpu.csv

One sitting: in each of two rounds every implementation takes its turn at every size in a process of its own, and the
better median counts, so that a disturbance hits nobody alone. All train on the same batches, each through its own loop
(`timing`, `ours`, `peers/`); a peer that cannot be installed or fails has a row that says why. Ratios within one file
compare, times of two files do not.

    tokens_per_s      batch / ms
    peak_gib          most memory in use above that before the SAE was built; on a CPU of the process, on a GPU of torch
    ratio_to_ours     ms / ms of this library at the same method, size and share of dead latents
    ratio_to_floor    ms / floor, the floor being that of a TopK step without AuxK in the precision this library uses:

    floor = encoder product + 4 gathers + bytes / copy speed,   all three measured here (`limits`)
    gather = k rows a token: decode, the gradient of the latents, of W_dec and of W_enc; at the speed of torch's
             `embedding_bag` or, where that is faster, of a copy of its 4 B k d bytes
    bytes  = b B n   one read of the pre-activations, b = 2 (bf16) or 4 bytes each
           + 8 d n   one write of both dense gradients
           + 56 d n  Adam: 28 bytes for each of the 2dn weights

with B tokens a batch. The floors of other methods are higher: they must look at every latent more than once.
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from environments import FOLDER, PEERS, Unavailable, python, reason
from ours import precision

from replication.results import machine
from replication.train import default_device

HERE = Path(__file__).parent
SIZES = {  # d, n, k, batch
    "cpu": [(128, 512, 16, 1024), (128, 2048, 16, 1024), (256, 4096, 32, 1024)],
    "cuda": [(768, n, 32, 4096) for n in (12288, 32768, 131072, 524288)],
}
TABLES = {"cpu": "cpu.csv", "cuda": "gpu.csv"}
COLUMNS = ["implementation", "version", "method", "d", "n", "k", "batch", "dead", "precision", "ms", "tokens_per_s"]
COLUMNS += ["peak_gib", "ratio_to_ours", "ratio_to_floor", "device", "date", "note"]
SIZE = ("d", "n", "k", "batch")
KEY = ("implementation", "method", *SIZE, "dead", "precision")
TOPK = (("topk", 0.0), ("topk", 0.1))
SHARED = (*TOPK, ("batchtopk", 0.1), ("jumprelu", 0.0))
OURS = (*SHARED, ("topafa", 0.1), ("relu", 0.0))
TIMEOUT = 900  # seconds for all methods of one implementation at one size


class Program(NamedTuple):
    """One process: an implementation in one precision."""

    name: str
    script: str
    cases: tuple[tuple[str, float], ...]
    """(method, share of dead latents)."""
    precision: str
    variant: str = ""
    """Passed on to the driver."""


def programs(device: str) -> list[Program]:
    """Who is timed: every peer in every precision that its own options offer on this device."""
    tensor_cores = ("tf32", "bf16") if device == "cuda" else ()
    sparsify = "bf16" if device == "cuda" else "fp32"
    found = [Program("replication", "ours.py", OURS, precision(device))]
    found.append(Program("plain autograd", "ours.py", TOPK, "fp32", "plain"))
    for kind in ("fp32", *tensor_cores):
        found.append(Program("dictionary-learning", "peers/dictionary-learning.py", SHARED, kind))
    for kind in ("fp32", *(tensor_cores or ("bf16",))):
        found.append(Program("sae-lens", "peers/sae-lens.py", SHARED, kind))
    found.append(Program("eai-sparsify", "peers/eai-sparsify.py", TOPK, sparsify))
    found.append(Program("eai-sparsify, defaults", "peers/eai-sparsify.py", TOPK[:1], sparsify, "defaults"))
    return found


def available(wanted: list[Program]) -> tuple[list[Program], dict[str, str | Path], list[dict]]:
    """Programs that can run here, the interpreter of each script, and a row for every peer that is not there."""
    interpreters, skipped = {"ours.py": sys.executable}, []
    for name, script in {Path(program.script).stem: program.script for program in wanted}.items():
        if name in PEERS:
            try:
                interpreters[script] = python(name)
            except (Unavailable, OSError) as error:
                skipped.append(skipped_row(name, str(error)))
                print(f"{name}: skipped, {error}", flush=True)
    return [program for program in wanted if program.script in interpreters], interpreters, skipped


def command(
    interpreter: str | Path, program: Program, size: tuple, device: str, threads: int, more: Sequence[str] = ()
) -> list[str]:
    methods, dead = zip(*program.cases, strict=True)
    arguments = [f"--{name}={value}" for name, value in zip(SIZE, size, strict=True)]
    arguments += [f"--device={device}", f"--threads={threads}", f"--precision={program.precision}"]
    arguments += ["--method", *methods, "--dead", *map(str, dead)]
    return [
        str(interpreter),
        str(HERE / program.script),
        *arguments,
        *more,
        *(["--variant", program.variant] if program.variant else []),
    ]


def run(line: list[str], threads: int) -> tuple[list[dict], str]:
    """The JSON lines a script prints, and why it ended if it did not end well."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return [], f"took more than {TIMEOUT} s"
    found = [json.loads(text) for text in done.stdout.splitlines() if text.startswith("{")]
    return found, "" if done.returncode == 0 else reason(done.stderr) or f"ended with {done.returncode}"


def measure(
    program: Program, interpreter: str | Path, size: tuple, device: str, threads: int, more: Sequence[str] = ()
) -> Iterator[dict]:
    """One row per case; a case without a line gets one that says why. `more` is handed to the driver."""
    found, failure = run(command(interpreter, program, size, device, threads, more), threads)
    yield from found
    for method, dead in program.cases[len(found) :]:
        row = {"implementation": program.name, "version": "", "method": method} | dict(zip(SIZE, size, strict=True))
        row |= {"dead": dead, "precision": program.precision, "ms": None, "peak_gib": None}
        yield row | {"note": f"failed: {failure or 'no output'}"}


def floor_ms(size: tuple, width: int, product_ms: float, gather_ms: float, gb_per_s: float) -> float:
    """The floor of the module's docstring, in milliseconds; `width` is the bytes of one pre-activation."""
    d, n, k, batch = size
    per_byte = 1 / gb_per_s / 1e6
    return product_ms + 4 * min(gather_ms, 4 * batch * k * d * per_byte) + (width * batch * n + 64 * d * n) * per_byte


def floor_row(size: tuple, kind: str, limits: dict[str, float]) -> dict:
    row = {"implementation": "floor", "version": "", "method": "topk"} | dict(zip(SIZE, size, strict=True))
    row |= {"dead": 0.0, "precision": kind, "ms": round(floor_ms(size, 2 if kind == "bf16" else 4, **limits), 4)}
    parts = "product {product_ms:.3f} ms, gather {gather_ms:.3f} ms, copy {gb_per_s:.0f} GB/s".format(**limits)
    return row | {"peak_gib": None, "note": parts}


def skipped_row(name: str, why: str) -> dict:
    """A peer that is not there."""
    return dict.fromkeys(COLUMNS) | {"implementation": name, "note": f"skipped: {why}"}


def better(old: dict | None, new: dict) -> dict:
    """The faster of two measurements of the same case; one that failed loses."""
    pace = [math.inf if row is None or row["ms"] is None else row["ms"] for row in (old, new)]
    return new if old is None or pace[1] < pace[0] else old


def tabulate(measured: list[dict], device: str, date: str) -> list[dict]:
    """Rows with every column: rates and ratios follow from the milliseconds, never from other columns."""
    done = [row for row in measured if row.get("ms") is not None]
    floors = {tuple(row[name] for name in SIZE): row["ms"] for row in done if row["implementation"] == "floor"}
    ours = {_place(row): row["ms"] for row in done if row["implementation"] == "replication"}
    rows = []
    for row in measured:
        row = dict.fromkeys(COLUMNS) | row | {"device": device, "date": date}
        if row["ms"] is not None:
            mine, floor = ours.get(_place(row)), floors.get(tuple(row[name] for name in SIZE))
            row["tokens_per_s"] = round(row["batch"] / row["ms"] * 1e3)
            row["ratio_to_ours"] = mine and round(row["ms"] / mine, 3)
            row["ratio_to_floor"] = floor and round(row["ms"] / floor, 2)
        rows.append(row)
    return rows


def _place(row: dict) -> tuple:
    return (row["method"], row["dead"], *(row[name] for name in SIZE))


def write(path: Path, columns: list[str], rows: list[dict]) -> None:
    """A CSV that is there whole or not at all; a missing value is an empty cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    partial.replace(path)


class Sitting(NamedTuple):
    """What was measured, the best of the rounds."""

    steps: dict[tuple, dict]
    """KEY of a row -> row."""
    limits: dict[tuple, dict[str, float]]
    """Size -> what `limits` prints."""
    parts: dict[tuple, dict[str, float]]
    """Size -> what `parts` prints; empty on a GPU, where a recorded step cannot be taken apart."""


def sit(
    wanted: list[Program], interpreters: dict, sizes: list[tuple], rounds: int, device: str, threads: int
) -> Sitting:
    """Measure everything `rounds` times; each row is printed and put into a journal at once."""
    done = Sitting({}, {}, {})
    basic = Program("floor", "limits.py", TOPK[:1], precision(device))
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{device}.jsonl").open("w") as journal:
        for size in [size for _ in range(rounds) for size in sizes]:
            own = {"limits.py": done.limits} | ({"parts.py": done.parts} if device == "cpu" else {})
            for script, table in own.items():
                line = command(sys.executable, basic._replace(script=script), size, device, threads)
                found, failure = run(line, threads)
                if not found:
                    raise SystemExit(f"{script}: {failure}")
                table[size] = _faster(table.get(size), found[0])
            for program in wanted:
                for row in measure(program, interpreters[program.script], size, device, threads):
                    place = tuple(row[name] for name in KEY)
                    done.steps[place] = better(done.steps.get(place), row)
                    print(*place, row["ms"], row["note"], sep="  ", flush=True)
                    print(json.dumps(row), file=journal, flush=True)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sizes", type=int, help="how many of the sizes, the smallest first (default: all)")
    parser.add_argument("--only", nargs="+", help="implementations to time (default: all)")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    given = parser.parse_args()
    device = default_device()
    kind, sizes = precision(device), SIZES[device][: given.sizes]
    wanted = [program for program in programs(device) if not given.only or program.name in given.only]
    wanted, interpreters, skipped = available(wanted)
    done = sit(wanted, interpreters, sizes, given.rounds, device, given.threads)

    where, date = machine()["device"], datetime.now(UTC).strftime("%Y-%m-%d")
    if device == "cpu" and given.threads != os.cpu_count():
        where += f", {given.threads} used"
    floors = [floor_row(size, kind, done.limits[size]) for size in sizes]
    rows = sorted([*floors, *done.steps.values()], key=lambda row: tuple(row[name] for name in SIZE))
    write(given.output / TABLES[device], COLUMNS, tabulate([*rows, *skipped], where, date))
    named = {"precision": kind, "device": where, "date": date}
    split = [
        {"part": part, "ms": ms} | dict(zip(SIZE, size, strict=True)) | named
        for size, found in done.parts.items()
        for part, ms in found.items()
    ]
    if split:
        write(given.output / "cpu_parts.csv", ["part", *SIZE, "ms", "precision", "device", "date"], split)


def _faster(old: dict[str, float] | None, new: dict[str, float]) -> dict[str, float]:
    """The measurement of two rounds that was disturbed less: the one with the smaller sum of its milliseconds."""
    total = [sum(ms for name, ms in found.items() if name != "gb_per_s") for found in (old or new, new)]
    return new if old is None or total[1] < total[0] else old


if __name__ == "__main__":
    main()
