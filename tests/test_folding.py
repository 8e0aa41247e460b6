"""The fitted constant of a normalisation: where it comes from, that it travels, and that it folds into the weights."""

from dataclasses import dataclass, replace

import pytest
import test_sae
import torch

from replication import metrics
from replication import sae as library
from replication.activations import NORMALISATIONS, ActivationSource, Gaussian, Pair
from replication.evaluate.reconstruction import reconstruction
from replication.fingerprints import reachable, types_of
from replication.papers.gao2024.frontier import measure
from replication.results import Study, row
from replication.sae import ARCHITECTURES, SAE, JumpReLU, released_form
from replication.train import Run, train

D_IN, D_OUT, D_SAE = test_sae.D_IN, 4, test_sae.D_SAE
OPTIONS = [(name, {}) for name in ARCHITECTURES] + [("jumprelu", {"log_threshold": True}), ("gated", {"ri_l1": True})]
each_architecture = pytest.mark.parametrize(
    "name, options", OPTIONS, ids=lambda one: one if isinstance(one, str) else "-".join(one)
)
each_task = pytest.mark.parametrize("d_out", [None, D_OUT], ids=["autoencoder", "transcoder"])


def raw(n: int = 300, seed: int = 1) -> torch.Tensor:
    return 7 * test_sae.batch(seed, n).double() + torch.arange(D_IN)


def trained_like(name: str, d_out: int | None = None, normalisation: str = "gemma", **options) -> SAE:
    """An SAE with fitted constants and every parameter away from its special start, ready to evaluate.

    In float64: in float32, top-AFA may or may not keep a latent whose energy is below the rounding of the sum.
    """
    sae = test_sae.make(name, d_out=d_out, normalisation=normalisation, **options).double()
    pair = Pair(raw(), 3 * raw(seed=2)[:, :d_out]) if d_out else raw()
    sae.fit_normalisation(pair)
    x, target, _ = sae.normalise(pair)
    sae.initialise(x, target)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in (p for p in sae.parameters() if p.requires_grad and p.dim() == 1):
            parameter.add_(torch.rand(parameter.shape, generator=generator) * 0.1)
    return sae.eval()


@each_task
@each_architecture
class TestFolding:
    def test_a_folded_sae_does_on_raw_activations_what_reconstruct_does(self, name, options, d_out):
        sae, x = trained_like(name, d_out, **options), raw(seed=3)
        folded, scale = sae.folded(), sae.target_scale if d_out else sae.input_scale
        out, latents = folded(x), sae(sae.normalise(x).x).latents
        assert scale > 5 and 0 < latents.count_nonzero() < latents.numel()
        torch.testing.assert_close(out.recon, sae.reconstruct(x), rtol=1e-12, atol=1e-12 * scale.item())
        torch.testing.assert_close(out.latents, scale * latents, rtol=1e-12, atol=1e-12 * scale.item())
        assert torch.equal(out.latents != 0, latents != 0)
        assert torch.equal(folded.W_dec, sae.W_dec) and folded.normalisation == "none"
        torch.testing.assert_close(folded.reconstruct(x), out.recon, rtol=0, atol=0)

    def test_a_folded_sae_is_a_file_without_constants(self, name, options, d_out, tmp_path):
        sae, x = trained_like(name, d_out, **options).float(), raw(seed=3).float()
        plain = test_sae.make(name, d_out=d_out, **options)
        assert sae.folded().state_dict().keys() == plain.state_dict().keys()
        sae.folded().save(tmp_path / "sae.safetensors")
        assert torch.equal(library.load(tmp_path / "sae.safetensors")(x).recon, sae.folded()(x).recon)

    def test_without_normalisation_it_is_a_copy(self, name, options, d_out):
        sae = trained_like(name, d_out, "none", **options)
        folded = sae.folded()
        assert folded is not sae and folded.config() == sae.config()
        for key, value in sae.state_dict().items():
            assert torch.equal(folded.state_dict()[key], value)

    def test_constants_travel_with_the_weights(self, name, options, d_out, tmp_path):
        sae, x = trained_like(name, d_out, **options).float(), raw(seed=3).float()
        sae.save(tmp_path / "sae.safetensors")
        again = library.load(tmp_path / "sae.safetensors")
        assert again.input_scale == sae.input_scale and again.target_scale == sae.target_scale
        assert torch.equal(again.reconstruct(x), sae.reconstruct(x)) and again.reconstruct(x).isfinite().all()

    def test_the_released_form_needs_no_pre_encoder_bias_and_no_normalisation(self, name, options, d_out):
        sae, x = trained_like(name, d_out, **options), raw(seed=3)
        form, folded = released_form(sae), sae.folded()
        pre = x @ form["W_enc"] + form["b_enc"]
        if name in ("topk", "topafa"):  # their own selection takes the place of a threshold
            latents = folded.sparsify(pre, x - folded.centre)
        else:
            latents = pre.relu() * (pre > form.get("threshold", 0))
        assert ("threshold" in form) == (name not in ("relu", "topk", "topafa"))
        assert {key: tuple(value.shape) for key, value in form.items() if key != "threshold"} == {
            "W_enc": (D_IN, D_SAE),
            "b_enc": (D_SAE,),
            "W_dec": (D_SAE, d_out or D_IN),
            "b_dec": (d_out or D_IN,),
        }
        assert form.get("threshold", form["b_enc"]).shape == (D_SAE,)
        wanted = sae.reconstruct(x)
        recon = latents @ form["W_dec"] + form["b_dec"]
        torch.testing.assert_close(recon, wanted, rtol=1e-12, atol=1e-12 * wanted.abs().max().item())
        assert torch.equal(latents != 0, folded(x).latents != 0)


def test_folding_by_hand():
    """Gemma Scope, app. A: b_enc' = C b_enc - C b_dec W_enc, b_dec' = C b_dec, theta' = C theta, weights unchanged."""
    sae = JumpReLU(2, 1, 1.0, threshold=0.5, normalisation="gemma")
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0], [2.0]]))
        sae.W_dec.copy_(torch.tensor([[0.6, 0.8]]))
        sae.b_enc.fill_(0.25)
        sae.b_dec.copy_(torch.tensor([1.0, -1.0]))
    sae.fit_normalisation(torch.tensor([[0.0, 0.0], [8.0, 0.0]]))  # C = sqrt(64 / 2)
    C = 32**0.5
    form = released_form(sae)
    torch.testing.assert_close(form["b_enc"], torch.tensor([C * 0.25 - C * (1 - 2)]))
    torch.testing.assert_close(form["b_dec"], torch.tensor([C, -C]))
    torch.testing.assert_close(form["threshold"], torch.tensor([C * 0.5]))
    assert form["W_enc"].tolist() == [[1.0], [2.0]]
    torch.testing.assert_close(form["W_dec"], sae.W_dec.detach())


def test_the_units_of_the_loss_fold_too():
    """`scale` is E|x - mean|^2 of the data an SAE reads: a folded SAE has the same normalised loss on raw data."""
    for name in ("topk", "batchtopk", "matryoshka"):
        sae, x = trained_like(name), raw(seed=3)
        loss = sae.objective(sae.normalise(x).x, test_sae.NONE_DEAD).loss
        torch.testing.assert_close(sae.folded().objective(x, test_sae.NONE_DEAD).loss, loss)


@pytest.mark.parametrize("name", ["gao", "lee"])
def test_a_normalisation_per_token_cannot_be_folded(name):
    for function in (SAE.folded, released_form):
        with pytest.raises(ValueError, match=f"normalisation.*'{name}'"):
            function(test_sae.make("relu", normalisation=name))


def test_a_constant_that_was_not_fitted_gives_no_number():
    assert test_sae.make("relu", normalisation="gemma").reconstruct(raw().float()).isnan().all()


def test_other_normalisations_keep_no_constant():
    for name in ("none", "gao", "lee"):
        sae = test_sae.make("relu", normalisation=name)
        assert sae.state_dict().keys() == {"W_enc", "b_enc", "W_dec", "b_dec"}
        sae.fit_normalisation(raw())
        assert sae.input_scale is None


# ----------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Scaled(ActivationSource):
    """Correlated activations away from 0, times `factor`."""

    factor: float

    @property
    def d_in(self):
        return D_IN

    def draw(self, x: torch.Tensor) -> torch.Tensor:
        mixing = torch.randn(D_IN, D_IN, generator=torch.Generator().manual_seed(9))
        return self.factor * (x @ mixing + 1)

    def batches(self, batch, tokens, seed, device="cpu"):
        return (self.draw(x) for x in Gaussian(D_IN).batches(batch, tokens, seed, device))

    def heldout(self, device="cpu"):
        return self.draw(Gaussian(D_IN, 1024).heldout(device))


def run(name: str, factor: float = 1.0, **changes) -> Run:
    settings = {"tokens": 100 * 64, "batch": 64, "lr": 3e-3, "dead_after": 2048, "normalisation": "gemma"}
    return Run(Scaled(factor), name, D_SAE, test_sae.DIALS[name], **settings | changes)


def trained_and_measured(one: Run) -> tuple[SAE, dict]:
    trained = next(train([one], device="cpu"))
    return trained.sae, reconstruction(trained, one.source.heldout())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_scale_of_the_activations_changes_nothing(name):
    one = run(name)
    (sae, values), (sae_10, values_10) = map(trained_and_measured, (one, run(name, 10.0)))
    assert sae_10.input_scale.item() == pytest.approx(10 * sae.input_scale.item())
    for metric in ("fvu", "nmse", "l0"):
        assert values_10[metric] == pytest.approx(values[metric], rel=1e-2), metric  # 100 steps amplify rounding
    assert trained_and_measured(run(name, 16.0))[1] == pytest.approx(values, rel=1e-5)  # rounds in the same way
    x = one.source.heldout()
    recon, folded = sae.reconstruct(x), sae.folded()(x).recon
    assert (folded - recon).norm() < 1e-5 * recon.norm()


def test_the_constant_is_fitted_on_raw_training_activations_and_recorded():
    one = run("topk", 3.0)
    trained = next(train([one], device="cpu"))
    sample = one.source.sample(one.batch, one.tokens, one.data_seed)
    assert trained.log["input_scale"] == pytest.approx(sample.square().sum(-1).mean().sqrt().item())
    assert trained.log["input_scale"] == trained.sae.input_scale.item() == trained.untrained.input_scale.item()
    torch.testing.assert_close(trained.mean, sample.mean(0) / trained.sae.input_scale)
    study = Study("toy", "toy", "", lambda _: [one], measure)
    stored = row(study, "cpu", one, trained.log)
    assert stored["input_scale"] == trained.log["input_scale"] and "target_scale" not in stored
    assert "input_scale" not in next(train([replace(one, normalisation="gao", tokens=64)], device="cpu")).log


def test_fvu_is_that_of_reconstruct():
    one = run("topk", 5.0)
    trained = next(train([one], device="cpu"))
    x = one.source.heldout()
    with torch.no_grad():
        expected = metrics.fvu(x, trained.sae.reconstruct(x)).item()
    assert reconstruction(trained, x)["fvu"] == pytest.approx(expected)


def test_a_row_depends_on_its_own_normalisation_only():
    for kind in NORMALISATIONS.values():
        names = {name for _, name in reachable(measure, *types_of(run("relu")), kind)}
        others = {other.__name__ for other in NORMALISATIONS.values()} - {kind.__name__}
        assert {kind.__name__, "Normalisation"} <= names and not (others | {"Pairs"}) & names
    study = Study("toy", "toy", "", lambda _: [], measure)
    assert len({study.code(run("relu", normalisation=name)) for name in NORMALISATIONS}) == len(NORMALISATIONS)
