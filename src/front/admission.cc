#include "front/admission.h"

#include <boost/asio/ip/address.hpp>
#include <boost/beast/core/string.hpp>

#include "base/utf8.h"

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
      {"Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS"},
      {"Access-Control-Allow-Headers",
       "Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID, "
       "X-Cache-TTL, X-Conversation-Id, X-Conversation-Memory, X-Deadline-Ms, "
       "X-Resumable"},
      {"Access-Control-Max-Age", "600"}};
  return response;
}

Response with_status(const Error& error, unsigned status) {
  Response response = error_response(error);
  response.status = status;
  return response;
}

// A body is read as it stands.
std::optional<Response> check_encoding(const Request& request) {
  const std::string_view encoding = request.header("Content-Encoding");
  if (encoding.empty() || boost::beast::iequals(encoding, "identity")) return std::nullopt;
  return with_status({Code::kInvalidArgument,
                      "bodies with the Content-Encoding '" + std::string(encoding.substr(0, 100)) +
                          "' aren't read here; send it without one",
                      "Content-Encoding"},
                     415);
}

// A web page whose own name suddenly resolves to this machine (DNS rebinding) is no page of another
// origin to its browser. What gives it away is the name that it calls us by.
std::optional<Response> check_host(const Options& options, const Request& request) {
  if (!options.check_host || is_own_host(options, request.header("Host"))) return std::nullopt;
  std::string host(request.header("Host").substr(0, 200));
  return with_status({Code::kPermissionDenied,
                      "this server has no API keys, so it answers only to names of this machine, "
                      "not to '" +
                          host + "'; allow the name with --allow-host, or use --api-key-file",
                      "Host"},
                     421);
}

Response no_route(const Request& request, const std::string& allow) {
  if (allow.empty()) {
    return error_response(
        {Code::kNotFound, "there is nothing at " + utf8_prefix(request.path, 200)});
  }
  Response response =
      error_response({Code::kMethodNotAllowed, "this path takes " + allow + " only"});
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

bool is_own_host(const Options& options, std::string_view host) {
  if (host.empty()) return true;  // HTTP/1.0; browsers always say it
  const std::size_t end = host.starts_with('[') ? host.find(']') + 1 : host.find(':');
  std::string_view name = host.substr(0, end);
  if (name.ends_with('.')) name.remove_suffix(1);
  for (const std::string& allowed : options.allowed_hosts) {
    if (boost::beast::iequals(name, allowed)) return true;
  }
  if (boost::beast::iequals(name, "localhost")) return true;
  constexpr std::string_view kBelow = ".localhost";
  if (name.size() > kBelow.size() &&
      boost::beast::iequals(name.substr(name.size() - kBelow.size()), kBelow)) {
    return true;
  }
  if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
  boost::system::error_code ec;
  const auto address = boost::asio::ip::make_address(name, ec);
  return !ec && address.is_loopback();
}

bool origin_allowed(const Options& options, std::string_view origin) {
  for (const std::string& allowed : options.cors_origins) {
    if (allowed == "*" || allowed == origin) return true;
  }
  return false;
}

Admission admit(const Deps& deps, Request& request) {
  if (auto answer = check_host(deps.options, request)) return {nullptr, std::move(answer)};
  if (auto answer = answer_preflight(deps.options, request)) return {nullptr, std::move(answer)};
  Match match = deps.router.match(request.method, request.path);
  if (match.route == nullptr) return {nullptr, no_route(request, match.allow)};
  request.params = std::move(match.params);
  if (auto answer = check_encoding(request)) return {match.route, std::move(answer)};
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
