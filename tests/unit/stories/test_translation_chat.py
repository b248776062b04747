"""Chat translation against a real server on loopback that misbehaves."""

import asyncio
import logging
import random
import resource
import socket
import sys
import threading
import time
from itertools import compress
from types import SimpleNamespace

import pytest
from chat_server import chat_server, fake_translation

from speechbrain_slm.stories.translation import (
    Checks,
    Story,
    TranslationError,
    endpoint,
)
from speechbrain_slm.stories.translation.chat import ChatTranslator, _tokens
from speechbrain_slm.stories.translation.endpoint import (
    ChatEndpoint,
    EndpointError,
)
from speechbrain_slm.stories.translation.replies import ReplyCache

KEY = "sk-Secret0123456789"
STORY = Story(
    "a", ["Tom had a red ball.", "He lost it in the tall grass.", "Oh no!"]
)
EXPECTED = [fake_translation(text) for text in STORY.sentences]
MANY = [Story(str(n), [f"Story {n} is here."]) for n in range(8)]
# What passes when it is tried again, a reply that never ends (fault -> the time
# it is given), and what is said to the model.
ENDLESS = {"silent": 0.3, "slow": 0.3, "headers": 0.3, "endless": 30}
PASSING = ["429", "500", "503", "drop", "html", "no_choices", "half"]
MENDED = {
    "joined": "missing: 2, 3",
    "split": "not asked for: 4",
    "empty": '"3" came back empty',
    "copy": '"2" is a copy',
    "number": '"1" is no text',
    "surrogate": '"1" is no text',
    "list": "not a JSON object",
    "prose": "not JSON",
    "torn": "not JSON",
    "digits": "not JSON",
    "twice": "twice",
    "nothing": "empty",
    "cut": "cut off",
    "refusal": "refused",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def translator(base_url, folder, endpoint=None, **settings):
    endpoint = {"backoff": 0.01, "timeout": 0.5, **(endpoint or {})}
    given = {"model": "gpt-test", "cache_folder": folder, **settings}
    given |= {"source_name": "English", "target_name": "French"}
    given.setdefault("prompt", "Translate {source} to {target}.")
    given["retry_prompt"] = "Unusable: {error}."
    endpoint = ChatEndpoint(base_url, "TEST_API_KEY", **endpoint)
    return ChatTranslator(endpoint, **given)


def translate(one, stories=(STORY,)):
    return next(one.translate([list(stories)], Checks()))


def once(fault):
    """Misbehave at the first request alone."""
    return lambda number, body: fault if number == 0 else None


@pytest.mark.parametrize("fault", [None, "fenced"])
def test_a_request_says_what_it_should(tmp_path, fault):
    with chat_server(once(fault)) as (url, asked):
        one = translator(url, tmp_path, options={"temperature": 0})
        assert translate(one) == [EXPECTED]
    (request,) = asked.requests
    assert request["model"] == "gpt-test"
    assert request["temperature"] == 0
    prompt, story = request["messages"]
    assert prompt["content"] == "Translate English to French."
    assert '"1": "Tom had a red ball."' in story["content"]
    schema = request["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["1", "2", "3"]
    assert not schema["additionalProperties"]
    assert asked.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("fault", [*PASSING, *ENDLESS])
def test_what_passes_is_tried_again(tmp_path, fault):
    # A server that is fast enough fills the memory before any time limit.
    timeout = ENDLESS.get(fault, 5)
    with chat_server(once(fault)) as (url, asked):
        one = translator(url, tmp_path, {"timeout": timeout})
        assert translate(one) == [EXPECTED]
        assert not asked.outlasted
    assert asked.requests == asked.requests[:1] * 2


@pytest.mark.parametrize("fault", MENDED)
def test_the_model_is_told_what_is_wrong(tmp_path, fault):
    with chat_server(once(fault)) as (url, asked):
        one = translator(url, tmp_path)
        assert translate(one) == [EXPECTED]
    first, second = asked.requests
    assert second["messages"][:2] == first["messages"]
    assert MENDED[fault] in second["messages"][3]["content"]
    assert second["messages"][2]["content"]
    assert one.usage()["gpt-test"]["requests"] == 2


def test_a_story_that_stays_bad_is_rejected_alone(tmp_path):
    other = Story("b", ["A dog ran to the big house."])

    def choose(number, body):
        return "joined" if "Tom" in body["messages"][1]["content"] else None

    with chat_server(choose) as (url, asked):
        found = translate(translator(url, tmp_path), [STORY, other])
    assert isinstance(found[0], TranslationError)
    assert "no reply of 3 can be used; the last: expected" in str(found[0])
    assert found[1] == [fake_translation(other.sentences[0])]
    assert len(asked.requests) == 4


@pytest.mark.parametrize(
    ("fault", "message", "requests"),
    [
        # By its keys, which count from 1, the model; by the tables', people.
        ("copy", "of 3 can be used; the last: sentence 1 is a copy", 3),
        ("filter", "the server refuses the text", 1),
        ("too_long", "the server refuses the text", 1),
        # What no other story would mend stops the run.
        ("401", "TEST_API_KEY", 1),
        ("404", "The model does not exist", 1),
        ("format", "Set response_format to json_object", 1),
        ("quota", "exceeded your quota", 1),
        ("redirect", "HTTP 302", 1),
        ("429_long", "max_wait", 1),
        ("500", "in 3 attempt", 3),
    ],
)
def test_a_story_is_rejected_or_the_run_stops(
    tmp_path, fault, message, requests
):
    rejected = fault in ("copy", "filter", "too_long")
    with chat_server(lambda number, body: fault) as (url, asked):
        one = translator(url, tmp_path, {"max_attempts": 3})
        try:
            (found,) = translate(one)
        except EndpointError as error:
            found = error
    assert isinstance(found, TranslationError if rejected else EndpointError)
    assert message in str(found)
    assert len(asked.requests) == requests


def test_a_refused_connection_stops_the_run(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(EndpointError, match=r"in 3 attempt.*Refused"):
        translate(translator(url, tmp_path, {"max_attempts": 3}), MANY * 6)


class Clock:
    """Stands still but for those who sleep."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        for place, name, value in (
            ("time", "monotonic", lambda: self.now),
            ("asyncio", "sleep", self.sleep),
        ):
            module = SimpleNamespace(**vars(getattr(endpoint, place)))
            setattr(module, name, value)
            monkeypatch.setattr(endpoint, place, module)

    async def sleep(self, seconds):
        self.now += max(seconds, 0.0)
        await asyncio.sleep(0)


def test_leaving_waits_for_no_reply(tmp_path):
    """Who presses Ctrl-C does not wait for a slow server."""
    with chat_server(lambda number, body: "silent") as (url, asked):
        one = translator(url, tmp_path, {"timeout": 30}, concurrency=1)

        def shards():
            yield [STORY, STORY]
            while not asked.requests:
                time.sleep(0.01)
            raise KeyboardInterrupt

        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(one.translate(shards(), Checks()))
        assert time.monotonic() - begin < 10
        assert not asked.outlasted
    assert len(asked.requests) == 1


@pytest.mark.parametrize("count", [-1, True, 10**30, "7", 1.5, [1]])
def test_a_count_that_is_none_is_not_counted(count, caplog):
    usage = {"prompt_tokens": 7, "completion_tokens": count}
    assert _tokens({"usage": usage}) == (7, 0)
    assert "completion_tokens" in caplog.text
    assert _tokens({"usage": None}) == _tokens({}) == (0, 0)


def test_retry_after_is_seconds_or_a_date():
    seconds = endpoint._seconds_of
    assert (seconds("3"), seconds("-3")) == (3.0, 0.0)
    # What a server cannot ask for is not obeyed.
    date = "Wed, 21 Oct {} 07:28:00 GMT".format
    for text in ("nan", "inf", "1e999", "soon", None, date(99999)):
        assert seconds(text) == 0.0
    assert seconds(date(2015)) == 0.0
    assert seconds(date(2099)) > 1e9


def test_json_without_end_is_no_reply():
    for text in ("[" * 100_000, '{"error": ' * 100_000):
        with pytest.raises(Exception, match="no chat completion"):
            endpoint._parse(text)
        assert endpoint._server_error(text)[0] == ""


def test_a_key_over_plain_http_is_warned_of_once(caplog):
    far = "http://server.example/v1", "http://192.168.0.7:8000/v1"
    near = "http://127.0.0.1:8/v1", "http://[::1]:8/v1", "http://localhost:8/v1"
    for url in (*far, *near, "https://server.example/v1"):
        one = ChatEndpoint(url, "TEST_API_KEY")
        for _ in range(2):
            one.open()
        said = [r for r in caplog.records if "over plain http" in r.message]
        assert len(said) == (url in far)
        caplog.clear()
    ChatEndpoint(far[0]).open()
    assert not caplog.records


def test_retry_after_holds_all_threads(tmp_path, monkeypatch):
    times, clock = [], Clock(monkeypatch)

    def choose(number, body):
        times.append(clock.now)
        return once("429")(number, body)

    with chat_server(choose) as (url, _):
        found = translate(translator(url, tmp_path, concurrency=1), MANY)
    assert found == [[fake_translation(s.sentences[0])] for s in MANY]
    assert times[1] - times[0] >= 0.2


def test_the_rate_is_limited(tmp_path, monkeypatch):
    clock, rate = Clock(monkeypatch), {"requests_per_minute": 1200}
    with chat_server() as (url, asked):
        translate(translator(url, tmp_path, rate, concurrency=6), MANY)
    assert len(asked.requests) == 8
    assert clock.now > 7 * 0.05 - 1e-9


def test_requests_go_out_at_the_same_time(tmp_path):
    together = threading.Barrier(8, timeout=20)

    def choose(number, body):
        together.wait()

    with chat_server(choose) as (url, _):
        one = translator(url, tmp_path, {"timeout": 30}, concurrency=8)
        assert len(translate(one, MANY)) == 8


def test_asking_again_costs_nothing(tmp_path):
    with chat_server() as (url, asked):
        settings = {"prompt_price": 2.0, "completion_price": 10.0}
        first = translator(url, tmp_path, **settings)
        assert translate(first) == [EXPECTED]
        again = translator(url, tmp_path, **settings)
        assert translate(again) == [EXPECTED]
        assert len(asked.requests) == 1
        expected = {"requests": 1, "prompt_tokens": 100, "cost": 0.0003}
        expected["completion_tokens"] = 10
        assert first.usage() == again.usage() == {"gpt-test": expected}
        for other in (
            {"model": "gpt-other"},
            {"prompt": "Traduis."},
            {"options": {"temperature": 1}},
            {"response_format": "text"},
        ):
            before = len(asked.requests)
            translate(translator(url, tmp_path, **other))
            assert len(asked.requests) == before + 1, other
        before = len(asked.requests)
        changed = Story("a", [*STORY.sentences[:2], "Oh yes!"])
        translate(again, [changed])
        assert len(asked.requests) == before + 1
        # What is kept must pass the checks of today.
        (found,) = next(again.translate([[STORY]], Checks(length_ratio=0.01)))
        assert isinstance(found, TranslationError)
        assert len(asked.requests) == before + 1


def test_a_disk_that_is_full_names_the_cache(tmp_path):
    cache = ReplyCache(tmp_path)
    cache.add("gpt", (1, 1), "key", ["Un."])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    message = ""
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        for number in range(50):
            cache.add("gpt", (1, 1), f"key {number}", ["Un." * 400])
    except OSError as error:
        # Raised where pytest may write again.
        message = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"{tmp_path}/replies-" in message
    assert "Make room" in message
    assert cache.get("key") == ["Un."]


def test_a_long_story_is_sent_in_parts_with_context(tmp_path):
    story = Story("a", [f"Sentence {n} of a long story." for n in range(7)])
    with chat_server() as (url, asked):
        one = translator(url, tmp_path, sentences_per_request=3)
        (found,) = translate(one, [story])
    assert found == [fake_translation(text) for text in story.sentences]
    assert len(asked.requests) == 3
    roles = [message["role"] for message in asked.requests[2]["messages"]]
    assert roles == ["system", *["user", "assistant"] * 2, "user"]
    last = asked.requests[2]["response_format"]["json_schema"]["schema"]
    assert last["required"] == ["7"]


def test_the_key_is_written_nowhere(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    faults = iter(["500", "joined", "drop", "401"])
    with chat_server(lambda number, body: next(faults)) as (url, asked):
        one = translator(url, tmp_path)
        with pytest.raises(EndpointError) as error:
            translate(one)
    # The server has said it in its message.
    assert "[API key]" in str(error.value)
    shown = [str(error.value), caplog.text, repr(one.identity), repr(vars(one))]
    assert not any(KEY in text for text in shown)
    for path in tmp_path.rglob("*"):
        assert KEY.encode() not in path.read_bytes()
    assert KEY in asked.headers[-1]["Authorization"]


def test_no_package_no_request(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ImportError, match=r"speechbrain_slm\[chat\]"):
        translate(translator("http://127.0.0.1:1/v1", tmp_path))


def test_no_key_no_request(tmp_path, monkeypatch):
    monkeypatch.delenv("TEST_API_KEY")
    with chat_server() as (url, asked):
        with pytest.raises(EndpointError, match="TEST_API_KEY holds no API"):
            translate(translator(url, tmp_path))
        open_one = translator(url, tmp_path)
        open_one.endpoint.api_key_variable = None
        assert translate(open_one) == [EXPECTED]
    assert len(asked.requests) == 1
    assert "Authorization" not in asked.headers[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base_url": "localhost:8000"}, "base_url"),
        ({"base_url": f"https://u:{KEY}@host/v1"}, "user, a password"),
        ({"api_key_variable": KEY}, "not the name of an environment"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"timeout": 0}, "timeout is 0"),
        ({"max_wait": float("nan")}, "max_wait is nan"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
    ],
)
def test_bad_settings_are_refused_without_showing_a_key(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        ChatEndpoint(**{"base_url": "http://localhost/v1", **arguments})
    assert KEY not in str(error.value)


def test_sentences_stay_paired_whatever_fails(tmp_path):
    """Faults at random: a story is right sentence by sentence, or rejected."""
    generator = random.Random(0)
    texts = [
        [
            f"Sentence {n} of story {number} says {generator.random()}."
            for n in range(generator.randint(1, 6))
        ]
        for number in range(60)
    ]
    stories = [Story(str(number), told) for number, told in enumerate(texts)]
    kinds = [*PASSING[1:], *MENDED, "filter", *[None] * 14]

    def choose(number, body):
        return random.Random(number).choice(kinds)

    shards = [stories[start : start + 7] for start in range(0, 60, 7)]
    with chat_server(choose) as (url, _):
        one = translator(url, tmp_path, {"max_attempts": 20}, attempts=2)
        found = [a for told in one.translate(shards, Checks()) for a in told]
    good = [not isinstance(answer, TranslationError) for answer in found]
    for told, answer in compress(zip(texts, found, strict=True), good):
        assert answer == list(map(fake_translation, told))
    assert 20 < sum(good) < 60
