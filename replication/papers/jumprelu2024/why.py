"""Why it trains: pseudo-derivatives as a kernel estimate, and what theta needs to move (JumpReLU, secs. 3, 4; J1, J9 to
J12)."""

import ast
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize

from replication.activations import ActivationSource
from replication.claims import (
    NOTHING,
    Claim,
    Evidence,
    NoEvidence,
    both,
    interpolate_loglog,
    judge,
    mean_interval,
)
from replication.evaluate.reconstruction import passed, reconstruction
from replication.kernels import KERNELS
from replication.matching import dictionary_cosine
from replication.papers.jumprelu2024.grid import KEY
from replication.results import Study
from replication.sae.base import squared_error
from replication.sae.jumprelu import JumpReLU, jumprelu, step
from replication.shapes import Float, Tensor
from replication.synthetic import random_dictionary
from replication.train import Run, train


@dataclass(frozen=True)
class Toy(ActivationSource):
    """Sparse sums of unit atoms plus noise, E|x|^2 = 1; every batch is new.

    x = (sum_i s_i a_i + noise e) / c: atom i is active with probability p_i proportional to 1 / sqrt(i), `active` atoms
    on average; s_i ~ U(0.5, 1.5), e ~ N(0, I), c such that E|x|^2 = 1. `seed` draws the atoms.
    """

    seed: int = 0
    width: int = 64
    n_atoms: int = 256
    active: float = 8.0
    noise: float = 0.03
    heldout_tokens: int = 8192

    def __post_init__(self):
        for name in ("width", "n_atoms", "heldout_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.active <= 0 or self.frequencies.max() > 1:
            raise ValueError(f"active must be positive and leave every probability below 1, got {self.active}")
        if self.noise < 0:
            raise ValueError(f"noise must be at least 0, got {self.noise}")

    @property
    def d_in(self) -> int:
        return self.width

    @cached_property
    def frequencies(self) -> Float[Tensor, " {self.n_atoms}"]:
        """p_i, the probability that atom i is active."""
        weights = torch.arange(1, self.n_atoms + 1).rsqrt()
        return self.active * weights / weights.sum()

    @cached_property
    def atoms(self) -> Float[Tensor, "{self.n_atoms} {self.width}"]:
        return random_dictionary(self.n_atoms, self.width, torch.Generator().manual_seed(self.seed))

    @cached_property
    def scale(self) -> float:
        """c = sqrt(E|x|^2) of what is not scaled yet: for m = p E[s], sum_i (p_i E[s^2] - m_i^2) + |m A|^2 + d noise^2.

        E[s] = 1, E[s^2] = 1 + 1/12.
        """
        p = self.frequencies
        spread = (p * 13 / 12 - p.square()).sum() + (p @ self.atoms).square().sum()
        return math.sqrt(float(spread) + self.width * self.noise**2)

    def draw(
        self, samples: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "samples width"], Float[Tensor, "samples n_atoms"]]:
        """x and its codes s / c. One uniform number decides whether an atom is active and, if it is, how much."""
        u, p = torch.rand(samples, self.n_atoms, generator=generator), self.frequencies
        codes = torch.where(u < p, 0.5 + u / p, 0) / self.scale
        noise = torch.randn(samples, self.width, generator=generator) * (self.noise / self.scale)
        return torch.addmm(noise, codes, self.atoms), codes

    def batches(self, batch, tokens, seed, device="cpu"):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(tokens // batch):
            yield self.draw(batch, generator)[0].to(device)

    def heldout(self, device="cpu"):
        generator = torch.Generator().manual_seed(2**32 - 1)  # no run has this seed
        return self.draw(self.heldout_tokens, generator)[0].to(device)


# The pseudo-derivatives against what they estimate


def variance(kernel: str) -> float:
    """Variance of a kernel of KERNELS: the integral of u^2 K(u)."""
    u = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
    return torch.trapezoid(u.square() * KERNELS[kernel](u), u).item()


def matched_bandwidth(kernel: str, bandwidth: float) -> float:
    """The bandwidth at which a kernel has the variance of the rectangle's window of width `bandwidth`."""
    return float(f"{bandwidth * math.sqrt(variance('rectangle') / variance(kernel)):.4g}")


def estimators(theta: float = 0.6, bandwidth: float = 0.2) -> pd.DataFrame:
    """JumpReLU and the step function over z, and their pseudo-derivatives in theta, as the library computes them.

    Columns function, kernel, z, value, derivative; all kernels have the variance of the rectangle's.
    """
    z = torch.linspace(0, 1.2, 961)
    found = []
    for (name, function), kernel in product((("JumpReLU", jumprelu), ("step", step)), KERNELS):
        thetas = torch.full((1, len(z)), theta, requires_grad=True)  # one each: a gradient is a sum over samples
        value = function(z[None], thetas[0], matched_bandwidth(kernel, bandwidth), kernel)
        (derivative,) = torch.autograd.grad(value.sum(), thetas)
        columns = {"z": z, "value": value.detach()[0], "derivative": derivative[0]}
        found.append(pd.DataFrame(columns).assign(function=name, kernel=kernel, theta=theta, bandwidth=bandwidth))
    return pd.concat(found, ignore_index=True)


SMALL = {"width": 8, "n_atoms": 16, "active": 3.0}  # the fixed problem: n = 8, M = 16
PENALTY = 0.1  # its lambda
CHUNK = 2**17
FIXED, INDEPENDENT = 7919, 104_729  # added to a seed: the generators of the fixed SAE and of the second sample


def fixed_sae(source: Toy, bandwidth: float) -> JumpReLU:
    """A JumpReLU SAE with a row near every atom, tied, without biases; theta_i ~ U(0.25, 0.45), lambda = PENALTY."""
    generator = torch.Generator().manual_seed(source.seed + FIXED)
    sae = JumpReLU(source.width, source.n_atoms, PENALTY, bandwidth=bandwidth)
    moved = torch.randn(source.n_atoms, source.width, generator=generator) * (0.3 / source.width**0.5)
    with torch.no_grad():
        sae.W_dec.copy_(normalize(source.atoms + moved, dim=-1))
        sae.W_enc.copy_(sae.W_dec.T)
        sae.theta_raw.copy_(0.25 + 0.2 * torch.rand(source.n_atoms, generator=generator))
    return sae


@torch.no_grad()
def losses(sae: JumpReLU, x: Float[Tensor, "n d_in"], theta: Float[Tensor, " d_sae"]) -> Float[Tensor, " n"]:
    """|x - recon|^2 + lambda L0 of each sample, with these thresholds."""
    pre = sae.pre(x)
    active = pre > theta
    return (x - sae.decode(pre * active)).square().sum(-1) + sae.sparsity * active.sum(-1)


@torch.no_grad()
def finite_difference(sae: JumpReLU, x: Float[Tensor, "n d_in"], h: float) -> Float[Tensor, " d_sae"]:
    """(L(theta_i + h) - L(theta_i - h)) / 2h for each latent, L the mean loss of the samples.

    Only samples with theta_i - h < pre_i <= theta_i + h have a difference; the loss is evaluated on those alone.
    """
    pre, theta = sae.pre(x), sae.theta
    found = torch.zeros(sae.d_sae, dtype=torch.float64)
    for i in range(sae.d_sae):
        near = x[(pre[:, i] - theta[i]).abs() <= 1.001 * h]  # a little more, for rounding
        shift = torch.zeros(sae.d_sae).index_fill_(0, torch.tensor(i), h)
        difference = losses(sae, near, theta + shift) - losses(sae, near, theta - shift)
        found[i] = difference.double().sum() / (2 * h * len(x))
    return found


def ste_gradient(sae: JumpReLU, x: Float[Tensor, "n d_in"], after_jump: bool = False) -> Float[Tensor, " d_sae"]:
    """The gradient in theta that training uses. `after_jump`: the wrong one, whose step function reads the latents
    after the jump instead of the pre-activations: those below theta are 0 and outside the window, half of it is lost.
    """
    if after_jump:
        latents = jumprelu(sae.pre(x), sae.theta, sae.bandwidth)
        l0 = step(latents, sae.theta, sae.bandwidth).sum(-1).mean()
        loss = squared_error(x, sae.decode(latents)) + sae.sparsity * l0
    else:
        loss = sae.objective(x, torch.empty(0, dtype=torch.int64)).loss
    return torch.autograd.grad(loss, sae.theta_raw)[0].double()


@dataclass(frozen=True)
class Estimate:
    """The straight-through gradient of a fixed SAE at one bandwidth, against a finite difference on other samples."""

    bandwidth: float
    after_jump: bool
    samples: int
    seed: int
    h: float = 0.01

    def __post_init__(self):
        for name in ("bandwidth", "h"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if self.samples < 4 or self.samples % min(CHUNK, self.samples // 2):
            raise ValueError(f"samples must be two chunks or a multiple of {CHUNK}, got {self.samples}")


BANDWIDTHS = (0.4, 0.2, 0.1, 0.05, 0.02)
ESTIMATES = {"smoke": (2**13, 2), "cpu": (2**20, 5), "gpu": (2**23, 10), "paper": (2**23, 10)}  # samples, seeds


def estimate_runs(preset: str) -> list[Estimate]:
    samples, seeds = ESTIMATES[preset]
    return [
        Estimate(bandwidth, after_jump, samples, seed)
        for seed, bandwidth, after_jump in product(range(seeds), BANDWIDTHS, (False, True))
    ]


def measure_estimate(runs: Iterable[Estimate]) -> Iterator[tuple[Estimate, dict]]:
    """Both gradients over all latents, their distance relative to the finite difference, and the noise of the latter
    (its standard error, from parts of the sample, over its norm)."""
    together = defaultdict(list)
    for run in runs:
        together[run.seed, run.samples, run.h].append(run)
    for (seed, samples, h), group in together.items():
        began = time.perf_counter()
        source = Toy(seed, **SMALL)
        chunk = min(CHUNK, samples // 2)
        saes = {run.bandwidth: fixed_sae(source, run.bandwidth) for run in group}
        first = next(iter(saes.values()))
        others = source.batches(chunk, samples, seed + INDEPENDENT)
        parts = torch.stack([finite_difference(first, x, h) for x in others])
        gradients = {run: torch.zeros(first.d_sae, dtype=torch.float64) for run in group}
        inside = {run: torch.zeros(first.d_sae) for run in group}
        for x in source.batches(chunk, samples, seed):
            for run in group:
                sae = saes[run.bandwidth]
                gradients[run] += ste_gradient(sae, x, run.after_jump) * (chunk / samples)
                with torch.no_grad():
                    inside[run] += ((sae.pre(x) - sae.theta).abs() < run.bandwidth / 2).sum(0)
        exact = parts.mean(0)
        noise = (parts.var(0).sum() / len(parts)).sqrt() / exact.norm()
        seconds = (time.perf_counter() - began) / len(group)
        for run in group:
            yield (
                run,
                {
                    "ste": gradients[run].tolist(),
                    "difference": exact.tolist(),
                    "relative_error": float((gradients[run] - exact).norm() / exact.norm()),
                    "noise": float(noise),
                    "in_window": int(inside[run].min()),
                    "theta_min": first.theta.min().item(),
                    "seconds": seconds,
                },
            )


def gradient_seconds(run: Estimate) -> float:
    """Seconds of a run."""
    return 0.01 + 5e-7 * run.samples


GRADIENTS = Study(
    KEY, "gradients", "Pseudo-derivatives and finite differences", estimate_runs, measure_estimate, gradient_seconds
)


@dataclass(frozen=True)
class Picture:
    """Pre-activations for two figures: one beside its true code, and one around the threshold that trains on it."""

    samples: int
    seed: int

    def __post_init__(self):
        if self.samples < 100:
            raise ValueError(f"samples must be at least 100, got {self.samples}")


BINS = 60
RULES = {  # name -> latent of a pre-activation z at a threshold
    "ReLU": lambda z, theta: z.relu(),
    "ReLU, bias lowered by theta": lambda z, theta: (z - theta).relu(),
    "JumpReLU": lambda z, theta: z * (z > theta),
}


def picture_runs(preset: str) -> list[Picture]:
    return [Picture(2**13 if preset == "smoke" else 2**17, seed) for seed in range(3)]


def screening(
    pre: Float[Tensor, " n"], codes: Float[Tensor, " n"], theta: float
) -> dict[str, tuple[float, float, float]]:
    """For each of RULES: the share of inactive samples it lets through, the magnitude of what it lets through of the
    active ones over the true one, and its squared error over that of answering 0."""
    found, active = {}, codes > 0
    for name, rule in RULES.items():
        out = rule(pre, theta)
        kept = active & (out > 0)
        found[name] = (
            (out[~active] > 0).float().mean().item(),
            (out[kept].sum() / codes[kept].sum()).item(),
            ((out - codes).square().sum() / codes.square().sum()).item(),
        )
    return found


def measure_picture(runs: Iterable[Picture]) -> Iterator[tuple[Picture, dict]]:
    """Histograms of the pre-activation of the most frequent atom of Toy, read by the atom itself, where it is active
    and where not; and of one latent, density and the mean of I = 2 theta d . (x - recon) over it (see `_window`)."""
    for run in runs:
        began = time.perf_counter()
        source = Toy(run.seed)
        x, codes = source.draw(run.samples, torch.Generator().manual_seed(run.seed))
        pre, code = x @ source.atoms[0], codes[:, 0]
        grid = torch.linspace(0, 0.6, 61)
        theta = float(grid[np.argmin([screening(pre, code, float(t))["JumpReLU"][2] for t in grid])])
        edges = torch.linspace(-0.4, 1.0, BINS + 1)
        width = float(edges[1] - edges[0])
        histograms = {
            name: (torch.histogram(pre[which], edges).hist / (run.samples * width)).tolist()
            for name, which in (("active", code > 0), ("inactive", code == 0))
        }
        screened = screening(pre, code, theta)
        yield (
            run,
            {
                "edges": edges.tolist(),
                **histograms,
                "best_theta": theta,
                **{
                    f"{column}_{name}": screened[rule][i]
                    for name, rule in zip(("relu", "lowered", "jump"), RULES, strict=True)
                    for i, column in enumerate(("false", "magnitude", "error"))
                },
                **_window(source, x),
                "seconds": time.perf_counter() - began,
            },
        )


TRUE_ATOMS = {"theta": 0.35, "penalty": 0.01, "bandwidth": 0.1}  # the SAE of the window's figure


@torch.no_grad()
def _window(source: Toy, x: Float[Tensor, "n d_in"], half: float = 0.02) -> dict:
    """Of latent 0 of a tied SAE that has the true atoms and one theta for all: the density of its pre-activation and
    the mean of I in bins, and the mean of I within `half` of theta where the latent is on and where it is off."""
    theta, penalty, bandwidth = TRUE_ATOMS.values()
    sae = JumpReLU(source.width, source.n_atoms, penalty, bandwidth=bandwidth, threshold=theta)
    sae.W_dec.copy_(source.atoms)
    sae.W_enc.copy_(source.atoms.T)
    pre = sae.pre(x)[:, 0].contiguous()
    gain = 2 * theta * ((x - sae(x).recon) @ sae.W_dec[0])
    edges = theta + torch.linspace(-0.45, 0.45, BINS + 1)  # theta is one of them
    hist = torch.histogram(pre, edges).hist
    sums = torch.histogram(pre, edges, weight=gain).hist
    near = (pre - theta).abs() < half
    on, off = (gain[near & side].mean().item() for side in (pre > theta, pre <= theta))
    return TRUE_ATOMS | {
        "window_edges": edges.tolist(),
        "window_density": (hist / (len(pre) * (edges[1] - edges[0]))).tolist(),
        "gain": torch.where(hist > 0, sums / hist.clamp(min=1), 0).tolist(),
        "gain_on": on,
        "gain_off": off,
    }


def picture_seconds(run: Picture) -> float:
    """Seconds of a run."""
    return 0.1 + 8e-6 * run.samples


PICTURE = Study(KEY, "picture", "Pre-activations around a threshold", picture_runs, measure_picture, picture_seconds)


# Short trainings on the toy data


class Plan(NamedTuple):
    """The trainings of a preset; every study compares with one sweep of lambda at the plan's bandwidth and start."""

    tokens: int
    batch: int
    lr: float
    d_sae: int
    source: dict
    seeds: int
    bandwidth: float
    threshold: float
    sweep: tuple[float, ...]
    """lambdas of the reference"""
    tested: tuple[float, ...]
    """lambdas of what is compared with it"""
    decades: tuple[float, ...]
    """lambdas of the study of saturation"""
    slow: float
    """its second learning rate"""
    bandwidths: tuple[float, ...]
    """beside the plan's own"""
    targets: tuple[float, ...]


PAPER_BANDWIDTH = 0.001
PLANS = {
    "smoke": Plan(
        tokens=2**11,
        batch=256,
        lr=3e-3,
        d_sae=64,
        source={"width": 16, "n_atoms": 32, "active": 2.0, "heldout_tokens": 512},
        seeds=2,
        bandwidth=0.03,
        threshold=0.02,
        sweep=(1e-3, 1e-2, 1e-1),
        tested=(1e-2,),
        decades=(1e-2, 100),
        slow=3e-4,
        bandwidths=(1e-3, 1e-1),
        targets=(8,),
    ),
    "cpu": Plan(
        tokens=11 * 2**14,
        batch=256,
        lr=2e-3,
        d_sae=512,
        source={},
        seeds=3,
        bandwidth=0.03,
        threshold=0.02,
        sweep=(1e-3, 3e-3, 6e-3, 1e-2, 2e-2, 4e-2, 1e-1),
        tested=(6e-3, 2e-2),
        decades=(1e-4, 1e-2, 1, 100),
        slow=3e-4,
        bandwidths=(1e-4, 1e-3, 1e-2, 1e-1),
        targets=(8, 16, 32),
    ),
}
PLANS["gpu"] = PLANS["cpu"]._replace(
    tokens=6 * 2**20, batch=1024, lr=1e-3, seeds=5, decades=(1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100)
)
PLANS["paper"] = PLANS["gpu"]._replace(  # the paper's settings, for as long as they need
    tokens=2**30,
    batch=4096,
    lr=7e-5,
    seeds=3,
    bandwidth=0.001,
    threshold=0.001,
    slow=7e-6,
    bandwidths=(1e-4, 1e-2, 1e-1),
)


def toy_run(preset: str, penalty: float, seed: int, *, half: bool = False, lr: float | None = None, **options) -> Run:
    """A training on Toy by the recipe of Gemma Scope (Lieberum et al. 2024, sec. 3.2: Adam with beta1 = 0, warm-ups of
    the learning rate and of lambda), at the lengths, rate, bandwidth and start of a plan; `half` of its tokens."""
    plan = PLANS[preset]
    tokens = plan.tokens // (1 + half)
    return Run(
        Toy(seed, **plan.source),
        "jumprelu",
        plan.d_sae,
        penalty,
        tokens=tokens,
        batch=plan.batch,
        lr=plan.lr if lr is None else lr,
        dead_after=max(tokens // 8, plan.batch),
        lr_warmup=tokens // 20,
        sparsity_warmup=tokens // 2,
        beta1=0.0,
        adam_eps=1e-8,
        normalisation="gemma",
        seed=seed,
        data_seed=seed,
        options={"bandwidth": plan.bandwidth, "threshold": plan.threshold} | options,
    )


def _seeds(preset: str) -> range:
    return range(PLANS[preset].seeds)


def sweep_runs(preset: str, half: bool, ends: bool = True, **options) -> list[Run]:
    """A reference: lambda over the plan's sweep, with or without its two ends."""
    penalties = PLANS[preset].sweep
    return [
        toy_run(preset, penalty, seed, half=half, **options)
        for seed, penalty in product(_seeds(preset), penalties if ends else penalties[1:-1])
    ]


def tested_runs(preset: str, half: bool, **options) -> list[Run]:
    """What is compared with the reference, at fewer lambdas, inside its range."""
    return [
        toy_run(preset, penalty, seed, half=half, **options)
        for seed, penalty in product(_seeds(preset), PLANS[preset].tested)
    ]


HALVES = (False, True)  # all of the tokens, and half of them: what a comparison would have said with fewer


def kernel_runs(preset: str) -> list[Run]:
    """J10: the reference, and the other kernels with the variance of its rectangle."""
    bandwidth = PLANS[preset].bandwidth
    others = [name for name in KERNELS if name != "rectangle"]
    return [run for half in HALVES for run in sweep_runs(preset, half)] + [
        run
        for half, kernel in product(HALVES, others)
        for run in tested_runs(preset, half, kernel=kernel, bandwidth=matched_bandwidth(kernel, bandwidth))
    ]


def target_runs(preset: str) -> list[Run]:
    """J12: the reference, and the loss with a target, whose coefficient is 1 as in released code."""
    return [run for half in HALVES for run in sweep_runs(preset, half)] + [
        toy_run(preset, 1.0, seed, half=half, target_l0=target)
        for half, seed, target in product(HALVES, _seeds(preset), PLANS[preset].targets)
    ]


def into_pre_runs(preset: str) -> list[Run]:
    """J9: with and without pseudo-derivatives into the pre-activations, at the plan's bandwidth and at the paper's."""
    bandwidths = dict.fromkeys((PLANS[preset].bandwidth, PAPER_BANDWIDTH))
    return [
        run
        for half, bandwidth in product(HALVES, bandwidths)
        for run in sweep_runs(preset, half, ends=bandwidth != PAPER_BANDWIDTH, bandwidth=bandwidth)
        + tested_runs(preset, half, bandwidth=bandwidth, ste_into_pre=True)
    ]


def bandwidth_runs(preset: str) -> list[Run]:
    """J11: the reference, and other bandwidths from the same start."""
    return sweep_runs(preset, False) + [
        run for bandwidth in PLANS[preset].bandwidths for run in tested_runs(preset, False, bandwidth=bandwidth)
    ]


def reach_runs(preset: str) -> list[Run]:
    """A raw and a logarithmic threshold at two learning rates, lambda over decades; two seeds: no claim rests on it."""
    plan = PLANS[preset]
    return [
        toy_run(preset, penalty, seed, lr=lr, log_threshold=log)
        for seed, lr, log, penalty in product(range(2), (plan.lr, plan.slow), (False, True), plan.decades)
    ]


def measure_toy(runs: list[Run]) -> Iterator[tuple[Run, dict]]:
    """Train each run; error and L0 on held-out samples with their controls, thresholds, and how much of the truth the
    dictionary holds (mean |cosine| of matched atoms and rows, and that of the untrained SAE)."""
    for one in train(runs):
        source = one.run.source
        heldout = source.heldout(str(one.mean.device))
        x = one.sae.normalise(heldout).x
        passes = passed(one.sae, x), passed(one.untrained, x)
        quantiles = one.sae.theta.detach().quantile(x.new_tensor([0.1, 0.5, 0.9, 1.0])).tolist()
        atoms = source.atoms.to(x.device)
        yield (
            one.run,
            reconstruction(one, heldout, passes)
            | dict(zip(("theta_10", "theta_50", "theta_90", "theta_max"), quantiles, strict=True))
            | {
                "frequent": float((passes[0].density > 0.1).sum()),
                "dictionary_cosine": dictionary_cosine(atoms, one.sae.W_dec.detach()).item(),
                "cosine_untrained": dictionary_cosine(atoms, one.untrained.W_dec.detach()).item(),
            }
            | one.log,
        )


REACH = Study(KEY, "reach", "How far a threshold can travel, and the effect of lambda", reach_runs, measure_toy)
KERNEL_SHAPES = Study(KEY, "kernels", "Kernels of equal variance", kernel_runs, measure_toy)
BANDWIDTH = Study(KEY, "bandwidth", "The width of the window", bandwidth_runs, measure_toy)
TARGET = Study(KEY, "target", "A loss with a target L0", target_runs, measure_toy)
INTO_PRE = Study(KEY, "into-pre", "Pseudo-derivatives into the pre-activations", into_pre_runs, measure_toy)

DEFAULTS = {"kernel": "rectangle", "log_threshold": False, "target_l0": math.nan, "ste_into_pre": False}


def with_settings(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the options of their runs as columns, and `half`: whether a run had half of the tokens."""
    settings = pd.DataFrame([DEFAULTS | dict(ast.literal_eval(options)) for options in rows.options], rows.index)
    return rows.join(settings).assign(half=rows.tokens < rows.tokens.max())


# Rules

CLOSE = 0.05  # J1: relative error; J10, J12: |g|; and how much of g the second half of the tokens may make
ENOUGH = 1000  # J1: samples in the window of a latent
ON_TARGET = 0.1  # J12: |L0 / target - 1|
MOVED = 2.0  # J11: a threshold within this factor of its start has not been trained


def gaps(tested: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """`tested` with g = ln(NMSE / NMSE of the reference at the same L0), seed by seed; positive: the reference is
    better. The reference is interpolated piecewise-linearly in logarithms and never extrapolated: NaN outside."""
    found = []
    for (seed, half), cell in tested.groupby(["seed", "half"]):
        line = reference[(reference.seed == seed) & (reference.half == half)]
        found.append(cell.assign(g=np.log(cell.nmse / interpolate_loglog(line.l0, line.nmse, cell.l0))))
    return pd.concat(found) if found else tested.assign(g=np.nan)


def matched_gap(tested: pd.DataFrame, reference: pd.DataFrame) -> pd.Series | str:
    """g of each seed with all of the tokens, a mean over what is matched in L0; or why it decides nothing: fewer than
    half of the points are matched, or g differed by more than CLOSE with half of the tokens."""
    if tested.empty:
        raise NoEvidence("the table lacks the runs to compare")
    found = gaps(tested, reference)
    matched = found.dropna(subset="g")
    if matched.groupby("half").size().reindex([False, True], fill_value=0).min() < len(found) / 4:
        return f"only {len(matched)} of {len(found)} runs lie inside the range of L0 of the reference"
    seeds = matched.groupby(["half", "seed"]).g.mean()
    shift = seeds[False].mean() - seeds[True].mean()
    if abs(shift) > CLOSE:
        return f"under-trained: the second half of the tokens changed g by {shift:+.3f}"
    return seeds[False]


def is_below(values: Iterable[float], bound: float) -> str:
    """Verdict on 'the mean is below the bound'."""
    mean, low, high = mean_interval(values)
    return judge(bound - mean, bound - high, bound - low)


def is_close_to_0(values: Iterable[float], bound: float = CLOSE) -> str:
    """Verdict on 'the mean lies within the bound on either side of 0'."""
    mean, low, high = mean_interval(values)
    nearest = 0.0 if low < 0 < high else min(abs(low), abs(high))
    return judge(bound - abs(mean), bound - max(abs(low), abs(high)), bound - nearest)


def estimate_is_right(rows: pd.DataFrame) -> Evidence:
    """J1: relative error at the smallest bandwidth with enough samples, and its fall; the wrong variant must fail."""
    if rows.samples.min() < 1e6:
        raise NoEvidence(f"a million samples are needed, found {rows.samples.min():,}")
    if (rows.theta_min <= rows.bandwidth / 2).any():
        return Evidence("void", *NOTHING, "a window reaches below 0: theta is not above half of the bandwidth")
    enough = rows.groupby("bandwidth").in_window.min() >= ENOUGH
    if enough.sum() < 2:
        return Evidence("void", *NOTHING, f"fewer than two bandwidths have {ENOUGH} samples in every window")
    smallest, largest = enough[enough].index.min(), enough[enough].index.max()
    error = rows.set_index(["after_jump", "bandwidth", "seed"]).relative_error
    right, wrong = error[False], error[True]
    mean, low, high = mean_interval(right[smallest])
    control = mean_interval(wrong[smallest])
    summary = (
        f"at bandwidth {smallest:g} the relative error is {mean:.1%}, of which noise of the finite difference about "
        f"{rows.noise.mean():.1%}; at bandwidth {largest:g} it is {right[largest].mean():.1%}; with the step function "
        f"after the jump it is {control[0]:.1%} at bandwidth {smallest:g}"
    )
    if control[1] <= CLOSE:
        return Evidence("void", *NOTHING, f"the rule cannot tell the wrong estimator from the right one: {summary}")
    falls = judge(*mean_interval(right[largest] - right[smallest]))
    return Evidence(both(is_below(right[smallest], CLOSE), falls), mean, low, high, summary)


def into_pre_hurts(rows: pd.DataFrame) -> Evidence:
    """J9: at the paper's bandwidth, more dead latents at equal lambda and a larger error at equal L0."""
    rows = with_settings(rows)
    here = rows[rows.bandwidth == PAPER_BANDWIDTH]
    tested, reference = here[here.ste_into_pre], here[~here.ste_into_pre]
    g = matched_gap(tested, reference)
    if isinstance(g, str):
        return Evidence("void", *NOTHING, g)
    dead = {bandwidth: _more_dead(cell) for bandwidth, cell in rows[~rows.half].groupby("bandwidth")}
    changes = " and ".join(
        f"by {100 * values.mean():+.1f} percentage points at bandwidth {bandwidth:g}"
        for bandwidth, values in dead.items()
    )
    error = mean_interval(g)
    return Evidence(
        both(judge(*mean_interval(dead[PAPER_BANDWIDTH])), judge(*error)),
        *error,
        f"with pseudo-derivatives into the pre-activations the error at equal L0 is {np.exp(error[0]):.2f} times as "
        f"large; at equal lambda the share of dead latents changes {changes}",
    )


def _more_dead(cell: pd.DataFrame) -> pd.Series:
    """Share of dead latents with pseudo-derivatives into the pre-activations minus that without, of each seed."""
    dead = {flag: cell[cell.ste_into_pre == flag].set_index(["seed", "sparsity"]).dead for flag in (True, False)}
    return (dead[True] - dead[False]).dropna().groupby("seed").mean()


def shape_is_immaterial(rows: pd.DataFrame) -> Evidence:
    """J10: |g| of every kernel against the rectangle of the same variance."""
    rows = with_settings(rows)
    reference = rows[rows.kernel == "rectangle"]
    found = {}
    for kernel, tested in rows[rows.kernel != "rectangle"].groupby("kernel"):
        g = matched_gap(tested, reference)
        if isinstance(g, str):
            return Evidence("void", *NOTHING, f"{kernel}: {g}")
        found[kernel] = g
    if not found:
        raise NoEvidence("the table has one kernel")
    outcomes = [is_close_to_0(g) for g in found.values()]
    outcome = outcomes[0]
    for other in outcomes[1:]:
        outcome = both(outcome, other)
    worst = max(found, key=lambda kernel: abs(found[kernel].mean()))
    all_of_them = ", ".join(f"{kernel} {g.mean():+.3f}" for kernel, g in found.items())
    return Evidence(
        outcome, *mean_interval(found[worst]), f"g against the rectangle: {all_of_them}; the number is of {worst}"
    )


def bandwidth_is_a_tradeoff(rows: pd.DataFrame) -> Evidence:
    """J11: at fixed lambda L0 falls with the bandwidth; the largest has the larger error at equal L0 than the
    reference; at the smallest thresholds stay near their start."""
    rows = with_settings(rows)
    lambdas = rows.groupby("bandwidth").sparsity.nunique()
    base, small, large = lambdas.idxmax(), lambdas.index.min(), lambdas.index.max()
    if not small < base < large:
        raise NoEvidence("bandwidths on both sides of the reference are needed")
    tested = rows[rows.bandwidth != base]
    cells = rows[rows.sparsity.isin(tested.sparsity)]
    slope = cells.groupby("seed")[cells.columns].apply(_slope)
    g = gaps(tested[tested.bandwidth == large], rows[rows.bandwidth == base]).dropna(subset="g")
    if g.empty:
        return Evidence("void", *NOTHING, "no run at the largest bandwidth lies inside the range of L0 of the others")
    worse = g.groupby("seed").g.mean()
    travel = {
        bandwidth: (cell.theta_50 / cell.threshold).groupby(cell.seed).mean()
        for bandwidth, cell in cells.groupby("bandwidth")
    }
    if travel[base].mean() <= MOVED:
        return Evidence("void", *NOTHING, f"under-trained: thresholds stay near their start at bandwidth {base:g} too")
    falls, stuck = judge(*mean_interval(-slope)), is_below(travel[small], MOVED)
    error = judge(*mean_interval(worse))
    return Evidence(
        both(both(falls, error), stuck),
        *mean_interval(slope),
        f"L0 changes as bandwidth to the power {slope.mean():+.3f} ({falls}); at bandwidth {large:g} the error at "
        f"equal L0 is {np.exp(worse.mean()):.2f} times that at {base:g} ({error}); the median threshold ends at "
        f"{travel[small].mean():.1f} times its start at bandwidth {small:g}, {travel[base].mean():.1f} times at "
        f"{base:g} ({stuck})",
    )


def _slope(cell: pd.DataFrame) -> float:
    """Slope of ln L0 on ln bandwidth at fixed lambda."""
    y = np.log(cell.l0)
    return np.polyfit(np.log(cell.bandwidth), y - y.groupby(cell.sparsity).transform("mean"), 1)[0]


def target_is_met(rows: pd.DataFrame) -> Evidence:
    """J12: L0 within ON_TARGET of every target, and |g| against the sweep of lambda."""
    rows = with_settings(rows)
    tested = rows[rows.target_l0.notna()]
    g = matched_gap(tested, rows[rows.target_l0.isna()])
    if isinstance(g, str):
        return Evidence("void", *NOTHING, g)
    full = tested[~tested.half]
    off = (full.l0 / full.target_l0 - 1).abs()
    found = ", ".join(f"{cell.mean():.1f} for {target:g}" for target, cell in full.groupby("target_l0").l0)
    met, close = is_below(off.groupby(full.seed).max(), ON_TARGET), is_close_to_0(g)
    return Evidence(
        both(met, close),
        *mean_interval(g),
        f"L0 is {found}, at most {off.max():.0%} off ({met}); the error at equal L0 is {np.exp(g.mean()):.3f} times "
        f"that of the sweep of lambda ({close})",
    )


STUDIES = (GRADIENTS, PICTURE, REACH, KERNEL_SHAPES, BANDWIDTH, TARGET, INTO_PRE)

EARLIER = {  # a smaller check: n = 8, M = 16, 4 million samples, one latent; its finite difference
    "difference": -0.1150,
    "ste": {0.4: -0.1232, 0.2: -0.1195, 0.1: -0.1172, 0.05: -0.1163, 0.02: -0.1156},
}
SATURATION = {0: 478, 1e-3: 364, 1e-2: 124, 0.1: 36, 1: 26.6, 10: 26.4, 100: 26.0}
"""lambda -> L0 in a report of users of SAELens: lr 3e-4, bandwidth 0.05, 2,000 steps."""


def screened(rows: pd.DataFrame) -> pd.DataFrame:
    """What `screening` found, a line per seed and rule."""
    names = zip(("relu", "lowered", "jump"), RULES, strict=True)
    columns = ("false", "magnitude", "error")
    parts = [
        rows[[f"{column}_{short}" for column in columns]].set_axis(columns, axis=1).assign(rule=rule, seed=rows.seed)
        for short, rule in names
    ]
    return pd.concat(parts, ignore_index=True)


def variants(rows: pd.DataFrame, by: str = "batch") -> pd.DataFrame:
    """Runs with all of their tokens, what is different in each (`variant`), and g against the reference (NaN where L0
    is not matched); each value of the column `by` has a reference of its own."""
    rows = with_settings(rows)
    different = {
        "target L0": rows.target_l0.notna(),
        "into pre-activations": rows.ste_into_pre,
        **{kernel: rows.kernel == kernel for kernel in KERNELS if kernel != "rectangle"},
    }
    rows = rows.assign(variant=np.select(list(different.values()), list(different), "reference"))[~rows.half]
    return pd.concat([gaps(cell, cell[cell.variant == "reference"]) for _, cell in rows.groupby(by)])


def reach(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs with the furthest that Adam takes a threshold at one learning rate per step: `limit`."""
    rows = with_settings(rows)
    travel = rows.lr * rows.tokens / rows.batch
    return rows.assign(limit=np.where(rows.log_threshold, rows.threshold * np.exp(travel), rows.threshold + travel))


FIGURES = {
    "jumprelu-estimators": (GRADIENTS, "jumprelu_why.estimators", lambda rows: (estimators(),)),
    "jumprelu-sketch": (PICTURE, "jumprelu_why.sketch", lambda rows: (rows,)),
    "jumprelu-window": (PICTURE, "jumprelu_why.window", lambda rows: (rows,)),
    "jumprelu-gradient": (GRADIENTS, "jumprelu_why.gradient", lambda rows: (rows, EARLIER)),
    "jumprelu-reach": (REACH, "jumprelu_why.reach", lambda rows: (reach(rows), SATURATION)),
    "jumprelu-bandwidth": (BANDWIDTH, "jumprelu_why.bandwidth", lambda rows: (with_settings(rows),)),
    "jumprelu-kernels": (KERNEL_SHAPES, "jumprelu_why.frontier", lambda rows: (variants(rows),)),
    "jumprelu-target": (TARGET, "jumprelu_why.frontier", lambda rows: (variants(rows),)),
    "jumprelu-into-pre": (INTO_PRE, "jumprelu_why.into_pre", lambda rows: (variants(rows, by="bandwidth"),)),
}


_ON_TOY = (
    "Judged on the toy data of this page (64 dimensions, 256 atoms, 8 of them active on average), M = 512; g is the "
    "mean of ln(NMSE / NMSE of the reference at equal L0), interpolated in log-log, never extrapolated. "
)
_VOID = (
    " Void if fewer than half of the runs are matched in L0, or under-trained: half of the tokens would have given a g "
    "that differs by more than 0.05."
)

CLAIMS = (
    Claim(
        id="jumprelu2024-J1",
        statement=(
            "The straight-through gradient of theta is a kernel density estimate of the gradient of the expected loss."
        ),
        rule=(
            "On a fixed SAE (n = 8, M = 16) and a million samples, the gradient that training uses for all thresholds "
            "differs from a central finite difference of the mean loss on other samples by at most 5 % (L2 norm over "
            "that of the difference), with its interval over seeds, at the smallest of five bandwidths that has 1,000 "
            "samples in every window; and by less there than at the largest bandwidth. Void if a theta is not above "
            "half of its bandwidth, or if the wrong estimator, whose step function reads the latents after the jump, "
            "passes the 5 % as well."
        ),
        published=(
            "mathematics, without a number. A check made for this replication before (4 million samples, one latent): "
            "finite difference -0.1150, estimates -0.1232 to -0.1156 for bandwidths 0.4 to 0.02, 7 % to 0.5 % off"
        ),
        statistic="relative error of the gradient at the smallest bandwidth",
        study=GRADIENTS,
        test=estimate_is_right,
    ),
    Claim(
        id="jumprelu2024-J9",
        statement=(
            "Pseudo-derivatives that also reach the pre-activations make more latents die and the fidelity worse."
        ),
        rule=(
            _ON_TOY + "At the paper's bandwidth of 0.001: the share of dead latents at equal lambda is larger with "
            "pseudo-derivatives into the pre-activations, and g against training without them is above 0, both with "
            "their intervals." + _VOID
        ),
        published="more dead latents and worse fidelity (an appendix, known from a review); no numbers at hand",
        statistic="g of pseudo-derivatives into the pre-activations, against none",
        study=INTO_PRE,
        test=into_pre_hurts,
    ),
    Claim(
        id="jumprelu2024-J10",
        statement="The shape of the kernel hardly matters.",
        rule=(
            _ON_TOY + "Triangle, Gaussian and Epanechnikov kernels, at the bandwidth that gives them the variance of "
            "the rectangle's: |g| below 0.05 for each, with its interval." + _VOID
        ),
        published="similar results (an appendix, known from a review); no numbers at hand",
        statistic="g of the kernel that is furthest from the rectangle",
        study=KERNEL_SHAPES,
        test=shape_is_immaterial,
    ),
    Claim(
        id="jumprelu2024-J11",
        statement=(
            "The bandwidth is a trade-off: a wide window gives sparser autoencoders of worse fidelity; with a narrow "
            "one thresholds fail to train."
        ),
        rule=(
            _ON_TOY + "Over bandwidths from 0.0001 to 0.1, all from theta = 0.02: (a) at fixed lambda the slope of "
            "ln L0 on ln bandwidth is below 0, (b) g of the largest bandwidth against 0.03 is above 0, (c) the median "
            "theta at the smallest ends within a factor 2 of its start, each with its interval. Partly if some hold. "
            "Void if theta stays within the factor 2 at bandwidth 0.03 too. The optimum depends on batch size times "
            "steps: only the directions are judged."
        ),
        published="stated in words (Lieberum et al. 2024, a footnote), with the choice of 0.001; no numbers",
        statistic="slope of ln L0 on ln bandwidth at fixed lambda",
        study=BANDWIDTH,
        test=bandwidth_is_a_tradeoff,
    ),
    Claim(
        id="jumprelu2024-J12",
        statement="A loss with a target for L0 reaches the target and is as faithful as the sweep of lambda.",
        rule=(
            _ON_TOY + "For targets 8, 16 and 32 held-out L0 is within 10 % of the target (the worst of the three, with "
            "its interval over seeds), and |g| against the sweep of lambda is below 0.05, with its interval." + _VOID
        ),
        published="offered as an alternative in an appendix; no numbers at hand",
        statistic="g of the loss with a target, against the sweep of lambda",
        study=TARGET,
        test=target_is_met,
    ),
)
