"""A Run says everything about one training; `train` turns runs into SAEs with one loop that reads like the papers'."""

import contextlib
import hashlib
import inspect
import math
import platform
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import NamedTuple

import torch
from tqdm import tqdm

from replication.activations import NORMALISATIONS, ActivationSource, Gaussian
from replication.sae import SAE, architecture
from replication.shapes import Tensor

SAMPLE_TOKENS = (
    2**15
)  # rows for the geometric median, the training mean and the loss scale (released code of Gao et al.)
CHECK_EVERY = 50  # steps between checks for non-finite losses: each one waits for the device
CURVE_POINTS = 12


@dataclass(frozen=True)
class Run:
    """One SAE to train, and the identity of its row. Durations are in tokens.

    `options` are further arguments of the architecture's constructor, e.g. `{"aux_coefficient": 0}`. A latent counts as
    dead after `dead_after` tokens without firing. `ema` is the decay of an exponential moving average of the weights,
    taken after each step with Adam's bias correction and used for evaluation; 0 turns it off. `seed` draws the initial
    weights, `data_seed` the order of the activations.
    """

    source: ActivationSource
    architecture: str
    d_sae: int
    sparsity: float
    tokens: int
    batch: int
    lr: float
    dead_after: int
    normalisation: str = "none"
    tied_init: bool = True
    ema: float = 0.0
    seed: int = 0
    data_seed: int = 0
    options: Mapping[str, float] | tuple[tuple[str, float], ...] = ()

    def __post_init__(self):
        for f in fields(self):  # so that 3 and 3.0, or a list and a tuple, are the same run with the same key
            if f.type in (int, float) and not isinstance(getattr(self, f.name), f.type):
                value = getattr(self, f.name)
                if isinstance(value, bool) or not isinstance(value, int | float) or f.type(value) != value:
                    raise ValueError(f"{f.name} must be {f.type.__name__}, got {value!r}")
                object.__setattr__(self, f.name, f.type(value))
        object.__setattr__(self, "options", tuple(sorted(dict(self.options).items())))
        known = inspect.signature(architecture(self.architecture)).parameters
        for name, _ in self.options:
            if name not in known or name in ("d_in", "d_sae", "sparsity", "kwargs"):
                raise ValueError(f"option {name!r} is not one of {self.architecture}: {_option_names(known)}")
        if self.normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation must be one of {sorted(NORMALISATIONS)}, got {self.normalisation!r}")
        for name, least in (("d_sae", 1), ("batch", 1), ("dead_after", 1), ("seed", 0), ("data_seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.tokens < self.batch:
            raise ValueError(f"tokens={self.tokens} is less than one batch of {self.batch}")
        for name in ("lr", "sparsity"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}")

    @property
    def key(self) -> str:
        """12 hexadecimal digits of the repr: the name of the run's row."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]

    def build(self) -> SAE:
        """The SAE before its first step (without the data-dependent start of `SAE.initialise`)."""
        generator = torch.Generator().manual_seed(self.seed)
        return architecture(self.architecture)(
            self.source.d_in,
            self.d_sae,
            self.sparsity,
            generator=generator,
            tied_init=self.tied_init,
            normalisation=self.normalisation,
            **dict(self.options),
        )


def _option_names(parameters) -> list[str]:
    return sorted(name for name in parameters if name not in ("d_in", "d_sae", "sparsity", "kwargs"))


class Trained(NamedTuple):
    """What training leaves behind."""

    run: Run
    sae: SAE
    untrained: SAE
    """The same SAE before its first step: the random-SAE control."""
    mean: Tensor
    """(d_in,) mean of the normalised training sample: the mean predictor of `metrics.nmse`."""
    log: dict
    """curve_tokens, curve_error (normalised by the sample's variance), dead, seconds, peak_gib, precision."""


class Diverged(RuntimeError):
    """Training met a non-finite number; the message names run, step and the last good error."""


class _Trainee:
    """One SAE in training: weights, optimiser and the count of tokens since each latent fired."""

    def __init__(self, run: Run, sample: Tensor, device: str):
        self.run, self.device = run, device
        self.sae = run.build().to(device)
        self.sae.initialise(sample)
        self.untrained = run.build().to(device)
        self.untrained.initialise(sample)
        self.mean = sample.mean(0)
        self.variance = (sample - self.mean).square().sum(-1).mean()
        # eps as in the paper: a larger one breaks the invariance of Adam to the scale of the loss (appendix A.1)
        self.optimiser = torch.optim.Adam(self.sae.parameters(), lr=run.lr, eps=6.25e-10, fused=True)
        self.averaged = (
            {name: torch.zeros_like(value) for name, value in self.sae.named_parameters()} if run.ema else {}
        )
        self.silent = torch.zeros(run.d_sae, dtype=torch.int64, device=device)
        self.steps, self.seconds = 0, 0.0
        self.errors: list[Tensor] = []
        self.marks = _geometric_marks(run.tokens // run.batch)
        self.window: list[Tensor] = []

    def step(self, x: Tensor) -> None:
        began = time.perf_counter()
        with torch.autocast(
            torch.device(self.device).type, torch.bfloat16, enabled=matmul_precision(self.device) == "bf16"
        ):
            objective = self.sae.objective(x, dead=self.silent >= self.run.dead_after)
        objective.loss.backward()
        self.sae.before_step()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.sae.after_step()
        self.silent.add_(len(x)).masked_fill_(objective.fired, 0)
        self.steps += 1
        for name, value in self.averaged.items():
            value.lerp_(self.sae.get_parameter(name).detach(), 1 - self.run.ema)
        self.window.append(objective.error)
        if self.steps % CHECK_EVERY == 0 or self.steps in self.marks:
            self._check(x)
        if self.steps in self.marks:
            self.errors.append(torch.stack(self.window).mean() / self.variance)
            self.window = []
        self.seconds += time.perf_counter() - began

    def _check(self, x: Tensor) -> None:
        if not self.window[-1].isfinite():
            good = next((f"{e.item():.4g}" for e in reversed(self.errors)), "none")
            cause = "the activations are not finite" if not x.isfinite().all() else "the loss is not finite"
            raise Diverged(
                f"run {self.run.key} ({self.run.architecture}, d_sae={self.run.d_sae}, lr={self.run.lr:g}): "
                f"{cause} at step {self.steps}; last good normalised error: {good}"
            )

    def finish(self) -> Trained:
        with torch.no_grad():
            for name, value in self.averaged.items():
                self.sae.get_parameter(name).copy_(value / (1 - self.run.ema**self.steps))
            if self.averaged:
                self.sae.after_step()  # an average of unit rows is shorter than 1
        log = {
            "curve_tokens": [step * self.run.batch for step in self.marks],
            "curve_error": [round(error.item(), 6) for error in self.errors],
            "dead": (self.silent >= self.run.dead_after).float().mean().item(),
            "seconds": round(self.seconds, 3),
            "peak_gib": round(_peak_gib(self.device), 3),
            "precision": matmul_precision(self.device),
        }
        return Trained(self.run, self.sae.eval(), self.untrained.eval(), self.mean, log)


def train(runs: Sequence[Run], device: str | None = None) -> Iterator[Trained]:
    """Train every run and yield each when it is done.

    On a GPU, runs that read the same stream (source, batch, tokens, data_seed) are trained in lockstep on it; on a CPU
    one after the other, so that an interruption costs at most one run. A run's result does not depend on its company.
    """
    device = device or default_device()
    together: dict[tuple, list[Run]] = {}
    for run in runs:
        stream = (run.source, run.normalisation, run.batch, run.tokens, run.data_seed)
        together.setdefault(stream if device == "cuda" else (run,), []).append(run)
    for group in together.values():
        yield from _train_together(group, device)


def _train_together(runs: list[Run], device: str) -> Iterator[Trained]:
    first = runs[0]
    normalise = NORMALISATIONS[first.normalisation]

    def stream(tokens: int) -> Iterator[Tensor]:
        for activations in first.source.batches(first.batch, tokens, first.data_seed, device):
            yield normalise(activations)[0]

    sample = torch.cat(list(stream(max(first.batch, min(SAMPLE_TOKENS, first.tokens)))))
    if not sample.isfinite().all():
        raise Diverged(f"run {first.key}: the activations of {first.source!r} are not finite")
    trainees = [_Trainee(run, sample, device) for run in runs]
    for x in progress(stream(first.tokens), first.tokens, first.batch, _name(runs)):
        for trainee in trainees:
            trainee.step(x)
    yield from (trainee.finish() for trainee in trainees)


def progress(batches: Iterator[Tensor], tokens: int, batch: int, name: str) -> Iterator[Tensor]:
    """A bar on stderr with tokens, rate and time left; plain text, at most one line in five seconds."""
    with tqdm(
        total=tokens // batch * batch,
        desc=name,
        unit="token",
        unit_scale=True,
        mininterval=5,
        delay=5,
        leave=False,
        file=sys.stderr,
    ) as bar:
        for x in batches:
            yield x
            bar.update(batch)


def _name(runs: list[Run]) -> str:
    run = runs[0]
    others = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return f"{run.architecture} n={run.d_sae} sparsity={run.sparsity:g} seed={run.seed}{others}"


def _geometric_marks(steps: int) -> list[int]:
    """Up to CURVE_POINTS step numbers, evenly spaced in the logarithm, the last one included."""
    return sorted({max(1, round(steps ** ((i + 1) / CURVE_POINTS))) for i in range(CURVE_POINTS)})


def _peak_gib(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if platform.system() == "Darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def matmul_precision(device: str) -> str:
    """'bf16' where the hardware multiplies in it (weights, sums and Adam stay float32), else 'fp32'."""
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    with contextlib.suppress(AttributeError):  # the two names of the question in different torch releases
        return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"
    return "fp32"


@cache
def _seconds_per_step(
    architecture_name: str, options: tuple, d_in: int, d_sae: int, sparsity: float, batch: int, device: str
) -> float:
    source = Gaussian(d_in)
    run = Run(
        source,
        architecture_name,
        d_sae,
        sparsity,
        tokens=4 * batch,
        batch=batch,
        lr=1e-4,
        dead_after=10**9,
        options=options,
    )
    x = next(source.batches(batch, batch, seed=0, device=device))
    trainee = _Trainee(run, x, device)
    for _ in range(4):
        before = trainee.seconds
        trainee.step(x)
    if device == "cuda":
        torch.cuda.synchronize()
    return trainee.seconds - before


def estimate_seconds(run: Run, device: str | None = None) -> float:
    """Training time of a run on this machine, from a few timed steps at its size (harvest and evaluation excluded)."""
    per_step = _seconds_per_step(
        run.architecture, run.options, run.source.d_in, run.d_sae, run.sparsity, run.batch, device or default_device()
    )
    return per_step * (run.tokens // run.batch)
