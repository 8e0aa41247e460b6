"""What inference and training cost: operations as released and corrected, counted by torch, and measured time."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import groupby, product

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from replication import inference, matching
from replication.inference import Encoder, flops
from replication.papers.amortisation2024.grid import KEY
from replication.results import Study
from replication.synthetic import SparseCodes, SparseData, random_dictionary

DATA_SEED = 20240625  # of the authors' known-dictionary experiment; others count up from it
LAM = 0.01
ENCODERS = ("sae", "sae, codes known", "mlp", "lista")
ITERATED = ("fista", "optimisation")
SOLVED = ("omp", "oracle")
CHANCE = ("random dictionary", "shuffled codes")
METHODS = (*ENCODERS, *ITERATED, *SOLVED, *CHANCE)
NAMES = {
    "sae": "SAE encoder",
    "sae, codes known": "SAE encoder, taught the codes",
    "mlp": "MLP encoder",
    "lista": "LISTA",
    "fista": "FISTA",
    "optimisation": "per-sample optimisation",
    "sparse coding": "sparse coding",
    "omp": "OMP",
    "oracle": "l0 oracle",
    "random dictionary": "FISTA, random dictionary",
    "shuffled codes": "shuffled codes",
}


def _refuse(run, methods: tuple[str, ...], least: dict[str, float]) -> None:
    if run.method not in methods:
        raise ValueError(f"method must be one of {', '.join(methods)}, got {run.method!r}")
    for field in fields(run):
        value = getattr(run, field.name)
        if field.name in least and not value >= least[field.name]:
            raise ValueError(f"{field.name} must be at least {least[field.name]}, got {value}")


# -------------------------------------------------------------------------------- quality against operations per sample


@dataclass(frozen=True)
class CodesRun:
    """Codes of test data for the true dictionary, by one method at one effort.

    `effort`: hidden width of "mlp", iterations of "fista", "lista" and "optimisation", active atoms of "omp"; 0
    elsewhere. `steps` and `lr` are those of training, or of the optimisation of codes.
    """

    n_atoms: int
    d_in: int
    k: int
    method: str
    effort: int = 0
    steps: int = 0
    lr: float = 1e-3
    l1: float = 0.01
    samples: int = 1024
    seed: int = 0
    data_seed: int = DATA_SEED

    def __post_init__(self):
        least = {"n_atoms": 2, "d_in": 1, "k": 1, "effort": 0, "steps": 0, "lr": 1e-12, "l1": 0, "samples": 2}
        _refuse(self, METHODS, least)
        if self.method in ("mlp", "lista", "omp", *ITERATED) and not self.effort:
            raise ValueError(f"effort must be at least 1 for {self.method}, got 0")
        if self.method in ENCODERS and not self.steps:
            raise ValueError(f"steps must be at least 1 for {self.method}, got 0")


def omp_inference(d_in: int, n: int, k: int) -> flops.Cost:
    """Sum over j = 1..k of 2 M N + 2 M j (correlations, residual) and 2 M j^2 + 2 M j + j^3 (refit) a sample."""
    return flops.Cost(
        sum(2 * d_in * n + 4 * d_in * j + 2 * d_in * j * j for j in range(1, k + 1)),
        sum(n + j**3 for j in range(1, k + 1)),
    )


def oracle_inference(d_in: int, n: int, k: int) -> flops.Cost:
    """C(N, j) supports of each size j up to k: 4 M j of products and 3 M to compare, a sample.

    The pseudo-inverses are paid once a dictionary and left out.
    """
    sizes = [(j, math.comb(n, j)) for j in range(1, k + 1)]
    return flops.Cost(sum(4 * d_in * j * many for j, many in sizes), sum((3 * d_in + j) * many for j, many in sizes))


def code_cost(method: str, d_in: int, n: int, k: int, effort: int) -> flops.Cost | None:
    """Operations per sample from x to its codes, decoding left out: one axis for encoders and iterations.

    (The published axis charges an encoder its decoder, 2 M N, as well; `flops.sae_inference` does too.)
    """
    decoder = 2 * d_in * n
    if method in ("sae", "sae, codes known"):
        cost = flops.sae_inference(d_in, n)
        return cost._replace(matmul=cost.matmul - decoder)
    if method == "mlp":
        cost = flops.mlp_inference(d_in, n, effort)
        return cost._replace(matmul=cost.matmul - decoder)
    if method == "lista":
        return flops.lista_inference(d_in, n, effort)
    if method in ("fista", "random dictionary"):
        return flops.fista_inference(d_in, n, effort or 500)
    if method == "optimisation":
        return flops.optimisation(d_in, n, effort)
    if method == "omp":
        return omp_inference(d_in, n, effort)
    return oracle_inference(d_in, n, k) if method == "oracle" else None


def codes_runs(preset: str) -> list[CodesRun]:
    sizes, seeds, data_seeds, samples = {
        "smoke": ([(16, 8, 3)], 1, 2, 64),
        "cpu": ([(16, 8, 3)], 2, 3, 1024),
        "gpu": ([(16, 8, 3), (128, 32, 3)], 5, 5, 1024),
        "paper": ([(16, 8, 3)], 5, 1, 1024),
    }[preset]
    steps, lista_steps, hidden = {
        "smoke": (20, 10, (32,)),
        "cpu": (10_000, 500, (32,)),
        "gpu": (20_000, 3000, (32, 256)),
        "paper": (20_000, 5000, (32, 256)),
    }[preset]
    unrolled, iterations = (1, 2, 3, 5, 10), (5, 10, 20, 50, 100, 200, 500)
    descents = [(1e-3, t) for t in (500, 1000, 2000, 5000, 10_000, 19_900)] + [(3e-3, t) for t in (500, 2000, 10_000)]
    if preset == "smoke":
        unrolled, iterations, descents = (1, 3), (5, 50), [(1e-3, 10), (1e-3, 40), (3e-3, 40)]
    if preset == "gpu":
        unrolled = (1, 2, 3, 4, 5, 7, 10)
    runs = []
    for (n, d, k), offset in product(sizes, range(data_seeds)):
        fixed = {"n_atoms": n, "d_in": d, "k": k, "samples": samples, "data_seed": DATA_SEED + offset}
        runs += [CodesRun(method="lista", effort=t, steps=lista_steps, lr=5e-3, **fixed) for t in unrolled]
        runs += [CodesRun(method="fista", effort=t, **fixed) for t in iterations]
        runs += [CodesRun(method="optimisation", effort=t, lr=lr, **fixed) for lr, t in descents]
        runs += [CodesRun(method="omp", effort=j, **fixed) for j in range(1, k + 1)]
        runs += [CodesRun(method="oracle", **fixed)] * (math.comb(n, k) <= 100_000 and n <= 32)
        for seed in range(seeds):
            own = fixed | {"seed": seed}
            runs += [CodesRun(method="sae", steps=steps, **own)]
            runs += [CodesRun(method="sae, codes known", steps=min(steps, 5000), lr=5e-3, **own)]
            runs += [CodesRun(method="mlp", effort=h, steps=steps, **own) for h in hidden]
            runs += [CodesRun(method="random dictionary", effort=iterations[-1], **own)]
            runs += [CodesRun(method="shuffled codes", **own)]
    return runs


def measure_codes(runs: list[CodesRun]) -> Iterator[tuple[CodesRun, dict]]:
    """Latent MCC (Hungarian, Pearson) on test data, and operations per sample.

    Runs of one shape are trained together, each on its own data set; descent goes through its efforts in one pass.
    """

    def shape(run: CodesRun) -> tuple:
        effort = 0 if run.method == "optimisation" else run.effort
        return run.n_atoms, run.d_in, run.k, run.samples, run.method, run.lr, run.l1, run.steps, effort

    for (n, d, k, samples, method, *_), group in groupby(sorted(runs, key=shape), key=shape):
        group = list(group)
        began = time.perf_counter()
        seeds = sorted({run.data_seed for run in group})
        drawn = {seed: SparseCodes(n, d, k, samples, samples, seed).draw() for seed in seeds}
        found = list(_codes(method, group, drawn))
        seconds = (time.perf_counter() - began) / len(group)
        for run, (codes, best) in zip(group, found, strict=True):
            truth = drawn[run.data_seed].test_codes
            cost = code_cost(method, d, n, k, run.effort)
            mcc = matching.latent_mcc(truth, codes).item()
            yield (
                run,
                {
                    "mcc": mcc,
                    "mcc_best": max(mcc, best),
                    "active": (codes > 0).float().mean().item(),
                    "flops_sample": None if cost is None else cost.of(1),
                    "flops_training": _training_flops(run),
                    "seconds": seconds,
                },
            )


def _codes(method: str, group: list[CodesRun], drawn: dict[int, SparseData]) -> Iterator[tuple[torch.Tensor, float]]:
    """Test codes of every run, and the best MCC on test data during its training (0 where nothing is trained)."""
    run = group[0]
    data = [drawn[one.data_seed] for one in group]
    train, test, atoms = (torch.stack([getattr(one, name) for one in data]) for name in ("train_x", "test_x", "atoms"))
    if method in ("sae", "mlp", "sae, codes known"):
        encoder = Encoder(run.effort if method == "mlp" else None, bias=method == "sae, codes known")
        generators = [torch.Generator().manual_seed(one.data_seed + one.seed + 42) for one in group]
        models = inference.start(encoder, run.d_in, run.n_atoms, generators, decoder=False)
        truth = torch.stack([one.test_codes for one in data])
        at = sorted({round(run.steps * share) for share in (0.05, 0.1, 0.15, 0.25, 0.5, 1)})
        options = {"steps": run.steps, "lr": run.lr, "at": at}
        options["measure"] = lambda models: matching.latent_mcc(truth, models.encode(test))
        if method == "sae, codes known":
            codes = torch.stack([one.train_codes for one in data])
            fitted = inference.fit_codes(models, train, codes, **options)
        else:
            fitted = inference.fit_encoders(models, train, atoms, l1=run.l1, **options)
        best = torch.stack(list(fitted.curve.values())).max(0).values.tolist()
        yield from zip(fitted.models.encode(test), best, strict=True)
    elif method == "lista":
        lista = inference.LISTA(atoms, run.effort, LAM).fit(train, run.steps, run.lr, run.l1)
        with torch.no_grad():
            yield from ((codes, 0.0) for codes in lista(test))
    elif method == "optimisation":
        places = {seed: at for at, seed in enumerate(drawn)}
        x, rows = (torch.stack([getattr(one, name) for one in drawn.values()]) for name in ("test_x", "atoms"))
        curve = inference.optimise_curve(x, rows, {one.effort for one in group}, run.lr, run.l1)
        yield from ((curve[one.effort][places[one.data_seed]], 0.0) for one in group)
    elif method in ("fista", "random dictionary"):
        if method == "random dictionary":
            generators = [torch.Generator().manual_seed(one.data_seed + one.seed + 1) for one in group]
            atoms = torch.stack([random_dictionary(run.n_atoms, run.d_in, generator) for generator in generators])
        yield from ((codes, 0.0) for codes in inference.fista(test, atoms, LAM, run.effort))
    elif method == "shuffled codes":
        for one, drawing in zip(group, data, strict=True):
            generator = torch.Generator().manual_seed(one.data_seed + one.seed)
            order = torch.rand(drawing.test_codes.shape, generator=generator).argsort(0)
            yield drawing.test_codes.gather(0, order), 0.0
    else:
        solve = inference.omp if method == "omp" else inference.l0_oracle
        yield from ((solve(one.test_x, one.atoms, run.effort or run.k), 0.0) for one in data)


def _training_flops(run: CodesRun) -> float:
    """Corrected operations of training the encoder, all steps and samples; 0 where nothing is trained."""
    if run.method in ("sae", "sae, codes known"):
        return float(flops.sae_training(run.d_in, run.n_atoms, learned=False).of(run.samples) * run.steps)
    if run.method == "mlp":
        cost = flops.mlp_training(run.d_in, run.n_atoms, run.effort, learned=False)
        return float(cost.of(run.samples) * run.steps)
    if run.method == "lista":  # a backward pass is twice a forward one
        return 3.0 * flops.lista_inference(run.d_in, run.n_atoms, run.effort).of(run.samples) * run.steps
    return 0.0


def codes_cost(run: CodesRun) -> float:
    """Seconds of a run on one core, from runs at (16, 8) and 1,024 samples; larger sizes in proportion."""
    scale = run.n_atoms * run.d_in * run.samples / (128 * 1024)
    if run.method == "mlp":
        return scale * run.steps * 1.3e-4 * max(run.effort, 16) / 32
    if run.method == "lista":
        return scale * run.steps * 3e-4 * run.effort
    if run.method == "optimisation":
        return 0.02 + scale * run.effort * 4e-5  # a curve's runs share one pass
    return 0.1 + scale * run.steps * 7e-5


CODES = Study(KEY, "compute-codes", "Quality of codes and operations per sample", codes_runs, measure_codes, codes_cost)


# ------------------------------------------------------------------------------------------ formulas, counts and clocks


@dataclass(frozen=True)
class TimedRun:
    """One method at one size, counted and timed beside an SAE of that size. `effort` is as in `CodesRun`."""

    n_atoms: int
    d_in: int
    k: int
    method: str
    effort: int = 0
    samples: int = 1024
    repeats: int = 5
    seed: int = 0
    data_seed: int = DATA_SEED

    def __post_init__(self):
        _refuse(self, TIMED, {"n_atoms": 2, "d_in": 1, "k": 1, "effort": 0, "samples": 2, "repeats": 1})
        if self.method not in ("sae", "sparse coding", "oracle") and not self.effort:
            raise ValueError(f"effort must be at least 1 for {self.method}, got 0")


TIMED = ("sae", "mlp", "sparse coding", "lista", "fista", "optimisation", "omp", "oracle")
MOST_TIMED = 100  # iterations of one timing; longer methods are timed over so many and scaled up


def timed_runs(preset: str) -> list[TimedRun]:
    sizes, hidden, samples, repeats = {
        "smoke": ([(16, 8, 3)], (32,), 64, 1),
        "cpu": ([(16, 8, 3), (64, 32, 3), (256, 64, 3)], (32, 256), 1024, 5),
        "gpu": ([(16, 8, 3), (128, 32, 3), (512, 128, 3), (2048, 512, 3)], (32, 256, 1024), 1024, 5),
        "paper": ([(16, 8, 3)], (32, 256, 1024), 1024, 9),
    }[preset]
    runs = []
    for n, d, k in sizes:
        fixed = {"n_atoms": n, "d_in": d, "k": k, "samples": samples, "repeats": repeats}
        runs += [TimedRun(method="sae", **fixed), TimedRun(method="sparse coding", **fixed)]
        runs += [TimedRun(method="mlp", effort=h, **fixed) for h in hidden]
        runs += [TimedRun(method="lista", effort=10, **fixed), TimedRun(method="fista", effort=100, **fixed)]
        runs += [TimedRun(method="optimisation", effort=10_000, **fixed), TimedRun(method="omp", effort=k, **fixed)]
        runs += [TimedRun(method="oracle", **fixed)] * (math.comb(n, k) <= 1000)
    return runs


def counted(call: Callable[[], object]) -> int:
    """What torch's flop counter sees: 2 m n k for every matrix product, forward and backward, nothing else."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def measure_times(runs: list[TimedRun]) -> Iterator[tuple[TimedRun, dict]]:
    """Operations by formula and by torch's counter; median time of a training step and of a sample's codes.

    Every timing alternates with that of an SAE of the same size, so that a ratio is of one sitting even where rows are
    computed on different days. Training is of encoder and dictionary, full batch, one model.
    """
    for run in runs:
        began = time.perf_counter()
        data = SparseCodes(run.n_atoms, run.d_in, run.k, run.samples, run.samples, run.data_seed).draw()
        found = _formulas(run) | _counts(run, data)
        base = TimedRun(run.n_atoms, run.d_in, run.k, "sae", samples=run.samples, repeats=run.repeats, seed=run.seed)
        for name, unit, calls, per in (
            ("ms_step", 1e3, (_training(run, data), _training(base, data)), 1),
            ("us_sample", 1e6, (_inference(run, data), _inference(base, data)), run.samples),
        ):
            if calls[0] is None:
                found |= {name: None, f"{name}_sae": None, f"{name}_ratio": None}
                continue
            own, sae = ([] for _ in calls)
            for call, _ in calls:
                call()  # caches, allocations
            for _ in range(run.repeats):
                own.append(_seconds(*calls[0]))
                sae.append(_seconds(*calls[1]))
            mine, theirs = float(np.median(own)), float(np.median(sae))
            found |= {name: unit * mine / per, f"{name}_sae": unit * theirs / per, f"{name}_ratio": mine / theirs}
        yield run, found | {"seconds": time.perf_counter() - began}


def _seconds(call: Callable[[], object], scale: float) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * scale


def _encoder(run: TimedRun) -> inference.Models:
    hidden = run.effort if run.method == "mlp" else None
    generator = torch.Generator().manual_seed(run.data_seed + run.seed + 42)
    return inference.start(Encoder(hidden), run.d_in, run.n_atoms, [generator])


def _training(run: TimedRun, data: SparseData) -> tuple[Callable, float] | None:
    """A call that trains for some steps, and what turns its seconds into those of one step."""
    steps = max(min(200, 200 * 16 * 8 // (run.n_atoms * run.d_in)), 5)
    if run.method in ("sae", "mlp"):
        models = _encoder(run)
        return lambda: inference.fit_autoencoders(models, data.train_x, steps=steps), 1 / steps
    if run.method == "sparse coding":
        start = inference.authors_dictionaries(run.n_atoms, run.d_in, [run.seed])
        return lambda: inference.sparse_coding(data.train_x, start, steps=steps), 1 / steps
    return None


def _inference(run: TimedRun, data: SparseData) -> tuple[Callable, float] | None:
    """A call that gives codes of the test data, and what turns its seconds into those of the whole inference."""
    x, atoms = data.test_x, data.atoms
    if run.method in ("sae", "mlp"):
        models = _encoder(run)
        return lambda: models.encode(x), 1
    if run.method == "lista":
        lista = inference.LISTA(atoms, run.effort, LAM).requires_grad_(False)
        return lambda: lista(x), 1
    if run.method == "fista":
        return lambda: inference.fista(x, atoms, LAM, run.effort), 1
    if run.method == "optimisation":
        steps = min(run.effort, MOST_TIMED)
        return lambda: inference.optimise(x, atoms, steps), run.effort / steps
    if run.method == "omp":
        return lambda: inference.omp(x, atoms, run.effort), 1
    if run.method == "oracle":
        return lambda: inference.l0_oracle(x, atoms, run.k), 1
    return None  # sparse coding: its codes are those of the optimisation


def _formulas(run: TimedRun) -> dict:
    """Operations: of a training step on the whole batch, as released and corrected, and per sample of inference."""
    n, d, b = run.n_atoms, run.d_in, run.samples
    training = {
        "sae": lambda released: flops.sae_training(d, n, True, released),
        "mlp": lambda released: flops.mlp_training(d, n, run.effort, True, released),
        "sparse coding": lambda released: flops.sparse_coding_training(d, n, True, released, b),
    }.get(run.method)
    codes = None if run.method == "sparse coding" else code_cost(run.method, d, n, run.k, run.effort)
    return {
        "step_released": training and training(True).of(b),
        "step_corrected": training and training(False).of(b),
        "step_products": training and training(False).matmul * b,
        "sample_formula": codes and codes.of(1),
        "sample_products": codes and codes.matmul,
    }


def _counts(run: TimedRun, data: SparseData) -> dict:
    """Matrix products as torch counts them: of one step, forward and backward, and per sample of inference."""
    x, atoms = data.train_x, data.atoms
    step = sample = None
    if run.method in ("sae", "mlp"):
        models = _encoder(run)
        parameters = [weight[0].clone().requires_grad_() for weight in models.weights]
        dictionary = models.dictionary[0].clone().requires_grad_()

        def step():
            z = x
            for weight in parameters:
                z = torch.relu(z @ weight)
            (x - z @ dictionary).square().mean().backward()

        def sample():
            return models.encode(data.test_x)
    elif run.method == "sparse coding":
        step = _descent(x, atoms.clone().requires_grad_())
    elif run.method == "optimisation":
        sample = _descent(data.test_x, atoms)
    elif run.method == "lista":
        sample = _inference(run, data)[0]
    elif run.method == "fista":

        def sample():  # the textbook step; the library takes the Gram matrix where that is cheaper
            return (torch.zeros(len(x), run.n_atoms) @ atoms - data.test_x) @ atoms.T

    times = run.effort if run.method in ITERATED else 1
    return {
        "step_counted": step and counted(step),
        "sample_counted": sample and times * counted(sample) / len(data.test_x),
    }


def _descent(x: torch.Tensor, dictionary: torch.Tensor) -> Callable[[], None]:
    """One step of exp-codes, forward and backward; of the dictionary too if it asks for a gradient."""
    q = torch.full((len(x), len(dictionary)), -1.0, requires_grad=True)
    return lambda: (x - q.exp() @ dictionary).square().mean().backward()


def timed_cost(run: TimedRun) -> float:
    """Seconds on one core, from runs at three sizes."""
    size = run.n_atoms * run.d_in / 128
    slow = {"oracle": 0.2, "optimisation": 0.03, "omp": 0.04}.get(run.method, 0.02)
    return 0.1 + run.repeats * run.samples / 1024 * (
        slow * size**0.75 + 0.03 * max(run.effort * (run.method == "mlp"), 32) / 32
    )


TIMES = Study(KEY, "compute-times", "Operations counted, time measured", timed_runs, measure_times, timed_cost)


# ----------------------------------------------------------------------------------------------------- what pages show


def with_quality(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `CODES` with q = (MCC - chance) / (oracle - chance) of each data set.

    Chance is FISTA with a random dictionary; the oracle is l0 search or, where that is too long, the best FISTA.
    """
    cell = ["n_atoms", "d_in", "k", "data_seed"]
    chance = rows[rows.method == "random dictionary"].groupby(cell).mcc.mean().rename("chance")
    top = rows[rows.method.isin(["oracle", "fista"])].groupby(cell).mcc.max().rename("oracle_mcc")
    found = rows.join(chance, on=cell).join(top, on=cell)
    return found.assign(q=(found.mcc - found.chance) / (found.oracle_mcc - found.chance), name=found.method.map(NAMES))


def sparse_coding_slip(rows: pd.DataFrame) -> pd.DataFrame:
    """Training step of sparse coding and SAE at every size: released, corrected and counted operations."""
    step = rows[rows.method.isin(["sae", "sparse coding"])]
    keep = ["n_atoms", "d_in", "method", "step_released", "step_corrected", "step_products", "step_counted", "ms_step"]
    return step[keep].assign(
        released_over_corrected=step.step_released / step.step_corrected,
        corrected_over_counted=step.step_corrected / step.step_counted,
    )


def ratios(n_atoms: int = 16, d_in: int = 8, adam: int = 10_000, iterations: int = 100) -> dict[str, float]:
    """Ratios of operations that the page quotes, from the formulas alone: per sample, or per step of 1,024."""
    sae, descent = flops.sae_inference(d_in, n_atoms).of(1), flops.optimisation(d_in, n_atoms, adam).of(1)
    coding = [flops.sparse_coding_training(d_in, n_atoms, True, released, 1024).of(1024) for released in (True, False)]
    released, corrected = (flops.sae_training(d_in, n_atoms, True, one).of(1024) for one in (True, False))
    return {
        f"{adam:,} Adam steps on the codes of a sample / one SAE inference with its decoder": descent / sae,
        f"{adam:,} Adam steps / {iterations} FISTA iterations": descent
        / flops.fista_inference(d_in, n_atoms, iterations).of(1),
        "sparse-coding training step: released / corrected": coding[0] / coding[1],
        "training step, sparse coding / SAE, both as released": coding[0] / released,
        "training step, sparse coding corrected / SAE as released": coding[1] / released,
        "training step, sparse coding / SAE, both corrected": coding[1] / corrected,
    }


PUBLISHED = pd.DataFrame(  # stored results of the authors, data seed 20240625, Adam 1e-3
    [("optimisation", t, mcc) for t, mcc in ((1000, 0.6089), (2000, 0.7029), (5000, 0.7387), (10_000, 0.9415))]
    + [("optimisation", 19_900, 0.9667), ("sae", 0, 0.609), ("mlp", 32, 0.780), ("mlp", 256, 0.818)],
    columns=["method", "effort", "mcc"],
).assign(
    flops_sample=lambda t: [code_cost(m, 8, 16, 3, e).of(1) for m, e in zip(t.method, t.effort, strict=True)],
    name=lambda t: t.method.map(NAMES),
)


STUDIES = (CODES, TIMES)

FIGURES = {
    "compute-optimal-inference": (
        CODES,
        "amortisation_design.compute_optimal",
        lambda rows: (with_quality(rows), PUBLISHED),
    ),
    "compute-times": (TIMES, "amortisation_design.times", lambda rows: (rows,)),
    "compute-counts": (TIMES, "amortisation_design.counts", lambda rows: (sparse_coding_slip(rows),)),
}

CLAIMS = ()
