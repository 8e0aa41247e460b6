"""sparsify (github.com/EleutherAI/sparsify), driven by its `Trainer.fit`. See `timing`.

Its trainer reads activations off a hook of a language model: here the model is a module whose one layer passes the
ready batch on. Adam and AuxK with 1/32, as in the other rows; `--variant defaults` is what it ships (sign SGD in a
schedule-free wrapper, no AuxK). It runs its products in bf16 on a GPU and in fp32 on a CPU, where it decodes by
`embedding_bag` because Triton is absent. The gradient of its AuxK reaches the decoder but not the encoder, whose
backward pass leaves out the pre-activations: somewhat less work than the others do.
"""

import contextlib
import io
import sys
from importlib.metadata import version
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1]))
from timing import LR, Case, Subject, drive

with contextlib.redirect_stdout(io.StringIO()):
    from sparsify import SparseCoderConfig, TrainConfig, Trainer
    from sparsify.utils import decoder_impl


class PassesOn(torch.nn.Module):
    """A language model in the eyes of the trainer: `layer` gives out the next batch."""

    def __init__(self, case: Case):
        super().__init__()
        self.layer, self.device, self.batches = torch.nn.Identity(), torch.device(case.device), None
        self.dummy_inputs = {"input_ids": torch.zeros(1, 1, case.d)}

    @property
    def base_model(self):
        return self

    def forward(self, input_ids):
        return self.layer(next(self.batches).unsqueeze(0) if self.batches else input_ids)


def build(case: Case, sample: torch.Tensor) -> Subject:
    if case.method != "topk":
        raise ValueError(f"sparsify has no {case.method}")
    own = {} if case.variant == "defaults" else {"optimizer": "adam", "auxk_alpha": 1 / 32, "lr": LR}
    config = TrainConfig(
        SparseCoderConfig(num_latents=case.n, k=case.k), batch_size=1, hookpoints=["layer"], log_to_wandb=False, **own
    )
    model = PassesOn(case)
    tokens = [{"input_ids": torch.arange(case.batch)}] * 1000  # how many there are is all that matters
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = Trainer(config, tokens, model)

    def loop(batches):
        model.batches = batches
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.fit()

    return Subject(
        loop=loop,
        encoder=lambda: trainer.saes["layer"].encoder.weight,
        decoder=lambda: trainer.saes["layer"].W_dec,
        silence=lambda: trainer.num_tokens_since_fired["layer"],
        limit=config.dead_feature_threshold,
    )


if __name__ == "__main__":
    shipped = "defaults" in sys.argv
    note = "sign SGD, schedule-free, no AuxK" if shipped else f"Adam; {decoder_impl.__name__}"
    drive("eai-sparsify" + ", defaults" * shipped, version("eai-sparsify"), build, note)
