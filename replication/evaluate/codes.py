"""The code of a trained SAE, changed after training: refitted on a fixed support, or cut by another rule.

Gao et al. 2024, sec. 5.1 (the method from memory) and 5.3. Everything here is for autoencoders whose active latents are
their positive pre-activations: TopK, Multi-TopK and ReLU.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch.nn.functional import embedding_bag

from replication.sae import SAE
from replication.shapes import Bool, Float, Int, Tensor

TOLERANCE = 1e-6  # a refit whose optimality gap is larger is no refit
RIDGE = 1e-10  # makes more active latents than dimensions solvable; far below what TOLERANCE notices
PATIENCE = 3  # exchanges of every violating latent at once that may fail to reduce their number
ROUNDS = 300  # exchanges per token at most; a handful is usual
REFIT_AT_ONCE = 256  # tokens
LATENTS_AT_ONCE = 2**24  # elements of a chunk of dense codes


@torch.no_grad()
def refine(sae: SAE, x: Float[Tensor, "n d_in"], latents: Float[Tensor, "n d_sae"]) -> Float[Tensor, "n d_sae"]:
    """The best latents on the same support: per token, argmin |x - z W_dec - b_dec|^2 over z >= 0 with z = 0 wherever
    `latents` is 0.

    Decoder and choice of latents stay as they are (Gao et al. 2024, sec. 5.1; `x` is normalised). The paper runs
    projected gradient descent; the problem is convex, so an exact solver finds the same minimum. Solved in float64.
    """
    refined = torch.zeros_like(latents)
    active = (latents > 0).sum(-1)
    for tokens in active.argsort().split(REFIT_AT_ONCE):  # tokens with supports of like size: little is padded
        top = latents[tokens].topk(max(int(active[tokens[-1]]), 1))
        support = top.values > 0
        rows = sae.W_dec[top.indices].double() * support.unsqueeze(-1)
        residual = (x[tokens] - sae.b_dec).double().unsqueeze(-1)
        fitted = nonnegative_fit(rows @ rows.mT, (rows @ residual).squeeze(-1), support)
        refined[tokens] = refined[tokens].scatter(-1, top.indices, fitted.to(latents.dtype))
    return refined


def nonnegative_fit(
    gram: Float[Tensor, "n a a"], target: Float[Tensor, "n a"], support: Bool[Tensor, "n a"]
) -> Float[Tensor, "n a"]:
    """argmin z gram z / 2 - z target over z >= 0, zero outside the support: non-negative least squares, batched.

    Block principal pivoting (Portugal, Judice & Vicente 1994; Kim & Park 2011): guess which entries are positive, solve
    for them, exchange the entries with the wrong sign (z < 0 where it was guessed to be positive, a gradient < 0 where
    it was guessed to be zero). Where that fails to reduce their number PATIENCE times, only the last of them is
    exchanged, which cannot cycle.
    """
    positive, z = support.clone(), torch.zeros_like(target)
    fewest = support.sum(-1) + 1
    patience = torch.full_like(fewest, PATIENCE)
    left = torch.arange(len(target), device=target.device)
    places = torch.arange(target.shape[1], device=target.device)
    eye = torch.eye(target.shape[1], dtype=target.dtype, device=target.device)
    for _ in range(ROUNDS):
        on = positive[left]
        both = on.unsqueeze(-1) & on.unsqueeze(-2)
        system = torch.where(both, gram[left], 0) + eye * torch.where(on, RIDGE, 1).unsqueeze(-1)
        factor = torch.linalg.cholesky(system)
        z[left] = torch.cholesky_solve((target[left] * on).unsqueeze(-1), factor).squeeze(-1)
        gradient = (gram[left] @ z[left].unsqueeze(-1)).squeeze(-1) - target[left]
        wrong = torch.where(on, z[left] < 0, (gradient < -TOLERANCE / 10) & support[left])
        count = wrong.sum(-1)
        better = count < fewest[left]
        patience[left] = torch.where(better, PATIENCE, patience[left] - 1)
        fewest[left] = torch.where(better, count, fewest[left])
        last = places == (wrong * places).amax(-1, keepdim=True)
        positive[left] ^= wrong & (last | (patience[left] >= 0).unsqueeze(-1))
        left = left[count > 0]
        if not len(left):
            break
    return z.clamp(min=0)


@torch.no_grad()
def optimality_gap(
    sae: SAE, x: Float[Tensor, "n d_in"], latents: Float[Tensor, "n d_sae"], refined: Float[Tensor, "n d_sae"]
) -> float:
    """max |z - max(z - g, 0)| over tokens and active latents, g = (z W_dec + b_dec - x) W_dec^T the gradient at the
    refined z: 0 exactly where z is the minimum (Karush, Kuhn, Tucker). In float64, as `refine`."""
    W_dec, b_dec, gap = sae.W_dec.double(), sae.b_dec.double(), 0.0
    for z, at, before in zip(*(t.split(REFIT_AT_ONCE) for t in (refined.double(), x, latents)), strict=True):
        gradient = (z @ W_dec + b_dec - at) @ W_dec.T
        violation = (z - (z - gradient).clamp(min=0)).abs() * (before > 0)
        gap = max(gap, violation.max().item())
    return gap


def keep_largest(pre: Float[Tensor, "n d_sae"], k: int) -> Float[Tensor, "n d_sae"]:
    """TopK(k') at test time: the k' largest pre-activations per token, then ReLU; so fewer than k' can be active."""
    top = pre.topk(min(k, pre.shape[1]))
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())


def keep_above(pre: Float[Tensor, "n d_sae"], threshold: float) -> Float[Tensor, "n d_sae"]:
    """JumpReLU at test time, one threshold for all latents: pre where it exceeds the threshold, else 0."""
    return pre.masked_fill(pre <= threshold, 0)


@torch.no_grad()
def positives(sae: SAE, x: Float[Tensor, "n d_in"]) -> Int[Tensor, " n"]:
    """Number of positive pre-activations of each token: no rule makes more latents active."""
    return torch.cat([(sae.pre(part) > 0).sum(-1) for part in x.split(max(LATENTS_AT_ONCE // sae.d_sae, 1))])


@torch.no_grad()
def thresholds(sae: SAE, x: Float[Tensor, "n d_in"], l0: Sequence[float]) -> list[float]:
    """For each wanted mean L0 the threshold that so many pre-activations per token of `x` exceed; 0 where fewer are
    positive. What it gives is to be measured on other tokens."""
    ends = [round(wanted * len(x)) for wanted in l0]
    if min(ends) < 1:
        raise ValueError(f"l0 must be above 1 / {len(x)} (tokens), got {min(l0)}")
    chunk = max(LATENTS_AT_ONCE // sae.d_sae, 1)
    positive = torch.cat([pre[pre > 0] for pre in map(sae.pre, x.split(chunk))])
    largest = positive.topk(min(max(ends) + 1, len(positive))).values
    return [largest[end - 1 : end + 1].mean().item() if end < len(positive) else 0.0 for end in ends]


@torch.no_grad()
def reconstructions(
    sae: SAE, x: Float[Tensor, "n d_in"], rules: Sequence[Callable[[Tensor], Tensor]]
) -> list[tuple[Tensor, float]]:
    """Reconstruction (n, d_in) and mean L0 of normalised activations, per rule from pre-activations to latents."""
    recon = [torch.empty_like(x) for _ in rules]
    active = [0] * len(rules)
    chunk = max(LATENTS_AT_ONCE // sae.d_sae, 1)
    for begin in range(0, len(x), chunk):
        pre = sae.pre(x[begin : begin + chunk])
        for i, rule in enumerate(rules):
            latents = rule(pre)
            recon[i][begin : begin + chunk] = sae.decode(latents)
            active[i] += int((latents != 0).sum())
    return [(one, count / len(x)) for one, count in zip(recon, active, strict=True)]


@torch.no_grad()
def largest_reconstructions(sae: SAE, x: Float[Tensor, "n d_in"], ks: Sequence[int]) -> list[tuple[Tensor, float]]:
    """As `reconstructions` for `keep_largest` at ascending ks, from one sort: each k adds to the one before."""
    if list(ks) != sorted(ks):
        raise ValueError(f"ks must ascend, got {ks}")
    recon = [torch.empty_like(x) for _ in ks]
    active = [0] * len(ks)
    chunk = max(LATENTS_AT_ONCE // sae.d_sae, 1)
    for begin in range(0, len(x), chunk):
        top = sae.pre(x[begin : begin + chunk]).topk(min(ks[-1], sae.d_sae))
        chosen, values = top.indices, top.values.relu()
        so_far = sae.b_dec.expand(len(values), -1)
        for i, (last, k) in enumerate(pairwise((0, *ks))):
            more = slice(last, k)
            if k > last:
                weights = values[:, more].contiguous()
                so_far = so_far + embedding_bag(chosen[:, more], sae.W_dec, per_sample_weights=weights, mode="sum")
            recon[i][begin : begin + chunk] = so_far
            active[i] += int((values[:, :k] > 0).sum())
    return [(one, count / len(x)) for one, count in zip(recon, active, strict=True)]


def patch(sae: SAE, code: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Raw activations to their reconstruction from `code`, a map of normalised activations to latents: what
    `downstream` takes."""

    @torch.no_grad()
    def reconstruct(activations: Tensor) -> Tensor:
        x, _, undo = sae.normalise(activations)
        return undo(sae.decode(code(x)))

    return reconstruct
