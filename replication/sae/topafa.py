"""top-AFA: as many latents per token as match the norm of the input (Lee et al. 2025, arXiv 2503.24277)."""

import math

import numpy as np
import torch

from replication.sae.auxk import auxiliary_loss, check_auxk, default_k_aux
from replication.sae.base import SAE, Objective, squared_error
from replication.shapes import Bool, Float, Int, Tensor

DEPTH = 512
"""Latents sorted per token on a GPU before all of them are: enough unless a token needs more to reach its norm."""
SENTINEL = 1e8  # of the released code: energy put in place of the last cumulative one, so that "keep all" never wins
RULES = ("nearest", "first-to-exceed", "all")


def _largest_first(energies: Tensor, target: Tensor) -> Tensor:
    """The energies of each row in falling order; on a GPU the DEPTH largest alone where these reach every target."""
    if not energies.is_cuda:  # numpy sorts several times as fast as torch on one thread
        return torch.from_numpy(-np.sort(-energies.numpy(), axis=-1))
    if energies.shape[-1] > DEPTH:
        ordered = energies.topk(DEPTH, dim=-1).values
        if (ordered.sum(-1, keepdim=True).sqrt() >= target).all():
            return ordered
    return energies.sort(dim=-1, descending=True).values


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
    all: k = d_sae, no selection.

    Of equal s_i the first latents are kept.
    """
    if rule == "all":
        return torch.ones_like(latents, dtype=torch.bool)
    energies, target = (latents * row_norms).square(), target.unsqueeze(-1)
    ordered = _largest_first(energies, target)
    norms = ordered.cumsum(-1).sqrt_()
    if rule == "nearest" and norms.shape == latents.shape:
        norms[:, -1] = SENTINEL**0.5
    place = torch.searchsorted(norms, target).clamp(max=norms.shape[-1] - 1)  # the first that reaches the target
    if rule == "nearest":
        below = norms.gather(-1, (place - 1).clamp(min=0))
        nearer = (target - below).abs() <= (norms.gather(-1, place) - target).abs()
        place = torch.where(nearer, torch.searchsorted(norms, below), place)
    least = ordered.gather(-1, place)
    kept = energies >= least
    tied = (kept.sum(-1) > place.squeeze(-1) + 1).nonzero().squeeze(-1)
    if len(tied):
        equal = energies[tied] == least[tied]
        above = kept[tied] & ~equal
        kept[tied] = above | (equal & (equal.cumsum(-1) <= place[tied] + 1 - above.sum(-1, keepdim=True)))
    return kept


@torch.no_grad()
def match_norms(
    sae: SAE, x: Float[Tensor, "n d_in"], target: Float[Tensor, "n d_out"], init_scale: float = 1.0
) -> None:
    """Scale W_enc so that E|ReLU(pre)|^2 = init_scale^2 E|target - b_dec|^2, on up to 4,096 tokens.

    The released code's Kaiming draw, of variance 2 / d_sae, has this property for b_dec = 0 and inputs of one norm.
    """
    energy = sae.pre(x[:4096]).relu().square().sum().clamp(min=1e-12)
    sae.W_enc.mul_(init_scale * ((target[:4096] - sae.b_dec).square().sum() / energy).sqrt())


class TopAFA(SAE):
    """`sparsity` is lambda in L_AFA = lambda E(|latents| - |x|)^2, Euclidean norms (Lee et al. 2025, released code).

    latents = ReLU((x - b_dec) W_enc), cut to the largest ones whose joint norm, each scaled by the norm of its decoder
    row, is nearest to |x - b_dec| (`afa_selection`; `rule="first-to-exceed"` and "all", a plain ReLU, are controls).
    Gradients flow through kept values only. There is no encoder bias: b_enc is frozen at 0. Nothing is learned for
    evaluation.

    Loss: E|x - recon|^2 / d_in + L_AFA + aux_coefficient * AuxK; the first term is a mean over coordinates as in the
    code, so a lambda of the paper's d = 768 is 768 / d_in times as large here. L_AFA compares with |x| itself
    (`target_centred`: with |x - b_dec|; `afa_loss=False`: lambda = 0, which `sparsity` must not be). L_AFA makes
    latents no sparser, larger lambda has gone with more of them, so `ramp` does not apply to it.

    Differs from the released code: AuxK is that of this library, i.e. its residual is detached and its error is divided
    by the spread of the residual. A tied encoder starts at `init_scale` times the norm of the input (`initialise`); 1
    is the paper's. b_dec starts at 0 as in the code. With `centred_start` it starts at the geometric median as in the
    other architectures; |x - b_dec| and |x|, the targets of selection and of L_AFA, then differ from the first step on,
    which on activations far from 0 makes latents few and large.

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
        init_scale: float = 1.0,
        centred_start: bool = False,
        aux_coefficient: float = 1 / 32,
        k_aux: int | None = None,
        **kwargs,
    ):
        super().__init__(d_in, d_sae, sparsity, **kwargs)
        if rule not in RULES:
            raise ValueError(f"rule must be one of {list(RULES)}, got {rule!r}")
        if not 0 < init_scale < math.inf:
            raise ValueError(f"init_scale must be positive and finite, got {init_scale}")
        check_auxk(aux_coefficient, k_aux)
        self.rule, self.afa_loss, self.target_centred = rule, afa_loss, target_centred
        self.init_scale, self.centred_start = init_scale, centred_start
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
        """b_dec at 0, or with `centred_start` as in every SAE; a tied encoder then starts where E|ReLU(pre)|^2 =
        init_scale^2 E|target - b_dec|^2.

        There is no scale that fits best: the selection depends on the scale.
        """
        super().initialise(x, target)
        if not self.centred_start:
            self.b_dec.zero_()
        target = x if target is None else target
        if self.norm_ratio is not None:
            self.norm_ratio.copy_((target - self.b_dec).norm() / (x - self.b_pre).norm().clamp(min=1e-12))
        if self.tied_init:
            match_norms(self, x, target, self.init_scale)

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
        centred, bias = self.encoder_input(x)
        latents = self.sparsify(torch.addmm(bias, centred, self.W_enc), centred)
        recon = self.decode(latents)
        error = squared_error(target, recon)
        loss = error / target.shape[-1]
        if self.afa_loss:
            matched = target - self.b_dec if self.target_centred else target
            loss = loss + self.sparsity * (latents.norm(dim=-1) - matched.norm(dim=-1)).square().mean()
        if self.aux_coefficient and len(dead):
            aux = auxiliary_loss(self, centred, bias, target - recon, dead, self.k_aux)
            loss = loss + self.aux_coefficient * aux
        return Objective(loss, error.detach(), latents.detach().amax(0) > 0)
