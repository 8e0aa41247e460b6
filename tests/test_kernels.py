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
    monkeypatch.setitem(kernels.DENSE_BELOW, "cpu", 512 if route == "dense" else 0)
    leaves = inputs(batch, d_in, d_sae, skewed)
    x, rows, bias = leaves
    fast, plain = sparse_decode(topk_encode(x, rows, bias, k), rows), dense(x, rows, bias, k)
    torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(plain)
    for ours, theirs in zip(*(torch.autograd.grad((out * weight).sum(), leaves) for out in (fast, plain)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_sparse_gradients_in_bfloat16_are_near_those_in_float32(monkeypatch):
    monkeypatch.setitem(kernels.DENSE_BELOW, "cpu", 0)
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        leaves = [value.detach().bfloat16().to(dtype).requires_grad_() for value in inputs(16, 8, 40)]
        decoded = sparse_decode(topk_encode(*leaves, 40), leaves[1])  # all: none is chosen otherwise for its rounding
        found.append(torch.autograd.grad(decoded.square().sum(), leaves))
    for narrow, wide in zip(*found, strict=True):
        assert narrow.dtype == torch.bfloat16
        assert (narrow - wide).norm() < 0.05 * wide.norm()


def test_ties_still_give_k_distinct_latents():
    x, rows = torch.ones(3, 2), torch.ones(6, 2)
    indices = topk_encode(x, rows, torch.zeros(6), 4).indices
    assert all(len(set(row.tolist())) == 4 for row in indices)


def test_autocast_chooses_in_bfloat16_and_returns_float32():
    x, rows, bias = (value.detach().float() for value in inputs(32, 16, 64))
    with torch.autocast("cpu", torch.bfloat16):
        values = topk_encode(x, rows, bias, 4).values
    exact = (x @ rows.T + bias).topk(4).values
    assert values.dtype == torch.float32
    assert ((values.sort(descending=True).values - exact).abs().max() / exact.abs().max()) < 0.01


SIZES = [(1, 5, 2), (7, 33, 1), (130, 40, 39), (3, 6, 6), (64, 300, 17), (9, 2048, 16), (5, 2**15, 32), (4, 1037, 9)]


@pytest.mark.parametrize("batch, n, k", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_largest_equals_topk_where_numbers_are_positive(batch, n, k, dtype):
    pre = torch.randn(batch, n, generator=torch.Generator().manual_seed(n)).to(dtype)
    pre[:, ::3] = pre[:, :1]  # ties
    values, indices = kernels.largest(pre, k)
    torch.testing.assert_close(pre.gather(-1, indices), values, rtol=0, atol=0)
    assert all(len(set(row)) == k for row in indices.tolist())
    expected = pre.topk(k, dim=-1).values
    torch.testing.assert_close(values.sort(descending=True).values.relu(), expected.relu(), rtol=0, atol=0)


def test_keep_largest_and_its_gradient():
    pre = torch.tensor([[1.0, -2.0, 3.0], [0.0, 5.0, 4.0]], requires_grad=True)
    kept = kernels.keep_largest(pre, 2)
    assert kept.tolist() == [[1, 0, 3], [0, 5, 4]]
    kept.sum().backward()
    assert pre.grad.tolist() == [[1, 0, 1], [0, 1, 1]]


@pytest.mark.parametrize("batch, n, k", SIZES)
def test_keep_largest_in_bfloat16_keeps_what_topk_keeps(batch, n, k):
    pre = torch.randn(batch, n, generator=torch.Generator().manual_seed(n)).bfloat16()
    pre[0] = -1.0
    kept = kernels.keep_largest(pre, k)
    expected = pre.topk(k, dim=-1).values.relu()
    torch.testing.assert_close(kept.topk(k, dim=-1).values, expected, rtol=0, atol=0)
    assert ((kept == pre) | (kept == 0)).all()
    assert (kept.count_nonzero(-1) <= k).all()


def dense_error_of_some(x, rows, bias, decoder, target, some, k):
    """Its docstring, with every gradient from autograd."""
    pre = x @ rows[some].T + bias
    top = pre.topk(k, dim=-1)
    latents = torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
    return (target - latents @ decoder[some]).square().sum(-1).mean()


@pytest.mark.parametrize("some, k", [([3, 0, 8], 2), ([5], 1), (list(range(11)), 11), ([1, 10, 10], 3)])
def test_error_of_some_equals_dense_autograd(some, k):
    x, rows, bias = inputs(13, 6, 11)
    generator = torch.Generator().manual_seed(3)
    decoder = torch.randn(11, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(13, 5, generator=generator, dtype=torch.float64)
    some = torch.tensor(some)
    ours, theirs = (
        f(x.detach(), rows, bias[some], decoder, target, some, k) for f in (kernels.error_of_some, dense_error_of_some)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    wanted = rows, bias, decoder
    gradients = (torch.autograd.grad(3 * error, wanted) for error in (ours, theirs))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_error_of_some_under_autocast_is_near_that_in_float64():
    x, rows, bias = inputs(256, 32, 300)
    generator = torch.Generator().manual_seed(3)
    decoder = torch.nn.functional.normalize(torch.randn(300, 32, generator=generator, dtype=torch.float64), dim=-1)
    some, wanted = torch.arange(0, 300, 3), (rows, bias, decoder.requires_grad_())
    exact = dense_error_of_some(x, rows, bias[some], decoder, x.detach(), some, 16)
    single = [value.detach().float().requires_grad_() for value in wanted]
    with torch.autocast("cpu", torch.bfloat16):
        x32 = x.detach().float()
        ours = kernels.error_of_some(x32, single[0], single[1][some], single[2], x32, some, 16)
    assert ours.dtype == torch.float32 and ours.item() == pytest.approx(exact.item(), rel=0.01)
    for a, b in zip(torch.autograd.grad(ours, single), torch.autograd.grad(exact, wanted), strict=True):
        assert (a - b).norm() / b.norm() < 0.05


def test_encoding_in_turns_is_encoding_at_once(monkeypatch):
    x, rows, bias = inputs(64, 16, 33)
    at_once = topk_encode(x, rows, bias, 3)
    monkeypatch.setattr(kernels, "ENCODE_ELEMENTS", 33 * 5)
    in_turns = topk_encode(x, rows, bias, 3)
    torch.testing.assert_close(in_turns.values.sort().values, at_once.values.sort().values)
    torch.testing.assert_close(in_turns.indices.sort().values, at_once.indices.sort().values)


def test_a_smaller_choice_and_who_fired():
    x, rows = torch.tensor([[3.0, 1.0], [-1.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, -1.0]])
    chosen = topk_encode(x, rows, torch.zeros(4), 3)  # pre: [3, 1, 4, -4] and [-1, 2, 1, -1]
    assert chosen.fired().tolist() == [True, True, True, False]
    best = chosen.largest(1)
    assert best.indices.tolist() == [[2], [1]] and best.values.tolist() == [[4], [2]]
    assert best.fired().tolist() == [False, True, True, False]


@pytest.mark.parametrize("unit", [False, True])
def test_adam_on_rows_equals_torch(unit):
    g = torch.Generator().manual_seed(0)
    weight = torch.nn.functional.normalize(torch.randn(6, 5, dtype=torch.float64, generator=g), dim=-1)
    theirs = torch.nn.Parameter(weight.clone())
    optimiser = torch.optim.Adam([theirs], lr=0.1, betas=(0.8, 0.9), eps=1e-3)
    mean, square, shadow = torch.zeros_like(weight), torch.zeros_like(weight), torch.zeros(6, 5, dtype=torch.bfloat16)
    for t in range(1, 4):
        grad = torch.randn(6, 5, dtype=torch.float64, generator=g)
        theirs.grad = grad - (grad * theirs).sum(-1, keepdim=True) * theirs.detach() if unit else grad.clone()
        optimiser.step()
        if unit:
            theirs.data = torch.nn.functional.normalize(theirs.data, dim=-1)
        scalars = torch.tensor([0.1, 1 - 0.8**t, 1 - 0.9**t], dtype=torch.float64)
        kernels.adam_rows_(
            weight, grad, mean, square, scalars, beta1=0.8, beta2=0.9, eps=1e-3, unit_rows=unit, shadow=shadow
        )
    torch.testing.assert_close(weight, theirs.data, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(shadow, weight.bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 7, 60, 200, 600])
def test_the_largest_of_a_batch_are_topk_of_all_its_numbers(dtype, count):
    active = torch.randn(20, 30, generator=torch.Generator().manual_seed(1)).relu().to(dtype)
    active[:, ::5] = active[:1, :1].abs() + 0.5  # ties
    kept = kernels.keep_largest_of_batch(active, count)
    expected = active.flatten().topk(count).values
    assert kept.count_nonzero() == expected.count_nonzero()
    torch.testing.assert_close(kept.flatten().sort(descending=True).values[:count], expected, rtol=0, atol=0)
    assert ((kept == active) | (kept == 0)).all()
