"""dictionary-learning (github.com/saprmarks/dictionary_learning), driven by its `trainSAE`. See `timing`.

Its own loop: geometric-median start, projection, clipping, Adam (foreach), learning-rate schedule, unit norm, AuxK and
dead counters. `threshold_start_step=0` turns the moving average of the inference threshold on, as it is after its first
1,000 steps. bf16 is its `autocast_dtype`, which it ignores on a CPU.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1]))
from dictionary_learning.trainers import BatchTopKTrainer, JumpReluTrainer, TopKTrainer
from dictionary_learning.training import trainSAE
from timing import LR, Case, Subject, drive

TRAINERS = {"topk": TopKTrainer, "batchtopk": BatchTopKTrainer, "jumprelu": JumpReluTrainer}


def build(case: Case, sample: torch.Tensor) -> Subject:
    own = {"target_l0": case.k} if case.method == "jumprelu" else {"k": case.k, "threshold_start_step": 0}
    trainer = TRAINERS[case.method](
        steps=10**6, activation_dim=case.d, dict_size=case.n, layer=0, lm_name="none", lr=LR, device=case.device, **own
    )
    precision = torch.bfloat16 if case.precision == "bf16" else torch.float32

    def loop(batches):
        config = [{"trainer": lambda: trainer}]
        trainSAE(batches, config, steps=10**6, device=case.device, autocast_dtype=precision)

    return Subject(
        loop=loop,
        encoder=lambda: trainer.ae.W_enc.T if case.method == "jumprelu" else trainer.ae.encoder.weight,
        decoder=lambda: trainer.ae.W_dec if case.method == "jumprelu" else trainer.ae.decoder.weight.T,
        silence=lambda: trainer.num_tokens_since_fired,
        limit=trainer.dead_feature_threshold,
    )


if __name__ == "__main__":
    drive("dictionary-learning", version("dictionary-learning"), build)
