import os

import pytest
from speechbrain_slm.evaluation.identity import unchanged

from speechbrain_slm.utils.hashing import sha256_file


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("one")
    with unchanged(path) as identity:
        assert identity == sha256_file(path)

    def replace():
        with unchanged(path):
            (tmp_path / "new").write_text("two")
            os.replace(tmp_path / "new", path)

    with pytest.raises(ValueError, match=r"items\.csv was changed while"):
        replace()
