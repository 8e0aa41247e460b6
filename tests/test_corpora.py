"""Corpora: every rule on a hand-made file, splits by hash, the cache's promises."""

import hashlib
import itertools
import json
import os
from collections import Counter

import numpy as np
import pytest
from tokenizers import Tokenizer

from replication import corpora
from replication.corpora import HubDataset, LocalText, PythonSource, split_of
from replication.paths import MODELS

REVISION = "0" * 40


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(MODELS / "tokenizer.json"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "corpora"


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A folder that stands for both roots of `PythonSource`."""
    folder = tmp_path / "library"
    folder.mkdir()
    monkeypatch.setattr(corpora, "root_folder", lambda root: folder)
    return folder


def program(number: int, lines: int = 12) -> str:
    """Valid source of more than 200 characters, no line of which occurs in another program."""
    return "".join(f"value_{number}_{line} = 'program {number}, line {line}'\n" for line in range(lines))


def heldout_names(count: int, heldout: bool = True) -> list[str]:
    """Names that the hash rule, written out here once more, puts into a split."""
    names = (f"file{number}.py" for number in range(100_000))
    chosen = (name for name in names if (int(hashlib.sha1(name.encode()).hexdigest(), 16) % 50 == 0) == heldout)
    return [next(chosen) for _ in range(count)]


def write_programs(folder, count: int = 5) -> None:
    for number, name in enumerate(heldout_names(2) + heldout_names(count, heldout=False)):
        (folder / name).write_text(program(number), encoding="utf-8")


# ------------------------------------------------------------------------------------------------ requests


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (lambda: PythonSource(roots=("nowhere",)), "roots.*nowhere"),
        (lambda: PythonSource(roots=()), r"roots.*\(\)"),
        (lambda: PythonSource(max_files=1), "max_files.*1"),
        (lambda: HubDataset("", REVISION), "name.*''"),
        (lambda: HubDataset("a/b", ""), "revision.*''"),
        (lambda: HubDataset("a/b", REVISION, max_documents=0), "max_documents.*0"),
        (lambda: HubDataset("a/b", REVISION, config=""), "config.*''"),
        (lambda: LocalText("x", column=""), "column.*''"),
    ],
)
def test_requests_refuse_nonsense_by_field_and_value(request_, named):
    with pytest.raises(ValueError, match=named):
        request_()


def test_roots_have_one_order_and_the_repr_is_the_identity():
    assert PythonSource(("site-packages", "stdlib")) == PythonSource(("stdlib", "site-packages"))
    assert eval(repr(PythonSource(max_files=7))) == PythonSource(max_files=7)


# ------------------------------------------------------------------------------------------------ Python source


def test_every_rule_drops_its_file(library):
    lines = program(1).splitlines(keepends=True)
    files = {
        "a_kept.py": program(1).encode(),
        "b_duplicate.py": program(1).encode(),
        "c_seen_lines.py": ("".join(lines[:7]) + program(3, lines=6)).encode(),  # 7 of 13 long lines are known
        "d_half_seen.py": ("".join(lines[:6]) + program(4, lines=6)).encode(),  # 6 of 12: kept
        "e_not_utf8.py": program(5).encode() + b"# \xff\n",
        "f_length.py": b"x = 1\n",
        "g_length.py": b"x = 1\n" * 70_000,
        "h_long_line.py": program(6).encode() + b"#" * 2001,
        "i_not_ascii.py": ("é" * 10 + program(7, lines=6)).encode(),
        "pip/j.py": program(8).encode(),
        "package/pip/k.py": program(9).encode(),  # only a package of that name at the top is left out
        "__pycache__/l.py": program(10).encode(),
        "_sysconfigdata_x.py": program(11).encode(),
        "m_not_python.txt": program(12).encode(),
    }
    for name, content in files.items():
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_bytes(content)
    dropped = Counter()
    kept = [name for name, _ in PythonSource().documents(dropped)]
    assert kept == ["a_kept.py", "d_half_seen.py", "package/pip/k.py"]
    assert dropped == {"duplicate": 1, "seen_lines": 1, "not_utf8": 1, "length": 2, "long_line": 1, "not_ascii": 1}


def test_text_is_what_python_reads(library):
    (library / "a.py").write_bytes(b"\xef\xbb\xbf" + program(1).replace("\n", "\r\n").encode())
    assert list(PythonSource().documents()) == [("a.py", program(1))]


def test_no_file_left_names_the_roots(library):
    (library / "short.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"roots=\('stdlib',\).*'length': 1"):
        list(PythonSource().documents())


def test_tokens_are_the_text_split_by_the_hash_of_the_path(library, tokenizer):
    write_programs(library)
    built = PythonSource().build(tokenizer)
    names = {split: [entry["path"] for entry in built.files(split)] for split in corpora.SPLITS}
    assert names == {"heldout": sorted(heldout_names(2)), "train": sorted(heldout_names(5, heldout=False))}
    for split in corpora.SPLITS:
        tokens, offsets = built.tokens(split), built.documents(split)
        assert tokens.dtype == np.uint16 and offsets[-1] == len(tokens)
        assert np.array_equal(np.flatnonzero(tokens == 0), offsets[:-1])
        for entry, start, end in zip(built.files(split), offsets, offsets[1:], strict=False):
            text = tokenizer.decode(tokens[start + 1 : end].tolist(), skip_special_tokens=False)
            assert text == (library / entry["path"]).read_text(encoding="utf-8")
            assert entry["characters"] == len(text) and entry["tokens"] == end - start
            assert entry["sha256"] == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_max_files_is_a_fixed_subset_with_both_splits(library):
    write_programs(library, count=60)
    names = [name for name, _ in PythonSource(max_files=10).documents()]
    assert names == [name for name, _ in PythonSource(max_files=10).documents()]
    assert Counter(map(split_of, names)) == {"train": 9, "heldout": 1}


def test_the_running_python_has_a_standard_library():
    names = [name for name, _ in PythonSource(max_files=12).documents()]
    assert len(names) == 12 and all(name.endswith(".py") and "site-packages" not in name for name in names)


# ------------------------------------------------------------------------------------------------ the cache


def test_a_second_build_reads_no_source(library, tokenizer, monkeypatch):
    write_programs(library)
    first = PythonSource().build(tokenizer)

    def refuse(self, dropped=None):
        raise AssertionError("sources were read again")

    monkeypatch.setattr(PythonSource, "documents", refuse)
    second = PythonSource().build(tokenizer)
    assert second.folder == first.folder and second.manifest == first.manifest
    assert isinstance(second.tokens("train"), np.memmap)


def test_other_request_tokenizer_or_bos_is_another_corpus(library, tokenizer):
    other = Tokenizer.from_str(tokenizer.to_str())
    other.add_tokens(["value_"])
    keys = {PythonSource().key(tokenizer), PythonSource(max_files=9).key(tokenizer)}
    keys |= {PythonSource().key(tokenizer, bos=1), PythonSource().key(other)}
    assert len(keys) == 4


def test_truncation_set_on_a_tokenizer_changes_nothing(tokenizer):
    cutting = Tokenizer.from_str(tokenizer.to_str())
    cutting.enable_truncation(4)
    assert corpora.tokenizer_hash(cutting) == corpora.tokenizer_hash(tokenizer)


def test_fingerprint_follows_content_not_place(library, tokenizer, cache, monkeypatch):
    write_programs(library)
    first = PythonSource().build(tokenizer)
    monkeypatch.setattr(PythonSource, "state", lambda self: "another machine")
    second = PythonSource().build(tokenizer)
    (library / heldout_names(1)[0]).write_text(program(99))
    monkeypatch.setattr(PythonSource, "state", lambda self: "other files")
    third = PythonSource().build(tokenizer)
    assert first.folder != second.folder and first.fingerprint == second.fingerprint != third.fingerprint


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interrupted_build_leaves_nothing(library, tokenizer, cache, monkeypatch, interruption):
    def documents(self, dropped=None):
        yield "a.py", program(1)
        yield "b.py", program(2)
        raise interruption

    monkeypatch.setattr(corpora, "DOCUMENTS_PER_BATCH", 1)
    monkeypatch.setattr(PythonSource, "documents", documents)
    with pytest.raises(interruption):
        PythonSource().build(tokenizer)
    assert list(cache.iterdir()) == []


def test_the_second_of_two_processes_takes_what_the_first_published(tmp_path):
    folder = tmp_path / "corpus"
    with corpora.published(folder) as mine:
        (mine / "content").write_text("mine")
        with corpora.published(folder) as theirs:
            (theirs / "content").write_text("theirs")
    assert (folder / "content").read_text() == "theirs" and os.listdir(tmp_path) == ["corpus"]


def test_damage_is_reported_with_the_file(library, tokenizer):
    write_programs(library)
    folder = PythonSource().build(tokenizer).folder
    intact = (folder / "train.npy").read_bytes()
    (folder / "train.npy").write_bytes(intact[:-10])
    with pytest.raises(ValueError, match="train.npy is unreadable"):
        PythonSource().build(tokenizer)
    np.save(folder / "train.npy", np.zeros(3, dtype=np.uint16))
    with pytest.raises(ValueError, match="train.npy holds .*3.* its manifest says"):
        PythonSource().build(tokenizer)
    (folder / "train.npy").write_bytes(intact)
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="manifest.json is unreadable"):
        PythonSource().build(tokenizer)


def test_blocks_are_consecutive_and_drop_the_remainder(library, tokenizer):
    write_programs(library)
    built = PythonSource().build(tokenizer)
    tokens, blocks = built.tokens("train"), built.blocks("train", 64)
    assert blocks.shape == (len(tokens) // 64, 64) and np.array_equal(blocks.ravel(), tokens[: blocks.size])
    for context in (0, len(tokens) + 1):
        with pytest.raises(ValueError, match=f"context.*{context}"):
            built.blocks("train", context)
    with pytest.raises(ValueError, match="'train', 'heldout'.*'test'"):
        built.tokens("test")


def test_bos_must_be_in_the_vocabulary(tokenizer):
    with pytest.raises(ValueError, match="bos.*8192"):
        PythonSource().build(tokenizer, bos=8192)


def test_large_vocabularies_take_four_bytes(tmp_path, tokenizer, monkeypatch):
    with corpora.TokenWriter(tmp_path / "tokens.npy", np.dtype(np.uint32)) as writer:
        writer.append([1, 70_000])
        writer.append([3])
    assert np.array_equal(np.load(tmp_path / "tokens.npy"), np.array([1, 70_000, 3], dtype=np.uint32))
    assert writer.entry()["sha256"] == hashlib.sha256(np.array([1, 70_000, 3], dtype=np.uint32).tobytes()).hexdigest()


# ------------------------------------------------------------------------------------------------ other text


def rows(count: int) -> list[dict]:
    return [{"text": f"document {number} says <|endoftext|> in words"} for number in range(count)]


def texts_of(built, tokenizer, split: str) -> list[str]:
    tokens, offsets = built.tokens(split), built.documents(split)
    documents = [tokens[start + 1 : end].tolist() for start, end in itertools.pairwise(offsets)]
    return [tokenizer.decode(ids, skip_special_tokens=False) for ids in documents]


def test_local_jsonl_is_split_by_the_hash_of_the_text(tmp_path, tokenizer):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows(200), {"text": ""}, {"text": "\ud800"}]))
    built = LocalText(path).build(tokenizer)
    texts = [row["text"] for row in rows(200)]
    heldout = [text for text in texts if int(hashlib.sha1(text.encode()).hexdigest(), 16) % 50 == 0]
    assert 0 < len(heldout) < 20
    assert texts_of(built, tokenizer, "heldout") == heldout
    assert texts_of(built, tokenizer, "train") == [text for text in texts if text not in heldout]
    assert (built.tokens("train") == 0).sum() == 200 - len(heldout)  # a special token in words stays words
    assert built.manifest["dropped"] == {"empty": 1, "not_utf8": 1}


def test_one_file_is_one_document_split_by_characters(tmp_path, tokenizer):
    path = tmp_path / "book.txt"
    path.write_text("0123456789" * 10)
    built = LocalText(path).build(tokenizer)
    assert texts_of(built, tokenizer, "train") == [("0123456789" * 10)[:98]]
    assert texts_of(built, tokenizer, "heldout") == ["89"]


def test_a_folder_is_read_by_relative_path_and_holds_out_at_least_the_last(tmp_path, tokenizer):
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("first")
    (folder / "deep" / "b.py").write_text("second = 2\n")
    (folder / "e.txt").write_text("third")
    (folder / "f.txt").write_bytes(b"\xff\xfe")
    (folder / "ignored.bin").write_bytes(b"no text")
    assert [name for name, _ in LocalText(folder).documents()] == ["a.txt", "deep/b.py", "e.txt"]
    built = LocalText(folder).build(tokenizer)
    assert texts_of(built, tokenizer, "train") == ["first", "second = 2\n"]
    assert texts_of(built, tokenizer, "heldout") == ["third"]
    assert built.manifest["dropped"] == {"not_utf8": 1}
    (folder / "a.txt").write_text("first, edited")
    assert texts_of(LocalText(folder).build(tokenizer), tokenizer, "train")[0] == "first, edited"


def write_parquet(path, table: list[dict]) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(table), path)


def test_local_parquet(tmp_path):
    write_parquet(tmp_path / "rows.parquet", rows(3) + [{"text": None}])
    documents = list(LocalText(tmp_path / "rows.parquet").documents())
    assert documents == [(f"rows.parquet:{number}", row["text"]) for number, row in enumerate(rows(3))]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_local_text_names_what_is_missing(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        write_parquet(path, rows(2))
    else:
        path.write_text(json.dumps(rows(1)[0]))
    with pytest.raises(ValueError, match=f"{suffix} has no column 'code', only .*text"):
        list(LocalText(path, column="code").documents())
    with pytest.raises(ValueError, match="nowhere.*holds no file"):
        list(LocalText(tmp_path / "nowhere").documents())


def test_local_text_names_the_line_that_is_not_json_and_an_empty_corpus(tmp_path, tokenizer):
    (tmp_path / "rows.jsonl").write_text('{"text": "good"}\n{bad\n')
    with pytest.raises(ValueError, match="rows.jsonl line 2 is not JSON"):
        list(LocalText(tmp_path / "rows.jsonl").documents())
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match=r"no document is left \(dropped by rule: {'empty': 1}\)"):
        LocalText(tmp_path / "empty.txt").build(tokenizer)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """The hub's client as it behaves under HF_HUB_OFFLINE=1, its cache in a temporary folder."""
    datasets = pytest.importorskip("datasets")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub_cache")


@pytest.fixture
def hub_folder(tmp_path):
    """A data set as it lies on the hub."""
    (tmp_path / "dataset" / "data").mkdir(parents=True)
    write_parquet(tmp_path / "dataset" / "data" / "train-00000-of-00001.parquet", rows(5))
    return str(tmp_path / "dataset")


def test_hub_dataset_reads_a_column(offline, hub_folder, tokenizer):
    built = HubDataset(hub_folder, REVISION).build(tokenizer)
    texts = [row["text"] for row in rows(5)]
    assert sorted(texts_of(built, tokenizer, "train") + texts_of(built, tokenizer, "heldout")) == sorted(texts)
    streamed = HubDataset(hub_folder, REVISION, max_documents=2).documents()
    assert list(streamed) == [("0", texts[0]), ("1", texts[1])]


def test_hub_dataset_names_a_missing_column_or_split(offline, hub_folder):
    with pytest.raises(ValueError, match=r"no column 'code', only \['text'\]"):
        list(HubDataset(hub_folder, REVISION, column="code").documents())
    with pytest.raises(RuntimeError, match="cannot read .*test"):
        list(HubDataset(hub_folder, REVISION, split="test").documents())


def test_an_unreachable_hub_is_one_clear_line(offline):
    with pytest.raises(RuntimeError, match="^HubDataset: cannot read some/where at 00000000: ") as raised:
        list(HubDataset("some/where", REVISION).documents())
    assert "\n" not in str(raised.value)


def test_script_datasets_are_sent_to_a_parquet_mirror(offline, monkeypatch):
    def refuse(*arguments, **options):
        raise RuntimeError("Dataset scripts are no longer supported, but found openwebtext.py")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(RuntimeError, match="openwebtext.py .*parquet mirror"):
        list(HubDataset("some/where", REVISION).documents())
