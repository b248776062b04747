"""Digests of stories and names, and the set of those seen."""

import random

from speechbrain_slm.stories.duplicates import Seen, digest, digest_id


def test_digest_is_of_letters_and_digits():
    assert digest('"Hi, Tom_2!" É') == digest("“hi tom 2” é")
    assert digest("Hi, Tom 2!") == digest("hi tom\n2")
    assert len({digest(t) for t in ("", "a", "b", "ab", "é", "e", "1")}) == 7


def test_seen_is_a_set():
    rng = random.Random(1)
    seen, known = Seen(), set()
    for _ in range(60):
        batch = [
            rng.randrange(2**64 - 400, 2**64) for _ in range(rng.randrange(20))
        ]
        expected = []
        for number in batch:
            expected.append(number not in known)
            known.add(number)
        assert seen.add(batch).tolist() == expected
    assert sum(len(run) for run in seen._runs) == len(known)
    assert len(seen._runs) <= 10


def test_digest_of_names_is_of_each_of_them():
    names = [("a", "b"), ("ab",), ("A", "b"), (1, "b"), ("b", "a")]
    assert len({digest_id(*name) for name in names}) == len(names)
    assert digest_id("é", 1) == digest_id("é", 1) < 2**64
