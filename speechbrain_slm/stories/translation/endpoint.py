"""An OpenAI-compatible chat endpoint, over which anything can go wrong.

What passes (429, 5xx, timeouts, refused connections, torn replies) is tried
again, later and later; what does not pass stops the run, which goes on from
there when it is mended. The API key is read from the environment for each
request, kept nowhere, and blotted out of whatever the server says.
"""

import http.client
import json
import logging
import os
import random
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from speechbrain_slm.stories.translation import TranslationError
from speechbrain_slm.stories.translation.connections import open_request
from speechbrain_slm.stories.translation.servers import (
    is_here,
    seconds_of,
    server_error,
)
from speechbrain_slm.utils.distributed import world_size

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

    def __init__(self, message, wait=None) -> None:
        super().__init__(message)
        self.wait = wait


class ChatEndpoint:
    """Sends chat requests, from any number of threads.

    Arguments
    ---------
    base_url
        Such as ``https://api.openai.com/v1`` or ``http://localhost:8000/v1``.
    api_key_variable
        The environment variable that holds the API key. By default none is
        sent.
    timeout : Seconds that a reply may take, from the request to its last byte.
    max_attempts : How often a request is sent before the run stops.
    backoff
        Seconds before the second attempt; doubled with each further one, up
        to a minute, and shortened at random by up to a half.
    max_wait
        The longest ``Retry-After`` that is obeyed, in seconds; beyond it the
        run stops.
    requests_per_minute
        The rate of all ranks together. By default there is no limit.

    Raises
    ------
    ValueError
        If an argument makes no sense.
    """

    def __init__(
        self,
        base_url: str,
        api_key_variable: str | None = None,
        timeout: float = 120.0,
        max_attempts: int = 8,
        backoff: float = 1.0,
        max_wait: float = 300.0,
        requests_per_minute: float | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"base_url is '{base_url}'; expected http://host/v1 or https"
            )
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "base_url holds a user, a password or a query; the key goes "
                "into the environment variable that api_key_variable names"
            )
        # Whoever sets the key itself here would find it in hyperparams.yaml.
        if api_key_variable is not None and not re.fullmatch(
            r"[A-Z_][A-Z0-9_]{0,63}", api_key_variable
        ):
            raise ValueError(
                "api_key_variable is not the name of an environment variable "
                "(capitals, digits, _), such as OPENAI_API_KEY. The key itself "
                "must not stand in a YAML file or on a command line."
            )
        if max_attempts < 1:
            raise ValueError(f"max_attempts is {max_attempts}; expected 1 up")
        for name, value in (
            ("timeout", timeout),
            ("backoff", backoff),
            ("max_wait", max_wait),
        ):
            if not (0 <= value < threading.TIMEOUT_MAX) or not timeout:
                raise ValueError(
                    f"{name} is {value}; expected seconds, 0 or more, and a "
                    "timeout above 0"
                )
        if requests_per_minute is not None and requests_per_minute <= 0:
            raise ValueError(
                f"requests_per_minute is {requests_per_minute}; expected more "
                "than 0, or null for no limit"
            )
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.api_key_variable = api_key_variable
        self.timeout = timeout
        self.max_attempts = max_attempts
        self.backoff = backoff
        self.max_wait = max_wait
        self.requests_per_minute = requests_per_minute
        host = parts.hostname
        self._is_open = parts.scheme == "http" and not is_here(host)
        self._lock = threading.Lock()
        self._next = 0.0
        self._stopped = threading.Event()
        self._fatal = ""

    def begin(self) -> None:
        """Get ready, and refuse to without the key.

        Raises
        ------
        EndpointError
            If the key's variable is not set.
        """
        self._stopped.clear()
        self._fatal = ""
        if self._key() and self._is_open:
            self._is_open = False  # said once
            logger.warning(
                "Warning: the API key of %s goes to %s over plain http: who "
                "is on the way can read it. Use https, or a tunnel to a port "
                "of this machine.",
                self.api_key_variable,
                self.url,
            )

    def stop(self, reason: str = "the run ends") -> None:
        """Make all threads give up, those that wait at once.

        Arguments
        ---------
        reason : What their errors say; the first one stays.
        """
        with self._lock:
            self._fatal = self._fatal or reason
        self._stopped.set()

    def complete(self, body: dict) -> dict:
        """Send a request until there is a reply.

        Returns
        -------
        The reply: ``choices`` has at least one entry with a ``message``.

        Raises
        ------
        EndpointError
            If there is none after so many attempts, or never will be.
        TranslationError
            If the server refuses this text.
        """
        data = json.dumps(body).encode("utf-8")
        for attempt in range(1, self.max_attempts + 1):
            self._wait_for_turn()
            try:
                return self._send(data)
            except _Passing as error:
                if attempt == self.max_attempts:
                    raise EndpointError(
                        f"{self.url}: no reply in {attempt} attempt(s); the "
                        f"last: {error}. Run the same command again when it "
                        "answers; what is translated is kept."
                    ) from None
                # Beyond 2**30 nothing grows, and no number overflows.
                growth = 2 ** min(attempt - 1, 30)
                delay = min(self.backoff * growth, LONGEST_DELAY)
                delay *= random.uniform(0.5, 1.0)
                logger.info("Attempt %d: %s", attempt, error)
                if error.wait is not None:
                    # The server's limit is one for all threads.
                    delay = max(delay, error.wait)
                    with self._lock:
                        later = time.monotonic() + error.wait
                        self._next = max(self._next, later)
                self._sleep(delay)

    def _key(self):
        if self.api_key_variable is None:
            return None
        key = os.environ.get(self.api_key_variable, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise EndpointError(
                f"The environment variable {self.api_key_variable} holds no "
                "API key; export it, or set api_key_variable to null for a "
                "server that asks for none"
            )
        return key

    def _wait_for_turn(self):
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn
            if self.requests_per_minute is not None:
                share = self.requests_per_minute / world_size()
                self._next = turn + 60.0 / share
        self._sleep(turn - time.monotonic())

    def _sleep(self, seconds):
        seconds = min(max(seconds, 0.0), threading.TIMEOUT_MAX)
        if self._stopped.wait(seconds):
            raise EndpointError(self._fatal)

    def _send(self, data):
        key = self._key()
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url, data, headers)
        status, after = 200, None
        try:
            try:
                reply = open_request(request, self.timeout)
            except urllib.error.HTTPError as error:
                reply, status = error, error.code
                after = error.headers.get("Retry-After")
            with reply:
                text = self._read(reply)
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise EndpointError(f"{self.url}: {cause}") from None
            name = type(cause).__name__
            raise _Passing(_blot(f"{name}: {cause}", key)) from None
        text = _blot(text, key)
        if status != 200:
            raise self._judge(status, after, text)
        return _parse(text)

    def _read(self, reply):
        """Read a reply that may be without end."""
        blocks, size = [], 0
        while block := reply.read1(1 << 16):
            blocks.append(block)
            size += len(block)
            if size > LARGEST_REPLY:
                raise _Passing(f"a reply of more than {LARGEST_REPLY} bytes")
        expected = reply.headers.get("Content-Length")
        if expected is not None and expected != str(size):
            raise _Passing(f"{size} of a reply's {expected} bytes")
        return b"".join(blocks).decode("utf-8", "replace")

    def _judge(self, status, after, text):
        """Return the error that a status stands for."""
        code, message = server_error(text)
        said = f"HTTP {status}: {message}"
        if code == "insufficient_quota":
            return EndpointError(f"{self.url}: {said}")
        if status in _PASSING or status >= 500:
            wait = seconds_of(after)
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


def _blot(text, key):
    return text.replace(key, "[API key]") if key else text


def _parse(text):
    try:
        reply = json.loads(text)
        message = reply["choices"][0]["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise _Passing(f"a reply that is no chat completion: {text[:200]!r}")
    return reply
