"""TopK with the auxiliary loss for dead latents (Gao et al. 2024)."""

import torch

from replication.kernels import sparse_decode, topk_encode
from replication.sae.base import SAE, Objective, squared_error
from replication.shapes import Bool, Float, Tensor


class TopK(SAE):
    """`sparsity` is k: keep the k largest pre-activations per token, then ReLU (Gao et al. 2024, sec. 2.3).

    Loss: E|x - recon|^2 / scale + aux_coefficient * AuxK. `scale` is E|x - mean|^2 of the initial sample, so that the
    two terms are in the same unit (the paper's normalised MSE). `k_aux` defaults to the power of two nearest d_in / 2.
    """

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
        if aux_coefficient < 0:
            raise ValueError(f"aux_coefficient must not be negative, got {aux_coefficient}")
        self.k = int(sparsity)
        self.aux_coefficient = aux_coefficient
        self.k_aux = 2 ** round(torch.tensor(max(d_in / 2, 1)).log2().item()) if k_aux is None else k_aux
        self.register_buffer("scale", torch.ones(()))

    def sparsify(self, pre: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_sae"]:
        top = pre.topk(self.k, dim=-1)
        return torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())

    def initialise(self, x: Float[Tensor, "n {self.d_in}"]) -> None:
        super().initialise(x)
        self.scale.copy_((x - x.mean(0)).square().sum(-1).mean())

    def objective(self, x: Float[Tensor, "batch d_in"], dead: Bool[Tensor, " d_sae"], ramp: float = 1.0) -> Objective:
        centred = x - self.b_dec
        values, indices = topk_encode(centred, self.W_enc.T, self.b_enc, self.k)
        values = values.relu()
        recon = sparse_decode(values, indices, self.W_dec) + self.b_dec
        error = squared_error(x, recon)
        loss = error / self.scale
        if self.aux_coefficient and dead.any():
            loss = loss + self.aux_coefficient * self.auxiliary_loss(centred, (x - recon).detach(), dead)
        fired = torch.zeros_like(dead).index_fill_(0, indices[values > 0], True)
        return Objective(loss, error.detach(), fired)

    def auxiliary_loss(
        self, centred: Float[Tensor, "batch d_in"], residual: Float[Tensor, "batch d_in"], dead: Bool[Tensor, " d_sae"]
    ) -> Float[Tensor, ""]:
        """AuxK: |e - e_hat|^2 / |e - mean e|^2, e the detached residual, e_hat from the top k_aux *dead* latents.

        e_hat is decoded without b_dec, which the residual already lacks. (The released code of Gao et al. 2024 adds it
        on both sides, which lets the term push b_dec.)
        """
        candidates = dead.nonzero().squeeze(-1)
        values, indices = topk_encode(
            centred, self.W_enc.T[candidates], self.b_enc[candidates], min(self.k_aux, len(candidates))
        )
        explained = sparse_decode(values.relu(), indices, self.W_dec[candidates])
        spread = (residual - residual.mean(0)).square().sum(-1).mean()
        return squared_error(residual, explained) / spread.clamp(min=torch.finfo(spread.dtype).tiny)
