"""Deliberate bugs. Each takes one thing out that keeps an invariant; the simulator must notice.

An edit is (file, text to find, text instead). The text must stand in the file exactly once: when
the code has changed, the list has to follow it.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutant:
    name: str
    what: str
    edits: tuple


GATE = "src/broker/gate.h"
API = "src/broker/api.cc"
JOURNAL = "src/journal/file_journal.cc"
LEDGER = "src/ledger/ledger.cc"
APPLY = "src/ledger/apply.cc"
LETTERS = "src/ledger/dead_letters.cc"
SESSION = "src/link/server_session.cc"

MUTANTS = (
    Mutant("gate-open", "effects are released before their records are durable", (
        (GATE, "} else if (waiting_.empty() && seen <= durable_) {",
         "} else if (seen.value + 1 > 0) {"),)),
    Mutant("no-fdatasync", "a group is reported durable without a sync", (
        (JOURNAL, "  if (auto synced = writer_->sync(); !synced) return synced;\n  metrics_",
         "  metrics_"),)),
    Mutant("no-folder-sync", "a new segment's name is not synced", (
        ("src/journal/segment_writer.cc",
         "  if (auto synced = file_system_.sync_dir(dir_); !synced) return synced;\n  segment_->pin",
         "  segment_->pin"),)),
    Mutant("checkpoint-unsynced", "a checkpoint is renamed before its content is synced", (
        ("src/journal/checkpoint_store.cc",
         "    if (auto synced = (*file)->sync(); !synced) return synced;\n", ""),)),
    Mutant("write-again-after-failure", "the journal goes on after a failed write", (
        (JOURNAL, "    failed_ = true;\n", ""),)),
    Mutant("no-payload-crc", "a batch's payload is not checked", (
        ("src/journal/segment_reader.cc",
         'if (crc32c(stored) != header->payload_crc) return bad("a batch\'s payload is damaged");',
         ""),)),
    Mutant("damage-is-a-torn-tail", "whatever follows the first bad batch is cut", (
        ("src/journal/log_scan.cc",
         "  if (!tail->proof_offset) return std::optional<Damage>();\n",
         "  return std::optional<Damage>();\n"),)),
    Mutant("no-epoch-fence", "outputs of an earlier epoch are heard", (
        (SESSION, "output.fence().epoch() == epoch_ ? in_flight_.find(key_of(output.fence()))",
         "true ? in_flight_.find(key_of(output.fence()))"),
        (LEDGER, "id && fence.epoch() == epoch_.value ? find(*id)", "id ? find(*id)"))),
    Mutant("no-attempt-fence", "outputs of a lost attempt, or of another's, are heard", (
        (SESSION, "      heard.fenced.push_back(output.fence());\n",
         "      heard.outputs.push_back(std::move(output));\n"),
        (LEDGER, "request->attempt == fence.attempt() && request->worker == worker", "true"))),
    Mutant("no-key-lookup", "an idempotency key is never found", (
        (LEDGER, "if (envelope.idempotencykey().empty()) return std::optional<Accepted>();",
         "return std::optional<Accepted>();"),)),
    Mutant("key-forgotten-early", "a request is forgotten while its key binds", (
        (LEDGER, "if (!key_binds(request, now_ms) && !request.blocks_lane()) {",
         "if (!request.blocks_lane()) {"),
        (LEDGER, "!taken_above && !key_binds(*request, now_ms)", "!taken_above"))),
    Mutant("no-lane-guard", "requests of one conversation run side by side", (
        (APPLY, "      order_->remove(head_of(**at));\n    }\n"
                "    if (request.state == v1::REQUEST_STATE_QUEUED) order_->add(head_of(request));\n  }\n",
         "    }\n  }\n"
         "  if (request.state == v1::REQUEST_STATE_QUEUED) order_->add(head_of(request));\n"),
        (APPLY, "      lanes_.at(request.lane).requests.front() != &request) {", "      false) {"),
        (APPLY, "      order_->add(head_of(*requests.front()));\n", ""),
        (APPLY, "    requests.erase(std::find(requests.begin(), requests.end(), &request));",
         "    if (request.state == v1::REQUEST_STATE_QUEUED) order_->remove(head_of(request));\n"
         "    requests.erase(std::find(requests.begin(), requests.end(), &request));"))),
    Mutant("blocked-lane-goes-on", "a lane goes on although its dead letter blocks it", (
        (LETTERS, "  join_lane(request);\n", ""), (LETTERS, "  leave_lane(request);\n", ""))),
    Mutant("requeued-at-the-end", "what is made of a dead letter doesn't take its place", (
        (APPLY, "    request->place = first.place;\n", ""),)),
    Mutant("no-resume", "a next attempt starts its answer again", (
        (LEDGER, "  if (request.begun()) {\n    for (const Choice& choice : request.choices) write",
         "  if (false) {\n    for (const Choice& choice : request.choices) write"),)),
    Mutant("no-queue-bound", "the queue takes more than its limit", (
        (LEDGER, "if (queued_.size() + running_count_ + blocking_.size() >= room.requests) {",
         "if (false) {"),)),
    Mutant("tenants-mixed", "a request is shown to whoever knows its id", (
        (LEDGER, "if (request != nullptr && request->tenant == tenant) {",
         "if (request != nullptr) {"),)),
    Mutant("checkpoint-half-read", "of a checkpoint it is not read how often a request has failed", (
        ("src/ledger/snapshot.cc",
         "  request->failed_attempts = in.failed_attempts();\n", ""),)),
    Mutant("reader-of-a-carried-request", "a reader doesn't wait for the carried record", (
        (API, "if (positions.empty() && request->event_count > 0) {", "if (false) {"),
        (API, "} else if (loaded < request->event_count) {", "} else if (false) {"))),
    Mutant("removed-before-durable", "a segment is removed before what makes it superfluous is durable", (
        ("src/broker/housekeeping.cc",
         "    when_durable([this, below](const Error* lost) {\n"
         "      if (lost == nullptr) remove_below(below);\n    });\n",
         "    remove_below(below);\n"),)),
    Mutant("reader-of-a-removed-place", "a reader isn't sent to where its request was carried to", (
        (API, "request->positions.front().index != first) {", "false) {"),)),
    Mutant("replay-cut-short", "a replay that is behind is taken for the whole stream", (
        (API, "} else if (loaded < request->event_count) {", "} else if (false) {"),)),
)
