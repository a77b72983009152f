// TLS of the link over TCP. PEM files.
#pragma once

#include <string>

namespace waystation::link {

// Empty: no TLS. The server needs `certificate` and `key`, and with `authority` it takes only
// workers with a certificate signed by it (mutual TLS). A worker needs `authority` (who signed the
// server's certificate), and `certificate` and `key` if the server asks for them.
struct TlsFiles {
  std::string certificate;
  std::string key;
  std::string authority;

  bool empty() const { return certificate.empty() && key.empty() && authority.empty(); }
};

}  // namespace waystation::link
