"""What a CUDA graph needs of a step, checked without one: fixed buffers, padded lists, state in place."""

import torch

from replication import train as training
from replication.activations import Gaussian
from replication.graphs import Replayed
from replication.train import Run

RUN = Run(
    Gaussian(8),
    "topk",
    d_sae=300,
    sparsity=3,
    tokens=40 * 32,
    batch=32,
    lr=1e-2,
    dead_after=256,
    sparsity_warmup=320,
    lr_warmup=320,
    ema=0.9,
)


def test_lists_are_padded_and_one_recording_serves_a_length():
    seen, recorded = [], []

    def record(work):
        recorded.append(work)
        return work

    step = Replayed(lambda x, dead: seen.append((x, dead.clone())), d_sae=300, record=record)
    for length in (0, 3, 5, 130, 5):
        step(torch.full((2, 2), float(length)), torch.arange(length))
    assert [len(dead) for _, dead in seen] == [0, 128, 128, 256, 128] and len(recorded) == 1
    assert seen[4][1][:5].tolist() == [0, 1, 2, 3, 4] and (seen[4][1][5:] == 300).all()
    assert len({x.data_ptr() for x, _ in seen}) == 1


def test_replayed_training_equals_plain_training(monkeypatch):
    monkeypatch.setattr(training, "_uses_bf16", lambda device: False)  # in bf16 many are equal: which one, is not fixed
    batches = list(RUN.source.batches(RUN.batch, RUN.tokens, seed=0))
    plain, replayed = (training._Trainee(RUN, torch.cat(batches), "cpu") for _ in range(2))
    recorded = []
    replayed.advance = Replayed(replayed._advance, RUN.d_sae, record=lambda work: recorded.append(1) or work)
    storage = [weight.data_ptr() for weight in replayed.sae.parameters()]
    for x in batches:
        plain.step(x)
        replayed.step(x)
    assert recorded and plain.silent.max() >= RUN.dead_after  # AuxK ran from a padded list
    assert storage == [weight.data_ptr() for weight in replayed.sae.parameters()]
    for ours, theirs in zip(replayed.sae.parameters(), plain.sae.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
