#include "watch/prometheus_meter.h"

#include <gtest/gtest.h>

#include <thread>

namespace waystation::watch {
namespace {

bool has(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line) != std::string::npos;
}

TEST(PrometheusMeter, RendersWhatWasCounted) {
  ManualClock clock;
  PrometheusMeter meter(clock, "1.2.3");
  meter.counter("waystation_x_total", "Xs.", {{"kind", "a"}}).add();
  meter.counter("waystation_x_total", "Xs.", {{"kind", "a"}}).add(2);
  meter.counter("waystation_x_total", "Xs.", {{"kind", "b"}}).add();
  meter.gauge("waystation_depth", "Depth.", {}).set(7.5);
  meter.histogram("waystation_wait_seconds", "Wait.", {0.1, 1}, {}).observe(0.5);
  clock.advance_ms(2500);
  const std::string text = meter.render();
  EXPECT_TRUE(has(text, "# TYPE waystation_x_total counter")) << text;
  EXPECT_TRUE(has(text, "waystation_x_total{kind=\"a\"} 3")) << text;
  EXPECT_TRUE(has(text, "waystation_x_total{kind=\"b\"} 1")) << text;
  EXPECT_TRUE(has(text, "waystation_depth 7.5")) << text;
  EXPECT_TRUE(has(text, "waystation_wait_seconds_bucket{le=\"0.1\"} 0")) << text;
  EXPECT_TRUE(has(text, "waystation_wait_seconds_bucket{le=\"1\"} 1")) << text;
  EXPECT_TRUE(has(text, "waystation_build_info{version=\"1.2.3\"} 1")) << text;
  EXPECT_TRUE(has(text, "waystation_uptime_seconds 2.5")) << text;
  EXPECT_TRUE(has(text, "process_resident_memory_bytes ")) << text;
  EXPECT_FALSE(has(text, "process_resident_memory_bytes 0\n")) << text;
  EXPECT_FALSE(has(text, "process_open_fds 0\n")) << text;
}

TEST(PrometheusMeter, TheSameNameAndLabelsAreTheSameHandle) {
  ManualClock clock;
  PrometheusMeter meter(clock, "v");
  EXPECT_EQ(&meter.counter("a_total", "A.", {{"k", "1"}}),
            &meter.counter("a_total", "", {{"k", "1"}}));
  EXPECT_NE(&meter.counter("a_total", "A.", {{"k", "1"}}),
            &meter.counter("a_total", "", {{"k", "2"}}));
}

TEST(PrometheusMeter, ThreadsMayCountWhileOthersRender) {
  ManualClock clock;
  PrometheusMeter meter(clock, "v");
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&meter, i] {
      for (int n = 0; n < 200; ++n) {
        meter.counter("n_total", "N.", {{"thread", std::to_string(i)}}).add();
        if (n % 50 == 0) (void)meter.render();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(has(meter.render(), "n_total{thread=\"3\"} 200"));
}

}  // namespace
}  // namespace waystation::watch
