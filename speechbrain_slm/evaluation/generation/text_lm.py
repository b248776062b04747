"""Perplexity of transcripts under a text LM (GenPPL), by transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from speechbrain_slm.utils.hashing import identity_of, sha256_file
from speechbrain_slm.utils.pretrained import load_whole, not_there, said_by

_FILES = (".json", ".safetensors", ".model", ".txt")


def text_lm_identity(source: str) -> str:
    """Name a text LM by its files, or its revision on the hub, if known.

    FileNotFoundError if there is none.
    """
    from transformers import AutoConfig

    if (folder := Path(source)).is_dir():
        files = [one for one in folder.iterdir() if one.suffix in _FILES]
        return identity_of({one.name: sha256_file(one) for one in files})
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except OSError as error:
        raise not_there(source, "text LM", error) from error
    except ValueError as error:
        raise ValueError(f"{source}: {said_by(error)}") from error
    return str(config._commit_hash or source)


class TextLM:
    """A decoder LM of texts: a hub name, or a local folder.

    Arguments
    ---------
    source : With safetensors weights and the tokenizer beside them.
    """

    def __init__(self, source: str, device: str = "cpu") -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        options: Any = {"use_safetensors": True}
        try:
            model = load_whole(AutoModelForCausalLM, source, **options)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                source, trust_remote_code=False
            )
        except OSError as error:
            raise not_there(source, "text LM", error) from error
        self._model: Any = model.eval().to(device)
        config = self._model.config
        self._context = getattr(config, "max_position_embeddings", None)

    def negative_log_likelihoods(
        self, texts: Sequence[str]
    ) -> list[float | None]:
        """Return the mean of each text's tokens, in nats.

        Each text by itself. The first token is scored where the tokenizer puts
        a symbol before it, else only read; None of a text of fewer tokens. Of
        a text that exceeds the context its beginning is taken.
        """
        return [self._one(text) for text in texts]

    @torch.inference_mode()
    def _one(self, text):
        ids = self._tokenizer(text, return_tensors="pt").input_ids
        ids = ids[:, : self._context].to(self._model.device)
        if ids.shape[1] < 2:
            return None
        logits = self._model(ids).logits[0, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:])
        return loss.item()
