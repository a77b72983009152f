// The question whether an upstream can be used.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "upstream/exchange.h"

namespace waystation::upstream {

// GET {url}/models: does the upstream live, and does it take our key?
class Probe final : public Exchange {
 public:
  // status 0: no answer, `why` says so.
  using Done = std::function<void(int status, const std::string& why)>;
  explicit Probe(Done done) : done_(std::move(done)) {}

  bool on_head(const ResponseHead& head) override {
    status_ = head.status;
    return true;
  }
  bool on_body(std::string_view) override { return true; }
  void on_complete() override { done_(status_, ""); }
  void on_failed(HttpFailure failure) override { done_(status_, failure.what); }

 private:
  const Done done_;
  int status_ = 0;
};

}  // namespace waystation::upstream
