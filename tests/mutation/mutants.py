"""Deliberate bugs. Each takes one thing out that keeps an invariant; the simulator must notice, or
the test program that the mutant names: queues, damaged files and single layers of a defence in
depth are no business of the simulator's.

An edit is (file, text to find, text instead). The text must stand in the file exactly once: when
the code has changed, the list has to follow it.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutant:
    name: str
    what: str
    edits: tuple
    test: str = ""  # the program, in its build folder; "": the simulator


GATE = "src/broker/gate.h"
API = "src/broker/api.cc"
JOURNAL = "src/journal/file_journal.cc"
CHECKPOINTS = "src/journal/checkpoint_store.cc"
FORMAT = "src/journal/format.cc"
READER = "src/journal/segment_reader.cc"
SCAN = "src/journal/log_scan.cc"
WRITER = "src/journal/segment_writer.cc"
LEDGER = "src/ledger/ledger.cc"
RUNNING = "src/ledger/running.cc"
APPLY = "src/ledger/apply.cc"
LETTERS = "src/ledger/dead_letters.cc"
SESSION = "src/link/server_session.cc"
WORKER_SESSION = "src/link/worker_session.cc"
QUEUES = "src/queue/ledger.cc"
QUEUES_APPLY = "src/queue/apply.cc"
SCHEDULE = "src/queue/schedule.cc"
STATION = "src/queue/station.cc"

JOURNAL_TEST = "src/journal/journal_test"
JOURNAL_MODEL = "src/journal/journal_model_test"
SYNC_TEST = "src/journal/journal_sync_test"
LEDGER_TEST = "src/ledger/ledger_test"
LINK_TEST = "src/link/link_test"
QUEUE_TEST = "src/queue/queue_test"
QUEUE_MODEL = "src/queue/queue_model_test"

MUTANTS = (
    Mutant("gate-open", "effects are released before their records are durable", (
        (GATE, "} else if (waiting_.empty() && seen <= durable_) {",
         "} else if (seen.value + 1 > 0) {"),)),
    Mutant("no-fdatasync", "a group is reported durable without a sync", (
        (JOURNAL, "  if (auto synced = writer_->sync(); !synced) return synced;\n  metrics_",
         "  metrics_"),)),
    Mutant("no-folder-sync", "a new segment's name is not synced", (
        (WRITER,
         "  if (auto synced = file_system_.sync_dir(dir_); !synced) return synced;\n  segment_->pin",
         "  segment_->pin"),)),
    Mutant("checkpoint-unsynced", "a checkpoint is renamed before its content is synced", (
        (CHECKPOINTS,
         "    if (auto synced = (*file)->sync(); !synced) return synced;\n", ""),)),
    Mutant("write-again-after-failure", "the journal goes on after a failed write", (
        (JOURNAL, "    failed_ = true;\n", ""),)),
    Mutant("no-payload-crc", "a batch's payload is not checked", (
        (READER,
         'if (crc32c(stored) != header->payload_crc) return bad("a batch\'s payload is damaged");',
         ""),)),
    Mutant("damage-is-a-torn-tail", "whatever follows the first bad batch is cut", (
        (SCAN,
         "  if (!tail->proof_offset) return std::optional<Damage>();\n",
         "  return std::optional<Damage>();\n"),)),
    Mutant("segment-unsynced", "a segment is renamed before its content is synced", (
        (WRITER, "  if (auto synced = file_->sync(); !synced) return synced;\n", ""),)),
    Mutant("checkpoint-name-unsynced", "a checkpoint's name is not synced", (
        (CHECKPOINTS, "  if (auto synced = file_system_.sync_dir(dir_); !synced) return synced;\n",
         ""),), JOURNAL_MODEL),
    Mutant("mark-unsynced", "the mark of a clean stop is not synced", (
        (JOURNAL, "  if (auto wrote = writer_->write(mark); !wrote) return wrote;\n"
                  "  return writer_->sync();\n",
         "  return writer_->write(mark);\n"),), JOURNAL_TEST),
    Mutant("sealed-unsynced", "with `durability = os` a segment is left before it is synced", (
        (JOURNAL, "  if (synced_index_.value < durable_index_) {\n"
                  "    if (auto synced = sync_to(durable_index()); !synced) return synced;\n  }\n"
                  "  if (auto sealed",
         "  if (auto sealed"),), JOURNAL_TEST),
    Mutant("checkpoint-before-records", "with `durability = os` a checkpoint doesn't wait for a sync", (
        (JOURNAL, "    if (synced_index_ < checkpoint.index && !failed_) {", "    if (false) {"),),
        JOURNAL_TEST),
    Mutant("file-sync-is-none", "the system is not asked to sync a file's content", (
        ("src/journal/posix_file_system.cc",
         "    if (::fdatasync(fd_.get()) != 0) return os_error(\"sync\", path_, errno);\n", ""),),
        SYNC_TEST),
    Mutant("full-sync-is-none", "the system is not asked to sync a file", (
        ("src/journal/posix_file_system.cc",
         "    if (::fsync(fd_.get()) != 0) return os_error(\"sync\", path_, errno);\n", ""),),
        SYNC_TEST),
    Mutant("folder-sync-is-none", "the system is not asked to sync a folder", (
        ("src/journal/posix_file_system.cc",
         "  if (::fsync(fd.get()) != 0) return os_error(\"sync\", dir, errno);\n", ""),),
        SYNC_TEST),
    Mutant("new-folder-unsynced", "the name of the journal's own folder is not synced", (
        ("src/journal/posix_file_system.cc",
         "    if (auto synced = sync_dir(path.parent_path().string()); !synced) return synced;\n",
         "    (void)path;\n"),), SYNC_TEST),
    Mutant("removal-unsynced", "that a segment was removed is not synced before the next one is", (
        (JOURNAL, "    if (auto synced = options_.file_system->sync_dir(options_.dir); !synced) "
                  "return synced;\n", ""),), JOURNAL_MODEL),
    Mutant("no-header-crc", "a batch's header is not checked", (
        (FORMAT, "  if (header.header_crc != batch_header_crc(at, journal_id)) return std::nullopt;\n",
         "  (void)journal_id;\n"),), JOURNAL_TEST),
    Mutant("no-segment-header-crc", "a segment's header is not checked", (
        (FORMAT, "  if (get<std::uint32_t>(&bytes[44]) != crc32c(bytes.substr(0, 44))) {",
         "  if (false) {"),), JOURNAL_TEST),
    Mutant("no-previous-crc", "it is not checked that a batch follows the one before it", (
        (READER, "position_.previous_crc && header->previous_crc != *position_.previous_crc", "false"),),
        JOURNAL_TEST),
    Mutant("no-segment-chain", "it is not checked that a segment follows the one before it", (
        (SCAN, "std::ranges::count(log.segments.back().end_crcs, scan.header.previous_crc) == 0",
         "false"),), JOURNAL_TEST),
    Mutant("no-checkpoint-header-crc", "a checkpoint's header is not checked", (
        (CHECKPOINTS, "  if (get<std::uint32_t>(&bytes[52]) != crc32c(bytes.substr(0, 52))) {",
         "  if (false) {"),), JOURNAL_TEST),
    Mutant("no-checkpoint-crc", "a checkpoint's state is not checked", (
        (CHECKPOINTS, "  if (crc32c(state) != get<std::uint32_t>(&bytes[48]))\n",
         "  if (false)\n"),), JOURNAL_TEST),
    Mutant("salvage-without-crc", "salvage takes payloads that are damaged", (
        ("src/journal/salvage.cc",
         "stored.size() < header->stored_bytes || crc32c(stored) != header->payload_crc",
         "stored.size() < header->stored_bytes"),), JOURNAL_TEST),
    Mutant("salvage-without-chain", "salvage doesn't tell of a batch that doesn't follow", (
        ("src/journal/salvage.cc",
         "std::ranges::count(previous_crcs_, header->previous_crc) == 0", "false"),), JOURNAL_TEST),
    Mutant("no-epoch-fence", "outputs of an earlier epoch are heard", (
        (SESSION, "output.fence().epoch() == epoch_ ? in_flight_.find(key_of(output.fence()))",
         "true ? in_flight_.find(key_of(output.fence()))"),
        (RUNNING, "id && fence.epoch() == epoch_.value ? find(*id)", "id ? find(*id)"))),
    Mutant("no-attempt-fence", "outputs of a lost attempt, or of another's, are heard", (
        (SESSION, "      heard.fenced.push_back(output.fence());\n",
         "      heard.outputs.push_back(std::move(output));\n"),
        (RUNNING, "request->attempt == fence.attempt() && request->worker == worker", "true"))),
    # Each layer alone: the other one hides it from the simulator.
    Mutant("session-epoch-fence", "a session hears outputs of an earlier epoch", (
        (SESSION, "output.fence().epoch() == epoch_ ? in_flight_.find(key_of(output.fence()))",
         "true ? in_flight_.find(key_of(output.fence()))"),), LINK_TEST),
    Mutant("session-attempt-fence", "a session hears outputs of what it hasn't in flight", (
        (SESSION, "      heard.fenced.push_back(output.fence());\n",
         "      heard.outputs.push_back(std::move(output));\n"),), LINK_TEST),
    Mutant("cancel-epoch-fence", "a session cancels what is of an earlier epoch", (
        (SESSION, "state_ != State::kJoined || fence.epoch() != epoch_)", "state_ != State::kJoined)"),),
        LINK_TEST),
    Mutant("worker-assign-fence", "a worker takes work of another epoch", (
        (WORKER_SESSION, "  if (assign.fence().epoch() != epoch_.value) return "
                         "broken(\"an Assign of another epoch\");\n", ""),), LINK_TEST),
    Mutant("worker-cancel-fence", "a worker ends what a cancel of another epoch names", (
        (WORKER_SESSION, "fence.epoch() != epoch_.value || !in_flight_", "!in_flight_"),), LINK_TEST),
    Mutant("worker-output-fence", "a worker sends outputs of an earlier epoch", (
        (WORKER_SESSION, "state_ == State::kJoined && output.fence().epoch() == epoch_.value\n",
         "state_ == State::kJoined\n"),), LINK_TEST),
    Mutant("ledger-epoch-fence", "the ledger hears outputs of an earlier epoch", (
        (RUNNING, "id && fence.epoch() == epoch_.value ? find(*id)", "id ? find(*id)"),), LEDGER_TEST),
    Mutant("ledger-attempt-fence", "the ledger hears outputs of a lost attempt", (
        (RUNNING, "request->attempt == fence.attempt() && request->worker", "request->worker"),),
        LEDGER_TEST),
    Mutant("ledger-owner-fence", "the ledger hears outputs of whoever knows the fence", (
        (RUNNING, "request->attempt == fence.attempt() && request->worker == worker",
         "request->attempt == fence.attempt() && worker.value + 1 > 0"),), LEDGER_TEST),
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
        (RUNNING, "  if (request.begun()) {\n    for (const Choice& choice : request.choices) write",
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

    # ---- queues ----------------------------------------------------------------------------------
    Mutant("queue-lease-again", "a lease's number is given again after a restart", (
        (QUEUES, "  next_lease_ = epoch_ << 40;\n", "  next_lease_ = 1;\n"),), QUEUE_MODEL),
    Mutant("queue-lease-without-end", "a lease that ran out holds on", (
        (QUEUES, "  while (!lease_ends_.empty() && lease_ends_.begin()->first <= now_ms) {",
         "  while (false) {"),), QUEUE_MODEL),
    Mutant("queue-lease-of-another", "a lease settles what another one holds", (
        (QUEUES, "      if (holder == left.end()) return lease_ended();\n",
         "      if (holder == left.end()) continue;\n"),), QUEUE_MODEL),
    Mutant("queue-lease-elsewhere", "a lease of another queue is taken for one of this", (
        (QUEUES, "  if (found == leases_.end() || found->second.queue != key.queue) return lease_ended();\n"
                 "  Lease& lease = found->second;\n  Queue&",
         "  if (found == leases_.end()) return lease_ended();\n"
         "  Lease& lease = found->second;\n  Queue&"),), QUEUE_MODEL),
    Mutant("queue-extend-elsewhere", "a lease of another queue is extended", (
        (QUEUES, "  if (found == leases_.end() || found->second.queue != key.queue) return lease_ended();\n"
                 "  Lease& lease = found->second;\n  lease_ends_",
         "  if (found == leases_.end()) return lease_ended();\n"
         "  Lease& lease = found->second;\n  lease_ends_"),), QUEUE_MODEL),
    Mutant("queue-no-key-lookup", "an idempotency key is never found", (
        (QUEUES, "bound != queue->keys.end()) {", "bound != queue->keys.end() && false) {"),),
        QUEUE_MODEL),
    Mutant("queue-no-fingerprint", "a key is taken for whatever is sent with it", (
        (QUEUES, "      if (bound->second.fingerprint != publication.fingerprint) {",
         "      if (false) {"),), QUEUE_MODEL),
    Mutant("queue-key-forgotten-early", "a key is forgotten in half its time", (
        (QUEUES_APPLY, "queue.key_order.front().first + limits_.key_ttl_ms <= now_ms",
         "queue.key_order.front().first + limits_.key_ttl_ms / 2 <= now_ms"),), QUEUE_MODEL),
    Mutant("queue-no-lane-guard", "messages of one lane are out at once", (
        (SCHEDULE, "  if (lane.current == 0) promote(lane);\n", "  promote(lane);\n"),), QUEUE_MODEL),
    Mutant("queue-blocked-lane-goes-on", "a lane goes on although its dead letter blocks it", (
        (QUEUES_APPLY, "queue->settings.dead_blocks && !options.lane.empty();", "false;"),), QUEUE_MODEL),
    Mutant("queue-given-before-durable", "a message is given before its record is durable", (
        (QUEUES_APPLY, "pending_.front().index <= durable) {", "durable.value + 1 > 0) {"),), QUEUE_MODEL),
    Mutant("queue-gate-open", "a call is answered before its records are durable", (
        ("src/queue/turn.h", "  if (gate_.empty() && waiting.seen <= durable_) {",
         "  if (waiting.seen.value + 1 > 0) {"),), QUEUE_TEST),
    Mutant("queue-goes-on-after-failure", "the station goes on after its journal failed", (
        (STATION, "  failure_ = error;\n", ""),), QUEUE_TEST),
    Mutant("queue-no-bound", "a queue takes more than its limit", (
        (QUEUES, "queue->live + count > limits_.queue_messages_max ||", "false ||"),), QUEUE_MODEL),
    Mutant("queue-no-bytes-bound", "a queue takes more bytes than its limit", (
        (QUEUES, "queue->bytes + bytes > limits_.queue_bytes_max)", "false)"),), QUEUE_TEST),
    Mutant("queue-no-server-bound", "all queues together take more than their limit", (
        (QUEUES, "  if (totals_.messages + count > limits_.messages_max ||", "  if (false ||"),),
        QUEUE_TEST),
    Mutant("queue-no-key-bound", "the queues take more keys than their limit", (
        (QUEUES, "totals_.keys >= limits_.keys_max", "false"),), QUEUE_TEST),
    Mutant("queue-tenants-mixed", "a queue belongs to whoever knows its name", (
        (QUEUES, "  if (const auto found = names_.find({tenant, name}); found != names_.end()) return",
         "  if (const auto found = std::find_if(\n"
         "          names_.begin(), names_.end(),\n"
         "          [&](const auto& each) { return each.first.second == name; });\n"
         "      found != names_.end())\n    return"),
        (QUEUES, "  const auto found = names_.find({tenant, name});\n",
         "  const auto found = std::find_if(names_.begin(), names_.end(), [&](const auto& each) {\n"
         "    return each.first.second == name;\n  });\n"),
        ("src/queue/snapshot.cc", "  const auto found = names_.find({tenant, name});\n",
         "  (void)tenant;\n"
         "  const auto found = std::find_if(names_.begin(), names_.end(), [&](const auto& each) {\n"
         "    return each.first.second == name;\n  });\n")), QUEUE_MODEL),
    Mutant("queue-never-dead", "a message gets one attempt more than it may have", (
        (QUEUES, "counts && failures >= queue.settings.attempts_max ? dead",
         "counts && failures > queue.settings.attempts_max ? dead"),), QUEUE_MODEL),
    Mutant("queue-attempts-uncounted", "an attempt that fails isn't counted", (
        (QUEUES_APPLY, "    if (body.counts) fail_part(*queue, frame, part);\n", ""),), QUEUE_MODEL),
    Mutant("queue-dead-given", "after a restart dead letters are given", (
        (QUEUES_APPLY, "if (frame.is_settled(id) || queue.dead.contains(id)) continue;",
         "if (frame.is_settled(id)) continue;"),), QUEUE_MODEL),
    Mutant("queue-settled-given", "after a restart messages are given that were settled", (
        (QUEUES_APPLY, "if (frame.is_settled(id) || queue.dead.contains(id)) continue;",
         "if (queue.dead.contains(id)) continue;"),), QUEUE_MODEL),
    Mutant("queue-no-delay", "a message is given before its time", (
        (SCHEDULE, "  if (how.not_before_ms == 0) {", "  if (how.not_before_ms >= 0) {"),), QUEUE_MODEL),
    Mutant("queue-checkpoint-half-read",
           "of a checkpoint it is not read how often a message has failed", (
        ("src/queue/snapshot.cc", "  frame.failures = each_of(reader, frame.count);\n",
         "  (void)each_of(reader, frame.count);\n"),), QUEUE_MODEL),
    Mutant("queue-removed-early", "a segment goes that holds messages which are still there", (
        (STATION, "journal_->remove_below(snapshot.needed)",
         "journal_->remove_below({snapshot.index.value + 1})"),), QUEUE_TEST),
)
