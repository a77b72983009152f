"""What clients saw of one server across its deaths, and whether the server can stand by it.

The checker of the tests that break a real server: `History` collects what every client was told,
`Archive` what stood on the disk after each death. Both compare at once what they can, and the rest
at the end. The names of the invariants are those of docs/ARCHITECTURE.md.
"""

import collections
import json
import threading

import harness
from harness import scripted_text

ENDED = ("completed", "failed", "cancelled", "expired", "dead")


class Broken(AssertionError):
    """An invariant doesn't hold."""


def hold(condition, invariant, what):
    if not condition:
        raise Broken(f"{invariant}: {what}")


class Seen:
    """What clients know of one request. `frames`: number → chunk, without its number."""

    def __init__(self, request_id):
        self.id = request_id
        self.key = None
        self.lane = None
        self.tokens = None     # how many its answer has
        self.asked = None      # (path, body, headers) that made it
        self.frames = {}
        self.reply = None      # the whole answer of one that isn't streamed


def chunk_of(frame):
    chunk = dict(frame.json)
    chunk.pop("sequence_number", None)
    return chunk


def frames_of(body):
    """The frames of a whole event stream."""
    frames = []
    for block in body.decode().split("\n\n"):
        frame, data = harness.Frame(), []
        for line in block.splitlines():
            field, _, value = line.partition(":")
            if field == "data":
                data.append(value.removeprefix(" "))
            elif field in ("event", "id"):
                setattr(frame, field, value.removeprefix(" "))
        frame.data = "\n".join(data)
        if data:
            frames.append(frame)
    return frames


class History:
    """Any thread tells it what it saw. `forgets`: the server's journal is so small that it drops
    ended requests that no key binds."""

    def __init__(self, forgets=False):
        self.forgets = forgets
        self.lock = threading.Lock()
        self.requests = {}  # id → Seen, in the order of their acknowledgement
        self.of_key = {}    # key → id
        self.lanes = collections.defaultdict(list)  # lane → ids, in the order they were asked
        self.files = {}     # id → content
        self.talks = {}     # conversation → [(role, text)]

    def acknowledged(self, request_id, tokens, asked, key=None, lane=None):
        """A client was told that its request is accepted."""
        with self.lock:
            if key is not None:
                known = self.of_key.setdefault(key, request_id)
                hold(known == request_id, "I6", f"{key} made {known} and {request_id}")
            if request_id not in self.requests:
                seen = self.requests[request_id] = Seen(request_id)
                seen.key, seen.lane, seen.tokens, seen.asked = key, lane, tokens, asked
                if lane is not None:
                    self.lanes[lane].append(request_id)
            return self.requests[request_id]

    def saw(self, request_id, number, frame):
        """A client was given the chunk of this number."""
        with self.lock:
            chunk = chunk_of(frame)
            known = self.requests[request_id].frames.setdefault(number, chunk)
            hold(known == chunk, "I2", f"{request_id} event {number} was {known}, then {chunk}")

    def saw_reply(self, request_id, reply):
        with self.lock:
            seen = self.requests[request_id]
            hold(seen.reply in (None, reply), "I2", f"{request_id} was {seen.reply}, then {reply}")
            seen.reply = reply

    # -- at the end, when nobody asks any more

    def check(self, server):
        for seen in list(self.requests.values()):
            self._check_request(server, seen)
        for lane, ids in self.lanes.items():
            self._check_lane(server, lane, ids)
        for file_id, content in self.files.items():
            reply = server.get(f"/v1/files/{file_id}/content")
            hold(reply.body == content, "I1", f"file {file_id} is another or gone: {reply}")
        for talk, said in self.talks.items():
            self._check_talk(server, talk, said)

    def _check_request(self, server, seen):
        view = server.get(f"/v1/requests/{seen.id}")
        if view.status == 410 and self.forgets and seen.key is None:
            return
        hold(view.status == 200, "I1", f"{seen.id} was acknowledged and is lost: {view}")
        hold(view.json["state"] == "completed", "I1", f"{seen.id} is {view.body}")
        replay = server.get(f"/v1/requests/{seen.id}/events")
        hold(replay.status == 200, "I2", f"the events of {seen.id}: {replay}")
        self.check_replay(seen, frames_of(replay.body))
        if seen.reply is not None:
            hold(view.json["result"] == seen.reply, "I2",
                 f"{seen.id} was answered {seen.reply} and is {view.json['result']}")

    def check_replay(self, seen, frames):
        hold(frames and frames[-1].event == "waystation.request.completed", "I1",
             f"the stream of {seen.id} ends with {frames[-1:]}")
        chunks = frames[:-1]
        numbers = [frame.number for frame in frames]
        hold(numbers == list(range(len(frames))), "I3", f"{seen.id} has the numbers {numbers}")
        text = harness.text_of(chunks)
        hold(text == scripted_text(seen.tokens), "I3", f"{seen.id} says {text!r}")
        for number, chunk in seen.frames.items():
            served = chunk_of(chunks[number]) if number < len(chunks) else None
            hold(served == chunk, "I2", f"{seen.id} event {number} was {chunk}, is {served}")

    def _check_lane(self, server, lane, ids):
        before = None
        for request_id in ids:
            reply = server.get(f"/v1/requests/{request_id}")
            if reply.status == 410 and self.forgets:
                continue
            view = reply.json
            began = min(attempt["started_at"] for attempt in view["attempts"])
            hold(before is None or began >= before, "I5",
                 f"{lane}: {request_id} began at {began}, the one before it ended at {before}")
            before = view["ended_at"]

    def _check_talk(self, server, talk, said):
        reply = server.get(f"/v1/conversations/{talk}/items?order=asc&limit=100")
        hold(reply.status == 200, "I1", f"the conversation {talk}: {reply}")
        there = [(item["role"], "".join(part["text"] for part in item["content"]))
                 for item in reply.json["data"]]
        hold(there == said, "I5", f"{talk} is {there}, should be {said}")

    def check_keys(self, server, rng, sample=25):
        """Asked again by its key a request is the same; another body by it is refused."""
        keyed = [seen for seen in self.requests.values() if seen.key is not None and seen.reply]
        for seen in rng.sample(keyed, min(sample, len(keyed))):
            path, body, headers = seen.asked
            again = server.post(path, body, headers)
            hold(again.status == 200 and again.request_id == seen.id and again.json == seen.reply,
                 "I6", f"{seen.key} made {seen.id}, asked again: {again}")
            other = server.post(path, {**body, "user": "another"}, headers)
            hold(other.status == 422, "I6", f"{seen.key} with another body: {other}")


# ---- the journal --------------------------------------------------------------------------------


class Archive:
    """Every record that stood in the journal after a death. What is there at the next one is the
    same and more. Where old segments are removed, it has to look oftener than they are."""

    def __init__(self):
        self.records = []  # of index 1, 2 …
        self.events = {}   # request → how many of its events are here
        self.settled = set()

    def take(self, data, history):
        """After a death: nobody has seen what isn't here. The next start might make the same again,
        so it must be asked before that."""
        self.add(harness.inspect(data))
        self.check_seen(history)

    def check_seen(self, history):
        with history.lock:
            for seen in history.requests.values():
                events = self.events.get(seen.id)
                hold(events is not None, "I1", f"{seen.id} was acknowledged and isn't on the disk")
                last = max(seen.frames, default=-1)
                hold(last < events, "I2", f"{seen.id}: {last} was seen, {events} are on the disk")
                hold(seen.reply is None or seen.id in self.settled, "I2",
                     f"{seen.id} was answered, and that isn't on the disk")

    def look(self, data):
        """The same beside a running server, which may remove a segment just then."""
        try:
            records = harness.inspect(data)
        except AssertionError:
            return
        self.add(records)

    def add(self, records):
        for record in records:
            at = record["index"] - 1
            if at < len(self.records):
                hold(self.records[at] == record, "I2",
                     f"record {at + 1} was {self.records[at]}, is {record}")
            else:
                hold(at == len(self.records), "I9",
                     f"after record {len(self.records)} comes record {at + 1}")
                self.records.append(record)
                self._count(record)
        if records:
            hold(records[-1]["index"] == len(self.records), "I2",
                 f"records after {records[-1]['index']} are gone, there were {len(self.records)}")

    def _count(self, record):
        kind, request = record["type"], record.get("request")
        if kind == "accepted":
            self.events[request] = 0
        elif kind == "appended":
            self.events[request] = (int(record["record"].get("first_sequence", 0)) +
                                    len(record["record"].get("events", ())))
        elif kind == "settled":
            self.settled.add(request)

    def check(self, history):
        accepted = check_lanes(self.records)
        lost = history.requests.keys() - set(accepted)
        hold(not lost, "I1", f"acknowledged and not in the journal: {lost}")
        by_key = collections.Counter(
            record["record"]["envelope"].get("idempotencykey") for record in self.records
            if record["type"] == "accepted")
        by_key.pop(None, None)
        by_key.pop("", None)
        doubled = {key: count for key, count in by_key.items() if count > 1}
        hold(not doubled, "I6", f"keys that made more than one request: {doubled}")
        return accepted


def check_lanes(records):
    """One terminal record for each accepted request; each conversation in order, one at a time."""
    accepted, settled, lane_of = [], collections.Counter(), {}
    waiting = collections.defaultdict(list)  # lane → accepted and not ended, in order
    running = {}                             # lane → request
    for record in records:
        kind, request = record["type"], record.get("request")
        if kind == "epoch_started":
            running.clear()
        elif kind == "accepted":
            assert request not in lane_of, f"{request} was accepted twice"
            accepted.append(request)
            lane_of[request] = record.get("conversation") or request
            waiting[lane_of[request]].append(request)
        elif kind == "leased":
            lane = lane_of[request]
            assert lane not in running, f"{lane}: {request} while {running[lane]} runs"
            assert waiting[lane][0] == request, f"{lane}: {request} before {waiting[lane][0]}"
            running[lane] = request
        elif kind == "attempt_ended":
            running.pop(lane_of[request], None)
        elif kind == "settled":
            lane = lane_of[request]
            settled[request] += 1
            assert waiting[lane][0] == request, f"{lane}: {request} ended out of order"
            waiting[lane].pop(0)
            running.pop(lane, None)
        elif kind == "appended":
            assert running.get(lane_of[request]) == request, f"{request}: tokens without a lease"
    assert all(settled[request] == 1 for request in accepted), "not exactly one terminal record"
    assert sum(settled.values()) == len(accepted)
    return accepted
