#include "front/options.h"

#include <boost/asio/ip/address.hpp>
#include <charconv>

namespace waystation::front {

bool Listen::is_loopback() const {
  boost::system::error_code ec;
  const auto address = boost::asio::ip::make_address(host, ec);
  return !ec && address.is_loopback();
}

Result<Listen> parse_listen(std::string_view text) {
  const auto bad = [&](const std::string& why) {
    return Error{Code::kInvalidArgument,
                 "can't listen on '" + std::string(text) + "': " + why +
                     "; write ADDRESS:PORT, for example 127.0.0.1:8080 or [::1]:8080",
                 "listen"};
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad("there is no port");
  Listen out;
  const std::string_view port = text.substr(colon + 1);
  const auto [end, ec] = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (port.empty() || ec != std::errc() || end != port.data() + port.size()) {
    return bad("the port is not a number from 0 to 65535");
  }
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad("an IPv6 address goes in brackets");
  }
  if (host.empty() || host == "localhost") host = "127.0.0.1";
  out.host = host;
  boost::system::error_code bad_address;
  (void)boost::asio::ip::make_address(out.host, bad_address);
  if (bad_address) return bad("'" + out.host + "' is not an IP address");
  return out;
}

}  // namespace waystation::front
