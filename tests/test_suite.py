"""A suite is files that give their L0 and FVU again, is made once, and says what is wrong with its folder."""

import csv
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from typer.testing import CliRunner

from replication import cli, formats, store, suite, train
from replication.evaluate.splicing import spliced
from replication.papers.jumprelu2024 import scope
from replication.papers.jumprelu2024.grid import SITES
from replication.suite import site_and_layer, width_name

SMALL = {"tokens": 2**12, "batch": 256, "lr_warmup": 0, "sparsity_warmup": 2**11}


@pytest.fixture(autouse=True)
def own_store_and_little_text(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(suite, "spliced", partial(spliced, blocks=2))


def runs(*sites: str) -> list:
    """Short runs at layer 1 of the smallest language model, two per site."""
    chosen = [run for run in scope.suite("smoke") if site_and_layer(run.source.hook) in [(s, 1) for s in sites]]
    return [replace(run, **SMALL) for run in chosen if run.d_sae == 128]


def test_widths_are_named_as_in_the_release():
    named = {2**14: "16k", 2**15: "32k", 2**16: "65k", 2**17: "131k", 2**18: "262k", 2**19: "524k", 2**20: "1m"}
    assert {width: width_name(width) for width in named} == named
    assert [width_name(width) for width in (512, 1000, 1024, 2048, 3000)] == ["512", "1000", "1k", "2k", "3000"]
    for width in (2**10, 2**11, *named):
        assert formats.gemma_scope_place(f"layer_3/width_{width_name(width)}/average_l0_7").width == width


def test_a_hook_is_a_site_of_a_layer():
    for site, pattern in SITES.items():
        assert site_and_layer(pattern.format(11)) == (site, 11)
    with pytest.raises(ValueError, match=r"hook must be one of .*, got 'blocks\.1\.hook_resid_pre'"):
        site_and_layer("blocks.1.hook_resid_pre")


def test_equal_rounded_l0_gets_decimals():
    first = suite._place("res/layer_1/width_512", 7.31, set())
    second = suite._place("res/layer_1/width_512", 7.28, {f"{first}/params.npz"})
    assert (first, second) == ("res/layer_1/width_512/average_l0_7", "res/layer_1/width_512/average_l0_7.3")


class TestASuite:
    def test_is_saved_indexed_and_read_back(self, tmp_path):
        said, folder = [], tmp_path / "suite"
        records = suite.write(runs("res", "attn"), folder, said.append)
        assert len(records) == 4 and [line.split()[0] for line in said] == ["4", *["made"] * 4, *["checked"] * 4]
        assert json.loads((folder / "index.json").read_text()) == records
        with open(folder / "index.csv", newline="") as file:
            assert [row["path"] for row in csv.DictReader(file)] == [record["path"] for record in records]
        for record in records:
            site, layer, width, l0, name = record["path"].split("/")
            assert (site, layer, width) == (record["site"], "layer_1", "width_128") and name == "params.npz"
            assert l0.startswith("average_l0_") and float(l0.removeprefix("average_l0_")) == pytest.approx(
                record["l0"], abs=0.5
            )
            weights = np.load(folder / record["path"])
            assert set(weights) == {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"}
            assert {value.dtype for value in weights.values()} == {np.dtype("float32")}
            assert weights["W_dec"].shape == (128, 64) and record["training_tokens"] == 2**12
            assert 0 < record["fvu"] < 1 and len(record["subject_fingerprint"]) == 12

    def test_is_made_once_and_mended_where_a_file_is_damaged(self, tmp_path, monkeypatch):
        folder = tmp_path / "suite"
        first = suite.write(runs("mlp"), folder, lambda line: None)
        said = []
        assert suite.write(runs("mlp"), folder, said.append) == first
        assert [line.split()[0] for line in said] == ["checked"] * 2
        (folder / first[0]["path"]).write_bytes(b"damaged")
        monkeypatch.setattr(train, "_train_together", lambda *_: pytest.fail("trained again"))
        said = []
        assert suite.write(runs("mlp"), folder, said.append) == first
        assert [line.split()[0] for line in said] == ["1", "made", "checked", "checked"]

    def test_goes_on_where_it_was_interrupted(self, tmp_path):
        folder = tmp_path / "suite"

        def stop(line: str) -> None:
            if line.startswith("made 1"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            suite.write(runs("mlp"), folder, stop)
        assert len(json.loads((folder / "index.json").read_text())) == 1
        said = []
        assert len(suite.write(runs("mlp"), folder, said.append)) == 2
        assert said[0].startswith("1 of 2 SAEs to make")

    def test_refuses_a_file_that_does_not_measure_as_the_index_says(self, tmp_path):
        folder = tmp_path / "suite"
        [run, _] = runs("mlp")
        [record] = suite.write([run], folder, lambda line: None)
        with pytest.raises(ValueError, match=r"params\.npz: on .* L0 must be within 0% of"):
            suite.check(record | {"l0": 1.01 * record["l0"]}, run.source, folder)
        with pytest.raises(ValueError, match="FVU must be within 0.0001"):
            suite.check(record | {"fvu": record["fvu"] + 0.001}, run.source, folder)

    def test_refuses_a_folder_with_other_things_in_it(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(ValueError, match="holds other files"):
            suite.write(runs("mlp"), tmp_path, print)
        with pytest.raises(ValueError, match="out must be a folder"):
            suite.write(runs("mlp"), tmp_path / "notes.txt", print)
        (tmp_path / "index.json").write_text("[1]")
        with pytest.raises(ValueError, match="not the index of a suite"):
            suite.write(runs("mlp"), tmp_path, print)

    def test_refuses_to_mix_two_suites(self, tmp_path):
        folder = tmp_path / "suite"
        suite.write(runs("mlp")[:1], folder, lambda line: None)
        with pytest.raises(ValueError, match="holds another suite"):
            suite.write(runs("attn")[:1], folder, print)
        with pytest.raises(ValueError, match="must differ"):
            suite.write([*runs("attn")[:1], *runs("attn")[:1]], tmp_path / "other", print)


def test_the_command_makes_the_suite_of_a_preset(tmp_path, monkeypatch):
    small = runs("mlp")
    monkeypatch.setattr(scope, "suite", lambda preset: small if preset == "smoke" else pytest.fail(preset))
    done = CliRunner().invoke(cli.app, ["suite", "--preset", "smoke", "--out", str(tmp_path / "mine")])
    assert done.exit_code == 0 and done.stdout.strip() == f"2 SAEs in {tmp_path / 'mine'}"
    assert len([line for line in done.stderr.splitlines() if line.startswith(("made", "checked"))]) == 4


@pytest.mark.parametrize(
    "arguments, message", [(["--preset", "cpuu"], "preset must be one of"), (["--out", "FILE"], "out must be a folder")]
)
def test_bad_input_is_one_line(tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(cli.app, ["suite", *[str(tmp_path / "file") if a == "FILE" else a for a in arguments]])
    assert done.exit_code == 2 and message in done.stderr and done.stderr.count("\n") == 1
