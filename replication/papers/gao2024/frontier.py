"""Fidelity against sparsity: TopK and other methods at equal L0 (figures 2 and 5; C1 to C4, C33)."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd

from replication.claims import (
    NOTHING,
    VERDICTS,
    Claim,
    Evidence,
    NoEvidence,
    both,
    interpolate_loglog,
    judge,
    mean_interval,
)
from replication.evaluate.downstream import downstream, training_curve
from replication.evaluate.reconstruction import reconstruction
from replication.papers.gao2024.grid import GRIDS, KEY, SEEDS, make_run
from replication.results import Study
from replication.store import trained
from replication.train import Run

METHODS = {  # beside TopK and ReLU: name -> architecture, its options
    "gated": ("gated", {}),
    "prolu-ste": ("prolu", {"gradient": "ste"}),
    "prolu-relu": ("prolu", {"gradient": "relu"}),
}


LAMBDAS = {  # of methods other than TopK and ReLU
    "smoke": {"gated": (0.1, 0.4), "prolu-ste": (0.1, 0.3), "prolu-relu": (0.05, 0.5)},
    # of ProLU's gradients only the one with the lower error here, which is the harder one to beat
    "cpu": {"gated": (0.12, 0.22, 0.42), "prolu-relu": (0.022, 0.03, 0.055)},
    "gpu": {
        "gated": (0.06, 0.14, 0.3, 0.6),
        "prolu-ste": (0.03, 0.08, 0.2, 0.5),
        "prolu-relu": (0.01, 0.02, 0.04, 0.1),
    },
    "paper": {
        "gated": (1e-3, 2.5e-3, 5e-3, 1e-2, 2e-2),
        "prolu-ste": (5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2e-2),
        "prolu-relu": (5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2e-2),
    },
}


def frontier_runs(preset: str) -> list[Run]:
    """Figure 2: TopK over k and ReLU over lambda, at two dictionary sizes."""
    sizes, ks, lambdas, *_ = GRIDS[preset]
    return [
        make_run(preset, architecture, n, sparsity, seed)
        for seed, n in product(SEEDS, sizes)
        for architecture, sparsities in (("topk", ks), ("relu", lambdas))
        for sparsity in sparsities
    ]


def every_method(preset: str) -> list[Run]:
    """Figures 2 and 5: also Gated and ProLU over lambda; below `gpu`, at the larger dictionary size alone."""
    sizes = GRIDS[preset][0]
    return frontier_runs(preset) + [
        make_run(preset, METHODS[method][0], n, sparsity, seed, options=METHODS[method][1])
        for seed, n in product(SEEDS, sizes[-1:] if preset in ("smoke", "cpu") else sizes)
        for method, lambdas in LAMBDAS[preset].items()
        for sparsity in lambdas
    ]


def measure(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Train each run, then measure it on held-out activations."""
    for one in trained(runs):
        heldout = one.run.source.heldout(str(one.mean.device))
        yield one.run, reconstruction(one, heldout) | one.log


def measure_fidelity(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """As `measure`, and what each reconstruction does to the language model."""
    for one in trained(runs):
        source, device = one.run.source, str(one.mean.device)
        faithful = downstream(source, one.sae.reconstruct, device=device)
        yield one.run, reconstruction(one, source.heldout(device)) | faithful | one.log


FRONTIER = Study(KEY, "frontier", "Fidelity against sparsity", every_method, measure_fidelity)


PUBLISHED_FRONTIER = {"l0": (10, 100), "nmse": (0.4, 0.6), "label": "range of Fig. 2a (GPT-2 small, n = 32,768)"}
"""Read off the axes of Figure 2a; the text gives no numbers."""


COLLAPSED = 0.5  # a baseline with a larger share of dead latents proves nothing about the baseline
CLOSE = 0.05  # C3: errors that differ by less are about equal
WELL_RECOVERED, HALF_THE_COMPUTE = 0.95, 0.5  # C33


def with_method(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the column `method`: the architecture, and of ProLU the gradient."""
    gradient = rows.options.str.extract(r"'gradient', '(\w+)'")[0]
    return rows.assign(method=rows.architecture + ("-" + gradient).fillna(""))


def at_equal_l0(rows: pd.DataFrame, column: str = "nmse") -> pd.DataFrame:
    """`column` of every method at the L0 of each TopK run: d_sae, seed, k, l0 and one column per method.

    Each method is interpolated piecewise-linearly in ln `column` against ln L0, per dictionary size and seed, and never
    extrapolated: outside its range of L0 it is NaN. Runs with more than COLLAPSED dead latents are left out.
    """
    parts = []
    for (n, seed), cell in with_method(rows[rows.dead <= COLLAPSED]).groupby(["d_sae", "seed"]):
        topk = cell[cell.method == "topk"].sort_values("l0")
        part = pd.DataFrame({"d_sae": n, "seed": seed, "k": topk.sparsity, "l0": topk.l0, "topk": topk[column]})
        for name, other in cell[cell.method != "topk"].groupby("method"):
            part[name] = interpolate_loglog(other.l0, other[column], topk.l0) if len(other) > 1 else np.nan
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def error_gap(rows: pd.DataFrame, other: str = "relu") -> pd.DataFrame:
    """ln(NMSE of another method / NMSE of TopK) at each TopK run's L0, per dictionary size and seed.

    Positive: TopK is better; NaN: the L0 is not matched (see `at_equal_l0`).
    """
    errors = at_equal_l0(rows).reindex(columns=["l0", "d_sae", "seed", "k", "topk", other])
    return errors.assign(gap=np.log(errors.pop(other) / errors.pop("topk")))


def late_gain(curve_tokens: list, curve_error: list) -> float:
    """Drop of ln(training error) over the last doubling of tokens: how far a run is from done."""
    before = interpolate_loglog(curve_tokens, curve_error, [curve_tokens[-1] / 2])[0]
    return float(np.log(before / curve_error[-1]))


def doubling_shift(rows: pd.DataFrame, other: str = "relu") -> float:
    """By how much one more doubling of tokens would change the gap, if the last one is a guide: late gain of TopK minus
    that of the other method, means over runs. Negative: the gap would close."""
    alive = with_method(rows[rows.dead <= COLLAPSED])
    gain = {
        name: np.mean([late_gain(*curve) for curve in zip(cell.curve_tokens, cell.curve_error, strict=True)])
        for name, cell in alive.groupby("method")
    }
    return float(gain["topk"] - gain[other])


def _matched(rows: pd.DataFrame, other: str = "relu") -> pd.DataFrame | str:
    """The gap where L0 is matched, or the reason why the comparison is void."""
    method = with_method(rows).method
    rows = rows[rows.d_sae.isin(rows.d_sae[method == other])]
    matched = error_gap(rows, other).dropna()
    if len(matched) < 0.5 * (rows.architecture == "topk").sum():
        return f"only {len(matched)} TopK runs lie inside the L0 range of {other} runs that did not collapse"
    shift = doubling_shift(rows, other)
    if 0 < matched.gap.mean() < -shift:
        return f"one more doubling of tokens would shift the gap by {shift:+.2f} and close it: {other} is under-trained"
    return matched


def topk_beats(rows: pd.DataFrame, other: str = "relu") -> Evidence:
    """C1: the share of matched points where TopK is better, and the mean gap over seeds."""
    matched = _matched(rows, other)
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
        f"doubling of tokens would shift the gap by about {doubling_shift(rows, other):+.2f}",
    )


def topk_beats_relu(rows: pd.DataFrame) -> Evidence:
    """C1."""
    return topk_beats(rows, "relu")


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


def topk_equals_gated(rows: pd.DataFrame) -> Evidence:
    """First half of C3: relative distance of the errors of Gated and TopK over matched points, one mean per seed."""
    matched = _matched(rows, "gated")
    if isinstance(matched, str):
        return Evidence("void", *NOTHING, matched)
    ratio = np.exp(matched.gap)
    distance = (ratio - 1).abs()
    share = (distance < CLOSE).groupby(matched.seed).mean()
    mean, low, high = mean_interval(distance.groupby(matched.seed).mean())
    outcome = judge(CLOSE - mean, CLOSE - high, CLOSE - low)
    if outcome == "replicated" and share.min() < 0.8:
        outcome = "partly"
    return Evidence(
        outcome,
        mean,
        low,
        high,
        f"NMSE of Gated is {ratio.mean():.2f} times that of TopK; the two are within 5 % at "
        f"{100 * (distance < CLOSE).mean():.0f} % of the matched L0 points",
    )


def topk_equals_gated_and_beats_prolu(rows: pd.DataFrame) -> Evidence:
    """C3: Gated within CLOSE of TopK, and every ProLU above it."""
    gated = topk_equals_gated(rows)
    prolu = {name: topk_beats(rows, name) for name in sorted(set(with_method(rows).method)) if name.startswith("prolu")}
    if not prolu:
        raise NoEvidence("the table has no ProLU")
    outcome = gated.verdict
    for evidence in prolu.values():
        outcome = both(outcome, evidence.verdict)
    against = "; ".join(f"against {name} ({one.verdict}): {one.summary}" for name, one in prolu.items())
    return gated._replace(verdict=outcome, summary=f"against Gated ({gated.verdict}): {gated.summary}; {against}")


def harm_at_equal_error(rows: pd.DataFrame) -> pd.DataFrame:
    """NMSE and rise in cross-entropy of each method at matched L0: d_sae, seed, k, method, nmse, delta_ce."""
    point = ["d_sae", "seed", "k", "l0"]
    long = [
        at_equal_l0(rows, column).melt(point, var_name="method", value_name=column).set_index([*point, "method"])
        for column in ("nmse", "delta_ce")
    ]
    found = pd.concat(long, axis=1).dropna().reset_index()
    return found[found.groupby(point).method.transform("size") > 1]  # TopK alone is matched by nothing


def topk_harms_less(rows: pd.DataFrame) -> Evidence:
    """C4: c in  ln delta CE = a + b ln NMSE + c [TopK],  least squares over matched points, one fit per seed."""
    if (rows.delta_ce <= 0).any():
        return Evidence("void", *NOTHING, f"{(rows.delta_ce <= 0).sum()} runs do no harm: no logarithm of it exists")
    points = harm_at_equal_error(rows)
    topk = points.method == "topk"
    if topk.sum() < 0.5 * (rows.architecture == "topk").sum():
        return Evidence("void", *NOTHING, f"only {topk.sum()} TopK runs lie inside the L0 range of another method")
    coefficients = []
    for _, cell in points.groupby("seed"):
        design = np.column_stack([np.ones(len(cell)), np.log(cell.nmse), cell.method == "topk"])
        (_, slope, coefficient), _, rank, _ = np.linalg.lstsq(design, np.log(cell.delta_ce), rcond=None)
        if rank < 3:
            raise NoEvidence("the regression needs points of several NMSE with and without TopK")
        coefficients.append((coefficient, slope))
    mean, low, high = mean_interval([coefficient for coefficient, _ in coefficients])
    return Evidence(
        judge(-mean, -high, -low),
        mean,
        low,
        high,
        f"at equal NMSE, cross-entropy rises {np.exp(mean):.2f} times as much with TopK as with the other methods; "
        f"over all, it rises as NMSE to the power {np.mean([slope for _, slope in coefficients]):.2f}",
    )


def recovery_is_lenient(rows: pd.DataFrame) -> Evidence:
    """C33: the share of compute of an autoencoder that recovers more than 95 % of the loss, the most faithful such one
    among those with the best verdict."""
    if rows.compute_share.isna().any():
        raise NoEvidence("the language model left no record of its own training")
    found = []
    for (method, n, dial), cell in with_method(rows).groupby(["method", "d_sae", "sparsity"]):
        recovered, low, high = mean_interval(cell.loss_recovered)
        share = mean_interval(cell.compute_share.astype(float))
        if recovered <= WELL_RECOVERED:
            continue
        outcome = judge(*(HALF_THE_COMPUTE - share[i] for i in (0, 2, 1)))
        if outcome == "replicated" and low <= WELL_RECOVERED:
            outcome = "partly"
        found.append(
            (
                -VERDICTS.index(outcome),
                recovered,
                Evidence(
                    outcome,
                    *share,
                    f"{method} with {n:,} latents and dial {dial:g} recovers {100 * recovered:.1f} % of the loss; its "
                    f"loss is that of the language model after {100 * share[0]:.0f} % of its training",
                ),
            )
        )
    if not found:
        best = with_method(rows).groupby(["method", "d_sae", "sparsity"]).loss_recovered.mean().max()
        return Evidence("void", *NOTHING, f"no autoencoder recovers 95 % of the loss; the best recovers {best:.1%}")
    return max(found, key=lambda one: one[:2])[2]


def own_training(rows: pd.DataFrame) -> pd.DataFrame:
    """The language model's own curve: share of its training, and its loss above the last one (nats per token)."""
    (model,) = rows.source.str.extract(r"model='([^']+)'")[0].unique()
    curve = pd.DataFrame(training_curve(model), columns=["tokens", "loss"])
    return pd.DataFrame({"share": curve.tokens / curve.tokens.max(), "rise": curve.loss - curve.loss.tail(1).sum()})


STUDIES = (FRONTIER,)

FIGURES = {  # name -> (study, function of the figures package, what it takes from the study's table)
    "frontier": (FRONTIER, "frontier.error_against_l0", lambda rows: (with_method(rows), PUBLISHED_FRONTIER)),
    "error-gap": (FRONTIER, "frontier.error_gap", lambda rows: (error_gap(rows),)),
    "training-curves": (FRONTIER, "frontier.training_curves", lambda rows: (with_method(rows),)),
    "downstream": (FRONTIER, "frontier.loss_against_l0", lambda rows: (with_method(rows),)),
    "downstream-at-equal-l0": (FRONTIER, "frontier.loss_against_error", lambda rows: (harm_at_equal_error(rows),)),
    "compute-equivalent": (
        FRONTIER,
        "frontier.compute_equivalent",
        lambda rows: (with_method(rows), own_training(rows)),
    ),
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
            "At 80 % or more of the matched L0 points (interpolated in log-log, as C1) in each seed, NMSE of TopK and "
            "of the gated autoencoder differ by less than 5 %, and their mean difference is below 5 % with its "
            "interval; NMSE of ProLU is above that of TopK as in C1, with each of the two gradients, or at `cpu` with "
            "the one that has the lower error. Void as C1."
        ),
        published=(
            "TopK comparable to Gated and below ProLU (Fig. 2a: GPT-2 small, n = 32,768); read off the figure and its "
            "caption"
        ),
        statistic="mean of |NMSE Gated / NMSE TopK - 1| at equal L0",
        study=FRONTIER,
        test=topk_equals_gated_and_beats_prolu,
    ),
    Claim(
        id="gao2024-C4",
        statement="At equal reconstruction error, TopK harms the language model's predictions less than other methods.",
        rule=(
            "In a regression of ln of the rise in the language model's cross-entropy, when reconstructions replace the "
            "activations, on ln NMSE and the method, over all methods at matched L0, TopK's coefficient below 0 with "
            "its interval. Void if fewer than half of the L0 points are matched."
        ),
        published="at equal NMSE, TopK has the lower downstream loss (Fig. 5b: L0 = 128); from memory",
        statistic="coefficient of TopK on ln of the rise in cross-entropy, at equal NMSE",
        study=FRONTIER,
        test=topk_harms_less,
    ),
    Claim(
        id="gao2024-C33",
        statement="The share of loss recovered against zero ablation is too lenient a measure of fidelity.",
        rule=(
            "For one autoencoder, the share of loss recovered against zero ablation is above 95 %, while its loss "
            "equals that of a language model trained with less than 50 % of the compute, read from checkpoints of that "
            "model: both with their intervals. Void if no autoencoder recovers 95 %."
        ),
        published="98.2 % by zero ablation, but the loss of 10 % of GPT-4's compute (16 million latents)",
        statistic="equivalent share of compute of the autoencoder in the finding",
        study=FRONTIER,
        test=recovery_is_lenient,
    ),
)
