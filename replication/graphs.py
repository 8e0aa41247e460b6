"""CUDA graphs: a step's few hundred small launches recorded once and replayed with one."""

from collections.abc import Callable

import torch

from replication.shapes import Tensor


class Recorder:
    """Records graphs into one pool of memory: they run one after the other, and nothing in it outlives a replay.

    It keeps every graph, so that the pool lives as long as the recorder does: a pool whose last graph is gone is freed,
    and its handle must not be used again.
    """

    def __init__(self):
        self.graphs: list[torch.cuda.CUDAGraph] = []

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` would do on the GPU, without doing it; returns the function that does it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.graphs[0].pool() if self.graphs else None):
            work()
        self.graphs.append(graph)
        return graph.replay


class Replayed:
    """`work(x, dead)`, replayed from a graph per length of the padded list of dead latents.

    A graph reads and writes fixed places, so both arguments are copied into buffers that stay. Lists are padded with
    `d_sae` to a multiple of d_sae / 16 (and of 128: at odd widths the matrix products fall to slow kernels), so that
    few graphs serve a whole run. The first call of a length runs as it is, which compiles and allocates what a
    recording may not.
    """

    def __init__(self, work: Callable[[Tensor, Tensor], None], d_sae: int, record: Callable):
        self.work, self.d_sae, self.record = work, d_sae, record
        self.multiple = 128 * max(1, d_sae // 16 // 128)
        self.x: Tensor | None = None
        self.dead: dict[int, Tensor] = {}
        self.replay: dict[int, Callable[[], None]] = {}

    def __call__(self, x: Tensor, dead: Tensor) -> None:
        if self.x is None:
            self.x = torch.empty_like(x)
        self.x.copy_(x)
        length = -(-len(dead) // self.multiple) * self.multiple
        new = length not in self.dead
        if new:
            self.dead[length] = torch.empty(length, dtype=dead.dtype, device=dead.device)
        listed = self.dead[length]
        listed.fill_(self.d_sae)[: len(dead)] = dead
        if new:
            self.work(self.x, listed)
            return
        if length not in self.replay:
            self.replay[length] = self.record(lambda: self.work(self.x, listed))
        self.replay[length]()
