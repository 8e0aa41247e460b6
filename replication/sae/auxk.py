"""AuxK: latents that have been silent for long learn from what the living ones leave (Gao et al. 2024)."""

import math

import torch

from replication.kernels import error_of_some
from replication.sae.base import SAE
from replication.shapes import Float, Int, Tensor


def default_k_aux(d_in: int) -> int:
    """The power of two nearest d_in / 2."""
    return 2 ** round(math.log2(max(d_in / 2, 1)))


def check_auxk(aux_coefficient: float, k_aux: int | None) -> None:
    """Refuse a negative or non-finite coefficient and a k_aux below 1 before anything is trained."""
    if not 0 <= aux_coefficient < math.inf:
        raise ValueError(f"aux_coefficient must be finite and not negative, got {aux_coefficient}")
    if k_aux is not None and k_aux < 1:
        raise ValueError(f"k_aux must be at least 1, got {k_aux}")


def auxiliary_loss(
    sae: SAE,
    centred: Float[Tensor, "batch d_in"],
    bias: Float[Tensor, " d_sae"],
    residual: Float[Tensor, "batch d_out"],
    dead: Int[Tensor, " dead"],
    k_aux: int,
) -> Float[Tensor, ""]:
    """|e - e_hat|^2 / |e - mean e|^2, e the residual, e_hat from the top k_aux *dead* latents; there is at least one.

    `centred` and `bias` are the `encoder_input`. No gradient flows into the residual. e_hat is decoded without b_dec,
    which the residual already lacks. (The released code of Gao et al. 2024 adds it on both sides, which lets the term
    push b_dec.)
    """
    residual = residual.detach()
    real = dead.clamp(max=sae.d_sae - 1)
    bias = bias.index_select(0, real).masked_fill(dead >= sae.d_sae, -torch.inf)  # padding has nothing to add
    error = error_of_some(centred, sae.W_enc.T, bias, sae.W_dec, residual, real, min(k_aux, len(dead)))
    spread = (residual - residual.mean(0)).square().sum(-1).mean()
    return error / spread.clamp(min=torch.finfo(spread.dtype).tiny)
