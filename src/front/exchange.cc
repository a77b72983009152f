#include "front/exchange.h"

#include <algorithm>

#include "front/connection.h"
#include "message/openai.h"

namespace waystation::front {
namespace {

constexpr int kRetryAfterDefaultMs = 1000;

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string percent_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      const int high = hex_digit(text[i + 1]);
      const int low = hex_digit(text[i + 2]);
      if (high >= 0 && low >= 0) {
        out.push_back(static_cast<char>(high << 4 | low));
        i += 2;
        continue;
      }
    }
    out.push_back(text[i]);
  }
  return out;
}

std::string_view Request::header(std::string_view name) const {
  const auto found = headers.find({name.data(), name.size()});
  if (found == headers.end()) return {};
  return {found->value().data(), found->value().size()};
}

bool Request::has_header(std::string_view name) const {
  return headers.find({name.data(), name.size()}) != headers.end();
}

std::optional<std::string> Request::query_value(std::string_view name) const {
  std::string_view rest = query;
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
    const std::size_t equals = pair.find('=');
    if (percent_decode(pair.substr(0, equals)) != name) continue;
    if (equals == std::string_view::npos) return std::string();
    return percent_decode(pair.substr(equals + 1));
  }
  return std::nullopt;
}

Response error_response(const Error& error) {
  Response response;
  response.status = static_cast<unsigned>(http_status(error.code));
  response.body = message::openai_error_body(error);
  switch (error.code) {
    case Code::kQueueFull:
    case Code::kUnavailable: {
      const int wait_ms = error.retry_after_ms > 0 ? error.retry_after_ms : kRetryAfterDefaultMs;
      // Whole seconds for everybody, and milliseconds for the clients that read them.
      response.headers.emplace_back("Retry-After", std::to_string((wait_ms + 999) / 1000));
      response.headers.emplace_back("Retry-After-Ms", std::to_string(wait_ms));
      break;
    }
    case Code::kConflict:
    case Code::kCancelled:
    case Code::kExpired:
    case Code::kDead:
    case Code::kLoop:
    case Code::kLostInSalvage:
      // The status alone would make OpenAI's clients send it again, which nobody wants here.
      response.headers.emplace_back("X-Should-Retry", "false");
      break;
    case Code::kUnauthenticated:
      response.headers.emplace_back("WWW-Authenticate", "Bearer");
      break;
    default:
      break;
  }
  return response;
}

void Exchange::read_body(std::shared_ptr<BodySink> sink) {
  if (connection_ != nullptr) connection_->read_body_into(std::move(sink));
}

void Exchange::resume_body() {
  if (connection_ != nullptr) connection_->resume_body();
}

void Exchange::abort() {
  if (connection_ != nullptr) connection_->close();
}

void Exchange::reply(Response response) {
  if (connection_ != nullptr) connection_->reply(std::move(response));
}

void Exchange::begin_stream(Response head) {
  if (connection_ != nullptr) connection_->begin_stream(std::move(head));
}

void Exchange::stream(std::string_view bytes) {
  if (connection_ != nullptr) connection_->stream(bytes);
}

void Exchange::end_stream(bool keep_alive) {
  if (connection_ != nullptr) connection_->end_stream(keep_alive);
}

std::size_t Exchange::unsent_bytes() const {
  return connection_ == nullptr ? 0 : connection_->unsent_bytes();
}

}  // namespace waystation::front
