"""Ranks that wait for each other's files."""

import threading

from speechbrain_slm.utils.sharing import wait_for


def test_a_file_is_waited_for(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    paths[1].touch()
    timer = threading.Timer(0.3, paths[0].touch)
    timer.start()
    wait_for(paths)
    assert paths[0].exists()
    timer.join()
