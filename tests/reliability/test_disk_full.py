"""A full disk, by a limit on the size of files: nothing that looks complete.

Checkpoints and speech have such tests of their own.
"""

import contextlib
import resource

import pytest
from cloze_example import export, write_items
from units_example import LoudnessTokenizer, digests, extract, write_corpus

from speechbrain_slm.evaluation.cloze.evaluate import evaluate_cloze
from speechbrain_slm.models.export import load_speech_lm


@contextlib.contextmanager
def files_of_at_most(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_units_go_on_when_there_is_room(tmp_path):
    """Room for a little more each time, so every kind of file fails once."""
    manifest = write_corpus(tmp_path)
    folder = tmp_path / "out"
    failures, size = 0, 0
    while True:
        try:
            with files_of_at_most(size):
                extract(manifest, folder, LoudnessTokenizer())
            break
        except OSError as error:
            # Raised again here: pytest may write to a file of its own.
            failures, message = failures + 1, str(error)
        assert f"again, it goes on from here: '{folder}" in message
        assert not (folder / "train" / "store.json").exists()
        size += 400
    assert failures >= 4
    extract(manifest, tmp_path / "other", LoudnessTokenizer())
    assert digests(folder) == digests(tmp_path / "other")


@pytest.mark.parametrize(
    ("room", "file"), [(1000, "part-00000000"), (4000, "scores")]
)
def test_no_results_without_room(tmp_path, store_folder, room, file):
    model = export(tmp_path / "model")
    items = write_items(tmp_path / "items.parquet")
    arguments = (model, store_folder, items, tmp_path / "out")
    message = ""
    try:
        with files_of_at_most(room):
            evaluate_cloze(*arguments)
    except OSError as error:
        message = str(error)
    assert f"it goes on from here: '{tmp_path}/out/" in message
    assert message.endswith(f"/{file}.parquet'")
    # What was scored is kept; nothing looks like results.
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["parts"]
    assert evaluate_cloze(*arguments)["records"]


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
