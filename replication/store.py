"""Trained SAEs on disk, content-addressed: a second measurement of a run does not train it again."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file

from replication import sae, train
from replication.fingerprints import code_fingerprint
from replication.paths import CACHE
from replication.train import Run, Trained


def folder(run: Run) -> Path:
    """Where a trained run is kept: its name is a hash over the run, the code that trains it and its data."""
    code = code_fingerprint(train.train, *train.dependencies(run))
    identity = repr((run, code, sorted(run.source.fingerprints().items())))
    return CACHE / "saes" / f"{run.architecture}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def trained(runs: Sequence[Run], device: str | None = None) -> Iterator[Trained]:
    """As `train.train`: the runs that are stored are read and come first, the others are trained and stored."""
    device = device or train.default_device()
    new = []
    for run in runs:
        if folder(run).exists():
            yield _read(run, device)
        else:
            new.append(run)
    for one in train.train(new, device):
        _write(one)
        yield one


def _write(one: Trained) -> None:
    place = folder(one.run)
    partial = place.with_name(place.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # the trace of an interrupted write
    partial.mkdir(parents=True)
    one.sae.save(partial / "sae.safetensors")
    one.untrained.save(partial / "untrained.safetensors")
    save_file({"mean": one.mean.contiguous()}, partial / "mean.safetensors")
    (partial / "log.json").write_text(json.dumps(one.log))
    partial.rename(place)


def _read(run: Run, device: str) -> Trained:
    place = folder(run)
    try:
        mean = load_file(place / "mean.safetensors")["mean"]
        log = json.loads((place / "log.json").read_text())
        kept, untrained = (sae.load(place / f"{name}.safetensors") for name in ("sae", "untrained"))
    except Exception as error:
        raise ValueError(f"stored SAE {place}: {error}; remove the folder to train it again") from error
    return Trained(run, kept.to(device), untrained.to(device), mean.to(device), log)
