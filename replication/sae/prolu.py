"""ProLU with an L1 penalty: the bias gates a latent without shifting it (Taggart 2024; Gao et al. 2024)."""

import torch

from replication.sae.base import SAE, Objective, squared_error
from replication.shapes import Float, Int, Tensor

GRADIENTS = ("relu", "ste")


class _ProLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, m, b, gradient):
        gate = (m > 0) & (m + b > 0)
        ctx.save_for_backward(m, gate)
        ctx.gradient, ctx.dtype = gradient, b.dtype
        return m * gate

    @staticmethod
    def backward(ctx, incoming):
        m, gate = ctx.saved_tensors
        gated = incoming * gate
        if ctx.gradient == "relu":
            return gated, gated.sum(0, dtype=ctx.dtype), None
        into_b = gated * m
        return gated + into_b, into_b.sum(0, dtype=ctx.dtype), None


def prolu(
    m: Float[Tensor, "batch d_sae"], b: Float[Tensor, " d_sae"], gradient: str = "relu"
) -> Float[Tensor, "batch d_sae"]:
    """m g with g = 1[m > 0 and m + b > 0]. The derivative in b is 0 almost everywhere; backward puts in its place

    "relu": d/dm = g, d/db = g;   "ste": d/dm = g (1 + m), d/db = g m.
    """
    return _ProLU.apply(m, b, gradient)


class ProLU(SAE):
    """`sparsity` is lambda in  E|x - recon|^2 + lambda E|latents|_1,  latents = m 1[m > 0 and m + b_enc > 0],

    with m = (x - b_dec) W_enc. Larger lambda, fewer active latents. `gradient` is what stands in for the derivatives of
    the step, "relu" or "ste" (see `prolu`). (Taggart 2024; baselines of Gao et al. 2024, figs. 2 and 5.)
    """

    def __init__(self, d_in: int, d_sae: int, sparsity: float, *, gradient: str = "relu", **kwargs):
        super().__init__(d_in, d_sae, sparsity, **kwargs)
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient must be one of {sorted(GRADIENTS)}, got {gradient!r}")
        self.gradient = gradient

    def sparsify(self, pre: Float[Tensor, "batch d_sae"], centred: Tensor) -> Float[Tensor, "batch d_sae"]:
        return prolu(pre - self.b_enc, self.b_enc, self.gradient)

    def threshold_form(self) -> tuple[Tensor, Tensor, Tensor]:
        """m > 0 and m + b_enc > 0 is m > max(0, -b_enc)."""
        return self.W_enc, torch.zeros_like(self.b_enc), torch.relu(-self.b_enc)

    def objective(
        self,
        x: Float[Tensor, "batch d_in"],
        dead: Int[Tensor, " dead"],
        ramp: float | Tensor = 1.0,
        target: Float[Tensor, "batch d_out"] | None = None,
    ) -> Objective:
        target = x if target is None else target
        m = (x - self.centre) @ self.W_enc  # not pre - b_enc, whose gradient to b_enc would cancel only roughly
        latents = prolu(m, self.b_enc, self.gradient)
        error = squared_error(target, self.decode(latents))
        penalty = latents.sum(dtype=x.dtype) / len(x)
        return Objective(error + ramp * self.sparsity * penalty, error.detach(), latents.detach().amax(0) > 0)
