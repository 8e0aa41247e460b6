"""Error against sparsity: TopK against the other architectures at equal L0 (figures 2 and 5; C1 to C4)."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd

from replication.claims import Claim, Evidence, NoEvidence, interpolate_loglog, judge, mean_interval
from replication.evaluate.reconstruction import reconstruction
from replication.papers.gao2024.grid import GRIDS, KEY, NO_PAGE, SEEDS, make_run
from replication.results import Study
from replication.store import trained
from replication.train import Run


def frontier_runs(preset: str) -> list[Run]:
    """Figure 2: TopK over k and ReLU over lambda, at two dictionary sizes."""
    sizes, ks, lambdas, *_ = GRIDS[preset]
    return [
        make_run(preset, architecture, n, sparsity, seed)
        for seed, n in product(SEEDS, sizes)
        for architecture, sparsities in (("topk", ks), ("relu", lambdas))
        for sparsity in sparsities
    ]


def measure(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Train each run, then measure it on held-out activations."""
    for one in trained(runs):
        heldout = one.run.source.heldout(str(one.mean.device))
        yield one.run, reconstruction(one, heldout) | one.log


FRONTIER = Study(KEY, "frontier", "Reconstruction error against sparsity", frontier_runs, measure)


PUBLISHED_FRONTIER = {"l0": (10, 100), "nmse": (0.4, 0.6), "label": "range of Fig. 2a (GPT-2 small, n = 32,768)"}
"""Read off the axes of Figure 2a; the text gives no numbers."""


NOTHING = (float("nan"),) * 3  # statistic and interval of a void claim
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


STUDIES = (FRONTIER,)

FIGURES = {  # name -> (study, function of the figures module, what it takes from the study's table)
    "frontier": (FRONTIER, "frontier", lambda rows: (rows, PUBLISHED_FRONTIER)),
    "error-gap": (FRONTIER, "error_gap", lambda rows: (error_gap(rows),)),
    "training-curves": (FRONTIER, "training_curves", lambda rows: (rows,)),
}


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
        id="gao2024-C3",
        statement="At equal L0, TopK reconstructs about as well as a gated autoencoder and better than ProLU.",
        rule=(
            "At 80 % or more of the matched L0 points (interpolated in log-log, as C1), NMSE of TopK and of the gated "
            "autoencoder differ by less than 5 %, and NMSE of ProLU is above that of TopK."
        ),
        published=(
            "TopK comparable to Gated and below ProLU (Fig. 2a: GPT-2 small, n = 32,768); read off the figure and its "
            "caption"
        ),
        statistic="NMSE Gated / NMSE TopK and NMSE ProLU / NMSE TopK at equal L0",
        untested=NO_PAGE,
    ),
    Claim(
        id="gao2024-C4",
        statement="At equal reconstruction error, TopK harms the language model's predictions less than other methods.",
        rule=(
            "In a regression of the rise in the language model's cross-entropy, when reconstructions replace the "
            "activations, on NMSE and the method, TopK's coefficient below 0 with its interval."
        ),
        published="at equal NMSE, TopK has the lower downstream loss (Fig. 5b: L0 = 128); from memory",
        statistic="coefficient of TopK on the rise in cross-entropy, at equal NMSE",
        untested=NO_PAGE,
    ),
)
