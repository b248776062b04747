"""Translation by small Marian, M2M100 and NLLB models with random weights."""

import pytest
from tiny_translators import TEXTS, save_m2m100, save_marian, save_nllb

from speechbrain_slm.stories.translation import Checks, Story, TranslationError
from speechbrain_slm.stories.translation.seq2seq import Seq2SeqTranslator

ANYTHING = Checks(copy_letters=1000, length_ratio=1000)
CODES = {
    "marian": (None, None),
    "several": (None, ">>fra<<"),
    "m2m100": ("en", "fr"),
    "nllb": ("eng_Latn", "fra_Latn"),
}
pytestmark = pytest.mark.filterwarnings("ignore:Recommended")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "marian": save_marian(folder / "marian"),
        "several": save_marian(
            folder / "several", prefixes=(">>fra<<", ">>spa<<"), seed=0, end=20
        ),
        "m2m100": save_m2m100(folder / "m2m100"),
        "nllb": save_nllb(folder / "nllb"),
    }


def stories(count=4):
    size = len(TEXTS) // count
    return [
        Story(str(n), TEXTS[n * size : (n + 1) * size]) for n in range(count)
    ]


def alone(translator, text):
    (((answer,),),) = translator.translate([[Story("a", [text])]], ANYTHING)
    return answer


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_sentence_does_not_depend_on_its_batch(models, kind, num_beams):
    one = Seq2SeqTranslator(models[kind], *CODES[kind], num_beams=num_beams)
    found = one._sentences(TEXTS)
    assert set(found) == set(TEXTS)
    ended = {t: r for t, r in found.items() if isinstance(r, str)}
    # Else the test could not tell one sentence's translation from another's.
    assert len(set(ended.values())) >= 4
    for text in list(ended)[::7]:
        assert one._sentences([text])[text] == found[text]


@pytest.mark.parametrize("kind", CODES)
def test_a_story_is_translated_whole_or_not_at_all(models, kind):
    one = Seq2SeqTranslator(models[kind], *CODES[kind], batch_tokens=64)
    found = one._sentences(list(dict.fromkeys(TEXTS)))
    shards = [stories()[:3], stories()[3:]]
    answers = [a for shard in one.translate(shards, ANYTHING) for a in shard]
    assert len(answers) == 4
    for story, answer in zip(stories(), answers, strict=True):
        expected = [found[text] for text in story.sentences]
        bad = [n for n, r in enumerate(expected) if not isinstance(r, str)]
        if bad:
            assert str(answer).startswith(f"sentence {bad[0]} has a trans")
        else:
            assert answer == expected


def test_target_languages_differ(models):
    for kind, other in (("nllb", "deu_Latn"), ("several", ">>spa<<")):
        source, target = CODES[kind]
        one = Seq2SeqTranslator(models[kind], source, target)
        two = Seq2SeqTranslator(models[kind], source, other)
        results = [t._sentences(TEXTS) for t in (one, two)]
        assert {str(r) for r in results[0].values()} != {
            str(r) for r in results[1].values()
        }
        assert one.identity != two.identity


def test_a_sentence_that_is_too_long_is_rejected(models):
    one = Seq2SeqTranslator(models["marian"])
    story = Story("a", [TEXTS[0], "ball " * 100])
    ((answer,),) = one.translate([[story]], ANYTHING)
    assert isinstance(answer, TranslationError)
    assert "the model takes 64" in str(answer)


@pytest.mark.parametrize(
    ("kind", "codes", "message"),
    [
        ("nllb", ("en", "fra_Latn"), "source_code 'en'"),
        ("nllb", ("eng_Latn", None), "target_code 'None'"),
        ("m2m100", ("en", "fra_Latn"), "target_code 'fra_Latn'"),
        ("marian", ("en", "fr"), "takes no source_code"),
        ("several", (None, None), ">>fra<<"),
    ],
)
def test_a_language_that_the_model_does_not_know(models, kind, codes, message):
    with pytest.raises(ValueError, match=message):
        _ = Seq2SeqTranslator(models[kind], *codes).identity


def test_the_identity_is_of_the_weights(models, tmp_path):
    moved = save_marian(tmp_path / "moved")
    other = save_marian(tmp_path / "other", seed=1)
    first = Seq2SeqTranslator(models["marian"]).identity
    assert Seq2SeqTranslator(moved).identity == first
    assert Seq2SeqTranslator(other).identity != first


def test_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="hf download"):
        _ = Seq2SeqTranslator(tmp_path / "none").identity
