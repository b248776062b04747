"""Models of others: whole or refused, and no code of theirs runs."""

import json

import pytest
import torch
from cloze_example import tiny_model
from neural_voices import HIFIGAN, TACOTRON2
from safetensors.torch import load_file, save_file
from speaker_models import ECAPA
from transformers import AutoModelForCausalLM

from speechbrain_slm.utils.pretrained import check_speechbrain_yaml, load_whole


@pytest.fixture
def folder(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    return tmp_path


def change(folder, **tensors):
    """Replace tensors; None removes one."""
    path = folder / "model.safetensors"
    found = {**load_file(path), **tensors}
    found = {key: value for key, value in found.items() if value is not None}
    save_file(found, path, metadata={"format": "pt"})


def configure(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


NORM = "model.layers.0.input_layernorm.weight"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({NORM: None}, rf"weights lack 1 tensor\(s\) \({NORM}\)"),
        ({"further": torch.zeros(2)}, r"have, beyond .* \(further\)"),
        ({NORM: torch.zeros(3)}, rf"in another shape 1 .*\({NORM}\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder, tensors, message):
    change(folder, **tensors)
    with pytest.raises(ValueError, match=message):
        load_whole(AutoModelForCausalLM, folder)


def test_what_a_room_does_not_use_may_be_absent_or_left_over(folder):
    change(folder, **{NORM: None, "further": torch.zeros(2)})
    load_whole(AutoModelForCausalLM, folder, "layernorm", "^further$")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or"):
        load_whole(AutoModelForCausalLM, folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "none of them"}, r"cannot make a model .*KeyError"),
        ({"num_attention_heads": 0}, "cannot make a model of it"),
        ({"attn_implementation": "some/kernel"}, "attention 'some/kernel', c"),
    ],
)
def test_a_configuration_that_makes_no_model_is_named(folder, changes, message):
    configure(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load_whole(AutoModelForCausalLM, folder)


def test_code_beside_the_weights_is_neither_run_nor_offered(
    folder, monkeypatch
):
    code = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    configure(folder, model_type="other", auto_map=code)
    (folder / "code.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")

    def asked(*_):
        raise AssertionError("a question was asked")

    monkeypatch.setattr("builtins.input", asked)
    with pytest.raises(ValueError, match="code of its own, which is never run"):
        load_whole(AutoModelForCausalLM, folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("text", [ECAPA, TACOTRON2, HIFIGAN])
def test_what_speechbrain_publishes_is_read(tmp_path, text):
    path = tmp_path / "hyperparams.yaml"
    path.write_text(text)
    check_speechbrain_yaml(path)


@pytest.mark.parametrize(
    "text",
    [
        "a: !apply:os.system [ls]",
        "a: !<!apply:os.system> [ls]",
        "a: !!python/object/apply:os.system [ls]",
        "%TAG !e! !apply:\n---\na: !e!os.system [ls]",
        "a: !applyref:os.system",
        "a: !include:other.yaml",
        "a: !new:subprocess.Popen [ls]",
        "a: !name:speechbrain.utils.superpowers.run_shell",
        "a: !name:speechbrain.inference.interfaces.foreign_class",
        # What a module of layers has imported.
        "a: !new:speechbrain.nnet.linear.logging.FileHandler [x]",
    ],
)
def test_a_yaml_that_names_more_than_layers_is_refused(tmp_path, text):
    path = tmp_path / "hyperparams.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"hyperparams\.yaml names "):
        check_speechbrain_yaml(path)
    check_speechbrain_yaml(path, trusted=True)
