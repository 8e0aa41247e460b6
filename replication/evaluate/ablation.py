"""What single latents do: how sparse the change of the logits is when one active latent is taken away at one token.

Gao et al. 2024, sec. 4.5. The paper leaves open what the latent is taken away from; both readings are measured.
"""

from functools import lru_cache
from typing import NamedTuple

import torch

from replication.activations import LanguageModelActivations
from replication.evaluate.downstream import heldout_blocks, logits_at, subject
from replication.sae import SAE
from replication.shapes import Float, Int, Tensor

SPAN = 16
"""Positions over which an effect is read: that of the latent and the 15 after it."""
GAUSSIAN = 2 / torch.pi
"""What `effect_sparsity` gives for a long effect whose values are Gaussian: (E|v|)^2 / E v^2."""
POSITIONS, PER_POSITION = 64, 2  # tokens that latents are taken away from, each in a block of its own, and how many
BLOCKS = 512  # held-out blocks that places are drawn from
AT_ONCE = 32  # forward passes at a time


class Places(NamedTuple):
    """Where latents are taken away: one position in each of some held-out blocks, ordered by position."""

    tokens: Tensor
    """(places, context)"""
    at: Tensor
    """(places,) position; SPAN - 1 more follow in the block."""
    activations: Tensor
    """(places, context, d) at the source's hook, as the language model has them."""
    logits: Tensor
    """(places, SPAN, d_vocab) at the SPAN positions from `at` on, with nothing taken away."""


def effect_sparsity(effect: Float[Tensor, "n span d_vocab"]) -> Float[Tensor, " n"]:
    """(|v|_1 / |v|_2)^2 / (V T), v an effect on the logits of V words at T positions, from which the median over the
    words is subtracted at each position: a softmax does not see a constant.

    From 1 / (V T), one logit changes, to 1, all change by as much; Gaussian values give 2 / pi; no effect gives 0.
    (Gao et al. 2024, sec. 4.5)
    """
    v = (effect - effect.median(-1, keepdim=True).values).flatten(1)
    return v.abs().sum(-1).square() / v.square().sum(-1).clamp(min=1e-30) / v.shape[1]


def ablation_sparsity(
    sae: SAE,
    untrained: SAE,
    source: LanguageModelActivations,
    seed: int = 0,
    positions: int = POSITIONS,
    per_position: int = PER_POSITION,
    device: str = "cpu",
) -> dict[str, float]:
    """Mean `effect_sparsity` over `positions` held-out tokens and `per_position` active latents of each, by convention.

    `effect_residual`: the latent's share z_i d_i, on the scale of the model, is subtracted from the true activation;
    `effect_reconstruction`: it is left out of the reconstruction, which stands at all positions of the block, with and
    without the latent. Controls: `effect_channels`, one channel of the true activation set to 0, and
    `effect_untrained`, as `effect_residual` for the SAE before its first step. Each has a second column ending in
    `_here`, for the logits at the token itself alone (T = 1). `seed` draws tokens, latents and channels.
    """
    places = _places(source, seed, positions, device)
    generator = torch.Generator().manual_seed(seed)
    place, latent = _active(sae, places, per_position, generator)
    taken = _share(sae, places, place, latent)
    rebuilt = sae.reconstruct(places.activations.flatten(0, 1)).view_as(places.activations).detach()
    random = _active(untrained, places, per_position, generator)
    found = {
        "residual": _sparsity(source, places, place, taken),
        "reconstruction": _sparsity(source, _with(source, places, rebuilt), place, taken),
        "channels": _channels(source, seed, positions, per_position, device),
        "untrained": _sparsity(source, places, random[0], _share(untrained, places, *random)),
    }
    return {f"effect_{name}{suffix}": pair[i] for i, suffix in enumerate(("", "_here")) for name, pair in found.items()}


@lru_cache(maxsize=4)
def _places(source: LanguageModelActivations, seed: int, positions: int, device: str) -> Places:
    """Up to `positions` places in as many held-out blocks, drawn by `seed`; never the first token of a block."""
    if source.context <= SPAN:
        raise ValueError(f"context must be longer than the {SPAN} positions of an effect, got {source.context}")
    generator = torch.Generator().manual_seed(seed)
    blocks = heldout_blocks(source, BLOCKS)
    tokens = blocks[torch.randperm(len(blocks), generator=generator)[:positions]]
    at = torch.randint(1, source.context - SPAN + 1, (len(tokens),), generator=generator).sort().values
    found = subject(source, device).activations(tokens, [source.hook])[source.hook]
    return _with(source, Places(tokens, at, found, found), found)


def _with(source: LanguageModelActivations, places: Places, base: Float[Tensor, "places pos d"]) -> Places:
    """The same places with other activations, and the logits that follow from them."""
    every = torch.arange(len(base)).split(AT_ONCE)
    return places._replace(
        activations=base, logits=torch.cat([_logits(source, places, part, base[part]) for part in every])
    )


@lru_cache(maxsize=4)
def _channels(
    source: LanguageModelActivations, seed: int, positions: int, per_position: int, device: str
) -> tuple[float, float]:
    """The control that does not depend on an SAE: single channels of the activation set to 0."""
    places = _places(source, seed, positions, device)
    width = places.activations.shape[-1]
    place = torch.arange(len(places.at)).repeat_interleave(per_position)
    channel = torch.randint(width, (len(place),), generator=torch.Generator().manual_seed(seed))
    here = places.activations[place, places.at[place]]
    taken = here * torch.nn.functional.one_hot(channel, width).to(here)
    return _sparsity(source, places, place, taken)


@torch.no_grad()
def _active(
    sae: SAE, places: Places, per_position: int, generator: torch.Generator
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Up to `per_position` active latents of each place, drawn at random: numbers of place and latent."""
    here = places.activations[torch.arange(len(places.at)), places.at]
    on = (sae(sae.normalise(here).x).latents > 0).cpu()
    order = torch.rand(on.shape, generator=generator).masked_fill(~on, -1)
    drawn = order.topk(min(per_position, on.shape[1]), dim=-1)
    place, column = (drawn.values >= 0).nonzero(as_tuple=True)
    return place, drawn.indices[place, column]


@torch.no_grad()
def _share(sae: SAE, places: Places, place: Int[Tensor, " n"], latent: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """What each latent adds to the reconstruction, on the scale of the model: undo(recon) - undo(recon - z_i d_i)."""
    x, _, undo = sae.normalise(places.activations[place, places.at[place]])
    out = sae(x)
    latent = latent.to(x.device)
    part = out.latents.gather(1, latent[:, None]) * sae.W_dec[latent]
    return undo(out.recon) - undo(out.recon - part)


def _sparsity(
    source: LanguageModelActivations, places: Places, place: Int[Tensor, " n"], taken: Float[Tensor, "n d"]
) -> tuple[float, float]:
    """Mean sparsity, over SPAN positions and over the first alone, of the effects of subtracting each row of `taken`
    from the activation at its place."""
    if not len(place):
        raise ValueError("no latent is active at any of the positions: there is no effect to measure")
    found = []
    for rows in torch.arange(len(place)).split(AT_ONCE):
        part = place[rows]
        changed = places.activations[part]
        changed[torch.arange(len(part)), places.at[part]] -= taken[rows.to(taken.device)]
        effect = _logits(source, places, part, changed) - places.logits[part]
        found.append(torch.stack([effect_sparsity(effect), effect_sparsity(effect[:, :1])]))
    return tuple(torch.cat(found, dim=1).mean(1).tolist())


@torch.no_grad()
def _logits(
    source: LanguageModelActivations, places: Places, place: Int[Tensor, " n"], activations: Float[Tensor, "n pos d"]
) -> Float[Tensor, "n span d_vocab"]:
    """Logits at the SPAN positions from each place on, with `activations` at the source's hook."""
    at = places.at[place]
    end = int(at.max()) + SPAN  # nothing behind the last of them is asked for
    model = subject(source, str(activations.device))
    patch = {source.hook: lambda _: activations[:, :end]}
    return logits_at(model, places.tokens[place, :end], at[:, None] + torch.arange(SPAN), patch)
