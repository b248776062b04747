import json
import os

import pytest
from cloze_example import export, tiny_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from speechbrain_slm.models.export import (
    examine_speech_lm,
    load_speech_lm,
    save_speech_lm,
)
from speechbrain_slm.utils.atomic import read_json, write_json
from speechbrain_slm.utils.hashing import sha256_file

UNITS = {
    "tokenizer_identity": "codebook-a",
    "vocabulary_size": 30,
    "boundary": 30,
    "language_tags": {},
}


@pytest.fixture
def folder(tmp_path):
    return export(tmp_path / "model")


def unseal(folder, name=None, **changes):
    """Change a JSON file of an export that has no record of its files."""
    (folder / "files.json").unlink(missing_ok=True)
    if name:
        write_json(folder / name, {**read_json(folder / name), **changes})
    return folder


def test_a_torn_description_is_named(folder):
    path = folder / "units.json"
    assert load_speech_lm(folder)[1] == UNITS
    path.write_text(path.read_text()[:20])
    with pytest.raises(ValueError, match=r"units\.json is not valid JSON"):
        load_speech_lm(folder)


def test_language_tags_are_kept(tmp_path):
    tags = {"fr": 31, "en": 32}
    model = tiny_model(tags=2)
    folder = export(tmp_path / "tagged", model, language_tags=tags)
    assert load_speech_lm(folder)[1] == {**UNITS, "language_tags": tags}


def test_what_transformers_saves_anew_is_still_a_speech_lm(
    folder, tmp_path, caplog
):
    again = tmp_path / "again"
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(again)
    assert not (again / "units.json").exists()
    assert load_speech_lm(again)[1] == UNITS
    assert "has no files.json" in caplog.text
    config = read_json(again / "config.json")
    del config["speech_units"]
    write_json(again / "config.json", config)
    with pytest.raises(FileNotFoundError, match="no 'speech_units'"):
        load_speech_lm(again)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_flipped_bit_is_found(folder, name):
    content = bytearray((folder / name).read_bytes())
    place = content.find(b"1e-06") if name == "config.json" else -1001
    content[place] ^= 0x01
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"is not the model .* {name} diff"):
        load_speech_lm(folder)


def test_weights_that_the_record_does_not_list_are_refused(folder):
    files = read_json(folder / "files.json")
    del files["model.safetensors"]
    write_json(folder / "files.json", files)
    with pytest.raises(ValueError, match=r"not list model\.safetensors"):
        load_speech_lm(folder)


def test_weights_of_another_folder_are_refused(folder, tmp_path):
    weights = folder / "model.safetensors"
    (tmp_path / "other.safetensors").write_bytes(weights.read_bytes())
    names = dict.fromkeys(load_file(weights), "../other.safetensors")
    weights.rename(folder / "decoy.safetensors")
    unseal(folder)
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {}, "weight_map": names},
    )
    with pytest.raises(ValueError, match=r"names '\.\./other\.safetensors'"):
        load_speech_lm(folder)
    write_json(folder / "adapter_config.json", {})
    with pytest.raises(ValueError, match="an adapter of weights"):
        load_speech_lm(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "units.json"])
def test_a_file_that_is_gone_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"exported: {name} is not there"):
        load_speech_lm(folder)


def test_a_card_may_be_edited_and_files_be_added(tmp_path):
    folder = tmp_path / "model"
    tokenizer = {"tokenizer.json": b'{"identity": "codebook-a"}'}
    save_speech_lm(folder, tiny_model(), UNITS, tokenizer, "# A model\n")
    (folder / "README.md").write_text("# Another name\n")
    (folder / "notes.txt").touch()
    load_speech_lm(folder)
    (folder / "tokenizer" / "tokenizer.json").write_bytes(b"{}" * 13)
    with pytest.raises(ValueError, match=r"tokenizer/tokenizer\.json differs"):
        load_speech_lm(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boundary": 0}, "of 30 units, boundary is 0; expected 30"),
        ({"vocabulary_size": 29}, "of 29 units, boundary is 30; expected 29"),
        ({"language_tags": {"en": 3}}, r"language_tags is \[3\]; expected \["),
        ({"language_tags": {"en": 31}}, "vocab_size in config.json is 31; exp"),
        ({"boundary": "30"}, "boundary is '30'; expected an integer"),
        ({"vocabulary_size": True}, "vocabulary_size is True; expected an int"),
        ({"language_tags": ["en"]}, r"language_tags is \['en'\]; expected an"),
        ({"tokenizer_identity": None}, "tokenizer_identity is None; expected"),
    ],
)
def test_units_that_do_not_fit_the_model_are_named(folder, changes, message):
    unseal(folder, "config.json", speech_units={**UNITS, **changes})
    unseal(folder, "units.json", **changes)
    with pytest.raises(ValueError, match=rf"units\.json: .*{message}"):
        load_speech_lm(folder)


@pytest.mark.parametrize("content", ["[]", "{}", "3", '"units"'])
def test_units_of_another_shape_are_named(folder, content):
    (folder / "units.json").write_text(content)
    with pytest.raises(ValueError, match=r"units\.json: "):
        load_speech_lm(folder)


def test_two_descriptions_that_differ_are_refused(folder):
    unseal(folder, "units.json", tokenizer_identity="codebook-b")
    with pytest.raises(ValueError, match=r"and config\.json beside it"):
        load_speech_lm(folder)


def test_weights_that_lack_a_tensor_are_refused(folder):
    model = tiny_model()
    weights = model.state_dict()
    del weights["model.norm.weight"]
    model.save_pretrained(folder, state_dict=weights)
    unseal(folder, "config.json", speech_units=UNITS)
    with pytest.raises(ValueError, match=r"lack 1 .*model\.norm\.weight"):
        load_speech_lm(folder)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_pipe_is_not_waited_for(folder, name):
    unseal(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ValueError, match=rf"{name} is a pipe"):
        load_speech_lm(folder)


def test_identity_is_of_weights_configuration_and_units(folder, tmp_path):
    _, found = examine_speech_lm(folder)
    assert found["model"] == sha256_file(folder / "model.safetensors")
    # By which release it was saved does not count.
    unseal(folder, "config.json", transformers_version="0")
    assert examine_speech_lm(folder)[1] == found
    unseal(folder, "config.json", rms_norm_eps=0.5)
    other = examine_speech_lm(folder)[1]
    assert other["model"] == found["model"]
    assert other["configuration"] != found["configuration"]
    units = {**UNITS, "tokenizer_identity": "codebook-b"}
    unseal(folder, "config.json", rms_norm_eps=1e-6, speech_units=units)
    unseal(folder, "units.json", **units)
    assert examine_speech_lm(folder)[1] not in (found, other)


def test_each_file_of_weights_counts(folder):
    before = examine_speech_lm(unseal(folder))[1]
    (folder / "model-2.safetensors").write_bytes(b"two")
    assert examine_speech_lm(folder)[1]["model"] != before["model"]
    for path in folder.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no .*safetensors"):
        examine_speech_lm(folder)


def test_a_model_that_is_replaced_while_it_is_loaded(folder, tmp_path):
    _, identity = examine_speech_lm(folder)
    unseal(folder, "config.json", rms_norm_eps=0.5)
    with pytest.raises(ValueError, match="was replaced while it was loaded"):
        load_speech_lm(folder, identity)
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 31
