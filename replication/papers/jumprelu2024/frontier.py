"""Fidelity against sparsity: JumpReLU, TopK and Gated at equal L0 (JumpReLU, figs. 2 and 10 to 12; J2 to J5)."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from replication.activations import LanguageModelActivations
from replication.claims import NOTHING, Claim, Evidence, NoEvidence, both, judge, mean_interval
from replication.evaluate.reconstruction import passed, reconstruction
from replication.evaluate.splicing import spliced
from replication.papers.gao2024 import frontier as gao
from replication.papers.gao2024.grid import learning_rate
from replication.papers.jumprelu2024.grid import KEY, LAMBDAS, SEEDS, TRAINING, jumprelu_run, source, with_place
from replication.papers.jumprelu2024.why import is_close_to_0
from replication.results import Study
from replication.sae.base import SAE, Objective, squared_error
from replication.sae.jumprelu import JumpReLU, step
from replication.shapes import Float, Tensor
from replication.store import trained
from replication.train import Run

# One ingredient exchanged


class Ablated(JumpReLU):
    """A JumpReLU SAE that is trained in another way. What it becomes is a JumpReLU SAE, and is saved as one."""

    def save(self, path: Path) -> None:
        plain = JumpReLU(**self.config())
        plain.load_state_dict(self.state_dict())
        plain.save(path)


class WithL1(Ablated):
    """The jump stays, the penalty is lambda E|latents|_1. Through it, lambda reaches the encoder and, by the
    pseudo-derivative of the jump, theta."""

    def objective(self, x: Tensor, dead: Tensor, ramp: float | Tensor = 1.0, target: Tensor | None = None) -> Objective:
        latents = self.encode(x)
        error = squared_error(x, self.decode(latents))
        penalty = latents.sum(dtype=x.dtype) / len(x)
        return Objective(error + ramp * self.sparsity * penalty, error.detach(), latents.detach().amax(0) > 0)


class WithoutJump(Ablated):
    """The L0 penalty stays, the jump goes: latents = ReLU(pre), theta = 0.

    With p = (x - b_dec) W_enc a latent is active where p > -b_enc, so that -b_enc takes the place of the threshold: the
    pseudo-derivative of `step` trains it, around pre = 0, and reaches neither W_enc nor b_dec, as in JumpReLU.
    """

    @torch.no_grad()
    def initialise(self, x: Tensor, target: Tensor | None = None) -> None:
        self.theta_raw.zero_().requires_grad_(False)
        super().initialise(x, target)

    def objective(self, x: Tensor, dead: Tensor, ramp: float | Tensor = 1.0, target: Tensor | None = None) -> Objective:
        pre = self.pre(x).float()
        latents = torch.relu(pre)
        error = squared_error(x, self.decode(latents))
        active = step(pre.detach() - self.b_enc.detach(), -self.b_enc, self.bandwidth, self.kernel)
        penalty = active.sum(-1).mean()
        return Objective(error + ramp * self.sparsity * penalty, error.detach(), latents.detach().amax(0) > 0)


ABLATIONS: dict[str, type[Ablated]] = {"jumprelu-l1": WithL1, "relu-l0": WithoutJump}


@dataclass(frozen=True)
class AblatedRun(Run):
    """A JumpReLU run with one of ABLATIONS."""

    ablation: str = ""

    def __post_init__(self):
        if self.ablation not in ABLATIONS:
            raise ValueError(f"ablation must be one of {', '.join(ABLATIONS)}, got {self.ablation!r}")
        if self.architecture != "jumprelu":
            raise ValueError(f"architecture of an ablated run must be jumprelu, got {self.architecture!r}")
        super().__post_init__()

    def build(self) -> SAE:
        generator = torch.Generator().manual_seed(self.seed)
        return ABLATIONS[self.ablation](**super().build().config(), generator=generator)


def ablated(run: Run, ablation: str) -> AblatedRun:
    """The same run with one ingredient exchanged."""
    return AblatedRun(**{f.name: getattr(run, f.name) for f in fields(Run)}, ablation=ablation)


# The grid


class Plan(NamedTuple):
    """Where a preset looks, for how long, and the dial of every method."""

    where: tuple[tuple[str, int], ...]
    """(site, layer): the first has every method and budget, the others MAIN"""
    budgets: tuple[int, ...]
    """training tokens in the first place: the most, with which every method is trained, then for CORE again and again
    half as many"""
    elsewhere: int
    """training tokens that MAIN have in every place: one of the budgets"""
    d_sae: int
    dials: dict[str, tuple[float, ...]]


MAIN = ("jumprelu", "topk", "gated", "gated-original", "relu")
"""Trained in every place."""
CORE = MAIN[:3]
"""Trained with every budget."""
PLANS = {  # at `gpu` and `paper` three layers at about the depths of the paper's 20, 9 and 31 of 42
    "smoke": Plan(
        (("res", 1),),
        (2**14, 2**13),
        2**14,
        64,
        {
            "jumprelu": LAMBDAS["smoke"],
            "topk": (8, 16),
            "gated": (0.05, 0.4),
            "gated-original": (0.05, 0.4),
            "relu": (0.05, 0.4),
            "relu-l0": LAMBDAS["smoke"],
            "jumprelu-l1": (0.05, 0.4),
        },
    ),
    "cpu": Plan(
        tuple(product(("res", "mlp", "attn"), (2, 0, 3))),
        (3 * 2**21, 3 * 2**20, 3 * 2**19, 3 * 2**18),
        3 * 2**19,
        512,
        {
            "jumprelu": LAMBDAS["cpu"],
            "topk": (8, 16, 40),
            "gated": (0.1, 0.2, 0.45),
            "gated-original": (0.1, 0.2, 0.45),
            "relu": (0.07, 0.4),
            "relu-l0": (0.03,),
            "jumprelu-l1": (0.07, 0.28),
        },
    ),
    "gpu": Plan(
        tuple(product(("res", "mlp", "attn"), (3, 1, 4))),
        (42 * 10**6, 21 * 10**6),
        42 * 10**6,
        2**12,
        {
            "jumprelu": LAMBDAS["gpu"],
            "topk": (8, 16, 32, 64),
            "gated": (0.05, 0.12, 0.28, 0.6),
            "gated-original": (0.05, 0.12, 0.28, 0.6),
            "relu": (0.03, 0.1, 0.28, 0.5),
            "relu-l0": (0.01, 0.03, 0.1),
            "jumprelu-l1": (0.03, 0.1, 0.28, 0.5),
        },
    ),
    "paper": Plan(
        tuple(product(("res", "mlp", "attn"), (6, 3, 9))),
        (4 * 10**9, 2 * 10**9),
        4 * 10**9,
        2**15,
        {
            "jumprelu": LAMBDAS["paper"],
            "topk": (32, 64, 128, 256),
            "gated": (1e-3, 2.5e-3, 7e-3, 2e-2),
            "gated-original": (1e-3, 2.5e-3, 7e-3, 2e-2),
            "relu": (1.7e-3, 5e-3, 1.7e-2),
            "relu-l0": (1e-3, 1e-2),
            "jumprelu-l1": (1.7e-3, 5e-3, 1.7e-2),
        },
    ),
}


def make_run(
    preset: str,
    where: LanguageModelActivations,
    method: str,
    sparsity: float,
    seed: int,
    tokens: int,
) -> Run:
    """A run of any method: the batches and normalisation of JumpReLU, its own learning rate."""
    batch = TRAINING[preset][1]
    d_sae = PLANS[preset].d_sae
    if method == "jumprelu":
        return jumprelu_run(preset, where, d_sae, sparsity, seed, tokens=tokens)
    if method in ABLATIONS:
        return ablated(jumprelu_run(preset, where, d_sae, sparsity, seed, tokens=tokens), method)
    architecture = method.split("-")[0]
    return Run(
        where,
        architecture,
        d_sae,
        sparsity,
        tokens=tokens,
        batch=batch,
        lr=learning_rate(architecture, d_sae, preset),
        dead_after=min(tokens // 8, 10**7),
        sparsity_warmup=0 if method == "topk" else tokens // 4,
        normalisation="gemma",
        seed=seed,
        data_seed=seed,
        options={"ri_l1": True} if method == "gated" else {},
    )


def longest_tokens(preset: str, place: tuple[str, int]) -> int:
    """Training tokens of the longest runs at a (site, layer) of the plan."""
    plan = PLANS[preset]
    return plan.budgets[0] if place == plan.where[0] else plan.elsewhere


def frontier_runs(preset: str) -> list[Run]:
    """In the plan's first place every method over its dial, and CORE with smaller budgets; MAIN in every place."""
    plan = PLANS[preset]
    core, main = ({method: plan.dials[method] for method in methods} for methods in (CORE, MAIN))
    parts = [(plan.where[0], plan.budgets[0], plan.dials)]
    parts += [(plan.where[0], tokens, core) for tokens in plan.budgets[1:]]
    parts += [(place, plan.elsewhere, main) for place in plan.where]
    runs = [
        make_run(preset, source(preset, *place), method, sparsity, seed, tokens)
        for seed in (SEEDS[:1] if preset == "smoke" else SEEDS)
        for place, tokens, dials in parts
        for method, sparsities in dials.items()
        for sparsity in sparsities
    ]
    return list(dict.fromkeys(runs))


BLOCKS = 64  # contexts that the harm is averaged over
OFTEN, QUITE_OFTEN = 0.1, 0.01  # shares of tokens (JumpReLU, fig. 5)


def best_rescaling(x: Float[Tensor, "n d_in"], recon: Float[Tensor, "n d_in"]) -> Float[Tensor, ""]:
    """gamma = E[x . recon] / E|recon|^2, both from the mean of x: the factor by which reconstructions are best
    multiplied. 1: nothing to gain; above 1: they come out too short."""
    mean = x.mean(0)
    return ((x - mean) * (recon - mean)).sum() / (recon - mean).square().sum()


def measure_frontier(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Train each run; its error on held-out activations with controls, the harm to the language model (also in each
    context), gamma, and the shares of latents that are active on more than a tenth and a hundredth of the tokens."""
    for one in trained(runs):
        where, device = one.run.source, str(one.mean.device)
        heldout = where.heldout(device)
        x = one.sae.normalise(heldout).x
        passes = passed(one.sae, x), passed(one.untrained, x)
        recon, _, density = passes[0]
        yield (
            one.run,
            reconstruction(one, heldout, passes)
            | spliced(where, one.sae.reconstruct, BLOCKS, device, by_context=True)
            | {
                "gamma": best_rescaling(x, recon).item(),
                "often": (density > OFTEN).float().mean().item(),
                "quite_often": (density > QUITE_OFTEN).float().mean().item(),
            }
            | one.log,
        )


FRONTIER = Study(KEY, "frontier", "JumpReLU, TopK and Gated at equal L0", frontier_runs, measure_frontier)


# Comparisons at equal L0

TWO_BY_TWO = ("jumprelu", "jumprelu-l1", "relu-l0", "relu")  # a jump or none, L0 or L1
RIVALS = ("topk", "gated", "gated-original")
CELL = ["site", "layer"]


def with_method(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the columns `method` (Gated is RI-L1 unless it is "gated-original"), `site` and `layer`."""
    original = (rows.architecture == "gated") & ~rows.options.str.contains("'ri_l1', True")
    method = rows.architecture.mask(original, "gated-original")
    if "ablation" in rows:
        method = rows.ablation.fillna(method)
    return with_place(rows).assign(method=method)


def longest(rows: pd.DataFrame) -> pd.DataFrame:
    """The runs with the most tokens, on which the claims are judged."""
    return rows[rows.tokens == rows.tokens.max()]


def halved(rows: pd.DataFrame) -> pd.DataFrame:
    """The runs with half as many tokens."""
    return rows[rows.tokens == rows.tokens.max() // 2]


def main_methods(rows: pd.DataFrame) -> pd.DataFrame:
    """What Figure 2 of the paper compares, and ReLU with L1; the longest runs."""
    rows = with_method(longest(rows))
    return rows[rows.method.isin(MAIN)]


def two_by_two(rows: pd.DataFrame) -> pd.DataFrame:
    """JumpReLU with and without each of its two ingredients; the longest runs, where there are all four."""
    rows = with_method(longest(rows))
    rows = rows[rows.method.isin(TWO_BY_TWO)]
    return rows[rows.groupby(CELL).method.transform("nunique") == len(TWO_BY_TWO)]


def every_place(rows: pd.DataFrame) -> pd.DataFrame:
    """MAIN at all sites and layers, with the most tokens that there are runs of in every one of them."""
    rows = with_method(rows)
    shared = rows.groupby(CELL).tokens.max().min()
    return rows[rows.method.isin(MAIN) & (rows.tokens == shared)]


def matched(rows: pd.DataFrame, methods: tuple[str, ...], column: str = "delta_ce") -> pd.DataFrame:
    """`column` of each method at the L0 of every TopK run (see `gao2024.frontier.at_equal_l0`), NaN where L0 is not
    matched, over the cells that have all of the methods: site, layer, seed, k, l0 and one column per method. All rows
    have one number of tokens."""
    wanted = list(dict.fromkeys(["seed", "k", "l0", *methods]))
    parts = [pd.DataFrame(columns=[*wanted, *CELL], dtype=float)]
    for (site, layer), cell in rows.groupby(CELL):
        if {"topk", *methods} <= set(cell.method):
            at = gao.at_equal_l0(cell.assign(architecture=cell.method), column)
            parts.append(at.reindex(columns=wanted).assign(site=site, layer=layer))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def harm_gap(rows: pd.DataFrame, other: str) -> pd.DataFrame:
    """g = ln(delta CE of JumpReLU / delta CE of another method) at equal L0; negative: JumpReLU is better."""
    at = matched(rows, ("jumprelu", other))
    if other in ABLATIONS:
        at = at.fillna({other: at_its_sparsest(rows[rows.method == other], at)})
    return at.assign(g=np.log(at.jumprelu / at[other]))


def at_its_sparsest(rows: pd.DataFrame, at: pd.DataFrame) -> pd.Series:
    """Delta CE of the run with the smallest L0 of each cell and seed, for the lines of `at` with an L0 that is smaller
    still: NaN for others. With fewer active latents a method would do more harm, so this flatters it."""
    sparsest = rows[rows.dead <= gao.COLLAPSED].sort_values("l0").drop_duplicates([*CELL, "seed"])
    found = at[[*CELL, "seed"]].merge(sparsest[[*CELL, "seed", "l0", "delta_ce"]], how="left").set_axis(at.index)
    return found.delta_ce.where(at.l0 < found.l0)


class Gap(NamedTuple):
    """Mean g over matched L0."""

    mean: float
    low: float
    high: float
    """95 % interval: it spans Student's t over seeds and the bootstrap of `resampled_gap`."""
    matched: int
    points: int
    """L0 that are matched, of how many"""


def gap_of(rows: pd.DataFrame, other: str) -> Gap | str:
    """Mean g against another method with its interval, or why there is none."""
    rows = rows[rows.method.isin(("jumprelu", "topk", other))]
    if harmless := (rows.delta_ce <= 0).sum():
        return f"{harmless} runs do no harm: no logarithm of it exists"
    at = harm_gap(rows, other)
    points = at.dropna()
    if len(points) < 0.5 * len(at):
        return f"only {len(points)} of {len(at)} L0 are matched"
    mean, low, high = mean_interval(points.groupby("seed").g.mean())
    resampled = resampled_gap(rows, other)
    if resampled is None:
        return f"in more than {LOST:.1%} of the resamples of held-out contexts a run does no harm"
    return Gap(mean, min(low, resampled[0]), max(high, resampled[1]), len(points), len(at))


RESAMPLES = 1000
LOST = 0.025  # share of resamples that may have no g


def resampled_gap(rows: pd.DataFrame, other: str) -> tuple[float, float] | None:
    """95 % bootstrap interval of the mean g over seeds and held-out contexts: both are drawn anew, the same contexts
    for all methods.

    Interpolation is linear in the logarithms, with weights that only L0 decides, so that g of a resample is a weighted
    sum of logarithms. One in which the mean harm of a run is not positive has no g and is left out; None if more than
    LOST are.
    """
    rng = np.random.default_rng(0)
    contexts = len(rows.delta_ce_contexts.iloc[0])
    drawn = rng.multinomial(contexts, np.full(contexts, 1 / contexts), RESAMPLES) / contexts
    by_seed = []
    for _, one in rows[rows.dead <= gao.COLLAPSED].groupby("seed"):
        points = [
            _resampled_ln(cell, "jumprelu", drawn) - _resampled_ln(cell, other, drawn)
            for _, cell in one.groupby(CELL)
            if {"topk", "jumprelu", other} <= set(cell.method)
        ]
        at = np.concatenate(points) if points else np.empty((0, RESAMPLES))
        if len(at := at[~np.isnan(at).all(1)]):
            by_seed.append(at.mean(0))
    seeds = rng.integers(len(by_seed), size=(RESAMPLES, len(by_seed)))
    means = np.array(by_seed)[seeds, np.arange(RESAMPLES)[:, None]].mean(1)
    if np.isnan(means).mean() > LOST:
        return None
    low, high = np.nanquantile(means, (0.025, 0.975))
    return float(low), float(high)


def _resampled_ln(cell: pd.DataFrame, method: str, drawn: np.ndarray) -> np.ndarray:
    """(L0 of the TopK runs, resamples): ln of the harm of a method there with the contexts drawn, NaN where L0 is not
    matched. An ablation takes the place of its sparsest run where L0 is smaller still (see `at_its_sparsest`)."""
    at = np.log(cell[cell.method == "topk"].l0.sort_values())
    runs = cell[cell.method == method].sort_values("l0")
    l0 = np.log(runs.l0.to_numpy())
    left = None if method in ABLATIONS else np.nan
    weights = np.array([np.interp(at, l0, unit, left=left, right=np.nan) for unit in np.eye(len(l0))])
    harm = np.array(runs.delta_ce_contexts.tolist()) @ drawn.T
    return weights.T @ np.log(np.where(harm > 0, harm, np.nan))


def last_doubling(rows: pd.DataFrame, other: str) -> pd.Series:
    """What the last doubling of tokens did to g, at every L0 that is matched in the longest runs and in those with half
    of their tokens, wherever there are both.

    Both g are taken over the settings that were also run with half of the tokens. A method that has no such runs counts
    as done: then this is the gain of JumpReLU alone. Runs that do no harm are left out.
    """
    rows = rows[rows.delta_ce > 0]
    whole, half = longest(rows), halved(rows)
    if not {"jumprelu", "topk"} <= set(half.method):
        raise NoEvidence("the table has no runs of JumpReLU and TopK with half of the tokens")
    keys = ["method", "sparsity"]
    if other not in set(half.method):
        half = pd.concat([half, whole[whole.method == other]])
    whole = whole.merge(half[keys].drop_duplicates(), on=keys)
    point = [*CELL, "seed", "k"]
    found = [harm_gap(part, other).dropna().set_index(point).g for part in (whole, half)]
    return (found[0] - found[1]).dropna()


def by_place(rows: pd.DataFrame, other: str) -> dict[tuple[str, int], Gap | str]:
    """`gap_of` at each site and layer, with the tokens of `every_place`."""
    found = {}
    for place, cell in every_place(rows).groupby(CELL):
        try:
            found[place] = gap_of(cell, other)
        except NoEvidence as reason:
            found[place] = str(reason)
    return found


def place_table(rows: pd.DataFrame) -> pd.DataFrame:
    """exp(g) with its interval at each site and layer, ready to be read; a dash where there is none."""

    def text(gap: Gap | str) -> str:
        return "–" if isinstance(gap, str) else "{:.2f} [{:.2f}, {:.2f}]".format(*np.exp(gap[:3]))

    columns = {
        f"harm over that of {name}": {place: text(gap) for place, gap in by_place(rows, other).items()}
        for other, name in zip(MAIN[1:], ("TopK", "Gated RI-L1", "original Gated", "ReLU + L1"), strict=True)
    }
    return pd.DataFrame(columns).rename_axis(CELL).reset_index()


CLOSE = 0.05  # a last doubling of tokens that changed g by more may not be the last
NOT_WORSE = float(np.log(1.05))  # J3
MOST_PLACES = 2 / 3  # of the sites and layers J2 and J3 ask for
UNBIASED, SHRUNK = 0.02, 1.05  # J5


def compare(rows: pd.DataFrame, other: str, bound: float = 0.0) -> Evidence:
    """Evidence on 'g against another method is below the bound', for RIVALS also place by place."""
    rows = with_method(rows)
    if not {"jumprelu", "topk", other} <= set(rows.method):
        raise NoEvidence(f"the table lacks jumprelu, topk or {other}")
    gap = gap_of(longest(rows), other)
    if isinstance(gap, str):
        return Evidence("void", *NOTHING, gap)
    shift = last_doubling(rows, other).mean()
    summary = (
        f"the harm at equal L0 is {np.exp(gap.mean):.2f} times as large ({gap.matched} of {gap.points} L0 matched)"
    )
    if np.isnan(shift):
        return Evidence("void", *NOTHING, f"{summary}, but no L0 is matched with half of the tokens: no budget check")
    whose = "tokens" if other in set(halved(rows).method) else "JumpReLU's tokens"
    summary += f"; the last doubling of {whose} changed g by {shift:+.3f}"
    if abs(shift) > CLOSE and shift * (gap.mean - bound) < 0:
        return Evidence("void", *gap[:3], f"under-trained: {summary}, towards the other verdict")
    outcome = judge(bound - gap.mean, bound - gap.high, bound - gap.low)
    places = by_place(rows, other) if other in RIVALS else {}
    if len(places) > 1:
        below = sum(isinstance(one, Gap) and one.high < bound for one in places.values())
        most = below >= MOST_PLACES * len(places)
        tokens = every_place(rows).tokens.iloc[0]
        summary += f"; with {tokens:,} tokens it holds at {below} of {len(places)} sites and layers"
        if most or outcome == "replicated":
            outcome = both(outcome, "replicated" if most else "not replicated")
    return Evidence(outcome, *gap[:3], summary)


def beats_gated(rows: pd.DataFrame) -> Evidence:
    """J2, against Gated with RI-L1; the original is reported."""
    found, original = compare(rows, "gated"), compare(rows, "gated-original")
    return found._replace(
        summary=f"against Gated with RI-L1, {found.summary}. Against the original ({original.verdict}), "
        f"{original.summary}"
    )


def not_worse_than_topk(rows: pd.DataFrame) -> Evidence:
    """J3."""
    found = compare(rows, "topk", NOT_WORSE)
    better = compare(rows, "topk").verdict
    return found._replace(summary=f"against TopK, {found.summary}. That JumpReLU is better outright: {better}")


def needs_both(rows: pd.DataFrame) -> Evidence:
    """J4: against each of the three that lack an ingredient, where there are all of them; the number is that of the
    closest one."""
    places = two_by_two(rows)[CELL].drop_duplicates()
    if places.empty:
        raise NoEvidence(f"the table lacks one of {', '.join(TWO_BY_TWO)}")
    rows = with_method(rows).merge(places)
    found = {other: compare(rows, other) for other in TWO_BY_TWO[1:]}
    outcome = found[TWO_BY_TWO[1]].verdict
    for one in found.values():
        outcome = both(outcome, one.verdict)
    numbers = [one for one in found.values() if not np.isnan(one.ours)]
    closest = max(numbers, key=lambda one: one.ours) if numbers else found[TWO_BY_TWO[1]]
    summary = "; ".join(f"against {other} ({one.verdict}): {one.summary}" for other, one in found.items())
    return closest._replace(verdict=outcome, summary=summary)


def avoids_shrinkage(rows: pd.DataFrame) -> Evidence:
    """J5: gamma of JumpReLU near 1, gamma of ReLU with L1 above SHRUNK, at equal L0."""
    rows = with_method(rows)
    methods = ["jumprelu", "relu", "topk", "gated"]
    if not set(methods) <= set(rows.method):
        raise NoEvidence(f"the table lacks one of {', '.join(methods)}")
    at = matched(longest(rows), tuple(methods), "gamma")
    points = at.dropna(subset=["jumprelu", "relu"])
    if len(points) < 0.5 * len(at):
        return Evidence("void", *NOTHING, f"only {len(points)} of {len(at)} L0 are matched")
    gamma = points.groupby("seed")[methods].mean()
    shrunk = judge(*(value - SHRUNK for value in mean_interval(gamma.relu)))
    unbiased = is_close_to_0(gamma.jumprelu - 1, UNBIASED)
    means = gamma.mean()
    return Evidence(
        both(unbiased, shrunk),
        *mean_interval(gamma.jumprelu),
        f"gamma is {means.jumprelu:.3f} with JumpReLU ({unbiased}) and {means.relu:.3f} with ReLU + L1 ({shrunk}) at "
        f"equal L0; with TopK {means.topk:.3f}, with Gated {means.gated:.3f}",
    )


def gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """g against each of RIVALS with every budget, in the place that has several."""
    rows = with_method(rows)
    rows = rows[rows.groupby(CELL).tokens.transform("nunique") > 1]
    return pd.concat(
        [
            harm_gap(part, method).assign(method=method, tokens=tokens)
            for tokens, part in rows.groupby("tokens")
            for method in RIVALS
            if {"jumprelu", "topk", method} <= set(part.method)
        ],
        ignore_index=True,
    )


def gap_by_tokens(rows: pd.DataFrame) -> pd.DataFrame:
    """Harm of JumpReLU over harm of a rival, exp(mean g) over the L0 that are matched with every budget: method, seed,
    tokens, ratio."""
    points = gaps(rows).dropna(subset="g")
    budgets = points.tokens.nunique()
    steady = points[points.groupby(["method", *CELL, "seed", "k"]).tokens.transform("nunique") == budgets]
    found = steady.groupby(["method", "seed", "tokens"]).g.mean()
    return np.exp(found).rename("ratio").reset_index()


STUDIES = (FRONTIER,)

FIGURES = {
    "jumprelu-frontier": (FRONTIER, "jumprelu_frontier.fidelity", lambda rows: (main_methods(rows), "delta_ce")),
    "jumprelu-fvu": (FRONTIER, "jumprelu_frontier.fidelity", lambda rows: (main_methods(rows), "fvu")),
    "jumprelu-places": (FRONTIER, "jumprelu_frontier.fidelity", lambda rows: (every_place(rows), "delta_ce")),
    "jumprelu-places-fvu": (FRONTIER, "jumprelu_frontier.fidelity", lambda rows: (every_place(rows), "fvu")),
    "jumprelu-gaps": (FRONTIER, "jumprelu_frontier.gaps", lambda rows: (gaps(rows),)),
    "jumprelu-tokens": (FRONTIER, "jumprelu_frontier.gap_by_tokens", lambda rows: (gap_by_tokens(rows),)),
    "jumprelu-two-by-two": (FRONTIER, "jumprelu_frontier.fidelity", lambda rows: (two_by_two(rows), "delta_ce")),
    "jumprelu-rescaling": (FRONTIER, "jumprelu_frontier.fidelity", lambda rows: (main_methods(rows), "gamma")),
    "jumprelu-training": (FRONTIER, "frontier.training_curves", lambda rows: (main_methods(rows),)),
}

_AT_EQUAL_L0 = (
    "g = ln of the rise in cross-entropy with JumpReLU over that with the other method, interpolated in log-log at the "
    "L0 of the TopK runs, never extrapolated, mean over L0 (and the sites and layers of the longest runs), one value "
    "per seed. Its interval spans Student's t over seeds and a bootstrap over seeds and held-out contexts. "
)
_PLACES = (
    " It must also hold in two thirds of all sites and layers, each with its own interval and with the most tokens "
    "that all have; partly if one of the two holds."
)
_VOID = (
    " Void if fewer than half of the L0 are matched by runs with at most 50 % dead latents, or if the last doubling of "
    "tokens, at the site and layer that has both budgets, changed g by more than 0.05 towards the other verdict."
)

CLAIMS = (
    Claim(
        id="jumprelu2024-J2",
        statement="At equal sparsity, JumpReLU reconstructs more faithfully than Gated.",
        rule=_AT_EQUAL_L0 + "Against Gated with RI-L1: g below 0 with its interval." + _PLACES + _VOID,
        published=(
            "JumpReLU always more faithful than both kinds of Gated (Fig. 2: Gemma 2 9B, three layers, single runs); "
            "the figure's numbers are not released, only its order can be compared"
        ),
        statistic="g of JumpReLU against Gated with RI-L1",
        study=FRONTIER,
        test=beats_gated,
    ),
    Claim(
        id="jumprelu2024-J3",
        statement="At equal sparsity, JumpReLU reconstructs at least as faithfully as TopK.",
        rule=(
            _AT_EQUAL_L0 + "Against TopK with AuxK: g below ln 1.05 with its interval (not worse)." + _PLACES + _VOID
        ),
        published=(
            "at least equal to and often slightly better than TopK (Fig. 2; single runs); the figure's numbers are not "
            "released, only its order can be compared"
        ),
        statistic="g of JumpReLU against TopK",
        study=FRONTIER,
        test=not_worse_than_topk,
    ),
    Claim(
        id="jumprelu2024-J4",
        statement="JumpReLU needs both of its ingredients, the jump and the L0 penalty.",
        rule=(
            _AT_EQUAL_L0 + "Against each of ReLU with L1, ReLU with L0 (pseudo-derivatives around 0 into the encoder's "
            "bias) and JumpReLU with L1: g below 0 with its interval; partly if against some. One of the last two that "
            "reaches no L0 as small is taken at its sparsest run, which flatters it. Void, for each, as J2; what "
            "JumpReLU is compared with counts as done training. Only sites and layers that have all four count."
        ),
        published="both are needed (an appendix, known from a review); no numbers at hand",
        statistic="g of JumpReLU against the closest of the three",
        study=FRONTIER,
        test=needs_both,
    ),
    Claim(
        id="jumprelu2024-J5",
        statement="An L0 penalty does not shrink reconstructions, as L1 does.",
        rule=(
            "gamma = E[x . recon] / E|recon|^2, both from the mean of x, at equal L0 (as J2): within 0.02 of 1 for "
            "JumpReLU and above 1.05 for ReLU with L1, both with their intervals; partly if one holds. Void if fewer "
            "than half of the L0 are matched."
        ),
        published="an argument (Fig. 1 and the text), without a number",
        statistic="gamma of JumpReLU",
        study=FRONTIER,
        test=avoids_shrinkage,
    ),
)
