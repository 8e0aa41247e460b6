"""ReLU with an L1 penalty: the baseline of every chapter (Bricken et al. 2023; Gao et al. 2024, sec. 2.2)."""

import torch

from replication.sae.base import SAE, Objective, squared_error
from replication.shapes import Float, Int, Tensor


class ReLU(SAE):
    """`sparsity` is lambda in  E|x - recon|^2 + lambda E|latents|_1,  latents = ReLU(pre).

    Larger lambda, fewer active latents. The unit norm of the decoder rows keeps the penalty from being gamed by large
    rows and small latents.
    """

    def sparsify(self, pre: Float[Tensor, "batch d_sae"], centred: Tensor) -> Float[Tensor, "batch d_sae"]:
        return torch.relu(pre)

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
        penalty = latents.sum(0).sum(dtype=x.dtype) / len(x)
        return Objective(error + ramp * self.sparsity * penalty, error.detach(), latents.detach().amax(0) > 0)
