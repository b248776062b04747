"""Small stores and models that the tests share."""

import numpy as np
import pytest
import torch

from speechbrain_slm.utils.store import StoreWriter

torch.set_num_threads(1)
# What a tokenizer says of itself.
TOKENIZER = {
    "identity": "codebook-a",
    "vocabulary_size": 30,
    "frame_rate": 25.0,
    "deduplicated": True,
    "config": {},
}


def write_store(
    folder,
    languages=("en", "fr"),
    stories=40,
    vocabulary_size=30,
    identity="codebook-a",
    shards=3,
    seed=0,
):
    """Write random aligned stories of 3 to 6 sentences of 2 to 7 units."""
    generator = np.random.default_rng(seed)
    told = {"identity": identity, "vocabulary_size": vocabulary_size}
    tokenizer = TOKENIZER | told
    writer = StoreWriter(folder, tokenizer, "manifest-a", shards)
    rows = [[] for _ in range(shards)]
    for story in range(stories):
        count = generator.integers(3, 7)
        for language in languages:
            sentences = [
                generator.integers(0, vocabulary_size, generator.integers(2, 8))
                for _ in range(count)
            ]
            row = (f"story-{story:03d}", language, "alto", sentences)
            rows[story % shards].append(row)
    for shard, content in enumerate(rows):
        writer.write(shard, content)
    writer.finish()
    return folder


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory):
    """A store of 40 stories in English and French."""
    return write_store(tmp_path_factory.mktemp("store") / "train")


@pytest.fixture(scope="session")
def three_languages(tmp_path_factory):
    """A store of 40 stories in three languages."""
    folder = tmp_path_factory.mktemp("store") / "three"
    return write_store(folder, languages=("de", "en", "fr"))


@pytest.fixture(scope="session")
def units(tmp_path_factory):
    """A folder of stores that a short training run needs."""
    folder = tmp_path_factory.mktemp("units")
    write_store(folder / "train", stories=60)
    write_store(folder / "valid", stories=20, seed=1)
    return folder
