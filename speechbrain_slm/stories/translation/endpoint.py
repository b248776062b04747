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
_REFUSED = "content_filter content_policy_violation context_length_exceeded"
_TOO_LONG = re.compile(r"context[ _](length|window)|maximum context", re.I)


class EndpointError(RuntimeError):
    """The endpoint cannot be used: nothing that another story would mend."""


class _Passing(Exception):
    """A fault that may be gone next time."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait  # seconds that the server asks for


@dataclass(eq=False)
class ChatEndpoint:
    """Sends chat requests, any number at a time, in one event loop."""

    base_url: str  # such as http://localhost:8000/v1
    api_key_variable: str | None = None  # None sends no key
    timeout: float = 120.0  # seconds, from a request to its reply's last byte
    max_attempts: int = 8  # of a request, before the run stops
    # Seconds before the second attempt; doubled with each further one, up to a
    # minute, and shortened at random by up to a half.
    backoff: float = 1.0
    max_wait: float = 300.0  # seconds; a longer Retry-After stops the run
    requests_per_minute: float | None = None  # of all ranks; None: no limit

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
        name = self.api_key_variable
        if name is not None and not re.fullmatch("[A-Z_][A-Z0-9_]{,63}", name):
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
                f"Warning: the API key of {self.api_key_variable} goes to "
                f"{self.url} over plain http: who is on the way can read it. "
                "Use https, or a tunnel to a port of this machine."
            )
        # No time limit of its own, which holds for each piece that arrives:
        # a server that sends a letter now and then would be waited for without
        # end. A redirect is an error: it would carry the key wherever it leads.
        self._client = httpx2.AsyncClient(
            timeout=None, limits=httpx2.Limits(), follow_redirects=False
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request until there is a reply, with a message in it.

        `EndpointError` if there is none after so many attempts, or never will
        be; `TranslationError` if the server refuses this text.
        """
        data = json.dumps(body).encode("utf-8")
        attempt = 0
        while True:
            await self._wait_for_turn()
            try:
                return await self._send(data)
            except _Passing as error:
                attempt += 1
                if attempt == self.max_attempts:
                    raise EndpointError(
                        f"{self.url}: no reply in {attempt} attempt(s), last: "
                        f"{error}. Run again when it answers: all is kept."
                    ) from None
                logger.info("Attempt %d: %s", attempt, error)
                # Beyond 2**30 nothing grows, and no number overflows.
                growth = 2 ** min(attempt - 1, 30)
                delay = min(self.backoff * growth, LONGEST_DELAY)
                delay *= random.uniform(0.5, 1.0)
                # The server's limit is one for all requests.
                later = time.monotonic() + error.wait
                self._next = max(self._next, later)
                await asyncio.sleep(max(delay, error.wait))

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
            exchange = self._exchange(data, key)
            reply = await asyncio.wait_for(exchange, self.timeout)
        except asyncio.TimeoutError:
            problem = f"no whole reply within {self.timeout} s"
        except (httpx2.HTTPError, OSError) as error:
            problem = _cause(error)
        if "CERTIFICATE_VERIFY_FAILED" in problem:
            raise EndpointError(f"{self.url}: {problem}")
        if problem:
            # Not from the error, whose frames hold the key.
            raise _Passing(_blot(problem, key))
        status, after, text = reply
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
        text = bytearray()
        async with self._client.stream(
            "POST", self.url, content=data, headers=headers
        ) as reply:
            async for block in reply.aiter_bytes():
                text += block
                if len(text) > LARGEST_REPLY:
                    raise _Passing(f"a reply of over {LARGEST_REPLY} bytes")
        after = reply.headers.get("Retry-After")
        return reply.status_code, after, text.decode("utf-8", "replace")

    def _judge(self, status: int, after: str | None, text: str) -> Exception:
        """Return the error that a status stands for."""
        code, message = _server_error(text)
        said = f"HTTP {status}: {message}"
        if code == "insufficient_quota":
            return EndpointError(f"{self.url}: {said}")
        if status in _PASSING or status >= 500:
            wait = _seconds_of(after)
            if wait <= self.max_wait:
                return _Passing(said, wait)
            return EndpointError(
                f"{self.url}: {said}. It asks to wait for {wait:.0f} s; "
                f"max_wait is {self.max_wait} s. Run again later."
            )
        too_long = status in (400, 413, 422) and _TOO_LONG.search(message)
        if code in _REFUSED.split() or too_long:
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


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    # RecursionError: "[[[[..." is short of the largest reply, too.
    except (ValueError, RecursionError):
        return None


def _parse(text: str) -> dict[str, Any]:
    match reply := _loads(text):
        case {"choices": [{"message": dict()}, *_]}:
            return reply
    raise _Passing(f"a reply that is no chat completion: {text[:200]!r}")


def _server_error(text: str) -> tuple[str, str]:
    """Return the code (empty if there is none) and message of an error."""
    found = _loads(text)
    # vLLM's has no "error" around it.
    match found.get("error", found) if isinstance(found, dict) else None:
        case {"message": message, **error} if message:
            return str(error.get("code")), str(message)[:500]
    return "", text[:500].strip() or "no message"


def _seconds_of(after: str | None) -> float:
    """Read a Retry-After header: seconds, or a date; 0 if it is neither."""
    try:
        seconds = float(after or 0)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(after or "")
            seconds = date.timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return f".{host}".endswith(".localhost")
