// Reads one HTTP/1.1 response from bytes as they come. Beast's parser, with what we want of it: the
// few headers that matter, and the body in pieces. One thread.
#pragma once

#include <boost/beast/http/basic_parser.hpp>
#include <cstdint>
#include <string>
#include <string_view>

namespace waystation::upstream {

struct ResponseHead {
  int status = 0;
  std::string content_type;  // lower case, without parameters
  std::string content_encoding;
  std::string retry_after;
  std::string retry_after_ms;
  std::uint64_t body_bytes = 0;  // as announced; 0 when not known
};

class ResponseSink {
 public:
  virtual ~ResponseSink() = default;
  // False: no more, please; reading ends with an error.
  virtual bool on_head(const ResponseHead& head) = 0;
  virtual bool on_body(std::string_view piece) = 0;
};

class ResponseReader final : public boost::beast::http::basic_parser<false> {
 public:
  static constexpr std::uint32_t kHeaderBytesMax = 64 << 10;

  // `sink` must outlive it.
  explicit ResponseReader(ResponseSink& sink);

  bool informational() const { return head_.status >= 100 && head_.status < 200; }

 private:
  using error_code = boost::beast::error_code;
  using string_view = boost::beast::string_view;
  using field = boost::beast::http::field;

  void on_request_impl(boost::beast::http::verb, string_view, string_view, int,
                       error_code&) override {}
  void on_response_impl(int code, string_view reason, int version, error_code& ec) override;
  void on_field_impl(field name, string_view name_text, string_view value, error_code& ec) override;
  void on_header_impl(error_code& ec) override;
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
  std::size_t on_body_impl(string_view body, error_code& ec) override;
  void on_chunk_header_impl(std::uint64_t, string_view, error_code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, string_view body, error_code& ec) override;
  void on_finish_impl(error_code&) override {}

  ResponseSink& sink_;
  ResponseHead head_;
};

}  // namespace waystation::upstream
