"""Print what each run of the LM recipe trains on, read from the YAML files.

python tools/budget.py
python tools/budget.py recipes/TinyStories/LM/hparams/mini.yaml \
    --units_folder results/mini/units
python tools/budget.py --mfu 0.492 --gpus 4

Nothing is built or looked up: the budgets are those of the stages, rounded to
whole steps. Without units they are nominal: a mixture's weights are shares of
its stage's tokens, a source of n languages gives each 1/n of its own, and
story boundaries count for the language of their story. With --units_folder
the units that each language really gets are counted, and how often that
passes over the stores. With --mfu, measured on a card, hours and memory of
GPUs are estimated for the YAML files that name its peak_tflops: no time is
lost between the GPUs, and a larger model reaches the same MFU.
"""

import functools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechbrain_slm.dataio.plan import Stage, TokenPlan
from speechbrain_slm.dataio.reader import open_stores
from speechbrain_slm.dataio.settings import check_sources, check_stages
from speechbrain_slm.utils.numbers import check_number
from speechbrain_slm.utils.ranges import check_ranges
from speechbrain_slm.utils.running import run_script, script_parser
from speechbrain_slm.utils.yaml_tree import resolve, tag_of

HPARAMS = Path(__file__).parents[1] / "recipes/TinyStories/LM/hparams"
KEYS = ("run", "seed", "sources", "stages", "row_length", "rows_per_step")
KEYS += ("packing", "language_tags")
SIZES = ("mini", "360M", "1B")
MIMI = 2048  # units, where the YAML file leaves it to the store


def read_runs(path: str | Path) -> Iterator[dict]:
    """Yield the values of ``KEYS`` for each run; no object is made."""
    tree = resolve(path)
    check_ranges(tree, path)
    absent = [key for key in KEYS if key not in tree]
    if absent:
        raise ValueError(
            f"{path} sets no {', '.join(absent)}; expected a YAML file of the "
            "LM recipe"
        )
    # Stages of its own take the place of those in the table.
    own = not tag_of(tree["stages"])
    runs = {tree["run"]: tree["stages"]} if own else tree["runs"]
    for run, stages in runs.items():
        yield {key: tree[key] for key in KEYS} | {"run": run, "stages": stages}


def nominal_budget(path: str | Path, settings: dict) -> dict:
    """Compute the budget of a run of ``read_runs`` from its YAML file alone."""
    sources, row_length = settings["sources"], settings["row_length"]
    try:
        check_sources(sources, settings["language_tags"])
        used = check_stages(settings["stages"], sources)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    stages, languages = [], Counter()
    for stage in settings["stages"]:
        found = Stage(stage, used, row_length, settings["rows_per_step"])
        stages.append({"steps": found.steps, "mixture": dict(stage["mixture"])})
        for name, rows in zip(used, found.shares.tolist(), strict=True):
            among = sources[name]["languages"] if rows else ()
            for language in among:
                languages[language] += rows * row_length / len(among)
    steps = sum(stage["steps"] for stage in stages)
    return {
        "run": settings["run"],
        "size": Path(path).stem,
        "stages": stages,
        "steps": steps,
        "tokens": steps * row_length * settings["rows_per_step"],
        "languages": {name: round(languages[name]) for name in languages},
    }


def exact_counts(settings: dict, units_folder: str | Path) -> dict:
    """Count what a run trains on, from the units themselves.

    ``passes`` are the units of a language by those that its stores hold.
    """
    # No other source's units need be there.
    names = check_stages(settings["stages"], settings["sources"])
    used = {name: settings["sources"][name] for name in names}
    stores = open_stores(used, units_folder, "train")
    settings = {key: settings[key] for key in KEYS if key != "run"}
    plan = TokenPlan(stores, **{**settings, "sources": used})
    counts = plan.count(plan.num_steps)
    held = defaultdict(dict)  # a store once, in however many sources it stands
    for name, source in used.items():
        for language in source["languages"]:
            units = stores[name].info["counts"][language]["units"]
            held[language][str(stores[name].folder)] = units
    passes = {one: counts[one] / sum(held[one].values()) for one in held}
    return {"counts": counts, "passes": passes}


@functools.cache  # the runs of a size have it in common
def estimate(path: str | Path, mfu: float, gpus: int) -> dict:
    """Estimate what several GPUs do and hold; empty without their peak.

    Memory: weights, gradients, AdamW's two moments and DDP's buckets in fp32,
    and what a micro-batch keeps for the backward pass.
    """
    tree = resolve(path)
    if not tree.get("peak_tflops"):
        return {}
    import torch

    from speechbrain_slm.brains.options import fewest_parts
    from speechbrain_slm.models.decoder import decoder_lm, flops_per_token

    rows, length = tree["rows_per_step"], tree["row_length"]
    if rows % gpus:
        raise ValueError(
            f"{path}: rows_per_step is {rows}, which {gpus} GPUs do not "
            "divide; choose another number for --gpus"
        )
    share = rows // gpus
    at_most = tree.get("micro_batch_rows", share)
    parts = tree.get("grad_accumulation_factor", fewest_parts(share, at_most))
    micro = share // parts
    fragment = dict(tree["lm"]["model"])
    fragment["vocabulary_size"] = fragment["vocabulary_size"] or MIMI
    with torch.device("meta"):
        model = decoder_lm(**{**fragment, "warm_start": None})
    speed = mfu * tree["peak_tflops"] * 1e12 / flops_per_token(model, length)
    copies = 4 if gpus == 1 else 5
    fixed = 4 * copies * sum(weight.numel() for weight in model.parameters())
    checkpointing = fragment.get("activation_checkpointing", False)
    memory = fixed + micro * length * kept_per_token(model, checkpointing)
    return {
        "gpus": gpus,
        "tokens_per_second": round(speed),
        "micro_rows": micro,
        "memory_GB": memory / 2**30,
    }


def kept_per_token(model: Any, checkpointing: bool) -> float:
    """Count the bytes that a token's forward pass keeps, in bf16."""
    config, layers = model.config, model.config.num_hidden_layers
    width, heads = config.hidden_size, config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or width // heads
    queries, keys = heads * head_dim, config.num_key_value_heads * head_dim
    # Two residuals in fp32 and their norms; queries, keys and values before
    # and after the rotation, and attention's output; gate, up, their product.
    layer = 12 * width + 4 * (queries + 2 * keys) + 2 * queries
    layer += 6 * config.intermediate_size
    if checkpointing:  # the residuals, and one layer anew
        layers, layer = 1, layer + 4 * layers * width
    # The logits are there in bf16, and in fp32 for the loss, twice.
    return layers * layer + 10 * config.vocab_size


def quantity(tokens: int) -> str:
    """Write a number of tokens: ``46.08 B``, ``0.82 M``, ``-`` for none."""
    size, unit = (1e9, "B") if tokens >= 1e9 else (1e6, "M")
    return f"{tokens / size:.2f} {unit}" if tokens else "-"


def describe(stage: dict) -> str:
    """Write a stage in words: ``30,000 en + fr (1:1)``."""
    weights = {name: w for name, w in stage["mixture"].items() if w > 0}
    text = f"{stage['steps']:,} {' + '.join(weights)}"
    if len(weights) > 1:
        text += f" ({':'.join(f'{weight:g}' for weight in weights.values())})"
    return text


def markdown(records: list[dict]) -> str:
    """Lay out budgets as a table, with exact counts in all or in none."""
    languages = sorted({name for r in records for name in r["languages"]})
    header = ["size", "run", "stages, in steps", "steps", "tokens", *languages]
    exact = "counts" in records[0]
    header += [f"{name}: units, passes" for name in languages if exact]
    rows = [header, ["---"] * 3 + ["---:"] * (len(header) - 3)]
    for record in records:
        tokens = [record["tokens"]]
        tokens += [record["languages"].get(name, 0) for name in languages]
        stages = ", then ".join(map(describe, record["stages"]))
        row = [record["size"], f"`{record['run']}`", stages]
        row += [f"{record['steps']:,}", *map(quantity, tokens)]
        for name in languages if exact else ():
            passes, count = (record[k].get(name) for k in ("passes", "counts"))
            row.append(f"{count:,} ({passes:.2f})" if passes else "-")
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def estimates(records: list[dict]) -> str:
    """Lay out what is estimated as a table."""
    header = ["size", "run", "tokens", "GPUs", "tokens a second and GPU"]
    header += ["hours", "rows at once", "GB a GPU"]
    rows = [header, ["---"] * 2 + ["---:"] * (len(header) - 2)]
    for record in records:
        tokens, speed = record["tokens"], record["tokens_per_second"]
        hours = tokens / speed / record["gpus"] / 3600
        row = [record["size"], f"`{record['run']}`", quantity(tokens)]
        row += [str(record["gpus"]), f"{speed:,}", f"{hours:.1f}"]
        row.append(str(record["micro_rows"]))
        rows.append([*row, f"{record['memory_GB']:.0f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: list[str]) -> None:
    """Print the budgets."""
    parser = script_parser(__doc__)
    parser.add_argument("yaml_files", nargs="*", help="default: all there are")
    parser.add_argument("--units_folder", help="count the units in it")
    parser.add_argument("--mfu", type=float, help="measured: 0.5, say")
    parser.add_argument("--gpus", type=int, default=1, help="of --mfu")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(arguments)
    mfu, gpus = options.mfu, options.gpus
    if mfu is not None:
        check_number("--mfu", mfu, above=0, at_most=1)
    check_number("--gpus", gpus, at_least=1, whole=True)
    records = []
    for path in options.yaml_files or sorted(HPARAMS.glob("*.yaml")):
        for settings in read_runs(path):
            records.append(nominal_budget(path, settings))
            if options.units_folder:
                records[-1] |= exact_counts(settings, options.units_folder)
            if mfu is not None:
                records[-1] |= estimate(path, mfu, gpus)
    if not options.yaml_files:
        records.sort(key=lambda one: (*SIZES, one["size"]).index(one["size"]))
    table = markdown
    if mfu is not None:
        records, table = [one for one in records if "gpus" in one], estimates
        if not records:
            raise ValueError(
                "None of these YAML files has peak_tflops, the peak of a "
                "device in its precision, which --mfu is a share of; set it"
            )
    print(json.dumps(records) if options.json else table(records))


if __name__ == "__main__":
    run_script(main)
