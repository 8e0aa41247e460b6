"""Verdicts on probes and effects, on tables whose answer is known."""

import numpy as np
import pandas as pd
import pytest
import torch

from replication.claims import NoEvidence
from replication.evaluate.reconstruction import passed
from replication.papers.gao2024 import probes
from replication.papers.gao2024.scaling import scaling_runs
from replication.results import Study
from replication.sae import TopK


def probe_table(
    slope: float = -0.01, best: float = 8, tasks: int = 12, wiggle: float = 0.0, untrained: float = 0.65
) -> pd.DataFrame:
    """Loss 0.6 + slope per doubling of n, and 0.02 more per doubling of k away from `best`."""
    noise = np.random.default_rng(0)
    rows = []
    for seed in range(3):
        for n in (64, 128, 256, 512):
            for k in (4, 8, 16):
                loss = 0.6 + slope * np.log2(n) + 0.02 * abs(np.log2(k / best)) + 1e-4 * seed * k
                loss += wiggle * noise.normal()
                lists = {f"task_loss{c}": [loss] * tasks for c in ("", "_untrained", "_channels")}
                rows.append(
                    {
                        "seed": seed,
                        "d_sae": n,
                        "sparsity": float(k),
                        "probe_loss": loss,
                        "probe_loss_train": loss - 0.02,
                    }
                    | {"probe_loss_untrained": untrained - 1e-5 * n, "probe_loss_channels": 0.66}
                    | {"labelled_fingerprint": "f" * 16}
                    | {"tasks": [f"t{i}" for i in range(tasks)]}
                    | lists
                )
    return pd.DataFrame(rows)


def test_c26_reads_rank_and_middle():
    evidence = probes.probes_improve(probe_table())
    assert (evidence.verdict, evidence.ours) == ("replicated", -1)
    assert "of the inner k, 8 does best on the other seeds" in evidence.summary and "12 tasks" in evidence.summary
    assert "that of untrained dictionaries -1.00" in evidence.summary


def test_c26_other_verdicts():
    assert probes.probes_improve(probe_table(best=4)).verdict == "partly"  # more latents help, the smallest k is best
    assert probes.probes_improve(probe_table(slope=0.01)).verdict == "partly"  # the middle is best, more latents harm
    assert probes.probes_improve(probe_table(slope=0.01, best=4)).verdict == "not replicated"
    assert probes.probes_improve(probe_table(tasks=9)).verdict == "void"


def test_c26_is_no_more_than_partly_met_where_directions_before_training_do_as_well():
    """At n = 512 the first seed has losses of 0.53, 0.51 and 0.53."""
    assert probes.gain_at_largest(probe_table())[0] == pytest.approx(0.65 - 0.00512 - (0.53 + 0.51 + 0.53) / 3)
    assert probes.probes_improve(probe_table(untrained=0.5)).verdict == "partly"
    wrong = probe_table(slope=0.01, best=4, untrained=0.9)  # a gain of training rescues nothing
    assert probes.probes_improve(wrong).verdict == "not replicated"


def test_c26_wants_one_labelled_text():
    table = probe_table()
    table.loc[0, "labelled_fingerprint"] = "other"
    for rows in (table, probe_table().drop(columns="labelled_fingerprint"), table.replace("other", None)):
        with pytest.raises(NoEvidence, match="one labelled text"):
            probes.probes_improve(rows)


def test_another_labelled_text_makes_rows_of_this_machine_stale(monkeypatch):
    monkeypatch.setattr(Study, "is_stale", lambda self, run, row, committed: row["code"] != "same")
    monkeypatch.setattr(probes, "labelled_fingerprint", lambda source: "new")
    run = scaling_runs("smoke")[0]

    def stale(code: str, text: str, committed: bool = False) -> bool:
        return probes.PROBES.is_stale(run, {"code": code, "labelled_fingerprint": text}, committed)

    assert stale("same", "old") and stale("changed", "new") and not stale("same", "new")
    assert not stale("same", "old", committed=True)  # as for the source's own text
    assert probes.PROBES.is_stale(run, {"code": "same"}, False)


def test_c26_needs_enough_sizes_and_settings():
    with pytest.raises(NoEvidence, match="at least 4 dictionary sizes"):
        probes.probes_improve(probe_table().query("d_sae > 64"))
    with pytest.raises(NoEvidence, match="three settings"):
        probes.probes_improve(probe_table().query("sparsity > 4"))


def test_rank_is_taken_where_there_are_enough_sizes():
    """Falling at k = 4, rising at k = 8, three sizes only at k = 16."""
    table = probe_table().query("sparsity != 16 or d_sae > 64").copy()
    rising = table.sparsity == 8
    table.loc[rising, "probe_loss"] = -table.loc[rising, "probe_loss"]
    assert probes.rank_with_size(table).tolist() == [0, 0, 0]


def test_by_k_is_the_mean_over_complete_sizes():
    table = probe_table().query("sparsity != 16 or d_sae > 64")
    found = probes.by_k(table)
    expected = table[(table.d_sae > 64) & (table.seed == 0) & (table.sparsity == 4)].probe_loss.mean()
    assert found.loc[0, 4] == pytest.approx(expected) and found.shape == (3, 3)


def test_interior_minimum_by_hand():
    dip = pd.DataFrame([[3.0, 1, 2], [3.1, 1, 2], [3.2, 1, 2.1]], columns=[1, 2, 4])
    assert probes.interior_minimum(dip) == ("replicated", [2])
    falling = pd.DataFrame([[3.0, 2, 1], [3.1, 2, 1], [3.2, 2, 1.1]], columns=[1, 2, 4])
    assert probes.interior_minimum(falling)[0] == "not replicated"  # it never turns
    unclear = pd.DataFrame([[3.0, 2, 2.2], [3.1, 2, 1.9], [3.2, 2, 2.1]], columns=[1, 2, 4])
    assert probes.interior_minimum(unclear)[0] == "partly"
    flat = pd.DataFrame([[3.0, 2, 1.8], [3.1, 2, 2.1], [3.2, 2, 1.9]], columns=[1, 2, 4])
    assert probes.interior_minimum(flat)[0] == "void"


def test_interior_minimum_is_not_fooled_by_choosing_the_best_of_noise():
    """Every seed has its own dip among the inner columns: each seed's lowest value is below both ends, by chance."""
    noise = pd.DataFrame([[0.0, -2, 1, 1, 0], [0, 1, -2, 1, 0], [0, 1, 1, -2, 0]], columns=[1, 2, 4, 8, 16])
    assert (noise.iloc[:, 1:-1].min(axis=1) < noise[1]).all()
    assert probes.interior_minimum(noise) == ("not replicated", [2, 4])


def test_tasks_of_best_are_those_of_the_largest_dictionary_and_its_best_k():
    found = probes.tasks_of_best(probe_table(tasks=2))
    assert (found.n.unique().tolist(), found.k.unique().tolist()) == ([512], [8])
    assert found.columns.tolist() == ["task", "latents", "untrained", "channels", "seed", "n", "k"]
    assert found.task.tolist() == ["t0", "t1"] * 3


def effects_table(latents: float = 0.1, channels: float = 0.6, dip: float = 16, jump: float = 1.0) -> pd.DataFrame:
    """d = 128: effects larger by 0.01 per doubling of k away from `dip`; density k / 256 (`jump` times from 64)."""
    rows = []
    for seed in range(3):
        for k in (4, 8, 16, 32, 64, 89, 128):
            effect = latents + 0.01 * abs(np.log2(k / dip)) + 1e-4 * seed * np.log2(k)
            density = k / 256 * (1 + 0.001 * seed) * (jump if k >= 64 else 1)
            row = {"seed": seed, "sparsity": float(k), "d_sae": 1024, "width": 128}
            for suffix in ("", "_here"):
                row |= {f"effect_{name}{suffix}": effect for name in ("residual", "reconstruction")}
                row |= {f"effect_channels{suffix}": channels + 1e-3 * seed, f"effect_untrained{suffix}": channels}
            rows.append(row | {"densest": density, "densest_untrained": k / 1024})
    return pd.DataFrame(rows)


def test_c30_compares_latents_with_half_of_the_channels():
    evidence = probes.latents_are_sparser(effects_table())
    mean = 0.1 + 0.01 * (2 + 1 + 0 + 1) / 4  # over k = 4, 8, 16, 32
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(mean / 0.6, abs=2e-3)


def test_c30_other_verdicts():
    assert probes.latents_are_sparser(effects_table(latents=0.4)).verdict == "partly"  # channels are as published
    assert probes.latents_are_sparser(effects_table(latents=0.1, channels=0.3)).verdict == "partly"
    assert probes.latents_are_sparser(effects_table(latents=0.1, channels=0.1)).verdict == "not replicated"
    one_way = effects_table().assign(effect_reconstruction=0.5)
    assert probes.latents_are_sparser(one_way).verdict == "partly"


def test_c31_needs_a_minimum_inside():
    evidence = probes.sparsity_reverses(effects_table())
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(16 / 128)
    assert "of the inner k, 16 has the sparsest" in evidence.summary and "before training: void" in evidence.summary
    assert probes.sparsity_reverses(effects_table(dip=128)).verdict == "not replicated"  # k = 128 is outside 0.7 d
    falling = effects_table().assign(effect_reconstruction=lambda rows: 1 / rows.sparsity)
    assert probes.sparsity_reverses(falling).verdict == "partly"  # it holds under one of the conventions


def test_c32_measures_the_jump_over_the_trend():
    evidence = probes.solutions_turn_dense(effects_table(jump=1.6))
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(np.log(1.6), abs=1e-6)
    assert "1.60 at k = 64, 1.60 at k = 89, 1.60 at k = 128, before training 1.00;" in evidence.summary


def test_c32_other_verdicts():
    assert probes.solutions_turn_dense(effects_table(jump=1.1)).verdict == "partly"  # denser, by less than a jump
    assert probes.solutions_turn_dense(effects_table(jump=0.8)).verdict == "not replicated"
    noise = effects_table()
    noise.loc[noise.sparsity >= 64, "densest"] *= np.array([0.9, 1.0, 1.05]).repeat(3)
    assert probes.solutions_turn_dense(noise).verdict == "void"
    with pytest.raises(NoEvidence, match="three k below"):
        probes.solutions_turn_dense(effects_table().query("sparsity >= 16"))


def test_a_prediction_is_no_density_above_1():
    steep = effects_table().assign(densest=lambda rows: np.minimum(rows.sparsity / 40, 1))
    assert probes.excess_density(steep).predicted.max() == 1


def test_densities_sum_to_l0_and_the_densest_are_averaged():
    sae = TopK(8, 32, 4, generator=torch.Generator().manual_seed(0)).eval()
    x = torch.randn(100, 8, generator=torch.Generator().manual_seed(1))
    recon, active, density = passed(sae, x)
    assert density.sum().item() == pytest.approx(active.float().mean().item())
    torch.testing.assert_close(density, (sae.encode(x) != 0).float().mean(0))
    torch.testing.assert_close(recon, sae(x).recon.detach())
    assert probes.densest(torch.tensor([0.1, 0.5, 0.3, 0.0]), 2) == pytest.approx(0.4)
    assert probes.densest(torch.tensor([0.2, 0.4]), 5) == pytest.approx(0.3)


@pytest.mark.parametrize("preset", ["smoke", "cpu", "gpu", "paper"])
def test_grids_can_answer_their_claims(preset):
    n, ks = probes.DENSE[preset]
    width = {"smoke": 64, "cpu": 128, "gpu": 256, "paper": 768}[preset]
    assert len(probes.effects_runs(preset)) == 3 * len(ks) and n > width
    below, above = [k for k in ks if k < 0.5 * width], [k for k in ks if k >= 0.5 * width]
    assert len(below) >= 3 and above and max(k for k in ks if k <= 0.7 * width) >= 0.68 * width
    if preset != "smoke":
        cells = pd.DataFrame([(run.d_sae, run.sparsity) for run in scaling_runs(preset)], columns=["n", "k"])
        assert (cells.drop_duplicates().groupby("k").n.nunique() >= probes.SIZES).any()
