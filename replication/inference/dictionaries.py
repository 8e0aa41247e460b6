"""Dictionary learning by turns: FISTA for the codes, least squares for the dictionary."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from replication.inference.proximal import fista
from replication.shapes import Float, Tensor

RIDGE = 1e-6  # on the diagonal of Z^T Z (released code of Barin Pacela et al. 2026)


class Learned(NamedTuple):
    """What `dl_fista` leaves behind; leading dimensions are models."""

    dictionary: Float[Tensor, "*models n d_in"]
    codes: Float[Tensor, "*models samples n"]
    """Of the training data, for the dictionary before the last update."""
    curve: dict[int, Any]
    """Round -> what `measure(dictionary)` returned after it; 0 is the start."""


def dl_fista(
    x: Float[Tensor, "*_ samples d_in"],
    start: Float[Tensor, "*models n d_in"],
    *,
    lam: float = 0.05,
    rounds: int = 300,
    iterations: int = 50,
    at: Iterable[int] = (),
    measure: Callable[[Tensor], Any] | None = None,
) -> Learned:
    """`rounds` times: codes by `fista` from those of the round before, then D = (Z^T Z)^-1 Z^T X, rows at unit norm.

    (DL-FISTA of Barin Pacela et al. 2026, there lam 0.1, 100 iterations, up to 1000 rounds.) A row that no sample uses
    takes the direction of the largest residual of a sample, a second one that of the second largest, and so on. x is
    one data set, or one for each model; `start` any dictionary: random, or that of an SAE. `at` are rounds.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    at = set(at)
    if at and not 0 <= min(at) <= max(at) <= rounds:
        raise ValueError(f"at must lie between 0 and rounds={rounds}, got {sorted(at)}")
    models, (n, d_in) = start.shape[:-2], start.shape[-2:]
    x = x.expand(*models, -1, -1).reshape(-1, x.shape[-2], d_in)
    dictionary = torch.nn.functional.normalize(start.reshape(-1, n, d_in), dim=-1)
    codes, curve = None, {}
    for done in range(rounds + 1):
        if done in at:
            curve[done] = measure(dictionary.reshape(start.shape)) if measure else None
        if done < rounds:
            codes = fista(x, dictionary, lam, iterations, codes)
            dictionary = update(x, codes)
    return Learned(dictionary.reshape(start.shape), codes.reshape(*models, -1, n), curve)


def update(
    x: Float[Tensor, "models samples d_in"], codes: Float[Tensor, "models samples n"]
) -> Float[Tensor, "models n d_in"]:
    """The dictionary of unit rows for given codes: least squares, normalised; unused rows as `dl_fista` says."""
    n, d_in = codes.shape[-1], x.shape[-1]
    gram = codes.mT @ codes + RIDGE * torch.eye(n, device=x.device)
    rows = torch.nn.functional.normalize(torch.linalg.solve(gram, codes.mT @ x), dim=-1)
    unused = (codes == 0).all(-2)
    if unused.any():
        left = x - codes @ rows
        worst = left.square().sum(-1).argsort(-1, descending=True)
        place = (unused.cumsum(-1) - 1).clamp(min=0) % x.shape[1]
        fresh = left.gather(1, worst.gather(1, place)[..., None].expand(-1, -1, d_in))
        rows = torch.where(unused[..., None], torch.nn.functional.normalize(fresh, dim=-1), rows)
    return rows
