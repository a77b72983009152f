#include "base/meter.h"

namespace waystation {
namespace {

class NullMeter final : public Meter, Counter, Gauge, Histogram {
 public:
  Counter& counter(const std::string&, const std::string&, Labels) override { return *this; }
  Gauge& gauge(const std::string&, const std::string&, Labels) override { return *this; }
  Histogram& histogram(const std::string&, const std::string&, std::vector<double>, Labels) override {
    return *this;
  }
  void add(double) override {}
  void set(double) override {}
  void observe(double) override {}
};

}  // namespace

std::unique_ptr<Meter> make_null_meter() { return std::make_unique<NullMeter>(); }

}  // namespace waystation
