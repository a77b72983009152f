#include "worker/process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

extern char** environ;  // NOLINT: POSIX's name

namespace waystation::worker {
namespace {

Error cant_start(const std::string& program, int error) {
  return Error{Code::kIo, "can't start '" + program + "': " + std::strerror(error)};
}

// posix_spawn: safe in a process with many threads, and doesn't copy the server's memory map.
int spawn(const std::vector<std::string>& command, pid_t& pid) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
  sigset_t none;
  sigset_t all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(
      &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  std::vector<char*> argv;
  argv.reserve(command.size() + 1);
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const int error = ::posix_spawn(&pid, argv[0], &files, &attributes, argv.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&files);
  return error;
}

}  // namespace

std::string Exit::to_string() const {
  if (!by_signal) return "exit status " + std::to_string(value);
  const char* const name = ::sigdescr_np(value);
  return "signal " + std::to_string(value) + " (" + (name != nullptr ? name : "unknown") + ")";
}

Result<Process> Process::start(const std::vector<std::string>& command) {
  if (command.empty()) return Error{Code::kInvalidArgument, "an empty command line"};
  pid_t pid = 0;
  if (const int error = spawn(command, pid); error != 0) return cant_start(command[0], error);
  const int fd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (fd < 0) {
    const int error = errno;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return cant_start(command[0], error);
  }
  return Process(pid, fd);
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)), fd_(std::exchange(other.fd_, -1)) {}

Process& Process::operator=(Process&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(fd_, other.fd_);
  return *this;
}

Process::~Process() {
  if (fd_ >= 0) ::close(fd_);
}

void Process::signal(int number) const { ::kill(pid_, number); }  // not reaped: still our child

Exit Process::reap() {
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status)) return {true, WTERMSIG(status)};
  return {false, WEXITSTATUS(status)};
}

}  // namespace waystation::worker
