"""Files: upload, list, content, deletion, limits, and what a crash leaves."""

import concurrent.futures
import hashlib
import http.client
import os
import pathlib

import pytest

from harness import SANITIZER, run, wait_until


def form(content, purpose="user_data", filename="data.jsonl", **fields):
    """A multipart body and its type."""
    boundary = "waystation-test-boundary"
    parts = []
    for name, value in {"purpose": purpose, **fields}.items():
        if value is not None:
            parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
                         f"{value}\r\n".encode())
    if content is not None:
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
                     f'filename="{filename}"\r\nContent-Type: application/octet-stream\r\n\r\n'
                     .encode() + content + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), \
        f"multipart/form-data; boundary={boundary}"


def upload(server, content, headers=None, **how):
    body, kind = form(content, **how)
    return server.post("/v1/files", body, {"content-type": kind, **(headers or {})})


def blobs(server):
    folder = server.data / "store" / "blobs"
    return sorted(path for path in folder.rglob("*") if path.is_file())


def tmp(server):
    return list((server.data / "store" / "tmp").iterdir())


@pytest.fixture
def server(servers):
    return servers.start(scripted="tokens=5,interval-ms=0")


def test_a_file_from_upload_to_deletion(server):
    made = upload(server, b'{"a": 1}\n')
    assert made.status == 200, made
    file = made.json
    assert file["object"] == "file" and file["bytes"] == 9 and file["purpose"] == "user_data"
    assert file["filename"] == "data.jsonl" and file["status"] == "processed"
    assert server.get(f"/v1/files/{file['id']}").json == file
    listed = server.get("/v1/files").json
    assert listed["object"] == "list" and listed["data"] == [file] and not listed["has_more"]
    assert server.get(f"/v1/files/{file['id']}/content").body == b'{"a": 1}\n'
    gone = server.request("DELETE", f"/v1/files/{file['id']}")
    assert gone.json == {"id": file["id"], "object": "file", "deleted": True}
    assert server.get(f"/v1/files/{file['id']}").status == 404
    wait_until(lambda: not blobs(server), "the content to be removed")


def test_files_survive_a_kill_and_left_overs_do_not(server):
    content = os.urandom(3_000_000)
    file = upload(server, content).json
    # One upload that never ends.
    body, kind = form(content)
    half = http.client.HTTPConnection("127.0.0.1", server.port)
    half.putrequest("POST", "/v1/files")
    half.putheader("content-type", kind)
    half.putheader("content-length", str(len(body)))
    half.endheaders()
    half.send(body[:2_000_000])
    wait_until(lambda: tmp(server), "the upload to be on the disk")
    (server.data / "store" / "blobs" / "zz").mkdir()
    orphan = server.data / "store" / "blobs" / "zz" / ("zz" + 62 * "0")
    orphan.write_bytes(b"orphan")
    server.restart()
    half.close()
    assert server.get(f"/v1/files/{file['id']}/content").body == content
    assert not tmp(server) and not orphan.exists()
    assert [path.name for path in blobs(server)] == [hashlib.sha256(content).hexdigest()]


def test_the_same_content_is_stored_once(server):
    first, second = (upload(server, b"same", filename=name).json for name in ("a", "b"))
    assert first["id"] != second["id"] and len(blobs(server)) == 1
    server.request("DELETE", f"/v1/files/{first['id']}")
    assert server.get(f"/v1/files/{second['id']}/content").body == b"same"
    server.request("DELETE", f"/v1/files/{second['id']}")
    wait_until(lambda: not blobs(server), "the content to be removed")


def test_pages(server):
    ids = [upload(server, b"x%d" % i, purpose="batch" if i % 2 else "evals").json["id"]
           for i in range(7)]
    seen, after = [], ""
    while True:
        page = server.get(f"/v1/files?limit=3&order=asc&after={after}").json
        seen += [file["id"] for file in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert seen == ids
    assert [file["id"] for file in server.get("/v1/files").json["data"]] == ids[::-1]
    batch = server.get("/v1/files?purpose=batch").json["data"]
    assert [file["id"] for file in batch] == [ids[5], ids[3], ids[1]]
    assert all(file["expires_at"] - file["created_at"] == 30 * 86400 for file in batch)
    for query in ("limit=0", "limit=10001", "limit=x", "order=up", "after=file-none"):
        assert server.get(f"/v1/files?{query}").status == 400, query


@pytest.mark.parametrize("how, param", [
    ({"purpose": None}, "purpose"),
    ({"purpose": "none-such"}, "purpose"),
    ({"content": None}, "file"),
    ({"expires_after[anchor]": "created_at"}, "expires_after[seconds]"),
    ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"},
     "expires_after[seconds]"),
    ({"expires_after[anchor]": "now", "expires_after[seconds]": "3600"}, "expires_after[anchor]"),
])
def test_bad_forms(server, how, param):
    how = dict(how)
    reply = upload(server, how.pop("content", b"x"), **how)
    assert reply.status == 400 and reply.error["param"] == param, reply
    assert not blobs(server)


def test_other_bodies_than_forms(server):
    assert server.post("/v1/files", {"purpose": "batch"}).error["param"] == "Content-Type"
    kind = {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"", b"garbage", b"--x\r\n\r\n", b"--x\r\n" + 10_000 * b"a"):
        reply = server.post("/v1/files", body, kind)
        assert reply.status == 400 and reply.error["type"] == "invalid_request_error", reply


def test_limits(servers):
    server = servers.start("--file-bytes-max", 100_000, "--store-bytes-max", 150_000,
                           scripted="tokens=5")
    over = upload(server, 100_001 * b"x")
    assert over.status == 413 and "100000 bytes" in over.error["message"]
    # What was refused gives back its room a moment after the answer.
    first = wait_until(lambda: (reply := upload(server, 100_000 * b"a")).status == 200 and reply,
                       "room for it")
    full = upload(server, 60_000 * b"b")
    assert full.status == 413 and "the store is full" in full.error["message"]
    server.request("DELETE", f"/v1/files/{first.json['id']}")
    assert wait_until(lambda: upload(server, 60_000 * b"b").status == 200, "room again")
    assert not tmp(server)


def test_a_full_disk_undoes_an_upload_and_passes(servers):
    server = servers.start(scripted="tokens=5")
    kept = upload(server, b"kept").json
    server.refuse_writes()
    refused = upload(server, b"more")
    assert refused.status == 503 and "space" in refused.error["message"], refused
    assert server.get(f"/v1/files/{kept['id']}/content").body == b"kept"
    server.allow_writes()
    assert upload(server, b"more").status == 200
    assert len(server.get("/v1/files").json["data"]) == 2 and not tmp(server)


@pytest.mark.skipif(bool(SANITIZER), reason="memory is measured: not under a sanitizer")
def test_a_large_upload_takes_little_memory(servers):
    server = servers.start(scripted="tokens=5")

    def memory_mb():
        status = pathlib.Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) // 1024

    upload(server, b"warm")
    before = memory_mb()
    content = os.urandom(1 << 20) * 100
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: upload(server, content), range(2)))
    assert [reply.status for reply in made] == [200, 200]
    assert server.get(f"/v1/files/{made[0].json['id']}/content").body == content
    assert memory_mb() - before < 40, "100 MB were held in memory"


def test_tenants_do_not_see_each_others_files(servers, tmp_path):
    keys = tmp_path / "keys"
    tenants = {}
    for tenant in ("a", "b"):
        code, out, err = run("keys", "add", keys, "--tenant", tenant)
        assert code == 0, err
        tenants[tenant] = {"authorization": f"Bearer {out.split()[-1]}"}
    server = servers.start("--api-key-file", keys, scripted="tokens=5")
    file = upload(server, b"secret", tenants["a"]).json["id"]
    assert upload(server, b"x").status == 401
    for path in (f"/v1/files/{file}", f"/v1/files/{file}/content"):
        assert server.get(path, tenants["a"]).status == 200
        assert server.get(path, tenants["b"]).status == 404
        assert server.get(path).status == 401
    assert server.get("/v1/files", tenants["b"]).json["data"] == []
    assert server.request("DELETE", f"/v1/files/{file}", None, tenants["b"]).status == 404
    assert server.get(f"/v1/files/{file}", tenants["a"]).status == 200


def test_the_official_client(server):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    file = client.files.create(file=("in.jsonl", b"{}\n"), purpose="batch",
                               expires_after={"anchor": "created_at", "seconds": 7200})
    assert file.bytes == 3 and file.expires_at - file.created_at == 7200
    assert client.files.retrieve(file.id).filename == "in.jsonl"
    assert client.files.content(file.id).read() == b"{}\n"
    assert [listed.id for listed in client.files.list()] == [file.id]
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
