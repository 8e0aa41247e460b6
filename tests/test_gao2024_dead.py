"""Ablations change what they say and nothing else; verdicts on tables whose answer is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from replication import sae, store, train
from replication.activations import Gaussian
from replication.claims import NoEvidence
from replication.papers.gao2024 import dead
from replication.papers.gao2024.grid import GRIDS
from replication.papers.gao2024.variants import CHANGES, VariedRun, varied
from replication.sae.topk import TopK
from replication.train import Run

RUN = Run(Gaussian(8), "topk", d_sae=16, sparsity=2, tokens=1024, batch=64, lr=3e-3, dead_after=256)
X = torch.randn(256, 8, generator=torch.Generator().manual_seed(1))


def started(change: str):
    """A changed SAE and the unchanged one, both before their first step."""
    pair = varied(RUN, change).build(), RUN.build()
    for one in pair:
        one.initialise(X)
    return pair


def test_a_scaled_loss_is_a_larger_eps():
    assert dead.effective_eps(6.25e-10, 1) == dead.DEFAULT_EPS
    assert dead.effective_eps(1e-8, 1e-3) == dead.effective_eps(1e-5, 1) == 1e-5
    ends = []
    for eps, scale in ((1e-3, 2.0**-10), (1e-3 * 2.0**10, 1.0)):  # a power of two rounds nothing
        model = RUN.build()
        adam = torch.optim.Adam(model.parameters(), lr=0.01, eps=eps)
        for _ in range(5):
            adam.zero_grad()
            (scale * (model(X).recon - X).square().mean()).backward()
            adam.step()
        ends.append(model.W_enc.detach())
    torch.testing.assert_close(*ends)
    assert not torch.allclose(ends[0], RUN.build().W_enc)


def test_unscaled_keeps_the_magnitude_of_the_draw():
    unscaled, scaled = started("unscaled")
    torch.testing.assert_close(unscaled.W_enc, RUN.build().W_enc, rtol=0, atol=0)
    assert not torch.allclose(scaled.W_enc, unscaled.W_enc)
    torch.testing.assert_close(unscaled.b_dec, scaled.b_dec)


def test_matched_norms_do_not_depend_on_the_scale_before():
    matched, _ = started("norm-matched")
    units = torch.nn.functional.normalize(torch.randn(4096, 8, generator=torch.Generator().manual_seed(2)), dim=-1)
    norms = (matched(units + matched.b_dec).recon - matched.b_dec).norm(dim=-1)
    assert norms.mean().item() == pytest.approx(1, abs=0.05)
    before = matched.W_enc.detach().clone()
    with torch.no_grad():
        matched.W_enc.mul_(7)
    matched.initialise(X)
    torch.testing.assert_close(matched.W_enc, before)


def test_a_nudge_is_in_the_last_digits():
    nudged, plain = started("nudged")
    torch.testing.assert_close(nudged.W_enc, plain.W_enc * 1.00001)
    assert not torch.equal(nudged.W_enc, plain.W_enc)


def test_without_bias_b_enc_stays_zero_and_the_rest_learns():
    [without] = train.train([varied(RUN, "without-bias")])
    [plain] = train.train([RUN])
    assert not without.sae.b_enc.any() and plain.sae.b_enc.any()
    assert not torch.equal(without.sae.W_enc, without.untrained.W_enc)


def test_a_varied_run_is_another_run_and_refuses_nonsense():
    runs = {RUN, *(varied(RUN, change) for change in CHANGES)}
    assert len({repr(run) for run in runs}) == len(CHANGES) + 1
    with pytest.raises(ValueError, match="change must be one of nudged.*got 'other'"):
        varied(RUN, "other")
    with pytest.raises(ValueError, match="must be topk, got 'relu'"):
        varied(replace(RUN, architecture="relu"), "nudged")
    assert isinstance(varied(RUN, "nudged"), VariedRun)


@pytest.mark.parametrize("change", CHANGES)
def test_a_varied_sae_is_stored_as_what_it_has_become(change, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CACHE", tmp_path)
    run = varied(RUN, change)
    [first] = store.trained([run])
    assert type(first.sae) is CHANGES[change]
    [again] = store.trained([run])
    assert type(again.sae) is sae.TopK is TopK and again.run == run
    torch.testing.assert_close(again.sae(X), first.sae(X), rtol=0, atol=0)


NMSE = {"default": 0.2, "nudged": 0.2, "norm-matched": 0.2, "unscaled": 0.2, "free norms": 0.21, "settled": 0.4}
EPS_NMSE = {6.25e-7: 0.2, 1e-8: 0.2, 1e-5: 0.21, 1e-2: 0.8}


def ablations(nmse=None, eps=None, late=0.0, spread=0.0001) -> pd.DataFrame:
    """Three seeds; `late`: how much the training error of the settled pair falls in the last doubling."""
    rows = []
    for seed in range(3):
        common = {"seed": seed, "source": "X(model='toy')", "sparsity": 4, "batch": 8, "lr": 0.1, "d_sae": 64}
        common |= {"options": "()", "adam_eps": dead.DEFAULT_EPS, "tokens": 100, "change": np.nan, "dead": 0.0}
        wobble = spread * seed
        for condition, value in ({"without-bias": 0.4} | NMSE | (nmse or {})).items():
            row = common | {"nmse": value + wobble * (condition in ("unscaled", "free norms", "without-bias"))}
            row |= {"change": condition} if condition in CHANGES else {}
            row |= {"options": "(('unit_norm', False),)"} if condition == "free norms" else {}
            row |= {"sparsity": 2} if condition in ("settled", "without-bias") else {}
            rows.append(row)
        rows += [common | {"adam_eps": e, "nmse": value + wobble} for e, value in (EPS_NMSE | (eps or {})).items()]
    table = pd.DataFrame(rows)
    return table.assign(curve_tokens=[[1, 2, 4]] * len(table), curve_error=[[1, 0.5 * np.exp(late), 0.5]] * len(table))


def test_conditions_and_changes_are_read_off_the_runs():
    rows = ablations({"unscaled": 0.22, "without-bias": 0.5}, spread=0)
    assert set(dead.with_condition(rows).condition) == {*dead.CONDITIONS, "eps"}
    changes = dead.relative_changes(rows).groupby("condition").change.mean()
    assert changes["unscaled"] == pytest.approx(0.1) and changes["without-bias"] == pytest.approx(0.25)
    assert changes["free norms"] == pytest.approx(0.05) and changes["nudged"] == 0 and "default" not in changes
    eps = dead.eps_changes(rows).mean()
    assert eps.to_dict() == pytest.approx({6.25e-10: 0.0, 1e-8: 0.05, 1e-5: 0.8 / 0.21 - 1})
    with pytest.raises(NoEvidence, match="unscaled"):
        dead.errors(rows[rows.change != "unscaled"])
    with pytest.raises(NoEvidence, match="every eps"):
        dead.eps_changes(rows[rows.adam_eps != 1e-2])


def test_the_grid_holds_every_condition():
    for preset in ("smoke", "cpu", "gpu"):
        runs = list(dict.fromkeys([*dead.ablation_runs(preset), *dead.eps_runs(preset)]))
        rows = pd.DataFrame([{"change": getattr(run, "change", np.nan), **vars(run), "nmse": 0.1} for run in runs])
        rows = rows.assign(options=rows.options.map(repr))
        assert {run.tokens for run in runs} == {GRIDS[preset][3]}
        scales = rows[rows.seed < 3]  # as LOSS_SCALES has it
        assert len(dead.errors(rows)) == 5 and len(dead.eps_changes(scales)) == 3 and len(runs) == 5 * 7 + 3 * 4


def test_c16_asks_for_less_than_one_per_cent():
    def verdict(rows):
        return dead.rescaling_is_irrelevant(rows).verdict

    assert verdict(ablations()) == "replicated"
    assert verdict(ablations({"unscaled": 0.21})) == verdict(ablations({"unscaled": 0.19})) == "not replicated"
    assert verdict(ablations(spread=0.0015)) == "partly"  # mean +0.75 %, interval beyond 1 %
    assert verdict(ablations(spread=0.0025)) == "void"  # mean +1.25 %, interval back inside
    assert dead.rescaling_is_irrelevant(ablations({"unscaled": 0.21}, spread=0)).ours == pytest.approx(0.05)


def test_c17_is_void_before_convergence():
    assert dead.bias_is_irrelevant(ablations(late=0.005)).verdict == "replicated"
    assert dead.bias_is_irrelevant(ablations({"without-bias": 0.42}, late=0.005)).verdict == "not replicated"
    early = dead.bias_is_irrelevant(ablations(late=0.04))
    assert early.verdict == "void" and "4.0 % with the bias" in early.summary


def test_c18_is_the_difference_of_errors():
    evidence = dead.unit_norm_helps(ablations())
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(0.0101)
    assert dead.unit_norm_helps(ablations({"free norms": 0.19})).verdict == "not replicated"
    assert dead.unit_norm_helps(ablations({"free norms": 0.1995}, spread=0.0004)).verdict == "void"


def test_c19_needs_both_larger_eps_to_feel_the_scale():
    evidence = dead.eps_has_to_be_tiny(ablations())
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(0.8 / 0.21 - 1, abs=0.01)
    assert dead.eps_has_to_be_tiny(ablations(eps={1e-5: 0.2})).verdict == "partly"  # 1e-8 does not feel it
    assert dead.eps_has_to_be_tiny(ablations(eps={1e-5: 0.2, 1e-2: 0.2})).verdict == "not replicated"


def test_c19_is_void_where_the_smallest_eps_feels_the_scale():
    assert dead.eps_has_to_be_tiny(ablations(eps={6.25e-7: 0.3})).verdict == "void"
