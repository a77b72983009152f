// What both ends of the gRPC transport share. Included by this folder's .cc files only, as nothing
// else may see gRPC's headers.
#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <string>

#include "base/result.h"
#include "link/grpc/tls.h"

namespace waystation::link {

inline constexpr int kMessageBytesMax = 64 << 20;
inline constexpr int kKeepaliveMs = 10'000;
inline constexpr int kKeepaliveTimeoutMs = 5'000;

// gRPC writes its own complaints to stderr; this sends them to our log: its errors as
// warnings, the rest at debug level. Idempotent.
void route_grpc_log();

// "unix:PATH" stays, "host:port" is checked; kInvalidArgument says what is wrong.
Status check_address(const std::string& address);

inline bool is_unix_address(const std::string& address) { return address.starts_with("unix:"); }

// Reads the files. Errors: kIo, kInvalidArgument when files that belong together are missing.
Result<std::shared_ptr<grpc::ServerCredentials>> server_credentials(const TlsFiles& files);
Result<std::shared_ptr<grpc::ChannelCredentials>> client_credentials(const TlsFiles& files);

}  // namespace waystation::link
