"""Sparsity and design: penalty and top-k, hidden width, biases, superposition (figures 6 and A1 to A5; C15 to C17)."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from importlib.util import find_spec
from itertools import groupby, product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from replication import inference, matching
from replication.claims import NOTHING, Claim, Evidence, NoEvidence, mean_interval
from replication.inference import Encoder
from replication.papers.amortisation2024.grid import KEY, over_data_seeds
from replication.results import Study
from replication.synthetic import SparseCodes, SparseData, random_dictionary

DATA_SEED = 20240926  # of the authors' runs with nothing known; data seeds count up from it, as in their sweep
METHODS = ("sae", "mlp", "sparse coding")
NAMES = {"sae": "SAE", "mlp": "MLP", "sparse coding": "sparse coding"}
THRESHOLDS = {"l0_above_0": 0.0, "l0_above_1e5": 1e-5, "l0_above_1e4": 1e-4, "l0_above_1e3": 1e-3}
LOOKED_AT = "l0_above_1e4"  # exp-codes are never 0: the threshold of the published L0
KEPT = (1, 2, 3, 4, 5, 6, 8)  # latents that stay where the largest of a trained code are kept


@dataclass(frozen=True)
class DesignRun:
    """Encoder and dictionary learned from data alone, with one choice of design.

    `width` is the number of latents, `hidden` the MLP's hidden width (0 elsewhere), `top_k` the latents that stay while
    training (0: no such rule, and the penalty `l1` instead), `bias` the encoder's. `test_steps` are those of the
    optimisation of test codes, for sparse coding.
    """

    n_atoms: int
    d_in: int
    k: int
    method: str
    width: int
    hidden: int = 0
    l1: float = 0.01
    top_k: int = 0
    bias: bool = False
    steps: int = 10_000
    lr: float = 3e-3
    test_steps: int = 0
    samples: int = 1024
    seed: int = 0
    data_seed: int = DATA_SEED

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        least = {
            "n_atoms": 2,
            "d_in": 2,
            "k": 1,
            "width": 2,
            "hidden": 0,
            "l1": 0,
            "top_k": 0,
            "steps": 1,
            "samples": 4,
        }
        for field in fields(self):
            if field.name in least and not getattr(self, field.name) >= least[field.name]:
                raise ValueError(f"{field.name} must be at least {least[field.name]}, got {getattr(self, field.name)}")
        if (self.method == "mlp") != (self.hidden > 0):
            raise ValueError(f"hidden must be at least 1 for the MLP and 0 elsewhere, got {self.hidden}")
        if (self.method == "sparse coding") != (self.test_steps > 0):
            raise ValueError(f"test_steps must be at least 1 for sparse coding and 0 elsewhere, got {self.test_steps}")
        if self.method == "sparse coding" and (self.bias or self.top_k):
            raise ValueError(f"sparse coding has no bias and no top_k, got bias={self.bias}, top_k={self.top_k}")


STEPS = {"smoke": 20, "cpu": 10_000, "gpu": 30_000, "paper": 100_000}
SAMPLES = {"smoke": 64, "cpu": 1024, "gpu": 1024, "paper": 1024}
TEST_STEPS = {"smoke": 20, "cpu": 2000, "gpu": 10_000, "paper": 10_000}
DATA_SEEDS = {"smoke": 2, "cpu": 3, "gpu": 5, "paper": 3}
INITS = {"smoke": 1, "cpu": 1, "gpu": 5, "paper": 3}
PENALTIES = {
    "smoke": (0.01, 0.5),
    "cpu": (1e-3, 0.01, 0.1, 0.5, 1.0, 5.0),
    "gpu": (1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
    "paper": (1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
}
SIZES = {"smoke": [(16, 8, 3)], "cpu": [(16, 8, 3)], "gpu": [(16, 8, 3), (64, 16, 3)], "paper": [(16, 8, 3)]}


def make_run(preset: str, method: str, size: tuple[int, int, int], **changes) -> DesignRun:
    """The preset's run of a method, with as many latents as atoms and the hidden width of the authors' sweep."""
    n, d, k = size
    own = {"hidden": 32} if method == "mlp" else {"test_steps": TEST_STEPS[preset]} if method != "sae" else {}
    common = {"width": n, "steps": STEPS[preset], "samples": SAMPLES[preset]}
    return DesignRun(n, d, k, method, **(common | own | changes))


def seeded(preset: str) -> Iterator[dict[str, int]]:
    for data_seed, seed in product(range(DATA_SEEDS[preset]), range(INITS[preset])):
        yield {"data_seed": DATA_SEED + data_seed, "seed": seed}


def sparsity_runs(preset: str) -> list[DesignRun]:
    """The weight of the penalty from far too small to far too large, for the three methods."""
    grid = product(SIZES[preset], seeded(preset), METHODS, PENALTIES[preset])
    return [make_run(preset, method, size, l1=l1, **seeds) for size, seeds, method, l1 in grid]


def topk_runs(preset: str) -> list[DesignRun]:
    """Trained with the k largest latents and no penalty; fewer steps at `cpu`: choosing them costs most."""
    ks = {"smoke": {"sae": (3,), "mlp": (3,)}, "cpu": {"sae": (2, 3, 5), "mlp": (3,)}}.get(
        preset, {"sae": (1, 2, 3, 4, 5, 6, 8), "mlp": (2, 3, 5)}
    )
    steps = 4000 if preset == "cpu" else STEPS[preset]
    return [
        make_run(preset, method, size, l1=0.0, top_k=top_k, steps=steps, **seeds)
        for size, seeds, (method, each) in product(SIZES[preset], seeded(preset), ks.items())
        for top_k in each
    ]


def width_runs(preset: str) -> list[DesignRun]:
    """Hidden widths of the MLP. Authors: Adam 3e-4 for 100,000 steps; `cpu` takes a larger rate for fewer steps."""
    widths = (16, 64) if preset == "smoke" else (16, 32, 64, 128, 256, 512)
    sizes = {"smoke": [(16, 8, 3)], "cpu": [(16, 8, 3)]}.get(preset, [(16, 8, 3), (32, 16, 6), (64, 16, 6)])
    steps, lr = {"smoke": (20, 1e-3), "cpu": (4000, 1e-3), "gpu": (60_000, 3e-4), "paper": (100_000, 3e-4)}[preset]
    grid = product(sizes, seeded(preset), widths)
    return [make_run(preset, "mlp", size, hidden=h, steps=steps, lr=lr, **seeds) for size, seeds, h in grid]


def bias_runs(preset: str) -> list[DesignRun]:
    """SAE and MLP with encoder biases and without. Authors: H = 64 at 1e-4, the SAE at 1e-3; here 1e-3 for both, but at
    `paper`."""
    rate = {"sae": 1e-3, "mlp": 1e-4 if preset == "paper" else 1e-3}
    return [
        make_run(
            preset, method, size, bias=bias, lr=rate[method], **({"hidden": 64} if method == "mlp" else {}), **seeds
        )
        for size, seeds, method, bias in product(SIZES[preset][:1], seeded(preset), rate, (False, True))
    ]


GRAM_WIDTHS = {"fewer latents than atoms": 0.5, "as many": 1, "more": 2}


def gram_runs(preset: str) -> list[DesignRun]:
    """Half as many latents as atoms, as many, and twice as many, w = 0.1, one data set."""
    size = SIZES[preset][0]
    return [
        make_run(preset, method, size, l1=0.1, width=int(size[0] * share))
        for method, share in product(METHODS, GRAM_WIDTHS.values())
    ]


class Trained(NamedTuple):
    """One model after training."""

    codes: torch.Tensor
    """Of the test data."""
    dictionary: torch.Tensor


def trained(runs: list[DesignRun]) -> Iterator[tuple[DesignRun, SparseData, Trained, float]]:
    """Every run with its data, its codes and its seconds; runs of one shape are trained together."""

    def shape(run: DesignRun) -> tuple:
        alone = run.l1 if run.method == "sparse coding" else 0.0  # its trainer takes one penalty for all
        size = run.n_atoms, run.d_in, run.k, run.samples
        return *size, run.method, run.width, run.hidden, run.top_k, run.bias, run.steps, run.lr, run.test_steps, alone

    for _, together in groupby(sorted(runs, key=shape), key=shape):
        group, began = list(together), time.perf_counter()
        data = [_data(run.n_atoms, run.d_in, run.k, run.samples, run.data_seed) for run in group]
        train, test = (torch.stack([getattr(one, name) for one in data]) for name in ("train_x", "test_x"))
        run, seeds = group[0], [one.data_seed + one.seed for one in group]
        if run.method == "sparse coding":
            start = inference.authors_dictionaries(run.width, run.d_in, seeds)
            dictionary = inference.sparse_coding(train, start, steps=run.steps, lr=run.lr, l1=run.l1).dictionary
            codes = inference.optimise(test, dictionary, run.test_steps, 3e-3, run.l1)
        else:
            models = inference.authors_start(
                Encoder(run.hidden or None, run.top_k or None, run.bias), run.d_in, run.width, seeds
            )
            penalties = torch.tensor([one.l1 for one in group])
            models = inference.fit_autoencoders(models, train, steps=run.steps, lr=run.lr, l1=penalties).models
            codes, dictionary = models.encode(test), models.dictionary
        seconds = (time.perf_counter() - began) / len(group)
        for one, drawn, z, rows in zip(group, data, codes, dictionary, strict=True):
            yield one, drawn, Trained(z, rows), seconds


@cache
def _data(n_atoms: int, d_in: int, k: int, samples: int, seed: int) -> SparseData:
    return SparseCodes(n_atoms, d_in, k, samples, samples, seed).draw()


@cache
def controls(n_atoms: int, d_in: int, k: int, samples: int, seed: int) -> dict[str, float]:
    """Chance and oracle of one data set: FISTA with a random dictionary and with the true one, shuffled codes."""
    data = _data(n_atoms, d_in, k, samples, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    guesses = torch.stack([random_dictionary(n_atoms, d_in, generator) for _ in range(5)])
    codes = inference.fista(data.test_x, torch.cat([guesses, data.atoms[None]]), 0.01, 200)
    scores = matching.latent_mcc(data.test_codes.expand(len(codes), -1, -1), codes)
    if math.comb(n_atoms, k) <= 2000:
        best = matching.latent_mcc(data.test_codes, inference.l0_oracle(data.test_x, data.atoms, k)).item()
    else:
        best = scores[-1].item()
    truth = data.atoms.expand(len(guesses), -1, -1)
    return {
        "mcc_chance": scores[:-1].mean().item(),
        "mcc_shuffled": matching.shuffled_mcc(data.test_codes, generator).item(),
        "mcc_oracle": best,
        "dictionary_mcc_chance": matching.dictionary_mcc(truth, guesses).mean().item(),
        "dictionary_cosine_chance": matching.dictionary_cosine(truth, guesses).mean().item(),
    }


def largest(codes: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest entries of every code, the others 0: inference top-k, without refitting what stays."""
    top = codes.topk(min(k, codes.shape[-1]), dim=-1)
    return torch.zeros_like(codes).scatter(-1, top.indices, top.values)


def error(x: torch.Tensor, codes: torch.Tensor, dictionary: torch.Tensor) -> float:
    """Mean over samples and entries of (x - z D)^2, the paper's MSE."""
    return (x - codes @ dictionary).square().mean().item()


def errors_at_k(data: SparseData, model: Trained, k: int) -> tuple[float, float]:
    """MSE of the first half of the test data where k latents stay: as they are, and refitted without a penalty.

    No true code enters, only k. Refitting takes away what the penalty shrinks, which grows with its weight.
    """
    half = len(data.test_x) // 2
    x, codes = data.test_x[:half], largest(model.codes[:half], k)
    refitted = inference.refit(x, model.dictionary, codes > 0)
    return error(x, codes, model.dictionary), error(x, refitted, model.dictionary)


def measure(runs: list[DesignRun]) -> Iterator[tuple[DesignRun, dict]]:
    """Errors, L0 at four thresholds, MCC of latents and dictionary with chance and oracle, and inference top-k."""
    for run, data, model, seconds in trained(runs):
        yield run, _measured(run, data, model, seconds)


def measure_gram(runs: list[DesignRun]) -> Iterator[tuple[DesignRun, dict]]:
    """As `measure`, with the products D D^T of dictionary rows and of the true atoms, to three digits."""
    for run, data, model, seconds in trained(runs):
        grams = {"gram": gram(model.dictionary), "gram_atoms": gram(data.atoms)}
        yield run, _measured(run, data, model, seconds) | grams


def gram(rows: torch.Tensor) -> list[list[float]]:
    """Cosines of all pairs of rows, to three digits."""
    unit = torch.nn.functional.normalize(rows.double(), dim=-1)
    return [[round(value, 3) for value in line] for line in (unit @ unit.T).tolist()]


def _measured(run: DesignRun, data: SparseData, model: Trained, seconds: float) -> dict:
    half = len(data.test_x) // 2
    known = controls(run.n_atoms, run.d_in, run.k, run.samples, run.data_seed)
    mcc = matching.latent_mcc(data.test_codes, model.codes).item()
    kept = [largest(model.codes, k) for k in KEPT]
    at_k, at_k_refitted = errors_at_k(data, model, run.k)
    same = run.width == run.n_atoms
    pearson = matching.dictionary_mcc(data.atoms, model.dictionary, "hungarian" if same else "greedy").item()
    return {
        "mse": error(data.test_x, model.codes, model.dictionary),
        "mcc": mcc,
        "q": matching.normalised_score(mcc, known["mcc_chance"], known["mcc_oracle"]),
        "dictionary_mcc": pearson,
        "dictionary_mcc_greedy": matching.dictionary_mcc(data.atoms, model.dictionary, "greedy").item(),
        "dictionary_cosine": matching.dictionary_cosine(data.atoms, model.dictionary).item(),
        **{name: (model.codes > at).float().mean().item() for name, at in THRESHOLDS.items()},
        "true_l0": run.k / run.n_atoms,
        "kept": list(KEPT),
        "kept_mse": [error(data.test_x, codes, model.dictionary) for codes in kept],
        "kept_mcc": matching.latent_mcc(data.test_codes.expand(len(kept), -1, -1), torch.stack(kept)).tolist(),
        "mse_at_k": at_k,
        "mse_at_k_refitted": at_k_refitted,
        "mcc_first_half": matching.latent_mcc(data.test_codes[:half], model.codes[:half]).item(),
        "mcc_second_half": matching.latent_mcc(data.test_codes[half:], model.codes[half:]).item(),
        **known,
        "seconds": seconds,
    }


def cost(run: DesignRun) -> float:
    """Seconds of a run on one core, from runs at (16, 8) and 1,024 samples; larger sizes in proportion."""
    scale = run.width * run.d_in * run.samples / (128 * 1024)
    step = 4e-5 + 4e-6 * run.hidden if run.method == "mlp" else 7e-5
    return 0.05 + scale * (run.steps * (step + 2e-4 * bool(run.top_k)) + run.test_steps * 1e-4)


SPARSITY = Study(KEY, "design-sparsity", "Weight of the L1 penalty, L0, error and MCC", sparsity_runs, measure, cost)
TOPK = Study(KEY, "design-topk", "TopK while training", topk_runs, measure, cost)
WIDTHS = Study(KEY, "design-width", "Hidden width of the MLP", width_runs, measure, cost)
BIASES = Study(KEY, "design-bias", "Encoder biases", bias_runs, measure, cost)
GRAMS = Study(KEY, "design-gram", "Products of dictionary rows", gram_runs, measure_gram, cost)


# ----------------------------------------------------------------------------------------------------- another library


@dataclass(frozen=True)
class ScikitRun:
    """DictionaryLearning of scikit-learn on its own sparse signals, whose codes have signs."""

    n_atoms: int
    d_in: int
    k: int
    alpha: float = 0.05
    samples: int = 512
    iterations: int = 50
    seed: int = 0
    data_seed: int = 0

    def __post_init__(self):
        for name in ("n_atoms", "d_in", "k", "samples", "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 1 <= self.k <= self.n_atoms:
            raise ValueError(f"k must be at most n_atoms={self.n_atoms}, got {self.k}")


def scikit_runs(preset: str) -> list[ScikitRun]:
    """None where scikit-learn is not installed: the other studies do not need it."""
    if find_spec("sklearn") is None:
        return []
    sizes, seeds, options = {
        "smoke": ([(16, 8, 3)], 1, {"samples": 64, "iterations": 2}),
        "cpu": ([(16, 8, 3), (32, 16, 3)], 2, {}),
        "gpu": ([(16, 8, 3), (32, 16, 3), (64, 32, 3), (128, 32, 3), (128, 8, 9)], 3, {"samples": 1024}),
        "paper": ([(16, 8, 3), (32, 16, 3), (64, 32, 3), (128, 32, 3), (128, 8, 9)], 1, {"samples": 1024}),
    }[preset]
    options |= {"iterations": 300} if preset in ("gpu", "paper") else {}
    return [ScikitRun(*size, data_seed=seed, **options) for size, seed in product(sizes, range(seeds))]


def measure_scikit(runs: list[ScikitRun]) -> Iterator[tuple[ScikitRun, dict]]:
    """MCC of codes (training data) and dictionary, alternating coordinate descent and lasso-LARS codes."""
    try:
        from sklearn.datasets import make_sparse_coded_signal
        from sklearn.decomposition import DictionaryLearning
        from sklearn.exceptions import ConvergenceWarning
    except ImportError:
        raise ModuleNotFoundError(
            "scikit-learn is not installed, and the study design-scikit compares with it; the others run without"
        ) from None
    import warnings

    for run in runs:
        began = time.perf_counter()
        x, atoms, codes = make_sparse_coded_signal(
            n_samples=run.samples,
            n_components=run.n_atoms,
            n_features=run.d_in,
            n_nonzero_coefs=run.k,
            random_state=run.data_seed,
        )
        learner = DictionaryLearning(
            run.n_atoms,
            alpha=run.alpha,
            max_iter=run.iterations,
            fit_algorithm="cd",
            transform_algorithm="lasso_lars",
            transform_alpha=run.alpha,
            random_state=run.seed,
        )
        with warnings.catch_warnings():  # a fixed number of iterations is what is asked for
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = learner.fit(x).transform(x)
        truth, rows = (torch.tensor(np.asarray(one), dtype=torch.float32) for one in (atoms, learner.components_))
        generator = torch.Generator().manual_seed(run.data_seed)
        guess = random_dictionary(run.n_atoms, run.d_in, generator)
        true_codes = torch.tensor(codes, dtype=torch.float32)
        yield (
            run,
            {
                "mcc": matching.latent_mcc(true_codes, torch.tensor(found, dtype=torch.float32)).item(),
                "mcc_shuffled": matching.shuffled_mcc(true_codes, generator).item(),
                "dictionary_mcc": matching.dictionary_mcc(truth, rows).item(),
                "dictionary_mcc_chance": matching.dictionary_mcc(truth, guess).item(),
                "dictionary_cosine": matching.dictionary_cosine(truth, rows).item(),
                "seconds": time.perf_counter() - began,
            },
        )


def scikit_cost(run: ScikitRun) -> float:
    return 0.5 + 4e-5 * run.samples * run.iterations * run.n_atoms / 16


SCIKIT = Study(KEY, "design-scikit", "scikit-learn's dictionary learning", scikit_runs, measure_scikit, scikit_cost)


# ----------------------------------------------------------------------------------------- what pages show, and claims

CRITERIA = {  # how w is chosen -> the column whose least value decides
    "held-out MSE at L0 = K": "mse_at_k",
    "the same, codes refitted": "mse_at_k_refitted",
    "MCC (needs the truth)": "mcc_first_half",
}


def choices(rows: pd.DataFrame) -> pd.DataFrame:
    """The weight that each criterion picks on the first half of the test data, and the MCC of the second half.

    One line per size, method, criterion and data seed; means over initialisations are taken before the choice.
    """
    cell = ["n_atoms", "d_in", "k", "method", "data_seed"]
    columns = [*CRITERIA.values(), "mcc_second_half", "mcc_chance", "mcc_oracle", LOOKED_AT]
    means = rows.groupby([*cell, "l1"])[columns].mean().reset_index()
    found = []
    for at, here in means.groupby(cell):
        for criterion, column in CRITERIA.items():
            chosen = here.loc[here[column].idxmax() if column.startswith("mcc") else here[column].idxmin()]
            found.append(dict(zip(cell, at, strict=True)) | {"criterion": criterion})
            found[-1] |= {"l1": chosen.l1, "log10_w": float(np.log10(chosen.l1))}
            found[-1] |= {"l0": chosen[LOOKED_AT], "mcc": chosen.mcc_second_half}
            found[-1] |= {
                "q": matching.normalised_score(chosen.mcc_second_half, chosen.mcc_chance, chosen.mcc_oracle),
                "lost_to_the_truth": here.loc[here.mcc_first_half.idxmax()].mcc_second_half - chosen.mcc_second_half,
            }
    return pd.DataFrame(found)


def inference_topk(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per run and number of latents kept: columns kept, l0 (kept / latents), mse, mcc."""
    long = rows[["method", "l1", "seed", "data_seed", "n_atoms", "width", "kept", "kept_mse", "kept_mcc"]]
    long = long.explode(["kept", "kept_mse", "kept_mcc"]).rename(columns={"kept_mse": "mse", "kept_mcc": "mcc"})
    long = long.astype({"kept": int, "mse": float, "mcc": float})
    return long.assign(l0=long.kept / long.width)


def _default(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first size of the preset, which claims and figures are about."""
    first = rows.iloc[0]
    return rows[(rows.n_atoms == first.n_atoms) & (rows.d_in == first.d_in) & (rows.k == first.k)]


def _by_data_seed(rows: pd.DataFrame, columns: list[str], value: str = "mcc") -> pd.DataFrame:
    """Means over initialisations: a line per data seed, a column per setting."""
    if rows.empty:
        raise NoEvidence("no rows of the size that the rule is about")
    table = _default(rows).pivot_table(index="data_seed", columns=columns, values=value, aggfunc="mean")
    if table.isna().any(axis=None):
        raise NoEvidence(f"not every setting of {', '.join(columns)} has rows for every data seed")
    return table


SMALL = 0.03  # C15: what a bias may change
BEST_WIDTHS = (128, 256)


def bias_is_useless(rows: pd.DataFrame) -> Evidence:
    """C15: |bias - no bias| of the SAE below SMALL, and the MLP without bias at least as good as with it."""
    table = _by_data_seed(rows, ["method", "bias"])
    if not {("sae", True), ("sae", False), ("mlp", True), ("mlp", False)} <= set(table.columns):
        raise NoEvidence("the rule needs SAE and MLP, each with bias and without")
    sae, mlp = (table[method, True] - table[method, False] for method in ("sae", "mlp"))
    holds = (sae.abs() < SMALL) & (mlp <= 0)
    return Evidence(
        over_data_seeds(np.where(holds, 1.0, -1.0), -mlp),
        *mean_interval(sae),
        f"a bias changes the SAE's MCC by {sae.mean():+.3f} (largest {sae.abs().max():.3f}) and the MLP's by "
        f"{mlp.mean():+.3f}; the rule holds in {holds.sum()} of {len(holds)} data sets",
    )


def width_has_an_optimum(rows: pd.DataFrame) -> Evidence:
    """C16: the hidden width of the largest MCC is one of BEST_WIDTHS."""
    table = _by_data_seed(rows, ["hidden"])
    if lacking := set(BEST_WIDTHS) - set(table.columns) or {512} - set(table.columns):
        raise NoEvidence(f"no rows of the hidden widths {sorted(lacking)}")
    best = table[list(BEST_WIDTHS)].max(axis=1)
    others = table.drop(columns=list(BEST_WIDTHS)).max(axis=1)
    ends = table[[min(table.columns), max(table.columns)]].max(axis=1)
    winners = ", ".join(str(width) for width in table.idxmax(axis=1))
    return Evidence(
        over_data_seeds(best - others, best - ends),
        *mean_interval(best - others),
        f"the best hidden width is {winners} in the {len(table)} data sets; on average MCC is "
        f"{', '.join(f'{value:.3f} at {width}' for width, value in table.mean().items())}",
    )


def peak_is_dense(rows: pd.DataFrame) -> Evidence:
    """C17: at the weight with the largest MCC more latents are active than atoms, for sparse coding and the MLP."""
    mcc, l0 = (_by_data_seed(rows, ["method", "l1"], value) for value in ("mcc", LOOKED_AT))
    needed = ("sparse coding", "mlp")
    if lacking := set(needed) - set(mcc.columns.get_level_values(0)):
        raise NoEvidence(f"no rows of {', '.join(sorted(lacking))}")
    truth = _default(rows).true_l0.iloc[0]
    excess, edge = {}, False
    for method in needed:
        peak = mcc[method].idxmax(axis=1)
        excess[method] = pd.Series({seed: l0.loc[seed, (method, w)] - truth for seed, w in peak.items()})
        edge |= (peak.isin([min(mcc[method].columns), max(mcc[method].columns)])).any()
    table = pd.DataFrame(excess)
    if edge:
        return Evidence("void", *NOTHING, "a peak lies at an end of the sweep")
    return Evidence(
        over_data_seeds(table.min(axis=1), table.max(axis=1)),
        *mean_interval(table.min(axis=1)),
        f"at the peak L0 (above 1e-4) is {truth + table['sparse coding'].mean():.3f} for sparse coding and "
        f"{truth + table['mlp'].mean():.3f} for the MLP; the truth is {truth:.4f}",
    )


PUBLISHED = pd.DataFrame(  # stored results of the authors at (16, 8, 3): latent MCC; L0 above 1e-4 where stored
    [
        (method, w, mcc, l0)
        for method, values, l0s in (
            ("sae", (0.595, 0.617, 0.593, 0.559, 0.208), {0.5: 0.325}),
            ("mlp", (0.607, 0.615, 0.701, 0.680, 0.065), {0.5: 0.287}),
            ("sparse coding", (0.730, 0.728, 0.836, 0.722, 0.446), {0.5: 0.343, 0.01: 0.52}),
        )
        for w, mcc in zip((0.01, 0.1, 0.5, 1.0, 5.0), values, strict=True)
        for l0 in (l0s.get(w, np.nan),)
    ],
    columns=["method", "l1", "mcc", "l0"],
)
PUBLISHED_WIDTHS = pd.DataFrame(
    {
        "hidden": (16, 32, 64, 128, 256, 512),
        "(16, 8, 3)": (0.587, 0.593, 0.605, 0.635, 0.707, 0.613),
        "(32, 16, 6)": (0.444, 0.490, 0.535, 0.540, 0.558, 0.501),
        "(64, 16, 6)": (0.260, 0.339, 0.380, 0.412, 0.379, 0.388),
    }
)
PUBLISHED_BIAS = pd.DataFrame(
    [("sae", 0.567, 0.563, 0.730, 0.709), ("mlp", 0.608, 0.529, 0.742, 0.731)]
    + [("sparse coding", 0.669, 0.623, 0.821, 0.816)],
    columns=["method", "mcc", "mcc_bias", "dictionary_mcc", "dictionary_mcc_bias"],
)
PUBLISHED_TOPK = pd.DataFrame(
    [
        ("SAE trained with top 3", "0.637"),
        ("MLP trained with TopK", "0.504"),
        ("sparse coding trained with TopK (its optimiser broke)", "0.19"),
        ("sparse coding, w = 0.05", "0.75 to 0.79"),
        ("the 3 largest of its codes, at the best w", "0.79 to 0.83"),
        ("codes optimised under the top-3 rule", "0.33 to 0.37"),
    ],
    columns=["authors' stored results at (16, 8, 3)", "latent MCC"],
)
PUBLISHED_SCIKIT = pd.DataFrame(
    [((16, 8, 3), 0.932, 0.986), ((32, 16, 3), 0.986, None), ((64, 32, 3), 0.831, None)]
    + [((128, 32, 3), 0.758, None), ((128, 8, 9), 0.197, None)],
    columns=["(N, M, K)", "latent MCC", "dictionary MCC"],
)


def scikit_note(rows: pd.DataFrame) -> str:
    """What stands beside the table of scikit-learn, or in its place."""
    if rows.empty:
        return "scikit-learn is not installed where this page was built: its table is left out, all else is complete."
    return f"scikit-learn, {len(rows)} runs, {rows.iterations.iloc[0]} iterations, alpha = {rows.alpha.iloc[0]:g}."


STUDIES = (SPARSITY, TOPK, WIDTHS, BIASES, GRAMS, SCIKIT)

FIGURES = {
    "design-sparsity": (SPARSITY, "amortisation_design.sparsity", lambda rows: (_default(rows), PUBLISHED)),
    "design-inference-topk": (
        SPARSITY,
        "amortisation_design.kept_latents",
        lambda rows: (inference_topk(_default(rows)), _default(rows).true_l0.iloc[0]),
    ),
    "design-choices": (SPARSITY, "amortisation_design.choices", lambda rows: (choices(_default(rows)),)),
    "design-width": (WIDTHS, "amortisation_design.widths", lambda rows: (_default(rows), PUBLISHED_WIDTHS)),
    "design-bias": (BIASES, "amortisation_design.biases", lambda rows: (_default(rows), PUBLISHED_BIAS)),
    "design-gram": (GRAMS, "amortisation_design.grams", lambda rows: (rows,)),
}


CLAIMS = (
    Claim(
        id="amortisation2024-C15",
        statement="On data without an offset, biases in the encoder do not help.",
        rule=(
            "In at least 80 % of the data sets the SAE's latent MCC with bias and without differ by less than 0.03, "
            "and the MLP without is at least as good as with. Partly if the MLP is better without on average."
        ),
        published="SAE 0.567 without and 0.563 with, MLP 0.608 and 0.529 (stored results, 3 initialisations)",
        statistic="latent MCC of the SAE with bias - without",
        study=BIASES,
        test=bias_is_useless,
    ),
    Claim(
        id="amortisation2024-C16",
        statement="The MLP encoder has a best hidden width: wider is better up to 128 or 256, and worse beyond.",
        rule=(
            "In at least 80 % of the data sets the hidden width of the largest latent MCC, out of 16 to 512 by powers "
            "of two, is 128 or 256. Partly if these beat the smallest and the largest width on average."
        ),
        published="0.587, 0.593, 0.605, 0.635, 0.707, 0.613 for 16 to 512 (stored results; unstable at 512)",
        statistic="latent MCC of the better of 128 and 256 - of the best other width",
        study=WIDTHS,
        test=width_has_an_optimum,
    ),
    Claim(
        id="amortisation2024-C17",
        statement="Latent MCC is largest where more latents are active than the truth has atoms.",
        rule=(
            "In at least 80 % of the data sets L0, as a share of latents above 1e-4, exceeds K/N at the penalty with "
            "the largest latent MCC, for sparse coding and for the MLP. Partly if it does on average for one of them. "
            "Void if the peak lies at an end of the sweep."
        ),
        published="peaks at w = 0.5 with L0 0.343 (sparse coding) and 0.287 (MLP); the truth is 0.1875",
        statistic="L0 at the peak - K/N, the smaller of the two methods",
        study=SPARSITY,
        test=peak_is_dense,
    ),
)
