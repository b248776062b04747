"""Translation by an encoder-decoder model of the Hugging Face hub.

NLLB, M2M100 and Marian know sentences, not stories: each is translated by
itself. Sentences of a shard are batched by their length; a batch never holds
those of two shards, so that what a sentence becomes does not depend on where
a run was killed (sums of floats depend on the padding).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from speechbrain_slm.stories.translation import (
    Checks,
    Story,
    TranslationError,
    Translator,
)
from speechbrain_slm.utils.hashing import identity_of, tensors_identity
from speechbrain_slm.utils.numbers import check_choice
from speechbrain_slm.utils.pretrained import load_whole, not_there, said_by
from speechbrain_slm.utils.ranges import check_settings

PRECISIONS = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)


@dataclasses.dataclass(eq=False)
class Seq2SeqTranslator(Translator):
    """A :class:`Translator` with a model of its own."""

    # A hub name or a local folder: facebook/nllb-200-distilled-600M.
    source: str
    # The model's names for the languages: eng_Latn and fra_Latn, en and fr.
    # Models of one pair have none; Marian with several targets has >>fra<<.
    source_code: str | None = None
    target_code: str | None = None
    num_beams: int = 1  # 1 is greedy
    # A translation may have this times the tokens of its sentence, and 20; one
    # that has not ended then is refused.
    length_ratio: float = 2.0
    batch_tokens: int = 4096  # of the source, padding included
    precision: str = "fp32"  # one of PRECISIONS

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, PRECISIONS)
        check_settings(self, "num_beams", "batch_tokens")
        self.source = str(self.source)
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> Seq2SeqTranslator:
        """Compute on another device; see :meth:`Translator.to`."""
        self.device = torch.device(device)
        return self

    @functools.cached_property
    def identity(self) -> dict:
        """What decides the translations, the weights' content included."""
        settings = dataclasses.asdict(self)
        del settings["source"]  # where the weights are, not what they are
        return {"type": "seq2seq", "weights": self._loaded[2], **settings}

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any, str, int | None]:
        """The tokenizer, the model, its identity, and how targets begin."""
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                self.source, trust_remote_code=False
            )
            # Sinusoids are computed, whether a checkpoint has them or not.
            model = load_whole(
                AutoModelForSeq2SeqLM,
                self.source,
                absent="embed_positions",
                surplus="embed_positions",
                dtype=torch.float32,
            )
        except OSError as error:
            raise not_there(self.source, "translation model", error) from error
        except ValueError as error:
            fault = f"{self.source} cannot be read as a translation model: "
            raise ValueError(fault + said_by(error)) from error
        # Of the weights as published, whatever the precision; where they were
        # read from, and by what, is not the model.
        kept = {**model.config.to_dict(), **model.generation_config.to_dict()}
        for name in ("_name_or_path", "transformers_version", "dtype"):
            kept.pop(name, None)
        weights = identity_of({**kept, "weights": tensors_identity(model)})
        model = model.eval().requires_grad_(False)
        model = model.to(self.device, PRECISIONS[self.precision])
        return tokenizer, model, weights, self._set_languages(tokenizer)

    def _set_languages(self, tokenizer: Any) -> int | None:
        """Tell the tokenizer; return the token that targets begin with."""
        if not hasattr(tokenizer, "src_lang"):
            prefixes = getattr(tokenizer, "supported_language_codes", [])
            expected = prefixes or [None]
            if self.target_code not in expected or self.source_code:
                raise ValueError(
                    f"{self.source}: source_code is {self.source_code} and "
                    f"target_code {self.target_code}; this model takes no "
                    f"source_code, and as target_code one of {expected[:10]}"
                )
            return None
        # M2M100 writes "__en__" for en.
        tokens = getattr(tokenizer, "lang_code_to_token", {})
        for name in ("source_code", "target_code"):
            code = getattr(self, name)
            forced = tokenizer.convert_tokens_to_ids(
                tokens.get(code, code or "")
            )
            if forced in (None, tokenizer.unk_token_id):
                raise ValueError(
                    f"{self.source} knows no {name} '{code}'; expected such "
                    "as eng_Latn for NLLB, or en for M2M100"
                )
        tokenizer.src_lang = self.source_code
        return forced

    def translate(
        self, shards: Iterable[list[Story]], check: Checks
    ) -> Iterator[list]:
        """See :meth:`Translator.translate`."""
        for shard in shards:
            # Stories share sentences; each is translated once.
            texts = (text for story in shard for text in story.sentences)
            found = self._sentences(list(dict.fromkeys(texts)))
            yield [_story(story, found) for story in shard]

    def _sentences(self, texts: list[str]) -> dict[str, str | TranslationError]:
        tokenizer, model, _, forced = self._loaded
        # Marian is told the language by a word of its own.
        tell = self.target_code and forced is None
        prefix = f"{self.target_code} " if tell else ""
        limit = min(_positions(model), tokenizer.model_max_length)
        found: dict[str, str | TranslationError] = {}
        tokens = {}
        for text in texts:
            one = tokenizer(prefix + text, truncation=False)["input_ids"]
            tokens[text] = one
            if len(one) > limit:
                fault = f"has {len(one)} tokens; the model takes {limit}"
                found[text] = TranslationError(fault)
        # The longest first: memory that does not do is found out at once.
        good = sorted(tokens.keys() - found.keys())
        good.sort(key=lambda text: len(tokens[text]), reverse=True)
        while good:
            size = max(1, self.batch_tokens // len(tokens[good[0]]))
            batch, good = good[:size], good[size:]
            translated = self._batch([tokens[text] for text in batch])
            found.update(zip(batch, translated, strict=True))
        return found

    def _batch(self, tokens: list[list[int]]) -> list[str | TranslationError]:
        tokenizer, model, _, forced = self._loaded
        rows = [torch.tensor(one) for one in tokens]
        pad, ones = tokenizer.pad_token_id, map(torch.ones_like, rows)
        ids = torch.nn.utils.rnn.pad_sequence(rows, True, pad)
        mask = torch.nn.utils.rnn.pad_sequence([*ones], True)
        options = {} if forced is None else {"forced_bos_token_id": forced}
        limits = [int(self.length_ratio * len(one)) + 20 for one in tokens]
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                num_beams=self.num_beams,
                do_sample=False,
                max_length=None,
                max_new_tokens=min(max(limits), _positions(model) - 1),
                # Else the last token allowed is an end, whatever it cuts off.
                forced_eos_token_id=None,
                **options,
            )
        # Without the decoder's start, which may be the end symbol (NLLB), and
        # the language, which not every tokenizer knows as special. It counted
        # among the new tokens.
        language = int(forced is not None)
        output = output[:, 1 + language :]
        ends = (output == tokenizer.eos_token_id).int().cumsum(dim=1)
        lengths = (ends == 0).sum(dim=1).tolist()
        width = output.shape[1]
        texts = tokenizer.batch_decode(output, skip_special_tokens=True)
        return [
            text
            # Others of the batch may have had more to say.
            if length < min(limit - language, width)
            else TranslationError("has a translation without end")
            for text, length, limit in zip(texts, lengths, limits, strict=True)
        ]


def _positions(model: Any) -> int:
    """Return how many tokens a model takes."""
    return getattr(model.config, "max_position_embeddings", None) or 10**6


def _story(
    story: Story, found: dict[str, str | TranslationError]
) -> list | TranslationError:
    translations = [found[text] for text in story.sentences]
    for number, result in enumerate(translations):
        if isinstance(result, TranslationError):
            return TranslationError(result.reason, number)
    return translations
