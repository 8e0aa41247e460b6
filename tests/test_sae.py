"""One contract for every registered architecture, then each architecture by hand."""

import pytest
import torch

from replication import sae as library
from replication.activations import Gaussian
from replication.sae import ARCHITECTURES, SAE, ReLU, TopK, base, geometric_median
from replication.sae.auxk import auxiliary_loss
from replication.train import Run

D_IN, D_SAE, BATCH = 6, 16, 24
DIALS = {
    "batchtopk": 3,
    "gated": 0.1,
    "jumprelu": 0.1,
    "matryoshka": 3,
    "prolu": 0.1,
    "relu": 0.1,
    "topafa": 0.5,
    "topk": 3,
}
# Finite differences say nothing about a pseudo-derivative, a frozen parameter, or one whose copy in the loss is frozen.
NOT_DIFFERENTIABLE = {
    ("jumprelu", "theta_raw"),
    ("prolu", "b_enc"),
    ("gated", "W_dec"),
    ("gated", "b_dec"),
    ("topafa", "b_enc"),
}
ZERO_BIAS = {"topafa"}  # starts as its released code does
NO_BEST_SCALE = {"topafa", "jumprelu"}  # what they select depends on the scale itself


def make(name: str, **kwargs) -> SAE:
    return ARCHITECTURES[name](D_IN, D_SAE, DIALS[name], generator=torch.Generator().manual_seed(0), **kwargs)


def batch(seed: int = 1, n: int = BATCH) -> torch.Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed))


NONE_DEAD = torch.empty(0, dtype=torch.int64)


def test_every_architecture_has_a_dial_in_this_test():
    assert DIALS.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("name", ARCHITECTURES)
class TestContract:
    def test_shapes_and_dtypes(self, name):
        sae = make(name)
        out = sae(batch())
        assert sae.W_enc.shape == (D_IN, D_SAE) and sae.W_dec.shape == (D_SAE, D_IN)
        assert out.recon.shape == (BATCH, D_IN) and out.latents.shape == (BATCH, D_SAE)
        assert {p.dtype for p in sae.parameters()} == {torch.float32} == {out.recon.dtype, out.latents.dtype}

    def test_transpose_start_and_unit_rows(self, name):
        tied, free = make(name), make(name, tied_init=False)
        rows = torch.nn.functional.normalize(tied.W_enc.T, dim=-1)
        torch.testing.assert_close(tied.W_dec, rows)
        assert (free.W_dec * torch.nn.functional.normalize(free.W_enc.T, dim=-1)).sum(-1).abs().max() < 0.999
        torch.testing.assert_close(free.W_dec.norm(dim=-1), torch.ones(D_SAE))

    def test_a_step_keeps_rows_on_the_sphere_and_its_gradient_off_the_row(self, name):
        sae = make(name)
        optimiser = torch.optim.Adam(sae.parameters(), lr=0.1)
        sae.objective(batch(), NONE_DEAD).loss.backward()
        sae.before_step()
        assert (sae.W_dec.grad * sae.W_dec).sum(-1).abs().max() < 1e-6
        assert sae.W_dec.grad.abs().max() > 1e-4
        optimiser.step()
        assert (sae.W_dec.norm(dim=-1) - 1).abs().max() > 1e-4
        sae.after_step()
        torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(D_SAE))

    def test_evaluation_does_not_depend_on_batch_mates(self, name):
        sae, x = make(name).eval(), batch()
        torch.testing.assert_close(sae(x).latents[:1], sae(x[:1]).latents)

    def test_save_and_load_give_the_same_sae(self, name, tmp_path):
        sae, x = make(name, normalisation="gao"), batch()
        sae.initialise(x)
        sae.eval().save(tmp_path / "sae.safetensors")
        again = library.load(tmp_path / "sae.safetensors")
        assert type(again) is type(sae) and again.config() == sae.config()
        torch.testing.assert_close(again(x).recon, sae(x).recon, rtol=0, atol=0)
        assert again(x).latents.count_nonzero() == sae(x).latents.count_nonzero()
        assert again.objective(x, NONE_DEAD).loss == sae.objective(x, NONE_DEAD).loss

    def test_gradients_equal_finite_differences(self, name):
        sae, x = make(name).double(), batch().double()
        for parameter_name, parameter in sae.named_parameters():
            if (name, parameter_name) in NOT_DIFFERENTIABLE:
                continue
            sae.zero_grad()
            sae.objective(x, NONE_DEAD).loss.backward()
            for place in ((0,) * parameter.dim(), tuple(size - 1 for size in parameter.shape)):
                analytic, losses = parameter.grad[place].item(), []
                for sign in (1, -1):
                    with torch.no_grad():
                        parameter[place] += sign * 1e-6
                        losses.append(sae.objective(x, NONE_DEAD).loss.item())
                        parameter[place] -= sign * 1e-6
                assert analytic == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-4, abs=1e-7)

    def test_objective_reports_error_and_who_fired(self, name):
        sae, x = make(name), batch()
        objective, out = sae.objective(x, NONE_DEAD), sae(x)
        torch.testing.assert_close(objective.error, (x - out.recon).square().sum(-1).mean())
        assert (objective.fired == (out.latents > 0).any(0)).all()

    def test_reconstruct_undoes_the_normalisation(self, name):
        sae = make(name, normalisation="gao")
        x = batch() * 7 + 3
        mean = x.mean(-1, keepdim=True)
        norm = (x - mean).norm(dim=-1, keepdim=True)
        torch.testing.assert_close(sae.reconstruct(x), sae((x - mean) / norm).recon * norm + mean)

    def test_initialise_sets_the_bias_and_the_scale_that_fits_best(self, name, monkeypatch):
        monkeypatch.setattr(base, "START_TOKENS", 64)  # in turns, the last of them shorter
        sae, x = make(name), batch(n=200) * 5 + 2
        sae.initialise(x)
        start = torch.zeros(x.shape[1]) if name in ZERO_BIAS else geometric_median(x)
        torch.testing.assert_close(sae.b_dec.detach(), start)
        if name in NO_BEST_SCALE:
            return
        with torch.no_grad():  # positively homogeneous: at the best scale the residual is orthogonal to recon - b_dec
            recon = sae(x).recon - sae.b_dec
            assert abs(((x - sae.b_dec - recon) * recon).sum() / recon.square().sum()) < 1e-4

    def test_an_independent_encoder_keeps_its_magnitude(self, name):
        sae = make(name, tied_init=False)
        before = sae.W_enc.detach().clone()
        sae.initialise(batch(n=200))
        assert torch.equal(sae.W_enc, before)

    @pytest.mark.parametrize("field, value", [("d_in", 0), ("d_sae", 0), ("sparsity", 0), ("normalisation", "gaoo")])
    def test_nonsense_is_refused_by_name_and_value(self, name, field, value):
        arguments = {"d_in": D_IN, "d_sae": D_SAE, "sparsity": DIALS[name], "normalisation": "none"} | {field: value}
        with pytest.raises(ValueError, match=f"{field}.*{value}"):
            ARCHITECTURES[name](**arguments)


def test_relu_by_hand():
    sae = ReLU(2, 2, 0.5)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(2))
        sae.W_dec.copy_(torch.eye(2))
    objective = sae.objective(torch.tensor([[3.0, -4.0]]), torch.empty(0, dtype=torch.int64))
    assert objective.error == 16  # the negative coordinate is lost
    assert objective.loss == 16 + 0.5 * 3
    assert objective.fired.tolist() == [True, False]


def test_topk_keeps_the_k_largest_and_no_negative():
    sae = TopK(3, 4, 2)
    pre = torch.tensor([[4.0, 1.0, 3.0, 2.0], [-1.0, -2.0, 5.0, -3.0]])
    assert sae.sparsify(pre, torch.zeros(2, 3)).tolist() == [[4, 0, 3, 0], [0, 0, 5, 0]]


def test_topk_objective_equals_the_dense_equation():
    sae, x = make("topk"), batch()
    sae.initialise(x)
    dense = (x - sae(x).recon).square().sum(-1).mean() / (x - x.mean(0)).square().sum(-1).mean()
    fast = sae.objective(x, NONE_DEAD).loss
    torch.testing.assert_close(fast, dense)
    for ours, theirs in zip(
        *(torch.autograd.grad(loss, list(sae.parameters())) for loss in (fast, dense)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


class TestAuxK:
    def setup_method(self):
        self.sae, self.x = make("topk", k_aux=2), batch()
        self.dead = torch.tensor([1, 4, 9])
        self.alive = torch.ones(D_SAE, dtype=torch.bool).index_fill(0, self.dead, False)

    def plain(self):
        """The auxiliary loss written once more, dense: residual detached, no b_dec in its reconstruction."""
        out = self.sae(self.x)
        residual = (self.x - out.recon).detach()
        pre = self.sae.pre(self.x).masked_fill(self.alive, -torch.inf)
        top = pre.topk(2, dim=-1)
        latents = torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
        spread = (residual - residual.mean(0)).square().sum(-1).mean()
        return (residual - latents @ self.sae.W_dec).square().sum(-1).mean() / spread

    def test_equals_the_dense_equation_with_alpha_once(self):
        without = self.sae.objective(self.x, NONE_DEAD).loss
        torch.testing.assert_close(self.sae.objective(self.x, self.dead).loss, without + self.plain() / 32)

    def test_gradient_reaches_dead_latents_only_and_the_bias_only_through_the_encoder(self):
        self.sae.b_dec.grad = None
        (self.sae.objective(self.x, self.dead).loss - self.sae.objective(self.x, NONE_DEAD).loss).backward()
        expected = torch.autograd.grad(self.plain() / 32, [self.sae.W_dec, self.sae.b_dec])
        torch.testing.assert_close(self.sae.W_dec.grad, expected[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(self.sae.b_dec.grad, expected[1], rtol=1e-4, atol=1e-6)
        assert self.sae.W_dec.grad[self.alive].abs().max() < 1e-6 < self.sae.W_dec.grad[self.dead].abs().max()

    def test_all_latents_dead_and_coefficient_zero(self):
        everything = torch.arange(D_SAE)
        assert self.sae.objective(self.x, everything).loss.isfinite()
        off = make("topk", aux_coefficient=0.0)
        assert off.objective(self.x, everything).loss == off.objective(self.x, NONE_DEAD).loss

    def test_padding_changes_nothing(self):
        padded = torch.cat([self.dead, torch.full((4,), D_SAE)])
        for dead in (self.dead, padded):
            self.sae.zero_grad()
            self.sae.objective(self.x, dead).loss.backward()
            dead_gradients = [weight.grad.clone() for weight in self.sae.parameters()]
            if dead is self.dead:
                expected = dead_gradients
        for ours, theirs in zip(dead_gradients, expected, strict=True):
            torch.testing.assert_close(ours, theirs)

    def test_a_perfect_reconstruction_adds_nothing_that_is_not_a_number(self):
        loss = auxiliary_loss(self.sae, *self.sae.encoder_input(self.x), torch.zeros_like(self.x), self.dead, 2)
        loss.backward()
        assert loss.isfinite() and self.sae.W_dec.grad.isfinite().all() and self.sae.W_enc.grad.isfinite().all()


class TestMultiTopK:
    """L(k) + multi_weight L(m k): Gao et al. 2024 recommend L(k) + L(4k) / 8."""

    def test_by_hand(self):
        sae = TopK(2, 3, 1, aux_coefficient=0.0, multi_weight=0.125, multi_factor=2)
        with torch.no_grad():
            sae.W_enc.copy_(torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]))
            sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
        x = torch.tensor([[2.0, 1.0]])  # pre [2, 1, 3]: the first reconstructs (1.8, 2.4), the first two (3.8, 2.4)
        objective = sae.objective(x, NONE_DEAD)
        assert objective.error.item() == pytest.approx(0.2**2 + 1.4**2)
        assert objective.loss.item() == pytest.approx(2.0 + 0.125 * (1.8**2 + 1.4**2))
        assert objective.fired.tolist() == [False, False, True]

    def test_latents_stay_those_of_k_and_the_wider_choice_ends_at_the_dictionary(self):
        sae, x = make("topk", multi_weight=0.5, multi_factor=100), batch()
        assert (sae(x).latents != 0).sum(-1).max() <= sae.k
        everything = (x - sae.decode(sae.pre(x).relu())).square().sum(-1).mean()
        without = make("topk").objective(x, NONE_DEAD).loss
        torch.testing.assert_close(sae.objective(x, NONE_DEAD).loss, without + 0.5 * everything / sae.scale)

    @pytest.mark.parametrize("option, value", [("multi_weight", -1.0), ("multi_factor", 1)])
    def test_bad_options_are_named(self, option, value):
        with pytest.raises(ValueError, match=f"{option}.*{value}"):
            TopK(D_IN, D_SAE, 2, **{option: value})


@pytest.mark.parametrize("k", [2.5, D_SAE + 1])
def test_topk_refuses_a_k_that_is_not_a_number_of_latents(k):
    with pytest.raises(ValueError, match=f"sparsity.*{k}"):
        TopK(D_IN, D_SAE, k)


def test_k_aux_is_the_power_of_two_near_half_the_width():
    assert TopK(768, 8, 1).k_aux == 512 and TopK(128, 8, 1).k_aux == 64


def test_geometric_median_ignores_a_far_outlier():
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0], [1e6, 1e6]])
    assert (geometric_median(x, iterations=2000, tolerance=1e-9) - 1).abs().max() < 0.8
    square = x[:4]
    torch.testing.assert_close(geometric_median(square), torch.ones(2))


@pytest.mark.parametrize("content", [b"", b"not a safetensors file"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="broken.safetensors"):
        library.load(path)


def test_an_unknown_architecture_lists_the_known_ones():
    with pytest.raises(ValueError, match="relu.*topk.*'topkk'"):
        Run(Gaussian(4), "topkk", 8, 1, tokens=64, batch=8, lr=1e-3, dead_after=8)
