"""A stored SAE is the trained one, is trained once, and is never mistaken for another."""

import os
from dataclasses import replace

import pytest
import torch

from replication import store, train
from replication.activations import Gaussian
from replication.train import Run

RUN = Run(Gaussian(8), "batchtopk", d_sae=16, sparsity=2, tokens=1024, batch=64, lr=3e-3, dead_after=256)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CACHE", tmp_path)
    return tmp_path


def test_what_comes_back_is_what_was_trained(monkeypatch):
    [first] = store.trained([RUN])
    monkeypatch.setattr(train, "_train_together", lambda *_: pytest.fail("trained again"))
    [again] = store.trained([RUN])
    x = torch.randn(32, 8)
    for name in ("sae", "untrained"):
        torch.testing.assert_close(getattr(again, name)(x), getattr(first, name)(x), rtol=0, atol=0)
        assert not getattr(again, name).training
    torch.testing.assert_close(again.mean, first.mean, rtol=0, atol=0)
    assert again.log == first.log and again.run == RUN


def test_stored_runs_come_first_and_only_new_ones_are_trained(monkeypatch):
    list(store.trained([RUN]))
    other, real, asked = replace(RUN, seed=1), train._train_together, []
    monkeypatch.setattr(train, "_train_together", lambda runs, *rest: asked.extend(runs) or real(runs, *rest))
    assert [one.run for one in store.trained([other, RUN])] == [RUN, other] and asked == [other]


def test_another_run_or_other_code_has_another_folder(monkeypatch):
    places = {store.folder(one, "cpu") for one in (RUN, replace(RUN, seed=1), replace(RUN, data_seed=1))}
    monkeypatch.setattr(store, "code_fingerprint", lambda *roots: "other")
    assert len(places | {store.folder(RUN, "cpu")}) == 4


def test_another_device_or_precision_has_another_folder(monkeypatch):
    monkeypatch.setattr(train, "_uses_bf16", lambda device: True)
    places = {store.folder(RUN, "cpu"), store.folder(RUN, "cuda")}
    monkeypatch.setattr(train, "_uses_bf16", lambda device: False)
    assert len(places | {store.folder(RUN, "cpu"), store.folder(RUN, "cuda")}) == 4


def test_of_two_processes_that_train_the_same_run_the_first_to_finish_is_kept():
    [one] = store.trained([RUN])
    log = store.folder(RUN, "cpu") / "log.json"
    before = log.read_bytes()
    store._write(one._replace(log=one.log | {"seconds": -1.0}), "cpu")
    assert log.read_bytes() == before and not list(log.parent.parent.glob("*.partial"))


def test_a_damaged_file_is_named_and_an_interrupted_write_is_redone(folder):
    place = store.folder(RUN, "cpu")
    (place.with_name(f"{place.name}.{os.getpid()}.partial")).mkdir(parents=True)
    list(store.trained([RUN]))
    (place / "sae.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=place.name):
        list(store.trained([RUN]))
