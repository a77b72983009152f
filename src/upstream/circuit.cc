// When an upstream gets work: the circuit, pauses, probes, and what is due in time.
#include <algorithm>
#include <limits>
#include <utility>

#include "base/log.h"
#include "upstream/probe.h"
#include "upstream/virtual_worker.h"

namespace waystation::upstream {
namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kCheckMs = 1'000;  // deadlines are looked at this often at least
constexpr std::int64_t kTickMs = 20;      // and not more often
constexpr TimeMs kDrainedMs = 1'000;      // before it joins again, if the server is still there
constexpr TimeMs kProbeTimeoutMs = 10'000;

}  // namespace

void VirtualWorker::note_failure(const Verdict& verdict) {
  if (verdict.counts) ++failures_;
  if (state_ != State::kJoined) return;
  if (verdict.opens || failures_ >= options_.breaker_failures) open_circuit(verdict.error.message);
}

void VirtualWorker::open_circuit(const std::string& why) {
  WS_LOG(warn, "upstream circuit open upstream={} failures={} reason=\"{}\"", options_.name,
         failures_, why);
  metrics_.opened.add();
  state_ = State::kProbing;
  resume_at_ms_ = now_ms() + jittered(backoff_ms_);
  due(resume_at_ms_);
  leave("its circuit is open", true);
}

void VirtualWorker::pause(TimeMs ms, const std::string& why) {
  if (state_ == State::kProbing || state_ == State::kStopped) return;
  const std::int64_t until_ms = now_ms() + ms;
  if (state_ == State::kPaused) {
    resume_at_ms_ = std::max(resume_at_ms_, until_ms);
    return;
  }
  WS_LOG(info, "upstream paused upstream={} ms={} reason=\"{}\"", options_.name, ms, why);
  state_ = State::kPaused;
  resume_at_ms_ = until_ms;
  due(until_ms);
  leave("paused: " + why, false);
}

void VirtualWorker::probe() {
  resume_at_ms_ = kNever;
  probe_ = std::make_shared<Probe>(
      [this](int status, const std::string& why) { on_probed(status, why); });
  probe_->request.head = "GET " + client_->url().path + "/models HTTP/1.1\r\n" + head_ +
                         "Accept: application/json\r\n\r\n";
  probe_->timeouts = {std::min(options_.connect_timeout_ms, kProbeTimeoutMs), kProbeTimeoutMs,
                      kProbeTimeoutMs, 2 * kProbeTimeoutMs};
  due(now_ms() + std::min(probe_->timeouts.connect_ms, kCheckMs));
  client_->start(probe_);
}

// Any answer will do, since not every server has the list of models, but for those that promise
// that no call can go well.
void VirtualWorker::on_probed(int status, const std::string& why) {
  probe_.reset();
  if (state_ != State::kProbing) return;
  const bool refused = status == 401 || status == 403 || status == 429;
  if (status >= 200 && status < 500 && !refused && why.empty()) {
    // After a failure it is on probation: the next one opens the circuit again.
    failures_ = failures_ > 0 ? options_.breaker_failures - 1 : 0;
    backoff_ms_ = options_.probe_min_ms;
    join();
    return;
  }
  const TimeMs wait_ms = jittered(backoff_ms_);
  WS_LOG(warn, "upstream not usable upstream={} status={} retry_ms={} reason=\"{}\"", options_.name,
         status, wait_ms,
         status == 401 || status == 403 ? "it refused our key"
         : why.empty()                  ? "it answered with an error"
                                        : why);
  failures_ = std::max<std::uint32_t>(failures_, 1);
  backoff_ms_ = std::min(backoff_ms_ * 2, options_.probe_max_ms);
  resume_at_ms_ = now_ms() + wait_ms;
  due(resume_at_ms_);
}

void VirtualWorker::tend(std::int64_t now) {
  due_ms_ = client_->check_deadlines(now);
  metrics_.connections.set(static_cast<double>(client_->connection_count()));
  flush();
  std::vector<link::ConnectionId> empty;
  for (auto& [connection, session] : sessions_) {
    if (session.leaving && session.calls.empty()) {
      empty.push_back(connection);
      continue;
    }
    v1::Heartbeat load;
    load.set_active(static_cast<std::uint32_t>(session.calls.size()));
    if (auto beat = session.rules.heartbeat(load, now)) {
      events_->on_message(connection, std::move(*beat));
    }
    // The server is in this process: its silence is no reason to leave, nor to ask all the time.
    due(session.rules.joined() ? std::max(session.rules.next_due_ms(), now + kTickMs)
                               : now + kCheckMs);
  }
  for (const link::ConnectionId connection : empty) {
    sessions_.erase(connection);
    events_->on_disconnected(connection, "left");
    if (current_ == connection) {  // drained by the server, which is about to end
      current_.reset();
      pause(kDrainedMs, "drained");
    }
  }
  if (state_ == State::kProbing && probe_ == nullptr) {
    if (now >= resume_at_ms_) {
      probe();
    } else {
      due(resume_at_ms_);
    }
  } else if (state_ == State::kPaused) {
    if (now >= resume_at_ms_) {
      join();
    } else {
      due(resume_at_ms_);
    }
  }
  if (client_->connection_count() > client_->idle_count()) due(now + kCheckMs);
}

}  // namespace waystation::upstream
