"""Operations of training and inference, as the code released with O'Neill et al. 2024 counts them, and corrected.

M is d_in, N = n the number of latents, H the hidden width. A multiplication and an addition are two operations. A
`Cost` keeps apart what is paid for every sample and what is paid once a step whatever the batch, so that three axes
stay separate: training (`step_cost(samples) * steps`), inference per sample, and seconds, which are measured.

Released and corrected differ where the released formulas charge the size of parameters (updates, norms) once a sample,
leave out the gradient of a learned decoder's weights (2 M N a sample), or, for sparse coding, count the batch twice.
`released=True` gives the published axis.
"""

from typing import NamedTuple


class Cost(NamedTuple):
    """Operations, by what they are and what they grow with."""

    matmul: int
    """Matrix products, per sample: 2 m n k of a product, as torch.utils.flop_counter.FlopCounterMode counts."""
    other: int
    """Everything else that is done per sample."""
    step: int = 0
    """Per step, whatever the number of samples: updates of parameters, norms of rows."""

    def of(self, samples: int) -> int:
        """Operations of one step, or one inference, on so many samples."""
        return (self.matmul + self.other) * samples + self.step


def sae_inference(d_in: int, n: int) -> Cost:
    """4 M N + N a sample: encoder, ReLU and decoder. Released and corrected agree."""
    return Cost(4 * d_in * n, n)


def mlp_inference(d_in: int, n: int, hidden: int) -> Cost:
    """2 M H + H + 2 H N + N + 2 N M a sample. Released and corrected agree."""
    return Cost(2 * d_in * hidden + 2 * hidden * n + 2 * n * d_in, hidden + n)


def sae_training(d_in: int, n: int, learned: bool, released: bool = False) -> Cost:
    """One step. Released, per sample: (4 M N + N) + (4 M N + 2 N) + 2 (M N + N), and with a learned dictionary + 3 M N.

    At (16, 8) that is 1,360 or 1,744 a sample. Corrected: 8 M N + 3 N, learned 10 M N + 3 N, a sample, and 2 (M N + N),
    learned + 5 M N (norms, division, update), a step.
    """
    products, entries = d_in * n, 3 * n
    return _training(8 * products, entries, 2 * (products + n), products, learned, released)


def mlp_training(d_in: int, n: int, hidden: int, learned: bool, released: bool = False) -> Cost:
    """One step, by the rule of `sae_training`. Released at (16, 8), learned: 5,744 for H = 32, 39,120 for 256."""
    products = d_in * hidden + hidden * n
    entries = 3 * (hidden + n)
    if not released:  # the gradient with respect to the hidden layer, which the released formula leaves out
        return _training(
            4 * products + 2 * hidden * n + 4 * d_in * n, entries, 2 * (products + hidden + n), d_in * n, learned, False
        )
    return _training(4 * products + 4 * d_in * n, entries, 2 * (products + hidden + n), d_in * n, learned, True)


def _training(matmul: int, other: int, updates: int, dictionary: int, learned: bool, released: bool) -> Cost:
    if released:
        return Cost(matmul, other + updates + 3 * dictionary * learned)
    return Cost(matmul + 2 * dictionary * learned, other, updates + 5 * dictionary * learned)


def sparse_coding_training(
    d_in: int, n: int, learned: bool = True, released: bool = False, samples: int | None = None
) -> Cost:
    """One step of codes exp(q), and of the dictionary if `learned`.

    Released, per sample: 3 (3 M N + N + 2 M N) + (2 M + N) B + N B + M N, B = `samples` of the batch, although B
    multiplies it again: 5.25e7 a step at (16, 8) and B = 1024. Corrected: 3 (N + 2 M N) + 2 M + 2 N a sample and
    3 * 3 M N + M N a step: 8.86e5, 59 times less. With a fixed dictionary (per-sample optimisation) the terms of its
    norm and update fall away.
    """
    products = d_in * n
    if not released:
        return Cost(6 * products if learned else 4 * products, 5 * n + 2 * d_in, 10 * products * learned)
    if samples is None:
        raise ValueError("samples must be given for the released formula, got None")
    return Cost(6 * products, 3 * n + (2 * d_in + 2 * n) * samples + 10 * products * learned)


def optimisation(d_in: int, n: int, steps: int) -> Cost:
    """(M N + N) + T (4 M N + 2 M + 11 N) a sample, for T steps of Adam on exp-codes: 704 a step at (16, 8).

    Released, for test codes and for the curve with a known dictionary. The same work costs
    `sparse_coding_training(learned=False)` by the rule of the other trainings.
    """
    return Cost(4 * d_in * n * steps, d_in * n + n + (2 * d_in + 11 * n) * steps)


def fista_inference(d_in: int, n: int, iterations: int) -> Cost:
    """T (4 M N + 6 N) a sample: two products, the proximal step and the momentum."""
    return Cost(4 * d_in * n * iterations, 6 * n * iterations)


def lista_inference(d_in: int, n: int, unrolled: int) -> Cost:
    """T (2 M N + 3 N) + (T - 1) (2 N^2 + N) a sample: drive, threshold and ReLU, and what goes from step to step."""
    return Cost(2 * d_in * n * unrolled + 2 * n * n * (unrolled - 1), 3 * n * unrolled + n * (unrolled - 1))
