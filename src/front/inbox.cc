#include "front/inbox.h"

namespace waystation::front {

template <typename Change>
void Inbox::deliver(Change change) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    if (!change() || !identified_) return;
    if (std::exchange(woken_, true)) return;
  }
  if (auto owner = owner_.lock()) loop_->wake(std::move(owner));
}

bool Inbox::on_block(stream::BlockPtr block) {
  std::size_t bytes = 0;
  for (const v1::Event& event : block->events) bytes += event.ByteSizeLong();
  bool taken = false;
  deliver([&] {
    // A block of any size fits into an empty inbox, so that a reader always gets on.
    const bool fits = events_ == 0 || (events_ + block->events.size() <= limits_.events_max &&
                                       bytes_ + bytes <= limits_.bytes_max);
    if (!fits) {
      content_.let_go = true;
      return true;
    }
    events_ += block->events.size();
    bytes_ += bytes;
    content_.blocks.push_back(std::move(block));
    taken = true;
    return true;
  });
  return taken;
}

void Inbox::on_end(const stream::Ending& ending) {
  deliver([&] {
    content_.ending = ending;
    return true;
  });
}

void Inbox::on_interrupted(const Error& error) {
  deliver([&] {
    content_.interruption = error;
    return true;
  });
}

void Inbox::on_identity(Result<Identity> identity, bool wake) {
  deliver([&] {
    content_.identity = std::move(identity);
    identified_ = true;
    return wake || insists_ || content_.ending || content_.interruption || content_.let_go ||
           !content_.blocks.empty();
  });
}

Inbox::Content Inbox::take() {
  std::lock_guard lock(mutex_);
  woken_ = false;
  events_ = 0;
  bytes_ = 0;
  return std::exchange(content_, {});
}

void Inbox::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  content_ = {};
}

}  // namespace waystation::front
