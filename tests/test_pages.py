"""What cells call, and the README's scorecard."""

import pandas as pd
import pytest

from replication import pages
from replication.claims import VERDICTS, Verdict
from replication.papers import gao2024
from replication.paths import ROOT


def test_an_unknown_preset_stops_a_page_at_once():
    with pytest.raises(ValueError, match="preset.*'cpuu'"):
        pages.open_page("cpuu")


def test_a_table_shows_mean_and_spread_with_definitions():
    rows = pd.DataFrame({"d_sae": [8, 8, 16], "nmse": [0.1, 0.3, 0.5], "l0": [4.0, 4.0, 4.0]})
    shown = pages.table_of(rows, ["d_sae"], ["nmse", "l0"]).data
    assert "0.200 ± 0.100" in shown and "<td>4.00</td>" in shown and "mean predictor: 1" in shown


@pytest.mark.parametrize(
    "mean, spread, text",
    [
        (0.2, 0.1, "0.200 ± 0.100"),
        (0.2, 0.0001, "0.200"),
        (0.0002, 0.1, "0.000 ± 0.100"),
        (2e-5, 1e-5, "2.0e-05 ± 1.0e-05"),
        (2e-5, 1e-7, "2.0e-05"),
        (0.0, 0.0, "0.000"),
        (466944000.0, 0.0, "466,944,000"),
        (12.34, 0.2, "12.3 ± 0.2"),
        (float("nan"), float("nan"), "–"),
    ],
)
def test_a_number_has_as_many_digits_as_it_can_bear(mean, spread, text):
    assert pages._plus_minus(mean, spread) == text


def test_every_verdict_has_a_colour_dark_enough_for_white_text():
    assert pages.COLOURS.keys() == set(VERDICTS)
    for colour in pages.COLOURS.values():
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
        assert 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05) >= 4.5


def test_a_claim_block_escapes_text_and_marks_stale_rows():
    found = Verdict(
        "p-C1",
        "p",
        "a < b",
        "rule",
        "published",
        "difference",
        0.5,
        [0.25, 0.75],
        "partly",
        "finding",
        "toy",
        "cpu",
        3,
        True,
    )
    block = pages._block(found)
    assert "a &lt; b" in block and "STALE" in block and "[+0.250, +0.750]: difference" in block and "3 seeds" in block
    assert pages.number(found._replace(ours=None, interval=None)) == "–"


def test_a_page_shows_the_claims_it_names():
    shown = pages.verdicts(gao2024.CLAIMS, ["C2", "C13"], "smoke").data
    assert 'id="gao2024-c2"' in shown and 'id="gao2024-c13"' in shown
    assert shown.count("<section") == 2


def test_the_readme_shows_the_committed_scorecard():
    text = (ROOT / "README.md").read_text()
    assert pages.readme_scorecard() in text, "README.md is behind data/results: run `replicate snapshot`"
