"""l1 inference with a given dictionary, by iteration: ISTA, FISTA, and ISTA unrolled and trained (LISTA).

All of it is non-negative. Leading dimensions are models: x (..., samples, d_in) and dictionary (..., n, d_in) broadcast
to codes (..., samples, n).
"""

import torch
from torch import nn

from replication.shapes import Float, Tensor


def lam_of_weight(weight: float, n_atoms: int, d_in: int) -> float:
    """lam = w M / (2 N): mean(x - x')^2 + w mean|z| over entries has the minima of |x - x'|^2 / 2 + lam |z|_1 a sample.

    M is d_in, N the number of dictionary rows. A fixed w is another lam in every cell of a grid of sizes.
    """
    return weight * d_in / (2 * n_atoms)


def ista(
    x: Float[Tensor, "*_ samples d_in"],
    dictionary: Float[Tensor, "*_ n d_in"],
    lam: float = 0.01,
    iterations: int = 500,
    start: Float[Tensor, "*_ samples n"] | None = None,
) -> Float[Tensor, "*_ samples n"]:
    """argmin over z >= 0 of |x - z D|^2 / 2 + lam |z|_1: z <- ReLU(z - (z D - x) D^T / L - lam / L), L = |D D^T|.

    Daubechies et al. 2004; its error falls as 1/iterations. `start` are codes to begin from, 0 by default.
    """
    return _iterate(x, dictionary, lam, iterations, start, accelerated=False)


def fista(
    x: Float[Tensor, "*_ samples d_in"],
    dictionary: Float[Tensor, "*_ n d_in"],
    lam: float = 0.01,
    iterations: int = 500,
    start: Float[Tensor, "*_ samples n"] | None = None,
) -> Float[Tensor, "*_ samples n"]:
    """As `ista`, with Nesterov's momentum (Beck and Teboulle 2009): the error falls as 1/iterations^2.

    y <- z + (t - 1)/t' (z - z_before),   t' = (1 + sqrt(1 + 4 t^2)) / 2,   an ISTA step from y.
    """
    return _iterate(x, dictionary, lam, iterations, start, accelerated=True)


def _iterate(x, dictionary, lam, iterations, start, accelerated):
    if not 0 <= lam < float("inf"):
        raise ValueError(f"lam must be at least 0 and finite, got {lam}")
    if iterations < 0:
        raise ValueError(f"iterations must be at least 0, got {iterations}")
    models = torch.broadcast_shapes(x.shape[:-2], dictionary.shape[:-2])
    samples, (n, d_in) = x.shape[-2], dictionary.shape[-2:]
    x = x.expand(*models, -1, -1).reshape(-1, samples, d_in)
    dictionary = dictionary.expand(*models, -1, -1).reshape(-1, n, d_in)
    size = _largest_eigenvalue(dictionary)
    z = x.new_zeros(len(x), samples, n)
    if start is not None:
        z.copy_(start.expand(*models, -1, -1).reshape(-1, samples, n))
    step = 1 / size
    drive = torch.baddbmm(-lam * step, x, dictionary.mT * step)  # what a step adds whatever z is
    through_gram = n <= 2 * d_in  # one product of n x n, or two of n x d_in: the cheaper
    kept = torch.eye(n, dtype=x.dtype, device=x.device) - step * (dictionary @ dictionary.mT) if through_gram else None
    scaled = -step * dictionary.mT
    y, t = z, 1.0
    for _ in range(iterations):
        before = z
        if through_gram:
            z = torch.baddbmm(drive, y, kept).relu_()
        else:
            z = torch.baddbmm(drive, y @ dictionary, scaled).add_(y).relu_()
        t, last = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
        y = torch.lerp(before, z, 1 + (last - 1) / t) if accelerated else z
    return z.reshape(*models, samples, n)


def _largest_eigenvalue(dictionary: Tensor) -> Tensor:
    """(models, 1, 1) largest eigenvalue of D D^T, at least 1e-12."""
    gram = dictionary @ dictionary.mT if dictionary.shape[-2] <= dictionary.shape[-1] else dictionary.mT @ dictionary
    return torch.linalg.eigvalsh(gram.double())[..., -1:, None].clamp(min=1e-12).to(dictionary.dtype)


class LISTA(nn.Module):
    """ISTA cut off after `unrolled` steps whose matrices are parameters (Gregor and LeCun 2010), each step its own.

    z <- ReLU(x W_t + z S_t - theta_t), from z = 0, with W_t = D^T / L, S_t = 1 - D D^T / L and theta_t = lam / L at the
    start: untrained it is `ista`. One dictionary (n, d_in), or one for each of many models (models, n, d_in).
    """

    def __init__(self, dictionary: Float[Tensor, "*models n d_in"], unrolled: int = 10, lam: float = 0.01):
        super().__init__()
        if unrolled < 1:
            raise ValueError(f"unrolled must be at least 1, got {unrolled}")
        if not 0 <= lam < float("inf"):
            raise ValueError(f"lam must be at least 0 and finite, got {lam}")
        step = 1 / _largest_eigenvalue(dictionary)
        n = dictionary.shape[-2]
        inwards, lateral = (
            dictionary.mT * step,
            torch.eye(n, device=dictionary.device) - step * (dictionary @ dictionary.mT),
        )
        self.dictionary = dictionary
        self.inwards = nn.ParameterList([inwards.clone() for _ in range(unrolled)])
        self.lateral = nn.ParameterList([lateral.clone() for _ in range(unrolled - 1)])
        self.thresholds = nn.ParameterList([(lam * step).expand(*step.shape[:-1], n).clone() for _ in range(unrolled)])

    def forward(self, x: Float[Tensor, "*_ samples d_in"]) -> Float[Tensor, "*_ samples n"]:
        z = torch.relu(x @ self.inwards[0] - self.thresholds[0])
        for inwards, lateral, threshold in zip(self.inwards[1:], self.lateral, self.thresholds[1:], strict=True):
            z = torch.relu(x @ inwards + z @ lateral - threshold)
        return z

    def fit(
        self, x: Float[Tensor, "*_ samples d_in"], steps: int = 1000, lr: float = 1e-3, l1: float = 0.01
    ) -> "LISTA":
        """Adam on mean(x - z D)^2 + l1 mean|z| over full batches, dictionary fixed; the same module, trained.

        Models do not share parameters: the losses are summed over them.
        """
        optimiser = torch.optim.Adam(self.parameters(), lr=lr)
        for _ in range(steps):
            z = self(x)
            each = (x - z @ self.dictionary).square().mean((-2, -1)) + l1 * z.abs().mean((-2, -1))
            optimiser.zero_grad()
            each.sum().backward()
            optimiser.step()
        return self
