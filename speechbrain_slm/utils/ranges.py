"""What each number, switch and list of names of a YAML file may be.

One table for all recipes and fragments, so that a value that only ruins
hours of work is refused before anything is made. Functions that are called
without a YAML file check what they are given themselves.
"""

import math
from pathlib import Path

from speechbrain_slm.utils.numbers import check_number
from speechbrain_slm.utils.yaml_tree import (
    OWN_NAMES,
    ConfigurationError,
    tag_of,
)

SWITCH = "true or false"
COUNT = {"at_least": 1, "whole": True}
NATURAL = {"at_least": 0, "whole": True}
NOT_NEGATIVE = {"at_least": 0}
POSITIVE = {"above": 0}
SHARE = {"at_least": 0, "at_most": 1}
PART = {"at_least": 0, "below": 1}

# Of each key, wherever it stands: at the root, in a group, in a fragment.
RANGES: dict[str, dict | str] = {
    # All recipes
    "seed": {"at_least": 0, "at_most": 2**32 - 1, "whole": True},
    "job": NATURAL,
    "num_jobs": COUNT,
    "num_workers": COUNT,
    "sample_rate": COUNT,
    # Text and translation
    "limit": COUNT,
    "min_sentences": COUNT,
    "min_characters": NATURAL,
    "max_characters": COUNT,
    "num_stories": COUNT,
    "stories_per_shard": {**COUNT, "at_most": 2**31 - 1},
    "max_rejected": SHARE,
    "copy_letters": NATURAL,
    "length_ratio": {"at_least": 1},
    "num_beams": COUNT,
    "sentences_per_request": COUNT,
    "attempts": COUNT,
    "concurrency": COUNT,
    "requests_per_minute": POSITIVE,
    "timeout": POSITIVE,
    "max_attempts": COUNT,
    "backoff": NOT_NEGATIVE,
    "max_wait": NOT_NEGATIVE,
    "prompt_price": NOT_NEGATIVE,
    "completion_price": NOT_NEGATIVE,
    # Speech
    "plots": COUNT,
    "characters": COUNT,
    "things": COUNT,
    "num_train": NATURAL,
    "num_valid": NATURAL,
    "num_cloze": NATURAL,
    "max_left_out": SHARE,
    "max_ratio": {"at_least": 1},
    "loudness": {"at_least": -70, "at_most": 0},
    "threshold_db": {"below": 0},
    "margin": NOT_NEGATIVE,
    "shortest": NOT_NEGATIVE,
    "longest": POSITIVE,
    "spare": NOT_NEGATIVE,
    "clipped": SHARE,
    "pitch": POSITIVE,
    "speed": POSITIVE,
    "pure": SWITCH,
    "trusted": SWITCH,
    "batch_rows": COUNT,
    "buckets": COUNT,
    "utterances": COUNT,
    "threshold": {"at_least": -1, "at_most": 1},
    "low": POSITIVE,
    "high": POSITIVE,
    "semitones": POSITIVE,
    # Units
    "fit_seconds": POSITIVE,
    "max_rejects": SHARE,
    "utterances_per_shard": COUNT,
    "batch_seconds": POSITIVE,
    "max_seconds": POSITIVE,
    "num_clusters": {"at_least": 1, "at_most": 65536, "whole": True},
    "vocabulary_size": COUNT,
    "max_piece_length": COUNT,
    "num_mels": COUNT,
    "num_mfcc": COUNT,
    "num_codebooks": COUNT,
    "frames_per_unit": COUNT,
    "context_frames": NATURAL,
    "layer": COUNT,
    "silence": NOT_NEGATIVE,
    "deduplicate": SWITCH,
    # Language models
    "switch_probability": SHARE,
    "span": COUNT,
    "shuffle_alignment": SWITCH,
    "thousand_steps": COUNT,
    "tokens": POSITIVE,
    "steps": COUNT,
    "row_length": COUNT,
    "rows_per_step": COUNT,
    "valid_rows": NATURAL,
    "learning_rate": POSITIVE,
    "warmup": PART,
    "weight_decay": NOT_NEGATIVE,
    "log_interval": NATURAL,
    "valid_interval": NATURAL,
    "keep_checkpoints": COUNT,
    "peak_tflops": POSITIVE,
    "tensorboard": SWITCH,
    "embedding_std": NOT_NEGATIVE,
    "activation_checkpointing": SWITCH,
    "hidden_size": COUNT,
    "intermediate_size": COUNT,
    "num_layers": COUNT,
    "num_hidden_layers": COUNT,
    "num_heads": COUNT,
    "num_attention_heads": COUNT,
    "num_key_value_heads": COUNT,
    "head_dim": COUNT,
    "max_positions": COUNT,
    "max_position_embeddings": COUNT,
    "dropout": PART,
    "attention_dropout": PART,
    "tied": SWITCH,
    "tie_word_embeddings": SWITCH,
    "rms_norm_eps": POSITIVE,
    "rope_theta": POSITIVE,
    "factor": POSITIVE,
    "low_freq_factor": POSITIVE,
    "high_freq_factor": POSITIVE,
    "original_max_position_embeddings": COUNT,
    "fused": SWITCH,
    # Evaluation
    "share_prompts": SWITCH,
    "batch_tokens": COUNT,
    "pairs_per_shard": COUNT,
    "max_retrieval": COUNT,
    "gallery": COUNT,
    "score_end": SWITCH,
    "tie": SHARE,
    # SpeechBrain's run options
    "max_grad_norm": {},
    "grad_accumulation_factor": COUNT,
    "ckpt_interval_steps": NATURAL,
    "optimizer_step_limit": COUNT,
    "debug_batches": COUNT,
}
# Where null means something: all of them, none of it, or the usual.
NULLS = {
    *("job", "limit", "plots", "characters", "things", "loudness"),
    *("requests_per_minute", "prompt_price", "completion_price"),
    *("fit_seconds", "vocabulary_size", "peak_tflops", "embedding_std"),
    *("max_ratio", "optimizer_step_limit"),
}
# Of each value of a mapping whose names are the user's; a service knows what
# its options are.
VALUES = {
    "mixture": NOT_NEGATIVE,
    "shares": SHARE,
    "switch_probability": SHARE,
    "options": None,
}
# Lists of names, each another one, and the fewest that they may have. Several
# may be null, where the YAML files have that.
NAMES = {
    "languages": 1,
    "splits": 1,
    "speakers": 1,
    "names": 1,
    "voices": 1,
    "poolings": 1,
    "language_tags": 0,
}
NO_NAMES = {"speakers"}
# Where names, or a mapping's keys, become names of files.
FILE_NAMES = {"splits", "sources", "shares"}
# What may be a list, or a mapping, where the YAML files have one value.
SEVERAL = {"plots": list, "switch_probability": dict}
# What may stand where a YAML file has null.
GROUPS = {"bpe": ("vocabulary_size", "max_piece_length")}
_OWN = "speechbrain_slm."


def check_ranges(tree: dict, where: str | Path) -> None:
    """Refuse a number, a switch or a name that is none of its key's values.

    Arguments
    ---------
    tree
        A YAML file without references and inclusions; see
        ``yaml_tree.resolve``. Where a whole number is expected, 1e6 becomes
        one.

    Raises
    ------
    ConfigurationError
        Names the key, the value and what was expected.

    Example
    -------
    >>> check_ranges({"learning_rate": -0.1}, "a.yaml")
    Traceback (most recent call last):
    ...
    speechbrain_slm.utils.yaml_tree.ConfigurationError: a.yaml: learning_rate
    is -0.1; expected a number above 0
    """
    try:
        _check("", tree, RANGES.get)
        job, jobs = tree.get("job"), tree.get("num_jobs")
        if job is not None and jobs is not None and job >= jobs:
            raise ValueError(
                f"job is {job}; expected 0 to {jobs - 1}, since num_jobs is "
                f"{jobs}"
            )
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _check(name, node, find):
    """Check what is below a node; ``find`` gives the range of a key."""
    kind, _, target = tag_of(node).partition(":")
    if kind in ("!new", "!apply", "!name") and target != "dict":
        # Somebody else's names mean what they want.
        find = RANGES.get if target.startswith(_OWN) else _nothing
    if isinstance(node, dict):
        if name in VALUES:
            find = {key: VALUES[name] for key in node}.get
        for key, child in node.items():
            label = f"{name}[{key}]" if name in VALUES else key
            if find == RANGES.get:
                _check_names(key, child)
            if (spec := find(key)) is not None:
                check_value(label, child, spec, SEVERAL.get(key, ()))
                if isinstance(child, float) and "whole" in spec:
                    node[key] = int(child)
            _check(key, child, find)
    elif isinstance(node, list):
        for child in node:
            _check(name, child, find)
    elif isinstance(node, float) and not math.isfinite(node):
        raise ValueError(f"{name} is {node}; expected a finite number")


def _check_names(name, value):
    """Refuse a list of names that is none, or names that are no files'."""
    files = name in FILE_NAMES and tag_of(value) in ("", OWN_NAMES)
    if name in NAMES and not tag_of(value):
        if value is None and name in NO_NAMES:
            return
        fewest, found = NAMES[name], value
        # A text would be read letter by letter.
        if not isinstance(found, list):
            raise ValueError(
                f"{name} is {found!r}; expected a list of names, [{found}]"
            )
        names = [one for one in found if isinstance(one, str)]
        if not all(isinstance(one, str) or tag_of(one) for one in found):
            raise ValueError(
                f"{name} is {list(found)}; expected names (one that looks "
                "like a number needs quotes in a YAML file)"
            )
        if len(found) < fewest or len(set(names)) < len(names):
            raise ValueError(
                f"{name} is {list(map(str, found))}; expected "
                f"{'one name or more' if fewest else 'names'}, none of them "
                "twice"
            )
    if files and isinstance(value, dict | list):
        for one in map(str, value):
            if not one or one.startswith(".") or "/" in one:
                raise ValueError(
                    f"{name} names {one!r}; expected the name of a file "
                    "without its ending, and no folder"
                )


def check_value(name: str, value: object, spec: dict | str, several=()) -> None:
    """Refuse a value that is not of its range.

    Arguments
    ---------
    value : Null is right where :data:`NULLS` says so.
    spec : Of :data:`RANGES`.
    several : type
        What may stand for several values.

    Raises
    ------
    ValueError
        Says what was expected.
    """
    null = name in NULLS
    if tag_of(value) or isinstance(value, several) or (null and value is None):
        return
    # ruamel has numbers of its own, which remember how they were written.
    switch = isinstance(value, bool) or type(value).__name__.endswith("Boolean")
    if switch and spec != SWITCH:
        value = bool(value)
    elif isinstance(value, float):
        # 1e6 is how a whole number may be written, too.
        whole = "whole" in spec and float(value).is_integer()
        value = int(value) if whole else float(value)
    elif isinstance(value, int) and not switch:
        value = int(value)
    if spec != SWITCH:
        try:
            check_number(name, value, **spec)
        except ValueError as error:
            more = ", or null" if null else ""
            raise ValueError(f"{error}{more}") from None
    elif not switch:
        raise ValueError(f"{name} is {value!r}; expected {SWITCH}")


def _nothing(key):
    return None
