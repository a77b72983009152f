"""Remote workers over TLS, with certificates made for the test."""

import subprocess

import pytest

from harness import free_port, scripted_text, wait_until


class Authority:
    """A certificate authority in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.certificate = folder / "ca.pem"
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                      "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
                      "-subj", "/CN=test authority")

    def _openssl(self, *arguments):
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True,
                              text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr

    def issue(self, name):
        """(certificate, key) for 127.0.0.1, signed by this authority."""
        (self.folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        self._openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                      "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                      "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext",
                      "-out", f"{name}.pem")
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"


@pytest.fixture
def parts(servers):
    """The authority, a started server that demands certificates of it, and a worker's options."""
    authority = Authority(servers.folder / "ca")
    token = servers.folder / "token"
    token.write_text("correct horse\n")
    token.chmod(0o600)
    certificate, key = authority.issue("server")
    port = free_port()
    server = servers.make("--link-listen", f"127.0.0.1:{port}", "--join-token-file", token,
                          "--link-cert", certificate, "--link-key", key,
                          "--link-ca", authority.certificate, workers=0)
    server.start(ready=False)
    worker = ["worker", "--connect", f"127.0.0.1:{port}", "--join-token-file", token,
              "--scripted", "tokens=20,interval-ms=5"]
    return authority, server, worker


def options(pair, authority):
    certificate, key = pair
    return ["--cert", certificate, "--key", key, "--ca", authority.certificate]


def test_worker_with_a_certificate_joins_and_answers(servers, parts):
    authority, server, worker = parts
    servers.process(*worker, *options(authority.issue("worker"), authority))
    server.wait_ready()
    assert server.chat().text == scripted_text(20)


@pytest.mark.parametrize("who", ["no certificate", "another authority's", "no TLS"])
def test_worker_that_is_not_known_stays_outside(servers, parts, who):
    authority, server, worker = parts
    other = Authority(servers.folder / "other")
    more = {"no certificate": ["--ca", authority.certificate],
            "another authority's": ["--cert", other.issue("worker")[0], "--key",
                                    other.folder / "worker.key", "--ca", authority.certificate],
            "no TLS": []}[who]
    stranger = servers.process(*worker, *more)
    stranger.wait_line("worker without session", 30)
    assert server.get("/readyz").status == 503
    assert "joined" not in stranger.log()


def test_worker_refuses_a_server_of_another_authority(servers, parts):
    authority, server, worker = parts
    other = Authority(servers.folder / "other")
    careful = servers.process(*worker, *options(authority.issue("worker"), other))
    careful.wait_line("TLS files match", 30)
    assert server.get("/readyz").status == 503


def test_missing_files_and_half_pairs_are_named(servers, parts):
    authority, _, worker = parts
    certificate, _ = authority.issue("worker")
    half = servers.process(*worker, "--cert", certificate, "--ca", authority.certificate)
    assert wait_until(lambda: "given together" in half.log(), "the reason", 20)
    missing = servers.process(*worker, "--ca", servers.folder / "none.pem")
    missing.wait_line("none.pem", 20)
