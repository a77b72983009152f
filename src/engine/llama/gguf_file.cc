#include "engine/llama/gguf_file.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <string_view>
#include <system_error>
#include <vector>

#include <fmt/format.h>

#include "base/log.h"

namespace waystation::engine {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "GGUF";
constexpr std::size_t kReadBytes = 1 << 20;

using Digest = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

Digest new_digest() {
  Digest digest(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  EVP_DigestInit_ex(digest.get(), EVP_sha256(), nullptr);
  return digest;
}

std::string hex_of(EVP_MD_CTX* digest) {
  unsigned char sum[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(digest, sum, &size);
  std::string hex;
  for (unsigned int i = 0; i < size; ++i) hex += fmt::format("{:02x}", sum[i]);
  return hex;
}

std::string sha256_of(std::string_view bytes) {
  Digest digest = new_digest();
  EVP_DigestUpdate(digest.get(), bytes.data(), bytes.size());
  return hex_of(digest.get());
}

Error io_error(const fs::path& file, int error) {
  return {Code::kIo, fmt::format("can't read the model file {}: {}", file.string(),
                                 std::generic_category().message(error))};
}

Result<std::string> hash_file(const fs::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return io_error(file, errno);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  Digest digest = new_digest();
  std::vector<char> block(kReadBytes);
  ssize_t got = 0;
  while ((got = ::read(fd, block.data(), block.size())) != 0) {
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) break;
    EVP_DigestUpdate(digest.get(), block.data(), static_cast<std::size_t>(got));
  }
  const int error = errno;
  ::close(fd);
  if (got < 0) return io_error(file, error);
  return hex_of(digest.get());
}

// The first line of a sidecar: what the file was like when it was hashed.
std::string identity_of(const struct stat& info) {
  return fmt::format("{} {}.{:09}", info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
}

std::string read_sidecar(const fs::path& sidecar, const std::string& identity) {
  std::ifstream in(sidecar);
  std::string seen;
  std::string hash;
  if (std::getline(in, seen) && std::getline(in, hash) && seen == identity && hash.size() == 64) {
    return hash;
  }
  return {};
}

void write_sidecar(const fs::path& sidecar, const std::string& identity, const std::string& hash) {
  std::error_code error;
  fs::create_directories(sidecar.parent_path(), error);
  const fs::path part = fmt::format("{}.{}", sidecar.string(), ::getpid());
  {
    std::ofstream out(part);
    out << identity << '\n' << hash << '\n';
    if (!out.flush()) error = std::make_error_code(std::errc::io_error);
  }
  if (!error) fs::rename(part, sidecar, error);
  if (error) {
    fs::remove(part, error);
    WS_LOG(warn, "model fingerprint not cached folder={}", sidecar.parent_path().string());
  }
}

}  // namespace

Status check_gguf(const fs::path& file) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return Error{Code::kNotFound,
                   fmt::format("there is no model file {}: check the path, or run 'make models'",
                               file.string())};
    }
    return io_error(file, errno);
  }
  if (!S_ISREG(info.st_mode)) {
    return Error{Code::kInvalidArgument,
                 fmt::format("{} is not a file: name one GGUF file", file.string())};
  }
  char magic[4] = {};
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return io_error(file, errno);
  const ssize_t got = ::read(fd, magic, sizeof magic);
  const int error = errno;
  ::close(fd);
  if (got < 0) return io_error(file, error);
  if (std::string_view(magic, static_cast<std::size_t>(got)) != kMagic) {
    return Error{Code::kInvalidArgument,
                 fmt::format("{} is not a GGUF model: give the path of a .gguf file", file.string())};
  }
  return {};
}

Result<std::string> gguf_fingerprint(const fs::path& file, const fs::path& cache_dir) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) return io_error(file, errno);
  const std::string identity = identity_of(info);
  fs::path sidecar;
  if (!cache_dir.empty()) {
    std::error_code error;
    const fs::path whole = fs::weakly_canonical(file, error);
    sidecar = cache_dir / "fingerprints" / sha256_of((error ? file : whole).string()).substr(0, 32);
    if (std::string hash = read_sidecar(sidecar, identity); !hash.empty()) return "sha256:" + hash;
  }
  auto hash = hash_file(file);
  if (!hash) return hash.error();
  if (!sidecar.empty()) write_sidecar(sidecar, identity, *hash);
  return "sha256:" + *hash;
}

}  // namespace waystation::engine
