// Finding responses, and what a new one builds on.
#include <algorithm>

#include "base/utf8.h"
#include "memory/memory.h"
#include "stream/render/renderer.h"

namespace waystation::memory {
namespace {

using broker::RequestView;
using message::Item;
using store::ResponseRow;
using store::Sql;

constexpr std::size_t kChainMax = 10'000;

Error no_such_response(RequestId id) {
  return {Code::kNotFound, "there is no response '" + message::response_id(id) + "'"};
}

Error bad_previous(const std::string& what) {
  return {Code::kInvalidArgument, "previous_response_id " + what, "previous_response_id"};
}

Result<ResponseRow> visible_row(Sql& sql, const std::string& tenant, RequestId id) {
  auto row = store::find_response(sql, tenant, id);
  if (!row) return row.error();
  if (!*row || !(*row)->visible) return no_such_response(id);
  return std::move(**row);
}

// The items of one ended response, what went in and what came out.
Result<std::vector<Item>> items_of(const ResponseRow& row) {
  auto items = message::parse_stored_items(row.input);
  if (!items || row.answer.empty()) return items;
  auto output = message::output_of_response(row.answer);
  if (!output) return output;
  items->insert(items->end(), output->begin(), output->end());
  return items;
}

Status add_link(Sql& sql, const std::string& tenant, RequestId id, bool is_first,
                std::vector<Item>& newest_first, std::optional<RequestId>& next) {
  const std::string name = "'" + message::response_id(id) + "'";
  auto row = store::find_response(sql, tenant, id);
  if (!row) return row.error();
  if (!*row || !(*row)->visible) {
    return bad_previous(is_first ? "names the response " + name + ", which isn't stored here"
                                 : "leads back to the response " + name + ", which was deleted");
  }
  if (!(*row)->ended)
    return bad_previous("names the response " + name + ", which is still running");
  if ((*row)->state != stream::state_name(v1::REQUEST_STATE_COMPLETED)) {
    return bad_previous("names the response " + name + ", which ended as " + (*row)->state +
                        "; go on from the one before it");
  }
  if (!(*row)->conversation.empty()) {
    return bad_previous("names the response " + name +
                        ", which is a turn of a conversation; go on with conversation");
  }
  auto items = items_of(**row);
  if (!items) return items.error();
  newest_first.insert(newest_first.end(), items->rbegin(), items->rend());
  next = (*row)->previous;
  return {};
}

// The items of the response and of all before it, oldest first.
Result<std::vector<Item>> chain_of(Sql& sql, const std::string& tenant, RequestId last) {
  std::vector<Item> items;
  std::optional<RequestId> at = last;
  for (std::size_t links = 0; at; ++links) {
    if (links == kChainMax) {
      return bad_previous("has more than " + std::to_string(kChainMax) + " responses before it");
    }
    std::optional<RequestId> next;
    if (auto status = add_link(sql, tenant, *at, links == 0, items, next); !status) {
      return status.error();
    }
    at = next;
  }
  std::reverse(items.begin(), items.end());
  return items;
}

Result<Item> referred_item(Sql& sql, const std::string& tenant,
                           const message::ResponseRequest& request, std::size_t index) {
  const std::string& name = request.input[index].id;
  if (const auto owner = message::request_of_item(name)) {
    auto row = store::find_response(sql, tenant, *owner);
    if (!row) return row.error();
    if (*row && (*row)->visible) {
      auto items = items_of(**row);
      if (!items) return items.error();
      for (Item& item : *items) {
        if (item.id == name) return std::move(item);
      }
    }
  }
  if (!request.conversation.empty()) {
    auto item = store::find_item(sql, tenant, request.conversation, name);
    if (!item) return item.error();
    if (*item) return std::move(**item);
  }
  const std::string param = "input[" + std::to_string(index) + "].id";
  return Error{Code::kInvalidArgument,
               param + " refers to the item '" + utf8_prefix(name, 100) +
                   "', which isn't stored here; send the item itself",
               param};
}

Result<Context> context_of(Sql& sql, const std::string& tenant, message::ResponseRequest request) {
  Context context;
  if (!request.previous_response_id.empty()) {
    auto items = chain_of(sql, tenant, *message::parse_response_id(request.previous_response_id));
    if (!items) return items.error();
    context.earlier = std::move(*items);
  }
  if (!request.conversation.empty()) {
    auto conversation = store::find_conversation(sql, tenant, request.conversation);
    if (!conversation) return conversation.error();
    if (!*conversation) {
      return Error{Code::kNotFound,
                   "there is no conversation '" + utf8_prefix(request.conversation, 100) + "'",
                   "conversation"};
    }
  }
  for (std::size_t i = 0; i < request.input.size(); ++i) {
    if (request.input[i].type != "item_reference") continue;
    auto item = referred_item(sql, tenant, request, i);
    if (!item) return item.error();
    request.input[i] = std::move(*item);
  }
  context.request = std::move(request);
  return context;
}

}  // namespace

Status Memory::prepare(std::string tenant, message::ResponseRequest request,
                       Callback<Context> done) {
  if (request.previous_response_id.empty()) {
    prepare_now(std::move(tenant), std::move(request), std::move(done));
    return {};
  }
  const auto previous = message::parse_response_id(request.previous_response_id);
  if (!previous) return bad_previous("is not the id of a response");
  // One that has ended just now counts as ended.
  settle(tenant, *previous,
         [this, tenant, request = std::move(request),
          done](Result<std::optional<broker::RequestView>> settled) mutable {
           if (!settled) return done(settled.error());
           prepare_now(std::move(tenant), std::move(request), std::move(done));
         });
  return {};
}

void Memory::prepare_now(std::string tenant, message::ResponseRequest request,
                         Callback<Context> done) {
  const auto status = deps_.database.post<Context>(
      [tenant = std::move(tenant), request = std::move(request)](Sql& sql) mutable {
        return context_of(sql, tenant, std::move(request));
      },
      [done](Result<Context> context) { done(std::move(context)); });
  if (!status) done(status.error());
}

Status Memory::find_echo(std::string tenant, RequestId id, Callback<std::string> done) {
  return deps_.database.post<std::string>(
      [tenant = std::move(tenant), id](Sql& sql) -> Result<std::string> {
        auto row = store::find_response(sql, tenant, id);
        if (!row) return row.error();
        return *row ? std::move((*row)->parameters) : std::string();
      },
      [done = std::move(done)](Result<std::string> echo) { done(std::move(echo)); });
}

Status Memory::find(std::string tenant, RequestId id, Callback<Found> done) {
  return deps_.database.post<ResponseRow>(
      [tenant, id](Sql& sql) { return visible_row(sql, tenant, id); },
      [this, tenant, id, done](Result<ResponseRow> row) {
        if (!row) return done(row.error());
        if (row->ended) return done(Found{std::move(*row), std::nullopt});
        settle(tenant, id,
               [this, tenant, id, row = std::move(*row),
                done](Result<std::optional<broker::RequestView>> view) {
                 if (!view) return done(view.error());
                 if (*view) return done(Found{row, **view});
                 if (auto status = find(tenant, id, done); !status) done(status.error());
               });
      });
}

Status Memory::cancel(std::string tenant, RequestId id, Callback<Found> done) {
  return find(tenant, id, [this, tenant, id, done](Result<Found> found) {
    if (!found) return done(found.error());
    if (!found->row.background) {
      return done(Error{Code::kInvalidArgument,
                        "only responses made with background: true can be cancelled; end another "
                        "by closing its connection",
                        "response_id"});
    }
    if (found->row.ended) return done(std::move(found));
    auto status =
        api_->cancel(tenant, id, [this, tenant, id, done](Result<broker::RequestView> view) {
          if (!view) return done(view.error());
          if (auto again = find(tenant, id, done); !again) done(again.error());
        });
    if (!status) done(status.error());
  });
}

Status Memory::remove(std::string tenant, RequestId id, Callback<void> done) {
  return find(tenant, id, [this, tenant, id, done](Result<Found> found) {
    if (!found) return done(found.error());
    if (found->row.ended) return erase(tenant, id, done);
    auto status = api_->cancel(tenant, id, [this, tenant, id, done](Result<RequestView> view) {
      if (!view) return done(view.error());
      settle(tenant, id, [this, tenant, id, done](Result<std::optional<RequestView>> settled) {
        if (!settled) return done(settled.error());
        erase(tenant, id, done);
      });
    });
    if (!status) done(status.error());
  });
}

// The row goes last: as long as it is there, a delete that was cut short can be sent again.
void Memory::erase(const std::string& tenant, RequestId id, const Callback<void>& done) {
  auto status = api_->erase(tenant, id, [this, tenant, id, done](Result<void> erased) {
    const bool is_gone =
        erased || erased.error().code == Code::kGone || erased.error().code == Code::kNotFound;
    if (!is_gone) return done(erased.error());
    auto posted = deps_.database.post<void>(
        [tenant, id](Sql& sql) { return store::remove_response(sql, tenant, id); }, done);
    if (!posted) done(posted.error());
  });
  if (!status) done(status.error());
}

}  // namespace waystation::memory
