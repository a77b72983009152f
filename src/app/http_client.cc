#include "app/http_client.h"

#include <algorithm>
#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cctype>

namespace waystation::app {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

Error broken(const Url& server, const boost::system::error_code& error) {
  return Error{Code::kUnavailable,
               "http://" + server.host + ":" + server.port + " can't be reached: " + error.message()};
}

}  // namespace

Result<Url> parse_url(std::string_view text) {
  constexpr std::string_view kScheme = "http://";
  const Error wrong{Code::kInvalidArgument,
                    "'" + std::string(text) + "' is no address; write it as http://127.0.0.1:8080", "url"};
  if (!text.starts_with(kScheme)) return wrong;
  text.remove_prefix(kScheme.size());
  const auto slash = text.find('/');
  std::string_view authority = text.substr(0, slash);
  Url url;
  if (slash != std::string_view::npos) url.path = text.substr(slash);
  while (url.path.ends_with('/')) url.path.pop_back();
  const auto colon = authority.rfind(':');
  if (colon == std::string_view::npos || authority.ends_with(']')) {
    url.host = authority;
    url.port = "80";
  } else {
    url.host = authority.substr(0, colon);
    url.port = authority.substr(colon + 1);
  }
  if (url.host.starts_with('[') && url.host.ends_with(']')) {
    url.host = url.host.substr(1, url.host.size() - 2);
  }
  if (url.host.empty() || url.port.empty()) return wrong;
  return url;
}

Status http_call(const Url& server, const HttpRequest& request,
                 const std::function<bool(const HttpAnswer&)>& on_head,
                 const std::function<bool(std::string_view)>& on_body) {
  boost::system::error_code error;
  asio::io_context context;
  asio::ip::tcp::resolver resolver(context);
  const auto addresses = resolver.resolve(server.host, server.port, error);
  if (error) return broken(server, error);
  asio::ip::tcp::socket socket(context);
  asio::connect(socket, addresses, error);
  if (error) return broken(server, error);

  http::request<http::string_body> message(http::string_to_verb(request.method),
                                           server.path + request.target, 11);
  message.set(http::field::host, server.host + ":" + server.port);
  message.set(http::field::connection, "close");
  for (const auto& [name, value] : request.headers) message.set(name, value);
  message.body() = request.body;
  message.prepare_payload();
  http::write(socket, message, error);
  if (error) return broken(server, error);

  beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  http::read_header(socket, buffer, parser, error);
  if (error) return broken(server, error);
  HttpAnswer head;
  head.status = parser.get().result_int();
  for (const auto& field : parser.get()) {
    std::string name(field.name_string());
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    head.headers[name] = std::string(field.value());
  }
  if (!on_head(head)) return {};
  std::array<char, 16 << 10> piece;
  while (!parser.is_done()) {
    parser.get().body().data = piece.data();
    parser.get().body().size = piece.size();
    http::read_some(socket, buffer, parser, error);
    if (error == http::error::need_buffer) error = {};
    if (error) return broken(server, error);
    const std::size_t got = piece.size() - parser.get().body().size;
    if (got > 0 && !on_body({piece.data(), got})) return {};
  }
  return {};
}

Result<HttpReply> http_get(const Url& server, const std::string& target,
                           const std::map<std::string, std::string>& headers) {
  HttpReply reply;
  const Status done = http_call(
      server, {"GET", target, headers, ""},
      [&](const HttpAnswer& head) {
        reply.head = head;
        return true;
      },
      [&](std::string_view piece) {
        reply.body += piece;
        return true;
      });
  if (!done) return done.error();
  return reply;
}

}  // namespace waystation::app
