"""The authors' per-sample optimisation: codes z = exp(q) moved by Adam, with a given dictionary or together with it."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from replication.inference.adam import adam
from replication.shapes import Float, Tensor

START = -10.0  # of every q: z starts at 4.5e-5 and never is exactly 0


def optimise(
    x: Float[Tensor, "*_ samples d_in"],
    dictionary: Float[Tensor, "*_ n d_in"],
    steps: int = 10_000,
    lr: float = 3e-3,
    l1: float = 0.01,
) -> Float[Tensor, "*_ samples n"]:
    """Codes z = exp(q) after `steps` of Adam on mean(x - z D)^2 + l1 mean|z|, from q = -10 (O'Neill et al. 2024).

    Means are over samples and entries, the loss of its "inference-time optimisation" and of its sparse coding on test
    data. It takes the paper's 10,000 steps to come close to what `fista` has after 100. Leading dimensions are models.
    """
    return optimise_curve(x, dictionary, [steps], lr, l1)[steps]


def optimise_curve(
    x: Float[Tensor, "*_ samples d_in"],
    dictionary: Float[Tensor, "*_ n d_in"],
    at: Iterable[int],
    lr: float = 1e-3,
    l1: float = 0.01,
) -> dict[int, Float[Tensor, "*_ samples n"]]:
    """step -> codes of one `optimise` as long as the last step of `at`. Its known-dictionary curves have lr 1e-3."""
    at = sorted(at)
    if not at:
        raise ValueError("at must name at least one step, got none")
    models = torch.broadcast_shapes(x.shape[:-2], dictionary.shape[:-2])
    x = x.expand(*models, -1, -1).flatten(0, -3) if models else x[None]
    dictionary = dictionary.expand(*models, -1, -1).flatten(0, -3) if models else dictionary[None]
    (E, samples, d_in), n = x.shape, dictionary.shape[-2]
    scale = 2 / (samples * d_in)
    gram = dictionary @ dictionary.mT
    constant = l1 / (samples * n) - scale * (x @ dictionary.mT)  # the gradient is scale z G + this, in z
    q = x.new_full((E, samples, n), START)
    z, gradient = torch.empty_like(q), torch.empty_like(q)

    def differentiate():
        torch.exp(q, out=z)
        torch.baddbmm(constant, z, gram, alpha=scale, out=gradient)
        gradient.mul_(z)

    def record():
        return torch.exp(q).reshape(*models, samples, n)

    return adam(q.view(-1), gradient.view(-1), differentiate, steps=at[-1], lr=lr, at=at, record=record)


class SparseCoding(NamedTuple):
    """What `sparse_coding` leaves behind; leading dimension models."""

    dictionary: Float[Tensor, "models n d_in"]
    codes: Float[Tensor, "models samples n"]
    curve: dict[int, Any]
    """step -> what `measure(dictionary, codes)` returned."""


def sparse_coding(
    x: Float[Tensor, "*_ samples d_in"],
    start: Float[Tensor, "models n d_in"],
    *,
    steps: int,
    lr: float = 1e-3,
    l1: float = 0.01,
    at: Iterable[int] = (),
    measure: Callable[[Tensor, Tensor], Any] | None = None,
) -> SparseCoding:
    """Codes and dictionary of every model, moved together by Adam on the loss of `optimise` (O'Neill et al. 2024: SC).

    Rows of the dictionary are put at unit norm before each step, their gradient is not projected. x is one data set, or
    one for each model. Test codes are `optimise(test_x, dictionary)`. `authors_dictionaries` are the authors' starts.
    """
    E, n, d_in = start.shape
    x = x.expand(E, -1, -1).contiguous()
    samples = x.shape[1]
    scale = 2 / (samples * d_in)
    flat, gradient = (x.new_empty(E * n * (samples + d_in)) for _ in range(2))
    sizes = [E * samples * n, E * n * d_in]
    q, D = (part.view(E, -1, width) for part, width in zip(flat.split(sizes), (n, d_in), strict=True))
    dq, dD = (part.view(E, -1, width) for part, width in zip(gradient.split(sizes), (n, d_in), strict=True))
    q.fill_(START)
    D.copy_(start)
    z, left = torch.empty_like(q), torch.empty_like(x)
    penalty = x.new_tensor(l1 / (samples * n))

    def differentiate():
        D.div_(torch.linalg.vector_norm(D, dim=-1, keepdim=True))
        torch.exp(q, out=z)
        torch.baddbmm(x, z, D, beta=-scale, alpha=scale, out=left)
        torch.baddbmm(penalty, left, D.mT, out=dq)
        dq.mul_(z)
        dD.copy_((left.mT.contiguous() @ z).mT)  # twice as fast as z^T left, whose long side is the strided one

    def state():
        return D / torch.linalg.vector_norm(D, dim=-1, keepdim=True), torch.exp(q)

    curve = adam(
        flat, gradient, differentiate, steps=steps, lr=lr, at=at, record=lambda: measure(*state()) if measure else None
    )
    return SparseCoding(*state(), curve)


def authors_dictionaries(n: int, d_in: int, seeds: Iterable[int]) -> Float[Tensor, "models n d_in"]:
    """Where their sparse coding starts: (d_in, n) Gaussian numbers of torch's generator at seed + 42, normalised."""
    drawn = [torch.randn(d_in, n, generator=torch.Generator().manual_seed(seed + 42)).T for seed in seeds]
    return torch.nn.functional.normalize(torch.stack(drawn), dim=-1)
