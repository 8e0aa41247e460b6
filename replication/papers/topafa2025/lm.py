"""top-AFA against TopK and BatchTopK on a language model, with its controls (A1 to A5, A7, A8, X5, X6, H1)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from replication import metrics
from replication.claims import (
    NOTHING,
    Claim,
    Evidence,
    NoEvidence,
    interpolate_loglog,
    judge,
    mean_interval,
)
from replication.evaluate.reconstruction import CHUNK
from replication.papers.gao2024.frontier import late_gain
from replication.papers.topafa2025 import published
from replication.papers.topafa2025.grid import K_OVER_D, KEY, LAMBDA_TIMES_D, SEEDS, layer
from replication.results import Study
from replication.sae import SAE
from replication.sae.batchtopk import BatchTopK, batch_topk, updated_threshold
from replication.sae.topafa import TopAFA, match_norms
from replication.sae.topk import TopK
from replication.shapes import Float, Tensor
from replication.train import Run, Trained, train

METHODS = ("topk", "batchtopk", "topafa")
BASELINES = ("topk", "batchtopk")
FLOOR = "floor"
"""TopK with k = d_sae: a plain ReLU autoencoder without a penalty. The paper's k = 8,192 comes to the same."""


class Grid(NamedTuple):
    """What is trained. Durations are in tokens; k is given over d and lambda times d, see `grid`."""

    d: int
    """Width of the subject: runs are listed without loading it."""
    hooks: tuple[str, ...]
    expansion: int
    """d_sae / d."""
    ks: tuple[float, ...]
    lambdas: tuple[float, ...]
    tokens: int
    batch: int
    lr: float
    """Of TopK and BatchTopK."""
    afa_lr: float
    """Of top-AFA, and of what departs from it."""
    seeds: tuple[int, ...]


def _residual(*blocks: int) -> tuple[str, ...]:
    return tuple(f"blocks.{block}.hook_resid_pre" for block in blocks)


GRIDS = {
    "smoke": Grid(
        64,
        ("blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"),
        2,
        (0.333, 1.33),
        (6, 24),
        2**14,
        512,
        2e-3,
        2e-3,
        (0, 1),
    ),
    "cpu": Grid(
        128, _residual(1, 2, 3), 8, (0.083, 0.333, 0.667, 1.33, 2.67), LAMBDA_TIMES_D, 3 * 2**16, 256, 2e-3, 1e-3, SEEDS
    ),
    "gpu": Grid(256, _residual(2, 3, 4), 16, K_OVER_D, LAMBDA_TIMES_D, 5120 * 2048, 2048, 1e-3, 5e-4, (*SEEDS, 3, 4)),
    "paper": Grid(768, _residual(6, 7, 8), 16, K_OVER_D, LAMBDA_TIMES_D, 20_001 * 4096, 4096, 3e-4, 3e-4, SEEDS),
}

CONTROL_DIAL = 24  # lambda d of every control: 1/32 at the paper's width
CONTROLS = {  # name -> options of top-AFA, normalisation
    "no norm loss": ({"afa_loss": False}, "lee"),
    "no selection": ({"rule": "all"}, "lee"),
    "first to exceed": ({"rule": "first-to-exceed"}, "lee"),
    "start × 0.5": ({"init_scale": 0.5}, "lee"),
    "start × 2": ({"init_scale": 2.0}, "lee"),
    "start × 4": ({"init_scale": 4.0}, "lee"),
    "norms kept": ({}, "gemma"),
    "centred target": ({"target_centred": True}, "lee"),
    "centred start": ({"centred_start": True}, "lee"),
}
DEAD_AFTER = 5 * 4096  # the released code's five batches
STEPS = published.STEPS  # minibatches behind the noise of a training step


class ReleasedTopK(TopK):
    """TopK as in the released code: the start of top-AFA (`match_norms`, b_dec at 0), and no encoder bias."""

    def __init__(self, d_in: int, d_sae: int, sparsity: float, **kwargs):
        super().__init__(d_in, d_sae, sparsity, **kwargs)
        self.b_enc.requires_grad_(False)

    @torch.no_grad()
    def initialise(self, x: Float[Tensor, "n {self.d_in}"], target: Float[Tensor, "n d_out"] | None = None) -> None:
        super().initialise(x, target)
        self.b_dec.zero_()
        match_norms(self, x, x)


class ReleasedBatchTopK(BatchTopK):
    """BatchTopK as in the released code, see `ReleasedTopK`; a threshold for evaluation is this library's."""

    def __init__(self, d_in: int, d_sae: int, sparsity: float, **kwargs):
        super().__init__(d_in, d_sae, sparsity, **kwargs)
        self.b_enc.requires_grad_(False)

    @torch.no_grad()
    def initialise(self, x: Float[Tensor, "n {self.d_in}"], target: Float[Tensor, "n d_out"] | None = None) -> None:
        super().initialise(x, target)
        self.b_dec.zero_()
        match_norms(self, x, x)
        latents = batch_topk(self.pre(x[:4096]), self.sparsity)
        self.threshold.copy_(updated_threshold(torch.zeros_like(self.threshold), latents, self.threshold_decay))


RELEASED: dict[str, type[SAE]] = {"topk": ReleasedTopK, "batchtopk": ReleasedBatchTopK, "topafa": TopAFA}


@dataclass(frozen=True)
class ReleasedRun(Run):
    """A run in which every architecture starts where the released code starts it: methods differ in nothing else than
    selection and loss."""

    def build(self) -> SAE:
        config = super().build().config()
        return RELEASED[self.architecture](**config, generator=torch.Generator().manual_seed(self.seed))


def k_of(ratio: float, d: int) -> int:
    """k = d 2^i / 24, as the paper's k = 32 2^i at d = 768; the ratios of the grid are these numbers, rounded."""
    return round(d * 2 ** round(math.log2(24 * ratio)) / 24)


def make_run(
    preset: str,
    hook: str,
    architecture: str,
    sparsity: float,
    seed: int,
    options: dict | None = None,
    normalisation: str = "lee",
) -> ReleasedRun:
    """One run of a preset; every method has the same start, batch, tokens and order of tokens."""
    grid = GRIDS[preset]
    return ReleasedRun(
        layer(preset, hook),
        architecture,
        grid.expansion * grid.d,
        sparsity,
        tokens=grid.tokens,
        batch=grid.batch,
        lr=grid.afa_lr if architecture == "topafa" else grid.lr,
        dead_after=DEAD_AFTER,
        beta2=0.99,
        normalisation=normalisation,
        seed=seed,
        data_seed=seed,
        options=options or {},
    )


def selection_runs(preset: str) -> list[ReleasedRun]:
    """Every method over its dial on three layers, the floor, and the controls on the middle layer."""
    grid = GRIDS[preset]
    dials = [(method, k_of(ratio, grid.d)) for method in BASELINES for ratio in grid.ks]
    dials += [("topafa", one / grid.d) for one in grid.lambdas] + [("topk", grid.expansion * grid.d)]
    runs = [make_run(preset, hook, *dial, seed) for seed, hook, dial in product(grid.seeds, grid.hooks, dials)]
    middle = grid.hooks[(len(grid.hooks) - 1) // 2]
    return runs + [
        make_run(preset, middle, "topafa", CONTROL_DIAL / grid.d, seed, options, normalisation)
        for seed, (options, normalisation) in product(grid.seeds, CONTROLS.values())
    ]


class Coded(NamedTuple):
    """What an SAE makes of normalised activations, token by token."""

    recon: Tensor
    """(n, d_in)"""
    active: Tensor
    """(n,) latents that are not 0."""
    positive: Tensor
    """(n,) pre-activations above 0: what a ReLU without selection would keep."""
    norm: Tensor
    """(n,) |latents|."""
    centred: Tensor
    """(n,) |x - b_dec|."""
    fired: Tensor
    """(d_sae,) whether each latent is active on some token."""


@torch.no_grad()
def coded(sae: SAE, x: Float[Tensor, "n d_in"]) -> Coded:
    """One pass, in chunks that fit in memory."""
    parts, fired = [], torch.zeros(sae.d_sae, dtype=torch.bool, device=x.device)
    for some in x.split(CHUNK):
        pre, centred = sae.pre(some), some - sae.b_dec
        latents = sae.sparsify(pre, centred)
        fired |= latents.amax(0) > 0
        numbers = (latents > 0).float().sum(-1), (pre > 0).float().sum(-1), latents.norm(dim=-1), centred.norm(dim=-1)
        parts.append((sae.decode(latents), *numbers))
    return Coded(*map(torch.cat, zip(*parts, strict=True)), fired)


def lee_error(raw: Float[Tensor, "n d_in"], recon: Float[Tensor, "n d_in"]) -> Float[Tensor, " n"]:
    """Mean over coordinates of (x - x_hat)^2 after both are standardised by the token's own mean and deviation.

    Its mean over tokens is the paper's "normalized MSE". Predicting each token's mean over coordinates gives 1 - 1/d.
    """
    scale = raw.std(-1, keepdim=True) + 1e-5
    return ((raw - recon) / scale).square().mean(-1)


def step_noise(errors: Float[Tensor, " n"], batch: int) -> dict[str, float | int]:
    """Mean and variance (divisor steps - 1) of up to STEPS minibatch means of held-out tokens in a random order.

    It stands for the last training losses, which a released t-test compares: minibatches of the training size, of one
    run. Weights stand still here, so that the part of the noise that the last updates add is missing.
    """
    order = torch.randperm(len(errors), generator=torch.Generator().manual_seed(0)).to(errors.device)
    batch = min(batch, len(errors) // 2)
    means = errors[order][: len(errors) // batch * batch].view(-1, batch).mean(-1)[:STEPS].double()
    return {"step_mean": means.mean().item(), "step_var": means.var().item(), "steps": len(means)}


def measure_selection(runs: list[ReleasedRun]) -> Iterator[tuple[ReleasedRun, dict]]:
    """Train each run, then measure reconstruction, the number of latents, norms and the noise of a step, held out."""
    for one in train(runs):
        yield one.run, _measured(one)


UNTRAINED_EVERY = 8  # of the held-out tokens, those on which an SAE before its first step is measured


def _measured(one: Trained) -> dict:
    raw = one.run.source.heldout(str(one.mean.device))
    x, _, undo = one.sae.normalise(raw)
    after, before = coded(one.sae, x), coded(one.untrained, x[::UNTRAINED_EVERY])
    errors, l0 = lee_error(raw, undo(after.recon)), after.active
    levels = torch.linspace(0, 1, 21, dtype=torch.float64, device=x.device)
    ratios = (after.norm / after.centred.clamp(min=1e-12)).double().quantile(levels[[5, 10, 15]])
    values = {
        "lee_nmse": errors.mean(),
        "nmse": metrics.nmse(x, after.recon, one.mean),
        "fvu": metrics.fvu(raw, undo(after.recon)),
        "l0": l0.mean(),
        "l0_sd": l0.std(),
        "positive": after.positive.mean(),
        "ratio_25": ratios[0],
        "ratio_50": ratios[1],
        "ratio_75": ratios[2],
        "ratio_x": (after.norm / x.norm(dim=-1)).median(),
        "bias": one.sae.b_dec.detach().norm() / x.norm(dim=-1).median(),
        "dead_heldout": metrics.dead_fraction(after.fired),
        "nmse_pca": metrics.pca_fvu(x)[min(round(l0.mean().item()), x.shape[1])],
        "nmse_untrained": metrics.nmse(x[::UNTRAINED_EVERY], before.recon, one.mean),
        "l0_start": before.active.mean(),
        "positive_start": before.positive.mean(),
        "ratio_start": (before.norm / before.centred.clamp(min=1e-12)).median(),
    }
    return (
        {"width": x.shape[1]}
        | {name: value.item() for name, value in values.items()}
        | {"l0_quantiles": [round(value, 1) for value in l0.double().quantile(levels).tolist()]}
        | step_noise(errors, one.run.batch)
        | one.log
    )


SELECTION = Study(KEY, "selection", "top-AFA, TopK and BatchTopK on three layers", selection_runs, measure_selection)


# --------------------------------------------------------------------------------------------------------------------
# Tables


_NAMES = {
    (repr(tuple(sorted(options.items()))), normalisation): name for name, (options, normalisation) in CONTROLS.items()
}


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with `layer` (block of the hook, .5 more after it), `method`, `variant` (a name of CONTROLS or ""), `dial`
    (k/d or lambda d), `l0_over_d`, `kept` = L0 / positive pre-activations, `kept_start`, `spread` = sd(L0) / mean and
    `gain`, the drop of ln(training error) over the last doubling of tokens."""
    where = rows.source.str.extract(r"blocks\.(\d+)\.hook_resid_(pre|post)")
    floor = (rows.architecture == "topk") & (rows.sparsity == rows.d_sae)
    afa = rows.architecture == "topafa"
    return rows.assign(
        layer=where[0].astype(int) + (where[1] == "post"),
        method=rows.architecture.mask(floor, FLOOR),
        variant=[_NAMES.get(one, "") for one in zip(rows.options, rows.normalisation, strict=True)],
        dial=np.where(afa, rows.sparsity * rows.width, rows.sparsity / rows.width).round(3),
        l0_over_d=rows.l0 / rows.width,
        kept=rows.l0 / rows.positive,
        kept_start=rows.l0_start / rows.positive_start,
        spread=rows.l0_sd / rows.l0,
        gain=[late_gain(*curve) for curve in zip(rows.curve_tokens, rows.curve_error, strict=True)],
    )


def plain(rows: pd.DataFrame) -> pd.DataFrame:
    """Tidy rows of the methods as the paper has them: no controls, no floor."""
    table = tidy(rows)
    return table[(table.variant == "") & table.method.isin(METHODS)]


def pick(table: pd.DataFrame) -> pd.DataFrame:
    """One row per layer and seed: the setting (method, sparsity) with the lowest mean NMSE *over the other seeds*.

    A setting chosen on the seed that it is judged on would profit from that seed's luck, the more the longer its grid.
    """
    if table.seed.nunique() < 2:
        raise NoEvidence("a setting is chosen on other seeds: at least two are needed")
    chosen = []
    for (_, seed), cell in table.groupby(["layer", "seed"]):
        others = table[(table.layer == cell.layer.iloc[0]) & (table.seed != seed)]
        method, sparsity = others.groupby(["method", "sparsity"]).lee_nmse.mean().idxmin()
        chosen.append(cell[(cell.method == method) & (cell.sparsity == sparsity)])
    return pd.concat(chosen)


LEAST_DIAL = 12  # A3: the smallest lambda d that counts


def best_pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """The best top-AFA (lambda d >= LEAST_DIAL) beside the best baseline per layer and seed, both chosen by `pick`:
    columns with the suffixes _a and _b, and `gap` = log10(NMSE_a / NMSE_b)."""
    table = plain(rows)
    afa = pick(table[(table.method == "topafa") & (table.dial >= LEAST_DIAL)])
    pairs = afa.merge(pick(table[table.method.isin(BASELINES)]), on=["layer", "seed"], suffixes=("_a", "_b"))
    return pairs.assign(gap=np.log10(pairs.lee_nmse_a / pairs.lee_nmse_b))


def undominated(points: pd.DataFrame, baselines: pd.DataFrame) -> pd.Series:
    """Whether no baseline has at most a point's L0 and a lower NMSE: neither a run, nor the straight line between two
    neighbours of a method, ln NMSE against ln L0, at the point's L0. `baselines`: method, l0, lee_nmse."""
    best = np.full(len(points), np.inf)
    for _, line in baselines.groupby("method"):
        reached = [line.lee_nmse[line.l0 <= l0].min() for l0 in points.l0]
        between = interpolate_loglog(line.l0, line.lee_nmse, points.l0) if len(line) > 1 else np.inf
        best = np.fmin(best, np.fmin(reached, between))
    return pd.Series(points.lee_nmse.to_numpy() <= best, points.index)


def frontier_share(rows: pd.DataFrame) -> pd.DataFrame:
    """top-AFA runs with the column `free`: undominated by the baselines of the same layer and seed."""
    table = plain(rows)
    parts = [
        cell[cell.method == "topafa"].assign(
            free=undominated(cell[cell.method == "topafa"], cell[cell.method.isin(BASELINES)])
        )
        for _, cell in table.groupby(["layer", "seed"])
    ]
    return pd.concat(parts)


def shown_layer(table: pd.DataFrame) -> pd.DataFrame:
    """Tidy rows of the layer that has the controls, without them."""
    return table[(table.layer == table.layer[table.variant != ""].iloc[0]) & (table.variant == "")]


def controls(rows: pd.DataFrame) -> pd.DataFrame:
    """The controls, top-AFA as the paper has it at the same lambda, and the floor, on the layer of the controls.

    `at_equal_l0` is NMSE over that of TopK at the same L0, interpolated in logarithms within one seed; NaN outside the
    range of the TopK runs.
    """
    table = tidy(rows)
    table = table[table.layer == table.layer[table.variant != ""].iloc[0]]
    same = (table.method == "topafa") & (table.dial == CONTROL_DIAL)
    shown = table[same | (table.method == FLOOR)]
    name = shown.variant.mask((shown.variant == "") & (shown.method == "topafa"), "top-AFA").mask(
        shown.method == FLOOR, "ReLU alone (floor)"
    )
    matched = []
    for row in shown.itertuples():
        topk = table[(table.method == "topk") & (table.seed == row.seed)]
        matched.append(row.lee_nmse / interpolate_loglog(topk.l0, topk.lee_nmse, [row.l0])[0])
    order = ["top-AFA", *CONTROLS, "ReLU alone (floor)"]
    return shown.assign(name=pd.Categorical(name, order, ordered=True), at_equal_l0=matched)


def lambda_sweep(rows: pd.DataFrame) -> pd.DataFrame:
    """L0/d and NMSE over that at lambda d = CONTROL_DIAL of the same layer and seed: layer, seed, dial, l0_over_d,
    relative."""
    table = plain(rows)
    table = table[table.method == "topafa"]
    centre = table[table.dial == CONTROL_DIAL].set_index(["layer", "seed"]).lee_nmse
    ratio = table.lee_nmse.to_numpy() / centre.loc[list(zip(table.layer, table.seed, strict=True))].to_numpy()
    return table.assign(relative=ratio)[["layer", "seed", "dial", "l0_over_d", "relative"]]


def published_sweep() -> pd.DataFrame:
    """`lambda_sweep` of the released runs."""
    table = published.results()
    table = table[table.method == "topafa"]
    centre = table[table.dial.round(6) == CONTROL_DIAL].set_index("layer").lee_nmse
    return table.assign(relative=table.lee_nmse / table.layer.map(centre))


# --------------------------------------------------------------------------------------------------------------------
# Rules


class Cell(NamedTuple):
    """One layer, or layer and dial, of a rule that is to hold in all of them."""

    name: str
    verdict: str
    mean: float
    low: float
    high: float


def cells_of(table: pd.DataFrame, by: list[str], value: str, limit: float, *, above: bool) -> list[Cell]:
    """Mean of `value` over seeds with its interval in each cell, and the verdict on its being above (or below) `limit`;
    the cell that is furthest from holding comes first. Several rows of a seed count as one, their mean."""
    sign, cells = 1 if above else -1, []
    for key, cell in table.groupby([*by, "seed"])[value].mean().groupby(by):
        key = key if isinstance(key, tuple) else (key,)
        mean, low, high = mean_interval(cell)
        margin = sorted((sign * (low - limit), sign * (high - limit)))
        name = ", ".join(f"{NAMED[column]} {part:g}" for column, part in zip(by, key, strict=True))
        cells.append(Cell(name, judge(sign * (mean - limit), *margin), mean, low, high))
    return sorted(cells, key=lambda cell: sign * cell.mean)


NAMED = {"layer": "layer", "dial": "λd ="}


def in_all(cells: list[Cell], show: Callable[[float], str], spared: int = 0) -> Evidence:
    """The verdict on a rule that is to hold in every cell; `spared` cells, the worst, do not count.

    Replicated: in all, each with its interval. Partly: in at least half. Not replicated: at least half contradict it.
    Else void. The number is that of the worst cell that counts.
    """
    counted = cells[spared:]
    holds = sum(cell.verdict in ("replicated", "partly") for cell in counted)
    if all(cell.verdict == "replicated" for cell in counted):
        outcome = "replicated"
    elif 2 * holds >= len(counted):
        outcome = "partly"
    else:
        against = sum(cell.verdict == "not replicated" for cell in counted)
        outcome = "not replicated" if 2 * against >= len(counted) else "void"
    many = len(cells) > 4
    listed = "; ".join(f"{cell.name}: {show(cell.mean)}" for cell in ([cells[0], cells[-1]] if many else cells))
    return Evidence(
        outcome,
        *counted[0][2:],
        f"holds on average in {holds} of {len(counted)} cells that count ({'worst and best: ' * many}{listed})",
    )


def _afa(rows: pd.DataFrame, least: float = 0.0) -> pd.DataFrame:
    """top-AFA as the paper has it, lambda d from `least`."""
    table = plain(rows)
    table = table[(table.method == "topafa") & (table.dial >= least)]
    if table.empty:
        raise NoEvidence(f"no top-AFA run with lambda d of at least {least:g}")
    return table


SPREAD, TOLERANCE, MATCHED_FROM = 0.02, 0.05, 24  # A1; A2
COMPARABLE = 0.1  # A3, in decades of NMSE
FAILS, RISES, TUNED = 5, 0.8, 2  # A4, A5, A8
DENSE, ACTIVE = 0.7, 0.95  # X5, X6
FLAT = 0.1  # drop of ln(training error) over the last doubling of tokens above which a run is not done


def l0_per_input(rows: pd.DataFrame) -> Evidence:
    """A1: sd over tokens / mean of L0 above SPREAD, in every layer and at every lambda."""
    return in_all(cells_of(_afa(rows), ["layer", "dial"], "spread", SPREAD, above=True), "{:.3f}".format)


def norms_match(rows: pd.DataFrame) -> Evidence:
    """A2: |median of |latents| / |x - b_dec| - 1| below TOLERANCE for lambda d >= MATCHED_FROM, in every layer."""
    table = _afa(rows, MATCHED_FROM)
    table = table.assign(away=(table.ratio_50 - 1).abs())
    return in_all(cells_of(table, ["layer", "dial"], "away", TOLERANCE, above=False), "{:.3f}".format)


def flat(pairs: pd.DataFrame) -> bool:
    """Whether the last doubling of tokens lowered ln(training error) by at most FLAT on both sides of `best_pairs`."""
    return bool(max(pairs.gain_a.mean(), pairs.gain_b.mean()) <= FLAT)


def gaps(rows: pd.DataFrame, limit: float) -> list[Cell]:
    """log10(NMSE of the best top-AFA / NMSE of the best baseline) per layer, and whether it is below `limit`.

    A layer is void if it holds and one more doubling of tokens, if it did what the last one did, would reverse it.
    """
    pairs, cells = best_pairs(rows), []
    for cell in cells_of(pairs, ["layer"], "gap", limit, above=False):
        here = pairs[pairs.layer.map(lambda one: f"layer {one:g}") == cell.name]
        moved = cell.mean + (here.gain_b - here.gain_a).mean() / math.log(10)
        cells.append(cell._replace(verdict="void") if cell.mean < limit < moved else cell)
    return cells


def about_gaps(cells: list[Cell]) -> Evidence:
    """`in_all` of `gaps`, and which layers are void."""
    evidence = in_all(cells, lambda gap: f"{10**gap:.2f} times")
    void = [cell.name for cell in cells if cell.verdict == "void"]
    summary = f"NMSE of the best top-AFA over that of the best baseline: {evidence.summary}"
    if void:
        summary += f"; void, because more training could change it: {', '.join(sorted(void))}"
    return evidence._replace(summary=summary)


def comparable(rows: pd.DataFrame) -> Evidence:
    """A3: the gap at most COMPARABLE in every layer."""
    return about_gaps(gaps(rows, COMPARABLE))


def small_lambda_fails(rows: pd.DataFrame) -> Evidence:
    """A4: log10 of NMSE(lambda d = 6) / NMSE(lambda d = 24) above log10 FAILS in two thirds of the layers."""
    table = lambda_sweep(rows)
    table = table[table.dial == min(LAMBDA_TIMES_D)].assign(ratio=lambda one: np.log10(one.relative))
    cells = cells_of(table, ["layer"], "ratio", math.log10(FAILS), above=True)
    return in_all(cells, lambda ratio: f"{10**ratio:.1f} times", spared=len(cells) - math.ceil(2 * len(cells) / 3))


def l0_rises(rows: pd.DataFrame) -> Evidence:
    """A5: Spearman correlation of lambda and L0 over the grid above RISES in every layer; one per seed."""
    table = _afa(rows)
    if table.dial.nunique() < 3:
        raise NoEvidence("a rank correlation needs at least three lambdas")
    found = [
        {"layer": one, "seed": seed, "rho": round(float(stats.spearmanr(cell.dial, cell.l0).statistic), 6)}
        for (one, seed), cell in table.groupby(["layer", "seed"])
    ]
    return in_all(cells_of(pd.DataFrame(found), ["layer"], "rho", RISES, above=True), "{:.2f}".format)


def pareto(rows: pd.DataFrame) -> Evidence:
    """A7: per seed, at least one top-AFA run with L0 < d that no baseline dominates; the number is the share of all
    top-AFA runs that none does."""
    table = frontier_share(rows)
    sparse = table[table.l0_over_d < 1]
    with_one = sparse[sparse.free].seed.nunique()
    outcome = "replicated" if with_one == table.seed.nunique() else "partly" if with_one else "not replicated"
    return Evidence(
        outcome,
        *mean_interval(table.groupby("seed").free.mean()),
        f"{table.free.sum()} of {len(table)} top-AFA runs are dominated by no baseline; {len(sparse)} have L0 < d, of "
        f"which {sparse.free.sum()} are dominated by none",
    )


def no_tuning(rows: pd.DataFrame) -> Evidence:
    """A8: log10 of the largest over the smallest NMSE on the lambda grid below log10 TUNED in every layer."""
    spans = _afa(rows).groupby(["layer", "seed"]).lee_nmse.agg(["max", "min"])
    if _afa(rows).dial.nunique() < len(LAMBDA_TIMES_D):
        raise NoEvidence(f"the rule is about the whole grid of {len(LAMBDA_TIMES_D)} lambdas")
    table = spans.assign(span=np.log10(spans["max"] / spans["min"])).reset_index()
    cells = cells_of(table, ["layer"], "span", math.log10(TUNED), above=False)
    return in_all(cells, lambda span: f"{10**span:.1f} times")


def dense_start(rows: pd.DataFrame) -> Evidence:
    """X5: L0 over the number of positive pre-activations above DENSE before the first step, in every layer."""
    return in_all(cells_of(_afa(rows), ["layer"], "kept_start", DENSE, above=True), "{:.2f}".format)


def selection_active(rows: pd.DataFrame) -> Evidence:
    """X6: the same ratio below ACTIVE after training, in every layer and at every lambda."""
    return in_all(cells_of(_afa(rows), ["layer", "dial"], "kept", ACTIVE, above=False), "{:.2f}".format)


def headline(rows: pd.DataFrame) -> Evidence:
    """H1: replicated if A1, A2, A3 and A8 are; partly if A3 holds, at least in part, and another of them does not; not
    replicated if A3 fails in every layer on runs that are flat; else void."""
    found = {"A1": l0_per_input(rows), "A2": norms_match(rows), "A3": comparable(rows), "A8": no_tuning(rows)}
    pairs = best_pairs(rows)
    gain = max(pairs.gain_a.mean(), pairs.gain_b.mean())
    main = found["A3"]
    if main.verdict in ("replicated", "partly"):
        outcome = "replicated" if all(one.verdict == "replicated" for one in found.values()) else "partly"
    else:
        fails = all(cell.verdict == "not replicated" for cell in gaps(rows, COMPARABLE))
        outcome = "not replicated" if fails and flat(pairs) else "void"
    parts = ", ".join(f"{name} {one.verdict}" for name, one in found.items())
    numbers = NOTHING if outcome == "void" else main[1:4]
    return Evidence(
        outcome,
        *numbers,
        f"{parts}; the last doubling of tokens lowered the training error by {100 * (1 - math.exp(-gain)):.0f} % "
        f"(above {100 * (1 - math.exp(-FLAT)):.0f} % a run is not flat)",
    )


STUDIES = (SELECTION,)

LABELS = {  # columns as the page prints them
    "l0_over_d": "L0/d",
    "lee_nmse": "1000 × paper's NMSE",
    "gain": "late gain",
    "kept": "L0/positive",
    "at_equal_l0": "over TopK",
    "name": "control",
    "ratio_50": "‖f‖/‖x−b‖",
    "ratio_x": "‖f‖/‖x‖",
}


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with the columns of LABELS under these names and units."""
    return table.assign(lee_nmse=1000 * table.lee_nmse).rename(columns=LABELS)


FIGURES = {  # name -> (study, function of the figures package, what it takes from the study's table)
    "topafa-error": (SELECTION, "topafa_lm.error_against_l0", lambda rows: (tidy(rows), published.results())),
    "topafa-lambda": (SELECTION, "topafa_lm.lambda_sweep", lambda rows: (lambda_sweep(rows), published_sweep())),
    "topafa-l0": (SELECTION, "topafa_lm.l0_per_token", lambda rows: (tidy(rows),)),
    "topafa-norms": (SELECTION, "topafa_lm.norms", lambda rows: (plain(rows),)),
    "topafa-controls": (SELECTION, "topafa_lm.controls", lambda rows: (controls(rows), tidy(rows))),
    "topafa-curves": (SELECTION, "topafa_lm.training_curves", lambda rows: (plain(rows),)),
}

PAPER = "released results, GPT-2 small, d = 768, h = 12,288, layers 6, 7, 8, one seed"
CLAIMS = (
    Claim(
        id="topafa2025-H1",
        statement="top-AFA has an error comparable to TopK and BatchTopK without a k to tune.",
        rule=(
            "Replicated if A1, A2, A3 and A8 are; partly if A3 is, at least in part, and one of the others is not; not "
            "replicated if A3 fails in every layer and the last doubling of tokens lowered the training error of the "
            f"runs that A3 compares by less than {100 * (1 - math.exp(-FLAT)):.0f} %; otherwise void."
        ),
        published="abstract of v1: NMSE comparable to top-k autoencoders with no k to tune",
        statistic="log10(NMSE of the best top-AFA / NMSE of the best baseline), the worst layer",
        study=SELECTION,
        test=headline,
    ),
    Claim(
        id="topafa2025-A1",
        statement="top-AFA chooses the number of active latents for each input.",
        rule=f"Held-out sd(L0) / mean(L0) over tokens above {SPREAD}, in every layer and at every λ.",
        published="abstract of v2: L0 chosen per input; no number released",
        statistic="sd(L0) / mean(L0), the lowest cell",
        study=SELECTION,
        test=l0_per_input,
    ),
    Claim(
        id="topafa2025-A2",
        statement="After training the norm of the latents matches that of the input.",
        rule=(
            f"Median over held-out tokens of ‖f‖ / ‖x − b_dec‖ within {TOLERANCE} of 1, for every λd of at least "
            f"{MATCHED_FROM}, in every layer."
        ),
        published="the purpose of the loss and of the selection; no number released",
        statistic="|median ‖f‖ / ‖x − b_dec‖ − 1|, the largest cell",
        study=SELECTION,
        test=norms_match,
    ),
    Claim(
        id="topafa2025-A3",
        statement="Some λ reaches the error of the best baseline.",
        rule=(
            f"log10(NMSE of top-AFA at its best λd ≥ {LEAST_DIAL} / NMSE of TopK or BatchTopK at its best k) at most "
            f"{COMPARABLE}, in every layer; settings are chosen on the other seeds. A layer that holds is void if "
            "another doubling of the tokens like the last one would reverse it."
        ),
        published=f"−0.003, +0.033, −0.027 ({PAPER}; there settings are chosen on the run they are judged on)",
        statistic="log10 ratio of NMSE, the worst layer",
        study=SELECTION,
        test=comparable,
    ),
    Claim(
        id="topafa2025-A4",
        statement="A small λ fails.",
        rule=f"NMSE at λd = 6 over NMSE at λd = 24 above {FAILS}, in two thirds of the layers.",
        published=f"805, 20, 16 times ({PAPER})",
        statistic="log10 ratio of NMSE, the worst layer that counts",
        study=SELECTION,
        test=small_lambda_fails,
    ),
    Claim(
        id="topafa2025-A5",
        statement="The number of active latents rises with λ.",
        rule=f"Spearman correlation of λ and mean L0 over the grid above {RISES}, in every layer.",
        published=f"1.0 in all three layers ({PAPER})",
        statistic="Spearman correlation, the lowest layer",
        study=SELECTION,
        test=l0_rises,
    ),
    Claim(
        id="topafa2025-A7",
        statement="top-AFA extends the frontier of error and sparsity at an L0 below d.",
        rule=(
            "In every seed, at least one top-AFA run with L0 < d that no baseline of its layer dominates: neither a "
            "run with at most its L0 and a lower NMSE, nor the straight line between neighbouring runs in log-log. "
            "Partly: in some seeds."
        ),
        published=f"3 of 15 runs undominated, none of them with L0 < d ({PAPER})",
        statistic="share of top-AFA runs that no baseline dominates",
        study=SELECTION,
        test=pareto,
    ),
    Claim(
        id="topafa2025-A8",
        statement="λ needs no tuning in place of k.",
        rule=f"Largest NMSE over smallest on the grid of λ below {TUNED}, in every layer.",
        published=f"805, 24, 20 times ({PAPER}); two re-implementers write that the paper calls λ = 1/16 stable",
        statistic="log10 of largest / smallest NMSE, the worst layer",
        study=SELECTION,
        test=no_tuning,
    ),
    Claim(
        id="topafa2025-X5",
        statement="Critique: at the paper's start norms match before anything is learned, and the rule removes little.",
        rule=f"Before the first step, L0 / number of positive pre-activations above {DENSE}, in every layer.",
        published="the paper is silent; 5,284 of 6,142 = 0.86 with its start on random inputs, computed",
        statistic="L0 / positive pre-activations at the start, the lowest layer",
        study=SELECTION,
        test=dense_start,
    ),
    Claim(
        id="topafa2025-X6",
        statement="Critique: the selection still removes something when training is done.",
        rule=f"L0 / number of positive pre-activations below {ACTIVE} on held-out tokens, in every layer, at every λ.",
        published="the paper is silent; its ReLU run has about 2,950 active latents, top-AFA 2,040 to 2,420",
        statistic="L0 / positive pre-activations, the highest cell",
        study=SELECTION,
        test=selection_active,
    ),
)
