r"""Speed of generation: the key-value cache, vocoder, first audio; as JSON.

    python tools/benchmark/generation.py
    python tools/benchmark/generation.py \
        --model results/quickstart/LM/interleaved_ft/model
    python tools/benchmark/generation.py --lengths 64 --batches 1 --steps 16

The cache: a Qwen2 of the shape of hparams/lm/qwen2_mini.yaml, of 4,000 random
units, draws 512 and 2,048 units behind a prompt of 2, for 1 and 8 prompts at
once. Without the cache a unit costs as much as all that stands before it, so
that only --steps of them are drawn, in 16 places that are evenly spread, and
the time of all follows. Both ways take turns.

The rest: a model folder and its vocoder. Without --model they are of the
quickstart's shape, and of random weights, which take as long.

Keys:

- cached_over_uncached_512, cached_over_uncached_2048: units a second with the
  cache by those without, by CPU time (on a GPU by the clock); the least over
  the batches. By batch in cached_over_uncached.
- units_per_second, units_per_cpu_second: cached and uncached, by batch and
  length; units of all prompts together.
- vocoder_times_real_time: seconds of speech that the vocoder makes a second;
  vocoder_times_real_time_cpu: a CPU second.
- first_audio_seconds: from SpeechLM.from_pretrained to the first chunk of a
  stream behind a prompt of 3 s of audio; first_audio_cpu_seconds.
- load: of the machine (1 minute), before and after. More than the threads
  used means that others shared its cores.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_slm import SpeechLM
from speechbrain_slm.models.decoder import decoder_lm
from speechbrain_slm.models.export import save_speech_lm
from speechbrain_slm.models.generation import generate_units
from speechbrain_slm.models.vocoders.mel import MelVocoder
from speechbrain_slm.units.tokenizers.base import saved_files
from speechbrain_slm.units.tokenizers.mel_kmeans import MelKMeans

ROOT = Path(__file__).parents[2]
SIZE, PLACES, PROMPT, RATE, CLUSTERS = 4000, 16, 2, 16000, 30
SECONDS = 30.0  # of speech that the vocoder makes


def mini_model(longest):
    """Make a model of the mini shape whose context is long enough."""
    torch.manual_seed(0)
    changes = {"vocabulary_size": SIZE, "max_positions": longest + PROMPT + 1}
    with open(ROOT / "hparams/lm/qwen2_mini.yaml", encoding="utf-8") as file:
        return load_hyperpyyaml(file, changes)["model"].eval()


def clocks(device):
    """Return the seconds of the clock and of the CPU, all work done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def timed(device, function, *given, **options):
    """Return what a call returns, and its wall and CPU seconds."""
    begin = clocks(device)
    found = function(*given, **options)
    return found, clocks(device) - begin


def draw(model, batch, length, count, use_cache):
    """Draw units behind prompts of random units."""
    generator = np.random.default_rng(length)
    prompts = generator.integers(0, SIZE, (batch, length))
    return generate_units(
        model,
        [*prompts],
        seeds=range(batch),
        boundary=SIZE,
        max_units=count,
        top_k=25,
        temperature=0.8,
        use_cache=use_cache,
    )


def seconds_of(model, batch, length, steps, device):
    """Return the seconds of drawing ``length`` units, cached and not, [2]."""
    cached, uncached = [], np.zeros(2)
    each = max(1, steps // PLACES)
    for place in range(PLACES):
        begin = PROMPT + round(length * (place + 0.5) / PLACES) - each // 2
        what = model, batch, begin, each, False
        uncached += timed(device, draw, *what)[1] * length / each / PLACES
        if place % (PLACES // 2) == 0:
            what = model, batch, PROMPT, length, True
            cached.append(timed(device, draw, *what)[1])
    return np.mean(cached, axis=0), uncached


def measure_cache(lengths, batches, steps, device):
    """Return what the cache is worth."""
    model = mini_model(max(lengths)).to(device)
    draw(model, 1, PROMPT, 8, True)  # The first call takes longer.
    speeds = {"units_per_second": {}, "units_per_cpu_second": {}}
    ratios = {}
    for batch in batches:
        for length in lengths:
            found = seconds_of(model, batch, length, steps, device)
            for column, name in enumerate(speeds):
                speeds[name][f"batch {batch}, {length} units"] = {
                    way: round(batch * length / one[column], 1)
                    for way, one in zip(
                        ("cached", "uncached"), found, strict=True
                    )
                }
            column = 0 if device == "cuda" else 1
            ratio = found[1][column] / found[0][column]
            ratios.setdefault(length, {})[batch] = round(ratio, 2)
    return {
        **{
            f"cached_over_uncached_{length}": min(of.values())
            for length, of in ratios.items()
        },
        "cached_over_uncached": ratios,
        **speeds,
        "parameters": model.num_parameters(),
    }


def make_folder(folder):
    """Export a model of random weights, with a tokenizer and a vocoder."""
    tokenizer = MelKMeans(num_clusters=CLUSTERS)
    noise = torch.randn(1, RATE * 20, generator=torch.manual_seed(0))
    (frames,) = tokenizer.features(noise, torch.tensor([RATE * 20]))
    tokenizer.fit({"": [frames.numpy()]}, seed=0)
    tokenizer.save(folder / "units")
    told = [tokenizer.identity, ["a"], ["en", "fr"], True, RATE, 25.0, CLUSTERS]
    layers = {"width": 192, "unit_layers": 6, "frame_layers": 6}
    MelVocoder(*told, **layers).save(folder / "vocoder")
    shape = {"hidden_size": 128, "intermediate_size": 384}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    model = decoder_lm("qwen2", CLUSTERS, num_hidden_layers=4, **shape, **heads)
    units = {"tokenizer_identity": tokenizer.identity, "boundary": CLUSTERS}
    units["vocabulary_size"] = CLUSTERS
    files = saved_files(folder / "units", tokenizer.identity)
    vocoder = {"vocoder_folder": folder / "vocoder"}
    save_speech_lm(folder / "model", model.eval(), units, files, **vocoder)
    return folder / "model"


def measure_speech(folder, prompt, vocoder, device):
    """Return how soon there is speech, and how quickly it comes."""

    def first():
        slm = SpeechLM.from_pretrained(folder, device, vocoder=vocoder)
        return slm, next(slm.stream(prompt, seconds=5.0))

    (slm, _), seconds = timed(device, first)
    base = slm.encoder.tokenizer
    count = round(SECONDS * base.frame_rate)
    units = np.random.default_rng(0).integers(0, base.vocabulary_size, count)
    speak = slm.vocoder.speak
    speak([units[:50]])
    spoken, (wall, cpu) = timed(device, speak, [units])
    length = len(spoken[0]) / slm.vocoder.sample_rate
    return {
        "vocoder_times_real_time": round(length / wall, 2),
        "vocoder_times_real_time_cpu": round(length / cpu, 2),
        "vocoder": type(slm.vocoder).__name__,
        "first_audio_seconds": round(seconds[0], 3),
        "first_audio_cpu_seconds": round(seconds[1], 3),
    }


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", type=Path, help="an exported model")
    parser.add_argument("--vocoder", type=Path, help="a vocoder's folder")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    load = [round(os.getloadavg()[0], 2)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.model or make_folder(Path(temporary))
        prompt = Path(temporary) / "prompt.wav"
        noise = np.random.default_rng(0).normal(0, 0.1, RATE * 3)
        soundfile.write(prompt, noise, RATE)
        found = measure_speech(folder, prompt, given.vocoder, given.device)
    how = given.lengths, given.batches, given.steps, given.device
    found |= measure_cache(*how)
    load.append(round(os.getloadavg()[0], 2))
    found |= {"steps": given.steps, "device": given.device}
    found |= {"threads": torch.get_num_threads(), "load": load}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
