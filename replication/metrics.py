"""Tensors in, one number out. Every docstring is the formula, its baseline and its scale.

`x` are activations, `recon` their reconstructions, `latents` the code of an SAE; rows are tokens.
"""

from typing import NamedTuple

import torch

from replication.shapes import Bool, Float, Tensor


def fvu(x: Float[Tensor, "n d_in"], recon: Float[Tensor, "n d_in"]) -> Float[Tensor, ""]:
    """Fraction of variance unexplained: sum|x - recon|^2 / sum|x - mean x|^2, mean over the evaluated rows.

    0 = perfect, 1 = no better than the mean of these rows, above 1 = worse than the mean.
    """
    return nmse(x, recon, x.mean(0))


def nmse(x: Float[Tensor, "n d_in"], recon: Float[Tensor, "n d_in"], mean: Float[Tensor, " d_in"]) -> Float[Tensor, ""]:
    """Normalised MSE of Gao et al. 2024 (sec. 2.1): E|x - recon|^2 / E|x - mean|^2, `mean` from training activations.

    x is the preprocessed activation the SAE sees (mean over d subtracted, unit norm). 1 = predicting `mean`.
    """
    return (x - recon).square().sum() / (x - mean).square().sum()


def readme_nmse(x: Float[Tensor, "n d_in"], recon: Float[Tensor, "n d_in"]) -> Float[Tensor, ""]:
    """The other normalised MSE, of the paper's released code (`loss.py`, README): mean of |x - recon|^2 / |x|^2.

    Uncentred, so predicting zero gives 1 and predicting the mean gives less than 1 as soon as the mean is not zero:
    it is never comparable with `nmse`.
    """
    return ((x - recon).square().sum(-1) / x.square().sum(-1)).mean()


def l0(latents: Float[Tensor, "n d_sae"]) -> Float[Tensor, ""]:
    """Mean number of non-zero latents per token. 0 to d_sae; a TopK SAE has at most k."""
    return (latents != 0).sum(-1).float().mean()


def dead_fraction(fired: Bool[Tensor, " d_sae"]) -> Float[Tensor, ""]:
    """Share of latents that did not fire in the window `fired` was recorded over. 0 = all alive."""
    return 1 - fired.float().mean()


def cosine(x: Float[Tensor, "n d_in"], recon: Float[Tensor, "n d_in"]) -> Float[Tensor, ""]:
    """Mean cosine similarity of x and recon over tokens. 1 = same direction; the mean predictor is the baseline."""
    return torch.nn.functional.cosine_similarity(x, recon, dim=-1).mean()


def shrinkage(x: Float[Tensor, "n d_in"], recon: Float[Tensor, "n d_in"]) -> Float[Tensor, ""]:
    """Relative reconstruction bias: E|recon|^2 / E[recon . x], for x and recon measured from the SAE's `b_dec`.

    The reconstruction is best when divided by this number (Rajamanoharan et al. 2024, Gated SAEs):
    1 = unbiased, below 1 = the SAE shrinks its reconstructions.
    """
    return recon.square().sum() / (recon * x).sum()


def pca_fvu(x: Float[Tensor, "n d_in"]) -> Float[Tensor, " components"]:
    """FVU left by the j leading principal components of x itself, j = 0 to d_in: the best *linear* code of j numbers.

    A control for reconstruction at L0 = j: a sparse code that does not beat it has not used its choice of latents.
    """
    variances = torch.linalg.eigvalsh(torch.cov(x.T.double())).flip(0).clamp(min=0)
    left = variances.flip(0).cumsum(0).flip(0) / variances.sum()
    return torch.cat([left, left.new_zeros(1)]).float()


class Definition(NamedTuple):
    """How a number is printed: its name in tables, what it is, and what a trivial model scores."""

    label: str
    meaning: str
    baseline: str


DEFINITIONS = {
    "nmse": Definition(
        "NMSE", "E‖x−x̂‖² / E‖x−μ‖² on preprocessed activations, μ from training data", "mean predictor: 1"
    ),
    "readme_nmse": Definition("README NMSE", "mean over tokens of ‖x−x̂‖² / ‖x‖², uncentred", "zero predictor: 1"),
    "fvu": Definition("FVU", "Σ‖x−x̂‖² / Σ‖x−x̄‖² on the model's own activations", "mean predictor: 1"),
    "l0": Definition("L0", "mean number of active latents per token", "dense code: d_sae"),
    "dead": Definition("dead", "share of latents silent over the last `dead_after` training tokens", "all alive: 0"),
    "cosine": Definition("cosine", "mean cosine of x and x̂", "perfect: 1"),
    "shrinkage": Definition("shrinkage", "E‖x̂‖² / E[x̂·x], measured from b_dec", "unbiased: 1"),
    "nmse_untrained": Definition("NMSE untrained", "NMSE of the same SAE before its first step", "random-SAE control"),
    "nmse_pca": Definition("NMSE PCA", "variance outside the L0 leading principal components", "linear control"),
    "delta_ce": Definition(
        "ΔCE", "rise in the language model's cross-entropy with reconstructions, nats per token", "perfect: 0"
    ),
    "kl": Definition("KL", "E KL(p of the model ‖ p with reconstructions), nats per token", "perfect: 0"),
    "delta_ce_zero": Definition("ΔCE of zero", "ΔCE with the activation set to 0", "control"),
    "delta_ce_mean": Definition("ΔCE of mean", "ΔCE with the activation set to its mean", "control"),
    "loss_recovered": Definition("recovered", "1 − ΔCE / ΔCE of zero", "zero ablation: 0"),
    "latent_mcc": Definition("latent MCC", "mean |Pearson| of codes and latents, matched one to one", "oracle: 1"),
    "q": Definition("q", "(latent MCC − chance) / (oracle − chance)", "random dictionary: 0, oracle: 1"),
    "chance": Definition("chance", "latent MCC of FISTA with a random dictionary", "control"),
    "shuffled": Definition("shuffled", "latent MCC of true codes in a random order of samples", "control"),
    "oracle": Definition("oracle", "latent MCC of the best inference with the true dictionary", "control"),
    "fista": Definition("FISTA", "latent MCC of FISTA with the true dictionary", "control"),
    "dictionary_mcc": Definition("dict. MCC", "mean |Pearson| of atoms and dictionary rows, matched", "oracle: 1"),
    "dictionary_cosine": Definition("dict. cosine", "mean |cosine| of atoms and dictionary rows, matched", "oracle: 1"),
    "compute_share": Definition(
        "compute", "share of the language model's own training at which its loss was ΔCE above its last", "perfect: 1"
    ),
}
