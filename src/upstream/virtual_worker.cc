#include "upstream/virtual_worker.h"

#include <algorithm>
#include <utility>

#include "base/ids.h"
#include "base/log.h"
#include "upstream/probe.h"

namespace waystation::upstream {
namespace {

constexpr std::int64_t kCheckMs = 1'000;  // deadlines are looked at this often at least
constexpr TimeMs kRejoinMs = 1'000;       // after the server ended the session
constexpr TimeMs kRefusedMs = 30'000;     // after it refused it

}  // namespace

Result<std::unique_ptr<VirtualWorker>> VirtualWorker::make(Options options, WorkerDeps deps) {
  if (Status ok = check_options(options); !ok) return ok.error();
  auto client = Client::make(deps.io, options);
  if (!client) return client.error();
  return std::unique_ptr<VirtualWorker>(
      new VirtualWorker(std::move(options), std::move(deps), std::move(*client)));
}

VirtualWorker::VirtualWorker(Options options, WorkerDeps deps, std::unique_ptr<Client> client)
    : options_(std::move(options)),
      deps_(std::move(deps)),
      client_(std::move(client)),
      head_(make_head()),
      metrics_([&]() -> Metrics {
        const auto calls = [&](const char* outcome) -> Counter& {
          return deps_.meter.counter("waystation_upstream_calls_total",
                                     "Calls to upstreams, by end",
                                     {{"upstream", options_.name}, {"outcome", outcome}});
        };
        const Labels own{{"upstream", options_.name}};
        return {
            calls("complete"),
            calls("refused"),
            calls("failed"),
            calls("cancelled"),
            calls("paused"),
            deps_.meter.counter("waystation_upstream_circuit_opened_total",
                                "Times that an upstream was found broken", own),
            deps_.meter.counter("waystation_upstream_uncounted_total",
                                "Complete answers without token counts that can be true", own),
            deps_.meter.gauge("waystation_upstream_joined", "1 while the upstream is given work",
                              own),
            deps_.meter.gauge("waystation_upstream_connections", "Open connections to the upstream",
                              own),
            deps_.meter.histogram("waystation_upstream_call_seconds", "Whole calls, by upstream",
                                  {0.005, 0.02, 0.1, 0.5, 2, 10, 60}, own)};
      }()),
      next_connection_(deps_.first_connection),
      backoff_ms_(options_.probe_min_ms) {}

VirtualWorker::~VirtualWorker() = default;

std::string VirtualWorker::make_head() const {
  const Url& url = client_->url();
  std::string head = "Host: " + url.authority + "\r\nUser-Agent: waystation/" + deps_.version +
                     "\r\nAccept-Encoding: identity\r\n";
  if (!options_.key.empty()) head += "Authorization: Bearer " + options_.key + "\r\n";
  for (const auto& [name, value] : options_.headers) head += name + ": " + value + "\r\n";
  return head;
}

v1::Hello VirtualWorker::hello() const {
  v1::Hello hello;
  hello.set_protocol(1);
  hello.set_worker_name(options_.name);
  hello.set_slots(options_.concurrency);
  hello.set_version(deps_.version);
  hello.set_wait_durable(true);
  hello.set_weight(options_.weight);
  hello.set_rank(options_.rank);
  for (const ModelRoute& route : options_.models) {
    v1::ModelInfo& model = *hello.add_models();
    model.set_id(route.name);
    model.set_engine("upstream");
    model.set_fingerprint("upstream:" + options_.name + "/" +
                          (route.theirs.empty() ? route.name : route.theirs));
    model.set_context_length(route.context_length);
    model.set_embedding_length(route.embedding_length);
    for (const std::string& task : route.tasks) model.add_tasks(task);
    model.set_prefills(options_.continuation == Continuation::kPrefill);
  }
  return hello;
}

TimeMs VirtualWorker::jittered(TimeMs ms) {
  return std::uniform_int_distribution<TimeMs>(ms / 2, ms)(random_);
}

void VirtualWorker::begin(link::ServerEvents& events) {
  events_ = &events;
  state_ = State::kProbing;
  probe();
}

// ---- The session ------------------------------------------------------------------------------

void VirtualWorker::join() {
  state_ = State::kJoined;
  const link::ConnectionId connection{next_connection_++};
  current_ = connection;
  Session& session = sessions_.try_emplace(connection, hello(), now_ms()).first->second;
  events_->on_connected(connection, link::Peer{"upstream:" + options_.name, true});
  events_->on_message(connection, session.rules.hello());
  due(now_ms() + kCheckMs);
}

// Takes no new work; what runs goes on. `give_back`: only what has begun does, the rest is given
// back, at no cost for the requests.
void VirtualWorker::leave(const std::string& reason, bool give_back) {
  metrics_.joined.set(0);
  if (!current_) return;
  const link::ConnectionId connection = *std::exchange(current_, std::nullopt);
  Session& session = sessions_.at(connection);
  session.leaving = true;
  if (auto message = session.rules.leaving(reason)) {
    events_->on_message(connection, std::move(*message));
  }
  std::vector<std::shared_ptr<Call>> idle;
  for (const auto& [key, call] : session.calls) {
    if (give_back && !call->has_begun()) idle.push_back(call);
  }
  for (const auto& call : idle) cancel_call(connection, session, call->fence());
  close_if_empty(connection);
}

void VirtualWorker::close_if_empty(link::ConnectionId connection) {
  const auto at = sessions_.find(connection);
  if (at == sessions_.end() || !at->second.leaving || !at->second.calls.empty()) return;
  due(0);  // tend() closes it, once the last outputs were sent
}

void VirtualWorker::on_closed(link::ConnectionId connection) {
  const auto at = sessions_.find(connection);
  if (at == sessions_.end()) return;
  Session session = std::move(at->second);
  sessions_.erase(at);
  for (const auto& [key, call] : session.calls) call->abort();
  events_->on_disconnected(connection, "the server closed the connection");
  if (current_ == connection) {
    current_.reset();
    pause(kRejoinMs, "the server ended the session");
  }
}

void VirtualWorker::on_message(link::ConnectionId connection, v1::ServerMessage message) {
  const auto at = sessions_.find(connection);
  if (at == sessions_.end()) return;
  Session& session = at->second;
  auto news = session.rules.on_message(std::move(message), now_ms());
  if (!news) {
    WS_LOG(warn, "upstream without session upstream={} reason=\"{}\"", options_.name,
           news.error().message);
    const bool later = link::retry_can_help(news.error().code);
    on_closed(connection);
    if (state_ == State::kPaused) resume_at_ms_ = now_ms() + (later ? kCheckMs : kRefusedMs);
    return;
  }
  if (auto* assigned = std::get_if<link::Assigned>(&*news)) {
    start_call(connection, session, std::move(assigned->assign));
  } else if (const auto* cancel = std::get_if<link::CancelAsked>(&*news)) {
    cancel_call(connection, session, cancel->fence);
  } else if (std::holds_alternative<link::Welcomed>(*news)) {
    metrics_.joined.set(session.leaving ? 0 : 1);
    WS_LOG(info, "upstream joined upstream={} url={}", options_.name, options_.url);
    if (session.leaving) {  // it changed its mind before the server had answered
      if (auto leaving = session.rules.leaving("left while it joined")) {
        events_->on_message(connection, std::move(*leaving));
      }
    }
    due(now_ms());
  } else if (std::holds_alternative<link::DrainAsked>(*news)) {
    session.leaving = true;
    close_if_empty(connection);
  }
}

// ---- Calls ------------------------------------------------------------------------------------

// The key binds a second sending of the same attempt to the first, where the upstream knows such
// keys. One that is a Waystation would let a request with a key go on without us: not this one.
std::string VirtualWorker::call_head(const v1::Assign& assign, const Body& body) const {
  const auto id = RequestId::from_bytes(assign.fence().request());
  std::string head = "POST " + client_->url().path + std::string(path_of(body.kind)) +
                     " HTTP/1.1\r\n" + head_ + "Content-Type: application/json\r\n" +
                     "Idempotency-Key: " + (id ? id->to_string() : "") + "-" +
                     std::to_string(assign.fence().attempt()) + "\r\nX-Resumable: false\r\n";
  const auto add = [&head](const char* name, const std::string& value) {
    if (value.empty() || value.find_first_of("\r\n") != std::string::npos) return;
    head += std::string(name) + ": " + value + "\r\n";
  };
  add("traceparent", assign.envelope().traceparent());
  if (!deps_.instance.empty()) {
    const std::string& hops = assign.envelope().hops();
    add("X-Waystation-Hops", (hops.empty() ? "" : hops + ", ") + deps_.instance);
  }
  head += body.stream ? "Accept: text/event-stream\r\n" : "Accept: application/json\r\n";
  head += "Content-Length: " + std::to_string(body.text.size()) + "\r\n\r\n";
  return head;
}

void VirtualWorker::start_call(link::ConnectionId connection, Session& session, v1::Assign assign) {
  v1::Output refused;
  *refused.mutable_fence() = assign.fence();
  if (session.leaving) {  // it crossed with our Leaving
    refused.set_dropped(true);
    put_ending(session, std::move(refused));
    return;
  }
  auto body = make_body(assign, options_);
  if (!body) {
    refused.mutable_failure()->set_code(std::string(code_name(body.error().code)));
    refused.mutable_failure()->set_message(body.error().message);
    metrics_.refused.add();
    put_ending(session, std::move(refused));
    return;
  }
  std::string head = call_head(assign, *body);
  auto call = std::make_shared<Call>(*this, connection, assign.fence(), std::move(*body),
                                     assign.choices(), options_);
  call->request.head = std::move(head);
  call->started_us = deps_.clock.steady_us();
  session.calls.emplace(link::key_of(call->fence()), call);
  due(call->started_us / 1000 +
      std::min({call->timeouts.connect_ms, call->timeouts.first_byte_ms, call->timeouts.idle_ms,
                call->timeouts.total_ms, kCheckMs}));
  client_->start(call);
}

void VirtualWorker::cancel_call(link::ConnectionId connection, Session& session,
                                const v1::Fence& fence) {
  const auto at = session.calls.find(link::key_of(fence));
  if (at == session.calls.end()) return;  // its last output is on its way
  const std::shared_ptr<Call> call = at->second;
  call->abort();
  session.calls.erase(at);
  metrics_.cancelled.add();
  outputs_.clear();
  call->take(outputs_);  // what it has brought is good, and may have been paid for
  put(session, *call, outputs_);
  v1::Output dropped;
  *dropped.mutable_fence() = fence;
  dropped.set_dropped(true);
  put_ending(session, std::move(dropped));
  close_if_empty(connection);
}

void VirtualWorker::on_news(Call& call) {
  if (std::exchange(call.news_noted, true)) return;
  news_.push_back(std::static_pointer_cast<Call>(call.shared_from_this()));
}

void VirtualWorker::on_ended(Call& call, Verdict verdict) {
  const auto at = sessions_.find(call.session());
  if (at == sessions_.end()) return;
  Session& session = at->second;
  const auto found = session.calls.find(link::key_of(call.fence()));
  if (found == session.calls.end()) return;
  const std::shared_ptr<Call> held = found->second;
  session.calls.erase(found);
  metrics_.seconds.observe(static_cast<double>(deps_.clock.steady_us() - call.started_us) / 1e6);
  outputs_.clear();
  call.take(outputs_);
  put(session, call, outputs_);
  v1::Output ending;
  *ending.mutable_fence() = call.fence();
  if (verdict.pause_ms > 0) {
    metrics_.paused.add();
    pause(verdict.pause_ms, "it asked for it");  // says Leaving before the request goes back
    ending.set_dropped(true);
    put_ending(session, std::move(ending));
  } else if (verdict.error.message.empty()) {
    failures_ = 0;
    metrics_.complete.add();
    if (!call.has_usage()) metrics_.uncounted.add();
  } else {
    const Error& error = verdict.error;
    (verdict.counts || verdict.opens ? metrics_.failed : metrics_.refused).add();
    if (verdict.unreached) {
      note_failure(verdict);  // says Leaving before the request goes back
      ending.set_dropped(true);
      put_ending(session, std::move(ending));
      close_if_empty(call.session());
      return;
    }
    v1::Failure& failure = *ending.mutable_failure();
    failure.set_code(std::string(code_name(error.code)));
    failure.set_message(error.message);
    failure.set_param(error.param);
    note_failure(verdict);
    put_ending(session, std::move(ending));
  }
  close_if_empty(call.session());
}

void VirtualWorker::put(Session& session, Call& call, std::vector<v1::Output>& outputs) {
  if (outputs.empty()) return;
  // A step has one output of a choice at most.
  if (session.steps.empty() || call.step_serial == session.serial) {
    session.steps.emplace_back();
    ++session.serial;
  }
  call.step_serial = session.serial;
  for (v1::Output& output : outputs) *session.steps.back().add_outputs() = std::move(output);
  outputs.clear();
}

void VirtualWorker::put_ending(Session& session, v1::Output output) {
  session.steps.emplace_back();
  ++session.serial;
  *session.steps.back().add_outputs() = std::move(output);
}

void VirtualWorker::flush() {
  for (const std::shared_ptr<Call>& call : news_) {
    call->news_noted = false;
    const auto at = sessions_.find(call->session());
    if (at == sessions_.end() || !at->second.calls.contains(link::key_of(call->fence()))) continue;
    outputs_.clear();
    call->take(outputs_);
    put(at->second, *call, outputs_);
  }
  news_.clear();
  for (auto& [connection, session] : sessions_) {
    for (v1::Step& step : session.steps) {
      session.rules.account(step);
      if (step.outputs_size() == 0) continue;
      v1::WorkerMessage message;
      *message.mutable_step() = std::move(step);
      events_->on_message(connection, std::move(message));
    }
    session.steps.clear();
  }
}

void VirtualWorker::stop() {
  if (std::exchange(state_, State::kStopped) == State::kStopped) return;
  if (probe_) probe_->abort();
  news_.clear();
  current_.reset();
  auto sessions = std::move(sessions_);
  sessions_.clear();
  for (auto& [connection, session] : sessions) {
    for (const auto& [key, call] : session.calls) call->abort();
    if (events_ != nullptr) events_->on_disconnected(connection, "the server is stopping");
  }
  metrics_.joined.set(0);
}

}  // namespace waystation::upstream
