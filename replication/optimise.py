"""One step of Adam under an SAE's constraints: decoder rows on the unit sphere, gradients along the rows removed."""

import torch

from replication import kernels
from replication.sae import SAE
from replication.shapes import Float, Tensor


class Adam:
    """Adam on every parameter of an SAE.

    The reference is `SAE.before_step` (projection), torch's fused Adam and `SAE.after_step` (unit norm). Where Triton
    does the work, one pass over each matrix does all three and writes the bfloat16 copy of W_enc that the next encoder
    product reads; vectors are left to torch.
    """

    def __init__(self, sae: SAE, beta1: float, beta2: float, eps: float, *, shadow: bool):
        self.sae, self.constants = sae, {"beta1": beta1, "beta2": beta2, "eps": eps}
        on_gpu = sae.W_dec.is_cuda
        self.lr = torch.zeros((), device=sae.W_dec.device)
        self.rows = {}  # name -> latent-major views of weight and both moments
        if kernels.uses_triton(sae.W_dec):
            for name, weight in (("W_enc", sae.W_enc.T), ("W_dec", sae.W_dec)):
                self.rows[name] = weight.detach(), torch.zeros_like(weight), torch.zeros_like(weight)
            sae.shadow = sae.W_enc.detach().T.bfloat16() if shadow else None
        self.others = {name: weight for name, weight in sae.named_parameters() if name not in self.rows}
        if "W_enc" in self.others:  # the same memory, contiguous: torch would copy the transposed one at every step
            self.others["W_enc"] = torch.nn.Parameter(sae.W_enc.detach().T)
        self.adam = torch.optim.Adam(
            self.others.values(),
            lr=self.lr if on_gpu else 0.0,
            betas=(beta1, beta2),
            eps=eps,
            fused=True,
            capturable=on_gpu,
        )

    def step(self, scalars: Float[Tensor, "3"]) -> None:
        """One step on the gradients that are there, which are then gone. `scalars`: lr, 1 - beta1^t, 1 - beta2^t.

        On a GPU they are read there, so that a captured graph can be replayed with others.
        """
        if self.lr.is_cuda:
            self.lr.copy_(scalars[0])
        else:
            self.adam.param_groups[0]["lr"] = scalars[0].item()
        if not self.rows:
            self.sae.before_step()
        for name, weight in self.others.items():
            grad = self.sae.get_parameter(name).grad
            weight.grad = grad.T if name == "W_enc" else grad
        self.adam.step()
        for name, (weight, mean, square) in self.rows.items():
            grad = self.sae.get_parameter(name).grad
            is_decoder = name == "W_dec"
            kernels.adam_rows_(
                weight,
                grad if is_decoder else grad.T,
                mean,
                square,
                scalars,
                **self.constants,
                unit_rows=is_decoder and self.sae.unit_norm,
                shadow=None if is_decoder else self.sae.shadow,
            )
        if not self.rows:
            self.sae.after_step()
        self.sae.clamp_parameters()
        self.adam.zero_grad(set_to_none=True)
        self.sae.zero_grad(set_to_none=True)
