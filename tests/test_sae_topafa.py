"""top-AFA by hand: the test vectors of the released tutorial, its edge cases, its losses, and a short training."""

import math

import pytest
import torch
from test_sae_batchtopk import D_IN, D_SAE, NONE_DEAD, SparseCodes, trained_on_codes

from replication import sae as library
from replication.sae.base import geometric_median
from replication.sae.topafa import TopAFA, afa_selection


def make(sparsity=0.5, **kwargs) -> TopAFA:
    return TopAFA(D_IN, D_SAE, sparsity, generator=torch.Generator().manual_seed(0), **kwargs)


def select(values: list[float], target: float, rule: str = "nearest") -> list[int]:
    """Indices kept of one token, with unit decoder rows."""
    values = torch.tensor([values])
    kept = afa_selection(values, torch.ones(values.shape[1]), torch.tensor([target]), rule)
    return kept[0].nonzero().flatten().tolist()


class TestSelection:
    @pytest.mark.parametrize(
        "active, target, latents",
        [
            ([5.0, 4.0, 3.0], 54.41, [0, 4, 3]),  # roots 23.43, 30.81; 5 is the largest but for its short row
            ([1.0, 1.0, 1.0], 15.0, [0, 1, 1]),  # roots 7.81, 9.27
            ([1.0, 10.0, 2.0], 67.80, [0, 10, 2]),  # roots 50, 52.38
        ],
    )
    def test_vectors_of_the_released_tutorial(self, active, target, latents):
        sae = TopAFA(2, 3, 1)
        with torch.no_grad():
            sae.W_dec.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        active = torch.tensor([active])
        centred = active @ sae.W_dec.detach()
        assert centred.norm().item() == pytest.approx(target, abs=0.005)
        assert sae.sparsify(active, centred).tolist() == [latents]

    def test_nearest_from_below_and_from_above(self):
        values = [1.0, 4.0, 3.0, 1.0]  # roots 4, 5, 5.099, sentinel
        assert select(values, 4.4) == [1] and select(values, 4.6) == [1, 2]
        assert select(values, 4.6, "first-to-exceed") == [1, 2] == select(values, 4.4, "first-to-exceed")
        assert select(values, 5.0) == [1, 2] == select(values, 5.0, "first-to-exceed")

    def test_at_least_one_is_kept(self):
        assert select([3.0, 2.0], 0.0) == [0] == select([3.0, 2.0], 0.0, "first-to-exceed")
        assert select([3.0], 3.0) == [0]

    def test_no_positive_activation_gives_no_latent(self):
        sae = make()
        assert sae.sparsify(-torch.ones(2, D_SAE), torch.ones(2, D_IN)).count_nonzero() == 0
        assert len(select([0.0, 0.0, 0.0], 1.0)) == 1  # k is 1, its value 0

    def test_too_little_energy_keeps_all_that_is_positive(self):
        assert select([3.0, 0.0, 4.0, 0.0], 9.0) == [0, 2]  # the first index of the plateau
        assert set(select([3.0, 0.0, 4.0, 0.0], 9.0, "first-to-exceed")) >= {0, 2}

    def test_ties_take_the_first(self):
        assert select([2.0, 2.0, 2.0, 2.0], 2.0) == [0]
        assert select([3.0, 4.0, 0.0], 4.5) == [1]  # 4 and 5 are equally near

    def test_the_sentinel_keeps_one_out_unless_the_norm_is_huge(self):
        assert select([3.0, 4.0], 5.0) == [1]
        assert select([3.0, 4.0], 5.0, "first-to-exceed") == [0, 1]
        assert select([3.0, 4.0], 5010.0) == [0, 1]

    def test_decoder_norms_decide_the_order_and_not_the_value(self):
        kept = afa_selection(torch.tensor([[2.0, 1.0]]), torch.tensor([1.0, 3.0]), torch.tensor([3.0]), "nearest")
        assert kept.tolist() == [[False, True]]

    def test_no_selection_keeps_every_latent_whatever_the_target(self):
        assert select([3.0, 4.0, 0.0], 4.5, "all") == [0, 1, 2] == select([3.0, 4.0, 0.0], 0.1, "all")
        sae, x = make(rule="all"), SparseCodes().draw(20, 2)
        assert torch.equal(sae(x).latents, sae.pre(x).relu())

    def test_of_equals_the_first_are_kept_wherever_they_stand(self):
        assert select([1.0, 2.0, 1.0, 2.0, 1.0, 0.0], 3.0) == [0, 1, 3]  # 4 + 4 + 1
        assert select([1.0, 2.0, 1.0, 2.0, 1.0, 0.0], 3.1, "first-to-exceed") == [0, 1, 2, 3]

    @pytest.mark.parametrize("rule", ["nearest", "first-to-exceed"])
    def test_rule_against_a_loop(self, rule):
        sae, x = make(rule=rule), SparseCodes().draw(50, 2)
        x = x[x.norm(dim=-1) > 0]  # without b_dec a token of no atoms has no latents
        sae.initialise(x)
        latents, active = sae(x).latents, sae.pre(x).relu()
        for token, kept, values in zip(x, latents, active, strict=True):
            target = (token - sae.b_dec).norm().item()
            ordered = values.sort(descending=True).values.tolist()
            roots = [math.sqrt(sum(v * v for v in ordered[:m])) for m in range(1, D_SAE)]
            reached = [m for m, root in enumerate(roots, 1) if root >= target]
            if rule == "nearest":
                k = 1 + min(range(D_SAE - 1), key=lambda m: abs(roots[m] - target))
            else:
                k = reached[0] if reached else D_SAE
            assert kept.count_nonzero() == min(k, values.count_nonzero())
            assert kept[kept > 0].min() >= ordered[k - 1]


class TestObjective:
    def by_hand(self, **options) -> torch.Tensor:
        sae = TopAFA(2, 3, 0.5, **options)
        with torch.no_grad():
            sae.W_enc.copy_(torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]]))
            sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
            sae.b_dec.copy_(torch.tensor([0.0, 4.0]))
        x = torch.tensor([[3.0, 4.0], [-2.0, 0.0]])  # centred (3, 0) and (-2, -4): latents (3, 0, 0) and (0, 0, 2)
        objective = sae.objective(x, torch.empty(0, dtype=torch.int64))
        assert objective.error == (0 + 16) / 2 and objective.fired.tolist() == [True, False, True]
        return objective.loss

    def test_by_hand(self):
        assert self.by_hand() == 8 / 2 + 0.5 * ((3 - 5) ** 2 + (2 - 2) ** 2) / 2

    def test_centred_target(self):
        expected = 8 / 2 + 0.5 * ((3 - 3) ** 2 + (2 - math.sqrt(20)) ** 2) / 2
        torch.testing.assert_close(self.by_hand(target_centred=True), torch.tensor(expected))

    def test_without_the_norm_loss(self):
        assert self.by_hand(afa_loss=False) == 8 / 2

    def test_latents_are_not_scaled_by_decoder_norms(self):
        sae = TopAFA(1, 2, 0.5)
        with torch.no_grad():
            sae.W_enc.copy_(torch.tensor([[1.0, -1.0]]))
            sae.W_dec.copy_(torch.tensor([[2.0], [-2.0]]))
        assert sae.objective(torch.tensor([[3.0]]), torch.empty(0, dtype=torch.int64)).loss == 9  # |3| - |3| is 0

    def test_the_ramp_of_penalties_is_ignored(self):
        sae, x = make(), SparseCodes().draw(64, 2)
        assert sae.objective(x, NONE_DEAD, ramp=0.0).loss == sae.objective(x, NONE_DEAD).loss

    def test_gradient_flows_through_kept_values_only(self):
        sae, x = make(), SparseCodes().draw(64, 2)
        sae.initialise(x)
        parameters = [sae.W_enc, sae.W_dec, sae.b_dec]
        mask = (sae(x).latents > 0).detach()
        assert 0 < mask.sum() < (sae.pre(x) > 0).sum()  # the selection does something
        latents = sae.pre(x) * mask
        error = (x - latents @ sae.W_dec - sae.b_dec).square().mean()
        gap = (latents.square().sum(-1).clamp(min=1e-30).sqrt() - x.norm(dim=-1)).square().mean()
        plain = torch.autograd.grad(error + 0.5 * gap, parameters)
        for ours, theirs in zip(torch.autograd.grad(sae.objective(x, NONE_DEAD).loss, parameters), plain, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)

    def test_a_token_without_latents_has_a_finite_gradient(self):
        sae = make()
        sae.objective(torch.zeros(3, D_IN), ~NONE_DEAD).loss.backward()
        assert all(p.grad.isfinite().all() for p in sae.parameters() if p.requires_grad)

    def test_dead_latents_learn_through_the_auxiliary_loss(self):
        sae, x = make(), SparseCodes().draw(64, 2)
        sae.initialise(x)
        dead = torch.arange(4)
        (sae.objective(x, dead).loss - sae.objective(x, NONE_DEAD).loss).backward()
        assert sae.W_dec.grad[4:].abs().max() < 1e-6 < sae.W_dec.grad[dead].abs().max()


def test_a_tied_encoder_starts_at_the_norm_of_the_input():
    sae, x = make(), SparseCodes().draw(500, 2)
    sae.initialise(x)
    energy = sae.pre(x).relu().square().sum(-1).mean()
    torch.testing.assert_close(energy, (x - sae.b_dec).square().sum(-1).mean())
    assert sae.b_dec.count_nonzero() == 0
    centred = make(centred_start=True)
    centred.initialise(x)
    torch.testing.assert_close(centred.b_dec.detach(), geometric_median(x))
    assert centred.b_dec.norm() > 0.1
    twice = make(init_scale=2)
    twice.initialise(x)
    torch.testing.assert_close(twice.W_enc, 2 * sae.W_enc)
    free = make(tied_init=False)
    before = free.W_enc.detach().clone()
    free.initialise(x)
    assert torch.equal(free.W_enc, before)


def test_training_matches_norms_and_leaves_no_encoder_bias(tmp_path):
    trained = trained_on_codes("topafa", 1.0)
    sae, x = trained.sae, trained.run.source.heldout()
    latents = sae(x).latents
    torch.testing.assert_close(sae(x[:3]).latents, latents[:3])
    before, after = (((x - one(x).recon).square().sum(-1).mean()).item() for one in (trained.untrained, sae))
    assert after < 0.5 * before
    assert sae.b_enc.count_nonzero() == 0 and not sae.b_enc.requires_grad
    gaps = [(one(x).latents.norm(dim=-1) - x.norm(dim=-1)).square().mean() for one in (trained.untrained, sae)]
    assert gaps[1] < 0.5 * gaps[0]
    sae.save(tmp_path / "sae.safetensors")
    again = library.load(tmp_path / "sae.safetensors")
    assert again.config() == sae.config() and not again.b_enc.requires_grad
    assert torch.equal(again(x).latents, latents) and again(x).recon.shape == x.shape


def test_options_survive_a_file(tmp_path):
    options = {
        "rule": "first-to-exceed",
        "afa_loss": False,
        "target_centred": True,
        "init_scale": 0.5,
        "centred_start": True,
    }
    sae = make(1e-6, **options)
    sae.save(tmp_path / "sae.safetensors")
    again = library.load(tmp_path / "sae.safetensors")
    assert options.items() <= again.config().items() and again.sparsity == 1e-6


@pytest.mark.parametrize(
    "field, value",
    [
        ("rule", "nearer"),
        ("init_scale", 0),
        ("aux_coefficient", -1),
        ("k_aux", 0),
        ("sparsity", 0),
        ("sparsity", -1),
    ],
)
def test_nonsense_is_refused_by_name_and_value(field, value):
    with pytest.raises(ValueError, match=f"{field}.*{value}"):
        TopAFA(**{"d_in": D_IN, "d_sae": D_SAE, "sparsity": 1} | {field: value})
