"""Starts the real binary, breaks it, and reads its streams byte by byte.

Nothing here waits for a fixed time: every wait is for something that can be seen (a log line, a
reply, a frame, an exit), with a deadline. Processes are ended by their ids.
"""

import dataclasses
import http.client
import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("WAYSTATION_BIN") or ROOT / "build/release/waystation")
MODEL_FILE = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = MODEL_FILE.name.removesuffix(".gguf")
SANITIZER = os.environ.get("WAYSTATION_SANITIZER", "")
# How much longer things may take: sanitizers are slow, and so is a busy machine.
SLOWNESS = float(os.environ.get("WAYSTATION_SLOWNESS") or (6 if SANITIZER else 1))
POLL_S = 0.02


class Failed(AssertionError):
    """Something that should have happened in time did not."""


def wait_until(condition, what, within_s=20.0):
    """Returns the first true value of condition(); fails with `what` after the deadline."""
    deadline = time.monotonic() + within_s * SLOWNESS
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"waited {within_s * SLOWNESS:.0f} s for {what}")
        time.sleep(POLL_S)


# ---- processes ----------------------------------------------------------------------------------


def stat_of(pid):
    """(parent, state, start time) of a process, or None when there is none."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2:].split()
    return int(fields[1]), fields[0], int(fields[19])


def alive(pid):
    stat = stat_of(pid)
    return stat is not None and stat[1] not in "ZX"


def children(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = stat_of(entry)
            if stat and stat[0] == pid and stat[1] not in "ZX":
                found.append(int(entry))
    return sorted(found)


def command_line(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return []


def kill9(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Process:
    """A `waystation` command whose stderr is kept line by line."""

    def __init__(self, arguments, *, stdin=None, stdout=subprocess.PIPE, file_bytes_max=None,
                 environment=None):
        def before():
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, resource.RLIM_INFINITY))

        self.arguments = [str(BIN), *map(str, arguments)]
        self.lines = []
        self.changed = threading.Condition()
        self.popen = subprocess.Popen(
            self.arguments, stdin=stdin if stdin is not None else subprocess.DEVNULL, stdout=stdout,
            stderr=subprocess.PIPE, preexec_fn=before if file_bytes_max is not None else None,
            env={**os.environ, **environment} if environment else None)
        self.pid = self.popen.pid
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.popen.stderr:
            with self.changed:
                self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self.changed.notify_all()

    def log(self):
        with self.changed:
            return "\n".join(self.lines)

    def wait_line(self, pattern, within_s=20.0):
        """The match of the first log line that has the pattern; fails when the process ends."""
        def find():
            for line in list(self.lines):
                match = re.search(pattern, line)
                if match:
                    return match
            if self.popen.poll() is not None:
                self.reader.join(2)
                for line in list(self.lines):
                    match = re.search(pattern, line)
                    if match:
                        return match
                raise Failed(f"exit code {self.popen.returncode} before /{pattern}/:\n{self.log()}")
            return None
        return wait_until(find, f"/{pattern}/ in the log of {' '.join(self.arguments)}", within_s)

    def wait_exit(self, within_s=20.0):
        try:
            code = self.popen.wait(within_s * SLOWNESS)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{' '.join(self.arguments)} did not end:\n{self.log()}") from error
        self.reader.join(2)
        return code

    def send_signal(self, number):
        self.popen.send_signal(number)

    def stop_by_force(self):
        if self.popen.poll() is None:
            kill9(self.pid)
            self.popen.wait()


def run(*arguments, within_s=60.0, stdin=b""):
    """Runs a command to its end. (exit code, stdout, stderr)"""
    done = subprocess.run([str(BIN), *map(str, arguments)], input=stdin, capture_output=True,
                          timeout=within_s * SLOWNESS, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode("utf-8", "replace")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`waystation serve` on a folder of its own. May be killed and started again on the same folder
    and port as often as a test likes."""

    def __init__(self, folder, *arguments, scripted=None, models=(), workers=None, api_key=None,
                 file_bytes_max=None, environment=None):
        self.folder = pathlib.Path(folder)
        self.data = self.folder / "data"
        self.arguments = list(arguments)
        if scripted is not None:
            self.arguments += ["--scripted", scripted]
        for model in models:
            self.arguments += ["--model", str(model)]
        if workers is not None:
            self.arguments += ["--workers", str(workers)]
        self.api_key = api_key
        self.file_bytes_max = file_bytes_max  # as `ulimit -f` would set it
        self.environment = dict(environment or {})  # what its next start has besides ours
        self.port = 0
        self.process = None
        self.history = []  # every start
        self.seen = {}     # pid of a worker → its start time

    def __repr__(self):
        return f"<Server {self.data}>"

    # -- life

    def start(self, *, ready=True, within_s=40.0):
        arguments = ["serve", "--listen", f"127.0.0.1:{self.port}", "--data", self.data,
                     *self.arguments]
        self.process = Process(arguments, file_bytes_max=self.file_bytes_max,
                               environment=self.environment)
        self.history.append(self.process)
        match = self.process.wait_line(r"listening url=http://[^ ]*?:(\d+)", within_s)
        self.port = int(match[1])
        if ready:
            self.wait_ready(within_s)
        return self

    def wait_ready(self, within_s=40.0):
        def ready():
            if self.process.popen.poll() is not None:
                raise Failed(f"exit code {self.process.popen.returncode}:\n{self.process.log()}")
            try:
                return self.get("/readyz").status == 200
            except OSError:
                return False
        wait_until(ready, "/readyz to be 200", within_s)
        self.note_workers()

    @property
    def pid(self):
        return self.process.pid

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def workers(self):
        """The ids of its local worker processes."""
        return [pid for pid in children(self.pid) if "worker" in command_line(pid)[1:2]]

    def note_workers(self):
        for pid in self.workers():
            stat = stat_of(pid)
            if stat:
                self.seen[pid] = stat[2]

    def wait_workers(self, count, within_s=20.0):
        workers = wait_until(lambda: len(self.workers()) == count and self.workers(),
                             f"{count} workers", within_s)
        self.note_workers()
        return workers

    def kill_worker(self, pid=None):
        """kill -9 of one worker (the only one unless named); returns its id."""
        self.note_workers()
        if pid is None:
            (pid,) = self.workers()
        kill9(pid)
        return pid

    def kill(self):
        """kill -9 of the server itself."""
        self.note_workers()
        kill9(self.pid)
        self.process.popen.wait()

    def restart(self, **how):
        self.kill()
        return self.start(**how)

    def terminate(self, within_s=30.0):
        """SIGTERM; returns the exit code."""
        self.note_workers()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait_exit(within_s)

    def left_over(self):
        """Workers that outlived their server."""
        return [pid for pid, started in self.seen.items()
                if alive(pid) and (stat_of(pid) or (0, "", 0))[2] == started]

    def clean_up(self):
        if self.process is not None and self.process.popen.poll() is None:
            self.note_workers()
        for process in self.history:
            process.stop_by_force()
        for pid in self.left_over():
            kill9(pid)

    def log(self):
        return "\n".join(f"--- start {n}\n{process.log()}"
                         for n, process in enumerate(self.history, 1))

    def refuse_writes(self):
        """From now on every write to a file fails (EFBIG)."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def allow_writes(self):
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE,
                         (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    # -- HTTP

    def headers(self, extra=None):
        headers = {"content-type": "application/json"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key}"
        headers.update(extra or {})
        return headers

    def request(self, method, path, body=None, headers=None, timeout_s=60.0):
        connection = http.client.HTTPConnection("127.0.0.1", self.port,
                                                timeout=timeout_s * SLOWNESS)
        try:
            payload = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
            connection.request(method, path, payload, self.headers(headers))
            response = connection.getresponse()
            return Reply(response.status, dict_of(response), response.read())
        except http.client.HTTPException as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def get(self, path, headers=None, **how):
        return self.request("GET", path, None, headers, **how)

    def post(self, path, body=None, headers=None, **how):
        return self.request("POST", path, body, headers, **how)

    def chat(self, prompt="hello", headers=None, timeout_s=60.0, **fields):
        return self.post("/v1/chat/completions", chat_body(prompt, **fields), headers,
                         timeout_s=timeout_s)

    def stream(self, prompt="hello", headers=None, **fields):
        return Stream(self, "POST", "/v1/chat/completions",
                      chat_body(prompt, stream=True, **fields), headers)

    def events(self, request_id, starting_after=None, headers=None):
        query = "" if starting_after is None else f"?starting_after={starting_after}"
        return Stream(self, "GET", f"/v1/requests/{request_id}/events{query}", None, headers)

    def state(self, request_id):
        reply = self.get(f"/v1/requests/{request_id}")
        assert reply.status == 200, reply
        return reply.json

    def wait_state(self, request_id, *states, within_s=30.0):
        def there():
            try:
                view = self.state(request_id)
            except OSError:
                return None
            return view if view["state"] in states else None
        return wait_until(there, f"request {request_id} to be {' or '.join(states)}", within_s)


def dict_of(response):
    return {key.lower(): value for key, value in response.getheaders()}


def chat_body(prompt, model="scripted", **fields):
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **fields}


@dataclasses.dataclass
class Reply:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]

    @property
    def text(self):
        return self.json["choices"][0]["message"]["content"]

    @property
    def request_id(self):
        return self.headers["x-request-id"]


# ---- server-sent events -------------------------------------------------------------------------


@dataclasses.dataclass
class Frame:
    event: str = ""
    id: str = ""
    data: str = ""

    @property
    def json(self):
        return json.loads(self.data)

    @property
    def is_ending(self):
        return self.event.startswith("waystation.request.")

    @property
    def is_error(self):
        return not self.event and self.data.startswith('{"error"')

    @property
    def number(self):
        """The sequence number, from the data or, for the ending, from the id line."""
        number = self.json.get("sequence_number") if self.data.startswith("{") else None
        return int(self.id) if number is None and self.id else number


class Stream:
    """One SSE response, read by a thread of its own. `how_it_ended` is "done" ([DONE] came), "eof",
    "error" (an error frame, then the end), "broken" (the connection was cut), or None."""

    def __init__(self, server, method, path, body=None, headers=None):
        self.frames = []
        self.comments = 0
        self.raw = b""
        self.status = None
        self.headers = {}
        self.body = b""  # of a reply that is no stream
        self.how_it_ended = None
        self.changed = threading.Condition()
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port,
                                                     timeout=60 * SLOWNESS)
        payload = None if body is None else json.dumps(body).encode()
        self.connection.request(method, path, payload, server.headers(headers))
        self.socket = self.connection.sock
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        ended = "eof"
        try:
            response = self.connection.getresponse()
            with self.changed:
                self.status, self.headers = response.status, dict_of(response)
                self.changed.notify_all()
            if not self.headers.get("content-type", "").startswith("text/event-stream"):
                self.body = response.read()
            else:
                ended = self._read_frames(response)
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            ended = "broken"
        with self.changed:
            self.how_it_ended = ended
            self.changed.notify_all()

    def _read_frames(self, response):
        frame, data, ended = Frame(), [], "eof"
        while True:
            line = response.readline()
            if not line:
                return ended
            self.raw += line
            text = line.decode("utf-8").rstrip("\r\n")
            if text.startswith(":"):
                self.comments += 1
            elif text:
                field, _, value = text.partition(":")
                value = value.removeprefix(" ")
                if field == "data":
                    data.append(value)
                elif field in ("event", "id"):
                    setattr(frame, field, value)
            elif data:
                frame.data = "\n".join(data)
                if frame.data == "[DONE]":
                    ended = "done"
                else:
                    if frame.is_error:
                        ended = "error"
                    with self.changed:
                        self.frames.append(frame)
                        self.changed.notify_all()
                frame, data = Frame(), []

    def _wait(self, condition, what, within_s):
        with self.changed:
            if not self.changed.wait_for(condition, within_s * SLOWNESS):
                raise Failed(f"waited {within_s * SLOWNESS:.0f} s for {what}; status {self.status}, "
                             f"{len(self.frames)} frames, {self.how_it_ended}")
        return self

    def wait_status(self, within_s=20.0):
        self._wait(lambda: self.status or self.how_it_ended, "the status", within_s)
        return self.status

    def wait_frames(self, count, within_s=60.0):
        self._wait(lambda: len(self.frames) >= count or self.how_it_ended, f"{count} frames",
                   within_s)
        if len(self.frames) < count:
            raise Failed(f"the stream ended ({self.how_it_ended}, status {self.status}) after "
                         f"{len(self.frames)} frames: {self.body[:500]!r}")
        return self

    def wait_end(self, within_s=60.0):
        return self._wait(lambda: self.how_it_ended, "the stream's end", within_s)

    def close(self):
        """The client goes away."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.thread.join(5)
        self.connection.close()

    @property
    def request_id(self):
        self.wait_status()
        return self.headers["x-request-id"]

    @property
    def ending(self):
        """The last frame of an /events stream: ("completed", its data), or None."""
        last = self.frames[-1] if self.frames else Frame()
        return (last.event.rsplit(".", 1)[1], last.json) if last.is_ending else None

    @property
    def chunks(self):
        """The API's chunks, without the ending or the error that may stand at the end."""
        return [frame for frame in self.frames if not frame.is_ending and not frame.is_error]

    @property
    def text(self):
        return text_of(self.chunks)

    @property
    def numbers(self):
        return [frame.number for frame in self.chunks]

    @property
    def finish_reason(self):
        for frame in reversed(self.chunks):
            for choice in frame.json.get("choices") or ():
                if choice.get("finish_reason"):
                    return choice["finish_reason"]
        return None


def text_of(frames):
    parts = []
    for frame in frames:
        for choice in frame.json.get("choices") or ():
            parts.append((choice.get("delta") or {}).get("content") or "")
    return "".join(parts)


def scripted_text(tokens, start=0):
    return "".join(f"tok{i} " for i in range(start, tokens))


# ---- the journal, as `waystation journal inspect` shows it ---------------------------------------

KINDS = ("epoch_started", "accepted", "leased", "appended", "attempt_ended", "settled", "forgotten",
         "carried", "detached", "erased")


def parse_record(line):
    """One line of `journal inspect`: its index, type, request, conversation, and the record."""
    record = json.loads(line)
    body = record.get("record", record)
    (kind,) = [kind for kind in KINDS if kind in body]
    inner = body[kind]
    envelope = inner.get("envelope", {})
    return {"index": record.get("index"), "type": kind,
            "request": envelope.get("id") or inner.get("request"),
            "conversation": envelope.get("partitionkey", ""), "record": inner}


def inspect(data):
    """Every record of a data folder, in order."""
    code, out, err = run("journal", "inspect", data, within_s=120)
    assert code == 0, f"journal inspect: exit code {code}\n{err}"
    return [parse_record(line) for line in out.splitlines() if line.startswith("{")]
