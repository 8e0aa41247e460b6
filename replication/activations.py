"""Activation sources: a width and a seeded stream of activations, whatever is behind it.

`LanguageModelActivations` names a model, a hook point and a corpus; `harvest` fills the disk cache of several of them
in one pass of the model. `Gaussian` needs no model (the control of Gao et al. 2024, and tests). `Pairs` joins two
sources for a transcoder, which predicts the one from the other.
"""

import abc
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from replication import language_models
from replication.corpora import Corpus, PythonSource, TokenFile
from replication.fingerprints import code_fingerprint
from replication.paths import CACHE
from replication.shapes import Float, Int, Tensor

SHARD_ROWS = 2**17
HARVEST_TOKENS = 8192  # tokens per forward pass


class Normalisation(abc.ABC):
    """What is done to activations before an SAE sees them. It has no state and no instances: an SAE keeps what is
    fitted, and saves it with its weights."""

    per_token = False
    """Whether a token is treated by its own statistics, which no weight can hold: then it cannot be folded."""

    fit: Callable[[Float[Tensor, "n d"]], Float[Tensor, ""]] | None = None
    """Raw training activations -> the constant that `apply` needs; None where it needs none."""

    @staticmethod
    @abc.abstractmethod
    def apply(
        x: Float[Tensor, "n d"], constant: Float[Tensor, ""] | None = None
    ) -> tuple[Float[Tensor, "n d"], Callable[[Tensor], Tensor]]:
        """The normalised activations and the function that undoes it on their reconstructions."""


class Keep(Normalisation):
    """Activations as they are."""

    @staticmethod
    def apply(x, constant=None):
        return x, lambda recon: recon


class Gao(Normalisation):
    """Gao et al. 2024, sec. 2.1: subtract the mean over d_in from each token, then divide by its norm."""

    per_token = True

    @staticmethod
    def apply(x, constant=None):
        mean = x.mean(-1, keepdim=True)
        norm = (x - mean).norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return (x - mean) / norm, lambda recon: recon * norm + mean


class Lee(Normalisation):
    """Lee et al. 2025, released code: subtract the mean over d_in from each token, then divide by its standard
    deviation (divisor d_in - 1) plus 1e-5. Every token then has norm sqrt(d_in - 1)."""

    per_token = True

    @staticmethod
    def apply(x, constant=None):
        mean = x.mean(-1, keepdim=True)
        scale = x.std(-1, keepdim=True) + 1e-5
        return (x - mean) / scale, lambda recon: recon * scale + mean


class LayerNorm(Normalisation):
    """Of released TopK SAEs (OpenAI's sparse_autoencoder; SAELens' `layer_norm`): subtract the mean over d_in from each
    token, then divide by its standard deviation (divisor d_in - 1) plus 1e-5. It is undone *without* the 1e-5."""

    per_token = True

    @staticmethod
    def apply(x, constant=None):
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return (x - mean) / (std + 1e-5), lambda recon: recon * std + mean


class Gemma(Normalisation):
    """Lieberum et al. 2024 (Gemma Scope), sec. 3.1: divide by one constant s = sqrt(E|x|^2), so that E|x/s|^2 = 1."""

    @staticmethod
    def fit(sample):
        return sample.square().sum(-1).mean().sqrt().clamp(min=1e-12)

    @staticmethod
    def apply(x, constant=None):
        return x / constant, lambda recon: recon * constant


NORMALISATIONS: dict[str, type[Normalisation]] = {
    "none": Keep,
    "gao": Gao,
    "lee": Lee,
    "layernorm": LayerNorm,
    "gemma": Gemma,
}
"""Name -> what a run asks for by it, and what an SAE file records."""


class Pair(NamedTuple):
    """Inputs and targets of a transcoder: rows of the same number belong to the same token."""

    inputs: Tensor
    """(n, d_in)"""
    targets: Tensor
    """(n, d_out)"""


def as_pair(activations: Tensor | Pair) -> Pair:
    """A pair as it is; plain activations are their own targets."""
    return activations if isinstance(activations, Pair) else Pair(activations, activations)


class ActivationSource(abc.ABC):
    """A stream of activations of width `d_in`. Frozen: its repr is its identity."""

    paired = False
    """Whether batches are a `Pair` each, so that a run on them trains a transcoder."""

    @property
    @abc.abstractmethod
    def d_in(self) -> int:
        """Width of one activation."""

    @property
    def d_out(self) -> int | None:
        """Width of a target; None where activations are their own targets."""
        return None

    @abc.abstractmethod
    def batches(self, batch: int, tokens: int, seed: int, device: str = "cpu") -> Iterator[Float[Tensor, "batch d_in"]]:
        """floor(tokens / batch) float32 batches, in an order that `seed` decides; epochs follow when data run out."""

    @abc.abstractmethod
    def heldout(self, device: str = "cpu") -> Float[Tensor, "n d_in"]:
        """Activations that `batches` never yields."""

    def sample(self, batch: int, tokens: int, seed: int, device: str = "cpu") -> Tensor | Pair:
        """What `batches` yields, in one piece."""
        return torch.cat(list(self.batches(batch, tokens, seed, device)))

    def fingerprints(self) -> dict[str, str]:
        """Hashes of what the activations are made from; a row with others is stale."""
        return {}

    def provenance(self) -> dict[str, str | int]:
        """What a row records of where its data came from."""
        return self.fingerprints()


@dataclass(frozen=True)
class Gaussian(ActivationSource):
    """Independent N(0, I) activations: data with no structure to find."""

    width: int
    heldout_tokens: int = 8192

    @property
    def d_in(self) -> int:
        return self.width

    def batches(self, batch, tokens, seed, device="cpu"):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(tokens // batch):
            yield torch.randn(batch, self.width, generator=generator).to(device)

    def heldout(self, device="cpu"):
        generator = torch.Generator().manual_seed(2**32 - 1)  # only 32 bits count; no run has this seed
        return torch.randn(self.heldout_tokens, self.width, generator=generator).to(device)


@dataclass(frozen=True)
class LanguageModelActivations(ActivationSource):
    """Activations of one hook point of one language model on one corpus.

    `tokens` activations are stored for training (blocks drawn without replacement from the training files; a longer
    run makes several epochs) and `heldout_tokens` from the held-out files. Blocks are `context` tokens long; the first
    `skip_first` positions of each are left out.
    """

    model: str
    hook: str
    corpus: Corpus = field(default_factory=PythonSource)
    context: int = 64
    tokens: int = 2**20
    heldout_tokens: int = 2**16
    skip_first: int = 0

    def __post_init__(self):
        for name in ("tokens", "heldout_tokens"):
            if getattr(self, name) < self.context:
                raise ValueError(
                    f"{name} must be at least one block of context={self.context}, got {getattr(self, name)}"
                )
        if not 0 <= self.skip_first < self.context:
            raise ValueError(f"skip_first must be from 0 to context-1={self.context - 1}, got {self.skip_first}")

    @property
    def d_in(self) -> int:
        return _language_model(self.model).width(self.hook)

    @property
    def folder(self) -> Path:
        """Content address: the request, the model's and the corpus's fingerprints, and the code that harvests."""
        identity = {f.name: repr(getattr(self, f.name)) for f in fields(self)} | self.fingerprints()
        identity["code"] = code_fingerprint(_harvest_together, type(self.corpus), TokenFile)
        return CACHE / "activations" / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]

    def fingerprints(self):
        return {
            "subject_fingerprint": _language_model(self.model).fingerprint,
            "corpus_fingerprint": _token_file(self.corpus, self.model).fingerprint,
        }

    def provenance(self):
        stored = json.loads((self.folder / "manifest.json").read_text())["rows"]
        return self.fingerprints() | {"stored_tokens": stored["train"]}

    def batches(self, batch, tokens, seed, device="cpu"):
        generator = torch.Generator().manual_seed(seed)
        left = tokens // batch
        rows = self._stored("train", device)
        if batch > len(rows):
            raise ValueError(f"batch={batch} is larger than the {len(rows)} stored activations of {self.hook}")
        while left:
            order = torch.randperm(len(rows), generator=generator).to(device)
            for chosen in order[: min(left, len(rows) // batch) * batch].split(batch):
                yield rows[chosen].float()
                left -= 1

    def heldout(self, device="cpu"):
        return self._stored("heldout", device).float()

    def _stored(self, split: str, device: str) -> Tensor:
        if not (self.folder / "manifest.json").exists():
            harvest([self])
        return _resident(self.folder, split, device)


@dataclass(frozen=True)
class Pairs(ActivationSource):
    """What a transcoder learns from: `targets` predicted from `inputs`, each batch (and the held-out rows) a `Pair`.

    Activations of a language model must differ in `hook` alone: then both are stored in one pass, their rows in the
    same order. Of other sources, equal arguments of `batches` must give rows that belong together.
    """

    inputs: ActivationSource
    targets: ActivationSource

    paired = True

    def __post_init__(self):
        for name in ("inputs", "targets"):
            if isinstance(getattr(self, name), Pairs):
                raise ValueError(f"{name} must be a source of plain activations, got {getattr(self, name)!r}")
        kinds = [isinstance(source, LanguageModelActivations) for source in (self.inputs, self.targets)]
        if any(kinds) and not all(kinds):
            raise ValueError(f"inputs and targets must be of one language model, got {self.inputs} and {self.targets}")
        for one in fields(LanguageModelActivations) if all(kinds) else ():
            ours, theirs = getattr(self.inputs, one.name), getattr(self.targets, one.name)
            if one.name != "hook" and ours != theirs:
                raise ValueError(f"{one.name} must be the same for inputs and targets, got {ours!r} and {theirs!r}")

    @property
    def d_in(self) -> int:
        return self.inputs.d_in

    @property
    def d_out(self) -> int:
        return self.targets.d_in

    def batches(self, batch, tokens, seed, device="cpu"):
        self._harvest()
        aligned = (source.batches(batch, tokens, seed, device) for source in (self.inputs, self.targets))
        yield from (Pair(*both) for both in zip(*aligned, strict=True))

    def sample(self, batch, tokens, seed, device="cpu"):
        return Pair(*map(torch.cat, zip(*self.batches(batch, tokens, seed, device), strict=True)))

    def heldout(self, device="cpu"):
        self._harvest()
        return Pair(self.inputs.heldout(device), self.targets.heldout(device))

    def fingerprints(self):
        return self.inputs.fingerprints() | self.targets.fingerprints()

    def provenance(self):
        return self.inputs.provenance() | self.targets.provenance()

    def _harvest(self) -> None:
        """Both hooks in one pass of the model."""
        if isinstance(self.inputs, LanguageModelActivations):
            harvest([self.inputs, self.targets])


@lru_cache(maxsize=4)
def _language_model(name: str) -> language_models.LanguageModel:
    return language_models.load(name, backend="fastest")


@lru_cache(maxsize=8)
def _token_file(corpus: Corpus, model: str):
    return corpus.build(_language_model(model).tokenizer)


@lru_cache(maxsize=4)
def _resident(folder: Path, split: str, device: str) -> Float[Tensor, "n d_in"]:
    """All bfloat16 rows of a split in the memory of `device`; every shard is checked against its recorded hash."""
    manifest = json.loads((folder / "manifest.json").read_text())
    rows = torch.empty(manifest["rows"][split], manifest["width"], dtype=torch.bfloat16, device=device)
    begin = 0
    for name, digest in manifest["shards"][split].items():
        path = folder / name
        try:
            intact = hashlib.sha256(path.read_bytes()).hexdigest() == digest
            shard = load_file(path)["rows"] if intact else None
        except (OSError, SafetensorError):
            shard = None
        if shard is None:
            raise ValueError(f"activation shard {path}: damaged or missing; delete its folder to harvest it again")
        rows[begin : begin + len(shard)] = shard
        begin += len(shard)
    return rows


def harvest(sources: Sequence[LanguageModelActivations], device: str | None = None) -> None:
    """Run the model once and store every hook point that `sources` ask for (those not stored yet).

    Sources that agree in all but the hook share one pass. Rows are bfloat16; training blocks are drawn in a seeded
    random order and rows are shuffled inside each shard of `SHARD_ROWS`, held-out rows stay in the order of the text.
    A folder appears only when it is complete.
    """
    missing = [source for source in dict.fromkeys(sources) if not (source.folder / "manifest.json").exists()]
    passes: dict[LanguageModelActivations, list[LanguageModelActivations]] = {}
    for source in missing:
        passes.setdefault(_without_hook(source), []).append(source)
    for together in passes.values():
        _harvest_together(together, device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _without_hook(source: LanguageModelActivations) -> LanguageModelActivations:
    return LanguageModelActivations(**{f.name: getattr(source, f.name) for f in fields(source)} | {"hook": ""})


def _harvest_together(sources: list[LanguageModelActivations], device: str) -> None:
    first = sources[0]
    text = _token_file(first.corpus, first.model)
    model = language_models.load(first.model, device=device, dtype=torch.bfloat16, backend="fastest")
    partial = {source: source.folder.with_name(f"{source.folder.name}.{os.getpid()}.partial") for source in sources}
    shards: dict = {source: {"train": {}, "heldout": {}} for source in sources}
    rows = {}
    for folder in partial.values():
        folder.mkdir(parents=True)
    try:
        for split, wanted in (("train", first.tokens), ("heldout", first.heldout_tokens)):
            blocks = _choose_blocks(text.blocks(split, first.context), wanted, first, shuffle=split == "train")
            rows[split] = len(blocks) * (first.context - first.skip_first)
            for number, values in enumerate(_shards(model, blocks, sources, split)):
                name = f"{split}-{number:05d}.safetensors"
                for source in sources:
                    path = partial[source] / name
                    save_file({"rows": values[source.hook]}, path)
                    shards[source][split][name] = hashlib.sha256(path.read_bytes()).hexdigest()
        if rows["train"] < first.tokens:
            print(
                f"{first.model}: the text has {rows['train']:,} training tokens, fewer than the {first.tokens:,} asked "
                "for; longer runs make several epochs",
                file=sys.stderr,
            )
        for source in sources:
            manifest = {"source": repr(source), **source.fingerprints(), "dtype": "bfloat16", "rows": rows}
            manifest |= {"width": model.width(source.hook), "shards": shards[source]}
            (partial[source] / "manifest.json").write_text(json.dumps(manifest, indent=1))
            try:
                partial[source].replace(source.folder)
            except OSError:  # another process has harvested the same in the meantime
                if not (source.folder / "manifest.json").exists():
                    raise
    finally:
        for folder in partial.values():
            shutil.rmtree(folder, ignore_errors=True)


def _choose_blocks(blocks: np.ndarray, tokens: int, source: LanguageModelActivations, shuffle: bool) -> np.ndarray:
    """The blocks that give `tokens` activations (or all there are), in a seeded random order or `spread` over the text:
    consecutive ones would come from a few files."""
    count = min(len(blocks), -(-tokens // (source.context - source.skip_first)))
    order = np.random.default_rng(0).permutation(len(blocks))[:count] if shuffle else spread(len(blocks), count)
    return blocks[order]


def spread(total: int, count: int) -> Int[np.ndarray, " count"]:
    """`count` different numbers below `total`, evenly spaced from the first to the last; all where there are fewer."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int)


def _shards(
    model, blocks: np.ndarray, sources: list[LanguageModelActivations], split: str
) -> Iterator[dict[str, Tensor]]:
    """Hook -> up to SHARD_ROWS bfloat16 rows on the CPU; training rows shuffled, in the same order for every hook."""
    hooks, first = list(dict.fromkeys(source.hook for source in sources)), sources[0]
    per_block = first.context - first.skip_first
    per_pass = max(1, HARVEST_TOKENS // first.context)
    progress = tqdm(
        total=len(blocks) * first.context,
        desc=f"{first.model} {split} activations",
        unit="token",
        unit_scale=True,
        mininterval=5,
        delay=5,
        file=sys.stderr,
    )
    with progress:
        for start in range(0, len(blocks), max(1, SHARD_ROWS // per_block)):
            shard = blocks[start : start + max(1, SHARD_ROWS // per_block)]
            parts: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
            for begin in range(0, len(shard), per_pass):
                tokens = torch.from_numpy(shard[begin : begin + per_pass].astype(np.int64)).to(model.device)
                for hook, values in model.activations(tokens, hooks).items():
                    rows = values[:, first.skip_first :].flatten(0, 1)
                    if not rows.isfinite().all():
                        raise ValueError(
                            f"{first.model} gives non-finite activations at {hook} (block {start + begin})"
                        )
                    parts[hook].append(rows.to("cpu", torch.bfloat16))
                progress.update(tokens.numel())
            whole = {hook: torch.cat(rows) for hook, rows in parts.items()}
            if split == "train":
                order = torch.randperm(len(shard) * per_block, generator=torch.Generator().manual_seed(start))
                whole = {hook: rows[order] for hook, rows in whole.items()}
            yield whole
