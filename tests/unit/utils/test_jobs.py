"""A folder belongs to one run, or to array jobs of one configuration."""

import contextlib
import json
import logging

import pytest

from speechbrain_slm.utils import jobs
from speechbrain_slm.utils.jobs import FolderInUse, Progress, Share, claim

OURS = {"text": {"seed": 1, "languages": ("en", "fr")}}
OTHER = {"text": {"seed": 2, "languages": ("en", "fr")}}
MADE = "**/part-*"


@contextlib.contextmanager
def pinned(folder, content, job=None, num_jobs=1, takes_over=False):
    with claim(folder, Share(job, num_jobs)) as place:
        place.pin(content, MADE, takes_over)
        yield place.own


def refused(error, match, *arguments):
    with pytest.raises(error, match=match), pinned(*arguments):
        pass


@pytest.mark.parametrize("job", [-1, 2])
def test_there_is_no_such_job(job):
    with pytest.raises(ValueError, match=f"job is {job}; expected 0 to 1, or"):
        Share(job, 2)


def test_two_runs_are_kept_apart_wherever_they_log(tmp_path):
    with pinned(tmp_path, OURS):
        for job in (None, 0):
            refused(FolderInUse, None, tmp_path, OTHER, job, 2)
        plan = json.loads((tmp_path / "plan.json").read_text())
        assert plan["text"]["seed"] == 1


def test_jobs_of_one_plan_run_at_once_and_others_are_refused(tmp_path):
    with pinned(tmp_path, OURS, 0, 3), pinned(tmp_path, OURS, 1, 3):
        for takes_over in (False, True):
            other = tmp_path, OTHER, 2, 3, takes_over
            refused(ValueError, "seed: expected 2, found 1", *other)
        for job, num_jobs in ((0, 3), (None, 1)):
            refused(FolderInUse, None, tmp_path, OURS, job, num_jobs)


def test_a_plan_that_nothing_was_made_of_is_replaced(tmp_path):
    """Jobs that failed at the door leave one behind, and no work."""
    for job in (0, None, 1):
        for content in (OURS, OTHER):
            with pinned(tmp_path, content, job, 2) as own:
                pass
    (own / "part-0").touch()
    for job in (0, None):
        refused(ValueError, "seed", tmp_path, OURS, job, 2)
    # Alone, a run may make the folder its own.
    with pinned(tmp_path, OURS, takes_over=True), pytest.raises(FolderInUse):
        jobs.lock_folder(tmp_path)
    with pinned(tmp_path, OURS, 0, 2):
        pass


def test_files_without_a_plan_are_not_understood(tmp_path):
    (tmp_path / "part-0").touch()
    refused(ValueError, r"part-0 but no plan\.json", tmp_path, OURS)
    assert not (tmp_path / "plan.json").exists()


def test_ranks_share_what_is_missing(monkeypatch):
    """Each shard once, whatever was done before and by whom."""
    done = {1, 4, 5, 11}
    for num_jobs, ranks in ((1, 1), (1, 3), (4, 2)):
        made = []
        for job in range(num_jobs):
            share = Share(job if num_jobs > 1 else None, num_jobs)
            monkeypatch.setattr(jobs, "world_size", lambda n=ranks: n)
            for rank in range(ranks):
                monkeypatch.setattr(jobs, "rank", lambda n=rank: n)
                own = jobs.missing(range(12), done.__contains__, share)
                jobs.run(own, made.append)
        assert sorted(made) == sorted(set(range(12)) - done)


def test_the_last_line_says_that_all_is_done(caplog):
    progress = Progress(7200.0, "h of speech", per=3600)
    with caplog.at_level(logging.INFO):
        progress.add(3600.0)
        progress.add(3600.0, lambda: "2 x real time")
    (line,) = caplog.messages
    assert line.endswith(
        "2.00 of its 2.00 h of speech, 0 s left; 2 x real time"
    )
