#include "worker/worker.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <random>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "worker/signals.h"

namespace waystation::worker {
namespace {

constexpr TimeMs kAwayMs = 1000;  // woken so much too late, the machine had no time for us

const SystemClock kSystemClock;

}  // namespace

Worker::Worker(WorkerOptions options, engine::Engine& engine)
    : options_(std::move(options)),
      engine_(engine),
      clock_(options_.clock != nullptr ? *options_.clock : kSystemClock) {}

v1::Hello Worker::hello() const {
  v1::Hello hello;
  hello.set_protocol(1);
  hello.set_worker_name(options_.name);
  hello.set_pid(::getpid());
  for (const v1::ModelInfo& model : engine_.models()) *hello.add_models() = model;
  hello.set_slots(engine_.slots());
  hello.set_join_token(options_.join_token);
  hello.set_version(options_.version);
  return hello;
}

void Worker::leave(std::string reason) {
  std::lock_guard lock(mutex_);
  if (!leave_) leave_ = std::move(reason);
  news_.notify_all();
}

Status Worker::run() {
  TimeMs backoff_ms = options_.backoff_min_ms;
  while (true) {
    Status ended = run_session();
    if (ended) return {};
    const Error& why = ended.error();
    if (options_.exit_on_loss || !link::retry_can_help(why.code)) return ended;
    if (welcomed_) backoff_ms = options_.backoff_min_ms;
    WS_LOG(warn, "worker without session name={} retry_ms={} reason=\"{}\"", options_.name,
           backoff_ms, why.message);
    if (!wait_before_retry(backoff_ms)) return {};
    backoff_ms = std::min(backoff_ms * 2, options_.backoff_max_ms);
  }
}

bool Worker::wait_before_retry(TimeMs backoff_ms) {
  // Jitter: a thousand workers that lost one server must not come back in one moment.
  static thread_local std::minstd_rand random(std::random_device{}());
  std::uniform_int_distribution<TimeMs> wait(backoff_ms / 2, backoff_ms);
  std::unique_lock lock(mutex_);
  return !news_.wait_for(lock, std::chrono::milliseconds(wait(random)),
                         [this] { return leave_.has_value(); });
}

Status Worker::run_session() {
  if (Status begun = begin(); !begun) return begun;
  std::thread pulse_thread([this] { pulse(); });
  std::optional<Status> ended;
  while (!ended) {
    wait_for_news();
    ended = turn();
  }
  drop_everything();
  {
    std::lock_guard lock(mutex_);
    stop_pulse_ = true;
    pulse_due_.notify_all();
  }
  pulse_thread.join();
  transport_.reset();  // writes what is left, and no event comes after it
  return *ended;
}

Status Worker::begin() {
  welcomed_ = false;
  leave_until_ms_ = 0;
  gave_back_ = false;
  {
    std::lock_guard lock(mutex_);
    session_.emplace(hello(), steady_ms(), options_.welcome_ms);
    inbox_.clear();
    lost_.reset();
    stop_pulse_ = false;
    beat_due_ms_ = steady_ms();
  }
  auto transport = options_.connect(*this);
  if (!transport) return transport.error();
  transport_ = std::move(*transport);
  transport_->send(session_->hello());  // nothing else touches the session's constant Hello
  return {};
}

std::optional<Status> Worker::turn() {
  std::vector<link::News> news;
  {
    std::lock_guard lock(mutex_);
    if (lost_) return *lost_;
    news.swap(inbox_);
  }
  v1::Step step;
  handle(news, step);
  if (!engine_.idle() && engine_.wait_us() <= 0) engine_.step(step);
  send_step(std::move(step));
  if (left()) return Status();
  return std::nullopt;
}

void Worker::hang_up() {
  drop_everything();
  transport_.reset();
}

std::int64_t Worker::wait_us() const {
  const std::int64_t wait_us = engine_.idle() ? -1 : engine_.wait_us();
  if (leave_until_ms_ == 0 || gave_back_) return wait_us;
  const std::int64_t grace_us = std::max<TimeMs>(0, leave_until_ms_ - steady_ms()) * 1000;
  return wait_us < 0 ? grace_us : std::min(wait_us, grace_us);
}

void Worker::wait_for_news() {
  std::unique_lock lock(mutex_);
  const auto something = [this] {
    return lost_ || !inbox_.empty() || (leave_ && leave_until_ms_ == 0);
  };
  const std::int64_t limit_us = wait_us();
  if (limit_us < 0) {
    news_.wait(lock, something);
  } else if (limit_us > 0) {
    news_.wait_for(lock, std::chrono::microseconds(limit_us), something);
  }
}

void Worker::handle(std::vector<link::News>& news, v1::Step& step) {
  for (link::News& item : news) {
    if (auto* assigned = std::get_if<link::Assigned>(&item)) {
      if (leave_until_ms_ > 0) {  // it crossed with our Leaving: give it back unharmed
        v1::Output& output = *step.add_outputs();
        *output.mutable_fence() = assigned->assign.fence();
        output.set_dropped(true);
      } else {
        engine_.start(std::move(assigned->assign));
      }
    } else if (auto* cancel = std::get_if<link::CancelAsked>(&item)) {
      engine_.cancel(cancel->fence);
    } else if (auto* welcome = std::get_if<link::Welcomed>(&item)) {
      welcomed_ = true;
      WS_LOG(info, "worker joined name={} epoch={} worker={}", options_.name, welcome->epoch.value,
             welcome->worker.value);
    } else if (std::holds_alternative<link::DrainAsked>(item)) {
      leave("drained by the server");
    }
  }
}

bool Worker::left() {
  std::optional<v1::WorkerMessage> leaving;
  std::vector<v1::Fence> give_back;
  {
    std::lock_guard lock(mutex_);
    if (!leave_) return false;
    if (leave_until_ms_ == 0) {
      WS_LOG(info, "worker leaves name={} reason=\"{}\" in_flight={}", options_.name, *leave_,
             session_->in_flight_count());
      leave_until_ms_ = steady_ms() + std::max<TimeMs>(1, options_.grace_ms);
      leaving = session_->leaving(*leave_);
    }
    if (session_->in_flight_count() > 0 && !gave_back_ && steady_ms() >= leave_until_ms_) {
      gave_back_ = true;
      give_back = session_->in_flight();
    }
  }
  if (leaving) transport_->send(std::move(*leaving));
  for (const v1::Fence& fence : give_back) engine_.cancel(fence);
  std::lock_guard lock(mutex_);
  return session_->in_flight_count() == 0;
}

void Worker::send_step(v1::Step&& step) {
  if (step.outputs_size() == 0) return;
  {
    std::lock_guard lock(mutex_);
    session_->account(step);
  }
  if (step.outputs_size() == 0) return;
  v1::WorkerMessage message;
  *message.mutable_step() = std::move(step);
  if (transport_->send(std::move(message))) return;
  std::lock_guard lock(mutex_);
  lose(Error{Code::kUnavailable, "the connection to the server is gone"});
}

void Worker::drop_everything() {
  std::vector<v1::Fence> fences;
  {
    std::lock_guard lock(mutex_);
    fences = session_->in_flight();
  }
  for (const v1::Fence& fence : fences) engine_.cancel(fence);
  while (!engine_.idle()) {
    const std::int64_t wait_us = engine_.wait_us();
    if (wait_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(wait_us));
    v1::Step discarded;
    engine_.step(discarded);
  }
}

void Worker::on_message(v1::ServerMessage message) {
  std::lock_guard lock(mutex_);
  auto news = session_->on_message(std::move(message), steady_ms());
  if (!news) {
    lose(news.error());
    return;
  }
  if (std::holds_alternative<link::NoNews>(*news)) return;
  // The server's heartbeat and lease times hold from now on.
  if (std::holds_alternative<link::Welcomed>(*news)) pulse_due_.notify_all();
  inbox_.push_back(std::move(*news));
  news_.notify_one();
}

void Worker::on_disconnected(std::string reason) {
  std::lock_guard lock(mutex_);
  lose(Error{Code::kUnavailable, "the session ended: " + reason});
}

void Worker::lose(Error why) {
  if (!lost_) lost_ = std::move(why);
  news_.notify_all();
  pulse_due_.notify_all();
}

void Worker::pulse() {
  std::unique_lock lock(mutex_);
  while (const TimeMs wait_ms = beat(lock)) {
    pulse_due_.wait_for(lock, std::chrono::milliseconds(wait_ms));
  }
}

TimeMs Worker::beat() {
  std::unique_lock lock(mutex_);
  return beat(lock);
}

TimeMs Worker::beat(std::unique_lock<std::mutex>& lock) {
  while (!stop_pulse_ && !lost_) {
    const TimeMs now_ms = steady_ms();
    // What came while we were away isn't read yet.
    if (now_ms - beat_due_ms_ > kAwayMs) session_->excuse(now_ms);
    if (now_ms >= session_->expires_at_ms()) {
      lose(Error{Code::kUnavailable, "the server was silent for longer than the lease"});
      lock.unlock();
      transport_->close();  // wakes an engine thread that waits for room to send
      return 0;
    }
    v1::Heartbeat load;
    load.set_active(static_cast<std::uint32_t>(session_->in_flight_count()));
    if (auto beat = session_->heartbeat(load, now_ms)) {
      lock.unlock();
      transport_->send_if_room(std::move(*beat));
      lock.lock();
      continue;
    }
    const TimeMs wait_ms = std::max<TimeMs>(1, session_->next_due_ms() - now_ms);
    beat_due_ms_ = now_ms + wait_ms;
    return wait_ms;
  }
  return 0;
}

Status die_with_parent(pid_t parent) {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
    return Error{Code::kInternal, "the kernel can't tie this worker to its server (prctl)"};
  }
  // It may have died before the call above: then no signal comes.
  if (::getppid() != parent) {
    return Error{Code::kUnavailable, "the server that started this worker (pid " +
                                         std::to_string(parent) + ") is gone"};
  }
  return {};
}

Status run_worker(const WorkerOptions& options, engine::Engine& engine) {
  if (options.parent_pid > 0) {
    if (Status ok = die_with_parent(options.parent_pid); !ok) return ok;
  }
  Worker worker(options, engine);
  if (!options.handle_signals) return worker.run();
  SignalWatch signals(
      [&worker](int signal) { worker.leave(signal == SIGINT ? "SIGINT" : "SIGTERM"); });
  return worker.run();
}

}  // namespace waystation::worker
