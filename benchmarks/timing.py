"""How every training step is timed, ours and theirs: the same batches, clock, sleeping latents and memory count.

Needs torch alone, so that it can be imported in every environment. A driver is a script that hands `drive` a function
from a `Case` to a `Subject`; it prints one JSON line per case:

    python driver.py --method topk --d 128 --n 2048 --k 16 --batch 1024 --dead 0.1 --threads 2 --device cpu

The subject's own loop pulls batches from a `Stream`, and a step is the time between two pulls: objective, backward,
clipping, projection, optimiser, unit norm, dead counters, AuxK and whatever else the loop does to each batch.
"""

import argparse
import contextlib
import ctypes
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

WARM_UP = {"cpu": 5, "cuda": 40}  # on a GPU kernels are compiled and graphs recorded first
STEPS = 20
BATCHES = 8
LR = 2e-5  # small, so that no sleeping latent wakes up while it is timed
PROBES, MOVED = 64, 1e-6  # sleeping latents that are looked at; far above rounding, far below a few steps of Adam
SHRUNK = 0.2  # encoder rows of sleeping latents, times their first length: none of them is among the k largest


@dataclass(frozen=True)
class Case:
    """One step to time. `dead` is the share of latents that sleep, `variant` whatever a driver says it means."""

    method: str
    d: int
    n: int
    k: int
    batch: int
    dead: float
    precision: str
    device: str
    variant: str = ""


class Subject(NamedTuple):
    """A trainer that stands ready."""

    loop: Callable[[Iterator[Tensor]], object]
    """Its own training loop, until the batches end."""
    encoder: Callable[[], Tensor]
    """(n, d) encoder weights, one latent a row, that can be changed in place."""
    decoder: Callable[[], Tensor]
    """(n, d) decoder weights, one latent a row."""
    silence: Callable[[], Tensor]
    """(n,) how long each latent has not fired, in the trainer's own unit, that can be changed in place."""
    limit: int
    """The silence above which a latent counts as dead."""


def mixture(d: int, batch: int, count: int, seed: int = 0) -> list[Tensor]:
    """Batches of x = m + sum_j a_j u_{i_j} + 0.1 e, divided by one number so that E|x|^2 = 1.

    u: 8d random unit vectors; i_j: 32 draws a token, the r-th vector with probability proportional to 1/r (Zipf);
    a_j = 0.5 + Exp(1); m one draw and e one a token of N(0, I).
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(8 * d, d, generator=generator), dim=-1)
    frequency = 1 / torch.arange(1, 8 * d + 1)
    mean = torch.randn(d, generator=generator)
    batches = []
    for _ in range(count):
        which = torch.multinomial(frequency, batch * 32, replacement=True, generator=generator).view(batch, 32)
        length = 0.5 + torch.empty(batch, 32).exponential_(generator=generator)
        signal = torch.nn.functional.embedding_bag(which, directions, per_sample_weights=length, mode="sum")
        batches.append(mean + signal + 0.1 * torch.randn(batch, d, generator=generator))
    scale = torch.stack(batches).square().sum(-1).mean().sqrt()
    return [x / scale for x in batches]


class Stream:
    """`pulls` batches, round and round; the clock is read at each pull and once more at the end.

    On a GPU the marks are events: the host may run ahead, as it does in training.
    """

    def __init__(self, batches: list[Tensor], pulls: int, before: Callable[[int], None] = lambda pull: None):
        self.batches, self.pulls, self.before = batches, pulls, before
        self.marks: list = []

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Tensor:
        pull = len(self.marks)
        if pull <= self.pulls:
            self.before(pull)
            self.marks.append(_now(self.batches[0].is_cuda))
        if pull >= self.pulls:
            raise StopIteration
        return self.batches[pull % len(self.batches)]

    def median_ms(self, skip: int) -> float:
        pairs = zip(self.marks[skip:], self.marks[skip + 1 :], strict=False)
        if self.batches[0].is_cuda:
            torch.cuda.synchronize()
            return statistics.median(a.elapsed_time(b) for a, b in pairs)
        return statistics.median((b - a) * 1e3 for a, b in pairs)


def _now(cuda: bool):
    if not cuda:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def median_ms(work: Callable[[], object], device: str, repeats: int = 50) -> float:
    """Median time of `work()`, for the parts of a step and the limits of the machine."""
    stream = Stream([torch.empty(0, device=device)], WARM_UP[device] + repeats)
    for _ in stream:
        work()
    return stream.median_ms(WARM_UP[device])


def measure(
    case: Case, build: Callable[[Case, Tensor], Subject], steps: int = STEPS, warm_up: int | None = None
) -> dict:
    """Median milliseconds of a step and the memory it needs at most, weights and optimiser included, data left out.

    With `case.dead`, that share of the latents sleeps: short encoder rows keep them from firing, and they count as
    silent for long. Raises RuntimeError when they woke up or when AuxK left their decoder rows as they were. In fewer
    than STEPS steps it may not have reached many, and a learning rate that warms up has hardly moved them: then any
    change of any row counts.
    """
    warm_up = WARM_UP[case.device] if warm_up is None else warm_up
    batches = [x.to(case.device) for x in mixture(case.d, case.batch, BATCHES)]
    base = _reset_peak(case.device)
    subject = build(case, batches[0])
    asleep, probed = slice(0, int(case.dead * case.n)), slice(0, min(PROBES, int(case.dead * case.n)))
    start = subject.decoder()[probed].clone()

    @torch.no_grad()
    def put_to_sleep(pull: int) -> None:
        if pull == 0:
            subject.encoder()[asleep].mul_(SHRUNK)
        if pull < 2:  # once more after the first step, which may have read an older copy of the weights
            subject.silence()[asleep] = 2 * subject.limit

    stream = Stream(batches, warm_up + steps, put_to_sleep)
    with contextlib.suppress(StopIteration):  # a loop that pulls with `next`
        subject.loop(stream)
    ms, peak = stream.median_ms(warm_up), _peak(case.device) - base
    if case.dead:
        still = (subject.silence()[asleep] > subject.limit).float().mean()
        least, share = (MOVED, 0.5) if steps >= STEPS else (0.0, 1 / PROBES)
        moved = ((subject.decoder()[probed] - start).abs().amax(-1) > least).float().mean()
        if still < 0.9 or moved < share:
            raise RuntimeError(f"of the sleeping latents {still:.0%} slept on and AuxK moved {moved:.0%}")
    return {"ms": round(ms, 4), "peak_gib": round(peak, 4)}


def _reset_peak(device: str) -> float:
    """Forget the peak so far; GiB in use now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**30
    with contextlib.suppress(OSError, AttributeError):  # Linux with glibc
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak(device: str) -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else _status("VmHWM")


def _status(field: str) -> float:
    """GiB that the kernel reports for this process; NaN where there is no /proc."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 2**20
    return math.nan


def arguments() -> tuple[list[Case], dict[str, int | None]]:
    """The cases on the command line, and how long to time each; `--method a b --dead 0 0.1` are two, one after the
    other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--method", nargs="+", default=["topk"])
    parser.add_argument("--dead", nargs="+", type=float, default=[0.0])
    sizes = {"d": 128, "n": 2048, "k": 16, "batch": 1024, "threads": 1, "steps": STEPS, "warm-up": None}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "tf32", "bf16"))
    parser.add_argument("--variant", default="")
    given = parser.parse_args()
    if len(given.method) != len(given.dead):
        parser.error(f"as many --dead as --method, got {len(given.dead)} and {len(given.method)}")
    torch.set_num_threads(given.threads)
    size = {name: getattr(given, name) for name in ("d", "n", "k", "batch", "precision", "device", "variant")}
    cases = [Case(method=method, dead=dead, **size) for method, dead in zip(given.method, given.dead, strict=True)]
    return cases, {"steps": given.steps, "warm_up": given.warm_up}


def drive(implementation: str, version: str, build: Callable[[Case, Tensor], Subject], note: str = "") -> None:
    """Time every case of the command line, each after a small one that loads what torch loads late.

    A case that fails prints its line, too, with no `ms` and the reason as its `note`.
    """
    cases, length = arguments()
    for case in cases:
        torch.set_float32_matmul_precision("high" if case.precision == "tf32" else "highest")
        line = {"implementation": implementation, "version": version, "method": case.method}
        line |= {name: getattr(case, name) for name in ("d", "n", "k", "batch", "dead", "precision")}
        line |= {"ms": None, "peak_gib": None, "note": note}
        try:
            measure(replace(case, d=32, n=128, k=4, batch=64, dead=0.0), build, steps=1)
            line |= measure(case, build, **length)
        except Exception as error:  # whatever a peer raises is a row that says so, not the end of the table
            line["note"] = f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        print(json.dumps(line), flush=True)
