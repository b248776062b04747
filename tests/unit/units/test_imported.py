"""Published codes: what is read of them, and what is refused."""

import json
import runpy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_models import save_mimi
from units_example import digests, extract, write_corpus

from speechbrain_slm.dataio.plan import TokenPlan
from speechbrain_slm.dataio.reader import UnitStore, open_stores
from speechbrain_slm.units.character_rows import Columns
from speechbrain_slm.units.characters import Layout, read_codes
from speechbrain_slm.units.imported import import_units
from speechbrain_slm.units.tokenizers.mimi import Mimi
from speechbrain_slm.utils.ledger import TooManyLeftOut
from speechbrain_slm.utils.table_parts import table_parts

RECIPE = Path(__file__).parents[3] / "recipes/Marin"
corpus = runpy.run_path(str(RECIPE / "mini_corpus.py"))
write, document = corpus["as_characters"], corpus["document"]
LAYOUT = Layout(
    8,
    2048,
    ("<|audio_start|>", "<|audio_end|>"),
    ("<|text_start|>", "<|text_end|>"),
    ("<|begin_of_text|>", "<|end_of_text|>"),
)
BARE = Layout(8, 2048)
PLAIN = Columns("text", "id")
TWINS = Columns("text", "id", "_type2")
# Fullwidth and Arabic letters, and more that stands where codes do.
SAID = "Hi\uff01 \ufdfa \ufeff \ue005 <b>"
ADVICE = "Mend the source"


def codes(frames, seed=0):
    return np.random.default_rng(seed).integers(0, 2048, (8, frames))


def told(name, lengths, seed=0, said=SAID):
    """Return a document's two rows, and the semantic codes of each part."""
    parts = [codes(length, [seed, n]) for n, length in enumerate(lengths)]
    utterances = [(said, write(part)) for part in parts]
    return document(name, utterances, "en000/0"), [p[0] for p in parts]


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """A Mimi of the published sizes, and small."""
    folder = tmp_path_factory.mktemp("mimi")
    return save_mimi(folder, codebook_size=2048, num_quantizers=8)


def save(path, rows, size=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=size)
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("\n".join(lines), "utf-8")
    return str(path)


def run(sources, folder, codec, columns=PLAIN, layout=LAYOUT, **options):
    if isinstance(sources, str):
        sources = {"train": {"en": [sources]}}
    tokenizer = options.pop("tokenizer", None) or Mimi(codec)
    import_units(sources, folder, tokenizer, layout, columns, **options)
    return UnitStore(folder / "train")


def ledger(folder):
    lines = (folder / "left_out.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def as_lists(sentences):
    return [sentence.tolist() for sentence in sentences]


# --------------------------------------------------------------------- codes
@pytest.mark.parametrize("wanted", [1, 3, 8])
def test_codes_of_rows_with_text_between_them(wanted):
    parts = [codes(n, n) for n in (3, 1, 5)]
    rows = [
        "<|begin_of_text|><|text_start|>" + SAID + "<|text_end|>"
        f"<|audio_start|>{write(parts[0])}<|audio_end|>"
        f"<|audio_start|>{write(parts[1])}<|audio_end|><|end_of_text|>",
        "<|text_start|><|text_end|>",
        "",
        f"<|audio_start|>{write(parts[2])}<|audio_end|>",
        "<|audio_start|><|audio_end|>",
    ]
    found = read_codes(rows, LAYOUT, wanted)
    # As a tokenizer writes them: unit q * 2048 + code, frame by frame.
    books = np.arange(wanted)[:, None] * 2048
    expected = [(part[:wanted] + books).T.ravel() for part in parts]
    assert found.units.tolist() == np.concatenate(expected).tolist()
    assert found.units.dtype == np.uint16
    assert found.lengths.tolist() == [3 * wanted, wanted, 5 * wanted, 0]
    assert found.counts.tolist() == [2, 0, 0, 1, 1]


def test_bare_codes_reach_from_first_to_last_character():
    edges = np.array([[0] * 8, [2047] * 8]).T
    text = write(edges)
    assert (text[0], text[-1]) == ("\ue000", "\U00011fff")
    found = read_codes([text, text[:8]], BARE, 8)
    assert found.units[[0, 15]].tolist() == [0, 16383]
    assert found.lengths.tolist() == [16, 8]
    around = Layout(8, 2048, around=["<s>"])
    assert read_codes([f"<s>{text}<s>"], around).units.tolist() == [0, 2047]


GOOD = write(codes(2))
AUDIO = "<|audio_start|>{}<|audio_end|>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            AUDIO.format(GOOD[:11]),
            "no whole frames: 11 codes from character 15",
        ),
        (AUDIO.format(GOOD[:8] + "A" + GOOD[9:]), r"U\+0041 'A' at .* 23; exp"),
        # One too many of another kind is named, not the count.
        (AUDIO.format(GOOD + "\U00012000"), r"U\+12000 .* at character 31"),
        (AUDIO.format(GOOD + "\udfff"), r"U\+DFFF at character 31"),
        (AUDIO.format(GOOD[1:9]), r"expected codebook 0, U\+E000 to U\+E7FF"),
        (AUDIO.format(GOOD[:8] + GOOD[7] * 8), r"character 23; .* codebook 0"),
        (GOOD, r"text outside of delimiters: U\+E.* at character 0"),
        (AUDIO.format(GOOD) + " ", r"U\+0020 ' ' at character 44"),
        ("<|audio_start|>" + GOOD, "at character 0 is followed by its end"),
        (GOOD + "<|audio_end|>", "row's start at .* by '<|audio_end|>'"),
        (AUDIO.format("<|text_start|>Hi"), "followed by '<|text_start|>'"),
        ("<|text_start|>Hi", r"'<\|text_start\|>' at character 0 is followed"),
    ],
    # Names of tests hold no half of a surrogate pair.
    ids=map(str, range(12)),
)
def test_rows_that_are_wrong(text, message):
    for rows in ([text], [AUDIO.format(GOOD), "", text, text]):
        with pytest.raises(ValueError, match=message):
            read_codes(rows, LAYOUT)
    assert len(read_codes([AUDIO.format(GOOD)], LAYOUT).units) == 2


def test_layouts_that_are_none():
    for settings, message in (
        ({"audio": "<a>"}, "audio is '<a>'; expected two"),
        ({"text": ["<a>"]}, "expected two delimiters"),
        ({"around": "<s>"}, "expected a list"),
        (
            {"around": ["<s>", "<s>>"]},
            "none begins with another, as with '<s>'",
        ),
        ({"around": [""]}, "none begins with another"),
        ({"audio": ["<a>", "<a>"]}, "none begins with another"),
    ):
        with pytest.raises(ValueError, match=message):
            Layout(**settings)
    with pytest.raises(ValueError, match="story names no column"):
        Columns("text", suffix="_type2")


# ---------------------------------------------------------------- round trip
@pytest.mark.parametrize("num_codebooks", [1, 8])
def test_what_our_mimi_encodes_comes_back(tmp_path, codec, num_codebooks):
    """The store equals that of the units recipe, sentence by sentence."""
    manifest = write_corpus(tmp_path / "data", stories=3, files=6)
    extract(manifest, tmp_path / "all", Mimi(codec, 8))
    ours = every = UnitStore(tmp_path / "all" / "train")
    if num_codebooks == 1:
        extract(manifest, tmp_path / "ours", Mimi(codec))
        ours = UnitStore(tmp_path / "ours" / "train")
    rows = []
    speakers = every.speakers()
    for (name, language), speaker in speakers.items():
        parts = every.story(name, language)
        characters = (0xE000 + one.astype("<u4") for one in parts)
        said = [(SAID, one.tobytes().decode("utf-32-le")) for one in characters]
        facts = {"language": {"en": "English", "fr": "French"}[language]}
        rows += [
            {**row, **facts, "speaker": speaker}
            for row in document(name, said, "x")
        ]
    save(tmp_path / "published" / "a.parquet", rows, size=4)
    columns = Columns("text", "id", "_type1", "language", "speaker")
    found = run(
        {"train": [str(tmp_path / "published")]},
        tmp_path / "back",
        codec,
        columns,
        tokenizer=Mimi(codec, num_codebooks),
        language_names={"English": "en", "French": "fr"},
        aligned=True,
    )
    assert found.info["tokenizer"] == ours.info["tokenizer"]
    assert found.info["counts"] == ours.info["counts"]
    assert found.speakers() == speakers
    for key in speakers:
        assert as_lists(found.story(*key)) == as_lists(ours.story(*key))


def test_repeated_units_are_written_once(tmp_path, codec):
    semantic = np.array([[5, 5, 6], [6, 6, 6]])
    parts = [codes(3) for _ in semantic]
    for part, told in zip(parts, semantic, strict=True):
        part[0] = told
    rows = document("a", [("", write(part)) for part in parts], "x")[:1]
    store = run(
        save(tmp_path / "a.parquet", rows),
        tmp_path / "out",
        codec,
        tokenizer=Mimi(codec, deduplicate=True),
    )
    assert as_lists(store.story("en/a_type1", "en")) == [[5, 6], [6]]


def test_silence_shifts_no_sentence_of_an_aligned_story(tmp_path, codec):
    rows = told("a", [4, 0, 1], 2)[0]
    path = save(tmp_path / "a.parquet", rows)
    with pytest.raises(ValueError, match=r"row \d: no codes: an utterance"):
        run(path, tmp_path / "out", codec, aligned=True)


# -------------------------------------------------------------------- stage
def test_twins_languages_and_what_is_left_out(tmp_path, codec):
    one, first = told("a", [3, 2], 1)
    two, second = told("b", [4, 0, 1], 2)
    french, third = told("a", [2], 3)
    bad = [{"id": f"{n}_type2", "text": t} for n, t in enumerate(("x", None))]
    bad.append({"id": "e_type2", "text": "<|begin_of_text|><|end_of_text|>"})
    sources = {
        "en": [
            save(tmp_path / "en" / "0.parquet", one + two + bad[:1], size=2),
            save(tmp_path / "en1.jsonl", two + bad[1:]),
        ],
        "fr": [save(tmp_path / "fr.parquet", french)],
    }
    with pytest.raises(
        ValueError, match=r"0\.parquet, row 4: text outside .*x"
    ):
        run({"train": sources}, tmp_path / "none", codec, TWINS)
    out = tmp_path / "out"
    with pytest.raises(TooManyLeftOut, match=r"4 of 7 rows of train .* names"):
        run({"train": sources}, out, codec, TWINS, max_left_out=0.5)
    found = {(e["reason"], e.get("story_id")) for e in ledger(out)}
    passed = "utterances without codes are passed over"
    assert found == {
        ("rows of other names or languages", None),
        ("text outside of delimiters", "en/0"),
        ("no story", None),
        ("no codes", "en/e"),
        ("its name stands before it, too", "en/b"),
        (passed, "en/b"),
    }
    store = run({"train": sources}, out, codec, TWINS, max_left_out=0.6)
    assert store.info["counts"]["en"]["stories"] == 2
    # Of one name in two languages, and no translation.
    assert as_lists(store.story("en/a", "en")) == as_lists(first)
    assert as_lists(store.story("fr/a", "fr")) == as_lists(third)
    assert as_lists(store.story("en/b", "en")) == as_lists(
        [second[0], second[2]]
    )
    with pytest.raises(KeyError):
        store.story("en/a", "fr")


def test_nothing_that_was_asked_for(tmp_path, codec):
    source = save(tmp_path / "a.parquet", told("a", [2])[0])
    columns = Columns("text", "id", "_type3")
    with pytest.raises(
        ValueError, match=r"No story of train .* 0 rows, and 2 of"
    ):
        run(source, tmp_path / "out", codec, columns)
    with pytest.raises(ValueError, match=r"missing column.s. codes; found id"):
        run(source, tmp_path / "out", codec, Columns("codes"))
    for sources in ([source], {"en": source}, {}):
        with pytest.raises(ValueError, match=r"expected \{language: \[source"):
            run({"train": sources}, tmp_path / "out", codec)
    with pytest.raises(ValueError, match="sources is empty; expected"):
        run({"train": None}, tmp_path / "out", codec)
    columns = Columns("text", language="split")
    with pytest.raises(ValueError, match=r"expected \[source, ...\], as"):
        run({"train": {"en": [source]}}, tmp_path / "out", codec, columns)


def test_any_number_of_jobs_and_any_restart(tmp_path, codec):
    rows = [row for n in range(12) for row in told(f"s{n}", [3, n + 1], n)[0]]
    source = save(tmp_path / "a.parquet", rows, size=5)
    how = {"codec": codec, "columns": TWINS, "stories_per_shard": 4}
    run(source, tmp_path / "one", **how)
    whole = digests(tmp_path / "one")
    for job in (1, 0):
        sources = {"train": {"en": [source]}}
        settings = (Mimi(codec), LAYOUT, TWINS)
        folder = tmp_path / "jobs"
        import_units(sources, folder, *settings, job=job, num_jobs=2)
        assert not (folder / "train").exists()
    kept = {p: p.stat().st_mtime_ns for p in folder.rglob("0*.parquet")}
    assert len(kept) == 5
    next(iter(kept)).write_bytes(b"damaged")
    run(source, folder, **how)
    assert digests(folder) == whole
    assert len(list((folder / "train").glob("units-*"))) == 3
    again = {p: p.stat().st_mtime_ns for p in kept}
    assert sum(again[p] != kept[p] for p in kept) == 1
    # Another layout reads anew, and is another store.
    with pytest.raises(ValueError, match="begun with another configuration"):
        run(source, folder, codec, PLAIN, stories_per_shard=4)


def test_rows_without_names_and_a_part_of_bad_ones(tmp_path, codec):
    rows = [{"text": GOOD}, {"text": GOOD[:8]}]
    sources = {"en": [save(tmp_path / f"{n}.parquet", rows) for n in "ab"]}
    columns = Columns("text")
    store = run({"train": sources}, tmp_path / "out", codec, columns, BARE)
    names = [f"en/00{n}-00000-00000-{row}" for n in (0, 1) for row in (0, 1)]
    assert store.story_ids.to_pylist() == names
    sources["en"].append(save(tmp_path / "c.parquet", [{"text": "A" * 8}]))
    how = (codec, columns, BARE)
    with pytest.raises(ValueError, match=r"c\.parquet, row 0: no code .*'A'"):
        run({"train": sources}, tmp_path / "out", *how, max_left_out=0.9)


def test_a_hub_dataset(tmp_path, codec):
    pytest.importorskip("datasets")
    rows, parts = told("a", [3, 2])
    save(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet", rows)
    source = f"hub:{tmp_path / 'hub'}::train"
    store = run(source, tmp_path / "out", codec, TWINS)
    assert as_lists(store.story("en/a", "en")) == as_lists(parts)
    columns = ["id", "text"]
    assert [part.where for part in table_parts(source, 9, columns)] == [source]


# ----------------------------------------------------------------- identity
def test_identity_without_weights(tmp_path, codec):
    rows, _ = told("a", [9])
    source = save(tmp_path / "a.parquet", rows)
    first = run(source, tmp_path / "first", codec)
    absent = Mimi(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"absent.* name as 'like' a"):
        run(source, tmp_path / "b", None, tokenizer=absent)
    like = tmp_path / "first" / "train"
    second = run(source, tmp_path / "b", None, tokenizer=absent, like=like)
    assert second.info["tokenizer"] == first.info["tokenizer"]
    other = Mimi(tmp_path / "absent", 2)
    with pytest.raises(ValueError, match="num_codebooks: expected 2, found 1"):
        run(source, tmp_path / "c", None, tokenizer=other, like=like)
    for tokenizer, layout in (
        (Mimi(codec), Layout(8, 1024)),
        (Mimi(codec, 8), Layout(4, 2048)),
    ):
        with pytest.raises(ValueError, match="Name the codec whose codes"):
            run(
                source,
                tmp_path / "d",
                codec,
                PLAIN,
                layout,
                tokenizer=tokenizer,
            )


def test_a_source_of_the_lm_recipe_beside_our_own(tmp_path, codec):
    manifest = write_corpus(tmp_path / "data", stories=3, files=6)
    extract(manifest, tmp_path / "ours", Mimi(codec))
    documents = [told(f"s{n}", [9, 30], n) for n in range(6)]
    rows = [row for twins, _ in documents for row in twins]
    theirs = tmp_path / "theirs"
    run(save(tmp_path / "a.parquet", rows), theirs, codec, TWINS)
    sources = {
        "interleaved": {"languages": ["en", "fr"]},
        "marin": {"languages": ["en"], "units_folder": str(theirs)},
    }
    stages = [{"steps": 5, "mixture": {"interleaved": 1, "marin": 3}}]
    stores = open_stores(sources, tmp_path / "ours", "train")
    how = {"row_length": 32, "rows_per_step": 4, "seed": 1}
    plan = TokenPlan(stores, sources, stages, **how)
    assert plan.rows_of(5) == {"interleaved": 5, "marin": 15}
    # Whole documents, one after the other.
    stream = plan.sources["marin"].rows(np.arange(15)).ravel()
    begins = np.flatnonzero(stream == plan.boundary)
    found = {tuple(one[1:]) for one in np.split(stream, begins)[1:-1]}
    assert found == {tuple(np.concatenate(parts)) for _, parts in documents}
    other = save_mimi(tmp_path / "other", 3, codebook_size=2048)
    run(str(tmp_path / "a.parquet"), tmp_path / "wrong", other, TWINS)
    sources["marin"]["units_folder"] = str(tmp_path / "wrong")
    stores = open_stores(sources, tmp_path / "ours", "train")
    with pytest.raises(ValueError, match="expected one tokenizer"):
        TokenPlan(stores, sources, stages, **how)
