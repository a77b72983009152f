// API keys. The file holds one line a key: `<sha256 of the key> <tenant> <created, ISO 8601>`; the
// key itself is shown once, when it is made. Empty lines and lines that start with '#' are kept and
// ignored. A key has 256 random bits, so a plain hash is enough.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "base/ids.h"
#include "base/result.h"

namespace waystation::guard {

// The tenant of every caller when there is no key file.
inline constexpr std::string_view kDefaultTenant = "default";

// Keys as loaded from a file; perhaps none. Immutable; any thread.
class KeyStore {
 public:
  // kIo when the file can't be read, kInvalidArgument naming the file and line when it is
  // malformed.
  static Result<KeyStore> load(const std::string& path);

  // The tenant of a key, or kUnauthenticated. What is compared is a hash that the caller can't
  // steer, so the time it takes tells nothing about the keys.
  Result<std::string> tenant_of(std::string_view key) const;

  // From an Authorization header's value ("Bearer ws-…"; the scheme in any case). Empty: no header.
  Result<std::string> authenticate(std::string_view authorization) const;

  std::size_t size() const { return tenants_.size(); }

 private:
  std::unordered_map<std::string, std::string> tenants_;  // raw SHA-256 → tenant
};

// The keys of a file that may change meanwhile.
class KeyFile {
 public:
  // As KeyStore::load; kInvalidArgument also when it holds no key.
  static Result<std::unique_ptr<KeyFile>> open(const std::string& path);

  // As KeyStore's, by the keys that were read last. Any thread.
  Result<std::string> authenticate(std::string_view authorization) const {
    return keys_.load()->authenticate(authorization);
  }

  // Reads the file again if it was changed. One that can't be used changes nothing, and is
  // complained of in the log: a slip of the pen must not lock everybody out. One thread; reads the
  // disk.
  void refresh();

 private:
  // What tells one state of the file from another.
  struct Mark {
    std::uint64_t inode = 0;
    std::int64_t size = -1;
    std::int64_t changed_ns = 0;
    bool operator==(const Mark&) const = default;
  };
  explicit KeyFile(std::string path) : path_(std::move(path)) {}
  Mark mark() const;

  const std::string path_;
  Mark read_;  // when keys_ were read, or couldn't be
  std::atomic<std::shared_ptr<const KeyStore>> keys_;
};

// Makes a key for `tenant`, adds its line to the file (created with mode 0600 when it is new,
// replaced as a whole so that a crash leaves the old file or the new one), and returns the key.
// kInvalidArgument: a bad tenant name, or a file that isn't a key file.
Result<std::string> add_key(const std::string& path, std::string_view tenant, TimeMs now_ms);

// 1 to 64 characters of a-z A-Z 0-9 . _ -
bool is_tenant_name(std::string_view name);

}  // namespace waystation::guard
