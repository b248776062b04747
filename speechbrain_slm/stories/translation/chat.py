"""Translation by a chat model: GPT-4, or one's own server (vLLM, llama.cpp).

A story is sent as one JSON object with a key a sentence, ``{"1": "Once upon
a time...", "2": ...}``, and the reply must be an object with the same keys: a
server that takes a JSON schema cannot answer otherwise. A reply that is not
so is sent back to the model with what is wrong with it, a few times.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from speechbrain_slm.stories.translation import (
    Checks,
    Story,
    TranslationError,
    Translator,
)
from speechbrain_slm.stories.translation.endpoint import ChatEndpoint
from speechbrain_slm.stories.translation.replies import ReplyCache
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.numbers import check_choice
from speechbrain_slm.utils.ranges import check_settings

logger = logging.getLogger(__name__)

RESPONSE_FORMATS = ("json_schema", "json_object", "text")
LONGEST_FAULT = 500  # characters
# Of one request; a server that says more is not believed.
MOST_TOKENS = 10**8
_RESERVED = {"model", "messages", "response_format", "stream", "n"}


@dataclass(eq=False)
class ChatTranslator(Translator):
    """A :class:`Translator` that asks a chat endpoint."""

    endpoint: ChatEndpoint
    model: str
    prompt: str  # {source} and {target} stand for the languages' names
    retry_prompt: str  # {error} stands for what is wrong with a reply
    source_name: str
    target_name: str
    # Keeps good replies, by the hash of all that makes them: whoever asks the
    # same again gets them from there.
    cache_folder: str | Path
    response_format: str = "json_schema"  # "text" asks the server for nothing
    options: dict = field(default_factory=dict)  # further fields of a request
    # A longer story is sent in parts, each with those before it as context.
    sentences_per_request: int = 40
    attempts: int = 3  # replies of the model, before the story is left out
    concurrency: int = 8  # requests at a time, of each rank
    prompt_price: float | None = None  # of a million tokens, for the log
    completion_price: float | None = None

    def __post_init__(self) -> None:
        check_choice("response_format", self.response_format, RESPONSE_FORMATS)
        numbers = ("sentences_per_request", "attempts", "concurrency")
        check_settings(self, *numbers)
        self.options = dict(self.options or {})
        if wrong := sorted(_RESERVED & self.options.keys()):
            raise ValueError(
                f"options holds {', '.join(wrong)}, which the translator sets"
            )
        prompt = self.prompt.replace("{source}", self.source_name)
        self.prompt = prompt.replace("{target}", self.target_name)
        self.cache = ReplyCache(self.cache_folder)

    @property
    def identity(self) -> dict:
        """Not what leaves the replies as they are: the server, its speed."""
        names = "model prompt retry_prompt response_format options attempts"
        names += " sentences_per_request"
        told = {name: getattr(self, name) for name in names.split()}
        return {"type": "chat", **told}

    def usage(self) -> dict:
        """Return what all runs with this cache folder have cost, by model."""
        totals = self.cache.totals()
        sent, received = self.prompt_price, self.completion_price
        if sent is not None and received is not None:
            for counts in totals.values():
                cost = sent * counts["prompt_tokens"]
                cost += received * counts["completion_tokens"]
                counts["cost"] = round(cost / 1e6, 6)
        return totals

    def translate(
        self, shards: Iterable[list[Story]], check: Checks
    ) -> Iterator[list]:
        """See :meth:`Translator.translate`."""
        self.endpoint.open()
        loop = asyncio.new_event_loop()
        # A thread, so that requests go on while the driver writes; a daemon,
        # so that who presses Ctrl-C does not wait for a slow server.
        threading.Thread(target=_serve, args=(loop,), daemon=True).start()
        slots = asyncio.Semaphore(self.concurrency)
        pending: deque[Future[list]] = deque()
        try:
            for shard in shards:
                work = self._shard(shard, check, slots)
                pending.append(asyncio.run_coroutine_threadsafe(work, loop))
                # Two are under way: the last stories of a shard would be
                # waited for with few of the slots in use.
                if len(pending) > 1:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            asyncio.run_coroutine_threadsafe(self._end(loop), loop)

    async def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel what is under way: it would go on paying for nothing."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.endpoint.close()
        loop.stop()

    async def _shard(
        self, shard: list[Story], check: Checks, slots: asyncio.Semaphore
    ) -> list:
        # What no story can mend ends the shard at once.
        stories = (self._story(story, check, slots) for story in shard)
        return await asyncio.gather(*stories)

    async def _story(
        self, story: Story, check: Checks, slots: asyncio.Semaphore
    ) -> list[str] | TranslationError:
        messages = [{"role": "system", "content": self.prompt}]
        translations: list[str] = []
        step = self.sentences_per_request
        async with slots:
            for start in range(0, len(story.sentences), step):
                part = story.sentences[start : start + step]
                first = start + 1
                messages.append(_message("user", part, first))
                try:
                    found = await self._part(messages, part, first, check)
                except TranslationError as error:
                    return error
                messages.append(_message("assistant", found, first))
                translations += found
        return translations

    async def _part(
        self, messages: list, sentences: list[str], first: int, check: Checks
    ) -> list[str]:
        keys = [str(first + n) for n in range(len(sentences))]
        request = {
            **self.options,
            "model": self.model,
            "messages": messages,
            **_format(self.response_format, keys),
        }
        # By all that makes the reply, so that no other setting finds it.
        name = identity_of(request)
        found = self.cache.get(name)
        if found is not None:
            return check(sentences, found, first - 1)
        for _ in range(self.attempts):
            reply = await self.endpoint.complete(request)
            content = reply["choices"][0]["message"].get("content")
            content = content if isinstance(content, str) else ""
            try:
                told = _read(reply, content, keys)
                found = check(sentences, told, first - 1)
            except TranslationError as error:
                # A reply may be long, and its keys stand in the message.
                fault = str(error)[:LONGEST_FAULT]
                said = error.reason[:LONGEST_FAULT]
                if error.sentence is not None:
                    # Tables count sentences from 0, the request's keys from 1.
                    said = f'"{error.sentence + 1}" {said}'
            self.cache.add(self.model, _tokens(reply), name, found)
            if found is not None:
                return found
            said = self.retry_prompt.replace("{error}", said)
            request["messages"] = [
                *messages,
                # Servers refuse an empty message.
                {"role": "assistant", "content": content or "-"},
                {"role": "user", "content": said},
            ]
        raise TranslationError(
            f"no reply of {self.attempts} can be used; the last: {fault}"
        )


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()  # else its sockets stay open


def _message(role: str, sentences: list[str], first: int) -> dict:
    texts = {str(number): s for number, s in enumerate(sentences, first)}
    content = json.dumps(texts, ensure_ascii=False, indent=0)
    return {"role": role, "content": content}


def _format(kind: str, keys: list[str]) -> dict:
    """Return the request's field that shapes the reply."""
    if kind == "text":
        return {}
    # With "strict", a server decodes nothing that the schema does not allow.
    schema = {
        "type": "object",
        "properties": {key: {"type": "string"} for key in keys},
        "required": keys,
        "additionalProperties": False,
    }
    named = {"name": "translation", "strict": True, "schema": schema}
    shape = {"json_schema": named} if kind == "json_schema" else {}
    return {"response_format": {"type": kind, **shape}}


def _tokens(reply: dict) -> tuple[int, int]:
    """Return the tokens that a reply says it cost; none if it says nonsense."""
    usage = reply.get("usage")
    usage = usage if isinstance(usage, dict) else {}

    def tokens(name: str) -> int:
        count = usage.get(name) or 0
        # True is an int, too.
        if type(count) is int and 0 <= count <= MOST_TOKENS:
            return count
        logger.warning(
            f"The server's usage says {name}: {count!r:.40}; it is not "
            "counted, so the cost that is shown is too low"
        )
        return 0

    return tokens("prompt_tokens"), tokens("completion_tokens")


def _read(reply: dict, content: str, keys: list[str]) -> list:
    """Return the texts of a reply in the order of the keys."""
    choice = reply["choices"][0]
    if choice.get("finish_reason") == "length":
        raise TranslationError("the reply was cut off at its token limit")
    if choice["message"].get("refusal"):
        raise TranslationError(f"refused: {choice['message']['refusal']}")
    if not content.strip():
        raise TranslationError("the reply is empty")
    # Models that are not held to JSON like to put it into a code block.
    fenced = re.fullmatch(r"\s*```(?:json)?\s*(.*?)```\s*", content, re.S)
    try:
        texts = json.loads(
            fenced[1] if fenced else content, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError) as error:
        raise TranslationError(f"the reply is not JSON: {error}") from None
    if not isinstance(texts, dict):
        raise TranslationError("the reply is not a JSON object")
    missing = [key for key in keys if key not in texts]
    extra = [key for key in texts if key not in keys]
    if missing or extra:
        lost, more = (", ".join(k[:20]) or "none" for k in (missing, extra))
        told = f"missing: {lost}; not asked for: {more}"
        raise TranslationError(f"expected {keys[0]} to {keys[-1]}; {told}")
    return [texts[key] for key in keys]


def _unique(pairs: list[tuple]) -> dict:
    # Python keeps the last of two equal keys: a sentence would be lost unseen.
    texts = dict(pairs)
    if len(texts) < len(pairs):
        raise TranslationError("a key stands twice in the reply")
    return texts
