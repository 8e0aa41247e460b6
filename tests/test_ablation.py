"""Sparsity of effects: values that anyone can check, and latents whose effect is known."""

import math

import pytest
import torch

from replication.evaluate import ablation
from replication.evaluate.ablation import GAUSSIAN, SPAN, ablation_sparsity, effect_sparsity
from replication.evaluate.downstream import subject
from replication.papers.gao2024.grid import SOURCES
from replication.sae import TopK

SOURCE = SOURCES["smoke"]


def test_one_logit_is_the_sparsest_effect():
    effect = torch.zeros(1, 4, 10)
    effect[0, 2, 3] = -5
    assert effect_sparsity(effect).item() == pytest.approx(1 / 40)


def test_a_constant_magnitude_is_the_densest_effect():
    sign = torch.tensor([-1.0, 1]).repeat(8)
    effect = torch.cat([sign, torch.zeros(1)]).expand(1, 3, 17)  # the median, the value in the middle, is 0
    assert effect_sparsity(effect).item() == pytest.approx(16 / 17)


def test_by_hand():
    """3, 4 and zeros: (3 + 4)^2 / (9 + 16) over five entries."""
    assert effect_sparsity(torch.tensor([[[3.0, 4, 0, 0, 0]]])).item() == pytest.approx(49 / 25 / 5)


def test_gaussian_effects_give_two_over_pi():
    effect = torch.randn(1, SPAN, 8192, generator=torch.Generator().manual_seed(0))
    assert effect_sparsity(effect).item() == pytest.approx(GAUSSIAN, abs=0.005) and math.isclose(GAUSSIAN, 2 / math.pi)


def test_a_constant_on_all_logits_of_a_position_and_the_scale_do_not_count():
    generator = torch.Generator().manual_seed(0)
    effect = torch.randn(2, 3, 101, generator=generator)
    moved = 7 * effect + torch.randn(2, 3, 1, generator=generator)
    torch.testing.assert_close(effect_sparsity(moved), effect_sparsity(effect), rtol=1e-4, atol=1e-5)
    assert effect_sparsity(torch.ones(1, 3, 5)).item() == 0


def sae(width: int, n: int, k: int, seed: int = 0) -> TopK:
    one = TopK(width, n, k, generator=torch.Generator().manual_seed(seed), normalisation="gao")
    return one.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def measured() -> tuple[TopK, dict]:
    width = subject(SOURCE).width(SOURCE.hook)
    one = sae(width, 128, 8)
    return one, ablation_sparsity(one, sae(width, 128, 8, seed=1), SOURCE, positions=8)


def test_every_number_is_a_share(measured):
    kinds = {
        f"effect_{name}{end}"
        for name in ("residual", "reconstruction", "channels", "untrained")
        for end in ("", "_here")
    }
    assert measured[1].keys() == kinds
    assert all(1 / (SPAN * 8192) < value < 1 for value in measured[1].values())


def test_equal_seeds_give_equal_numbers_and_others_do_not(measured):
    one, before = measured
    assert ablation_sparsity(one, one, SOURCE, positions=8)["effect_residual"] == pytest.approx(
        before["effect_residual"]
    )
    assert ablation_sparsity(one, one, SOURCE, seed=1, positions=8)["effect_residual"] != before["effect_residual"]


def test_the_share_of_a_latent_is_what_the_reconstruction_lacks_without_it(measured):
    one, _ = measured
    places = ablation._places(SOURCE, 0, 8, "cpu")
    place, latent = ablation._active(one, places, 2, torch.Generator().manual_seed(0))
    assert len(place) == 16 and place.bincount().tolist() == [2] * 8
    raw = places.activations[place, places.at[place]]
    x, _, undo = one.normalise(raw)
    latents = one(x).latents
    assert (latents[torch.arange(16), latent] > 0).all()
    without = latents.scatter(1, latent[:, None], 0)
    expected = one.reconstruct(raw) - undo(one.decode(without))
    torch.testing.assert_close(ablation._share(one, places, place, latent), expected, rtol=1e-4, atol=1e-4)


def test_effects_are_those_of_a_plain_forward_pass():
    """One latent at one place, without batches, cuts or sorting."""
    model, places = subject(SOURCE), ablation._places(SOURCE, 0, 8, "cpu")
    number, taken = 5, torch.randn(1, model.width(SOURCE.hook), generator=torch.Generator().manual_seed(0))
    at, tokens = int(places.at[number]), places.tokens[number : number + 1]
    changed = places.activations[number : number + 1].clone()
    changed[0, at] -= taken[0]
    with torch.no_grad():
        effect = model.logits(tokens, {SOURCE.hook: lambda _: changed}) - model.logits(tokens)
    assert effect[0, :at].abs().max() < 1e-4  # nothing before the place changes
    expected = [effect_sparsity(effect[:, at : at + span]).item() for span in (SPAN, 1)]
    found = ablation._sparsity(SOURCE, places, torch.tensor([number]), taken)
    assert found == pytest.approx(expected, rel=1e-3)


def test_places_leave_room_for_an_effect_and_avoid_the_first_token():
    places = ablation._places(SOURCE, 3, 16, "cpu")
    assert places.at.min() >= 1 and places.at.max() <= SOURCE.context - SPAN
    assert (places.at.diff() >= 0).all() and len(places.tokens.unique(dim=0)) == len(places.tokens) == 16


def test_logits_follow_from_the_activations_at_all_positions():
    model, places = subject(SOURCE), ablation._places(SOURCE, 0, 8, "cpu")
    rows, span = torch.arange(8)[:, None], places.at[:, None] + torch.arange(SPAN)
    torch.testing.assert_close(places.logits, model.logits(places.tokens)[rows, span], rtol=1e-4, atol=1e-4)
    zero = ablation._with(SOURCE, places, torch.zeros_like(places.activations))
    expected = model.logits(places.tokens, {SOURCE.hook: torch.zeros_like})[rows, span]
    torch.testing.assert_close(zero.logits, expected, rtol=1e-4, atol=1e-4)


def test_nothing_to_take_away_is_an_error():
    places = ablation._places(SOURCE, 0, 8, "cpu")
    with pytest.raises(ValueError, match="no latent is active"):
        ablation._sparsity(SOURCE, places, torch.empty(0, dtype=torch.long), torch.empty(0, 64))
