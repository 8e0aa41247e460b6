"""Adam on one flat tensor, and the loop that every trainer of this package runs."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from replication.shapes import Float, Tensor


def adam(
    parameters: Float[Tensor, " p"],
    gradient: Float[Tensor, " p"],
    differentiate: Callable[[], None],
    *,
    steps: int,
    lr: float,
    at: Iterable[int] = (),
    record: Callable[[], Any] | None = None,
) -> dict[int, Any]:
    """`steps` steps of Adam (0.9, 0.999, eps 1e-8) on `parameters`, in place; what `record` says at each step of `at`.

    `differentiate` writes the gradient at the present parameters into `gradient`. A step number counts updates done; 0
    is the start. The kernel behind torch.optim.Adam(fused=True) is called without the optimiser around it, which would
    cost as much as the rest of a step of these small problems; a test compares the two. It runs on one thread of a CPU:
    with such short products two threads are slower, a hundred times where another process has the second core, and the
    result does not depend on the number of cores. FloatingPointError if a parameter is not finite at the end.
    """
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}")
    if not 0 < lr < float("inf"):
        raise ValueError(f"lr must be positive and finite, got {lr}")
    at = set(at)
    if at and not 0 <= min(at) <= max(at) <= steps:
        raise ValueError(f"at must lie between 0 and steps={steps}, got {sorted(at)}")
    mean, square, count = torch.zeros_like(parameters), torch.zeros_like(parameters), parameters.new_zeros(())
    constants = {"lr": lr, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8}
    lists = [[one] for one in (parameters, gradient, mean, square)]
    curve = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for step in range(steps + 1):
            if step in at:
                curve[step] = record()
            if step < steps:
                differentiate()
                count += 1
                torch._fused_adam_(*lists, [], [count], amsgrad=False, maximize=False, **constants)
    finally:
        torch.set_num_threads(threads)
    if not parameters.isfinite().all():
        raise FloatingPointError(f"lr={lr}: parameters are not finite after {steps} steps")
    return curve
