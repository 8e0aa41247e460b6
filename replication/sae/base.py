"""The equation every architecture shares, its constraint and its file format."""

import abc
import copy
import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn

from replication.activations import NORMALISATIONS, Pair, as_pair
from replication.shapes import Float, Int, Tensor

START_TOKENS = 512  # encoded at once before the first step


class Output(NamedTuple):
    """What an SAE makes of a batch."""

    recon: Tensor
    """(batch, d_in) reconstruction on the scale of the input; in a transcoder (batch, d_out), on that of the target."""
    latents: Tensor
    """(batch, d_sae) latents, dense layout; zero where inactive."""


class Objective(NamedTuple):
    """What one training step minimises, and what the loop counts."""

    loss: Tensor
    """Scalar to differentiate."""
    error: Tensor
    """Scalar E|target - recon|^2, detached; the target of an autoencoder is x."""
    fired: Tensor
    """(d_sae,) bool: the latent was active on some token of the batch."""


class Normalised(NamedTuple):
    """Activations as an SAE sees them."""

    x: Tensor
    """(n, d_in) what the encoder reads."""
    target: Tensor
    """(n, d_out) what the decoder should give: x itself in an autoencoder."""
    undo: Callable[[Tensor], Tensor]
    """Puts reconstructions on the scale of the raw targets."""


class SAE(nn.Module, abc.ABC):
    """latents = sparsify((x - b_dec) W_enc + b_enc),   recon = latents W_dec + b_dec.

    Shapes: W_enc (d_in, d_sae), b_enc (d_sae,), W_dec (d_sae, d_in), b_dec (d_in,): those of SAELens. Rows of W_dec are
    kept at unit norm, the part of their gradient along themselves is removed (Gao et al. 2024), and W_enc starts as the
    transpose of W_dec unless `tied_init` is off. W_enc is stored latent-major: one latent is one contiguous row of
    memory.

    With `d_out` it is a transcoder: it predicts a target of that width, e.g. the output of an MLP from its input.
    W_dec is then (d_sae, d_out), b_dec (d_out,), and the encoder subtracts `b_pre` (d_in,) instead, the geometric
    median of the inputs, which is not learned: b_enc moves the pre-activations as well. W_enc and W_dec start
    independently of each other, as in Lieberum et al. 2024 (app. B; their transcoders have no b_pre), unless
    `tied_init` asks otherwise. Where a loss compares with x, that of a transcoder compares with the target.

    `sparsity` is the architecture's one dial; `generator` draws the initial weights, U(-1, 1)/sqrt(d_in) as in the
    released code; `unit_norm=False` leaves the norms of the decoder rows free; `normalisation` names what was done to
    the activations before the SAE sees them (it is saved with the weights). One that is fitted has its constant in the
    buffer `input_scale`, for the targets of a transcoder in `target_scale`: NaN until `fit_normalisation`. A transcoder
    takes none that treats each token by its own statistics, since those of a target are not known when it is predicted.

    A subclass supplies `sparsify` and `objective`, and names in `scales_with` what `folded` multiplies.
    """

    scales_with: ClassVar[dict[str, int]] = {"b_enc": 1, "b_dec": 1}
    """Tensors on the scale of what is reconstructed -> the power of it; W_dec, of unit rows, is on none."""

    selects_over_batch = False
    """Whether training selects latents over the whole batch and learns a threshold for evaluation."""

    capturable = True
    """Whether a step runs without asking the GPU for a number, so that it can be recorded as a CUDA graph."""

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        sparsity: float,
        *,
        d_out: int | None = None,
        generator: torch.Generator | None = None,
        tied_init: bool | None = None,
        unit_norm: bool = True,
        normalisation: str = "none",
    ):
        super().__init__()
        for name, value in (("d_in", d_in), ("d_sae", d_sae), ("d_out", d_out)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 < sparsity < math.inf:
            raise ValueError(f"sparsity must be positive and finite, got {sparsity}")
        if normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation must be one of {sorted(NORMALISATIONS)}, got {normalisation!r}")
        kind, transcoder = NORMALISATIONS[normalisation], d_out is not None
        if transcoder and kind.per_token:
            known = sorted(name for name, one in NORMALISATIONS.items() if not one.per_token)
            raise ValueError(f"normalisation of a transcoder must be one of {known}, got {normalisation!r}")
        tied_init = not transcoder if tied_init is None else tied_init
        if tied_init and transcoder and d_out != d_in:
            raise ValueError(f"tied_init must be False where d_in={d_in} and d_out={d_out} differ, got True")
        self.d_in, self.d_sae, self.sparsity, self.d_out = d_in, d_sae, sparsity, d_out
        self.tied_init, self.unit_norm, self.normalisation = tied_init, unit_norm, normalisation

        def draw(width: int) -> Tensor:
            return (torch.rand(d_sae, width, generator=generator) * 2 - 1) / width**0.5

        encoder_rows = draw(d_in)
        decoder_rows = encoder_rows if tied_init else draw(d_out or d_in)
        self.W_enc = nn.Parameter(encoder_rows.clone().T)
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(unit_rows(decoder_rows))
        self.shadow: Tensor | None = None  # latent-major bfloat16 copy of W_enc, where the optimiser keeps one
        self.b_dec = nn.Parameter(torch.zeros(d_out or d_in))
        self.register_buffer("b_pre", torch.zeros(d_in) if transcoder else None)
        self.register_buffer("input_scale", torch.tensor(torch.nan) if kind.fit else None)
        self.register_buffer("target_scale", torch.tensor(torch.nan) if kind.fit and transcoder else None)

    @property
    def centre(self) -> Float[Tensor, " {self.d_in}"]:
        """What the encoder subtracts: b_dec in an autoencoder, b_pre in a transcoder."""
        return self.b_dec if self.d_out is None else self.b_pre

    @abc.abstractmethod
    def sparsify(
        self, pre: Float[Tensor, "batch d_sae"], centred: Float[Tensor, "batch d_in"]
    ) -> Float[Tensor, "batch d_sae"]:
        """Pre-activations to latents: the one step in which architectures differ. `centred` is x - centre."""

    @abc.abstractmethod
    def objective(
        self,
        x: Float[Tensor, "batch d_in"],
        dead: Int[Tensor, " dead"],
        ramp: float | Tensor = 1.0,
        target: Float[Tensor, "batch d_out"] | None = None,
    ) -> Objective:
        """The training loss on a batch of normalised activations and, in a transcoder, normalised targets.

        `dead` lists latents silent for long, each once; entries of d_sae or more are padding. `ramp`, from 0 to 1, is
        how much of a sparsity penalty counts yet.
        """

    def pre(self, x: Float[Tensor, "batch {self.d_in}"]) -> Float[Tensor, "batch {self.d_sae}"]:
        centred, bias = self.encoder_input(x)
        return torch.addmm(bias, centred, self.W_enc)

    def encoder_input(self, x: Float[Tensor, "batch {self.d_in}"]) -> tuple[Tensor, Tensor]:
        """x - centre and b_enc, (batch, d_in) and (d_sae,), so arranged that the gradient of a learned centre takes the
        way of the bias: through one sum over tokens instead of a product as large as the encoder's."""
        if not self.centre.requires_grad:
            return x - self.centre, self.b_enc
        fixed = self.centre.detach()
        with torch.autocast(x.device.type, enabled=False):  # one row: the casts would take longer than the product
            return x - fixed, self.b_enc + (fixed - self.centre) @ self.W_enc.detach()

    def encode(self, x: Float[Tensor, "batch {self.d_in}"]) -> Float[Tensor, "batch {self.d_sae}"]:
        return self.sparsify(self.pre(x), x - self.centre)

    def decode(self, latents: Float[Tensor, "batch {self.d_sae}"]) -> Float[Tensor, "batch d_out"]:
        return torch.addmm(self.b_dec, latents, self.W_dec)

    def forward(self, x: Float[Tensor, "batch {self.d_in}"]) -> Output:
        latents = self.encode(x)
        return Output(self.decode(latents), latents)

    @torch.no_grad()
    def fit_normalisation(self, activations: Tensor | Pair) -> None:
        """Set the constants of the normalisation, where it has any, from raw training activations."""
        for scale, raw in zip((self.input_scale, self.target_scale), as_pair(activations), strict=True):
            if scale is not None:
                scale.copy_(NORMALISATIONS[self.normalisation].fit(raw))

    def normalise(self, activations: Tensor | Pair) -> Normalised:
        """Raw activations, (n, d_in) or a transcoder's pair, as this SAE sees them. Without its targets a transcoder's
        `target` means nothing; `undo` does not depend on them."""
        kind, (inputs, targets) = NORMALISATIONS[self.normalisation], as_pair(activations)
        x, undo = kind.apply(inputs, self.input_scale)
        return Normalised(x, x, undo) if self.d_out is None else Normalised(x, *kind.apply(targets, self.target_scale))

    def reconstruct(self, activations: Float[Tensor, "batch {self.d_in}"]) -> Float[Tensor, "batch d_out"]:
        """Activations as the model has them in, reconstructions on the same scale out, or, of a transcoder, on that of
        the model's targets (normalise, run, undo)."""
        x, _, undo = self.normalise(activations)
        return undo(self(x).recon)

    @torch.no_grad()
    def folded(self) -> "SAE":
        """An SAE with normalisation "none" that does on raw activations what `reconstruct` does (Lieberum et al. 2024,
        app. A). Its latents are s times as large, s the constant of what is reconstructed.

        Constructor arguments, e.g. the dial, are a record of the training and stay. ValueError for a normalisation per
        token. With "none" it is a copy.
        """
        if NORMALISATIONS[self.normalisation].per_token:
            raise ValueError(f"normalisation must be the same for all tokens to be folded, got {self.normalisation!r}")
        sae = copy.deepcopy(self)
        sae.shadow = None
        if self.input_scale is not None:
            sae.rescale(self.input_scale, self.input_scale if self.d_out is None else self.target_scale)
            sae.normalisation, sae.input_scale, sae.target_scale = "none", None, None
        return sae

    @torch.no_grad()
    def rescale(self, inputs: Float[Tensor, ""], targets: Float[Tensor, ""]) -> None:
        """Become, in place, the SAE of `inputs` times larger inputs, whose latents and reconstructions are `targets`
        times larger. In an autoencoder the two are one number, and W_enc stays as it is."""
        self.W_enc.mul_(targets / inputs)
        if self.b_pre is not None:
            self.b_pre.mul_(inputs)
        for name, power in self.scales_with.items():
            getattr(self, name).mul_(targets**power)

    def threshold_form(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """W_enc, b_enc and theta (d_sae,) with which, in evaluation, latents = pre H(pre - theta) for
        pre = (x - centre) W_enc + b_enc; theta None where selection is not by a threshold, or by 0."""
        return self.W_enc, self.b_enc, None

    @torch.no_grad()
    def initialise(self, x: Float[Tensor, "n {self.d_in}"], target: Float[Tensor, "n d_out"] | None = None) -> None:
        """Start from a sample of normalised activations: b_dec at its geometric median, W_enc at a scale that fits it.

        In a transcoder b_dec starts at the geometric median of the targets, b_pre at that of x, and W_enc keeps its
        magnitude: its first reconstructions are unrelated to the targets.

        An encoder that starts as the decoder's transpose is multiplied, once, by the least-squares factor of
        recon - b_dec on x - b_dec. One that starts on its own has no such factor (its first reconstructions are
        unrelated to x) and keeps its magnitude. Gao et al. 2024 match norms instead and find no effect.
        """
        self.b_dec.copy_(geometric_median(x if target is None else target))
        if self.b_pre is not None:
            self.b_pre.copy_(geometric_median(x))
        elif self.tied_init:
            # in turns where tokens are independent: the latents of all would be the largest tensor of a training
            first = x[:4096]
            turns = (first,) if self.selects_over_batch else first.split(START_TOKENS)
            products = squares = 0
            for some in turns:
                recon = self(some).recon - self.b_dec
                products += (recon * (some - self.b_dec)).sum()
                squares += recon.square().sum()
            self.W_enc.mul_(products / squares.clamp(min=1e-12))

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
        shared = ["d_out", "tied_init", "unit_norm", "normalisation"]
        return {name: getattr(self, name) for name in dict.fromkeys([*names, *shared])}

    def save(self, path: Path) -> None:
        """Weights and constructor arguments in one safetensors file."""
        header = {"architecture": type(self).__name__.lower(), "config": json.dumps(self.config())}
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, path, metadata=header)


@torch.no_grad()
def released_form(sae: SAE) -> dict[str, Tensor]:
    """The tensors of a Gemma Scope file (Lieberum et al. 2024, app. A): raw activations, no pre-encoder bias.

    pre = x W_enc + b_enc,   latents = ReLU(pre) H(pre - threshold),   recon = latents W_dec + b_dec

    in evaluation; W_enc (d_in, d_sae), b_enc (d_sae,), W_dec (d_sae, d_out), b_dec (d_out,), threshold (d_sae,).
    b_enc is that of the folded SAE minus centre W_enc. Gated and ProLU are brought into this form exactly. There is no
    `threshold` for ReLU, which has none, nor for TopK and top-AFA, whose own selection takes its place. ValueError for
    a normalisation per token, as in `SAE.folded`.
    """
    sae = sae.folded()
    W_enc, b_enc, threshold = sae.threshold_form()
    form = {"W_enc": W_enc, "b_enc": b_enc - sae.centre @ W_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    form |= {} if threshold is None else {"threshold": threshold}
    return {name: value.detach().clone() for name, value in form.items()}


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
