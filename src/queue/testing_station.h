// What tests of the station share: answers as futures, and a consumer that notes what it gets.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/thread_executor.h"
#include "journal/memory_journal.h"
#include "queue/station.h"

namespace waystation::queue {

inline constexpr std::chrono::seconds kPatience{20};

inline PayloadPtr payload_of(const std::vector<std::string>& messages) {
  return Payload::of({messages.begin(), messages.end()}).value();
}

// A future of what a call answers.
template <typename T>
struct Answer {
  std::shared_ptr<std::promise<Result<T>>> promise = std::make_shared<std::promise<Result<T>>>();
  std::future<Result<T>> future = promise->get_future();
  Done<T> done() {
    return [promise = promise](Result<T> result) { promise->set_value(std::move(result)); };
  }
  bool is_there() { return future.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }
  Result<T> get() {
    if (future.wait_for(kPatience) == std::future_status::ready) return future.get();
    ADD_FAILURE() << "a call was never answered";
    return Error{Code::kTimeout, "no answer"};
  }
};

// A station whose journal is in memory, where everything is durable at once.
class MemoryStation {
 public:
  MemoryStation(Clock& clock, Meter& meter, const Limits& limits = {})
      : station_({.limits = limits}, {clock, background_, meter}),
        journal_({station_.journal_callbacks(), true}) {
    EXPECT_TRUE(station_.start(journal_));
  }
  ~MemoryStation() {
    station_.stop();
    background_.stop();
  }
  Station& operator*() { return station_; }
  Station* operator->() { return &station_; }
  void fail_journal(Error error) { journal_.fail(std::move(error)); }

 private:
  ThreadExecutor background_{1};
  Station station_;
  journal::MemoryJournal journal_;
};

// Notes what it gets.
class Recorder final : public Consumer {
 public:
  void deliver(Taken taken) override {
    std::lock_guard lock(mutex_);
    taken_.push_back(std::move(taken));
  }
  bool has_room() const override { return true; }
  void kick() override { changed_.notify_all(); }
  void on_closed(const Error& why) override {
    std::lock_guard lock(mutex_);
    closed_ = why;
    changed_.notify_all();
  }
  std::vector<Taken> wait_messages(std::uint64_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return sum() >= count; })) << sum();
    return std::exchange(taken_, {});
  }
  std::optional<Error> wait_closed() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [&] { return closed_.has_value(); });
    return closed_;
  }

 private:
  std::uint64_t sum() const {
    std::uint64_t count = 0;
    for (const Taken& taken : taken_) count += taken.messages;
    return count;
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Taken> taken_;
  std::optional<Error> closed_;
};

inline std::vector<std::string> contents(const std::vector<Taken>& all) {
  std::vector<std::string> found;
  for (const Taken& taken : all) {
    for (const Piece& piece : taken.pieces) {
      for (std::uint32_t i = 0; i < piece.count; ++i) {
        found.emplace_back(piece.payload->message(piece.at + i));
      }
    }
  }
  return found;
}

}  // namespace waystation::queue
