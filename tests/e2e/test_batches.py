"""Batches: every line once, whatever is killed; cancelling, expiry, bad files, tenants."""

import json
import time

import pytest

from harness import inspect, run, scripted_text, wait_until
from test_files import upload

ENDPOINT = "/v1/chat/completions"
ENDED = ("completed", "failed", "cancelled", "expired")


def line(custom_id, model="scripted", endpoint=ENDPOINT, **body):
    body = {"model": model, "messages": [{"role": "user", "content": custom_id}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": endpoint, "body": body}


def jsonl(lines):
    return "".join(json.dumps(entry) + "\n" for entry in lines).encode()


def create(server, lines, headers=None, endpoint=ENDPOINT, **fields):
    content = lines if isinstance(lines, bytes) else jsonl(lines)
    file = upload(server, content, headers, purpose="batch")
    assert file.status == 200, file
    reply = server.post("/v1/batches", {"input_file_id": file.json["id"], "endpoint": endpoint,
                                        "completion_window": "24h", **fields}, headers)
    assert reply.status == 200, reply
    return reply.json


def look(server, batch_id):
    """The batch, or None while the server is down."""
    try:
        reply = server.get(f"/v1/batches/{batch_id}")
    except OSError:
        return None
    assert reply.status == 200, reply
    return reply.json


def wait_status(server, batch_id, *statuses, within_s=60.0):
    def there():
        batch = look(server, batch_id)
        return batch if batch and batch["status"] in statuses else None
    return wait_until(there, f"the batch to be {' or '.join(statuses)}", within_s)


def rows(server, file_id):
    if not file_id:
        return []
    body = server.get(f"/v1/files/{file_id}/content").body
    return [json.loads(text) for text in body.decode().splitlines()]


def results(server, batch):
    return rows(server, batch.get("output_file_id")), rows(server, batch.get("error_file_id"))


@pytest.fixture
def server(servers):
    return servers.start(scripted="tokens=4,interval-ms=0")


def test_a_batch_from_start_to_end(server):
    made = create(server, [line(f"id-{i}") for i in range(50)], metadata={"what": "test"})
    assert made["object"] == "batch" and made["status"] == "validating"
    assert made["expires_at"] - made["created_at"] == 24 * 3600
    batch = wait_status(server, made["id"], *ENDED)
    assert batch["status"] == "completed", batch
    assert batch["request_counts"] == {"total": 50, "completed": 50, "failed": 0}
    assert batch["metadata"] == {"what": "test"} and batch["model"] == "scripted"
    times = [batch[f"{name}_at"] for name in ("created", "in_progress", "finalizing", "completed")]
    assert times == sorted(times)
    assert batch["usage"]["output_tokens"] == 50 * 4
    good, bad = results(server, batch)
    assert bad == [] and "error_file_id" not in batch
    assert [row["custom_id"] for row in good] == [f"id-{i}" for i in range(50)]
    for row in good:
        response = row["response"]
        assert row["error"] is None and response["status_code"] == 200
        assert response["body"]["object"] == "chat.completion"
        assert response["body"]["choices"][0]["message"]["content"] == scripted_text(4)
        state = server.state(response["request_id"])
        assert state["state"] == "completed"
    assert server.get(f"/v1/files/{batch['output_file_id']}").json["purpose"] == "batch_output"


def test_lines_that_fail(server):
    lines = [line("good"), line("no-model", model="none-such"), line("bad", temperature=9),
             line("stream", stream=True), line("also-good")]
    batch = wait_status(server, create(server, lines)["id"], *ENDED, within_s=90)
    assert batch["request_counts"] == {"total": 5, "completed": 2, "failed": 3}, batch
    good, bad = results(server, batch)
    assert [row["custom_id"] for row in good] == ["good", "also-good"]
    assert [(row["custom_id"], row["response"]["status_code"],
             row["response"]["body"]["error"]["param"]) for row in bad] == [
        ("no-model", 404, "model"), ("bad", 400, "temperature"), ("stream", 400, "stream")]


def test_other_endpoints(servers):
    server = servers.start(scripted="tokens=4,interval-ms=0,embed=8")
    embed = "/v1/embeddings"
    lines = [{"custom_id": f"e{i}", "method": "POST", "url": embed,
              "body": {"model": "scripted", "input": ["a", "b"]}} for i in range(5)]
    batch = wait_status(server, create(server, lines, endpoint=embed)["id"], *ENDED)
    good, bad = results(server, batch)
    assert len(good) == 5 and not bad
    assert all(len(row["response"]["body"]["data"]) == 2 for row in good)
    legacy = "/v1/completions"
    lines = [{"custom_id": "c", "method": "POST", "url": legacy,
              "body": {"model": "scripted", "prompt": "hello", "max_tokens": 2}}]
    batch = wait_status(server, create(server, lines, endpoint=legacy)["id"], *ENDED)
    good, bad = results(server, batch)
    assert len(good) == 1 and good[0]["response"]["body"]["object"] == "text_completion", bad


def test_an_invalid_file_fails_with_line_numbers(server):
    content = jsonl([line("a")]) + b"{nonsense\n\n" + jsonl([line("a"), line("b", endpoint="/v1/x")])
    batch = wait_status(server, create(server, content)["id"], *ENDED)
    assert batch["status"] == "failed" and "failed_at" in batch
    assert [(error["line"], error["code"]) for error in batch["errors"]["data"]] == [
        (2, "invalid_json_line"), (4, "duplicate_custom_id"), (5, "invalid_url")]
    empty = wait_status(server, create(server, b"\n")["id"], *ENDED)
    assert empty["errors"]["data"][0]["code"] == "empty_file"


def test_a_line_without_a_body_is_named(server):
    bad = {**line("b"), "body": 3}
    batch = wait_status(server, create(server, jsonl([line("a"), bad]))["id"], *ENDED)
    (error,) = batch["errors"]["data"]
    assert error == {"code": "invalid_type", "line": 2, "param": "body",
                     "message": "line 2: body must be an object, not a number"}


def test_one_key_is_one_batch(server):
    key = {"Idempotency-Key": "k"}
    file = upload(server, jsonl([line("a")]), purpose="batch").json["id"]
    body = {"input_file_id": file, "endpoint": ENDPOINT, "completion_window": "24h"}
    first = server.post("/v1/batches", body, key)
    assert first.status == 200, first
    assert server.post("/v1/batches", body, key).json["id"] == first.json["id"]
    server.restart()
    assert server.post("/v1/batches", body, key).json["id"] == first.json["id"]
    other = server.post("/v1/batches", {**body, "metadata": {"a": "b"}}, key)
    assert other.status == 422 and other.error["param"] == "Idempotency-Key", other
    wait_status(server, first.json["id"], "completed")
    assert len(server.get("/v1/batches").json["data"]) == 1
    accepted = [record for record in inspect(server.data) if record["type"] == "accepted"]
    assert len(accepted) == 1


def test_what_is_refused(server):
    file = upload(server, jsonl([line("a")]), purpose="user_data").json["id"]

    def refuse(status, param, **body):
        body = {"input_file_id": file, "endpoint": ENDPOINT, "completion_window": "24h", **body}
        reply = server.post("/v1/batches", body)
        assert reply.status == status and reply.error["param"] == param, reply

    refuse(400, "input_file_id")  # of another purpose
    refuse(404, "input_file_id", input_file_id="file-none")
    refuse(400, "endpoint", endpoint="/v1/audio/speech")
    refuse(400, "completion_window", completion_window="1h")
    refuse(400, "metadata.a", metadata={"a": 1})
    assert server.get("/v1/batches/batch_none").status == 404
    assert server.post("/v1/batches/batch_none/cancel").status == 404
    assert server.get("/v1/batches?limit=101").status == 400


def test_five_hundred_lines_and_ten_kills(servers, rng):
    server = servers.start(scripted="tokens=6,interval-ms=60,slots=16", workers=1)
    expected = [f"id-{i}" for i in range(500)]
    batch_id = create(server, [line(custom_id) for custom_id in expected])["id"]
    kills = 0
    while kills < 10:
        time.sleep(rng.uniform(0, 0.8))  # the moment of the kill is what is random here
        batch = look(server, batch_id)
        assert batch is None or batch["status"] not in ENDED, \
            f"the batch ended after {kills} kills; make it longer"
        server.kill()
        kills += 1
        server.start(ready=bool(rng.randrange(2)))
    batch = wait_status(server, batch_id, *ENDED, within_s=120)
    assert batch["status"] == "completed", batch
    assert batch["request_counts"] == {"total": 500, "completed": 500, "failed": 0}
    good, bad = results(server, batch)
    assert bad == []
    assert [row["custom_id"] for row in good] == expected
    assert {row["response"]["body"]["choices"][0]["message"]["content"] for row in good} == {
        scripted_text(6)}
    # No line was asked for twice: as many requests as lines, each line's its own.
    assert len({row["response"]["request_id"] for row in good}) == 500
    assert batch["usage"]["output_tokens"] == 500 * 6
    metrics = server.get("/metrics").body.decode()
    assert "waystation_batch_lines_total" in metrics
    assert server.terminate() == 0
    accepted = [record for record in inspect(server.data) if record["type"] == "accepted"]
    assert len(accepted) == 500


def test_cancel(servers):
    server = servers.start(scripted="tokens=200,interval-ms=20,slots=8", workers=1)
    batch_id = create(server, [line(f"id-{i}", max_tokens=10 if i < 4 else 200)
                               for i in range(100)])["id"]
    wait_until(lambda: look(server, batch_id)["request_counts"]["completed"] >= 4, "four answers")
    cancelling = server.post(f"/v1/batches/{batch_id}/cancel")
    assert cancelling.status == 200 and cancelling.json["status"] == "cancelling"
    batch = wait_status(server, batch_id, *ENDED, within_s=20)
    assert batch["status"] == "cancelled" and "cancelling_at" in batch and "cancelled_at" in batch
    good, bad = results(server, batch)
    assert len(good) + len(bad) == 100 and len(good) >= 4
    assert batch["request_counts"] == {"total": 100, "completed": len(good), "failed": len(bad)}
    assert {row["error"]["code"] for row in bad} == {"batch_cancelled"}
    again = server.post(f"/v1/batches/{batch_id}/cancel")
    assert again.status == 200 and again.json["status"] == "cancelled"
    # Nothing of it runs any more: the worker is free for others at once.
    assert server.chat("hello", max_tokens=1, timeout_s=5).status == 200


def test_cancel_and_kill(servers):
    server = servers.start(scripted="tokens=300,interval-ms=20,slots=8", workers=1)
    batch_id = create(server, [line(f"id-{i}") for i in range(50)])["id"]
    wait_status(server, batch_id, "in_progress")
    server.post(f"/v1/batches/{batch_id}/cancel")
    server.restart()
    batch = wait_status(server, batch_id, *ENDED, within_s=20)
    assert batch["status"] == "cancelled"
    good, bad = results(server, batch)
    assert len(good) + len(bad) in (0, 50)  # 0: cancelled before its lines were known


def test_expiry(servers):
    hours = 3 / 3600
    server = servers.start("--batch-hours", hours, scripted="tokens=200,interval-ms=20,slots=8")
    batch_id = create(server, [line(f"id-{i}", max_tokens=5 if i < 3 else 200)
                               for i in range(40)])["id"]
    batch = wait_status(server, batch_id, *ENDED, within_s=30)
    assert batch["status"] == "expired" and "expired_at" in batch
    good, bad = results(server, batch)
    assert len(good) >= 3 and len(good) + len(bad) == 40
    assert {row["error"]["code"] for row in bad} == {"batch_expired"}


def test_expiry_while_the_server_was_down(servers):
    server = servers.start("--batch-hours", 2 / 3600,
                           scripted="tokens=500,interval-ms=20,slots=4")
    batch_id = create(server, [line(f"id-{i}") for i in range(10)])["id"]
    wait_status(server, batch_id, "in_progress")
    server.kill()
    time.sleep(2.2)  # what is tested is that time passes
    server.start()
    assert wait_status(server, batch_id, *ENDED, within_s=20)["status"] == "expired"


def test_interactive_requests_go_before_batch_lines(servers):
    server = servers.start(scripted="tokens=20,interval-ms=20,slots=2", workers=1)
    batch_id = create(server, [line(f"id-{i}") for i in range(60)])["id"]
    wait_until(lambda: look(server, batch_id)["request_counts"]["completed"] >= 2, "it to run")
    assert server.chat("hello", max_tokens=5).status == 200
    counts = look(server, batch_id)["request_counts"]
    assert counts["completed"] < 50, "the chat waited for the batch"
    server.post(f"/v1/batches/{batch_id}/cancel")


def test_list(server):
    ids = [create(server, [line("a")])["id"] for _ in range(5)]
    page = server.get("/v1/batches?limit=2").json
    assert [batch["id"] for batch in page["data"]] == [ids[4], ids[3]] and page["has_more"]
    rest = server.get(f"/v1/batches?after={page['last_id']}").json
    assert [batch["id"] for batch in rest["data"]] == [ids[2], ids[1], ids[0]]
    assert not rest["has_more"]


def test_tenants_do_not_see_each_others_batches(servers, tmp_path):
    keys = tmp_path / "keys"
    tenants = {}
    for tenant in ("a", "b"):
        code, out, err = run("keys", "add", keys, "--tenant", tenant)
        assert code == 0, err
        tenants[tenant] = {"authorization": f"Bearer {out.split()[-1]}"}
    server = servers.start("--api-key-file", keys, scripted="tokens=3,interval-ms=0")
    batch = create(server, [line("a")], tenants["a"])
    wait_until(lambda: server.get(f"/v1/batches/{batch['id']}", tenants["a"]).json["status"]
               == "completed", "the batch to be complete")
    done = server.get(f"/v1/batches/{batch['id']}", tenants["a"]).json
    for path in (f"/v1/batches/{batch['id']}", f"/v1/files/{done['output_file_id']}",
                 f"/v1/files/{done['output_file_id']}/content"):
        assert server.get(path, tenants["a"]).status == 200
        assert server.get(path, tenants["b"]).status == 404
    assert server.get("/v1/batches", tenants["b"]).json["data"] == []
    assert server.post(f"/v1/batches/{batch['id']}/cancel", None, tenants["b"]).status == 404
    theirs = server.post("/v1/batches", {"input_file_id": batch["input_file_id"],
                                         "endpoint": ENDPOINT, "completion_window": "24h"},
                         tenants["b"])
    assert theirs.status == 404


def test_the_official_client(server):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    file = client.files.create(file=("in.jsonl", jsonl([line("a"), line("b")])), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=ENDPOINT,
                                  completion_window="24h", metadata={"k": "v"})
    batch = wait_until(lambda: (b := client.batches.retrieve(batch.id)).status in ENDED and b,
                       "the batch")
    assert batch.status == "completed" and batch.request_counts.completed == 2
    out = client.files.content(batch.output_file_id).text
    assert [json.loads(text)["custom_id"] for text in out.splitlines()] == ["a", "b"]
    assert [listed.id for listed in client.batches.list()] == [batch.id]
