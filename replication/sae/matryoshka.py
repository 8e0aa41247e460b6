"""Matryoshka BatchTopK: every prefix of the dictionary is an SAE (Bussmann et al. 2025, arXiv 2503.17547)."""

from itertools import pairwise

from replication.sae.batchtopk import BatchSelection
from replication.shapes import Float, Tensor


def prefix_sizes(d_sae: int, groups: int) -> list[int]:
    """`groups` nested dictionary sizes, each twice the one before: d_sae / 2^(groups - 1), ..., d_sae / 2, d_sae."""
    return [d_sae // 2**halvings for halvings in reversed(range(groups))]


class Matryoshka(BatchSelection):
    """`sparsity` is k, the mean number of active latents per token over the whole dictionary, as in BatchTopK.

    Loss: mean over prefixes m of E|x - recon_m|^2 / scale + aux_coefficient * AuxK. recon_m is b_dec + the first m
    latents @ the first m rows of W_dec; the latents are chosen by BatchTopK over all of them, and AuxK explains the
    residual of the whole dictionary. So the first latents must carry what is general, the last what is specific.

    `groups` is the number of prefixes; their sizes double up to d_sae (`prefix_sizes`). They are decoded cumulatively,
    at the cost of one decode. The other options and eval mode are those of BatchTopK.
    """

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        sparsity: float,
        *,
        groups: int = 5,
        threshold_decay: float = 0.99,
        aux_coefficient: float = 1 / 32,
        k_aux: int | None = None,
        **kwargs,
    ):
        shared = {"threshold_decay": threshold_decay, "aux_coefficient": aux_coefficient, "k_aux": k_aux}
        super().__init__(d_in, d_sae, sparsity, **shared, **kwargs)
        if groups < 1:
            raise ValueError(f"groups must be at least 1, got {groups}")
        if d_sae < 2 ** (groups - 1):
            raise ValueError(f"d_sae must be at least {2 ** (groups - 1)} for groups={groups}, got {d_sae}")
        self.groups = groups

    def reconstructions(self, latents: Float[Tensor, "batch d_sae"]) -> list[Tensor]:
        recon, prefixes = self.b_dec, []
        for begin, end in pairwise([0, *prefix_sizes(self.d_sae, self.groups)]):
            recon = recon + latents[:, begin:end] @ self.W_dec[begin:end]
            prefixes.append(recon)
        return prefixes
