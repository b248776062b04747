"""Model folders by a name of the Hugging Face hub, and folders there."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.constants import REPO_ID_SEPARATOR
from huggingface_hub.errors import HFValidationError

from speechbrain_slm.utils.atomic import atomic_folder, write_atomic
from speechbrain_slm.utils.pretrained import not_there

# What an exported model consists of; nothing else is downloaded, pickles least
# of all.
_FILES = ("*.json", "*.safetensors", "*.md", "tokenizer/**", "vocoder/**")


def fetch_model(
    source: str | Path,
    savedir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    revision: str | None = None,
) -> Path:
    """Return the folder of a model, which is downloaded if it has a hub name.

    Arguments
    ---------
    source : A folder, or a name such as ``user/model``.
    savedir : Where a download goes; None: to the hub's cache.
    cache_dir : Another cache than that of the environment.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(
            snapshot_download(
                str(source),
                revision=revision,
                local_dir=savedir,
                cache_dir=cache_dir,
                allow_patterns=[*_FILES],
            )
        )
    # Whatever says that it cannot be had: offline, no such name, no leave.
    except (OSError, HFValidationError) as error:
        raise not_there(source, "config.json", error) from error


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
            repo_id=name, folder_path=folder, allow_patterns=[*_FILES]
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
