"""TopK with the auxiliary loss for dead latents, and Multi-TopK (Gao et al. 2024)."""

import math
from typing import ClassVar

import torch

from replication.kernels import sparse_decode, topk_encode
from replication.sae.auxk import auxiliary_loss, check_auxk, default_k_aux
from replication.sae.base import SAE, Objective, squared_error
from replication.shapes import Float, Int, Tensor


class TopK(SAE):
    """`sparsity` is k: keep the k largest pre-activations per token, then ReLU (Gao et al. 2024, sec. 2.3).

    Loss: E|x - recon|^2 / scale + aux_coefficient * AuxK. `scale` is E|x - mean|^2 of the initial sample, so that the
    two terms are in the same unit (the paper's normalised MSE). `k_aux` defaults to the power of two nearest d_in / 2.

    Multi-TopK: with `multi_weight` above 0, multi_weight * E|x - recon_m|^2 / scale is added, where recon_m keeps the
    min(multi_factor * k, d_sae) largest; the paper recommends L(k) + L(4k) / 8, i.e. 1/8 and 4. Latents, error and
    AuxK stay those of k.
    """

    scales_with: ClassVar = SAE.scales_with | {"scale": 2}

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        sparsity: float,
        *,
        aux_coefficient: float = 1 / 32,
        k_aux: int | None = None,
        multi_weight: float = 0.0,
        multi_factor: int = 4,
        **kwargs,
    ):
        super().__init__(d_in, d_sae, sparsity, **kwargs)
        if sparsity != int(sparsity) or sparsity > d_sae:
            raise ValueError(f"sparsity of a TopK SAE is k, a whole number from 1 to d_sae={d_sae}, got {sparsity}")
        check_auxk(aux_coefficient, k_aux)
        if not 0 <= multi_weight < math.inf:
            raise ValueError(f"multi_weight must be finite and not negative, got {multi_weight}")
        if multi_factor < 2:
            raise ValueError(f"multi_factor must be at least 2, got {multi_factor}")
        self.multi_weight, self.multi_factor = multi_weight, multi_factor
        self.k = int(sparsity)
        self.aux_coefficient = aux_coefficient
        self.k_aux = default_k_aux(d_in) if k_aux is None else k_aux
        self.register_buffer("scale", torch.ones(()))

    def sparsify(self, pre: Float[Tensor, "batch d_sae"], centred: Tensor) -> Float[Tensor, "batch d_sae"]:
        top = pre.topk(self.k, dim=-1)
        return torch.zeros_like(pre).scatter_(-1, top.indices, top.values.relu())

    def initialise(self, x: Float[Tensor, "n {self.d_in}"], target: Float[Tensor, "n d_out"] | None = None) -> None:
        super().initialise(x, target)
        target = x if target is None else target
        self.scale.copy_((target - target.mean(0)).square().sum(-1).mean())

    def objective(
        self,
        x: Float[Tensor, "batch d_in"],
        dead: Int[Tensor, " dead"],
        ramp: float | Tensor = 1.0,
        target: Float[Tensor, "batch d_out"] | None = None,
    ) -> Objective:
        target = x if target is None else target
        centred, bias = self.encoder_input(x)
        widest = min(self.multi_factor * self.k, self.d_sae) if self.multi_weight else self.k
        chosen = topk_encode(centred, self.W_enc.T, bias, widest, self.shadow)
        chosen = chosen._replace(values=chosen.values.relu())
        top = chosen if widest == self.k else chosen.largest(self.k)
        recon = sparse_decode(top, self.W_dec) + self.b_dec
        error = squared_error(target, recon)
        loss = error / self.scale
        if self.multi_weight:
            wide = squared_error(target, sparse_decode(chosen, self.W_dec) + self.b_dec)
            loss = loss + self.multi_weight * wide / self.scale
        if self.aux_coefficient and len(dead):
            aux = auxiliary_loss(self, centred, bias, target - recon, dead, self.k_aux)
            loss = loss + self.aux_coefficient * aux
        return Objective(loss, error.detach(), top.fired())
