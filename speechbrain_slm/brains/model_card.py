"""The card of an exported model: what somebody who gets it must know."""

import importlib.metadata
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

from transformers import PreTrainedModel

from speechbrain_slm.dataio.plan import TokenPlan
from speechbrain_slm.models.export import UNITS_JSON
from speechbrain_slm.models.folder import TOKENIZER, VOCODER

_CARD = """\
---
license: other
library_name: transformers
language: [{codes}]
tags: [speech, textless, speech-language-model]
---

# Speech language model over units

A {kind} of {parameters:,} parameters that continues speech without text, in
{names}. It reads and writes discrete units, not words.

## Use

```python
from speechbrain_slm import SpeechLM

model = SpeechLM.from_pretrained("<this folder, or its name on the hub>")
print(model.score_files(["one.wav", "another.wav"]))
```

In transformers it is `AutoModelForCausalLM.from_pretrained("<this folder>")`.
A story is `{plan.boundary}` (the boundary), then its units{tags}.
`{units_json}` says so for programs, as does `speech_units` in `config.json`.

## Speech out

{speech}

## Units

{plan.vocabulary_size:,} units, {rate:g} frames a second{merged}. Its tokenizer
is of the type `{type}`, its identity `{plan.tokenizer_identity}`.
{tokenizer}

## Scores

{scores}

## Training

| language | tokens seen |
| --- | ---: |
{tokens}

{plan.num_steps:,} steps of {plan.rows_per_step} rows of \
{plan.row_length:,} tokens ({plan.packing},
attention {attention}), seed {plan.seed}:

{stages}

Made with {versions}:

```bash
{command}
```

## Licence

None is stated yet. State that of the speech and of the text which the model
was trained on, and your own.
"""
# Titles of sections, and what stands there until tools/model_card.py is run.
SCORES, SPEECH, LICENCE = "Scores", "Speech out", "Licence"
NO_SCORES = "None yet: `tools/model_card.py --cloze` adds them."
SPEAKS = f"""\
```python
waveform, units = model.continue_file("one.wav", seconds=5)
```

The folder `{VOCODER}` holds what turns units into speech."""
_SILENT = (
    "What turns units into speech is not in this folder: "
    "`tools/model_card.py --vocoder` adds it."
)
# A path in an argument that is not relative to the folder of the run.
_PLACE = re.compile(r"(?<![^\s=:,\[{'\"])(?:/|~|\.\./)[^\s,\]}'\"]*")
_WITH = (
    "The folder `{0}` holds what turns speech into them; transformers' "
    "AutoTokenizer has nothing to do with it."
)
_WITHOUT = "What turns speech into them is not in this folder."
_ENCODER = " It needs the encoder `{name}`, of the weights `{weights}`."


def model_card(
    plan: TokenPlan,
    model: PreTrainedModel,
    hparams: SimpleNamespace,
    units: dict,
    has_vocoder: bool,
) -> str:
    """Write the card of a model in Markdown; it names no place on this disk.

    ``units``: what ``config.json`` says of them; with a ``base_identity`` the
    tokenizer is in the folder.
    """
    counts = plan.count(plan.num_steps)
    languages = units["languages"]
    tags = ", ".join(
        f"`{n}` for {name}" for name, n in plan.language_tags.items()
    )
    tokenizer = (_WITH if "base_identity" in units else _WITHOUT).format(
        TOKENIZER
    )
    if "encoder" in units:
        tokenizer += _ENCODER.format(**units["encoder"])
    seen = [f"| {name} | {counts[name]:,} |" for name in languages]
    stages = [f"- {_stage(stage)}" for stage in plan.identity["stages"]]
    config = units["tokenizer"]
    return _CARD.format(
        plan=plan,
        codes=", ".join(languages),
        names=" and ".join(languages),
        kind=model.config.model_type,
        parameters=model.num_parameters(),
        tags=f", each language behind a tag ({tags})" if tags else "",
        units_json=UNITS_JSON,
        speech=SPEAKS if has_vocoder else _SILENT,
        tokenizer=tokenizer,
        scores=NO_SCORES,
        type=config.get("base", config).get("type", "unknown"),
        rate=units["frame_rate"],
        merged=", repeats written once" if units["deduplicated"] else "",
        tokens="\n".join(seen),
        attention=hparams.attention,
        stages="\n".join(stages),
        versions=_versions(),
        command=_command(),
    )


def with_section(card: str, title: str, text: str) -> str:
    """Put a text below the title of a section, which is added if need be."""
    section = f"## {title}\n\n{text}\n"
    found = re.search(rf"(?ms)^## {title}\n.*?(?=^## |\Z)", card)
    if not found:
        return f"{card.rstrip()}\n\n{section}".lstrip()
    rest = card[found.end() :]
    return f"{card[: found.start()]}{section}{rest and chr(10)}{rest}"


def score_table(results: dict) -> str:
    """Return the scores of a ``results.json`` of the cloze recipe."""
    scoring = results["scoring"]
    lines = [
        f"| {one['metric']} | {one['direction']} | {one['accuracy']:.1f} "
        f"[{one['ci_low']:.1f}, {one['ci_high']:.1f}] | {one['n']:,} |"
        for one in results["records"]
        if one["scoring"] == scoring
    ]
    return "\n".join(
        (
            "| benchmark | direction | accuracy in % [95 % interval] | items |",
            "| --- | --- | ---: | ---: |",
            *lines,
            f"\nScored by `{scoring}`; chance is 50 %. The items are "
            f"`{results['items']}`, their units `{results['units']}`.",
        )
    )


def _versions():
    names = ("speechbrain_slm", "speechbrain", "torch", "transformers")
    told = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return f"Python {sys.version.split()[0]}, {', '.join(told)}"


def _command():
    """Return the command that runs, without the places on this disk."""
    told = (_PLACE.sub(_without_place, argument) for argument in sys.argv)
    return f"python {shlex.join(told)}"


def _without_place(found):
    _, recipes, rest = found[0].rpartition("/recipes/")
    return f"recipes/{rest}" if recipes else Path(found[0]).name


def _stage(stage):
    shares = ", ".join(f"{name} {w:g}" for name, w in stage["mixture"].items())
    budget = ", ".join(f"{v:,} {k}" for k, v in stage.items() if k != "mixture")
    return f"{budget} of {shares}"
