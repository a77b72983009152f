"""Sends plain HTTP requests to a server and reads every answer against OpenAI's description and the
rules of `rules.py`. What is wrong is collected and raised by `Api.verdict`, all of it at once."""

import json
import re
import uuid

import rules
from harness import Reply, Stream

# Method, path, the description's schema of the answer, and of a stream's data. Design §7.
ROUTES = [
    ("POST", "/v1/chat/completions", "CreateChatCompletionResponse",
     "CreateChatCompletionStreamResponse"),
    ("POST", "/v1/completions", "CreateCompletionResponse", "CreateCompletionResponse"),
    ("POST", "/v1/embeddings", "CreateEmbeddingResponse", None),
    ("GET", "/v1/models", "ListModelsResponse", None),
    ("GET", "/v1/models/{id}", "Model", None),
    ("POST", "/v1/responses", "Response", "ResponseStreamEvent"),
    ("GET", "/v1/responses/{id}", "Response", "ResponseStreamEvent"),
    ("DELETE", "/v1/responses/{id}", None, None),
    ("POST", "/v1/responses/{id}/cancel", "Response", None),
    ("GET", "/v1/responses/{id}/input_items", "ResponseItemList", None),
    ("POST", "/v1/conversations", "ConversationResource", None),
    ("GET", "/v1/conversations/{id}", "ConversationResource", None),
    ("POST", "/v1/conversations/{id}", "ConversationResource", None),
    ("DELETE", "/v1/conversations/{id}", "DeletedConversationResource", None),
    ("POST", "/v1/conversations/{id}/items", "ConversationItemList", None),
    ("GET", "/v1/conversations/{id}/items", "ConversationItemList", None),
    ("GET", "/v1/conversations/{id}/items/{id}", "ConversationItem", None),
    ("DELETE", "/v1/conversations/{id}/items/{id}", "ConversationResource", None),
    ("POST", "/v1/files", "OpenAIFile", None),
    ("GET", "/v1/files", "ListFilesResponse", None),
    ("GET", "/v1/files/{id}", "OpenAIFile", None),
    ("DELETE", "/v1/files/{id}", "DeleteFileResponse", None),
    ("GET", "/v1/files/{id}/content", None, None),
    ("POST", "/v1/batches", "Batch", None),
    ("GET", "/v1/batches", "ListBatchesResponse", None),
    ("GET", "/v1/batches/{id}", "Batch", None),
    ("POST", "/v1/batches/{id}/cancel", "Batch", None),
]


def pattern(template):
    parts = re.escape(template).replace(re.escape("{id}"), "[^/]+")
    return re.compile(parts.replace("/v1/models/[^/]+", "/v1/models/.+") + r"(\?.*)?$")


PATTERNS = [(method, pattern(template), (method, template), answer, data)
            for method, template, answer, data in ROUTES]


def route_of(method, path):
    for known, regex, route, answer, data in PATTERNS:
        if known == method and regex.match(path):
            return route, answer, data
    return None, None, None


class Api:
    def __init__(self, server, description, seen=None):
        self.server = server
        self.description = description
        self.seen = {} if seen is None else seen  # route → how often it answered with 2xx
        self.bad = []

    def verdict(self):
        """Raises everything that was wrong since the last call."""
        bad, self.bad = self.bad, []
        assert not bad, "\n".join(dict.fromkeys(bad))

    def complain(self, about, complaints):
        self.bad += [f"{about}: {complaint}" for complaint in complaints]

    def problems(self, schema, value):
        if schema is None or self.description is None:
            return []
        return self.description.problems(schema, value)

    # -- requests

    def call(self, method, path, body=None, headers=None, status=None, timeout_s=60.0):
        """One request and its whole answer; `status`, or any 2xx, is expected."""
        reply = self.server.request(method, path, body, headers, timeout_s=timeout_s)
        about = f"{method} {path}"
        if status is None and not 200 <= reply.status < 300 or \
                status is not None and reply.status != status:
            raise AssertionError(f"{about}: {reply.status}, expected {status or '2xx'}: "
                                 f"{reply.body[:600]!r}")
        self.read(method, path, reply)
        return reply

    def read(self, method, path, reply):
        """Reads an answer that came, whatever its status."""
        about = f"{method} {path} → {reply.status}"
        if reply.status >= 400:
            self.complain(about, rules.error_reply(reply))
            if reply.body.startswith(b"{"):
                self.complain(about, self.problems("ErrorResponse", json.loads(reply.body)))
            return
        route, schema, _ = route_of(method, path)
        if route is None:
            raise AssertionError(f"{about}: no such route in ROUTES")
        self.seen[route] = self.seen.get(route, 0) + 1
        if route[1].endswith("/content"):
            return
        self.complain(about, rules.json_headers(reply))
        value = reply.json
        self.complain(about, self.problems(schema, value))
        if schema == "Response":
            self.complain(about, rules.response_object(value))
        if isinstance(value.get("data"), list) and not path.startswith("/v1/embeddings"):
            self.complain(about, rules.page(value))

    def get(self, path, **how):
        return self.call("GET", path, **how)

    def post(self, path, body=None, **how):
        return self.call("POST", path, {} if body is None else body, **how)

    def delete(self, path, **how):
        return self.call("DELETE", path, **how)

    def upload(self, content, *, purpose="batch", filename="input.jsonl", status=None, fields=()):
        """POST /v1/files as a form."""
        boundary = uuid.uuid4().hex
        parts = [("purpose", None, purpose.encode())] if purpose is not None else []
        parts += [(name, None, value.encode()) for name, value in fields]
        if content is not None:
            parts.append(("file", filename, content))
        body = b""
        for name, file, value in parts:
            disposition = f'form-data; name="{name}"' + (f'; filename="{file}"' if file else "")
            body += (f"--{boundary}\r\ncontent-disposition: {disposition}\r\n\r\n").encode()
            body += value + b"\r\n"
        body += f"--{boundary}--\r\n".encode()
        return self.call("POST", "/v1/files", body, status=status,
                         headers={"content-type": f"multipart/form-data; boundary={boundary}"})

    # -- streams

    def stream(self, path, body=None, headers=None, method="POST", within_s=60.0):
        """A whole stream; each piece of data is read against the schema, the bytes by the rules."""
        made = self.stream_or_reply(path, body, within_s, headers, method)
        assert made.status == 200, f"{method} {path}: {made.status}: {made.body[:600]!r}"
        return made

    def stream_or_reply(self, path, body, within_s=60.0, headers=None, method="POST"):
        """The same, when the answer may be an error instead."""
        made = Stream(self.server, method, path, body, headers)
        made.wait_end(within_s)
        about = f"{method} {path} (stream)"
        assert made.status is not None, f"{about}: no answer ({made.how_it_ended})"
        if made.status != 200:
            self.read(method, path, Reply(made.status, made.headers, made.body))
            return made
        route, _, schema = route_of(method, path)
        self.seen[(*route, "stream")] = self.seen.get((*route, "stream"), 0) + 1
        events = "/v1/responses" in path
        self.complain(about, rules.raw_stream(made, events=events))
        for number, frame in enumerate(made.frames):
            if frame.is_error:
                self.complain(f"{about} error frame", rules.error_object(frame.json["error"]))
                continue
            self.complain(f"{about} #{number}", self.problems(schema, frame.json))
        return made

    def chunks(self, path, body, headers=None):
        """A whole stream of chat or legacy chunks, checked; returns their values."""
        made = self.stream(path, {**body, "stream": True}, headers)
        values = [frame.json for frame in made.chunks]
        self.complain(f"{path} (stream)", rules.chunks(values, body, made.how_it_ended))
        return values

    def events(self, path, body=None, method="POST", first=0):
        """A whole stream of Responses events, checked; returns their values."""
        made = self.stream(path, None if body is None else {**body, "stream": True}, method=method)
        self.complain(f"{method} {path} (stream)",
                      rules.response_events(made.frames, made.how_it_ended, first))
        return [frame.json for frame in made.frames]
