// base/meter.h over prometheus-cpp, and the text that /metrics answers with.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "base/meter.h"

namespace waystation::watch {

// Handles live as long as the meter. Any thread.
class PrometheusMeter final : public Meter {
 public:
  // `version` goes into waystation_build_info. `clock` must outlive the meter.
  PrometheusMeter(const Clock& clock, const std::string& version);
  ~PrometheusMeter() override;

  // Names and label names must follow Prometheus' rules; a name has one kind only (CHECKed).
  Counter& counter(const std::string& name, const std::string& help, Labels labels) override;
  Gauge& gauge(const std::string& name, const std::string& help, Labels labels) override;
  Histogram& histogram(const std::string& name, const std::string& help, std::vector<double> bounds,
                       Labels labels) override;

  // Everything, in Prometheus' text format 0.0.4, with the process' own numbers read afresh.
  std::string render();

 private:
  struct State;
  void refresh_process();

  const Clock& clock_;
  const std::int64_t started_us_;
  std::unique_ptr<State> state_;
  Gauge* resident_ = nullptr;
  Gauge* descriptors_ = nullptr;
  Gauge* threads_ = nullptr;
  Gauge* uptime_ = nullptr;
};

}  // namespace waystation::watch
