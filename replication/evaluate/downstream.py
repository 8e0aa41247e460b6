"""What reconstructions do to the language model: its loss and predictions with the activation of one site replaced."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch.nn.functional import kl_div

from replication import language_models
from replication.activations import LanguageModelActivations, spread
from replication.language_models import LanguageModel
from replication.paths import CACHE, MODELS
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


@lru_cache(maxsize=4)
def heldout_blocks(source: LanguageModelActivations, blocks: int = BLOCKS) -> Int[Tensor, "blocks context"]:
    """Held-out blocks of a source, as tokens, `spread` over all of its held-out text: consecutive ones would come from
    a few files. No more than `source.heldout()` has activations of."""
    text = source.corpus.build(subject(source).tokenizer).blocks("heldout", source.context)
    stored = -(-source.heldout_tokens // (source.context - source.skip_first))
    return torch.from_numpy(text[spread(len(text), min(blocks, stored))].astype("int64"))


def downstream(
    source: LanguageModelActivations,
    reconstruct: Callable[[Float[Tensor, "n d"]], Float[Tensor, "n d"]],
    blocks: int = BLOCKS,
    device: str = "cpu",
) -> dict[str, float | None]:
    """Loss of the language model with `reconstruct` applied to the activation at the source's hook, at every position.

    All in nats per predicted token, over `blocks` held-out blocks (see `heldout_blocks`):

    `ce` of the model as it is, `delta_ce` = ce with reconstructions - ce, `kl` = E KL(p of the model | p with
    reconstructions); controls: `delta_ce_zero` and `delta_ce_mean`, with the activation replaced by 0 and by its mean.
    `loss_recovered` = 1 - delta_ce / delta_ce_zero, the lenient measure, and `compute_share`, the strict one (see
    `compute_share`; None where the model's training left no record). (Gao et al. 2024, sec. 4.1; the direction of KL
    is not published.)
    """
    ce, zero, mean = _references(source, blocks, device)
    found = by_block(source, reconstruct, blocks, device)
    delta = found.delta_ce.mean().item()
    curve = training_curve(source.model)
    return {
        "ce": ce,
        "delta_ce": delta,
        "kl": found.kl.mean().item(),
        "delta_ce_zero": zero - ce,
        "delta_ce_mean": mean - ce,
        "loss_recovered": 1 - delta / (zero - ce),
        "compute_share": compute_share(delta, curve) if curve else None,
    }


class ByBlock(NamedTuple):
    """What `downstream` averages, for each held-out block on its own; `delta_ce` may be negative."""

    ce: Float[Tensor, " blocks"]
    delta_ce: Float[Tensor, " blocks"]
    kl: Float[Tensor, " blocks"]


def by_block(
    source: LanguageModelActivations,
    reconstruct: Callable[[Float[Tensor, "n d"]], Float[Tensor, "n d"]],
    blocks: int = BLOCKS,
    device: str = "cpu",
) -> ByBlock:
    """`ce`, `delta_ce` and `kl` of `downstream` by held-out block: what an interval over text is made of."""
    model, found = subject(source, device), []
    batches = heldout_blocks(source, blocks).split(AT_ONCE)
    for tokens, clean in zip(batches, _clean(source, blocks, device), strict=True):
        patched = _log_probabilities(model, tokens, source.hook, reconstruct)
        ce, rise = _losses(clean, tokens), _losses(patched, tokens) - _losses(clean, tokens)
        kl = kl_div(patched, clean, reduction="none", log_target=True).sum(-1)[:, :-1]
        found.append([part.view(len(tokens), -1).mean(1) for part in (ce, rise, kl)])
    return ByBlock(*map(torch.cat, zip(*found, strict=True)))


def compute_share(rise: float, curve: Sequence[tuple[float, float]]) -> float:
    """Share of its training after which the language model's own loss was `rise` nats above its last one.

    `curve`: (tokens, loss) marks of the training. The loss is made non-increasing first (isotonic regression: marks
    are noisy), then ln tokens is interpolated linearly in the loss. Every token costs the same compute, so this is a
    share of compute. No rise gives 1; a rise beyond the first mark gives that mark's share, an upper bound.

    The curve comes from other held-out text than `rise`, so only differences of loss are compared. Its marks lie
    inside a learning-rate decay; a run that ended there would have a lower loss, so that the share is overstated.
    """
    tokens, loss = np.array(curve, dtype=float).T
    if rise <= 0:
        return 1.0
    smooth = isotonic_regression(loss, increasing=False).x
    share = np.log(tokens / tokens[-1])
    return float(np.exp(np.interp(rise, (smooth - smooth[-1])[::-1], share[::-1])))


def training_curve(model: str) -> list[tuple[int, float]]:
    """(tokens, loss in nats per token) marks of the training of a language model of this book; [] without a record.

    Held-out loss; where the record has that at its end alone (pygpt-7m), training loss.
    """
    files = (folder / model / "train_log.json" for folder in (MODELS, CACHE / "models"))
    found = next((json.loads(file.read_text()) for file in files if file.is_file()), {"log": []})
    return [(row["tokens"], row["val_loss"]) if isinstance(row, dict) else (row[1], row[2]) for row in found["log"]]


class _Reached(Exception):
    """Raised where the unembedding would begin."""


@torch.no_grad()
def logits_at(
    model: LanguageModel,
    tokens: Int[Tensor, "batch pos"],
    at: Int[Tensor, "batch some"],
    patches: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
) -> Float[Tensor, "batch some d_vocab"]:
    """`model.logits` at the positions `at` of each row alone: in a small language model, the product with the
    vocabulary costs more than all of its blocks."""
    unembed = model.module.get_output_embeddings()
    found: list[Tensor] = []

    def stop(_module, args: tuple) -> None:
        found.append(args[0])
        raise _Reached

    handle = unembed.register_forward_pre_hook(stop)
    try:
        with contextlib.suppress(_Reached):
            model.logits(tokens, patches)
    finally:
        handle.remove()
    rows = torch.arange(len(at), device=found[0].device)[:, None]
    return unembed(found[0][rows, at.to(rows.device)])


@torch.no_grad()
def _log_probabilities(
    model: LanguageModel, tokens: Tensor, hook: str = "", replace: Callable[[Tensor], Tensor] | None = None
) -> Float[Tensor, "batch pos d_vocab"]:
    def patch(activation: Tensor) -> Tensor:
        return replace(activation.flatten(0, 1)).view_as(activation)

    return model.logits(tokens, {hook: patch} if replace else None).log_softmax(-1)


def _losses(
    log_probabilities: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, " n"]:
    """-ln p of every token but the first of each row."""
    following = tokens[:, 1:, None].to(log_probabilities.device)
    return -log_probabilities[:, :-1].gather(-1, following).flatten()


@lru_cache(maxsize=1)
def _clean(source: LanguageModelActivations, blocks: int, device: str) -> list[Tensor]:
    """Log-probabilities of the model as it is, AT_ONCE blocks each: every SAE of a study is compared with them."""
    model = subject(source, device)
    return [_log_probabilities(model, tokens) for tokens in heldout_blocks(source, blocks).split(AT_ONCE)]


@lru_cache(maxsize=16)
def _references(source: LanguageModelActivations, blocks: int, device: str) -> tuple[float, float, float]:
    """Loss of the model as it is, with the activation at 0, and with it at its mean over the same tokens."""
    model, hook = subject(source, device), source.hook
    batches = heldout_blocks(source, blocks).split(AT_ONCE)
    mean = torch.cat([model.activations(tokens, [hook])[hook].flatten(0, 1) for tokens in batches]).mean(0)
    replacements = None, torch.zeros_like, lambda rows: mean.expand_as(rows)
    return tuple(
        torch.cat([_losses(_log_probabilities(model, t, hook, one), t) for t in batches]).mean().item()
        for one in replacements
    )
