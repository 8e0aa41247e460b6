"""BatchTopK: the k of TopK as a mean over the batch (Bussmann, Leask & Nanda 2024, arXiv 2412.06410)."""

import abc
from typing import ClassVar

import torch

from replication.kernels import keep_largest_of_batch
from replication.sae.auxk import auxiliary_loss, check_auxk, default_k_aux
from replication.sae.base import SAE, Objective, squared_error
from replication.shapes import Float, Int, Tensor


def batch_topk(pre: Float[Tensor, "batch d_sae"], k: float) -> Float[Tensor, "batch d_sae"]:
    """ReLU(pre) where it is among the round(batch * k) largest of the whole batch, else 0; ties in no fixed order."""
    if k * len(pre) < 1:
        raise ValueError(f"batch * sparsity must be at least 1, got sparsity={k} and a batch of {len(pre)}")
    return keep_largest_of_batch(pre.relu(), round(k * len(pre)))


def updated_threshold(
    threshold: Float[Tensor, ""], latents: Float[Tensor, "batch d_sae"], decay: float
) -> Float[Tensor, ""]:
    """decay * threshold + (1 - decay) * min of the positive latents. The first such minimum replaces the initial 0; a
    batch in which nothing fired changes nothing."""
    smallest = latents.masked_fill(latents <= 0, torch.inf).amin().to(threshold.dtype)
    moved = torch.where(threshold > 0, decay * threshold + (1 - decay) * smallest, smallest)
    return torch.where(smallest.isinf(), threshold, moved)


class BatchSelection(SAE):
    """What BatchTopK and its nested form share: training selects over the batch, evaluation by a learned threshold.

    A subclass supplies `reconstructions`; the loss is the mean of their errors over `scale`, plus AuxK.
    """

    scales_with: ClassVar = SAE.scales_with | {"scale": 2, "threshold": 1}
    selects_over_batch = True

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        sparsity: float,
        *,
        threshold_decay: float,
        aux_coefficient: float,
        k_aux: int | None,
        **kwargs,
    ):
        super().__init__(d_in, d_sae, sparsity, **kwargs)
        if sparsity > d_sae:
            raise ValueError(f"sparsity is the mean number of active latents, at most d_sae={d_sae}, got {sparsity}")
        if not 0 <= threshold_decay < 1:
            raise ValueError(f"threshold_decay must be in [0, 1), got {threshold_decay}")
        check_auxk(aux_coefficient, k_aux)
        self.threshold_decay, self.aux_coefficient = threshold_decay, aux_coefficient
        self.k_aux = default_k_aux(d_in) if k_aux is None else k_aux
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("threshold", torch.zeros(()))

    @abc.abstractmethod
    def reconstructions(self, latents: Float[Tensor, "batch d_sae"]) -> list[Tensor]:
        """The reconstructions to compare with the target, each (batch, d_out); the last one uses every latent."""

    def sparsify(self, pre: Float[Tensor, "batch d_sae"], centred: Tensor) -> Float[Tensor, "batch d_sae"]:
        if self.training:
            return batch_topk(pre, self.sparsity)
        return pre.masked_fill(pre <= self.threshold, 0)

    @torch.no_grad()
    def initialise(self, x: Float[Tensor, "n {self.d_in}"], target: Float[Tensor, "n d_out"] | None = None) -> None:
        """As in every SAE; `scale` and a first threshold come from the sample, so an untrained SAE has L0 near k."""
        super().initialise(x, target)
        target = x if target is None else target
        self.scale.copy_((target - target.mean(0)).square().sum(-1).mean())
        latents = batch_topk(self.pre(x[:4096]), self.sparsity)
        self.threshold.copy_(updated_threshold(self.threshold, latents, self.threshold_decay))

    def threshold_form(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.W_enc, self.b_enc, self.threshold.expand(self.d_sae)

    def objective(
        self,
        x: Float[Tensor, "batch d_in"],
        dead: Int[Tensor, " dead"],
        ramp: float | Tensor = 1.0,
        target: Float[Tensor, "batch d_out"] | None = None,
    ) -> Objective:
        target = x if target is None else target
        centred, bias = self.encoder_input(x)
        latents = batch_topk(torch.addmm(bias, centred, self.W_enc), self.sparsity)
        if self.training:
            self.threshold.copy_(updated_threshold(self.threshold, latents.detach(), self.threshold_decay))
        recons = self.reconstructions(latents)
        errors = [squared_error(target, recon) for recon in recons]
        loss = torch.stack(errors).mean() / self.scale
        if self.aux_coefficient and len(dead):
            aux = auxiliary_loss(self, centred, bias, target - recons[-1], dead, self.k_aux)
            loss = loss + self.aux_coefficient * aux
        return Objective(loss, errors[-1].detach(), latents.detach().amax(0) > 0)


class BatchTopK(BatchSelection):
    """`sparsity` is k, the mean number of active latents per token; it may be fractional (Bussmann et al. 2024).

    Training keeps the batch * k largest ReLU(pre) of the whole batch, so that a token takes as many as it needs. Loss:
    E|x - recon|^2 / scale + aux_coefficient * AuxK, `scale` and `k_aux` as in TopK.

    In eval mode a token's latents must not depend on its batch-mates: latents = pre where pre > `threshold`. It is a
    moving average, with decay `threshold_decay`, of the smallest positive pre-activation that each training batch kept
    (the sample that `initialise` sees sets it; before that it is 0, which is a plain ReLU). Call `eval()` before you
    measure.
    """

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        sparsity: float,
        *,
        threshold_decay: float = 0.99,
        aux_coefficient: float = 1 / 32,
        k_aux: int | None = None,
        **kwargs,
    ):
        shared = {"threshold_decay": threshold_decay, "aux_coefficient": aux_coefficient, "k_aux": k_aux}
        super().__init__(d_in, d_sae, sparsity, **shared, **kwargs)

    def reconstructions(self, latents: Float[Tensor, "batch d_sae"]) -> list[Tensor]:
        return [self.decode(latents)]
