"""BatchTopK by hand: selection over a batch, the threshold it leaves for evaluation, and a short training."""

from dataclasses import dataclass

import pytest
import torch

from replication import sae as library
from replication.activations import ActivationSource
from replication.sae.batchtopk import BatchTopK, batch_topk, updated_threshold
from replication.train import Run, Trained, train

D_IN, D_SAE = 8, 32
NONE_DEAD = torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True)
class SparseCodes(ActivationSource):
    """Each of 16 unit atoms is active with probability 1/8, at 1 to 2: about two atoms per token."""

    @property
    def d_in(self):
        return D_IN

    def draw(self, n: int, seed: int) -> torch.Tensor:
        atoms = torch.randn(16, D_IN, generator=torch.Generator().manual_seed(7))
        generator = torch.Generator().manual_seed(seed)
        active = torch.rand(n, 16, generator=generator) < 1 / 8
        codes = active * (1 + torch.rand(n, 16, generator=generator))
        return codes @ torch.nn.functional.normalize(atoms, dim=-1)

    def batches(self, batch, tokens, seed, device="cpu"):
        for number in range(tokens // batch):
            yield self.draw(batch, 10_000 * (seed + 1) + number).to(device)

    def heldout(self, device="cpu"):
        return self.draw(2000, 1).to(device)


def trained_on_codes(name: str, sparsity: float, steps: int = 150, **options) -> Trained:
    tokens, data = steps * 128, SparseCodes()
    run = Run(data, name, D_SAE, sparsity, tokens, batch=128, lr=3e-3, dead_after=2048, options=options)
    return next(train([run], device="cpu"))


def make(sparsity=3.0, **kwargs) -> BatchTopK:
    return BatchTopK(D_IN, D_SAE, sparsity, generator=torch.Generator().manual_seed(0), **kwargs)


class TestSelection:
    def test_one_token_may_take_all_places(self):
        pre = torch.tensor([[4.0, 3.0, 2.0], [1.0, 0.5, -1.0]])
        assert batch_topk(pre, 1).tolist() == [[4, 3, 0], [0, 0, 0]]
        assert batch_topk(pre, 1.5).tolist() == [[4, 3, 2], [0, 0, 0]]
        assert batch_topk(pre, 0.5).tolist() == [[4, 0, 0], [0, 0, 0]]

    def test_ties_do_not_add_places(self):
        kept = batch_topk(torch.tensor([[2.0, 1.0, 1.0], [1.0, 0.0, 0.0]]), 1)
        assert kept[0, 0] == 2 and kept.sum() == 3 and kept.count_nonzero() == 2

    def test_fewer_positives_than_places(self):
        assert batch_topk(torch.tensor([[2.0, -1.0], [-3.0, 0.0]]), 2).tolist() == [[2, 0], [0, 0]]

    def test_less_than_one_place_is_refused(self):
        with pytest.raises(ValueError, match="sparsity=0.25.*batch of 3"):
            batch_topk(torch.ones(3, 4), 0.25)


def test_threshold_by_hand():
    step = lambda threshold, latents: updated_threshold(torch.tensor(threshold), torch.tensor(latents), 0.9)  # noqa: E731
    assert step(0.0, [[4.0, 0.0], [2.0, 3.0]]) == 2  # the first batch sets it
    torch.testing.assert_close(step(2.0, [[0.0, 5.0], [7.0, 0.0]]), torch.tensor(0.9 * 2 + 0.1 * 5))
    assert step(2.0, [[0.0, 0.0]]) == 2 and step(0.0, [[0.0, 0.0]]) == 0  # nothing kept, nothing learned


def test_objective_moves_the_threshold_in_training_only():
    sae, x = make(), SparseCodes().draw(64, 2)
    smallest = min(value for value in batch_topk(sae.pre(x), 3).flatten().tolist() if value > 0)
    sae.eval().objective(x, NONE_DEAD)
    assert sae.threshold == 0
    sae.train().objective(x, NONE_DEAD)
    assert sae.threshold.item() == pytest.approx(smallest)
    sae.objective(torch.zeros(4, D_IN), NONE_DEAD)
    assert sae.threshold.item() == pytest.approx(smallest)


def test_evaluation_is_strictly_above_the_threshold():
    sae = BatchTopK(2, 4, 1).eval()
    pre, centred = torch.tensor([[0.5, 1.0, 1.5, -2.0]]), torch.zeros(1, 2)
    assert sae.sparsify(pre, centred).tolist() == [[0.5, 1, 1.5, 0]]  # before any step: ReLU
    sae.threshold.fill_(1.0)
    assert sae.sparsify(pre, centred).tolist() == [[0, 0, 1.5, 0]]
    assert sae.train().sparsify(pre, centred).tolist() == [[0, 0, 1.5, 0]]
    sae.threshold.fill_(9.0)
    assert sae.sparsify(pre, centred).tolist() == [[0, 0, 1.5, 0]]  # training does not look at it


def test_objective_equals_the_dense_equation():
    sae, x = make(), SparseCodes().draw(64, 2)
    sae.initialise(x)
    objective, out = sae.objective(x, NONE_DEAD), sae(x)
    error = (x - out.recon).square().sum(-1).mean()
    torch.testing.assert_close(objective.error, error.detach())
    torch.testing.assert_close(objective.loss, error / (x - x.mean(0)).square().sum(-1).mean())
    assert out.latents.count_nonzero() == 3 * 64
    assert torch.equal(objective.fired, (out.latents > 0).any(0))


def test_dead_latents_learn_through_the_auxiliary_loss():
    sae, x = make(), SparseCodes().draw(64, 2)
    sae.initialise(x)
    dead = ~sae.objective(x, NONE_DEAD).fired
    dead[:4] = True
    (sae.objective(x, dead.nonzero().squeeze(-1)).loss - sae.objective(x, NONE_DEAD).loss).backward()
    assert sae.W_dec.grad[~dead].abs().max() < 1e-6 < sae.W_dec.grad[dead].abs().max()
    off = make(aux_coefficient=0)
    assert off.objective(x, torch.arange(4)).loss == off.objective(x, NONE_DEAD).loss


def test_after_training_evaluation_has_k_latents_on_average_and_no_batch_mates(tmp_path):
    trained = trained_on_codes("batchtopk", 2.0, steps=300, threshold_decay=0.9)
    sae, x = trained.sae, trained.run.source.heldout()
    assert not sae.training and sae.threshold > 0
    latents = sae(x).latents
    assert latents.count_nonzero() / len(x) == pytest.approx(2, rel=0.1)
    assert (latents > 0).sum(-1).unique().numel() > 2  # a budget per batch, not per token
    for n in (1, 7):
        torch.testing.assert_close(sae(x[:n]).latents, latents[:n])
    assert trained.log["curve_error"][-1] < 0.5 * trained.log["curve_error"][0]
    sae.save(tmp_path / "sae.safetensors")
    again = library.load(tmp_path / "sae.safetensors").eval()
    assert again.config() == sae.config() and again.threshold == sae.threshold and again.scale == sae.scale
    assert torch.equal(again(x).latents, latents) and again(x).recon.shape == x.shape


def test_gradients_are_finite_when_nothing_fires():
    sae = make()
    objective = sae.objective(torch.zeros(5, D_IN), ~NONE_DEAD)
    objective.loss.backward()
    assert objective.loss == 0 and not objective.fired.any()
    assert all(parameter.grad.isfinite().all() for parameter in sae.parameters())


@pytest.mark.parametrize(
    "field, value",
    [
        ("sparsity", D_SAE + 1),
        ("threshold_decay", 1.0),
        ("threshold_decay", -0.1),
        ("aux_coefficient", -1),
        ("k_aux", 0),
    ],
)
def test_nonsense_is_refused_by_name_and_value(field, value):
    with pytest.raises(ValueError, match=f"{field}.*{value}"):
        BatchTopK(**{"d_in": D_IN, "d_sae": D_SAE, "sparsity": 3} | {field: value})
