"""Norms of a dense vector z and of its sparse code f: the bound between them and what is built on it.

z = W f = sum_i f_i w_i with h unit directions w_i in d dimensions and |<w_i, w_j>| <= eps for i != j
(eps-quasi-orthogonality). Then, for m = h, for m = |f|_0 and for m = |f|_1^2 / |f|_2^2, from loose to sharp,

    | |z|^2 - |f|^2 | <= eps (m - 1) |f|^2

by |z|^2 - |f|^2 = sum_{i != j} f_i f_j <w_i, w_j> and Cauchy-Schwarz (Lee et al. 2025, arXiv 2503.24277; the paper and
its released code use m = h). All norms are Euclidean unless an index says otherwise.
"""

from typing import NamedTuple

import torch

from replication.sae import SAE
from replication.shapes import Float, Int, Tensor

CHUNK = 2048  # rows of the Gram matrix that are held at a time
WEDGES = (0.25, 0.5, 1.0)
"""eps (h - 1) of the three wedges in the ZF plots of the released code."""


class Cosines(NamedTuple):
    """What the cosines of all pairs of different rows are like."""

    lowest: float
    highest: float
    """With its sign: `epsilon_max` of the released code. Antipodal pairs (cosine -1) stay invisible in it."""
    mean: float
    """With signs: `epsilon_mean` of the released code."""
    mean_square: float
    """1 / d for random directions in d dimensions."""

    @property
    def largest(self) -> float:
        """max |cosine|: the eps of the bound."""
        return max(-self.lowest, self.highest)


def cosines(rows: Float[Tensor, "h d"]) -> Cosines:
    """Cosines of the pairs i != j of rows, which need no unit norm; a zero row has cosine 0 with all. ValueError for
    fewer than two rows."""
    if len(rows) < 2:
        raise ValueError(f"cosines need at least 2 rows, got {len(rows)}")
    unit = torch.nn.functional.normalize(rows.detach(), dim=-1)
    lowest, highest, total, squares = [], [], 0.0, 0.0
    for first in range(0, len(unit), CHUNK):
        gram = unit[first : first + CHUNK] @ unit.T
        place = torch.arange(len(gram), device=gram.device)
        gram[place, first + place] = 0  # for the sums
        total, squares = total + gram.sum().item(), squares + gram.square().sum().item()
        gram[place, first + place] = torch.inf
        lowest.append(gram.amin().item())
        gram[place, first + place] = -torch.inf
        highest.append(gram.amax().item())
    pairs = len(unit) * (len(unit) - 1)
    return Cosines(min(lowest), max(highest), total / pairs, squares / pairs)


def effective_count(codes: Float[Tensor, "*n h"]) -> Float[Tensor, "*n"]:
    """|f|_1^2 / |f|_2^2: k for k equal entries whatever their signs, less where they differ. NaN for a zero code."""
    return codes.abs().sum(-1).square() / codes.square().sum(-1)


def wedge(c: float) -> tuple[float, float]:
    """Slopes of |f| over |z| that | |z|^2 - |f|^2 | <= c |f|^2 allows: 1 / sqrt(1 + c) and 1 / sqrt(1 - c).

    The second is infinite for c >= 1: |f| then has no upper bound (the released code draws a slope of 999).
    """
    return (1 + c) ** -0.5, (1 - c) ** -0.5 if c < 1 else float("inf")


def relative_gap(z_norm: Float[Tensor, "*n"], f_norm: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """| |z|^2 - |f|^2 | / |f|^2 = |1 / r^2 - 1| with r = |f| / |z|: what the bound compares with eps (m - 1).

    0 for equal norms. Below 1 for any over-activation (r > 1), without limit for under-activation. NaN or infinite for
    a zero code.
    """
    return (z_norm.square() - f_norm.square()).abs() / f_norm.square()


def eps_lower_bound(z_norm: Float[Tensor, "*n"], f_norm: Float[Tensor, "*n"], h: int) -> Float[Tensor, "*n"]:
    """eps_LBO = | |z|^2 - |f|^2 | / ((h - 1) |f|^2): at least this eps has a dictionary of h rows that explains z by f.

    Lower is better for the paper. `h` is the number of latents without the bias (released code, column `elbo`).
    """
    return relative_gap(z_norm, f_norm) / (h - 1)


def gap_split(
    z_norm: Float[Tensor, "*n"], z_hat_norm: Float[Tensor, "*n"], f_norm: Float[Tensor, "*n"]
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Interference (|z_hat|^2 - |f|^2) / |f|^2 of the dictionary, shrinkage (|z|^2 - |z_hat|^2) / |f|^2 of the
    reconstruction z_hat. Their sum is (|z|^2 - |f|^2) / |f|^2, of which eps_LBO sees the size alone."""
    energy = f_norm.square()
    return (z_hat_norm.square() - energy) / energy, (z_norm.square() - z_hat_norm.square()) / energy


TOKENS = 8192  # tokens of one pass of an SAE


class Norms(NamedTuple):
    """Norms of every token on the scale of the language model's own activations, and of its code there."""

    z: Tensor
    """(n,) |z| of the raw activation, not centred."""
    f: Tensor
    """(n,) |f|, each latent times the norm of its decoder row; the bias is not counted."""
    z_hat: Tensor
    """(n,) |z_hat| of the reconstruction, bias included."""
    error: Tensor
    """(n,) |z - z_hat|^2."""
    centred: Tensor
    """(n,) |z - b_dec|."""
    centred_hat: Tensor
    """(n,) |z_hat - b_dec|."""
    active: Int[Tensor, " n"]
    """(n,) latents that are not zero."""
    bias: float
    """|b_dec|."""

    @property
    def f_with_bias(self) -> Float[Tensor, " n"]:
        """sqrt(|f|^2 + |b_dec|^2): the bias as one more feature, always on (released code of Lee et al. 2025). It is
        never below |b_dec|."""
        return (self.f.square() + self.bias**2).sqrt()

    @property
    def nmse(self) -> Float[Tensor, " n"]:
        """|z - z_hat|^2 / |z|^2 of each token: the "Normalized MSE" of the half-violins of Lee et al. 2025."""
        return self.error / self.z.square()


@torch.no_grad()
def norms_of(sae: SAE, activations: Float[Tensor, "n d_in"]) -> Norms:
    """What an autoencoder makes of raw activations, in norms; in passes that fit in memory.

    The normalisation that it was trained with is folded into its weights first (`SAE.folded`), so that z, f and z_hat
    are on the scale of the activations. ValueError for a normalisation that treats each token by its own statistics,
    which no weight can hold, and for a transcoder, whose code explains another vector than the one it reads.
    """
    if sae.d_out is not None:
        raise ValueError(f"norms are those of an autoencoder, got a transcoder of d_out={sae.d_out}")
    sae = sae.folded()
    row_norms = sae.W_dec.norm(dim=-1)
    parts = []
    for z in activations.split(TOKENS):
        z_hat, latents = sae(z)
        parts.append(
            (
                z.norm(dim=-1),
                (latents * row_norms).norm(dim=-1),
                z_hat.norm(dim=-1),
                (z - z_hat).square().sum(-1),
                (z - sae.b_dec).norm(dim=-1),
                (z_hat - sae.b_dec).norm(dim=-1),
                (latents != 0).sum(-1),
            )
        )
    return Norms(*map(torch.cat, zip(*parts, strict=True)), bias=sae.b_dec.norm().item())
