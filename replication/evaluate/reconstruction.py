"""How well an SAE reconstructs activations it has not seen, with the controls that each number needs."""

from typing import NamedTuple

import torch

from replication import metrics
from replication.activations import Pair, as_pair
from replication.sae import SAE
from replication.shapes import Float, Tensor
from replication.train import Trained

CHUNK = 8192


class Pass(NamedTuple):
    """What an SAE makes of normalised activations."""

    recon: Tensor
    """(n, d_out)"""
    active: Tensor
    """(n,) active latents of each token."""
    density: Tensor
    """(d_sae,) share of tokens on which each latent is active; their sum is L0."""


def reconstruction(
    trained: Trained, heldout: Float[Tensor, "n d_in"] | Pair, passes: tuple[Pass, Pass] | None = None
) -> dict[str, float]:
    """Metrics of `metrics.DEFINITIONS` on held-out activations, in the order in which a table prints them.

    `nmse`, `readme_nmse`, `cosine` and `shrinkage` are taken on the normalised activations that the SAE sees, `fvu` on
    the activations themselves. Controls in the same row: `nmse_untrained`, the same SAE before its first step, and
    `nmse_pca`, as many principal components as the SAE has active latents.

    A transcoder is measured on its targets, given as a `Pair`; its principal components are those of the targets too,
    which it does not see. `passes` are those of the SAE and of the untrained one, where they are known already.
    """
    x, target, undo = trained.sae.normalise(heldout)
    (recon, active, density), untrained = passes or (passed(trained.sae, x), passed(trained.untrained, x))
    b_dec = trained.sae.b_dec.detach()
    values = {
        "nmse": metrics.nmse(target, recon, trained.mean),
        "readme_nmse": metrics.readme_nmse(target, recon),
        "fvu": metrics.fvu(as_pair(heldout).targets, undo(recon)),
        "l0": active.float().mean(),
        "cosine": metrics.cosine(target, recon),
        "shrinkage": metrics.shrinkage(target - b_dec, recon - b_dec),
        "dead_heldout": metrics.dead_fraction(density > 0),
        "nmse_untrained": metrics.nmse(target, untrained.recon, trained.mean),
        "nmse_pca": metrics.pca_fvu(target)[min(round(active.float().mean().item()), target.shape[1])],
    }
    return {name: value.item() for name, value in values.items()}


@torch.no_grad()
def passed(sae: SAE, x: Float[Tensor, "n d_in"]) -> Pass:
    """One pass over normalised activations, in chunks that fit in memory."""
    recon, active = x.new_empty(len(x), len(sae.b_dec)), torch.empty(len(x), dtype=torch.int64, device=x.device)
    count = torch.zeros(sae.d_sae, dtype=torch.float64, device=x.device)
    for begin in range(0, len(x), CHUNK):
        out = sae(x[begin : begin + CHUNK])
        recon[begin : begin + CHUNK] = out.recon
        on = (out.latents != 0).float()  # sums of bools are several times slower; up to CHUNK these are exact
        active[begin : begin + CHUNK] = on.sum(-1)
        count += on.sum(0)
    return Pass(recon, active, (count / len(x)).float())
