"""Activation sources on the smallest embedded model and a corpus of a few files."""

import json
import re
from dataclasses import replace

import pytest
import torch

from replication import activations, corpora, language_models
from replication.activations import NORMALISATIONS, Gaussian, LanguageModelActivations, Pairs, harvest
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
    blocks = torch.from_numpy(corpus.build(model.tokenizer).blocks("heldout", 16)[[0, -1]].astype("int64"))  # spread
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
    everything, without_first = (source(corpus, heldout_tokens=10**6, skip_first=skipped) for skipped in (0, 1))
    assert torch.equal(without_first.heldout(), everything.heldout().view(-1, 16, 64)[:, 1:].flatten(0, 1))


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


def test_a_harvest_that_another_process_has_finished_meanwhile_keeps_the_other_one(corpus, monkeypatch):
    stored = source(corpus)
    real = activations.save_file

    def slow(*arguments):
        if not stored.folder.exists():  # while this one writes its first shard, another does all of it
            monkeypatch.setattr(activations, "save_file", real)
            with monkeypatch.context() as other:
                other.setattr(activations.os, "getpid", lambda: 0)
                harvest([stored])
        real(*arguments)

    monkeypatch.setattr(activations, "save_file", slow)
    harvest([stored])
    assert [path.name for path in stored.folder.parent.iterdir()] == [stored.folder.name]
    assert stored.heldout().isfinite().all()


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
    kind = NORMALISATIONS[name]
    normal, undo = kind.apply(x, kind.fit and kind.fit(x))
    inexact = {"atol": 1e-4, "rtol": 0} if name == "layernorm" else {}  # its 1e-5 is not undone
    torch.testing.assert_close(undo(normal), x, **inexact)
    if name == "gao":
        torch.testing.assert_close(normal.mean(-1), torch.zeros(5), atol=1e-6, rtol=0)
        torch.testing.assert_close(normal.norm(dim=-1), torch.ones(5))


def test_lee_gives_every_token_the_norm_sqrt_of_d_minus_1():
    x = torch.tensor([[1.0, 2.0, 3.0], [10.0, 10.0, 40.0]])
    normalised, _ = NORMALISATIONS["lee"].apply(x)
    torch.testing.assert_close(normalised[0], torch.tensor([-1.0, 0.0, 1.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.norm(dim=-1), torch.full((2,), 2**0.5), atol=1e-4, rtol=0)


def test_gemma_fits_one_constant_that_makes_the_mean_square_norm_1():
    sample = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, -5.0], [5.0, 0.0]])  # square norms 25, 0, 25, 25
    constant = NORMALISATIONS["gemma"].fit(sample)
    assert constant.item() == pytest.approx((75 / 4) ** 0.5)
    normalised, _ = NORMALISATIONS["gemma"].apply(sample, constant)
    assert normalised.square().sum(-1).mean().item() == pytest.approx(1)
    torch.testing.assert_close(normalised * constant, sample)  # one constant for all tokens, no centring


class TestPairs:
    def test_rows_of_a_batch_belong_to_the_same_token(self, corpus):
        inputs, targets = source(corpus, HOOKS[0]), source(corpus, HOOKS[2])
        pairs = Pairs(inputs, targets)
        model = language_models.load("pygpt-0.5m")
        blocks = torch.from_numpy(corpus.build(model.tokenizer).blocks("train", 16).astype("int64"))
        x, y = (values.flatten(0, 1) for values in model.activations(blocks, [HOOKS[0], HOOKS[2]]).values())
        for batch in pairs.batches(32, 128, seed=3):
            token = torch.cdist(batch.inputs, x).argmin(-1)
            torch.testing.assert_close(batch.targets, y[token], rtol=0.05, atol=0.05 * y.abs().max().item())
            assert (batch.targets - y[token.roll(1)]).norm() > 4 * (batch.targets - y[token]).norm()

    def test_streams_and_held_out_rows_are_those_of_the_parts(self, corpus):
        inputs, targets = source(corpus, HOOKS[0]), source(corpus, HOOKS[1])
        pairs = Pairs(inputs, targets)
        sample = pairs.sample(32, 96, 1)
        for part, one in zip(sample, (inputs, targets), strict=True):
            assert torch.equal(part, torch.cat(list(one.batches(32, 96, 1))))
        for part, one in zip(pairs.heldout(), (inputs, targets), strict=True):
            assert torch.equal(part, one.heldout())
        assert (pairs.d_in, pairs.d_out) == (inputs.d_in, targets.d_in) and inputs.d_out is None
        assert pairs.fingerprints() == inputs.fingerprints() == targets.fingerprints()
        assert pairs.provenance() == inputs.provenance()

    def test_both_hooks_are_harvested_in_one_pass(self, corpus, monkeypatch):
        passes = []
        real = language_models.LanguageModel.activations
        monkeypatch.setattr(
            language_models.LanguageModel,
            "activations",
            lambda self, tokens, hooks: passes.append(list(hooks)) or real(self, tokens, hooks),
        )
        Pairs(source(corpus, HOOKS[0]), source(corpus, HOOKS[2])).heldout()
        assert passes and all(hooks == [HOOKS[0], HOOKS[2]] for hooks in passes)

    @pytest.mark.parametrize(
        "field, changes",
        [
            ("model", {"model": "pygpt-1.6m"}),
            ("corpus", {"corpus": LocalText("elsewhere")}),
            ("context", {"context": 8}),
            ("tokens", {"tokens": 320}),
            ("heldout_tokens", {"heldout_tokens": 64}),
            ("skip_first", {"skip_first": 1}),
        ],
    )
    def test_parts_that_differ_in_more_than_the_hook_are_refused(self, field, changes):
        inputs = source(LocalText("nowhere"), HOOKS[0])
        targets = replace(inputs, hook=HOOKS[2], **changes)
        with pytest.raises(ValueError, match=f"^{field} must be the same.*{re.escape(str(changes[field]))}"):
            Pairs(inputs, targets)

    def test_parts_of_unrelated_streams_are_refused(self):
        inputs = source(LocalText("nowhere"))
        with pytest.raises(ValueError, match="one language model.*Gaussian"):
            Pairs(inputs, Gaussian(3))
        with pytest.raises(ValueError, match="targets.*plain.*Pairs"):
            Pairs(Gaussian(3), Pairs(Gaussian(3), Gaussian(3)))
