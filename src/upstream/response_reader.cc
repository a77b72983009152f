#include "upstream/response_reader.h"

#include <algorithm>
#include <boost/asio/error.hpp>
#include <boost/beast/http/field.hpp>

namespace waystation::upstream {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

bool equals(std::string_view name, std::string_view lower_case) {
  return name.size() == lower_case.size() && lower(name) == lower_case;
}

std::string_view plain(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

}  // namespace

ResponseReader::ResponseReader(ResponseSink& sink) : sink_(sink) {
  header_limit(kHeaderBytesMax);
  body_limit(boost::none);  // the sink has limits of its own
  eager(true);
}

void ResponseReader::on_response_impl(int code, string_view, int, error_code&) {
  head_.status = code;
}

void ResponseReader::on_field_impl(field name, string_view name_text, string_view value,
                                   error_code&) {
  if (name == field::content_type) {
    std::string_view type = plain(value).substr(0, plain(value).find(';'));
    while (type.ends_with(' ')) type.remove_suffix(1);
    head_.content_type = lower(type);
  } else if (name == field::content_encoding) {
    head_.content_encoding = lower(plain(value));
  } else if (name == field::retry_after) {
    head_.retry_after = plain(value);
  } else if (name == field::unknown && equals(plain(name_text), "retry-after-ms")) {
    head_.retry_after_ms = plain(value);
  }
}

// Not on_body_init_impl, which isn't called when there is no body.
void ResponseReader::on_header_impl(error_code& ec) {
  if (informational()) return;
  head_.body_bytes = content_length().value_or(0);
  if (!sink_.on_head(head_)) ec = boost::asio::error::operation_aborted;
}

std::size_t ResponseReader::on_body_impl(string_view body, error_code& ec) {
  if (!sink_.on_body(plain(body))) ec = boost::asio::error::operation_aborted;
  return body.size();
}

std::size_t ResponseReader::on_chunk_body_impl(std::uint64_t, string_view body, error_code& ec) {
  return on_body_impl(body, ec);
}

}  // namespace waystation::upstream
