"""Write a small corpus in the layout of Marin's, and a small Mimi.

The codes are drawn, and the codec's weights are random: they show the way, and
say nothing.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speechbrain_slm.utils.atomic import atomic_folder, atomic_path

BOOKS, SIZE = 8, 2048
FIRST = 0xE000
MARKS = "<|begin_of_text|>{}<|end_of_text|>"
TEXT = "<|text_start|>{}<|text_end|>"
AUDIO = "<|audio_start|>{}<|audio_end|>"
# The last character would be taken for a code, were it no text.
SAID = {"en": "and so on", "fr": "et ainsi de suite\uff01"}
# Folder -> number of documents; Emilia's begin with a capital.
FILES = {
    "yodas2/en000/00000000": 24,
    "yodas2/en000/00000001": 16,
    "yodas2/en001/00000000": 8,
    "Emilia/FR/FR-B000000": 20,
    "Emilia/FR/FR-B000001": 8,
}


def write_mini_corpus(
    folder: str | Path, seed: int = 0, files: dict[str, int] = FILES
) -> None:
    """Write Parquet files and ``mimi/``, a codec, unless they are there.

    Arguments
    ---------
    files : Path, without its suffix -> documents.
    """
    folder, generator = Path(folder), np.random.default_rng(seed)
    for name, documents in files.items():
        path = folder / f"{name}.parquet"
        rows = _documents(generator, path, documents)
        if not path.exists():
            with atomic_path(path) as temporary:
                table, size = pa.Table.from_pylist(rows), max(20, documents)
                pq.write_table(table, temporary, row_group_size=size)
    if not (folder / "mimi").exists():
        _save_codec(folder / "mimi", seed)


def as_characters(codes: np.ndarray) -> str:
    """Write codes, ``[Q, F]``, as they are published.

    Example
    -------
    >>> [hex(ord(one)) for one in as_characters(np.array([[5], [7]]))]
    ['0xe005', '0xe807']
    """
    index = FIRST + np.arange(len(codes))[:, None] * SIZE + codes
    return index.T.astype("<u4").tobytes().decode("utf-32-le")


def document(name: str, utterances: list[tuple[str, str]], split: str) -> list:
    """Return the two rows of a document: text first, and audio first."""
    orders = (TEXT + AUDIO, AUDIO + TEXT)
    rows = []
    for number, order in enumerate(orders, start=1):
        told = (pair if number == 1 else pair[::-1] for pair in utterances)
        text = "".join(order.format(*pair) for pair in told)
        row = {"id": f"{name}_type{number}", "split": split}
        rows.append({**row, "text": MARKS.format(text)})
    return rows


def _documents(generator, path, count):
    part = path.parent.name
    language, rows = part[:2].lower(), []
    for number in range(count):
        utterances = []
        for _ in range(generator.integers(2, 6)):
            # Words of four codes, so that a model has something to learn.
            words = generator.integers(0, 50, generator.integers(4, 12))
            codes = (words[:, None] * 37 + np.arange(4)).ravel() % SIZE
            rest = generator.integers(0, SIZE, (BOOKS - 1, len(codes)))
            spoken = as_characters(np.concatenate([codes[None], rest]))
            utterances.append((SAID[language], spoken))
        name = f"{part}-{path.stem}-{number:03d}"
        rows += document(name, utterances, f"{part}/{path.stem}")
    return rows


def _save_codec(folder, seed):
    import torch
    from transformers import MimiConfig, MimiModel

    torch.manual_seed(seed)
    config = MimiConfig(
        num_quantizers=BOOKS,
        codebook_size=SIZE,
        codebook_dim=16,
        vector_quantization_hidden_dimension=16,
        hidden_size=32,
        num_filters=4,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=64,
        upsample_groups=32,
    )
    model = MimiModel(config)
    for name, buffer in model.named_buffers():
        if name.endswith("embed_sum"):
            buffer.normal_()
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
