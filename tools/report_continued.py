"""What runs say behind the prompts of stories: audio and measures."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from report_audio import Clip, Story, as_flac, read_samples

from speechbrain_slm.evaluation.generation import results

STEERED = {
    "free": "nothing asks for another language",
    "last_sentence": "the prompt's last sentence asks for the language",
    "tag": "a language tag asks for the language",
}
READ = (
    *("story_id", "direction", "steered_by", "asked", "sample", "audio"),
    *("prompt_languages", "language", "heard_language", "transcript"),
    "seconds",
)


@dataclass(frozen=True)
class Run:
    """The continuations of a run."""

    name: str
    place: int  # among all runs
    folder: Path
    info: dict  # of results.json
    rows: list[dict]  # those that are spoken, if only silence


class Continued:
    """The continuations of runs, which must be comparable.

    Arguments
    ---------
    names : Of all runs of the report.
    folders : Name -> folder of the continuation recipe.
    """

    def __init__(self, names: list[str], folders: dict[str, Path]) -> None:
        self.runs: list[Run] = []
        for name, folder in folders.items():
            info, rows = results.read_results(folder)
            for key in READ:
                if rows and key not in rows[0]:
                    raise ValueError(
                        f"{folder / results.CONTINUATIONS} has no column "
                        f"'{key}'; run the continuation recipe again"
                    )
            spoken = [row for row in rows if row["seconds"] is not None]
            run = Run(name, names.index(name), folder, info, spoken)
            self.runs.append(run)
            first = self.runs[0]
            results.check_comparable(folder, info, first.folder, first.info)

    def stories(self) -> set[str]:
        """Return the stories that all runs have spoken on."""
        found = [{_name(row) for row in run.rows} for run in self.runs]
        return set.intersection(*found)

    def measures(self) -> list[tuple[str, str, dict[str, dict]]]:
        """List measure, direction, and the records of runs by their names."""
        found: dict[tuple[str, str], dict] = {}
        for run in self.runs:
            for one in run.info["records"]:
                key = one["measure"], one["direction"]
                found.setdefault(key, {})[run.name] = one
        place = list(dict.fromkeys(measure for measure, _ in found)).index
        ordered = sorted(found.items(), key=lambda item: place(item[0][0]))
        return [(*key, records) for key, records in ordered]

    def rows(self, story: Story) -> dict[str, list[Clip]]:
        """Lay a prompt, its right ending and continuations side by side."""
        said: dict[tuple[str, str], list] = {}
        for run in self.runs:
            own = [row for row in run.rows if _name(row) == story.name]
            for row in sorted(own, key=lambda row: row["sample"]):
                key = row["direction"], row["steered_by"]
                said.setdefault(key, []).append((run, row))
        return {
            f"{direction}: {STEERED.get(steered, steered)}": [
                *_corpus(story, direction, *found[0]),
                *(_said(story, run, row) for run, row in found),
            ]
            for (direction, steered), found in said.items()
        }


def _name(row):
    return row["story_id"].partition(".")[0]


def _corpus(story: Story, direction: str, run: Run, row: dict) -> Iterator:
    seconds = run.info["prompts"].get("prompt_seconds")
    title = "Prompt" if seconds is None else f"Prompt, its first {seconds} s"
    part = row["story_id"].partition(".")[2]
    # Sentence by sentence: the last one may be in the other language.
    languages, first = row["prompt_languages"], 0
    if last := run.info["prompts"].get("last_sentences"):
        told = story.spoken.get((part, languages[0]), ())
        # Without items, the last sentence is for the model to find.
        first = max(0, len(told) - (run.info.get("items") is None) - last)
    prompt = [
        sentence
        for number, language in enumerate(languages, first)
        for sentence in story.spoken.get((part, language), ())
        if sentence["sentence"] == number
    ]
    where = f"{story.name}, {direction}"
    if prompt:
        name = f"{where}, prompt"
        yield story.clip(prompt, name, title, languages[0], seconds)
    if ending := story.spoken.get(("right", row["asked"])):
        name = f"{where}, right ending"
        yield story.clip(ending, name, "Right ending", row["asked"])


def _said(story, run, row):
    """Make the clip of a continuation, and say which language it is in."""
    name = f"{story.name}, {row['direction']}, {run.name}, {row['sample']}"
    if row["audio"] is None:
        told = "says nothing", row["asked"], "", "", run.place
        return Clip(name, *told, "It ends the story at once.")
    audio = Path(row["audio"])
    if audio.is_absolute() or ".." in audio.parts:
        raise ValueError(
            f"{run.folder / results.CONTINUATIONS}: its audio '{audio}' lies "
            "outside of its folder; run the continuation recipe again"
        )
    found, asked = row["language"], row["asked"]
    by = "heard as" if row["heard_language"] else "by its units"
    fits = "as asked" if found == asked else f"not {asked}"
    near = row.get("nearest")
    return Clip(
        name,
        f"{by} {found}, {fits}",
        found,
        row["transcript"] or "",
        as_flac(*read_samples(run.folder / audio)),
        run.place,
        f"Its units are nearest to: {near}" if near else "",
    )
