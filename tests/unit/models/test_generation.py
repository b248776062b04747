import copy
import logging
from collections import Counter

import numpy as np
import pytest
import torch

from speechbrain_slm.models.decoder import decoder_lm
from speechbrain_slm.models.generation import generate_units, stream_units

UNITS = 20
TAGS = {"en": UNITS + 1, "fr": UNITS + 2}
PROMPTS = [[1, 2, 3], [], [4] * 11, [TAGS["en"], 5, 6]]
HOW = {"boundary": UNITS, "max_units": 12, "temperature": 0.8, "top_k": 7}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return decoder_lm(
        "qwen2",
        UNITS,
        [*TAGS],
        num_hidden_layers=2,
        max_position_embeddings=40,
        initializer_range=0.3,
        **shape,
        **heads,
    ).eval()


def alone(model, seeds, **changes):
    how = HOW | changes
    return [
        generate_units(model, [prompt], seeds=[seed], **how)[0].tolist()
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]


@pytest.mark.parametrize("changes", [{}, {"top_k": None, "top_p": 0.8}])
def test_the_same_alone_batched_streamed_and_without_cache(model, changes):
    seeds = [3, 3, 2**63, 0]
    expected = alone(model, seeds, **changes)
    assert len({tuple(units) for units in expected}) == len(PROMPTS)
    how = HOW | changes
    batch = generate_units(model, PROMPTS, seeds=seeds, **how)
    assert [units.tolist() for units in batch] == expected
    assert alone(model, seeds, **changes, use_cache=False) == expected
    chunks = [*stream_units(model, PROMPTS, seeds=seeds, **how, chunk=5)]
    assert [len(parts[0]) for parts in chunks] == [5, 5, 2]
    together = [np.concatenate(p).tolist() for p in zip(*chunks, strict=True)]
    assert together == expected
    assert alone(model, [4, 5, 6, 7], **changes) != expected


def test_draws_are_those_of_the_softmax(model):
    with torch.no_grad():
        logits = model(torch.tensor([[UNITS, 1, 2]])).logits[0, -1]
    logits[UNITS:] = -torch.inf
    kept = logits.topk(4)
    shares = dict(
        zip(kept.indices.tolist(), (kept.values / 0.7).softmax(0), strict=True)
    )
    drawn = generate_units(
        model,
        [[1, 2]] * 4000,
        seeds=range(4000),
        **HOW | {"max_units": 1, "temperature": 0.7, "top_k": 4},
    )
    counts = Counter(int(units[0]) for units in drawn)
    assert counts.keys() == shares.keys()
    for unit, share in shares.items():
        deviation = (share * (1 - share) / 4000).sqrt()
        assert abs(counts[unit] / 4000 - share) < 4 * deviation


def test_temperature_zero_takes_the_likeliest(model):
    found = alone(model, [0] * 4, temperature=0)
    assert found == alone(model, [9] * 4, temperature=0)
    with torch.inference_mode():
        read = torch.tensor([[UNITS, *PROMPTS[0]]])
        assert found[0][0] == model(read).logits[0, -1, :UNITS].argmax()


@pytest.fixture
def drawing(model):
    """Have a model that would draw boundaries and tags alone."""
    model = copy.deepcopy(model)
    head = torch.nn.Linear(16, UNITS + 3)
    torch.nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias.copy_(9.0 * (torch.arange(UNITS + 3) >= UNITS))
    model.set_output_embeddings(head)
    return model


def test_tags_and_the_boundary_are_drawn_when_asked_for(drawing):
    def symbols(**changes):
        how = HOW | {"top_k": None, "seeds": range(9), **changes}
        drawn = generate_units(drawing, [[1]] * 9, **how)
        return drawn, {symbol for units in drawn for symbol in units.tolist()}

    assert max(symbols()[1]) < UNITS
    assert not symbols(banned=[3])[1] & {3}
    drawn, found = symbols(stop_at_boundary=True)
    assert [len(units) for units in drawn] == [0] * 9
    drawn, found = symbols(stop_at_boundary=True, allow_tags=True)
    assert {*TAGS.values()} <= found
    assert UNITS not in found
    assert len({len(units) for units in drawn}) > 2


def test_a_tag_behind_the_prompt_counts(model):
    prompts = [*map(list, PROMPTS)]
    found = alone(model, [1] * 4, language_tag=TAGS["fr"])
    behind = [[*prompt, TAGS["fr"]] for prompt in prompts]
    batch = generate_units(model, behind, seeds=[1] * 4, **HOW)
    assert [units.tolist() for units in batch] == found
    assert found != alone(model, [1] * 4)


def test_longer_than_the_context(model, caplog):
    prompt = [TAGS["en"], *range(20), *range(20)]
    tail = [TAGS["en"], *prompt[-26:]]
    expected = generate_units(model, [tail], seeds=[1], **HOW)
    with caplog.at_level(logging.WARNING):
        found = generate_units(model, [prompt], seeds=[1], **HOW)
    assert found[0].tolist() == expected[0].tolist()
    assert (
        "42 symbols and 12 new units exceed the model's context of 40; its"
        in (caplog.text)
    )
    with pytest.raises(ValueError, match=r"prompt 0: .* give a shorter prompt"):
        generate_units(model, [prompt], seeds=[1], too_long="refuse", **HOW)
    with pytest.raises(ValueError, match="ask for less"):
        generate_units(model, [[1]], seeds=[1], **HOW | {"max_units": 40})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": [1, 2]}, "2 seeds for 1 prompts"),
        ({"seeds": [-1]}, "seed is -1; expected an integer of at least 0"),
        ({"seeds": [1.5]}, "seed is 1.5"),
        ({"temperature": -1}, "temperature is -1; expected a number"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"top_k": 0}, "top_k is 0"),
        ({"max_units": 0}, "max_units is 0"),
        ({"too_long": "cut"}, "too_long is 'cut'"),
        ({"prompts": [[1, 99]]}, r"symbol 99 is outside \[0, 23\)"),
    ],
)
def test_what_cannot_be(model, changes, told):
    how = {"prompts": [[1]], "seeds": [1], **HOW} | changes
    with pytest.raises(ValueError, match=told):
        generate_units(model, **how)


def test_a_model_in_training_mode_is_refused(model):
    model.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            generate_units(model, [[1]], seeds=[1], **HOW)
    finally:
        model.eval()


def test_codebooks_take_turns(model, drawing):
    how = HOW | {"codebooks": 4, "max_units": 6, "top_k": None}
    drawn = generate_units(model, [[1, 6, 11, 16]] * 9, seeds=range(9), **how)
    for units in drawn:
        # Whole frames of 4, of 5 codes each.
        assert (units // 5).tolist() == [0, 1, 2, 3] * 2
    chunks = [*stream_units(model, [[]], seeds=[0], **how, chunk=2)]
    assert [len(units) for (units,) in chunks] == [4, 4]
    # A prompt loses whole frames.
    prompt = [*range(0, 20, 5)] * 9
    longer = generate_units(model, [prompt], seeds=[1], **how)[0]
    fits = generate_units(model, [prompt[8:]], seeds=[1], **how)[0]
    assert longer.tolist() == fits.tolist()
    # Tags and the boundary come between frames alone.
    how |= {"max_units": 12, "allow_tags": True, "stop_at_boundary": True}
    for units in generate_units(drawing, [[1]] * 9, seeds=range(9), **how):
        (own,) = np.nonzero(units < UNITS)
        assert len(own) % 4 == 0


def test_a_cut_prompt_keeps_the_tag_of_what_it_speaks(model):
    """Of en, then fr: what is left is French, and announced so."""
    english, french = [TAGS["en"], *range(5)], [TAGS["fr"], *range(20), *(2, 3)]
    how = HOW | {"max_units": 16}  # 24 symbols fit
    found = generate_units(model, [[*english, *french]], seeds=[1], **how)
    for tail in (french, french[1:], [TAGS["en"], *french[1:]]):
        other = generate_units(model, [tail], seeds=[1], **how)
        assert (found[0].tolist() == other[0].tolist()) == (tail is french)
    # One symbol less: the tag stays, the first of its units does not.
    shorter = [french[0], *french[2:]]
    how["max_units"] += 1
    found = generate_units(model, [[*english, *french]], seeds=[1], **how)
    other = generate_units(model, [shorter], seeds=[1], **how)
    assert found[0].tolist() == other[0].tolist()
    # Codes of a frame stay together, whatever tags are between frames.
    frames = [*range(0, 20, 5)] * 3
    how |= {"codebooks": 4, "max_units": 12}
    prompt = [TAGS["en"], *frames, TAGS["fr"], *frames, *frames]
    found = generate_units(model, [prompt], seeds=[1], **how)
    other = [TAGS["fr"], *frames, *frames]
    other = generate_units(model, [other], seeds=[1], **how)
    assert found[0].tolist() == other[0].tolist()


def test_seeds_of_numpy_are_those_of_python(model):
    seeds = np.array([2**63 + 1, 2**63 + 2], np.uint64)
    how = HOW | {"top_k": None, "temperature": 2.0}
    found = generate_units(model, [[1]] * 2, seeds=seeds, **how)
    same = generate_units(model, [[1]] * 2, seeds=seeds.tolist(), **how)
    assert [u.tolist() for u in found] == [u.tolist() for u in same]
    assert found[0].tolist() != found[1].tolist()
