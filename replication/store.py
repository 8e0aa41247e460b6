"""Trained SAEs on disk, content-addressed: a second measurement of a run does not train it again."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from replication import sae, train
from replication.fingerprints import code_fingerprint, module_fingerprint
from replication.paths import CACHE
from replication.train import Run, Trained


def folder(run: Run, device: str) -> Path:
    """Where a trained run is kept: its name is a hash over the run, the code that trains it, its data, and the kind of
    device and the precision of its products, which change the result."""
    kind = torch.device(device).type
    code = code_fingerprint(train.train, *train.dependencies(run))
    if kind == "cuda":
        code += module_fingerprint("replication.triton_kernels")
    data = sorted(run.source.fingerprints().items())
    identity = repr((run, code, data, kind, train.precision(device)))
    return CACHE / "saes" / f"{run.architecture}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def trained(runs: Sequence[Run], device: str | None = None) -> Iterator[Trained]:
    """As `train.train`: the runs that are stored are read and come first, the others are trained and stored."""
    device = device or train.default_device()
    new = []
    for run in runs:
        if folder(run, device).exists():
            yield _read(run, device)
        else:
            new.append(run)
    for one in train.train(new, device):
        _write(one, device)
        yield one


def _write(one: Trained, device: str) -> None:
    place = folder(one.run, device)
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")  # two processes may train the same run
    shutil.rmtree(partial, ignore_errors=True)  # the trace of an interrupted write
    partial.mkdir(parents=True)
    one.sae.save(partial / "sae.safetensors")
    one.untrained.save(partial / "untrained.safetensors")
    save_file({"mean": one.mean.contiguous()}, partial / "mean.safetensors")
    (partial / "log.json").write_text(json.dumps(one.log))
    if place.exists():  # the other process was faster, with the same result
        shutil.rmtree(partial)
    else:
        partial.rename(place)


def _read(run: Run, device: str) -> Trained:
    place = folder(run, device)
    try:
        mean = load_file(place / "mean.safetensors")["mean"]
        log = json.loads((place / "log.json").read_text())
        kept, untrained = (sae.load(place / f"{name}.safetensors") for name in ("sae", "untrained"))
    except Exception as error:
        raise ValueError(f"stored SAE {place}: {error}; remove the folder to train it again") from error
    return Trained(run, kept.to(device), untrained.to(device), mean.to(device), log)
