"""Time of one training step: this library's, the same equation in plain dense autograd, and the floor of the machine.

    python benchmarks/train_step.py            # writes benchmarks/results/cpu.csv or gpu.csv

A step is everything the training loop does: objective, backward, gradient projection, Adam, unit norm, dead counters.
The floor is the encoder product alone, in the precision the library uses; nothing that looks at every latent can be
faster.
Medians over steps, one sitting; ratios within one file compare, times of two files do not.
"""

import csv
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from replication.activations import Gaussian
from replication.results import machine
from replication.sae.base import squared_error
from replication.train import Run, _Trainee, _uses_bf16, default_device

SIZES = {  # d, n, k, batch
    "cpu": [(128, 512, 16, 1024), (128, 2048, 16, 1024), (256, 4096, 32, 1024)],
    "cuda": [(768, 12288, 32, 4096), (768, 32768, 32, 4096), (768, 131072, 32, 4096)],
}
WARM_UP, STEPS = 5, 20
COLUMNS = ["implementation", "version", "method", "d", "n", "k", "batch", "dead", "precision", "ms", "tokens_per_s"]
COLUMNS += ["peak_gib", "ratio_to_floor", "device", "date"]


class Plain(_Trainee):
    """The TopK equation as one would write it first: dense latents, autograd, float32."""

    def step(self, x: torch.Tensor) -> None:
        sae = self.sae
        recon, latents = sae(x)
        loss = squared_error(x, recon) / sae.scale
        if (dead := self.silent >= self.run.dead_after).any():
            pre = sae.pre(x).masked_fill(~dead, -torch.inf)
            top = pre.topk(min(sae.k_aux, int(dead.sum())), dim=-1)
            latents_aux = torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
            residual = (x - recon).detach()
            spread = (residual - residual.mean(0)).square().sum(-1).mean()
            loss = loss + sae.aux_coefficient * squared_error(residual, latents_aux @ sae.W_dec) / spread
        loss.backward()
        sae.before_step()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        sae.after_step()
        self.silent.add_(len(x)).masked_fill_((latents > 0).any(0), 0)


def median_ms(step, batches, device: str) -> float:
    times = []
    for number in range(WARM_UP + STEPS):
        began = time.perf_counter()
        step(batches[number % len(batches)])
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return sorted(times[WARM_UP:])[STEPS // 2] * 1e3


def main() -> None:
    device = default_device()
    bf16 = _uses_bf16(device)
    where = machine()
    rows = []
    for d, n, k, batch in SIZES[device]:
        source = Gaussian(d)
        batches = list(source.batches(batch, 8 * batch, seed=0, device=device))
        weight = torch.randn(d, n, device=device)
        kind = torch.bfloat16 if bf16 else torch.float32
        x, w = batches[0].to(kind), weight.to(kind)
        floor = median_ms(lambda _, x=x, w=w: x @ w, batches, device)
        measured = [("floor: encoder product", "topk", 0.0, "bf16" if bf16 else "fp32", floor, float("nan"))]
        for name, trainee, method, dead in (
            ("replication", _Trainee, "topk", 0.0),
            ("replication", _Trainee, "topk", 0.1),
            ("plain autograd", Plain, "topk", 0.0),
            ("plain autograd", Plain, "topk", 0.1),
            ("replication", _Trainee, "relu", 0.0),
        ):
            run = Run(
                source, method, n, k if method == "topk" else 0.1, tokens=10**9, batch=batch, lr=1e-4, dead_after=10**8
            )
            one = trainee(run, batches[0], device)
            asleep = int(dead * n)
            with torch.no_grad():  # latents that never fire and count as dead: AuxK has work at every step
                one.sae.b_enc[:asleep] -= 10
            one.silent[:asleep] = 10**8
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            ms = median_ms(one.step, batches, device)
            peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
            precision = "bf16" if bf16 and trainee is _Trainee else "fp32"
            measured.append((name, method, dead, precision, ms, peak))
        for name, method, dead, precision, ms, peak in measured:
            row = (
                name,
                where["commit"],
                method,
                d,
                n,
                k,
                batch,
                dead,
                precision,
                round(ms, 3),
                round(batch / ms * 1e3),
            )
            row += (round(peak, 3), round(ms / floor, 1), where["device"], datetime.now(UTC).strftime("%Y-%m-%d"))
            rows.append(row)
            print(*row, sep="  ", flush=True)
    path = Path(__file__).parent / "results" / ("gpu.csv" if device == "cuda" else "cpu.csv")
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
