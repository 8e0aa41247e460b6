"""The norm bound: |z| predicts |f| for nearly orthogonal directions; when it holds, and when it says anything (T1-T5).

In the notation of the paper h is the number of directions (`n_atoms` here, the rows of `atoms`), d their dimension
(`d_in`), k the number of non-zero entries of the code f, and z = sum_i f_i w_i.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import embedding_bag, normalize

from replication.claims import NOTHING, Claim, Evidence, NoEvidence, both, judge, mean_interval
from replication.evaluate.norms import cosines, effective_count, eps_lower_bound, relative_gap
from replication.papers.topafa2025.grid import KEY
from replication.results import Study
from replication.shapes import Float, Int, Tensor
from replication.synthetic import random_dictionary, welch_bound
from replication.train import default_device

TOLERANCE = 1e-5  # T1: of |f|^2, for rounding
REPULSION_STEPS = 100
CODES = 7919  # added to a seed: the generator of the codes
ALIGNED_BOUND = 0.5  # eps (h - 1) of the aligned directions: both sides of the bound are finite


def on_sphere(n_atoms: int, d_in: int, generator: torch.Generator) -> Float[Tensor, "n_atoms d_in"]:
    """Independent random directions."""
    return random_dictionary(n_atoms, d_in, generator).double()


def repelled(n_atoms: int, d_in: int, generator: torch.Generator) -> Float[Tensor, "n_atoms d_in"]:
    """Random directions pushed apart: REPULSION_STEPS steps down sum_{i != j} |<w_i, w_j>|^p on the sphere.

    p rises from 4, where all pairs count, to 30, where the closest do. Steps fall from 0.05 to 0.005: that far move all
    directions that are pushed by more than the mean, the others in proportion.
    """
    atoms = random_dictionary(n_atoms, d_in, generator).to(default_device())
    for progress in torch.linspace(0, 1, REPULSION_STEPS).tolist():
        p, step = 4 + 26 * progress, 0.05 - 0.045 * progress
        gram = (atoms @ atoms.T).fill_diagonal_(0)
        push = (gram.sign() * (gram.abs() / gram.abs().max()).pow(p - 1)) @ atoms
        push -= (push * atoms).sum(-1, keepdim=True) * atoms  # along the sphere
        force = torch.linalg.norm(push, dim=-1, keepdim=True)
        atoms = normalize(atoms - step * push / force.clamp(min=force.mean()), dim=-1)
    return normalize(atoms.double(), dim=-1)


def simplex(n_atoms: int, d_in: int, generator: torch.Generator) -> Float[Tensor, "n_atoms d_in"]:
    """n_atoms = d_in + 1 directions of which every pair has the cosine -1 / d_in: a random rotation of a simplex."""
    frame = torch.cat([torch.ones(n_atoms, 1), torch.randn(n_atoms, d_in, generator=generator)], dim=1).double()
    return normalize(torch.linalg.qr(frame).Q[:, 1:], dim=-1)


def aligned(n_atoms: int, d_in: int, generator: torch.Generator) -> Float[Tensor, "n_atoms d_in"]:
    """n_atoms < d_in directions of which every pair has the cosine eps = ALIGNED_BOUND / (n_atoms - 1) > 0."""
    basis = torch.linalg.qr(torch.randn(d_in, n_atoms + 1, generator=generator).double()).Q.T
    eps = ALIGNED_BOUND / (n_atoms - 1)
    return math.sqrt(1 - eps) * basis[1:] + math.sqrt(eps) * basis[0]


def antipodal(n_atoms: int, d_in: int, generator: torch.Generator) -> Float[Tensor, "n_atoms d_in"]:
    """n_atoms = 2 d_in directions: an orthonormal basis and its negative. The largest cosine is 0, the largest |cosine|
    1."""
    basis = torch.linalg.qr(torch.randn(d_in, d_in, generator=generator).double()).Q
    return torch.cat([basis, -basis])


ARRANGEMENTS: dict[str, tuple[Callable, Callable]] = {  # name -> how it is drawn, which sizes it has
    "random": (on_sphere, lambda h, d: True),
    "repelled": (repelled, lambda h, d: True),
    "simplex": (simplex, lambda h, d: h == d + 1),
    "aligned": (aligned, lambda h, d: h < d),
    "antipodal": (antipodal, lambda h, d: h == 2 * d),
}
LAWS: dict[str, Callable[[Tensor], Tensor]] = {  # of the non-zero entries of f, from uniform numbers
    "uniform": lambda u: 0.5 + u,
    "signed": lambda u: torch.where(u < 0.5, -0.5 - 2 * u, 2 * u - 0.5),
    "equal": torch.ones_like,
    "exponential": lambda u: -(-u).log1p(),
}


@dataclass(frozen=True)
class Directions:
    """h = `n_atoms` unit directions in d = `d_in` dimensions; `samples` codes for each number of active ones in `ks`.

    `law` is that of the non-zero entries: "uniform" on (0.5, 1.5), "signed" the same with signs by coin, "equal" all 1,
    "exponential" with mean 1. Supports are drawn evenly. `seed` draws both directions and codes.
    """

    n_atoms: int
    d_in: int
    arrangement: str
    law: str
    ks: tuple[int, ...]
    samples: int
    seed: int

    def __post_init__(self):
        if self.arrangement not in ARRANGEMENTS:
            raise ValueError(f"arrangement must be one of {', '.join(ARRANGEMENTS)}, got {self.arrangement!r}")
        if self.law not in LAWS:
            raise ValueError(f"law must be one of {', '.join(LAWS)}, got {self.law!r}")
        if not ARRANGEMENTS[self.arrangement][1](self.n_atoms, self.d_in):
            raise ValueError(f"{self.arrangement} directions do not come as {self.n_atoms} in {self.d_in} dimensions")
        if not self.ks or not 2 <= min(self.ks) <= max(self.ks) <= self.n_atoms:
            raise ValueError(f"ks must be between 2 and n_atoms={self.n_atoms}, got {self.ks}")
        if self.samples < 2:
            raise ValueError(f"samples must be at least 2, got {self.samples}")


def draw_codes(
    n_atoms: int, k: int, law: str, samples: int, generator: torch.Generator
) -> tuple[Int[Tensor, "samples k"], Float[Tensor, "samples k"]]:
    """Supports and non-zero entries of codes."""
    place = {"generator": generator, "device": generator.device}
    active = torch.rand(samples, n_atoms, **place).topk(k, dim=-1, sorted=False).indices
    return active, LAWS[law](torch.rand(samples, k, dtype=torch.float64, **place))


def measure_codes(
    run: Directions, k: int, atoms: Float[Tensor, "h d"], eps: float, eps_signed: float, generator: torch.Generator
) -> dict[str, float]:
    """z^2 / f^2 of codes with k active directions, and the bound eps (m - 1) on it for m = h, k, |f|_1^2 / |f|_2^2."""
    active, values = draw_codes(run.n_atoms, k, run.law, run.samples, generator)
    z = torch.linalg.norm(embedding_bag(active, atoms, per_sample_weights=values, mode="sum"), dim=-1)
    f = torch.linalg.norm(values, dim=-1)
    gap, effective = relative_gap(z, f), effective_count(values)
    counts = {"h": torch.full_like(gap, run.n_atoms), "k": torch.full_like(gap, k), "l1": effective}
    bounds = {form: eps * (m - 1) for form, m in counts.items()}
    ratio = (z / f).square()
    low, quarter, median, three, high = torch.quantile(ratio, ratio.new_tensor([0, 0.25, 0.5, 0.75, 1])).tolist()
    return {
        "k": k,
        "effective": effective.mean().item(),
        "fourth": ((values / f[:, None]) ** 4).sum(-1).mean().item(),
        "lean": (values.mean().square() / values.square().mean()).item(),
        **{f"violations_{form}": int((gap > bound + TOLERANCE).sum()) for form, bound in bounds.items()},
        **{f"reached_{form}": (gap / bound).max().item() for form, bound in bounds.items()},
        "violations_signed": int((gap > eps_signed * (k - 1) + TOLERANCE).sum()),
        "sd": ratio.std().item(),
        "ratio_mean": ratio.mean().item(),
        "ratio_min": low,
        "ratio_25": quarter,
        "ratio_50": median,
        "ratio_75": three,
        "ratio_max": high,
        "eps_lbo": eps_lower_bound(z, f, run.n_atoms).median().item(),
    }


def finite_up_to(eps: float, n_atoms: int) -> int:
    """The largest k of at most n_atoms with eps (k - 1) < 1, so that |f| has an upper bound."""
    return min(math.ceil(1 / eps - 1e-9), n_atoms)


def half_finite_up_to(eps: float, law: str, n_atoms: int, generator: torch.Generator) -> int:
    """The same for the l1 form and half of the codes: median |f|_1^2 / |f|_2^2 below 1 + 1 / eps."""
    for k in range(2, n_atoms + 1):
        values = draw_codes(k, k, law, 512, generator)[1]
        if effective_count(values).median() >= 1 + 1 / eps:
            return k - 1
    return n_atoms


def measure(runs: Iterable[Directions]) -> Iterator[tuple[Directions, dict]]:
    """Cosines of each run's directions, and lists over its `ks` of what `measure_codes` finds."""
    device = default_device()
    for run in runs:
        began = time.perf_counter()
        atoms = ARRANGEMENTS[run.arrangement][0](run.n_atoms, run.d_in, torch.Generator().manual_seed(run.seed))
        atoms = atoms.to(device)
        found = cosines(atoms)
        generator = torch.Generator(device).manual_seed(run.seed + CODES)
        cells = [measure_codes(run, k, atoms, found.largest, max(found.highest, 0), generator) for k in run.ks]
        yield (
            run,
            {
                "eps": found.largest,
                "eps_signed": found.highest,
                "mean_cosine": found.mean,
                "mean_square": found.mean_square,
                "welch": welch_bound(run.n_atoms, run.d_in),
                "finite_k": finite_up_to(found.largest, run.n_atoms),
                "finite_l1": half_finite_up_to(found.largest, run.law, run.n_atoms, generator),
                **{name: [cell[name] for cell in cells] for name in cells[0]},
                "seconds": time.perf_counter() - began,
            },
        )


def seconds(run: Directions) -> float:
    """Seconds of a run: products for the Gram matrix and for the repulsion, and drawing codes."""
    products = run.n_atoms**2 * run.d_in * (1 + 2 * REPULSION_STEPS * (run.arrangement == "repelled"))
    return 0.02 + 3e-11 * products + run.samples * (1e-8 * run.n_atoms * len(run.ks) + 1e-9 * run.d_in * sum(run.ks))


@dataclass(frozen=True)
class Sizes:
    """Grid of a preset: pairs (h, d) of random directions and of repelled ones, k, samples, seeds, and the width of the
    adversarial rows and of the dense codes."""

    random: tuple[tuple[int, int], ...]
    repelled: tuple[tuple[int, int], ...]
    ks: tuple[int, ...]
    samples: int
    seeds: int
    small: int
    dense: tuple[int, ...]
    dense_seeds: int


def pairs(widths: Iterable[int], ratios: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """(h, d) for each width d and each ratio h / d."""
    return tuple((ratio * d, d) for d, ratio in product(widths, ratios))


RATIOS = (2, 4, 8, 16)
GRIDS = {
    "smoke": Sizes(pairs((8, 16, 32), (2, 8)), pairs((8, 16), (2, 8)), (2, 4, 8, 16), 256, 2, 16, (8, 16), 3),
    "cpu": Sizes(
        pairs((32, 64, 128, 256, 512), (2, 8)),
        pairs((32, 64, 128), RATIOS),
        (2, 4, 8, 16, 32, 64),
        4096,
        5,
        64,
        (32, 128),
        20,
    ),
    "gpu": Sizes(
        pairs((32, 64, 128, 256, 512, 1024, 2048, 4096), (2, 8)),
        pairs((32, 64, 128, 256, 512, 1024), RATIOS),
        (2, 4, 8, 16, 32, 64),
        8192,
        5,
        256,
        (32, 512),
        20,
    ),
    "paper": Sizes(
        ((24_576, 768), (16_384, 2304)),
        ((24_576, 768), (16_384, 2304)),
        (4, 8, 16, 32, 64),
        8192,
        5,
        768,
        (32, 768),
        20,
    ),
}


def bound_runs(preset: str) -> list[Directions]:
    """Random and repelled directions, the directions that reach the bound, and the antipodal ones."""
    sizes = GRIDS[preset]
    ks, d = sizes.ks, sizes.small
    cells = [(h, d_in, "random", "uniform", ks) for h, d_in in sizes.random]
    cells += [(h, d_in, "repelled", "uniform", ks) for h, d_in in sizes.repelled if (h, d_in) in sizes.random]
    cells += [(d + 1, d, "simplex", "equal", (*(k for k in ks if k < d), d + 1))]
    cells += [(d - 1, d, "aligned", "equal", (*(k for k in ks if k < d - 1), d - 1))]
    cells += [(2 * d, d, "antipodal", "uniform", tuple(k for k in ks if k <= d))]
    return [
        Directions(h, d_in, arrangement, law, tuple(k for k in ks if k <= h), sizes.samples, seed)
        for seed in range(sizes.seeds)
        for h, d_in, arrangement, law, ks in cells
    ]


BOUND = Study(KEY, "theory-bound", "The norm bound and the spread of z² / f²", bound_runs, measure, seconds)

INFORMATIVE_KS = (4, 16, 64)  # of the codes with exponential entries


def informative_runs(preset: str) -> list[Directions]:
    """Random and repelled directions over h and d, with heavy-tailed codes."""
    sizes = GRIDS[preset]
    return [
        Directions(h, d, arrangement, "exponential", tuple(k for k in INFORMATIVE_KS if k <= h), samples, seed)
        for seed in range(sizes.seeds)
        for h, d in sizes.repelled
        for arrangement in ("random", "repelled")
        for samples in (min(sizes.samples, 1024),)
    ]


INFORMATIVE = Study(
    KEY, "theory-informative", "Where the norm bound is informative", informative_runs, measure, seconds
)


def dense_runs(preset: str) -> list[Directions]:
    """Random directions, h = 8 d, from few active ones to all, entries of one sign and of random sign."""
    sizes = GRIDS[preset]
    return [
        Directions(8 * d, d, "random", law, (d // 4, d, 2 * d, 4 * d, 8 * d), min(sizes.samples, 1024), seed)
        for d in sizes.dense
        for law in ("uniform", "signed")
        for seed in range(sizes.dense_seeds)
    ]


DENSE = Study(KEY, "theory-dense", "Dense codes", dense_runs, measure, seconds)


LISTS = (
    *(
        "k",
        "effective",
        "fourth",
        "lean",
        "sd",
        "eps_lbo",
        "ratio_mean",
        "ratio_min",
        "ratio_25",
        "ratio_50",
        "ratio_75",
        "ratio_max",
    ),
    *(f"{what}_{form}" for what in ("violations", "reached") for form in ("h", "k", "l1")),
    "violations_signed",
)
PLENTY = 4  # T2, T3: h at least this many times d
ACTIVE = (4, 8, 16)  # T2, T3: k
WIDE = 64  # T2: d at least this
CLOSE, SPREAD = 0.05, (0.7, 1.3)  # T2, T5: of the median of |f| / |z| to 1, and sd in units of sqrt(2 / d)
SLOPE, SLOPE_MARGIN = -0.5, 0.1  # T3
NEAR = 0.999  # T1: share of the bound that the adversarial rows must reach
INFORMED = 0.1  # T4: eps_LBO / eps
DENSE_WIDTH, DENSE_SHARE = 32, 1 / 4  # T5: d and k / h


def by_k(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per run and k, with what the figures and the rules need besides.

    r: median |f| / |z|. offset: |r - 1|. expected: sqrt(2 / d). relative_sd: sd over `expected`.
    predicted: sqrt(2 mean_square (1 - fourth)), the sd for evenly drawn pairs, with `fourth` the mean of
    sum f_i^4 / |f|_2^4. bias: mean z^2 / f^2 - 1, and predicted_bias: (k - 1) lean mean_cosine, with `lean` =
    (E f_i)^2 / E f_i^2 over non-zero entries. c_h, c_k, c_l1: eps (m - 1), c_welch: (h - 1) times the least eps.
    lbo_share: median eps_LBO over eps. share: k / h.
    """
    if rows.empty:
        raise NoEvidence("no rows")
    table = rows.explode(list(LISTS), ignore_index=True)
    table = table.astype(dict.fromkeys(LISTS, float)).astype({"k": int})
    r, expected = table.ratio_50.clip(lower=1e-12) ** -0.5, (2 / table.d_in) ** 0.5
    return table.assign(
        r=r,
        offset=(r - 1).abs(),
        expected=expected,
        relative_sd=table.sd / expected,
        predicted=(2 * table.mean_square * (1 - table.fourth)) ** 0.5,
        bias=table.ratio_mean - 1,
        predicted_bias=(table.k - 1) * table.lean * table.mean_cosine,
        c_h=table.eps * (table.n_atoms - 1),
        c_welch=table.welch * (table.n_atoms - 1),
        c_k=table.eps * (table.k - 1),
        c_l1=table.eps * (table.effective - 1),
        lbo_share=table.eps_lbo / table.eps,
        share=table.k / table.n_atoms,
    )


def violation_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Per arrangement: codes drawn; for the forms with h, k and the 1-norm, violations and the largest share of the
    bound that a code reaches; share of codes that violate the form with k if eps is the largest signed cosine."""
    forms, lines = ("h", "k", "l1"), []
    for arrangement, cell in by_k(rows).groupby("arrangement", sort=False):
        lines.append(
            {
                "directions": arrangement,
                "codes": f"{int(cell.samples.sum()):,}",
                "violations": ", ".join(str(int(cell[f"violations_{form}"].sum())) for form in forms),
                "reached": ", ".join(f"{cell[f'reached_{form}'].max():.3f}" for form in forms),
                "signed eps violated": f"{cell.violations_signed.sum() / cell.samples.sum():.1%}",
            }
        )
    return pd.DataFrame(lines)


def bound_holds(rows: pd.DataFrame) -> Evidence:
    """T1: no violation of any form; the adversarial rows come near the bound, the signed maximum is violated."""
    table = by_k(rows)
    adverse = table[table.arrangement.isin(["simplex", "aligned"])]
    antipodal_rows = table[table.arrangement == "antipodal"]
    if adverse.arrangement.nunique() < 2 or antipodal_rows.empty:
        raise NoEvidence("the adversarial rows or the control are missing")
    reached = adverse.groupby(["arrangement", "seed"])[["reached_h", "reached_k", "reached_l1"]].max().min().min()
    control = antipodal_rows.groupby("seed").violations_signed.sum()
    codes = int(table.samples.sum())
    if reached < NEAR or (control == 0).any():
        return Evidence(
            "void",
            *NOTHING,
            f"the test could not fail: the adversarial rows reach {reached:.3f} of the bound, and the signed maximum "
            f"is violated in {(control > 0).sum()} of {len(control)} seeds",
        )
    broken = table[["violations_h", "violations_k", "violations_l1"]].sum(axis=1)
    usual = table[table.arrangement.isin(["random", "repelled"])]
    share = broken.groupby(table.seed).sum() / table.samples.groupby(table.seed).sum()
    return Evidence(
        "replicated" if broken.sum() == 0 else "not replicated",
        *mean_interval(share),
        f"{int(broken.sum())} violations of any form in {codes:,} codes; adversarial directions reach {reached:.4f} of "
        f"the bound, random and repelled ones at most {usual.reached_k.max():.2f} with k and "
        f"{usual.reached_h.max():.3f} with h; with the signed maximum in place of eps, "
        f"{control.sum() / antipodal_rows.samples.sum():.0%} of the codes of antipodal directions violate it",
    )


def _near_one(cells: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Per cell: by how much |median r - 1| stays below CLOSE, and by how much the relative sd stays inside SPREAD."""
    low, high = SPREAD
    return CLOSE - cells.offset, np.minimum(cells.relative_sd - low, high - cells.relative_sd)


def norms_agree(rows: pd.DataFrame) -> Evidence:
    """T2: median |f| / |z| near 1 and sd of z^2 / f^2 near sqrt(2 / d), in every cell of a seed."""
    table = by_k(rows)
    cells = table[
        table.arrangement.isin(["random", "repelled"])
        & (table.d_in >= WIDE)
        & (table.n_atoms >= PLENTY * table.d_in)
        & table.k.isin(ACTIVE)
    ]
    if cells.empty:
        raise NoEvidence(f"no cells with d of at least {WIDE}, h of at least {PLENTY} d and k in {ACTIVE}")
    near, narrow = (margin.groupby(cells.seed).min() for margin in _near_one(cells))
    ratio = cells.groupby("seed").relative_sd.mean()
    return Evidence(
        both(judge(*mean_interval(near)), judge(*mean_interval(narrow))),
        *mean_interval(ratio),
        f"median |f| / |z| is between {cells.r.min():.3f} and {cells.r.max():.3f}, and the standard deviation of "
        f"z^2 / f^2 between {cells.relative_sd.min():.2f} and {cells.relative_sd.max():.2f} of sqrt(2 / d); from the "
        f"codes and the cosines it is predicted within {(cells.sd / cells.predicted - 1).abs().max():.0%}",
    )


def spread_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """The cells of T3 and of the figure of spreads: h of at least PLENTY d, k in ACTIVE."""
    table = by_k(rows)
    return table[
        table.arrangement.isin(["random", "repelled"]) & (table.n_atoms >= PLENTY * table.d_in) & table.k.isin(ACTIVE)
    ]


def slopes(cells: pd.DataFrame) -> pd.Series:
    """Slope of log sd on log d for random directions, per seed; means of log sd over k."""
    found = {}
    for seed, one in cells[cells.arrangement == "random"].groupby("seed"):
        line = np.log(one.sd).groupby(one.d_in).mean()
        if len(line) < 2:
            raise NoEvidence("a slope needs two widths d")
        found[seed] = np.polyfit(np.log(line.index), line, 1)[0]
    return pd.Series(found, dtype=float)


def spread_shrinks(rows: pd.DataFrame) -> Evidence:
    """T3: the slope of log sd on log d is near -1/2, and repelled directions spread less than random ones."""
    cells = spread_cells(rows)
    slope = slopes(cells)
    keys = ["seed", "d_in", "n_atoms", "k"]
    sd = cells.pivot_table(index=keys, columns="arrangement", values="sd")
    if not {"random", "repelled"} <= set(sd):
        raise NoEvidence("random and repelled directions of one size are needed")
    log = np.log(sd.random / sd.repelled).dropna().groupby("seed").mean()
    mean, low, high = mean_interval(slope)
    eps = cells.pivot_table(index=keys, columns="arrangement", values="eps").dropna()
    return Evidence(
        both(judge(*mean_interval(SLOPE_MARGIN - (slope - SLOPE).abs())), judge(*mean_interval(log))),
        mean,
        low,
        high,
        f"the standard deviation of z^2 / f^2 goes as d to the power {mean:.3f}; repelled directions have "
        f"{(eps.repelled / eps.random).mean():.2f} times the eps of random ones and {np.exp(-log.mean()):.2f} times "
        "their standard deviation",
    )


def bound_is_informative(rows: pd.DataFrame) -> Evidence:
    """T4: eps (h - 1) below 1, and eps_LBO above INFORMED eps, in the most favourable cell of each."""
    table = by_k(rows)
    table = table[table.n_atoms > table.d_in]
    if table.empty:
        raise NoEvidence("no more directions than dimensions")
    seeds = table.groupby("seed")
    smallest, share = seeds.c_h.min(), seeds.lbo_share.max()
    finite = table.groupby("d_in").finite_k.max()
    return Evidence(
        both(judge(*mean_interval(1 - smallest)), judge(*mean_interval(share - INFORMED))),
        *mean_interval(smallest),
        f"eps (h - 1) is between {table.c_h.min():.0f} and {table.c_h.max():.0f} and leaves |f| an upper bound in "
        f"{(table.c_h < 1).mean():.0%} of the dictionaries; eps_LBO is between {table.lbo_share.min():.0e} and "
        f"{table.lbo_share.max():.0e} of eps; with k in place of h the upper bound is finite up to k = "
        f"{finite.iloc[0]} (d = {finite.index[0]}) and {finite.iloc[-1]} (d = {finite.index[-1]}) at best",
    )


def dense_codes_agree(rows: pd.DataFrame) -> Evidence:
    """T5: as T2 for k = h / 4 entries of one sign in few dimensions, seed by seed."""
    table = by_k(rows)
    narrow = table[(table.d_in == DENSE_WIDTH) & (table.law == "uniform")]
    cells, full = narrow[narrow.share == DENSE_SHARE], narrow[narrow.share == 1]
    if cells.empty or full.empty:
        raise NoEvidence(f"no codes of one sign at d = {DENSE_WIDTH} with k = h / 4 and k = h")
    near, inside = _near_one(cells)
    signed = table[(table.d_in == DENSE_WIDTH) & (table.law == "signed") & (table.share == DENSE_SHARE)]
    return Evidence(
        both(judge(*mean_interval(near)), judge(*mean_interval(inside))),
        *mean_interval(cells.offset),
        f"at k = h / 4 the median of |f| / |z| is between {cells.r.min():.3f} and {cells.r.max():.3f}, and the rule "
        f"holds in {((near > 0) & (inside > 0)).sum()} of {len(cells)} dictionaries; the median departs from 1 by "
        f"{cells.offset.mean():.3f} on average, by {signed.offset.mean():.3f} with random signs, and by "
        f"{full.offset.mean():.3f} with one sign and all directions active",
    )


STUDIES = (BOUND, INFORMATIVE, DENSE)


class Released(NamedTuple):
    """What the released ZF data say about one model, and what follows from its sizes."""

    model: str
    d: int
    h: int
    lbo: float
    """Median eps_LBO of all layers and tokens."""
    quartiles: tuple[tuple[float, float], ...]
    """Lower and upper quartile of |f| / |z| in each layer."""

    @property
    def spreads(self) -> list[float]:
        """sd of z^2 / f^2 in each layer as its quartiles give it for a normal distribution, two digits of |f| / |z|."""
        return [(low**-2 - high**-2) / 1.349 for low, high in self.quartiles]


RELEASED = (
    Released(
        "GPT-2 small",
        768,
        24_576,
        1.38e-5,
        (
            *((0.95, 0.98), (0.95, 1.00), (0.91, 0.96), (0.87, 0.93), (0.83, 0.90), (0.80, 0.88)),
            *((0.77, 0.86), (0.76, 0.84), (0.75, 0.83), (0.75, 0.84), (0.77, 0.87), (0.83, 0.94)),
        ),
    ),
    Released(
        "Gemma 2 2B",
        2304,
        16_384,
        3.56e-5,
        (
            *((0.99, 1.35), (0.91, 1.01), (0.83, 0.99), (0.76, 0.91), (0.77, 0.90), (0.74, 0.84), (0.74, 0.86)),
            *((0.72, 0.84), (0.72, 0.84), (0.71, 0.83), (0.71, 0.83), (0.70, 0.83), (0.72, 0.85), (0.72, 0.83)),
            *((0.73, 0.85), (0.73, 0.85), (0.74, 0.89), (0.74, 0.86), (0.74, 0.88), (0.74, 0.85), (0.75, 0.86)),
            *((0.74, 0.85), (0.74, 0.84), (0.74, 0.85), (0.75, 0.89)),
        ),
    ),
)
"""Computed from the released tables: GPT-2 small with gpt2-small-res-jb, Gemma 2 2B with Gemma Scope 16k."""


def released_points() -> pd.DataFrame:
    """RELEASED, with the least eps that h directions in d dimensions can have: columns model, d_in, n_atoms, lbo, c_lbo
    = (h - 1) eps_LBO, c_welch = (h - 1) Welch bound, finite_k at the Welch bound, spreads."""
    return pd.DataFrame(
        [
            {
                "model": one.model,
                "d_in": one.d,
                "n_atoms": one.h,
                "lbo": one.lbo,
                "c_lbo": one.lbo * (one.h - 1),
                "c_welch": welch_bound(one.h, one.d) * (one.h - 1),
                "finite_k": finite_up_to(welch_bound(one.h, one.d), one.h),
                "spreads": one.spreads,
            }
            for one in RELEASED
        ]
    )


def wedges(rows: pd.DataFrame) -> pd.DataFrame:
    """What the figure of wedges shows: the smallest and largest size of random directions with h >= PLENTY d, and the
    simplex."""
    table = by_k(rows)
    plenty = table[(table.arrangement == "random") & (table.n_atoms >= PLENTY * table.d_in)]
    return pd.concat([plenty[plenty.d_in.isin([plenty.d_in.min(), plenty.d_in.max()])], table.query("law == 'equal'")])


FIGURES = {
    "theory-wedges": (BOUND, "topafa_theory.wedges", lambda rows: (wedges(rows),)),
    "theory-spread": (BOUND, "topafa_theory.spread", lambda rows: (spread_cells(rows), released_points())),
    "theory-informative": (INFORMATIVE, "topafa_theory.informative", lambda rows: (by_k(rows), released_points())),
    "theory-dense": (DENSE, "topafa_theory.dense", lambda rows: (by_k(rows), CLOSE, SPREAD)),
}


CLAIMS = (
    Claim(
        id="topafa2025-T1",
        statement=(
            "If no two of h directions have a cosine above eps in size, the squared norms of the dense vector and of "
            "its code differ by at most eps (h - 1) |f|^2; k may stand for h, and |f|_1^2 / |f|_2^2 for k."
        ),
        rule=(
            "No code of any arrangement violates any of the three forms, eps being the largest |cosine| and 1e-5 |f|^2 "
            "allowed for rounding. A theorem: it tests the code. Void unless directions with equal cosines reach "
            "99.9 % of all three forms, and codes of antipodal directions violate the bound in every seed where eps is "
            "the largest signed cosine."
        ),
        published="a theorem (no number)",
        statistic="violations per code, over all forms",
        study=BOUND,
        test=bound_holds,
    ),
    Claim(
        id="topafa2025-T2",
        statement="The norm of the code is about that of the dense vector when directions are nearly orthogonal.",
        rule=(
            "Random and repelled directions, d >= 64, h >= 4 d, k = 4, 8, 16, entries U(0.5, 1.5). In the worst cell "
            "of a seed, on average over seeds with its interval: |median |f| / |z| - 1| below 0.05, and the standard "
            "deviation of z^2 / f^2 within 0.7 and 1.3 of sqrt(2 / d). Partly if one of the two holds."
        ),
        published=(
            "the paper's premise (no number); its released autoencoders have a median |f| / |z| of 0.865 (GPT-2 "
            "small) and 0.796 (Gemma 2 2B)"
        ),
        statistic="standard deviation of z^2 / f^2 over sqrt(2 / d), mean over cells",
        study=BOUND,
        test=norms_agree,
    ),
    Claim(
        id="topafa2025-T3",
        statement="The two norms agree better the larger d is and the more orthogonal the directions are.",
        rule=(
            "Random directions, h >= 4 d, k = 4, 8, 16: slope of log sd(z^2 / f^2) on log d within 0.1 of -1/2; and at "
            "equal d, h, k a smaller standard deviation for repelled than for random directions; each with its "
            "interval over seeds. Partly if one of the two holds."
        ),
        published="implied by the theorem and its name (no number)",
        statistic="slope of log sd on log d",
        study=BOUND,
        test=spread_shrinks,
    ),
    Claim(
        id="topafa2025-T4",
        statement="The bound is informative: it limits |f| from both sides, and eps_LBO is of the size of eps.",
        rule=(
            "Random and repelled directions, h > d. In the most favourable cell of a seed: eps (h - 1) below 1; and "
            "median eps_LBO above a tenth of eps. Partly if one of the two holds."
        ),
        published=(
            "no number; from the released data median eps_LBO is 1.4e-5 (GPT-2 small) and 3.6e-5 (Gemma 2 2B), where "
            "no dictionary of these sizes has an eps below 0.036 and 0.019, and eps (h - 1) is at least 872 and 316"
        ),
        statistic="smallest eps (h - 1) of any dictionary",
        study=INFORMATIVE,
        test=bound_is_informative,
    ),
    Claim(
        id="topafa2025-T5",
        statement="The norms agree for dense codes as well: sparsity is no premise.",
        rule=(
            "As T2 at d = 32, h = 256, k = h / 4 entries U(0.5, 1.5), all of one sign, dictionary by dictionary: "
            "|median |f| / |z| - 1| below 0.05 on average with its interval, and the standard deviation of z^2 / f^2 "
            "within 0.7 and 1.3 of sqrt(2 / d). Partly if one of the two holds."
        ),
        published="the bound assumes no sparsity (no number)",
        statistic="|median |f| / |z| - 1|, mean over dictionaries",
        study=DENSE,
        test=dense_codes_agree,
    ),
)
