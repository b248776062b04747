"""What each number, switch and list of names of a YAML file may be.

One table for all recipes and fragments, so that a value that only ruins hours
of work is refused before anything is made.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml.scalarbool import ScalarBoolean

from speechbrain_slm.utils import yaml_tree
from speechbrain_slm.utils.numbers import check_number
from speechbrain_slm.utils.yaml_tree import ConfigurationError, tag_of

Spec = dict[str, Any] | str
SWITCH = "true or false"
COUNT = {"at_least": 1, "whole": True}
NATURAL = {"at_least": 0, "whole": True}
NOT_NEGATIVE = {"at_least": 0}
POSITIVE = {"above": 0}
SHARE = {"at_least": 0, "at_most": 1}
PART = {"at_least": 0, "below": 1}


def _each(spec: Any, *names: str) -> dict[str, Any]:
    return dict.fromkeys(" ".join(names).split(), spec)


# Of each key, wherever it stands: at the root, in a group, in a fragment.
RANGES: dict[str, Spec] = {
    **_each(
        COUNT,
        # Data, of text and of speech; units; models, training, evaluation
        "num_jobs num_workers sample_rate limit min_sentences max_characters",
        "num_stories num_beams sentences_per_request attempts concurrency",
        "max_attempts plots characters things batch_rows buckets utterances",
        "utterances_per_shard vocabulary_size max_piece_length num_mels",
        "num_mfcc num_codebooks codebook_size frames_per_unit layer",
        "span thousand_steps steps row_length rows_per_step keep_checkpoints",
        "hidden_size intermediate_size num_layers num_hidden_layers num_heads",
        "num_attention_heads num_key_value_heads head_dim max_positions",
        "max_position_embeddings original_max_position_embeddings",
        "batch_tokens pairs_per_shard max_retrieval gallery",
        "grad_accumulation_factor optimizer_step_limit debug_batches",
        "segment_frames embedding_dim conditioning_dim kernel_size",
        "upsample_initial_channel duration_hidden_size",
        "micro_batch_rows num_pairs num_prompts prompts_per_shard samples",
        "max_units top_k last_sentences order hop window width fine_width",
        "unit_layers frame_layers fine_layers",
    ),
    **_each(
        NATURAL,
        "job min_characters copy_letters num_train num_valid num_cloze",
        "context_frames valid_rows log_interval valid_interval",
        "ckpt_interval_steps num_spoken audio_samples valid_utterances judged",
        "scales num_voices",
    ),
    **_each(
        NOT_NEGATIVE,
        "prompt_price completion_price margin shortest spare silence slack",
        "weight_decay embedding_std sft_weight temperature",
    ),
    **_each(
        POSITIVE,
        "requests_per_minute longest pitch speed low high semitones",
        "fit_seconds seconds batch_seconds max_seconds tokens learning_rate",
        "peak_tflops rms_norm_eps rope_theta factor low_freq_factor",
        "high_freq_factor beta prompt_seconds",
    ),
    **_each(
        SHARE,
        "max_rejected max_left_out clipped max_rejects switch_probability tie",
        "max_unlike aligned_share",
    ),
    **_each(
        PART,
        "duration_dropout warmup dropout attention_dropout held_out",
        "test_share",
    ),
    **_each(
        SWITCH,
        "pure trusted deduplicate shuffle_alignment tensorboard fused tied",
        "activation_checkpointing tie_word_embeddings share_prompts score_end",
        "causal aligned compile stop_at_boundary grouped",
    ),
    "label_smoothing": {"at_least": 0, "below": 0.5},
    **_each({"at_least": 1}, "length_ratio max_ratio"),
    # Seconds that no clock has would only be noticed in the middle of the work.
    **_each({"at_least": 0, "below": 1e6}, "backoff max_wait"),
    **_each({"above": 0, "below": 1e6}, "timeout heartbeat_timeout"),
    "seed": {**NATURAL, "at_most": 2**32 - 1},  # what NumPy takes
    "stories_per_shard": {**COUNT, "at_most": 2**31 - 1},
    "num_clusters": {**COUNT, "at_most": 2**16},  # units are uint16
    "top_p": {"above": 0, "at_most": 1},
    "loudness": {"at_least": -70, "at_most": 0},
    "threshold_db": {"below": 0},
    "threshold": {"at_least": -1, "at_most": 1},
    "max_grad_norm": {},
}
# Where null means something: all of them, none of it, or the usual.
NULLS = _each(
    "null",
    "job limit plots characters things loudness requests_per_minute",
    "prompt_price completion_price fit_seconds vocabulary_size peak_tflops",
    "embedding_std max_ratio optimizer_step_limit top_k top_p num_spoken",
    "prompt_seconds temperature last_sentences",
)
# Of each value of a mapping whose names are the user's; a service knows what
# its options are.
VALUES: dict[str, Spec | None] = {
    **_each(NOT_NEGATIVE, "mixture ft_mixture"),
    "shares": SHARE,
    "switch_probability": SHARE,
    "options": None,
}
# Of each number of a list, or of a list of lists.
LISTS: dict[str, Spec] = _each(
    COUNT,
    "upsample_factors upsample_kernel_sizes resblock_kernel_sizes",
    "resblock_dilation_sizes periods dilations snapshot_steps",
)
# Lists of names, each another one, and the fewest that they may have.
NAMES = _each(1, "languages splits speakers names voices poolings directions")
NAMES |= _each(0, "language_tags held_out_plots new_speakers")
NO_NAMES = {"speakers", "directions"}  # null, where the YAML files have that
# Where names, or a mapping's keys, become names of files.
FILE_NAMES = {"splits", "sources", "shares"}
# What may be a list, or a mapping, where the YAML files have one value.
SEVERAL: dict[str, type] = {"plots": list, "switch_probability": dict}
# What may stand where a YAML file has null.
GROUPS = {"bpe": ("vocabulary_size", "max_piece_length")}


def check_ranges(tree: dict, where: str | Path) -> None:
    """Refuse a number, a switch or a name that is none of its key's values.

    In the tree (of ``yaml_tree.resolve``), 1e6 becomes a whole number where one
    is expected.
    """
    try:
        _check("", tree, RANGES)
        job, jobs = tree.get("job"), tree.get("num_jobs")
        if job is not None and jobs is not None and job >= jobs:
            expected = f"0 to {jobs - 1}, since num_jobs is {jobs}"
            raise ValueError(f"job is {job}; expected {expected}")
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def check_settings(owner: object, *names: str) -> None:
    """Refuse attributes of an object that may be made without a YAML file."""
    for name in names:
        check_value(name, getattr(owner, name), RANGES[name])


def _check(name: str, node: Any, table: Mapping[str, Spec | None]) -> None:
    """Check what is below a node; the table has the ranges of its keys."""
    if isinstance(node, float) and not math.isfinite(node):
        raise ValueError(f"{name} is {node}; expected a finite number")
    kind, _, target = tag_of(node).partition(":")
    if kind in ("!new", "!apply", "!name") and target != "dict":
        # Somebody else's names mean what they want.
        table = RANGES if target.startswith("speechbrain_slm.") else {}
    values = name in VALUES and isinstance(node, dict)
    if values:
        table = dict.fromkeys(node, VALUES[name])
    for key, child in yaml_tree.children(node):
        if table is RANGES:
            _check_names(key, child)
        one = isinstance(node, list) and not isinstance(child, list)
        if one and table is RANGES and name in LISTS:
            check_value(f"{name}[{key}]", child, LISTS[name])
        if (spec := table.get(key)) is not None:
            label = f"{name}[{key}]" if values else key
            check_value(label, child, spec)
            if isinstance(child, float) and "whole" in spec:
                node[key] = int(child)
        _check(name if isinstance(node, list) else key, child, table)


def _check_names(name: str, value: Any) -> None:
    """Refuse a list of names that is none, or names that are no files'."""
    tag, expected = tag_of(value), ""
    absent = value is None and name in NO_NAMES
    if name in NAMES and not tag and not absent:
        names: list = value if isinstance(value, list) else []
        texts = [one for one in names if isinstance(one, str)]
        if not isinstance(value, list):
            # A text would be read letter by letter.
            expected = f"a list of names, [{value}]"
        elif not all(isinstance(one, str) or tag_of(one) for one in names):
            expected = "names (one that looks like a number needs quotes)"
        elif len(names) < NAMES[name] or len(set(texts)) < len(texts):
            some = "one name or more" if NAMES[name] else "names"
            expected = f"{some}, none of them twice"
    if expected:
        raise ValueError(f"{name} is {value!r}; expected {expected}")
    files = name in FILE_NAMES and tag in ("", yaml_tree.OWN_NAMES)
    several = value if files and isinstance(value, dict | list) else ()
    for one in map(str, several):
        if not one or one.startswith(".") or "/" in one:
            raise ValueError(
                f"{name} names {one!r}; expected the name of a file "
                "without its ending, and no folder"
            )


def check_value(name: str, value: Any, spec: Spec) -> None:
    """Refuse a value that is not of its range; see ``NULLS``, ``SEVERAL``."""
    null, several = name in NULLS, SEVERAL.get(name, ())
    if tag_of(value) or isinstance(value, several) or (null and value is None):
        return
    # ruamel has a switch of its own, an int that remembers its anchor.
    if isinstance(value, ScalarBoolean):
        value = bool(value)
    if isinstance(spec, str):
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}; expected {spec}")
        return
    # 1e6 is how a whole number may be written, too.
    if "whole" in spec and isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        check_number(name, value, **spec)
    except ValueError as error:
        raise ValueError(f"{error}{', or null' if null else ''}") from None
