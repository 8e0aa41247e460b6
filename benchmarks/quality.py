"""Does the fast step train as well as the plain one? Both on the same activations, seeds and tokens, then measured.

    python benchmarks/quality.py               # writes benchmarks/results/quality.csv

`plain autograd` is the equation written first: dense latents, float32, dead latents looked up at every step. The runs
are those of the frontier page at its larger dictionary, so that the error is one a reader can look up there.
"""

import argparse
import csv
from datetime import UTC, datetime
from pathlib import Path

import torch
from ours import Plain, precision, version

from replication.evaluate.reconstruction import reconstruction
from replication.papers.gao2024.grid import GRIDS, SEEDS, make_run
from replication.results import machine
from replication.train import Run, Trained, _Trainee, default_device

COLUMNS = ["implementation", "version", "method", "d", "n", "k", "batch", "tokens", "seed", "precision"]
MEASURED = ["nmse", "fvu", "l0", "dead", "dead_heldout"]


def trained(run: Run, kind: type, device: str) -> Trained:
    """The run, trained by steps of `kind`, as `train.train` would hand it on."""
    sample = run.source.sample(run.batch, 2**15, run.data_seed, device)
    before = run.build().to(device)
    sample = before.normalise(sample).x
    before.initialise(sample)
    one = kind(run, sample, device)
    for raw in run.source.batches(run.batch, run.tokens, run.data_seed, device):
        one.step(one.sae.normalise(raw).x)
    dead = (one.silent >= run.dead_after).float().mean().item()
    return Trained(run, one.sae.eval(), before.eval(), sample.mean(0), {"dead": dead})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cpu", choices=GRIDS)
    preset = parser.parse_args().preset
    device = default_device()
    sizes, ks, *_ = GRIDS[preset]
    kinds = {"replication": (_Trainee, precision(device)), "plain autograd": (Plain, "fp32")}
    rows = []
    for seed in SEEDS:
        run = make_run(preset, "topk", max(sizes), ks[len(ks) // 2], seed)
        for name, (kind, numbers) in kinds.items():
            one = trained(run, kind, device)
            values = reconstruction(one, run.source.heldout(device)) | one.log
            row = [name, version(), "topk", run.source.d_in, run.d_sae, int(run.sparsity), run.batch, run.tokens, seed]
            row += [numbers, *(round(values[column], 6) for column in MEASURED)]
            rows.append([*row, machine()["device"], datetime.now(UTC).strftime("%Y-%m-%d")])
            print(*rows[-1], sep="  ", flush=True)
    path = Path(__file__).parent / "results" / "quality.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([[*COLUMNS, *MEASURED, "device", "date"], *rows])


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
