"""top-AFA: as many latents per token as match the norm of the input (Lee et al. 2025, arXiv 2503.24277)."""

import torch

from replication.sae.auxk import auxiliary_loss, check_auxk, default_k_aux
from replication.sae.base import SAE, Objective, squared_error
from replication.shapes import Bool, Float, Int, Tensor

DEPTH = 512
"""Latents sorted per token before all of them are: enough unless a token needs more to reach its norm."""
SENTINEL = 1e8  # of the released code: energy put in place of the last cumulative one, so that "keep all" never wins
RULES = ("nearest", "first-to-exceed")


def _descending(energies: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Cumulative sums of the `depth` largest of each row and the latents they belong to; of equals the first first."""
    order = energies.topk(depth, dim=-1, sorted=False).indices.sort(dim=-1).values
    energy, within = energies.gather(-1, order).sort(dim=-1, descending=True, stable=True)
    return energy.cumsum(-1), order.gather(-1, within)


@torch.no_grad()
def afa_selection(
    latents: Float[Tensor, "batch d_sae"],
    row_norms: Float[Tensor, " d_sae"],
    target: Float[Tensor, " batch"],
    rule: str,
) -> Bool[Tensor, "batch d_sae"]:
    """The k latents of each token with the largest s_i = (latents_i row_norms_i)^2, with C_m the sum of the m largest:

    nearest: k = argmin_m |sqrt(C_m) - target|, the first on ties, C_d_sae replaced by SENTINEL; so k is at least 1.
    first-to-exceed: k = the smallest m with sqrt(C_m) >= target; all if there is none.
    """
    energies, target = (latents * row_norms).square(), target.unsqueeze(-1)
    energy, order = _descending(energies, min(DEPTH, latents.shape[-1]))
    if energy.shape != latents.shape and (energy[:, -1:].sqrt() < target).any():
        energy, order = _descending(energies, latents.shape[-1])
    if rule == "nearest":
        if energy.shape == latents.shape:
            energy[:, -1] = SENTINEL
        k = 1 + (energy.sqrt() - target).abs().argmin(-1, keepdim=True)
    else:
        k = 1 + (energy.sqrt() < target).sum(-1, keepdim=True)
    kept = torch.arange(order.shape[-1], device=k.device) < k
    return torch.zeros_like(latents, dtype=torch.bool).scatter(-1, order, kept)


class TopAFA(SAE):
    """`sparsity` is lambda in L_AFA = lambda E(|latents| - |x|)^2, Euclidean norms (Lee et al. 2025, released code).

    latents = ReLU((x - b_dec) W_enc), cut to the largest ones whose joint norm, each scaled by the norm of its decoder
    row, is nearest to |x - b_dec| (`afa_selection`; `rule="first-to-exceed"` is the control). Gradients flow through
    kept values only. There is no encoder bias: b_enc is frozen at 0. Nothing is learned for evaluation.

    Loss: E|x - recon|^2 / d_in + L_AFA + aux_coefficient * AuxK; the first term is a mean over coordinates as in the
    code, so a lambda of the paper's d = 768 is 768 / d_in times as large here. L_AFA compares with |x| itself
    (`target_centred`: with |x - b_dec|; `afa_loss=False`: lambda = 0, which `sparsity` must not be). L_AFA makes
    latents no sparser, larger lambda has gone with more of them, so `ramp` does not apply to it.

    Differs from the released code: AuxK is that of this library, i.e. its residual is detached and its error is divided
    by the spread of the residual. A tied encoder starts at the norm of the input (`initialise`). b_dec starts at the
    geometric median instead of 0, so that |x - b_dec| and |x|, the targets of selection and of L_AFA, differ from the
    first step on.

    In a transcoder the norm of the code stands for that of the target y. L_AFA and the first term compare with y
    itself (L_AFA with y - b_dec for `target_centred`). The selection must do without y: it takes rho |x - b_pre|, with
    rho = sqrt(E|y - b_dec|^2 / E|x - b_pre|^2) of the initial sample (`norm_ratio`). `folded` is exact as long as no
    norm comes near 5000, half the root of SENTINEL, which does not scale.
    """

    capturable = False  # how deep to sort is asked at every step

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        sparsity: float,
        *,
        rule: str = "nearest",
        afa_loss: bool = True,
        target_centred: bool = False,
        aux_coefficient: float = 1 / 32,
        k_aux: int | None = None,
        **kwargs,
    ):
        super().__init__(d_in, d_sae, sparsity, **kwargs)
        if rule not in RULES:
            raise ValueError(f"rule must be one of {list(RULES)}, got {rule!r}")
        check_auxk(aux_coefficient, k_aux)
        self.rule, self.afa_loss, self.target_centred = rule, afa_loss, target_centred
        self.aux_coefficient = aux_coefficient
        self.k_aux = default_k_aux(d_in) if k_aux is None else k_aux
        self.b_enc.requires_grad_(False)
        self.register_buffer("norm_ratio", None if self.d_out is None else torch.ones(()))

    def sparsify(
        self, pre: Float[Tensor, "batch d_sae"], centred: Float[Tensor, "batch d_in"]
    ) -> Float[Tensor, "batch d_sae"]:
        active = pre.relu().to(centred.dtype)  # sums of squares in the precision of the input, under autocast too
        norm = centred.norm(dim=-1) if self.norm_ratio is None else centred.norm(dim=-1) * self.norm_ratio
        return active * afa_selection(active, self.W_dec.norm(dim=-1), norm, self.rule)

    @torch.no_grad()
    def initialise(self, x: Float[Tensor, "n {self.d_in}"], target: Float[Tensor, "n d_out"] | None = None) -> None:
        """b_dec as in every SAE; a tied encoder then starts where E|ReLU(pre)|^2 = E|target - b_dec|^2.

        So does the released code, whose Kaiming draw has this property. There is no scale that fits best: the selection
        depends on the scale.
        """
        super().initialise(x, target)
        target = x if target is None else target
        if self.norm_ratio is not None:
            self.norm_ratio.copy_((target - self.b_dec).norm() / (x - self.b_pre).norm().clamp(min=1e-12))
        if self.tied_init:
            energy = self.pre(x[:4096]).relu().square().sum().clamp(min=1e-12)
            self.W_enc.mul_(((target[:4096] - self.b_dec).square().sum() / energy).sqrt())

    @torch.no_grad()
    def rescale(self, inputs: Float[Tensor, ""], targets: Float[Tensor, ""]) -> None:
        super().rescale(inputs, targets)
        if self.norm_ratio is not None:
            self.norm_ratio.mul_(targets / inputs)

    def objective(
        self,
        x: Float[Tensor, "batch d_in"],
        dead: Int[Tensor, " dead"],
        ramp: float | Tensor = 1.0,
        target: Float[Tensor, "batch d_out"] | None = None,
    ) -> Objective:
        target = x if target is None else target
        recon, latents = self(x)
        error = squared_error(target, recon)
        loss = error / target.shape[-1]
        if self.afa_loss:
            matched = target - self.b_dec if self.target_centred else target
            loss = loss + self.sparsity * (latents.norm(dim=-1) - matched.norm(dim=-1)).square().mean()
        if self.aux_coefficient and len(dead):
            loss = loss + self.aux_coefficient * auxiliary_loss(self, x - self.centre, target - recon, dead, self.k_aux)
        return Objective(loss, error.detach(), latents.detach().amax(0) > 0)
