"""Ranks share the items, and their results equal those of one process."""

import json

import pyarrow.parquet as pq
from cloze_example import export, write_items
from processes import ROOT, command, kill, run, start, wait_until

CLOZE = ROOT / "recipes" / "TinyStories" / "cloze"


def recipe(folder, units, ranks, **options):
    return command(
        CLOZE / "train.py",
        CLOZE / "hparams" / "mini.yaml",
        ranks,
        model_folder=folder / "model",
        units_folder=units,
        items=folder / "items.parquet",
        pairs_per_shard=10,
        **options,
    )


def test_two_ranks_and_a_kill(tmp_path, store_folder):
    export(tmp_path / "model")
    write_items(tmp_path / "items.parquet")
    for name, ranks in (("one", 1), ("two", 2)):
        arguments = recipe(
            tmp_path, store_folder, ranks, output_folder=tmp_path / name
        )
        code, output = run(arguments)
        assert code == 0, output
        # 120 distinct pairs, ten a shard.
        assert "{0} of its {0} shards".format(12 // ranks) in output
        # Rank 0 alone says what came of it.
        assert output.count("95 % interval") == 1
    process = start(
        recipe(tmp_path, store_folder, 2, output_folder=tmp_path / "killed")
    )
    wait_until(lambda: [*(tmp_path / "killed").glob("parts/*/part-*")], process)
    kill(process)
    if not (tmp_path / "killed" / "results.json").exists():
        arguments = recipe(
            tmp_path, store_folder, 1, output_folder=tmp_path / "killed"
        )
        code, output = run(arguments)
        assert code == 0, output
        assert "of its 12 shards" not in output
    results, scores = (
        [read(tmp_path / name) for name in ("one", "two", "killed")]
        for read in (
            lambda folder: json.loads((folder / "results.json").read_text()),
            lambda folder: pq.read_table(folder / "scores.parquet"),
        )
    )
    assert results[0] == results[1] == results[2]
    assert scores[0].equals(scores[1])
    assert scores[0].equals(scores[2])
