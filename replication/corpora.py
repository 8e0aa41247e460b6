"""Text -> token blocks: the Python source on this machine, any Hugging Face dataset, local text or parquet.

A corpus is a frozen request whose repr is its identity. `build` tokenises it once into the cache:

    CACHE/corpora/<key>/train.npy, heldout.npy   1-D token ids, every document opened by one bos token
    CACHE/corpora/<key>/manifest.json            what was read, what was dropped by which rule, hashes, token counts
"""

import contextlib
import hashlib
import itertools
import json
import math
import os
import platform
import shutil
import sys
import sysconfig
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from replication.fingerprints import code_fingerprint
from replication.paths import CACHE

SPLITS = ("train", "heldout")
ROOTS = ("stdlib", "site-packages")
HELDOUT_MODULUS = 50
DOCUMENTS_PER_BATCH = 256

# Repetitive or generated packages, left out of the text that the embedded language models were trained on.
EXCLUDED_PACKAGES = ("transformers", "wandb", "pip", "setuptools")
SKIPPED_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages"})
# Written by the installation, with its paths and compiler flags inside: they would give every machine its own corpus.
MACHINE_WRITTEN = ("_sysconfigdata", "config-3.", "__editable__")


def sha256(data: bytes, digits: int = 16) -> str:
    """The first `digits` hex digits of the SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()[:digits]


def split_of(key: str) -> str:
    """'heldout' when sha1(key), read as an integer, is 0 modulo 50, else 'train': about 2 % of keys are held out."""
    digest = hashlib.sha1(key.encode()).hexdigest()
    return "heldout" if int(digest, 16) % HELDOUT_MODULUS == 0 else "train"


def check_count(owner: str, name: str, value: int | None, least: int) -> None:
    """Raise ValueError unless `value` is None (no limit) or an integer of at least `least`."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise ValueError(f"{owner}: {name} must be None or an integer of at least {least}, got {value!r}")


def check_text(owner: str, **fields: str) -> None:
    """Raise ValueError unless every field is a non-empty string."""
    for name, value in fields.items():
        if not isinstance(value, str) or not value:
            raise ValueError(f"{owner}: {name} must be a non-empty string, got {value!r}")


# ------------------------------------------------------------------------------------------------ built token files


@dataclass(frozen=True)
class TokenFile:
    """A tokenised corpus on disk. Documents stand one after the other, each opened by one bos token."""

    folder: Path
    manifest: dict = field(repr=False, compare=False)

    @classmethod
    def load(cls, folder: Path) -> "TokenFile":
        """Open a built corpus. ValueError naming the file when one is unreadable or disagrees with the manifest."""
        path = folder / "manifest.json"
        try:
            token_file = cls(folder, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is unreadable ({error}); delete {folder} to build it again") from error
        for split in SPLITS:
            token_file._verify(split)
        return token_file

    @property
    def fingerprint(self) -> str:
        """Short hex over document hashes and splits, tokenizer and bos: equal when the tokens are."""
        return self.manifest["fingerprint"]

    def tokens(self, split: str) -> np.ndarray:
        """All tokens of a split, 1-D, memory-mapped read-only (uint16, or uint32 for a vocabulary above 65,535)."""
        return np.load(self.folder / f"{_known(split)}.npy", mmap_mode="r")

    def blocks(self, split: str, context: int) -> np.ndarray:
        """(n_blocks, context): consecutive non-overlapping windows over the split; the remainder is dropped.

        A block may start inside a document and hold several. ValueError when the split is shorter than one block.
        """
        tokens = self.tokens(split)
        if context < 1 or len(tokens) < context:
            raise ValueError(f"context must be 1 to {len(tokens):,}, the tokens of split {split!r}, got {context!r}")
        n_blocks = len(tokens) // context
        return tokens[: n_blocks * context].reshape(n_blocks, context)

    def documents(self, split: str) -> np.ndarray:
        """Offsets (n_documents + 1,): document i of `files(split)` is `tokens(split)[offsets[i] : offsets[i + 1]]`."""
        return np.cumsum([0] + [entry["tokens"] for entry in self.files(split)], dtype=np.int64)

    def files(self, split: str) -> list[dict]:
        """The manifest's entries of a split in token order: path, sha256, characters, tokens (bos included), split."""
        return [entry for entry in self.manifest["files"] if entry["split"] == _known(split)]

    def _verify(self, split: str) -> None:
        path, expected = self.folder / f"{split}.npy", self.manifest["arrays"][split]
        try:
            tokens = self.tokens(split)
            found = {"tokens": len(tokens), "dtype": str(tokens.dtype), "sha256": hashlib.sha256(tokens).hexdigest()}
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is unreadable ({error}); delete {self.folder} to build it again") from error
        if found != expected:
            raise ValueError(
                f"{path} holds {found}, its manifest says {expected}; delete {self.folder} to build it again"
            )


def _known(split: str) -> str:
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    return split


class TokenWriter:
    """Append token ids to a .npy file whose length is known only at the end, so a corpus need not fit in memory."""

    def __init__(self, path: Path, dtype: np.dtype):
        self.file, self.dtype, self.length, self.hash = path.open("wb"), np.dtype(dtype), 0, hashlib.sha256()
        self._header()

    def __enter__(self) -> "TokenWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.seek(0)
        self._header()
        self.file.close()

    def entry(self) -> dict:
        """What the manifest says about the array."""
        return {"tokens": self.length, "dtype": str(self.dtype), "sha256": self.hash.hexdigest()}

    def append(self, ids: list[int]) -> None:
        data = np.asarray(ids, dtype=self.dtype).tobytes()
        self.file.write(data)
        self.hash.update(data)
        self.length += len(ids)

    def _header(self) -> None:
        # numpy pads the header for a first axis of up to 21 digits, so the final one overwrites the first in place.
        descr = np.lib.format.dtype_to_descr(self.dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self.file, header)


@contextlib.contextmanager
def published(folder: Path) -> Iterator[Path]:
    """A temporary sibling to write into, renamed to `folder` at the end: others see all of it or nothing."""
    partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        yield partial
        try:
            os.rename(partial, folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same content
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


# ------------------------------------------------------------------------------------------------ requests


class Corpus(ABC):
    """A request for text. Subclasses are frozen dataclasses and supply `documents`; `build` makes the tokens."""

    heldout_by: ClassVar[Literal["name", "text"]] = "text"

    @abstractmethod
    def documents(self, dropped: Counter | None = None) -> Iterator[tuple[str, str]]:
        """(name, text) of every document in a fixed order; `dropped`, when given, counts refused ones per rule."""

    def state(self) -> str:
        """What else than the request decides about the text and is cheap to look up; part of the cache key."""
        return ""

    def key(self, tokenizer: Tokenizer, bos: int = 0) -> str:
        """Name of the cache folder: the request, the tokenizer, this code and `state`, without reading any source."""
        parts = (repr(self), tokenizer_hash(tokenizer), bos, code_fingerprint(type(self)), self.state())
        return sha256(repr(parts).encode())

    def build(self, tokenizer: Tokenizer, bos: int = 0) -> TokenFile:
        """Tokenise the corpus into the cache, or open it there: a second call reads no source.

        Special tokens spelled out in the text are encoded as plain text, so `bos` occurs at document starts only.
        ValueError when no document is left, or `bos` is outside the vocabulary.
        """
        if not 0 <= bos < tokenizer.get_vocab_size():
            raise ValueError(f"bos must be a token id below {tokenizer.get_vocab_size()}, got {bos!r}")
        folder = CACHE / "corpora" / self.key(tokenizer, bos)
        if not folder.is_dir():
            with published(folder) as partial:
                self._write(partial, tokenizer, bos)
        return TokenFile.load(folder)

    def splits(self, dropped: Counter | None = None) -> Iterator[tuple[str, str, str]]:
        """(name, text, split) by `split_of` the name or the text, as `heldout_by` says.

        When that holds out nothing, the last document is held out; of a single document the last 2 % of characters.
        """
        held_out, first = False, True
        for (name, text), is_last in _mark_last(self.documents(dropped)):
            split = split_of(name if self.heldout_by == "name" else text)
            if is_last and first:
                cut = int(0.98 * len(text))
                yield name, text[:cut], "train"
                yield name, text[cut:], "heldout"
                return
            held_out, first = held_out or split == "heldout", False
            yield name, text, "heldout" if is_last and not held_out else split

    def _write(self, folder: Path, tokenizer: Tokenizer, bos: int) -> None:
        dtype, dropped = np.dtype(np.uint32 if tokenizer.get_vocab_size() > 65535 else np.uint16), Counter()
        with TokenWriter(folder / "train.npy", dtype) as train, TokenWriter(folder / "heldout.npy", dtype) as heldout:
            writers = {"train": train, "heldout": heldout}
            files = list(self._tokenise(writers, plain_copy(tokenizer), bos, dropped))
        if not files:
            raise ValueError(f"{self!r}: no document is left (dropped by rule: {dict(dropped)})")
        content = [(entry["sha256"], entry["split"]) for entry in files]
        manifest = {
            "request": repr(self),
            "fingerprint": sha256(repr((content, tokenizer_hash(tokenizer), bos)).encode()),
            "tokenizer": tokenizer_hash(tokenizer),
            "bos": bos,
            "python": platform.python_version(),
            "arrays": {split: writer.entry() for split, writer in writers.items()},
            "dropped": dict(dropped),
            "files": files,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")

    def _tokenise(
        self, writers: dict[str, TokenWriter], tokenizer: Tokenizer, bos: int, dropped: Counter
    ) -> Iterator[dict]:
        """Append every document to the writer of its split; yield its manifest entry."""
        documents = tqdm(self.splits(dropped), desc=type(self).__name__, unit=" documents", mininterval=5, delay=5)
        for batch in _batches(documents, DOCUMENTS_PER_BATCH):
            encodings = tokenizer.encode_batch_fast([text for _, text, _ in batch], add_special_tokens=False)
            for (name, text, split), encoding in zip(batch, encodings, strict=True):
                ids = [bos, *encoding.ids]
                writers[split].append(ids)
                entry = {"path": name, "sha256": sha256(text.encode()), "characters": len(text)}
                yield entry | {"tokens": len(ids), "split": split}


def plain_copy(tokenizer: Tokenizer) -> Tokenizer:
    """The same vocabulary without truncation, padding or special meaning of text such as '<|endoftext|>'."""
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    plain.encode_special_tokens = True
    return plain


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """Short hex over all that decides which tokens a text becomes."""
    return sha256(plain_copy(tokenizer).to_str().encode())


def _mark_last(items: Iterable) -> Iterator[tuple[object, bool]]:
    """(item, whether it is the last)."""
    items = iter(items)
    for current in items:
        for following in items:
            yield current, False
            current = following
        yield current, True


def _batches(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def usable(text: object, dropped: Counter) -> bool:
    """Whether a cell of a dataset is a non-empty text that UTF-8 can hold; if not, counted in `dropped`."""
    if not isinstance(text, str) or not text:
        dropped["empty"] += 1
        return False
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates
        dropped["not_utf8"] += 1
        return False
    return True


# ------------------------------------------------------------------------------------------------ Python source


def root_folder(root: str) -> Path:
    """Where a root of `PythonSource` lies for the running interpreter."""
    return Path(sysconfig.get_path({"stdlib": "stdlib", "site-packages": "purelib"}[root]))


@dataclass(frozen=True)
class PythonSource(Corpus):
    """The .py files of the running Python: its standard library (tests included) and its installed packages.

    A file is kept when it is UTF-8, has 200 to 400,000 characters, no line above 2,000 and at least 97 % ASCII, is no
    exact duplicate of an earlier file, and at most half of its lines above 30 characters occur in earlier kept files.
    Left out by name: `EXCLUDED_PACKAGES` and the files that an installation writes for its machine. Lines end in "\\n".
    Held out: sha1(path relative to its root) modulo 50 == 0.

    Order: root by root, by relative path, so that adding "site-packages" leaves the standard library's part as it is.
    `max_files` keeps at most so many files: those of smallest sha1, in that order, one in 50 (at least one) held out.
    """

    roots: tuple[str, ...] = ("stdlib",)
    max_files: int | None = None

    heldout_by: ClassVar[Literal["name", "text"]] = "name"

    def __post_init__(self):
        if isinstance(self.roots, str) or not self.roots or not set(self.roots) <= set(ROOTS):
            raise ValueError(f"PythonSource: roots must be a tuple of names among {ROOTS}, got {self.roots!r}")
        object.__setattr__(self, "roots", tuple(root for root in ROOTS if root in self.roots))
        check_count("PythonSource", "max_files", self.max_files, least=2)

    def documents(self, dropped: Counter | None = None) -> Iterator[tuple[str, str]]:
        dropped = Counter() if dropped is None else dropped
        room, seen_texts, seen_lines = self._room(), set(), set()
        for name, path in self._candidates():
            if room[split_of(name)] == 0:
                continue
            text = read_source(path)
            rule = broken_rule(text) or repeated(text, seen_texts, seen_lines)
            if rule:
                dropped[rule] += 1
                continue
            room[split_of(name)] -= 1
            yield name, text
        if not seen_texts:
            raise ValueError(
                f"PythonSource: roots={self.roots!r} hold no usable file (dropped by rule: {dict(dropped)})"
            )

    def state(self) -> str:
        folders = [str(root_folder(root)) for root in self.roots]
        # Versions of installed packages are in the names of their .dist-info folders: an upgrade makes a new corpus.
        packages = root_folder("site-packages").glob("*.dist-info") if "site-packages" in self.roots else ()
        return repr((sys.version_info[:3], folders, sorted(path.name for path in packages)))

    def _candidates(self) -> list[tuple[str, Path]]:
        """(path relative to its root, path) of every file that its name alone does not rule out."""
        named = [pair for root in self.roots for pair in sorted(source_files(root_folder(root)))]
        if self.max_files is None:
            return named
        return sorted(named, key=lambda pair: hashlib.sha1(pair[0].encode()).hexdigest())

    def _room(self) -> dict[str, int | float]:
        """How many files each split still takes."""
        if self.max_files is None:
            return dict.fromkeys(SPLITS, math.inf)
        heldout = max(1, self.max_files // HELDOUT_MODULUS)
        return {"train": self.max_files - heldout, "heldout": heldout}


def source_files(root: Path) -> Iterator[tuple[str, Path]]:
    """(relative posix path, path) of the .py files below `root` whose folders and names are not excluded."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS]
        if Path(folder) == root:
            subfolders[:] = [name for name in subfolders if name not in EXCLUDED_PACKAGES]
        for path in (Path(folder, name) for name in names if name.endswith(".py")):
            relative = path.relative_to(root)
            if not any(part.startswith(MACHINE_WRITTEN) for part in relative.parts):
                yield relative.as_posix(), path


def read_source(path: Path) -> str | None:
    """The text as Python reads it: without byte order mark, lines ending in "\\n"; None when it is not UTF-8."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def broken_rule(text: str | None) -> str | None:
    """The first rule that this text breaks on its own, or None."""
    if text is None:
        return "not_utf8"
    if not 200 <= len(text) <= 400_000:
        return "length"
    if max(map(len, text.split("\n"))) > 2000:
        return "long_line"
    if len(text.encode("ascii", "ignore")) < 0.97 * len(text):
        return "not_ascii"
    return None


def repeated(text: str, seen_texts: set[bytes], seen_lines: set[int]) -> str | None:
    """'duplicate' or 'seen_lines' when earlier texts hold this one or most of it; else None, and it is remembered."""
    digest = hashlib.sha256(text.encode()).digest()
    if digest in seen_texts:
        return "duplicate"
    lines = [hash(line) for line in text.split("\n") if len(line) > 30]  # 64 bits: a tenth of the memory of the lines
    if sum(line in seen_lines for line in lines) > len(lines) / 2:
        return "seen_lines"
    seen_texts.add(digest)
    seen_lines.update(lines)
    return None


# ------------------------------------------------------------------------------------------------ other text


@dataclass(frozen=True)
class HubDataset(Corpus):
    """A text column of a Hugging Face dataset at one commit, through `datasets.load_dataset`.

    `revision` has no default: a commit hash pins the text; a branch name is accepted, but its text can change. With
    `max_documents` only the first rows are streamed. Empty cells are dropped. Held out: sha1(text) modulo 50 == 0; if
    that is no document, the last one; of a single document the last 2 % of characters. RuntimeError with the cause in
    one line when the hub or the dataset cannot be read, ValueError for an unknown column.
    """

    name: str
    revision: str
    split: str = "train"
    column: str = "text"
    config: str | None = None
    max_documents: int | None = None

    def __post_init__(self):
        check_text("HubDataset", name=self.name, revision=self.revision, split=self.split, column=self.column)
        if self.config is not None:
            check_text("HubDataset", config=self.config)
        check_count("HubDataset", "max_documents", self.max_documents, least=1)

    def documents(self, dropped: Counter | None = None) -> Iterator[tuple[str, str]]:
        dropped = Counter() if dropped is None else dropped
        for number, row in enumerate(itertools.islice(self._rows(), self.max_documents)):
            if self.column not in row:
                raise ValueError(f"HubDataset: {self.name} has no column {self.column!r}, only {sorted(row)}")
            if usable(row[self.column], dropped):
                yield str(number), row[self.column]

    def _rows(self) -> Iterator[dict]:
        try:
            import datasets

            streaming = self.max_documents is not None
            yield from datasets.load_dataset(
                self.name, self.config, split=self.split, revision=self.revision, streaming=streaming
            )
        except Exception as error:  # the hub client raises dozens of types; the reader needs the cause in one line
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            if "scripts are no longer supported" in cause:
                cause += " (datasets >= 4 runs no dataset scripts: name a parquet mirror and its revision)"
            raise RuntimeError(f"HubDataset: cannot read {self.name} at {self.revision[:8]}: {cause}") from error


@dataclass(frozen=True)
class LocalText(Corpus):
    """Text on this machine: .txt or .py (one document a file), .parquet or .jsonl (one a row of `column`), or a folder.

    A folder is read in all its depth, by relative path. Empty texts and files that are not UTF-8 are dropped.
    Held out: sha1(text) modulo 50 == 0; if that is no document, the last one; of a single document the last 2 % of
    characters.
    ValueError when the path holds nothing to read or a column is missing.
    """

    path: str | os.PathLike
    column: str = "text"

    def __post_init__(self):
        object.__setattr__(self, "path", os.fspath(self.path))
        check_text("LocalText", path=self.path, column=self.column)

    def documents(self, dropped: Counter | None = None) -> Iterator[tuple[str, str]]:
        dropped = Counter() if dropped is None else dropped
        for path in self._files():
            name = path.name if path == Path(self.path) else path.relative_to(self.path).as_posix()
            for number, text in enumerate(READERS[path.suffix](path, self.column)):
                if usable(text, dropped):
                    yield (name if path.suffix in (".txt", ".py") else f"{name}:{number}"), text

    def state(self) -> str:
        stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in self._files()]
        return repr(stats)

    def _files(self) -> list[Path]:
        path = Path(self.path)
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        files = [file for file in found if file.suffix in READERS and file.is_file()]
        if not files:
            raise ValueError(f"LocalText: path={self.path!r} holds no file ending in {', '.join(READERS)}")
        return files


def read_whole(path: Path, column: str) -> Iterator[object]:
    """A text file is one document, whatever the column."""
    # Bytes that are not UTF-8 become lone surrogates, which `usable` refuses and counts.
    yield path.read_text(encoding="utf-8-sig", errors="surrogateescape")


def read_parquet(path: Path, column: str) -> Iterator[object]:
    """The cells of one column, a batch of rows at a time."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        _require(column, file.schema_arrow.names, path)
        for batch in file.iter_batches(columns=[column]):
            yield from batch.column(0).to_pylist()


def read_jsonl(path: Path, column: str) -> Iterator[object]:
    """The value of one key of each line's JSON object."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"LocalText: {path} line {number} is not JSON ({error})") from error
            _require(column, row, path)
            yield row[column]


def _require(column: str, columns: Iterable[str], path: Path) -> None:
    if column not in columns:
        raise ValueError(f"LocalText: {path} has no column {column!r}, only {sorted(columns)}")


READERS: dict[str, Callable[[Path, str], Iterator[object]]] = {
    ".txt": read_whole,
    ".py": read_whole,
    ".parquet": read_parquet,
    ".jsonl": read_jsonl,
}
