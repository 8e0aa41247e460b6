"""Activation sources on the smallest embedded model and a corpus of a few files."""

import json

import pytest
import torch

from replication import activations, corpora, language_models
from replication.activations import NORMALISATIONS, Gaussian, LanguageModelActivations, harvest
from replication.corpora import LocalText

HOOKS = ("blocks.0.hook_resid_post", "blocks.1.attn.hook_z", "blocks.1.hook_mlp_out")


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    for module in (activations, corpora):
        monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(activations, "SHARD_ROWS", 64)
    activations._resident.cache_clear()
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.txt").write_text(
            "".join(f"def f{number}_{i}(x):\n    return x + {i}\n\n" for i in range(60))
        )
    yield LocalText(str(folder))
    activations._resident.cache_clear()


def source(corpus, hook=HOOKS[0], **changes) -> LanguageModelActivations:
    return LanguageModelActivations(
        "pygpt-0.5m", hook, corpus, **{"context": 16, "tokens": 160, "heldout_tokens": 32} | changes
    )


def test_stored_rows_are_the_models_activations(corpus):
    stored = source(corpus)
    model = language_models.load("pygpt-0.5m")
    blocks = torch.from_numpy(corpus.build(model.tokenizer).blocks("heldout", 16)[:2].astype("int64"))
    expected = model.activations(blocks, [HOOKS[0]])[HOOKS[0]].flatten(0, 1)
    torch.testing.assert_close(stored.heldout(), expected, rtol=0.05, atol=0.05 * expected.abs().max().item())
    assert stored.d_in == 64


def test_one_pass_fills_every_hook_and_a_second_harvest_does_nothing(corpus, monkeypatch):
    wanted = [source(corpus, hook) for hook in HOOKS]
    passes = []
    real = language_models.LanguageModel.activations
    monkeypatch.setattr(
        language_models.LanguageModel,
        "activations",
        lambda self, tokens, hooks: passes.append(list(hooks)) or real(self, tokens, hooks),
    )
    harvest(wanted)
    assert passes and all(hooks == list(HOOKS) for hooks in passes)
    assert {one.heldout().shape for one in wanted} == {torch.Size([32, 64])}
    passes.clear()
    harvest(wanted)
    assert not passes


def test_batches_are_seeded_cover_an_epoch_once_and_go_on(corpus):
    stored = source(corpus)
    first, again, other = (torch.cat(list(stored.batches(32, 160, seed))) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.dtype == torch.float32 and first.shape == (160, 64)
    rows = activations._resident(stored.folder, "train", "cpu").float()
    assert sorted(map(tuple, first.tolist())) == sorted(map(tuple, rows.tolist()))
    assert sum(len(batch) for batch in stored.batches(32, 400, 0)) == 384


def test_skipped_positions_are_absent(corpus):
    everything, without_first = source(corpus), source(corpus, skip_first=1)
    kept = everything.heldout().view(-1, 16, 64)[:, 1:].flatten(0, 1)
    assert torch.equal(without_first.heldout()[: len(kept)], kept)


def test_a_damaged_shard_is_named_and_not_used(corpus):
    stored = source(corpus)
    stored.heldout()
    shard = sorted(stored.folder.glob("train-*"))[0]
    shard.write_bytes(shard.read_bytes()[:-3] + b"abc")
    with pytest.raises(ValueError, match=shard.name):
        next(stored.batches(8, 8, 0))


def test_an_interrupted_harvest_leaves_nothing(corpus, monkeypatch):
    stored = source(corpus)
    monkeypatch.setattr(activations, "save_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        harvest([stored])
    assert list(stored.folder.parent.iterdir()) == []


def test_non_finite_activations_stop_the_harvest(corpus, monkeypatch):
    monkeypatch.setattr(
        language_models.LanguageModel,
        "activations",
        lambda self, tokens, hooks: {hook: torch.full((*tokens.shape, 64), float("nan")) for hook in hooks},
    )
    with pytest.raises(ValueError, match="non-finite.*blocks.0.hook_resid_post"):
        harvest([source(corpus)])


def test_the_manifest_says_what_it_holds(corpus):
    stored = source(corpus)
    stored.heldout()
    manifest = json.loads((stored.folder / "manifest.json").read_text())
    assert manifest["source"] == repr(stored) and manifest["dtype"] == "bfloat16"
    assert stored.fingerprints().items() <= manifest.items()
    assert stored.provenance()["stored_tokens"] == manifest["rows"]["train"] == 160


@pytest.mark.parametrize("field, value", [("tokens", 3), ("heldout_tokens", 3), ("skip_first", 16), ("skip_first", -1)])
def test_nonsense_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field}.*{value}"):
        source(LocalText("nowhere"), **{field: value})


def test_a_batch_larger_than_the_data_is_refused(corpus):
    with pytest.raises(ValueError, match="batch=4096"):
        next(source(corpus).batches(4096, 8192, 0))


def test_gaussian_is_seeded_and_its_heldout_is_apart():
    gaussian = Gaussian(3)
    first, again = (torch.cat(list(gaussian.batches(8, 20, 0))) for _ in range(2))
    assert torch.equal(first, again) and first.shape == (16, 3)
    rows = set(map(tuple, first.tolist()))
    assert rows.isdisjoint(map(tuple, gaussian.heldout().tolist()))


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_normalisations_can_be_undone(name):
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    normal, undo = NORMALISATIONS[name](x)
    torch.testing.assert_close(undo(normal), x)
    if name == "gao":
        torch.testing.assert_close(normal.mean(-1), torch.zeros(5), atol=1e-6, rtol=0)
        torch.testing.assert_close(normal.norm(dim=-1), torch.ones(5))


def test_lee_gives_every_token_the_norm_sqrt_of_d_minus_1():
    x = torch.tensor([[1.0, 2.0, 3.0], [10.0, 10.0, 40.0]])
    normalised, _ = NORMALISATIONS["lee"](x)
    torch.testing.assert_close(normalised[0], torch.tensor([-1.0, 0.0, 1.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.norm(dim=-1), torch.full((2,), 2**0.5), atol=1e-4, rtol=0)
