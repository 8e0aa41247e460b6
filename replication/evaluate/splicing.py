"""The harm of reconstructions where the first positions of a context are none of the SAE's business.

Position 0 of a context has activations of a kind and a size of their own, and Gemma Scope neither trains on them nor
counts them. An SAE that never saw them must not be asked for them: here they stay as they are.
"""

from collections.abc import Callable
from functools import lru_cache

import torch

from replication.activations import LanguageModelActivations
from replication.evaluate.downstream import BLOCKS, ByBlock, by_block
from replication.shapes import Float, Tensor

Reconstruct = Callable[[Float[Tensor, "n d"]], Float[Tensor, "n d"]]


def spliced(
    source: LanguageModelActivations,
    reconstruct: Reconstruct,
    blocks: int = BLOCKS,
    device: str = "cpu",
    *,
    by_context: bool = False,
) -> dict[str, float | list[float]]:
    """`downstream` with the activations at positions below `source.skip_first` left as they are, in the two controls
    too, and with means over the predictions from the other positions, the only ones that change.

    `delta_ce`, `kl`, `delta_ce_zero` and `delta_ce_mean` in nats per token (Lieberum et al. 2024, sec. 4.1: the first
    of these is their delta LM loss; whether they leave BOS as it is when they splice is not said); `ce` is that of the
    untouched model at all positions. No `loss_recovered` and no `compute_share`. With `by_context` also
    `delta_ce_contexts`, which is `delta_ce` of each context on its own.
    """
    harm = _harm(source, reconstruct, blocks, device)
    found = {name: values.mean().item() for name, values in harm._asdict().items()}
    if by_context:
        found["delta_ce_contexts"] = [round(rise, 6) for rise in harm.delta_ce.tolist()]
    return found | _ablated(source, blocks, device)


def behind_the_first(source: LanguageModelActivations, reconstruct: Reconstruct) -> Reconstruct:
    """`reconstruct` on rows of whole contexts, those at positions below `source.skip_first` unchanged."""

    def patched(rows: Tensor) -> Tensor:
        position = torch.arange(len(rows), device=rows.device) % source.context
        return torch.where((position < source.skip_first)[:, None], rows, reconstruct(rows))

    return patched


def _harm(source: LanguageModelActivations, reconstruct: Reconstruct, blocks: int, device: str) -> ByBlock:
    """`ce` of each context, and `delta_ce` and `kl` per prediction that can change."""
    ce, rise, kl = by_block(source, behind_the_first(source, reconstruct), blocks, device)
    predictions = source.context - 1
    share = (predictions - source.skip_first) / predictions
    return ByBlock(ce, rise / share, kl / share)


@lru_cache(maxsize=64)
def _ablated(source: LanguageModelActivations, blocks: int, device: str) -> dict[str, float]:
    mean = source.heldout(device).mean(0)
    controls = {"delta_ce_zero": torch.zeros_like, "delta_ce_mean": lambda rows: mean.expand_as(rows)}
    return {name: _harm(source, replaced, blocks, device).delta_ce.mean().item() for name, replaced in controls.items()}
