"""l0 inference with a given dictionary: every support (the oracle), one atom at a time, and least squares on a support.

x (samples, d_in) and dictionary (n, d_in) give codes (samples, n), computed in float64, returned in the type of x.
"""

import itertools
import math

import torch

from replication.shapes import Bool, Float, Tensor

MOST_SUPPORTS = 100_000
BLOCK = 2**22  # numbers in the largest intermediate tensor
RIDGE = 1e-10  # on the diagonal of a Gram matrix of unit atoms: dependent atoms share their part


def l0_oracle(
    x: Float[Tensor, "samples d_in"], dictionary: Float[Tensor, "n d_in"], k: int
) -> Float[Tensor, "samples n"]:
    """argmin |x - z D|^2 over z >= 0 of at most k active entries, by least squares on every support of 1 to k atoms.

    The optimum is least squares on the atoms that it uses, all positive: the best among supports whose least squares
    are non-negative. With the true atoms in general position and 2 k <= d_in it is the truth (codes are unique, which
    needs no restricted isometry), and the amortisation gap is measured from here.
    ValueError above MOST_SUPPORTS supports of k atoms.
    """
    n = len(dictionary)
    if not 1 <= k <= min(dictionary.shape):
        raise ValueError(f"k must be between 1 and {min(dictionary.shape)}, got {k}")
    if math.comb(n, k) > MOST_SUPPORTS:
        raise ValueError(
            f"k={k} of n={n} atoms has {math.comb(n, k):,} supports; at most {MOST_SUPPORTS:,} are searched"
        )
    rows, points = dictionary.double(), x.double()
    best = points.square().sum(-1)
    codes = points.new_zeros(len(x), n)
    for size in range(1, k + 1):
        supports = torch.tensor(list(itertools.combinations(range(n), size)), device=x.device)
        for block in supports.split(max(BLOCK // (len(x) * size), 1)):
            atoms = rows[block]  # (block, size, d_in)
            solved = points @ torch.linalg.pinv(atoms)  # (block, samples, size)
            error = best.new_full(solved.shape[:2], math.inf)
            left = (points - solved @ atoms).square().sum(-1)
            error = torch.where((solved >= 0).all(-1), left, error)
            least, which = error.min(0)
            better = (least < best).nonzero().squeeze(-1)
            best[better] = least[better]
            codes[better] = 0
            codes[better] = codes[better].scatter(-1, block[which[better]], solved[which[better], better])
    return codes.to(x.dtype)


def matching_pursuit(
    x: Float[Tensor, "samples d_in"], dictionary: Float[Tensor, "n d_in"], k: int
) -> Float[Tensor, "samples n"]:
    """k times: the row of the largest correlation with the residual, if positive, is added (Mallat and Zhang 1993).

    A row may be chosen again, so that at most k are active. Rows are taken at unit norm; codes are for them as given.
    """
    return _pursue(x, dictionary, k, orthogonal=False)


def omp(x: Float[Tensor, "samples d_in"], dictionary: Float[Tensor, "n d_in"], k: int) -> Float[Tensor, "samples n"]:
    """As `matching_pursuit`, with all chosen rows refitted by `refit` after each choice (Pati et al. 1993)."""
    return _pursue(x, dictionary, k, orthogonal=True)


def _pursue(x, dictionary, k, orthogonal):
    if not 1 <= k <= len(dictionary):
        raise ValueError(f"k must be between 1 and n={len(dictionary)}, got {k}")
    norms = dictionary.double().norm(dim=-1).clamp(min=1e-300)
    rows, points = dictionary.double() / norms[:, None], x.double()
    codes = points.new_zeros(len(x), len(rows))
    chosen = torch.zeros_like(codes, dtype=torch.bool)
    for _ in range(k):
        found = (points - codes @ rows) @ rows.T
        if orthogonal:
            found = found.masked_fill(chosen, -1)
        value, index = found.max(-1, keepdim=True)
        if orthogonal:
            chosen |= torch.zeros_like(chosen).scatter(-1, index, value > 1e-12)
            codes = refit(points, rows, chosen)
        else:
            codes = codes.scatter_add(-1, index, value.clamp(min=0))
    return (codes / norms).to(x.dtype)


def refit(
    x: Float[Tensor, "samples d_in"],
    dictionary: Float[Tensor, "n d_in"],
    support: Bool[Tensor, "samples n"],
    nonnegative: bool = True,
) -> Float[Tensor, "samples n"]:
    """Least squares |x - z D|^2 over the codes that are zero outside `support`, without any penalty.

    `nonnegative`: rows that come out negative leave the support, and the rest is fitted again, until none does; with
    more active rows than d_in the solution is that of a tiny ridge. It asks how good a support is, apart from the
    magnitudes that came with it (shrinkage).
    """
    codes = torch.zeros(support.shape, dtype=torch.float64, device=x.device)
    rows, points, support = dictionary.double(), x.double(), support.clone()
    todo = support.any(-1).nonzero().squeeze(-1)
    while len(todo):
        width = int(support[todo].sum(-1).max())
        left = []
        for part in todo.split(max(BLOCK // (width * max(width, rows.shape[1])), 1)):
            active, index = support[part].double().topk(width, dim=-1)  # the support's rows, then padding
            atoms = rows[index] * active[..., None]
            gram = atoms @ atoms.mT + torch.diag_embed(RIDGE + 1 - active)
            solved = torch.linalg.solve(gram, atoms @ points[part, :, None]).squeeze(-1)
            negative = (solved < 0) & (active > 0)
            if nonnegative and negative.any():
                again = negative.any(-1)
                support[part] = support[part].scatter(-1, index, (active > 0) & ~negative)
                left.append(part[again])
                solved = torch.where(again[:, None], 0.0, solved)
            codes[part] = torch.zeros_like(codes[part]).scatter(-1, index, solved * active)
        todo = torch.cat(left) if left else todo[:0]
        todo = todo[support[todo].any(-1)]
    return codes.to(x.dtype)
