#include "store/blobs.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/check.h"
#include "base/crash_point.h"

namespace waystation::store {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kBufferBytes = 256 << 10;
constexpr std::size_t kHashChars = 64;

Error failed(const std::string& what, int why) {
  const bool is_full = why == ENOSPC || why == EDQUOT || why == EFBIG;
  return {is_full ? Code::kUnavailable : Code::kIo,
          "the store can't " + what + ": " + std::strerror(why) +
              (is_full ? "; free some space on the disk and try again" : ""),
          "", is_full ? 1000 : 0};
}

Status sync_folder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return failed("open the folder " + path, errno);
  const int result = ::fsync(fd);
  const int why = errno;
  ::close(fd);
  if (result != 0) return failed("sync the folder " + path, why);
  return {};
}

// False: it was there already.
Result<bool> make_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0) return true;
  if (errno == EEXIST) return false;
  return failed("make the folder " + path, errno);
}

}  // namespace

// ---- writing ------------------------------------------------------------------------------------

Result<std::unique_ptr<BlobWriter>> BlobWriter::create(const std::string& tmp_folder) {
  static std::atomic<std::uint64_t> counter = 0;
  std::string path =
      tmp_folder + "/" + std::to_string(::getpid()) + "." + std::to_string(++counter);
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return failed("make " + path, errno);
  return std::unique_ptr<BlobWriter>(new BlobWriter(std::move(path), fd));
}

BlobWriter::BlobWriter(std::string path, int fd)
    : path_(std::move(path)), fd_(fd), digest_(EVP_MD_CTX_new()) {
  CHECK(digest_ != nullptr && EVP_DigestInit_ex(digest_, EVP_sha256(), nullptr) == 1);
}

BlobWriter::~BlobWriter() {
  EVP_MD_CTX_free(digest_);
  if (fd_ >= 0) ::close(fd_);
  if (!path_.empty()) ::unlink(path_.c_str());
}

Status BlobWriter::write(std::string_view bytes) {
  CHECK(hash_.empty());
  CHECK(EVP_DigestUpdate(digest_, bytes.data(), bytes.size()) == 1);
  bytes_ += bytes.size();
  buffer_ += bytes;
  return buffer_.size() < kBufferBytes ? Status{} : flush();
}

Status BlobWriter::flush() {
  std::string_view rest = buffer_;
  while (!rest.empty()) {
    const ssize_t written = ::write(fd_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failed("write a file", errno);
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  buffer_.clear();
  return {};
}

Status BlobWriter::finish() {
  if (Status s = flush(); !s) return s;
  if (::fsync(fd_) != 0) return failed("sync a file", errno);
  const int closed = ::close(std::exchange(fd_, -1));
  if (closed != 0) return failed("close a file", errno);
  std::array<unsigned char, EVP_MAX_MD_SIZE> raw;
  unsigned size = 0;
  CHECK(EVP_DigestFinal_ex(digest_, raw.data(), &size) == 1);
  static constexpr char kHex[] = "0123456789abcdef";
  for (unsigned i = 0; i < size; ++i) {
    hash_.push_back(kHex[raw[i] >> 4]);
    hash_.push_back(kHex[raw[i] & 15]);
  }
  return {};
}

// ---- reading ------------------------------------------------------------------------------------

Result<std::unique_ptr<BlobReader>> BlobReader::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return failed("read the file's content " + path, errno);
  return std::unique_ptr<BlobReader>(new BlobReader(fd));
}

BlobReader::~BlobReader() {
  ::close(fd_);
}

Result<bool> BlobReader::read(std::string& out, std::size_t bytes_max) {
  const std::size_t before = out.size();
  out.resize(before + bytes_max);
  ssize_t got = 0;
  do {
    got = ::read(fd_, out.data() + before, bytes_max);
  } while (got < 0 && errno == EINTR);
  const int why = errno;
  out.resize(before + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  if (got < 0) return failed("read a file's content", why);
  return got > 0;
}

Result<std::string> BlobReader::read_at(std::uint64_t offset, std::size_t size) const {
  std::string out(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got =
        ::pread(fd_, out.data() + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed("read a file's content", errno);
    if (got == 0) return Error{Code::kCorruption, "a file's content is shorter than it was"};
    done += static_cast<std::size_t>(got);
  }
  return out;
}

// ---- the folder ---------------------------------------------------------------------------------

Status Blobs::prepare() const {
  for (const std::string& path : {folder_, folder_ + "/blobs", tmp_folder()}) {
    if (auto made = make_folder(path); !made) return made.error();
  }
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(tmp_folder(), ec)) {
    std::error_code ignored;
    fs::remove(entry.path(), ignored);
  }
  if (ec) return failed("list " + tmp_folder(), ec.value());
  return sync_folder(folder_);
}

std::string Blobs::path(const std::string& hash) const {
  return folder_ + "/blobs/" + hash.substr(0, 2) + "/" + hash;
}

Status Blobs::keep(BlobWriter& writer) const {
  const std::string target = path(writer.hash());
  const std::string folder = target.substr(0, target.rfind('/'));
  auto made = make_folder(folder);
  if (!made) return made.error();
  if (*made) {
    if (Status s = sync_folder(folder_ + "/blobs"); !s) return s;
  }
  crash_point(CrashPoint::kBlobBeforeRename);
  if (::rename(writer.path().c_str(), target.c_str()) != 0) return failed("name a file", errno);
  crash_point(CrashPoint::kBlobAfterRename);
  writer.release();
  return sync_folder(folder);
}

// Best effort: what stays behind is found at the next start.
void Blobs::remove(const std::string& hash) const {
  ::unlink(path(hash).c_str());
}

std::vector<std::string> Blobs::list() const {
  std::vector<std::string> out;
  std::error_code ec;
  for (const auto& entry : fs::recursive_directory_iterator(folder_ + "/blobs", ec)) {
    const std::string name = entry.path().filename();
    if (name.size() == kHashChars) out.push_back(name);
  }
  return out;
}

}  // namespace waystation::store
