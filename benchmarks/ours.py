"""This library's training step; with `--variant plain` the TopK equation as one would write it first, with
`--variant "no control"` a training that gave up the untrained SAE."""

import torch
from timing import LR, Case, Subject, drive

from replication.activations import Gaussian
from replication.results import machine
from replication.sae.base import squared_error
from replication.train import Run, _Trainee
from replication.train import precision as training_precision

STEPS = 10**4  # the length of the run that the timed steps are the start of
DEAD_AFTER = 10**8
DIALS = {"relu": 0.1, "jumprelu": 1e-3, "topafa": 1 / 32}  # where `sparsity` is not k


class Plain:
    """Dense latents, autograd, Adam, all in float32."""

    def __init__(self, run: Run, sample: torch.Tensor, device: str):
        self.run, self.sae = run, run.build().to(device)
        self.sae.initialise(sample)
        self.optimiser = torch.optim.Adam(self.sae.parameters(), lr=run.lr, eps=run.adam_eps)
        self.silent = torch.zeros(run.d_sae, dtype=torch.int64, device=device)

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


def trainee(case: Case, sample: torch.Tensor) -> _Trainee | Plain:
    """A run at its first step. top-AFA has no k: its encoder is lengthened until about k latents fill the norm."""
    run = Run(
        Gaussian(case.d),
        case.method,
        case.n,
        DIALS.get(case.method, case.k),
        tokens=STEPS * case.batch,
        batch=case.batch,
        lr=LR,
        dead_after=DEAD_AFTER,
    )
    one = (Plain if case.variant == "plain" else _Trainee)(run, sample, case.device)
    if case.method == "topafa":
        with torch.no_grad():
            while (one.sae.encode(sample[:256]) > 0).sum(-1).float().mean() > case.k:
                one.sae.W_enc.mul_(1.1)
    return one


def build(case: Case, sample: torch.Tensor) -> Subject:
    if case.device == "cuda":
        torch.set_float32_matmul_precision("high")  # as the training loop has it
    one = trainee(case, sample)
    if case.variant == "no control":
        one.untrained = None

    def loop(batches):
        for x in batches:
            one.step(x)

    return Subject(
        loop=loop,
        encoder=lambda: one.sae.W_enc.T,
        decoder=lambda: one.sae.W_dec,
        silence=lambda: one.silent,
        limit=DEAD_AFTER,
    )


def precision(device: str) -> str:
    """What the library computes its products in on this device."""
    kind = training_precision(device)
    return "tf32" if kind == "fp32" and device == "cuda" else kind


def version() -> str:
    """The commit, with a + where the library had uncommitted changes."""
    return machine()["commit"] + "+" * machine()["dirty"]


if __name__ == "__main__":
    import sys

    drive("plain autograd" if "plain" in sys.argv else "replication", version(), build)
