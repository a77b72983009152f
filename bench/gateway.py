#!/usr/bin/env python3
"""What a gateway costs: an instant upstream called directly, through nginx, and through Waystation
with every request on the disk before it is answered.

    bench/gateway.py [--bin build/release/waystation] [--runs 7] [--seconds 3] [--out FILE.json]

The upstream is nginx with a fixed reply. LiteLLM is measured too where bench/setup_peers.sh put it. All are driven by the same wrk with the same request, by
turns, so that what else the machine does falls on all alike. Needs wrk and nginx:
apt-get install wrk nginx-light
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile

from common import (BIN, PEERS, ROOT, WRK_SCRIPT, first_line, free_port, load, machine, process, row, sync_ms,
                    wait_for, write_rows)

CONNECTIONS = (1, 16)
MODEL = "instant"
REPLY = json.dumps({
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": MODEL,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello! How can I help?"},
                 "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}},
    separators=(",", ":"))
REQUEST = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]},
                     separators=(",", ":"))

NGINX = """
worker_processes 1;
pid {folder}/{name}.pid;
error_log {folder}/{name}.err;
daemon off;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/{name}-body;
  proxy_temp_path {folder}/{name}-proxy;
  fastcgi_temp_path {folder}/{name}-f;
  uwsgi_temp_path {folder}/{name}-u;
  scgi_temp_path {folder}/{name}-s;
  default_type application/json;
  {extra}
  server {{ listen 127.0.0.1:{port}; {server} }}
}}
"""


def nginx(stack, folder, name, port, server, extra=""):
    path = folder / f"{name}.conf"
    path.write_text(NGINX.format(folder=folder, name=name, port=port, server=server, extra=extra))
    stack.enter_context(process([shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(path), "-p",
                                 str(folder), "-e", str(folder / f"{name}.err")],
                                folder / f"{name}.log"))
    wait_for(f"http://127.0.0.1:{port}/v1/models")


LITELLM = PEERS / "litellm/bin/litellm"


def litellm(stack, folder, port, upstream):
    config = folder / "litellm.yaml"
    config.write_text(f"""
model_list:
  - model_name: {MODEL}
    litellm_params:
      model: openai/{MODEL}
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: none
general_settings:
  dangerously_permit_weak_or_unset_master_key: true  # loopback, for the time of the bench
""")
    stack.enter_context(process([LITELLM, "--config", config, "--host", "127.0.0.1", "--port", str(port),
                                 "--num_workers", "2"], folder / "litellm.log"))
    wait_for(f"http://127.0.0.1:{port}/health/liveliness", 120)


def start_all(stack, folder, binary):
    """All of them, ready: {name: port}."""
    ports = {name: free_port() for name in ("direct", "nginx", "waystation")}
    nginx(stack, folder, "direct", ports["direct"],
          "location = /v1/models { return 200 '{\"object\":\"list\",\"data\":[]}'; } "
          f"location = /v1/chat/completions {{ return 200 '{REPLY}'; }}")
    nginx(stack, folder, "proxy", ports["nginx"],
          "location / { proxy_pass http://up; proxy_http_version 1.1; "
          'proxy_set_header Connection ""; }',
          f"upstream up {{ server 127.0.0.1:{ports['direct']}; keepalive 64; "
          "keepalive_requests 1000000000; }")
    stack.enter_context(process(
        [binary, "serve", "--listen", f"127.0.0.1:{ports['waystation']}", "--data",
         str(folder / "data"), "--upstream", f"http://127.0.0.1:{ports['direct']}/v1",
         "--upstream-model", MODEL, "--log-level", "warn"], folder / "waystation.log"))
    wait_for(f"http://127.0.0.1:{ports['waystation']}/readyz")
    if LITELLM.exists():
        ports["litellm"] = free_port()
        litellm(stack, folder, ports["litellm"], ports["direct"])
    else:
        print("gateway: without LiteLLM: run bench/setup_peers.sh", file=sys.stderr)
    return ports


def measure(ports, runs, seconds, script, folder):
    results = {(name, count): [] for name in ports for count in CONNECTIONS}
    syncs = []
    for run in range(runs):
        syncs.append(sync_ms(folder))
        for count in CONNECTIONS:
            for name, port in ports.items():
                results[name, count].append(load(port, count, seconds, script))
        print(f"run {run + 1} of {runs}: fdatasync {syncs[-1]:.3f} ms, " + ", ".join(
            f"{name}/{count} {results[name, count][-1]['median_ms']:.3f} ms "
            f"{results[name, count][-1]['per_s']:.0f}/s"
            for name, count in results), file=sys.stderr, flush=True)
    return results, syncs


def summarise(results, syncs):
    middle = {key: {what: statistics.median(run[what] for run in all_runs)
                    for what in ("median_ms", "p99_ms", "per_s")} |
              {"errors": sum(run["errors"] for run in all_runs)}
              for key, all_runs in results.items()}
    sync = statistics.median(syncs)
    added = middle["waystation", 1]["median_ms"] - middle["direct", 1]["median_ms"]
    return {"sync_ms": sync, "added_ms": added, "bar_added_ms": 2 * sync + 0.10,
            "per_s_16": middle["waystation", 16]["per_s"], "bar_per_s_16": 15_000,
            "rows": [{"what": name, "connections": count, **middle[name, count]}
                     for name, count in middle]}


def rows_of(summary):
    table = {(each["what"], each["connections"]): each for each in summary["rows"]}
    proxy = table["nginx", 1]["median_ms"] - table["direct", 1]["median_ms"]
    equal = ("the upstream (one nginx worker, fixed reply), the request, wrk with one thread, kept connections; "
             "only Waystation writes to the disk")
    rows = []
    if ("litellm", 16) in table:
        theirs = table["litellm", 16]["per_s"]
        rows.append(row("the same beside LiteLLM, 16 connections: requests/s", f"{summary['per_s_16']:,.0f}",
                        f"LiteLLM {theirs:,.0f}", summary["per_s_16"] / theirs, "", None, equal))
    return [
        row("through the upstream path, 1 connection: added median", f"{summary['added_ms']:.3f} ms",
            f"nginx + {proxy:.3f} ms", None,
            f"<= 2 x fdatasync + 0.10 = {summary['bar_added_ms']:.3f} ms",
            summary["added_ms"] <= summary["bar_added_ms"], equal),
        row("the same, 16 connections: requests/s", f"{summary['per_s_16']:,.0f}",
            f"nginx {table['nginx', 16]['per_s']:,.0f}", summary["per_s_16"] / table["nginx", 16]["per_s"],
            f">= {summary['bar_per_s_16']:,}", summary["per_s_16"] >= summary["bar_per_s_16"], equal), *rows]


def show(summary, binary):
    names = {"direct": "direct", "nginx": "nginx as a proxy", "waystation": "Waystation, fsync on",
             "litellm": "LiteLLM"}
    print(f"\n{machine()}; {first_line(['nginx', '-v'])}; {first_line(['wrk', '-v'])}; "
          f"waystation {first_line([binary, '--version'])}")
    print(f"fdatasync after 1 KiB: {summary['sync_ms']:.3f} ms (median)\n")
    print("| | connections | median ms | p99 ms | requests/s | errors |")
    print("| --- | --- | --- | --- | --- | --- |")
    for each in summary["rows"]:
        print(f"| {names[each['what']]} | {each['connections']} | {each['median_ms']:.3f} | "
              f"{each['p99_ms']:.3f} | {each['per_s']:,.0f} | {each['errors']} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=str(BIN))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--folder", default=str(ROOT / "build"), help="on the disk to measure")
    parser.add_argument("--out", help="write the rows as JSON")
    options = parser.parse_args()
    for tool in ("wrk", "nginx"):
        if shutil.which(tool) is None and not pathlib.Path("/usr/sbin", tool).exists():
            sys.exit(f"gateway: {tool} is missing: apt-get install wrk nginx-light")
    os.environ["PATH"] += ":/usr/sbin"
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="gateway-") as made:
        folder = pathlib.Path(made)
        script = folder / "post.lua"
        script.write_text(WRK_SCRIPT.format(body=REQUEST))
        with contextlib.ExitStack() as stack:
            ports = start_all(stack, folder, options.bin)
            for port in ports.values():  # warm up
                load(port, 16, 1, script)
            results, syncs = measure(ports, options.runs, options.seconds, script, folder)
    summary = summarise(results, syncs)
    show(summary, options.bin)
    write_rows(rows_of(summary), options.out)
    return 1 if any(each["errors"] for each in summary["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
