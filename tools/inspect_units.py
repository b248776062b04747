"""Verify a unit store and say what is in it and how good its units are.

python tools/inspect_units.py results/mini/units/train
python tools/inspect_units.py results/mini/units/train \
    --manifest results/mini/synthesis/train.parquet

Every file is compared with its SHA-256 first. A manifest adds hours and units
a second and, where it has a `text` column, the unit edit distance of one
sentence in two voices. --phones adds phone-normalised mutual information; it
takes a table (Parquet or CSV) with a row a phone: story_id, sentence,
language, start (seconds from the beginning of the sentence) and phone, for
stores that have a unit a frame. Everything but the counts and the codebook's
use is measured on stories drawn by a seed.
"""

import json

from speechbrain_slm.units.inspection import inspect_store
from speechbrain_slm.utils.running import run_script, script_parser


def report(record):
    """Write what was found for people."""
    info, codebook = record["store"], record["codebook"]
    tokenizer = info["tokenizer"]
    config = tokenizer["config"]
    made = "de-duplicated" if tokenizer["deduplicated"] else "a unit a frame"
    lines = [
        f"{record['folder']}: all {len(info['files'])} files are whole",
        f"store {info['identity']}",
        f"tokenizer {tokenizer['identity']}",
        f"  {json.dumps(config, ensure_ascii=False)}",
        f"  {tokenizer['frame_rate']:g} Hz, {made}, vocabulary of "
        f"{codebook['vocabulary_size']}",
        "",
        "language speaker     stories  sentences        units   hours units/s",
    ]
    for row in record["spoken"]:
        time = "      -       -"
        if "hours" in row:
            time = f"{row['hours']:7.2f} {row['units_per_second']:7.2f}"
        lines.append(
            f"{row['language']:8} {row['speaker'] or '(several)':10} "
            f"{row['stories']:8,} {row['sentences']:10,} {row['units']:12,} "
            f"{time}"
        )
    lines += ["", "codebook     perplexity  dead"]
    uses = {"all": codebook, **codebook["languages"]}
    lines += [
        f"{name:12} {use['perplexity']:10.1f} {use['dead']:5,}"
        for name, use in uses.items()
    ]
    for language, found in record["languages"].items():
        lines += ["", f"{language}, on {found['stories']:,} stories"]
        lines += [f"  {line}" for line in _quality(found)]
    lines += ["", "sample"]
    for sample in filter(None, record["sample"]):
        units = " ".join(map(str, sample["units"]))
        more = f" and {sample['more']} more" if sample["more"] else ""
        text = f" {sample['text']}" if sample["text"] else ""
        lines.append(
            f"  {sample['story_id']} {sample['language']} "
            f"{sample['speaker'] or '(several)'}:{text}\n    {units}{more}"
        )
    return "\n".join(lines)


def _quality(found):
    if "sentence_lengths" in found:
        values = found["sentence_lengths"].items()
        yield "units a sentence: " + ", ".join(
            f"{float(share):.0%} {value:g}" for share, value in values
        )
    if "deduplication_ratio" in found:
        share = found["deduplication_ratio"]
        yield f"share that de-duplication would leave: {share:.3f}"
    if found.get("units_per_frame"):
        share = found["units_per_frame"]
        yield f"units a frame (de-duplication, pieces): {share:.3f}"
    if "speaker_nmi" in found:
        yield f"NMI with the speaker (0 is best): {found['speaker_nmi']:.3f}"
    if "pnmi" in found:
        yield f"PNMI (1 is best): {found['pnmi']:.3f}"
    voices = found.get("voices", {"pairs": 0})
    if voices["pairs"]:
        ratio = "-" if voices["ratio"] is None else f"{voices['ratio']:.3f}"
        yield (
            f"unit edit distance, same sentence in two voices: "
            f"{voices['same_sentence']:.3f}; other sentences: "
            f"{voices['other_sentence']:.3f}; ratio (0 is best): {ratio} "
            f"({voices['pairs']:,} pairs)"
        )


def main(arguments):
    """Print what is in a store."""
    parser = script_parser(__doc__)
    parser.add_argument("store", help="a folder with a store.json")
    parser.add_argument("--manifest", help="what the store was made of")
    parser.add_argument("--phones", help="when each phone begins")
    text = "rows to measure quality on"
    parser.add_argument("--stories", type=int, default=5000, help=text)
    parser.add_argument("--seed", type=int, default=1986, help="of their draw")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(arguments)
    if options.stories < 1:
        raise ValueError(f"--stories is {options.stories}; expected 1 or more")
    record = inspect_store(
        *(options.store, options.manifest, options.phones),
        *(options.stories, options.seed),
    )
    print(json.dumps(record) if options.json else report(record))


if __name__ == "__main__":
    run_script(main)
