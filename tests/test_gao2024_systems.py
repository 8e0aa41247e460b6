"""Departures of the released code by hand, selection over shards by hand, verdicts on known tables."""

import pandas as pd
import pytest
import torch

from replication import store, train
from replication.activations import Gaussian
from replication.claims import NoEvidence
from replication.kernels import DENSE_BELOW
from replication.papers.gao2024 import systems
from replication.papers.gao2024.variants import Averaged, Dense, ReleasedAuxK, varied
from replication.sae.topk import TopK
from replication.train import Run

RUN = Run(Gaussian(8), "topk", d_sae=16, sparsity=2, tokens=1024, batch=64, lr=3e-3, dead_after=10**6)
X = torch.randn(256, 8, generator=torch.Generator().manual_seed(1)) + 1
NONE = torch.empty(0, dtype=torch.int64)


def as_kind(kind: type[TopK], like: TopK) -> TopK:
    one = kind(**like.config())
    one.load_state_dict(like.state_dict())
    return one


def gradients(one: TopK, dead: torch.Tensor) -> dict:
    objective = one.objective(X, dead)
    objective.loss.backward()
    return {"loss": objective.loss.detach()} | {name: w.grad for name, w in one.named_parameters()}


@pytest.fixture
def model() -> TopK:
    one = RUN.build()
    one.initialise(X)
    return one


def test_two_errors_by_hand():
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    found = systems.two_errors(x, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))  # the mean of x
    assert found == pytest.approx({"centred": 1, "readme": 0.5, "readme_mean": 0.5, "constant": 0.5})
    half = systems.two_errors(x, torch.tensor([[1.0, 0.5], [1.0, -0.5]]))
    assert half["centred"] == pytest.approx(0.25) and half["readme"] == pytest.approx(0.25 * (1 - half["constant"]))


def error_table() -> pd.DataFrame:
    columns = [f"{f}{s}{p}" for f in ("centred", "readme", "readme_mean") for s in ("", "_raw") for p in ("", "_later")]
    return pd.DataFrame([{"seed": 0} | {name: i for i, name in enumerate(columns)}])


def test_long_errors_has_a_line_per_formula_activations_and_positions():
    table = systems.long_errors(error_table())
    assert len(table) == 8
    raw = table.query("activations == 'raw' and positions == 'without the first'").set_index("formula")
    assert raw.value.to_dict() == {"centred": 3, "readme": 7}
    assert raw.mean_predictor.to_dict() == {"centred": 1, "readme": 11}


def test_the_released_auxk_pulls_the_bias_while_nothing_is_dead(model):
    plain, added = systems.bias_gradients(model, X)
    with torch.no_grad():
        e = X - model(X).recon
    spread = (e - e.mean(0)).square().sum(-1).mean()
    torch.testing.assert_close(added, -2 / 32 * e.mean(0) / spread, rtol=1e-4, atol=1e-6)
    assert plain.norm() > 0 and added.norm() > 0
    ours, released = (gradients(as_kind(kind, model), NONE) for kind in (TopK, ReleasedAuxK))
    constant = e.square().sum(-1).mean() / spread  # |e|^2 / Var(e), times 1/32
    torch.testing.assert_close(released["loss"], ours["loss"] + constant / 32)
    for name in ("W_enc", "b_enc", "W_dec"):
        torch.testing.assert_close(released[name], ours[name])


def test_with_dead_latents_the_released_auxk_differs_in_the_bias_alone(model):
    dead = torch.tensor([1, 4, 5, 16, 16])  # the last two are padding
    ours, released = (gradients(as_kind(kind, model), dead) for kind in (TopK, ReleasedAuxK))
    for name in ("loss", "W_enc", "b_enc", "W_dec"):
        torch.testing.assert_close(released[name], ours[name], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(released["b_dec"], ours["b_dec"], rtol=1e-2)


@pytest.mark.parametrize("dead", [NONE, torch.tensor([1, 4, 5])])
def test_dense_products_give_the_same_step(model, dead):
    ours, dense = (gradients(as_kind(kind, model), dead) for kind in (TopK, Dense))
    for name in ours:
        torch.testing.assert_close(dense[name], ours[name], rtol=1e-4, atol=1e-6)


def test_renormalised_first_ends_off_the_sphere():
    run = varied(RUN, "renormalised-first")
    one = run.build()
    one.initialise(X)
    with torch.no_grad():
        one.W_dec.mul_(1.5)
    one.objective(X, NONE).loss.backward()
    torch.testing.assert_close(one.W_dec.norm(dim=-1), torch.ones(16))
    torch.testing.assert_close((one.W_dec * one.W_dec.grad).sum(-1), torch.zeros(16), atol=1e-6, rtol=0)
    [after], [ours] = train.train([run]), train.train([RUN])
    assert systems.norm_error(ours.sae) < 1e-6 < 1e-4 < systems.norm_error(after.sae) < 0.1


def test_averages_in_both_orders_by_hand():
    one = varied(RUN, "averaged").build()
    assert isinstance(one, Averaged)
    with torch.no_grad():
        one.b_dec.fill_(5)
    one.initialise(torch.full((4, 8), 5.0))  # w_0 = 5
    for value in (1.0, 3.0):
        with torch.no_grad():
            one.b_dec.fill_(value)
        one.clamp_parameters()
    after, before = (one.averaged(order, 0.9, 2).b_dec[0].item() for order in ("after", "before"))
    assert after == pytest.approx((0.09 * 1 + 0.1 * 3) / 0.19)
    assert before == pytest.approx((0.09 * 5 + 0.1 * 1) / 0.19)


def test_averages_leave_the_run_as_it_is():
    [watched], [plain] = train.train([varied(RUN, "averaged")]), train.train([RUN])
    torch.testing.assert_close(watched.sae(X), plain.sae(X), rtol=0, atol=0)
    [(_, row)] = systems.measure_averages([varied(RUN, "averaged")])
    assert row["decay"] == [0.9, 0.99, 0.999] and all(0 < short < 1 for short in row["short"])
    changes = systems.average_changes(pd.DataFrame([{"seed": 0} | row]))
    assert changes.gain.tolist() == pytest.approx([a / row["nmse"] - 1 for a in row["nmse_after"]])


def average_table() -> pd.DataFrame:
    lists = {"decay": [0.9, 0.99], "nmse_after": [0.18, 0.19], "nmse_before": [0.19, 0.21], "nmse_short": [0.2, 0.25]}
    return pd.DataFrame([{"seed": seed, "nmse": 0.2, "short": [0.01, 0.05]} | lists for seed in range(2)])


def test_average_changes_by_hand():
    first = systems.average_changes(average_table()).iloc[0]
    assert first.to_dict() == pytest.approx(
        {"decay": 0.9, "short": 0.01, "seed": 0, "gain": -0.1, "lag": 0.05, "norms": 0.05}
    )


def departure_table() -> pd.DataFrame:
    changes = [None, None, "nudged", "nudged"]
    return pd.DataFrame({"seed": [0, 1, 0, 1], "change": changes, "nmse": [0.2, 0.4, 0.3, 0.4]})


def test_departures_are_relative_to_the_same_seed():
    assert systems.departures(departure_table()).change.tolist() == pytest.approx([0.5, 0])


def test_candidates_and_selection_by_hand():
    assert [systems.candidates(k, s, c) for k, s, c in ((32, 8, 4), (4, 8, 2), (4, 2, 4))] == [16, 1, 4]
    pre = torch.tensor([[9.0, 8.0, 7.0, 1.0, 5.0, 4.0, 3.0, 2.0]])
    assert systems.sharded_topk(pre, 4, 2, 1).nonzero()[:, 1].tolist() == [0, 1, 4, 5]  # 7 finds no room
    assert systems.sharded_topk(pre, 4, 2, 2).nonzero()[:, 1].tolist() == [0, 1, 2, 4]
    with pytest.raises(ValueError, match="capacity=1 lets 8 shards offer 0 latents, fewer than k=4"):
        systems.sharded_topk(pre, 4, 8, 1)


def test_expected_share_by_hand_and_by_simulation():
    assert systems.expected_found(4, 2, 2, 1) == pytest.approx(5 / 6)  # both winners on one shard: 1 in 3, one is lost
    assert systems.expected_found(64, 8, 2, 2) == pytest.approx(1)
    pre = torch.rand(4000, 64, generator=torch.Generator().manual_seed(0))
    exact = torch.zeros_like(pre, dtype=torch.bool).scatter_(-1, pre.topk(8, dim=-1).indices, True)
    found = (systems.sharded_topk(pre, 8, 4, 1) & exact).sum() / exact.sum()
    assert found.item() == pytest.approx(systems.expected_found(64, 8, 4, 1), abs=0.01)


def test_multiplications_of_a_step():
    assert systems.product_ratio(64, 1000, 10) == pytest.approx(6 / 1.05)


def test_measured_rows_have_what_claims_and_figures_read(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CACHE", tmp_path)
    [(_, speed)] = systems.measure_speed([RUN])
    assert speed["ratio_low"] <= speed["ratio"] <= speed["ratio_high"] and speed["ms_dense"] > 0
    [(_, row)] = systems.measure_sharding([RUN])
    table = systems.long_sharding(pd.DataFrame([{"seed": 0, "sparsity": 2, "d_sae": 16} | row]))
    assert set(table[table.capacity == 4].shards) == {2, 4, 8}
    assert table[table.capacity * table.k / table.shards >= table.k].found.eq(1).all()
    [(_, row)] = systems.measure_departures([varied(RUN, "released-auxk")])
    assert row["pull"] > 0 and row["norm_error"] < 1e-6


@pytest.mark.parametrize("preset", ["smoke", "cpu", "gpu", "paper"])
def test_c34_is_timed_where_the_library_itself_takes_the_sparse_route(preset):
    runs = systems.SPEED_UP.runs(preset)
    assert runs and all(run.d_sae > DENSE_BELOW["cuda"] * run.sparsity for run in runs)


def speeds(ratios, spread=0.01) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"seed": seed, "d_sae": n, "sparsity": 4, "ratio": ratio + spread * seed, "device": "toy"}
            | {"ratio_of_products": 5.9}
            for seed in range(3)
            for n, ratio in zip((1000, 4000), ratios, strict=True)
        ]
    )


def test_c34_bounds_the_ratio_at_every_size():
    evidence = systems.sparse_kernels_are_faster(speeds((2.0, 4.0)))
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(3.01)
    assert systems.sparse_kernels_are_faster(speeds((1.2, 4.0))).verdict == "partly"
    assert systems.sparse_kernels_are_faster(speeds((1.2, 1.3))).verdict == "not replicated"
    assert systems.sparse_kernels_are_faster(speeds((7.0, 8.0))).verdict == "not replicated"
    assert systems.sparse_kernels_are_faster(speeds((1.6, 1.6), spread=0.4)).verdict == "partly"
    with pytest.raises(NoEvidence, match="1/100"):
        systems.sparse_kernels_are_faster(speeds((2.0, 4.0)).assign(d_sae=100))


def shards(found: dict) -> pd.DataFrame:
    """Capacity -> share found, over two numbers of shards and both orders; capacity 1 is no part of the rule."""
    entries = [
        (s, c, o, share) for c, share in ({1: 0.1} | found).items() for s in (2, 8) for o in ("stored", "shuffled")
    ]
    lists = {
        name: list(column)
        for name, column in zip(("shards", "capacity", "order", "found"), zip(*entries, strict=True), strict=True)
    }
    lists |= {"expected": lists["found"], "rise": [0.0] * len(entries)}
    return pd.DataFrame([{"seed": seed, "sparsity": 8, "d_sae": 64} | lists for seed in range(3)])


def test_c35_counts_every_setting_of_the_rule():
    evidence = systems.shards_find_the_top_k(shards({2: 0.9995, 4: 1.0}))
    assert evidence.verdict == "replicated" and evidence.ours == pytest.approx(0.9995)
    partly = systems.shards_find_the_top_k(shards({2: 0.9, 4: 1.0}))
    assert partly.verdict == "partly" and partly.ours == pytest.approx(0.9) and "2 of 4 settings" in partly.summary
    assert systems.shards_find_the_top_k(shards({2: 0.9, 4: 0.95})).verdict == "not replicated"
    with pytest.raises(NoEvidence, match="capacity"):
        systems.shards_find_the_top_k(shards({}))
