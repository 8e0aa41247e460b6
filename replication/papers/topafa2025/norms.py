"""Autoencoders of a language model, seen through norms: ZF plots, eps_LBO and what they are by chance (Z1 to Z5)."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from replication.activations import LanguageModelActivations, harvest
from replication.claims import NOTHING, Claim, Evidence, NoEvidence, both, judge, mean_interval
from replication.evaluate.norms import WEDGES, Norms, gap_split, norms_of, relative_gap, wedge
from replication.papers.topafa2025.grid import KEY, layer
from replication.results import Study
from replication.sae import SAE
from replication.shapes import Float, Tensor
from replication.store import trained
from replication.synthetic import welch_bound
from replication.train import Run

SEEDS = (0, 1, 2, 3, 4)
POINTS = 200  # held-out tokens of a row that the ZF plot shows
QUANTILES = (np.arange(100) + 0.5) / 100  # of a row's tokens: each stands for one percent of them


class Grid(NamedTuple):
    """What is trained on every layer."""

    blocks: int
    d_sae: int
    active: int
    """k of TopK and the L0 that JumpReLU aims at: an eighth of the width of the subject."""
    l1: float
    """lambda of ReLU."""
    tokens: int
    batch: int
    topk_lr: float
    other_lr: float


GRIDS = {
    "smoke": Grid(2, 128, 8, 0.2, 2**14, 512, 4e-3, 4e-3),
    "cpu": Grid(4, 512, 16, 0.2, 3 * 2**17, 1024, 4e-3, 4e-3),
    "gpu": Grid(6, 2**12, 32, 0.1, 5000 * 2048, 2048, 8e-4, 1e-3),
    "paper": Grid(12, 2**14 + 2**13, 96, 5e-3, 5000 * 4096, 4096, 3e-4, 4e-4),
}

KINDS = ("relu", "jumprelu", "topk")
"""The kind of the GPT-2 release (an L1 penalty), of Gemma Scope (thresholds), and the one with a fixed count."""


def hooks(blocks: int) -> list[str]:
    """The residual stream in front of every block, and behind the last."""
    return [f"blocks.{block}.hook_resid_pre" for block in range(blocks)] + [f"blocks.{blocks - 1}.hook_resid_post"]


def layer_number(hook: str) -> int:
    """1 for the stream in front of the first block, as the paper's figures count."""
    return int(hook.split(".")[1]) + (2 if hook.endswith("post") else 1)


def source(preset: str, hook: str) -> LanguageModelActivations:
    """A layer without the first position of each context, whose norm can be a multiple of all others (see
    `first_positions`). The paper looks at last positions alone."""
    return replace(layer(preset, hook), skip_first=1, tokens=GRIDS[preset].tokens)


def first_positions(of: LanguageModelActivations) -> LanguageModelActivations:
    """A source whose held-out text has the first position too."""
    return replace(of, skip_first=0, tokens=of.context)


def make_run(preset: str, kind: str, hook: str, seed: int) -> Run:
    """One autoencoder. Activations are divided by one constant per layer, which is folded back before measuring."""
    size = GRIDS[preset]
    dial, options = {
        "relu": (size.l1, {}),
        "jumprelu": (1.0, {"target_l0": size.active, "bandwidth": 0.02, "threshold": 0.02}),
        "topk": (size.active, {}),
    }[kind]
    return Run(
        source(preset, hook),
        kind,
        size.d_sae,
        dial,
        tokens=size.tokens,
        batch=size.batch,
        lr=size.topk_lr if kind == "topk" else size.other_lr,
        dead_after=min(size.tokens // 8, 10**7),
        sparsity_warmup=0 if kind == "topk" else size.tokens // 4,
        normalisation="gemma",
        seed=seed,
        data_seed=seed,
        options=options,
    )


def layer_runs(preset: str) -> list[Run]:
    """Every kind on every layer: one layer after the other, so that each is read once."""
    seeds = SEEDS[:2] if preset == "smoke" else SEEDS
    cells = product(hooks(GRIDS[preset].blocks), KINDS, seeds)
    return [make_run(preset, kind, hook, seed) for hook, kind, seed in cells]


def pearson(z: Float[Tensor, " n"], f: Float[Tensor, " n"]) -> float:
    """Pearson correlation over tokens."""
    return torch.corrcoef(torch.stack([z, f]).double())[0, 1].item()


def matched_norms(z: Float[Tensor, " n"], f: Float[Tensor, " n"]) -> dict[str, float]:
    """How |f| compares with |z|: medians over tokens, and shares of tokens. `gap` is (h - 1) eps_LBO."""
    gap, ratio = relative_gap(z, f), f / z
    inside = {f"wedge_{100 * c:.0f}": (gap <= c).double().mean().item() for c in WEDGES}
    return {"r": ratio.median().item(), "over": (ratio > 1).double().mean().item(), "gap": gap.median().item()} | inside


def moments(z: Float[Tensor, " n"], f: Float[Tensor, " n"]) -> dict[str, float]:
    """Means, variances and the covariance over tokens, divisor n: from those of all layers follows what `pooled` is."""
    z, f = z.double(), f.double()
    spread = torch.cov(torch.stack([z, f]), correction=0)
    values = {"z_mean": z.mean(), "f_mean": f.mean(), "z_var": spread[0, 0], "f_var": spread[1, 1]}
    return {name: value.item() for name, value in (values | {"zf_cov": spread[0, 1]}).items()}


def two_views(norms: Norms) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Prefix of a column -> z, f and z_hat: with the bias as a feature and z raw (the paper's view), and without it."""
    return {
        "": (norms.z, norms.f_with_bias, norms.z_hat),
        "centred_": (norms.centred, norms.f, norms.centred_hat),
    }


def statistics(norms: Norms, h: int) -> dict[str, float]:
    """The numbers of a layer: the paper's view in plain columns, the same without the bias under `centred_`."""
    found = {}
    for view, (z, f, z_hat) in two_views(norms).items():
        interference, shrunk = gap_split(z, z_hat, f)
        values = matched_norms(z, f) | moments(z, f)
        # without the bias a token may have no code at all: its gap is infinite, its interference undefined
        values |= {"gap_interference": interference.nanmedian().item(), "gap_shrinkage": shrunk.median().item()}
        values |= {"corr": pearson(z, f)}
        found |= {view + name: value for name, value in values.items()}
    ranks = stats.spearmanr(norms.nmse.cpu(), relative_gap(norms.z, norms.f_with_bias).cpu()).statistic
    return found | {
        "z": norms.z.median().item(),
        "f": norms.f_with_bias.median().item(),
        "f_min": norms.f_with_bias.min().item(),
        "bias": norms.bias,
        "eps_lbo": found["gap"] / (h - 1),
        "token_nmse": norms.nmse.median().item(),
        "corr_no_bias": pearson(norms.z, norms.f),
        "lbo_nmse": float(ranks),
    }


def distributions(norms: Norms, generator: torch.Generator) -> dict[str, list[float]]:
    """What figures draw: quantiles of the tokens, and norms of a few of them. Four digits are more than an eye sees."""
    quantities = {"r": norms.f_with_bias / norms.z, "gap": relative_gap(norms.z, norms.f_with_bias), "nmse": norms.nmse}
    found = {f"{name}_quantiles": np.quantile(values.cpu(), QUANTILES) for name, values in quantities.items()}
    some = torch.randperm(len(norms.z), generator=generator)[:POINTS]
    for view, (z, f, _) in two_views(norms).items():
        found |= {f"{view}points_z": z.cpu()[some], f"{view}points_f": f.cpu()[some]}
    return {name: [float(f"{value:.4g}") for value in values] for name, values in found.items()}


def with_shuffled_rows(sae: SAE, generator: torch.Generator) -> SAE:
    """The same encoder and bias, the rows of the dictionary in a random order."""
    other = copy.deepcopy(sae)
    other.W_dec.data = other.W_dec.data[torch.randperm(sae.d_sae, generator=generator).to(sae.W_dec.device)]
    return other


def by_chance(sae: SAE, untrained: SAE, x: Float[Tensor, "n d_in"], norms: Norms, seed: int) -> dict[str, float]:
    """Controls: the autoencoder before its first step (`untrained_`); codes of other tokens of the same layer
    (`strangers_`); a dictionary with shuffled rows (`shuffled_`), whose norms of codes are those of the true one."""
    generator = torch.Generator().manual_seed(seed)
    before = statistics(norms_of(untrained, x), sae.d_sae)
    kept = (
        "r",
        "over",
        "gap",
        "wedge_100",
        "corr",
        "token_nmse",
        "lbo_nmse",
        "centred_r",
        "centred_over",
        "centred_corr",
    )
    found = {f"untrained_{name}": before[name] for name in kept}
    strangers = torch.randperm(len(x), generator=generator).to(x.device)
    for view, (z, f, _) in two_views(norms).items():
        found |= {f"{view}strangers_{name}": value for name, value in matched_norms(z, f[strangers]).items()}
    shuffled = statistics(norms_of(with_shuffled_rows(sae, generator), x), sae.d_sae)
    kept = ("gap", "token_nmse", "gap_interference", "gap_shrinkage")
    return found | {f"shuffled_{name}": shuffled[name] for name in kept}


def with_first_positions(sae: SAE, of: LanguageModelActivations, device: str) -> dict[str, float]:
    """What one position in every context does: its share and norm, and the correlation over all positions."""
    every = first_positions(of).heldout(device)
    norms = norms_of(sae, every)
    z, f = norms.z, norms.f_with_bias
    first = slice(None, None, of.context)
    return {
        "first_share": 1 / of.context,
        "first_z": z[first].median().item(),
        "first_r": (f / z)[first].median().item(),
        "first_corr": pearson(z, f),
    }


def measure_norms(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Train each run, then take norms on held-out activations."""
    harvest([view for run in runs for view in (run.source, first_positions(run.source))])
    for one in trained(runs):
        run, device = one.run, str(one.mean.device)
        x = run.source.heldout(device)
        norms = norms_of(one.sae, x)
        generator = torch.Generator().manual_seed(run.seed)
        yield (
            run,
            {
                "layer": layer_number(run.source.hook),
                "d": run.source.d_in,
                "l0": norms.active.double().mean().item(),
                "no_code": (norms.active == 0).double().mean().item(),
                "fvu": (norms.error.sum() / (x - x.mean(0)).square().sum()).item(),
                "welch": welch_bound(run.d_sae, run.source.d_in),
            }
            | statistics(norms, run.d_sae)
            | by_chance(one.sae, one.untrained, x, norms, run.seed)
            | with_first_positions(one.sae, run.source, device)
            | distributions(norms, generator)
            | one.log,
        )


NORMS = Study(KEY, "norms", "Norms of activations and codes, layer by layer", layer_runs, measure_norms)


MOSTLY_UNDER, LAYERS_SHARE, SPARSE = 0.25, 2 / 3, 0.2  # Z1; the last: k / d
TRACKED_POOLED, TRACKED_WITHIN = 0.9, 0.5  # Z2, Z3
LEAST_LAYERS, GROWTH = 4, 0.8  # Z2: layers, and the rank correlation of their number with their median |z|
UNRELATED = 0.3  # Z4
MOST_SEEDS = 0.6  # Z5

TITLES = {"relu": "ReLU", "jumprelu": "JumpReLU", "topk": "TopK"}

_RELEASED_COLUMNS = (
    *("layer", "z", "f", "f_min", "r", "over", "gap"),
    *("token_nmse", "gap_interference", "gap_shrinkage", "corr"),
)
_RELEASED = {
    "GPT-2 small": """
        1 4.6 4.3 3.6 0.972 3.6 0.059 0.0010 +0.04 +0.02 +0.70
        2 49.7 48.7 44.0 0.978 26.9 0.060 0.0121 -0.00 +0.04 +0.73
        3 56.2 52.7 47.0 0.933 6.9 0.149 0.0167 +0.09 +0.06 +0.70
        4 60.4 54.0 48.8 0.898 1.8 0.240 0.0289 +0.15 +0.09 +0.74
        5 65.8 56.4 50.2 0.865 0.6 0.335 0.0430 +0.21 +0.12 +0.71
        6 70.9 58.7 52.0 0.841 0.1 0.414 0.0545 +0.26 +0.15 +0.69
        7 78.0 62.5 54.9 0.816 0.2 0.503 0.0663 +0.31 +0.19 +0.62
        8 86.9 68.7 60.9 0.801 0.3 0.558 0.0774 +0.33 +0.21 +0.52
        9 100.1 78.6 70.7 0.788 0.6 0.611 0.0840 +0.35 +0.23 +0.35
        10 118.9 93.1 85.7 0.789 1.9 0.607 0.0915 +0.34 +0.25 +0.15
        11 150.4 120.6 111.9 0.809 4.9 0.528 0.1050 +0.24 +0.26 -0.05
        12 216.7 190.3 182.6 0.884 10.3 0.287 0.0818 +0.11 +0.16 +0.10""",
    "Gemma Scope 2B": """
        1 74.4 80.0 46.4 1.093 70.9 0.289 0.0264 -0.22 +0.02 +0.82
        2 81.5 76.2 55.3 0.958 28.4 0.138 0.0501 +0.02 +0.06 +0.85
        3 76.1 65.2 45.3 0.897 23.2 0.273 0.0678 +0.14 +0.08 +0.81
        4 81.7 66.7 49.8 0.823 9.5 0.477 0.0876 +0.30 +0.13 +0.90
        5 83.6 66.4 48.3 0.826 8.5 0.469 0.0869 +0.32 +0.12 +0.76
        6 89.9 70.1 49.5 0.784 2.8 0.629 0.1242 +0.41 +0.20 +0.85
        7 89.6 71.3 52.8 0.790 2.0 0.603 0.1251 +0.39 +0.20 +0.85
        8 100.7 78.4 63.0 0.775 1.3 0.666 0.1202 +0.45 +0.20 +0.86
        9 105.4 82.8 66.0 0.770 2.0 0.688 0.1238 +0.47 +0.20 +0.84
        10 116.9 91.2 77.3 0.769 2.1 0.693 0.1359 +0.46 +0.23 +0.83
        11 124.8 97.5 83.7 0.767 2.6 0.701 0.1471 +0.47 +0.24 +0.81
        12 138.4 107.2 93.6 0.759 3.9 0.734 0.1482 +0.48 +0.25 +0.84
        13 142.2 112.1 98.8 0.774 6.3 0.668 0.1517 +0.40 +0.25 +0.71
        14 171.2 131.5 115.4 0.761 5.4 0.726 0.1392 +0.49 +0.23 +0.76
        15 180.8 141.8 123.2 0.775 7.3 0.665 0.1412 +0.44 +0.21 +0.68
        16 200.3 156.7 136.1 0.774 8.1 0.670 0.1235 +0.47 +0.20 +0.65
        17 235.6 188.2 164.1 0.786 12.4 0.619 0.1291 +0.41 +0.18 +0.27
        18 244.6 194.2 170.4 0.784 6.4 0.626 0.1256 +0.41 +0.19 +0.46
        19 282.3 223.1 189.6 0.781 13.0 0.639 0.1202 +0.43 +0.19 +0.30
        20 307.8 241.1 205.5 0.778 6.5 0.651 0.1241 +0.46 +0.18 +0.43
        21 347.7 275.2 235.4 0.789 5.9 0.608 0.1248 +0.43 +0.18 +0.35
        22 409.5 320.9 268.4 0.777 7.0 0.655 0.1244 +0.45 +0.20 +0.34
        23 464.8 360.9 305.2 0.778 4.9 0.653 0.1343 +0.42 +0.22 +0.36
        24 518.6 404.7 336.4 0.783 3.7 0.632 0.1398 +0.40 +0.22 +0.36
        25 587.2 469.6 412.1 0.806 5.1 0.538 0.1476 +0.30 +0.25 +0.33""",
}
"""Per layer, medians over 1,000 tokens (f_min: the least |f|; over: percent; gap: (h - 1) eps_LBO; corr: Pearson of |z|
and |f|), computed from the CSV files that the authors released beside their ZF plots."""

RELEASED_SUMMARY = {  # computed from the same files, in the order of `summary`
    "GPT-2 small": (
        *("1 / 11", "1 / 9", "4.8 %", "39 / 68 / 97 %", "0.865", "1.38e-05", "4e-4", "0.058"),
        *("0.979", "–", "-0.05 to 0.74", "-0.02", "0.87", "0.60", "0.70"),
    ),
    "Gemma Scope 2B": (
        *("1 / 13", "2 / 12", "10.0 %", "21 / 42 / 89 %", "0.796", "3.56e-05", "2e-3", "0.126"),
        *("0.978", "–", "0.27 to 0.90", "-0.24", "0.58", "0.36", "0.77"),
    ),
}
RELEASED_SPEARMAN = {"GPT-2 small": -0.02, "Gemma Scope 2B": -0.24}
"""Spearman correlation of NMSE and eps_LBO over tokens, mean over layers."""


def released() -> pd.DataFrame:
    """The released medians, a line per model and layer: `over` a share, and `depth` from 0 to 1."""
    lines = [
        (model, *map(float, line.split())) for model, block in _RELEASED.items() for line in block.strip().splitlines()
    ]
    found = pd.DataFrame(lines, columns=["model", *_RELEASED_COLUMNS])
    return with_depth(found.assign(over=found.over / 100), "model")


def with_depth(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """Rows with the column `depth`: 0 for the first layer, 1 for the last of the same `by`."""
    last = rows.groupby(by).layer.transform("max")
    return rows.assign(depth=(rows.layer - 1) / (last - 1))


def slopes() -> dict[float, tuple[float, float]]:
    """c -> slopes of the lower and of the upper edge of its wedge in a ZF plot."""
    return {c: wedge(c) for c in WEDGES}


def pooled(cells: pd.DataFrame, view: str = "", within: bool = True) -> float:
    """Pearson correlation of |z| and |f| over the tokens of all layers together, one row per layer.

    By the law of total covariance from means, variances and covariances of layers of equal size. `within=False` leaves
    out the covariances inside layers: what is expected when |f| is that of a random token of the same layer.
    """
    z, f = cells[f"{view}z_mean"], cells[f"{view}f_mean"]
    between = np.cov(z, f, ddof=0)
    covariance = between[0, 1] + (cells[f"{view}zf_cov"].mean() if within else 0)
    variances = (between[0, 0] + cells[f"{view}z_var"].mean()) * (between[1, 1] + cells[f"{view}f_var"].mean())
    return float(covariance / variances**0.5)


def per_seed(rows: pd.DataFrame, value: Callable[[pd.DataFrame], float]) -> dict[str, pd.Series]:
    """Kind -> `value` of the layers of one seed, for each seed. NoEvidence if a kind or a layer is missing."""
    if missing := set(KINDS) - set(rows.architecture):
        raise NoEvidence(f"the table lacks {', '.join(sorted(missing))}")
    if (
        rows.layer.nunique() < 2
        or (rows.groupby(["architecture", "seed"]).layer.nunique() < rows.layer.nunique()).any()
    ):
        raise NoEvidence("every kind and seed needs the same two or more layers")
    ordered = rows.sort_values("layer")
    return {
        kind: pd.Series({seed: value(cells) for seed, cells in ordered[ordered.architecture == kind].groupby("seed")})
        for kind in KINDS
    }


def pooled_correlations(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns architecture, seed, view, pooled, and `layers`: what is left of it with codes of other tokens."""
    return pd.DataFrame(
        [
            {
                "architecture": kind,
                "seed": seed,
                "view": view,
                "pooled": pooled(cells, view),
                "layers": pooled(cells, view, within=False),
            }
            for (kind, seed), cells in rows.groupby(["architecture", "seed"])
            for view in ("", "centred_")
        ]
    )


def in_words(values: dict[str, pd.Series], form: str = "{:.2f}") -> str:
    """Means over seeds, kind by kind."""
    return ", ".join(f"{TITLES[kind]} {form.format(series.mean())}" for kind, series in values.items())


def every_kind(values: dict[str, pd.Series], bound: float, above: bool) -> tuple[str, float, float, float]:
    """Verdict on "above (or below) the bound for every kind", and mean and interval of the kind furthest from it."""
    found, margins = {kind: mean_interval(series) for kind, series in values.items()}, {}
    for kind, (mean, low, high) in found.items():
        margins[kind] = (
            (mean - bound, low - bound, high - bound) if above else (bound - mean, bound - high, bound - low)
        )
    worst = min(margins, key=lambda kind: margins[kind][0])
    return reduce(both, (judge(*margin) for margin in margins.values())), *found[worst]


def second_thirds(cells: pd.DataFrame, column: str = "over") -> float:
    """The share that two thirds of the layers do not exceed."""
    return float(np.sort(cells[column])[int(np.ceil(LAYERS_SHARE * len(cells))) - 1])


def levels(rows: pd.DataFrame, column: str) -> dict[str, pd.Series]:
    """Kind -> mean over layers of a column, for each seed."""
    return per_seed(rows, lambda cells: cells[column].mean())


def mostly_under_activated(rows: pd.DataFrame) -> Evidence:
    """Z1: at most MOSTLY_UNDER of the tokens have |f| > |z| in two thirds of the layers of TopK."""
    if not (rows.sparsity / rows.d)[rows.architecture == "topk"].max() < SPARSE:
        raise NoEvidence(f"the table needs TopK with k / d below {SPARSE}")
    shares = per_seed(rows, second_thirds)
    mean, low, high = mean_interval(shares["topk"])
    layers = per_seed(rows, lambda cells: (cells.over < MOSTLY_UNDER).mean())
    centred, untrained, strangers = (
        levels(rows, f"{column}_over")["topk"].mean() for column in ("centred", "untrained", "strangers")
    )
    return Evidence(
        judge(MOSTLY_UNDER - mean, MOSTLY_UNDER - high, MOSTLY_UNDER - low),
        *(mean, low, high),
        f"over-activated tokens, mean over layers: {in_words(levels(rows, 'over'), '{:.1%}')}; layers with fewer than "
        f"25 %: {in_words(layers, '{:.0%}')}. Of TopK, without the bias feature and with z centred {centred:.1%}, "
        f"before training {untrained:.1%}, with codes of other tokens of the same layer {strangers:.1%}",
    )


def tracks_over_layers(rows: pd.DataFrame) -> Evidence:
    """Z2: pooled Pearson correlation of |z| and |f| above TRACKED_POOLED for every kind."""
    correlations = per_seed(rows, pooled)
    size = rows.groupby("layer").z.mean()
    growth = stats.spearmanr(size.index, size).statistic
    if len(size) < LEAST_LAYERS or growth < GROWTH:
        return Evidence(
            "void",
            *NOTHING,
            f"{len(size)} layers, whose median norms have a rank correlation of {growth:.2f} with their number: at "
            f"least {LEAST_LAYERS} and {GROWTH} are needed",
        )
    alone = per_seed(rows, lambda cells: pooled(cells, within=False))
    return Evidence(
        *every_kind(correlations, TRACKED_POOLED, above=True),
        f"pooled over layers: {in_words(correlations, '{:.3f}')}; if every token had the code of another one of its "
        f"layer it would be {in_words(alone, '{:.3f}')}: that much is the difference of scale between layers",
    )


def tracks_per_input(rows: pd.DataFrame) -> Evidence:
    """Z3: Pearson correlation within a layer, mean over layers, above TRACKED_WITHIN for every kind."""
    lowest = per_seed(rows, lambda cells: cells["corr"].min())
    return Evidence(
        *every_kind(levels(rows, "corr"), TRACKED_WITHIN, above=True),
        f"mean over layers: {in_words(levels(rows, 'corr'))}; the lowest layer: {in_words(lowest)}; with the bias "
        f"feature dropped: {in_words(levels(rows, 'corr_no_bias'))}; dropped, and z centred by the bias: "
        f"{in_words(levels(rows, 'centred_corr'))}",
    )


def differs_from_error(rows: pd.DataFrame) -> Evidence:
    """Z4: |Spearman| of NMSE and eps_LBO over tokens of a layer, mean over layers, below UNRELATED for every kind."""
    sizes = per_seed(rows, lambda cells: cells.lbo_nmse.abs().mean())
    below = per_seed(rows, lambda cells: (cells.lbo_nmse.abs() < UNRELATED).mean())
    return Evidence(
        *every_kind(sizes, UNRELATED, above=False),
        f"mean over layers of its size: {in_words(sizes)}, and with its sign: {in_words(levels(rows, 'lbo_nmse'))}; "
        f"share of layers in which the size is below {UNRELATED}: {in_words(below, '{:.0%}')}",
    )


def worst_layers(cells: pd.DataFrame) -> tuple[int, int]:
    """The layers with the highest median of NMSE and of eps_LBO."""
    return tuple(int(cells.layer[cells[column].idxmax()]) for column in ("token_nmse", "gap"))


def picks_other_layers(rows: pd.DataFrame) -> Evidence:
    """Z5: NMSE and eps_LBO have different worst layers in MOST_SEEDS of the seeds, for every kind."""
    differ = per_seed(rows, lambda cells: float(len(set(worst_layers(cells))) == 2))
    holds = [series.mean() >= MOST_SEEDS for series in differ.values()]
    layers = rows.layer.nunique()
    pairs = {
        kind: sorted({worst_layers(cells) for _, cells in rows[rows.architecture == kind].groupby("seed")})
        for kind in KINDS
    }
    named = "; ".join(
        f"{TITLES[kind]}: " + " or ".join(f"{nmse} and {lbo}" for nmse, lbo in found) for kind, found in pairs.items()
    )
    return Evidence(
        "replicated" if all(holds) else "partly" if any(holds) else "not replicated",
        *mean_interval(pd.DataFrame(differ).mean(axis=1)),
        f"share of seeds with different worst layers: {in_words(differ, '{:.0%}')}; worst by NMSE and by eps_LBO, "
        f"{named}. Two rankings of {layers} layers that know nothing of each other would differ in "
        f"{1 - 1 / layers:.0%}",
    )


def _spread(values: pd.Series, form: str) -> str:
    """Mean over seeds, and half of the range after ± where it shows."""
    half = (values.max() - values.min()) / 2
    mean, text = form.format(values.mean()), form.format(half)
    return mean if text == form.format(0) else f"{mean} ± {text}"


def _best_and_worst(cells: pd.DataFrame, column: str) -> str:
    medians = cells.groupby("layer")[column].mean()
    return f"{medians.idxmin()} / {medians.idxmax()}"


def _all_layers(column: str) -> Callable[[pd.DataFrame], float]:
    """Median over the tokens of all layers, from the quantiles of each."""
    return lambda cells: float(np.median(np.concatenate(cells[f"{column}_quantiles"].tolist())))


def _dispersion(cells: pd.DataFrame, column: str) -> float:
    """Interquartile range over median, median over layers."""
    quartiles = np.quantile(np.stack(cells[f"{column}_quantiles"].tolist()), (0.25, 0.5, 0.75), axis=1)
    return float(np.median((quartiles[2] - quartiles[0]) / quartiles[1]))


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """The released autoencoders and ours, all layers of one kind together: means over seeds, half the range after ±."""
    table = pd.DataFrame(
        {
            "": [
                "best / worst layer, NMSE",
                "best / worst layer, eps_LBO",
                "over-activated",
                "in wedges c = .25 / .5 / 1",
                "median r",
                "median eps_LBO",
                "... over Welch bound",
                "median NMSE",
                "Pearson, pooled",
                "... other tokens' codes",
                "... within layers",
                "scores, tokens of a layer",
                "scores, medians of layers",
                "IQR / median, NMSE",
                "IQR / median, eps_LBO",
            ]
        }
        | {f"{model}, released": column for model, column in RELEASED_SUMMARY.items()}
    )
    for kind in KINDS:
        mine = rows[rows.architecture == kind].sort_values("layer")

        def seeds(value: Callable[[pd.DataFrame], float], form: str, mine=mine) -> str:
            return _spread(pd.Series([value(cells) for _, cells in mine.groupby("seed")]), form)

        medians = mine.groupby("layer")[["token_nmse", "gap"]].mean()
        within = mine.groupby("layer")["corr"].mean()
        wedges = " / ".join(f"{mine[f'wedge_{100 * c:.0f}'].mean():.0%}"[:-1] for c in WEDGES)
        table[f"{TITLES[kind]}, ours"] = [
            _best_and_worst(mine, "token_nmse"),
            _best_and_worst(mine, "gap"),
            f"{mine.over.mean():.1%}".replace("%", " %"),
            f"{wedges} %",
            seeds(_all_layers("r"), "{:.3f}"),
            f"{mine.eps_lbo.mean():.2e}",
            f"{(mine.eps_lbo / mine.welch).mean():.0e}",
            seeds(_all_layers("nmse"), "{:.3f}"),
            seeds(pooled, "{:.3f}"),
            seeds(lambda cells: pooled(cells, within=False), "{:.3f}"),
            f"{within.min():.2f} to {within.max():.2f}",
            seeds(lambda cells: cells.lbo_nmse.mean(), "{:.2f}"),
            f"{stats.spearmanr(medians.token_nmse, medians.gap).statistic:.2f}",
            seeds(lambda cells: _dispersion(cells, "nmse"), "{:.2f}"),
            seeds(lambda cells: _dispersion(cells, "gap"), "{:.2f}"),
        ]
    return table


STUDIES = (NORMS,)

FIGURES = {  # name -> (study, function of the figures package, what it takes from the study's table)
    "zf-plot": (NORMS, "topafa_norms.zf_plot", lambda rows: (rows, slopes())),
    "zf-ratios": (NORMS, "topafa_norms.ratios", lambda rows: (with_depth(rows, "architecture"), released(), slopes())),
    "zf-violins": (NORMS, "topafa_norms.half_violins", lambda rows: (rows,)),
    "zf-correlations": (
        NORMS,
        "topafa_norms.correlations",
        lambda rows: (with_depth(rows, "architecture"), released(), pooled_correlations(rows)),
    ),
    "zf-gap": (NORMS, "topafa_norms.gap_parts", lambda rows: (with_depth(rows, "architecture"), released())),
    "zf-scores": (
        NORMS,
        "topafa_norms.scores",
        lambda rows: (with_depth(rows, "architecture"), released(), RELEASED_SPEARMAN),
    ),
}

_SETTING = (
    "Autoencoders of every layer of one language model, |z| of the raw activation, |f| with the bias as one more "
    "feature. "
)

CLAIMS = (
    Claim(
        id="topafa2025-Z1",
        statement="Autoencoders of language models mostly under-activate: codes are shorter than the activations.",
        rule=_SETTING
        + "TopK with k/d below 0.2: in at least two thirds of the layers fewer than 25 % of the held-out tokens have "
        "|f| > |z|, i.e. the share that two thirds of the layers do not exceed is below 25 %, with its interval.",
        published="over-activated: 4.8 % of tokens (GPT-2 small, 12 layers), 10.0 % (Gemma Scope 2B, 25 layers)",
        statistic="share of over-activated tokens that two thirds of the layers of TopK do not exceed",
        study=NORMS,
        test=mostly_under_activated,
    ),
    Claim(
        id="topafa2025-Z2",
        statement="The norm of the code tracks the norm of the activation, over the layers of a model.",
        rule=_SETTING
        + "Pearson correlation of |z| and |f| over the tokens of all layers together above 0.9 with its interval, for "
        "ReLU, JumpReLU and TopK. Void with fewer than 4 layers, or if their median |z| does not grow (rank "
        "correlation with the layer below 0.8).",
        published="0.979 (GPT-2 small), 0.978 (Gemma Scope 2B)",
        statistic="pooled Pearson correlation, of the kind with the lowest",
        study=NORMS,
        test=tracks_over_layers,
    ),
    Claim(
        id="topafa2025-Z3",
        statement="The norm of the code tracks the norm of the activation input by input, within a layer.",
        rule=_SETTING
        + "Pearson correlation of |z| and |f| over the tokens of one layer, mean over layers, above 0.5 with its "
        "interval, for ReLU, JumpReLU and TopK.",
        published="-0.05 to 0.74, on average 0.50 (GPT-2 small); 0.27 to 0.90 (Gemma Scope 2B): it falls with depth",
        statistic="Pearson correlation within a layer, mean over layers, of the kind with the lowest",
        study=NORMS,
        test=tracks_per_input,
    ),
    Claim(
        id="topafa2025-Z4",
        statement="eps_LBO measures something else than the reconstruction error.",
        rule=_SETTING
        + "Spearman correlation of |z - z_hat|^2 / |z|^2 and eps_LBO over the tokens of one layer: its absolute value, "
        "mean over layers, below 0.3 with its interval, for ReLU, JumpReLU and TopK.",
        published="mean over layers, with its sign: -0.02 (GPT-2 small), -0.24 (Gemma Scope 2B)",
        statistic="|Spearman| within a layer, mean over layers, of the kind with the highest",
        study=NORMS,
        test=differs_from_error,
    ),
    Claim(
        id="topafa2025-Z5",
        statement="eps_LBO and the reconstruction error find fault with different layers.",
        rule=_SETTING
        + "The layer with the highest median NMSE is not the one with the highest median eps_LBO, in at least 3 of 5 "
        "seeds, for ReLU, JumpReLU and TopK; partly if so for some of them.",
        published="layers 11 and 9 of 12 (GPT-2 small), 13 and 12 of 25 (Gemma Scope 2B)",
        statistic="share of seeds and kinds with different worst layers",
        study=NORMS,
        test=picks_other_layers,
    ),
)
