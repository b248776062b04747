"""A full disk, by a limit on the size of files: nothing that looks complete.

Checkpoints and speech have such tests of their own.
"""

import contextlib
import resource

import pytest
from cloze_example import export

from speechbrain_slm.models.export import load_speech_lm


@contextlib.contextmanager
def files_of_at_most(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_model_without_room(tmp_path):
    message = ""
    try:
        with files_of_at_most(10_000):
            export(tmp_path / "model")
    except OSError as error:
        message = str(error)
    assert f"it goes on from here: '{tmp_path}/model'" in message
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="not an exported speech LM"):
        load_speech_lm(tmp_path / "model")
