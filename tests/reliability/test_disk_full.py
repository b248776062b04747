"""A full disk, by a limit on the size of files: nothing that looks complete.

Checkpoints and speech have such tests of their own.
"""

import resource

import pytest
from cloze_example import export

from speechbrain_slm.models.export import load_speech_lm


@pytest.fixture
def files_of_10_kb():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_model_without_room(tmp_path, files_of_10_kb):
    with pytest.raises(OSError, match=f"from here: '{tmp_path}/model'"):
        export(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="not an exported speech LM"):
        load_speech_lm(tmp_path / "model")
