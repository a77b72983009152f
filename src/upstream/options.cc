#include "upstream/options.h"

#include <algorithm>
#include <set>
#include <string_view>

namespace waystation::upstream {
namespace {

Error bad(const std::string& name, std::string message, std::string param) {
  return Error{Code::kInvalidArgument, "upstream '" + name + "': " + std::move(message),
               std::move(param)};
}

bool is_token(std::string_view text) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           kMarks.find(c) != std::string_view::npos;
  });
}

// Without line breaks, so that a value can't become a header of its own.
bool is_field_value(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f; });
}

bool is_ours(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  static const std::set<std::string> kOurs{"host",
                                           "content-length",
                                           "transfer-encoding",
                                           "connection",
                                           "content-type",
                                           "accept-encoding",
                                           "idempotency-key",
                                           "x-resumable",
                                           "x-waystation-hops",
                                           "expect",
                                           "te"};
  return kOurs.contains(name);
}

Status check_models(const Options& options) {
  if (options.models.empty() || options.models.size() > 64) {
    return bad(options.name, "give it 1 to 64 models", "models");
  }
  std::set<std::string> seen;
  for (const ModelRoute& model : options.models) {
    if (model.name.empty() || model.name.size() > 256) {
      return bad(options.name, "a model's name must have 1 to 256 bytes", "models");
    }
    if (!seen.insert(model.name).second) {
      return bad(options.name, "the model '" + model.name + "' is given twice", "models");
    }
    for (const std::string& task : model.tasks) {
      if (task != "chat" && task != "completion" && task != "embedding") {
        return bad(options.name, "the task '" + task + "' isn't one of chat, completion, embedding",
                   "tasks");
      }
    }
  }
  return {};
}

Status check_headers(const Options& options) {
  if (!is_field_value(options.key)) {
    return bad(options.name, "its key holds a line break or a control character", "key");
  }
  for (const auto& [name, value] : options.headers) {
    if (!is_token(name) || !is_field_value(value)) {
      return bad(options.name, "'" + name + "' is no valid header", "headers");
    }
    if (is_ours(name)) {
      return bad(options.name, "the header '" + name + "' is set by the server itself", "headers");
    }
  }
  return {};
}

}  // namespace

Result<Url> parse_url(const std::string& text) {
  const auto wrong = [&text](const std::string& why) {
    return Error{Code::kInvalidArgument,
                 "'" + text + "' is no URL for an upstream: " + why +
                     "; it looks like https://api.example.com/v1",
                 "url"};
  };
  Url url;
  std::string_view rest = text;
  if (rest.starts_with("https://")) {
    url.tls = true;
    rest.remove_prefix(8);
  } else if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else {
    return wrong("it must begin with http:// or https://");
  }
  if (!is_field_value(text) || text.find(' ') != std::string::npos) {
    return wrong("it holds a blank or a control character");
  }
  if (rest.find_first_of("?#@") != std::string_view::npos) {
    return wrong("a user, a query or a fragment can't be part of it");
  }
  const std::size_t slash = rest.find('/');
  const std::string_view authority = rest.substr(0, slash);
  url.path = slash == std::string_view::npos ? "" : rest.substr(slash);
  while (url.path.ends_with('/')) url.path.pop_back();
  url.authority = authority;
  std::string_view port;
  if (authority.starts_with('[')) {
    const std::size_t end = authority.find(']');
    if (end == std::string_view::npos) return wrong("a bracket is missing");
    url.host = authority.substr(1, end - 1);
    port = authority.substr(end + 1);
  } else {
    const std::size_t colon = authority.find(':');
    url.host = authority.substr(0, colon);
    port = colon == std::string_view::npos ? "" : authority.substr(colon);
  }
  if (url.host.empty()) return wrong("it has no host");
  url.port = url.tls ? "443" : "80";
  if (!port.empty()) {
    url.port = port.substr(1);
    const bool digits = port.front() == ':' && !url.port.empty() && url.port.size() <= 5 &&
                        url.port.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || std::stoi(url.port) < 1 || std::stoi(url.port) > 65535) {
      return wrong("its port must be 1 to 65535");
    }
  }
  return url;
}

Status check_options(const Options& options) {
  if (options.name.empty() || options.name.size() > 128) {
    return Error{Code::kInvalidArgument, "an upstream's name must have 1 to 128 bytes", "name"};
  }
  if (auto url = parse_url(options.url); !url) return url.error();
  if (Status ok = check_models(options); !ok) return ok;
  if (Status ok = check_headers(options); !ok) return ok;
  if (options.concurrency < 1 || options.concurrency > 65536) {
    return bad(options.name, "concurrency must be 1 to 65536", "concurrency");
  }
  for (const auto& [name, value] : {std::pair{"connect_timeout_ms", options.connect_timeout_ms},
                                    {"first_byte_timeout_ms", options.first_byte_timeout_ms},
                                    {"idle_timeout_ms", options.idle_timeout_ms},
                                    {"answer_timeout_ms", options.answer_timeout_ms},
                                    {"total_timeout_ms", options.total_timeout_ms},
                                    {"probe_min_ms", options.probe_min_ms},
                                    {"probe_max_ms", options.probe_max_ms}}) {
    if (value < 1) return bad(options.name, std::string(name) + " must be at least 1", name);
  }
  if (options.breaker_failures < 1) {
    return bad(options.name, "breaker_failures must be at least 1", "breaker_failures");
  }
  return {};
}

}  // namespace waystation::upstream
