#include "front/admission.h"

namespace waystation::front {
namespace {

namespace http = boost::beast::http;

// A browser's question before a request from another origin.
std::optional<Response> answer_preflight(const Options& options, const Request& request) {
  if (request.method != http::verb::options || options.cors_origins.empty()) return std::nullopt;
  if (!request.has_header("Access-Control-Request-Method")) return std::nullopt;
  if (!origin_allowed(options, request.header("Origin"))) return std::nullopt;
  Response response;
  response.status = 204;
  response.headers = {
      {"Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS"},
      {"Access-Control-Allow-Headers",
       "Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID, "
       "X-Cache-TTL, X-Conversation-Id, X-Conversation-Memory, X-Deadline-Ms, "
       "X-Resumable"},
      {"Access-Control-Max-Age", "600"}};
  return response;
}

Response no_route(const Request& request, const std::string& allow) {
  if (allow.empty()) {
    return error_response({Code::kNotFound, "there is nothing at " + request.path.substr(0, 200)});
  }
  Response response =
      error_response({Code::kMethodNotAllowed, "this path takes " + allow + " only", allow});
  response.headers.emplace_back("Allow", allow);
  return response;
}

// A web page of another origin may send a plain POST without asking first; its browser names it.
std::optional<Error> check_origin(const Options& options, const Request& request) {
  const bool is_read = request.method == http::verb::get || request.method == http::verb::head;
  const std::string_view origin = request.header("Origin");
  if (is_read || origin.empty() || origin_allowed(options, origin)) return std::nullopt;
  const std::size_t scheme = origin.find("://");
  const bool is_same =
      scheme != std::string_view::npos && origin.substr(scheme + 3) == request.header("Host");
  if (is_same) return std::nullopt;
  return Error{Code::kPermissionDenied,
               "web pages of this origin may not use this server; "
               "allow it with the server's CORS option"};
}

}  // namespace

bool origin_allowed(const Options& options, std::string_view origin) {
  for (const std::string& allowed : options.cors_origins) {
    if (allowed == "*" || allowed == origin) return true;
  }
  return false;
}

Admission admit(const Deps& deps, Request& request) {
  if (auto answer = answer_preflight(deps.options, request)) return {nullptr, std::move(answer)};
  Match match = deps.router.match(request.method, request.path);
  if (match.route == nullptr) return {nullptr, no_route(request, match.allow)};
  request.params = std::move(match.params);
  if (auto error = check_origin(deps.options, request))
    return {match.route, error_response(*error)};
  request.tenant = guard::kDefaultTenant;
  if (deps.keys != nullptr && !match.route->is_open) {
    auto tenant = deps.keys->authenticate(request.header("Authorization"));
    if (!tenant) return {match.route, error_response(tenant.error())};
    request.tenant = std::move(*tenant);
  }
  return {match.route};
}

}  // namespace waystation::front
