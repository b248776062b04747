import hashlib

import pytest

from speechbrain_slm.evaluation.identity import weights_identity


def test_one_file_has_the_sum_that_sha256sum_prints(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    expected = hashlib.sha256(b"weights").hexdigest()
    assert weights_identity(tmp_path) == expected


def test_each_shard_counts(tmp_path):
    (tmp_path / "model-1.safetensors").write_bytes(b"one")
    (tmp_path / "model-2.safetensors").write_bytes(b"two")
    before = weights_identity(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert weights_identity(tmp_path) == before
    (tmp_path / "model-2.safetensors").write_bytes(b"too")
    assert weights_identity(tmp_path) != before


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no .*safetensors"):
        weights_identity(tmp_path)
