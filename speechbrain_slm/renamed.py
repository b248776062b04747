"""Names that version 0.1 had, and what they are called now.

Modules moved when the package got its rooms. Scripts and YAML files of users
that name one by its old place go on working, with a warning that says the new
one. Nothing in this repository uses an old name.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings

_PACKAGE = "speechbrain_slm."
# (old room, new room): the modules that moved.
_MOVED = {
    ("corpus", "stories"): "cleaning duplicates segmentation sources "
    "text translation",
    ("corpus", "stories.grammar"): "grammar languages plots templates",
    ("corpus", "speech"): "audio_files merging planning "
    "shard_speech story_shards synthesis tts utterances",
    ("corpus", "speech.imported"): "recordings spoken",
    ("corpus", "utils"): "speakers",
    ("evaluation", "evaluation.cloze"): "accuracy comparison conventions "
    "items likelihood prefix_attention prefixes results",
    ("evaluation", "evaluation.alignment"): "hidden_states",
    ("units", "units.tokenizers"): "bpe codebook codec ctranslate2 kmeans "
    "mel_kmeans mimi pretrained speech_tokenizer ssl_kmeans "
    "whisper_kmeans",
}
MODULES = {
    **{
        f"{old}.{name}": f"{new}.{name}"
        for (old, new), names in _MOVED.items()
        for name in names.split()
    },
    # Rooms that are gone: they only lead to what was in them.
    "corpus": None,
    "corpus.cloze": None,
    "brains.curves": "brains.progress",
    "brains.damage": "brains.checkpoints",
    "brains.monitor": "brains.progress",
    "brains.prefetch": "brains.base",
    "brains.schedule": "brains.options",
    "brains.validation": "brains.base",
    "dataio.stage": "dataio.plan",
    "corpus.benchmarks": "benchmarks",
    "corpus.benchmarks.joined": "benchmarks.joined_endings",
    "corpus.benchmarks.off_topic": "benchmarks.topic_items",
    "corpus.benchmarks.prepared": "benchmarks.spoken_items",
    "corpus.benchmarks.story_cloze": "benchmarks.spoken_story_cloze",
    "corpus.cloze.items": "benchmarks.cloze_texts",
    "corpus.cloze.natural": "benchmarks.cloze_files",
    "corpus.cloze.readers": "benchmarks.cloze_files",
    "corpus.cloze.topics": "benchmarks.cloze_texts",
    "corpus.parts": "speech.shard_speech",
    "corpus.left_out": "speech.shard_speech",
    "corpus.speaker_check": "speech.voices.check",
    "corpus.speaker_encoders": "speech.voices.encoders",
    "corpus.spoken_alignment": "speech.imported.assembly",
    "corpus.spoken_assembly": "speech.imported.assembly",
    "corpus.spoken_rows": "speech.imported.rows",
    "corpus.spoken_sources": "speech.imported.sources",
    "corpus.stories": "stories.text",
    "corpus.story_tables": "utils.tables",
    "corpus.table_sources": "stories.sources",
    "stories.table_sources": "stories.sources",
    "corpus.lexicon": "stories.grammar.plots",
    "corpus.translation.assembly": "stories.translation.tables",
    "corpus.tts.programs": "speech.processes",
    "corpus.voice_filter": "speech.voices.filter",
    "corpus.voice_report": "speech.voices.report",
    "corpus.workers": "speech.processes",
    "evaluation.state_parts": "evaluation.alignment.evaluate",
    "evaluation.alignment_figure": "evaluation.alignment.figure",
    "evaluation.alignment_metrics": "evaluation.alignment.metrics",
    "evaluation.identity": "evaluation.inputs",
    "evaluation.parallel_items": "evaluation.alignment.pairs",
    "evaluation.parallel_pairs": "evaluation.alignment.pairs",
    "evaluation.padding": "evaluation.cloze.prefixes",
    "evaluation.alignment_report": "evaluation.alignment.report",
    "units.key_index": "units.rows",
    "units.layer_kmeans": "units.tokenizers.pretrained",
    "models.flops": "models.decoder",
    "speech.parts": "speech.shard_speech",
    "units.mapping": "units.manifest",
    "units.tokenizer": "units.tokenizers.base",
    "utils.level": "utils.audio",
    "utils.markdown": "utils.tables",
    "utils.yaml_files": "utils.yaml_tree",
    "utils.regular": "utils.files",
    "utils.text_rows": "utils.user_tables",
    **dict.fromkeys(("utils.locking", "utils.plans"), "utils.jobs"),
    "utils.publishing": "utils.atomic",
    "utils.shares": "utils.ledger",
    "utils.sharing": "utils.jobs",
    "utils.store_content": "utils.store_format",
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        old, below = name.removeprefix(_PACKAGE), ""
        if old == name:
            return None
        # What stands in a package has moved with it.
        while old not in MODULES:
            old, _, last = old.rpartition(".")
            if not old:
                return None
            below = f".{last}{below}"
        new = MODULES[old]
        if new is None and below:
            return None
        return importlib.machinery.ModuleSpec(
            name, self, loader_state=new and new + below, is_package=not new
        )

    def exec_module(self, module):
        old, new = module.__name__, module.__spec__.loader_state
        if new:
            new = _PACKAGE + new
            warnings.warn(f"{old} is called {new} now", FutureWarning, 2)
            # What stands here is handed on, not the module that was made.
            sys.modules[old] = importlib.import_module(new)


def install() -> None:
    """Let old names be imported, ahead of the files of their new rooms."""
    if not any(isinstance(one, _Finder) for one in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
