#!/usr/bin/env python3
"""Publishes to a queue of Waystation, or works on it. See docs/queue.md.

    python -m grpc_tools.protoc -I src --python_out=. --grpc_python_out=. src/message/proto/queue.proto
    python examples/queue_worker.py 127.0.0.1:8081 mails publish one two three
    python examples/queue_worker.py 127.0.0.1:8081 mails work [--for-seconds SECONDS]

With API keys: WAYSTATION_API_KEY in the environment.
"""

import argparse
import os
import queue
import sys

import grpc

sys.path.insert(0, os.getcwd())  # where protoc wrote its two files
from message.proto import queue_pb2, queue_pb2_grpc  # noqa: E402


def metadata():
    key = os.environ.get("WAYSTATION_API_KEY")
    return [("authorization", f"Bearer {key}")] if key else None


def publish(stub, name, payloads):
    """Returns the ids. Try again with the same key after an error: it is published once."""
    frame = queue_pb2.PublishFrame(queue=name, number=1, payload=[p.encode() for p in payloads],
                                   idempotency_key=os.urandom(16).hex())
    for receipts in stub.Publish(iter([frame]), metadata=metadata()):
        for receipt in receipts.receipts:
            if receipt.HasField("error"):
                raise SystemExit(f"{receipt.error.code}: {receipt.error.message}")
            return list(range(receipt.first, receipt.first + receipt.count))
    raise SystemExit("the server closed the stream")


def work(stub, name, handle, for_seconds=None):
    """Calls handle(id, attempt, payload) for each message; one that raises comes again in a second."""
    requests = queue.SimpleQueue()
    requests.put(queue_pb2.ConsumeRequest(
        number=1, open=queue_pb2.Open(queue=name, window=100, lease_ms=30_000)))
    call = stub.Consume(iter(requests.get, None), metadata=metadata(), timeout=for_seconds)
    number = 1
    try:
        for delivery in call:
            for error in delivery.errors:  # the lease had ended: others get these messages
                print(f"request {error.number}: {error.error.message}", file=sys.stderr)
            ids = [(run.first + i, run.attempt) for run in delivery.runs for i in range(run.count)]
            settles = []
            for (message, attempt), payload in zip(ids, delivery.payload):
                one = [queue_pb2.IdRange(first=message, count=1)]
                try:
                    handle(message, attempt, payload)
                    settles.append(queue_pb2.Settle(lease=delivery.lease, ranges=one))
                except Exception as error:  # pylint: disable=broad-except
                    settles.append(queue_pb2.Settle(
                        outcome=queue_pb2.OUTCOME_NACK, lease=delivery.lease, ranges=one, ms=1000,
                        reason=str(error)))
            if settles:
                number += 1
                requests.put(queue_pb2.ConsumeRequest(number=number, settle=settles))
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
            raise


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server")
    parser.add_argument("queue")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("publish").add_argument("payload", nargs="+")
    commands.add_parser("work").add_argument("--for-seconds", type=float)
    arguments = parser.parse_args()
    with grpc.insecure_channel(arguments.server) as channel:
        stub = queue_pb2_grpc.QueuesStub(channel)
        if arguments.command == "publish":
            print(*publish(stub, arguments.queue, arguments.payload))
        else:
            work(stub, arguments.queue,
                 lambda message, attempt, payload: print(message, attempt, payload.decode(),
                                                         flush=True),
                 arguments.for_seconds)


if __name__ == "__main__":
    main()
