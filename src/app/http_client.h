// A small blocking HTTP/1.1 client for the terminal chat: one request a connection, the body handed
// on as it comes.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"

namespace waystation::app {

struct Url {
  std::string host;
  std::string port;
  std::string path;  // without a slash at the end
};

// "http://host:port" (http only).
Result<Url> parse_url(std::string_view text);

struct HttpRequest {
  std::string method = "GET";
  std::string target;
  std::map<std::string, std::string> headers;
  std::string body;
};

struct HttpAnswer {
  int status = 0;
  std::map<std::string, std::string> headers;  // lower-case names
};

// Sends the request. `on_head` hears status and headers, `on_body` the pieces of the body; either
// returns false to stop. kUnavailable: no connection, or it broke before the answer was complete.
Status http_call(const Url& server, const HttpRequest& request,
                 const std::function<bool(const HttpAnswer&)>& on_head,
                 const std::function<bool(std::string_view)>& on_body);

// The same for a short answer.
struct HttpReply {
  HttpAnswer head;
  std::string body;
};
Result<HttpReply> http_get(const Url& server, const std::string& target,
                           const std::map<std::string, std::string>& headers);

}  // namespace waystation::app
