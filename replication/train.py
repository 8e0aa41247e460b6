"""A Run says everything about one training; `train` turns runs into SAEs with one loop that reads like the papers'."""

import contextlib
import copy
import inspect
import math
import platform
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, NamedTuple, get_args

import torch
from tqdm import tqdm

from replication.activations import NORMALISATIONS, ActivationSource, Gaussian, Pair, as_pair
from replication.fingerprints import types_of
from replication.graphs import Recorder, Replayed
from replication.optimise import Adam
from replication.sae import SAE, architecture
from replication.shapes import Tensor

SAMPLE_TOKENS = (
    2**15
)  # rows for the geometric median, the training mean and the loss scale (released code of Gao et al.)
DEAD_EVERY = 16  # steps between two looks at which latents are dead: on a GPU each one waits for the device
CHECK_EVERY = 50  # steps between checks for non-finite losses: each one waits for the device
CURVE_POINTS = 12


@dataclass(frozen=True)
class Run:
    """One SAE to train, and the identity of its row: a transcoder if the source is `Pairs`. Durations are in tokens.

    `options` are further arguments of the architecture's constructor, e.g. `{"aux_coefficient": 0}`. A latent counts as
    dead after `dead_after` tokens without firing. A sparsity penalty grows linearly over the first `sparsity_warmup`
    tokens, the learning rate from a tenth along a half cosine over the first `lr_warmup` (Lieberum et al. 2024).
    `beta1`, `beta2` and `adam_eps` are Adam's; this epsilon is that of Gao et al. 2024: with gradients this small, a
    larger one would depend on the scale of the loss. `ema` is the decay of an exponential moving average of the
    weights, taken after each step with Adam's bias correction and used for evaluation; 0 turns it off. `seed` draws the
    initial weights, `data_seed` the order of the activations. `tied_init` is by default on, for a transcoder off.
    """

    source: ActivationSource
    architecture: str
    d_sae: int
    sparsity: float
    tokens: int
    batch: int
    lr: float
    dead_after: int
    sparsity_warmup: int = 0
    lr_warmup: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    adam_eps: float = 6.25e-10
    normalisation: str = "none"
    tied_init: bool | None = None
    ema: float = 0.0
    seed: int = 0
    data_seed: int = 0
    options: Mapping[str, float | str] | tuple[tuple[str, float | str], ...] = ()

    def __post_init__(self):
        for f in fields(self):  # so that 3 and 3.0, or a list and a tuple, are the same run with the same key
            if f.type in (int, float) and not isinstance(getattr(self, f.name), f.type):
                value = getattr(self, f.name)
                if isinstance(value, bool) or not isinstance(value, int | float) or f.type(value) != value:
                    raise ValueError(f"{f.name} must be {f.type.__name__}, got {value!r}")
                object.__setattr__(self, f.name, f.type(value))
        object.__setattr__(self, "options", _canonical(self.architecture, dict(self.options)))
        if self.normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation must be one of {sorted(NORMALISATIONS)}, got {self.normalisation!r}")
        for name, least in (
            ("d_sae", 1),
            ("batch", 1),
            ("dead_after", 1),
            ("sparsity_warmup", 0),
            ("lr_warmup", 0),
            ("seed", 0),
            ("data_seed", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.tokens < self.batch:
            raise ValueError(f"tokens={self.tokens} is less than one batch of {self.batch}")
        for name in ("lr", "sparsity", "adam_eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name in ("ema", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if architecture(self.architecture).selects_over_batch:
            if self.ema:
                raise ValueError(
                    f"ema must be 0 for {self.architecture}, whose threshold is not averaged, got {self.ema}"
                )
            if self.batch * self.sparsity < 1:
                raise ValueError(f"batch * sparsity must be at least 1, got {self.batch} and {self.sparsity}")
        if self.tied_init is None:
            object.__setattr__(self, "tied_init", not self.source.paired)
        widths = (8, 8 if self.source.paired else None)
        if self.source.paired and self.tied_init:  # the one case in which they matter; they may need a language model
            widths = (self.source.d_in, self.source.d_out)
        with torch.device("meta"):  # the architecture's own checks, before anything is harvested
            self._construct(*widths)

    def build(self) -> SAE:
        """The SAE before its first step (without the data-dependent start of `SAE.initialise`)."""
        return self._construct(self.source.d_in, self.source.d_out, torch.Generator().manual_seed(self.seed))

    def _construct(self, d_in: int, d_out: int | None, generator: torch.Generator | None = None) -> SAE:
        return architecture(self.architecture)(
            d_in,
            self.d_sae,
            self.sparsity,
            d_out=d_out,
            generator=generator,
            tied_init=self.tied_init,
            normalisation=self.normalisation,
            **dict(self.options),
        )


NOT_OPTIONS = {"d_in", "d_sae", "d_out", "sparsity", "generator", "tied_init", "normalisation", "kwargs"}


def _canonical(name: str, options: dict) -> tuple[tuple[str, float | str], ...]:
    """Options sorted, each with the type its parameter declares: 0 and 0.0, or 1 and True, are one run and one key."""
    known = inspect.signature(SAE).parameters | inspect.signature(architecture(name)).parameters
    known = {option: known[option].annotation for option in sorted(known.keys() - NOT_OPTIONS)}
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"option {option!r} is not one of {name}: {', '.join(known)}")
        wanted = next((one for one in (bool, float) if one in (known[option], *get_args(known[option]))), None)
        if wanted and isinstance(value, int | float):
            options[option] = wanted(value)
    return tuple(sorted(options.items()))


def dependencies(run: Run) -> list:
    """Definitions that a run looks up by name or holds: roots, beside the function that uses it, of a fingerprint."""
    return [*types_of(run), architecture(run.architecture), NORMALISATIONS[run.normalisation]]


class Trained(NamedTuple):
    """What training leaves behind."""

    run: Run
    sae: SAE
    untrained: SAE
    """The same SAE before its first step: the random-SAE control."""
    mean: Tensor
    """(d_out,) mean of the normalised training sample of targets: the mean predictor of `metrics.nmse`."""
    log: dict
    """curve_tokens, and at each of them curve_error (over the sample's variance, mean since the one before) and
    curve_dead; dead, precision; seconds: this run's share of the wall time of its group; peak_gib: of the group on a
    GPU, of the process so far on a CPU; input_scale, target_scale: the constants of the normalisation, where it has
    any."""


class Diverged(RuntimeError):
    """Training met a non-finite number; the message names run, step and the last good error."""


class _Trainee:
    """One SAE in training: weights, optimiser and the count of tokens since each latent fired."""

    def __init__(self, run: Run, sample: Tensor | Pair, device: str, record: Recorder | None = None):
        self.run, self.device = run, device
        self.sae = run.build().to(device)
        self.sae.fit_normalisation(sample)
        x, target, _ = self.sae.normalise(sample)
        self.sae.initialise(x, target)
        self.untrained = copy.deepcopy(self.sae).cpu()  # waits on the host: a fifth of what a large training holds
        self.mean = target.mean(0)
        self.variance = (target - self.mean).square().sum(-1).mean()
        self.optimiser = Adam(self.sae, run.beta1, run.beta2, run.adam_eps, shadow=_uses_bf16(device))
        self.schedule = _schedule(run).to(device)
        self.clock = torch.zeros(1, dtype=torch.int64, device=device)
        self.averaged = {name: torch.zeros_like(w) for name, w in self.sae.named_parameters()} if run.ema else {}
        self.silent = torch.zeros(run.d_sae, dtype=torch.int64, device=device)
        self.steps = 0
        self.errors: list[Tensor] = []
        self.deaths: list[Tensor] = []
        self.marks = _geometric_marks(run.tokens // run.batch)
        self.summed = torch.zeros((), device=device)  # errors since the last mark
        graphed = self.silent.is_cuda and self.sae.capturable
        self.advance = Replayed(self._advance, run.d_sae, record or Recorder()) if graphed else self._advance

    def step(self, batch: Tensor) -> None:
        """One step of the papers' algorithm box; raises Diverged, at the latest CHECK_EVERY steps after the fact.

        `batch` are normalised activations (n, d_in), in a transcoder with their targets beside them (n, d_in + d_out).
        """
        if self.steps % DEAD_EVERY == 0:
            self.dead = (self.silent >= self.run.dead_after).nonzero().squeeze(-1)
        self.advance(batch, self.dead)
        self.steps += 1
        if self.steps % CHECK_EVERY == 0 or self.steps in self.marks:
            self._check(batch)
        if self.steps in self.marks:
            since = self.steps - max((mark for mark in self.marks if mark < self.steps), default=0)
            self.errors.append(self.summed / since / self.variance)
            self.deaths.append(self._dead_share())
            self.summed.zero_()

    def _advance(self, batch: Tensor, dead: Tensor) -> None:
        """The part of a step that a GPU does without the host: all of its state is in tensors that stay in place."""
        d_in, d_out = self.sae.d_in, self.sae.d_out
        x, target = (batch, None) if d_out is None else batch.split([d_in, d_out], dim=-1)
        now = self.schedule.index_select(0, self.clock).squeeze(0)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=_uses_bf16(self.device), cache_enabled=False):
            objective = self.sae.objective(x, dead, ramp=now[3], target=target)
        objective.loss.backward()
        self.optimiser.step(now[:3])
        for name, value in self.averaged.items():
            value.lerp_(self.sae.get_parameter(name).detach(), 1 - self.run.ema)
        self.silent.add_(len(x)).masked_fill_(objective.fired, 0)
        self.summed.add_(objective.error)
        self.clock.add_(1)

    def _dead_share(self) -> Tensor:
        return (self.silent >= self.run.dead_after).float().mean()

    def _check(self, batch: Tensor) -> None:
        if all(value.isfinite().all() for value in (self.summed, *self.sae.parameters())):
            return
        cause = "the loss is not finite" if batch.isfinite().all() else "the activations are not finite"
        good = (
            f"{self.errors[-1].item():.4g} after {self.marks[len(self.errors) - 1] * len(batch):,} tokens"
            if self.errors
            else "none"
        )
        raise Diverged(f"run {_describe(self.run)}: {cause} at step {self.steps}; last good normalised error: {good}")

    def finish(self, seconds: float) -> Trained:
        self.sae.shadow = None
        with torch.no_grad():
            for name, value in self.averaged.items():
                self.sae.get_parameter(name).copy_(value / (1 - self.run.ema**self.steps))
            if self.averaged:
                self.sae.after_step()  # an average of unit rows is shorter than 1
        scales = {"input_scale": self.sae.input_scale, "target_scale": self.sae.target_scale}
        log = {
            "curve_tokens": [step * self.run.batch for step in self.marks],
            "curve_error": [round(error.item(), 6) for error in self.errors],
            "curve_dead": [round(share.item(), 6) for share in self.deaths],
            "dead": self._dead_share().item(),
            "seconds": round(seconds, 3),
            "peak_gib": round(_peak_gib(self.device), 3),
            "precision": precision(self.device),
            **{name: scale.item() for name, scale in scales.items() if scale is not None},
        }
        return Trained(self.run, self.sae.eval(), self.untrained.to(self.device).eval(), self.mean, log)


def train(runs: Sequence[Run], device: str | None = None) -> Iterator[Trained]:
    """Train every run and yield each when it is done.

    On a GPU, runs that read the same stream (source, batch, tokens, data_seed) are trained in lockstep on it; on a CPU
    one after the other, so that an interruption costs at most one run. A run's result does not depend on its company:
    when one diverges the others go on, and Diverged is raised at the end.
    """
    device = device or default_device()
    together: dict[tuple, list[Run]] = {}
    for run in runs:
        stream = (run.source, run.normalisation, run.batch, run.tokens, run.data_seed)
        together.setdefault(stream if _on_gpu(device) else (run,), []).append(run)
    failures: list[Diverged] = []
    for group in together.values():
        with _tensor_cores(device):
            done = _train_together(group, device, failures)
        yield from done
    if failures:
        raise Diverged("; ".join(map(str, failures)))


@contextlib.contextmanager
def _tensor_cores(device: str) -> Iterator[None]:
    """On a GPU, TF32 for the products of training that stay in float32 (those before a threshold). What is measured
    afterwards has the precision that was set before."""
    before = torch.get_float32_matmul_precision()
    if _on_gpu(device):
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _train_together(runs: list[Run], device: str, failures: list[Diverged]) -> list[Trained]:
    first = runs[0]
    if _on_gpu(device):
        torch.cuda.reset_peak_memory_stats(device)

    sampled = max(first.batch, min(SAMPLE_TOKENS, first.tokens))
    sample = first.source.sample(first.batch, sampled, first.data_seed, device)
    if not all(part.isfinite().all() for part in as_pair(sample)):
        failures.append(Diverged(f"run {_describe(first)}: the activations of {first.source!r} are not finite"))
        return []
    record = Recorder()  # one for the group: its steps share the memory of their graphs
    trainees = [_Trainee(run, sample, device, record) for run in runs]
    began = time.perf_counter()
    normalise = trainees[0].sae.normalise  # a group has one normalisation and one sample
    stream = first.source.batches(first.batch, first.tokens, first.data_seed, device)
    for activations in progress(stream, first.tokens, first.batch, _name(runs)):
        x, target, _ = normalise(activations)
        batch = x if target is x else torch.cat([x, target], dim=-1)
        for trainee in list(trainees):
            try:
                trainee.step(batch)
            except Diverged as failure:
                failures.append(failure)
                trainees.remove(trainee)
    _synchronise(device)
    share = (time.perf_counter() - began) / len(runs)
    return [trainee.finish(share) for trainee in trainees]


def _schedule(run: Run) -> Tensor:
    """(steps, 4): learning rate, 1 - beta1^t, 1 - beta2^t and the ramp of the penalty, for every step of a run."""
    t = torch.arange(1, run.tokens // run.batch + 1, dtype=torch.float64)
    seen = t * run.batch
    ramp = (seen / max(run.sparsity_warmup, 1)).clamp(max=1)
    columns = run.lr * lr_factor(seen, run.lr_warmup), 1 - run.beta1**t, 1 - run.beta2**t, ramp
    return torch.stack(columns, dim=1).float()


def lr_factor(tokens: Tensor, warmup: int) -> Tensor:
    """0.1 + 0.9 (1 - cos(pi t / T)) / 2 for t < T, then 1: the warm-up of Gemma Scope (Lieberum et al. 2024)."""
    return 0.1 + 0.45 * (1 - torch.cos(torch.pi * (tokens / warmup if warmup else tokens + 1).clamp(max=1)))


def _describe(run: Run) -> str:
    return f"{run.architecture} d_sae={run.d_sae} sparsity={run.sparsity:g} lr={run.lr:g} seed={run.seed}"


def progress(batches: Iterator[Any], tokens: int, batch: int, name: str) -> Iterator[Any]:
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
    if _on_gpu(device):
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if platform.system() == "Darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _on_gpu(device: str) -> bool:
    return torch.device(device).type == "cuda"


def _synchronise(device: str) -> None:
    if _on_gpu(device):
        torch.cuda.synchronize(device)


def precision(device: str) -> str:
    """What matrix products of training are made in on a device: bf16 or fp32. It is part of what a run gives."""
    return "bf16" if _uses_bf16(device) else "fp32"


@cache
def _uses_bf16(device: str) -> bool:
    """Whether matrix products are made in bfloat16: where the hardware can (weights, sums and Adam stay float32)."""
    if _on_gpu(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    with contextlib.suppress(AttributeError):  # private names, absent from some releases of torch
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


ESTIMATE_ELEMENTS = 2**23  # latents per timed step: enough to be compute-bound, little enough to fit anywhere


@cache
def _seconds_per_token(
    name: str, options: tuple, d_in: int, d_sae: int, sparsity: float, batch: int, device: str
) -> float:
    batch = min(batch, max(ESTIMATE_ELEMENTS // d_sae, 16))
    run = Run(
        Gaussian(d_in), name, d_sae, sparsity, tokens=4 * batch, batch=batch, lr=1e-4, dead_after=10**9, options=options
    )
    x = next(run.source.batches(batch, batch, seed=0, device=device))
    trainee = _Trainee(run, x, device)
    for last in (False, False, False, True):
        if last:
            _synchronise(device)
        began = time.perf_counter()
        trainee.step(x)
    _synchronise(device)
    return (time.perf_counter() - began) / batch


def estimate_seconds(run: Run, device: str | None = None) -> float:
    """Training time of a run on this machine, from a timed step at its size, a large batch scaled down (harvest and
    evaluation excluded). A transcoder is taken for an autoencoder of the mean of its widths."""
    width = (run.source.d_in + (run.source.d_out or run.source.d_in)) // 2
    size = (width, run.d_sae, run.sparsity, run.batch)
    return run.tokens * _seconds_per_token(run.architecture, run.options, *size, device or default_device())
