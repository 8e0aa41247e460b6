"""Scaling laws: the error of an SAE against latents, active latents and compute. Needs numpy and scipy alone.

A law is a sum of a reducible part and a floor, both power laws; it is fitted to ln(error) by a robust loss from many
random starts, compared with and without its floor by AICc, and its parameters get intervals by resampling runs.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

DELTA = 0.01  # where the Huber loss on ln(error) turns from square to absolute: residuals of 1 %
STARTS = 200
POLISHED = 10  # starts, of STARTS, that are followed to the end: those that are best after FIRST_STEPS
FIRST_STEPS = 15

Terms = Mapping[str, tuple[str, ...]]
"""Parameter -> the variables whose logarithms it multiplies; () for a constant."""


@dataclass(frozen=True, eq=False)
class Law:
    """L = exp(sum_i p_i f_i) + exp(sum_j q_j g_j), every f and g a product of logarithms of variables, or 1.

    The first term is the reducible error, the second the floor; without `floor` it is absent.
    """

    reducible: Terms
    floor: Terms

    @property
    def names(self) -> list[str]:
        """Parameters, in the order of a fit."""
        return [*self.reducible, *self.floor]

    def without_floor(self) -> "Law":
        return replace(self, floor={})

    def reducible_error(self, parameters: Mapping[str, float], **at) -> np.ndarray | float:
        """The first term at the given values of the variables."""
        return np.exp(features(self.reducible, at) @ [parameters[name] for name in self.reducible])

    def floor_error(self, parameters: Mapping[str, float], **at) -> np.ndarray | float:
        """The second term; 0 in a law without floor."""
        exponents = features(self.floor, at) @ [parameters[name] for name in self.floor]
        return np.exp(exponents) if self.floor else np.zeros_like(exponents)

    def error(self, parameters: Mapping[str, float], **at) -> np.ndarray | float:
        """L at the given values of the variables, which broadcast."""
        return self.reducible_error(parameters, **at) + self.floor_error(parameters, **at)

    def slope(self, parameters: Mapping[str, float], variable: str, **at) -> np.ndarray | float:
        """d ln(reducible error) / d ln(variable), where the other variables have the given values."""
        terms = {
            name: tuple(v for v in variables if v != variable)
            for name, variables in self.reducible.items()
            if variable in variables
        }
        return features(terms, at) @ [parameters[name] for name in terms]


POWER = Law({"alpha": (), "beta": ("x",)}, {"zeta": ()})
"""L(x) = e^alpha x^beta + e^zeta: error against latents at one k, or against compute."""

JOINT = Law({"alpha": (), "beta_k": ("k",), "beta_n": ("n",), "gamma": ("k", "n")}, {"zeta": (), "eta": ("k",)})
"""L(n, k) = exp(alpha + beta_k ln k + beta_n ln n + gamma ln k ln n) + exp(zeta + eta ln k) (Gao et al. 2024)."""


def features(terms: Terms, at: Mapping[str, Iterable[float] | float]) -> np.ndarray:
    """(..., terms): for each term the product of the logarithms of its variables."""
    logs = {name: np.log(np.asarray(values, float)) for name, values in at.items()}
    shape = np.broadcast_shapes(*(values.shape for values in logs.values()))
    columns = [math.prod((logs[name] for name in used), start=np.ones(shape)) for used in terms.values()]
    return np.stack(columns, axis=-1) if columns else np.zeros((*shape, 0))


@dataclass(frozen=True, eq=False)
class Fit:
    """A law with parameters, and the errors (points,) and variables, each (points,), that it was fitted to."""

    law: Law
    parameters: dict[str, float]
    observed: np.ndarray
    at: dict[str, np.ndarray]

    @property
    def residuals(self) -> np.ndarray:
        """ln(fitted error) - ln(observed error)."""
        return np.log(self.law.error(self.parameters, **self.at)) - np.log(self.observed)

    @property
    def aicc(self) -> float:
        """AICc of the residuals; the variance of the residuals counts as a parameter."""
        return aicc(self.residuals, len(self.parameters) + 1)


def fit(law: Law, error: Iterable[float], at: Mapping[str, Iterable[float]], seed: int = 0) -> Fit:
    """Parameters that minimise the mean Huber loss (DELTA) of ln L - ln(error), by L-BFGS.

    With a floor the problem has local minima: STARTS random floors between 0 and the lowest error, each with the least-
    squares reducible part that it leaves, a little disturbed; those that are best after FIRST_STEPS iterations are
    followed to the end. Without one the problem is convex, and one start is enough. ValueError if a value is not
    positive and finite, or if the points do not determine the parameters.
    """
    observed = _positive("error", error)
    at = {name: _positive(name, values) for name, values in at.items()}
    for name, values in at.items():
        if len(values) != len(observed):
            raise ValueError(f"{name} has {len(values)} values for {len(observed)} errors")
    if not _determined(law, at):
        raise ValueError(f"{len(observed)} points at {_distinct(at)} places do not determine {', '.join(law.names)}")
    problem = _Problem(law, observed, at)
    if law.floor:
        found = problem.best_of(problem.starts(np.random.default_rng(seed)))
    else:
        found = problem.minimised(problem.start(np.zeros(len(observed))))
    return Fit(law, problem.named(found), observed, at)


def bootstrap(fitted: Fit, seed: int = 0, resamples: int = 200) -> list[Fit]:
    """The law refitted to runs drawn with replacement, each time as many as there are, from the optimum of `fitted`.

    Draws that do not determine the parameters are drawn again. Percentiles of what these fits say are intervals over
    runs, and hold the law's misfit as well as the seeds. The runs of one seed are taken as independent.
    """
    generator, points = np.random.default_rng(seed), len(fitted.observed)
    drawn = []
    while len(drawn) < resamples:
        chosen = generator.integers(points, size=points)
        at = {name: values[chosen] for name, values in fitted.at.items()}
        if _determined(fitted.law, at):
            problem = _Problem(fitted.law, fitted.observed[chosen], at)
            found = problem.minimised(problem.unnamed(fitted.parameters))
            drawn.append(Fit(fitted.law, problem.named(found), problem.observed, at))
    return drawn


def interval(values: Iterable[float]) -> tuple[float, float]:
    """The 2.5th and the 97.5th percentile."""
    low, high = np.percentile(list(values), [2.5, 97.5])
    return float(low), float(high)


def aicc(residuals: np.ndarray, parameters: int) -> float:
    """N ln(sum r^2 / N) + 2 p + 2 p (p + 1) / (N - p - 1), smaller is better (Hurvich and Tsai 1989).

    N residuals, p parameters with the variance of the residuals among them.
    """
    n, p = len(residuals), parameters
    if n <= p + 1:
        raise ValueError(f"AICc of {p} parameters needs more than {p + 1} points, got {n}")
    mean_square = max(float(np.square(residuals).mean()), np.finfo(float).tiny)
    return n * np.log(mean_square) + 2 * p + 2 * p * (p + 1) / (n - p - 1)


def flops_per_token(n: float, d: float, k: float, k_aux: float = 0) -> float:
    """Floating-point operations of one training token of a TopK SAE with sparse kernels: 2 n d + 10 k d + 6 k_aux d.

    The encoder sees every latent (2 n d). Only k latents take part in the decoder's forward pass and in the gradients
    of the decoder, the latents, the encoder and the bias before it (2 k d each). AuxK, where latents are dead, decodes
    k_aux more and takes the gradients of its decoder and latents. Adam is not counted. (Derived from the kernels that
    Gao et al. 2024 describe; how the paper counts compute is not known.)
    """
    return 2 * n * d + 10 * k * d + 6 * k_aux * d


def envelope(
    curves: Iterable[tuple[Iterable[float], Iterable[float]]], at: Iterable[float]
) -> tuple[np.ndarray, np.ndarray]:
    """The lowest of several curves (x, error) at the given x, and the index of the curve that is lowest there.

    Curves are interpolated piecewise-linearly in log-log and not extrapolated: where none has a value, NaN and -1.
    """
    logs = [
        np.interp(np.log(at), np.log(x), np.log(error), left=np.inf, right=np.inf)
        for x, error in ((np.asarray(x, float), np.asarray(error, float)) for x, error in curves)
    ]
    lowest, winner = np.min(logs, axis=0), np.argmin(logs, axis=0)
    known = np.isfinite(lowest)
    return np.where(known, np.exp(np.where(known, lowest, 0)), np.nan), np.where(known, winner, -1)


def tokens_to_converge(tokens: Iterable[float], error: Iterable[float], tolerance: float = 0.01) -> float:
    """The first point of a training curve at which the error is at most (1 + tolerance) times its last value.

    Interpolated piecewise-linearly in log-log. It means something only where the curve has stopped falling.
    """
    x, y = np.log(np.asarray(tokens, float)), np.log(np.asarray(error, float))
    goal = y[-1] + np.log1p(tolerance)
    first = int(np.argmax(y <= goal))
    if first == 0:
        return float(np.exp(x[0]))
    share = (y[first - 1] - goal) / (y[first - 1] - y[first])
    return float(np.exp(x[first - 1] + share * (x[first] - x[first - 1])))


def r_squared(x: Iterable[float], y: Iterable[float]) -> float:
    """1 - sum of squares around the least-squares line of y on x / sum of squares around the mean of y."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    residuals = y - np.polyval(np.polyfit(x, y, 1), x)
    return float(1 - np.square(residuals).sum() / np.square(y - y.mean()).sum())


class _Problem:
    """Mean Huber loss of a law in units of DELTA^2, in coordinates in which each part's features are orthonormal."""

    def __init__(self, law: Law, observed: np.ndarray, at: Mapping[str, np.ndarray]):
        self.law, self.observed, self.log = law, observed, np.log(observed)
        (self.A, self.R), (self.B, self.S) = (_orthonormal(features(part, at)) for part in (law.reducible, law.floor))

    def named(self, coordinates: np.ndarray) -> dict[str, float]:
        p = self.A.shape[1]
        values = [*np.linalg.solve(self.R, coordinates[:p]), *np.linalg.solve(self.S, coordinates[p:])]
        return dict(zip(self.law.names, map(float, values), strict=True))

    def unnamed(self, parameters: Mapping[str, float]) -> np.ndarray:
        parts = ((self.R, self.law.reducible), (self.S, self.law.floor))
        return np.concatenate([matrix @ np.array([parameters[n] for n in names]) for matrix, names in parts if names])

    def loss(self, coordinates: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient."""
        p = self.A.shape[1]
        reducible = self.A @ coordinates[:p]
        total = np.logaddexp(reducible, self.B @ coordinates[p:]) if self.law.floor else reducible
        scaled, share = (total - self.log) / DELTA, np.exp(reducible - total)
        clipped = np.clip(scaled, -1, 1)
        pull = clipped / (DELTA * len(scaled))
        value = (clipped * (scaled - clipped / 2)).mean()  # r^2 / 2 inside, |r| - 1/2 outside
        return value, np.concatenate([self.A.T @ (pull * share), self.B.T @ (pull * (1 - share))])

    def start(self, floor: np.ndarray) -> np.ndarray:
        """Least squares for the reducible part that a floor below every error leaves, without coordinates for it."""
        return self.A.T @ np.log(self.observed - floor) / len(floor)

    def starts(self, generator: np.random.Generator) -> np.ndarray:
        """(STARTS, parameters): random floors, tilted at random along the features of the floor."""
        found = []
        for _ in range(STARTS):
            tilt = np.exp(self.B @ generator.normal(0, 0.2, self.B.shape[1]))
            floor = generator.uniform(0.02, 0.98) * (self.observed / tilt).min() * tilt
            disturbed = self.start(floor) + generator.normal(0, 0.1, self.A.shape[1])
            found.append(np.concatenate([disturbed, self.B.T @ np.log(floor) / len(floor)]))
        return np.array(found)

    def best_of(self, starts: np.ndarray) -> np.ndarray:
        tried = sorted((self._descend(start, FIRST_STEPS) for start in starts), key=lambda result: result.fun)
        return min((self._descend(one.x) for one in tried[:POLISHED]), key=lambda result: result.fun).x

    def minimised(self, start: np.ndarray) -> np.ndarray:
        return self._descend(start).x

    def _descend(self, start: np.ndarray, steps: int = 1000):
        return minimize(
            self.loss, start, jac=True, method="L-BFGS-B", options={"maxiter": steps, "ftol": 1e-12, "gtol": 1e-6}
        )


def _orthonormal(design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns of mean square 1 that span the design, and the matrix that turns parameters into their coordinates."""
    q, r = np.linalg.qr(design)
    scale = np.sqrt(len(design))
    return q * scale, r / scale


def _distinct(at: Mapping[str, np.ndarray]) -> int:
    return len(np.unique(np.stack(list(at.values()), axis=-1), axis=0))


def _determined(law: Law, at: Mapping[str, np.ndarray]) -> bool:
    """As many places as parameters, and features that are not collinear."""
    full = all(np.linalg.matrix_rank(features(part, at)) == len(part) for part in (law.reducible, law.floor))
    return full and _distinct(at) >= len(law.names)


def _positive(name: str, values: Iterable[float]) -> np.ndarray:
    found = np.asarray(values, float)
    bad = found[~(np.isfinite(found) & (found > 0))]
    if len(bad):
        raise ValueError(f"{name} must be positive and finite, got {bad[0]}")
    return found
