"""What reconstructions do to the language model: its loss and predictions with the activation of one site replaced."""

from collections.abc import Callable
from functools import lru_cache

import torch

from replication import language_models
from replication.activations import LanguageModelActivations
from replication.language_models import LanguageModel, next_token_loss
from replication.shapes import Float, Int, Tensor

BLOCKS = 128
"""Held-out blocks that a downstream loss is averaged over, unless asked otherwise."""
AT_ONCE = 32  # blocks per forward pass


def subject(source: LanguageModelActivations, device: str = "cpu") -> LanguageModel:
    """The language model behind a source, in float32."""
    return _loaded(source.model, device)


@lru_cache(maxsize=2)
def _loaded(name: str, device: str) -> LanguageModel:
    return language_models.load(name, device=device, backend="fastest")


def heldout_blocks(source: LanguageModelActivations, blocks: int = BLOCKS) -> Int[Tensor, "blocks context"]:
    """The first held-out blocks of a source, as tokens: those whose activations `source.heldout()` begins with."""
    text = source.corpus.build(subject(source).tokenizer)
    return torch.from_numpy(text.blocks("heldout", source.context)[:blocks].astype("int64"))


def downstream(
    source: LanguageModelActivations,
    reconstruct: Callable[[Float[Tensor, "n d"]], Float[Tensor, "n d"]],
    blocks: int = BLOCKS,
    device: str = "cpu",
) -> dict[str, float]:
    """Loss of the language model with `reconstruct` applied to the activation at the source's hook, at every position.

    All in nats per predicted token, over the first `blocks` held-out blocks:

    `ce` of the model as it is, `delta_ce` = ce with reconstructions - ce, `kl` = E KL(p of the model | p with
    reconstructions); controls: `delta_ce_zero` and `delta_ce_mean`, with the activation replaced by 0 and by its mean.
    `loss_recovered` = 1 - delta_ce / delta_ce_zero, the lenient measure. (Gao et al. 2024, sec. 4.1; the direction of
    KL is not published.)
    """
    model, hook = subject(source, device), source.hook
    losses, divergences = [], []
    for tokens in heldout_blocks(source, blocks).split(AT_ONCE):
        clean, patched = _log_probabilities(model, tokens), _log_probabilities(model, tokens, hook, reconstruct)
        divergences.append((clean.exp() * (clean - patched)).sum(-1)[:, :-1].flatten())
        losses.append(next_token_loss(patched, tokens).flatten())
    ce, zero, mean = _references(source, blocks, device)
    delta = torch.cat(losses).mean().item() - ce
    return {
        "ce": ce,
        "delta_ce": delta,
        "kl": torch.cat(divergences).mean().item(),
        "delta_ce_zero": zero - ce,
        "delta_ce_mean": mean - ce,
        "loss_recovered": 1 - delta / (zero - ce),
    }


@torch.no_grad()
def _log_probabilities(
    model: LanguageModel, tokens: Tensor, hook: str = "", replace: Callable[[Tensor], Tensor] | None = None
) -> Float[Tensor, "batch pos d_vocab"]:
    def patch(activation: Tensor) -> Tensor:
        return replace(activation.flatten(0, 1)).view_as(activation)

    return model.logits(tokens, {hook: patch} if replace else None).log_softmax(-1)


@lru_cache(maxsize=16)
def _references(source: LanguageModelActivations, blocks: int, device: str) -> tuple[float, float, float]:
    """Loss of the model as it is, with the activation at 0, and with it at its mean over the same tokens."""
    model, hook = subject(source, device), source.hook
    batches = heldout_blocks(source, blocks).split(AT_ONCE)
    mean = torch.cat([model.activations(tokens, [hook])[hook].flatten(0, 1) for tokens in batches]).mean(0)
    replacements = None, torch.zeros_like, lambda rows: mean.expand_as(rows)
    return tuple(
        torch.cat([next_token_loss(_log_probabilities(model, t, hook, one), t).flatten() for t in batches])
        .mean()
        .item()
        for one in replacements
    )
