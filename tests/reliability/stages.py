"""Every stage that works by the common runner, small; and what befalls them.

    python stages.py <stage> <folder>

starts a stage again and again in forks: killed at one call or another that
changes the disk, on a disk that is full, and twice at the same time. Prints as
JSON what each has left. Nothing of torch has run before a fork.
"""

import functools
import importlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pyarrow as pa

if multiprocessing.parent_process() is None:
    # Workers of the synthesis import this file, too: not torch for nothing.
    from speechbrain_slm.utils import pieces
    from speechbrain_slm.utils.hashing import sha256_file
    from speechbrain_slm.utils.jobs import ALL, PARTS, claim, missing, run
    from speechbrain_slm.utils.tables import STORIES, write_table

DISK = ("fsync", "replace", "rename", "remove", "unlink")
# Of whatever happens, all of it shows in these: the rest is for resuming.
FOR_RESUMING = ("parts", "utterances", "features", "manifests")


def toy(inputs, output, share=None, factor=1):
    """Square numbers: the smallest stage that there can be."""
    share, facts = share or ALL, {"factor": factor}
    paths = [output / PARTS / f"{n}.parquet" for n in range(5)]

    def is_done(number):
        found = pieces.find_piece(paths[number])
        return found is not None and found.facts == facts

    def make(number):
        table = pa.table({"square": [factor * number**2]})
        pieces.write_piece(paths[number], table, facts)

    with claim(output / PARTS, share) as place:
        place.pin({"stage": "squares"}, "**/[!.]*.parquet")
        run(missing(range(5), is_done, share), make)
        if share.merges:
            tables = [pieces.read_piece(path).table for path in paths]
            path, schema = output / "a.parquet", tables[0].schema
            with pieces.join_tables(path, schema, tables):
                pass


def corpus(inputs, **options):
    """Return a manifest, made by whoever comes first."""
    from units_example import write_corpus

    path = inputs / "train.parquet"
    return path if path.exists() else write_corpus(inputs, **options)


def fit(inputs, output):
    """Fit a tokenizer."""
    from speechbrain_slm.units import fitting
    from speechbrain_slm.units.manifest import read_manifest
    from speechbrain_slm.units.tokenizers.mel_kmeans import MelKMeans

    fitting.UTTERANCES_PER_SHARD = 8
    table = read_manifest(corpus(inputs), ["en", "fr"])
    with claim(output / ".run"):
        fitting.fit_tokenizer(MelKMeans(8), {"train": table}, output, 4.0, 0)


def encode(inputs, output):
    """From audio to a unit store."""
    from units_example import LoudnessTokenizer, extract

    # What a killed run has left is cut into shards of another size. Not at
    # random: the run that is to be killed makes as many calls as a whole one.
    size = 5 if (output / "utterances").exists() else 3
    tokenizer = LoudnessTokenizer()
    extract(corpus(inputs), output, tokenizer, utterances_per_shard=size)


def write_texts(path, count=9):
    """Write aligned stories of two to four sentences."""
    rows = [
        {
            "story_id": f"story-{number}",
            "sentence": sentence,
            "en": f"Here is sentence {sentence} of {number}.",
            "fr": f"Voici la phrase {sentence} de {number}.",
        }
        for number in range(count)
        for sentence in range(2 + number % 3)
    ]
    fields = [*STORIES, ("en", pa.string()), ("fr", pa.string())]
    write_table(path, pa.Table.from_pylist(rows, schema=pa.schema(fields)))


def translate(inputs, output):
    """Add a language to a table; a story lacks its translation."""
    from speechbrain_slm.stories.translation.parallel import ParallelFile
    from speechbrain_slm.stories.translation.tables import translate_table

    if not (inputs / "both.parquet").exists():
        write_texts(inputs / "both.parquet", 8)
        write_texts(inputs / "a.parquet")
    translate_table(
        inputs / "a.parquet",
        output / "text" / "a.parquet",
        "en",
        "fr",
        ParallelFile(inputs / "both.parquet", "fr", "en"),
        output / PARTS,
        leave_out=["fr"],
        stories_per_shard=2,
        max_rejected=0.2,
    )


def speak(inputs, output):
    """Speak stories; one text is refused."""
    from speech_example import SPEAKERS, Humming

    from speechbrain_slm.speech.synthesis import synthesize
    from speechbrain_slm.speech.utterances import Speech, Trim

    if not (inputs / "train.parquet").exists():
        write_texts(inputs / "train.parquet", 4)
    with claim(output / PARTS):
        synthesize(
            {"train": inputs / "train.parquet"},
            output,
            Speech(
                Humming({"Here is sentence 3 of 2.": "refused"}),
                SPEAKERS,
                ["en", "fr"],
                seed=0,
                trim=Trim(-40.0, 0.05),
                stories_per_shard=2,
            ),
            num_workers=1,
            max_left_out=0.3,
        )


def take_over(inputs, output):
    """Make a manifest of recordings that exist."""
    from speechbrain_slm.speech.imported.rows import Columns
    from speechbrain_slm.speech.imported.spoken import import_spoken

    columns = Columns("story_id", "sentence", "audio", "language", "speaker")
    sources = {"train": [corpus(inputs, stories=6, files=12)]}
    sizes = {"batch_rows": 8, "buckets": 3}
    with claim(output / ".run"):
        import_spoken(sources, output, columns, ["en", "fr"], **sizes)


def read_codes(inputs, output):
    """Read published codes; a row is bad, and one stands twice."""
    from speechbrain_slm.units.character_rows import Columns
    from speechbrain_slm.units.characters import Layout
    from speechbrain_slm.units.imported import import_units
    from speechbrain_slm.units.tokenizers.mimi import Mimi
    from speechbrain_slm.utils.store import StoreWriter

    path, like = inputs / "a.jsonl", inputs / "like"
    if not path.exists():
        told = {"identity": "a", "vocabulary_size": 4, "frame_rate": 12.5}
        config = {"type": "mimi", "num_codebooks": 1, "deduplicate": False}
        told |= {"deduplicated": False, "config": config}
        writer = StoreWriter(like, told, "b", 1)
        writer.write(0, [("a", "en", "", [[1]])])
        writer.finish()
        texts = [chr(0xE000 + n % 4) * (n + 2) for n in range(8)] + ["x"]
        rows = [{"id": n % 8, "text": text} for n, text in enumerate(texts)]
        rows.append(rows[0])
        path.write_text("\n".join(map(json.dumps, rows)))
    import_units(
        {"train": {"en": [str(path)]}},
        output,
        Mimi("nowhere"),
        Layout(1, 4),
        Columns("text", "id"),
        like,
        max_left_out=0.2,
        batch_rows=3,
        stories_per_shard=4,
    )


class Spectrum:
    """An encoder of speakers: the loudness of some bands."""

    identity = "spectrum"
    sample_rate = 16000

    def embed(self, wav):
        bands = np.array_split(np.abs(np.fft.rfft(np.asarray(wav))), 8)
        return np.array([band.mean() for band in bands], dtype=np.float32)


def embed(inputs, output):
    """Embed utterances of each speaker."""
    from speechbrain_slm.speech.voices import check

    manifest = corpus(inputs, stories=6, files=12)
    drawn = check.draw_utterances([manifest], 3, seed=0)
    parts = output / PARTS
    found = check.embed_utterances(drawn, Spectrum(), parts, per_file=3)
    table = pa.table({"all": [str(sorted(found)), str(found)]})
    write_table(output / "found.parquet", table)


def score(inputs, output):
    """Score cloze items."""
    from cloze_example import export, tiny_model, write_items
    from conftest import write_store

    from speechbrain_slm.evaluation.cloze.evaluate import evaluate_cloze

    sources = inputs / "store", inputs / "items.parquet"
    if not (inputs / "old").exists():
        write_store(sources[0])
        write_items(sources[1])
        for name, seed in (("model", 0), ("other", 3)):
            export(inputs / name, tiny_model(seed=seed))
        evaluate_cloze(inputs / "other", *sources, inputs / "old")
    evaluate_cloze(inputs / "model", *sources, output, pairs_per_shard=40)


def align(inputs, output):
    """Compare the hidden states of translations."""
    from alignment_example import write_corpus
    from cloze_example import export

    from speechbrain_slm.evaluation.alignment import evaluate

    if not (inputs / "model").exists():
        write_corpus(inputs, stories=12)
        export(inputs / "model")
    evaluate.evaluate_alignment(
        inputs / "model",
        inputs / "store",
        output,
        ["en", "fr"],
        inputs / "manifest.parquet",
        pairs_per_shard=16,
    )


# How often each is killed; from 100 bytes on, the room on the disk grows by
# what factor; what is imported before the forks, so that it is paid for once.
STAGES = {
    "toy": (toy, 8, 2, ""),
    "fit": (fit, 3, 6, "units_example .units.fitting"),
    "encode": (encode, 4, 3, "units_example"),
    "translate": (translate, 4, 3, ".stories.translation.tables"),
    "speak": (speak, 2, 8, ".speech.synthesis"),
    "take_over": (take_over, 3, 3, "units_example .speech.imported.spoken"),
    "read_codes": (read_codes, 5, 3, ".units.imported .units.tokenizers.mimi"),
    "embed": (embed, 3, 3, "units_example .speech.voices.check"),
    "score": (score, 9, 6, "cloze_example .evaluation.cloze.evaluate"),
    # An array of states alone has 60,000 bytes.
    "align": (align, 2, 8, "cloze_example .evaluation.alignment.evaluate"),
}


def fork(work, kill_at=None, room=None):
    """Start work in a process; return its end: None, or what it died of."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    told = {"calls": 0, "error": None}

    def counted(original, *arguments, **options):
        told["calls"] += 1
        if told["calls"] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    try:
        # The disk of a test machine may take 0.1 s for each, and what a killed
        # process has written is there without.
        os.fsync = lambda descriptor: None
        for name in DISK:
            setattr(os, name, functools.partial(counted, getattr(os, name)))
        if room is not None:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        # Not into a log, which has a limit, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        work()
    except BaseException as error:
        told["error"] = f"{type(error).__name__}: {error}"
    finally:
        os.write(write, json.dumps(told).encode())
        os._exit(0)


def ended(child, read):
    """Wait for a process; return what it has told, None where it was killed."""
    with os.fdopen(read) as file:
        text = file.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else None


def results(folder):
    """Return the SHA-256 of what a stage is for."""
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not set(path.relative_to(folder).parts) & {*FOR_RESUMING, ".run"}
        and path.name not in (".lock", "plan.json")
        # Beside a file of a store until the store is whole.
        and path.suffix != ".sha256"
        # A recipe's own folder is cleaned by whoever locks it.
        and not any(".tmp-" in part for part in path.parts)
    }


def main(name, folder):
    """Try a stage; print what it has left."""
    stage, kills, growth, modules = STAGES[name]
    for module in modules.split():
        importlib.import_module(module, "speechbrain_slm")
    folder = Path(folder)
    (folder / "inputs").mkdir(parents=True)

    def work(place):
        return functools.partial(stage, folder / "inputs", folder / place)

    calls = 0
    for place in ("first", "whole"):  # The first makes the inputs, too.
        told = ended(*fork(work(place)))
        assert told["error"] is None, told["error"]
        calls = told["calls"]
    whole, killed, full = results(folder / "whole"), [], []
    # Of some stages, results of other inputs stand there already.
    old = results(folder / "inputs" / "old")
    for kill_at in sorted({*np.linspace(1, calls, kills, dtype=int).tolist()}):
        shutil.rmtree(folder / "killed", ignore_errors=True)
        if old:
            shutil.copytree(folder / "inputs" / "old", folder / "killed")
        assert ended(*fork(work("killed"), kill_at)) is None
        there = results(folder / "killed")
        # What bears a name of the results is what it will be, or was; and all
        # of them are of one run.
        torn = {
            name
            for name in there.keys() & whole.keys()
            if there[name] not in (whole[name], old.get(name))
            or (there.keys() >= whole.keys() and there not in (whole, old))
        }
        again = ended(*fork(work("killed")))["error"]
        killed.append([sorted(torn), again, results(folder / "killed")])
    room = 100
    while (told := ended(*fork(work("full"), room=room)))["error"]:
        full.append(told["error"])
        room = round(room * growth)
    two = [fork(work("two")) for _ in range(2)]
    two = [ended(*one)["error"] for one in two]
    last = ended(*fork(work("two")))["error"]
    found = {"whole": whole, "killed": killed}
    found["full"] = [full, results(folder / "full")]
    found["two"] = [two, last, results(folder / "two")]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
