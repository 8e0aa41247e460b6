"""SAELens (github.com/decoderesearch/SAELens), driven by its `SAETrainer.fit`. See `timing`.

Its defaults: decoder rows of norm 0.1 that stay free, latents rescaled by those norms, clipping, Adam (foreach), AuxK
with coefficient 1, running sparsity. bf16 is its `autocast`.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1]))
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from timing import LR, Case, Subject, drive

ARCHITECTURES = {
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig),
}


def build(case: Case, sample: torch.Tensor) -> Subject:
    architecture, settings = ARCHITECTURES[case.method]
    own = {} if case.method == "jumprelu" else {"k": case.k}
    sae = architecture(settings(d_in=case.d, d_sae=case.n, device=case.device, **own))
    config = SAETrainerConfig(
        total_training_samples=10**9,
        train_batch_size_samples=case.batch,
        lr=LR,
        lr_end=LR,
        device=case.device,
        autocast=case.precision == "bf16",
    )
    trainer = SAETrainer(config, sae, data_provider=iter(()))

    def loop(batches):
        trainer.data_provider = batches
        trainer.fit()

    return Subject(
        loop=loop,
        encoder=lambda: sae.W_enc.T,
        decoder=lambda: sae.W_dec,
        silence=lambda: trainer.n_forward_passes_since_fired,
        limit=config.dead_feature_window,
    )


if __name__ == "__main__":
    drive("sae-lens", version("sae-lens"), build)
