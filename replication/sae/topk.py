"""TopK with the auxiliary loss for dead latents (Gao et al. 2024)."""

from typing import ClassVar

import torch

from replication.kernels import sparse_decode, topk_encode
from replication.sae.auxk import auxiliary_loss, check_auxk, default_k_aux
from replication.sae.base import SAE, Objective, squared_error
from replication.shapes import Bool, Float, Tensor


class TopK(SAE):
    """`sparsity` is k: keep the k largest pre-activations per token, then ReLU (Gao et al. 2024, sec. 2.3).

    Loss: E|x - recon|^2 / scale + aux_coefficient * AuxK. `scale` is E|x - mean|^2 of the initial sample, so that the
    two terms are in the same unit (the paper's normalised MSE). `k_aux` defaults to the power of two nearest d_in / 2.
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
        **kwargs,
    ):
        super().__init__(d_in, d_sae, sparsity, **kwargs)
        if sparsity != int(sparsity) or sparsity > d_sae:
            raise ValueError(f"sparsity of a TopK SAE is k, a whole number from 1 to d_sae={d_sae}, got {sparsity}")
        check_auxk(aux_coefficient, k_aux)
        self.k = int(sparsity)
        self.aux_coefficient = aux_coefficient
        self.k_aux = default_k_aux(d_in) if k_aux is None else k_aux
        self.register_buffer("scale", torch.ones(()))

    def sparsify(self, pre: Float[Tensor, "batch d_sae"], centred: Tensor) -> Float[Tensor, "batch d_sae"]:
        top = pre.topk(self.k, dim=-1)
        return torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())

    def initialise(self, x: Float[Tensor, "n {self.d_in}"], target: Float[Tensor, "n d_out"] | None = None) -> None:
        super().initialise(x, target)
        target = x if target is None else target
        self.scale.copy_((target - target.mean(0)).square().sum(-1).mean())

    def objective(
        self,
        x: Float[Tensor, "batch d_in"],
        dead: Bool[Tensor, " d_sae"],
        ramp: float = 1.0,
        target: Float[Tensor, "batch d_out"] | None = None,
    ) -> Objective:
        target = x if target is None else target
        centred = x - self.centre
        values, indices = topk_encode(centred, self.W_enc.T, self.b_enc, self.k)
        values = values.relu()
        recon = sparse_decode(values, indices, self.W_dec) + self.b_dec
        error = squared_error(target, recon)
        loss = error / self.scale
        if self.aux_coefficient and dead.any():
            loss = loss + self.aux_coefficient * auxiliary_loss(self, centred, target - recon, dead, self.k_aux)
        fired = torch.zeros_like(dead).index_fill_(0, indices[values > 0], True)
        return Objective(loss, error.detach(), fired)
