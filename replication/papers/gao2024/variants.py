"""TopK with one thing changed: the ablations of the appendix, and what the released code does differently.

Each change is a subclass that replaces one method; the training loop, the data and the seeds stay those of the library.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import torch

from replication.kernels import keep_largest
from replication.sae.auxk import auxiliary_loss
from replication.sae.base import SAE, Objective, squared_error, unit_rows
from replication.sae.topk import TopK
from replication.shapes import Tensor
from replication.train import Run


class Varied(TopK):
    """A TopK SAE that is trained in another way. What it becomes is a TopK SAE, and is saved as one."""

    def save(self, path: Path) -> None:
        plain = TopK(**self.config())
        plain.load_state_dict(self.state_dict())
        plain.save(path)


class Nudged(Varied):
    """The control of every comparison: nothing differs but the last digits of the first weights."""

    @torch.no_grad()
    def initialise(self, x: Tensor, target: Tensor | None = None) -> None:
        super().initialise(x, target)
        self.W_enc.mul_(1 + 1e-5)


class NormMatched(Varied):
    """W_enc starts divided by the mean norm of reconstructions of 256 random unit vectors, as in the released code.

    One division is exact: while b_enc is 0, c W_enc gives c times the reconstruction.
    """

    @torch.no_grad()
    def initialise(self, x: Tensor, target: Tensor | None = None) -> None:
        super().initialise(x, target)
        generator = torch.Generator().manual_seed(0)
        units = unit_rows(torch.randn(256, self.d_in, generator=generator)).to(x.device)
        self.W_enc.div_((self(units + self.b_dec).recon - self.b_dec).norm(dim=-1).mean())


class Unscaled(Varied):
    """W_enc starts at the magnitude it was drawn with: U(-1, 1) / sqrt(d_in)."""

    @torch.no_grad()
    def initialise(self, x: Tensor, target: Tensor | None = None) -> None:
        drawn = self.W_enc.clone()
        super().initialise(x, target)
        self.W_enc.copy_(drawn)


class WithoutBias(Varied):
    """b_enc stays at 0, where it starts."""

    def initialise(self, x: Tensor, target: Tensor | None = None) -> None:
        super().initialise(x, target)
        self.b_enc.requires_grad_(False)


class RenormalisedFirst(Varied):
    """Decoder rows are put on the unit sphere *before* Adam's step, and gradients projected after that.

    As in the released code. The forward pass sees rows that are one step off the sphere, and so do the final weights.
    """

    def initialise(self, x: Tensor, target: Tensor | None = None) -> None:
        super().initialise(x, target)
        self.unit_norm = False  # the loop leaves rows and gradients alone
        self.W_dec.register_post_accumulate_grad_hook(_renormalise_then_project)


@torch.no_grad()
def _renormalise_then_project(rows: torch.nn.Parameter) -> None:
    rows.copy_(unit_rows(rows))
    rows.grad.sub_((rows.grad * rows).sum(-1, keepdim=True) * rows)


class ReleasedAuxK(Varied):
    """AuxK as the released code has it: e_hat is decoded with b_dec, and b_dec (without gradient) is added to e.

    The value is right, but b_dec gets the gradient -2 alpha mean(e - e_hat) / Var(e), also while no latent is dead.
    Living latents are multiplied by 0 instead of being left out: after the ReLU that makes no difference.
    """

    def objective(self, x: Tensor, dead: Tensor, ramp: float | Tensor = 1.0, target: Tensor | None = None) -> Objective:
        main = super().objective(x, dead[:0])
        with torch.no_grad():
            residual = x - self(x).recon
        marks = x.new_zeros(self.d_sae + 1).index_fill_(0, dead.clamp(max=self.d_sae), 1.0)  # the last: padding
        latents = keep_largest(self.pre(x) * marks[:-1], min(self.k_aux, self.d_sae))
        spread = (residual - residual.mean(0)).square().sum(-1).mean()
        auxk = squared_error(residual + self.b_dec.detach(), self.decode(latents)) / spread
        return main._replace(loss=main.loss + self.aux_coefficient * auxk)


class Averaged(Varied):
    """Beside the weights w_t after step t, their moving averages over steps, taken in two orders (lists in `averages`).

    "after" the step, a_t = beta a_{t-1} + (1 - beta) w_t; "before" it, as in the released code, with w_{t-1} in place
    of w_t. Both start at 0. The weights themselves are those of an unchanged run.
    """

    decays: ClassVar = (0.9, 0.99, 0.999)

    def initialise(self, x: Tensor, target: Tensor | None = None) -> None:
        super().initialise(x, target)
        self.previous = [w.detach().clone() for w in self.parameters()]
        orders = [(order, decay) for order in ("after", "before") for decay in self.decays]
        self.averages = {one: [torch.zeros_like(w) for w in self.previous] for one in orders}

    @torch.no_grad()
    def clamp_parameters(self) -> None:
        for (order, decay), average in self.averages.items():
            for a, w in zip(average, self.previous if order == "before" else self.parameters(), strict=True):
                a.lerp_(w, 1 - decay)
        for old, w in zip(self.previous, self.parameters(), strict=True):
            old.copy_(w)

    @torch.no_grad()
    def averaged(self, order: str, decay: float, steps: int) -> TopK:
        """The SAE of an average after `steps` steps, divided by 1 - decay^steps as Adam's moments are."""
        sae = TopK(**self.config()).to(self.W_dec.device)
        sae.load_state_dict(self.state_dict())
        for weight, average in zip(sae.parameters(), self.averages[order, decay], strict=True):
            weight.copy_(average / (1 - decay**steps))
        return sae.eval()


class Dense(Varied):
    """The same step with dense products in the place of sparse ones: latents are an (n, d_sae) matrix, and autograd
    makes every gradient from it. Selection, AuxK, Adam and projection stay."""

    def objective(self, x: Tensor, dead: Tensor, ramp: float | Tensor = 1.0, target: Tensor | None = None) -> Objective:
        centred, bias = self.encoder_input(x)
        latents = keep_largest(torch.addmm(bias, centred, self.W_enc), self.k)
        recon = self.decode(latents)
        error = squared_error(x, recon)
        loss = error / self.scale
        if self.aux_coefficient and len(dead):
            aux = auxiliary_loss(self, centred, bias, x - recon, dead, self.k_aux)
            loss = loss + self.aux_coefficient * aux
        return Objective(loss, error.detach(), latents.detach().amax(0) > 0)


CHANGES: dict[str, type[Varied]] = {
    "nudged": Nudged,
    "norm-matched": NormMatched,
    "unscaled": Unscaled,
    "without-bias": WithoutBias,
    "renormalised-first": RenormalisedFirst,
    "released-auxk": ReleasedAuxK,
    "averaged": Averaged,
    "dense": Dense,
}


@dataclass(frozen=True)
class VariedRun(Run):
    """A TopK run with one of CHANGES."""

    change: str = ""

    def __post_init__(self):
        if self.change not in CHANGES:
            raise ValueError(f"change must be one of {', '.join(CHANGES)}, got {self.change!r}")
        if self.architecture != "topk":
            raise ValueError(f"architecture of a varied run must be topk, got {self.architecture!r}")
        super().__post_init__()

    def build(self) -> SAE:
        generator = torch.Generator().manual_seed(self.seed)
        return CHANGES[self.change](**super().build().config(), generator=generator)


def varied(run: Run, change: str) -> VariedRun:
    """The same run with a change."""
    return VariedRun(**{f.name: getattr(run, f.name) for f in fields(Run)}, change=change)
