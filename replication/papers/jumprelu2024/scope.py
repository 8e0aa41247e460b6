"""A suite of JumpReLU autoencoders over every layer and site of one language model (Gemma Scope: table 1, figures 2, 4,
5, 13 and 17; G1, G2, G3, G11, G12)."""

import copy
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from replication.claims import (
    NOTHING,
    Claim,
    Evidence,
    NoEvidence,
    both,
    interpolate_loglog,
    judge,
    mean_interval,
)
from replication.evaluate.reconstruction import CHUNK, passed, reconstruction
from replication.evaluate.splicing import spliced
from replication.papers.gao2024.frontier import late_gain
from replication.papers.jumprelu2024.grid import (
    KEY,
    LAMBDAS,
    LAYERS,
    SEEDS,
    SITES,
    TRAINING,
    jumprelu_run,
    source,
    with_place,
)
from replication.results import Study
from replication.sae import SAE, released_form
from replication.shapes import Float, Tensor
from replication.store import trained
from replication.train import Run


class Plan(NamedTuple):
    """Which SAEs a preset's suite has."""

    width: int
    """Latents at every layer and site."""
    lambdas: tuple[float, ...]
    tokens: int
    batch: int
    ladder: tuple[int, ...]
    """Widths at the residual stream of one layer, `width` among them, with the same lambdas."""
    ladder_layer: int
    seeded: tuple[int, ...]
    """Layers that every seed is trained at, `ladder_layer` among them; the others have the first seed alone."""


PLANS = {
    "smoke": Plan(128, LAMBDAS["smoke"], *TRAINING["smoke"][:2], (128, 256), 1, (1,)),
    "cpu": Plan(512, LAMBDAS["cpu"][:3], 2**18, 512, (256, 512, 1024, 2048), 2, (2,)),
    "gpu": Plan(4096, LAMBDAS["gpu"], *TRAINING["gpu"][:2], (1024, 2048, 4096, 8192, 16384), 3, LAYERS["gpu"]),
    "paper": Plan(
        2**14, LAMBDAS["paper"], *TRAINING["paper"][:2], tuple(2**i for i in range(14, 20)), 8, LAYERS["paper"]
    ),
}


def cell(preset: str, site: str, layer: int, d_sae: int, sparsity: float, seed: int, **changes) -> Run:
    """One SAE of the suite: the same settings at every layer, site and width."""
    plan = PLANS[preset]
    size = {"tokens": plan.tokens, "batch": plan.batch}
    return jumprelu_run(preset, source(preset, site, layer), d_sae, sparsity, seed, **size, **changes)


def suite(preset: str) -> list[Run]:
    """The SAEs that `replicate suite` writes: every layer, site and lambda, and the ladder of widths; one seed."""
    return list(dict.fromkeys(_cells(preset, LAYERS[preset], SEEDS[0]) + _ladder(preset, SEEDS[0])))


def _cells(preset: str, layers: tuple[int, ...], seed: int) -> list[Run]:
    plan = PLANS[preset]
    return [
        cell(preset, site, layer, plan.width, sparsity, seed)
        for layer, site, sparsity in product(layers, SITES, plan.lambdas)
    ]


def _ladder(preset: str, seed: int) -> list[Run]:
    plan = PLANS[preset]
    return [
        cell(preset, "res", plan.ladder_layer, d_sae, sparsity, seed)
        for d_sae, sparsity in product(plan.ladder, plan.lambdas)
    ]


def all_seeds(preset: str) -> list[Run]:
    """The suite, and its other seeds at the layers of the plan that have them."""
    others = [run for seed in SEEDS[1:] for run in _cells(preset, PLANS[preset].seeded, seed) + _ladder(preset, seed)]
    return suite(preset) + others


def with_unnormalised(preset: str) -> list[Run]:
    """`all_seeds`, and the negative control of G11: the middle lambda on activations as they are, at the first and the
    last layer."""
    plan, ends = PLANS[preset], (LAYERS[preset][0], LAYERS[preset][-1])
    return all_seeds(preset) + [
        cell(preset, site, layer, plan.width, middle(plan.lambdas), SEEDS[0], normalisation="none")
        for layer, site in product(ends, SITES)
    ]


def middle(values) -> float:
    """The middle one of sorted values; of two in the middle the larger."""
    known = sorted(set(values))
    return known[len(known) // 2]


FREQUENT = (0.1, 0.01)  # share of tokens above which a latent is called very frequent, frequent
BINS = np.linspace(-5, 0, 41)  # log10 frequency


def firing(density: Float[Tensor, " d_sae"]) -> dict[str, float | list]:
    """How often latents fire: quantiles of log10 frequency over those that fire at all, counts above 10 % and 1 %, and
    the histogram over BINS (Lieberum et al. 2024, fig. 5)."""
    live = density[density > 0].log10().cpu().numpy()
    quantiles = np.quantile(live, (0.05, 0.5, 0.95)) if len(live) else [BINS[0]] * 3
    return {
        "live": len(live),
        **{f"frequency_{name}": float(q) for name, q in zip(("q05", "median", "q95"), quantiles, strict=True)},
        **{f"above_{share:g}": int((density > share).sum()) for share in FREQUENT},
        "frequency_histogram": np.histogram(live, BINS)[0].tolist(),
    }


class Forward(NamedTuple):
    """What one form of an SAE makes of raw activations."""

    active: Tensor
    """(n, d_sae) bool"""
    recon: Tensor
    """(n, d_in), on the scale of the raw activations"""


def normalised_forward(sae: SAE, raw: Float[Tensor, "n d_in"]) -> Forward:
    """Divide by the constant, subtract b_dec, encode, decode, multiply by the constant: the SAE as it was trained."""
    x, _, undo = sae.normalise(raw)
    out = sae(x)
    return Forward(out.latents > 0, undo(out.recon))


def released_forward(form: dict[str, Tensor], raw: Float[Tensor, "n d_in"]) -> Forward:
    """ReLU(pre) H(pre - threshold) W_dec + b_dec, pre = x W_enc + b_enc: the forward pass of a released file."""
    pre = raw @ form["W_enc"] + form["b_enc"]
    latents = pre.relu() * (pre > form["threshold"])
    return Forward(latents > 0, latents @ form["W_dec"] + form["b_dec"])


@torch.no_grad()
def fold(sae: SAE, raw: Float[Tensor, "n d_in"]) -> dict[str, float]:
    """The released form (app. A: raw activations, nothing subtracted, no constant) against the SAE as it was trained.

    `fold_error`: the largest |difference of reconstructions| / |reconstruction| over tokens on which the two have the
    same active latents, in float32; `fold_flips`: pairs of a token and a latent that is active in one of the two
    alone; `fold_flips_double`: the same in float64. The form is folded in float64 and rounded once, as files are.
    """
    precise = copy.deepcopy(sae).double()
    exact = released_form(precise)
    rounded = {name: value.float() for name, value in exact.items()}
    error, flips, flips_double = 0.0, 0, 0
    for x in raw.split(CHUNK):
        ours, theirs = normalised_forward(sae, x), released_forward(rounded, x)
        same = (ours.active == theirs.active).all(-1)
        relative = (ours.recon - theirs.recon).norm(dim=-1) / ours.recon.norm(dim=-1)
        error = max(error, relative[same].max().item())
        flips += int((ours.active != theirs.active).sum())
        ours, theirs = normalised_forward(precise, x.double()), released_forward(exact, x.double())
        flips_double += int((ours.active != theirs.active).sum())
    return {"fold_error": error, "fold_flips": flips, "fold_flips_double": flips_double}


FOLDED_ON = 2**13  # held-out tokens for the check of the fold, which is made in two precisions


def measure(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Fidelity, harm to the language model, firing frequencies and the fold of each SAE, with the controls."""
    for one in trained(runs):
        where, device = one.run.source, str(one.mean.device)
        heldout = where.heldout(device)
        x = one.sae.normalise(heldout).x
        passes = passed(one.sae, x), passed(one.untrained, x)
        yield (
            one.run,
            reconstruction(one, heldout, passes)
            | {"l0_untrained": passes[1].active.float().mean().item()}
            | spliced(where, one.sae.reconstruct, device=device)
            | firing(passes[0].density)
            | fold(one.sae, heldout[:FOLDED_ON])
            | one.log,
        )


SUITE = Study(KEY, "scope", "A suite over layers, sites and widths", all_seeds, measure)
NORMALISED = Study(KEY, "scope-normalisation", "The suite, and cells without normalisation", with_unnormalised, measure)


PUBLISHED = {"l0": (10, 1000), "delta_ce": (1e-3, 1), "label": "range of Fig. 2 (Gemma 2)"}
"""Read off the axes of figure 2; its numbers are in no table."""

MATCHED = 0.5  # share of points whose L0 must lie in the range of the other curve
CLEARLY = 2  # G1: factor between the harm of mean ablation in the residual stream and elsewhere; "res >> mlp"
COMPARABLE = 2  # G1: factor within which FVU must agree
SAME_SETTINGS, WITHOUT = 3, 10  # G11: factors between the largest and the smallest L0, with and without normalisation
STUCK = 0.9  # G11: share of the L0 before training above which nothing was learned about sparsity
EXACT, ROUNDING = 1e-5, 1e-6  # G12: relative error; share of decisions that float32 may turn


def with_ablated(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the columns `site`, `layer`, and `ablated`: delta LM loss as a share of that of mean ablation."""
    return with_place(rows).assign(ablated=rows.delta_ce / rows.delta_ce_mean)


def cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Normalised rows of the one width that every site has."""
    rows = with_ablated(rows)
    rows = rows[rows.normalisation == "gemma"]
    width = rows[rows.site == "attn"].d_sae.unique()
    return rows[rows.d_sae.isin(width)]


def ladder(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the layer whose residual stream has several widths."""
    rows = with_ablated(rows)
    widths = rows[rows.site == "res"].groupby("layer").d_sae.nunique()
    if widths.empty or widths.max() < 2:
        raise NoEvidence("no layer has several widths")
    return rows[(rows.site == "res") & (rows.layer == widths.idxmax()) & (rows.normalisation == "gemma")]


def log_ratio(upper: pd.DataFrame, lower: pd.DataFrame, column: str) -> np.ndarray:
    """ln(`column` of `upper` / `column` of `lower`) at the L0 of each row of `upper`; NaN where `lower` has no such L0,
    or where a value is not positive."""
    lower = lower[lower[column] > 0]
    if len(lower) < 2:
        return np.full(len(upper), np.nan)
    theirs = interpolate_loglog(lower.l0, lower[column], upper.l0)
    return np.log(upper[column].where(upper[column] > 0).to_numpy(float) / theirs)


def site_gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """The residual stream against each other site of the same layer at equal L0: layer, seed, other, l0, and the
    log-ratios `harm` (delta LM loss), `fvu`, `ablated` (share of the harm of mean ablation)."""
    parts = []
    for (layer, seed), here in cells(rows).groupby(["layer", "seed"]):
        res = here[here.site == "res"]
        for other in ("attn", "mlp"):
            theirs = here[here.site == other]
            ratios = {
                "harm": log_ratio(res, theirs, "delta_ce"),
                "fvu": log_ratio(res, theirs, "fvu"),
                "ablated": log_ratio(res, theirs, "ablated"),
            }
            parts.append(pd.DataFrame({"layer": layer, "seed": seed, "other": other, "l0": res.l0} | ratios))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def with_every_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the layers that were trained with every seed of the table."""
    seeds = rows.groupby("layer").seed.nunique()
    return rows[rows.layer.isin(seeds[seeds == seeds.max()].index)]


def ablation_ratio(rows: pd.DataFrame) -> pd.Series:
    """Harm of mean ablation in the residual stream over the larger of those at the other sites, by layer."""
    harm = cells(rows).groupby(["layer", "site"]).delta_ce_mean.mean().unstack()
    return harm["res"] / harm[["attn", "mlp"]].max(axis=1)


def residual_harms_more(rows: pd.DataFrame) -> Evidence:
    """G1: higher delta LM loss in the residual stream, comparable FVU."""
    ablation = ablation_ratio(rows)
    if np.exp(np.log(ablation).mean()) < CLEARLY:
        return Evidence(
            "void",
            *NOTHING,
            f"setting a site to its mean harms {np.exp(np.log(ablation).mean()):.1f} times as much in the residual "
            "stream as elsewhere: the sites are not as different as the claim supposes",
        )
    gaps = site_gaps(rows)
    matched = gaps.dropna(subset=["harm", "fvu"])
    judged = with_every_seed(matched) if len(matched) else matched
    if len(matched) < MATCHED * len(gaps) or judged.empty:
        return Evidence("void", *NOTHING, f"only {len(matched)} of {len(gaps)} points have an L0 that both sites reach")
    pairs = judged.groupby(["seed", "layer", "other"])[["harm", "fvu"]].mean()
    mean, low, high = mean_interval(pairs.harm.groupby("seed").mean())
    outcome = judge(mean, low, high)
    everywhere = matched.groupby(["layer", "other"])[["harm", "fvu", "ablated"]].mean()
    if outcome == "replicated" and (everywhere.harm <= 0).any():
        outcome = "partly"
    worst = mean_interval(pairs.fvu.abs().groupby("seed").max())
    similar = judge(*(np.log(COMPARABLE) - worst[i] for i in (0, 2, 1)))
    furthest = everywhere.fvu.abs().max()
    if similar == "replicated" and furthest >= np.log(COMPARABLE):
        similar = "partly"
    judged_layers = ", ".join(map(str, sorted(judged.layer.unique())))
    return Evidence(
        both(outcome, similar),
        mean,
        low,
        high,
        f"delta LM loss in the residual stream is {np.exp(mean):.1f} times that of the other sites (layers with every "
        f"seed: {judged_layers}), and over all layers higher for {(everywhere.harm > 0).sum()} of {len(everywhere)} "
        f"pairs of layer and site, {np.exp(everywhere.harm.min()):.1f} to {np.exp(everywhere.harm.max()):.1f} times; "
        f"FVU differs by a factor of up to {np.exp(furthest):.2f} ({similar}). As a share of the harm of mean "
        f"ablation, the loss left in the residual stream is {np.exp(everywhere.ablated.mean()):.1f} times that of the "
        f"others; mean ablation harms {ablation.min():.1f} to {ablation.max():.1f} times as much there",
    )


def width_gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """Each width of the ladder against the next smaller one at equal L0: seed, narrow, d_sae, l0, and the log-ratios
    `harm` and `fvu` (negative: wider is better)."""
    found, parts = ladder(rows), []
    widths = sorted(found.d_sae.unique())
    for seed, narrow in product(sorted(found.seed.unique()), range(len(widths) - 1)):
        here = found[found.seed == seed]
        small, large = (here[here.d_sae == widths[narrow + i]] for i in (0, 1))
        ratios = {"harm": log_ratio(large, small, "delta_ce"), "fvu": log_ratio(large, small, "fvu")}
        sizes = {"narrow": widths[narrow], "d_sae": widths[narrow + 1]}
        parts.append(pd.DataFrame({"seed": seed} | sizes | {"l0": large.l0} | ratios))
    return pd.concat(parts, ignore_index=True)


def unfinished(rows: pd.DataFrame) -> float:
    """How much more ln(training error) fell over the last doubling of tokens at the largest width than at the smallest:
    positive where the wide ones have more left to gain."""
    found = ladder(rows)
    gain = pd.Series(
        [late_gain(*curve) for curve in zip(found.curve_tokens, found.curve_error, strict=True)], index=found.index
    )
    return float(gain[found.d_sae == found.d_sae.max()].mean() - gain[found.d_sae == found.d_sae.min()].mean())


def wider_is_better(rows: pd.DataFrame) -> Evidence:
    """G2."""
    gaps = width_gaps(rows)
    matched = gaps.dropna(subset="harm")
    if len(matched) < MATCHED * len(gaps):
        return Evidence(
            "void", *NOTHING, f"only {len(matched)} of {len(gaps)} points have an L0 that both widths reach"
        )
    mean, low, high = mean_interval(matched.groupby("seed").harm.mean())
    shift = unfinished(rows)
    if mean > 0 and shift > 0:
        return Evidence(
            "void", *NOTHING, f"delta LM loss rises with width, but the wide ones have {shift:.2f} more left to gain"
        )
    outcome = judge(-mean, -high, -low)
    steps = matched.groupby(["narrow", "d_sae"]).harm.mean()
    if outcome == "replicated" and (steps >= 0).any():
        outcome = "partly"
    each = ", ".join(f"{wide:,}/{narrow:,}: {np.exp(gap):.2f}" for (narrow, wide), gap in steps.items())
    return Evidence(
        outcome,
        mean,
        low,
        high,
        f"each doubling of the width multiplies delta LM loss at equal L0 by {np.exp(mean):.2f} ({each}), and FVU by "
        f"{np.exp(matched.fvu.mean()):.2f}",
    )


def frequency_slopes(rows: pd.DataFrame) -> pd.DataFrame:
    """Slope over the ladder, per doubling of the width, at each lambda and seed: `median` of log10 frequency of live
    latents, and `mean` of log10 (L0 / live latents), which falls with the width whatever the distribution."""
    found = []
    for (sparsity, seed), here in ladder(rows).groupby(["sparsity", "seed"]):
        doublings = np.log2(here.d_sae.to_numpy(float))
        median, mean = here.frequency_median, np.log10(here.l0 / here.live)
        slopes = {"median": np.polyfit(doublings, median, 1)[0], "mean": np.polyfit(doublings, mean, 1)[0]}
        found.append({"sparsity": sparsity, "seed": seed} | slopes)
    return pd.DataFrame(found)


def frequencies_fall(rows: pd.DataFrame) -> Evidence:
    """G3."""
    slopes, found = frequency_slopes(rows), ladder(rows)
    mean, low, high = mean_interval(slopes.groupby("seed")["median"].mean())
    counts = found.groupby("d_sae")["above_0.1"].agg(["min", "mean"])
    cluster, none = (
        "replicated" if (counts["min"] >= 1).all() else "not replicated",
        int((found["above_0.1"] < 1).sum()),
    )
    listed = ", ".join(f"{count:.0f} of {width:,}" for width, count in counts["mean"].items())
    return Evidence(
        both(judge(-mean, -high, -low), cluster),
        mean,
        low,
        high,
        f"the median of log10 frequency changes by {mean:+.2f} per doubling of the width (log10 of the mean frequency, "
        f"L0 over the number of live latents, by {slopes['mean'].mean():+.2f}); latents above 10 %, means over runs: "
        f"{listed}; {none} of {len(found)} runs have none",
    )


def l0_spread(rows: pd.DataFrame) -> pd.DataFrame:
    """Largest over smallest L0 of a set of cells that share lambda, seed and normalisation: sparsity, seed,
    normalisation, ratio, cells."""
    groups = rows.groupby(["normalisation", "sparsity", "seed"]).l0
    found = pd.DataFrame({"ratio": groups.max() / groups.min(), "cells": groups.size()})
    return found.reset_index()


def settings_fit(rows: pd.DataFrame) -> Evidence:
    """G11."""
    rows = with_ablated(rows)
    plain = rows[rows.normalisation == "none"]
    if plain.empty:
        raise NoEvidence("no row is without normalisation")
    here = cells(rows)
    mean, low, high = mean_interval(np.log(l0_spread(with_every_seed(here)).groupby("seed").ratio.max()))
    outcome = judge(*(np.log(SAME_SETTINGS) - one for one in (mean, high, low)))
    every = l0_spread(here[here.seed == here.seed.min()]).ratio.max()
    stuck = int((here.l0 > STUCK * here.l0_untrained).sum())
    if outcome == "replicated" and (every >= SAME_SETTINGS or stuck):
        outcome = "partly"
    same = here.merge(plain[["site", "layer", "sparsity", "seed"]])
    with_it, without = l0_spread(same).ratio.max(), l0_spread(plain).ratio.max()
    if outcome == "replicated" and without < WITHOUT:
        outcome = "partly"
    return Evidence(
        outcome,
        mean,
        low,
        high,
        f"at one lambda the L0 of the cells differ by a factor of up to {every:.1f} over all layers and sites; {stuck} "
        f"runs kept their L0 of before training. In the {len(plain)} cells trained on raw activations too, the factor "
        f"is {without:.1f} without normalisation and {with_it:.1f} with it",
    )


def fold_is_exact(rows: pd.DataFrame) -> Evidence:
    """G12."""
    mean, low, high = mean_interval(np.log10(rows.groupby("seed").fold_error.max()))
    flips, decisions = int(rows.fold_flips.sum()), float((rows.d_sae * FOLDED_ON).sum())
    outcome = judge(*(np.log10(EXACT) - one for one in (mean, high, low)))
    if outcome == "replicated" and flips:
        outcome = "partly" if flips / decisions < ROUNDING else "not replicated"
    return Evidence(
        outcome,
        mean,
        low,
        high,
        f"largest relative difference {rows.fold_error.max():.1e}; {flips} of {decisions:.1e} decisions whether a "
        f"latent is active differ in float32, {int(rows.fold_flips_double.sum())} in float64",
    )


def table_one(preset: str) -> pd.DataFrame:
    """The suite of a preset as the paper's table 1 lists its own: a line per width and set of layers."""
    plan, layers = PLANS[preset], LAYERS[preset]
    others = [width for width in plan.ladder if width != plan.width]
    lines = [
        (plan.width, f"all {len(layers)}", ", ".join(SITES), len(layers) * len(SITES)),
        *((width, f"{plan.ladder_layer}", "res", 1) for width in others),
    ]
    return pd.DataFrame(
        {
            "width": f"{width:,}",
            "layers": where,
            "sites": sites,
            "lambda": ", ".join(f"{one:g}" for one in plan.lambdas),
            "SAEs": count * len(plan.lambdas),
            "training tokens each": f"{plan.tokens:,}",
        }
        for width, where, sites, count in lines
    )


def ablations(rows: pd.DataFrame) -> pd.DataFrame:
    """Controls by layer and site: harm of zero and of mean ablation; of the SAE with the middle lambda (first seed) the
    L0 and FVU before training, the FVU of as many principal components, and its own L0, FVU and delta LM loss."""
    here = cells(rows)
    here = here[(here.seed == here.seed.min()) & (here.sparsity == middle(here.sparsity))]
    columns = {
        "ΔCE of zero": here.delta_ce_zero,
        "ΔCE of mean": here.delta_ce_mean,
        "L0 untrained": here.l0_untrained,
        "FVU untrained": here.nmse_untrained,
        "FVU of PCA": here.nmse_pca,
        "L0": here.l0,
        "FVU": here.fvu,
        "ΔCE": here.delta_ce,
        "ΔCE / of mean": here.ablated,
    }
    text = {name: values.map(lambda x: f"{x:.1f}" if x >= 10 else f"{x:.3f}") for name, values in columns.items()}
    return pd.DataFrame({"layer": here.layer, "site": here.site} | text).sort_values(["layer", "site"])


SHORT = {
    "above_0.1": "latents > 10 %",
    "above_0.01": "latents > 1 %",
    "frequency_median": "log10 frequency, median",
    "fold_error": "error of folding",
}


STUDIES = (SUITE, NORMALISED)

FIGURES = {  # name -> (study, function of the figures package, what it takes from the study's table)
    "scope-sites": (SUITE, "jumprelu_scope.harm_by_site", lambda rows: (cells(rows), PUBLISHED)),
    "scope-fvu": (SUITE, "jumprelu_scope.error_by_site", lambda rows: (cells(rows),)),
    "scope-depth": (SUITE, "jumprelu_scope.harm_by_depth", lambda rows: (cells(rows),)),
    "scope-width": (SUITE, "jumprelu_scope.harm_by_width", lambda rows: (ladder(rows),)),
    "scope-frequencies": (SUITE, "jumprelu_scope.frequencies", lambda rows: (ladder(rows), BINS)),
    "scope-settings": (NORMALISED, "jumprelu_scope.one_setting", lambda rows: (with_ablated(rows),)),
}

CLAIMS = (
    Claim(
        id=f"{KEY}-G1",
        statement="At equal L0, SAEs on the residual stream raise the language model's loss more than those on the MLP "
        "or attention output of the same layer, while their FVU is comparable.",
        rule=(
            "Mean of ln(delta LM loss of res / that of attn or mlp), interpolated in log-log at the L0 of the residual "
            "SAEs, above 0: with its interval over the layers trained with every seed, and for every layer and site; "
            "and the largest |ln FVU ratio| below ln 2 in the same two ways. Void if mean ablation does not harm at "
            "least twice as much in the residual stream as at the other sites (geometric mean over layers), or if "
            "fewer than half of the points are matched."
        ),
        published="res clearly above mlp and attn (Fig. 2), FVU comparable (Fig. 13); curves, no numbers",
        statistic="mean of ln(delta LM loss in the residual stream / that at another site) at equal L0",
        study=SUITE,
        test=residual_harms_more,
    ),
    Claim(
        id=f"{KEY}-G2",
        statement="At equal L0, wider SAEs are more faithful.",
        rule=(
            "Mean over consecutive widths of ln(delta LM loss of the wider / of the narrower) at equal L0 below 0 with "
            "its interval, and for every pair. Void if fewer than half of the points are matched, or if the loss rises "
            "while the training error of the widest still falls faster."
        ),
        published="the wider the better, 16.4K to 524K latents (Fig. 4: Gemma 2 9B, layer 20, res); no number",
        statistic="mean of ln(delta LM loss at twice the width / delta LM loss)",
        study=SUITE,
        test=wider_is_better,
    ),
    Claim(
        id=f"{KEY}-G3",
        statement="With the width, most latents fire less often, and a cluster of very frequent ones stays.",
        rule=(
            "Slope of the median log10 firing frequency of live latents on log2 width below 0 with its interval, and "
            "at every width at least one latent that fires on more than 10 % of tokens, in each seed and at each "
            "lambda."
        ),
        published="mode and mass move to lower frequency, the most frequent latents stay (Fig. 5: lambda = 6e-4)",
        statistic="change of the median log10 frequency per doubling of the width",
        study=SUITE,
        test=frequencies_fall,
    ),
    Claim(
        id=f"{KEY}-G11",
        statement="Once activations are scaled to E|x|^2 = 1, one bandwidth and one learning rate fit every layer and "
        "site.",
        rule=(
            "At the same lambda the largest L0 over layers and sites is less than 3 times the smallest: with its "
            "interval where every seed was trained, for all cells in the first seed; no run keeps more than 90 % of "
            "its L0 from before training. Negative control: without normalisation the factor is at least 10; else "
            "partly."
        ),
        published="eps = 0.001 and lr = 7e-5 for all SAEs of the suite (sec. 3.2); the factors of the rule are ours",
        statistic="ln of the largest ratio of L0 between cells of one lambda",
        study=NORMALISED,
        test=settings_fit,
    ),
    Claim(
        id=f"{KEY}-G12",
        statement="Constant and pre-encoder bias fold into the weights exactly.",
        rule=(
            "Released form against the SAE as trained, float32, held-out activations: largest relative error of "
            "reconstructions below 1e-5 with its interval, and the same latents active on every token. Partly if fewer "
            "than one decision in a million differs."
        ),
        published="an identity (app. A)",
        statistic="log10 of the largest relative error",
        study=SUITE,
        test=fold_is_exact,
    ),
)
