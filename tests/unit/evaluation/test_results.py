import pyarrow as pa
import pytest
from results_example import drawn_credits, scores_table, write_results

from speechbrain_slm.evaluation.cloze.results import read_info, read_results


@pytest.fixture
def folder(tmp_path):
    return write_results(tmp_path / "run", scores_table(drawn_credits(0.7)))


def test_reads_what_was_written(folder):
    results = read_results(folder)
    assert results.info["model"] == "weights of run"
    assert len(results.cells) == 2 * 5
    cell = results.cells["sTC", "fr>en"]
    assert cell["item_id"].to_pylist() == [f"test-{n:03d}" for n in range(60)]


def test_what_is_missing_is_named(folder):
    (folder / "scores.parquet").unlink()
    assert read_info(folder)["scoring"] == "whole_mean"
    with pytest.raises(FileNotFoundError, match=r"scores.parquet does not exi"):
        read_results(folder)
    (folder / "results.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"results.json does not exist"):
        read_results(folder)


def test_scores_of_another_run_are_refused(folder, tmp_path):
    other = scores_table(drawn_credits(0.7, seed=1))
    other = write_results(tmp_path / "other", other)
    (other / "scores.parquet").rename(folder / "scores.parquet")
    with pytest.raises(ValueError, match=r"scores.parquet has the SHA-256"):
        read_results(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": "speechbrain_slm.cl', "is not valid JSON"),
        ("[]", "its content is .*; expected an object"),
        ('{"format": "speechbrain_slm.alignment"}', "is not what the cloze"),
        (
            '{"format": "speechbrain_slm.cloze", "version": 1, "items": ""}',
            "of version 1; expected version 2",
        ),
    ],
)
def test_damaged_results_are_refused(folder, content, message):
    (folder / "results.json").write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_info(folder)
    assert str(folder / "results.json") in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["right"] * 8, "'whole_mean' is string with 0 holes"),
        ([None] + [1.0] * 7, "'whole_mean' is double with 1 holes"),
        ([1.0] * 5 + [2.5] * 3, r"row 5: 'whole_mean' is 2\.5; expected a cr"),
        ([float("nan")] * 8, "row 0: 'whole_mean' is nan; expected a credit"),
    ],
)
def test_credits_that_are_none_are_named(tmp_path, values, message):
    scores = scores_table(drawn_credits(0.7, ["sSC"], count=2))
    place = scores.column_names.index("whole_mean")
    scores = scores.set_column(place, "whole_mean", pa.array(values))
    folder = write_results(tmp_path / "run", scores)
    with pytest.raises(ValueError, match=rf"scores\.parquet.*{message}"):
        read_results(folder)


def test_results_of_a_scoring_without_scores_are_refused(tmp_path):
    scores = scores_table(drawn_credits(0.7, count=2))
    folder = write_results(tmp_path / "run", scores, scoring="other")
    with pytest.raises(ValueError, match="has no scores of 'other', which"):
        read_results(folder)
