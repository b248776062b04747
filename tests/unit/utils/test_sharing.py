"""A data folder belongs to one run, or to array jobs of one plan."""

import json

import pytest

from speechbrain_slm.utils.locking import FolderInUse
from speechbrain_slm.utils.sharing import claim, claim_data, join_plan

PLAN = {"text": {"seed": 1, "languages": ("en", "fr")}}
OTHER = {"text": {"seed": 2, "languages": ("en", "fr")}}


def test_two_runs_are_kept_apart_wherever_they_log(tmp_path):
    with claim_data(tmp_path, PLAN):
        for job in (None, 0):
            with (
                pytest.raises(FolderInUse),
                claim_data(tmp_path, OTHER, job, 2),
            ):
                pass
        plan = json.loads((tmp_path / "parts" / "plan.json").read_text())
        assert plan["text"]["seed"] == 1


def test_jobs_of_one_plan_run_at_once_and_those_of_another_are_refused(
    tmp_path,
):
    with claim_data(tmp_path, PLAN, 0, 3), claim_data(tmp_path, PLAN, 1, 3):
        with (
            pytest.raises(ValueError, match=r"text\.seed: expected 2, found 1"),
            claim_data(tmp_path, OTHER, 2, 3),
        ):
            pass
        with pytest.raises(FolderInUse), claim_data(tmp_path, PLAN, 0, 3):
            pass
        with pytest.raises(FolderInUse), claim_data(tmp_path, PLAN):
            pass


def test_a_run_that_is_alone_makes_the_folder_its_own(tmp_path):
    with claim_data(tmp_path, PLAN, 0, 2):
        pass
    with claim_data(tmp_path, OTHER):
        pass
    with claim_data(tmp_path, OTHER, 0, 2):
        pass


def test_a_plan_that_nothing_was_made_of_does_not_block_array_jobs(tmp_path):
    """Jobs that failed at the door leave a plan behind, and no work."""
    ours, others = {"seed": 1}, {"seed": 2}
    parts = "**/part-*"
    with claim(tmp_path, 0, 3) as first, claim(tmp_path, 1, 3) as second:
        join_plan(tmp_path, first, ours, parts)
        join_plan(tmp_path, second, ours, parts)
        # Somebody may be at work by it.
        with (
            claim(tmp_path, 2, 3) as third,
            pytest.raises(ValueError, match="seed"),
        ):
            join_plan(tmp_path, third, others, parts)
    with claim(tmp_path, 2, 3) as third:
        join_plan(tmp_path, third, others, parts)
        (third / "part-0").touch()
    with (
        claim(tmp_path, 0, 3) as first,
        pytest.raises(ValueError, match="seed"),
    ):
        join_plan(tmp_path, first, ours, parts)
