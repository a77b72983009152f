#include "watch/prometheus_meter.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/check.h"

namespace waystation::watch {
namespace {

class CounterHandle final : public Counter {
 public:
  explicit CounterHandle(prometheus::Counter& counter) : counter_(counter) {}
  void add(double amount) override { counter_.Increment(amount); }

 private:
  prometheus::Counter& counter_;
};

class GaugeHandle final : public Gauge {
 public:
  explicit GaugeHandle(prometheus::Gauge& gauge) : gauge_(gauge) {}
  void set(double value) override { gauge_.Set(value); }

 private:
  prometheus::Gauge& gauge_;
};

class HistogramHandle final : public Histogram {
 public:
  explicit HistogramHandle(prometheus::Histogram& histogram) : histogram_(histogram) {}
  void observe(double value) override { histogram_.Observe(value); }

 private:
  prometheus::Histogram& histogram_;
};

prometheus::Labels to_prometheus(const Labels& labels) {
  return {labels.begin(), labels.end()};
}

// A family and its handles by labels. `Series` is prometheus-cpp's type, `Handle` ours.
template <typename Series, typename Handle>
struct Group {
  prometheus::Family<Series>* family = nullptr;
  std::map<Labels, std::unique_ptr<Handle>> handles;

  template <typename... Arguments>
  Handle& get(const Labels& labels, Arguments&&... arguments) {
    auto& handle = handles[labels];
    if (!handle) {
      handle = std::make_unique<Handle>(
          family->Add(to_prometheus(labels), std::forward<Arguments>(arguments)...));
    }
    return *handle;
  }
};

int open_descriptors() {
  std::error_code ec;
  int count = 0;
  for (auto it = std::filesystem::directory_iterator("/proc/self/fd", ec);
       !ec && it != std::filesystem::directory_iterator(); it.increment(ec)) {
    ++count;
  }
  return count;
}

int thread_count() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    int count = 0;
    if (word == "Threads:" && status >> count) return count;
  }
  return 0;
}

}  // namespace

struct PrometheusMeter::State {
  std::mutex mutex;
  prometheus::Registry registry{prometheus::Registry::InsertBehavior::Throw};
  std::map<std::string, Group<prometheus::Counter, CounterHandle>> counters;
  std::map<std::string, Group<prometheus::Gauge, GaugeHandle>> gauges;
  std::map<std::string, Group<prometheus::Histogram, HistogramHandle>> histograms;

  // A name belongs to one kind of series.
  bool is_free(const std::string& name) const {
    return !counters.contains(name) && !gauges.contains(name) && !histograms.contains(name);
  }
};

PrometheusMeter::PrometheusMeter(const Clock& clock, const std::string& version)
    : clock_(clock), started_us_(clock.steady_us()), state_(std::make_unique<State>()) {
  gauge("waystation_build_info", "Always 1; the version of the server is its label.",
        {{"version", version}})
      .set(1);
  gauge("process_start_time_seconds", "When the process started, seconds since the Unix epoch.", {})
      .set(static_cast<double>(clock.wall_ms()) / 1000);
  resident_ = &gauge("process_resident_memory_bytes", "Memory that the process holds.", {});
  descriptors_ = &gauge("process_open_fds", "Open file descriptors.", {});
  threads_ = &gauge("process_threads", "Threads of the process.", {});
  uptime_ = &gauge("waystation_uptime_seconds", "Seconds since the server started.", {});
}

PrometheusMeter::~PrometheusMeter() = default;

Counter& PrometheusMeter::counter(const std::string& name, const std::string& help, Labels labels) {
  std::lock_guard lock(state_->mutex);
  if (!state_->counters.contains(name)) {
    CHECK(state_->is_free(name));
    state_->counters[name].family =
        &prometheus::BuildCounter().Name(name).Help(help).Register(state_->registry);
  }
  return state_->counters[name].get(labels);
}

Gauge& PrometheusMeter::gauge(const std::string& name, const std::string& help, Labels labels) {
  std::lock_guard lock(state_->mutex);
  if (!state_->gauges.contains(name)) {
    CHECK(state_->is_free(name));
    state_->gauges[name].family =
        &prometheus::BuildGauge().Name(name).Help(help).Register(state_->registry);
  }
  return state_->gauges[name].get(labels);
}

Histogram& PrometheusMeter::histogram(const std::string& name, const std::string& help,
                                      std::vector<double> bounds, Labels labels) {
  std::lock_guard lock(state_->mutex);
  if (!state_->histograms.contains(name)) {
    CHECK(state_->is_free(name));
    state_->histograms[name].family =
        &prometheus::BuildHistogram().Name(name).Help(help).Register(state_->registry);
  }
  return state_->histograms[name].get(labels, std::move(bounds));
}

void PrometheusMeter::refresh_process() {
  long total_pages = 0;
  long resident_pages = 0;
  std::ifstream("/proc/self/statm") >> total_pages >> resident_pages;
  resident_->set(static_cast<double>(resident_pages) *
                 static_cast<double>(::sysconf(_SC_PAGESIZE)));
  descriptors_->set(open_descriptors());
  threads_->set(thread_count());
  uptime_->set(static_cast<double>(clock_.steady_us() - started_us_) / 1e6);
}

std::string PrometheusMeter::render() {
  refresh_process();
  return prometheus::TextSerializer().Serialize(state_->registry.Collect());
}

}  // namespace waystation::watch
