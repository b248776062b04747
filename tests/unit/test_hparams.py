"""The YAML files of the LM recipe: one a size, in which the runs stand."""

from pathlib import Path

import pytest

from speechbrain_slm.utils.command_line import parse_arguments
from speechbrain_slm.utils.config import load_yaml
from speechbrain_slm.utils.yaml_tree import ConfigurationError

HPARAMS = Path(__file__).parents[2] / "recipes/TinyStories/LM/hparams"
RUNS = ["en", "fr", "en_fr", "interleaved", "interleaved_ft"]
SIZES = ("mini", "360M", "1B")
MINE = "[{steps: 3, mixture: {en: 1, fr: 2}}]"


def load(folder, name, *arguments):
    """Load what a file says of its data; the model needs a store."""
    yaml_file, _, overrides = parse_arguments([str(HPARAMS / name), *arguments])
    text = Path(yaml_file).read_text("utf-8").split("vocabulary_size:")[0]
    (folder / "data.yaml").write_text(text)
    return load_yaml(folder / "data.yaml", overrides)


def test_there_is_a_file_for_every_size():
    assert {path.stem for path in HPARAMS.glob("*.yaml")} == set(SIZES)


@pytest.mark.parametrize("size", SIZES)
def test_a_run_is_chosen_by_its_name(tmp_path, size):
    hparams = load(tmp_path, f"{size}.yaml", "--run", "interleaved_ft")
    assert list(hparams["runs"]) == RUNS
    assert hparams["stages"] == hparams["runs"]["interleaved_ft"]
    assert hparams["output_folder"].endswith("/interleaved_ft")
    assert [set(stage["mixture"]) for stage in hparams["stages"]] == [
        {"en"},
        {"interleaved"},
        {"en", "fr"},
    ]


def test_a_run_of_ones_own(tmp_path):
    mine = [{"steps": 3, "mixture": {"en": 1, "fr": 2}}]
    for arguments in (
        ("--runs", f"{{mine: {MINE}}}", "--run", "mine"),
        ("--stages", MINE, "--run", "mine"),
    ):
        hparams = load(tmp_path, "mini.yaml", *arguments)
        assert hparams["stages"] == mine
        assert hparams["output_folder"] == "results/mini/LM/mine"
    with pytest.raises(
        ValueError, match=r"run is 'mine'; expected one of runs"
    ):
        load(tmp_path, "mini.yaml", "--run", "mine")


def test_the_full_sizes_differ_in_their_model_alone():
    one, two = (
        (HPARAMS / f"{size}.yaml").read_text("utf-8") for size in SIZES[1:]
    )
    one = one.replace("360M", "1B").replace("qwen2_0.5b", "llama3.2_1b")
    assert one == two


# ------------------------------------------------------------------- old names
@pytest.mark.parametrize("run", RUNS)
def test_the_file_of_a_run_leads_to_that_of_its_size(tmp_path, capsys, run):
    hparams = load(tmp_path, f"360M_{run}.yaml", "--seed", "3")
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"360M_{run}.yaml is called" in told
    assert f"360M.yaml --run {run} now" in told
    assert (hparams["run"], hparams["seed"]) == (run, 3)


def test_other_names_lead_nowhere(tmp_path):
    for name in ("mini_english.yaml", "small_en.yaml", "mini.yml", "en.yaml"):
        with pytest.raises(ConfigurationError, match="there is no such YAML"):
            parse_arguments([str(HPARAMS / name)])
    # Another run than the one that its file was for.
    with pytest.raises(ConfigurationError, match="--run is given twice"):
        load(tmp_path, "mini_en.yaml", "--run", "en_fr")
