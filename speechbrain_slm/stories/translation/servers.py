"""What a server says of itself: where it is, its errors, when to come back.

All of it comes from outside and is believed within bounds.
"""

import email.utils
import ipaddress
import json
import math
import time


def is_here(host: str) -> bool:
    """Tell whether a host is this machine.

    Arguments
    ---------
    host : A name or an address.

    Example
    -------
    >>> [is_here(host) for host in ("127.0.0.1", "localhost", "10.0.0.1")]
    [True, True, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def server_error(text: str) -> tuple[str, str]:
    """Return the code and the message of a server's error.

    Returns
    -------
    str
        The code, empty if there is none.
    str
        The message.
    """
    try:
        found = json.loads(text)
        # vLLM's has no "error" around it.
        found = found.get("error", found)
        if isinstance(found, dict) and found.get("message"):
            return str(found.get("code")), str(found["message"])[:500]
    except (ValueError, AttributeError, RecursionError):
        pass
    return "", text[:500].strip() or "no message"


def seconds_of(after: str | None) -> float | None:
    """Read a Retry-After header.

    Returns
    -------
    Seconds, 0 or more; None if it is neither.

    Example
    -------
    >>> [seconds_of(text) for text in ("3", "-3", "nan", "1e999", "soon")]
    [3.0, 0.0, None, None, None]
    """
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
