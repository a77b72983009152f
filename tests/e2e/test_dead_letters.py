"""Requests that used up their attempts: conversations that wait for somebody to deal with them,
through kills of the server; requeue, discard, list."""

import re

from harness import scripted_text, wait_until

POISON = "tokens=10,interval-ms=5,crash-on=poison"
CURED = "tokens=10,interval-ms=5"


def lane(name, **headers):
    return {"X-Conversation-Id": name, "X-Resumable": "true", **headers}


def gauges(server):
    text = server.get("/metrics").body.decode()
    return tuple(int(re.search(rf"^{name} (\d+)", text, re.M)[1])
                 for name in ("waystation_dead_letters", "waystation_lanes_blocked"))


def queued(server):
    text = server.get("/metrics").body.decode()
    return int(re.search(r'^waystation_requests\{state="queued"\} (\d+)', text, re.M)[1])


def dead(server, request_id):
    return server.wait_state(request_id, "dead", within_s=90)


def follow(server, number):
    return server.stream(f"after {number}",
                         headers=lane("talk", **{"Idempotency-Key": f"key-{number}"}))


def start_ill(servers, *arguments):
    return servers.start(*arguments, scripted=POISON, workers=1)


def cure(server, *arguments):
    """kill -9, and a start with a worker that nothing kills."""
    server.kill()
    server.arguments = [*arguments, "--scripted", CURED, "--workers", "1"]
    server.start()


def test_a_blocked_conversation_waits_through_a_kill_and_goes_on_with_the_requeued_one(servers):
    server = start_ill(servers, "--on-dead", "block")
    poison = server.stream("this is poison", headers=lane("talk"))
    poison.wait_end(90)
    followers = []
    for number in range(2):
        followers.append(follow(server, number))
        wait_until(lambda: queued(server) == len(followers), "the follower to be accepted")
    other = server.stream("elsewhere", headers=lane("other")).wait_end(90)
    assert other.text == scripted_text(10)
    view = dead(server, poison.request_id)
    assert view["blocks_conversation"] and view["requeued_as"] is None
    wait_until(lambda: gauges(server) == (1, 1), "the gauges")
    # The policy is the requests' own: a server that is told otherwise changes nothing.
    cure(server, "--on-dead", "skip")
    assert server.chat("elsewhere again", headers=lane("other")).text == scripted_text(10)
    again = [follow(server, number) for number in range(2)]
    assert server.state(poison.request_id)["blocks_conversation"]
    wait_until(lambda: gauges(server) == (1, 1), "the gauges")
    made = server.post(f"/v1/requests/{poison.request_id}/requeue")
    assert made.status == 200, made
    new_id = made.json["id"]
    assert made.json["requeue_of"] == poison.request_id != new_id
    for follower in again:
        follower.wait_end(30)
        assert follower.text == scripted_text(10)
    views = [server.state(request_id) for request_id in
             [new_id, *(follower.request_id for follower in again)]]
    assert [view["state"] for view in views] == ["completed"] * 3
    for earlier, later in zip(views, views[1:]):
        assert earlier["ended_at"] <= later["attempts"][0]["started_at"]
    assert views[0]["conversation"] == "talk"
    assert views[0]["result"]["choices"][0]["message"]["content"] == scripted_text(10)
    server.restart()
    same = server.post(f"/v1/requests/{poison.request_id}/requeue")
    assert same.json == made.json
    view = server.state(poison.request_id)
    assert view["requeued_as"] == new_id and not view["blocks_conversation"]
    wait_until(lambda: gauges(server) == (0, 0), "the gauges")


def test_the_header_says_it_for_one_request_and_discarding_lets_the_conversation_go_on(servers):
    server = start_ill(servers)
    skipped = server.chat("poison", headers=lane("goes on"), timeout_s=90)
    assert skipped.status == 500 and skipped.error["code"] == "dead"
    assert server.chat("after", headers=lane("goes on"), timeout_s=90).text == scripted_text(10)
    blocked = server.chat("poison", headers=lane("waits", **{"X-On-Dead": "block"}), timeout_s=90)
    assert blocked.error["code"] == "dead"
    late = server.chat("late", headers=lane("waits", **{"X-Deadline-Ms": "300"}), timeout_s=90)
    assert late.status == 504, late
    after = server.stream("after", headers=lane("waits"))
    letters = server.get("/v1/requests?state=dead&limit=1").json
    assert [letter["id"] for letter in letters["data"]] == [blocked.request_id]
    assert letters["has_more"]
    older = server.get(f"/v1/requests?state=dead&after={blocked.request_id}").json
    assert [letter["id"] for letter in older["data"]] == [skipped.request_id]
    assert len(older["data"][0]["attempts"]) == 3 and "3" in older["data"][0]["error"]["message"]
    for _ in range(2):
        done = server.post(f"/v1/requests/{blocked.request_id}/discard")
        assert done.status == 200 and done.json["discarded"]
    assert after.wait_end(90).text == scripted_text(10)
    refused = server.post(f"/v1/requests/{blocked.request_id}/requeue")
    assert refused.status == 409 and refused.error["code"] == "conflict"
    refused = server.post(f"/v1/requests/{after.request_id}/requeue")
    assert refused.status == 409 and "is completed" in refused.error["message"]
    # What blocked nothing can be requeued as well; the poison works again.
    made = server.post(f"/v1/requests/{skipped.request_id}/requeue").json["id"]
    assert dead(server, made)["requeue_of"] == skipped.request_id


def test_a_turn_that_the_server_keeps_is_discarded_not_requeued(servers):
    server = start_ill(servers, "--on-dead", "block")
    memory = {"X-Conversation-Id": "kept", "X-Conversation-Memory": "true"}
    turn = server.chat("poison", headers=memory, timeout_s=90)
    assert turn.error["code"] == "dead"
    refused = server.post(f"/v1/requests/{turn.request_id}/requeue")
    assert refused.status == 409 and "turn" in refused.error["message"]
    cure(server)
    assert server.post(f"/v1/requests/{turn.request_id}/discard").status == 200
    assert server.chat("hello", headers=memory).text == scripted_text(10)
