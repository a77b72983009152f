// Helpers of the ledger's tests.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/ledger.h"

namespace waystation::ledger::testing {

inline constexpr TimeMs kStartMs = 1'800'000'000'000;

// A new request's envelope; `number` makes its id.
inline v1::Envelope make_envelope(std::uint64_t number, TimeMs now_ms,
                                  std::string conversation = "", std::string tenant = "acme",
                                  std::string model = "small") {
  v1::Envelope envelope;
  envelope.set_id(RequestId::make(now_ms, 0, number).to_string());
  envelope.set_tenant(std::move(tenant));
  envelope.set_model(std::move(model));
  envelope.set_partitionkey(std::move(conversation));
  envelope.set_data("body");
  return envelope;
}

inline std::string bytes_of(const v1::LedgerSnapshot& snapshot) {
  return snapshot.SerializeAsString();
}

inline std::string bytes_of(const Effect& effect) {
  if (const auto* start = std::get_if<StartWork>(&effect)) {
    return "start " + std::to_string(start->worker.value) + start->assign.SerializeAsString();
  }
  const auto& stop = std::get<StopWork>(effect);
  return "stop " + std::to_string(stop.worker.value) + stop.fence.SerializeAsString();
}

inline std::string bytes_of(const Proposal& proposal) {
  std::string all;
  for (const v1::Record& record : proposal.records) all += record.SerializeAsString() + '|';
  for (const Effect& effect : proposal.effects) all += bytes_of(effect) + '|';
  return all;
}

// The seeds of random runs: WAYSTATION_SEED replays a single one, WAYSTATION_SEEDS makes it so
// many.
inline std::vector<std::uint64_t> seeds(std::uint64_t first, std::uint64_t count) {
  if (const char* replay = std::getenv("WAYSTATION_SEED")) return {std::stoull(replay)};
  if (const char* many = std::getenv("WAYSTATION_SEEDS")) count = std::stoull(many);
  std::vector<std::uint64_t> all;
  for (std::uint64_t i = 0; i < count; ++i) all.push_back(first + i);
  return all;
}

// The run was asked for from outside, so nothing can be said of how often something happens in it.
inline bool other_seeds() {
  return std::getenv("WAYSTATION_SEED") != nullptr || std::getenv("WAYSTATION_SEEDS") != nullptr;
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t below(std::uint64_t bound) { return bound == 0 ? 0 : engine_() % bound; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  template <typename T>
  const T& pick(const std::vector<T>& from) {
    return from[below(from.size())];
  }

 private:
  std::mt19937_64 engine_;
};

// Adds what an event says of the tokens used; written again here so that the ledger's own sum is
// checked against another.
inline void count_usage(const v1::Event& event, v1::Usage& usage) {
  if (event.has_usage() && event.kind() != v1::EVENT_KIND_USAGE) usage = event.usage();
  if (event.kind() != v1::EVENT_KIND_DELTA) return;
  usage.set_completion_tokens(usage.completion_tokens() +
                              static_cast<std::uint32_t>(event.token_ids_size()) +
                              event.text_tokens());
  usage.set_reasoning_tokens(usage.reasoning_tokens() + event.reasoning_tokens());
}

// Reads a log by itself, without a ledger, and says what is wrong with it ("" = nothing): lanes in
// order with one in flight and none in a blocked one, dead letters dealt with once, attempts and
// events without gaps, one terminal record each.
class Audit {
 public:
  struct Entry {
    std::string lane;
    bool stream_usage = false;
    std::uint32_t attempt = 0;
    bool running = false;
    int ends = 0;
    std::uint32_t failed = 0;
    v1::RequestState state = v1::REQUEST_STATE_QUEUED;
    std::vector<v1::Event> events;
    std::vector<bool> finished;  // by choice
    bool block_on_dead = false;
    bool dealt_with = false;  // a dead letter: requeued, discarded or erased
    bool blocks() const { return state == v1::REQUEST_STATE_DEAD && block_on_dead && !dealt_with; }
    bool all_finished() const {
      return std::find(finished.begin(), finished.end(), false) == finished.end();
    }
  };

  std::string read(const v1::Record& record) {
    switch (record.body_case()) {
      case v1::Record::kEpochStarted:
        for (auto& [id, entry] : entries) entry.running = false;
        return "";
      case v1::Record::kAccepted:
        return accepted(record.accepted());
      case v1::Record::kLeased:
        return leased(record.leased());
      case v1::Record::kAppended:
        return appended(record.appended());
      case v1::Record::kAttemptEnded:
        return attempt_ended(record.attempt_ended());
      case v1::Record::kSettled:
        return settled(record.settled());
      case v1::Record::kErased:
        entries[record.erased().request()].events.clear();
        entries[record.erased().request()].dealt_with = true;
        return entries[record.erased().request()].ends == 1 ? "" : "an erasure of what is live";
      case v1::Record::kDiscarded:
        return dealt_with(record.discarded().request());
      case v1::Record::kForgotten:
        for (const std::string& id : record.forgotten().requests()) {
          if (entries[id].blocks()) return "forgetting what blocks a lane";
        }
        return "";
      default:
        return "";
    }
  }

  std::string read_all(const std::vector<v1::Record>& records) {
    for (std::size_t i = 0; i < records.size(); ++i) {
      const std::string fault = read(records[i]);
      if (!fault.empty()) {
        return "record " + std::to_string(i + 1) + ": " + fault + "\n" + records[i].DebugString();
      }
    }
    return "";
  }

  // Every accepted request has ended.
  std::string all_ended() const {
    for (const auto& [id, entry] : entries) {
      if (entry.ends != 1) return "a request has " + std::to_string(entry.ends) + " ends";
    }
    return "";
  }

  std::map<std::string, Entry> entries;                   // by id bytes
  std::map<std::string, std::vector<std::string>> lanes;  // all their requests, in order

 private:
  std::string accepted(const v1::Accepted& body) {
    const auto id = RequestId::parse(body.envelope().id());
    if (!id || entries.contains(id->to_bytes())) return "accepted twice";
    Entry& entry = entries[id->to_bytes()];
    entry.stream_usage = body.stream_usage();
    entry.finished.assign(body.choices() == 0 ? 1 : body.choices(), false);
    entry.lane = body.envelope().partitionkey().empty()
                     ? id->to_string()
                     : body.envelope().tenant() + "/" + body.envelope().partitionkey();
    entry.block_on_dead = body.block_on_dead();
    auto& lane = lanes[entry.lane];
    auto place = body.first_in_lane() ? lane.begin() : lane.end();
    if (!body.requeue_of().empty()) {
      const Entry& letter = entries[body.requeue_of()];
      if (letter.lane != entry.lane && !body.envelope().partitionkey().empty()) {
        return "a dead letter requeued in another lane";
      }
      if (letter.blocks()) place = std::find(lane.begin(), lane.end(), body.requeue_of());
      if (const std::string fault = dealt_with(body.requeue_of()); !fault.empty()) return fault;
    }
    lane.insert(place, id->to_bytes());
    return "";
  }

  std::string dealt_with(const std::string& id) {
    Entry& letter = entries[id];
    if (letter.state != v1::REQUEST_STATE_DEAD) return "requeueing or discarding what isn't dead";
    if (letter.dealt_with) return "a dead letter that was dealt with twice";
    letter.dealt_with = true;
    return "";
  }

  std::string leased(const v1::Leased& body) {
    Entry& entry = entries[body.request()];
    if (entry.running || entry.ends > 0) return "a lease of what runs or has ended";
    if (body.attempt() != entry.attempt + 1) return "attempts with a gap";
    for (const std::string& other : lanes[entry.lane]) {
      if (other == body.request()) break;
      if (entries[other].ends == 0) return "a lease out of the lane's order";
      if (entries[other].blocks()) return "a lease in a blocked lane";
    }
    entry.attempt = body.attempt();
    entry.running = true;
    return "";
  }

  std::string appended(const v1::Appended& body) {
    Entry& entry = entries[body.request()];
    if (!entry.running || body.attempt() != entry.attempt) return "events of another attempt";
    if (body.first_sequence() != entry.events.size()) return "a gap in the events";
    if (entry.events.empty() && body.events_size() < static_cast<int>(entry.finished.size())) {
      return "not all choices start at once";
    }
    for (const v1::Event& event : body.events()) {
      if (const std::string fault = next_event(entry, event); !fault.empty()) return fault;
      entry.events.push_back(event);
    }
    // The last events come with the last finish: a log that is cut in between would miss them.
    const bool wants_usage = entry.stream_usage && entry.all_finished();
    if (wants_usage != (entry.events.back().kind() == v1::EVENT_KIND_USAGE)) {
      return "USAGE isn't in the record of the last FINISH";
    }
    return "";
  }

  static std::string next_event(Entry& entry, const v1::Event& event) {
    const std::size_t choices = entry.finished.size();
    if (event.choice() >= choices) return "an event of a choice too many";
    // The first events are the starts of the choices, in their order.
    const bool is_start = event.kind() == v1::EVENT_KIND_START;
    if (is_start != (entry.events.size() < choices)) return "STARTs aren't first";
    if (is_start && event.choice() != entry.events.size()) return "STARTs out of order";
    if (is_start) return "";
    if (entry.events.back().kind() == v1::EVENT_KIND_USAGE) return "events after USAGE";
    if (event.kind() == v1::EVENT_KIND_USAGE) {
      if (!entry.stream_usage) return "USAGE that nobody asked for";
      if (!entry.all_finished()) return "USAGE before the last FINISH";
      v1::Usage usage;
      for (const v1::Event& earlier : entry.events) count_usage(earlier, usage);
      if (usage.SerializeAsString() != event.usage().SerializeAsString()) {
        return "USAGE doesn't say what the events before it add up to";
      }
      return "";
    }
    if (entry.finished[event.choice()]) return "events of a choice after its FINISH";
    if (event.kind() == v1::EVENT_KIND_FINISH) {
      if (event.finish_reason().empty()) return "FINISH without a reason";
      entry.finished[event.choice()] = true;
    } else if (event.kind() != v1::EVENT_KIND_DELTA) {
      return "an event of no kind";
    }
    return "";
  }

  std::string attempt_ended(const v1::AttemptEnded& body) {
    Entry& entry = entries[body.request()];
    if (!entry.running || body.attempt() != entry.attempt) {
      return "the end of an attempt that doesn't run";
    }
    if (entry.all_finished()) return "the end of an attempt that had finished";
    if (body.cause() == v1::ATTEMPT_END_UNSPECIFIED) return "an attempt that ended for no cause";
    if (body.cause() == v1::ATTEMPT_END_ENGINE_ERROR && !body.counts()) return "an uncounted error";
    if (body.cause() == v1::ATTEMPT_END_RETURNED && body.counts()) return "a return that counts";
    entry.running = false;
    entry.failed += body.counts() ? 1 : 0;
    return "";
  }

  std::string settled(const v1::Settled& body) {
    Entry& entry = entries[body.request()];
    if (++entry.ends > 1) return "a second end";
    entry.running = false;
    entry.state = body.state();
    v1::Usage usage;
    for (const v1::Event& event : entry.events) count_usage(event, usage);
    if (body.usage().SerializeAsString() != usage.SerializeAsString()) {
      return "the usage isn't what the events add up to";
    }
    if ((body.state() == v1::REQUEST_STATE_COMPLETED) != entry.all_finished()) {
      return "completed without its last event, or with it and not completed";
    }
    if ((body.state() == v1::REQUEST_STATE_DEAD) != (entry.failed >= 3)) {
      return "dead with fewer than 3 failed attempts, or alive with 3";
    }
    return "";
  }
};

}  // namespace waystation::ledger::testing
