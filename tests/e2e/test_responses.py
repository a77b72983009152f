"""Responses, conversations and chat memory: what a client of the Responses API sees, also when the
server is killed."""

import concurrent.futures
import time

import pytest

from harness import MODEL, MODEL_FILE, Stream, chat_body, run, scripted_text, wait_until

ENDED = ("completed", "incomplete", "failed", "cancelled")
needs_model = pytest.mark.skipif(not MODEL_FILE.exists(), reason="run 'make models' first")


@pytest.fixture
def server(servers):
    return servers.start(scripted="tokens=40,interval-ms=10", workers=1)


def ask(text="hello", model="scripted", **fields):
    return {"model": model, "input": text, **fields}


def respond(server, text="hello", headers=None, **fields):
    reply = server.post("/v1/responses", ask(text, **fields), headers)
    assert reply.status == 200, reply
    return reply.json


def stream(server, text="hello", headers=None, **fields):
    return Stream(server, "POST", "/v1/responses", ask(text, stream=True, **fields), headers)


def replay(server, response_id, after=None):
    query = "" if after is None else f"&starting_after={after}"
    return Stream(server, "GET", f"/v1/responses/{response_id}?stream=true{query}").wait_end()


def get(server, response_id):
    reply = server.get(f"/v1/responses/{response_id}")
    assert reply.status == 200, reply
    return reply.json


def wait_ended(server, response_id, within_s=60):
    def ended():
        try:
            response = get(server, response_id)
        except OSError:
            return None
        return response if response["status"] in ENDED else None
    return wait_until(ended, f"{response_id} to end", within_s)


def text_of(response):
    return "".join(part["text"] for item in response["output"] if item["type"] == "message"
                   for part in item["content"])


def items(server, conversation):
    reply = server.get(f"/v1/conversations/{conversation}/items?order=asc&limit=100")
    assert reply.status == 200, reply
    return reply.json["data"]


def said(listed):
    return [(item["role"], item["content"][0]["text"]) for item in listed]


# ---- one response --------------------------------------------------------------------------------


def test_a_response_is_stored_and_read_back(server):
    made = respond(server, metadata={"a": "b"})
    assert made["status"] == "completed" and text_of(made) == scripted_text(40)
    assert made["metadata"] == {"a": "b"}
    assert get(server, made["id"]) == made
    server.restart()
    assert get(server, made["id"]) == made
    assert server.get(f"/v1/requests/{made['id'].removeprefix('resp_')}").json["result"] == made


def test_a_stream_is_the_same_when_read_again(server):
    live = stream(server).wait_end()
    types = [frame.event for frame in live.frames]
    assert types[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"]
    assert types[-4:] == ["response.output_text.done", "response.content_part.done",
                          "response.output_item.done", "response.completed"]
    assert [frame.json["sequence_number"] for frame in live.frames] == list(range(len(types)))
    assert [frame.json["type"] for frame in live.frames] == types
    assert b"[DONE]" not in live.raw and live.how_it_ended == "eof"
    whole = live.frames[-1].json["response"]
    assert "".join(frame.json["delta"] for frame in live.frames
                   if frame.event == "response.output_text.delta") == text_of(whole)
    assert get(server, whole["id"]) == whole
    assert replay(server, whole["id"]).raw == live.raw
    server.restart()
    assert replay(server, whole["id"]).raw == live.raw
    half = replay(server, whole["id"], after=9)
    assert half.frames[0].json["sequence_number"] == 10
    assert live.raw.endswith(half.raw)


def test_what_is_not_stored_is_not_found(server):
    made = respond(server, store=False)
    assert made["status"] == "completed"
    assert server.get(f"/v1/responses/{made['id']}").status == 404
    wrong = server.post("/v1/responses", ask(previous_response_id=made["id"]))
    assert wrong.status == 400 and wrong.error["param"] == "previous_response_id"


def test_a_limit_makes_it_incomplete(server):
    made = respond(server, max_output_tokens=3)
    assert made["status"] == "incomplete"
    assert made["incomplete_details"] == {"reason": "max_output_tokens"}
    assert text_of(made) == scripted_text(3)
    assert made["usage"]["output_tokens"] == 3


def test_deleting_a_running_one_ends_it(server):
    live = stream(server, max_output_tokens=40).wait_frames(10)
    response_id = live.frames[0].json["response"]["id"]
    gone = server.request("DELETE", f"/v1/responses/{response_id}")
    assert gone.status == 200 and gone.json == {"id": response_id, "object": "response",
                                                "deleted": True}
    live.wait_end()
    assert live.frames[-1].event in ("response.failed", "response.completed")
    assert server.get(f"/v1/responses/{response_id}").status == 404


def test_what_is_deleted_is_gone_also_after_a_restart(server):
    key = {"Idempotency-Key": "once"}
    made = respond(server, "a secret", key, max_output_tokens=3)
    request_id = server.get(f"/v1/responses/{made['id']}").headers["x-request-id"]
    request = f"/v1/requests/{request_id}"
    assert server.get(request).json["result"]["id"] == made["id"]
    assert server.request("DELETE", f"/v1/responses/{made['id']}").status == 200
    for _ in range(2):
        assert server.get(f"/v1/responses/{made['id']}").status == 404
        for path in (request, f"{request}/events"):
            gone = server.get(path)
            assert gone.status == 410 and b"word" not in gone.body, gone
        again = server.post("/v1/responses", ask("a secret", max_output_tokens=3), key)
        assert again.status == 410 and again.error["param"] == "Idempotency-Key", again
        server.restart()


def test_what_is_not_stored_can_be_deleted(server):
    made = server.post("/v1/responses", ask("a secret", store=False, max_output_tokens=3))
    request = f"/v1/requests/{made.headers['x-request-id']}"
    assert server.get(request).json["state"] == "completed"
    assert server.request("DELETE", request).json["deleted"] is True
    assert server.get(request).status == 410
    assert server.request("DELETE", request).status == 410


def test_a_running_request_is_cancelled_and_deleted(server):
    live = server.stream(max_tokens=40).wait_frames(3)
    request = f"/v1/requests/{live.request_id}"
    assert server.request("DELETE", request).status == 200
    live.wait_end()
    assert live.frames[-1].json["error"]["code"] == "cancelled"
    assert server.get(request).status == 410
    assert server.chat(max_tokens=1, timeout_s=5).status == 200


def test_a_client_that_leaves_takes_its_response_along(server):
    live = stream(server).wait_frames(10)
    response_id = live.frames[0].json["response"]["id"]
    live.close()
    assert wait_ended(server, response_id)["status"] == "cancelled"


def test_same_key_same_response(server):
    key = {"Idempotency-Key": "k"}
    first = respond(server, headers=key)
    assert respond(server, headers=key) == first
    server.restart()
    assert respond(server, headers=key) == first
    assert get(server, first["id"]) == first
    assert server.post("/v1/responses", ask("other"), key).status == 422


def test_chains(server):
    first = respond(server, "one")
    second = respond(server, "two", previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    server.restart()
    third = respond(server, "three", previous_response_id=second["id"])
    listed = server.get(f"/v1/responses/{third['id']}/input_items").json["data"]
    assert said(listed) == [("user", "three")]
    running = respond(server, "four", background=True)
    wrong = server.post("/v1/responses", ask(previous_response_id=running["id"]))
    assert wrong.status == 400 and "still running" in wrong.error["message"]


def test_function_calls_and_their_results(servers):
    server = servers.start(scripted="tokens=12,interval-ms=2,tools=1", workers=1)
    tools = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]
    live = stream(server, "look it up", tools=tools).wait_end()
    response = live.frames[-1].json["response"]
    (call,) = response["output"]
    assert call["type"] == "function_call" and call["name"] == "look" and call["call_id"]
    deltas = [frame.json["delta"] for frame in live.frames
              if frame.event == "response.function_call_arguments.delta"]
    (done,) = [frame.json for frame in live.frames
               if frame.event == "response.function_call_arguments.done"]
    assert "".join(deltas) == done["arguments"] == call["arguments"]
    assert replay(server, response["id"]).raw == live.raw
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "found"}
    after = server.post("/v1/responses", ask([result], previous_response_id=response["id"]))
    assert after.status == 200 and after.json["output"][0]["type"] == "message"
    # The same by a conversation, and refused where there was no call.
    name = conversation(server)
    first = respond(server, "look it up", tools=tools, conversation=name)
    result["call_id"] = first["output"][0]["call_id"]
    assert respond(server, [result], conversation=name)["status"] == "completed"
    assert [item["type"] for item in items(server, name)] == [
        "message", "function_call", "function_call_output", "message"]
    alone = server.post("/v1/responses", ask([result]))
    assert alone.status == 400 and alone.error["param"] == "input"


def test_the_answer_outlives_its_events(servers):
    server = servers.start("--retain-hours", 0.0003, "--idempotency-ttl-hours", 0.0003,
                           scripted="tokens=5,interval-ms=1", workers=1)
    made = respond(server)

    def stream_is_gone():
        respond(server)  # what keeps house has something to do
        return replay(server, made["id"]).status == 410
    wait_until(stream_is_gone, "the events to be forgotten", 60)
    assert get(server, made["id"]) == made
    assert respond(server, previous_response_id=made["id"])["status"] == "completed"


# ---- background ----------------------------------------------------------------------------------


def test_background_survives_kills(servers):
    server = servers.start(scripted="tokens=120,interval-ms=20", workers=1)
    made = [respond(server, f"job {n}", background=True) for n in range(4)]
    assert {response["status"] for response in made} == {"queued"}
    for _ in range(3):
        time.sleep(0.4)  # lets some tokens become durable; nothing is waited for
        server.restart()
    for response in made:
        ended = wait_ended(server, response["id"])
        assert ended["status"] == "completed" and text_of(ended) == scripted_text(120)
        assert ended["created_at"] == response["created_at"]


def test_a_background_stream_is_left_and_found_again(server):
    live = stream(server, background=True).wait_frames(12)
    response_id = live.frames[0].json["response"]["id"]
    assert [frame.event for frame in live.frames[:3]] == ["response.created", "response.queued",
                                                         "response.in_progress"]
    assert live.frames[0].json["response"]["status"] == "queued"
    live.close()
    seen = live.frames[-1].json["sequence_number"]
    server.restart()
    rest = replay(server, response_id, after=seen)
    assert [frame.json["sequence_number"] for frame in rest.frames][0] == seen + 1
    assert rest.frames[-1].event == "response.completed"
    assert (b"".join(replay(server, response_id).raw.splitlines(True))
            .endswith(rest.raw))


def test_cancelling_is_idempotent_and_for_background_only(servers):
    server = servers.start(scripted="tokens=2000,interval-ms=20", workers=1)
    made = respond(server, background=True)
    path = f"/v1/responses/{made['id']}/cancel"
    first = server.post(path).json
    assert first["status"] == "cancelled" and first["error"] is None
    assert server.post(path).json == first == get(server, made["id"])
    server.restart()
    assert server.post(path).json == first
    ended = replay(server, made["id"])
    assert ended.frames[-1].event == "response.failed"
    assert ended.frames[-1].json["response"] == first
    live = stream(server).wait_frames(6)
    response_id = live.frames[0].json["response"]["id"]
    refused = server.post(f"/v1/responses/{response_id}/cancel")
    assert refused.status == 400 and "background" in refused.error["message"]
    live.close()
    assert server.post("/v1/responses/resp_nothing/cancel").status == 404


# ---- conversations -------------------------------------------------------------------------------


def conversation(server, **fields):
    reply = server.post("/v1/conversations", fields)
    assert reply.status == 200, reply
    return reply.json["id"]


def test_turns_queued_at_once_stay_in_order_over_kills(servers):
    server = servers.start(scripted="tokens=30,interval-ms=15", workers=1)
    name = conversation(server)
    made = [respond(server, f"turn {n}", conversation=name, background=True) for n in range(5)]
    for _ in range(3):
        time.sleep(0.5)  # lets some turns end; nothing is waited for
        server.restart()
    for response in made:
        assert wait_ended(server, response["id"])["status"] == "completed"
    expected = []
    for n in range(5):
        expected += [("user", f"turn {n}"), ("assistant", scripted_text(30))]
    assert said(items(server, name)) == expected


def sent_again(post):
    """The answer of a call that is sent again until the server is up to answer it."""
    def answer():
        try:
            reply = post()
        except OSError:
            return None
        return None if reply.status in (429, 503) else reply
    return wait_until(answer, "an answer", 60)


def test_every_turn_is_kept_once_through_random_kills(servers, rng):
    """Responses and chats in several conversations; each call is sent again with its key until it is
    answered, while the server is killed again and again."""
    turns, text = 6, scripted_text(8)
    server = servers.start(scripted="tokens=8,interval-ms=4", workers=2)
    names = [conversation(server) for _ in range(3)]
    chats = ["chat-1", "chat-2"]

    def respond_in(name):
        for n in range(turns):
            reply = sent_again(lambda n=n: server.post(
                "/v1/responses", ask(f"turn {n}", conversation=name, background=True),
                {"Idempotency-Key": f"{name} {n}"}))
            assert reply.status == 200, reply

    def chat_in(name):
        for n in range(turns):
            headers = {"Idempotency-Key": f"{name} {n}", "X-Conversation-Id": name,
                       "X-Conversation-Memory": "true"}
            reply = sent_again(lambda n=n, headers=headers: server.chat(f"turn {n}",
                                                                        headers=headers))
            assert reply.status == 200, reply

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(respond_in, name) for name in names]
        clients += [pool.submit(chat_in, name) for name in chats]
        for _ in range(6):
            time.sleep(rng.uniform(0.1, 0.8))  # when it is killed; nothing is waited for
            server.restart(ready=False)
        for client in clients:
            client.result()
    expected = [("user", f"turn {n // 2}") if n % 2 == 0 else ("assistant", text)
                for n in range(2 * turns)]
    for name in names + chats:
        wait_until(lambda name=name: len(items(server, name)) >= 2 * turns, f"{name} to end", 60)
        assert said(items(server, name)) == expected


def test_items_are_there_as_soon_as_the_answer_is(server):
    name = conversation(server)
    for n in range(5):
        respond(server, f"turn {n}", conversation=name, max_output_tokens=2)
        assert len(items(server, name)) == 2 * (n + 1)


def test_one_key_is_one_conversation(server):
    key = {"Idempotency-Key": "k"}
    first = server.post("/v1/conversations", {"metadata": {"a": "b"}}, key)
    assert first.status == 200, first
    server.restart()
    assert server.post("/v1/conversations", {"metadata": {"a": "b"}}, key).json == first.json
    assert server.post("/v1/conversations", {}, key).status == 422
    server.request("DELETE", f"/v1/conversations/{first.json['id']}")
    assert server.post("/v1/conversations", {"metadata": {"a": "b"}}, key).status == 410


def test_a_busy_conversation_can_be_refused(servers):
    server = servers.start("--conversation-busy", "refuse", scripted="tokens=200,interval-ms=20",
                           workers=1)
    name = conversation(server)
    live = stream(server, conversation=name).wait_frames(5)
    refused = server.post("/v1/responses", ask(conversation=name))
    assert refused.status == 400 and refused.error["code"] == "conversation_locked"
    live.wait_end()
    assert respond(server, conversation=name, max_output_tokens=2)["status"] == "incomplete"


def test_a_deleted_conversation_is_gone(server):
    name = conversation(server, items=[{"role": "user", "content": "x"}])
    assert server.request("DELETE", f"/v1/conversations/{name}").json["deleted"] is True
    assert server.get(f"/v1/conversations/{name}").status == 404
    assert server.post("/v1/responses", ask(conversation=name)).status == 404


def test_a_chat_keeps_its_turns(server):
    headers = {"X-Conversation-Id": "my talk", "X-Conversation-Memory": "true"}
    system = {"role": "system", "content": "be kind"}
    body = chat_body("one", max_tokens=2)
    body["messages"].insert(0, system)
    assert server.post("/v1/chat/completions", body, headers).status == 200
    server.restart()
    assert server.chat("two", headers=headers, max_tokens=3).status == 200
    assert said(items(server, "my%20talk")) == [
        ("system", "be kind"), ("user", "one"), ("assistant", scripted_text(2)),
        ("user", "two"), ("assistant", scripted_text(3))]
    refused = server.chat("x", headers={"X-Conversation-Memory": "true"})
    assert refused.status == 400


# ---- tenants -------------------------------------------------------------------------------------


def test_nothing_is_seen_by_another_tenant(servers, tmp_path):
    keys = tmp_path / "keys"
    made = {}
    for tenant in ("a", "b"):
        code, out, err = run("keys", "add", keys, "--tenant", tenant)
        assert code == 0, err
        made[tenant] = out.strip().split()[-1]
    server = servers.make("--api-key-file", keys, scripted="tokens=5,interval-ms=1", workers=1,
                          api_key=made["a"])
    server.start()
    response = respond(server)
    name = conversation(server)
    server.api_key = made["b"]
    for method, path in (("GET", ""), ("GET", "?stream=true"), ("DELETE", ""),
                         ("GET", "/input_items"), ("POST", "/cancel")):
        assert server.request(method, f"/v1/responses/{response['id']}{path}").status == 404
    assert server.post("/v1/responses",
                       ask(previous_response_id=response["id"])).status == 400
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/items")):
        assert server.request(method, f"/v1/conversations/{name}{path}").status == 404
    assert server.post("/v1/responses", ask(conversation=name)).status == 404
    reference = {"type": "item_reference", "id": response["output"][0]["id"]}
    assert server.post("/v1/responses", ask([reference])).status == 400
    server.api_key = made["a"]
    assert get(server, response["id"]) == response


# ---- the real model ------------------------------------------------------------------------------


@needs_model
def test_the_real_model_goes_on_in_the_background(servers):
    server = servers.start("--threads", 1, models=[MODEL_FILE], workers=1)
    fields = {"model": MODEL, "temperature": 0, "max_output_tokens": 48}
    undisturbed = respond(server, "Tell me about the sea.", **fields)
    made = respond(server, "Tell me about the sea.", background=True, **fields)
    live = Stream(server, "GET", f"/v1/responses/{made['id']}?stream=true").wait_frames(12)
    server.restart()
    live.close()
    ended = wait_ended(server, made["id"])
    assert ended["status"] == undisturbed["status"]
    assert ended["usage"]["output_tokens"] == undisturbed["usage"]["output_tokens"]
    whole = replay(server, made["id"])
    assert whole.frames[-1].json["response"] == ended
    assert whole.raw.startswith(live.raw[:live.raw.rfind(b"\n\n") + 2])
    # Another turn hears the first.
    second = respond(server, "And the sky?", previous_response_id=ended["id"], **fields)
    assert second["usage"]["input_tokens"] > ended["usage"]["total_tokens"] - 8
