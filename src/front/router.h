// Which handler answers which method and path: a table, searched in order.
#pragma once

#include <boost/beast/http/verb.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "front/exchange.h"

namespace waystation::front {

struct Deps;

using Handler = void (*)(const Deps&, ExchangePtr);

struct Route {
  boost::beast::http::verb method;
  // Segments: literal, "{name}" for one, "{name...}" at the end for one or more.
  std::string pattern;
  Handler handler;
  bool is_open = false;  // needs no API key
  // The body isn't in Request::body: the handler has it read piece by piece (Exchange::read_body).
  // Its bound is Options::file_bytes_max instead of body_bytes_max.
  bool in_pieces = false;
};

struct Match {
  const Route* route = nullptr;     // null: nothing answers this method
  std::vector<std::string> params;  // in the pattern's order, percent-decoded
  std::string allow;                // the path's methods, "GET, HEAD"; empty: no such path
};

// Immutable; any thread.
class Router {
 public:
  explicit Router(std::vector<Route> routes) : routes_(std::move(routes)) {}

  // HEAD is answered by GET's handler.
  Match match(boost::beast::http::verb method, std::string_view path) const;
  const std::vector<Route>& routes() const { return routes_; }

 private:
  std::vector<Route> routes_;
};

// All routes of the server.
Router make_router();

}  // namespace waystation::front
