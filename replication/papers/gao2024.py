"""Scaling and evaluating sparse autoencoders. Leo Gao, Tom Dupre la Tour, Henk Tillman, Gabriel Goh, Rajan Troll,
Alec Radford, Ilya Sutskever, Jan Leike, Jeffrey Wu. arXiv:2406.04093 (2024).

Claim:    keeping the k largest latents (TopK) reconstructs better than ReLU with an L1 penalty at the same number of
          active latents, the gap grows with the dictionary, and transpose initialisation with AuxK keeps latents alive.
Command:  replicate run gao2024 --preset cpu
Subject:  pygpt-2m (`cpu`), pygpt-7m (`gpu`), GPT-2 small on OpenWebText (`paper`).
Differs:  models of 2 to 7 million parameters instead of GPT-2 small and GPT-4; Python source instead of an undisclosed
          corpus; 10^6 to 4 x 10^7 tokens instead of 10^10 and more, and higher learning rates to match; batches of
          1,024 to 4,096 tokens instead of 131,072; no weight averaging; no resampling for the ReLU baseline; the
          encoder starts at the scale that fits the data, for both architectures.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd

from replication.activations import LanguageModelActivations
from replication.claims import Claim, Evidence, NoEvidence, both, interpolate_loglog, judge, mean_interval
from replication.corpora import HubDataset, PythonSource
from replication.evaluate.reconstruction import reconstruction
from replication.results import Study
from replication.train import Run, train

KEY = "gao2024"
TITLE = "Scaling and evaluating sparse autoencoders"
SEEDS = (0, 1, 2)
NOTHING = (float("nan"),) * 3  # statistic and interval of a void claim
DYING = 0.01  # below this share of dead latents there is nothing to keep alive

# ---------------------------------------------------------------------------------------------------------------- runs

SOURCES = {
    "smoke": LanguageModelActivations(
        "pygpt-0.5m", "blocks.1.hook_resid_pre", PythonSource(max_files=60), tokens=2**14, heldout_tokens=2**11
    ),
    "cpu": LanguageModelActivations(
        "pygpt-2m", "blocks.2.hook_resid_post", PythonSource(), tokens=3 * 2**18, heldout_tokens=2**15
    ),
    "gpu": LanguageModelActivations(
        "pygpt-7m",
        "blocks.3.hook_resid_post",
        PythonSource(("stdlib", "site-packages")),
        tokens=42 * 10**6,
        heldout_tokens=2**18,
    ),
    # the hub's own parquet copy: a data set with a loading script does not load any more. What is stored fits on one
    # GPU, so that the paper's number of tokens means many epochs over it.
    "paper": LanguageModelActivations(
        "openai-community/gpt2",
        "blocks.8.hook_resid_post",
        HubDataset("Skylion007/openwebtext", revision="refs/convert/parquet", max_documents=100_000),
        tokens=5 * 10**7,
        heldout_tokens=2**20,
    ),
}
GRIDS = {  # dictionary sizes, k of TopK, lambda of ReLU, training tokens, tokens per batch
    "smoke": ((64, 128), (4, 8), (0.1, 0.4), 2**14, 512),
    "cpu": ((256, 1024), (4, 8, 16, 32), (0.06, 0.14, 0.28, 0.5), 3 * 2**18, 1024),
    "gpu": ((2**12, 2**15), (4, 8, 16, 32), (0.06, 0.14, 0.28, 0.5), 42 * 10**6, 4096),
    "paper": ((2**15, 2**17), (8, 16, 32, 64, 128), (1.7e-3, 3.1e-3, 5e-3, 1e-2, 1.7e-2), 64 * 10**8, 131072),
}


def learning_rate(architecture: str, d_sae: int, preset: str) -> float:
    """TopK: 2e-4 (n / 2^14)^(-1/2) (Gao et al. 2024, fig. 3), times a factor for runs far shorter than the paper's.

    ReLU: one rate for all sizes. Both factors come from a sweep by powers of two at the `cpu` size, each method at its
    own best rate; the log page has the numbers.
    """
    factor = {"smoke": 8, "cpu": 4, "gpu": 2, "paper": 1}[preset]
    if architecture == "topk":
        return factor * 2e-4 * (d_sae / 2**14) ** -0.5
    return {"smoke": 4e-3, "cpu": 4e-3, "gpu": 1e-3, "paper": 1e-4}[preset]


def _run(preset: str, architecture: str, d_sae: int, sparsity: float, seed: int, **changes) -> Run:
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
        sparsity_warmup=tokens // 4 if architecture == "relu" else 0,
        normalisation="gao",
        seed=seed,
        data_seed=seed,
        **changes,
    )


def frontier_runs(preset: str) -> list[Run]:
    """Figure 2: TopK over k and ReLU over lambda, at two dictionary sizes."""
    sizes, ks, lambdas, *_ = GRIDS[preset]
    return [
        _run(preset, architecture, n, sparsity, seed)
        for seed, n in product(SEEDS, sizes)
        for architecture, sparsities in (("topk", ks), ("relu", lambdas))
        for sparsity in sparsities
    ]


def dead_latents_runs(preset: str) -> list[Run]:
    """Figure 15: transpose initialisation and AuxK, each on and off, at the largest dictionary and the smallest k."""
    sizes, ks, *_ = GRIDS[preset]
    return [
        _run(preset, "topk", max(sizes), min(ks), seed, tied_init=tied, options={} if aux else {"aux_coefficient": 0.0})
        for seed, tied, aux in product(SEEDS, (True, False), (True, False))
    ]


def measure(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Train each run, then measure it on held-out activations."""
    for trained in train(runs):
        heldout = trained.run.source.heldout(str(trained.mean.device))
        yield trained.run, reconstruction(trained, heldout) | trained.log


FRONTIER = Study(KEY, "frontier", "Reconstruction error against sparsity", frontier_runs, measure)
DEAD_LATENTS = Study(KEY, "dead-latents", "What keeps latents alive", dead_latents_runs, measure)
STUDIES = (FRONTIER, DEAD_LATENTS)

PUBLISHED_FRONTIER = {"l0": (10, 100), "nmse": (0.4, 0.6), "label": "range of Fig. 2a (GPT-2 small, n = 32,768)"}
"""Read off the axes of Figure 2a; the text gives no numbers."""


FIGURES = {  # name -> (study, function of the figures module, what it takes from the study's table)
    "frontier": (FRONTIER, "frontier", lambda rows: (rows, PUBLISHED_FRONTIER)),
    "error-gap": (FRONTIER, "error_gap", lambda rows: (error_gap(rows),)),
    "training-curves": (FRONTIER, "training_curves", lambda rows: (rows,)),
    "dead-latents": (DEAD_LATENTS, "dead_latents", lambda rows: (rows,)),
}


# -------------------------------------------------------------------------------------------------------------- claims


COLLAPSED = 0.5  # a baseline with a larger share of dead latents proves nothing about the baseline


def error_gap(rows: pd.DataFrame) -> pd.DataFrame:
    """ln(NMSE of ReLU / NMSE of TopK) at each TopK run's L0, per dictionary size and seed; positive: TopK is better.

    ReLU is interpolated piecewise-linearly in ln NMSE against ln L0 and never extrapolated: outside its range of L0 the
    gap is NaN. Runs with more than COLLAPSED dead latents are left out.
    """
    parts = []
    for (n, seed), cell in rows[rows.dead <= COLLAPSED].groupby(["d_sae", "seed"]):
        topk, relu = (cell[cell.architecture == name].sort_values("l0") for name in ("topk", "relu"))
        at_topk = interpolate_loglog(relu.l0, relu.nmse, topk.l0) if len(relu) > 1 else np.nan
        gap = np.log(at_topk / topk.nmse.to_numpy())
        parts.append(topk[["l0"]].assign(d_sae=n, seed=seed, k=topk.sparsity, gap=gap))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["l0", "d_sae", "seed", "k", "gap"])


def late_gain(curve_tokens: list, curve_error: list) -> float:
    """Drop of ln(training error) over the last doubling of tokens: how far a run is from done."""
    before = interpolate_loglog(curve_tokens, curve_error, [curve_tokens[-1] / 2])[0]
    return float(np.log(before / curve_error[-1]))


def doubling_shift(rows: pd.DataFrame) -> float:
    """By how much one more doubling of tokens would change the gap, if the last one is a guide: late gain of TopK minus
    that of ReLU, means over runs. Negative: the gap would close."""
    gain = {
        name: np.mean([late_gain(*curve) for curve in zip(cell.curve_tokens, cell.curve_error, strict=True)])
        for name, cell in rows[rows.dead <= COLLAPSED].groupby("architecture")
    }
    return float(gain["topk"] - gain["relu"])


def _matched(rows: pd.DataFrame) -> pd.DataFrame | str:
    """The gap where L0 is matched, or the reason why the comparison is void."""
    gap = error_gap(rows)
    matched = gap.dropna()
    if len(matched) < 0.5 * rows[rows.architecture == "topk"].shape[0]:
        return f"only {len(matched)} TopK runs lie inside the L0 range of ReLU runs that did not collapse"
    shift = doubling_shift(rows)
    if 0 < matched.gap.mean() < -shift:
        return f"one more doubling of tokens would shift the gap by {shift:+.2f} and close it: ReLU is under-trained"
    return matched


def topk_beats_relu(rows: pd.DataFrame) -> Evidence:
    """C1: the share of matched points where TopK is better, and the mean gap over seeds."""
    matched = _matched(rows)
    if isinstance(matched, str):
        return Evidence("void", *NOTHING, matched)
    share = (matched.gap > 0).groupby(matched.seed).mean()
    mean, low, high = mean_interval(matched.groupby("seed").gap.mean())
    outcome = judge(mean, low, high)
    if outcome == "replicated" and share.min() < 0.8:
        outcome = "partly"
    return Evidence(
        outcome,
        mean,
        low,
        high,
        f"TopK has the lower NMSE at {100 * (matched.gap > 0).mean():.0f} % of the matched L0 points; one more "
        f"doubling of tokens would shift the gap by about {doubling_shift(rows):+.2f}",
    )


def gap_grows(rows: pd.DataFrame) -> Evidence:
    """C2: slope of the gap on ln n at fixed k, over the k that are matched at every size; one slope per seed."""
    matched = _matched(rows)
    if isinstance(matched, str):
        return Evidence("void", *NOTHING, matched)
    sizes = rows.d_sae.nunique()
    if sizes < 2:
        raise NoEvidence("a slope on ln n needs at least two dictionary sizes")
    complete = matched.groupby(["seed", "k"]).filter(lambda cell: len(cell) == sizes)
    if complete.empty:
        return Evidence("void", *NOTHING, "no k has a matched L0 at every dictionary size")
    slopes = [
        np.polyfit(np.log(cell.d_sae), cell.gap - cell.groupby("k").gap.transform("mean"), 1)[0]
        for _, cell in complete.groupby("seed")
    ]
    mean, low, high = mean_interval(slopes)
    ks = ", ".join(f"{k:g}" for k in sorted(complete.k.unique()))
    return Evidence(
        judge(mean, low, high), mean, low, high, f"the gap changes by {mean:+.3f} per unit of ln n, over k = {ks}"
    )


def _by_condition(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """One line per seed, one column per (transpose initialisation?, AuxK?)."""
    table = rows.assign(auxk=rows.options == "()").pivot(index="seed", columns=["tied_init", "auxk"], values=column)
    if table.isna().any(axis=None) or table.shape[1] != 4:
        raise NoEvidence("the 2 x 2 of initialisation and AuxK is not complete for every seed")
    return table


def tied_init_helps(rows: pd.DataFrame) -> Evidence:
    """C13: independent minus transpose initialisation, mean over AuxK on and off, for dead latents and for NMSE."""
    dead, nmse = (_by_condition(rows, column) for column in ("dead", "nmse"))
    if dead.to_numpy().max() < DYING:
        return Evidence("void", *NOTHING, "fewer than 1 % of latents die under any condition")
    fewer_dead, lower_nmse = (mean_interval((table[False] - table[True]).mean(axis=1)) for table in (dead, nmse))
    return Evidence(
        both(judge(*fewer_dead), judge(*lower_nmse)),
        *lower_nmse,
        f"transpose initialisation lowers NMSE by {lower_nmse[0]:.4f} and the dead share by {100 * fewer_dead[0]:.1f} "
        "points, mean over AuxK on and off",
    )


def auxk_helps(rows: pd.DataFrame) -> Evidence:
    """C14: dead share without minus with AuxK, for both initialisations."""
    dead = _by_condition(rows, "dead")
    if dead.xs(False, axis=1, level="auxk").to_numpy().max() < DYING:
        return Evidence("void", *NOTHING, "fewer than 1 % of latents die without AuxK: there is nothing to revive")
    revived = {tied: dead[tied, False] - dead[tied, True] for tied in (True, False)}
    outcome = both(*(judge(*mean_interval(values)) for values in revived.values()))
    return Evidence(
        outcome,
        *mean_interval((revived[True] + revived[False]) / 2),
        f"AuxK lowers the dead share by {100 * revived[True].mean():.1f} points with transpose initialisation and by "
        f"{100 * revived[False].mean():.1f} points with an independent one",
    )


CLAIMS = (
    Claim(
        id="gao2024-C1",
        statement="At equal L0, TopK reconstructs better than ReLU with an L1 penalty.",
        rule=(
            "NMSE of TopK below NMSE of ReLU (interpolated in log-log) at 80 % or more of the matched L0 points in "
            "each seed, and the mean log-ratio above 0 with its interval. Void if fewer than half of the L0 points are "
            "matched by ReLU runs with at most 50 % dead latents, or if one more doubling of tokens would close the "
            "gap."
        ),
        published="TopK below ReLU at every L0 shown (Fig. 2a: GPT-2 small, n = 32,768)",
        statistic="mean of ln(NMSE ReLU / NMSE TopK)",
        study=FRONTIER,
        test=topk_beats_relu,
    ),
    Claim(
        id="gao2024-C2",
        statement="The gap between TopK and ReLU grows with the number of latents.",
        rule="Slope of ln(NMSE ReLU / NMSE TopK) on ln n at fixed L0 above 0 with its interval. Void as C1.",
        published="TopK's exponent is the steeper one (Fig. 2b); no number in the text",
        statistic="slope of ln(NMSE ReLU / NMSE TopK) on ln n",
        study=FRONTIER,
        test=gap_grows,
    ),
    Claim(
        id="gao2024-C13",
        statement="Starting the encoder as the decoder's transpose reduces dead latents and error.",
        rule=(
            "Dead share and NMSE, each a mean over AuxK on and off, both lower than with an independent "
            "initialisation, with their intervals. Void if fewer than 1 % of latents die under any condition."
        ),
        published="clearly better MSE (Fig. 16)",
        statistic="NMSE independent - NMSE transpose, mean over AuxK on and off",
        study=DEAD_LATENTS,
        test=tied_init_helps,
    ),
    Claim(
        id="gao2024-C14",
        statement="AuxK reduces dead latents.",
        rule=(
            "Dead share lower with AuxK (coefficient 1/32) than without, with its interval, under both "
            "initialisations. Void if fewer than 1 % of latents die without it."
        ),
        published="up to 90 % dead with neither remedy, 7 % at 16 million latents with both",
        statistic="dead share without AuxK - with AuxK, mean of both initialisations",
        study=DEAD_LATENTS,
        test=auxk_helps,
    ),
)
