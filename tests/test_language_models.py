import argparse
import json
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from replication import language_models
from replication.corpora import TokenFile
from replication.language_models import SITES, LanguageModel, compare, embedded, load, next_token_loss, train
from replication.paths import MODELS

BACKENDS = ("bridge", "plain")
LAST = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module", params=BACKENDS)
def model(request) -> LanguageModel:
    return load("pygpt-0.5m", backend=request.param)


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    """(4, 64) tokens from the middle of a file of the standard library."""
    tokenizer = load("pygpt-0.5m", backend="plain").tokenizer
    with open(argparse.__file__, encoding="utf-8") as file:
        ids = tokenizer.encode(file.read()).ids
    return torch.tensor(ids[1000 : 1000 + 4 * 64]).view(4, 64)


@pytest.fixture
def count_blocks(model):
    """How many blocks have run since the test began."""
    runs = []
    blocks = model.module.transformer.h
    handles = [block.register_forward_pre_hook(lambda *_: runs.append(1)) for block in blocks]
    yield lambda: len(runs)
    for handle in handles:
        handle.remove()


def n_hooks(model: LanguageModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules())


class TestActivations:
    def test_the_residual_stream_is_that_of_hugging_face(self, model, tokens):
        reference = GPT2LMHeadModel.from_pretrained(MODELS / "pygpt-0.5m", dtype=torch.float32)
        hidden_states = reference(tokens, output_hidden_states=True).hidden_states
        for layer in range(model.n_layers):
            hook = f"blocks.{layer}.hook_resid_pre"
            torch.testing.assert_close(model.activations(tokens, [hook])[hook], hidden_states[layer], atol=1e-3, rtol=0)

    def test_both_backends_agree_at_every_site(self, tokens):
        bridge, plain = (load("pygpt-2m", backend=backend) for backend in BACKENDS)
        assert bridge.sites() == plain.sites() and len(plain.sites()) == 4 * len(SITES)
        for a, b in zip(*(m.activations(tokens, m.sites()).values() for m in (bridge, plain)), strict=True):
            torch.testing.assert_close(a, b, atol=2e-3, rtol=0)

    def test_half_precision_keeps_the_loss(self, tokens):
        # pygpt-7m has attention scores above 1,000: rounded to bf16 they would cost more than a nat
        exact = load("pygpt-7m", backend="plain").loss(tokens).mean().item()
        for backend in BACKENDS:
            half = load("pygpt-7m", dtype=torch.bfloat16, backend=backend)
            assert half.loss(tokens).mean().item() == pytest.approx(exact, abs=0.02)

    def test_shapes_and_widths(self, model, tokens):
        found = model.activations(tokens, model.sites())
        assert list(found) == model.sites()
        for hook, activation in found.items():
            assert activation.shape == (4, 64, model.width(hook)) and activation.dtype == torch.float32

    def test_stops_after_the_last_requested_site(self, model, tokens, count_blocks):
        everything = model.activations(tokens, model.sites())
        before = count_blocks()
        early = model.activations(tokens, ["blocks.0.attn.hook_z", "blocks.0.hook_resid_pre"])
        assert count_blocks() - before == 1
        for hook, activation in early.items():
            assert torch.equal(activation, everything[hook])

    def test_no_hook_survives(self, model, tokens):
        def broken(_):
            raise RuntimeError("inside a patch")

        model.logits(tokens)  # a bridge adds its own permanent hooks at its first call
        before = n_hooks(model)
        model.activations(tokens, [LAST])
        with pytest.raises(RuntimeError, match="inside a patch"):
            model.logits(tokens, {"blocks.0.hook_resid_pre": torch.clone, LAST: broken})
        with pytest.raises(ValueError, match="unknown hook"):
            model.activations(tokens, [LAST, "blocks.2.hook_resid_pre"])
        assert n_hooks(model) == before

    def test_unknown_hook_lists_the_known_ones(self, model, tokens):
        with pytest.raises(ValueError, match=r"'resid' of pygpt-0.5m; known: blocks\.\{l\}\.hook_resid_pre.* 0 to 1"):
            model.width("resid")

    def test_too_long_a_sequence(self, model):
        with pytest.raises(ValueError, match="257 tokens in a sequence, but the context of pygpt-0.5m is 256"):
            model.activations(torch.zeros(1, 257, dtype=torch.long), [LAST])


class TestPatches:
    @pytest.mark.parametrize("site", SITES)
    def test_identity_changes_nothing_and_zero_does(self, model, tokens, site):
        hook, logits = site.format(l=1), model.logits(tokens)
        assert torch.equal(model.logits(tokens, {hook: torch.clone}), logits)
        assert (model.logits(tokens, {hook: torch.zeros_like}) - logits).abs().max() > 0.1

    def test_a_patch_is_what_a_later_site_sees(self, model, tokens):
        seen = []
        model.logits(tokens, {"blocks.0.hook_resid_post": torch.zeros_like, "blocks.1.hook_resid_pre": seen_by(seen)})
        assert seen[0].abs().max() == 0

    def test_wrong_shape_or_dtype_is_refused_by_name(self, model, tokens):
        with pytest.raises(
            ValueError, match=r"patch at 'blocks.1.hook_resid_post' must return \(4, 64, 64\).* not \(4, 64\)"
        ):
            model.logits(tokens, {LAST: lambda x: x[..., 0]})
        with pytest.raises(ValueError, match="float32, not .* torch.float64"):
            model.logits(tokens, {LAST: torch.Tensor.double})

    def test_last_residual_is_read_by_the_final_norm_and_the_unembedding(self, model, tokens):
        x = torch.randn(4, 64, 64, generator=torch.Generator().manual_seed(0))
        reference = GPT2LMHeadModel.from_pretrained(MODELS / "pygpt-0.5m", dtype=torch.float32)
        by_hand = reference.lm_head(reference.transformer.ln_f(x))
        torch.testing.assert_close(model.logits(tokens, {LAST: lambda _: x}), by_hand, atol=1e-3, rtol=0)

    def test_gradients_reach_the_activation(self, model, tokens):
        leaf = []

        def watched(activation):
            leaf.append(activation.detach().requires_grad_())
            return leaf[0]

        next_token_loss(model.logits(tokens, {"blocks.1.hook_resid_pre": watched}), tokens).mean().backward()
        assert leaf[0].grad.abs().sum() > 0
        assert all(p.grad is None for p in model.module.parameters())


def seen_by(seen: list):
    def look(activation):
        seen.append(activation)
        return activation

    return look


class TestLoss:
    def test_equals_cross_entropy_by_hand(self, model, tokens):
        logits = model.logits(tokens)
        by_hand = cross_entropy(logits[:, :-1].double().transpose(1, 2), tokens[:, 1:]).item()
        loss = model.loss(tokens)
        assert loss.shape == (4, 63) and loss.dtype == torch.float32 and not loss.requires_grad
        assert loss.mean().item() == pytest.approx(by_hand, abs=1e-6)

    @pytest.mark.parametrize("row", embedded(), ids=lambda row: row["name"])
    def test_is_near_the_stored_level_on_the_standard_library(self, row, tokens):
        loss = load(row["name"], backend="plain").loss(tokens.view(1, -1)).mean().item()
        assert abs(loss - row["loss"]) < 1.2 and loss < 0.6 * math.log(8192)


class TestLoad:
    def test_embedded_models(self):
        rows = embedded()
        assert [row["name"] for row in rows] == ["pygpt-0.5m", "pygpt-2m", "pygpt-7m"]
        for row in rows:
            model, recipe = load(row["name"], backend="plain"), language_models.RECIPES[row["name"]]
            assert (model.d_model, model.n_layers, model.n_ctx, model.d_vocab) == (
                row["d_model"],
                row["layers"],
                256,
                8192,
            )
            assert {key: row[key] for key in ("d_model", "layers", "heads")}.items() <= recipe.items()
            assert row["params"] == sum(p.numel() for p in model.module.parameters())
            assert row["bytes"] == pytest.approx(2 * row["params"], rel=0.01)
            assert row["tokens"] == pytest.approx(recipe["tokens"], rel=0.01)

    def test_tokenizer_round_trip(self, model):
        ids = model.tokenizer.encode("def f(x):\n    return x\n").ids
        assert (
            model.tokenizer.decode(ids) == "def f(x):\n    return x\n"
            and model.tokenizer.id_to_token(0) == "<|endoftext|>"
        )

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_folder_in_hugging_face_format(self, tmp_path, backend):
        first, second = tmp_path / "a", tmp_path / "b"
        for folder in (first, second):
            GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=2, n_head=2)).save_pretrained(
                folder
            )
        model = load(str(first), backend=backend)
        assert (model.d_model, model.n_ctx, model.d_vocab, model.tokenizer) == (8, 16, 50, None)
        assert model.loss(torch.arange(16).view(1, 16)).mean().item() == pytest.approx(math.log(50), abs=0.5)
        assert (
            model.fingerprint == load(first, backend="plain").fingerprint != load(second, backend="plain").fingerprint
        )

    def test_another_architecture_needs_the_bridge(self, tmp_path):
        config = GPTNeoXConfig(
            vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=16
        )
        GPTNeoXForCausalLM(config).save_pretrained(tmp_path)
        model, tokens = load(tmp_path, backend="fastest"), torch.arange(16).view(1, 16)
        logits = model.logits(tokens)
        assert model.backend == "bridge" and len(model.activations(tokens, model.sites())) == 2 * len(SITES)
        for hook in model.sites():
            assert torch.equal(model.logits(tokens, {hook: torch.clone}), logits)
            assert not torch.equal(model.logits(tokens, {hook: torch.zeros_like}), logits)
        with pytest.raises(ValueError, match="is a gpt_neox model: the plain backend reads gpt2"):
            load(tmp_path, backend="plain")

    def test_without_transformer_lens_the_plain_backend_is_used(self, monkeypatch):
        assert load("pygpt-0.5m").backend == "bridge"
        monkeypatch.setattr(language_models.importlib.util, "find_spec", lambda _: None)
        assert load("pygpt-0.5m").backend == "plain"

    def test_fastest_is_plain_for_gpt2(self):
        assert load("pygpt-0.5m", backend="fastest").backend == "plain"

    @pytest.mark.parametrize("name", ["pygpt-3m", "gpt2", "./no/such", "/no/such", "a/b/c"])
    def test_unknown_name_lists_the_embedded_models(self, name):
        with pytest.raises(ValueError, match=f"{name}.*pygpt-0.5m, pygpt-2m, pygpt-7m; otherwise"):
            load(name)

    def test_unknown_backend(self):
        with pytest.raises(ValueError, match="unknown backend 'hooked'; known: bridge, plain, fastest"):
            load("pygpt-0.5m", backend="hooked")

    def test_a_hub_that_cannot_be_reached_costs_one_line(self, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # what HF_HUB_OFFLINE=1 sets at start
        with pytest.raises(OSError, match="cannot load language model 'owner/absent@v1' from the hub") as caught:
            load("owner/absent@v1")
        assert len(str(caught.value).splitlines()) == 1


@pytest.fixture
def corpus(tmp_path) -> TokenFile:
    """4,096 training tokens that repeat 0..15, and 512 held-out ones: predictable after a few steps."""
    for split, n in (("train", 4096), ("heldout", 512)):
        np.save(tmp_path / f"{split}.npy", (np.arange(n) % 16).astype(np.uint16))
    return TokenFile(tmp_path, {"fingerprint": "counting"})


class TestTrain:
    def test_a_short_run_learns_and_can_be_loaded(self, corpus, tmp_path):
        folder = tmp_path / "trained"
        state = torch.get_rng_state()
        log = train("pygpt-0.5m", corpus, tokens=20 * 256 + 7, device="cpu", folder=folder, batch=4, context=64)
        assert torch.equal(torch.get_rng_state(), state)
        assert log == json.loads((folder / "train_log.json").read_text())
        assert log["tokens"] == log["log"][-1]["tokens"] == 20 * 256 and log["log"][-1]["step"] == 20
        assert log["corpus"] == "counting" and set(log) >= set(
            json.loads((MODELS / "pygpt-0.5m/train_log.json").read_text())
        )
        assert log["val_loss"] < log["log"][0]["val_loss"] - 1

        model = load(folder, backend="plain")
        text = torch.from_numpy(corpus.blocks("heldout", 64).astype(np.int64))
        assert model.loss(text).mean().item() == pytest.approx(log["val_loss"], abs=0.05)
        assert model.tokenizer.get_vocab_size() == 8192

    def test_a_non_finite_loss_stops_the_run_with_its_step(self, corpus, tmp_path, monkeypatch):
        monkeypatch.setitem(language_models.RECIPES["pygpt-0.5m"], "peak_lr", math.inf)
        with pytest.raises(FloatingPointError, match="pygpt-0.5m: training loss is nan at step 2"):
            train("pygpt-0.5m", corpus, tokens=5 * 64, device="cpu", folder=tmp_path / "bad", batch=1, context=64)
        assert not (tmp_path / "bad").exists()

    def test_refuses_an_unknown_recipe_and_less_than_one_step(self, corpus):
        with pytest.raises(ValueError, match="unknown recipe 'pygpt-1m'; known: pygpt-0.5m"):
            train("pygpt-1m", corpus)
        with pytest.raises(ValueError, match="at least one step of 4 x 64 tokens, got tokens=255"):
            train("pygpt-0.5m", corpus, tokens=255, batch=4, context=64)

    def test_the_schedule_warms_up_and_decays_to_a_twentieth(self):
        factors = [language_models._schedule(step, 4000) for step in (0, 299, 300, 2150, 4000)]
        assert factors == pytest.approx([1 / 300, 1, 1, 0.525, 0.05])
        assert language_models._schedule(9, 100) == 1.0

    def test_weight_decay_is_on_matrices_only(self):
        model = language_models._fresh(language_models.RECIPES["pygpt-0.5m"], seed=0)
        decayed, free = language_models._adamw(model, 1e-3).param_groups
        assert {p.ndim for p in decayed["params"]} == {2} and decayed["weight_decay"] == 0.1
        assert {p.ndim for p in free["params"]} == {1} and free["weight_decay"] == 0.0

    def test_marks_are_those_of_the_stored_logs(self):
        for name in ("pygpt-0.5m", "pygpt-2m"):
            log = json.loads((MODELS / name / "train_log.json").read_text())["log"]
            assert [row["step"] for row in log] == sorted(language_models._marks(log[-1]["step"]))


STORED = {
    "tokens": 100_000_000,
    "val_loss": 2.0,
    "log": [{"tokens": 1_000_000, "val_loss": 8.0}, {"tokens": 100_000_000, "val_loss": 2.0}],
}


class TestCompare:
    def test_interpolates_between_logarithms(self):
        # 10 M is half-way between 1 M and 100 M in the logarithm: sqrt(8 * 2) = 4
        line = compare({"name": "m", "tokens": 10_000_000, "val_loss": 4.4}, STORED)
        assert line == (
            "m: held-out loss 4.400 nats/token after 10.0 M tokens; the stored curve has 4.000 there (+10.0 %)"
        )

    def test_says_so_outside_the_stored_curve(self):
        assert "covers 1.0 M to 100.0 M tokens" in compare({"name": "m", "tokens": 1000, "val_loss": 9.0}, STORED)

    @pytest.mark.parametrize("name", ["pygpt-0.5m", "pygpt-2m", "pygpt-7m"])
    def test_a_stored_log_equals_itself(self, name):
        log = json.loads((MODELS / name / "train_log.json").read_text()) | {"name": name}
        assert compare(log, log).endswith("there (+0.0 %)")
