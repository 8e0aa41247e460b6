"""Pieces of a training step, gradients by hand: the k selected latents of a token touch k rows of the weights, not all
of them, and what must look at every latent looks once.

Weights are passed latent-major, `(d_sae, d_in)`, so that one latent is one contiguous row. Each function equals the
dense autograd expression in its docstring; the tests hold it to that. This module is the reference in plain torch and
the choice of route: on a GPU with Triton the kernels of `triton_kernels` do the same work.
"""

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from replication.shapes import Bool, Float, Int, Tensor

DENSE_BELOW = {"cpu": 12, "cuda": 512}
"""Up to this many latents per selected one, gradients of the weights are products with a scattered dense matrix
(measured on a CPU with bf16 products; on an H200 the sparse kernels win from 600 to 900 at a batch of 4,096)."""
ENCODE_ELEMENTS = 2**29
"""Pre-activations held at once: the tokens of a batch are encoded in turns where there would be more."""
PARTITIONED = 512
"""Rows up to this length are partitioned by numpy's sorting networks; longer ones cost it several times as much."""


class Selected(NamedTuple):
    """The latents a token keeps, in no particular order."""

    values: Tensor
    """(batch, k) pre-activations."""
    indices: Tensor
    """(batch, k) int64 latents, distinct for each token."""
    tokens_of: "TokensOf"
    """The same choice seen from the latents; both gradients share it."""

    def largest(self, k: int) -> "Selected":
        """The k largest among those kept."""
        values, slots = self.values.topk(k, dim=-1, sorted=False)
        indices = self.indices.gather(-1, slots)
        return Selected(values, indices, TokensOf(indices, self.tokens_of.n))

    def fired(self) -> Tensor:
        """(d_sae,) bool: the latent has a positive value on some token."""
        n = self.tokens_of.n
        kept = torch.where(self.values > 0, self.indices, n).flatten()  # no boolean index: it would wait for the GPU
        return torch.zeros(n + 1, dtype=torch.bool, device=kept.device).index_fill_(0, kept, True)[:-1]


class TokensOf:
    """For each latent, the tokens that chose it: found by one sort when first needed, then shared by both gradients."""

    def __init__(self, indices: Tensor, n: int):
        self.indices, self.n = indices, n

    @cached_property
    def groups(self):
        """What the Triton kernels make of it."""
        return _triton().group_by_latent(self.indices, self.n)

    @cached_property
    def bags(self) -> tuple[Tensor, Tensor, Tensor]:
        """The slots, as positions in the flattened (batch, k), sorted by latent; their tokens; where each latent's
        begin."""
        latents = self.indices.flatten()
        if latents.is_cuda:
            latents, slots = latents.sort(stable=True)
            begin = torch.searchsorted(latents, torch.arange(self.n, device=latents.device))
        else:  # numpy sorts 16-bit integers by radix, eight times as fast as torch
            narrow = np.uint16 if self.n <= 2**16 else np.int32
            slots = torch.from_numpy(np.argsort(latents.numpy().astype(narrow), kind="stable"))
            counts = torch.bincount(latents, minlength=self.n)
            begin = counts.cumsum(0) - counts
        return slots, slots // self.indices.shape[1], begin


@cache
def _triton():
    """The module of Triton kernels, or None where Triton is not installed."""
    if importlib.util.find_spec("triton") is None:
        return None
    from replication import triton_kernels

    return triton_kernels


def uses_triton(x: Tensor) -> bool:
    """Whether the Triton kernels do the work for a tensor of this device."""
    return x.is_cuda and _triton() is not None


def _group_size(n: int, k: int) -> int:
    """The largest power of two up to sqrt(n / k) that divides n: about as many groups as candidates are left."""
    return math.gcd(1 << int(math.log2(n / k) / 2), n)


def _keys(bits: Int[Tensor, "batch n"]) -> Int[Tensor, "batch n"]:
    """int32 numbers, distinct in each row, in the order of 16-bit ones: the place in the row fills the lower half."""
    return torch.add(torch.arange(bits.shape[-1], dtype=torch.int32), bits, alpha=2**16)


def _largest_bits(bits: Int[Tensor, "batch n"], k: int) -> Int[Tensor, "batch k"]:
    """Places of the k largest of each row of 16-bit integers.

    numpy's partition is fast where a row fits a sorting network. Of longer rows only the maxima of groups are searched
    and the members of the k groups with the largest: they hold the k largest numbers.
    """
    n = bits.shape[-1]
    if n <= PARTITIONED:
        keys = _keys(bits)
        keys.numpy().partition(n - k)
        return (keys[:, n - k :] & 0xFFFF).long()
    size = _group_size(n, k)
    if size == 1:
        return bits.topk(k, dim=-1, sorted=False).indices
    groups = _largest_bits(bits.view(-1, size, n // size).amax(1), k)
    members = (groups.unsqueeze(1) + torch.arange(0, n, n // size).view(1, -1, 1)).flatten(1)
    return members.gather(1, _largest_bits(bits.gather(1, members), k))


def _has_fast_bits(pre: Tensor) -> bool:
    return pre.dtype == torch.bfloat16 and not pre.is_cuda


def largest(pre: Float[Tensor, "batch n"], k: int) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Values and indices of the k largest of each row, in no particular order.

    On a CPU in bfloat16, where the bits of positive numbers compare as integers do, a row with fewer than k of those
    gets them and any of the others: the ReLU that follows makes these 0. Everywhere else the choice is `torch.topk`'s.
    """
    if uses_triton(pre):
        return _triton().topk(pre, k)
    if _has_fast_bits(pre):
        indices = _largest_bits(pre.detach().view(torch.int16), k)
        return pre.gather(-1, indices), indices
    return pre.topk(k, dim=-1, sorted=False)


def keep_largest(pre: Float[Tensor, "batch n"], k: int) -> Float[Tensor, "batch n"]:
    """ReLU(pre) with all but the k largest of each row set to 0, chosen as in `largest`."""
    return pre.relu() * _marked(pre.detach(), k)


def _marked(pre: Float[Tensor, "batch n"], k: int) -> Float[Tensor, "batch n"]:
    """1 where a number is positive and one of the k largest of its row, else 0."""
    n = pre.shape[-1]
    if _has_fast_bits(pre) and n <= PARTITIONED:
        keys = _keys(pre.view(torch.int16))
        least = torch.from_numpy(np.partition(keys.numpy(), n - k)[:, n - k, None])
        return torch.ge(keys, least.clamp(min=2**16), out=torch.empty_like(pre))  # without a mask of bools: 8 x as fast
    values, indices = largest(pre, k)
    return torch.zeros_like(pre).scatter_(-1, indices, (values > 0).to(pre.dtype))


def keep_largest_of_batch(active: Float[Tensor, "batch n"], count: int) -> Float[Tensor, "batch n"]:
    """`active`, which has no negative numbers, with all but the `count` largest of the whole batch set to 0.

    Which of equal numbers are kept is not fixed. Numbers from 0 up compare as the integers of their bits do: on a CPU
    the smallest one to keep is found by counting how often each pattern of 16 bits occurs, or, in float32, by numpy's
    partition.
    """
    flat = active.detach().flatten()
    if flat.is_cuda or flat.element_size() > 4:
        kept = torch.zeros_like(flat).index_fill_(0, flat.topk(count, sorted=False).indices, 1)
        return active * kept.view_as(active)
    if flat.element_size() == 2:
        bits = flat.view(torch.int16)
        at_least = torch.bincount(bits.clamp(min=0), minlength=2**15).flip(0).cumsum(0)
        least = 2**15 - 1 - int(torch.searchsorted(at_least, count))
    else:
        bits = flat.view(torch.int32)
        least = int(np.partition(bits.numpy(), len(bits) - count)[len(bits) - count])
    kept = torch.ge(bits, max(least, 1), out=torch.empty_like(flat))
    if least > 0 and (surplus := np.count_nonzero(bits.numpy() >= least) - count):
        kept[torch.from_numpy(np.flatnonzero(bits.numpy() == least)[-surplus:])] = 0
    return active * kept.view_as(active)


def _densely(tokens_of: TokensOf) -> bool:
    """Whether a product with a dense matrix is faster than sums over the tokens of each latent."""
    return tokens_of.n <= DENSE_BELOW[tokens_of.indices.device.type] * tokens_of.indices.shape[1]


def _by_triton(tokens_of: TokensOf, source: Tensor) -> bool:
    """Whether sums over the tokens of each latent are the Triton kernels' work: where there are many latents."""
    return uses_triton(source) and not _densely(tokens_of)


def _rows_gradient(tokens_of: TokensOf, weights: Tensor, source: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum over tokens b and slots j of weights[b, j] * source[b] in row indices[b, j] of an (n, d) matrix."""
    n, indices = tokens_of.n, tokens_of.indices
    if _by_triton(tokens_of, source):
        return _triton().rows_gradient(tokens_of.groups, weights, source, n)
    if _densely(tokens_of):
        scattered = torch.zeros(
            n, len(source), dtype=dtype, device=source.device
        )  # latent-major: no copy before the mm
        scattered[indices, torch.arange(len(source), device=source.device).unsqueeze(-1)] = weights.to(dtype)
        return (scattered @ source.to(dtype)).to(source.dtype)
    slots, tokens, begin = tokens_of.bags
    return embedding_bag(tokens, source, begin, per_sample_weights=weights.take(slots), mode="sum")


def _products(x: Tensor, rows: Tensor, tokens_of: TokensOf, dtype: torch.dtype) -> Tensor:
    """x[b] . rows[indices[b, j]] for every token b and slot j."""
    indices = tokens_of.indices
    if uses_triton(x):
        return _triton().products(x, rows, indices)
    if _densely(tokens_of):
        return (x.to(dtype) @ rows.to(dtype).T).gather(1, indices).to(x.dtype)
    _silence_sparse_beta()
    wide = torch.promote_types(x.dtype, torch.float32)  # the least that `sampled_addmm` takes
    begin = torch.arange(0, indices.numel() + 1, indices.shape[1], device=x.device)
    zeros = torch.zeros(indices.numel(), dtype=wide, device=x.device)
    wanted = torch.sparse_csr_tensor(begin, indices.flatten(), zeros, (len(x), len(rows)), check_invariants=False)
    return torch.sparse.sampled_addmm(wanted, x.to(wide), rows.to(wide).T).values().view_as(indices).to(x.dtype)


@cache
def _silence_sparse_beta() -> None:
    """Torch says once in a process that its sparse tensors are in beta: here, so that no reader sees it. The tests hold
    the one use."""
    with warnings.catch_warnings(action="ignore"):
        torch.sparse_csr_tensor([0, 1], [0], [0.0], (1, 1), check_invariants=False)


def _combine(values: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """sum_j values[b, j] * rows[indices[b, j]]."""
    if uses_triton(values):
        return _triton().decode(values, indices, rows)
    return embedding_bag(indices, rows, per_sample_weights=values, mode="sum")


def _matmul_dtype(x: Tensor) -> torch.dtype:
    """The precision autocast prescribes for products here, else that of x."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class _SparseDecode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, rows, indices, tokens_of):
        ctx.save_for_backward(values, rows)
        ctx.tokens_of, ctx.dtype = tokens_of, _matmul_dtype(values)
        return _combine(values, indices, rows)

    @staticmethod
    def backward(ctx, grad):
        values, rows = ctx.saved_tensors
        grad_rows = _rows_gradient(ctx.tokens_of, values, grad, ctx.dtype)
        return _products(grad, rows, ctx.tokens_of, ctx.dtype), grad_rows, None, None


class _TopKEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rows, bias, k, shadow):
        dtype = _matmul_dtype(x)
        weight, offset = (rows.to(dtype) if shadow is None else shadow).T, bias.to(dtype)
        turns = x.to(dtype).split(max(1, ENCODE_ELEMENTS // len(rows)))
        with torch.autocast(x.device.type, enabled=False):  # autocast would copy the pre-activations back to float32
            chosen = [largest(torch.addmm(offset, some, weight), k) for some in turns]
        values, indices = (torch.cat(part) if len(part) > 1 else part[0] for part in zip(*chosen, strict=True))
        ctx.save_for_backward(x, rows)
        ctx.tokens_of, ctx.dtype = TokensOf(indices, len(rows)), dtype
        ctx.mark_non_differentiable(indices)
        return values.to(x.dtype), indices, ctx.tokens_of

    @staticmethod
    def backward(ctx, grad, *_):
        x, rows = ctx.saved_tensors
        indices = ctx.tokens_of.indices
        grad_x = _combine(grad, indices, rows) if ctx.needs_input_grad[0] else None
        if _by_triton(ctx.tokens_of, x):
            grad_rows, grad_bias = _triton().rows_and_bias_gradient(ctx.tokens_of.groups, grad, x, len(rows))
        else:
            grad_rows = _rows_gradient(ctx.tokens_of, grad, x, ctx.dtype)
            grad_bias = grad.new_zeros(len(rows)).index_add_(0, indices.flatten(), grad.flatten())
        return grad_x, grad_rows, grad_bias, None, None


class _ErrorOfSome(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rows, bias, decoder, target, some, k):
        ctx.dtype, ctx.shapes = _matmul_dtype(x), (rows.shape, decoder.shape)
        weight, atoms = rows.index_select(0, some), decoder.index_select(0, some)
        x, weight, atoms = (part.to(ctx.dtype) for part in (x, weight, atoms))
        with torch.autocast(x.device.type, enabled=False):
            pre = torch.addmm(bias.to(ctx.dtype), x, weight.T)
            marks = _marked(pre, k)
            latents = pre.relu_().mul_(marks)
            difference = latents @ atoms - target
        ctx.save_for_backward(x, atoms, marks, latents, difference, some)
        return difference.square().sum(-1).mean()

    @staticmethod
    def backward(ctx, grad):
        x, atoms, marks, latents, difference, some = ctx.saved_tensors
        grad_recon = (difference * (grad * (2 / len(x)))).to(ctx.dtype)
        grad_pre = (grad_recon @ atoms.T).mul_(marks)
        compact = grad_pre.T @ x, latents.T @ grad_recon
        grad_rows, grad_decoder = (
            difference.new_zeros(shape).index_add_(0, some, part.to(difference.dtype))
            for shape, part in zip(ctx.shapes, compact, strict=True)
        )
        return None, grad_rows, grad_pre.sum(0, dtype=difference.dtype), grad_decoder, None, None, None


def error_of_some(
    x: Float[Tensor, "batch d_in"],
    rows: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " some"],
    decoder: Float[Tensor, "d_sae d_out"],
    target: Float[Tensor, "batch d_out"],
    some: Int[Tensor, " some"],
    k: int,
) -> Float[Tensor, ""]:
    """E|target - keep_largest(x @ rows[some].T + bias, k) @ decoder[some]|^2, a mean over tokens.

    Few latents are asked: products with a compact, dense set of them are faster than anything sparse. `some` may name a
    latent more than once. `x` and `target` get no gradient.
    """
    return _ErrorOfSome.apply(x, rows, bias, decoder, target, some, k)


TURN_ELEMENTS = 2**17
"""Latents passed over at once on a CPU: what is made of them stays in its cache, and in memory that is used again."""


def in_turns(*matrices: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of matrices (batch, n) of one shape, a few tokens at a time; on a GPU all at once."""
    batch, n = matrices[0].shape
    tokens = batch if matrices[0].is_cuda else max(1, TURN_ELEMENTS // n)
    return zip(*(matrix.split(tokens) for matrix in matrices), strict=True)


KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "rectangle": lambda u: torch.lt(u.abs(), 0.5, out=torch.empty_like(u)),  # without a mask of bools
    "triangle": lambda u: (1 - u.abs()).relu(),
    "gaussian": lambda u: (-u.square() / 2).exp() / math.sqrt(2 * math.pi),
    "epanechnikov": lambda u: 0.75 * (1 - u.square()).relu(),
}
"""Symmetric and of integral 1. Variances: 1/12, 1/6, 1, 1/5; equal bandwidths are not equal windows."""


def _jumprelu_forward(pre: Tensor, theta: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if uses_triton(pre):
        return _triton().jumprelu_forward(pre, theta, dtype)
    latents, tokens = torch.empty_like(pre, dtype=dtype), torch.zeros_like(theta)
    for p, out in in_turns(pre, latents):
        active = torch.gt(p, theta, out=torch.empty_like(p))
        tokens += active.sum(0)
        out.copy_(active.mul_(p))  # a product: NaN stays NaN
    return latents, tokens.long()


def _jumprelu_backward(
    pre: Tensor,
    theta: Tensor,
    grad: Tensor,
    l0_grad: Tensor,
    bandwidth: float,
    kernel: str,
    ste_into_pre: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    if uses_triton(pre):
        return _triton().jumprelu_backward(pre, theta, grad, l0_grad, bandwidth, kernel, ste_into_pre, dtype)
    grad_pre = torch.empty_like(pre, dtype=dtype)
    from_latents, from_l0 = torch.zeros_like(theta), torch.zeros_like(theta)
    for p, g, out in in_turns(pre, grad, grad_pre):
        g = g.to(p.dtype)
        near = KERNELS[kernel]((p - theta).div_(bandwidth)).div_(bandwidth)
        through = torch.gt(p, theta, out=torch.empty_like(p)).mul_(g)
        from_l0 += near.sum(0)
        if ste_into_pre:
            through += near * (g * theta + l0_grad)
        from_latents += near.mul_(g).sum(0)
        out.copy_(through)
    return grad_pre, -(theta * from_latents + l0_grad * from_l0)


class _JumpReLUEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rows, bias, theta, bandwidth, kernel, ste_into_pre):
        ctx.dtype, ctx.estimator = _matmul_dtype(x), (bandwidth, kernel, ste_into_pre)
        with torch.autocast(x.device.type, enabled=False):  # bf16's spacing near theta is wider than a narrow window
            pre = torch.addmm(bias, x, rows.T)
        latents, tokens = _jumprelu_forward(pre, theta, ctx.dtype)
        ctx.save_for_backward(x, rows, theta, pre)
        ctx.mark_non_differentiable(tokens)
        return latents, tokens.sum() / len(x), tokens

    @staticmethod
    def backward(ctx, grad_latents, grad_l0, _):
        x, rows, theta, pre = ctx.saved_tensors
        per_entry = (grad_l0 / len(x)).reshape(1)
        grad_pre, grad_theta = _jumprelu_backward(pre, theta, grad_latents, per_entry, *ctx.estimator, ctx.dtype)
        grad_rows = (grad_pre.T @ x.to(ctx.dtype)).to(rows.dtype)
        grad_x = (grad_pre @ rows.to(ctx.dtype)).to(x.dtype) if ctx.needs_input_grad[0] else None
        return grad_x, grad_rows, grad_pre.sum(0, dtype=rows.dtype), grad_theta, None, None, None


def jumprelu_encode(
    x: Float[Tensor, "batch d_in"],
    rows: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    theta: Float[Tensor, " d_sae"],
    bandwidth: float,
    kernel: str,
    ste_into_pre: bool,
) -> tuple[Float[Tensor, "batch d_sae"], Float[Tensor, ""], Int[Tensor, " d_sae"]]:
    """Latents pre H(pre - theta) of pre = x @ rows.T + bias, their mean number per token, and on how many tokens each
    is active, with the pseudo-derivatives of `sae.jumprelu`, which is the reference.

    Pre-activations stay in float32; latents and gradients of products are in the precision that autocast prescribes.
    They are passed over once forward and once backward.
    """
    return _JumpReLUEncode.apply(x, rows, bias, theta, bandwidth, kernel, ste_into_pre)


class _GatedEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rows, bias, gain, b_mag):
        dtype = _matmul_dtype(x)
        x = x.to(dtype)
        product = x @ rows.T.to(dtype)
        latents, opened = torch.empty_like(product), torch.empty_like(product)
        total, largest = torch.zeros_like(bias), torch.zeros_like(bias)
        for p, out, gates in in_turns(product, latents, opened):
            gate = p.to(bias.dtype, copy=True)  # operations on two types at once are slow
            magnitude = (gate * gain).add_(b_mag).relu_()
            magnitude.mul_(torch.gt(gate.add_(bias), 0, out=torch.empty_like(gate)))
            torch.maximum(largest, magnitude.amax(0), out=largest)
            out.copy_(magnitude)
            total += gate.relu_().sum(0)
            gates.copy_(gate)
        fired = largest > 0
        ctx.save_for_backward(x, product, latents, opened, gain)
        ctx.mark_non_differentiable(fired)
        return latents, opened, total, fired

    @staticmethod
    def backward(ctx, grad_latents, grad_opened, grad_total, _):
        x, product, latents, opened, gain = ctx.saved_tensors
        grad_product = torch.empty_like(product)
        into_bias, into_gain, into_b_mag = (torch.zeros_like(gain) for _ in range(3))
        for *saved, out in in_turns(product, latents, opened, grad_latents, grad_opened, grad_product):
            p, active, gates, magnitude, gate = (part.to(gain.dtype, copy=True) for part in saved)
            magnitude.mul_(torch.gt(active, 0, out=active))
            gate.add_(grad_total).mul_(torch.gt(gates, 0, out=gates))
            into_bias += gate.sum(0)
            into_b_mag += magnitude.sum(0)
            into_gain += p.mul_(magnitude).sum(0)
            out.copy_(magnitude.mul_(gain).add_(gate))
        return None, (grad_product.T @ x).to(gain.dtype), into_bias, into_gain, into_b_mag


def gated_encode(
    x: Float[Tensor, "batch d_in"],
    rows: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    gain: Float[Tensor, " d_sae"],
    b_mag: Float[Tensor, " d_sae"],
) -> tuple[Float[Tensor, "batch d_sae"], Float[Tensor, "batch d_sae"], Float[Tensor, " d_sae"], Bool[Tensor, " d_sae"]]:
    """For product = x @ rows.T and gate = product + bias: latents H(gate) ReLU(gain * product + b_mag), ReLU(gate), the
    sum of ReLU(gate) over tokens, and whether the latent is active on any. `Gated.gate_magnitudes` is the reference.

    Products are in the precision that autocast prescribes, sums in that of the bias. `x` gets no gradient.
    """
    return _GatedEncode.apply(x, rows, bias, gain, b_mag)


@torch.no_grad()
def adam_rows_(
    weight: Float[Tensor, "n d"],
    grad: Float[Tensor, "n d"],
    mean: Float[Tensor, "n d"],
    square: Float[Tensor, "n d"],
    scalars: Float[Tensor, " three"],
    *,
    beta1: float,
    beta2: float,
    eps: float,
    unit_rows: bool,
    shadow: Float[Tensor, "n d"] | None = None,
) -> None:
    """One step of Adam on latent-major weights, in place; `scalars` are lr, 1 - beta1^t and 1 - beta2^t.

    With `unit_rows` the gradient first loses its part along each row, g - (g . w) w, and rows are divided by their norm
    afterwards. `shadow` receives the new weights in its own precision.
    """
    if uses_triton(weight):
        options = {"beta1": beta1, "beta2": beta2, "eps": eps, "project": unit_rows, "unit_norm": unit_rows}
        _triton().adam_rows_(weight, grad, mean, square, scalars, **options, shadow=shadow)
        return
    lr, correction1, correction2 = scalars
    if unit_rows:
        grad = grad - (grad * weight).sum(-1, keepdim=True) * weight
    mean.lerp_(grad, 1 - beta1)
    square.lerp_(grad.square(), 1 - beta2)
    weight.sub_(lr / correction1 * mean / ((square / correction2).sqrt() + eps))
    if unit_rows:
        weight.copy_(torch.nn.functional.normalize(weight, dim=-1))
    if shadow is not None:
        shadow.copy_(weight)


def sparse_decode(selected: Selected, rows: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "batch d_in"]:
    """Decode k latents per token: sum_j values[b, j] * rows[indices[b, j]], equal to `scatter(values) @ rows`."""
    return _SparseDecode.apply(selected.values, rows, selected.indices, selected.tokens_of)


def topk_encode(
    x: Float[Tensor, "batch d_in"],
    rows: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    k: int,
    shadow: Float[Tensor, "d_sae d_in"] | None = None,
) -> Selected:
    """The k largest of `x @ rows.T + bias` per token, chosen as in `largest`.

    Under autocast the product, the choice of latents and the dense gradients are made in its precision; values and
    gradients come back in the precision of `x`. `shadow` is a copy of `rows` in that precision, where one is kept.
    """
    return Selected(*_TopKEncode.apply(x, rows, bias, k, shadow))
