#include "guard/keys.h"

#include <fcntl.h>
#include <openssl/rand.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>

#include "base/descriptor.h"
#include "base/log.h"
#include "guard/sha256.h"

namespace waystation::guard {
namespace {

constexpr std::size_t kFileBytesMax = 16 << 20;
constexpr std::size_t kKeyBytes = 32;

Error io_error(const std::string& what, const std::string& path) {
  return Error{Code::kIo, what + " " + path + ": " + std::strerror(errno)};
}

// An open file that closes itself.
Result<std::string> read_file(int fd, const std::string& path) {
  std::string out;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error("can't read the key file", path);
    if (n == 0) return out;
    out.append(buffer.data(), static_cast<std::size_t>(n));
    if (out.size() > kFileBytesMax) {
      return Error{Code::kTooLarge, "the key file " + path + " is over 16 MiB"};
    }
  }
}

Status write_all(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error("can't write", path);
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

// 64 hexadecimal digits → 32 bytes; empty when they aren't.
std::string from_hex(std::string_view hex) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  };
  if (hex.size() != 64) return {};
  std::string out;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    const int high = digit(hex[i]);
    const int low = digit(hex[i + 1]);
    if (high < 0 || low < 0) return {};
    out.push_back(static_cast<char>(high << 4 | low));
  }
  return out;
}

std::string_view next_word(std::string_view& line) {
  line.remove_prefix(std::min(line.find_first_not_of(" \t\r"), line.size()));
  const std::string_view word = line.substr(0, line.find_first_of(" \t\r"));
  line.remove_prefix(word.size());
  return word;
}

Result<std::unordered_map<std::string, std::string>> parse(std::string_view text,
                                                           const std::string& path) {
  std::unordered_map<std::string, std::string> tenants;
  for (std::size_t number = 1; !text.empty(); ++number) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const auto bad = [&](const std::string& why) {
      return Error{Code::kInvalidArgument,
                   path + " line " + std::to_string(number) + ": " + why +
                       "; a line is '<sha256> <tenant> <created>', made by 'waystation keys add'"};
    };
    const std::string_view hash_text = next_word(line);
    if (hash_text.empty() || hash_text.starts_with('#')) continue;
    std::string hash = from_hex(hash_text);
    if (hash.empty()) return bad("the first word is not 64 lower-case hexadecimal digits");
    const std::string_view tenant = next_word(line);
    if (!is_tenant_name(tenant)) return bad("the second word is not a tenant's name");
    next_word(line);  // created: for people
    if (!next_word(line).empty()) return bad("there are more than three words");
    if (!tenants.emplace(std::move(hash), tenant).second) return bad("the key is there twice");
  }
  return tenants;
}

std::string base64url(std::string_view bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::string out;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : bytes) {
    bits = bits << 8 | static_cast<unsigned char>(c);
    for (count += 8; count >= 6; count -= 6) out.push_back(kDigits[bits >> (count - 6) & 63]);
  }
  if (count > 0) out.push_back(kDigits[bits << (6 - count) & 63]);
  return out;
}

std::string iso_time(TimeMs now_ms) {
  const std::time_t seconds = now_ms / 1000;
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::array<char, 32> out;
  return {out.data(), std::strftime(out.data(), out.size(), "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

Status replace_file(const std::string& path, std::string_view content) {
  const std::string temporary = path + ".tmp";
  Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file) return io_error("can't create", temporary);
  if (::fchmod(file.get(), 0600) != 0) return io_error("can't set the mode of", temporary);
  if (auto status = write_all(file.get(), content, temporary); !status) return status;
  if (::fsync(file.get()) != 0) return io_error("can't sync", temporary);
  if (::rename(temporary.c_str(), path.c_str()) != 0) return io_error("can't replace", path);
  std::string folder = std::filesystem::path(path).parent_path();
  if (folder.empty()) folder = ".";
  Descriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || ::fsync(directory.get()) != 0) return io_error("can't sync the folder", folder);
  return {};
}

}  // namespace

bool is_tenant_name(std::string_view name) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  return !name.empty() && name.size() <= 64 &&
         name.find_first_not_of(kAllowed) == std::string_view::npos;
}

Result<KeyStore> KeyStore::load(const std::string& path) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return io_error("can't open the key file", path);
  auto text = read_file(file.get(), path);
  if (!text) return text.error();
  auto tenants = parse(*text, path);
  if (!tenants) return tenants.error();
  KeyStore store;
  store.tenants_ = std::move(*tenants);
  return store;
}

Result<std::string> KeyStore::tenant_of(std::string_view key) const {
  const auto found = tenants_.find(sha256(key));
  if (found == tenants_.end()) {
    return Error{Code::kUnauthenticated, "the API key is not known to this server"};
  }
  return found->second;
}

Result<std::string> KeyStore::authenticate(std::string_view authorization) const {
  constexpr std::string_view kScheme = "bearer ";
  const auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; };
  if (authorization.size() <= kScheme.size() ||
      !std::equal(kScheme.begin(), kScheme.end(), authorization.begin(),
                  [&](char wanted, char got) { return same(got, wanted); })) {
    return Error{Code::kUnauthenticated,
                 "an API key is needed: send the header 'Authorization: Bearer ws-...'"};
  }
  authorization.remove_prefix(kScheme.size());
  while (authorization.starts_with(' ')) authorization.remove_prefix(1);
  return tenant_of(authorization);
}

Result<std::unique_ptr<KeyFile>> KeyFile::open(const std::string& path) {
  std::unique_ptr<KeyFile> file(new KeyFile(path));
  file->read_ = file->mark();  // before the content: what changes in between is seen later
  auto keys = KeyStore::load(path);
  if (!keys) return keys.error();
  if (keys->size() == 0) {
    return Error{Code::kInvalidArgument, "the key file " + path +
                                             " holds no key; add one with 'waystation keys add " +
                                             path + " --tenant NAME'"};
  }
  file->keys_ = std::make_shared<const KeyStore>(std::move(*keys));
  return file;
}

KeyFile::Mark KeyFile::mark() const {
  struct stat about {};
  if (::stat(path_.c_str(), &about) != 0) return {};
  return {about.st_ino, about.st_size,
          about.st_mtim.tv_sec * std::int64_t{1'000'000'000} + about.st_mtim.tv_nsec};
}

void KeyFile::refresh() {
  const Mark now = mark();
  if (now == read_) return;
  read_ = now;
  auto keys = KeyStore::load(path_);
  if (!keys) {
    WS_LOG(error, "API keys not read again, the old ones stay good error=\"{}\"",
           keys.error().message);
    return;
  }
  WS_LOG(info, "API keys read again count={}", keys->size());
  keys_ = std::make_shared<const KeyStore>(std::move(*keys));
}

Result<std::string> add_key(const std::string& path, std::string_view tenant, TimeMs now_ms) {
  if (!is_tenant_name(tenant)) {
    return Error{Code::kInvalidArgument,
                 "a tenant's name is 1 to 64 characters of a-z A-Z 0-9 . _ -", "tenant"};
  }
  // Two commands at once must not lose one another's key.
  const std::string lock_path = path + ".lock";
  Descriptor lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock || ::flock(lock.get(), LOCK_EX) != 0) return io_error("can't lock", lock_path);

  std::string content;
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file) {
    auto text = read_file(file.get(), path);
    if (!text) return text.error();
    if (auto known = parse(*text, path); !known) return known.error();
    content = std::move(*text);
    if (!content.empty() && !content.ends_with('\n')) content.push_back('\n');
  } else if (errno != ENOENT) {
    return io_error("can't open the key file", path);
  }

  std::string random(kKeyBytes, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(random.data()), kKeyBytes) != 1) {
    return Error{Code::kInternal, "the system gave no random bytes"};
  }
  const std::string key = "ws-" + base64url(random);
  content += sha256_hex(key) + " " + std::string(tenant) + " " + iso_time(now_ms) + "\n";
  if (auto status = replace_file(path, content); !status) return status.error();
  return key;
}

}  // namespace waystation::guard
