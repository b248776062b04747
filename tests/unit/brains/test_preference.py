"""The loss of pairs, what it looks at, and how a run of them goes on."""

import json
import math

import numpy as np
import pytest
import torch
from cloze_example import export, naive, tiny_model
from preference_example import (
    SETTINGS,
    UNITS,
    make_brain,
    make_plan,
    pair_rows,
    train,
    write_rows,
)
from speechbrain import Stage

from speechbrain_slm.brains.preference import dpo_losses
from speechbrain_slm.brains.preference_plan import read_pairs
from speechbrain_slm.models.export import load_speech_lm
from speechbrain_slm.utils.atomic import write_json

pytestmark = pytest.mark.long


def log_sigmoid(value):
    return -math.log1p(math.exp(-value))


def test_the_loss_of_a_margin_by_hand():
    # sigmoid(0.1 * 20) = 0.880797; its logarithm, and that of 0.119203.
    margins = torch.tensor([20.0, -20.0, 0.0])
    found = dpo_losses(margins, 0.1)
    assert found.tolist() == pytest.approx([0.126928, 2.126928, 0.693147])
    found = dpo_losses(margins, 0.1, label_smoothing=0.25)
    assert found.tolist() == pytest.approx([0.626928, 1.626928, 0.693147])


@pytest.fixture
def begun(tmp_path):
    """A Brain whose model has moved away from the reference."""
    brain = make_brain(tmp_path / "run", export(tmp_path / "start"))
    brain.plan = make_plan(tmp_path, brain.hparams.model)
    brain._reference = brain._score_reference(brain.plan)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in brain.hparams.model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return brain


def objectives(brain, rows, stage=Stage.TRAIN):
    batch = brain.collate(np.array(rows))
    predictions = brain.compute_forward(batch, stage).detach()
    predictions.requires_grad_()
    return predictions, brain.compute_objectives(predictions, batch, stage)


def test_the_loss_is_that_of_the_definition(begun):
    """Against sequences scored one by one, by both models."""
    start, _ = load_speech_lm(begun.hparams.model_folder)
    model, pairs, total = begun.hparams.model, begun.plan.pairs, 0.0
    rows = [3, 0, 17]
    for row in rows:
        sums = {}
        for side in ("chosen", "rejected"):
            pair = getattr(pairs, side)[row]
            *_, trained, count = naive(model, *pair)
            *_, reference, _ = naive(start, *pair)
            sums[side] = trained - reference
            if side == "chosen":
                sft = -trained / count
        margin = SETTINGS["beta"] * (sums["chosen"] - sums["rejected"])
        total -= 0.9 * log_sigmoid(margin) + 0.1 * log_sigmoid(-margin)
        total += SETTINGS["sft_weight"] * sft
    _, loss = objectives(begun, rows)
    assert loss.item() == pytest.approx(total / 3, rel=1e-4)


def test_prompts_and_padding_get_no_gradient(begun):
    rows = [1, 2]
    predictions, loss = objectives(begun, rows)
    loss.backward()
    moved = predictions.grad.abs().sum(-1) > 0
    expected = torch.zeros_like(moved)
    sides = begun.plan.pairs.chosen, begun.plan.pairs.rejected
    for place, (side, row) in enumerate(
        (side, row) for side in sides for row in rows
    ):
        prompt, ending = side[row]
        # The prompt's last position predicts the ending's first unit.
        expected[place, len(prompt) : len(prompt) + len(ending)] = True
    assert torch.equal(moved, expected)
    assert not moved.all(1).any()


def test_padding_counts_nothing(begun):
    _, loss = objectives(begun, [4, 9])
    rows = begun.filled(np.array([4, 9]), 5)
    assert begun.scored(begun.collate(rows)) == 2
    assert objectives(begun, rows)[1].item() == pytest.approx(loss.item())
    predictions, nothing = objectives(begun, [-1, -1])
    nothing.backward()
    assert nothing.item() == 0
    assert not predictions.grad.any()


def test_the_same_twice_costs_log_2_and_teaches_nothing(begun):
    """Such pairs are refused where they are read; the loss agrees."""
    begun.hparams.sft_weight = 0
    begun.plan.pairs.rejected[:] = begun.plan.pairs.chosen
    begun._reference[:] = 0
    batch = begun.collate(np.arange(3))
    model = begun.hparams.model
    predictions = begun.compute_forward(batch, Stage.TRAIN)
    loss = begun.compute_objectives(predictions, batch, Stage.TRAIN)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    largest = max(p.grad.abs().max() for p in model.parameters())
    assert largest < 1e-6


def logs(brain):
    clock = ("tokens_per_second", "eta", "memory_GB")
    entries = brain.log.entries()
    return [{k: e[k] for k in e if k not in clock} for e in entries]


def test_it_begins_at_log_2_and_learns(tmp_path):
    settings = {"label_smoothing": 0.0, "sft_weight": 0.0, "log_interval": 1}
    plan = {"steps": 30}
    brain = train(tmp_path, plan=plan, valid_interval=15, **settings)
    losses = [e["loss"] for e in logs(brain) if "loss" in e]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert losses[-1] < 0.3
    held_out = [e["valid"] for e in logs(brain) if "valid" in e][-1]
    assert held_out.keys() == {"held out", "held out accuracy"}
    assert 0 <= held_out["held out accuracy"] <= 1


def test_sessions_are_bitwise_repeatable(tmp_path):
    """Also with micro-batches, which weigh by their pairs."""
    start = export(tmp_path / "start")
    settings = {"grad_accumulation_factor": 2}
    one = train(tmp_path / "a", start, **settings)
    train(tmp_path / "b", start, steps=5, **settings)
    scored = (tmp_path / "b/reference/part-00000000.parquet").stat()
    other = train(tmp_path / "b", start, **settings)
    again = (tmp_path / "b/reference/part-00000000.parquet").stat()
    assert scored.st_mtime_ns == again.st_mtime_ns
    assert [e for e in logs(other) if e["step"] > 6] == [
        e for e in logs(one) if e["step"] > 6
    ]
    for key, value in one.modules.state_dict().items():
        assert torch.equal(other.modules.state_dict()[key], value), key
    whole = train(tmp_path / "c", start)
    assert logs(whole)[-1]["valid"]["held out"] == pytest.approx(
        logs(one)[-1]["valid"]["held out"], rel=1e-4
    )


@pytest.mark.parametrize("change", ["start", "pairs", "beta"])
def test_a_run_goes_on_with_its_own_pairs_and_start(tmp_path, change):
    start = export(tmp_path / "start")
    train(tmp_path / "run", start, steps=3)
    settings = {"beta": 0.4} if change == "beta" else {}
    if change == "pairs":
        settings["plan"] = {"rows": pair_rows(seed=1)}
    if change == "start":
        start = export(tmp_path / "other", tiny_model(seed=5))
    with pytest.raises(ValueError, match=f"belongs to another run.*{change}"):
        train(tmp_path / "run", start, **settings)


def test_what_went_with_the_model_goes_on(tmp_path):
    units = {"language_tags": {"en": 31, "fr": 32}, "frame_rate": 25.0}
    start = export(tmp_path / "start", **units)
    (start / "README.md").write_text("# A card\n\n## Scores\n\n| 90.0 |\n")
    saved = {"config": {"type": "mel_kmeans"}, "identity": "codebook-a"}
    write_json(start / "tokenizer/tokenizer.json", saved)
    spoken = {"tokenizer_identity": "codebook-a", "type": "griffin_lim"}
    write_json(start / "vocoder/vocoder.json", spoken)
    brain = train(tmp_path / "run", start)
    model, found = load_speech_lm(tmp_path / "run/model")
    assert found == load_speech_lm(start)[1]
    path = tmp_path / "run/model/tokenizer/tokenizer.json"
    assert json.loads(path.read_text()) == saved
    path = tmp_path / "run/model/vocoder/vocoder.json"
    assert json.loads(path.read_text()) == spoken
    card = (tmp_path / "run/model/README.md").read_text()
    # The scores were another model's.
    assert card.startswith("# A card\n\n## Scores\n\nNone yet: ")
    assert "\n\n## Preference optimisation\n\nThe model of the w" in card
    assert "8 steps of 6 pairs" in card
    assert str(tmp_path) not in card
    told = json.loads((tmp_path / "run/run.json").read_text())
    assert told["sources"]["pairs"]["rows"] == 48
    size = 48 * brain.plan.row_length
    assert sum(told["tokens"].values()) == size
    # A tag before the prompt, and one where the language changes.
    seen = [brain.plan.rows(step) for step in range(8)]
    crossed = sum(int(row % 2) for rows in seen for row in rows)
    assert told["tokens"]["tag"] == 2 * (48 + crossed)
    weights = brain.modules.model.state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(weights[key], value), key


def test_a_plan_sees_each_pair_before_any_again(tmp_path):
    plan = make_plan(tmp_path, tiny_model(), steps=10)
    held = {plan.pairs.groups[row] for row in plan.valid}
    assert len(plan.valid) == 5
    assert held.isdisjoint(plan.pairs.groups[row] for row in plan.train)
    rows = np.concatenate([plan.rows(step) for step in range(10)])
    for epoch in range(4):
        seen = rows[epoch * 15 : (epoch + 1) * 15]
        assert sorted(seen) == sorted(plan.train)
    assert rows[:15].tolist() != rows[15:30].tolist()
    parts = [plan.rows(2, rank, 3) for rank in range(3)]
    assert np.array_equal(np.concatenate(parts), plan.rows(2))
    counts = [plan.count(step) for step in range(11)]
    symbols, _ = plan.tokens(rows)
    assert counts[10]["en"] + counts[10]["fr"] == (symbols < 30).sum()
    assert all(
        sum(c.values()) == n * 6 * plan.row_length for n, c in enumerate(counts)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer": "codebook-b"}, "of tokenizer codebook-b, the model's"),
        ({"rejected": []}, "pair 'pair-3': its rejected ending has no units"),
        ({"chosen": [1], "rejected": [1]}, "pair-3': its chosen and its rej"),
        ({"chosen": [30]}, r"pair 'pair-3': unit 30 is outside \[0, 30\)"),
        ({"prompt": [1] * 128}, r"pair 'pair-3': \d+ symbols exceed the mod"),
        ({"pair_id": "pair-1"}, "1 key.s. stand more than once"),
    ],
)
def test_a_pair_that_cannot_be_trained_on(tmp_path, change, message):
    rows = pair_rows()
    rows[3].update(change)
    path = write_rows(tmp_path / "pairs.parquet", rows)
    with pytest.raises(ValueError, match=f"pairs.parquet.*{message}"):
        read_pairs(path, tiny_model(), UNITS)


def test_other_tables_are_refused(tmp_path):
    path = tmp_path / "pairs.parquet"
    with pytest.raises(FileNotFoundError, match="expected a table with"):
        read_pairs(path, tiny_model(), UNITS)
    with pytest.raises(ValueError, match="no rows"):
        read_pairs(write_rows(path, []), tiny_model(), UNITS)
    tagged = {**UNITS, "language_tags": {"en": 31, "de": 32}}
    write_rows(path, pair_rows())
    with pytest.raises(ValueError, match="pair-1': the model has no tag for"):
        read_pairs(path, tiny_model(tags=2), tagged)
    rows = pair_rows(2)
    rows[1]["prompt"] = [31, 4, 32]  # As a model was asked: en, 4, fr.
    tagged["language_tags"] = {"en": 31, "fr": 32}
    pairs = read_pairs(write_rows(path, rows), tiny_model(tags=2), tagged)
    assert pairs.chosen[0][0].tolist() == [31, *rows[0]["prompt"]]
    assert pairs.chosen[1][0].tolist() == [31, 4, 32]
    assert pairs.chosen[1][1].tolist() == [*rows[1]["chosen"]]
    with pytest.raises(ValueError, match="valid_rows is 20, which leaves"):
        make_plan(tmp_path, tiny_model(), valid_rows=20)


@pytest.mark.parametrize(
    ("name", "value"),
    [("beta", 0), ("label_smoothing", 0.5), ("sft_weight", -1)],
)
def test_settings_out_of_range(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; expected"):
        train(tmp_path, **{name: value})
    assert not list(tmp_path.rglob("train_log*"))
