"""Matryoshka BatchTopK by hand: nested prefixes, their loss, and a short training."""

import pytest
import torch
from test_sae_batchtopk import D_IN, D_SAE, NONE_DEAD, SparseCodes, trained_on_codes

from replication import sae as library
from replication.sae.batchtopk import BatchTopK
from replication.sae.matryoshka import Matryoshka, prefix_sizes


def make(cls=Matryoshka, **kwargs):
    return cls(D_IN, D_SAE, 3.0, generator=torch.Generator().manual_seed(0), **kwargs)


def test_prefix_sizes_double():
    assert prefix_sizes(16, 5) == [1, 2, 4, 8, 16]
    assert prefix_sizes(100, 3) == [25, 50, 100]
    assert prefix_sizes(7, 1) == [7]


def test_loss_by_hand_with_two_groups():
    sae = Matryoshka(2, 2, 2, groups=2)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(2))
        sae.W_dec.copy_(torch.eye(2))
        sae.b_dec.copy_(torch.tensor([0.0, 1.0]))
    sae.scale.fill_(4.0)
    x = torch.tensor([[2.0, 4.0], [-1.0, 2.0]])  # latents (2, 3) and (0, 1)
    objective = sae.objective(x, torch.empty(0, dtype=torch.int64))
    # prefix of 1: recon (2, 1) and (0, 1), errors 9 and 2; of 2: (2, 4) and (0, 2), errors 0 and 1
    assert objective.error == (0 + 1) / 2
    assert objective.loss == ((9 + 2) / 2 + (0 + 1) / 2) / 2 / 4
    assert objective.fired.tolist() == [True, True]


def test_prefixes_are_the_dictionary_cut_short():
    sae, x = make(groups=3), SparseCodes().draw(64, 2)
    sae.initialise(x)
    latents = sae(x).latents
    for m, recon in zip([8, 16, 32], sae.reconstructions(latents), strict=True):
        torch.testing.assert_close(recon, latents[:, :m] @ sae.W_dec[:m] + sae.b_dec)


def test_one_group_is_batchtopk():
    ours, theirs, x = make(groups=1), make(BatchTopK), SparseCodes().draw(64, 2)
    dead = torch.arange(0, D_SAE, 3)
    results = []
    for sae in (ours, theirs):
        sae.initialise(x)
        objective = sae.objective(x, dead)
        objective.loss.backward()
        results.append([objective.loss, objective.error, sae.threshold, *(p.grad for p in sae.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_auxiliary_loss_explains_what_the_whole_dictionary_leaves():
    sae, x = make(groups=3, k_aux=D_SAE), SparseCodes().draw(64, 2)
    sae.initialise(x)
    everything = torch.arange(D_SAE)
    residual = (x - sae(x).recon).detach()
    explained = sae.pre(x).relu() @ sae.W_dec
    aux = (residual - explained).square().sum() / (residual - residual.mean(0)).square().sum()
    torch.testing.assert_close(sae.objective(x, everything).loss, sae.objective(x, NONE_DEAD).loss + aux / 32)


def test_after_training_the_first_prefix_beats_that_of_batchtopk(tmp_path):
    nested = trained_on_codes("matryoshka", 2.0, steps=300, groups=3, threshold_decay=0.9)
    flat = trained_on_codes("batchtopk", 2.0, steps=300, threshold_decay=0.9)
    sae, x = nested.sae, nested.run.source.heldout()
    latents = sae(x).latents
    assert latents.count_nonzero() / len(x) == pytest.approx(2, rel=0.1)
    torch.testing.assert_close(sae(x[:3]).latents, latents[:3])
    assert nested.log["curve_error"][-1] < 0.5 * nested.log["curve_error"][0]
    first = []
    for one in (sae, flat.sae):
        recon = one(x).latents[:, :8] @ one.W_dec[:8] + one.b_dec
        first.append((x - recon).square().sum(-1).mean())
    assert first[0] < 0.8 * first[1]
    sae.save(tmp_path / "sae.safetensors")
    again = library.load(tmp_path / "sae.safetensors").eval()
    assert again.config() == sae.config() and again.config()["groups"] == 3
    assert again.threshold == sae.threshold > 0 and torch.equal(again(x).latents, latents)


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("groups", 0, "groups.*0"),
        ("d_sae", 15, "d_sae.*16.*groups=5.*15"),
        ("threshold_decay", 1.5, "threshold_decay.*1.5"),
        ("sparsity", 33, "sparsity.*33"),
    ],
)
def test_nonsense_is_refused_by_name_and_value(field, value, message):
    with pytest.raises(ValueError, match=message):
        Matryoshka(**{"d_in": D_IN, "d_sae": D_SAE, "sparsity": 3} | {field: value})
