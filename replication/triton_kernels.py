"""Triton kernels of a training step on a GPU; `kernels` is the plain reference and the only caller.

Each launcher allocates its result, starts its kernels and returns: none waits for the device, so a step can be captured
in a CUDA graph. B tokens, k latents kept per token, n latents, width d; weights are latent-major, one row per latent.
Sums are made in float32 and in a fixed order: the same input gives the same bits.

This module needs Triton; nothing imports it where Triton is missing. The tests run it in Triton's interpreter.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from replication.shapes import Float, Int, Tensor

MAX_KEYS = 4096
"""Keys sorted by one program at most: `tl.topk` of more takes tens of seconds to compile."""
LEVEL_KEYS = 1024
"""What another level of groups costs, in keys sorted: it waits for one more round of loads."""
MAX_ROW = 2**15
"""A row of this many numbers is still held in the registers of one program."""
CHUNK = 256
"""Entries of one latent that one program adds up; a latent that fires on every token is split into many chunks."""


def _power(number: int) -> int:
    return triton.next_power_of_2(number)


def _block(d: int, limit: int) -> int:
    """The power of two from 128 to `limit` that covers d with the fewest idle lanes, the largest of equals."""
    if d <= 128:
        return _power(d)
    return min((2**i for i in range(7, limit.bit_length())), key=lambda width: (triton.cdiv(d, width) * width, -width))


# ---------------------------------------------------------------------------------------------------------- top-k


def _plan(n: int, k: int) -> tuple[int, ...] | None:
    """Group sizes, finest first, that let the fewest keys be sorted; None where no grouping fits (see `topk`)."""
    plans = []
    for sizes in ((32,), (64,), (128,), (32, 8), (32, 16), (32, 32), (64, 32)):
        keys, length = [_power(k) * size for size in sizes], n
        for size in sizes:
            length = triton.cdiv(length, size)
        keys.append(_power(length))
        if length >= k and max(keys) <= MAX_KEYS:
            plans.append((sum(keys) + LEVEL_KEYS * len(sizes), sizes))
    return min(plans)[1] if plans else None


@triton.jit
def _ordered(bits):
    """Integers that compare as the floats of these bits do (NaN above infinity); its own inverse."""
    width: tl.constexpr = bits.dtype.primitive_bitwidth
    return bits ^ ((bits >> (width - 1)) & (2 ** (width - 1) - 1))


@triton.jit
def _group_maxima_kernel(
    numbers_ptr, maxima_ptr, n, groups, blocks, G: tl.constexpr, GROUPS: tl.constexpr, RAW: tl.constexpr
):
    row, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    group = block * GROUPS + tl.arange(0, GROUPS)
    columns = group[:, None] * G + tl.arange(0, G)[None, :]
    narrow: tl.constexpr = maxima_ptr.dtype.element_ty == tl.int16
    if RAW:
        numbers = tl.load(numbers_ptr + row * n + columns, mask=columns < n, other=-1)  # all ones: the lowest of all
        if narrow:  # upper half of a register: one shift there, against several operations on 16-bit registers
            numbers = numbers.to(tl.int32) << 16
        numbers = _ordered(numbers)
        if narrow:
            numbers = numbers >> 16
    else:
        lowest: tl.constexpr = -(2**15) if narrow else -(2**31)
        numbers = tl.load(numbers_ptr + row * n + columns, mask=columns < n, other=lowest)
    maxima = tl.max(numbers, axis=1)
    tl.store(maxima_ptr + row * groups + group, maxima.to(maxima_ptr.dtype.element_ty), mask=group < groups)


@triton.jit
def _best(ordered, slots, valid, KP: tl.constexpr):
    """The KP largest, in descending order, and their slots: both move in one integer, twice the width of a number."""
    half: tl.constexpr = ordered.dtype.primitive_bitwidth
    wide: tl.constexpr = tl.int32 if half == 16 else tl.int64
    lowest: tl.constexpr = -(2 ** (2 * half - 1))
    keys = (ordered.to(wide) << half) | slots.to(wide)
    keys = tl.topk(tl.where(valid, keys, lowest), KP)
    return (keys >> half).to(ordered.dtype), (keys & (2**half - 1)).to(tl.int32)


@triton.jit
def _descend(numbers_ptr, n, chosen, K: tl.constexpr, KP: tl.constexpr, G: tl.constexpr, RAW: tl.constexpr):
    """The K largest members of K groups of G numbers, and their places."""
    rank, member = tl.arange(0, KP)[:, None], tl.arange(0, G)[None, :]
    columns = chosen[:, None] * G + member
    valid = (rank < K) & (columns < n)
    numbers = tl.load(numbers_ptr + columns, mask=valid, other=0)
    if RAW:
        numbers = _ordered(numbers)
    numbers, valid = tl.reshape(numbers, [KP * G]), tl.reshape(valid, [KP * G])
    best, slots = _best(numbers, tl.arange(0, KP * G), valid, KP)
    return best, tl.gather(chosen, slots // G, 0) * G + slots % G


@triton.jit
def _descend_kernel(
    numbers_ptr,
    fine_ptr,
    coarse_ptr,
    values_ptr,
    indices_ptr,
    n,
    fine,
    coarse,
    K: tl.constexpr,
    KP: tl.constexpr,
    G: tl.constexpr,
    H: tl.constexpr,
    TOP: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    group = tl.arange(0, TOP)
    maxima = tl.load(coarse_ptr + row * coarse + group, mask=group < coarse, other=0)
    _, chosen = _best(maxima, group, group < coarse, KP)
    if H > 1:
        _, chosen = _descend(fine_ptr + row * fine, fine, chosen, K, KP, H, False)
    best, places = _descend(numbers_ptr + row * n, n, chosen, K, KP, G, True)
    rank = tl.arange(0, KP)
    tl.store(values_ptr + row * K + rank, _ordered(best), mask=rank < K)
    tl.store(indices_ptr + row * K + rank, places.to(tl.int64), mask=rank < K)


@triton.jit
def _threshold_kernel(numbers_ptr, values_ptr, indices_ptr, n, K, N: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, N)
    bits = tl.load(numbers_ptr + row * n + columns, mask=columns < n, other=-1)
    width: tl.constexpr = bits.dtype.primitive_bitwidth
    lowest: tl.constexpr = -(2 ** (width - 1))
    numbers = _ordered(bits).to(tl.int32)
    # the K-th largest, from its highest bit down: a bit is set if K numbers are that large
    threshold = tl.where(tl.sum((numbers >= 0).to(tl.int32)) >= K, 0, lowest)
    bit = tl.full([], 2 ** (width - 2), tl.int32)
    for _ in range(width - 1):
        higher = threshold + bit
        threshold = tl.where(tl.sum((numbers >= higher).to(tl.int32)) >= K, higher, threshold)
        bit = bit >> 1
    above = (numbers > threshold).to(tl.int32)
    equal = ((numbers == threshold) & (columns < n)).to(tl.int32)
    ranks = tl.cumsum((above << 16) | equal, 0)  # two counts in one scan; neither reaches 2^16
    place = tl.where(above == 1, (ranks >> 16) - 1, tl.sum(above) + (ranks & 0xFFFF) - 1)
    chosen = ((above | equal) == 1) & (place < K)
    tl.store(values_ptr + row * K + place, bits, mask=chosen)
    tl.store(indices_ptr + row * K + place, columns.to(tl.int64), mask=chosen)


def _group_maxima(numbers: Tensor, size: int, raw: bool) -> Tensor:
    batch, n = numbers.shape
    groups = triton.cdiv(n, size)
    maxima = numbers.new_empty(batch, groups)
    at_once = min(_power(groups), MAX_KEYS // size)
    blocks = triton.cdiv(groups, at_once)
    _group_maxima_kernel[(batch * blocks,)](
        numbers, maxima, n, groups, blocks, G=size, GROUPS=at_once, RAW=raw, num_warps=4
    )
    return maxima


def topk(pre: Float[Tensor, "batch n"], k: int) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """The k largest numbers of each row and their k distinct places, exactly, in no particular order.

    With groups of neighbours: one pass takes the maximum of each group; then one program per row sorts the maxima and
    the members of the k groups whose maxima are largest. These hold every number above the k-th largest, and enough of
    those equal to it. Group sizes are 32, 64 or 128 (groups of groups where n is large), whichever sort the fewest keys
    with at most MAX_KEYS = 4,096 in one sort. Bound by one read of `pre` and, from about 30 thousand latents down, by
    the sorts.

    Where no grouping fits (k above 128, or more than n / 32), a row of up to MAX_ROW = 32,768 numbers is held in
    registers, its k-th largest found bit by bit, and what is not below it written out: bound by 16 or 32 comparisons of
    every number, for any k. A longer row (k above 128 at n above 32,768, or n above 4 million) and float64 fall back on
    `torch.topk`.

    NaN counts as larger than infinity (with its sign bit set, as smaller than minus infinity).
    """
    batch, n = pre.shape
    pre = pre.contiguous()
    sizes = _plan(n, k)
    if pre.element_size() > 4 or (sizes is None and n > MAX_ROW):
        return pre.topk(k, dim=-1, sorted=False)
    numbers = pre.view(torch.int16 if pre.element_size() == 2 else torch.int32)
    values, indices = pre.new_empty(batch, k), torch.empty(batch, k, dtype=torch.int64, device=pre.device)
    if sizes is None:
        width = _power(n)
        warps = min(max(width // 1024, 1), 16)
        _threshold_kernel[(batch,)](numbers, values.view(numbers.dtype), indices, n, k, N=width, num_warps=warps)
        return values, indices
    fine = coarse = _group_maxima(numbers, sizes[0], raw=True)
    if len(sizes) > 1:
        coarse = _group_maxima(fine, sizes[1], raw=False)
    _descend_kernel[(batch,)](
        numbers,
        fine,
        coarse,
        values.view(numbers.dtype),
        indices,
        n,
        fine.shape[1],
        coarse.shape[1],
        K=k,
        KP=max(_power(k), 2),
        G=sizes[0],
        H=sizes[1] if len(sizes) > 1 else 1,
        TOP=_power(coarse.shape[1]),
        num_warps=2 if k <= 32 else 4,  # fewer warps exchange less through shared memory, but run longer code
    )
    return values, indices


# --------------------------------------------------------------------------------------- rows picked by each token


@triton.jit
def _decode_kernel(
    values_ptr, indices_ptr, rows_ptr, out_ptr, d, K: tl.constexpr, SLOTS: tl.constexpr, BLOCK_D: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK_D], tl.float32)
    for first in range(0, K, SLOTS):
        slots = first + tl.arange(0, SLOTS)
        latents = tl.load(indices_ptr + token * K + slots, mask=slots < K, other=0)
        weights = tl.load(values_ptr + token * K + slots, mask=slots < K, other=0).to(tl.float32)
        inside = (slots < K)[:, None] & (columns < d)[None, :]
        rows = tl.load(rows_ptr + latents[:, None] * d + columns[None, :], mask=inside, other=0).to(tl.float32)
        total += tl.sum(weights[:, None] * rows, axis=0)
    tl.store(out_ptr + token * d + columns, total, mask=columns < d)


def decode(
    values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"], rows: Float[Tensor, "n d"]
) -> Float[Tensor, "batch d"]:
    """sum_j values[b, j] * rows[indices[b, j]], in float32.

    Bound by k row reads per token, most of them from the L2 cache while frequent rows fit there.
    """
    values, indices, rows = values.contiguous(), indices.contiguous(), rows.contiguous()
    (batch, k), d = indices.shape, rows.shape[1]
    out = torch.empty(batch, d, dtype=torch.float32, device=rows.device)
    width = _block(d, 512)
    _decode_kernel[(batch, triton.cdiv(d, width))](
        values, indices, rows, out, d, K=k, SLOTS=min(_power(k), 8), BLOCK_D=width, num_warps=max(width // 128, 1)
    )
    return out


@triton.jit
def _products_kernel(
    x_ptr, rows_ptr, indices_ptr, out_ptr, d, K: tl.constexpr, SLOTS: tl.constexpr, BLOCK_D: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    slots = tl.program_id(1) * SLOTS + tl.arange(0, SLOTS)
    latents = tl.load(indices_ptr + token * K + slots, mask=slots < K, other=0)
    terms = tl.zeros([SLOTS, BLOCK_D], tl.float32)  # reduced across threads once, not once per block
    for first in range(0, d, BLOCK_D):
        columns = first + tl.arange(0, BLOCK_D)
        x = tl.load(x_ptr + token * d + columns, mask=columns < d, other=0).to(tl.float32)
        inside = (slots < K)[:, None] & (columns < d)[None, :]
        rows = tl.load(rows_ptr + latents[:, None] * d + columns[None, :], mask=inside, other=0).to(tl.float32)
        terms += x[None, :] * rows
    tl.store(out_ptr + token * K + slots, tl.sum(terms, axis=1), mask=slots < K)


def products(
    x: Float[Tensor, "batch d"], rows: Float[Tensor, "n d"], indices: Int[Tensor, "batch k"]
) -> Float[Tensor, "batch k"]:
    """x[b] . rows[indices[b, j]], in float32. Bound, like `decode`, by k row reads per token."""
    x, rows, indices = x.contiguous(), rows.contiguous(), indices.contiguous()
    (batch, k), d = indices.shape, rows.shape[1]
    out = torch.empty(batch, k, dtype=torch.float32, device=rows.device)
    width, slots = _block(d, 256), min(_power(k), 8)
    _products_kernel[(batch, triton.cdiv(k, slots))](
        x, rows, indices, out, d, K=k, SLOTS=slots, BLOCK_D=width, num_warps=max(width // 128, 1)
    )
    return out


# --------------------------------------------------------------------------------------- sums over latents' tokens


class Groups(NamedTuple):
    """The entries (token b, slot j) of `indices`, sorted by latent, and how they are shared out to programs."""

    order: Tensor
    """(B k,) int64 flat entries b k + j; those of one latent stand together, by token."""
    offsets: Tensor
    """(n + 1,) int32: the entries of latent i are order[offsets[i] : offsets[i + 1]]."""
    excess: Tensor
    """(n + 1,) int32: chunks beyond the first that the latents before i need."""
    owner: Tensor
    """(B k // CHUNK,) int32: the latent of each chunk beyond a first one; n where there is none."""


def group_by_latent(indices: Int[Tensor, "batch k"], n: int) -> Groups:
    """The entries of `indices` by latent: one stable sort, shared by every gradient of a step.

    Chunks beyond a latent's first CHUNK entries cannot be more than B k // CHUNK, so the host need not know their
    number. Bound by the launches of a radix sort of B k integers.
    """
    entries = indices.numel()
    if entries >= 2**31:
        raise ValueError(f"indices must have fewer than 2^31 entries, got {entries}")
    latents, order = indices.flatten().int().sort(stable=True)
    offsets = torch.searchsorted(latents, torch.arange(n + 1, dtype=torch.int32, device=latents.device), out_int32=True)
    excess = torch.zeros_like(offsets)
    further = (offsets.diff() - 1).div_(CHUNK, rounding_mode="trunc")  # -1 / CHUNK, of a latent that never fires, is 0
    torch.cumsum(further, 0, dtype=torch.int32, out=excess[1:])
    chunks = torch.arange(entries // CHUNK, dtype=torch.int32, device=latents.device)
    return Groups(order, offsets, excess, torch.searchsorted(excess[1:], chunks, right=True, out_int32=True))


@triton.jit
def _rows_gradient_kernel(
    order_ptr,
    offsets_ptr,
    excess_ptr,
    owner_ptr,
    weights_ptr,
    source_ptr,
    rows_ptr,
    bias_ptr,
    n,
    d,
    spare,
    K: tl.constexpr,
    CHUNK: tl.constexpr,
    ENTRIES: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BIAS: tl.constexpr,
):
    # the first `spare` programs add chunks beyond a latent's first into rows of their own, behind the n of the result:
    # those take longest, so they start first
    program = tl.program_id(0)
    is_spare = program < spare
    latent = tl.where(is_spare, tl.load(owner_ptr + program, mask=is_spare, other=0), program - spare)
    live = latent < n
    chunk = tl.where(is_spare, program - tl.load(excess_ptr + latent, mask=live, other=0) + 1, 0)
    first = tl.load(offsets_ptr + latent, mask=live, other=0) + chunk * CHUNK
    last = tl.minimum(first + CHUNK, tl.load(offsets_ptr + latent + 1, mask=live, other=0))
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK_D], tl.float32)
    bias = tl.zeros([ENTRIES], tl.float32)
    for start in range(first, last, ENTRIES):
        places = start + tl.arange(0, ENTRIES)
        valid = places < last
        entries = tl.load(order_ptr + places, mask=valid, other=0).to(tl.int32)
        weights = tl.load(weights_ptr + entries, mask=valid, other=0).to(tl.float32)
        tokens = (entries // K).to(tl.int64)
        inside = valid[:, None] & (columns < d)[None, :]
        rows = tl.load(source_ptr + tokens[:, None] * d + columns[None, :], mask=inside, other=0).to(tl.float32)
        total += tl.sum(weights[:, None] * rows, axis=0)
        if BIAS:
            bias += weights
    row = tl.where(is_spare, n + program, latent).to(tl.int64)
    tl.store(rows_ptr + row * d + columns, total, mask=(columns < d) & live)
    if BIAS and tl.program_id(1) == 0:
        tl.store(bias_ptr + row, tl.sum(bias), mask=live)


@triton.jit
def _add_spare_kernel(excess_ptr, owner_ptr, rows_ptr, bias_ptr, n, d, BLOCK_D: tl.constexpr, BIAS: tl.constexpr):
    spare = tl.program_id(0)
    latent = tl.load(owner_ptr + spare).to(tl.int64)
    leads = (latent < n) & (tl.load(excess_ptr + latent, mask=latent < n, other=-1) == spare)
    end = tl.load(excess_ptr + latent + 1, mask=leads, other=0)  # 0: no turn of the loop
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = (columns < d) & leads
    total = tl.load(rows_ptr + latent * d + columns, mask=inside, other=0)
    for chunk in range(spare, end):
        total += tl.load(rows_ptr + (n + chunk).to(tl.int64) * d + columns, mask=inside, other=0)
    tl.store(rows_ptr + latent * d + columns, total, mask=inside)
    if BIAS and tl.program_id(1) == 0:
        bias = tl.load(bias_ptr + latent, mask=leads, other=0)
        for chunk in range(spare, end):
            bias += tl.load(bias_ptr + n + chunk)
        tl.store(bias_ptr + latent, bias, mask=leads)


def _sums(groups: Groups, weights: Tensor, source: Tensor, n: int, with_bias: bool) -> tuple[Tensor, Tensor]:
    order, offsets, excess, owner = groups
    weights, source = weights.contiguous(), source.contiguous()
    k, d, spare = weights.shape[1], source.shape[1], len(owner)
    rows = torch.empty(n + spare, d, dtype=torch.float32, device=source.device)
    bias = torch.empty(n + spare if with_bias else 0, dtype=torch.float32, device=source.device)
    width = min(_power(d), 1024)
    options = {"BLOCK_D": width, "BIAS": with_bias, "num_warps": min(max(width // 256, 1), 4)}
    blocks = triton.cdiv(d, width)
    _rows_gradient_kernel[(spare + n, blocks)](
        *(order, offsets, excess, owner, weights, source, rows, bias, n, d, spare),
        K=k,
        CHUNK=CHUNK,
        ENTRIES=4,
        **options,
    )
    if spare:
        _add_spare_kernel[(spare, blocks)](excess, owner, rows, bias, n, d, **options)
    return rows[:n], bias[:n]


def rows_gradient(
    groups: Groups, weights: Float[Tensor, "batch k"], source: Float[Tensor, "batch d"], n: int
) -> Float[Tensor, "n d"]:
    """sum over the entries (b, j) of each latent of weights[b, j] * source[b], in float32; 0 where nothing fired.

    One program per latent, and one more for each further CHUNK entries: their sums are added to the first afterwards,
    in order, so that nothing is zeroed beforehand and the result does not depend on which program ends first. Bound by
    one write of (n, d) and B k row reads, most of them from the L2 cache.
    """
    return _sums(groups, weights, source, n, with_bias=False)[0]


def rows_and_bias_gradient(
    groups: Groups, weights: Float[Tensor, "batch k"], source: Float[Tensor, "batch d"], n: int
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    """`rows_gradient` and, from the same pass, the sum of each latent's weights: the gradient of its bias."""
    return _sums(groups, weights, source, n, with_bias=True)


# --------------------------------------------------------------------------------------------------------- optimiser


@triton.jit
def _adam_rows_kernel(
    weight_ptr,
    grad_ptr,
    m_ptr,
    v_ptr,
    scalars_ptr,
    shadow_ptr,
    n,
    d,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    EPS: tl.constexpr,
    PROJECT: tl.constexpr,
    UNIT_NORM: tl.constexpr,
    SHADOW: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    lr, correction1, correction2 = tl.load(scalars_ptr), tl.load(scalars_ptr + 1), tl.load(scalars_ptr + 2)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = tl.arange(0, BLOCK_D)[None, :]
    inside = (row < n) & (column < d)
    at = row * d + column
    w = tl.load(weight_ptr + at, mask=inside, other=0)
    g = tl.load(grad_ptr + at, mask=inside, other=0).to(tl.float32)
    m = tl.load(m_ptr + at, mask=inside, other=0)
    v = tl.load(v_ptr + at, mask=inside, other=0)
    if PROJECT:
        g -= tl.sum(g * w, axis=1)[:, None] * w
    m = BETA1 * m + (1 - BETA1) * g
    v = BETA2 * v + (1 - BETA2) * g * g
    w -= lr / correction1 * m / (tl.sqrt_rn(v) / tl.sqrt_rn(correction2) + EPS)
    if UNIT_NORM:
        w /= tl.maximum(tl.sqrt_rn(tl.sum(w * w, axis=1)), 1e-12)[:, None]
    tl.store(weight_ptr + at, w, mask=inside)
    tl.store(m_ptr + at, m, mask=inside)
    tl.store(v_ptr + at, v, mask=inside)
    if SHADOW:
        tl.store(shadow_ptr + at, w.to(shadow_ptr.dtype.element_ty), mask=inside)


def adam_rows_(
    weight: Float[Tensor, "n d"],
    grad: Float[Tensor, "n d"],
    m: Float[Tensor, "n d"],
    v: Float[Tensor, "n d"],
    scalars: Float[Tensor, " 3"],
    *,
    beta1: float,
    beta2: float,
    eps: float,
    project: bool = False,
    unit_norm: bool = False,
    shadow: Float[Tensor, "n d"] | None = None,
) -> None:
    """One step of `torch.optim.Adam` on latent-major weights, in place and in one pass.

    `scalars` holds lr, 1 - beta1^t and 1 - beta2^t on the device, so that a CUDA graph replays with new ones.
    `project` first takes from each gradient its part along the weight, a unit row: g - (g . w) w. `unit_norm` divides
    the new row by max(|w|, 1e-12). `shadow` receives a copy of the new weights in its own precision.

    Bound by memory: 28 bytes per weight, 30 with a bfloat16 shadow.
    """
    for name, tensor in {"weight": weight, "m": m, "v": v, "shadow": shadow}.items():
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"{name} is changed in place and must be contiguous, got strides {tensor.stride()}")
    n, d = weight.shape
    width = _power(d)
    rows = max(1024 // width, 1)
    _adam_rows_kernel[(triton.cdiv(n, rows),)](
        *(weight, grad.contiguous(), m, v, scalars, weight if shadow is None else shadow, n, d),
        BETA1=beta1,
        BETA2=beta2,
        EPS=eps,
        PROJECT=project,
        UNIT_NORM=unit_norm,
        SHADOW=shadow is not None,
        ROWS=rows,
        BLOCK_D=width,
        num_warps=4 if width <= 2048 else 8,
    )


# ---------------------------------------------------------------------------------------------------------- JumpReLU

TILE = 8, 256
"""Rows and columns of (B, n) that a program holds at once."""
TURNS = 8
"""Tiles, one below the other, that one program goes through before it gives away its column sums."""


@triton.jit
def _jumprelu_forward_kernel(
    pre_ptr, theta_ptr, latents_ptr, count_ptr, batch, n, TURNS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    theta = tl.load(theta_ptr + column, mask=column < n, other=0)[None, :]
    count = tl.zeros([ROWS, COLUMNS], tl.int32)
    for turn in range(TURNS):
        row = (tl.program_id(1) * TURNS + turn) * ROWS + tl.arange(0, ROWS)
        inside = (row < batch)[:, None] & (column < n)[None, :]
        at = row.to(tl.int64)[:, None] * n + column[None, :]
        pre = tl.load(pre_ptr + at, mask=inside, other=0)
        active = (pre > theta) & inside
        tl.store(latents_ptr + at, pre * active.to(tl.float32), mask=inside)  # a product: NaN stays NaN
        count += active.to(tl.int32)
    tl.atomic_add(count_ptr + column, tl.sum(count, axis=0), mask=column < n)  # integers: any order gives the same


@triton.jit
def _window(u, KERNEL: tl.constexpr):
    if KERNEL == "rectangle":
        return (tl.abs(u) < 0.5).to(tl.float32)
    elif KERNEL == "triangle":
        return tl.maximum(1 - tl.abs(u), 0)
    elif KERNEL == "gaussian":
        return tl.exp(-u * u / 2) * 0.3989422804014327  # 1 / sqrt(2 pi)
    else:
        tl.static_assert(KERNEL == "epanechnikov")
        return 0.75 * tl.maximum(1 - u * u, 0)


@triton.jit
def _jumprelu_backward_kernel(
    pre_ptr,
    theta_ptr,
    grad_ptr,
    l0_grad_ptr,
    grad_pre_ptr,
    partial_ptr,
    batch,
    n,
    BANDWIDTH: tl.constexpr,
    KERNEL: tl.constexpr,
    STE_INTO_PRE: tl.constexpr,
    TURNS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    theta = tl.load(theta_ptr + column, mask=column < n, other=0)[None, :]
    l0_grad = tl.load(l0_grad_ptr)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for turn in range(TURNS):
        row = (tl.program_id(1) * TURNS + turn) * ROWS + tl.arange(0, ROWS)
        inside = (row < batch)[:, None] & (column < n)[None, :]
        at = row.to(tl.int64)[:, None] * n + column[None, :]
        pre = tl.load(pre_ptr + at, mask=inside, other=0)
        grad = tl.load(grad_ptr + at, mask=inside, other=0).to(tl.float32)
        jump = (grad * theta + l0_grad) / BANDWIDTH * _window((pre - theta) / BANDWIDTH, KERNEL)
        grad_pre = grad * (pre > theta).to(tl.float32)
        if STE_INTO_PRE:
            grad_pre += jump
        tl.store(grad_pre_ptr + at, grad_pre, mask=inside)
        total -= tl.where(inside, jump, 0)
    tl.store(partial_ptr + tl.program_id(1).to(tl.int64) * n + column, tl.sum(total, axis=0), mask=column < n)


def _jumprelu_grid(batch: int, n: int) -> tuple[tuple[int, int], dict[str, int]]:
    rows, columns = TILE
    grid = triton.cdiv(n, columns), triton.cdiv(batch, rows * TURNS)
    return grid, {"TURNS": TURNS, "ROWS": rows, "COLUMNS": columns, "num_warps": 4}


def jumprelu_forward(
    pre: Float[Tensor, "batch n"], theta: Float[Tensor, " n"], dtype: torch.dtype | None = None
) -> tuple[Float[Tensor, "batch n"], Int[Tensor, " n"]]:
    """Latents pre H(pre - theta), in `dtype`, and, for each of them, on how many tokens it is active (int32).

    Bound by memory: one read and one write of (B, n).
    """
    pre, theta = pre.contiguous(), theta.contiguous()
    latents, count = torch.empty_like(pre, dtype=dtype), torch.zeros(len(theta), dtype=torch.int32, device=pre.device)
    grid, options = _jumprelu_grid(*pre.shape)
    _jumprelu_forward_kernel[grid](pre, theta, latents, count, *pre.shape, **options)
    return latents, count


def jumprelu_backward(
    pre: Float[Tensor, "batch n"],
    theta: Float[Tensor, " n"],
    grad_latents: Float[Tensor, "batch n"],
    l0_grad: Float[Tensor, " 1"],
    bandwidth: float,
    kernel: str,
    ste_into_pre: bool,
    dtype: torch.dtype | None = None,
) -> tuple[Float[Tensor, "batch n"], Float[Tensor, " n"]]:
    """Gradients of a loss by pre, in `dtype`, and by theta, given those by the latents and by the number of active
    entries (`l0_grad`).

    With e the bandwidth, K the kernel and g = grad_latents: jump = (g theta + l0_grad) / e K((pre - theta) / e); the
    gradient by theta is -sum_b jump; that by pre is g H(pre - theta), plus the jump with `ste_into_pre`. (Pseudo-
    derivatives of `sae.jumprelu.jumprelu` and `step`, added.)

    Bound by memory: two reads and one write of (B, n); column sums of 64 tokens leave the program and are added after.
    """
    pre, theta, grad_latents = pre.contiguous(), theta.contiguous(), grad_latents.contiguous()
    grid, options = _jumprelu_grid(*pre.shape)
    grad_pre, partial = torch.empty_like(pre, dtype=dtype), torch.empty(grid[1], len(theta), device=pre.device)
    _jumprelu_backward_kernel[grid](
        *(pre, theta, grad_latents, l0_grad, grad_pre, partial, *pre.shape),
        BANDWIDTH=bandwidth,
        KERNEL=kernel,
        STE_INTO_PRE=ste_into_pre,
        **options,
    )
    return grad_pre, partial.sum(0)
