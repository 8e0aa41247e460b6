"""The most memory that a training of 131,072 latents needs on a CPU, ours and our peers': TopK with AuxK at work.

    python benchmarks/memory.py            # writes benchmarks/results/cpu_memory.csv; a GPU's numbers are in gpu.csv

Each implementation trains three steps, in its own process. `peak_gib` counts from before the SAE is built (`timing`):
drawing the weights and a start that depends on the data are in it. This library has two rows: the untrained SAE that it
keeps as a control shares the memory of a CPU, waits elsewhere on a GPU, and no peer has one. With the batch of a GPU
only this library and the leanest peer are measured, because dense steps hold four times as many pre-activations there.
Times mean nothing here and are left out, so that other programs may run meanwhile.
"""

import os
from datetime import UTC, datetime

from train_step import HERE, SIZE, Program, available, measure, programs, write

from replication.results import machine

SIZES = ((768, 131072, 32, 1024), (768, 131072, 32, 4096))  # d, n, k, batch; the second is that of a GPU
BRIEF = ("--warm-up=1", "--steps=2")  # Adam's moments are there after the first step
CASE = ("topk", 0.1)
COLUMNS = ["implementation", "version", "method", *SIZE, "dead", "precision", "peak_gib", "device", "date", "note"]


def contestants() -> list[Program]:
    """Who trains TopK with dead latents; this library with its control and without."""
    wanted = [program._replace(cases=(CASE,)) for program in programs("cpu") if CASE in program.cases]
    [ours] = (program for program in wanted if program.name == "replication")
    return [ours, ours._replace(name="replication, no control", variant="no control"), *wanted[1:]]


def main() -> None:
    wanted, interpreters, skipped = available(contestants())
    named = {"device": machine()["device"], "date": datetime.now(UTC).strftime("%Y-%m-%d")}
    rows: list[dict] = []
    for size in SIZES:
        for program in wanted if size == SIZES[0] else leanest(wanted, rows):
            for row in measure(program, interpreters[program.script], size, "cpu", os.cpu_count(), BRIEF):
                rows.append({name: row.get(name) for name in COLUMNS} | named | {"implementation": program.name})
                print(program.name, size[-1], row["peak_gib"], row["note"], sep="  ", flush=True)
    rows += [{name: row[name] for name in COLUMNS} | named for row in skipped]
    write(HERE / "results" / "cpu_memory.csv", COLUMNS, rows)


def leanest(wanted: list[Program], rows: list[dict]) -> list[Program]:
    """This library, and the peer that needed least in `rows`."""
    peers = [row for row in rows if row["peak_gib"] is not None and not is_ours(row["implementation"])]
    best = min(peers, key=lambda row: row["peak_gib"], default={"implementation": None})["implementation"]
    return [program for program in wanted if is_ours(program.name) or program.name == best]


def is_ours(name: str) -> bool:
    return name.startswith("replication")


if __name__ == "__main__":
    main()
