"""How the latents behave: very frequent ones, what the token says about them, how evenly they matter, what depends on
the position (JumpReLU, figures 5, 6 and sec. 5.3; Gemma Scope, figures 3, 15 and 16; J6, J7, J8, G4, G10)."""

from collections.abc import Iterable, Iterator
from itertools import product

import numpy as np
import pandas as pd
import torch
from scipy import stats

from replication.claims import NOTHING, Claim, Evidence, NoEvidence, judge, mean_interval
from replication.evaluate.behaviour import (
    SCORED,
    at_frequencies,
    diffusion,
    error_by_position,
    harm_by_position,
    heldout_tokens,
    in_bins,
    token_scores,
)
from replication.evaluate.downstream import subject
from replication.evaluate.reconstruction import passed
from replication.papers.jumprelu2024 import frontier, scope
from replication.papers.jumprelu2024.grid import KEY, SEEDS, SITES, source, with_place
from replication.papers.jumprelu2024.scope import BINS, firing
from replication.results import Study
from replication.sae import SAE
from replication.shapes import Float, Int, Tensor
from replication.store import trained
from replication.train import Run

TYPES = frontier.CORE


def types(preset: str) -> list[Run]:
    """JumpReLU, TopK and Gated (RI-L1) over their dials at the residual stream: the longest of the page on fidelity."""
    plan = frontier.PLANS[preset]
    seeds = SEEDS[:1] if preset == "smoke" else SEEDS
    return [
        frontier.make_run(
            preset, source(preset, *place), method, sparsity, seed, frontier.longest_tokens(preset, place)
        )
        for seed, place in product(seeds, plan.where)
        if place[0] == "res"
        for method in TYPES
        for sparsity in plan.dials[method]
    ]


def sites(preset: str) -> list[Run]:
    """JumpReLU over lambda at the three sites of one layer: SAEs of the suite, in all seeds."""
    plan = scope.PLANS[preset]
    return [
        scope.cell(preset, site, plan.ladder_layer, plan.width, sparsity, seed)
        for seed, site, sparsity in product(SEEDS, SITES, plan.lambdas)
    ]


# ---------------------------------------------------------------------------------------------------------- measures

FREQUENT = 0.1  # share of tokens; above it a latent is called very frequent
LEAST = 10  # tokens of each half of the text that a latent must be active on to be scored
INTERPRETABLE = 0.9  # score above which the paper's regression counts a latent
HARM_BLOCKS = 256  # contexts that the harm at each position is averaged over
FREQUENCY_BINS = BINS[::2]  # edges of log10 frequency, four bins in a factor of ten


def rank_correlation(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> tuple[float | None, float | None]:
    """Spearman's and its p value; None where it is not defined."""
    if len(a) < 3 or len(a.unique()) == 1 or len(b.unique()) == 1:
        return None, None
    found = stats.spearmanr(a.cpu(), b.cpu())
    return float(found.statistic), float(found.pvalue)


def summarised(score: Float[Tensor, " d_sae"], frequency: Float[Tensor, " d_sae"]) -> dict:
    """Of the latents that have a score: how many, how high, and how that goes with their frequency."""
    kept = ~score.isnan()
    score, frequency = score[kept], frequency[kept]
    edges = torch.tensor(FREQUENCY_BINS).to(frequency)
    count, by_frequency = in_bins(score, frequency.log10(), edges)
    above = frequency > FREQUENT
    spearman, p = rank_correlation(frequency, score)
    return {
        "scored": len(score),
        "interpretable": int((score > INTERPRETABLE).sum()),
        "score": _mean(score),
        "score_frequent": _mean(score[above]),
        "score_others": _mean(score[~above]),
        "spearman": spearman,
        "spearman_p": p,
        "scored_by_frequency": count,
        "score_by_frequency": by_frequency,
    }


def _mean(values: Tensor) -> float | None:
    return values.mean().item() if len(values) else None


@torch.no_grad()
def interpretability(
    sae: SAE, untrained: SAE, raw: Float[Tensor, "n d_in"], tokens: Int[Tensor, " n"], d_vocab: int
) -> dict:
    """What the token says about each latent (see `token_scores`), summarised; with two controls.

    `_permuted`: the text with its tokens in a random order, which leaves nothing to find. `_untrained`: the SAE before
    its first step, each latent with a threshold that makes it as frequent as its trained self (`at_frequencies`): what
    any direction would score. `spearman_gain`: of frequency and the score above that control, latent by latent.
    """
    x = sae.normalise(raw).x
    latents = sae.encode(x)
    frequency = (latents != 0).float().mean(0)
    random = at_frequencies(untrained.pre(x), frequency)
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))
    score = token_scores(latents, tokens, d_vocab, LEAST)
    controls = {
        "permuted": token_scores(latents, tokens[order], d_vocab, LEAST),
        "untrained": token_scores(random, tokens, d_vocab, LEAST),
    }
    found = summarised(score, frequency)
    for name, control in controls.items():
        wanted = ("scored", "interpretable", "score", "spearman", "scored_by_frequency", "score_by_frequency")
        values = summarised(control, frequency)
        found |= {f"{column}_{name}": values[column] for column in wanted}
    gain = summarised(score - controls["untrained"], frequency)
    return found | {"spearman_gain": gain["spearman"], "spearman_gain_p": gain["spearman_p"]}


def measure_types(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Frequencies, scores and uniformity of each SAE."""
    for one in trained(runs):
        where, device = one.run.source, str(one.mean.device)
        raw = where.heldout(device)
        density = passed(one.sae, one.sae.normalise(raw).x).density
        text = raw[:SCORED], heldout_tokens(where)[:SCORED], subject(where, device).d_vocab
        yield (
            one.run,
            {"l0": density.sum().item()}
            | firing(density)
            | interpretability(one.sae, one.untrained, *text)
            | diffusion(one.sae, where, device=device)
            | one.log,
        )


def measure_sites(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Uniformity of each SAE, and its error and harm at each position."""
    for one in trained(runs):
        where, device = one.run.source, str(one.mean.device)
        density = passed(one.sae, one.sae.normalise(where.heldout(device)).x).density
        error, variance = error_by_position(one.sae, where, device)
        harm = harm_by_position(where, one.sae.reconstruct, HARM_BLOCKS, device)
        yield (
            one.run,
            {
                "l0": density.sum().item(),
                "position": list(range(where.skip_first, where.context)),
                "error_by_position": error.tolist(),
                "variance_by_position": variance.tolist(),
                "delta_ce_by_position": harm.tolist(),
            }
            | diffusion(one.sae, where, device=device)
            | one.log,
        )


TYPES_STUDY = Study(KEY, "behaviour-types", "How latents behave, by architecture", types, measure_types)
SITES_STUDY = Study(KEY, "behaviour-sites", "How latents behave, by site", sites, measure_sites)
STUDIES = (TYPES_STUDY, SITES_STUDY)


# ------------------------------------------------------------------------------------------------------------- rules

AS_MANY = 79  # 0.06 % of 2^17 latents, the most very frequent ones of the paper
AT_LEAST = 2 / 3  # of the cells
SIGNIFICANT = 0.01
EQUAL = (0.9, 1.1)  # odds ratios
SLACK = 1.25  # J8: by how much the range of L0 that two architectures share is widened
HALF = 0.5  # G4: the first position's error against that of the plateau
EARLY = 0.05  # share of the context before which the error of the MLP site peaks


def all_of(outcomes: Iterable[str]) -> str:
    """Verdict on a rule of many parts: the one they share; partly where some hold with their intervals, or where none
    is contradicted and one at least has the right sign."""
    found = set(outcomes)
    if len(found) == 1:
        return found.pop()
    if "replicated" in found or "not replicated" not in found:
        return "partly"
    return "not replicated"


def above_zero(values: Iterable[float]) -> str:
    return judge(*mean_interval(values))


def below(values: Iterable[float], bound: float) -> str:
    """Verdict on 'the mean is below the bound'."""
    mean, low, high = mean_interval(values)
    return judge(bound - mean, bound - high, bound - low)


def within(mean: float, low: float, high: float, bounds: tuple[float, float]) -> str:
    """Verdict on 'the mean lies within the bounds', the interval with it."""
    if bounds[0] <= low and high <= bounds[1]:
        return "replicated"
    if bounds[0] <= mean <= bounds[1]:
        return "partly"
    return "not replicated" if high < bounds[0] or low > bounds[1] else "void"


def middle_layer(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the middle one of the layers, which are drawn; claims look at all."""
    layer = with_place(rows).layer
    middle = sorted(layer.unique())[layer.nunique() // 2]
    return rows[layer == middle]


def counts_at_equal_l0(rows: pd.DataFrame, tested: str, reference: str, column: str) -> pd.DataFrame:
    """`column`, a count, of two architectures at every L0 at which one was trained and that lies between two of the
    other: source, seed, l0 and a column for each.

    ln(1 + count) is interpolated piecewise-linearly in ln L0, never extrapolated. Counts grow faster than L0, so that
    an interpolation is likely to err to one side; taken at the L0 of both it does so for both.
    """
    parts = []
    for (where, seed), one in rows.groupby(["source", "seed"]):
        pair = [one[one.architecture == name].sort_values("l0") for name in (tested, reference)]
        at = np.log(np.concatenate([each.l0 for each in pair]))
        part = pd.DataFrame({"source": where, "seed": seed, "l0": np.exp(at)})
        for name, each in zip((tested, reference), pair, strict=True):
            known = np.log(each.l0), np.log1p(each[column].astype(float))
            part[name] = np.expm1(np.interp(at, *known, left=np.nan, right=np.nan))
        parts.append(part)
    return pd.concat(parts, ignore_index=True).dropna()


def more_are_frequent(rows: pd.DataFrame) -> Evidence:
    """J6: counts above 10 % of JumpReLU and TopK minus that of Gated at equal L0; JumpReLU's largest count."""
    if missing := set(TYPES) - set(rows.architecture):
        raise NoEvidence(f"the table has no {', '.join(sorted(missing))}")
    outcomes, found, number = [], [], NOTHING
    for name, label in (("jumprelu", "JumpReLU"), ("topk", "TopK")):
        counts = counts_at_equal_l0(rows, name, "gated", f"above_{FREQUENT:g}")
        more = counts[name] - counts.gated
        cells = more.groupby(counts.seed)
        if cells.ngroups < 2:
            return Evidence("void", *NOTHING, f"the L0 of {label} and Gated do not overlap in two seeds")
        outcome = above_zero(cells.mean())
        share = (more > 0).mean()
        if outcome == "replicated" and share < AT_LEAST:
            outcome = "partly"
        outcomes.append(outcome)
        number = mean_interval(cells.mean()) if name == "jumprelu" else number
        found.append(f"{label} has {cells.mean().mean():+.1f} ({outcome}; more at {share:.0%} of {len(more)} cells)")
    jump = rows[rows.architecture == "jumprelu"]
    largest = jump.groupby("seed")[f"above_{FREQUENT:g}"].max()
    outcomes.append(below(largest, AS_MANY))
    sparse = jump[jump.l0 / jump.d_sae <= FREQUENT / 4][f"above_{FREQUENT:g}"]
    among = f" (up to {sparse.max()} where the mean frequency is at most {FREQUENT / 4:.1%})" if len(sparse) else ""
    return Evidence(
        all_of(outcomes),
        *number,
        f"latents above 10 % against Gated at equal L0: {'; '.join(found)}; a JumpReLU SAE has up to {largest.max()} "
        f"of {jump.d_sae.iloc[0]:,}{among} ({outcomes[-1]})",
    )


def frequent_are_opaque(rows: pd.DataFrame) -> Evidence:
    """J7: Spearman's correlation over the latents of each JumpReLU SAE of frequency and score, and of frequency and
    the score above the control."""
    jump = rows[(rows.architecture == "jumprelu") & rows.spearman.notna() & rows.spearman_gain.notna()]
    if jump.empty:
        raise NoEvidence("no JumpReLU SAE has latents that can be scored")
    score, gain = (_falls(jump, column) for column in ("spearman", "spearman_gain"))
    control = jump.spearman_untrained.astype(float).mean()
    mean_gain = jump.spearman_gain.astype(float).mean()
    return Evidence(
        all_of((score, gain)),
        *mean_interval(jump.spearman.astype(float).groupby(jump.seed).mean()),
        f"of the score itself ({score}); of the score above that of untrained directions of equal frequency it is "
        f"{mean_gain:+.2f} ({gain}), of those directions alone {control:+.2f}; {_frequent_over_l0(jump)}",
    )


def _falls(jump: pd.DataFrame, column: str) -> str:
    """Verdict on 'this rank correlation is below 0'."""
    values = jump[column].astype(float)
    outcome = below(values.groupby(jump.seed).mean(), 0)
    share = ((values < 0) & (jump[f"{column}_p"] < SIGNIFICANT)).mean()
    return "partly" if outcome == "replicated" and share < AT_LEAST else outcome


def _frequent_over_l0(jump: pd.DataFrame) -> str:
    """Mean scores of the very frequent latents and of the others at the smallest and the largest L0."""
    cells = jump.groupby("sparsity")[["l0", "score_frequent", "score_others"]].agg(lambda c: c.astype(float).mean())
    ends = cells.dropna().sort_values("l0").iloc[[0, -1]] if len(cells.dropna()) else cells[:0]
    if ends.empty:
        return "no latent above 10 % can be scored"
    return "; ".join(
        f"at L0 {one.l0:.0f} latents above 10 % score {one.score_frequent:.2f}, the others {one.score_others:.2f}"
        for one in ends.drop_duplicates().itertuples()
    )


def log_odds_ratio(rows: pd.DataFrame, tested: str, reference: str) -> float:
    """b in  logit P(score > 0.9) = b [tested] + c ln L0 + a constant per layer,  by maximum likelihood over all scored
    latents of the two architectures."""
    rows = rows[rows.architecture.isin((tested, reference))]
    layers = pd.get_dummies(rows.source).to_numpy(float)
    design = np.column_stack([rows.architecture == tested, np.log(rows.l0), layers]).astype(float)
    total, hits = rows.scored.to_numpy(float), rows.interpretable.to_numpy(float)
    beta = np.zeros(design.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ beta))
        step = np.linalg.solve(design.T @ (design * (total * p * (1 - p))[:, None]), design.T @ (hits - total * p))
        beta = beta + np.clip(step, -2, 2)
    return float(beta[0])


def comparable(rows: pd.DataFrame, tested: str, reference: str) -> pd.DataFrame:
    """Runs of the two inside the range of L0 that both cover, per layer and seed; its ends are widened by a quarter, as
    the ends of two dials never meet."""
    pair = rows[rows.architecture.isin((tested, reference))]
    cells = pair.groupby(["source", "seed", "architecture"]).l0
    low = cells.transform("min").groupby([pair.source, pair.seed]).transform("max") / SLACK
    high = cells.transform("max").groupby([pair.source, pair.seed]).transform("min") * SLACK
    return pair[(pair.l0 >= low) & (pair.l0 <= high)]


def odds_ratios(rows: pd.DataFrame, reference: str) -> pd.Series | str:
    """ln odds ratio of JumpReLU against a reference per seed, or why there is none."""
    pair = comparable(rows, "jumprelu", reference)
    hits = pair.groupby(["seed", "architecture"]).interpretable.sum().unstack()
    if len(hits.columns) < 2 or hits.isna().any(axis=None):
        return f"the L0 of JumpReLU and {reference} do not overlap"
    if (hits < 10).any(axis=None):
        return f"too few latents score above {INTERPRETABLE:g} to compare JumpReLU with {reference}"
    return pd.Series({seed: log_odds_ratio(one, "jumprelu", reference) for seed, one in pair.groupby("seed")})


def types_are_equal(rows: pd.DataFrame) -> Evidence:
    """J8: odds ratio of a score above 0.9, JumpReLU against TopK; against Gated beside it."""
    if missing := {"jumprelu", "topk"} - set(rows.architecture):
        raise NoEvidence(f"the table has no {', '.join(sorted(missing))}")
    found = {name: odds_ratios(rows, name) for name in ("topk", "gated")}
    if isinstance(found["topk"], str):
        return Evidence("void", *NOTHING, found["topk"])
    log_ratio = mean_interval(found["topk"])
    mean, low, high = np.exp(log_ratio)
    against = found["gated"]
    gated = (
        against
        if isinstance(against, str)
        else "against Gated {:.2f} [{:.2f}, {:.2f}]".format(*np.exp(mean_interval(against)))
    )
    share = rows.interpretable.groupby(rows.architecture).sum() / rows.scored.groupby(rows.architecture).sum()
    shares = ", ".join(f"{name} {share[name]:.1%}" for name in TYPES if name in share)
    untrained = rows.interpretable_untrained.sum() / max(rows.scored_untrained.sum(), 1)
    return Evidence(
        within(mean, low, high, EQUAL),
        mean,
        low,
        high,
        f"score above {INTERPRETABLE:g}: {shares}; before training {untrained:.1%}; {gated}",
    )


def curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `measure_sites` at the middle lambda, one line per position: site, seed, position, error, variance, fvu,
    delta_ce (NaN at the last position, which predicts nothing)."""
    rows = with_place(rows)
    lambdas = sorted(rows.sparsity.unique())
    parts = []
    for row in rows[rows.sparsity == lambdas[len(lambdas) // 2]].itertuples():
        error, variance = np.array(row.error_by_position), np.array(row.variance_by_position)
        harm = np.append(row.delta_ce_by_position, np.nan)
        values = {"position": row.position, "error": error, "variance": variance, "fvu": error / variance}
        parts.append(pd.DataFrame({"site": row.site, "seed": row.seed, "l0": row.l0, **values, "delta_ce": harm}))
    return pd.concat(parts, ignore_index=True)


def shape_of(curve: pd.DataFrame) -> pd.Series:
    """Of one curve over positions: the first value over the mean of the second half, for `error` and for `fvu`,
    Spearman's correlation of error and position, and where the error is largest."""
    curve = curve.sort_values("position")
    plateau = curve[len(curve) // 2 :]
    return pd.Series(
        {
            "first": curve.error.iloc[0] / plateau.error.mean(),
            "first_fvu": curve.fvu.iloc[0] / plateau.fvu.mean(),
            "rise": stats.spearmanr(curve.position, curve.error).statistic,
            "peak": curve.position.iloc[int(curve.error.argmax())],
        }
    )


def early_tokens_are_easy(rows: pd.DataFrame) -> Evidence:
    """G4: the error at the first position, its rise at attention and residual stream, its early peak at the MLP."""
    lines = curves(rows)
    if missing := set(SITES) - set(lines.site):
        raise NoEvidence(f"the table has no site {', '.join(sorted(missing))}")
    context = lines.position.max() + 1
    shapes = lines.groupby(["site", "seed"])[lines.columns].apply(shape_of)
    small = {site: below(shapes.loc[site].first, HALF) for site in SITES}
    rising = {site: above_zero(shapes.loc[site].rise) for site in ("attn", "res")}
    peak = below(shapes.loc["mlp"].peak, EARLY * context)
    worst = max(SITES, key=lambda site: shapes.loc[site].first.mean())
    first = ", ".join(
        f"{site} {one['first'].mean():.2f} (over the variance {one['first_fvu'].mean():.2f}; {small[site]})"
        for site, one in ((site, shapes.loc[site]) for site in SITES)
    )
    rise = ", ".join(f"{site} {shapes.loc[site].rise.mean():+.2f} ({rising[site]})" for site in rising)
    return Evidence(
        all_of([*small.values(), *rising.values(), peak]),
        *mean_interval(shapes.loc[worst]["first"]),
        f"error at the first position over that of the second half of the context (then the same for the error over "
        f"the variance at the position): {first}; Spearman with position: {rise}; "
        f"the error of mlp is largest at position {shapes.loc['mlp'].peak.mean():.0f} of {context} ({peak})",
    )


def slopes(rows: pd.DataFrame) -> pd.DataFrame:
    """Per site, seed and `side` (gradient at x, at the reconstruction, of another token): slopes of ln e^S and of r_L0
    on ln L0."""
    found = []
    for (site, seed), cell_ in with_place(rows).groupby(["site", "seed"]):
        for side in ("x", "recon", "other"):
            line = np.log(cell_.l0)
            found.append(
                {
                    "site": site,
                    "seed": seed,
                    "side": side,
                    "effective": np.polyfit(line, np.log(cell_[f"effective_{side}"]), 1)[0],
                    "ratio": np.polyfit(line, cell_[f"ratio_{side}"], 1)[0],
                }
            )
    return pd.DataFrame(found)


def importance_spreads(rows: pd.DataFrame) -> Evidence:
    """G10: slopes of ln e^S on ln L0 at every site, with the gradient at x and at the reconstruction; whether r_L0
    changes most at the residual stream."""
    if rows.groupby("source").sparsity.nunique().min() < 2:
        raise NoEvidence("a slope on ln L0 needs several lambdas")
    ratios = rows[["ratio_x", "ratio_recon"]]
    if (ratios > 1).any(axis=None) or ratios.lt(1 / rows.active_here, axis=0).any(axis=None):
        return Evidence("void", *NOTHING, "r_L0 leaves the range from 1 / L0 to 1")
    found = slopes(rows).set_index(["side", "site", "seed"]).sort_index()
    grows = all_of([above_zero(found.loc[side, site].effective) for side in ("x", "recon") for site in SITES])
    steep = found.ratio.abs().unstack("site")
    lead = (steep.res - steep[["attn", "mlp"]].max(axis=1)).unstack("side")
    most = all_of((above_zero(lead.x), above_zero(lead.recon)))
    control = (rows.effective_other / rows.effective_x).mean()
    summary = "; ".join(f"{name}: {_slopes_of(found.loc[side])}" for side, name in SIDES.items())
    return Evidence(
        all_of((grows, most)),
        *mean_interval(found.loc["x", "res"].effective),
        f"e^S grows with L0 ({grows}); r_L0 changes most at res ({most}). With the gradient of another token e^S "
        f"is {control:.2f} times as large. Slopes of ln e^S and of r_L0, {summary}",
    )


SIDES = {"x": "gradient at x", "recon": "gradient at the reconstruction", "other": "control, gradient of another token"}


def _slopes_of(found: pd.DataFrame) -> str:
    """Slopes of each site with the interval of that of r_L0."""
    parts = []
    for site in SITES:
        mean, low, high = mean_interval(found.loc[site].ratio)
        grows, *ends = mean_interval(found.loc[site].effective)
        parts.append(f"{site} {grows:+.2f} [{ends[0]:+.2f}, {ends[1]:+.2f}] and {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
    return ", ".join(parts)


# ----------------------------------------------------------------------------------------------------------- figures


PUBLISHED_RATIO = (0.45, 0.70)
"""Range of the axis of r_L0 in figure 16 of Gemma Scope; the text gives no numbers."""


def by_frequency(rows: pd.DataFrame) -> pd.DataFrame:
    """Score against frequency, one line per SAE and bin with at least FEW scored latents: architecture, seed, sparsity,
    l0, kind ("trained", "permuted", "untrained"), frequency (the middle of the bin), score, scored."""
    middles = 10 ** ((FREQUENCY_BINS[1:] + FREQUENCY_BINS[:-1]) / 2)
    parts = []
    for row in rows.itertuples():
        for kind, ending in (("trained", ""), ("permuted", "_permuted"), ("untrained", "_untrained")):
            values = {
                "frequency": middles,
                "score": getattr(row, f"score_by_frequency{ending}"),
                "scored": getattr(row, f"scored_by_frequency{ending}"),
            }
            same = {name: getattr(row, name) for name in ("architecture", "seed", "sparsity", "l0")}
            parts.append(pd.DataFrame(same | {"kind": kind} | values))
    found = pd.concat(parts, ignore_index=True)
    return found[found.scored >= FEW].astype({"score": float})


FEW = 3  # latents; a bin with fewer is not drawn


def histograms(rows: pd.DataFrame) -> pd.DataFrame:
    """Latents per bin of frequency, a line per SAE and bin: architecture, seed, sparsity, l0, left, right, latents."""
    edges = {"left": 10 ** BINS[:-1], "right": 10 ** BINS[1:]}
    return pd.concat(
        [
            pd.DataFrame(
                {name: getattr(row, name) for name in ("architecture", "seed", "sparsity", "l0", "d_sae")}
                | edges
                | {"latents": row.frequency_histogram}
            )
            for row in rows.itertuples()
        ],
        ignore_index=True,
    )


FIGURES = {
    "jumprelu-frequent": (TYPES_STUDY, "jumprelu_behaviour.frequent", lambda rows: (middle_layer(rows), AS_MANY)),
    "jumprelu-histograms": (
        TYPES_STUDY,
        "jumprelu_behaviour.histograms",
        lambda rows: (histograms(middle_layer(rows)),),
    ),
    "jumprelu-score-frequency": (
        TYPES_STUDY,
        "jumprelu_behaviour.score_by_frequency",
        lambda rows: (by_frequency(middle_layer(rows)),),
    ),
    "jumprelu-scores": (TYPES_STUDY, "jumprelu_behaviour.scores", lambda rows: (middle_layer(rows),)),
    "jumprelu-positions": (SITES_STUDY, "jumprelu_behaviour.positions", lambda rows: (curves(rows),)),
    "jumprelu-uniformity-types": (
        TYPES_STUDY,
        "jumprelu_behaviour.uniformity_by_type",
        lambda rows: (middle_layer(rows), PUBLISHED_RATIO),
    ),
    "jumprelu-uniformity-sites": (
        SITES_STUDY,
        "jumprelu_behaviour.uniformity_by_site",
        lambda rows: (with_place(rows), PUBLISHED_RATIO),
    ),
}


# ------------------------------------------------------------------------------------------------------------ claims

_PROXY = (
    "Proxy: the score of a latent is the correlation of its activation, on text that the explanation has not seen, "
    "with its mean on the present token; latents active on fewer than ten tokens of either half of the text have none. "
)

CLAIMS = (
    Claim(
        id="jumprelu2024-J6",
        statement=(
            "JumpReLU and TopK have more latents than Gated that are active on more than a tenth of the tokens; all "
            "the same they are few."
        ),
        rule=(
            "Number of latents above 10 % at equal L0: at the L0 of each SAE of the two, that of the other is "
            "interpolated (ln(1 + number) in ln L0, never extrapolated; cells are layers, seeds and L0). JumpReLU "
            "minus Gated and TopK minus Gated above 0, each with its interval over seeds and in two thirds of the "
            "cells; and the largest number of any JumpReLU SAE below the paper's 79. Where the mean frequency L0 / M "
            "comes near 10 % itself, as it does in a dictionary this small, most latents are above. Numbers are "
            "compared, not shares: with 512 latents a share of 0.06 % would be less than one. Partly if some of the "
            "three hold."
        ),
        published=(
            "more than Gated above 10 %; always below 0.06 % of 131,072 latents, that is 79 (Rajamanoharan et al. "
            "2024, fig. 5 and a review)"
        ),
        statistic="latents above 10 %, JumpReLU minus Gated, at equal L0",
        study=TYPES_STUDY,
        test=more_are_frequent,
    ),
    Claim(
        id="jumprelu2024-J7",
        statement="Latents of a JumpReLU SAE that are active very often are less interpretable.",
        rule=(
            _PROXY + "Spearman's correlation over the latents of each JumpReLU SAE, mean over L0: below 0 with its "
            "interval over seeds, and with p < 0.01 in two thirds of the SAEs, (a) of frequency and score, (b) of "
            "frequency and the score above that of an untrained direction of equal frequency, because a score may "
            "depend on the frequency for reasons that have nothing to do with the SAE. Partly if one of them holds."
        ),
        published="stated in words: less interpretable, improving as L0 drops; no number at hand",
        statistic="Spearman's correlation of frequency and score",
        study=TYPES_STUDY,
        test=frequent_are_opaque,
    ),
    Claim(
        id="jumprelu2024-J8",
        statement="Latents of JumpReLU are as interpretable as those of TopK.",
        rule=(
            _PROXY + "Logistic regression of [score > 0.9] on the architecture, ln L0 and the layer, over SAEs in the "
            "range of L0 that both cover: the odds ratio of JumpReLU against TopK lies between 0.9 and 1.1 with its "
            "interval over seeds (taken of its logarithm). Void if fewer than ten latents of a kind score above 0.9."
        ),
        published=(
            "odds ratios of a simulation score above 0.9, with controls for site and layer: 0.98 (0.95 to 1.01) "
            "against TopK, 1.27 (1.23 to 1.31) against Gated; raters found no clear difference"
        ),
        statistic="odds ratio of a score above 0.9, JumpReLU against TopK",
        study=TYPES_STUDY,
        test=types_are_equal,
    ),
    Claim(
        id="jumprelu2024-G4",
        statement=(
            "The first tokens of a context are the easiest to reconstruct; at attention and the residual stream the "
            "error grows with the position, at the MLP it peaks early."
        ),
        rule=(
            "E|x - recon|^2 (inputs with E|x|^2 = 1) at each position but the first of the context, which no SAE sees; "
            "JumpReLU at the middle lambda, one layer. (a) At every site the value at the first position left is below "
            "half of the mean over the second half of the context; (b) Spearman's correlation with the position is "
            "above 0 at attention and residual stream; (c) at the MLP the largest value lies before 5 % of the "
            "context. Partly if some hold with their intervals over seeds."
        ),
        published=(
            "Lieberum et al. 2024, fig. 3 (9B, layer 20, 1,024 tokens): near 0 for the first tokens; attention flat "
            "after about 100, the MLP's peak near token 10, the residual stream slower; no numbers"
        ),
        statistic="error at the first position over that of the second half, the site where it is largest",
        study=SITES_STUDY,
        test=early_tokens_are_easy,
    ),
    Claim(
        id="jumprelu2024-G10",
        statement=(
            "The more latents are active, the more diffuse is the effect on the prediction, most of all at the "
            "residual stream."
        ),
        rule=(
            "e^S, the effective number of active latents, and r_L0 = e^S / L0, at the three sites of one layer. (a) "
            "The slope of ln e^S on ln L0 is above 0 at every site; (b) the slope of r_L0 on ln L0 is larger in "
            "absolute value at the residual stream than at the other two. Both with the gradient at x and at the "
            "reconstruction and with intervals over seeds. The sign of the slope of r_L0 is recorded, not judged: the "
            "text calls the trend more diffuse, and whether r_L0 rises or falls is not known for certain. Partly if "
            "some hold; void if r_L0 leaves [1 / L0, 1]."
        ),
        published=(
            "Lieberum et al. 2024, fig. 16: more diffuse with more active latents, most at the residual stream; r_L0 "
            "on an axis from 0.45 to 0.70; no slopes"
        ),
        statistic="slope of ln e^S on ln L0 at the residual stream, gradient at x",
        study=SITES_STUDY,
        test=importance_spreads,
    ),
)
