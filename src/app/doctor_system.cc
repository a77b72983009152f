#include "app/doctor_system.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "base/descriptor.h"

namespace waystation::app {
namespace {

namespace fs = std::filesystem;

Error os_error(const std::string& what, int error) {
  return {error == EACCES || error == EROFS ? Code::kPermissionDenied : Code::kIo,
          what + ": " + std::strerror(error)};
}

std::optional<std::uint64_t> first_number_in(const char* path) {
  std::ifstream file(path);
  std::uint64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;  // not there, or "max"
}

// The inodes of the sockets that listen on the port.
std::set<std::string> listening_inodes(std::uint16_t port) {
  std::set<std::string> inodes;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream file(table);
    std::string line;
    std::getline(file, line);  // the heads of the columns
    while (std::getline(file, line)) {
      std::istringstream fields(line);
      std::string slot, local, remote, state, skip, inode;
      fields >> slot >> local >> remote >> state;
      for (int i = 0; i < 5; ++i) fields >> skip;
      fields >> inode;
      const auto colon = local.rfind(':');
      if (state != "0A" || colon == std::string::npos) continue;
      if (std::strtoul(local.c_str() + colon + 1, nullptr, 16) == port) inodes.insert(inode);
    }
  }
  return inodes;
}

// Only processes whose files this user may see.
std::optional<pid_t> owner_of(const std::set<std::string>& inodes) {
  std::error_code error;
  for (const auto& process : fs::directory_iterator("/proc", error)) {
    const std::string name = process.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::error_code ignored;
    fs::directory_iterator files(process.path() / "fd", ignored);
    for (; !ignored && files != fs::directory_iterator(); files.increment(ignored)) {
      std::error_code unreadable;
      const std::string target = fs::read_symlink(files->path(), unreadable).string();
      if (unreadable || !target.starts_with("socket:[")) continue;
      if (inodes.contains(target.substr(8, target.size() - 9))) return std::stoi(name);
    }
  }
  return std::nullopt;
}

}  // namespace

std::vector<std::string> cpu_features() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with("flags") && !line.starts_with("Features")) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    std::vector<std::string> features;
    for (std::string word; words >> word;) features.push_back(word);
    return features;
  }
  return {};
}

Amx try_amx(const std::vector<std::string>& features) {
  if (std::ranges::count(features, "amx_tile") == 0) return Amx::kAbsent;
#if defined(__x86_64__)
  const pid_t child = ::fork();
  if (child < 0) return Amx::kAbsent;
  if (child == 0) {
    constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr int kTileData = 18;
    if (::syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) ::_exit(1);
    asm volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0");  // tilerelease
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? Amx::kWorks : Amx::kIllegal;
#else
  return Amx::kAbsent;
#endif
}

std::uint64_t available_memory_bytes() {
  std::uint64_t available = UINT64_MAX;
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("MemAvailable:")) available = std::stoull(line.substr(13)) * 1024;
  }
  const auto limit = first_number_in("/sys/fs/cgroup/memory.max");
  const auto used = first_number_in("/sys/fs/cgroup/memory.current");
  if (limit && used) available = std::min(available, *limit > *used ? *limit - *used : 0);
  return available;
}

std::string existing_part_of(const std::string& path) {
  std::error_code error;
  fs::path part = fs::absolute(path, error).lexically_normal();
  while (!fs::is_directory(part, error) && part.has_relative_path()) part = part.parent_path();
  return part.string();
}

Result<double> measure_sync_ms(const std::string& folder) {
  std::string path = folder + "/.waystation-doctor-XXXXXX";
  const Descriptor file(::mkostemp(path.data(), O_CLOEXEC));
  if (file.get() < 0) return os_error("no file can be made in " + folder, errno);
  ::unlink(path.c_str());
  const std::string block(4096, 'x');
  std::vector<double> took;
  for (int i = 0; i < 22; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    if (::pwrite(file.get(), block.data(), block.size(), i * 4096) != 4096 ||
        ::fdatasync(file.get()) != 0) {
      return os_error("a file in " + folder + " can't be written", errno);
    }
    const std::chrono::duration<double, std::milli> spent =
        std::chrono::steady_clock::now() - begin;
    if (i > 0) took.push_back(spent.count());  // the first one also sets up the file
  }
  std::ranges::sort(took);
  return took[took.size() / 2];
}

Result<std::uint64_t> free_bytes_of(const std::string& folder) {
  struct statvfs facts {};
  if (::statvfs(folder.c_str(), &facts) != 0) return os_error("can't look at " + folder, errno);
  return std::uint64_t{facts.f_bavail} * facts.f_frsize;
}

std::optional<pid_t> lock_holder(const std::string& lock_file) {
  const Descriptor file(::open(lock_file.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return std::nullopt;
  if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) return std::nullopt;  // let go by its closing
  char text[32] = {};
  const ssize_t n = ::pread(file.get(), text, sizeof text - 1, 0);
  return n > 0 ? static_cast<pid_t>(std::strtol(text, nullptr, 10)) : 0;
}

std::string command_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline");
  std::string program, argument;
  if (!std::getline(file, program, '\0')) return {};
  std::getline(file, argument, '\0');
  return fs::path(program).filename().string() + (argument.empty() ? "" : " " + argument);
}

PortUse look_at_port(const std::string& host, std::uint16_t port) {
  PortUse use;
  if (port == 0) return use;  // the system picks a free one
  sockaddr_storage address{};
  socklen_t size = 0;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
  if (::inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    address.ss_family = AF_INET;
    v4->sin_port = htons(port);
    size = sizeof(sockaddr_in);
  } else if (::inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    address.ss_family = AF_INET6;
    v6->sin6_port = htons(port);
    size = sizeof(sockaddr_in6);
  } else {
    use.error = host + " is no address";
    return use;
  }
  const Descriptor probe(::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int yes = 1;  // as the server does: what is left of closed connections doesn't count
  ::setsockopt(probe.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  const bool usable = ::bind(probe.get(), reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                      ::listen(probe.get(), 1) == 0;
  if (usable) return use;
  if (errno != EADDRINUSE) {
    use.error = std::strerror(errno);
    return use;
  }
  use.taken = true;
  use.pid = owner_of(listening_inodes(port));
  return use;
}

bool clock_is_synchronised() {
  timex facts{};
  const int state = ::adjtimex(&facts);
  return state >= 0 && state != TIME_ERROR && (facts.status & STA_UNSYNC) == 0;
}

}  // namespace waystation::app
