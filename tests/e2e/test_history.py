"""The checker of the tests that break a real server, on faults planted for it."""

import json
import types

import pytest

from harness import Frame, Reply, scripted_text
from history import Archive, Broken, History, check_lanes, frames_of

ASKED = ("/v1/chat/completions", {"messages": []}, {})


def chunk(number, text, sequence=True):
    data = {"choices": [{"delta": {"content": text}}]}
    if sequence:
        data["sequence_number"] = number
    return Frame(id=str(number), data=json.dumps(data))


def stream(tokens, state="completed"):
    """The whole stream of a request, as it is served again."""
    frames = [chunk(n, f"tok{n} ") for n in range(tokens)]
    return frames + [Frame(f"waystation.request.{state}", str(tokens),
                           json.dumps({"state": state, "sequence_number": tokens}))]


def body_of(frames):
    return "".join(f"id: {frame.id}\nevent: {frame.event}\ndata: {frame.data}\n\n"
                   for frame in frames).encode()


def view(request_id, **fields):
    return {"id": request_id, "state": "completed", "result": None, "ended_at": 20,
            "attempts": [{"started_at": 10}], **fields}


class Fake:
    """A server that says what a test wants."""

    def __init__(self, answers):
        self.answers = answers

    def get(self, path):
        answer = self.answers.get(path)
        if answer is None:
            return Reply(404, {}, b"{}")
        if isinstance(answer, int):
            return Reply(answer, {}, b"{}")
        return Reply(200, {}, answer if isinstance(answer, bytes) else json.dumps(answer).encode())


def history_of_one(tokens=3, frames=2, forgets=False, key=None):
    history = History(forgets)
    history.acknowledged("a", tokens, ASKED, key)
    for number in range(frames):
        history.saw("a", number, chunk(number, f"tok{number} ", sequence=False))
    return history


def server_of_one(frames=None, state=None):
    return Fake({"/v1/requests/a": state or view("a"),
                 "/v1/requests/a/events": body_of(frames or stream(3))})


def test_what_a_server_can_stand_by_passes():
    history = history_of_one()
    history.lanes["lane"] = ["a"]
    history.check(server_of_one())
    assert [frame.number for frame in frames_of(body_of(stream(3)))] == [0, 1, 2, 3]


@pytest.mark.parametrize("invariant, server", [
    ("I1", Fake({})),
    ("I1", Fake({"/v1/requests/a": 410})),
    ("I1", server_of_one(state=view("a", state="running"))),
    ("I1", server_of_one(state=view("a", state="dead"))),
    ("I2", Fake({"/v1/requests/a": view("a")})),
    ("I1", server_of_one(stream(3)[:-1])),
    ("I1", server_of_one(stream(3, "failed"))),
    ("I3", server_of_one(stream(3)[:1] + stream(3)[2:])),
    ("I3", server_of_one(stream(2))),
    ("I3", server_of_one([chunk(0, "tok0 tok1 "), *stream(3)[1:]])),
])
def test_a_server_that_lost_something_is_found(invariant, server):
    with pytest.raises(Broken, match=invariant):
        history_of_one().check(server)


def test_bytes_that_differ_are_found():
    history = history_of_one()
    with pytest.raises(Broken, match="I2"):
        history.saw("a", 0, chunk(0, "tok0"))
    history.requests["a"].frames[0] = {"choices": [{"delta": {"content": "tok0 "}}], "created": 1}
    with pytest.raises(Broken, match="I2"):
        history.check(server_of_one())
    beyond = history_of_one(frames=3)
    beyond.saw("a", 3, chunk(3, "tok3 "))
    with pytest.raises(Broken, match="I2"):
        beyond.check(server_of_one())


def test_another_reply_is_found():
    history = history_of_one()
    history.saw_reply("a", {"content": scripted_text(3)})
    with pytest.raises(Broken, match="I2"):
        history.saw_reply("a", {"content": ""})
    with pytest.raises(Broken, match="I2"):
        history.check(server_of_one())


def test_a_key_that_makes_two_requests_is_found():
    history = history_of_one(key="k")
    with pytest.raises(Broken, match="I6"):
        history.acknowledged("b", 3, ASKED, "k")


def test_what_a_small_journal_may_forget():
    gone = Fake({"/v1/requests/a": 410})
    history_of_one(forgets=True).check(gone)
    with pytest.raises(Broken, match="I1"):
        history_of_one(forgets=True, key="k").check(gone)
    with pytest.raises(Broken, match="I1"):
        history_of_one(forgets=True).check(Fake({}))


def test_a_lane_out_of_order_is_found():
    history = History()
    history.lanes["lane"] = ["a", "b"]
    server = Fake({"/v1/requests/a": view("a"), "/v1/requests/b": view("b")})
    with pytest.raises(Broken, match="I5"):
        history.check(server)
    server.answers["/v1/requests/b"] = view("b", attempts=[{"started_at": 20}])
    history.check(server)


def test_a_lost_file_is_found():
    history = History()
    history.files["f"] = b"content"
    history.check(Fake({"/v1/files/f/content": b"content"}))
    for content in (b"conten", 404):
        with pytest.raises(Broken, match="I1"):
            history.check(Fake({"/v1/files/f/content": content}))


def test_turns_out_of_order_are_found():
    said = [("user", "one"), ("assistant", "tok0 ")]
    items = {"data": [{"role": role, "content": [{"text": text}]} for role, text in said]}
    history = History()
    history.talks["t"] = said
    path = "/v1/conversations/t/items?order=asc&limit=100"
    history.check(Fake({path: items}))
    for data in (items["data"][::-1], items["data"][:1], items["data"] * 2):
        with pytest.raises(Broken, match="I5"):
            history.check(Fake({path: {"data": data}}))


# ---- the journal --------------------------------------------------------------------------------


def record(index, kind, request="a", **fields):
    return {"index": index, "type": kind, "request": request,
            "record": {"envelope": fields} if kind == "accepted" else fields}


def test_a_record_that_changes_or_goes_is_found():
    archive = Archive()
    archive.add([record(1, "accepted"), record(2, "leased")])
    archive.add([record(2, "leased"), record(3, "settled")])
    for bad in ([record(2, "leased"), record(3, "appended")],   # another one
                [record(2, "leased")],                          # the last one went
                [record(5, "settled")]):                        # one is missing
        with pytest.raises(Broken):
            archive.add(bad)


def test_what_was_seen_and_is_not_on_the_disk_is_found():
    history = history_of_one(frames=3)
    archive = Archive()
    with pytest.raises(Broken, match="I1"):
        archive.check_seen(history)
    archive.add([record(1, "accepted"), record(2, "leased"), record(3, "appended", events=[1, 2])])
    with pytest.raises(Broken, match="I2"):
        archive.check_seen(history)
    archive.add([record(4, "appended", first_sequence="2", events=[3])])
    archive.check_seen(history)
    history.saw_reply("a", {})
    with pytest.raises(Broken, match="I2"):
        archive.check_seen(history)
    archive.add([record(5, "settled")])
    archive.check_seen(history)


def test_what_the_journal_lacks_is_found():
    whole = [record(1, "accepted", idempotencykey="k"), record(2, "leased"), record(3, "settled")]
    again = [record(4, "accepted", "b", idempotencykey="k"), record(5, "leased", "b"),
             record(6, "settled", "b")]
    archive = Archive()
    archive.add(whole)
    archive.check(types.SimpleNamespace(requests={"a": None}))
    with pytest.raises(Broken, match="I1"):
        archive.check(types.SimpleNamespace(requests={"a": None, "b": None}))
    archive.add(again)
    with pytest.raises(Broken, match="I6"):
        archive.check(types.SimpleNamespace(requests={}))


def test_lane_check_finds_faults():
    """The checker itself: it must be able to fail."""
    good = [{"type": "epoch_started"},
            {"type": "accepted", "request": "a", "conversation": "c"},
            {"type": "accepted", "request": "b", "conversation": "c"},
            {"type": "leased", "request": "a"}, {"type": "appended", "request": "a"},
            {"type": "settled", "request": "a"},
            {"type": "leased", "request": "b"}, {"type": "settled", "request": "b"}]
    assert check_lanes(good) == ["a", "b"]
    overlapping = good[:4] + [good[6]] + good[4:6] + [good[7]]
    swapped = good[:3] + good[6:] + good[3:6]
    for bad in (overlapping, swapped, good[:-1], good + [good[-1]], good[:3] + good[4:]):
        with pytest.raises((AssertionError, IndexError)):
            check_lanes(bad)
