#!/usr/bin/env python3
"""Write a spoken corpus as a dataset folder that the Hugging Face hub takes.

The folder gets Parquet shards, a dataset card and what the corpus was made
with; it is then loaded with `datasets` and compared with the manifests. A run
that was stopped goes on where it was. Nothing is uploaded.

    python tools/publish_dataset.py results/mini/dataset \
        --name "Mini spoken stories" --license apache-2.0 --sources sources.md \
        --manifests train=results/mini/synthesis/train.parquet \
        --made_by results/mini/synthesis/hyperparams.yaml

`--audio bytes` puts each row's audio into it; `--audio paths` copies each
distinct file once into `audio/`, which is smaller where stories share
sentences. Upload it with: hf upload <name> <folder> --repo-type dataset
"""

import hashlib
import itertools
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from dataset_card import corpus_hours, dataset_card

from speechbrain_slm.utils.atomic import (
    atomic_path,
    remove_temporary,
    write_atomic,
)
from speechbrain_slm.utils.files import read_regular
from speechbrain_slm.utils.hashing import sha256_file
from speechbrain_slm.utils.jobs import lock_folder, pin
from speechbrain_slm.utils.running import run_script, script_parser
from speechbrain_slm.utils.tables import MANIFEST

GROUP = 200  # rows in a row group, the hub's unit of reading


def parse_arguments(arguments):
    """Read the command line."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="gets the dataset")
    add("--manifests", nargs="+", required=True, metavar="SPLIT=FILE")
    add("--name", required=True, help="title of the card")
    add("--license", required=True, help="the hub's name, such as cc-by-4.0")
    text = "Markdown for the card: texts and voices, and their licences"
    add("--sources", type=Path, required=True, help=text)
    text = "hyperparams.yaml, plan.json, voices.json: what made the corpus"
    add("--made_by", type=Path, nargs="*", default=[], help=text)
    add("--audio", choices=("bytes", "paths"), default="bytes")
    add("--rows_per_shard", type=int, default=5000)
    add("--check", type=int, default=100, help="audio files compared a split")
    return parser.parse_args(arguments)


def read_splits(arguments):
    """Return split -> manifest; refuse what is not one."""
    splits = {}
    for argument in arguments:
        name, _, path = argument.partition("=")
        if not name.isidentifier() or not path.endswith(".parquet"):
            sys.exit(f"error: {argument}: expected SPLIT=FILE.parquet")
        if name in splits or not Path(path).is_file():
            reason = "given twice" if name in splits else "no such file"
            sys.exit(f"error: {argument}: {reason}")
        lacking = set(MANIFEST.names) - set(pq.read_schema(path).names)
        if lacking:
            sys.exit(f"error: {path} lacks {', '.join(sorted(lacking))}")
        if not pq.ParquetFile(path).metadata.num_rows:
            sys.exit(f"error: {path} has no row")
        splits[name] = Path(path)
    return splits


def make_features(path, audio, rate):
    """Say what the hub shall take the columns for."""
    import datasets

    kinds = {field.name: str(field.type) for field in MANIFEST}
    if "text" in pq.read_schema(path).names:
        kinds["text"] = "string"
    features = {name: datasets.Value(kind) for name, kind in kinds.items()}
    if audio == "bytes":
        features["audio"] = datasets.Audio(sampling_rate=rate, decode=True)
    return datasets.Features(features)


def cut(path, rows_per_shard):
    """Yield (shard, rows) of a manifest, a few rows at a time."""
    row = 0
    for batch in pq.ParquetFile(path).iter_batches(GROUP):
        while len(batch):
            shard, done = divmod(row, rows_per_shard)
            part = batch.slice(0, rows_per_shard - done)
            yield shard, part
            row += len(part)
            batch = batch.slice(len(part))


def with_audio(rows, manifest, folder, audio):
    """Put the audio in place of its path, and check that it is the one."""
    for row in rows:
        path = manifest.parent / row["audio"]
        name = f"{row['sha256'][:32]}{path.suffix}"
        content = read_regular(path)
        if hashlib.sha256(content).hexdigest() != row["sha256"]:
            raise SystemExit(
                f"error: {path}: its SHA-256 is not the manifest's "
                f"({manifest}): it was changed. The dataset is not complete."
            )
        if audio == "bytes":
            row["audio"] = {"bytes": content, "path": name}
            continue
        row["audio"] = f"audio/{name[:2]}/{name}"
        if not (folder / row["audio"]).is_file():
            write_atomic(folder / row["audio"], content)
    return rows


def write_shards(split, manifest, schema, options):
    """Write the shards of a split that are not there yet."""
    total = pq.ParquetFile(manifest).metadata.num_rows
    folder, size = options.folder, options.rows_per_shard
    count = -(-total // size)
    parts = cut(manifest, size)
    for shard, batches in itertools.groupby(parts, key=lambda one: one[0]):
        path = folder / "data" / f"{split}-{shard:05d}-of-{count:05d}.parquet"
        if path.is_file():
            continue
        with (
            atomic_path(path) as temporary,
            pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
        ):
            for _, batch in batches:
                rows = batch.select(schema.names).to_pylist()
                rows = with_audio(rows, manifest, folder, options.audio)
                writer.write_table(pa.Table.from_pylist(rows, schema))
        print(path)


def check_dataset(folder, splits, audio, count):
    """Load a dataset as its users will; stop where it is not the manifests.

    Rows are counted in full. `count` audio files a split, evenly spread, are
    compared by their SHA-256, and every column of their rows.
    """
    import datasets

    found = datasets.load_dataset(str(folder), streaming=True)
    if set(found) != set(splits):
        sys.exit(f"error: {folder} loads as {sorted(found)}")
    lines = []
    for split, manifest in splits.items():
        data = found[split]
        if audio == "bytes":
            if not isinstance(data.features["audio"], datasets.Audio):
                sys.exit(f"error: {split}: audio is {data.features['audio']}")
            data = data.cast_column("audio", datasets.Audio(decode=False))
        total = pq.ParquetFile(manifest).metadata.num_rows
        step, rows, compared = max(1, total // max(count, 1)), 0, 0
        for row, expected in zip(data, _rows(manifest), strict=True):
            if rows % step == 0 and compared < count:
                _compare(folder, row, expected, f"{split}, row {rows}")
                compared += 1
            rows += 1
        lines.append(f"{split}: {rows} rows, {compared} audio files compared")
    found = f"{folder} loads with datasets {datasets.__version__}"
    return f"{found}: {'; '.join(lines)}"


def _rows(manifest):
    for batch in pq.ParquetFile(manifest).iter_batches(1000):
        yield from batch.to_pylist()


def _compare(folder, row, expected, where):
    stored = row["audio"]
    paths = not isinstance(stored, dict)
    content = (folder / stored).read_bytes() if paths else stored["bytes"]
    digest = hashlib.sha256(content).hexdigest()
    others = [n for n in row if n != "audio" and row[n] != expected[n]]
    if digest != expected["sha256"] or others:
        sys.exit(
            f"error: {where}: what was loaded is not the manifest's "
            f"({', '.join(others) or 'audio'}); remove the folder and publish "
            "it again"
        )


def main(arguments=None):
    """Write the dataset, then load it."""
    options = parse_arguments(arguments)
    try:
        import datasets  # noqa: F401, before anything is written
    except ImportError:
        sys.exit("error: this needs datasets: pip install datasets")
    splits = read_splits(options.manifests)
    if options.rows_per_shard < 1:
        sys.exit("error: --rows_per_shard: expected 1 or more")
    folder, hours = options.folder, corpus_hours(splits)
    plan = {
        "manifests": {k: sha256_file(path) for k, path in splits.items()},
        "made_by": {p.name: sha256_file(p) for p in options.made_by},
        "audio": options.audio,
        "rows_per_shard": options.rows_per_shard,
    }
    with lock_folder(folder):
        try:
            # Whatever is there and not ours would be uploaded with it.
            pin(folder, plan, "[!.]*")
        except ValueError as error:
            sys.exit(f"error: {error}")
        for inner in folder.glob("**/"):
            remove_temporary(inner)
        rates = {rate for one in hours.values() for rate in one["rates"]}
        rate = rates.pop() if len(rates) == 1 else None
        first = next(iter(splits.values()))
        features = make_features(first, options.audio, rate)
        for split, manifest in splits.items():
            write_shards(split, manifest, features.arrow_schema, options)
        card = dataset_card(options, hours, plan, features)
        write_atomic(folder / "README.md", card)
        print(check_dataset(folder, splits, options.audio, options.check))
        # It would be uploaded.
        (folder / ".lock").unlink()


if __name__ == "__main__":
    run_script(main)
