#include "link/grpc/grpc_common.h"

#include <grpc/support/log.h>
#include <sys/un.h>

#include <charconv>
#include <fstream>
#include <mutex>
#include <sstream>

#include "base/log.h"

namespace waystation::link {
namespace {

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  if (!file || !(content << file.rdbuf())) {
    return Error{Code::kIo,
                 "can't read '" + path + "': check that it exists, isn't empty and is readable"};
  }
  return content.str();
}

struct Pem {
  std::string certificate;
  std::string key;
  std::string authority;
};

Result<Pem> read_pem(const TlsFiles& files) {
  if (files.certificate.empty() != files.key.empty()) {
    return Error{Code::kInvalidArgument, "a TLS certificate and its key must be given together"};
  }
  Pem pem;
  const auto load = [](const std::string& path, std::string& into) -> Status {
    if (path.empty()) return {};
    Result<std::string> content = read_file(path);
    if (!content) return content.error();
    into = std::move(*content);
    return {};
  };
  if (Status ok = load(files.certificate, pem.certificate); !ok) return ok.error();
  if (Status ok = load(files.key, pem.key); !ok) return ok.error();
  if (Status ok = load(files.authority, pem.authority); !ok) return ok.error();
  return pem;
}

}  // namespace

void route_grpc_log() {
  static std::once_flag once;
  std::call_once(once, [] {
    gpr_set_log_function([](gpr_log_func_args* entry) {
      if (entry->severity == GPR_LOG_SEVERITY_ERROR) {
        WS_LOG(warn, "grpc file={} line={} text={}", entry->file, entry->line, entry->message);
      } else {
        WS_LOG(debug, "grpc file={} line={} text={}", entry->file, entry->line, entry->message);
      }
    });
  });
}

Status check_address(const std::string& address) {
  if (is_unix_address(address)) {
    const std::size_t path_bytes = address.size() - 5;
    if (path_bytes == 0 || path_bytes >= sizeof(sockaddr_un::sun_path)) {
      return Error{Code::kInvalidArgument,
                   "the socket path in '" + address + "' must have 1 to " +
                       std::to_string(sizeof(sockaddr_un::sun_path) - 1) +
                       " bytes: choose a data folder with a shorter path"};
    }
    return {};
  }
  const std::size_t colon = address.rfind(':');
  unsigned port = 0;
  const char* const end = address.data() + address.size();
  if (colon != std::string::npos && colon > 0) {
    const auto parsed = std::from_chars(address.data() + colon + 1, end, port);
    if (parsed.ec == std::errc() && parsed.ptr == end && port <= 65535) return {};
  }
  return Error{Code::kInvalidArgument,
               "'" + address +
                   "' is no address: write unix:PATH or HOST:PORT, e.g. 127.0.0.1:7070"};
}

Result<std::shared_ptr<grpc::ServerCredentials>> server_credentials(const TlsFiles& files) {
  if (files.empty()) return grpc::InsecureServerCredentials();
  Result<Pem> pem = read_pem(files);
  if (!pem) return pem.error();
  if (pem->certificate.empty()) {
    return Error{Code::kInvalidArgument, "TLS needs the server's certificate and key"};
  }
  grpc::SslServerCredentialsOptions options(
      pem->authority.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                             : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = pem->authority;
  options.pem_key_cert_pairs.push_back({pem->key, pem->certificate});
  return grpc::SslServerCredentials(options);
}

Result<std::shared_ptr<grpc::ChannelCredentials>> client_credentials(const TlsFiles& files) {
  if (files.empty()) return grpc::InsecureChannelCredentials();
  Result<Pem> pem = read_pem(files);
  if (!pem) return pem.error();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = pem->authority;
  options.pem_private_key = pem->key;
  options.pem_cert_chain = pem->certificate;
  return grpc::SslCredentials(options);
}

}  // namespace waystation::link
