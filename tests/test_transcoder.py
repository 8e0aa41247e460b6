"""Transcoders: one contract for every architecture, on y = x M and a bias."""

from dataclasses import dataclass, replace

import pytest
import test_sae
import torch

from replication import metrics, store
from replication import sae as library
from replication import train as training
from replication.activations import ActivationSource, Gaussian, LanguageModelActivations, Pair, Pairs
from replication.corpora import LocalText
from replication.evaluate.reconstruction import reconstruction
from replication.graphs import Replayed
from replication.sae import ARCHITECTURES, SAE, TopAFA, TopK, geometric_median
from replication.train import Diverged, Run, estimate_seconds, train

D_IN, D_OUT, D_SAE, BATCH = test_sae.D_IN, 4, test_sae.D_SAE, test_sae.BATCH
NONE_DEAD = test_sae.NONE_DEAD
each_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


@dataclass(frozen=True)
class Product(ActivationSource):
    """`factor` (x M + 1) for the activations x of `inputs` and a fixed M with `width` columns."""

    inputs: ActivationSource
    width: int = D_OUT
    factor: float = 1.0

    @property
    def d_in(self):
        return self.width

    def of(self, x: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(11)
        return self.factor * (x @ torch.randn(self.inputs.d_in, self.width, generator=generator) + 1)

    def batches(self, *arguments):
        return map(self.of, self.inputs.batches(*arguments))

    def heldout(self, device="cpu"):
        return self.of(self.inputs.heldout(device))


def pairs(width: int = D_OUT, factor: float = 1.0) -> Pairs:
    inputs = Gaussian(D_IN, 1024)
    return Pairs(inputs, Product(inputs, width, factor))


def run(name: str, **changes) -> Run:
    settings = {"source": pairs(), "tokens": 400 * 64, "batch": 64, "lr": 5e-3, "dead_after": 2048}
    return Run(architecture=name, d_sae=D_SAE, sparsity=test_sae.DIALS[name], **settings | changes)


def make(name: str, **options) -> SAE:
    return test_sae.make(name, d_out=D_OUT, **options)


def batch(n: int = BATCH) -> Pair:
    return pairs().sample(n, n, seed=1)


@each_architecture
class TestContract:
    def test_shapes_and_names(self, name):
        sae, (x, y) = make(name), batch()
        out = sae(x)
        assert sae.W_enc.shape == (D_IN, D_SAE) and sae.W_dec.shape == (D_SAE, D_OUT) == (D_SAE, *sae.b_dec.shape)
        assert out.recon.shape == y.shape and out.latents.shape == (BATCH, D_SAE)
        assert sae.b_pre.shape == (D_IN,) and sae.centre is sae.b_pre and not sae.b_pre.requires_grad
        autoencoder = test_sae.make(name)
        assert autoencoder.centre is autoencoder.b_dec and autoencoder.b_pre is None
        assert "b_pre" in sae.state_dict() and "b_pre" not in autoencoder.state_dict()

    def test_the_encoder_is_centred_and_both_biases_start_at_a_median(self, name):
        sae, (x, y) = make(name), batch(200)
        magnitude = sae.W_enc.detach().clone()
        sae.initialise(x, y)
        torch.testing.assert_close(sae.b_pre, geometric_median(x))
        torch.testing.assert_close(
            sae.b_dec.detach(), torch.zeros(y.shape[1]) if name == "topafa" else geometric_median(y)
        )
        torch.testing.assert_close(sae.pre(x), (x - sae.b_pre) @ sae.W_enc + sae.b_enc)
        assert torch.equal(sae.W_enc, magnitude)

    def test_decoder_rows_are_independent_of_the_encoder_unless_asked(self, name):
        rows = lambda sae: torch.nn.functional.normalize(sae.W_enc.T, dim=-1)  # noqa: E731
        free, tied = (test_sae.make(name, d_out=D_IN, **tied) for tied in ({}, {"tied_init": True}))
        assert (free.W_dec * rows(free)).sum(-1).abs().max() < 0.999 and not free.tied_init
        torch.testing.assert_close(tied.W_dec, rows(tied))
        torch.testing.assert_close(make(name).W_dec.norm(dim=-1), torch.ones(D_SAE))
        with pytest.raises(ValueError, match=f"tied_init.*d_in={D_IN}.*d_out={D_OUT}.*True"):
            make(name, tied_init=True)

    def test_the_objective_is_about_the_target(self, name):
        sae, (x, y) = make(name), batch()
        sae.initialise(x, y)
        out, objective = sae(x), sae.objective(x, NONE_DEAD, target=y)
        torch.testing.assert_close(objective.error, (y - out.recon).square().sum(-1).mean())
        assert torch.equal(objective.fired, (out.latents > 0).any(0))
        assert objective.loss != sae.objective(x, NONE_DEAD, target=y + 1).loss

    def test_an_autoencoders_target_is_its_input(self, name):
        sae, x = test_sae.make(name), test_sae.batch()
        sae.initialise(x)
        once = sae.objective(x, NONE_DEAD)
        other = test_sae.make(name)
        other.initialise(x, x)
        assert other.objective(x, NONE_DEAD, target=x).loss == once.loss

    def test_gradients_equal_finite_differences(self, name):
        sae, (x, y) = make(name).double(), (part.double() for part in batch())
        for parameter_name, parameter in sae.named_parameters():
            if (name, parameter_name) in test_sae.NOT_DIFFERENTIABLE:
                continue
            sae.zero_grad()
            sae.objective(x, NONE_DEAD, target=y).loss.backward()
            for place in ((0,) * parameter.dim(), tuple(size - 1 for size in parameter.shape)):
                analytic, losses = parameter.grad[place].item(), []
                for sign in (1, -1):
                    with torch.no_grad():
                        parameter[place] += sign * 1e-6
                        losses.append(sae.objective(x, NONE_DEAD, target=y).loss.item())
                        parameter[place] -= sign * 1e-6
                assert analytic == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-4, abs=1e-7)

    def test_dead_latents_learn_from_the_residual_of_the_target(self, name):
        sae, (x, y) = make(name), batch()
        if not hasattr(sae, "aux_coefficient"):
            pytest.skip("no AuxK")
        (sae.objective(x, torch.arange(4), target=y).loss - sae.objective(x, NONE_DEAD, target=y).loss).backward()
        assert sae.W_dec.grad[4:].abs().max() < 1e-6 < sae.W_dec.grad[:4].abs().max()

    @pytest.mark.parametrize("normalisation", ["none", "gemma"])
    def test_training_lowers_the_error_of_held_out_targets(self, name, normalisation, tmp_path):
        one = run(name, normalisation=normalisation, source=pairs(factor=3.0))
        trained = next(train([one], device="cpu"))
        heldout = one.source.heldout()
        values = reconstruction(trained, heldout)
        assert values["nmse"] < 0.5 * min(1, values["nmse_untrained"])
        assert values["fvu"] == pytest.approx(values["nmse"], rel=0.05)  # one constant does not change a ratio
        with torch.no_grad():
            recon = trained.sae.reconstruct(heldout.inputs)
            assert values["fvu"] == pytest.approx(metrics.fvu(heldout.targets, recon).item(), rel=1e-4)
        torch.testing.assert_close(trained.sae.W_dec.norm(dim=-1), torch.ones(D_SAE))
        trained.sae.save(tmp_path / "sae.safetensors")
        again = library.load(tmp_path / "sae.safetensors")
        assert type(again) is type(trained.sae) and again.config() == trained.sae.config() and again.d_out == D_OUT
        assert torch.equal(again.reconstruct(heldout.inputs), recon)

    @pytest.mark.parametrize("normalisation", ["gao", "lee"])
    def test_normalisations_per_token_are_refused_before_training(self, name, normalisation):
        for construct in (make, run):
            with pytest.raises(ValueError, match=f"normalisation of a transcoder.*gemma.*none.*'{normalisation}'"):
                construct(name, normalisation=normalisation)


def test_two_constants_are_fitted_and_recorded():
    one = run("topk", normalisation="gemma", source=pairs(factor=20.0), tokens=640)
    trained = next(train([one], device="cpu"))
    for part, name in zip(one.source.sample(64, 640, 0), ("input_scale", "target_scale"), strict=True):
        assert trained.log[name] == pytest.approx(part.square().sum(-1).mean().sqrt().item())
        assert trained.log[name] == getattr(trained.sae, name).item()
    assert trained.log["target_scale"] > 10 * trained.log["input_scale"]


def test_mean_and_curve_are_those_of_the_target():
    one = run("topk", tokens=64, lr=1e-9)
    trained = next(train([one], device="cpu"))
    x, y = one.source.sample(64, 64, 0)
    torch.testing.assert_close(trained.mean, y.mean(0))
    error = (y - trained.untrained(x).recon).square().sum() / (y - y.mean(0)).square().sum()
    assert trained.log["curve_error"][-1] == pytest.approx(error.item(), rel=0.01)


def test_seeds_decide_and_company_does_not():
    runs = [run("topk", tokens=640), run("relu", tokens=640)]
    together = {trained.run: trained.sae.W_dec for trained in training._train_together(runs, "cpu", [])}
    for one in runs:
        assert torch.equal(together[one], next(train([one], device="cpu")).sae.W_dec)


def test_targets_that_are_not_finite_are_named():
    with pytest.raises(Diverged, match="activations.*not finite"):
        next(train([run("relu", source=pairs(factor=float("nan")))], device="cpu"))


def test_a_transcoder_is_not_tied_unless_asked():
    assert run("topk").tied_init is False and run("topk", source=Gaussian(D_IN)).tied_init is True
    square = run("topk", source=pairs(D_IN), tied_init=True, tokens=64)
    assert next(train([square], device="cpu")).untrained.tied_init
    with pytest.raises(ValueError, match=f"tied_init.*d_in={D_IN}.*d_out={D_OUT}.*True"):
        run("topk", tied_init=True)
    with pytest.raises(ValueError, match="option 'd_out'"):
        run("topk", options={"d_out": 3})


def test_a_run_on_a_language_model_is_validated_without_loading_it(monkeypatch):
    inputs = LanguageModelActivations("no-such-model", "blocks.0.hook_mlp_in", LocalText("nowhere"))
    source = Pairs(inputs, replace(inputs, hook="blocks.0.hook_mlp_out"))
    assert not run("topk", source=source).tied_init
    with pytest.raises(ValueError, match="normalisation of a transcoder"):
        run("topk", source=source, normalisation="gao")


def test_d_out_is_refused_by_name_and_value():
    with pytest.raises(ValueError, match="d_out.*0"):
        TopK(D_IN, D_SAE, 3, d_out=0)


def test_the_loss_scale_of_topk_is_the_variance_of_the_target():
    sae, (x, y) = make("topk"), batch(200)
    sae.initialise(x, y)
    torch.testing.assert_close(sae.scale, (y - y.mean(0)).square().sum(-1).mean())


def test_topafa_matches_the_norm_of_the_target_and_selects_by_that_of_the_input():
    sae = TopAFA(1, 3, 0.5, d_out=2, afa_loss=True)
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[2.0, 1.0, 0.5]]))
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
        sae.norm_ratio.fill_(2.0)
    x, y = torch.tensor([[3.0]]), torch.tensor([[6.0, 8.0]])
    assert sae(x).latents.tolist() == [[6, 0, 0]]  # 6 is nearest to 2 |x|; next would be sqrt(45)
    loss = sae.objective(x, NONE_DEAD, target=y).loss
    assert loss == (0 + 64) / 2 + 0.5 * (6 - 10) ** 2
    pair = pairs(factor=5.0).sample(64, 256, 0)
    fitted = make("topafa")
    fitted.initialise(*pair)
    ratio = (pair.targets - fitted.b_dec).square().sum(-1).mean() / (pair.inputs - fitted.b_pre).square().sum(-1).mean()
    torch.testing.assert_close(fitted.norm_ratio, ratio.sqrt().detach())


def test_a_replayed_step_reads_inputs_and_targets():
    one = run("topk", tokens=20 * 64, dead_after=64)
    pair = one.source.sample(64, one.tokens, 0)
    plain, replayed = (training._Trainee(one, pair, "cpu") for _ in range(2))
    replayed.advance = Replayed(replayed._advance, D_SAE, record=lambda work: work)
    for batch in torch.cat(pair, dim=-1).split(64):
        plain.step(batch)
        replayed.step(batch)
    torch.testing.assert_close(replayed.sae.W_enc, plain.sae.W_enc, rtol=1e-4, atol=1e-5)


def test_a_trained_transcoder_is_kept_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CACHE", tmp_path)
    one = run("topk", tokens=640, normalisation="gemma")
    first, again = (next(store.trained([one], "cpu")) for _ in range(2))
    heldout = one.source.heldout()
    assert reconstruction(again, heldout) == reconstruction(first, heldout) and again.log == first.log


def test_an_estimate_needs_no_pairs():
    assert estimate_seconds(run("topk")) > 0
