"""What the pages of this paper share: sizes, seeds, learning rates, and one way to make a run."""

from replication.papers.sources import SOURCES as SOURCES
from replication.train import Run

KEY = "gao2024"


SEEDS = (0, 1, 2)


GRIDS = {  # dictionary sizes, k of TopK, lambda of ReLU, training tokens, tokens per batch
    "smoke": ((64, 128), (4, 8), (0.1, 0.4), 2**14, 512),
    "cpu": ((256, 1024), (4, 8, 16, 32), (0.07, 0.18, 0.45), 3 * 2**18, 1024),
    "gpu": ((2**12, 2**15), (4, 8, 16, 32), (0.06, 0.14, 0.28, 0.5), 42 * 10**6, 4096),
    "paper": ((2**15, 2**17), (8, 16, 32, 64, 128), (1.7e-3, 3.1e-3, 5e-3, 1e-2, 1.7e-2), 64 * 10**8, 131072),
}


PENALISED = ("relu", "gated", "prolu")


def learning_rate(architecture: str, d_sae: int, preset: str) -> float:
    """TopK: 2e-4 (n / 2^14)^(-1/2) (Gao et al. 2024, fig. 3), times a factor for runs far shorter than the paper's.

    Methods with a penalty: one rate for all sizes. All factors come from a sweep by powers of two at the `cpu` size,
    each method at its own best rate; the log page has the numbers.
    """
    factor = {"smoke": 8, "cpu": 4, "gpu": 2, "paper": 1}[preset]
    if architecture == "topk":
        return factor * 2e-4 * (d_sae / 2**14) ** -0.5
    return {"smoke": 4e-3, "cpu": 4e-3, "gpu": 1e-3, "paper": 1e-4}[preset]


def make_run(preset: str, architecture: str, d_sae: int, sparsity: float, seed: int, **changes) -> Run:
    *_, tokens, batch = GRIDS[preset]
    return Run(
        SOURCES[preset],
        architecture,
        d_sae,
        sparsity,
        tokens=tokens,
        batch=batch,
        lr=learning_rate(architecture, d_sae, preset),
        dead_after=min(tokens // 8, 10**7),
        # a penalty at full strength from the start kills most of ReLU's latents (the log page has the numbers)
        sparsity_warmup=tokens // 4 if architecture in PENALISED else 0,
        normalisation="gao",
        seed=seed,
        data_seed=seed,
        **changes,
    )
