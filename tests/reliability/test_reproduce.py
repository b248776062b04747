"""The full-size YAML files fit each other: the whole chain, on 60 stories.

They are run as they stand. What a hub or a host would give are small models of
random weights under the hub's names, and a chat server on loopback; what is
scaled is the number of tokens.
"""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from chat_server import chat_server
from neural_voices import save_pocket
from processes import ROOT
from speaker_models import save_ecapa
from tiny_models import save_mimi
from tinystories_example import SEPARATOR, story_text
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
)

from speechbrain_slm.evaluation.generation.results import read_results
from speechbrain_slm.stories.cleaning import MARKUP
from speechbrain_slm.stories.grammar.grammar import StoryGrammar
from speechbrain_slm.stories.sources import RawStory
from speechbrain_slm.stories.text import _prepare, draw_split
from speechbrain_slm.utils.config import load_yaml

RECIPES = ROOT / "recipes"
SEED = 1986  # that of text/hparams/full.yaml
SHARES = {"valid": 0.005, "test": 0.005}
WANTED = {"train": 44, "valid": 11, "test": 5}
TEXT_LMS = {"Qwen/Qwen2-0.5B": "qwen2", "meta-llama/Llama-3.2-1B": "llama"}
SPEAKERS = ["alba", "anna", "charles", "eve", "george", "jane", "mary", "paul"]


def write_stories(folder):
    """Write 60 stories, of which those shares take some for each split."""
    rules = load_yaml(ROOT / "hparams" / "languages" / "en.yaml")["rules"]
    left, texts = dict(WANTED), []
    for story in StoryGrammar.load().generate(4000, "train", 0, ["en"]):
        text = story_text(story)
        raw = RawStory(None, {"en": text}, "")
        name = _prepare(raw, "tinystories", {"en": rules}, 2, MARKUP)
        split = draw_split(SEED, name.story_id, SHARES)
        if name.left_out is None and left[split]:
            left[split] -= 1
            texts.append(text)
    assert not any(left.values()), left
    folder.mkdir()
    parts = {"train": texts[:-6], "valid": texts[-6:]}
    for split, part in parts.items():
        content = "".join(f"{text}\n{SEPARATOR}\n" for text in part)
        (folder / f"TinyStories-{split}.txt").write_text(content, "utf-8")


def write_models(folder):
    """Save what the hub has, under its names."""
    torch.manual_seed(0)
    shape = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64}
    shape |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 1, "max_position_embeddings": 4096}
    for name, kind in TEXT_LMS.items():
        config = AutoConfig.for_model(kind, **shape)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    # Its perplexity is taken of what the models say.
    words = Tokenizer(models.WordLevel({"?": 0, "the": 1}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")
    tokenizer.save_pretrained(folder / "meta-llama" / "Llama-3.2-1B")
    # Of two channels: an hour and a half is encoded.
    mimi = {"codebook_size": 2048, "num_quantizers": 8, "num_filters": 2}
    save_mimi(folder / "kyutai" / "mimi", **mimi)
    save_ecapa(folder / "speechbrain" / "spkrec-ecapa-voxceleb")
    save_pocket(folder / "kyutai" / "pocket-tts", speakers=SPEAKERS)


def reproduce(folder, *arguments):
    """Run the script, and return what it printed."""
    script = ["bash", str(ROOT / "tools" / "reproduce.sh")]
    own = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    # torch.compile does nothing then: C++ for these models takes minutes.
    own |= {"TORCH_COMPILE_DISABLE": "1"}
    own |= {"OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [*script, "--folder", folder, "--python", sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
        env={**os.environ, **own},
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.slow
def test_the_full_size_chains(tmp_path):
    write_stories(tmp_path / "data")
    write_models(tmp_path / "models")
    given = ["--scale", "1e-6", "--gpus", "0"]
    given += ["--models", str(tmp_path / "models")]
    with chat_server() as (url, server):
        given += ["--chat", url]
        reproduce(tmp_path, "--size", "360M", "--runs", "interleaved", *given)
        asked = len(server.requests)
        # Up to the LM all is there now: no story is translated anew. Of the
        # run of a single step, since each is of 614,400 tokens.
        given += ["--until", "alignment"]
        reproduce(tmp_path, "--size", "1B", "--runs", "en", *given)
        assert len(server.requests) == asked
    results = tmp_path / "results" / "TinyStories"
    for run in ("360M/interleaved", "1B/en"):
        cloze = results / "cloze" / run / "results.json"
        records = json.loads(cloze.read_text())["records"]
        pairs = {(r["metric"], r["direction"]) for r in records}
        assert pairs >= {
            (metric, direction)
            for metric in ("sSC", "sTC")
            for direction in ("en", "fr", "en>fr", "fr>en")
        }
        folder = results / "alignment" / run
        assert (folder / "pairs.parquet").is_file()
    folder = results / "continuation" / "360M" / "interleaved"
    info, rows = read_results(folder)
    measures = {one["measure"] for one in info["records"]}
    assert measures >= {"units", "seconds", "in_language_heard"}
    # Of two words or more it has a perplexity; what babble is heard as may
    # have one.
    assert all(info[name] for name in ("text_lm", "recognizer", "vocoder"))
    assert all("nll" in row for row in rows)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "--size is ''; expected mini, 360M or 1B"),
        (
            "--size 360M --until report",
            "--until is 'report'; expected one of",
        ),
        ("--size mini --runs all", "--runs names 'all'; expected en fr"),
        ("--size mini --scale 0", "--scale is '0'; expected a number above 0"),
        ("--size mini --gpu 1", "'--gpu' is not known"),
    ],
)
def test_wrong_options(arguments, told):
    script = ["bash", str(ROOT / "tools" / "reproduce.sh")]
    done = subprocess.run(
        [*script, *arguments.split()], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert told in done.stderr


@pytest.mark.parametrize("size", ["mini", "360M"])
def test_a_scale_is_of_what_the_yaml_files_say(size, tmp_path):
    told = reproduce(
        tmp_path,
        *("--size", size, "--scale", "2", "--runs", "en_fr", "--gpus", "0"),
        "--print",
    )
    scaled = [("vocoder", "steps"), ("continuation", "num_prompts")]
    # The mini vocoder is not listened to.
    scaled += [("vocoder", "judged")] if size == "360M" else []
    for recipe, key in scaled:
        script = f"/{recipe}/train.py"
        (line,) = (one for one in told.splitlines() if script in one)
        (yaml,) = re.findall(r"\S+\.yaml", line)
        (found,) = re.findall(rf"{key}:? (\d+)", line)
        text = (ROOT / yaml).read_text("utf-8")
        (expected,) = re.findall(rf"^ *{key}: (\d+)", text, re.MULTILINE)
        assert int(found) == 2 * int(expected)
