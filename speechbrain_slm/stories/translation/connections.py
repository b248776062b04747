"""HTTP with one time limit for all of a reply, its headers included.

The standard library's limit holds for each piece that arrives: a server that
sends a letter now and then is waited for without end.
"""

import functools
import http.client
import io
import time
import urllib.request


def open_request(request, timeout: float):
    """Send a request.

    Arguments
    ---------
    request : urllib.request.Request
        Proxies of the environment are used; a redirect is an error, since it
        would carry the key to wherever it points.
    timeout : Seconds from now in which the whole reply must have been read.

    Returns
    -------
    http.client.HTTPResponse

    Raises
    ------
    OSError
        If there is none; ``TimeoutError`` also while it is read.
    urllib.error.HTTPError
        If its status is an error; it can be read like a reply.
    """
    return _opener().open(request, timeout=timeout)


@functools.cache
def _opener():
    return urllib.request.build_opener(_NoRedirect, _HTTP, _HTTPS)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments):
        return None


class _Reader(io.RawIOBase):
    """Reads from a socket until a moment, however little comes at a time."""

    def __init__(self, sock, timeout, deadline) -> None:
        self._socket = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._timeout, self._deadline = timeout, deadline

    def readable(self):
        return True

    def readinto(self, buffer):
        left = self._deadline - time.monotonic()
        if left > 0:
            self._socket.settimeout(left)
            try:
                return self._raw.readinto(buffer)
            except TimeoutError:
                pass
        raise TimeoutError(f"no whole reply within {self._timeout} s")

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock, *arguments, limits, **options) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Reader(sock, *limits))


class _Limited:
    """Gives a connection's replies its time limit."""

    def __init__(self, host, timeout, **options) -> None:
        super().__init__(host, timeout=timeout, **options)
        limits = timeout, time.monotonic() + timeout
        self.response_class = functools.partial(_Response, limits=limits)


class _Connection(_Limited, http.client.HTTPConnection):
    pass


class _SecureConnection(_Limited, http.client.HTTPSConnection):
    pass


class _HTTP(urllib.request.HTTPHandler):
    def http_open(self, request):
        return self.do_open(_Connection, request)


class _HTTPS(urllib.request.HTTPSHandler):
    def https_open(self, request):
        return self.do_open(_SecureConnection, request, context=self._context)
