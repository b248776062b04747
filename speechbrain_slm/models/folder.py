"""What stands beside the weights of a speech LM, and where one is found."""

import shutil
from pathlib import Path

from speechbrain_slm.utils.atomic import atomic_folder
from speechbrain_slm.utils.files import check_file
from speechbrain_slm.utils.pretrained import not_there
from speechbrain_slm.utils.schema import TEXT, read_shaped

TOKENIZER = "tokenizer"
VOCODER = "vocoder"
# What they say of themselves; BPE stands on top of a tokenizer.
_TOKENIZER_JSON = f"{TOKENIZER}/tokenizer.json"
_BPE_JSON = f"{TOKENIZER}/bpe/bpe.json"
VOCODER_JSON = "vocoder.json"
# What a model on the hub consists of. No more is downloaded, no pickle at all.
PUBLISHED = ("*.json", "*.safetensors", "*.md", "tokenizer/**", "vocoder/**")
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"}


def find_speech_lm(
    source: str | Path,
    savedir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    revision: str | None = None,
) -> Path:
    """Return the folder of a model: itself, or a download of the hub's.

    FileNotFoundError says what to fetch where there is no network.

    Arguments
    ---------
    savedir : Where a download goes; None: to the hub's cache.
    cache_dir : Another cache than that of the environment.
    """
    if Path(source).exists():
        return Path(source)
    from huggingface_hub import snapshot_download

    how: dict = {"local_dir": savedir, "cache_dir": cache_dir}
    how |= {"revision": revision, "allow_patterns": [*PUBLISHED]}
    try:
        return Path(snapshot_download(str(source), **how))
    except OSError as error:
        raise not_there(source, "speech LM", error) from error
    except ValueError as error:
        raise FileNotFoundError(
            f"{source} does not exist; expected a model's folder, or a name "
            "on the hub, such as user/model"
        ) from error


def refuse_pickles(folder: str | Path) -> None:
    """Refuse files that run code when they are loaded; all else is data."""
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix in _PICKLES:
            raise ValueError(
                f"{path} is a pickle, which may run code when it is loaded; "
                "expected weights in *.safetensors alone. Remove it, or "
                "export the model again."
            )


def tokenizer_of(folder: str | Path, units: dict) -> Path | None:
    """Return the folder of a model's tokenizer, None if there is none.

    ``units`` are what the model says of them. ValueError if the tokenizer
    makes other units: what the model would hear is noise.
    """
    found = _identities(Path(folder))
    if not found:
        return None
    told = units.get("base_identity", found[0]), units["tokenizer_identity"]
    for one, expected in zip((found[0], found[-1]), told, strict=True):
        if one != expected:
            raise ValueError(
                f"{folder}: the tokenizer in it has the identity {one}, but "
                f"the model was trained on units of {expected}. Copy the "
                "model with its own tokenizer, or export it again."
            )
    return Path(folder) / TOKENIZER


def vocoder_of(folder: str | Path, units: dict) -> Path | None:
    """Return the folder of a model's vocoder, None if there is none.

    ValueError if it speaks the units of another tokenizer.
    """
    place = Path(folder) / VOCODER
    if not place.is_dir():
        return None
    check_vocoder(place, below_bpe(folder, units))
    return place


def below_bpe(folder: str | Path, units: dict) -> str:
    """Name the tokenizer below any BPE: the one whose units are spoken."""
    found = _identities(Path(folder))
    told = units.get("base_identity")
    return told or (found[0] if found else units["tokenizer_identity"])


def check_vocoder(vocoder_folder: str | Path, identity: str) -> None:
    """Refuse a vocoder of another tokenizer's units, or one of pickles."""
    folder = Path(vocoder_folder)
    path = folder / VOCODER_JSON
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no vocoder: it has no {VOCODER_JSON}; expected the "
            "folder 'vocoder' that the vocoder recipe writes at its end"
        )
    refuse_pickles(folder)
    found = read_shaped(path, {"tokenizer_identity": TEXT})
    if found["tokenizer_identity"] != identity:
        raise ValueError(
            f"{folder} speaks units of the tokenizer "
            f"{found['tokenizer_identity']}, the model's are of {identity}; "
            "train a vocoder on the units that the model was trained on"
        )


def copy_vocoder(vocoder_folder: str | Path, folder: str | Path) -> None:
    """Copy a vocoder into a model's folder, all of it or nothing."""
    source = Path(vocoder_folder)
    with atomic_folder(Path(folder) / VOCODER) as temporary:
        for path in sorted(source.rglob("[!.]*")):
            if path.is_dir():
                continue
            target = temporary / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(check_file(path, "a file of a vocoder"), target)


def _identities(folder: Path) -> list[str]:
    """List the identities of a tokenizer and, last, of the BPE on top."""
    paths = (folder / _TOKENIZER_JSON, folder / _BPE_JSON)
    shape = {"identity": TEXT}
    return [read_shaped(p, shape)["identity"] for p in paths if p.is_file()]
