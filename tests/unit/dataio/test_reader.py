import pytest
from conftest import TOKENIZER

from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.utils.store import StoreWriter


@pytest.mark.parametrize("num_shards", [1, 2])
def test_languages_that_differ_in_sentences_are_refused(tmp_path, num_shards):
    writer = StoreWriter(tmp_path, TOKENIZER, "2b", num_shards)
    rows = [
        ("s0", "en", "alto", [[1], [2]]),
        ("s0", "fr", "alto", [[3, 4], [5]]),
        ("s1", "en", "alto", [[1], [2]]),
        ("s1", "fr", "alto", [[3]]),
    ]
    # In one file, or each language in its own.
    for index in range(num_shards):
        writer.write(index, rows[index::num_shards])
    writer.finish()
    with pytest.raises(ValueError, match=r"'s1' has 1 .* 'fr' and 2 in"):
        UnitStore(tmp_path)
