"""The card of a published dataset: what the hub shows, and reads."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import yaml

_SIZES = {
    **{1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K"},
    **{1e6: "100K<n<1M", 1e7: "1M<n<10M", 1e8: "10M<n<100M"},
}


def corpus_hours(splits):
    """Count rows and seconds of manifests, in batches.

    Returns split -> {rows, seconds: {(language, speaker): s}, rates}.
    """
    found = {}
    names = ["language", "speaker", "num_samples", "sample_rate"]
    for split, path in splits.items():
        seconds, rates, rows = Counter(), set(), 0
        for batch in pq.ParquetFile(path).iter_batches(65536, columns=names):
            columns = [batch.column(name).to_pylist() for name in names]
            for language, speaker, samples, rate in zip(*columns, strict=True):
                seconds[language, speaker] += samples / rate
            rates |= set(columns[-1])
            rows += len(batch)
        found[split] = {"rows": rows, "seconds": seconds, "rates": rates}
    return found


def dataset_card(options, hours, plan, features):
    """Return the text of README.md."""
    total = sum(one["rows"] for one in hours.values())
    languages = sorted({k[0] for one in hours.values() for k in one["seconds"]})
    size = next((name for top, name in _SIZES.items() if total < top), "n>100M")
    files = [{"split": s, "path": f"data/{s}-*.parquet"} for s in hours]
    several = len(languages) > 1
    header = {
        "pretty_name": options.name,
        "license": options.license,
        "language": languages,
        "multilinguality": "translation" if several else "monolingual",
        "size_categories": [size],
        "tags": ["speech", "stories", "sentence-aligned"],
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {
            "features": features._to_yaml_list(),
            **_sizes(options.folder, hours),
        },
    }
    text = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    where = "`audio` holds the file's bytes."
    if options.audio == "paths":
        where = "`audio` is a path in this folder; rows may share a file."
    parts = [
        f"---\n{text}---\n\n# {options.name}\n",
        "A row is a spoken sentence: sentence `i` of a story says the same in "
        f"every language. {where}\n",
        _hours_table(hours, languages),
        "## Sources, voices and licences\n\n"
        + options.sources.read_text(encoding="utf-8").strip()
        + "\n",
        _how(options.made_by, plan),
    ]
    return "\n".join(parts)


def _sizes(folder, hours):
    """Say how large the splits are, which the loader compares."""
    splits, download = [], 0
    for split, one in hours.items():
        size = 0
        for path in (folder / "data").glob(f"{split}-*.parquet"):
            found = pq.read_metadata(path)
            groups = range(found.num_row_groups)
            size += sum(found.row_group(n).total_byte_size for n in groups)
            download += path.stat().st_size
        entry = {"name": split, "num_bytes": size, "num_examples": one["rows"]}
        splits.append(entry)
    return {
        "splits": splits,
        "download_size": download,
        "dataset_size": sum(entry["num_bytes"] for entry in splits),
    }


def _hours_table(hours, languages):
    splits, speakers = {}, {}
    for split, one in hours.items():
        row = f"{split} | {one['rows']}"
        for (language, speaker), seconds in one["seconds"].items():
            for table, name in ((splits, row), (speakers, speaker)):
                cells = table.setdefault(name, Counter())
                cells[language] += seconds / 3600
    lines = ["## Hours"]
    for head, table, names in (
        ("split | rows", splits, splits),
        ("speaker", speakers, sorted(speakers)),
    ):
        width = head.count("|") + 1 + len(languages)
        lines += ["", f"| {head} | {' | '.join(languages)} |"]
        lines.append("|" + " --- |" * width)
        for name in names:
            cells = [f"{table[name][language]:.2f}" for language in languages]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _how(made_by, plan):
    lines = ["## How it was made\n"]
    lines += [
        f"- `{split}`: manifest with SHA-256 `{digest}`"
        for split, digest in plan["manifests"].items()
    ]
    for path in map(Path, made_by):
        content = path.read_text(encoding="utf-8").splitlines()
        lines += ["", f"`{path.parent.name}/{path.name}`:\n"]
        lines.append(f"```{path.suffix.lstrip('.')}")
        # Comments name the folders of the machine that it was made on.
        lines += [s for s in content if s.strip() and not s.startswith("#")]
        lines.append("```")
    return "\n".join([*lines, ""])
