"""A suite of SAEs as files: trained, saved in the layout of Gemma Scope, indexed, read back and measured again.

    <folder>/<site>/layer_<L>/width_<W>/average_l0_<K>/params.npz      (W_enc, b_enc, W_dec, b_dec, threshold)
    <folder>/index.json, index.csv

As in the repositories of Lieberum et al. 2024 (one per model and site): normalisation and pre-encoder bias are folded
into the weights, K is the measured L0, rounded. A file that the index knows is not made again.
"""

import csv
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from replication import formats, store
from replication.activations import LanguageModelActivations
from replication.evaluate.reconstruction import reconstruction
from replication.evaluate.splicing import spliced
from replication.papers.jumprelu2024.grid import SITES
from replication.results import duration
from replication.train import Run, Trained, default_device, estimate_seconds

FORMAT = "gemma-scope"
L0_TOLERANCE, FVU_TOLERANCE = 1e-3, 1e-4  # relative, absolute: folding costs rounding, nothing else


def width_name(d_sae: int) -> str:
    """16384 -> 16k, 2^20 -> 1m, as in the release: powers of two from 1,024 on in thousands or millions, rounded down.
    Other numbers of latents stand as they are: 512, 3000."""
    if d_sae < 2**10 or d_sae & (d_sae - 1):
        return str(d_sae)
    return f"{d_sae // 10**3}k" if d_sae < 2**20 else f"{d_sae // 10**6}m"


def site_and_layer(hook: str) -> tuple[str, int]:
    """blocks.2.hook_mlp_out -> ("mlp", 2). ValueError for a hook that is not one of the three sites."""
    layer = re.match(r"blocks\.(\d+)\.", hook)
    for site, pattern in SITES.items():
        if layer and hook == pattern.format(layer[1]):
            return site, int(layer[1])
    raise ValueError(f"hook must be one of {', '.join(SITES.values())}, got {hook!r}")


def write(runs: Sequence[Run], folder: Path, say: Callable[[str], None]) -> list[dict]:
    """Make the suite of these runs in `folder` and check every file; returns its index, one record per SAE.

    Runs that are stored are read, the others are trained (`store.trained`). Each SAE is indexed as soon as it is saved,
    so that an interrupted suite goes on where it stopped; a file that is missing, damaged or of older code is made
    again. `say` gets one line per SAE made and one per SAE checked. ValueError for a folder that holds something else,
    and for a file that does not give its L0 and FVU again.
    """
    wanted = {_name(run): run for run in runs}
    if len(wanted) < len(runs):
        raise ValueError(f"the {len(runs)} runs of a suite must differ in site, layer, width, lambda or seed")
    records = _known(folder)
    if foreign := records.keys() - wanted.keys():
        raise ValueError(f"folder {folder} holds another suite, with {records[min(foreign)]['path']}: choose a new one")
    todo = [run for name, run in wanted.items() if not _is_made(records.get(name), run, folder)]
    if todo:
        cost = duration(sum(map(estimate_seconds, todo)))
        say(f"{len(todo)} of {len(runs)} SAEs to make, at most about {cost} of training on this {default_device()}")
    _write_index(list(records.values()), folder)
    for done, one in enumerate(store.trained(todo), 1):
        name = _name(one.run)
        if name in records:
            (folder / records.pop(name)["path"]).unlink(missing_ok=True)
        records[name] = _save(one, folder, {record["path"] for record in records.values()})
        _write_index([records[name] for name in wanted if name in records], folder)
        say(f"made {done} of {len(todo)}: {_line(records[name])}")
    for done, (name, run) in enumerate(wanted.items(), 1):
        found = check(records[name], run.source, folder)
        say(f"checked {done} of {len(runs)}: {records[name]['path']}: L0 {found.l0:.2f}, FVU {found.fvu:.4f}")
    return [records[name] for name in wanted]


def check(record: dict, source: LanguageModelActivations, folder: Path) -> formats.Measured:
    """Read an SAE of a suite from its file and measure it on held-out raw activations; ValueError, with its path, where
    L0 or FVU is not what the index says."""
    site, path = record["path"].split("/", 1)
    sae = formats.load(folder / site, path)
    tolerances = {"l0_tolerance": L0_TOLERANCE, "fvu_tolerance": FVU_TOLERANCE}
    try:
        return formats.verify(sae, source.heldout(), l0=record["l0"], fvu=record["fvu"], **tolerances)
    except ValueError as error:
        raise ValueError(f"{folder / record['path']}: {error}") from None


def _name(run: Run) -> tuple:
    """What one SAE of a suite differs in from the others."""
    return *site_and_layer(run.source.hook), run.d_sae, run.sparsity, run.seed


def _known(folder: Path) -> dict[tuple, dict]:
    """The records of a folder's index by name; none where there is no folder yet."""
    index = folder / "index.json"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out must be a folder, {folder} is a file")
    if not index.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"out must be a new folder or one with a suite, {folder} holds other files")
        return {}
    try:
        records = json.loads(index.read_text())
        return {
            tuple(record[key] for key in ("site", "layer", "width", "lambda", "seed")): record for record in records
        }
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{index}: not the index of a suite ({error!r}); remove the folder to make it again") from None


def _is_made(record: dict | None, run: Run, folder: Path) -> bool:
    """Whether the file is there, whole, and of this run and code."""
    if record is None or record["trained"] != store.folder(run, default_device()).name:
        return False
    path = folder / record["path"]
    return path.exists() and _sha256(path) == record["sha256"]


def _save(one: Trained, folder: Path, taken: set[str]) -> dict:
    """Write the file of one SAE and measure it; its record."""
    run, source, device = one.run, one.run.source, str(one.mean.device)
    measured = reconstruction(one, source.heldout(device))
    harm = spliced(source, one.sae.reconstruct, device=device)
    site, layer = site_and_layer(source.hook)
    place = _place(f"{site}/layer_{layer}/width_{width_name(run.d_sae)}", measured["l0"], taken)
    path = formats.save(one.sae, folder / place, FORMAT)
    return {
        "site": site,
        "layer": layer,
        "hook": source.hook,
        "width": run.d_sae,
        "lambda": run.sparsity,
        "seed": run.seed,
        "l0": measured["l0"],
        "fvu": measured["fvu"],
        "delta_loss": harm["delta_ce"],
        "path": path.relative_to(folder).as_posix(),
        "sha256": _sha256(path),
        "training_tokens": run.tokens,
        "model": source.model,
        **source.fingerprints(),
        "trained": store.folder(run, device).name,
    }


def _place(stem: str, l0: float, taken: set[str]) -> str:
    """`stem`/average_l0_K; K gets decimals where another SAE of the suite has the same rounded L0."""
    for digits in range(8):
        place = f"{stem}/average_l0_{l0:.{digits}f}"
        if f"{place}/{formats.FORMATS[FORMAT].weights}" not in taken:
            return place
    raise ValueError(f"{place}: two SAEs of a suite have this L0")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _line(record: dict) -> str:
    return (
        f"{record['path']}: lambda {record['lambda']:g}, FVU {record['fvu']:.3f}, delta LM loss "
        f"{record['delta_loss']:.4f} nats"
    )


def _write_index(records: list[dict], folder: Path) -> None:
    """index.json and, for spreadsheets, index.csv; each appears whole."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "index.partial"
    partial.write_text(json.dumps(records, indent=1))
    partial.replace(folder / "index.json")
    if not records:
        return
    with open(partial, "w", newline="") as file:
        table = csv.DictWriter(file, list(records[0]))
        table.writeheader()
        table.writerows(records)
    partial.replace(folder / "index.csv")
