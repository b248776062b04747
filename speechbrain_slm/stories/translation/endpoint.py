"""An OpenAI-compatible chat endpoint, over which anything can go wrong.

What passes (429, 5xx, timeouts, refused connections, torn replies) is tried
again, later and later; what does not pass stops the run, which goes on from
there when it is mended.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import json
import logging
import math
import os
import random
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from speechbrain_slm.stories.translation import TranslationError
from speechbrain_slm.utils.distributed import world_size
from speechbrain_slm.utils.ranges import check_settings

if TYPE_CHECKING:
    import httpx2

logger = logging.getLogger(__name__)

LONGEST_DELAY = 60.0  # seconds between two attempts, unless the server asks
LARGEST_REPLY = 16 * 2**20  # bytes
_PASSING = {408, 409, 425, 429}
# A story's own fault, not that of the endpoint.
_REFUSED = {"content_filter", "content_policy_violation"}
_TOO_LONG = re.compile(r"context[ _](length|window)|maximum context", re.I)


class EndpointError(RuntimeError):
    """The endpoint cannot be used: nothing that another story would mend."""


class _Passing(Exception):
    """A fault that may be gone next time."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(eq=False)
class ChatEndpoint:
    """Sends chat requests, any number at a time, in one event loop.

    Arguments
    ---------
    base_url
        Such as ``https://api.openai.com/v1`` or ``http://localhost:8000/v1``.
    api_key_variable
        The environment variable that holds the API key; None sends none.
    timeout : Seconds that a reply may take, from the request to its last byte.
    max_attempts : How often a request is sent before the run stops.
    backoff
        Seconds before the second attempt; doubled with each further one, up
        to a minute, and shortened at random by up to a half.
    max_wait
        The longest ``Retry-After`` that is obeyed, in seconds; beyond it the
        run stops.
    requests_per_minute : Of all ranks together; None is no limit.
    """

    base_url: str
    api_key_variable: str | None = None
    timeout: float = 120.0
    max_attempts: int = 8
    backoff: float = 1.0
    max_wait: float = 300.0
    requests_per_minute: float | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"base_url: found '{self.base_url}'; expected http(s)://host/v1"
            )
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "base_url holds a user, a password or a query; the key goes "
                "into the environment variable that api_key_variable names"
            )
        # Whoever sets the key itself here would find it in hyperparams.yaml.
        if self.api_key_variable is not None and not re.fullmatch(
            r"[A-Z_][A-Z0-9_]{0,63}", self.api_key_variable
        ):
            raise ValueError(
                "api_key_variable is not the name of an environment variable "
                "(capitals, digits, _), such as OPENAI_API_KEY. The key itself "
                "must not stand in a YAML file or on a command line."
            )
        numbers = "max_attempts timeout backoff max_wait requests_per_minute"
        check_settings(self, *numbers.split())
        self.url = self.base_url.rstrip("/") + "/chat/completions"
        self._is_open = parts.scheme == "http" and not _is_here(parts.hostname)
        self._next = 0.0  # when the next request may go out
        self._client: httpx2.AsyncClient

    def open(self) -> None:
        """Get ready; EndpointError if the key's variable is not set."""
        try:
            import httpx2
        except ImportError:
            raise ImportError(
                "translation by a chat model needs the package 'httpx2': pip "
                "install 'speechbrain_slm[chat]'"
            ) from None
        # It tells of each request, at the level of our progress.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        if self._key() and self._is_open:
            self._is_open = False  # said once
            logger.warning(
                "Warning: the API key of %s goes to %s over plain http: who "
                "is on the way can read it. Use https, or a tunnel to a port "
                "of this machine.",
                *(self.api_key_variable, self.url),
            )
        # Its own time limit holds for each piece that arrives: a server that
        # sends a letter now and then would be waited for without end. A
        # redirect is an error: it would carry the key to wherever it points.
        self._client = httpx2.AsyncClient(
            timeout=None, limits=httpx2.Limits(), follow_redirects=False
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request until there is a reply, with a message in it.

        Raises
        ------
        EndpointError
            If there is none after so many attempts, or never will be.
        TranslationError
            If the server refuses this text.
        """
        data = json.dumps(body).encode("utf-8")
        attempt = 0
        while True:
            attempt += 1
            await self._wait_for_turn()
            try:
                return await self._send(data)
            except _Passing as error:
                if attempt == self.max_attempts:
                    raise EndpointError(
                        f"{self.url}: no reply in {attempt} attempt(s), last: "
                        f"{error}. Run again when it answers: all is kept."
                    ) from None
                # Beyond 2**30 nothing grows, and no number overflows.
                growth = 2 ** min(attempt - 1, 30)
                delay = min(self.backoff * growth, LONGEST_DELAY)
                delay *= random.uniform(0.5, 1.0)
                logger.info("Attempt %d: %s", attempt, error)
                if error.wait is not None:
                    # The server's limit is one for all requests.
                    delay = max(delay, error.wait)
                    later = time.monotonic() + error.wait
                    self._next = max(self._next, later)
                await asyncio.sleep(delay)

    def _key(self) -> str | None:
        """Read the key anew for each request: it is kept nowhere."""
        if self.api_key_variable is None:
            return None
        key = os.environ.get(self.api_key_variable, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise EndpointError(
                f"The environment variable {self.api_key_variable} holds no "
                "API key; export it, or set api_key_variable to null"
            )
        return key

    async def _wait_for_turn(self) -> None:
        now = time.monotonic()
        turn = self._next = max(self._next, now)
        if self.requests_per_minute is not None:
            self._next += 60.0 * world_size() / self.requests_per_minute
        await asyncio.sleep(turn - now)

    async def _send(self, data: bytes) -> dict[str, Any]:
        import httpx2

        key, problem = self._key(), ""
        try:
            status, after, text = await asyncio.wait_for(
                self._exchange(data, key), self.timeout
            )
        except asyncio.TimeoutError:
            problem = f"no whole reply within {self.timeout} s"
        except (httpx2.HTTPError, OSError) as error:
            problem = _cause(error)
        if "CERTIFICATE_VERIFY_FAILED" in problem:
            raise EndpointError(f"{self.url}: {problem}")
        if problem:
            # Not from the error, whose frames hold the key.
            raise _Passing(_blot(problem, key))
        text = _blot(text, key)
        if status != 200:
            raise self._judge(status, after, text)
        return _parse(text)

    async def _exchange(
        self, data: bytes, key: str | None
    ) -> tuple[int, str | None, str]:
        """Return a reply's status, its Retry-After and its text."""
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        blocks, size = [], 0
        async with self._client.stream(
            "POST", self.url, content=data, headers=headers
        ) as reply:
            async for block in reply.aiter_bytes():
                blocks.append(block)
                size += len(block)
                if size > LARGEST_REPLY:
                    limit = f"a reply of more than {LARGEST_REPLY} bytes"
                    raise _Passing(limit)
        text = b"".join(blocks).decode("utf-8", "replace")
        return reply.status_code, reply.headers.get("Retry-After"), text

    def _judge(self, status: int, after: str | None, text: str) -> Exception:
        """Return the error that a status stands for."""
        code, message = _server_error(text)
        said = f"HTTP {status}: {message}"
        if code == "insufficient_quota":
            return EndpointError(f"{self.url}: {said}")
        if status in _PASSING or status >= 500:
            wait = _seconds_of(after)
            if wait is not None and wait > self.max_wait:
                return EndpointError(
                    f"{self.url}: {said}. It asks to wait for {wait:.0f} s; "
                    f"max_wait is {self.max_wait} s. Run again later."
                )
            return _Passing(said, wait)
        too_long = code == "context_length_exceeded" or (
            status in (400, 413, 422) and _TOO_LONG.search(message)
        )
        if code in _REFUSED or too_long:
            return TranslationError(f"the server refuses the text: {said}")
        hint = "See base_url and model."
        if status in (401, 403):
            hint = f"See the key in {self.api_key_variable}."
        elif "response_format" in message or "json_schema" in message:
            hint = "Set response_format to json_object or text."
        return EndpointError(f"{self.url}: {said}. {hint}")


def _cause(error: BaseException | None) -> str:
    """Say what lies beneath: the top says "All connection attempts failed"."""
    said = ""
    while error is not None:
        if str(error):
            said = f"{type(error).__name__}: {error}"
        error = error.__cause__ or error.__context__
    return said


def _blot(text: str, key: str | None) -> str:
    return text.replace(key, "[API key]") if key else text


def _parse(text: str) -> dict[str, Any]:
    try:
        reply = json.loads(text)
        message = reply["choices"][0]["message"]
    # RecursionError: "[[[[..." is short of the largest reply, too.
    except (ValueError, LookupError, TypeError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise _Passing(f"a reply that is no chat completion: {text[:200]!r}")
    return reply


def _server_error(text: str) -> tuple[str, str]:
    """Return the code (empty if there is none) and message of an error."""
    try:
        found = json.loads(text)
        # vLLM's has no "error" around it.
        found = found.get("error", found)
        if isinstance(found, dict) and found.get("message"):
            return str(found.get("code")), str(found["message"])[:500]
    except (ValueError, AttributeError, RecursionError):
        pass
    return "", text[:500].strip() or "no message"


def _seconds_of(after: str | None) -> float | None:
    """Read a Retry-After header: seconds, or a date; None if it is neither."""
    if after is None:
        return None
    try:
        seconds = float(after)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(after)
            seconds = date.timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
