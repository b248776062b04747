"""Ranks share the items, and their results equal those of one process."""

import pyarrow.parquet as pq
from cloze_example import export, write_items
from processes import ROOT, command, kill, run, start, wait_until

from speechbrain_slm.utils.atomic import read_json

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
        folder = tmp_path / name
        arguments = recipe(tmp_path, store_folder, ranks, output_folder=folder)
        code, output = run(arguments)
        assert code == 0, output
        # 120 distinct pairs, ten a shard.
        assert "{0} of its {0} shards".format(12 // ranks) in output
        # Rank 0 alone says what came of it.
        assert output.count("95 % interval") == 1
    killed = tmp_path / "killed"
    process = start(recipe(tmp_path, store_folder, 2, output_folder=killed))
    wait_until(lambda: [*killed.glob("parts/*/part-*")], process)
    kill(process)
    if not (killed / "results.json").exists():
        arguments = recipe(tmp_path, store_folder, 1, output_folder=killed)
        code, output = run(arguments)
        assert code == 0, output
        assert "of its 12 shards" not in output
    folders = [tmp_path / name for name in ("one", "two", "killed")]
    results = [read_json(folder / "results.json") for folder in folders]
    assert results[0] == results[1] == results[2]
    scores = [pq.read_table(folder / "scores.parquet") for folder in folders]
    assert scores[0].equals(scores[1])
    assert scores[0].equals(scores[2])
