"""A chat endpoint on loopback that translates, and misbehaves when told to.

It "translates" each sentence to ``fr <its words, reversed>``, so that a test
can tell the translation of each sentence from that of any other.
"""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def fake_translation(sentence):
    """Return what the server makes of a sentence."""
    return "fr " + " ".join(reversed(sentence.split()))


class Faulty:
    """What the server does wrong: one fault a request, then none.

    ``choose(number, body)`` returns the name of a fault, or None. ``released``
    ends what never ends; ``outlasted`` is set where nobody gave it up before.
    """

    def __init__(self, choose=lambda number, body: None):
        self.choose = choose
        self.requests = []
        self.headers = []
        self.released = threading.Event()
        self.outlasted = False
        self.lock = threading.Lock()


def _content(fault, texts):
    """Return the content of a reply, good or not."""
    keys = list(texts)
    good = {key: fake_translation(text) for key, text in texts.items()}
    if fault == "joined":  # two sentences in one, as models like to do
        good[keys[0]] = " ".join(good.values())
        for key in keys[1:]:
            del good[key]
    elif fault == "split":
        good[str(int(keys[-1]) + 1)] = "fr en trop"
    elif fault == "empty":
        good[keys[-1]] = " "
    elif fault == "copy":
        good = texts
    elif fault == "number":
        good[keys[0]] = 7
    elif fault == "surrogate":
        good[keys[0]] = "fr \ud83d"
    elif fault == "list":
        return json.dumps(list(good.values()))
    elif fault == "prose":
        return "Voici la traduction : " + json.dumps(good)
    elif fault == "digits":
        return f'{{"1": {"9" * 5000}}}'
    elif fault == "torn":
        return json.dumps(good)[:-3]
    elif fault == "twice":
        key = json.dumps(keys[0])
        return f'{{{key}: "fr un", {json.dumps(good)[1:]}'
    elif fault == "nothing":
        return ""
    elif fault == "fenced":  # no fault
        return f"```json\n{json.dumps(good)}\n```"
    return json.dumps(good)


MESSAGES = {
    "quota": (429, "insufficient_quota", "You exceeded your quota"),
    "filter": (400, "content_filter", "The response was filtered"),
    "too_long": (400, None, "This model's maximum context length is 9 tokens"),
    "format": (400, None, "response_format json_schema is not supported"),
    "401": (401, "invalid_api_key", "Incorrect API key provided: {key}"),
    "404": (404, "model_not_found", "The model does not exist"),
    "429": (429, "rate_limit_exceeded", "Slow down"),
    "429_long": (429, "rate_limit_exceeded", "Come back tomorrow"),
    "500": (500, None, "The server had an error"),
    "503": (503, None, "Overloaded"),
}
AFTER = {"429": "0.2", "429_long": "86400"}


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_POST(self):
        faulty = self.server.faulty
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        with faulty.lock:
            number = len(faulty.requests)
            faulty.requests.append(body)
            faulty.headers.append(dict(self.headers))
        fault = faulty.choose(number, body)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._answer(fault, body)

    def _answer(self, fault, body):
        if fault in MESSAGES:
            status, code, message = MESSAGES[fault]
            key = self.headers.get("Authorization", "")
            message = message.replace("{key}", key)
            error = {"error": {"message": message, "code": code}}
            after = {"Retry-After": AFTER[fault]} if fault in AFTER else {}
            return self._send(status, json.dumps(error), after)
        if fault == "redirect":
            where = f"http://127.0.0.1:{self.server.server_port}/elsewhere"
            return self._send(302, "", {"Location": where})
        if fault == "silent":
            faulty = self.server.faulty
            faulty.outlasted = not faulty.released.wait(20)
            return None
        if fault == "drop":  # closes without a word
            return self.connection.close()
        if fault == "html":
            return self._send(200, "<html>Bad gateway</html>")
        if fault == "no_choices":
            return self._send(200, json.dumps({"choices": []}))
        # The request that the last one of a conversation answers.
        asked = [m for m in body["messages"] if m["role"] == "user"]
        texts = next(
            json.loads(message["content"])
            for message in reversed(asked)
            if message["content"].startswith("{")
        )
        message = {
            "role": "assistant",
            "content": _content(fault, texts),
            "refusal": "No." if fault == "refusal" else None,
        }
        reason = "length" if fault == "cut" else "stop"
        choice = {"finish_reason": reason, "message": message}
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        reply = json.dumps({"choices": [choice], "usage": usage})
        if fault == "half":
            return self._send(200, reply[: len(reply) // 2], total=len(reply))
        if fault == "slow":  # a byte now and then, for ever
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            return self._drip(reply)
        if fault == "endless":  # faster than any time limit
            self.send_response(200)
            self.end_headers()
            for _ in range(200):
                self.wfile.write(b" " * 2**20)
            self.server.faulty.outlasted = True
            return None
        if fault == "headers":  # the same before the reply begins
            self.send_response(200)
            self.flush_headers()
            return self._drip("X: " + "a" * len(reply))
        return self._send(200, reply)

    def _send(self, status, text, headers=(), total=None):
        data = text.encode("utf-8")
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(total or len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _drip(self, text):
        for character in text:
            self.wfile.write(character.encode("utf-8"))
            self.wfile.flush()
            if self.server.faulty.released.wait(0.05):
                return
        self.server.faulty.outlasted = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass


@contextlib.contextmanager
def chat_server(choose=lambda number, body: None):
    """Yield the base URL of a server, and what it has been asked."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.faulty = Faulty(choose)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", server.faulty
    finally:
        server.faulty.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
