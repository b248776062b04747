"""The card of an exported model: what somebody who gets it must know."""

from types import SimpleNamespace

from transformers import PreTrainedModel

from speechbrain_slm.dataio.plan import OTHERS, TokenPlan
from speechbrain_slm.models.export import TOKENIZER, UNITS_JSON

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
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("<this folder>")
```

A story is `{plan.boundary}` (the boundary), then its units{tags}.
`{units_json}` says so for programs, as does `speech_units` in `config.json`.
{tokenizer}

## Units

{plan.vocabulary_size:,} units, {rate:g} frames a second{merged}. Its tokenizer
is of the type `{type}`, its identity `{plan.tokenizer_identity}`.

## Training

| language | tokens seen |
| --- | ---: |
{tokens}

{plan.num_steps:,} steps of {plan.rows_per_step} rows of \
{plan.row_length:,} tokens ({plan.packing},
attention {attention}), seed {plan.seed}:

{stages}

Made with SpeechBrain and speechbrain_slm.

## Licence

None is stated yet. State that of the speech and of the text which the model
was trained on, and your own.
"""
_WITH = (
    "The folder `{0}` holds what turns speech into them; transformers' "
    "AutoTokenizer has nothing to do with it."
)
_WITHOUT = "What turns speech into them is not in this folder."


def model_card(
    plan: TokenPlan,
    model: PreTrainedModel,
    hparams: SimpleNamespace,
    has_tokenizer: bool,
) -> str:
    """Write the card of a model in Markdown; it names no place on this disk."""
    counts = plan.count(plan.num_steps)
    languages = sorted(counts.keys() - OTHERS)
    tags = ", ".join(
        f"`{n}` for {name}" for name, n in plan.language_tags.items()
    )
    config = plan.tokenizer["config"]
    once = plan.tokenizer["deduplicated"]
    seen = [f"| {name} | {counts[name]:,} |" for name in languages]
    stages = [f"- {_stage(stage)}" for stage in plan.identity["stages"]]
    return _CARD.format(
        plan=plan,
        codes=", ".join(languages),
        names=" and ".join(languages),
        kind=model.config.model_type,
        parameters=model.num_parameters(),
        tags=f", each language behind a tag ({tags})" if tags else "",
        units_json=UNITS_JSON,
        tokenizer=(_WITH if has_tokenizer else _WITHOUT).format(TOKENIZER),
        type=config.get("type", "unknown"),
        rate=plan.tokenizer["frame_rate"],
        merged=", units that repeat written once" if once else "",
        tokens="\n".join(seen),
        attention=hparams.attention,
        stages="\n".join(stages),
    )


def _stage(stage):
    shares = ", ".join(f"{name} {w:g}" for name, w in stage["mixture"].items())
    budget = ", ".join(f"{v:,} {k}" for k, v in stage.items() if k != "mixture")
    return f"{budget} of {shares}"
