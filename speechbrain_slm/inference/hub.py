"""Model folders that go to the Hugging Face hub."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.constants import REPO_ID_SEPARATOR

from speechbrain_slm.models.folder import PUBLISHED
from speechbrain_slm.utils.atomic import atomic_folder, write_atomic


def push_folder(
    folder: str | Path,
    name: str,
    cache_dir: str | Path | None = None,
    private: bool | None = None,
) -> str:
    """Upload a model, and return where it is.

    Arguments
    ---------
    name : ``user/model``.
    cache_dir
        A folder in the layout of the hub's cache, for a machine without a
        network: the model goes there, and nothing is uploaded.
    """
    folder = Path(folder)
    if cache_dir is None:
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        told = api.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=[*PUBLISHED]
        )
        return str(told)
    home = Path(cache_dir, f"models--{name.replace('/', REPO_ID_SEPARATOR)}")
    listed = sorted(path for path in folder.rglob("*") if path.is_file())
    # 40 digits, as of a commit, by what the files hold.
    commit = hashlib.sha1(usedforsecurity=False)
    for path in listed:
        commit.update(path.relative_to(folder).as_posix().encode())
        commit.update(hashlib.sha256(path.read_bytes()).digest())
    snapshot = home / "snapshots" / commit.hexdigest()
    if not snapshot.exists():
        with atomic_folder(snapshot) as temporary:
            shutil.copytree(folder, temporary, dirs_exist_ok=True)
    write_atomic(home / "refs" / "main", commit.hexdigest().encode())
    return str(snapshot)
