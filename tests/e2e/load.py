"""Clients of every kind at once, who don't give up: what they are told goes into a `History`.

    with Load(server, history, rng) as load:
        … break the server and start it again …
    history.check(server)

Leaving the block lets every client finish what it has begun; a client that saw a broken invariant
fails it.
"""

import json
import threading
import time

import harness
from harness import Failed, Stream, chat_body, scripted_text
from history import Broken
from test_files import upload

PATH = "/v1/chat/completions"
PATIENCE_S = 60  # for one answer, across deaths


class Client(threading.Thread):
    """One thing after the other until it is told to stop."""

    def __init__(self, load, name, rng):
        super().__init__(daemon=True, name=name)
        self.load, self.server, self.history = load, load.server, load.history
        self.rng = rng
        self.done = 0
        self.failure = None

    def run(self):
        try:
            while not self.load.stopping.is_set():
                self.one(self.done)
                self.done += 1
        except Exception as error:  # noqa: BLE001: told by the thread that waits for this one
            self.failure = error
            self.load.failed.set()

    def insist(self, ask, good=(200,)):
        """Asks until the answer is good. The server may be down, busy or broken meanwhile."""
        deadline = time.monotonic() + PATIENCE_S * harness.SLOWNESS
        while True:
            try:
                reply = ask()
            except OSError:
                reply = None
            if reply is not None and reply.status in good:
                return reply
            if reply is not None and reply.status not in (429, 503):
                raise Broken(f"I1: {self.name} was answered {reply}")
            if time.monotonic() > deadline:
                raise Failed(f"{self.name} has no answer, the last one was {reply}")
            time.sleep(harness.POLL_S)

    def pause(self):
        """Until the server may be there again; ends the client when it never is."""
        time.sleep(harness.POLL_S)


class Asker(Client):
    """Whole answers by key, in a conversation of its own."""

    def one(self, number):
        tokens = self.rng.randint(1, 20)
        key, lane = f"{self.name}-{number}", f"lane-{self.name}"
        body = chat_body(key, max_tokens=tokens)
        headers = {"Idempotency-Key": key, "X-Conversation-Id": lane}
        reply = self.insist(lambda: self.server.post(PATH, body, headers))
        self.history.acknowledged(reply.request_id, tokens, (PATH, body, headers), key, lane)
        self.history.saw_reply(reply.request_id, reply.json)


class Streamer(Client):
    """Streams that it takes up again where they broke: by key, or as X-Resumable, or plain ones,
    which have no numbers and are read again from their start."""

    def __init__(self, load, name, rng, how):
        super().__init__(load, name, rng)
        self.keyed, self.numbered = how == "keyed", how != "plain"

    def one(self, number):
        tokens = self.rng.randint(1, 40)
        key = f"{self.name}-{number}" if self.keyed else None
        body = chat_body(f"{self.name}-{number}", max_tokens=tokens, stream=True)
        headers = {"Idempotency-Key": key} if key else {}
        if self.numbered and not key:
            headers = {"X-Resumable": "true"}
        deadline = time.monotonic() + PATIENCE_S * harness.SLOWNESS
        request_id, next_number, ended = None, 0, False
        while not ended:
            if time.monotonic() > deadline:
                raise Failed(f"{self.name} {number}: {request_id} never ended")
            try:
                if request_id is None:
                    stream = Stream(self.server, "POST", PATH, body, headers)
                else:
                    after = next_number - 1 if self.numbered and next_number else None
                    stream = self.server.events(request_id, starting_after=after)
                stream.wait_end(PATIENCE_S)
            except OSError:
                self.pause()
                continue
            if stream.status == 410 and self.history.forgets and not self.keyed:
                return  # it had ended, and was forgotten before this client came back
            if stream.status != 200:
                if stream.status not in (None, 429, 503):
                    raise Broken(f"I1: {self.name} {request_id}: {stream.status} {stream.body}")
                self.pause()
                continue
            if request_id is None:
                request_id = stream.request_id
                self.history.acknowledged(request_id, tokens, (PATH, body, headers), key)
            next_number, ended = self.take(request_id, stream, next_number)

    def take(self, request_id, stream, next_number):
        """Tells the history; returns the number of the next chunk and whether that was all."""
        for position, frame in enumerate(stream.chunks):
            number = frame.number if frame.number is not None else position
            if self.numbered and number > next_number:
                raise Broken(f"I3: {request_id}: {number} came where {next_number} was due")
            self.history.saw(request_id, number, frame)
            next_number = max(next_number, number + 1)
        if stream.ending is not None and stream.ending[0] != "completed":
            raise Broken(f"I1: {request_id} ended as {stream.ending}")
        return next_number, stream.ending is not None or stream.how_it_ended == "done"


class Talker(Client):
    """A conversation whose turns the server keeps; after so many another one."""

    TURNS = 40

    def one(self, number):
        talk = f"talk-{self.name}-{number // self.TURNS}"
        key = f"{self.name}-{number}"
        tokens = self.rng.randint(1, 5)
        body = chat_body(f"turn {number}", max_tokens=tokens)
        headers = {"Idempotency-Key": key, "X-Conversation-Id": talk,
                   "X-Conversation-Memory": "true"}
        reply = self.insist(lambda: self.server.post(PATH, body, headers))
        self.history.acknowledged(reply.request_id, tokens, (PATH, body, headers), key)
        self.history.saw_reply(reply.request_id, reply.json)
        self.history.talks.setdefault(talk, []).extend(
            [("user", f"turn {number}"), ("assistant", scripted_text(tokens))])


class Uploader(Client):
    """Files whose content must be there again, until they are deleted: a server takes so many."""

    KEPT = 200

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.kept = []

    def one(self, number):
        content = f"{self.name} {number} ".encode() * self.rng.randint(1, 2000)
        reply = self.insist(lambda: upload(self.server, content))
        self.history.files[reply.json["id"]] = content
        self.kept.append(reply.json["id"])
        if len(self.kept) > self.KEPT:
            self.delete(self.kept.pop(0))

    def delete(self, file):
        self.history.files.pop(file, None)
        # 404: it was deleted by an earlier try, whose answer the server's death took along.
        self.insist(lambda: self.server.request("DELETE", f"/v1/files/{file}"), good=(200, 404))


class Batcher(Client):
    """Batches, each to its end."""

    LINES = 12

    def one(self, number):
        names = [f"{self.name}-{number}-{i}" for i in range(self.LINES)]
        content = "".join(
            json.dumps({"custom_id": name, "method": "POST", "url": PATH,
                        "body": chat_body(name, max_tokens=3)}) + "\n" for name in names).encode()
        file = self.insist(lambda: upload(self.server, content, purpose="batch")).json["id"]
        made = self.insist(lambda: self.server.post(
            "/v1/batches", {"input_file_id": file, "endpoint": PATH, "completion_window": "24h"},
            {"Idempotency-Key": f"{self.name}-{number}"})).json["id"]
        deadline = time.monotonic() + PATIENCE_S * harness.SLOWNESS
        while (batch := self.insist(lambda: self.server.get(f"/v1/batches/{made}")).json)["status"] \
                not in ("completed", "failed", "expired", "cancelled"):
            if time.monotonic() > deadline:
                raise Failed(f"the batch {batch} doesn't end")
            time.sleep(harness.POLL_S)
        if batch["request_counts"] != {"total": self.LINES, "completed": self.LINES, "failed": 0}:
            raise Broken(f"I1: {batch}")
        output = self.insist(lambda: self.server.get(
            f"/v1/files/{batch['output_file_id']}/content")).body
        self.history.files[batch["output_file_id"]] = output
        rows = [json.loads(row) for row in output.decode().splitlines()]
        if [row["custom_id"] for row in rows] != names:
            raise Broken(f"I6: the batch {made} has the lines {rows}")
        said = {row["response"]["body"]["choices"][0]["message"]["content"] for row in rows}
        if said != {scripted_text(3)}:
            raise Broken(f"I3: the batch {made} says {said}")


class WorkerKiller(Client):
    """kill -9 to a worker of the server now and then. Not before something was done after the last
    one: a request that loses three workers without a token is dead, as it should be."""

    finished = 0

    def one(self, number):
        self.load.stopping.wait(self.rng.uniform(*self.load.kill_every_s))
        finished = sum(client.done for client in self.load.clients if client is not self)
        if finished < self.finished + len(self.load.clients):
            return
        self.finished = finished
        workers = [] if self.server.process.popen.poll() is not None else self.server.workers()
        if workers:
            self.server.kill_worker(self.rng.choice(workers))


MIX = ("asker", "asker", "streamer", "resumer", "plain", "talker", "uploader", "batcher")


class Load:
    """Runs while its block does."""

    def __init__(self, server, history, rng, kill_workers=True, kinds=MIX, kill_every_s=(0.5, 2)):
        self.kill_every_s = kill_every_s
        self.server, self.history = server, history
        self.stopping = threading.Event()
        self.failed = threading.Event()
        made = {
            "asker": lambda name, r: Asker(self, name, r),
            "streamer": lambda name, r: Streamer(self, name, r, "keyed"),
            "resumer": lambda name, r: Streamer(self, name, r, "resumable"),
            "plain": lambda name, r: Streamer(self, name, r, "plain"),
            "talker": lambda name, r: Talker(self, name, r),
            "uploader": lambda name, r: Uploader(self, name, r),
            "batcher": lambda name, r: Batcher(self, name, r),
            "killer": lambda name, r: WorkerKiller(self, name, r),
        }
        if kill_workers:
            kinds = [*kinds, "killer"]
        # Each has dice of its own: what it asks for doesn't hang on when the others do.
        self.clients = [made[kind](f"{kind}{at}", type(rng)(rng.getrandbits(64)))
                        for at, kind in enumerate(kinds)]

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, kind, error, trace):
        self.stopping.set()
        if kind is None:
            self.join()

    def join(self):
        for client in self.clients:
            client.join(2 * PATIENCE_S * harness.SLOWNESS)
            if client.is_alive():
                raise Failed(f"{client.name} doesn't end")
        self.raise_failure()

    def raise_failure(self):
        for client in self.clients:
            if client.failure is not None:
                raise client.failure
