"""Latents of one SAE, looked at one by one: what the dashboard shows, and a summary of it. No claim rests on it."""

from collections.abc import Iterator

import numpy as np

from replication.evaluate.dashboard import described
from replication.papers.gao2024.grid import GRIDS, KEY, make_run
from replication.results import Study
from replication.store import trained
from replication.train import Run

K = {"smoke": 8, "cpu": 16, "gpu": 32, "paper": 32}


def latents_runs(preset: str) -> list[Run]:
    """One SAE of the frontier: TopK at the largest dictionary, first seed."""
    return [make_run(preset, "topk", max(GRIDS[preset][0]), K[preset], seed=0)]


def measure_latents(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Summaries over the latents of each run."""
    for one in trained(runs):
        yield one.run, summary(described(one.run)) | one.log


def summary(found: dict) -> dict:
    """What `described` found, in few numbers. Means are over the latents that have top contexts; nats.

    `never_active`: share of latents without an active token in the held-out text; `density_median`: median share of
    active tokens. `removed`: rise of the next token's loss when a latent is taken away at its largest activations;
    control: `removed_random`, a random direction of equal length. `removed_above`: share of the latents whose removal
    costs more than that control. `gain`: mean over the known properties of the text of the best latent's F1 above
    chance; control: `gain_untrained`, the best latent of the same SAE untrained. 0 where nothing is known.
    """
    latents = found["sae"]["latents"]
    costs = np.array([(one["removed"], one["random"]) for one in latents if one["removed"] is not None]).reshape(-1, 2)
    labels = [one for one in found["labels"] if one["share"]]
    density = np.array([one["density"] for one in latents])
    return {
        "latents": len(latents),
        "heldout_tokens_read": int(np.size(found["tokens"])),
        "never_active": float((density == 0).mean()),
        "density_median": float(np.median(density)),
        "removed": float(costs[:, 0].mean()),
        "removed_random": float(costs[:, 1].mean()),
        "removed_above": float((costs[:, 0] > costs[:, 1]).mean()),
        "properties": len(labels),
        "gain": float(np.mean([one["scores"][0] - one["scores"][1] for one in labels])) if labels else 0.0,
        "gain_untrained": float(np.mean([one["untrained"] for one in labels])) if labels else 0.0,
    }


def seen(preset: str) -> dict:
    """What is known of every latent of the preset's SAE; computed if it is not stored."""
    [run] = latents_runs(preset)
    return described(run)


def in_words(row) -> dict[str, str]:
    """The columns of `summary` as a reader says them."""
    return {
        "latents": f"{row.latents:,}; {100 * row.never_active:.1f} % of them are never active in "
        f"{row.heldout_tokens_read:,} held-out tokens",
        "density": f"{100 * row.density_median:.2g} % of tokens, median over latents",
        "removal": f"{row.removed:+.3f} nats on the loss of the next token, mean over latents, each at its largest "
        f"activations; a random direction of the same length: {row.removed_random:+.3f} nats",
        "above it": f"{100 * row.removed_above:.0f} % of latents cost more than the random direction",
        "properties": f"F1 above chance of the best latent: {row.gain:.2f}, mean over {row.properties} known "
        f"properties of the text; untrained: {row.gain_untrained:.2f}",
    }


LATENTS = Study(KEY, "latents", "Latents of one autoencoder, one by one", latents_runs, measure_latents)

STUDIES = (LATENTS,)

FIGURES = {}

CLAIMS = ()
