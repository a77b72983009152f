"""`waystation doctor` on this machine: what it says of a free folder, a running server, broken things."""

import json
import pathlib
import socket

from harness import BIN, MODEL_FILE, Server, free_port, run


def doctor(folder, port, *arguments):
    code, out, err = run("doctor", "--json", "--data", folder, "--listen", f"127.0.0.1:{port}",
                         *arguments)
    assert out, err
    found = json.loads(out)
    assert (code == 0) == found["well"]
    return code, {finding["name"]: finding for finding in found["findings"]}


def test_a_machine_that_a_server_can_run_on(tmp_path):
    code, found = doctor(tmp_path / "new", free_port(), "--scripted", "tokens=4")
    assert {"cpu", "amx", "memory", "disk", "room", "data folder", "journal", "port", "open files",
            "clock"} <= set(found)
    assert found["cpu"]["level"] == "good", found
    assert found["data folder"]["level"] == "good" and found["port"]["level"] == "good"
    assert not (tmp_path / "new").exists() and not list(tmp_path.iterdir()), "it leaves nothing"
    assert code == (1 if any(f["level"] == "bad" for f in found.values()) else 0)
    plain = run("doctor", "--data", tmp_path / "new", "--scripted", "tokens=4")[1]
    assert "verdict: " in plain


def test_a_running_server_is_no_fault_but_another_ones_port_is(tmp_path):
    server = Server(tmp_path, scripted="tokens=4")
    try:
        server.start()
        _, found = doctor(server.data, server.port, "--scripted", "tokens=4")
        for name in ("data folder", "port"):
            assert found[name]["level"] == "note", found
            assert str(server.pid) in found[name]["what"]
        code, found = doctor(server.data, free_port(), "--scripted", "tokens=4")
        assert code == 1 and found["data folder"]["level"] == "bad"
        code, found = doctor(tmp_path / "other", server.port, "--scripted", "tokens=4")
        assert code == 1 and found["port"]["level"] == "bad"
        assert f"{BIN.name} serve" in found["port"]["what"]
    finally:
        server.clean_up()


def test_what_is_broken_is_named_with_how_to_mend_it(tmp_path):
    code, found = doctor(tmp_path / "d", free_port(), "--model", tmp_path / "none.gguf")
    assert code == 1 and "there is no model file" in found["model"]["what"]
    no_model = tmp_path / "text.gguf"
    no_model.write_text("no model")
    code, found = doctor(tmp_path / "d", free_port(), "--model", no_model)
    assert code == 1 and "is not a GGUF model" in found["model"]["what"]
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(b"GGUF" + bytes(1000))
    code, found = doctor(tmp_path / "d", free_port(), "--model", cut)
    assert code == 1 and found["model cut"]["mend"]


def test_a_damaged_journal_is_found(tmp_path):
    server = Server(tmp_path, scripted="tokens=4")
    try:
        server.start()
        for number in range(5):
            assert server.chat(f"hello {number}").status == 200
        server.terminate()
    finally:
        server.clean_up()
    _, found = doctor(server.data, server.port, "--scripted", "tokens=4")
    assert found["journal"]["level"] == "good", found
    (segment,) = sorted((server.data / "journal").glob("*.segment"))[:1]
    damaged = bytearray(segment.read_bytes())
    damaged[150] ^= 1
    segment.write_bytes(damaged)
    code, found = doctor(server.data, server.port, "--scripted", "tokens=4")
    assert code == 1 and found["journal"]["level"] == "bad"
    assert "journal salvage" in found["journal"]["mend"]


def test_the_small_model_fits(tmp_path):
    if not pathlib.Path(MODEL_FILE).exists():
        import pytest
        pytest.skip("no model: run 'make models'")
    _, found = doctor(tmp_path / "d", free_port(), "--model", MODEL_FILE)
    name = "model " + MODEL_FILE.name.removesuffix(".gguf")
    assert found[name]["level"] == "good", found
    assert "models" in found["memory"]["what"]


def test_a_port_of_somebody_else(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        code, found = doctor(tmp_path / "d", other.getsockname()[1], "--scripted", "tokens=4")
    assert code == 1 and "taken by process" in found["port"]["what"]
