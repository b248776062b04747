"""What the report reads, made up."""

import itertools
import json

import numpy as np
import pyarrow as pa
import soundfile
from results_example import INFO

from speechbrain_slm.evaluation.cloze.accuracy import accuracy_of
from speechbrain_slm.utils.atomic import write_json
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.tables import MANIFEST, write_table

DIRECTIONS = ("en", "fr", "en>fr", "fr>en")
TEXTS = {"en": "Tom & <b>Lily</b> went home.", "fr": "L'été, « ça va » ?"}


def record(metric, direction, wins, scoring="whole_mean", n=600):
    credits = np.arange(n) < wins
    return {
        **{"metric": metric, "direction": direction, "scoring": scoring},
        **{"n": n, "ties": 0, "chance": 50.0, **accuracy_of(credits, 0)},
    }


def make_run(folder, name, cross, **changes):
    """Write the files of a run; ``cross`` is its cross-lingual wins."""
    wins = dict(zip(DIRECTIONS, (420, 410, cross, cross + 12), strict=True))
    results = {**INFO, "model": f"weights-{name}", "scores": "scores"}
    results["records"] = [
        record(metric, direction, count, scoring)
        for metric in ("sSC", "sTC")
        for direction, count in wins.items()
        for scoring in ("whole_mean", "ending_sum")
    ]
    results["cross_lingual"] = [
        record(metric, "cross_lingual", cross + 6) for metric in ("sSC", "sTC")
    ]
    cloze, lm = folder / "cloze" / name, folder / "LM" / name
    for path in (cloze, lm):
        path.mkdir(parents=True)
    write_json(cloze / "results.json", {**results, **changes})
    lines = []
    for step in range(10, 2001, 10):
        loss = 3 + 4 * np.exp(-step / 300) + 0.05 * np.sin(step)
        lines.append({"step": step, "loss": loss, "lr": 1e-3, "tokens": step})
        if step % 200 == 0:
            valid = {"en": loss + 0.1, "fr": loss + 0.3}
            lines.append({"step": step, "valid": valid})
    log = "".join(json.dumps(line) + "\n" for line in lines)
    (lm / "train_log.jsonl").write_text(log)
    training = {"steps": 2000, "parameters": 1_974_720, "seconds": 301.5}
    training["tokens"] = {"en": 1_000_000, "fr": 990_000, "boundary": 5}
    write_json(lm / "run.json", training)
    return f"{name}={lm}:{cloze}"


def make_manifest(folder, stories=5):
    generator = np.random.default_rng(0)
    rows = []
    spoken = ("prompt", 0), ("prompt", 1), ("right", 0), ("wrong", 0)
    for story, said, language in itertools.product(
        range(stories), spoken, TEXTS
    ):
        part, sentence = said
        name = f"{story}-{part}-{language}-{sentence}.wav"
        samples = generator.integers(-9, 9, 800, np.int16)
        soundfile.write(folder / name, samples, 16000)
        sound = ("alto", name, 800, 16000, "-", TEXTS[language])
        rows.append((f"test-{story:06d}.{part}", sentence, language, *sound))
    schema = MANIFEST.append(pa.field("text", pa.string()))
    path = folder / "cloze.parquet"
    columns = list(map(list, zip(*rows, strict=True)))
    write_table(path, pa.table(columns, schema=schema))
    return path


def make_alignment(folder, margin):
    """Write what the alignment recipe leaves, for two languages."""
    records = []
    for voice, layer in itertools.product(("same", "different"), range(3)):
        rates = {"p1_forward": 0.2, "p1_backward": 0.3, "mexa": 0.1}
        values = {"cosine": 0.4, "margin": margin * layer}
        ends = {
            f"{name}{end}": value + step
            for name, value in (values | rates).items()
            for end, step in (("", 0), ("_low", -0.05), ("_high", 0.05))
        }
        matched = {k: v for k, v in ends.items() if k.startswith(tuple(rates))}
        records.append(
            {
                **{"source_language": "en", "target_language": "fr"},
                **{"voice": voice, "pooling": "last", "layer": layer, "n": 9},
                **{"mismatched": 0.1, "cka": 0.5, "cka_mismatched": 0.1},
                **ends,
                "retrieval_matched": {**matched, "chance": 0.1},
            }
        )
    pair = {"languages": ["en", "fr"], "texts_known": True, "items": 9}
    pair |= {"paired": 9, "voices": ["same"], "left_out": 0, "ambiguous": 0}
    told = {"format": "speechbrain_slm.alignment", "version": 1, "gallery": 10}
    told |= {"level": "sentence", "languages": [pair], "records": records}
    folder.mkdir(parents=True)
    write_json(folder / "alignment.json", told)
    return folder


def make_continuations(folder, stories=5, **changes):
    """Write what the continuation recipe leaves, of the manifest's stories."""
    rows = []
    generator = np.random.default_rng(0)
    (folder / "audio").mkdir(parents=True)
    for story, direction in itertools.product(range(stories), DIRECTIONS):
        asked = direction[-2:]
        name = f"audio/{story}-{direction[:2]}-{asked}.flac"
        soundfile.write(
            folder / name, generator.integers(-9, 9, 700, np.int16), 16000
        )
        steered = "last_sentence" if ">" in direction else "free"
        rows.append(
            {
                **{"story_id": f"test-{story:06d}.prompt", "sample": 0},
                **{"direction": direction, "steered_by": steered},
                **{"asked": asked, "language": "fr", "heard_language": "fr"},
                **{"prompt_languages": [direction[:2], asked], "audio": name},
                **{"transcript": f"Il {story} & <i>dort</i>", "units": [1, 2]},
                **{"nearest": "L'été <b>vient</b>.", "seconds": 0.04},
                **changes,
            }
        )
    table = folder / "continuations.parquet"
    write_table(table, pa.Table.from_pylist(rows))
    told = {"format": "speechbrain_slm.continuation", "version": 1}
    told |= dict.fromkeys(("model", "tokenizer", "units"), "identity")
    told |= {"prompts": {"prompt_seconds": None}, "sampling": {}}
    told |= {"continuations": sha256_file(table)}
    told["records"] = [
        {
            **{"direction": direction, "measure": measure, "n": stories},
            **{"value": 61.7, "low": 55.5, "high": 70.0},
        }
        for measure in ("in_language", "units")
        for direction in (*DIRECTIONS, "cross_lingual")
    ]
    write_json(folder / "results.json", told)
    return folder
