"""How the gap grows: three ways to learn codes and dictionary over N atoms, M inputs and K active (C12, C13, C21)."""

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
import torch

from replication.claims import Claim, Evidence, NoEvidence, mean_interval
from replication.inference import (
    Encoder,
    authors_dictionaries,
    authors_start,
    fista,
    fit_autoencoders,
    l0_oracle,
    optimise,
    sparse_coding,
)
from replication.matching import dictionary_cosine, dictionary_mcc, latent_mcc, shuffled_mcc
from replication.papers.amortisation2024.grid import KEY, over_data_seeds
from replication.results import Study
from replication.shapes import Tensor
from replication.synthetic import SparseCodes, SparseData, drawn_boundary, natural_boundary, random_dictionary

DATA_SEED = 20240927  # of the authors' grid: run r has this seed + r, for its data and for its start
METHODS = {"sae": "SAE", "mlp": "MLP", "sc": "sparse coding"}
RANDOM = 7919  # added to a data seed: the generator of the random dictionary and of the shuffle
SEARCHED = 10_000  # supports of K atoms up to which the l0 oracle is computed
FEW = 256  # test samples of the l0 oracle
LAM = 0.01  # of FISTA with the true and the random dictionary, which are not learned under the l1 weight below


@dataclass(frozen=True)
class Cell:
    """One method at one N, M and K, nothing known: encoder and dictionary, or codes and dictionary, learned together.

    `method` "none" trains nothing: the oracle and chance rows of the cell. `test_steps` and `test_lr` are Adam's for
    the test codes of sparse coding. `l1` is the weight of the mean of |z|, the same in every cell as in the paper.
    """

    n_atoms: int
    d_in: int
    k: int
    method: str
    steps: int
    lr: float
    hidden: int = 32
    l1: float = 0.01
    samples: int = 1024
    test_steps: int = 10_000
    test_lr: float = 3e-3
    data_seed: int = DATA_SEED
    seed: int = DATA_SEED

    def __post_init__(self):
        if self.method not in (*METHODS, "none"):
            raise ValueError(f"method must be one of {', '.join([*METHODS, 'none'])}, got {self.method!r}")
        for name in ("steps", "test_steps", "hidden"):
            if getattr(self, name) < (2 if name == "steps" else 1):
                raise ValueError(f"{name} must be positive, steps at least 2, got {getattr(self, name)}")
        for name in ("lr", "l1", "test_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        self.data()

    def data(self) -> SparseCodes:
        return SparseCodes(self.n_atoms, self.d_in, self.k, self.samples, self.samples, self.data_seed)


@dataclass(frozen=True)
class Sizes:
    """What a preset trains."""

    atoms: tuple[int, ...]
    widths: tuple[int, ...]
    ks: tuple[int, ...]
    steps: int
    rates: tuple[float, float]
    """Adam's rate of the encoders and of sparse coding."""
    test: tuple[int, float]
    """Steps and rate of sparse coding's test codes."""
    data_seeds: int = 3
    samples: int = 1024


PUBLISHED_STEPS = 50_000
SIZES = {
    "smoke": Sizes((8, 12), (4, 8), (2,), 20, (1e-2, 1e-2), (20, 0.1), 2, 64),
    "cpu": Sizes((16, 32, 64), (8, 16, 32), (3,), 5000, (1e-2, 1e-2), (1000, 3e-2)),
    "gpu": Sizes((16, 32, 64, 128, 512), (8, 16, 32), (3, 9, 15), PUBLISHED_STEPS, (1e-3, 3e-3), (10_000, 3e-3), 5),
    "paper": Sizes((16, 32, 64, 128), (8, 16, 32), (3, 9, 15), PUBLISHED_STEPS, (1e-3, 3e-3), (10_000, 3e-3)),
}


def runs(preset: str) -> list[Cell]:
    """Every cell with K < N, every method, and the controls. Run r has one seed for data and start, as the authors'."""
    sizes = SIZES[preset]
    found = []
    for n_atoms, d_in, k, r in product(sizes.atoms, sizes.widths, sizes.ks, range(sizes.data_seeds)):
        for method in (*METHODS, "none"):
            rate = sizes.rates[method == "sc"]
            fixed = {"samples": sizes.samples, "test_steps": sizes.test[0], "test_lr": sizes.test[1]}
            found.append(
                Cell(n_atoms, d_in, k, method, sizes.steps, rate, **fixed, data_seed=DATA_SEED + r, seed=DATA_SEED + r)
            )
    return [cell for cell in found if cell.k < cell.n_atoms]


def measure(runs: Iterable[Cell]) -> Iterator[tuple[Cell, dict]]:
    """Scores of every method and the controls of every cell; models of one shape train together over data seeds."""
    shapes = defaultdict(list)
    for run in runs:
        shapes[replace(run, data_seed=0, seed=0)].append(run)
    for together in shapes.values():
        began = time.perf_counter()
        data = [run.data().draw() for run in together]
        columns = controls(together, data) if together[0].method == "none" else learned(together, data)
        seconds = (time.perf_counter() - began) / len(together)
        for i, run in enumerate(together):
            yield run, {name: float(one[i]) for name, one in columns.items()} | {"seconds": seconds}


def learned(runs: list[Cell], data: list[SparseData]) -> dict[str, Tensor]:
    """Train the models of one cell and method; every column has one number for each model."""
    atoms, x, test_x, codes = (
        torch.stack([getattr(one, name) for one in data]) for name in ("atoms", "train_x", "test_x", "test_codes")
    )
    run, seeds = runs[0], [run.seed for run in runs]
    fixed = {"steps": run.steps, "lr": run.lr, "l1": run.l1, "at": (run.steps // 2, run.steps)}
    if run.method == "sc":

        def inferred(dictionary: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
            return dictionary, optimise(test_x, dictionary, run.test_steps, run.test_lr, run.l1)

        start = authors_dictionaries(run.n_atoms, run.d_in, seeds)
        curve = sparse_coding(x, start, **fixed, measure=inferred).curve
    else:
        encoder = Encoder(hidden=run.hidden if run.method == "mlp" else None)
        models = authors_start(encoder, run.d_in, run.n_atoms, seeds)
        curve = fit_autoencoders(models, x, **fixed, measure=lambda one: (one.dictionary, one.encode(test_x))).curve
    dictionary, latents = curve[run.steps]
    return {
        "latent_mcc": latent_mcc(codes, latents),
        "latent_half": latent_mcc(codes, curve[run.steps // 2][1]),
        "latent_fista": latent_mcc(codes, fista(test_x, dictionary, LAM, 500)),
        "dict_pearson": dictionary_mcc(atoms, dictionary),
        "dict_cosine": dictionary_cosine(atoms, dictionary),
        "mse": (test_x - latents @ dictionary).square().mean((-2, -1)),
        "active": (latents > 1e-4).float().mean((-2, -1)),
    }


def controls(runs: list[Cell], data: list[SparseData]) -> dict[str, list | Tensor]:
    """The same scores with the true dictionary (oracle) and with a random one (chance), nothing trained."""
    atoms, x, codes = (torch.stack([getattr(one, name) for one in data]) for name in ("atoms", "test_x", "test_codes"))
    run = runs[0]
    generators = [torch.Generator().manual_seed(run.data_seed + RANDOM) for run in runs]
    other = torch.stack([random_dictionary(run.n_atoms, run.d_in, generator) for generator in generators])
    columns = {
        "oracle": latent_mcc(codes, fista(x, atoms, LAM, 500)),
        "chance": latent_mcc(codes, fista(x, other, LAM, 200)),
        "shuffled": [shuffled_mcc(one, generator) for one, generator in zip(codes, generators, strict=True)],
        "dict_pearson_chance": dictionary_mcc(atoms, other),
        "dict_cosine_chance": dictionary_cosine(atoms, other),
    }
    if run.k <= run.d_in and math.comb(run.n_atoms, run.k) <= SEARCHED:
        pairs = zip(x[:, :FEW], atoms, codes[:, :FEW], strict=True)
        columns["l0"] = [latent_mcc(truth, l0_oracle(few, one, run.k)) for few, one, truth in pairs]
    return columns


def seconds(run: Cell) -> float:
    """Seconds of a run: a step is a few products of samples x N x M, and passes over samples x N."""
    if run.method == "none":
        return 0.3 + 4e-9 * run.samples * run.n_atoms * run.d_in
    inner = run.d_in + (run.hidden if run.method == "mlp" else 0)
    step = 1.5e-10 * run.samples * run.n_atoms * (inner + 12) + 5e-5
    test = 2 * run.test_steps * 3e-9 * run.samples * run.n_atoms if run.method == "sc" else 0
    return run.steps * step + test


GRID = Study(KEY, "grid", "How the gap grows with N, M and K", runs, measure, seconds)


PLOTTED = (3, 9)  # K of the published contour plots
WIDE, LITTLE = 0.15, 0.1  # C12: lead of sparse coding where codes can be recovered and M < N; where M >= N
SOLVED = 0.95  # C13: MCC of the oracle
NARROW, MANY = 8, 32  # C13: M at most, N at least, where the oracle fails
NOTHING_LEARNED, MANY_MORE = 0.1, 64  # C21: q of an SAE at M <= NARROW, N at least

CELL = ["n_atoms", "d_in", "k", "data_seed"]


def scored(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the methods with the controls of their cell and data seed, and q = (MCC - chance) / (oracle - chance)."""
    names = ["oracle", "chance", "shuffled", "dict_pearson_chance", "dict_cosine_chance"]
    known = rows[rows.method == "none"][[*CELL, *names]]
    found = rows[rows.method != "none"].drop(columns=names).merge(known, on=CELL, how="left", validate="many_to_one")
    if found.oracle.isna().any():
        raise NoEvidence("a cell has no oracle and chance rows")
    found["q"] = (found.latent_mcc - found.chance) / (found.oracle - found.chance)
    found["dict_q"] = (found.dict_cosine - found.dict_cosine_chance) / (1 - found.dict_cosine_chance)
    found["moved"] = found.latent_mcc - found.latent_half
    return found


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per cell: our mean MCC of each method beside the published one, oracle, chance and mean q."""
    found = scored(rows)
    cells = found.groupby(["k", "d_in", "n_atoms"])
    table = cells[["oracle", "chance"]].mean()
    for method in METHODS:
        mine = found[found.method == method].groupby(["k", "d_in", "n_atoms"])
        table[method] = mine.latent_mcc.mean()
        table[f"{method}, published"] = [PUBLISHED.get((n, m, k), {}).get(method, np.nan) for k, m, n in table.index]
        table[f"{method}, q"] = mine.q.mean()
    return table.reset_index()


def differences(rows: pd.DataFrame, k: int) -> pd.DataFrame:
    """MCC of MLP and of sparse coding minus that of the SAE: columns n_atoms, d_in, method, origin, difference."""
    ours = rows[(rows.method != "none") & (rows.k == k)].groupby(["n_atoms", "d_in", "method"]).latent_mcc.mean()
    ours = ours.unstack("method")
    known = {(n, m): row for (n, m, at), row in PUBLISHED.items() if at == k}
    tables = {"ours": ours, "published": pd.DataFrame.from_dict(known, orient="index")}
    found = []
    for origin, table in tables.items():
        for (n, m), row in table.iterrows():
            found += [
                {"n_atoms": n, "d_in": m, "method": one, "origin": origin, "difference": row[one] - row["sae"]}
                for one in ("sc", "mlp")
            ]
    return pd.DataFrame(found)


def boundaries(rows: pd.DataFrame, k: int) -> pd.DataFrame:
    """Lines over N: M = 2 K ln(N/K), M = K ln(N/K) and M = N; columns boundary, n_atoms, d_in."""
    sizes = np.geomspace(max(rows.n_atoms.min() / 1.4, k), rows.n_atoms.max() * 1.4, 60)
    lines = {
        "2 K ln(N/K)": lambda n: 2 * k * math.log(n / k),
        "K ln(N/K)": lambda n: k * math.log(n / k),
        "M = N": lambda n: n,
    }
    return pd.DataFrame(
        [{"boundary": name, "n_atoms": n, "d_in": line(n)} for name, line in lines.items() for n in sizes]
    )


def oracle_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Oracle and chance of every cell with `ratio` = M / (K ln(N/K)), which is 2 on the published line."""
    found = rows[rows.method == "none"]
    lines = [natural_boundary(n, k) for n, k in zip(found.n_atoms, found.k, strict=True)]
    return found.assign(ratio=found.d_in / lines)


def above_the_line(rows: pd.DataFrame) -> pd.Series:
    """Whether M >= 2 K ln(N/K)."""
    return rows.d_in >= [drawn_boundary(n, k) for n, k in zip(rows.n_atoms, rows.k, strict=True)]


def gap_follows_the_line(rows: pd.DataFrame) -> Evidence:
    """C12: sparse coding leads the SAE by WIDE above the line with M < N, by less than LITTLE either way at M >= N."""
    plotted = rows[rows.k.isin(PLOTTED) & rows.method.isin(["sae", "sc"])]
    table = plotted.pivot(index=CELL, columns="method", values="latent_mcc")
    if not {"sae", "sc"} <= set(table.columns) or table.isna().any(axis=None):
        raise NoEvidence("no SAE and sparse coding for every cell")
    lead = (table.sc - table.sae).rename("lead").reset_index()
    solvable = lead[above_the_line(lead) & (lead.d_in < lead.n_atoms)]
    square = lead[lead.d_in >= lead.n_atoms]
    if solvable.empty or square.empty:
        raise NoEvidence("no cells above the line with M < N, or none with M >= N")
    low = solvable.groupby("data_seed").lead.min() - WIDE
    high = LITTLE - square.lead.abs().groupby(square.data_seed).max()
    means = solvable.groupby("data_seed").lead.mean()
    return Evidence(
        over_data_seeds(np.minimum(low, high), means),
        *mean_interval(means),
        f"sparse coding leads the SAE by {means.mean():+.3f} where codes can be recovered and M < N (lowest "
        f"{solvable.lead.min():+.3f}), by {square.lead.mean():+.3f} where M >= N (farthest from 0 "
        f"{square.lead.loc[square.lead.abs().idxmax()]:+.3f})",
    )


def oracle_follows_the_line(rows: pd.DataFrame) -> Evidence:
    """C13: oracle above SOLVED at M >= 2 K ln(N/K), below it at M <= NARROW, N >= MANY."""
    plotted = rows[rows.k.isin(PLOTTED) & (rows.method == "none")]
    above = plotted[above_the_line(plotted)]
    below = plotted[(plotted.d_in <= NARROW) & (plotted.n_atoms >= MANY)]
    if above.empty or below.empty:
        raise NoEvidence(f"no cells above the line, or none at M <= {NARROW}, N >= {MANY}")
    least, most = above.groupby("data_seed").oracle.min(), below.groupby("data_seed").oracle.max()
    signs = above.groupby("data_seed").oracle.mean() - below.groupby("data_seed").oracle.mean()
    between = plotted[~above_the_line(plotted) & (plotted.oracle > SOLVED)]
    cells = between[["n_atoms", "d_in", "k"]].drop_duplicates()
    listed = ", ".join(f"({n}, {m}, {k})" for n, m, k in cells.to_numpy())
    return Evidence(
        over_data_seeds(np.minimum(least - SOLVED, SOLVED - most), signs),
        *mean_interval(least),
        f"the oracle's lowest MCC above the line is {above.oracle.min():.3f}, its highest at M <= {NARROW} and N >= "
        f"{MANY} is {below.oracle.max():.3f}"
        + (f"; the line is conservative: (N, M, K) = {listed} lie below it and are solved" if listed else ""),
    )


def chance_explains_the_rest(rows: pd.DataFrame) -> Evidence:
    """C21: q of the SAE below NOTHING_LEARNED at M <= NARROW, N >= MANY_MORE."""
    found = scored(rows)
    deep = found[(found.method == "sae") & (found.d_in <= NARROW) & (found.n_atoms >= MANY_MORE)]
    if deep.empty:
        raise NoEvidence(f"no SAE at M <= {NARROW}, N >= {MANY_MORE}")
    most = deep.groupby("data_seed").q.max()
    return Evidence(
        over_data_seeds(NOTHING_LEARNED - most),
        *mean_interval(most),
        f"there the SAE's latent MCC is {deep.latent_mcc.mean():.3f}, inference with a random dictionary has "
        f"{deep.chance.mean():.3f} and with the true one {deep.oracle.mean():.3f}",
    )


PUBLISHED = {  # (N, M, K) -> latent MCC (stored results of the released code)
    (n, m, k): dict(zip(METHODS, values, strict=True))
    for k, m, line in (
        (3, 8, ((0.638, 0.593, 0.733), (0.392, 0.451, 0.514), (0.256, 0.284, 0.422), (0.213, 0.246, 0.328))),
        (3, 16, ((0.958, 0.870, 0.974), (0.577, 0.533, 0.928), (0.374, 0.388, 0.661), (0.286, 0.271, 0.471))),
        (3, 32, ((1.000, 0.918, 0.941), (0.999, 0.909, 0.946), (0.547, 0.409, 0.918), (0.420, 0.316, 0.869))),
        (9, 8, ((0.492, 0.493, 0.489), (0.285, 0.318, 0.380), (0.215, 0.224, 0.302), (0.175, 0.183, 0.246))),
        (9, 16, ((0.892, 0.647, 0.883), (0.490, 0.463, 0.472), (0.285, 0.294, 0.344), (0.220, 0.203, 0.278))),
        (9, 32, ((0.928, 0.740, 0.892), (0.978, 0.835, 0.897), (0.451, 0.429, 0.576), (0.290, 0.263, 0.371))),
    )
    for n, values in zip((16, 32, 64, 128), line, strict=True)
}


def published_curves(k: int) -> pd.DataFrame:
    """The published latent MCC as rows: n_atoms, d_in, method, latent_mcc."""
    return pd.DataFrame(
        [
            {"n_atoms": n, "d_in": m, "method": method, "latent_mcc": value}
            for (n, m, at), values in PUBLISHED.items()
            if at == k
            for method, value in values.items()
        ]
    )


def _least_k(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    k = int(rows.k.min())
    return rows[rows.k == k], k


def _surface_arguments(rows: pd.DataFrame) -> tuple:
    rows, k = _least_k(rows)
    return differences(rows, k), boundaries(rows, k), METHODS


def _curve_arguments(rows: pd.DataFrame) -> tuple:
    rows, k = _least_k(rows)
    return scored(rows), published_curves(k), METHODS


STUDIES = (GRID,)

FIGURES = {
    "grid-differences": (GRID, "amortisation_grid.differences", _surface_arguments),
    "grid-latents": (GRID, "amortisation_grid.latents", _curve_arguments),
    "grid-normalised": (GRID, "amortisation_grid.normalised", lambda rows: _curve_arguments(rows)[::2]),
    "grid-oracle": (GRID, "amortisation_grid.oracle", lambda rows: (oracle_table(rows), SOLVED)),
}


CLAIMS = (
    Claim(
        id="amortisation2024-C12",
        statement=(
            "The gap between sparse coding and an SAE opens where there are more atoms than inputs and codes can still "
            "be recovered; it closes where there are as many inputs as atoms."
        ),
        rule=(
            "In each data seed, latent MCC of sparse coding minus SAE above 0.15 in every cell with 2 K ln(N/K) <= M < "
            "N, and within 0.1 of zero in every cell with M >= N (K = 3 and 9). Replicated if so in 80 % of data "
            "seeds; partly if the lead in the first cells is positive on average."
        ),
        published="+0.351 and +0.371 at K = 3 with N, M = 32, 16 and 64, 32; -0.06 to +0.02 where M >= N",
        statistic="latent MCC of sparse coding - SAE, mean of the cells with 2 K ln(N/K) <= M < N",
        study=GRID,
        test=gap_follows_the_line,
    ),
    Claim(
        id="amortisation2024-C13",
        statement="Codes can be recovered where M >= 2 K ln(N/K), the dashed line of the paper's contour plots.",
        rule=(
            "In each data seed, latent MCC of FISTA with the true dictionary above 0.95 in every cell with M >= 2 K "
            "ln(N/K), and below 0.95 in every cell with M <= 8 and N >= 32 (K = 3 and 9)."
        ),
        published="a dashed line labelled 'Recovery Boundary' (no number)",
        statistic="lowest latent MCC of the oracle above the line",
        study=GRID,
        test=oracle_follows_the_line,
    ),
    Claim(
        id="amortisation2024-C21",
        statement="In few dimensions the SAE's latent MCC is that of a random dictionary: it has found nothing.",
        rule=(
            "In each data seed, (MCC - chance) / (oracle - chance) of the SAE below 0.1 in every cell with M <= 8 and "
            "N >= 64; chance is FISTA with a random dictionary, the oracle FISTA with the true one."
        ),
        published="MCC 0.256 (N = 64) and 0.213 (N = 128) at M = 8, K = 3, without a chance level",
        statistic="highest normalised score of the SAE at M <= 8, N >= 64",
        study=GRID,
        test=chance_explains_the_rest,
    ),
)
