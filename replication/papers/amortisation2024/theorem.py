"""The theorem, seen: a linear-nonlinear encoder of fewer inputs than atoms cannot be exact (C1 to C3)."""

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np
import pandas as pd
import torch

from replication.claims import NOTHING, Claim, Evidence, NoEvidence, mean_interval
from replication.inference import Encoder, Models, fista, fit_codes, l0_oracle
from replication.matching import latent_mcc, normalised_score, shuffled_mcc, signed_mcc
from replication.papers.amortisation2024.grid import KEY, over_data_seeds
from replication.results import Study
from replication.shapes import Float, Tensor
from replication.synthetic import (
    MOST_SUBSETS,
    SparseCodes,
    SparseData,
    binary_boundary,
    coherence,
    drawn_boundary,
    in_cone_of_others,
    isometry_constant,
    natural_boundary,
    random_dictionary,
    spark,
    welch_bound,
)

DATA_SEED = 20240625  # of the authors' known-codes experiment; the others follow it
STARTS = ("transpose", "pseudo-inverse")
THRESHOLD = -0.2  # every unit's bias at the start
DEFAULT_K = 3
CONTROLS = 1024  # test samples of the oracle and chance rows
RANDOM = 7919  # added to a data seed: the generator of the random dictionary and of the shuffle


@dataclass(frozen=True)
class Taught:
    """One linear layer and a ReLU, taught the true codes (cosine loss, Adam on full batches) until nothing moves.

    `start` is W_e = D^T with a bias of THRESHOLD, or the pseudo-inverse of D without one, which for d_in = n_atoms is
    already exact. The start is no draw: `seed` is 0. `oracle_samples` test samples are searched by brute force.
    """

    n_atoms: int
    d_in: int
    k: int
    start: str = "transpose"
    train: int = 8192
    test: int = 8192
    oracle_samples: int = 256
    steps: int = 1500
    lr: float = 5e-3
    data_seed: int = DATA_SEED
    seed: int = 0

    def __post_init__(self):
        if self.start not in STARTS:
            raise ValueError(f"start must be one of {', '.join(STARTS)}, got {self.start!r}")
        if not 1 <= self.d_in <= self.n_atoms:
            raise ValueError(f"d_in must be between 1 and n_atoms={self.n_atoms}, got {self.d_in}")
        if not 1 <= self.oracle_samples <= self.test:
            raise ValueError(f"oracle_samples must be between 1 and test={self.test}, got {self.oracle_samples}")
        if self.steps < 2:
            raise ValueError(f"steps must be at least 2, got {self.steps}")
        self.data()

    def data(self) -> SparseCodes:
        return SparseCodes(self.n_atoms, self.d_in, self.k, self.train, self.test, self.data_seed)


GRIDS = {  # N, M, K, samples, steps, learning rate, data seeds
    "smoke": (6, (3, 6), (1, 2), 128, 20, 5e-3, 2),
    "cpu": (16, (8, 12, 15, 16), (1, 2, 3, 5), 8192, 1500, 5e-3, 5),
    "gpu": (256, (64, 128, 192, 240, 256), (3, 10), 2**17, 3000, 5e-3, 5),
    "paper": (16, (8, 12, 15, 16), (3,), 1024, 20_000, 1e-3, 5),
}


def taught_runs(preset: str) -> list[Taught]:
    """Every M and K at one N from the transpose; from the pseudo-inverse the row of one K, and the column M = N.

    The authors' own known-codes sizes and steps are `paper`.
    """
    n_atoms, widths, ks, samples, steps, lr, data_seeds = GRIDS[preset]
    sizes = {"train": samples, "test": min(samples, 2**14), "oracle_samples": min(samples, 256), "steps": steps}
    return [
        Taught(n_atoms, d_in, k, start, **sizes, lr=lr, data_seed=DATA_SEED + i)
        for d_in, k, start, i in product(widths, ks, STARTS, range(data_seeds))
        if start == "transpose" or d_in == n_atoms or k == (DEFAULT_K if DEFAULT_K in ks else max(ks))
    ]


def crosstalk(
    atoms: Float[Tensor, "*models n d_in"],
    weight: Float[Tensor, "*models d_in n"],
    scale: Float[Tensor, "*models n"],
) -> Float[Tensor, "*models n n"]:
    """W = W_e D of the proof: entry (i, j) is what unit i answers to atom j, each unit's output times its `scale`.

    An exact encoder has W = I. The rank of W is at most d_in whatever the weights are.
    """
    return scale.double()[..., None] * (atoms.double() @ weight.double()).mT


def calibration(
    codes: Float[Tensor, "*models samples n"], latents: Float[Tensor, "*models samples n"]
) -> Float[Tensor, "*models n"]:
    """sum s z / sum z^2 of each unit: the factor that turns a latent into its code best, in least squares."""
    return (codes * latents).sum(-2) / latents.square().sum(-2).clamp(min=1e-12)


def least_departure(n_atoms: int, d_in: int) -> float:
    """sqrt(N - M): no N x N matrix of rank M is closer to the identity in the Frobenius norm (Eckart and Young)."""
    return math.sqrt(n_atoms - d_in)


def started(atoms: Float[Tensor, "n d_in"], start: str) -> tuple[Float[Tensor, "d_in n"], Float[Tensor, " n"]]:
    """Weight and bias before the first step."""
    if start == "transpose":
        return atoms.T, torch.full((len(atoms),), THRESHOLD)
    return torch.linalg.pinv(atoms.double()).float(), torch.zeros(len(atoms))


@lru_cache(maxsize=8)
def _codes(data: SparseCodes) -> tuple[Tensor, Tensor]:
    drawn = data.draw()
    return drawn.train_codes, drawn.test_codes


def draw(data: SparseCodes) -> SparseData:
    """`data.draw()`. The codes of a seed do not depend on d_in: they are drawn once, which takes most of the time."""
    train_codes, test_codes = _codes(replace(data, d_in=1))
    atoms = random_dictionary(data.n_atoms, data.d_in, torch.Generator().manual_seed(data.seed))
    return SparseData(atoms, train_codes, test_codes, train_codes @ atoms, test_codes @ atoms)


def measure_taught(runs: Iterable[Taught]) -> Iterator[tuple[Taught, dict]]:
    """Plateau, rank and departure from the identity; oracle, FISTA and chance rows on the same test samples."""
    shapes = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.k):  # so that codes are drawn once for all widths
        shapes[replace(run, data_seed=0, start=STARTS[0])].append(run)
    for together in shapes.values():
        began = time.perf_counter()
        drawn = {seed: draw(run.data()) for seed, run in {run.data_seed: run for run in together}.items()}
        controls = {seed: _controls(data, together[0], seed) for seed, data in drawn.items()}
        data = [drawn[run.data_seed] for run in together]
        atoms, x, codes, test_x, test_codes = (
            torch.stack([getattr(one, name) for one in data])
            for name in ("atoms", "train_x", "train_codes", "test_x", "test_codes")
        )
        weights, biases = zip(*(started(one, run.start) for one, run in zip(atoms, together, strict=True)), strict=True)
        models = Models(Encoder(bias=True), (torch.stack(weights),), (torch.stack(biases),))
        steps = together[0].steps

        def score(models: Models, x=test_x, codes=test_codes) -> Tensor:
            return signed_mcc(codes, models.encode(x))

        fitted = fit_codes(models, x, codes, steps=steps, lr=together[0].lr, at=(0, steps // 2, steps), measure=score)
        latents, trained = fitted.models.encode(test_x), fitted.models.encode(x)
        W = crosstalk(atoms, fitted.models.weights[0], calibration(codes, trained))
        matched, on_train = latent_mcc(test_codes, latents), signed_mcc(codes, trained)
        error = (trained * calibration(codes, trained)[:, None] - codes).square().sum((-2, -1))
        error /= codes.square().sum((-2, -1))
        seconds = (time.perf_counter() - began) / len(together)
        for i, run in enumerate(together):
            control = controls[run.data_seed]
            singular = torch.linalg.svdvals(W[i])
            yield (
                run,
                {
                    "mcc": float(fitted.curve[steps][i]),
                    "mcc_half": float(fitted.curve[steps // 2][i]),
                    "mcc_start": float(fitted.curve[0][i]),
                    "mcc_train": float(on_train[i]),
                    "latent_mcc": float(matched[i]),
                    "code_error": float(error[i]),
                    "rank": float(torch.linalg.matrix_rank(W[i])),
                    "singular": singular.tolist(),
                    "departure": float(torch.linalg.norm(W[i] - torch.eye(run.n_atoms))),
                    "least_departure": least_departure(run.n_atoms, run.d_in),
                    "crosstalk": [round(value, 3) for value in W[i].flatten().tolist()] if run.n_atoms <= 16 else [],
                    "q": float(normalised_score(float(matched[i]), control["chance"], control["oracle"])),
                    "seconds": seconds,
                }
                | control,
            )


def _controls(data: SparseData, run: Taught, seed: int) -> dict[str, float]:
    """Signed MCC of l0 (where it can be searched) and of FISTA; matched MCC of chance."""
    generator = torch.Generator().manual_seed(seed + RANDOM)
    x, codes = data.test_x[:CONTROLS], data.test_codes[:CONTROLS]
    scores = {"fista": float(signed_mcc(codes, fista(x, data.atoms, lam=0.01, iterations=500)))}
    searched = math.comb(run.n_atoms, run.k) <= MOST_SUBSETS and run.k <= run.d_in
    few = slice(run.oracle_samples)
    exact = signed_mcc(codes[few], l0_oracle(x[few], data.atoms, run.k)) if searched else scores["fista"]
    other = random_dictionary(run.n_atoms, run.d_in, generator)
    return scores | {
        "oracle": float(exact),
        "chance": float(latent_mcc(codes, fista(x, other, lam=0.01, iterations=200))),
        "shuffled": float(shuffled_mcc(codes, generator)),
    }


def taught_seconds(run: Taught) -> float:
    """Seconds of a run: a step is linear in the activations, the search in the supports."""
    searched = math.comb(run.n_atoms, run.k) if math.comb(run.n_atoms, run.k) <= MOST_SUBSETS else 0
    return 4e-9 * run.steps * run.train * run.n_atoms + 2e-7 * searched * run.oracle_samples + 0.1


PLATEAUS = Study(KEY, "plateaus", "Where a taught linear encoder stops", taught_runs, measure_taught, taught_seconds)


@dataclass(frozen=True)
class Geometry:
    """Whether the codes of a dictionary can be recovered at all: constants of the atoms, and FISTA with the truth."""

    n_atoms: int
    d_in: int
    k: int
    test: int = 512
    constants: bool = False
    data_seed: int = DATA_SEED
    seed: int = 0

    def __post_init__(self):
        if not 1 <= self.k <= min(self.n_atoms, self.d_in):
            raise ValueError(f"k must be between 1 and {min(self.n_atoms, self.d_in)}, got {self.k}")
        if self.constants and math.comb(self.n_atoms, self.n_atoms // 2) > MOST_SUBSETS:
            raise ValueError(f"n_atoms is too large for constants by brute force: {self.n_atoms}")
        SparseCodes(self.n_atoms, self.d_in, self.k, 1, self.test, self.data_seed)


TRANSITIONS = {  # N; M; K; data seeds; the problem whose constants are computed
    "smoke": ((6, 8), (2, 4, 6), 2, 2, (6, 4, 2)),
    "cpu": ((16, 64), (4, 6, 8, 10, 12, 16, 20), 3, 5, (16, 8, 3)),
    "gpu": ((64, 128, 256, 512, 1024), (*range(8, 64, 4), 72, 80, 96, 112, 128), 5, 5, (16, 8, 3)),
    "paper": ((16, 32, 64, 128), (8, 16, 32), 3, 5, (16, 8, 3)),
}


def geometry_runs(preset: str) -> list[Geometry]:
    """How MCC of l1 inference with the true dictionary rises with M, and the constants of the default problem."""
    sizes, widths, k, data_seeds, default = TRANSITIONS[preset]
    cells = [Geometry(*default, constants=True, data_seed=DATA_SEED + i) for i in range(data_seeds)]
    cells += [Geometry(n, m, k, data_seed=DATA_SEED + i) for n, m, i in product(sizes, widths, range(data_seeds))]
    return [cell for cell in cells if cell.d_in >= cell.k]


def measure_geometry(runs: Iterable[Geometry]) -> Iterator[tuple[Geometry, dict]]:
    """MCC of FISTA with the true dictionary; for `constants` also spark, isometry constants, coherence and cone.

    A constant that is not computed is None.
    """
    for run in runs:
        began = time.perf_counter()
        data = SparseCodes(run.n_atoms, run.d_in, run.k, 1, run.test, run.data_seed).draw()
        scores = latent_mcc(data.test_codes, fista(data.test_x, data.atoms, 0.01, 500))
        measured = {"fista": float(scores), "coherence": coherence(data.atoms)}
        measured |= {"welch": welch_bound(run.n_atoms, run.d_in), "spark": None, "in_cone": None}
        orders = {f"delta_{size}": size for size in (2, 3, 6)}
        measured |= dict.fromkeys(orders)
        if run.constants:
            measured |= {"spark": float(spark(data.atoms)), "in_cone": float(in_cone_of_others(data.atoms).sum())}
            measured |= {name: isometry_constant(data.atoms, min(size, run.n_atoms)) for name, size in orders.items()}
        yield run, measured | {"seconds": time.perf_counter() - began}


def geometry_seconds(run: Geometry) -> float:
    """Seconds of a run."""
    return 0.02 + 1e-6 * run.test * run.n_atoms + 0.3 * run.constants


GEOMETRY = Study(KEY, "geometry", "When codes can be recovered", geometry_runs, measure_geometry, geometry_seconds)


EXACT, SHORT = 0.999, 0.995  # C1: MCC where M = N is above the first, where M < N below the second
FLAT = 0.002  # MCC that the last half of the steps may still add: above, the plateau is not one
PURSUED = 0.98  # C2: what FISTA has to reach


def plateaus(rows: pd.DataFrame) -> pd.DataFrame:
    """The better start of each problem, by its error on the training codes: the estimate of the best encoder."""
    problem = ["n_atoms", "d_in", "k", "data_seed"]
    return rows.sort_values("mcc_train").drop_duplicates(problem, keep="last").sort_values(problem)


def demonstration(best: pd.DataFrame) -> pd.DataFrame:
    """The cells that C1 is about: K = 3 at every M, and every K of at least 2 at the smallest M and at M = N."""
    edge = best.d_in.isin([best.d_in.min(), best.n_atoms.max()])
    return best[(best.k == DEFAULT_K) | (edge & (best.k >= 2))]


def gap_margins(best: pd.DataFrame) -> pd.DataFrame:
    """Per data seed: by how much C1 holds (`margin`), and the lead of M = N over the largest M below it (`lead`)."""
    found = []
    for seed, one in demonstration(best).groupby("data_seed"):
        square = one.n_atoms.max()
        rising = one[one.k == DEFAULT_K].set_index("d_in").mcc.sort_index()
        exact, short = one[one.d_in == square].mcc, one[one.d_in < square].mcc
        if square not in rising.index or len(rising) < 2:
            raise NoEvidence(f"MCC is needed at K = {DEFAULT_K} for M = N and M < N")
        margin = min(exact.min() - EXACT, SHORT - short.max(), rising.diff().iloc[1:].min())
        found.append({"data_seed": seed, "margin": margin, "lead": rising.iloc[-1] - rising.iloc[-2]})
    if not found:
        raise NoEvidence("no runs with at least two active atoms")
    return pd.DataFrame(found)


def cannot_be_exact(rows: pd.DataFrame) -> Evidence:
    """C1: MCC above EXACT at M = N, below SHORT at M < N, and rising with M, on the cells of the demonstration."""
    best = plateaus(rows)
    margins = gap_margins(best)
    moved = (best.mcc - best.mcc_half).abs()[demonstration(best).index]
    if moved.max() > FLAT:
        return Evidence(
            "void", *NOTHING, f"not converged: the last half of the steps moved an MCC by {moved.max():.4f}"
        )
    transposed = gap_margins(rows[rows.start == "transpose"])
    narrow = best[(best.k >= 2) & (best.d_in < best.n_atoms)]
    lacking = (narrow.oracle - narrow.mcc)[demonstration(narrow).index].groupby(narrow.data_seed).mean()
    closest = narrow.loc[narrow.mcc.idxmax()]
    square = demonstration(best).query("d_in == n_atoms")
    return Evidence(
        over_data_seeds(margins.margin, margins.lead),
        *mean_interval(lacking),
        f"with M < N the best linear-ReLU encoder lacks {lacking.mean():.3f} of MCC to the l0 oracle on average, with "
        f"M = N its lowest MCC is {square.mcc.min():.4f}; the rule holds in {(margins.margin > 0).sum()} of "
        f"{len(margins)} data seeds, from the transpose alone in {(transposed.margin > 0).sum()}; the closest to exact "
        f"with M < N in the whole table is {closest.mcc:.4f}, at M = {closest.d_in}, K = {closest.k}",
    )


def problem_is_solvable(rows: pd.DataFrame) -> Evidence:
    """C2: at the smallest M with K = 3, l0 search above EXACT and FISTA above PURSUED."""
    default = rows[(rows.d_in == rows.d_in.min()) & (rows.k == 3)].groupby("data_seed")[["oracle", "fista"]].first()
    if default.empty:
        raise NoEvidence("no runs of the default problem, K = 3")
    margins = np.minimum(default.oracle - EXACT, default.fista - PURSUED)
    return Evidence(
        over_data_seeds(margins),
        *mean_interval(default.oracle),
        f"l0 search reaches MCC {default.oracle.mean():.4f}, FISTA {default.fista.mean():.4f}",
    )


def rank_is_bounded(rows: pd.DataFrame) -> Evidence:
    """C3: rank of W is M and its distance from the identity at least sqrt(N - M), in every run."""
    excess = rows.departure - rows.least_departure
    held = np.where(rows["rank"] == rows.d_in, np.where(excess >= 0, 1.0, -1.0), -1.0)
    margins = pd.Series(held, index=rows.index).groupby(rows.data_seed).min()
    narrow = rows[rows.d_in < rows.n_atoms]
    if narrow.empty:
        raise NoEvidence("no runs with M < N")
    ratio = (narrow.departure / narrow.least_departure).groupby(narrow.data_seed).min()
    return Evidence(
        over_data_seeds(margins),
        *mean_interval(ratio),
        f"rank W = M in {(rows['rank'] == rows.d_in).mean():.0%} of the encoders; the closest to the identity is "
        f"{ratio.min():.2f} times as far as the bound allows",
    )


STUDIES = (PLATEAUS, GEOMETRY)


def transition(rows: pd.DataFrame) -> pd.DataFrame:
    """MCC of FISTA over M, with the lines of each N: columns n_atoms, d_in, data_seed, fista, and one per boundary."""
    found = rows[~rows.constants]
    lines = {
        name: [line(n, k) for n, k in zip(found.n_atoms, found.k, strict=True)] for name, line in BOUNDARIES.items()
    }
    return found.assign(**lines)


FIGURES = {
    "theorem-plateaus": (PLATEAUS, "amortisation_theorem.plateaus", lambda rows: (plateaus(rows), PUBLISHED)),
    "theorem-crosstalk": (PLATEAUS, "amortisation_theorem.crosstalk", lambda rows: (plateaus(rows),)),
    "theorem-rank": (PLATEAUS, "amortisation_theorem.rank", lambda rows: (plateaus(rows),)),
    "theorem-transition": (
        GEOMETRY,
        "amortisation_theorem.transition",
        lambda rows: (transition(rows), list(BOUNDARIES)),
    ),
}

PUBLISHED = {(8, 3): (0.862, 0.025)}  # (M, K) -> MCC of the taught SAE and its deviation over starts (stored results)
BOUNDARIES = {"K ln(N/K)": natural_boundary, "K log2(N/K)": binary_boundary, "2 K ln(N/K)": drawn_boundary}


CLAIMS = (
    Claim(
        id="amortisation2024-C1",
        statement=(
            "One linear map and an elementwise nonlinearity cannot return exact codes of two or more active atoms when "
            "there are more atoms than inputs, although the codes can be recovered."
        ),
        rule=(
            "In each data seed, on the cells of the demonstration (K = 3 at every M; every K of at least 2 at the "
            "smallest M and at M = N), with the better of two starts: test MCC above 0.999 at M = N, below 0.995 at "
            "every M < N, and rising with M. Replicated if so in 80 % of data seeds; partly if M = N leads on average. "
            "Void if the last half of the steps still moves an MCC by more than 0.002."
        ),
        published="a theorem; in the released results a taught SAE stops at 0.862 ± 0.025 (N = 16, M = 8, K = 3)",
        statistic="MCC of the l0 oracle - MCC of the best encoder, mean over the cells with M < N",
        study=PLATEAUS,
        test=cannot_be_exact,
    ),
    Claim(
        id="amortisation2024-C2",
        statement="The problem on which the encoder fails is solvable: per-sample inference finds the codes.",
        rule=(
            "At K = 3 and the smallest M (N = 16, M = 8): MCC of l0 search above 0.999 and of FISTA (500 iterations) "
            "above 0.98, in 80 % of data seeds."
        ),
        published="unique codes, by compressed sensing (no number)",
        statistic="MCC of l0 search with the true dictionary",
        study=PLATEAUS,
        test=problem_is_solvable,
    ),
    Claim(
        id="amortisation2024-C3",
        statement="The encoder's answer to the atoms is a matrix of rank M, so it stays away from the identity.",
        rule=(
            "In each data seed and every encoder: rank of W_e D equal to M, and its Frobenius distance from the "
            "identity at least sqrt(N - M). A tautology: it tests the code."
        ),
        published="the step of the proof (no number)",
        statistic="least distance from the identity over its bound, M < N",
        study=PLATEAUS,
        test=rank_is_bounded,
    ),
)
