"""The sparse path against dense autograd in float64, on random and on skewed inputs, at odd shapes."""

import pytest
import torch

from replication import kernels
from replication.kernels import sparse_decode, topk_encode

SHAPES = [(7, 5, 11, 3), (1, 3, 4, 1), (5, 4, 6, 6), (64, 16, 33, 2)]  # batch, d_in, d_sae, k


def inputs(batch, d_in, d_sae, skewed=False):
    g = torch.Generator().manual_seed(batch + d_sae)
    x, rows, bias = (
        torch.randn(*shape, dtype=torch.float64, generator=g) for shape in ((batch, d_in), (d_sae, d_in), (d_sae,))
    )
    if skewed:  # one latent wins on every token, another never
        bias[0], bias[-1] = 100.0, -100.0
    return x.requires_grad_(), rows.requires_grad_(), bias.requires_grad_()


def dense(x, rows, bias, k):
    pre = x @ rows.T + bias
    top = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values) @ rows


@pytest.mark.parametrize("route", ["dense", "gather"])
@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("batch, d_in, d_sae, k", SHAPES)
def test_values_and_gradients_equal_dense_autograd(batch, d_in, d_sae, k, skewed, route, monkeypatch):
    monkeypatch.setattr(kernels, "DENSE_BELOW", 512 if route == "dense" else 0)
    leaves = inputs(batch, d_in, d_sae, skewed)
    x, rows, bias = leaves
    values, indices = topk_encode(x, rows, bias, k)
    fast, plain = sparse_decode(values, indices, rows), dense(x, rows, bias, k)
    torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(plain)
    for ours, theirs in zip(*(torch.autograd.grad((out * weight).sum(), leaves) for out in (fast, plain)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_ties_still_give_k_distinct_latents():
    x, rows = torch.ones(3, 2), torch.ones(6, 2)
    _, indices = topk_encode(x, rows, torch.zeros(6), 4)
    assert all(len(set(row.tolist())) == 4 for row in indices)


def test_autocast_chooses_in_bfloat16_and_returns_float32():
    x, rows, bias = (value.detach().float() for value in inputs(32, 16, 64))
    with torch.autocast("cpu", torch.bfloat16):
        values, _ = topk_encode(x, rows, bias, 4)
    exact = (x @ rows.T + bias).topk(4).values
    assert values.dtype == torch.float32
    assert ((values.sort(descending=True).values - exact).abs().max() / exact.abs().max()) < 0.01
