"""JumpReLU with an L0 penalty, trained by straight-through estimators (Rajamanoharan et al. 2024, arXiv 2407.14435)."""

import math

import torch
from torch import nn

from replication.kernels import KERNELS, jumprelu_encode
from replication.sae.base import SAE, Objective, squared_error
from replication.shapes import Float, Int, Tensor


class _JumpReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pre, theta, bandwidth, kernel, ste_into_pre):
        ctx.save_for_backward(pre, theta)
        ctx.options = bandwidth, kernel, ste_into_pre
        return pre * (pre > theta)

    @staticmethod
    def backward(ctx, gradient):
        pre, theta = ctx.saved_tensors
        bandwidth, kernel, ste_into_pre = ctx.options
        jump = gradient * (theta / bandwidth) * KERNELS[kernel]((pre - theta) / bandwidth)
        into_pre = gradient * (pre > theta)
        return into_pre + jump if ste_into_pre else into_pre, -jump.sum(0), None, None, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pre, theta, bandwidth, kernel, ste_into_pre):
        ctx.save_for_backward(pre, theta)
        ctx.options = bandwidth, kernel, ste_into_pre
        return (pre > theta).to(theta.dtype)

    @staticmethod
    def backward(ctx, gradient):
        pre, theta = ctx.saved_tensors
        bandwidth, kernel, ste_into_pre = ctx.options
        jump = gradient / bandwidth * KERNELS[kernel]((pre - theta) / bandwidth)
        return jump if ste_into_pre else None, -jump.sum(0), None, None, None


def jumprelu(
    pre: Float[Tensor, "batch d_sae"],
    theta: Float[Tensor, " d_sae"],
    bandwidth: float,
    kernel: str = "rectangle",
    ste_into_pre: bool = False,
) -> Float[Tensor, "batch d_sae"]:
    """pre H(pre - theta). Backward, with e the bandwidth and K the kernel:

    d/dtheta = -(theta/e) K((pre - theta)/e) (a pseudo-derivative),   d/dpre = H(pre - theta), plus, with
    `ste_into_pre`, the same jump: (theta/e) K((pre - theta)/e).
    """
    return _JumpReLU.apply(pre, theta, bandwidth, kernel, ste_into_pre)


def step(
    pre: Float[Tensor, "batch d_sae"],
    theta: Float[Tensor, " d_sae"],
    bandwidth: float,
    kernel: str = "rectangle",
    ste_into_pre: bool = False,
) -> Float[Tensor, "batch d_sae"]:
    """H(pre - theta), 1 where pre > theta. Backward: d/dtheta = -(1/e) K((pre - theta)/e), d/dpre = 0 or, with
    `ste_into_pre`, (1/e) K((pre - theta)/e)."""
    return _Step.apply(pre, theta, bandwidth, kernel, ste_into_pre)


class JumpReLU(SAE):
    """`sparsity` is lambda in  E|x - recon|^2 + lambda E|latents|_0,  latents = pre H(pre - theta).

    One threshold theta >= 0 per latent, trained by pseudo-derivatives (`jumprelu`, `step`) whose batch mean is a kernel
    density estimate of the gradient of the expected loss. lambda reaches theta alone: the encoder and the decoder see
    the error only. Larger lambda, fewer active latents. (Latents: eqs. 4, 8; loss: 9-10; pseudo-derivatives: 11-12; why
    they are right: sec. 4.)

    `threshold` is the initial theta; `bandwidth` the width of the window around theta that trains it, both for inputs
    with E|x|^2 = 1 (the normalisations "gao" and "gemma" have it; for raw activations scale both); `kernel` its shape.
    theta is a parameter kept at 0 or above, or exp of one with `log_threshold` (at Adam's pace of one learning rate per
    step that one takes long to grow). `target_l0` replaces the penalty by lambda (L0 / target_l0 - 1)^2, L0 the batch
    mean. `ste_into_pre` lets the pseudo-derivatives into the pre-activations, so that lambda reaches the encoder too.

    Differs from the paper: b_dec starts at the geometric median instead of 0, and a tied encoder at the scale that
    fits.
    """

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        sparsity: float,
        *,
        bandwidth: float = 0.001,
        threshold: float = 0.001,
        kernel: str = "rectangle",
        log_threshold: bool = False,
        target_l0: float | None = None,
        ste_into_pre: bool = False,
        **kwargs,
    ):
        super().__init__(d_in, d_sae, sparsity, **kwargs)
        for name, value in (("bandwidth", bandwidth), ("threshold", threshold), ("target_l0", target_l0)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {sorted(KERNELS)}, got {kernel!r}")
        self.bandwidth, self.threshold, self.kernel = bandwidth, threshold, kernel
        self.log_threshold, self.target_l0, self.ste_into_pre = log_threshold, target_l0, ste_into_pre
        self.theta_raw = nn.Parameter(torch.full((d_sae,), math.log(threshold) if log_threshold else threshold))

    @property
    def theta(self) -> Float[Tensor, " {self.d_sae}"]:
        return self.theta_raw.exp() if self.log_threshold else self.theta_raw

    def sparsify(self, pre: Float[Tensor, "batch d_sae"], centred: Tensor) -> Float[Tensor, "batch d_sae"]:
        return jumprelu(pre, self.theta, self.bandwidth, self.kernel, self.ste_into_pre)

    @torch.no_grad()
    def rescale(self, inputs: Float[Tensor, ""], targets: Float[Tensor, ""]) -> None:
        super().rescale(inputs, targets)
        self.theta_raw.copy_(self.theta_raw + targets.log() if self.log_threshold else self.theta_raw * targets)

    def threshold_form(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.W_enc, self.b_enc, self.theta

    def objective(
        self,
        x: Float[Tensor, "batch d_in"],
        dead: Int[Tensor, " dead"],
        ramp: float | Tensor = 1.0,
        target: Float[Tensor, "batch d_out"] | None = None,
    ) -> Objective:
        target = x if target is None else target
        centred, bias = self.encoder_input(x)
        estimator = (self.theta, self.bandwidth, self.kernel, self.ste_into_pre)
        latents, l0, tokens = jumprelu_encode(centred, self.W_enc.T, bias, *estimator)
        error = squared_error(target, self.decode(latents))
        penalty = l0 if self.target_l0 is None else (l0 / self.target_l0 - 1).square()
        return Objective(error + ramp * self.sparsity * penalty, error.detach(), tokens > 0)

    @torch.no_grad()
    def clamp_parameters(self) -> None:
        """A raw theta below 0 goes back to 0."""
        if not self.log_threshold:
            self.theta_raw.clamp_(min=0)
