"""The equation every architecture shares, its constraint and its file format."""

import abc
import inspect
import json
import math
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn

from replication.activations import NORMALISATIONS
from replication.shapes import Float, Int, Tensor


class Output(NamedTuple):
    """What an SAE makes of a batch."""

    recon: Tensor
    """(batch, d_in) reconstruction, on the scale of the input."""
    latents: Tensor
    """(batch, d_sae) latents, dense layout; zero where inactive."""


class Objective(NamedTuple):
    """What one training step minimises, and what the loop counts."""

    loss: Tensor
    """Scalar to differentiate."""
    error: Tensor
    """Scalar E|x - recon|^2, detached."""
    fired: Tensor
    """(d_sae,) bool: the latent was active on some token of the batch."""


class SAE(nn.Module, abc.ABC):
    """latents = sparsify((x - b_dec) W_enc + b_enc),   recon = latents W_dec + b_dec.

    Shapes: W_enc (d_in, d_sae), b_enc (d_sae,), W_dec (d_sae, d_in), b_dec (d_in,): those of SAELens. Rows of W_dec are
    kept at unit norm, the part of their gradient along themselves is removed (Gao et al. 2024), and W_enc starts as the
    transpose of W_dec unless `tied_init` is off. W_enc is stored latent-major: one latent is one contiguous row of
    memory.

    `sparsity` is the architecture's one dial; `generator` draws the initial weights, U(-1, 1)/sqrt(d_in) as in the
    released code; `unit_norm=False` leaves the norms of the decoder rows free; `normalisation` names what was done to
    the activations before the SAE sees them (it is saved with the weights). A subclass supplies `sparsify` and
    `objective`.
    """

    capturable = True
    """Whether a step runs without asking the GPU for a number, so that it can be recorded as a CUDA graph."""

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        sparsity: float,
        *,
        generator: torch.Generator | None = None,
        tied_init: bool = True,
        unit_norm: bool = True,
        normalisation: str = "none",
    ):
        super().__init__()
        for name, value in (("d_in", d_in), ("d_sae", d_sae)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 < sparsity < math.inf:
            raise ValueError(f"sparsity must be positive and finite, got {sparsity}")
        if normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation must be one of {sorted(NORMALISATIONS)}, got {normalisation!r}")
        self.d_in, self.d_sae, self.sparsity = d_in, d_sae, sparsity
        self.tied_init, self.unit_norm, self.normalisation = tied_init, unit_norm, normalisation

        def draw() -> Tensor:
            return (torch.rand(d_sae, d_in, generator=generator) * 2 - 1) / d_in**0.5

        encoder_rows = draw()
        decoder_rows = encoder_rows if tied_init else draw()
        self.W_enc = nn.Parameter(encoder_rows.clone().T)
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(unit_rows(decoder_rows))
        self.shadow: Tensor | None = None  # latent-major bfloat16 copy of W_enc, where the optimiser keeps one
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    @abc.abstractmethod
    def sparsify(
        self, pre: Float[Tensor, "batch d_sae"], centred: Float[Tensor, "batch d_in"]
    ) -> Float[Tensor, "batch d_sae"]:
        """Pre-activations to latents: the one step in which architectures differ. `centred` is x - b_dec."""

    @abc.abstractmethod
    def objective(
        self, x: Float[Tensor, "batch d_in"], dead: Int[Tensor, " dead"], ramp: float | Tensor = 1.0
    ) -> Objective:
        """The training loss on a batch of normalised activations.

        `dead` lists latents silent for long, each once; entries of d_sae or more are padding. `ramp`, from 0 to 1, is
        how much of a sparsity penalty counts yet.
        """

    def pre(self, x: Float[Tensor, "batch {self.d_in}"]) -> Float[Tensor, "batch {self.d_sae}"]:
        return torch.addmm(self.b_enc, x - self.b_dec, self.W_enc)

    def encode(self, x: Float[Tensor, "batch {self.d_in}"]) -> Float[Tensor, "batch {self.d_sae}"]:
        return self.sparsify(self.pre(x), x - self.b_dec)

    def decode(self, latents: Float[Tensor, "batch {self.d_sae}"]) -> Float[Tensor, "batch {self.d_in}"]:
        return torch.addmm(self.b_dec, latents, self.W_dec)

    def forward(self, x: Float[Tensor, "batch {self.d_in}"]) -> Output:
        latents = self.encode(x)
        return Output(self.decode(latents), latents)

    def reconstruct(self, activations: Float[Tensor, "batch {self.d_in}"]) -> Float[Tensor, "batch {self.d_in}"]:
        """Activations as the model has them in, reconstructions on the same scale out (normalise, run, undo)."""
        x, undo = NORMALISATIONS[self.normalisation](activations)
        return undo(self(x).recon)

    @torch.no_grad()
    def initialise(self, x: Float[Tensor, "n {self.d_in}"]) -> None:
        """Start from a sample of normalised activations: b_dec at its geometric median, W_enc at a scale that fits it.

        An encoder that starts as the decoder's transpose is multiplied, once, by the least-squares factor of
        recon - b_dec on x - b_dec. One that starts on its own has no such factor (its first reconstructions are
        unrelated to x) and keeps its magnitude. Gao et al. 2024 match norms instead and find no effect.
        """
        self.b_dec.copy_(geometric_median(x))
        if self.tied_init:
            first = x[:4096]
            recon, target = self(first).recon - self.b_dec, first - self.b_dec
            self.W_enc.mul_((recon * target).sum() / recon.square().sum().clamp(min=1e-12))

    @torch.no_grad()
    def before_step(self) -> None:
        """Remove from the gradient of each decoder row its component along the row: g - (g . d) d."""
        if self.unit_norm:
            g, d = self.W_dec.grad, self.W_dec
            g.sub_((g * d).sum(-1, keepdim=True) * d)

    @torch.no_grad()
    def after_step(self) -> None:
        """Put the decoder rows back on the unit sphere."""
        if self.unit_norm:
            self.W_dec.copy_(unit_rows(self.W_dec))

    def clamp_parameters(self) -> None:  # noqa: B027  most architectures have nothing to do
        """Put parameters that left their range in a step back into it."""

    def config(self) -> dict:
        """The constructor's arguments, by name, as this SAE holds them."""
        names = [name for name in inspect.signature(type(self)).parameters if name not in ("generator", "kwargs")]
        return {
            name: getattr(self, name) for name in dict.fromkeys([*names, "tied_init", "unit_norm", "normalisation"])
        }

    def save(self, path: Path) -> None:
        """Weights and constructor arguments in one safetensors file."""
        header = {"architecture": type(self).__name__.lower(), "config": json.dumps(self.config())}
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, path, metadata=header)


def unit_rows(matrix: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Each row divided by its Euclidean norm; a zero row stays zero."""
    return torch.nn.functional.normalize(matrix, dim=-1)


def geometric_median(x: Float[Tensor, "n d"], iterations: int = 100, tolerance: float = 1e-6) -> Float[Tensor, " d"]:
    """argmin_m sum_i |x_i - m| by Weiszfeld's iteration, started at the mean. Robust to a few rows of huge norm."""
    median = x.mean(0)
    for _ in range(iterations):
        weights = 1 / (x - median).norm(dim=-1).clamp(min=1e-12)
        updated = (weights.unsqueeze(-1) * x).sum(0) / weights.sum()
        if (updated - median).norm() <= tolerance * updated.norm().clamp(min=1e-12):
            return updated
        median = updated
    return median


def squared_error(x: Float[Tensor, "batch d_in"], recon: Float[Tensor, "batch d_in"]) -> Float[Tensor, ""]:
    """E|x - recon|^2: summed over d_in, averaged over tokens."""
    return (x - recon).square().sum(-1).mean()
