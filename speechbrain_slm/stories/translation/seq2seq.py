"""Translation by an encoder-decoder model of the Hugging Face hub.

NLLB, M2M100 and Marian know sentences, not stories: each is translated by
itself. Sentences of a shard are batched by their length; a batch never holds
those of two shards, so that what a sentence becomes does not depend on where
a run was killed (sums of floats depend on the padding).
"""

import functools

import torch

from speechbrain_slm.stories.translation import TranslationError
from speechbrain_slm.utils.hashing import identity_of, tensors_identity
from speechbrain_slm.utils.pretrained import load_whole, said_by

PRECISIONS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class Seq2SeqTranslator:
    """A :class:`Translator` with a model of its own.

    Arguments
    ---------
    source
        A hub name or a local folder, such as
        ``facebook/nllb-200-distilled-600M`` or ``Helsinki-NLP/opus-mt-en-fr``.
    source_code
        The model's name for the language of the stories (``eng_Latn``,
        ``en``). None for models of one pair.
    target_code
        Its name for the language to translate to (``fra_Latn``, ``fr``; Marian
        with several targets: ``>>fra<<``).
    num_beams : 1 is greedy.
    length_ratio
        A translation may have this times the tokens of its sentence, and 20;
        one that has not ended then is refused.
    batch_tokens : Source tokens in a batch, padding included.
    precision : ``fp32``, ``bf16`` or ``fp16``.
    """

    def __init__(
        self,
        source: str,
        source_code: str | None = None,
        target_code: str | None = None,
        num_beams: int = 1,
        length_ratio: float = 2.0,
        batch_tokens: int = 4096,
        precision: str = "fp32",
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(
                f"precision is {precision!r}; expected one of "
                f"{', '.join(PRECISIONS)}"
            )
        if num_beams < 1 or batch_tokens < 1:
            raise ValueError(
                f"num_beams is {num_beams} and batch_tokens {batch_tokens}; "
                "expected 1 or more"
            )
        self.source = str(source)
        self.source_code = source_code
        self.target_code = target_code
        self.num_beams = num_beams
        self.length_ratio = length_ratio
        self.batch_tokens = batch_tokens
        self.precision = precision
        self.device = torch.device("cpu")

    def to(self, device):
        """Compute on another device; see :meth:`Translator.to`."""
        self.device = torch.device(device)
        return self

    def usage(self):
        """Return nothing: it costs nobody's money."""
        return {}

    @functools.cached_property
    def identity(self):
        """What decides the translations, the weights' content included."""
        weights = self._loaded[2]
        return {
            "type": "seq2seq",
            "weights": weights,
            "source_code": self.source_code,
            "target_code": self.target_code,
            "num_beams": self.num_beams,
            "length_ratio": self.length_ratio,
            "batch_tokens": self.batch_tokens,
            "precision": self.precision,
        }

    @functools.cached_property
    def _loaded(self):
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                self.source, trust_remote_code=False
            )
            model = load_whole(
                AutoModelForSeq2SeqLM,
                self.source,
                # Sinusoids are computed, whether a checkpoint has them or not.
                absent="embed_positions",
                surplus="embed_positions",
                dtype=torch.float32,
            )
        except OSError as error:
            raise FileNotFoundError(
                f"{self.source}: no translation model can be read from there "
                f"({said_by(error)}). Where there is a network, run: hf "
                f"download {self.source} --local-dir <folder>, and set source "
                "to that folder."
            ) from error
        except ValueError as error:
            raise ValueError(
                f"{self.source} cannot be read as a translation model: "
                f"{said_by(error)}"
            ) from error
        weights = _weights_identity(model)
        model = model.eval().requires_grad_(False)
        model = model.to(self.device, PRECISIONS[self.precision])
        forced = self._set_languages(tokenizer)
        return tokenizer, model, weights, forced

    def _set_languages(self, tokenizer):
        """Tell the tokenizer; return the token that targets begin with."""
        if not hasattr(tokenizer, "src_lang"):
            prefixes = getattr(tokenizer, "supported_language_codes", [])
            expected = prefixes or [None]
            if self.target_code not in expected or self.source_code:
                raise ValueError(
                    f"{self.source}: source_code is {self.source_code} and "
                    f"target_code {self.target_code}; this model takes no "
                    "source_code, and for target_code one of "
                    f"{', '.join(map(str, expected[:10]))}"
                )
            return None
        ids = {}
        for name in ("source_code", "target_code"):
            code = getattr(self, name)
            # M2M100 writes "__en__" for en.
            names = getattr(tokenizer, "lang_code_to_token", {})
            token = names.get(code, code)
            number = tokenizer.convert_tokens_to_ids(token or "")
            if number in (None, tokenizer.unk_token_id):
                raise ValueError(
                    f"{self.source} knows no {name} '{code}'; expected such "
                    "as eng_Latn for NLLB, or en for M2M100"
                )
            ids[name] = number
        tokenizer.src_lang = self.source_code
        return ids["target_code"]

    def translate(self, shards, check):
        """See :meth:`Translator.translate`."""
        for shard in shards:
            # Stories share sentences; each is translated once.
            texts = dict.fromkeys(s for story in shard for s in story.sentences)
            found = self._sentences(list(texts))
            yield [_story(story, found) for story in shard]

    def _sentences(self, texts):
        """Return {text: translation, or what is wrong}."""
        tokenizer, model = self._loaded[:2]
        prefix = ""
        if self.target_code and not hasattr(tokenizer, "src_lang"):
            prefix = f"{self.target_code} "
        tokens = [
            tokenizer(prefix + text, truncation=False)["input_ids"]
            for text in texts
        ]
        limit = min(_positions(model), tokenizer.model_max_length)
        found, good = {}, []
        for number, text in enumerate(texts):
            length = len(tokens[number])
            if length > limit:
                found[text] = TranslationError(
                    f"has {length} tokens; the model takes {limit}"
                )
            else:
                good.append(number)
        # The longest first: memory that does not do is found out at once.
        good.sort(key=lambda number: (-len(tokens[number]), texts[number]))
        while good:
            size = max(1, self.batch_tokens // len(tokens[good[0]]))
            batch, good = good[:size], good[size:]
            translated = self._batch([tokens[number] for number in batch])
            for number, result in zip(batch, translated, strict=True):
                found[texts[number]] = result
        return found

    def _batch(self, tokens):
        tokenizer, model, _, forced = self._loaded
        longest = max(map(len, tokens))
        ids = torch.full((len(tokens), longest), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(tokens):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
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
        # the language, which not every tokenizer knows as special.
        output = output[:, 1:] if forced is None else output[:, 2:]
        ends = (output == tokenizer.eos_token_id).int().cumsum(dim=1)
        lengths = (ends == 0).sum(dim=1).tolist()
        # The language counted among the new tokens.
        least = 0 if forced is None else 1
        width = output.shape[1]
        texts = tokenizer.batch_decode(output, skip_special_tokens=True)
        return [
            text
            # Others of the batch may have had more to say.
            if length < min(limit - least, width)
            else TranslationError("has a translation without end")
            for text, length, limit in zip(texts, lengths, limits, strict=True)
        ]


def _positions(model):
    return getattr(model.config, "max_position_embeddings", None) or 10**6


def _story(story, found):
    translations = [found[text] for text in story.sentences]
    for number, result in enumerate(translations):
        if isinstance(result, TranslationError):
            return TranslationError(result.reason, number)
    return translations


def _weights_identity(model):
    """Name a model by its configurations and the content of its weights."""
    kept = {**model.config.to_dict(), **model.generation_config.to_dict()}
    for name in ("_name_or_path", "transformers_version", "dtype"):
        kept.pop(name, None)
    return identity_of({**kept, "weights": tensors_identity(model)})
