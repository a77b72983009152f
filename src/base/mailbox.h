// The one way that threads talk to each other: a bounded queue with many senders and one receiver.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

namespace waystation {

// Bounded multi-producer, single-consumer queue. The receiver takes everything at once, so a busy
// receiver pays for one lock per batch. Any thread may send; one thread receives. It outlives every
// call: what was received doesn't say that its sender's call is over.
template <typename T>
class Mailbox {
 public:
  explicit Mailbox(std::size_t capacity) : capacity_(capacity) {}

  // False when the mailbox is full or closed; `item` is then left untouched.
  bool try_send(T&& item) {
    std::unique_lock lock(mutex_);
    if (closed_ || items_.size() >= capacity_) return false;
    push(std::move(item), lock);
    return true;
  }

  // Waits for room. False when the mailbox was closed. Never call it from the receiving thread.
  bool send(T&& item) {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [this] { return closed_ || items_.size() < capacity_; });
    if (closed_) return false;
    push(std::move(item), lock);
    return true;
  }

  // As try_send, but wakes nobody: the sender sees to it that it is received.
  bool try_leave(T&& item) {
    std::lock_guard lock(mutex_);
    if (closed_ || items_.size() >= capacity_) return false;
    items_.push_back(std::move(item));
    return true;
  }
  // Wakes the receiver, if something is there for it.
  void wake() {
    if (size() > 0) filled_.notify_one();
  }

  // For completions whose number is bounded by what was asked for (journal, replay): ignores the
  // capacity. False when closed.
  bool send_reserved(T&& item) {
    std::unique_lock lock(mutex_);
    if (closed_) return false;
    push(std::move(item), lock);
    return true;
  }

  // Waits up to `timeout` for something to receive, or for the end.
  template <typename Duration>
  void wait(Duration timeout) {
    std::unique_lock lock(mutex_);
    filled_.wait_for(lock, timeout, [this] { return closed_ || !items_.empty(); });
  }

  // Moves everything queued into `out` (appending), waiting up to `timeout` for the first item.
  // False when closed and empty.
  template <typename Duration>
  bool receive_all(std::vector<T>& out, Duration timeout) {
    wait(timeout);
    return receive_now(out);
  }
  bool receive_now(std::vector<T>& out) {
    std::unique_lock lock(mutex_);
    if (items_.empty()) return !closed_;
    if (out.empty()) {
      out.swap(items_);
    } else {
      for (T& item : items_) out.push_back(std::move(item));
      items_.clear();
    }
    room_.notify_all();
    return true;
  }

  // Wakes everybody; nothing more can be sent, what is queued can still be received.
  void close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    filled_.notify_all();
    room_.notify_all();
  }

  std::size_t size() const {
    std::lock_guard lock(mutex_);
    return items_.size();
  }

 private:
  // Wakes the receiver without the lock: it would otherwise wake only to wait for it.
  void push(T&& item, std::unique_lock<std::mutex>& lock) {
    items_.push_back(std::move(item));
    lock.unlock();
    filled_.notify_one();
  }

  const std::size_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable filled_;
  std::condition_variable room_;
  std::vector<T> items_;
  bool closed_ = false;
};

}  // namespace waystation
