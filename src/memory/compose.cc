// The prompt of a turn: the conversation's items so far, then its own. Made once; a second ask,
// after a failed attempt or a restart, gets the same bytes from the row.
#include "memory/memory.h"

namespace waystation::memory {
namespace {

using message::Item;
using store::Sql;

Result<std::string> compose_in(Sql& sql, const v1::Envelope& envelope, RequestId id) {
  auto row = store::find_response(sql, envelope.tenant(), id);
  if (!row) return row.error();
  if (!*row) {
    return Error{Code::kNotFound, "the response was deleted before its turn came"};
  }
  if (!(*row)->composed.empty()) return (*row)->composed;
  const std::string& name = (*row)->conversation;
  auto conversation = store::find_conversation(sql, envelope.tenant(), name);
  if (!conversation) return conversation.error();
  if (!*conversation) {
    return Error{Code::kNotFound, "the conversation was deleted before this turn came"};
  }
  auto items = store::all_items(sql, envelope.tenant(), name);
  if (!items) return items.error();

  Result<std::string> data = std::string();
  if ((*row)->api == "responses") {
    auto own = message::parse_stored_items((*row)->input);
    if (!own) return own.error();
    items->insert(items->end(), own->begin(), own->end());
    auto messages = message::chat_messages(*items, (*row)->instructions);
    if (!messages) return messages.error();
    data = message::with_messages(envelope.data(), *messages);
  } else {
    auto messages = message::chat_messages(*items, "");
    if (!messages) return messages.error();
    data = message::with_earlier_messages(envelope.data(), *messages);
  }
  if (!data) return data.error();
  auto status = store::set_composed(sql, envelope.tenant(), id, *data);
  if (!status) return status.error();
  return data;
}

}  // namespace

// The lane has let it through, so the turns before it have ended; what is left is that their
// outcomes reach the store.
void Memory::compose(v1::Envelope envelope, Callback<std::string> done) {
  const auto id = RequestId::parse(envelope.id());
  if (!id) return done(Error{Code::kInternal, "a request without an id can't be composed"});
  const std::string tenant = envelope.tenant();
  const std::string conversation = envelope.partitionkey();
  settle_turns(
      tenant, conversation, *id,
      [this, envelope = std::move(envelope), id = *id, done](Result<void> settled) mutable {
        if (!settled && settled.error().code != Code::kQueueFull) {
          return done(settled.error());
        }
        if (settled) return compose_now(std::move(envelope), id, done);
        // Too much to do just now, which is no fault of this request.
        std::lock_guard lock(mutex_);
        attempts_.push_back([this, envelope = std::move(envelope), done] {
          compose(envelope, done);
          return Status();
        });
      });
}

void Memory::compose_now(v1::Envelope envelope, RequestId id, Callback<std::string> done) {
  auto shared = std::make_shared<v1::Envelope>(std::move(envelope));
  insist([this, shared, id, done] {
    return deps_.database.post<std::string>(
        [shared, id](Sql& sql) { return compose_in(sql, *shared, id); },
        [done](Result<std::string> data) { done(std::move(data)); });
  });
}

}  // namespace waystation::memory
