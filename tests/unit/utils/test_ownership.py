"""What another made is neither removed nor replaced."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speechbrain_slm.utils.atomic import remove_temporary
from speechbrain_slm.utils.ownership import (
    mark_of,
    refuse_foreign,
    remove_own,
    withdraw,
)

TABLE = pa.table({"a": [1]})


@pytest.mark.parametrize("content", ["another's", "no mark", "no table"])
def test_only_what_carries_the_mark_is_withdrawn(tmp_path, content):
    own, other = tmp_path / "own.parquet", tmp_path / "other.parquet"
    metadata = mark_of("them") if content == "another's" else None
    for path, mark in ((own, mark_of("us")), (other, metadata)):
        pq.write_table(TABLE.replace_schema_metadata(mark), path)
    refuse_foreign([own, tmp_path / "missing.parquet"], "us")
    if content == "no table":
        other.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="'us', which older versions"):
        refuse_foreign([own, other], "us")
    with pytest.raises(FileExistsError, match=r"other\.parquet .* no mark"):
        withdraw([own, other], "us")
    assert own.exists()
    assert other.exists()
    withdraw([own], "us")
    assert not own.exists()


def test_a_link_to_a_folder_is_not_followed(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "part-0.parquet").touch()
    (tmp_path / "parts").symlink_to(tmp_path / "theirs")
    remove_own(tmp_path / "parts", "part-*.parquet")
    assert (tmp_path / "theirs" / "part-0.parquet").exists()


def test_a_temporary_name_is_one_that_we_give(tmp_path):
    ours = tmp_path / ".tmp-0123abcd-train.parquet"
    theirs = [tmp_path / ".tmp-thesis", tmp_path / ".tmp-1"]
    for path in (ours, *theirs):
        path.touch()
    remove_temporary(tmp_path)
    assert not ours.exists()
    assert all(path.exists() for path in theirs)
