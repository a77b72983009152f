#include "sim/worker_process.h"

#include <algorithm>
#include <set>
#include <utility>

#include "engine/scripted/scripted_engine.h"
#include "sim/book.h"

namespace waystation::sim {
namespace {

constexpr std::size_t kSaidMax = 64;
constexpr Micros kRestartMax = 300 * kMs;

}  // namespace

void Said::add(Life session, const v1::Output& output) {
  lines.push_back({session, output});
  if (lines.size() > kSaidMax) lines.pop_front();
}

// Sees what the worker sends, so that it can be said again later.
class WorkerProcess::Tap final : public link::WorkerTransport {
 public:
  Tap(std::unique_ptr<link::WorkerTransport> inner, WorkerProcess& process)
      : inner_(std::move(inner)), process_(process) {}

  bool send(v1::WorkerMessage message) override {
    const bool is_step = message.has_step();
    if (is_step && process_.replay_) process_.send_stale(*inner_);
    for (const v1::Output& output : message.step().outputs()) {
      process_.said_.add(process_.session_, output);
    }
    return inner_->send(std::move(message));
  }
  void close() override { inner_->close(); }

 private:
  const std::unique_ptr<link::WorkerTransport> inner_;
  WorkerProcess& process_;
};

// The scripted engine, but now and then a request fails in it.
class WorkerProcess::FlakyEngine final : public engine::Engine {
 public:
  FlakyEngine(std::unique_ptr<engine::Engine> inner, WorkerProcess& process)
      : inner_(std::move(inner)), process_(process) {}

  const std::vector<v1::ModelInfo>& models() const override { return inner_->models(); }
  std::uint32_t slots() const override { return inner_->slots(); }
  bool idle() const override { return inner_->idle(); }
  std::int64_t wait_us() const override { return inner_->wait_us(); }
  void cancel(const v1::Fence& fence) override { inner_->cancel(fence); }

  void start(v1::Assign assign) override {
    const v1::Fence fence = assign.fence();
    inner_->start(std::move(assign));
    if (!process_.dice_.permille(static_cast<std::uint64_t>(process_.engine_failures_))) return;
    failing_.insert(fence.SerializeAsString());
    inner_->cancel(fence);
  }

  void step(v1::Step& out) override {
    const int before = out.outputs_size();
    inner_->step(out);
    for (int i = before; i < out.outputs_size(); ++i) {
      v1::Output& output = *out.mutable_outputs(i);
      if (!output.dropped() || failing_.erase(output.fence().SerializeAsString()) == 0) continue;
      const bool final = process_.dice_.percent(30);
      output.set_dropped(false);
      output.mutable_failure()->set_code(final ? "invalid_argument" : "internal");
      output.mutable_failure()->set_message("the simulated engine says no");
    }
  }

 private:
  const std::unique_ptr<engine::Engine> inner_;
  WorkerProcess& process_;
  std::set<std::string> failing_;  // fences
};

WorkerProcess::WorkerProcess(Scheduler& scheduler, History& history, Network& network,
                             const SimClock& clock, const Plan& plan, Dice dice, Said& said,
                             std::string name, std::string model)
    : scheduler_(scheduler),
      history_(history),
      network_(network),
      clock_(clock),
      plan_(plan),
      dice_(dice),
      said_(said),
      name_(std::move(name)),
      model_(std::move(model)),
      engine_failures_(plan.engine_failures) {}

WorkerProcess::~WorkerProcess() {
  worker_.reset();
}

void WorkerProcess::start() {
  life_ = scheduler_.begin_life();
  frozen_until_ = 0;
  engine::ScriptedOptions script;
  script.tokens = plan_.answer_tokens;
  script.interval_ms = plan_.token_interval_ms;
  script.slots = plan_.slots;
  script.name = model_;
  engine_ = std::make_unique<FlakyEngine>(engine::make_scripted_engine(script, clock_), *this);
  worker::WorkerOptions options;
  options.name = name_;
  options.clock = &clock_;
  options.grace_ms = dice_.between(1, 200);
  options.welcome_ms = 1000;
  options.connect =
      [this](link::WorkerEvents& events) -> Result<std::unique_ptr<link::WorkerTransport>> {
    auto end = network_.connect({&events, [this] { return frozen_until(); },
                                 [this] {
                                   plan_turn(dice_.between(1, 100));
                                   beat();
                                 }});
    if (!end) return end.error();
    events_ = &events;
    return std::make_unique<Tap>(std::move(*end), *this);
  };
  worker_ = std::make_unique<worker::Worker>(std::move(options), *engine_);
  begin_session();
}

void WorkerProcess::begin_session() {
  session_ = scheduler_.begin_life();
  if (!worker_->begin()) {  // no server is up: as Worker::run, again after a while
    session_ = 0;
    scheduler_.after(dice_.between(20, 200) * kMs, life_, [this] { begin_session(); });
    return;
  }
  plan_turn(dice_.between(1, 100));
  beat();
}

void WorkerProcess::plan_turn(Micros delay) {
  scheduler_.after(delay, life_, [this, planned = ++turns_planned_] {
    if (planned == turns_planned_ && session_ != 0) turn();
  });
}

void WorkerProcess::turn() {
  if (scheduler_.now() < frozen_until_) return plan_turn(frozen_until_ - scheduler_.now());
  if (const auto ended = worker_->turn()) return end_session(*ended);
  if (const std::int64_t wait = worker_->wait_us(); wait >= 0) {
    plan_turn(std::max<Micros>(wait, dice_.between(10, 200)));
  }
}

void WorkerProcess::beat() {
  if (session_ == 0) return;
  Micros wait = frozen_until_ - scheduler_.now();
  if (wait <= 0) {
    wait = worker_->beat() * kMs;
    if (wait == 0)
      return plan_turn(dice_.between(1, 100));  // lost: the engine's thread hears of it
  }
  scheduler_.after(wait, life_, [this, planned = ++beats_planned_] {
    if (planned == beats_planned_) beat();
  });
}

// What Worker::run does after a session: again, or the end of the process.
void WorkerProcess::end_session(const Status& how) {
  session_ = 0;
  worker_->hang_up();
  events_ = nullptr;
  history_.note(name_ + ": session over: " + (how ? "left" : how.error().message));
  if (!how && dice_.percent(60)) {
    scheduler_.after(dice_.between(1, 100) * kMs, life_, [this] { begin_session(); });
    return;
  }
  crash(false);
}

void WorkerProcess::crash(bool silently) {
  if (worker_ == nullptr) return;
  history_.note(name_ + (silently ? ": its machine dies" : ": dies"));
  scheduler_.end_life(life_);
  if (silently && events_ != nullptr) network_.vanish(events_);
  session_ = 0;
  events_ = nullptr;
  worker_.reset();
  engine_.reset();
  scheduler_.after(dice_.between(1, kRestartMax), kWorldLife, [this] { start(); });
}

void WorkerProcess::stall(Micros duration) {
  history_.note(name_ + ": hangs");
  frozen_until_ = std::max(frozen_until_, scheduler_.now() + duration);
}

void WorkerProcess::leave() {
  if (worker_ == nullptr || session_ == 0) return;
  history_.note(name_ + ": is told to leave");
  worker_->leave("the simulator says so");
  plan_turn(1);
}

void WorkerProcess::send_stale(link::WorkerTransport& transport) {
  replay_ = false;
  v1::WorkerMessage message;
  for (const Said::Line& line : said_.lines) {
    if (line.session == session_ || dice_.percent(30)) continue;
    v1::Output& output = *message.mutable_step()->add_outputs();
    output = line.output;
    if (output.token_ids_size() > 0) output.set_text(std::string(kStaleText));
  }
  if (message.step().outputs_size() == 0) return;
  history_.note(name_ + ": says stale things again");
  transport.send(std::move(message));
}

}  // namespace waystation::sim
