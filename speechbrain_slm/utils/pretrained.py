"""Models of others: loaded whole or not at all, and without running code."""

import pydoc
import re
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

# transformers' words for a model that is made by code beside its weights.
_CODE = "trust_remote_code"
# What a published speech model of SpeechBrain is made of: classes and functions
# of these modules, and none that a module has only imported.
_PARTS = (
    "speechbrain.lobes.",
    "speechbrain.nnet.",
    "speechbrain.processing.",
    "speechbrain.dataio.encoder",
    "speechbrain.utils.parameter_transfer",
    "speechbrain.utils.text_to_sequence",
    "torch.nn.",
)
# These load further models, by their name on the hub.
_LOADERS = "speechbrain.lobes.models.huggingface_transformers"
_TAG = re.compile(r"(?:new|name):([\w.]+)")
_HARMLESS = ("ref", "copy", "tuple", "apply:speechbrain.utils.seed_everything")


def said_by(error: Exception) -> str:
    """Return the first line of what a library says of a model that fails."""
    text = str(error).strip()
    if _CODE in text:
        return (
            "its config.json names code of its own, which is never run; "
            "expected a model that transformers itself knows"
        )
    return (text or type(error).__name__).splitlines()[0]


def not_there(
    source: str | Path, what: str, error: Exception, below: str = ""
) -> FileNotFoundError:
    """Return the error of a model of which ``what`` cannot be had.

    ``below`` is where in a downloaded folder the model stands.
    """
    found = (
        f"{source}: no {what} can be read from this folder"
        if Path(source).exists()
        else f"{source} is neither a folder nor a hub model whose {what} is "
        "downloaded or can be"
    )
    return FileNotFoundError(
        f"{found} ({said_by(error)}). Where there is a network, run: "
        f"hf download {source} --local-dir <folder>. Then give "
        f"<folder>{below}; HF_HUB_OFFLINE=1 keeps later runs off the network."
    )


def load_whole(
    kind: Any,
    source: str | Path,
    absent: str | None = None,
    surplus: str | None = None,
    **options: Any,
) -> Any:
    """Load a transformers model; refuse one that is not whole.

    OSError if there are no weights; ValueError says what else is wrong.

    Arguments
    ---------
    kind : A class with ``from_pretrained``: ``AutoModel``, ``VitsModel``, ...
    absent : Pattern of tensors that a file may lack: unused, or computed.
    surplus : Pattern of the tensors that a file may have and the model has not.
    **options : For ``from_pretrained``.
    """
    model, loading = _load(kind, source, options)
    found = list(loading.get("error_msgs", ()))
    shapes = [key[0] for key in loading["mismatched_keys"]]
    for how, names, but in (
        ("lack", loading["missing_keys"], absent),
        ("have, beyond the model's own,", loading["unexpected_keys"], surplus),
        ("have in another shape", shapes, None),
    ):
        wrong = sorted(n for n in names if not (but and re.search(but, n)))
        if wrong:
            shown = ", ".join(wrong[:3] + ["..."] * (len(wrong) > 3))
            found.append(f"{how} {len(wrong)} tensor(s) ({shown})")
    if found:
        raise ValueError(
            f"{source}: its weights {'; they '.join(found)}. They are not "
            f"those of a {type(model).__name__} as its config.json describes "
            "it: what is missing would be random. Fetch the model again, or "
            "choose another."
        )
    return model


def _load(kind, source, options):
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    # It warns of the tensors that it gives random numbers to; an error here.
    logging.set_verbosity_error()
    try:
        _refuse_kernels(source, options)
        return kind.from_pretrained(
            source,
            # Left open, it asks on the terminal, and waits.
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    except SafetensorError as error:
        raise ValueError(
            f"{_damaged(source)} is damaged or cut short ({error}); fetch or "
            "write it again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{source}: {said_by(error)}") from error
    except (OSError, ImportError):
        raise
    except Exception as error:
        # A configuration of impossible values fails anywhere in transformers:
        # KeyError, ZeroDivisionError, RuntimeError of torch, ...
        raise ValueError(
            f"{source}: transformers cannot make a model of it "
            f"({type(error).__name__}: {said_by(error)}). Its config.json is "
            "damaged or was changed; fetch or export the model again."
        ) from error
    finally:
        logging.set_verbosity(verbosity)


def _refuse_kernels(source, options):
    """Refuse a configuration that names kernels of a repository: code."""
    from transformers import AutoConfig

    config = options.get("config") or AutoConfig.from_pretrained(
        source,
        trust_remote_code=False,
        local_files_only=options.get("local_files_only", False),
    )
    asked = str(getattr(config, "_attn_implementation", None))
    if "/" in asked:
        raise ValueError(
            f"its config.json asks for the attention '{asked}', code of a "
            "repository, which is never run; remove attn_implementation"
        )


def _damaged(source):
    for path in sorted(Path(source).glob("*.safetensors")):
        try:
            with safe_open(path, "np"):
                pass
        except SafetensorError:
            return path
    return f"{source}: one of its *.safetensors"


def check_speechbrain_yaml(path: str | Path, trusted: bool = False) -> None:
    """Refuse a ``hyperparams.yaml`` that names more than layers of a model.

    Whoever loads it runs what it names (``!apply:``, ``!new:``), so the file
    of somebody else is read first.
    """
    if trusted:
        return
    try:
        text = Path(path).read_text(encoding="utf-8")
        tokens = list(yaml.scan(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}") from error
    for token in tokens:
        shown = ""
        if isinstance(token, yaml.TagToken):
            handle, name = token.value
            # Any other handle stands for what a directive says.
            if handle != "!" or not _is_part(name):
                shown = f"{handle or ''}{name}"
        elif isinstance(token, yaml.DirectiveToken) and token.name == "TAG":
            shown = f"%TAG {' '.join(token.value)}"
        if shown:
            raise ValueError(
                f"{path} names {shown}, which loading the model would run; "
                "expected the layers of SpeechBrain and torch alone. Read the "
                "file: where you trust it, set trusted to True."
            )


def _is_part(tag):
    name = _TAG.fullmatch(tag)
    if not name or not name[1].startswith(_PARTS):
        return tag in _HARMLESS
    # speechbrain.nnet.linear.logging.FileHandler begins as a layer does; where
    # it is defined tells.
    home = f"{getattr(pydoc.locate(name[1]), '__module__', '')}."
    return home.startswith(_PARTS) and not home.startswith(_LOADERS)
