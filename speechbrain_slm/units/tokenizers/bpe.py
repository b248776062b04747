"""Byte-pair encoding of units: what stands together becomes one symbol.

Some forty units of a hundred are about ten pieces of 4,000, and a language
model needs a fraction of the tokens to learn. Works on top of any tokenizer.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from speechbrain_slm.units.tokenizers import base as tokenizers
from speechbrain_slm.utils.atomic import write_atomic, write_json
from speechbrain_slm.utils.hashing import identity_of

logger = logging.getLogger(__name__)

# sentencepiece reads text, so that each unit is a character. From here on
# Unicode has 20,992 letters in a row, none of them space, digit or mark.
FIRST_CHARACTER = 0x4E00
NUM_CHARACTERS = 0xA000 - FIRST_CHARACTER
MODEL = "bpe.model"
DESCRIPTION = "bpe.json"
# Times that a piece should come in the training units, in the mean.
RECURRENCE = 20
# Units are no language: nothing is normalized, split or added, and one thread
# finds the same merges always.
_SETTINGS: dict[str, Any] = {
    "character_coverage": 1.0,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "add_dummy_prefix": False,
    "split_by_whitespace": False,
    "split_by_unicode_script": False,
    "split_by_number": False,
    **{"bos_id": -1, "eos_id": -1, "pad_id": -1},
    "num_threads": 1,
    "minloglevel": 2,
}


Units = Sequence[int] | np.ndarray


def _to_text(units: Units) -> str:
    codes = np.asarray(units, dtype=np.int64) + FIRST_CHARACTER
    return codes.astype("<u4").tobytes().decode("utf-32-le")


def _identity(base: dict[str, Any], model: bytes) -> str:
    return identity_of({"base": base["identity"], "model": model.hex()})


def check_size(alphabet: int, vocabulary_size: int) -> None:
    """Refuse a number of pieces that cannot be, before anything is encoded."""
    if alphabet > NUM_CHARACTERS:
        raise ValueError(
            f"Unit BPE has {NUM_CHARACTERS:,} characters, one a unit; the "
            f"tokenizer has {alphabet:,} units. Set bpe to null."
        )
    # Stores hold units of 16 bits.
    if not alphabet < vocabulary_size <= 2**16:
        raise ValueError(
            f"bpe: vocabulary_size is {vocabulary_size}; expected more than "
            f"the {alphabet} units of the tokenizer, and at most 65,536"
        )


class UnitBPE:
    """Merge units that stand together; see :meth:`fit` for how to make one.

    Arguments
    ---------
    base : What the tokenizer of the units says of itself (``describe``).
    model : A sentencepiece model over the units' characters.
    config : What was chosen when the model was fitted.

    Example
    -------
    >>> base = dict(identity="1a", vocabulary_size=3, frame_rate=25.0,
    ...             deduplicated=True, config={})
    >>> bpe = UnitBPE.fit(base, [[0, 1, 2, 0, 1]] * 2, vocabulary_size=5)
    >>> pieces = bpe.encode([[2, 0, 1, 1]])[0]
    >>> len(pieces), bpe.decode(pieces).tolist()
    (3, [2, 0, 1, 1])
    """

    def __init__(
        self, base: dict[str, Any], model: bytes, config: dict[str, Any]
    ) -> None:
        self.base, self.model = base, model
        self.frame_rate = base["frame_rate"]
        self.deduplicated = base["deduplicated"]
        self.config = {"base": base["config"], "bpe": config}
        self.identity = _identity(base, model)
        processor = sentencepiece.SentencePieceProcessor
        self._processor = processor(model_proto=model)
        self.vocabulary_size = self._processor.get_piece_size()
        self.unknown = self._processor.unk_id()  # the piece that is never used

    @classmethod
    def fit(
        cls,
        base: dict[str, Any],
        sentences: Iterable[Units],
        vocabulary_size: int,
        max_piece_length: int = 16,
    ) -> UnitBPE:
        """Find the merges.

        Arguments
        ---------
        vocabulary_size
            Number of pieces: sentencepiece's unknown piece (never used), the
            single units, and the merges. ValueError if there are fewer or more.
        max_piece_length : Units that a piece stands for, at most.
        """
        alphabet = base["vocabulary_size"]
        check_size(alphabet, vocabulary_size)
        # However many stories share a sentence, it counts once: pieces then
        # describe how the language sounds and not what a corpus repeats.
        texts = [_to_text(sentence) for sentence in sentences]
        # Each unit once more by itself: other splits may have units that the
        # training split lacks, and ``required_chars`` does not add those.
        texts += _to_text(range(alphabet))
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=model,
                model_type="bpe",
                vocab_size=vocabulary_size,
                max_sentencepiece_length=max_piece_length,
                # In bytes. Longer sentences would be left out silently.
                max_sentence_length=4 * max(map(len, texts)) + 1,
                **_SETTINGS,
            )
        except RuntimeError as error:
            reason = str(error).split("] ")[-1]
            raise ValueError(
                f"bpe: vocabulary_size is {vocabulary_size}; not fitted on "
                f"{len(texts) - alphabet} sentence(s): {reason} Set it lower, "
                "or give more speech."
            ) from error
        config = dict(vocabulary_size=vocabulary_size)
        config["max_piece_length"] = max_piece_length
        return cls(base, model.getvalue(), config)

    def encode(self, sentences: Sequence[Units]) -> list[np.ndarray]:
        """Turn units into pieces, int64; one it does not know is refused."""
        texts = [_to_text(sentence) for sentence in sentences]
        encoded = []
        for number, pieces in enumerate(self._processor.encode(texts)):
            if self.unknown in pieces:
                raise ValueError(
                    f"sentence {number} has a unit that the BPE model does "
                    f"not know: the largest is {max(sentences[number])}, the "
                    f"tokenizer has {self.base['vocabulary_size']} units"
                )
            encoded.append(np.asarray(pieces, dtype=np.int64))
        return encoded

    def decode(self, pieces: Units) -> np.ndarray:
        """Turn pieces into units, int64; what is none is refused."""
        numbers, size = [int(piece) for piece in pieces], self.vocabulary_size
        for piece in numbers:
            if not 0 <= piece < size or piece == self.unknown:
                raise ValueError(
                    f"{piece} is no piece of the BPE model; expected one from "
                    f"0 to {size - 1}, and not {self.unknown}, the unknown one"
                )
        text = self._processor.decode(numbers)
        codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        return codes.astype(np.int64) - FIRST_CHARACTER

    def save(self, folder: str | Path) -> None:
        """Write ``bpe.model`` and, last, ``bpe.json``, its description."""
        folder = Path(folder)
        # What is described must be there when the description is.
        write_atomic(folder / MODEL, self.model)
        told = {"config": self.config["bpe"], "identity": self.identity}
        write_json(folder / DESCRIPTION, {"base": self.base, **told})

    @classmethod
    def load(
        cls, folder: str | Path, base: tokenizers.Tokenizer | None = None
    ) -> UnitBPE:
        """Read an encoder that was saved.

        FileNotFoundError if the folder holds none that is complete, ValueError
        if its files do not belong together, or to another tokenizer's units.
        """
        path = Path(folder) / DESCRIPTION
        saved = tokenizers.read_description(path, "unit BPE")
        if base is not None and tokenizers.describe(base) != saved["base"]:
            theirs = saved["base"]["identity"][:12]
            raise ValueError(
                f"{folder}: the BPE belongs to the tokenizer {theirs}, found "
                f"{base.identity[:12]}. Fit it again."
            )
        model = (Path(folder) / MODEL).read_bytes()
        # Before sentencepiece reads it, which does not name what is damaged.
        if _identity(saved["base"], model) != saved["identity"]:
            told = f"{path.with_name(MODEL)} is not the model that {path} names"
            raise ValueError(f"{told}; fit it again")
        return cls(saved["base"], model, saved["config"])


def warn_of_rare_pieces(
    bpe: UnitBPE, drawn: list[np.ndarray], sentences: int
) -> None:
    """Say where pieces come so rarely that nothing is learnt of them.

    ``drawn`` are units of some utterances of the training split, ``sentences``
    how many it has: those that share an utterance hear its pieces as often.
    """
    pieces = sum(map(len, bpe.encode(drawn))) / max(1, len(drawn)) * sentences
    size, least = bpe.vocabulary_size, bpe.base["vocabulary_size"] + 1
    if pieces < RECURRENCE * size:
        logger.warning(
            "BPE: each of vocabulary_size %d pieces comes %.1f times in the "
            "training units, in the mean; of what comes less than %d times a "
            "model learns little. Set bpe to {vocabulary_size: %d} or to null, "
            "or bring more speech.",
            *(size, pieces / size, RECURRENCE),
            max(pieces / RECURRENCE, least),
        )
