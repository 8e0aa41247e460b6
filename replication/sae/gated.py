"""Gated SAE: one half decides which latents are active, the other how large they are (Rajamanoharan et al. 2024)."""

from typing import ClassVar

import torch
from torch import nn

from replication.kernels import gated_encode
from replication.sae.base import SAE, Objective, squared_error
from replication.shapes import Float, Int, Tensor


class Gated(SAE):
    """latents = H(gate) ReLU(magnitude); both halves read the same product with W_enc:

        gate = (x - b_dec) W_enc + b_enc,   magnitude = exp(r_mag) * (x - b_dec) W_enc + b_mag.

    `sparsity` is lambda in the loss. Its last two terms train the gate; the decoder in them is frozen (a prime):

        E|x - recon|^2 + lambda E|ReLU(gate)|_1 + E|x - ReLU(gate) W_dec' - b_dec'|^2.

    Larger lambda, fewer active latents. The penalty acts on the gate alone, so it does not shrink the magnitudes.
    `ri_l1` weighs each latent's penalty with the norm of its row of W_dec' and leaves the norms free (the variant that
    is invariant to rescaling). Frozen, because a penalty that reached the norms would shrink them to zero: the last
    term, which would resist, cannot. Both are baselines of the JumpReLU paper (arXiv 2407.14435).
    """

    scales_with: ClassVar = SAE.scales_with | {"b_mag": 1}

    def __init__(self, d_in: int, d_sae: int, sparsity: float, *, ri_l1: bool = False, **kwargs):
        kwargs.setdefault("unit_norm", not ri_l1)
        super().__init__(d_in, d_sae, sparsity, **kwargs)
        self.ri_l1 = ri_l1
        self.r_mag = nn.Parameter(torch.zeros(d_sae))
        self.b_mag = nn.Parameter(torch.zeros(d_sae))

    def sparsify(self, pre: Float[Tensor, "batch d_sae"], centred: Tensor) -> Float[Tensor, "batch d_sae"]:
        return self.gate_magnitudes(pre, pre - self.b_enc)

    def gate_magnitudes(
        self, gate: Float[Tensor, "batch d_sae"], product: Float[Tensor, "batch d_sae"]
    ) -> Float[Tensor, "batch d_sae"]:
        """H(gate) ReLU(exp(r_mag) product + b_mag)."""
        return torch.relu(self.r_mag.exp() * product + self.b_mag) * (gate > 0)

    def threshold_form(self) -> tuple[Tensor, Tensor, Tensor]:
        """magnitude > b_mag - exp(r_mag) b_enc exactly where gate > 0."""
        gain = self.r_mag.exp()
        return self.W_enc * gain, self.b_mag, torch.relu(self.b_mag - gain * self.b_enc)

    def objective(
        self,
        x: Float[Tensor, "batch d_in"],
        dead: Int[Tensor, " dead"],
        ramp: float | Tensor = 1.0,
        target: Float[Tensor, "batch d_out"] | None = None,
    ) -> Objective:
        target = x if target is None else target
        centred, bias = self.encoder_input(x)
        gain = self.r_mag.exp()
        b_mag = self.b_mag + gain * (bias - self.b_enc)  # + 0: the centre's gradient goes through it
        latents, opened, total, fired = gated_encode(centred, self.W_enc.T, bias, gain, b_mag)
        error = squared_error(target, self.decode(latents))
        frozen = self.W_dec.detach()
        penalty = (total * frozen.norm(dim=-1) if self.ri_l1 else total).sum() / len(x)
        auxiliary = squared_error(target, torch.addmm(self.b_dec.detach(), opened, frozen))
        return Objective(error + ramp * self.sparsity * penalty + auxiliary, error.detach(), fired)
