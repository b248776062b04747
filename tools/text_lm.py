"""Train a small text LM on a corpus's own texts, to measure GenPPL by.

python tools/text_lm.py results/mini/synthesis --output results/mini/text_lm

reads train.parquet and valid.parquet (manifests with a column "text") and
writes a folder for --text_lm of the continuation recipe. It knows this corpus
and nothing else: what it finds likely is what the corpus says. Each story is
told in one language, or each sentence in one drawn at random, so that a story
which changes the language is no surprise as such.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import tokenizers
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    get_cosine_schedule_with_warmup,
)

from speechbrain_slm.utils.atomic import atomic_folder
from speechbrain_slm.utils.numbers import check_number
from speechbrain_slm.utils.running import run_script, script_parser
from speechbrain_slm.utils.tables import MANIFEST, MANIFEST_KEY, read_table

VOCABULARY = 1000
CONTEXT = 128  # tokens; stories of the mini corpus have some 60
BEGIN = "<s>"
IGNORED = -100  # by the model's loss
SIZES = dict(
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=6,
    max_position_embeddings=CONTEXT,
)

SPOKEN = MANIFEST.append(pa.field("text", pa.string()))
Story = list[dict[str, str]]  # language -> text, a sentence each


def read_stories(path: Path) -> list[Story]:
    """Read the texts of a manifest's stories, in every language."""
    table = read_table(path, SPOKEN, MANIFEST_KEY)
    stories: dict[str, dict[int, dict[str, str]]] = defaultdict(dict)
    for row in table.to_pylist():
        sentences = stories[row["story_id"]]
        sentences.setdefault(row["sentence"], {})[row["language"]] = row["text"]
    return [
        [sentences[number] for number in sorted(sentences)]
        for sentences in stories.values()
    ]


def tellings(
    stories: list[Story], generator: np.random.Generator
) -> Iterator[str]:
    """Tell stories, each from a sentence on, without an end."""
    while True:
        story = stories[generator.integers(len(stories))]
        story = story[generator.integers(len(story)) :]
        whole = generator.choice(sorted(story[0]))
        mixed = generator.random() < 0.5
        told = []
        for one in story:
            language = generator.choice(sorted(one)) if mixed else whole
            if language in one:
                told.append(one[language])
        yield " ".join(told)


def fit_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """Fit byte-level BPE, which has a token for whatever is written down."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BEGIN],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        pad_token=BEGIN,
        model_max_length=CONTEXT,
    )


def loss_of(model, tokenizer, texts) -> torch.Tensor:
    """Return the mean negative log-likelihood of the texts' tokens."""
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    ignored = batch.attention_mask == 0
    labels = batch.input_ids.masked_fill(ignored, IGNORED)
    mask = batch.attention_mask
    return model(batch.input_ids, attention_mask=mask, labels=labels).loss


def train(folder: Path, output: Path, steps: int, rows: int, seed: int) -> dict:
    """Train on one manifest, and return the perplexity of the other."""
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    texts = tellings(read_stories(folder / "train.parquet"), generator)
    tokenizer = fit_tokenizer(islice(texts, 5000))
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, tokenizer, [*islice(texts, rows)]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    valid = tellings(
        read_stories(folder / "valid.parquet"), np.random.default_rng(seed)
    )
    with torch.inference_mode():
        loss = loss_of(model.eval(), tokenizer, [*islice(valid, 400)]).item()
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return {"valid_perplexity": math.exp(loss), "steps": steps, "seed": seed}


def main(arguments: list[str]) -> None:
    """Train, save, and print the perplexity of the validation stories."""
    parser = script_parser(__doc__)
    parser.add_argument("folder", type=Path, help="that of the manifests")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rows", type=int, default=32, help="a step")
    parser.add_argument("--seed", type=int, default=1986)
    found = parser.parse_args(arguments)
    check_number("--steps", found.steps, at_least=1)
    check_number("--rows", found.rows, at_least=1)
    how = found.steps, found.rows, found.seed
    # Before the training: what stands there, a speech LM say, is left alone.
    with atomic_folder(found.output) as temporary:
        told = train(found.folder, temporary, *how)
    print(json.dumps(told))


if __name__ == "__main__":
    run_script(main)
