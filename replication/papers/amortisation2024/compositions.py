"""The follow-up's test: combinations of atoms that were never seen (Barin Pacela et al. 2026; no claim of its own)."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch.nn.functional import normalize

from replication.inference import dl_fista, fista, matching_pursuit, refit
from replication.inference.adam import adam
from replication.matching import correlations, dictionary_cosine, matched_mean
from replication.papers.amortisation2024.dictionary import NAMES, RANDOM, matrix_gaps, split, together
from replication.papers.amortisation2024.grid import KEY
from replication.papers.amortisation2024.known import logged, normalised
from replication.results import Study
from replication.shapes import Bool, Float, Tensor
from replication.synthetic import CompositionData, Compositions, natural_boundary, random_dictionary
from replication.train import default_device

SAES = ("relu", "jumprelu", "topk", "mp")
PENALISED = ("relu", "jumprelu")
METHODS = (*SAES, "dl-fista", "none")
STARTS = ("random", "relu", "topk")
LAM, ITERATIONS = 0.1, 100  # of FISTA, as the follow-up has them
SWEEP = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0)  # other lam of FISTA on test samples
WARM = (1, 2, 5, 10, 20, 50, 100)  # iterations of FISTA from zero and from an encoder's codes
TESTED, FEW = 2500, 500  # test samples of a set; those on which supports are refitted and FISTA is varied
BATCH = 64
POINTS = 10  # of the curve of the dictionary's cosine
THETA, BANDWIDTH = 0.1, 0.1  # JumpReLU: first threshold, and the window around it that trains it; codes are U(0, 1)


@dataclass(frozen=True)
class Composition:
    """One way to learn a dictionary from compositions of atoms, tested on known and on new ones.

    SAEs train on batches of BATCH for `steps` steps: `relu` and `jumprelu` with a penalty `lam`, `topk` with k active,
    `mp` with k steps of matching pursuit as encoder. `dl-fista` takes `steps` rounds of `inner` iterations from a
    `start` at random or at the dictionary of an SAE trained for `start_steps`; `none` learns nothing: oracle, chance
    and a linear probe. The first `train` of `samples` training samples are used. `d_in` None is ceil(2 k ln(n/k)).
    """

    method: str
    n_atoms: int
    k: int = 10
    d_in: int | None = None
    train: int = 2500
    samples: int = 2500
    steps: int = 0
    lr: float = 5e-4
    lam: float = 0.0
    inner: int = 0
    start: str = "random"
    start_steps: int = 0
    data_seed: int = 0
    seed: int = 0

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if self.start not in STARTS:
            raise ValueError(f"start must be one of {', '.join(STARTS)}, got {self.start!r}")
        if self.start != "random" and self.method != "dl-fista":
            raise ValueError(f"start must be random for {self.method}, got {self.start!r}")
        if (self.steps >= 1) != (self.method != "none") or self.steps < 0:
            raise ValueError(f"steps must be positive for what is learned and 0 else, got {self.steps}")
        if (self.inner >= 1) != (self.method == "dl-fista") or self.inner < 0:
            raise ValueError(f"inner must be positive for dl-fista and 0 else, got {self.inner}")
        if (self.start_steps >= 1) != (self.start != "random") or self.start_steps < 0:
            raise ValueError(f"start_steps must be positive for a start from an SAE and 0 else, got {self.start_steps}")
        penalised = self.method in PENALISED or self.start in PENALISED
        if (self.lam > 0) != penalised or not 0 <= self.lam < math.inf:
            raise ValueError(f"lam must be positive and finite for a penalised SAE and 0 else, got {self.lam}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive and finite, got {self.lr}")
        if not BATCH <= self.train <= self.samples:
            raise ValueError(f"train must be between {BATCH} and samples={self.samples}, got {self.train}")
        object.__setattr__(self, "d_in", self.data().d_in)

    def data(self) -> Compositions:
        return Compositions(self.n_atoms, self.k, self.d_in, self.samples, self.data_seed)


UNTUNED = 0.002  # lam that stands for the follow-up's ReLU SAE, whose gamma is on an unknown scale: an assumption
TUNING_SEED = 100  # data seeds from here on choose penalties; those from 0 on are reported


@dataclass(frozen=True)
class Plan:
    """What a preset learns from compositions."""

    atoms: tuple[int, ...]
    k: int
    steps: int
    pursuits: int
    """Steps of an MP-SAE, each of which costs several of another SAE."""
    lr: float
    rounds: int
    inner: int
    lams: dict[str, tuple[float, ...]]
    """Penalties of `relu`, UNTUNED always among them, and of `jumprelu`."""
    curve_atoms: int
    trains: tuple[int, ...]
    """Training samples of the curve at `curve_atoms`, besides `samples`."""
    samples: int = 2500
    seeds: int = 3
    tuning: int = 2
    """Data seeds that are reported, and that choose penalties."""


FAST = 4  # times the rate, for a TopK SAE that asks whether the others are trained to the end
EPOCHS = 19_500  # steps of 500 epochs of 2,500 samples in batches of 64
LAMS = {"relu": (UNTUNED, 0.02, 0.05, 0.1, 0.2), "jumprelu": (0.01, 0.03, 0.1)}
PLANS = {
    "smoke": Plan((12, 16), 3, 30, 10, 5e-3, 3, 5, {"relu": (UNTUNED, 0.1), "jumprelu": (0.03,)}, 12, (64,), 128, 2, 1),
    "cpu": Plan((50, 100), 10, EPOCHS // 2, EPOCHS // 4, 1e-3, 200, 20, LAMS, 100, (250, 1000)),
    "gpu": Plan((50, 100, 500), 10, EPOCHS, EPOCHS, 5e-4, 1000, 100, LAMS, 100, (250, 1000, 10_000, 50_000), seeds=5),
    "paper": Plan((50, 100, 500, 1000, 5000), 10, EPOCHS, EPOCHS, 5e-4, 1000, 100, LAMS, 100, (50_000,)),
}


def runs(preset: str) -> list[Composition]:
    """Every method at every number of atoms, the curve over samples, and the seeds that choose penalties."""
    plan, found = PLANS[preset], []

    def penalised(shape: dict, method: str) -> list[Composition]:
        return [Composition(method, **shape, steps=plan.steps, lam=lam) for lam in plan.lams[method]]

    for n_atoms, train in [(n, plan.samples) for n in plan.atoms] + [(plan.curve_atoms, one) for one in plan.trains]:
        base = {"n_atoms": n_atoms, "k": plan.k, "train": train, "samples": max(train, plan.samples), "lr": plan.lr}
        whole, turns = train == plan.samples, {"steps": plan.rounds, "inner": plan.inner}
        for data_seed in range(plan.seeds):
            shape = base | {"data_seed": data_seed}
            found += [Composition("none", **shape), *penalised(shape, "relu")]
            found += [Composition("topk", **shape, steps=plan.steps), Composition("dl-fista", **shape, **turns)]
            if whole:
                warm = {**turns, "start_steps": plan.steps}
                found += [*penalised(shape, "jumprelu"), Composition("mp", **shape, steps=plan.pursuits)]
                found += [Composition("topk", **shape | {"lr": FAST * plan.lr}, steps=plan.steps)]
                found += [Composition("dl-fista", **shape, **warm, start="relu", lam=UNTUNED)]
                found += [Composition("dl-fista", **shape, **warm, start="topk")]
        for data_seed in range(TUNING_SEED, TUNING_SEED + plan.tuning) if whole else ():
            found += [one for method in PENALISED for one in penalised(base | {"data_seed": data_seed}, method)]
    return found


@dataclass(frozen=True)
class PhasePlan:
    """The phase diagram of a preset: sizes (n_atoms, k), and d_in as multiples of k ln(n_atoms / k)."""

    sizes: tuple[tuple[int, int], ...]
    ratios: tuple[float, ...]
    steps: int
    lr: float
    rounds: int
    inner: int
    samples: int = 2500
    seeds: int = 3


PHASE_PLANS = {
    "smoke": PhasePlan(((12, 3),), (1.0, 2.0), 30, 5e-3, 3, 5, 128, 2),
    "cpu": PhasePlan(((50, 5),), (1.0, 1.25, 1.5, 2.0, 3.0), EPOCHS // 4, 2e-3, 100, 20),
    "gpu": PhasePlan(((50, 5), (100, 5), (100, 10), (200, 10)), (1.0, 1.25, 1.5, 2.0, 2.5, 3.0), EPOCHS, 5e-4, 500, 50),
    "paper": PhasePlan(
        ((50, 3), (50, 5), (100, 5), (100, 10), (200, 10)), (0.5, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0), EPOCHS, 5e-4, 500, 50
    ),
}


def phase_runs(preset: str) -> list[Composition]:
    """Oracle, DL-FISTA, TopK, and a ReLU SAE with the penalty of the objective that DL-FISTA minimises."""
    plan, found = PHASE_PLANS[preset], []
    for n_atoms, k in plan.sizes:
        for d_in in sorted({math.ceil(ratio * natural_boundary(n_atoms, k)) for ratio in plan.ratios}):
            for data_seed in range(plan.seeds):
                shape = {"n_atoms": n_atoms, "k": k, "d_in": d_in, "lr": plan.lr, "data_seed": data_seed}
                shape |= {"train": plan.samples, "samples": plan.samples}
                found += [
                    Composition("none", **shape),
                    Composition("relu", **shape, steps=plan.steps, lam=LAM),
                    Composition("topk", **shape, steps=plan.steps),
                    Composition("dl-fista", **shape, steps=plan.rounds, inner=plan.inner),
                ]
    return found


def measure(runs: Iterable[Composition]) -> Iterator[tuple[Composition, dict]]:
    """Scores of known and of new compositions; models of one shape train together over penalties and data seeds."""
    trained: dict[tuple, Tensor] = {}  # dictionaries of SAEs, where DL-FISTA starts
    drawn: dict[Compositions, CompositionData] = {}
    for group in sorted(together(runs), key=lambda group: group[0].start != "random"):
        began = time.perf_counter()
        for run in group:
            if run.data() not in drawn:
                drawn[run.data()] = run.data().draw()
        columns = learned(group, [drawn[run.data()] for run in group], trained)
        share = (time.perf_counter() - began) / len(group)
        for run, one in zip(group, columns, strict=True):
            yield run, one | {"seconds": share}


def learned(runs: Sequence[Composition], data: Sequence[CompositionData], trained: dict[tuple, Tensor]) -> list[dict]:
    """Learn the dictionaries of one shape, and score them; what an SAE has learned is kept in `trained`."""
    run, device = runs[0], default_device()
    x = torch.stack([one.train_x[: run.train] for one in data]).to(device)
    atoms = torch.stack([one.atoms for one in data]).to(device)
    if run.method == "none":
        generators = [torch.Generator().manual_seed(one.data_seed + RANDOM) for one in runs]
        other = torch.stack([random_dictionary(*one.atoms.shape, g) for one, g in zip(data, generators, strict=True)])
        oracle, chance = (scores(data, one, atoms) for one in (atoms, other.to(device)))
        probes = [probed(one, run.train) for one in data]
        return [
            a | {f"chance_{name}": value for name, value in b.items()} | probe
            for a, b, probe in zip(oracle, chance, probes, strict=True)
        ]
    start = torch.stack([unit_start(*one.atoms.shape, r.seed) for one, r in zip(data, runs, strict=True)]).to(device)
    at = [0, *logged(run.steps, POINTS)]

    def cosines(dictionary: Tensor) -> Tensor:
        return dictionary_cosine(atoms, normalize(dictionary, dim=-1))

    if run.method in SAES:
        model, curve = train(run.method, x, start, run.steps, run.lr, [one.lam for one in runs], run.k, at, cosines)
        trained |= {_sae(one, one.method, one.steps): rows for one, rows in zip(runs, model.dictionary, strict=True)}
        found = scores(data, model.dictionary, atoms, model.encode)
    else:
        if run.start != "random":
            start = _from_saes(runs, x, start, trained)
        result = dl_fista(x, start, lam=LAM, rounds=run.steps, iterations=run.inner, at=at, measure=cosines)
        curve, found = result.curve, scores(data, result.dictionary, atoms)
    steps = sorted(curve)
    return [
        one | {"curve_step": steps, "curve_cosine": [float(curve[step][i]) for step in steps]}
        for i, one in enumerate(found)
    ]


def _from_saes(runs: Sequence[Composition], x: Tensor, start: Tensor, trained: dict[tuple, Tensor]) -> Tensor:
    """Dictionaries of the SAEs from which these runs start, trained now where they are not yet."""
    run, keys = runs[0], [_sae(one, one.start, one.start_steps) for one in runs]
    lost = [i for i, key in enumerate(keys) if key not in trained]
    if lost:
        lams = [runs[i].lam for i in lost]
        model, _ = train(run.start, x[lost], start[lost], run.start_steps, run.lr, lams, run.k)
        trained |= dict(zip([keys[i] for i in lost], model.dictionary, strict=True))
    return torch.stack([trained[key] for key in keys])


def _sae(run: Composition, method: str, steps: int) -> tuple:
    """What an SAE's dictionary depends on."""
    return method, run.data(), run.train, steps, run.lr, run.lam, run.seed


def unit_start(n_atoms: int, d_in: int, seed: int) -> Float[Tensor, "n_atoms d_in"]:
    """Gaussian directions from which a dictionary is learned."""
    return random_dictionary(n_atoms, d_in, torch.Generator().manual_seed(seed + 42))


@dataclass(frozen=True)
class Tied:
    """SAEs whose encoder starts at the decoder's transpose; leading dimension model. A bias in the encoder alone."""

    W_enc: Float[Tensor, "models d_in n"]
    b_enc: Float[Tensor, "models 1 n"]
    dictionary: Float[Tensor, "models n d_in"]
    theta: Float[Tensor, "models 1 n"] | None = None
    """Thresholds of JumpReLU."""
    k: int | None = None
    """Active latents of TopK."""

    def pre(self, x: Float[Tensor, "models samples d_in"]) -> Float[Tensor, "models samples n"]:
        return torch.baddbmm(self.b_enc, x, self.W_enc)

    def sparsify(self, pre: Float[Tensor, "models samples n"]) -> Float[Tensor, "models samples n"]:
        if self.theta is not None:
            return pre * (pre > self.theta)
        z = torch.relu(pre)
        if self.k is None:
            return z
        top = z.topk(self.k, dim=-1)
        return torch.zeros_like(z).scatter_(-1, top.indices, top.values)

    def encode(self, x: Float[Tensor, "models samples d_in"]) -> Float[Tensor, "models samples n"]:
        return self.sparsify(self.pre(x))


@dataclass(frozen=True)
class Pursuer:
    """SAEs whose encoder is k steps of matching pursuit on their own dictionary (MP-SAE)."""

    dictionary: Float[Tensor, "models n d_in"]
    k: int

    def encode(self, x: Float[Tensor, "models samples d_in"]) -> Float[Tensor, "models samples n"]:
        return torch.stack([matching_pursuit(*one, self.k) for one in zip(x, self.dictionary, strict=True)])


def train(
    method: str,
    x: Float[Tensor, "models samples d_in"],
    start: Float[Tensor, "models n d_in"],
    steps: int,
    lr: float,
    lams: Sequence[float],
    k: int,
    at: Iterable[int] = (),
    record: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tied | Pursuer, dict[int, Tensor]]:
    """Adam on batches of BATCH; the models, and what `record(dictionary)` says after each step of `at`.

    Rows of D are put at unit norm before each step and their gradient is projected on the sphere. Every model sees the
    same order of samples, epoch by epoch: its result does not depend on its company.
    """
    models, n, d_in = start.shape
    shapes = {"D": (n, d_in)}
    first = [start.reshape(-1)]
    if method != "mp":
        shapes = {"W": (d_in, n), "b": (1, n), "theta": (1, n)} | shapes
        first = [start.mT.reshape(-1), start.new_zeros(models * n), start.new_full((models * n,), THETA), *first]
    flat = torch.cat(first)
    gradient = torch.zeros_like(flat)
    sizes = [models * math.prod(shape) for shape in shapes.values()]
    values, slopes = (
        {name: part.view(models, *shapes[name]) for name, part in zip(shapes, one.split(sizes), strict=True)}
        for one in (flat, gradient)
    )
    D, dD = values["D"], slopes["D"]
    batches = _batches(x)
    if method == "mp":

        def differentiate():
            pursuit_gradient(next(batches), D, k, dD)

        def model() -> Pursuer:
            return Pursuer(normalize(D, dim=-1), k)
    else:
        theta = values["theta"] if method == "jumprelu" else None
        tied = Tied(values["W"], values["b"], D, theta, k if method == "topk" else None)
        penalty = torch.as_tensor(lams, dtype=x.dtype, device=x.device).view(-1, 1, 1) / BATCH

        def differentiate():
            values["theta"].clamp_(min=0)
            tied_gradient(next(batches), tied, penalty, slopes)

        def model() -> Tied:
            jump = None if theta is None else theta.clone()
            return Tied(values["W"].clone(), values["b"].clone(), normalize(D, dim=-1), jump, tied.k)

    def step():
        D.div_(torch.linalg.vector_norm(D, dim=-1, keepdim=True))
        differentiate()
        dD.sub_((dD * D).sum(-1, keepdim=True) * D)

    curve = adam(flat, gradient, step, steps=steps, lr=lr, at=at, record=lambda: record(D))
    return model(), curve


def _batches(x: Float[Tensor, "models samples d_in"]) -> Iterator[Float[Tensor, "models batch d_in"]]:
    """Batches without end, in one order for all models; an epoch leaves the samples out that fill no batch."""
    samples = x.shape[1]
    order = torch.Generator().manual_seed(samples)
    while True:
        shuffled = torch.randperm(samples, generator=order)[: samples // BATCH * BATCH].to(x.device)
        for chosen in shuffled.split(BATCH):
            yield x.index_select(1, chosen)


def tied_gradient(x: Tensor, sae: Tied, penalty: Tensor, slopes: dict[str, Tensor]) -> None:
    """Writes the gradient of the batch mean of |x - z D|^2 / 2 + lam S(z) into `slopes`; `penalty` is lam / batch.

    S is |z|_1 for ReLU. For JumpReLU, z = pre H(pre - theta), it is the number of active latents, which reaches theta
    alone, by the pseudo-derivatives of Rajamanoharan et al. 2024 with a rectangular window (eqs. 11 and 12). TopK has
    none.
    """
    D = sae.dictionary
    pre = sae.pre(x)
    z = sae.sparsify(pre)
    left = torch.baddbmm(x, z, D, beta=-1).div_(len(x[0]))
    if sae.theta is None:
        dz = torch.baddbmm(penalty, left, D.mT) * (z > 0)
    else:
        error = torch.bmm(left, D.mT)
        window = ((pre - sae.theta).abs() < BANDWIDTH / 2) / BANDWIDTH
        torch.sum((sae.theta * error + penalty) * window, 1, keepdim=True, out=slopes["theta"])
        slopes["theta"].neg_()
        dz = error * (z > 0)
    torch.bmm(x.mT, dz, out=slopes["W"])
    torch.sum(dz, 1, keepdim=True, out=slopes["b"])
    torch.bmm(z.mT, left, out=slopes["D"])


def pursuit_gradient(x: Tensor, D: Tensor, k: int, dD: Tensor) -> None:
    """Writes the gradient of the batch mean of |r_k|^2 / 2 into `dD`: r_0 = x, and k times r <- r - c d, c = r . d the
    largest correlation with a row of D, if positive. Which row is chosen has no derivative, c and d have (Costa et al.
    2025)."""
    left, path = x, []
    for _ in range(k):
        c, index = torch.bmm(left, D.mT).max(-1, keepdim=True)
        c.clamp_(min=0)
        index = index.expand(-1, -1, D.shape[-1])
        d = D.gather(1, index)
        path.append((left, c, d, index))
        left = torch.addcmul(left, c, d, value=-1)
    dD.zero_()
    slope = left / len(x[0])
    for before, c, d, index in reversed(path):
        along = (slope * d).sum(-1, keepdim=True) * (c > 0)
        dD.scatter_add_(1, index, -(c * slope + along * before))
        slope = torch.addcmul(slope, along, d, value=-1)


def scores(
    data: Sequence[CompositionData],
    dictionary: Float[Tensor, "models n d_in"],
    atoms: Float[Tensor, "models n d_in"],
    encode: Callable[[Tensor], Tensor] | None = None,
) -> list[dict]:
    """Of each model: latent MCC on known (`id`) and new (`ood`) compositions with its encoder and with FISTA on its
    dictionary; AUC of atom 0's latent; and on FEW new ones what changes an inference: its lam, its start, a refit."""
    columns: dict[str, Tensor | list] = {"dict_cosine": dictionary_cosine(atoms, dictionary)}
    known = None
    for name in ("val", "ood"):
        x, codes = (
            torch.stack([getattr(one, f"{name}_{part}")[:TESTED] for one in data]).to(atoms.device)
            for part in ("x", "codes")
        )
        ways = {"fista": fista(x, dictionary, LAM, ITERATIONS)} | ({"encoder": encode(x)} if encode else {})
        known = known or (codes, ways)
        suffix = "id" if name == "val" else "ood"
        for way, latents in ways.items():
            columns[f"{way}_{suffix}"] = varying_mcc(codes, latents)
            columns[f"{way}_active_{suffix}"] = (latents > 0).float().sum(-1).mean(-1)
            columns[f"{way}_auc_{suffix}"] = _told(known[0], known[1][way], codes, latents)
    few = slice(0, FEW)
    own, codes = ways.get("encoder", ways["fista"])[:, few], codes[:, few]
    again = [refit(*one) for one in zip(x[:, few], dictionary, own > 0, strict=True)]
    columns["refit_ood"] = varying_mcc(codes, torch.stack(again))
    lists = {"sweep_ood": [varying_mcc(codes, fista(x[:, few], dictionary, lam, ITERATIONS)) for lam in SWEEP]}
    for way, begin in (("cold", None), ("warm", own)) if encode else ():
        lists[f"{way}_ood"] = [varying_mcc(codes, fista(x[:, few], dictionary, LAM, t, begin)) for t in WARM]
    return [
        {name: float(one[i]) for name, one in columns.items()}
        | {name: [float(point[i]) for point in one] for name, one in lists.items()}
        for i in range(len(data))
    ]


def varying_mcc(
    codes: Float[Tensor, "models samples n_atoms"], latents: Float[Tensor, "models samples n"]
) -> Float[Tensor, " models"]:
    """Mean |Pearson| under the best assignment over the atoms that are active at all.

    New compositions hold atom 0 and the last half of the atoms; the others are 0 in every sample, correlate with
    nothing, and would hold even the oracle at about one half.
    """
    found = [
        correlations(truth[:, (truth != 0).any(0)], latent).abs() for truth, latent in zip(codes, latents, strict=True)
    ]
    return torch.stack([matched_mean(one) for one in found])


def _told(known: Tensor, seen: Tensor, codes: Tensor, latents: Tensor) -> list[float]:
    """AUC for atom 0 above 0.5 of the latent that correlates most with atom 0 on known compositions, with the sign that
    it has there; each model."""
    found = []
    for truth, latent, new_truth, new_latent in zip(known, seen, codes, latents, strict=True):
        with_atom_0 = correlations(truth[:, :1], latent)[0]
        best = with_atom_0.abs().argmax()
        found.append(auc(with_atom_0[best].sign() * new_latent[:, best], CompositionData.labels(new_truth)))
    return found


def auc(score: Float[Tensor, " samples"], labels: Bool[Tensor, " samples"]) -> float:
    """Area under the ROC curve: how often a positive sample's score exceeds a negative one's; ties half. Chance .5."""
    positive = labels.cpu().numpy()
    ranks, many = rankdata(score.detach().cpu().numpy()), positive.sum()
    return float((ranks[positive].sum() - many * (many + 1) / 2) / (many * (~positive).sum()))


def probed(data: CompositionData, train: int) -> dict[str, float]:
    """AUC of a linear probe for atom 0 above 0.5, fitted to labels of the training samples: what supervision gets."""
    weights = logistic(data.train_x[:train], data.labels(data.train_codes[:train]))
    sets = {"id": (data.val_x, data.val_codes), "ood": (data.ood_x, data.ood_codes)}
    return {
        f"probe_auc_{name}": auc(x[:TESTED].double() @ weights[:-1], data.labels(codes[:TESTED]))
        for name, (x, codes) in sets.items()
    }


def logistic(
    x: Float[Tensor, "samples d_in"], labels: Bool[Tensor, " samples"], ridge: float = 1e-2, steps: int = 30
) -> Float[Tensor, " weights"]:
    """Weights and a bias of logistic regression, by Newton's method on the summed loss + ridge |w|^2 / 2."""
    x = torch.cat([x.double(), x.new_ones(len(x), 1).double()], 1)
    w = x.new_zeros(x.shape[1])
    eye = ridge * torch.eye(len(w), dtype=x.dtype)
    for _ in range(steps):
        p = torch.sigmoid(x @ w)
        slope = x.T @ (p - labels.double()) + ridge * w
        w = w - torch.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) + eye, slope)
    return w


def seconds(run: Composition) -> float:
    """Seconds of a run on one core, from timings of the `cpu` preset."""
    sae = 3e-5 + 1.4e-8 * run.n_atoms * run.d_in
    step = {
        "none": 0.0,
        "relu": sae,
        "jumprelu": 1.5 * sae,
        "topk": 1.8 * sae,
        "mp": 7e-4,
        "dl-fista": 3.3e-11
        * run.train
        * run.n_atoms
        * (run.inner * min(run.n_atoms, 2 * run.d_in) + run.n_atoms + run.d_in),
    }[run.method]
    return 0.1 + 3e-8 * min(run.samples, TESTED) * run.n_atoms * run.d_in + step * run.steps


COMPOSITIONS = Study(KEY, "compositions", "Combinations of atoms that were never seen", runs, measure, seconds)
PHASE = Study(KEY, "phase", "How many inputs a dictionary learner needs", phase_runs, measure, seconds)

UNTUNED_RELU, TUNED_RELU, TUNED_JUMP = "ReLU SAE, untuned", "ReLU SAE, tuned", "JumpReLU SAE, tuned"
TOPK, FAST_TOPK, MP, DL = "TopK SAE", f"TopK SAE, rate × {FAST}", "MP-SAE", "DL-FISTA"
SHOWN = (UNTUNED_RELU, TUNED_RELU, TUNED_JUMP, TOPK, FAST_TOPK, MP, DL)
FOLLOW_UP = {  # the follow-up's stored means of three seeds: n -> label -> MCC on new compositions of encoder and FISTA
    50: {UNTUNED_RELU: (0.549, 0.498), TOPK: (0.603, 0.636), DL: (None, 0.917), "oracle": (None, 0.971)},
    100: {UNTUNED_RELU: (0.413, 0.387), TOPK: (0.705, 0.865), DL: (None, 0.945), "oracle": (None, 0.986)},
    500: {UNTUNED_RELU: (0.218, 0.211), TOPK: (0.212, 0.243), DL: (None, 0.955), "oracle": (None, 0.992)},
    1000: {UNTUNED_RELU: (0.183, 0.181), TOPK: (0.191, 0.193), DL: (None, 0.475), "oracle": (None, 0.993)},
    5000: {UNTUNED_RELU: (0.225, 0.255), TOPK: (0.344, 0.255), DL: (None, 0.262), "oracle": (None, 0.992)},
}
FOLLOW_UP_SAMPLES = pd.DataFrame(  # the same for other numbers of training samples, with the dictionary's cosine
    [
        (100, UNTUNED_RELU, 2_500, 0.413, 0.558),
        (100, TOPK, 2_500, 0.705, 0.930),
        (100, DL, 2_500, 0.945, math.nan),
        (100, UNTUNED_RELU, 50_000, 0.44, math.nan),
        (100, TOPK, 50_000, 0.803, math.nan),
        (100, DL, 50_000, 0.958, math.nan),
    ],
    columns=["n_atoms", "label", "train", "mcc_ood", "dict_cosine"],
).assign(per_atom=lambda stored: stored.train * 10 / stored.n_atoms)


def choices(rows: pd.DataFrame) -> pd.DataFrame:
    """Penalised SAEs on the seeds that choose: one line per method, n and lam, means over these seeds.

    `active` and `known` are active latents and MCC on known compositions. `chosen` is the lam of the best MCC;
    `nearest` the one whose active latents are closest to k, as a ratio, which needs k, as TopK does, and no truth.
    """
    found = rows[(rows.data_seed >= TUNING_SEED) & rows.method.isin(PENALISED)]
    means = found.groupby(["method", "n_atoms", "k", "lam"])[["encoder_active_id", "encoder_id"]].mean().reset_index()
    means = means.rename(columns={"encoder_active_id": "active", "encoder_id": "known"})
    cells = means.groupby(["method", "n_atoms"])
    far = np.log(means.active.clip(lower=1e-9) / means.k).abs()
    return means.assign(
        chosen=means.known == cells.known.transform("max"),
        nearest=far == far.groupby([means.method, means.n_atoms]).transform("min"),
    )


def choice_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`choices`, ready to be read."""
    found = choices(rows)
    return pd.DataFrame(
        {
            "SAE": found.method.map({"relu": "ReLU", "jumprelu": "JumpReLU"}),
            "n": found.n_atoms,
            "λ": found.lam.map("{:g}".format),
            "active latents": found.active.map("{:.1f}".format),
            "latent MCC, known": found.known.map("{:.3f}".format),
            "best score": found.chosen.map({True: "chosen", False: ""}),
            "nearest to k active": found.nearest.map({True: "nearest", False: ""}),
        }
    )


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """Reported rows of what was learned, with a label, samples per atom, and the controls of their data set beside.

    A penalised SAE appears as tuned, at the penalty of `choices`, and ReLU once more at UNTUNED; other penalties are
    left to `sparsities`.
    """
    same = ["n_atoms", "k", "train", "data_seed"]
    reported = rows[rows.data_seed < TUNING_SEED]
    blank = reported[reported.method == "none"]
    controls = {
        f"{prefix}{column}": f"{control}_{short}"
        for prefix, control in (("", "oracle"), ("chance_", "chance"))
        for column, short in (("fista_id", "id"), ("fista_ood", "ood"), ("dict_cosine", "cosine"))
    }
    blank = blank[[*same, *controls]].rename(columns=controls)
    found = reported[reported.method != "none"].drop(columns=[c for c in rows if c.startswith(("chance_", "probe_"))])
    chosen, usual = choices(rows).query("chosen")[["method", "n_atoms", "lam"]], found.lr.min()
    parts = [
        found[(found.method == "relu") & (found.lam == UNTUNED)].assign(label=UNTUNED_RELU),
        *(
            found.merge(chosen[chosen.method == method], on=["method", "n_atoms", "lam"]).assign(label=label)
            for method, label in (("relu", TUNED_RELU), ("jumprelu", TUNED_JUMP))
        ),
        found[(found.method == "topk") & (found.lr == usual)].assign(label=TOPK),
        found[(found.method == "topk") & (found.lr > usual)].assign(label=FAST_TOPK),
        found[found.method == "mp"].assign(label=MP),
        *(
            found[(found.method == "dl-fista") & (found.start == start)].assign(label=label)
            for start, label in (("random", DL), ("relu", f"{DL} from ReLU"), ("topk", f"{DL} from TopK"))
        ),
    ]
    found = pd.concat(parts, ignore_index=True).merge(blank, on=same, how="left")
    found = found.assign(per_atom=found.train * found.k / found.n_atoms)
    for name in ("id", "ood"):
        found[f"mcc_{name}"] = found[f"encoder_{name}"].fillna(found[f"fista_{name}"])
        found[f"q_{name}"] = normalised(found[f"mcc_{name}"], found[f"chance_{name}"], found[f"oracle_{name}"])
    return found


def full_size(found: pd.DataFrame) -> pd.DataFrame:
    """Those with the samples that all sizes share, not the others of the curve."""
    return found[found.train == found.groupby("train").n_atoms.nunique().idxmax()]


def composition_points(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per n, label, inference and seed: MCC of known (`id`) and new (`ood`) compositions, with controls."""
    found = full_size(named(rows))
    shown = found[found.label.isin(SHOWN)]
    keep = ["n_atoms", "data_seed", "label", "oracle_id", "oracle_ood", "chance_id", "chance_ood"]
    parts = [
        shown.rename(columns={f"{way}_id": "id", f"{way}_ood": "ood"})[[*keep, "id", "ood"]].assign(inference=way)
        for way in ("encoder", "fista")
    ]
    return pd.concat(parts, ignore_index=True).dropna(subset="ood")


def published_points() -> pd.DataFrame:
    """The follow-up's stored MCC on new compositions: n_atoms, label, inference, ood."""
    return pd.DataFrame(
        [
            {"n_atoms": n, "label": label, "inference": name, "ood": value}
            for n, stored in FOLLOW_UP.items()
            for label, pair in stored.items()
            for name, value in zip(("encoder", "fista"), pair, strict=True)
            if value is not None
        ]
    )


def composition_gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """`split` of SAEs on new compositions by FISTA; the published values are split the same way."""
    found = full_size(named(rows))
    found = found[found.encoder_ood.notna()]
    ours = split(found, found.encoder_ood, found.fista_ood, found.oracle_ood).assign(origin="ours")
    stored = pd.DataFrame(
        [
            {"n_atoms": n, "label": label, "encoder": pair[0], "fista": pair[1], "oracle": one["oracle"][1]}
            for n, one in FOLLOW_UP.items()
            for label, pair in one.items()
            if pair[0] is not None and n in set(found.n_atoms)
        ],
        columns=["n_atoms", "label", "encoder", "fista", "oracle"],
    )
    published = split(stored, stored.encoder, stored.fista, stored.oracle).assign(origin="published")
    columns = ["n_atoms", "label", "origin", "gap", "inference", "dictionary_part", "share"]
    return pd.concat([one[columns] for one in (ours, published) if len(one)], ignore_index=True)


def bars(matrix: pd.DataFrame, compositions: pd.DataFrame) -> pd.DataFrame:
    """Mean parts of the gap, one line per bar: regime, label, inference, dictionary_part."""
    first = matrix_gaps(matrix)
    first = first.assign(
        regime=[f"N = {n}, M = {m}, K = {k}" for n, m, k in zip(first.n_atoms, first.d_in, first.k, strict=True)],
        label=first.dictionary.map(NAMES),
    )
    second = composition_gaps(compositions)
    second = second.assign(
        regime=[f"new compositions, n = {n}" for n in second.n_atoms],
        label=second.label + np.where(second.origin == "published", ", published", ""),
    )
    both = pd.concat([one[["regime", "label", "inference", "dictionary_part"]] for one in (first, second)])
    return both.groupby(["regime", "label"], sort=False).mean().reset_index()


def sparsities(rows: pd.DataFrame) -> pd.DataFrame:
    """Reported rows of SAEs at every penalty and of TopK, with oracle and chance of their data beside them."""
    rows = rows[(rows.data_seed < TUNING_SEED) & (rows.lr == rows.lr.min())]
    found = full_size(rows[rows.method.isin([*PENALISED, "topk", "none"])])
    blank = found[found.method == "none"][["n_atoms", "data_seed", "fista_ood", "chance_fista_ood"]]
    blank = blank.rename(columns={"fista_ood": "oracle_ood", "chance_fista_ood": "chance_ood"})
    return found[found.method != "none"].merge(blank, on=["n_atoms", "data_seed"], how="left")


def curve(rows: pd.DataFrame) -> pd.DataFrame:
    """MCC of new compositions against training samples that hold an atom, at the n that has several sizes."""
    found = named(rows)
    found = found[found.n_atoms == found.groupby("n_atoms").train.nunique().idxmax()]
    sizes = found.groupby("label").train.nunique()
    return found[found.label.isin(sizes[sizes > 1].index)]


def variations(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What a FISTA on learned dictionaries depends on, and how dictionaries came about, at the largest n.

    `sweep`: lam of FISTA -> ood; `warm`: iterations and start (zero or the encoder's codes) -> ood; `learning`: share
    of training done -> dictionary cosine. One line per label, data seed and point.
    """
    found = full_size(named(rows))
    found = found[found.n_atoms == found.n_atoms.max()]
    keep = ["label", "data_seed"]
    swept = found[found.label.isin(SHOWN)].explode("sweep_ood", ignore_index=True).rename(columns={"sweep_ood": "ood"})
    swept["lam"] = list(SWEEP) * (len(swept) // len(SWEEP))
    own = found[found.encoder_ood.notna()]
    warm = pd.concat(
        [
            own.explode(f"{start}_ood", ignore_index=True)
            .rename(columns={f"{start}_ood": "ood"})
            .assign(begin=start, iterations=list(WARM) * len(own))
            for start in ("cold", "warm")
        ]
    )
    learning = found.explode(["curve_step", "curve_cosine"], ignore_index=True)
    learning = learning.assign(done=learning.curve_step / learning.steps, cosine=learning.curve_cosine)
    tables = {
        "sweep": swept[[*keep, "lam", "ood", "oracle_ood", "chance_ood"]],
        "warm": warm[[*keep, "begin", "iterations", "ood"]],
        "learning": learning[[*keep, "done", "cosine", "chance_cosine"]],
    }
    return {
        name: one.astype({c: float for c in one.columns if c not in (*keep, "begin")}) for name, one in tables.items()
    }


def surgeries(rows: pd.DataFrame) -> pd.DataFrame:
    """What an operation changes of MCC on FEW new compositions, one line per n, label and data seed."""
    found = full_size(named(rows))
    swept = np.array(found.sweep_ood.to_list())
    return found.assign(
        method=found.label,
        active=found.encoder_active_ood.fillna(found.fista_active_ood),
        encoder=found.encoder_ood,
        refit=found.refit_ood,
        same_lam=swept[:, SWEEP.index(LAM)],
        best_lam=swept.max(axis=1),
    )


def readings(rows: pd.DataFrame) -> pd.DataFrame:
    """AUC for atom 0 above 0.5 on known (`id`) and new (`ood`) compositions, one line per n, source and data seed.

    `direct` is read from the encoder's codes, or from x by the linear probe; `fista` from FISTA on the dictionary.
    """
    reported = full_size(rows[rows.data_seed < TUNING_SEED])
    blank, found = reported[reported.method == "none"], full_size(named(rows))
    sets = ("id", "ood")
    probe = {f"direct_{one}": blank[f"probe_auc_{one}"] for one in sets}
    chance = {f"fista_{one}": blank[f"chance_fista_auc_{one}"] for one in sets}
    oracle = {f"fista_{one}": blank[f"fista_auc_{one}"] for one in sets}
    both = {f"fista_{one}": found[f"fista_auc_{one}"] for one in sets}
    both |= {f"direct_{one}": found[f"encoder_auc_{one}"] for one in sets}
    none = {f"direct_{one}": math.nan for one in sets}
    columns = ["n_atoms", "data_seed", "source", *(f"{way}_{one}" for way in ("direct", "fista") for one in sets)]
    parts = [
        blank.assign(source="linear probe (labels)", **probe, **{f"fista_{one}": math.nan for one in sets}),
        blank.assign(source="random dictionary", **chance, **none),
        blank.assign(source="true dictionary", **oracle, **none),
        found.assign(source=found.label, **both)[found.label.isin(SHOWN)],
    ]
    return pd.concat([one[columns] for one in parts], ignore_index=True)


def phases(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per size, d_in, label and data seed: `ratio` = d_in / (k ln(n/k)), MCC of known and new compositions."""
    found = rows.assign(
        ratio=[d / natural_boundary(n, k) for n, k, d in zip(rows.n_atoms, rows.k, rows.d_in, strict=True)]
    )
    labels = {"none": "oracle", "relu": f"ReLU SAE, λ = {LAM:g}", "topk": TOPK, "dl-fista": DL}
    found = found.assign(label=found.method.map(labels))
    for name in ("id", "ood"):
        found[name] = found[f"encoder_{name}"].fillna(found[f"fista_{name}"])
    blank = found[found.method == "none"]
    chance = blank.assign(label="chance", id=blank.chance_fista_id, ood=blank.chance_fista_ood)
    return pd.concat([found, chance])[["n_atoms", "k", "d_in", "ratio", "label", "data_seed", "id", "ood"]]


CLAIMS = ()
STUDIES = (COMPOSITIONS, PHASE)
FIGURES: dict[str, tuple[Study, str, Callable]] = {
    "compositions": (
        COMPOSITIONS,
        "amortisation_dictionary.compositions",
        lambda rows: (composition_points(rows), published_points()),
    ),
    "compositions-sparsity": (COMPOSITIONS, "amortisation_dictionary.sparsity", lambda rows: (sparsities(rows),)),
    "compositions-samples": (
        COMPOSITIONS,
        "amortisation_dictionary.samples",
        lambda rows: (curve(rows), FOLLOW_UP_SAMPLES),
    ),
    "compositions-variations": (
        COMPOSITIONS,
        "amortisation_dictionary.variations",
        lambda rows: (variations(rows),),
    ),
    "phase": (PHASE, "amortisation_dictionary.phase", lambda rows: (phases(rows),)),
}
