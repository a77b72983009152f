// GET /v1/models and /v1/models/{id}: the models that workers serve now, in OpenAI's shape and with
// what Waystation knows beside it.
#include "base/utf8.h"
#include "front/deps.h"
#include "front/handlers.h"
#include "front/loop.h"
#include "message/json.h"

namespace waystation::front {
namespace {

using message::append_json_string;

void append_model(std::string& out, const broker::ModelView& model) {
  out += "{\"id\":";
  append_json_string(out, model.id);
  out += ",\"object\":\"model\",\"created\":" + std::to_string(model.since_ms / 1000);
  out += ",\"owned_by\":\"waystation\",\"fingerprint\":";
  append_json_string(out, model.fingerprint);
  out += ",\"engine\":";
  append_json_string(out, model.engine);
  out += ",\"context_length\":" + std::to_string(model.context_length);
  if (model.embedding_length > 0) {
    out += ",\"embedding_length\":" + std::to_string(model.embedding_length);
  }
  out += ",\"tasks\":[";
  for (const std::string& task : model.tasks) {
    if (&task != &model.tasks.front()) out += ",";
    append_json_string(out, task);
  }
  out += "]";
  out += ",\"workers\":" + std::to_string(model.workers) + "}";
}

Response list(const std::vector<broker::ModelView>& models) {
  Response response;
  response.body = "{\"object\":\"list\",\"data\":[";
  for (const auto& model : models) {
    if (&model != &models.front()) response.body += ",";
    append_model(response.body, model);
  }
  response.body += "]}";
  return response;
}

Response one(const std::vector<broker::ModelView>& models, const std::string& id) {
  std::string known;
  for (const auto& model : models) {
    if (model.id == id) {
      Response response;
      append_model(response.body, model);
      return response;
    }
    known += (known.empty() ? "" : ", ") + model.id;
  }
  return error_response({Code::kModelNotFound,
                         "there is no model '" + utf8_prefix(id, 200) +
                             "'; there is: " + (known.empty() ? "none yet" : known),
                         "model"});
}

using Models = std::vector<broker::ModelView>;

void answer(const Deps& deps, const ExchangePtr& exchange,
            Response (*make)(const Models&, const Request&)) {
  const auto status = deps.api.models([exchange, make](Result<Models> models) {
    exchange->loop()->post([exchange, make, models = std::move(models)] {
      exchange->reply(models ? make(*models, exchange->request()) : error_response(models.error()));
    });
  });
  if (!status) exchange->reply(status.error());
}

}  // namespace

void handle_models(const Deps& deps, ExchangePtr exchange) {
  answer(deps, exchange, [](const Models& models, const Request&) { return list(models); });
}

void handle_model(const Deps& deps, ExchangePtr exchange) {
  answer(deps, exchange, [](const Models& models, const Request& request) {
    return one(models, request.params.at(0));
  });
}

}  // namespace waystation::front
