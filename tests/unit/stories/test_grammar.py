from collections import Counter

import pytest
import yaml

from speechbrain_slm.stories.grammar.grammar import (
    SPLITS,
    StoryGrammar,
    split_of,
    topic_endings,
)
from speechbrain_slm.stories.grammar.languages import (
    TemplateError,
    language_rules,
)
from speechbrain_slm.stories.grammar.plots import GrammarError
from speechbrain_slm.stories.grammar.templates import Template

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def grammar():
    return StoryGrammar.load()


@pytest.fixture(scope="module")
def stories(grammar):
    return {split: grammar.generate(2000, split, seed=3) for split in SPLITS}


def fill(text, language, thing=None, c1=("Tom", "m"), c2=("Max", "m")):
    rules = language_rules(language)
    words = {"c1": rules.word(*c1), "c2": rules.word(*c2)}
    if thing:
        words["thing"] = rules.noun(thing)
    return Template(text, language, ["c1", "c2", "thing"]).render(words)


TOM, ANNA, MIA = ("Tom", "m"), ("Anna", "f"), ("Mia", "f")
ALL = "{c1+c2:ils|elles} dorment."
FELL = "the {thing} and {his} hat."


@pytest.mark.parametrize(
    ("text", "thing", "expected"),
    [
        ("le {thing}.", "un ballon", "Le ballon."),
        ("le {thing}.", "une poupée", "La poupée."),
        ("Le {thing}.", "un avion", "L'avion."),
        ("Voilà le {thing}.", "une horloge", "Voilà l'horloge."),
        ("Voilà le {thing}.", "un *hérisson", "Voilà le hérisson."),
        ("Voilà le {thing}.", "un œuf", "Voilà l'œuf."),
        ("Il a un {thing}.", "une écharpe", "Il a une écharpe."),
        ("Il aime son {thing}.", "une poupée", "Il aime sa poupée."),
        ("Il aime son {thing}.", "une écharpe", "Il aime son écharpe."),
        ("Il aime ce {thing}.", "un avion", "Il aime cet avion."),
        ("Il aime ce {thing}.", "une orange", "Il aime cette orange."),
        ("Il rit du {thing}.", "un ballon", "Il rit du ballon."),
        ("Il rit du {thing}.", "une poupée", "Il rit de la poupée."),
        ("Il rit de le {thing}.", "un avion", "Il rit de l'avion."),
        ("Il rit de la {thing}.", "un ballon", "Il rit du ballon."),
        ("Il joue au {thing}.", "une balle", "Il joue à la balle."),
        ("Il va à le {thing}.", "un train", "Il va au train."),
        ("Il va au {thing}.", "une école", "Il va à l'école."),
        ("Plus de {thing}.", "une orange", "Plus d'orange."),
        ("Qu'un {thing}.", "une poire", "Qu'une poire."),
        ("Le {thing} est tombé{thing:|e}.", "une clé", "La clé est tombée."),
        ("Un {thing:bon|bonne} {thing}.", "une soupe", "Une bonne soupe."),
        ("Il {thing:le|la} voit.", "une clé", "Il la voit."),
    ],
)
def test_french_goes_with_the_thing(text, thing, expected):
    assert fill(text, "fr", thing) == expected


@pytest.mark.parametrize(
    ("language", "text", "thing", "characters", "expected"),
    [
        ("fr", "Le sac de {c1}.", None, [ANNA], "Le sac d'Anna."),
        ("fr", "Le sac de {c1}.", None, [TOM], "Le sac de Tom."),
        ("fr", "Le sac de {c1}.", None, [("Hugo", "m")], "Le sac d'Hugo."),
        ("fr", "Il voit que {c1} a.", None, [ANNA], "Il voit qu'Anna a."),
        ("fr", "Il voit que {il} a.", None, [ANNA], "Il voit qu'elle a."),
        ("fr", "On voit si {il} dort.", None, [ANNA], "On voit si elle dort."),
        ("fr", "On voit si {il} dort.", None, [TOM], "On voit s'il dort."),
        ("fr", "{c1} est {c1:sot|sotte}.", None, [ANNA], "Anna est sotte."),
        ("fr", "{c1} est tombé{c1:|e}.", None, [TOM], "Tom est tombé."),
        ("fr", "{il} dort.", None, [ANNA], "Elle dort."),
        # Feminine only together.
        ("fr", ALL, None, [ANNA, TOM], "Ils dorment."),
        ("fr", ALL, None, [ANNA, MIA], "Elles dorment."),
        ("en", "A {thing} fell.", "an apple", [ANNA], "An apple fell."),
        ("en", "He saw a {thing}.", "a ball", [ANNA], "He saw a ball."),
        ("en", "He saw an {thing}.", "a unicorn", [ANNA], "He saw a unicorn."),
        ("en", FELL, "an hour", [ANNA], "The hour and her hat."),
        # A language without rules.
        ("xx", "{c1} sucht le {thing}.", "Ball", [ANNA], "Anna sucht le Ball."),
        ("xx", "{c1:er|sie} weint.", "Ball", [ANNA], "Sie weint."),
    ],
)
def test_a_sentence_goes_with_its_characters_and_its_language(
    language, text, thing, characters, expected
):
    assert fill(text, language, thing, *characters) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{c1 is here.", "brace without its partner"),
        ("c1} is here.", "brace without its partner"),
        ("{c3} is here.", "unknown slot '{c3}'.*c1, c2, thing"),
        ("{il} is here.", "unknown slot '{il}'"),
        ("{c1:he} is here.", "gives 1 form"),
        ("{c1:he|she|it} is here.", "gives 3 form"),
        ("{thing:he|she} is here.", "gender of 'ball'"),
    ],
)
def test_a_sentence_that_cannot_be_read(text, expected):
    with pytest.raises(TemplateError, match=expected):
        fill(text, "en", "a ball")


def pair(en, fr):
    return [{"en": en, "fr": fr}]


def write(folder, plot=None, things=None, text=None):
    """A small grammar of one plot, with what a test wants spoilt."""
    (folder / "plots").mkdir()
    people = {"Tom": "m", "Anna": "f", "Max": "m", "Mia": "f"}
    toys = {"ball": ("a ball", "un ballon"), "doll": ("a doll", "une poupée")}
    lexicon = {
        "characters": {name: {"gender": one} for name, one in people.items()},
        "things": {
            name: {"tags": ["toy"], "en": en, "fr": fr}
            for name, (en, fr) in toys.items()
        }
        | (things or {}),
    }
    (folder / "lexicon.yaml").write_text(yaml.safe_dump(lexicon))
    red = pair("It was red.", "C'était rouge.")
    blue = pair("It was blue.", "C'était bleu.")
    entry = {
        "plot": "small",
        "things": ["toy"],
        "opening": [pair("{c1} saw a {thing}.", "{c1} a vu un {thing}.")],
        "A": [red, pair("{c1} was glad.", "{c1} a ri.")],
        "B": [blue, pair("{c1} was sad.", "{c1} a pleuré.")],
    }
    text = text or yaml.safe_dump([entry | (plot or {})])
    (folder / "plots" / "one.yaml").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("plot", "expected"),
    [
        ({"B": [pair("{c1} is.", "{c1 est.")]}, "B, sentence 1, wording 1: .*"),
        ({"A": [[{"en": "{c1}."}]]}, "A, sentence 1, .*languages en; .*fr"),
        ({"A": [pair("{c1}.", None)]}, "A, sentence 1, .*a text in double"),
        ({"A": [pair("{c2}.", "{c2}.")]}, "A, sentence 1.*unknown slot"),
        ({"A": [pair("It ends.", "C'est fini.")]}, "names neither"),
        ({"A": [pair("{c1}.", "{c1}.") * 2]}, "same text twice"),
        ({"A": []}, "A: \\[\\]; expected a list of sentences"),
        ({"things": ["tool"]}, "things: \\['tool'\\]; .* out of toy"),
        ({"characters": 2}, "no sentence names {c2}"),
        ({"characters": 3}, "characters: 3"),
        ({"colour": "red"}, "keys .*colour"),
        (
            {"A": [[*pair("{c1} a.", "{c1} a."), *pair("{c1} b.", "{c1} b.")]]},
            "2 and 1 wordings",
        ),
        (
            {"B": [pair("{thing:a|b} {c1}.", "{c1}.")]},
            "B, sentence 1 \\(en\\): .*gender",
        ),
    ],
)
def test_an_error_names_the_file_and_the_sentence(tmp_path, plot, expected):
    with pytest.raises(GrammarError, match=f"one.yaml: plot 1.*{expected}"):
        StoryGrammar.load(write(tmp_path, plot))


@pytest.mark.parametrize(
    ("kite", "expected"),
    [
        ({"en": "a kite"}, "'kite' has no word in 'fr'"),
        ({"en": "kite", "fr": "une aile"}, "'kite': expected an English noun"),
    ],
)
def test_a_thing_that_cannot_be_said_is_named(tmp_path, kite, expected):
    things = {"kite": {"tags": ["toy"], **kite}}
    with pytest.raises(GrammarError, match=expected):
        StoryGrammar.load(write(tmp_path, things=things))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- plot: x\n  A: {c1} is.\n", "one.yaml: cannot be read"),
        ("- plot: x\n  plot: y\n", "one.yaml: line 1: the key 'plot' .*twice"),
        ("plot: x\n", "one.yaml: no plots"),
    ],
)
def test_a_file_that_is_not_a_list_of_plots(tmp_path, text, expected):
    with pytest.raises(GrammarError, match=expected):
        StoryGrammar.load(write(tmp_path, text=text))


def test_load_refuses_what_is_not_there(tmp_path):
    write(tmp_path)
    for name, *values in (
        ("plots", 0, 2, ["large"], ["small", "small"]),
        ("characters", 5, 0),
        ("things", 0),
    ):
        for value in values:
            with pytest.raises(GrammarError, match=f"{name}="):
                StoryGrammar.load(tmp_path, **{name: value})


def test_a_small_grammar_is_told_to_its_last_story(tmp_path):
    small = StoryGrammar.load(write(tmp_path))
    counts = {split: small.count(split) for split in SPLITS}
    assert sum(counts.values()) == 4 * 2 * 2  # cast, things, courses
    told = small.generate(counts["train"], "train", seed=0)
    assert len({story.sentences["fr"] for story in told}) == counts["train"]
    with pytest.raises(GrammarError, match=f"{counts['train']} distinct ones"):
        small.generate(counts["train"] + 1, "train", seed=0)
    with pytest.raises(GrammarError, match="languages"):
        small.generate(1, "train", seed=0, languages=("en", "de"))
    with pytest.raises(GrammarError, match="split"):
        small.generate(1, "dev", seed=0)
    # The wrong ending is the other course's.
    glad, sad = "was glad.", "was sad."
    for story in told:
        right, wrong = (glad, sad) if story.course == "A" else (sad, glad)
        assert story.sentences["en"][-1] == f"{story.characters[0]} {right}"
        assert story.wrong_ending["en"] == f"{story.characters[0]} {wrong}"
    # Of one combination two splits have no story.
    one = StoryGrammar.load(tmp_path, characters=1, things=1)
    with pytest.raises(GrammarError, match="0 distinct ones exist"):
        one.generate(1, min(SPLITS, key=one.count), seed=0)


def test_twenty_thousand_distinct_stories(grammar):
    stories = grammar.generate(20_000, "train", seed=0)
    for language in ("en", "fr"):
        assert len({story.sentences[language] for story in stories}) == 20_000
    cells = Counter((story.plot, story.course) for story in stories)
    assert len(cells) == 2 * len(grammar.plots)
    assert max(cells.values()) - min(cells.values()) <= 1
    assert stories[12].story_id == "train-000012"


def test_no_combination_stands_in_two_splits(grammar, stories):
    owners = {}
    for split in SPLITS:
        for story in stories[split]:
            # Whoever comes first: no order of the two may leak.
            cast = frozenset(story.characters)
            owners.setdefault((story.plot, cast, story.thing), set()).add(split)
    assert all(len(splits) == 1 for splits in owners.values())
    counts = {split: grammar.count(split) for split in SPLITS}
    total = sum(counts.values())
    assert 0.03 < counts["valid"] / total < 0.07
    assert 0.12 < counts["test"] / total < 0.18


def test_a_combinations_split_outlives_a_larger_grammar():
    # And few characters and things fill every split.
    few = StoryGrammar.load(plots=8, characters=6, things=4)
    plots = {plot.name for plot in few.plots}
    for split in SPLITS:
        stories = few.generate(few.count(split) // 8, split, seed=0)
        assert {story.plot for story in stories} == plots
        for story in stories:
            where = split_of(story.plot, story.characters, story.thing)
            assert where == split


def test_a_larger_test_share_takes_from_training_alone():
    few = {"plots": 4, "characters": 6, "things": 4}
    plain = StoryGrammar.load(**few)
    more = StoryGrammar.load(**few, test_share=0.5)
    told = {}
    for grammar in (plain, more):
        for split in SPLITS:
            drawn = grammar.generate(400, split, seed=0)
            told[grammar.test_share, split] = {
                (story.plot, story.characters, story.thing) for story in drawn
            }
    assert told[0.5, "valid"] == told[0.15, "valid"]
    assert told[0.5, "train"] < told[0.15, "train"]
    assert told[0.5, "test"] > told[0.15, "test"]
    assert not told[0.5, "test"] & told[0.5, "train"]
    counts = [more.count(split) for split in SPLITS]
    assert abs(counts[-1] / sum(counts) - 0.5) < 0.15


def test_generate_is_a_pure_function(grammar, stories):
    again = StoryGrammar.load().generate(2000, "train", seed=3)
    assert again == stories["train"]
    assert grammar.generate(2000, "train", seed=4) != again
    english = grammar.generate(2000, "train", seed=3, languages=("en",))
    assert [story.sentences["en"] for story in english] == [
        story.sentences["en"] for story in again
    ]


def test_the_bundled_plots_keep_their_promises(grammar, stories):
    assert len(grammar.plots) >= 24
    assert len(grammar.lexicon.things) >= 30
    for plot in grammar.plots:
        assert len(plot.things) >= 6, plot.name
        for sentences in plot.courses.values():
            assert 5 <= len(sentences) <= 8, plot.name
            assert all(len(wordings) >= 2 for wordings in sentences)
        endings = [plot.courses[course][-1] for course in ("A", "B")]
        for language in plot.languages:
            texts = [{w[language].text for w in ending} for ending in endings]
            assert not texts[0] & texts[1], plot.name
    assert all(plot.num_characters == 1 for plot in grammar.plots[:8])
    for story in stories["train"]:
        assert len(story.sentences["en"]) == len(story.sentences["fr"])
        assert len(set(story.characters)) == len(story.characters)
        for language, wrong in story.wrong_ending.items():
            told = story.sentences[language]
            assert wrong not in told
            assert all("{" not in text and "}" not in text for text in told)
            for text in (*told, wrong):
                words = text.replace(" !", "").replace(" ?", "").split()
                assert 3 <= len(words) <= 11, text
                assert text[0].isupper(), text
                assert text[-1] in ".!?", text


def test_topic_endings_share_nothing(stories):
    chosen = topic_endings(stories["test"], seed=0)
    for story, index in zip(stories["test"], chosen, strict=True):
        other = stories["test"][index]
        assert story.thing != other.thing
        assert set(story.characters).isdisjoint(other.characters)
        assert story.plot != other.plot
    assert chosen == topic_endings(stories["test"], seed=0)
    assert chosen != topic_endings(stories["test"], seed=1)
    assert len(set(chosen)) > len(chosen) / 2


def test_topic_endings_without_another_topic():
    one = StoryGrammar.load(plots=1, characters=8, things=1)
    with pytest.raises(GrammarError, match="shares a character or the thing"):
        topic_endings(one.generate(10, "train", seed=0), seed=0)
    same_plot = StoryGrammar.load(plots=1, characters=8, things=4)
    stories = same_plot.generate(200, "train", seed=0)
    for story, index in zip(stories, topic_endings(stories, 0), strict=True):
        assert stories[index].thing != story.thing
