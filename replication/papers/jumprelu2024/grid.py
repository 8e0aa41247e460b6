"""What the pages of these papers share: sites, layers, settings of a run."""

from dataclasses import replace

import pandas as pd

from replication.activations import LanguageModelActivations
from replication.papers.sources import SOURCES
from replication.train import Run

KEY = "jumprelu2024"

SEEDS = (0, 1, 2)

SITES = {"attn": "blocks.{}.attn.hook_z", "mlp": "blocks.{}.hook_mlp_out", "res": "blocks.{}.hook_resid_post"}
"""Where Gemma Scope reads (sec. 3.1): heads before W_O, concatenated; MLP output; residual stream after the MLP."""
LAYERS = {"smoke": (0, 1), "cpu": (0, 1, 2, 3), "gpu": (0, 1, 2, 3, 4, 5), "paper": tuple(range(12))}
TRAINING = {  # training tokens, tokens per batch, learning rate of JumpReLU
    "smoke": (2**14, 512, 3e-3),
    "cpu": (3 * 2**18, 1024, 2e-3),
    "gpu": (42 * 10**6, 4096, 7e-4),
    "paper": (4 * 10**9, 4096, 7e-5),
}
"""The rate of `cpu` is from a sweep at one site, the residual stream after layer 2, 512 latents, lambda 3e-3, data seed
9, which is not reported: 1e-3, 2e-3 and 4e-3 gave FVU 0.163, 0.156 and 0.164 at L0 30, 29 and 26."""
LAMBDAS = {
    "smoke": (3e-3, 3e-2),
    "cpu": (1e-3, 3e-3, 8e-3, 2e-2),
    "gpu": (3e-4, 1e-3, 3e-3, 1e-2, 2e-2),
    "paper": (2e-4, 4e-4, 6e-4, 1e-3, 2e-3),
}
"""Of JumpReLU, for inputs with E|x|^2 = 1. Those of `cpu` span L0 of about 5 to 65: at the site and rate of the sweep
1e-3, 3e-3, 1e-2 and 3e-2 gave L0 66, 29, 10 (with a third of the tokens) and 3, and 1 % of the latents dead or fewer.
Of the papers' own, 6e-4 and 1e-3 are known; the others of `gpu` and `paper` are guesses."""
STORED = {"gpu": 4 * 10**6}  # activations kept per site: a longer run passes over them again; 18 sites fit on one disk


def source(preset: str, site: str, layer: int) -> LanguageModelActivations:
    """The subject of a preset at a site; all of them are harvested in one pass over the text.

    The first position of every context is left out, as the BOS token is in Gemma Scope (sec. 3.1): in the middle of a
    model its squared norm is a hundred times that of any other token, and it alone would set the one constant that
    makes E|x|^2 = 1. Where reconstructions are put into the model it stays as it is (`evaluate.splicing`).
    """
    whole = SOURCES[preset]
    return replace(
        whole, hook=SITES[site].format(layer), skip_first=1, tokens=min(STORED.get(preset, whole.tokens), whole.tokens)
    )


def with_place(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the columns `site` and `layer`, read from the hook of their source."""
    hook = rows.source.str.extract(r"hook='blocks\.(\d+)\.([^']+)'")
    names = {pattern.removeprefix("blocks.{}."): site for site, pattern in SITES.items()}
    return rows.assign(site=hook[1].map(names), layer=hook[0].astype(int))


def jumprelu_run(
    preset: str, where: LanguageModelActivations, d_sae: int, sparsity: float, seed: int, **changes
) -> Run:
    """A JumpReLU SAE as Gemma Scope trains it (sec. 3.2): E|x|^2 = 1, Adam with beta1 = 0, a cosine warm-up of the
    learning rate and a linear one of lambda.

    `changes` are further fields of the run; durations follow the tokens. A run as short as those of a CPU cannot move
    theta far at the paper's bandwidth of 0.001 and rate of 7e-5, so that both, and theta's start, are larger, and
    lambda grows over half the run.
    """
    tokens, batch, lr = TRAINING[preset]
    tokens = changes.get("tokens", tokens)
    options = {"bandwidth": 0.001, "threshold": 0.001} if preset == "paper" else {"bandwidth": 0.03, "threshold": 0.02}
    settings = {
        "tokens": tokens,
        "batch": batch,
        "lr": lr,
        "beta1": 0.0,
        "adam_eps": 1e-8,
        "lr_warmup": tokens // 20,
        "sparsity_warmup": tokens // 2,
        "dead_after": min(tokens // 8, 10**7),
        "normalisation": "gemma",
        "seed": seed,
        "data_seed": seed,
        "options": options | changes.pop("options", {}),
    }
    return Run(where, "jumprelu", d_sae, sparsity, **settings | changes)
