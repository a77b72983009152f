"""Files and batches, over the scripted engine."""

import json

import pytest

from harness import wait_until

FILES = "/v1/files"
BATCHES = "/v1/batches"


def line(number, endpoint="/v1/chat/completions", **body):
    if endpoint == "/v1/chat/completions":
        body = {"messages": [{"role": "user", "content": f"line {number}"}], **body}
    return {"custom_id": f"line-{number}", "method": "POST", "url": endpoint,
            "body": {"model": "scripted", **body}}


def jsonl(lines):
    return "".join(json.dumps(one) + "\n" for one in lines).encode()


def test_files(quick):
    content = b'{"a":1}\n' * 10
    made = quick.upload(content, filename="some file.jsonl").json
    assert made["bytes"] == len(content) and made["filename"] == "some file.jsonl"
    assert made["purpose"] == "batch"
    place = f"{FILES}/{made['id']}"
    assert quick.get(place).json == made
    assert quick.get(f"{place}/content").body == content
    assert made in quick.get(FILES).json["data"]
    assert quick.delete(place).json["deleted"] is True
    quick.call("GET", place, status=404)
    quick.call("GET", f"{place}/content", status=404)
    quick.call("DELETE", place, status=404)


def test_file_lists(quick):
    ids = [quick.upload(b"x", purpose="user_data", filename=f"{n}.txt").json["id"]
           for n in range(3)]
    listed = quick.get(f"{FILES}?purpose=user_data&order=asc").json["data"]
    assert [file["id"] for file in listed][-3:] == ids
    first = quick.get(f"{FILES}?purpose=user_data&order=asc&limit=2").json
    assert len(first["data"]) == 2 and first["has_more"] is True
    rest = quick.get(f"{FILES}?purpose=user_data&order=asc&after={first['last_id']}").json
    assert [file["id"] for file in first["data"] + rest["data"]][-3:] == ids
    assert all(file["purpose"] == "batch" for file in
               quick.get(f"{FILES}?purpose=batch").json["data"])
    empty = quick.get(f"{FILES}?purpose=vision").json
    assert empty["data"] == [] and empty["has_more"] is False


def test_any_bytes_are_kept(quick):
    content = bytes(range(256)) * 50 + b"\r\n--not-the-boundary\r\n"
    made = quick.upload(content, purpose="user_data", filename="ünïcode.bin").json
    assert quick.get(f"{FILES}/{made['id']}/content").body == content
    assert made["filename"] == "ünïcode.bin"


@pytest.mark.parametrize("form, param", [
    ({"content": None}, "file"), ({"purpose": None, "content": b"x"}, "purpose"),
    ({"purpose": "nonsense", "content": b"x"}, "purpose")])
def test_forms_that_are_refused(quick, form, param):
    assert quick.upload(**form, status=400).error["param"] == param


def test_what_is_no_form(quick):
    quick.call("POST", FILES, {"purpose": "batch"}, status=400)
    quick.call("POST", FILES, b"junk", status=400,
               headers={"content-type": "multipart/form-data; boundary=b"})
    quick.call("POST", FILES, b"junk", status=400, headers={"content-type": "multipart/form-data"})


def ended(api, batch_id):
    def there():
        batch = api.get(f"{BATCHES}/{batch_id}").json
        return batch if batch["status"] in ("completed", "failed", "expired", "cancelled") else None
    return wait_until(there, f"batch {batch_id} to end", 60)


def start(api, lines, endpoint="/v1/chat/completions", **fields):
    file = api.upload(jsonl(lines)).json["id"]
    return api.post(BATCHES, {"input_file_id": file, "endpoint": endpoint,
                              "completion_window": "24h", **fields}).json


def output(api, file_id):
    raw = api.get(f"{FILES}/{file_id}/content").body.decode()
    return [json.loads(one) for one in raw.splitlines()]


def test_a_batch(quick):
    made = start(quick, [line(n) for n in range(5)], metadata={"night": "1"})
    assert made["status"] in ("validating", "in_progress") and made["metadata"] == {"night": "1"}
    batch = ended(quick, made["id"])
    assert batch["status"] == "completed", batch
    assert batch["request_counts"] == {"total": 5, "completed": 5, "failed": 0}
    assert not batch.get("error_file_id")
    for name in ("created_at", "in_progress_at", "finalizing_at", "completed_at", "expires_at"):
        assert batch[name], name
    assert batch["created_at"] <= batch["in_progress_at"] <= batch["completed_at"]
    lines = output(quick, batch["output_file_id"])
    assert sorted(one["custom_id"] for one in lines) == [f"line-{n}" for n in range(5)]
    assert len({one["id"] for one in lines}) == 5
    for one in lines:
        assert one["error"] is None and one["response"]["status_code"] == 200
        assert one["response"]["request_id"]
        quick.complain("line", quick.problems("CreateChatCompletionResponse",
                                              one["response"]["body"]))
    stored = quick.get(f"{FILES}/{batch['output_file_id']}").json
    assert stored["purpose"] == "batch_output"


def test_lines_that_fail(quick):
    made = start(quick, [line(0), line(1, model="no-such-model"), line(2, temperature="hot")])
    batch = ended(quick, made["id"])
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 3, "completed": 1, "failed": 2}
    errors = output(quick, batch["error_file_id"])
    assert sorted(one["custom_id"] for one in errors) == ["line-1", "line-2"]
    assert {one["response"]["status_code"] for one in errors} == {404, 400}
    for one in errors:
        quick.complain("error line", quick.problems("ErrorResponse", one["response"]["body"]))
    assert [one["custom_id"] for one in output(quick, batch["output_file_id"])] == ["line-0"]


@pytest.mark.parametrize("endpoint, body", [
    ("/v1/completions", {"prompt": "a"}), ("/v1/responses", {"input": "a"})])
def test_batches_of_other_endpoints(quick, endpoint, body):
    made = start(quick, [line(n, endpoint, **body) for n in range(2)], endpoint)
    batch = ended(quick, made["id"])
    assert batch["request_counts"] == {"total": 2, "completed": 2, "failed": 0}, batch
    schema = "CreateCompletionResponse" if "completions" in endpoint else "Response"
    for one in output(quick, batch["output_file_id"]):
        quick.complain("line", quick.problems(schema, one["response"]["body"]))


def test_a_batch_of_embeddings(api):
    lines = [line(n, "/v1/embeddings", model="embedder", input=f"text {n}") for n in range(3)]
    batch = ended(api, start(api, lines, "/v1/embeddings")["id"])
    assert batch["request_counts"]["completed"] == 3, batch
    for one in output(api, batch["output_file_id"]):
        api.complain("line", api.problems("CreateEmbeddingResponse", one["response"]["body"]))


@pytest.mark.parametrize("content", [
    b"", b"not json\n", b"{}\n", jsonl([line(0), line(0)]),
    jsonl([line(0, "/v1/completions", prompt="a")]),
    jsonl([{**line(0), "method": "GET"}]), jsonl([{**line(0), "custom_id": None}])],
    ids=["empty", "no JSON", "no fields", "one id twice", "another endpoint", "GET", "no id"])
def test_input_files_that_fail(quick, content):
    file = quick.upload(content).json["id"]
    reply = quick.server.post(BATCHES, {"input_file_id": file, "completion_window": "24h",
                                        "endpoint": "/v1/chat/completions"})
    quick.read("POST", BATCHES, reply)
    if reply.status == 200:
        batch = ended(quick, reply.json["id"])
        assert batch["status"] == "failed"
        assert batch["errors"]["data"] and batch["errors"]["data"][0]["message"]
        assert not batch.get("output_file_id")
    else:
        assert reply.status == 400


@pytest.mark.parametrize("fields, param", [
    ({"input_file_id": "file-nothing"}, "input_file_id"), ({"input_file_id": None}, "input_file_id"),
    ({"endpoint": "/v1/nothing"}, "endpoint"), ({"endpoint": None}, "endpoint"),
    ({"completion_window": "1s"}, "completion_window"), ({"metadata": "x"}, "metadata")])
def test_batches_that_are_refused(quick, fields, param):
    file = quick.upload(jsonl([line(0)])).json["id"]
    body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h",
            **fields}
    reply = quick.server.post(BATCHES, body)
    quick.read("POST", BATCHES, reply)
    assert reply.status in (400, 404) and reply.error["param"] == param, reply


def test_batch_lists_and_cancel(quick):
    ids = [start(quick, [line(0)])["id"] for _ in range(3)]
    for batch_id in ids:
        ended(quick, batch_id)
    listed = quick.get(BATCHES).json["data"]
    assert [batch["id"] for batch in listed][:3] == ids[::-1]
    first = quick.get(f"{BATCHES}?limit=1").json
    assert first["has_more"] is True and [one["id"] for one in first["data"]] == ids[-1:]
    rest = quick.get(f"{BATCHES}?limit=2&after={first['last_id']}").json
    assert [one["id"] for one in rest["data"]] == [ids[1], ids[0]]
    long = start(quick, [line(n, max_tokens=6) for n in range(300)])
    cancelled = quick.post(f"{BATCHES}/{long['id']}/cancel").json
    assert cancelled["status"] in ("cancelling", "cancelled")
    batch = ended(quick, long["id"])
    assert batch["status"] == "cancelled" and batch["cancelled_at"]
    assert batch["request_counts"]["completed"] <= 300
    quick.call("GET", f"{BATCHES}/batch_nothing", status=404)
    quick.call("POST", f"{BATCHES}/batch_nothing/cancel", {}, status=404)
