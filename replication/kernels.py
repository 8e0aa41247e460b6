"""Sparse pieces of a training step: the k selected latents of a token touch k rows of the weights, not all of them.

Weights are passed latent-major, `(d_sae, d_in)`, so that one latent is one contiguous row. Each function equals the
dense autograd expression in its docstring; the tests hold it to that. Gradients take one of two routes, whichever is
faster at the size: gather and add the k rows of each token, or scatter into a dense matrix and multiply.
"""

import torch
from torch.nn.functional import embedding_bag

from replication.shapes import Float, Int, Tensor

DENSE_BELOW = 512
"""Up to this many latents per selected one the dense route is the faster one (measured on a CPU with bf16 products)."""


def _rows_gradient(indices: Tensor, weights: Tensor, rows: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    """sum over tokens b and slots j of weights[b, j] * rows[b], added to row indices[b, j] of an (n, d) zero matrix."""
    if n <= DENSE_BELOW * weights.shape[1]:
        scattered = torch.zeros(
            n, len(rows), dtype=dtype, device=rows.device
        )  # latent-major: the product needs no copy
        scattered[indices, torch.arange(len(rows), device=rows.device).unsqueeze(-1)] = weights.to(dtype)
        return (scattered @ rows.to(dtype)).to(rows.dtype)
    contributions = (weights.unsqueeze(-1) * rows.unsqueeze(1)).flatten(0, 1)
    return rows.new_zeros(n, rows.shape[1]).index_add_(0, indices.flatten(), contributions)


def _products(x: Tensor, rows: Tensor, indices: Tensor, dtype: torch.dtype) -> Tensor:
    """x[b] . rows[indices[b, j]] for every token b and slot j."""
    if len(rows) <= DENSE_BELOW * indices.shape[1]:
        return (x.to(dtype) @ rows.to(dtype).T).gather(1, indices).to(x.dtype)
    return torch.bmm(rows[indices], x.unsqueeze(-1)).squeeze(-1)


def _matmul_dtype(x: Tensor) -> torch.dtype:
    """The precision autocast prescribes for products here, else that of x."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class _SparseDecode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, indices, rows):
        ctx.save_for_backward(values, indices, rows)
        ctx.dtype = _matmul_dtype(values)
        return embedding_bag(indices, rows, per_sample_weights=values, mode="sum")

    @staticmethod
    def backward(ctx, grad):
        values, indices, rows = ctx.saved_tensors
        grad_rows = _rows_gradient(indices, values, grad, len(rows), ctx.dtype)
        return _products(grad, rows, indices, ctx.dtype), None, grad_rows


class _TopKEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rows, bias, k):
        ctx.dtype = _matmul_dtype(x)
        with torch.autocast(x.device.type, enabled=False):  # autocast would copy the pre-activations back to float32
            pre = torch.addmm(bias.to(ctx.dtype), x.to(ctx.dtype), rows.T.to(ctx.dtype))
            values, indices = pre.topk(k, dim=-1, sorted=False)
        ctx.save_for_backward(x, rows, indices)
        ctx.mark_non_differentiable(indices)
        return values.to(x.dtype), indices

    @staticmethod
    def backward(ctx, grad, _):
        x, rows, indices = ctx.saved_tensors
        grad_x = embedding_bag(indices, rows, per_sample_weights=grad, mode="sum") if ctx.needs_input_grad[0] else None
        grad_bias = grad.new_zeros(len(rows)).index_add_(0, indices.flatten(), grad.flatten())
        return grad_x, _rows_gradient(indices, grad, x, len(rows), ctx.dtype), grad_bias, None


def sparse_decode(
    values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"], rows: Float[Tensor, "d_sae d_in"]
) -> Float[Tensor, "batch d_in"]:
    """Decode k latents per token: sum_j values[b, j] * rows[indices[b, j]], equal to `scatter(values) @ rows`."""
    return _SparseDecode.apply(values, indices, rows)


def topk_encode(
    x: Float[Tensor, "batch d_in"], rows: Float[Tensor, "d_sae d_in"], bias: Float[Tensor, " d_sae"], k: int
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """The k largest of `x @ rows.T + bias` per token, with their indices, in no particular order.

    Under autocast the product, the choice of latents and the dense gradients are made in its precision; values and
    gradients come back in the precision of `x`.
    """
    return _TopKEncode.apply(x, rows, bias, k)
