"""How latents behave: how often they are active, how evenly a token's prediction is spread over its active latents,
how well the token alone predicts them, and what depends on the position in the context.

The first two measures are those of the JumpReLU paper and of Gemma Scope (Lieberum et al. 2024, sec. 4, app. C.3).
"""

import contextlib
from functools import lru_cache
from typing import NamedTuple

import torch

from replication.activations import LanguageModelActivations
from replication.evaluate.downstream import AT_ONCE, BLOCKS, _Reached, heldout_blocks, subject
from replication.evaluate.explanations import Text, token_means
from replication.evaluate.splicing import Reconstruct, behind_the_first
from replication.language_models import LanguageModel, Patches
from replication.sae import SAE
from replication.shapes import Float, Int, Tensor

PLACES = 512  # tokens, each in a block of its own, that gradients are taken at
SCORED = 2**15  # held-out tokens that latents are scored on


# ------------------------------------------------------------------------------------------------------- uniformity


class Uniformity(NamedTuple):
    """How evenly importance is spread over the active latents of each token; NaN where all of it is 0."""

    effective: Tensor
    """(n,) e^S, the effective number of active latents, from 1 to the number of active ones."""
    ratio: Tensor
    """(n,) r_L0 = e^S / |y|_0, from 1 / |y|_0, one latent does it all, to 1, all do the same."""


def importance(
    latents: Float[Tensor, "n d_sae"], W_dec: Float[Tensor, "d_sae d"], gradient: Float[Tensor, "n d"]
) -> Float[Tensor, "n d_sae"]:
    """y_i = f_i (d_i . grad m): what m would lose, to first order, without latent i. Only its direction in the space of
    latents matters here: a scale, also that of a normalisation by one constant, drops out of `uniformity`.
    (Lieberum et al. 2024, eq. 12)
    """
    return latents * (gradient @ W_dec.T)


def uniformity(y: Float[Tensor, "n d_sae"]) -> Uniformity:
    """p_i = |y_i| / sum_j |y_j|,   S = -sum_i p_i ln p_i,   r_L0 = exp(-KL(p || u)) = e^S / |y|_0,

    u uniform over the latents with y_i != 0. (Lieberum et al. 2024, eqs. 13, 14)
    """
    p = y.abs() / y.abs().sum(-1, keepdim=True)
    effective = torch.special.entr(p).sum(-1).exp()
    return Uniformity(effective, effective / (y != 0).sum(-1))


class Gradients(NamedTuple):
    """Held-out places, one in each of some blocks, and what raises the correct logit there."""

    x: Tensor
    """(places, d) activation at the source's hook, as the language model has it."""
    gradient: Tensor
    """(places, d) of m = logit of the correct next token - mean logit, at this position, in the activation there."""


@lru_cache(maxsize=16)
def gradients(source: LanguageModelActivations, places: int = PLACES, device: str = "cpu") -> Gradients:
    """At the model's own activations: the same for every SAE of a source."""
    return _gradients(source, places, device)


def gradients_at_recon(
    source: LanguageModelActivations, reconstruct: Reconstruct, places: int = PLACES, device: str = "cpu"
) -> Gradients:
    """At the reconstructions, which replace the activations of the whole block (but those that `spliced` keeps)."""
    return _gradients(source, places, device, behind_the_first(source, reconstruct))


def _gradients(
    source: LanguageModelActivations, places: int, device: str, replace: Reconstruct | None = None
) -> Gradients:
    """One random position per block, never one that the source skips nor the last: a backward pass from several would
    mix what an activation does to its own prediction with what it does to later ones."""
    model, tokens = subject(source, device), heldout_blocks(source, places)
    generator = torch.Generator().manual_seed(0)
    at = torch.randint(source.skip_first, source.context - 1, (len(tokens),), generator=generator)
    found = []
    for part, here in zip(tokens.split(AT_ONCE), at.split(AT_ONCE), strict=True):
        rows = torch.arange(len(part))
        kept: list[Tensor] = []

        def patch(activation: Tensor, kept: list = kept) -> Tensor:
            new = activation if replace is None else replace(activation.flatten(0, 1)).view_as(activation)
            kept.extend((activation.detach(), new.detach().clone().requires_grad_()))
            return kept[1]

        with torch.enable_grad():
            last = _unembedded_input(model, part, {source.hook: patch})
            logits = model.module.get_output_embeddings()(last[rows, here])
            correct = logits[rows, part[rows, here + 1].to(logits.device)]
            (gradient,) = torch.autograd.grad((correct - logits.mean(-1)).sum(), kept[1])
        found.append((kept[0][rows, here], gradient[rows, here]))
    return Gradients(*map(torch.cat, zip(*found, strict=True)))


def _unembedded_input(
    model: LanguageModel, tokens: Int[Tensor, "batch pos"], patches: Patches
) -> Float[Tensor, "batch pos d_model"]:
    """What the unembedding reads, with its graph: the product with the vocabulary costs more than the rest of a small
    model, and is wanted at one position alone."""
    found: list[Tensor] = []

    def stop(_module, args: tuple) -> None:
        found.append(args[0])
        raise _Reached

    handle = model.module.get_output_embeddings().register_forward_pre_hook(stop)
    try:
        with contextlib.suppress(_Reached):
            model.logits(tokens, patches)
    finally:
        handle.remove()
    return found[0]


def diffusion(sae: SAE, source: LanguageModelActivations, places: int = PLACES, device: str = "cpu") -> dict:
    """Means over held-out tokens of e^S and r_L0, with the gradient at x and at the reconstruction.

    `effective_x`, `ratio_x`, `effective_recon`, `ratio_recon`; control `effective_other`, `ratio_other`: the gradient
    of another token, which knows nothing of this one. `active_here` = mean |y|_0 of the first. Tokens without an active
    latent are left out.
    """
    at_x = gradients(source, places, device)
    at_recon = gradients_at_recon(source, sae.reconstruct, places, device)
    with torch.no_grad():
        latents = sae.encode(sae.normalise(at_x.x).x)
    sides = {"x": at_x.gradient, "recon": at_recon.gradient, "other": at_x.gradient.roll(1, 0)}
    found = {"active_here": (latents != 0).sum(-1).float().mean().item()}
    for side, gradient in sides.items():
        spread = uniformity(importance(latents, sae.W_dec.detach(), gradient))
        found[f"effective_{side}"] = spread.effective.nanmean().item()
        found[f"ratio_{side}"] = spread.ratio.nanmean().item()
    return found


# -------------------------------------------------------------------------------------------- what the token tells


def heldout_tokens(source: LanguageModelActivations) -> Int[Tensor, " n"]:
    """The token of each row of `source.heldout()`."""
    blocks = heldout_blocks(source, source.heldout_tokens)
    return blocks[:, source.skip_first :].flatten()


def correlation(a: Float[Tensor, "n c"], b: Float[Tensor, "n c"]) -> Float[Tensor, " c"]:
    """Pearson's, of each column; NaN where one of the two is constant."""
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0))


def token_scores(
    latents: Float[Tensor, "n d_sae"], tokens: Int[Tensor, " n"], d_vocab: int, least: int
) -> Float[Tensor, " d_sae"]:
    """Correlation of each latent with its simulation by the explanation "the mean of the latent on this token".

    Means are taken on one half of the rows and judged on the other; the mean of both ways. NaN for a latent that is
    active on fewer than `least` tokens of a half. The scale is that of simulation scores: 1 = the token says all,
    0 = nothing. A latent that never leaves its token scores 1 however frequent the token is.
    """
    middle = len(tokens) // 2
    halves = [slice(0, middle), slice(middle, len(tokens))]
    found = []
    for fit, judged in (halves, halves[::-1]):
        means = token_means(Text(tokens[fit], latents[fit]), latents[fit], d_vocab)
        found.append(correlation(means[tokens[judged].to(means.device)], latents[judged]))
    enough = torch.stack([(latents[half] != 0).sum(0) for half in halves]).amin(0) >= least
    return torch.where(enough, torch.stack(found).mean(0).nan_to_num(0), torch.nan)


def at_frequencies(
    pre: Float[Tensor, "n d_sae"], frequency: Float[Tensor, " d_sae"], sample: int = 2**13
) -> Float[Tensor, "n d_sae"]:
    """Pre-activations as latents of given frequencies: ReLU(pre) where pre is above its own quantile 1 - frequency,
    read off about `sample` evenly spaced rows. A latent is never active where pre is below 0, so that a frequency may
    come out smaller.

    Made for the pre-activations of an untrained SAE: what a score would be without training, at equal frequency.
    """
    ordered = pre[:: max(1, len(pre) // sample)].T.sort(dim=-1).values
    place = ((1 - frequency) * (ordered.shape[1] - 1)).round().long()
    return pre.relu() * (pre > ordered.gather(1, place[:, None]).squeeze(1))


def in_bins(
    values: Float[Tensor, " n"], of: Float[Tensor, " n"], edges: Float[Tensor, " edges"]
) -> tuple[list[int], list[float | None]]:
    """How many `of` lie in each bin (from an edge up to, but without, the next; the last edge belongs to the last), and
    the mean of `values` there; None in an empty bin. Entries whose value is NaN are left out."""
    keep = ~values.isnan()
    place = torch.bucketize(of[keep].contiguous(), edges[1:-1].contiguous(), right=True)
    count = torch.bincount(place, minlength=len(edges) - 1)
    total = torch.zeros(len(count), device=count.device).index_add(0, place, values[keep].float())
    means = [t / n if n else None for t, n in zip(total.tolist(), count.tolist(), strict=True)]
    return count.tolist(), means


# ------------------------------------------------------------------------------------------ position in the context


@torch.no_grad()
def error_by_position(
    sae: SAE, source: LanguageModelActivations, device: str = "cpu"
) -> tuple[Float[Tensor, " pos"], Float[Tensor, " pos"]]:
    """E|x - recon|^2 of normalised held-out activations at each position that the source does not skip, and, its
    control, their variance there E|x - E x|^2 (the mean taken at the position)."""
    x = sae.normalise(source.heldout(device)).x
    error = torch.cat([(part - sae(part).recon).square().sum(-1) for part in x.split(2**13)])
    by_block = x.view(-1, source.context - source.skip_first, x.shape[-1])
    variance = (by_block - by_block.mean(0)).square().sum(-1).mean(0)
    return error.view(by_block.shape[:2]).mean(0), variance


def harm_by_position(
    source: LanguageModelActivations, reconstruct: Reconstruct, blocks: int = BLOCKS, device: str = "cpu"
) -> Float[Tensor, " pred"]:
    """Rise in cross-entropy (nats per token) of the prediction made at each position that the source does not skip, in
    the order of the context, with all of its activations replaced by reconstructions (see `splicing.spliced`)."""
    patch = behind_the_first(source, reconstruct)
    replaced = {source.hook: lambda x: patch(x.flatten(0, 1)).view_as(x)}
    batches = heldout_blocks(source, blocks).split(AT_ONCE)
    loss = torch.cat([subject(source, device).loss(part, replaced) for part in batches])
    return (loss - _clean_loss(source, blocks, device)).mean(0)[source.skip_first :]


@lru_cache(maxsize=4)
def _clean_loss(source: LanguageModelActivations, blocks: int, device: str) -> Float[Tensor, "blocks pred"]:
    return torch.cat([subject(source, device).loss(part) for part in heldout_blocks(source, blocks).split(AT_ONCE)])
