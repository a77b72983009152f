// What a part counts, without knowing who shows it. `watch` implements Meter over Prometheus; tests
// use the null meter. Handles live as long as their Meter and may be used from any thread.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace waystation {

class Counter {
 public:
  virtual ~Counter() = default;
  virtual void add(double amount = 1) = 0;
};

class Gauge {
 public:
  virtual ~Gauge() = default;
  virtual void set(double value) = 0;
};

class Histogram {
 public:
  virtual ~Histogram() = default;
  virtual void observe(double value) = 0;
};

using Labels = std::vector<std::pair<std::string, std::string>>;

class Meter {
 public:
  virtual ~Meter() = default;
  // `name` follows Prometheus' rules and carries its unit ("waystation_journal_sync_seconds").
  // Asking twice for the same name and labels gives the same handle.
  virtual Counter& counter(const std::string& name, const std::string& help, Labels labels = {}) = 0;
  virtual Gauge& gauge(const std::string& name, const std::string& help, Labels labels = {}) = 0;
  // `bounds`: upper bounds of the buckets, ascending.
  virtual Histogram& histogram(const std::string& name, const std::string& help,
                               std::vector<double> bounds, Labels labels = {}) = 0;
};

// Counts nothing.
std::unique_ptr<Meter> make_null_meter();

}  // namespace waystation
