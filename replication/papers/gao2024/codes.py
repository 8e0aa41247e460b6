"""Shrinkage and progressive codes: latents refitted on a fixed support, or kept in other numbers (figures 8 and 10;
C21 to C25)."""

from collections.abc import Iterator
from functools import partial, reduce

import numpy as np
import pandas as pd
import torch

from replication import metrics
from replication.claims import NOTHING, Claim, Evidence, NoEvidence, both, interpolate_loglog, mean_interval
from replication.evaluate.codes import (
    TOLERANCE,
    keep_above,
    keep_largest,
    largest_reconstructions,
    optimality_gap,
    patch,
    positives,
    reconstructions,
    refine,
    thresholds,
)
from replication.evaluate.downstream import downstream
from replication.papers.gao2024.frontier import COLLAPSED
from replication.papers.gao2024.grid import GRIDS, KEY, SEEDS, make_run
from replication.results import Study
from replication.shapes import Tensor
from replication.store import trained
from replication.train import Run, Trained

MULTI = {"multi_weight": 1 / 8}  # the paper's L(k) + L(4k) / 8
SETTINGS = {"smoke": 2, "cpu": 1, "gpu": 2, "paper": 2}  # values of k that Multi-TopK is trained for
MULTIPLES = (0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4, 6)  # k' at test time over k; for ReLU over its own mean L0
DOWNSTREAM_AT = (1, 4)  # the multiples at which the language model is run too
TOKENS = 4096  # held-out tokens that an error is measured on
BLOCKS = 32  # held-out blocks of a downstream loss


def refinement_runs(preset: str) -> list[Run]:
    """Figure 8: TopK over k and ReLU over lambda, at the largest dictionary (runs of the frontier page)."""
    sizes, ks, lambdas, *_ = GRIDS[preset]
    settings = [("topk", k) for k in ks] + [("relu", penalty) for penalty in lambdas]
    return [make_run(preset, name, max(sizes), dial, seed) for seed in SEEDS for name, dial in settings]


def measure_refinement(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Each run as it was trained, and with its latents refitted on their support."""
    for one in trained(runs):
        yield one.run, refinement(one) | one.log


def refinement(one: Trained) -> dict[str, float]:
    """Sum of latents after / before the fit, mean |change| of an active latent, errors and downstream losses.

    Controls: `nmse_rescaled`, all latents multiplied by the one best factor instead; as many principal components as
    L0; the untrained SAE with its round(L0) largest latents, errors before and after the same fit and the `ratio` of
    their sums, on a quarter of the tokens; the downstream losses of a zero and of a mean activation; the solver's own
    `optimality_gap`.
    """
    sae, source, device = one.sae, one.run.source, str(one.mean.device)
    x, _ = _measured_and_others(one)
    latents, b_dec, error = sae.encode(x).detach(), sae.b_dec.detach(), partial(metrics.nmse, x, mean=one.mean)
    refined, recon, l0, active = refine(sae, x, latents), sae.decode(latents).detach(), metrics.l0(latents), latents > 0
    some, components = x[::4], max(round(l0.item()), 1)
    control = keep_largest(one.untrained.pre(some), components).detach()
    control_refined = refine(one.untrained, some, control)
    control_error = partial(metrics.nmse, some, mean=one.mean)
    values = {
        "l0": l0,
        "ratio": refined.sum() / latents.sum(),
        "change": (refined - latents).abs()[active].mean(),
        "size": latents[active].mean(),
        "nmse": error(recon),
        "nmse_refined": error(sae.decode(refined)),
        "nmse_rescaled": error(b_dec + (recon - b_dec) / metrics.shrinkage(x - b_dec, recon - b_dec)),
        "nmse_pca": metrics.pca_fvu(x)[min(components, sae.d_in)],
        "nmse_untrained": control_error(one.untrained.decode(control)),
        "nmse_untrained_refined": control_error(one.untrained.decode(control_refined)),
        "ratio_untrained": control_refined.sum() / control.sum(),
    }
    losses = downstream(source, patch(sae, sae.encode), BLOCKS, device)
    after = downstream(source, patch(sae, lambda x: refine(sae, x, sae.encode(x))), BLOCKS, device)
    return (
        {name: value.item() for name, value in values.items()}
        | {name: losses[name] for name in ("ce", "delta_ce", "delta_ce_zero", "delta_ce_mean")}
        | {"delta_ce_refined": after["delta_ce"], "d_in": sae.d_in}
        | {"optimality_gap": optimality_gap(sae, x, latents, refined)}
    )


def _measured_and_others(one: Trained) -> tuple[Tensor, Tensor]:
    """Two disjoint sets of at most TOKENS normalised held-out activations, drawn at random: a stride would prefer some
    positions of the context, and pre-activations depend on the position."""
    heldout = one.run.source.heldout(str(one.mean.device))
    size = min(TOKENS, len(heldout) // 2)
    order = torch.randperm(len(heldout), generator=torch.Generator().manual_seed(0)).to(heldout.device)
    return tuple(one.sae.normalise(heldout[chosen]).x for chosen in order[: 2 * size].split(size))


REFINEMENT = Study(KEY, "refinement", "Latents refitted on a fixed support", refinement_runs, measure_refinement)


def test_time_runs(preset: str) -> list[Run]:
    """Figure 10: TopK and Multi-TopK at the smallest k, and ReLU over lambda, at the largest dictionary."""
    sizes, ks, lambdas, *_ = GRIDS[preset]
    smallest = ks[: SETTINGS[preset]]
    settings = [("topk", k, options) for k in smallest for options in ({}, MULTI)] + [("relu", w, {}) for w in lambdas]
    return [
        make_run(preset, name, max(sizes), dial, seed, options=options)
        for seed in SEEDS
        for name, dial, options in settings
    ]


def measure_test_time(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Each run under TopK(k') and under one threshold, at MULTIPLES of the number of latents it was trained to use."""
    for one in trained(runs):
        yield one.run, at_test_time(one) | one.log


def at_test_time(one: Trained) -> dict:
    """Lists over MULTIPLES: L0 and NMSE under TopK(k') and under the one threshold that has the same mean L0 on other
    held-out tokens; controls: the untrained SAE under TopK(k') and as many principal components as k'. Downstream
    losses of TopK(k') at DOWNSTREAM_AT, with those of a zero and of a mean activation.
    """
    sae, source, device = one.sae, one.run.source, str(one.mean.device)
    x, others = _measured_and_others(one)
    own = one.run.sparsity if one.run.architecture == "topk" else metrics.l0(sae.encode(x)).item()
    ks = [min(max(round(multiple * own), 1), sae.d_sae) for multiple in MULTIPLES]
    cuts = thresholds(sae, others, [positives(sae, others).clamp(max=k).float().mean().item() for k in ks])
    jumps = [partial(keep_above, threshold=cut) for cut in cuts]
    left = metrics.pca_fvu(x)
    lists = {"k_test": ks, "threshold": cuts, "nmse_pca": [left[min(k, sae.d_in)].item() for k in ks]}
    for name, found in (
        ("topk", largest_reconstructions(sae, x, ks)),
        ("jump", reconstructions(sae, x, jumps)),
        ("untrained", largest_reconstructions(one.untrained, x, ks)),
    ):
        lists[f"l0_{name}"] = [l0 for _, l0 in found]
        lists[f"nmse_{name}"] = [metrics.nmse(x, recon, one.mean).item() for recon, _ in found]
    losses = [
        downstream(source, patch(sae, lambda x, k=k: keep_largest(sae.pre(x), k)), BLOCKS, device)
        for multiple, k in zip(MULTIPLES, ks, strict=True)
        if multiple in DOWNSTREAM_AT
    ]
    controls = {name: losses[0][name] for name in ("ce", "delta_ce_zero", "delta_ce_mean")}
    return lists | {"l0": own, "delta_ce_topk": [loss["delta_ce"] for loss in losses], "d_in": sae.d_in} | controls


TEST_TIME = Study(KEY, "test-time", "Other numbers of latents at test time", test_time_runs, measure_test_time)


def curves(rows: pd.DataFrame) -> pd.DataFrame:
    """The lists of TEST_TIME as one line per run and multiple, with `series`: topk, multi or relu."""
    names = ["k_test", "threshold", *(c for c in rows if c.startswith(("l0_", "nmse_")))]
    multi = rows.options.str.contains("multi_weight")
    rows = rows.assign(series=rows.architecture.mask(multi, "multi"), multiple=[list(MULTIPLES)] * len(rows))
    return (
        rows[["series", "d_sae", "sparsity", "seed", "l0", "d_in", "multiple", *names]]
        .explode(["multiple", *names], ignore_index=True)
        .astype(dict.fromkeys(["multiple", *names], float))
    )


def downstream_points(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per run and multiple of DOWNSTREAM_AT: series, sparsity, seed, multiple, nmse and delta_ce."""
    points = curves(rows)
    points = points[points.multiple.isin(DOWNSTREAM_AT)].sort_values("multiple", kind="stable")
    losses = rows[["delta_ce_topk"]].assign(multiple=[list(map(float, DOWNSTREAM_AT))] * len(rows))
    losses = losses.explode(["delta_ce_topk", "multiple"]).sort_values("multiple", kind="stable")
    return points.assign(delta_ce=losses.delta_ce_topk.to_numpy(float), nmse=points.nmse_topk)


def holds(table: pd.DataFrame, above: float = -np.inf, most: float = np.inf) -> tuple[str, float, float, float]:
    """Verdict on above < value <= most with the mean and its interval; one line per seed, one column per setting.

    The mean over settings is judged, with its interval over seeds; where it lies inside, a single setting whose own
    mean does not makes it 'partly'.
    """
    mean, low, high = mean_interval(table.mean(axis=1))
    every = ((table.mean() > above) & (table.mean() <= most)).all()
    if above < low and high <= most:
        return "replicated" if every else "partly", mean, low, high
    if above < mean <= most:
        return "partly", mean, low, high
    return "not replicated" if high <= above or low > most else "void", mean, low, high


def _usable(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs that did not collapse, whose refit is one."""
    return rows[(rows.dead <= COLLAPSED) & (rows.optimality_gap <= TOLERANCE)]


def _by_setting(rows: pd.DataFrame, values) -> pd.DataFrame:
    """One line per seed, one column per dial; only dials that every seed has."""
    return rows.assign(value=values).pivot(index="seed", columns="sparsity", values="value").dropna(axis=1)


def at_equal_l0(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """TopK's rows with ReLU's `columns` at the same L0 as `relu_<column>`, for every k that all seeds match.

    ReLU is interpolated per seed, piecewise-linearly in logarithms, and never extrapolated.
    """
    parts = []
    for _, cell in rows.groupby("seed"):
        topk, relu = (cell[cell.architecture == name] for name in ("topk", "relu"))
        if len(relu) > 1:
            parts.append(topk.assign(**{f"relu_{c}": interpolate_loglog(relu.l0, relu[c], topk.l0) for c in columns}))
    found = pd.concat(parts) if parts else rows.head(0).assign(**{f"relu_{c}": [] for c in columns})
    found = found.dropna(subset=[f"relu_{c}" for c in columns])
    return found.groupby("sparsity").filter(lambda cell: cell.seed.nunique() == rows.seed.nunique())


def relu_shrinks(rows: pd.DataFrame) -> Evidence:
    """C21: sum of latents after / before, at every setting of both architectures; |change| at equal L0."""
    usable = _usable(rows)
    matched = at_equal_l0(usable, ["change"])
    cells = (usable[usable.architecture == name] for name in ("relu", "topk"))
    relu, topk = (_by_setting(cell, cell.ratio) for cell in cells)
    if matched.empty or relu.empty:
        return Evidence("void", *NOTHING, "no L0 at which both architectures have runs that did not collapse")
    ours, unbiased = holds(relu, above=1.05), holds(topk, above=0.95, most=1.05)
    smaller = holds(_by_setting(matched, np.log(matched.relu_change / matched.change)), above=0)
    return Evidence(
        reduce(both, (ours[0], unbiased[0], smaller[0])),
        *ours[1:],
        f"ReLU: {_range(relu)}; TopK: {_range(topk)}; untrained: {rows.ratio_untrained.mean():.2f}; at equal L0 an "
        f"active latent of ReLU changes {np.exp(smaller[1]):.1f} times as much",
    )


def _range(table: pd.DataFrame) -> str:
    return f"{table.mean().min():.2f} to {table.mean().max():.2f}"


def gap_closes_in_part(rows: pd.DataFrame) -> Evidence:
    """C22: (ReLU before - ReLU after) / (ReLU before - TopK before), per matched L0 below d_in / 4."""
    usable = _usable(rows)
    matched = at_equal_l0(usable[usable.l0 < usable.d_in / 4], ["nmse", "nmse_refined"])
    gap = matched.relu_nmse - matched.nmse
    open_ = matched[(gap > 0).groupby(matched.sparsity).transform("all")]
    if open_.empty:
        return Evidence("void", *NOTHING, "no matched L0 below a quarter of the width at which TopK is ahead")
    share = (open_.relu_nmse - open_.relu_nmse_refined) / (open_.relu_nmse - open_.nmse)
    outcome, *numbers = holds(_by_setting(open_, share), above=0, most=1)
    names = ["relu_nmse", "relu_nmse_refined", "nmse", "nmse_refined", "nmse_untrained", "nmse_untrained_refined"]
    means = open_[names].mean()
    ks = ", ".join(f"{k:g}" for k in sorted(open_.sparsity.unique()))
    return Evidence(
        outcome,
        *numbers,
        f"the fit takes ReLU's NMSE from {means.relu_nmse:.3f} to {means.relu_nmse_refined:.3f} and TopK's from "
        f"{means.nmse:.3f} to {means.nmse_refined:.3f}, that of an untrained dictionary from "
        f"{means.nmse_untrained:.3f} to {means.nmse_untrained_refined:.3f} (means over L0 = {ks})",
    )


def _at(points: pd.DataFrame, series: str, column: str, multiple: float) -> pd.DataFrame:
    """A column at one multiple of k: one line per seed, one column per k."""
    here = points[(points.series == series) & (points.multiple == multiple)]
    return _by_setting(here, here[column])


def chosen_on_others(table: pd.DataFrame) -> pd.Series:
    """Per line (seed), the column with the lowest mean over all other lines.

    A minimum that is chosen and judged on the same numbers is too low by chance: what a seed is judged at is chosen
    without it.
    """
    if len(table) < 2:
        raise NoEvidence(f"a setting that is chosen on other seeds needs at least 2 of them, found {len(table)}")
    return pd.Series({seed: table.drop(seed).mean().idxmin() for seed in table.index})


def left_out(table: pd.DataFrame) -> pd.Series:
    """Per line, its value at the column that `chosen_on_others`."""
    return pd.Series({seed: table.loc[seed, column] for seed, column in chosen_on_others(table).items()})


def _error_by_multiple(points: pd.DataFrame, series: str, inside) -> dict[float, pd.DataFrame]:
    """k -> NMSE under TopK(k') per seed (lines) and multiple that is inside (columns)."""
    here = points[(points.series == series) & inside(points.multiple)]
    return {k: cell.pivot(index="seed", columns="multiple", values="nmse_topk") for k, cell in here.groupby("sparsity")}


def _trained_with(rows: pd.DataFrame, *series: str) -> pd.DataFrame | str:
    """The curves of runs that did not collapse, or the reason why there is nothing to judge."""
    points = curves(rows[rows.dead <= COLLAPSED])
    lost = [name for name in series if _at(points, name, "nmse_topk", 1).empty]
    return f"more than half of the latents are dead in runs of {', '.join(lost)}" if lost else points


LIKE = 0.05  # by how much a mean L0 may miss the one that is asked for


def _missed(points: pd.DataFrame, series: tuple[str, ...], multiples: tuple[float, ...], *rules: str) -> str:
    """What is wrong where a mean L0 misses the k' that was asked for by more than LIKE, else "": fewer latents than k'
    may be positive, and an error that no longer changes would pass for a code that can be cut anywhere."""
    asked = points[points.multiple.isin(multiples) & points.series.isin(series)]
    share = asked[[f"l0_{rule}" for rule in rules]].div(asked.k_test, axis=0)
    if ((share - 1).abs() <= LIKE).all(axis=None):
        return ""
    names = " or ".join("k" if multiple == 1 else f"{multiple:g}k" for multiple in multiples)
    return f"L0 is {share.min(axis=None):.2f} to {share.max(axis=None):.2f} of {names}"


def topk_overfits_k(rows: pd.DataFrame) -> Evidence:
    """C23: where NMSE is smallest over k', and NMSE at 4k over NMSE at k."""
    points = _trained_with(rows, "topk")
    if isinstance(points, str):
        return Evidence("void", *NOTHING, points)
    if missed := _missed(points, ("topk",), (1, 2, 4), "topk"):
        return Evidence("void", *NOTHING, missed)
    beyond = _error_by_multiple(points, "topk", lambda m: (m > 1) & (m <= 2))
    elsewhere = _error_by_multiple(points, "topk", lambda m: (m <= 1) | (m > 2))
    seeds = points.seed.nunique()
    gain = {k: np.log(elsewhere[k].min(axis=1) / left_out(beyond[k])) for k in beyond if len(beyond[k]) == seeds}
    first = holds(pd.DataFrame(gain), above=0)
    second = holds(_at(points, "topk", "nmse_topk", 4) / _at(points, "topk", "nmse_topk", 1), above=1)
    best = points[points.series == "topk"].sort_values("nmse_topk").drop_duplicates(["seed", "sparsity"]).multiple
    return Evidence(
        both(first[0], second[0]),
        *second[1:],
        f"NMSE is smallest at {best.min():g} to {best.max():g} times k; at the k < k' <= 2k that does best on the "
        f"other seeds it is {-100 * np.expm1(-first[1]):.1f} % below the smallest elsewhere",
    )


def multi_topk_is_progressive(rows: pd.DataFrame) -> Evidence:
    """C24: the largest rise of NMSE above its lowest value so far, up to 4k, and NMSE at k over that of TopK."""
    points = _trained_with(rows, "topk", "multi")
    if isinstance(points, str):
        return Evidence("void", *NOTHING, points)
    if missed := _missed(points, ("multi",), (1, 2, 4), "topk"):
        return Evidence("void", *NOTHING, missed)
    kept = points[(points.series == "multi") & (points.multiple <= 4)].sort_values("multiple")
    error = kept.pivot(index="multiple", columns=["seed", "sparsity"], values="nmse_topk")
    rise = holds((error / error.cummin() - 1).max().unstack("sparsity"), most=0.02)
    cost = holds(_at(points, "multi", "nmse_topk", 1) / _at(points, "topk", "nmse_topk", 1), above=0.8, most=1.2)
    return Evidence(
        both(rise[0], cost[0]),
        *rise[1:],
        f"up to 4k NMSE rises by at most {100 * rise[1]:.1f} %; at k it is {cost[1]:.2f} times that of TopK",
    )


def one_threshold_after_multi(rows: pd.DataFrame) -> Evidence:
    """C25: NMSE with one threshold over NMSE with TopK(k'), at 2k and at 4k, after either training.

    Void where either L0 misses 2k or 4k by more than 5 %.
    """
    points = _trained_with(rows, "topk", "multi")
    if isinstance(points, str):
        return Evidence("void", *NOTHING, points)
    if missed := _missed(points, ("topk", "multi"), (2, 4), "topk", "jump"):
        return Evidence("void", *NOTHING, missed)
    ratio = {
        (series, m): _at(points, series, "nmse_jump", m) / _at(points, series, "nmse_topk", m)
        for series in ("topk", "multi")
        for m in (2, 4)
    }
    parts = {
        key: holds(table, above=1.1) if key[0] == "topk" else holds(table, above=0.9, most=1.15)
        for key, table in ratio.items()
    }
    numbers = holds(pd.concat([ratio["topk", 2], ratio["topk", 4]], axis=1, keys=(2, 4)))[1:]
    means = {name: " and ".join(f"{parts[name, m][1]:.2f}" for m in (2, 4)) for name in ("topk", "multi")}
    return Evidence(
        reduce(both, (part[0] for part in parts.values())),
        *numbers,
        f"at 2k and 4k: {means['topk']} after TopK, {means['multi']} after Multi-TopK",
    )


STUDIES = (REFINEMENT, TEST_TIME)

FIGURES = {
    "refinement": (REFINEMENT, "codes.refinement", lambda rows: (rows,)),
    "refinement-errors": (REFINEMENT, "codes.refinement_errors", lambda rows: (rows,)),
    "test-time": (TEST_TIME, "codes.test_time", lambda rows: (curves(rows),)),
    "test-time-downstream": (TEST_TIME, "codes.test_time_downstream", lambda rows: (downstream_points(rows),)),
}


CLAIMS = (
    Claim(
        id="gao2024-C21",
        statement="ReLU with an L1 penalty makes its latents systematically too small, and TopK does not.",
        rule=(
            "With the decoder and each token's set of active latents held fixed, the latents are fitted again to the "
            "input. The ratio of their sum after to before is above 1.05 for ReLU and between 0.95 and 1.05 for TopK, "
            "and the mean absolute change is smaller for TopK."
        ),
        published=(
            "best activations systematically larger for ReLU, no bias and smaller changes for TopK (section 5.1, Fig. "
            "8a)"
        ),
        statistic="sum of latents after / before the fit, ReLU (TopK in the finding)",
        study=REFINEMENT,
        test=relu_shrinks,
    ),
    Claim(
        id="gao2024-C22",
        statement="Undoing the shrinkage of ReLU's latents closes only part of its gap to TopK.",
        rule=(
            "At equal L0, below a quarter of the width and where TopK is ahead in every seed, the fall of ReLU's NMSE "
            "when its latents are fitted again (C21), as a share of its gap to TopK before, lies between 0 and 1."
        ),
        published="both architectures improve, and the gap closes only in part (section 5.1, Fig. 8b); from memory",
        statistic="share of the gap in NMSE that the fit closes",
        study=REFINEMENT,
        test=gap_closes_in_part,
    ),
    Claim(
        id="gao2024-C23",
        statement=(
            "An autoencoder trained with TopK gets worse when far more latents are kept at test time than in training."
        ),
        rule=(
            "With k' latents kept at test time instead of k, NMSE at a k' above k and at most 2k, chosen on the other "
            "seeds, is below NMSE at every k' up to k and above 2k, and NMSE at 4k is above NMSE at k. Void where "
            "fewer latents than k' are positive (mean L0 more than 5 % below k, 2k or 4k)."
        ),
        published=(
            "the error improves up to k, then gets strongly worse (section 5.3, Fig. 10); that it improves slightly "
            "beyond k is from memory"
        ),
        statistic="NMSE at 4k / NMSE at k (k' of the smallest NMSE in the finding)",
        study=TEST_TIME,
        test=topk_overfits_k,
    ),
    Claim(
        id="gao2024-C24",
        statement=(
            "Training on two values of k at once (Multi-TopK) gives codes that improve steadily with the number of "
            "latents kept at test time, at a small cost at k itself."
        ),
        rule=(
            "For the loss L(k) + L(4k) / 8, NMSE does not rise by more than 2 % as the number of latents kept grows to "
            "4k, and NMSE at k is within 20 % of that of TopK trained at k. Void where fewer latents are positive "
            "(mean L0 more than 5 % below k, 2k or 4k)."
        ),
        published=(
            "progressive at every number of latents kept (section 5.3, Fig. 10); the slightly larger error at k is "
            "from memory"
        ),
        statistic="largest relative rise of NMSE up to 4k (NMSE at k against TopK in the finding)",
        study=TEST_TIME,
        test=multi_topk_is_progressive,
    ),
    Claim(
        id="gao2024-C25",
        statement=(
            "Replacing TopK at test time by one threshold for all latents costs error above the trained k, but hardly "
            "any after training with Multi-TopK."
        ),
        rule=(
            "NMSE with the threshold (JumpReLU) over NMSE with TopK, at a mean of 2k and of 4k active latents, is "
            "above 1.1 after training with TopK and between 0.9 and 1.15 after training with Multi-TopK. Void where "
            "either mean misses 2k or 4k by more than 5 %."
        ),
        published=(
            "worse than TopK above the trained k; the two curves nearly coincide for Multi-TopK (section 5.3, Fig. "
            "10); from memory"
        ),
        statistic="NMSE JumpReLU / NMSE TopK at L0 = 2k and 4k, after TopK (after Multi-TopK in the finding)",
        study=TEST_TIME,
        test=one_threshold_after_multi,
    ),
)
