"""The most memory that a training of 131,072 latents needs on a CPU, ours and our peers': TopK with AuxK at work.

    python benchmarks/memory.py            # writes benchmarks/results/cpu_memory.csv; a GPU's numbers are in gpu.csv

Each implementation trains three steps, in its own process. `peak_gib` counts from before the SAE is built (`timing`):
drawing the weights and a start that depends on the data are in it, and of this library the untrained SAE that it keeps
as a control, 0.75 GiB. Times mean nothing here and are left out, so that other programs may run meanwhile.
"""

import os
from datetime import UTC, datetime

from train_step import HERE, SIZE, available, measure, programs, write

from replication.results import machine

LARGE = (768, 131072, 32, 1024)  # d, n, k, batch; with the GPU's 4,096 tokens dense peers would not fit into 24 GiB
BRIEF = ("--warm-up=1", "--steps=2")  # Adam's moments are there after the first step
CASE = ("topk", 0.1)
COLUMNS = ["implementation", "version", "method", *SIZE, "dead", "precision", "peak_gib", "device", "date", "note"]


def main() -> None:
    wanted, interpreters, skipped = available([program for program in programs("cpu") if CASE in program.cases])
    named = {"device": machine()["device"], "date": datetime.now(UTC).strftime("%Y-%m-%d")}
    rows = []
    for program in wanted:
        for row in measure(
            program._replace(cases=(CASE,)), interpreters[program.script], LARGE, "cpu", os.cpu_count(), BRIEF
        ):
            rows.append({name: row.get(name) for name in COLUMNS} | named)
            print(program.name, program.precision, row["peak_gib"], row["note"], sep="  ", flush=True)
    rows += [{name: row[name] for name in COLUMNS} | named for row in skipped]
    write(HERE / "results" / "cpu_memory.csv", COLUMNS, rows)


if __name__ == "__main__":
    main()
