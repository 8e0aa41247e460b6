"""Scaling laws: error against latents, compute and tokens (figures 1, 3, 4, 11, 12, 14; C5 to C12, C20)."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, reduce
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
import pandas as pd

from replication.activations import Gaussian, LanguageModelActivations
from replication.claims import NOTHING, Claim, Evidence, NoEvidence, both, interpolate_loglog, judge, mean_interval
from replication.papers.gao2024.frontier import late_gain, measure
from replication.papers.gao2024.grid import KEY, SEEDS, SOURCES, make_run
from replication.results import Study
from replication.scaling import (
    JOINT,
    POWER,
    Fit,
    Law,
    bootstrap,
    envelope,
    fit,
    flops_per_token,
    interval,
    r_squared,
    tokens_to_converge,
)
from replication.train import Diverged, Run

WIDTH = {"smoke": 64, "cpu": 128, "gpu": 256, "paper": 768}  # d of the activations of SOURCES, without loading a model
SPARSE = 8  # a cell is in the grid if n >= SPARSE k: below that the code is dense, which is another regime
GRID = {  # dictionary sizes, k
    "smoke": ((32, 64, 128, 256), (4, 8)),
    "cpu": ((64, 128, 256, 512, 1024), (4, 8, 16, 32)),
    "gpu": ((2**8, 2**9, 2**10, 2**11, 2**12, 2**13, 2**15), (4, 8, 16, 32)),
    "paper": ((2**11, 2**13, 2**15, 2**17), (8, 16, 32, 64, 128)),
}
FIXED_K = {"smoke": 4, "cpu": 8, "gpu": 16, "paper": 32}  # of everything that varies something else


def scaling_runs(preset: str) -> list[Run]:
    """Figure 1: TopK over n and k."""
    sizes, ks = GRID[preset]
    cells = [(n, k) for n, k in product(sizes, ks) if n >= SPARSE * k]
    return [make_run(preset, "topk", n, k, seed) for seed, (n, k) in product(SEEDS, cells)]


HIGH, LOW = tuple(2.0**-i for i in (7, 6, 5, 4)), tuple(2.0**-i for i in (8, 7, 6, 5))
RATES = {  # dictionary size -> learning rates by factors of two; training tokens
    "smoke": (dict.fromkeys((32, 64), (2**-7, 2**-5, 2**-3)), 2**13),
    # each size has the rates around its best alone: the others cost a third more and decide nothing
    "cpu": (dict.fromkeys((64, 128, 256), HIGH) | dict.fromkeys((512, 1024), LOW), 2**17),
    "gpu": (dict.fromkeys([2**i for i in range(8, 14)], tuple(2.0**-i for i in range(10, 3, -1))), 2**22),
    "paper": (dict.fromkeys([2**i for i in range(11, 16)], tuple(1e-4 * 2**i for i in range(6))), 64 * 10**8),
}


def _shorter(run: Run, tokens: int) -> Run:
    """A run of another length, with the window in which a latent may be silent shortened with it."""
    return replace(run, tokens=tokens, dead_after=min(tokens // 8, 10**7))


def rate_runs(preset: str) -> list[Run]:
    """Figure 3: learning rates for every dictionary size."""
    rates, tokens = RATES[preset]
    return [
        _shorter(replace(make_run(preset, "topk", n, FIXED_K[preset], seed), lr=rate), tokens)
        for seed, n in product(SEEDS, rates)
        for rate in rates[n]
    ]


BATCH_SIZE = {"smoke": 64, "cpu": 64, "gpu": 2**9, "paper": 2**15}  # n: small, because it has to converge
BATCH_FACTOR = 4
RATE_FACTORS = (0.25, 0.5, 1, 2)


def batch_runs(preset: str) -> list[Run]:
    """Figure 12: two batch sizes, each over learning rates."""
    found = []
    for seed, factor, times in product(SEEDS, (1, BATCH_FACTOR), RATE_FACTORS):
        run = make_run(preset, "topk", BATCH_SIZE[preset], FIXED_K[preset], seed)
        found.append(replace(run, batch=run.batch * factor, lr=run.lr * times))
    return found


NOISE_GRID = {  # dictionary sizes, training tokens; noise is drawn on the CPU, which is slow beside a GPU
    "smoke": ((32, 128), 2**14),
    "cpu": ((64, 256, 1024), 2**18),  # those of FAMILY_GRID, whose runs it shares
    "gpu": ((2**8, 2**10, 2**12), 2**23),
    "paper": ((2**11, 2**13, 2**15, 2**17), 64 * 10**8),
}


def gaussian_runs(preset: str) -> list[Run]:
    """Figure 14: activations, and noise of their width, with the same n, k and training."""
    sizes, tokens = NOISE_GRID[preset]
    runs = [_shorter(make_run(preset, "topk", n, FIXED_K[preset], seed), tokens) for seed, n in product(SEEDS, sizes)]
    return [*runs, *(replace(run, source=Gaussian(WIDTH[preset])) for run in runs)]


FAMILY = {  # (language model, site), from the smallest to the largest
    "smoke": (("pygpt-0.5m", "blocks.1.hook_resid_pre"), ("pygpt-2m", "blocks.2.hook_resid_post")),
    "cpu": (
        ("pygpt-0.5m", "blocks.1.hook_resid_pre"),
        ("pygpt-2m", "blocks.2.hook_resid_post"),
        ("pygpt-7m", "blocks.3.hook_resid_post"),
    ),
    "paper": (
        ("openai-community/gpt2", "blocks.8.hook_resid_post"),
        ("openai-community/gpt2-medium", "blocks.16.hook_resid_post"),
        ("openai-community/gpt2-large", "blocks.24.hook_resid_post"),
    ),
}
FAMILY["gpu"] = FAMILY["cpu"]
FAMILY_GRID = {  # dictionary sizes, k, training tokens
    "smoke": ((32, 128), 4, 2**14),
    "cpu": ((64, 256, 1024), 8, 2**18),
    "gpu": ((2**7, 2**9, 2**11, 2**13), 8, 2**24),
    "paper": ((2**11, 2**13, 2**15, 2**17), 32, 64 * 10**8),
}


def subjects(preset: str) -> list[LanguageModelActivations]:
    """The sources of a family, on one corpus; a model that other pages do not use stores no more than it trains on."""
    own = SOURCES[preset]
    stored = min(FAMILY_GRID[preset][-1], own.tokens)
    others = (replace(own, model=model, hook=hook, tokens=stored) for model, hook in FAMILY[preset])
    return [own if (one.model, one.hook) == (own.model, own.hook) else one for one in others]


def subject_runs(preset: str) -> list[Run]:
    """Figure 4: language models of several sizes at one k."""
    sizes, k, tokens = FAMILY_GRID[preset]
    return [
        _shorter(replace(make_run(preset, "topk", n, k, seed), source=source), tokens)
        for seed, source, n in product(SEEDS, subjects(preset), sizes)
    ]


def measure_rates(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """As `frontier.measure`; a run that diverges has a row that says so and no error."""
    left = dict.fromkeys(runs)
    try:
        for run, measured in measure(runs):
            del left[run]
            yield run, measured | {"diverged": False}
    except Diverged:
        for run in left:
            yield run, {"diverged": True}


SCALING = Study(KEY, "scaling", "Error over dictionary size and k", scaling_runs, measure)
LEARNING_RATES = Study(KEY, "learning-rates", "Learning rates over dictionary size", rate_runs, measure_rates)
BATCH_SIZES = Study(KEY, "batch-sizes", "Batch sizes, each at its learning rate", batch_runs, measure)
NOISE = Study(KEY, "gaussian", "Activations against Gaussian noise", gaussian_runs, measure)
SUBJECTS = Study(KEY, "subjects", "Language models of several sizes", subject_runs, measure)


PUBLISHED_JOINT = {"alpha": -0.50, "beta_k": 0.26, "beta_n": -0.017, "gamma": -0.042, "zeta": -1.32, "eta": -0.085}
"""Figure 1 right: GPT-4, k = 32 to 512, natural logarithms."""
PUBLISHED_COMPUTE = {"floor": 0.09, "coefficient": 0.056, "exponent": -0.084}
"""Figure 1 left: compute in units of GPT-4's pre-training."""
PUBLISHED_TOKENS = {"GPT-2 small": 0.6, "GPT-4": 0.65}
"""Figure 11: exponents of the tokens to convergence in n."""


CONVERGED = 0.02  # change of ln NMSE by one more doubling; doubling n changes it by 0.11 to 0.19 in the published law
SETTLED = 0.01  # the same where the rule itself is about 1 %
RESAMPLES = 200  # of runs, for intervals of a law
LEAST_SIZES = 4  # dictionary sizes at one k that a law with a floor is fitted to
SETTING = ["source", "d_sae", "sparsity", "batch", "lr", "tokens"]  # what a run is but for its seed


def gains(rows: pd.DataFrame) -> pd.Series:
    """By how much one more doubling of tokens would lower ln NMSE, if the last one is a guide: for every row the mean
    over the seeds of its setting."""
    each = [late_gain(*curve) for curve in zip(rows.curve_tokens, rows.curve_error, strict=True)]
    return rows.assign(gain=each).groupby(SETTING).gain.transform("mean")


def converged(rows: pd.DataFrame, tolerance: float = CONVERGED) -> pd.DataFrame:
    """The rows of settings that one more doubling of tokens would change by less than `tolerance`."""
    return rows[gains(rows).abs() < tolerance]


def unfinished(rows: pd.DataFrame, tolerance: float = CONVERGED) -> str:
    """Why a claim about convergence is void, and what it would take: the gain of a doubling falls at best as one over
    the tokens (so for few latents; for many more slowly), so a run needs at least gain / tolerance times as many."""
    done, all_of_them = (part.groupby(SETTING).ngroups for part in (converged(rows, tolerance), rows))
    most = gains(rows).abs().max()
    return (
        f"only {done} of {all_of_them} settings have converged: one more doubling of tokens would change NMSE by up to "
        f"{100 * most:.0f} %, and the rule allows {100 * tolerance:g} %; that takes at least {most / tolerance:.0f} "
        "times the tokens for all of them"
    )


def by_k(rows: pd.DataFrame, sizes: int = LEAST_SIZES) -> dict[float, pd.DataFrame]:
    """k -> its rows, for every k with at least so many dictionary sizes."""
    return {k: cell for k, cell in rows.groupby("sparsity") if cell.d_sae.nunique() >= sizes}


class Fits(NamedTuple):
    """A law with its floor, the same law without, and the two on resampled runs."""

    floored: Fit
    plain: Fit
    resampled: list[tuple[Fit, Fit]]

    def gain(self) -> tuple[float, float, float]:
        """AICc without floor minus AICc with floor, and its interval over runs. Positive: the floor is worth having."""
        values = [plain.aicc - floored.aicc for floored, plain in self.resampled]
        return self.plain.aicc - self.floored.aicc, *interval(values)

    def parameter(self, name: str) -> tuple[float, float, float]:
        """A parameter of the law with a floor, and its interval over runs."""
        return self.floored.parameters[name], *interval([one.parameters[name] for one, _ in self.resampled])

    def slope(self, k: float) -> tuple[float, float, float]:
        """d ln(reducible error) / d ln n of the joint law with a floor at one k, and its interval over runs."""
        value, *others = (
            float(JOINT.slope(one.parameters, "n", k=k)) for one in (self.floored, *(one for one, _ in self.resampled))
        )
        return value, *interval(others)


def joint_fits(rows: pd.DataFrame) -> Fits:
    """The joint law of n and k, fitted to NMSE."""
    return _fits(JOINT, ("n", "k"), _points(rows, ["d_sae", "sparsity", "nmse"]))


def power_fits(rows: pd.DataFrame) -> Fits:
    """A power law of n, fitted to the NMSE of rows of one k."""
    return _fits(POWER, ("x",), _points(rows, ["d_sae", "nmse"]))


def _points(table: pd.DataFrame, columns: list[str]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, table[columns].to_numpy(float)))


@lru_cache(maxsize=32)  # several claims, a figure and a table read one fit
def _fits(law: Law, variables: tuple[str, ...], points: tuple[tuple[float, ...], ...]) -> Fits:
    """`points`: the variables and, last, the error of each run."""
    floored = _fit(law, variables, points)
    plain = fit(law.without_floor(), floored.observed, floored.at)
    pairs = [(one, fit(plain.law, one.observed, one.at)) for one in bootstrap(floored, resamples=RESAMPLES)]
    return Fits(floored, plain, pairs)


@lru_cache(maxsize=256)
def _fit(law: Law, variables: tuple[str, ...], points: tuple[tuple[float, ...], ...]) -> Fit:
    *at, error = np.array(points).T
    return fit(law, error, dict(zip(variables, at, strict=True)))


def floor_is_real(rows: pd.DataFrame) -> Evidence:
    """C5: by how much AICc falls with a floor, at the k where it falls least."""
    usable = by_k(converged(rows))
    if not usable:
        return Evidence("void", *NOTHING, unfinished(rows))
    gained = {k: power_fits(cell).gain() for k, cell in usable.items()}
    outcome = reduce(both, (judge(*(value - 2 for value in one)) for one in gained.values()))
    k, least = min(gained.items(), key=lambda item: item[1][0])
    return Evidence(
        outcome,
        *least,
        f"AICc falls by {least[0]:.1f} with a floor at k = {k:g}, where it falls least of {len(gained)} k (interval by "
        "resampling runs)",
    )


def _joint(rows: pd.DataFrame) -> Fits | str:
    """The joint law of the settings that have converged, or the reason why there is none."""
    usable = by_k(converged(rows))
    return joint_fits(pd.concat(usable.values())) if len(usable) >= 3 else unfinished(rows)


def steeper_with_k(rows: pd.DataFrame) -> Evidence:
    """C6: gamma of the joint law."""
    fits = _joint(rows)
    if isinstance(fits, str):
        return Evidence("void", *NOTHING, fits)
    value, low, high = fits.parameter("gamma")
    return Evidence(
        judge(-value, -high, -low),
        value,
        low,
        high,
        f"the exponent in n changes by {value:+.3f} per unit of ln k; {fits.plain.parameters['gamma']:+.3f} in the law "
        "without a floor (interval by resampling runs)",
    )


def floor_falls_with_k(rows: pd.DataFrame) -> Evidence:
    """C7: eta of the joint law."""
    fits = _joint(rows)
    if isinstance(fits, str):
        return Evidence("void", *NOTHING, fits)
    if fits.gain()[0] <= 2:
        return Evidence("void", *NOTHING, f"the joint law has no floor to speak of: AICc falls by {fits.gain()[0]:.1f}")
    value, low, high = fits.parameter("eta")
    return Evidence(
        judge(-value, -high, -low),
        value,
        low,
        high,
        f"the floor goes as k^({value:+.3f}) (interval by resampling runs)",
    )


TOLERATED = 0.1  # a rate converges if its NMSE is at most so much above the lowest of the sweep


def largest_rates(rows: pd.DataFrame, tolerated: float = TOLERATED) -> pd.DataFrame:
    """The best and the largest converging learning rate of each dictionary size and seed; columns d_sae, seed, best,
    largest, lowest.

    Going up from the best rate of the grid, the largest is where NMSE crosses (1 + tolerated) times the lowest,
    interpolated in log-log between two rates of the grid; where the upper one diverged, it is the lower one. NaN if the
    highest rate of the grid still converges. `lowest`: the best rate is the lowest of its grid, so that there may be a
    better one below.
    """
    found = []
    for (n, seed), sweep in rows.sort_values("lr").groupby(["d_sae", "seed"]):
        rate, error = np.log(sweep.lr.to_numpy()), np.log(sweep.nmse.fillna(np.inf).to_numpy())
        best = int(error.argmin())
        goal = error[best] + np.log1p(tolerated)
        above = np.flatnonzero((error > goal) & (np.arange(len(error)) > best))
        largest = np.nan
        if len(above):
            low, high = above[0] - 1, above[0]
            share = (goal - error[low]) / (error[high] - error[low])  # 0 if the upper rate diverged
            largest = np.exp(rate[low] + share * (rate[high] - rate[low]))
        found.append({"d_sae": n, "seed": seed, "best": np.exp(rate[best]), "largest": largest, "lowest": best == 0})
    return pd.DataFrame(found)


def _slope(x: pd.Series, y: pd.Series) -> float:
    """Least-squares slope of ln y on ln x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def rate_falls_with_n(rows: pd.DataFrame) -> Evidence:
    """C8: slope of ln(largest converging learning rate) on ln n, one per seed."""
    found = largest_rates(rows)
    if found.d_sae.nunique() < 5:
        raise NoEvidence("the rule needs five or more dictionary sizes")
    if found.largest.isna().any():
        n = found[found.largest.isna()].d_sae.min()
        return Evidence("void", *NOTHING, f"the highest rate of the sweep still converges at n = {n:,}")
    if found.lowest.any():
        n = found[found.lowest].d_sae.min()
        return Evidence("void", *NOTHING, f"the lowest rate of the sweep is the best at n = {n:,}")
    mean, low, high = mean_interval([_slope(cell.d_sae, cell.largest) for _, cell in found.groupby("seed")])
    outcome = judge(-mean, -high, -low)
    if outcome == "replicated" and not low <= -0.5 <= high:
        outcome = "partly"
    ends = found.groupby("d_sae").largest.mean()
    return Evidence(
        outcome,
        mean,
        low,
        high,
        f"the largest converging rate goes from {ends.iloc[0]:.4f} at n = {ends.index[0]:,} to {ends.iloc[-1]:.4f} at "
        f"n = {ends.index[-1]:,}",
    )


def inside(mean: float, low: float, high: float, least: float, most: float) -> str:
    """Verdict on 'the number lies between least and most', from its mean and interval."""
    if least <= low and high <= most:
        return "replicated"
    if least <= mean <= most:
        return "partly"
    return "not replicated" if high < least or low > most else "void"


def convergence(rows: pd.DataFrame) -> pd.DataFrame:
    """Tokens after which the training error is within 1 % of its last value; columns d_sae, k, seed, tokens, settled:
    whether one more doubling would change it by less than 1 %, without which the number only measures the run.

    The error at a mark of a curve is the mean over the batches since the mark before, each measured before its step.
    Below the `paper` preset a run sees every token once, so that these are batches of unseen tokens, as held out as any
    (of the same files); in several epochs, which `paper` takes, it is a training error from the second one on. All
    curves lag behind by the same factor of tokens, which changes no exponent.
    """
    return pd.DataFrame(
        {
            "d_sae": rows.d_sae,
            "k": rows.sparsity,
            "seed": rows.seed,
            "tokens": [tokens_to_converge(*curve) for curve in zip(rows.curve_tokens, rows.curve_error, strict=True)],
            "settled": gains(rows).abs() < SETTLED,
        }
    )


def tokens_grow(rows: pd.DataFrame) -> Evidence:
    """C9: slope of ln(tokens to convergence) on ln n at fixed k, over the k with three settled sizes; one per seed."""
    found = convergence(rows)
    settled = found[found.settled].groupby("k").filter(lambda cell: cell.d_sae.nunique() >= 3)
    if settled.empty:
        return Evidence("void", *NOTHING, unfinished(rows, SETTLED))
    log = np.log(settled[["d_sae", "tokens"]])
    centred = log - log.groupby([settled.k, settled.seed]).transform("mean")
    slopes = [np.polyfit(cell.d_sae, cell.tokens, 1)[0] for _, cell in centred.groupby(settled.seed)]
    mean, low, high = mean_interval(slopes)
    ks = ", ".join(f"{k:g}" for k in sorted(settled.k.unique()))
    return Evidence(
        inside(mean, low, high, 0.4, 0.8), mean, low, high, f"tokens to convergence go as n^{mean:.2f}, over k = {ks}"
    )


SPAN = 10  # a frontier over a smaller range of compute says nothing about a power law


def compute_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Training curves against compute; columns d_sae, k, seed, flops, error, one line per mark of a curve."""
    return pd.concat(
        [
            pd.DataFrame({"d_sae": r.d_sae, "k": r.sparsity, "seed": r.seed, "tokens": r.curve_tokens}).assign(
                flops=lambda t, r=r: t.tokens * flops_per_token(r.d_sae, WIDTH[r.preset], r.sparsity),
                error=r.curve_error,
            )
            for r in rows.itertuples()
        ],
        ignore_index=True,
    )


def compute_frontiers(rows: pd.DataFrame) -> pd.DataFrame:
    """The lower envelope over n of error at equal compute, and the power law with a floor fitted to it.

    Columns k, seed, flops, error, d_sae (of the lowest curve), fitted, floor, exponent, r2 (of the line of ln(error -
    floor) on ln FLOPs), r2_plain (the same without a floor), at compute evenly spaced in the logarithm. Left out is
    compute at which the largest dictionary is lowest, or up to which the smallest is, since the envelope is one
    training curve there, and compute at which a run that has ended is lower than all that go on. At least two sizes
    must be left.
    """
    parts = []
    for (k, seed), curves in compute_curves(rows).groupby(["k", "seed"]):
        at = np.geomspace(curves.flops.min(), curves.flops.max(), 120)
        ends = curves.groupby("d_sae").flops.max()
        kept_on = [([*one.flops, 2 * at[-1]], [*one.error, one.error.iloc[-1]]) for _, one in curves.groupby("d_sae")]
        error, winner = envelope(kept_on, at)
        begun = np.arange(len(at)) > np.flatnonzero(winner == 0).max(initial=-1)
        inner = begun & (winner < len(ends) - 1) & (at <= ends.to_numpy()[winner])
        part = pd.DataFrame({"k": k, "seed": seed, "flops": at, "error": error, "d_sae": ends.index[winner]})[inner]
        if part.d_sae.nunique() < 2:
            continue
        law = _fit(POWER, ("x",), _points(part, ["flops", "error"]))
        # of a crooked envelope the fitted floor can lie above an error, which then has no logarithm
        floor = min(float(law.law.floor_error(law.parameters, x=1.0)), 0.99 * part.error.min())
        parts.append(
            part.assign(
                fitted=law.law.error(law.parameters, x=part.flops),
                floor=floor,
                exponent=law.parameters["beta"],
                r2=r_squared(np.log(part.flops), np.log(part.error - floor)),
                r2_plain=r_squared(np.log(part.flops), np.log(part.error)),
            )
        )
    columns = ["k", "seed", "flops", "error", "d_sae", "fitted", "floor", "exponent", "r2", "r2_plain"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def frontier_is_straight(rows: pd.DataFrame) -> Evidence:
    """C10: R2 of ln(NMSE - floor) on ln FLOPs, the lowest over k; one per seed."""
    found = compute_frontiers(rows)
    span = found.groupby(["k", "seed"]).flops.agg(lambda flops: flops.max() / flops.min())
    wide = span.groupby("k").agg(lambda cell: len(cell) == rows.seed.nunique() and cell.min() >= SPAN)
    found = found[found.k.isin(wide.index[wide.astype(bool)])]
    if found.empty:
        most = f"it spans a factor of {span.max():.1f} at most" if len(span) else "there is none"
        return Evidence("void", *NOTHING, f"the frontier of the sizes between the extremes is too short: {most}")
    law = found.groupby(["k", "seed"])[["r2", "r2_plain", "exponent", "floor"]].first()
    mean, low, high = mean_interval(law.r2.groupby("seed").min())
    k = law.r2.groupby("k").mean().idxmin()
    worst = law.loc[k].mean()
    return Evidence(
        judge(mean - 0.98, low - 0.98, high - 0.98),
        mean,
        low,
        high,
        f"lowest of {found.k.nunique()} k at k = {k:g}: NMSE = {worst.floor:.3f} + c C^({worst.exponent:.2f}) over a "
        f"factor of {span[k].mean():.0f} in compute; R2 {worst.r2_plain:.3f} without a floor",
    )


def unless_unfinished(test: Callable[[pd.DataFrame], Evidence], rows: pd.DataFrame) -> Evidence:
    """A verdict that one more doubling of tokens would leave as it is, each error moved by its setting's gain."""
    now, later = test(rows), test(rows.assign(nmse=rows.nmse * np.exp(-gains(rows))))
    if now.verdict == later.verdict:
        return now
    return Evidence("void", *NOTHING, f"{now.verdict} now, {later.verdict} after one more doubling of tokens")


def noise_is_shallow(rows: pd.DataFrame) -> Evidence:
    """C12: slope on Gaussian data over slope on activations, both in absolute value; one per seed."""
    return unless_unfinished(_noise_is_shallow, rows)


def _noise_is_shallow(rows: pd.DataFrame) -> Evidence:
    noise = rows.source.str.startswith("Gaussian")
    slopes = {
        kind: cell.groupby("seed")[["d_sae", "nmse"]].apply(lambda one: _slope(one.d_sae, one.nmse)).abs()
        for kind, cell in ((True, rows[noise]), (False, rows[~noise]))
    }
    mean, low, high = mean_interval(slopes[True] / slopes[False])
    return Evidence(
        judge(0.5 - mean, 0.5 - high, 0.5 - low),
        mean,
        low,
        high,
        f"NMSE goes as n^(-{slopes[True].mean():.3f}) on Gaussian noise and as n^(-{slopes[False].mean():.3f}) on "
        "activations",
    )


GOAL = 0.3  # NMSE


def reach(rows: pd.DataFrame, goal: float = GOAL) -> tuple[float, float]:
    """Between which ln n the error of one model and seed reaches `goal`: twice the interpolated value, or, where no
    size of the grid is on one side of it, a bound and infinity."""
    if rows.nmse.max() < goal:
        return -np.inf, float(np.log(rows.d_sae.min()))
    if rows.nmse.min() > goal:
        return float(np.log(rows.d_sae.max())), np.inf
    return (float(np.log(interpolate_loglog(rows.nmse, rows.d_sae, [goal])[0])),) * 2


def _rise(before: tuple[float, float], after: tuple[float, float]) -> float:
    """Of ln n from one model to the next: the least that bounds allow if it is a rise, the most if it is a fall, NaN if
    they allow both."""
    low, high = after[0] - before[1], after[1] - before[0]
    return low if low >= 0 else high if high <= 0 else np.nan


def larger_needs_more(rows: pd.DataFrame) -> Evidence:
    """C11: from each language model to the next larger one, by how much the slope becomes shallower, and whether the n
    that reaches GOAL rises; the smallest step, one per seed."""
    order = list(dict.fromkeys(rows.source))  # a table keeps the order of its grid: from the smallest model
    if len(order) < 3:
        raise NoEvidence(f"the rule needs three language models, and there are {len(order)}")
    return unless_unfinished(lambda table: _larger_needs_more(table, order), rows)


def _larger_needs_more(rows: pd.DataFrame, order: list[str]) -> Evidence:
    rises, shallower = [], []
    for _, cell in rows.groupby("seed"):
        models = [cell[cell.source == source] for source in order]
        between = [reach(one) for one in models]
        slopes = [abs(_slope(one.d_sae, one.nmse)) for one in models]
        rises.append(np.min([_rise(*both_models) for both_models in pairwise(between)]))
        shallower.append(min(before - after for before, after in pairwise(slopes)))
    if not np.isfinite(rises).all():
        return Evidence("void", *NOTHING, f"two language models reach an NMSE of {GOAL} on one side of the grid")
    mean, low, high = mean_interval(shallower)
    outcome = both(judge(*mean_interval(rises)), judge(mean, low, high))
    return Evidence(
        outcome,
        mean,
        low,
        high,
        f"from one model to the next, n at NMSE {GOAL} changes by a factor of {np.exp(np.mean(rises)):.2f} or more and "
        f"the slope flattens by {mean:+.3f}, at the smaller of the steps",
    )


def batch_size_is_free(rows: pd.DataFrame) -> Evidence:
    """C20: relative change of NMSE with the larger batch, each batch at its best rate of the grid; one per seed.

    The best rate is the one of the lowest error at the end of training: held-out text only judges.
    """
    best = {}
    for batch, sweep in rows.groupby("batch"):
        error = sweep.curve_error.str[-1].groupby(sweep.lr).mean().sort_index()
        if error.idxmin() in (error.index[0], error.index[-1]):
            return Evidence("void", *NOTHING, f"the best rate at batch {batch:,} is at an end of the grid")
        best[batch] = sweep[sweep.lr == error.idxmin()].set_index("seed")
    if len(best) != 2:
        raise NoEvidence(f"the rule compares two batch sizes, and there are {len(best)}")
    chosen = pd.concat(best.values())
    if len(converged(chosen, SETTLED)) < len(chosen):
        return Evidence("void", *NOTHING, unfinished(chosen, SETTLED))
    small, large = (best[batch].nmse for batch in sorted(best))
    mean, low, high = mean_interval(large / small - 1)
    return Evidence(
        inside(mean, low, high, -0.01, 0.01),
        mean,
        low,
        high,
        f"NMSE {small.mean():.4f} with batches of {min(best):,} and {large.mean():.4f} with {max(best):,} tokens",
    )


def joint_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """The joint law fitted to every row, converged or not; columns k, d_sae, nmse, 30 points per k."""
    law = joint_fits(rows).floored
    return pd.concat(
        [
            pd.DataFrame({"k": k, "d_sae": (n := np.geomspace(cell.d_sae.min(), cell.d_sae.max(), 30))}).assign(
                nmse=JOINT.error(law.parameters, n=n, k=k)
            )
            for k, cell in rows.groupby("sparsity")
        ],
        ignore_index=True,
    )


def exponents(rows: pd.DataFrame) -> pd.DataFrame:
    """Exponent in n of the reducible error at each k, ours with its interval and the published law's at the same k."""
    fits = joint_fits(rows)
    lines = []
    for k, cell in rows.groupby("sparsity"):
        value, low, high = fits.slope(k)
        law, floor = fits.floored.parameters, JOINT.floor_error
        lines.append(
            {
                "k": f"{k:g}",
                "sizes": cell.d_sae.nunique(),
                "change of NMSE by one more doubling": f"{100 * gains(cell).max():.1f} %",
                "exponent in n": f"{value:+.3f} [{low:+.3f}, {high:+.3f}]",
                "published law at this k": f"{JOINT.slope(PUBLISHED_JOINT, 'n', k=k):+.3f}",
                "floor": f"{floor(law, k=k):.3f}",
                "published floor at this k": f"{floor(PUBLISHED_JOINT, k=k):.3f}",
            }
        )
    return pd.DataFrame(lines)


def parameters(rows: pd.DataFrame) -> pd.DataFrame:
    """The joint law's parameters with their intervals beside the published ones, and what the floor is worth."""
    fits = joint_fits(rows)
    lines = []
    for name in JOINT.names:
        value, low, high = fits.parameter(name)
        without = fits.plain.parameters.get(name)
        lines.append(
            {
                "parameter": name,
                "ours": f"{value:+.3f} [{low:+.3f}, {high:+.3f}]",
                "ours without floor": "–" if without is None else f"{without:+.3f}",
                "published": f"{PUBLISHED_JOINT[name]:+.3f}",
            }
        )
    aiccs = f"{fits.floored.aicc:.1f}", f"{fits.plain.aicc:.1f}", "–"
    lines.append(dict(zip(lines[0], ("AICc", *aiccs), strict=True)))
    return pd.DataFrame(lines)


STUDIES = (SCALING, LEARNING_RATES, BATCH_SIZES, NOISE, SUBJECTS)

FIGURES = {
    "compute": (SCALING, "scaling.compute", lambda rows: (compute_curves(rows), compute_frontiers(rows))),
    "joint-law": (
        SCALING,
        "scaling.joint_law",
        lambda rows: (rows.assign(converged=gains(rows).abs() < CONVERGED), joint_curves(rows)),
    ),
    "learning-rates": (LEARNING_RATES, "scaling.learning_rates", lambda rows: (rows, largest_rates(rows))),
    "tokens-to-convergence": (SCALING, "scaling.tokens", lambda rows: (convergence(rows), PUBLISHED_TOKENS)),
    "batch-sizes": (BATCH_SIZES, "scaling.batch_sizes", lambda rows: (rows,)),
    "gaussian": (NOISE, "scaling.sources", lambda rows: (rows,)),
    "subjects": (SUBJECTS, "scaling.sources", lambda rows: (rows,)),
}


CLAIMS = (
    Claim(
        id="gao2024-C5",
        statement=(
            "At convergence, the error falls with the number of latents as a power law towards a floor above zero."
        ),
        rule=(
            "Of two fits to NMSE against n at fixed k, a power law with a floor and one without, the first has the "
            "lower AICc (an error of fit that charges for parameters), by more than 2, with its interval, at every k. "
            "Only settings (n, k) count whose NMSE one more doubling of tokens would change by less than 2 %, judged "
            "by the last one, and only k with four or more such n. Void if there are none."
        ),
        published="an irreducible constant clearly improves the fits of error on latents and of error on compute",
        statistic="AICc without floor - AICc with floor",
        study=SCALING,
        test=floor_is_real,
    ),
    Claim(
        id="gao2024-C6",
        statement="The error falls faster with the number of latents where more latents are active per token.",
        rule=(
            "In the joint law NMSE = exp(alpha + beta_k ln k + beta_n ln n + gamma ln k ln n) + exp(zeta + eta ln k), "
            "fitted over n and k, gamma below 0 with its interval. Settings as in C5, at three or more k; else void."
        ),
        published="gamma = -0.042 (Fig. 1 right: GPT-4)",
        statistic="gamma",
        study=SCALING,
        test=steeper_with_k,
    ),
    Claim(
        id="gao2024-C7",
        statement="The floor of the error is lower where more latents are active per token.",
        rule=(
            "In the joint law of C6, eta below 0 with its interval. Void as C6, or if the law without its floor fits "
            "as well (AICc)."
        ),
        published="eta = -0.085 (Fig. 1 right: GPT-4)",
        statistic="eta",
        study=SCALING,
        test=floor_falls_with_k,
    ),
    Claim(
        id="gao2024-C8",
        statement="The largest converging learning rate goes as one over the square root of the number of latents.",
        rule=(
            "Slope of the logarithm of the largest converging learning rate on ln n, over a grid of rates by factors "
            "of two and five or more n: its interval contains -0.5 and excludes 0. The largest converging rate is "
            "where NMSE crosses 1.1 times the lowest of the sweep, going up and interpolated in log-log. Void if the "
            "highest rate of a sweep still converges, or if the best is its lowest."
        ),
        published="the learning rate goes as n^(-1/2) (Fig. 3)",
        statistic="slope of ln(largest converging learning rate) on ln n",
        study=LEARNING_RATES,
        test=rate_falls_with_n,
    ),
    Claim(
        id="gao2024-C9",
        statement="The tokens needed for convergence grow more slowly than the number of latents.",
        rule=(
            "Exponent in n of the tokens after which NMSE, on each batch before it is trained on, is within 1 % of its "
            "final value between 0.4 and 0.8, with its interval. Only settings (n, k) count whose NMSE one more "
            "doubling of tokens would change by less than 1 %; void if no k has three such n."
        ),
        published="n^0.6 on GPT-2 small, n^0.65 on GPT-4 (Fig. 11); the paper's threshold of convergence is not known",
        statistic="slope of ln(tokens to convergence) on ln n",
        study=SCALING,
        test=tokens_grow,
    ),
    Claim(
        id="gao2024-C10",
        statement="With the best number of latents for each compute, the error falls with compute as a power law.",
        rule=(
            "Along the lower envelope over n of NMSE at equal training FLOPs, a straight line of ln(NMSE - floor) on "
            "ln FLOPs has an R2 above 0.98, with its interval, at the k where it is lowest. Compute at which the "
            "smallest or the largest n is best, or a run that has ended, is left out; void if the rest spans less "
            "than a factor of 10."
        ),
        published=(
            "NMSE = 0.09 + 0.056 C^(-0.084), with C in units of GPT-4's pre-training compute (Fig. 1 left); range of "
            "C, about 1e-9 to 1e-5, read off the axes"
        ),
        statistic="R2 of ln(NMSE - floor) on ln FLOPs",
        study=SCALING,
        test=frontier_is_straight,
    ),
    Claim(
        id="gao2024-C11",
        statement=(
            "The larger the language model, the more latents it takes to reach the same error, and the more slowly the "
            "error falls with their number."
        ),
        rule=(
            "Over three language models at one k, the n that reaches an NMSE of 0.3 rises with each step in model "
            "size, and the slope of ln NMSE on ln n becomes shallower, both with their intervals. Void if one more "
            "doubling of tokens, judged by the last one, would change the verdict, or if the grid of n does not tell "
            "two models apart."
        ),
        published="both hold for GPT-4's family at k = 32 (Fig. 4); no exponents in the text",
        statistic="decrease of |slope of ln NMSE on ln n| to the next larger language model, the smallest step",
        study=SUBJECTS,
        test=larger_needs_more,
    ),
    Claim(
        id="gao2024-C12",
        statement="On Gaussian noise, the error falls far more slowly with the number of latents than on activations.",
        rule=(
            "Slope of ln NMSE on ln n for independent standard normal data, in absolute value, below half of that for "
            "a language model's activations, at the same width, n and k, with its interval. Void if one more doubling "
            "of tokens, judged by the last one, would change the verdict."
        ),
        published=(
            "exponent about -0.04 on 768 Gaussian dimensions at k = 32 (Fig. 14) against about -0.26 on GPT-2; from "
            "memory, figure number uncertain"
        ),
        statistic="slope on Gaussian data / slope on activations",
        study=NOISE,
        test=noise_is_shallow,
    ),
    Claim(
        id="gao2024-C20",
        statement="The batch size makes no difference to the error at convergence once the learning rate is retuned.",
        rule=(
            "At convergence, a batch four times as large, each with the best of a grid of learning rates (by the error "
            "at the end of training), changes held-out NMSE by less than 1 %, with its interval. Void if a best rate "
            "is at an end of the grid, or if one more doubling of tokens would change NMSE by 1 % or more."
        ),
        published="hardly any dependence on batch size at convergence (Fig. 12: GPT-2); from memory",
        statistic="relative change of NMSE with a batch four times as large",
        study=BATCH_SIZES,
        test=batch_size_is_free,
    ),
)
