#include "app/paths.h"

#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>

namespace waystation::app {

std::string own_executable() {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::string("waystation") : path.string();
}

Status make_folder(const std::string& path) {
  std::error_code error;
  const bool made = std::filesystem::create_directories(path, error);
  if (error) {
    return Error{Code::kIo, "the folder " + path + " can't be made: " + error.message()};
  }
  if (made) {
    std::filesystem::permissions(path, std::filesystem::perms::owner_all, error);
  }
  return {};
}

Result<std::string> make_socket_path(const std::string& data_dir) {
  std::error_code error;
  const std::string near = std::filesystem::absolute(data_dir, error).string() + "/link.sock";
  if (!error && near.size() < sizeof(sockaddr_un::sun_path)) return near;
  std::string folder = "/tmp/waystation-XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr) {
    return Error{Code::kIo, std::string("no folder for the workers' socket can be made below /tmp: ") +
                                std::strerror(errno)};
  }
  return folder + "/link.sock";
}

Result<std::string> read_secret(const std::string& path, const std::string& option) {
  std::ifstream file(path);
  std::string line;
  if (!file || !std::getline(file, line)) {
    return Error{Code::kIo, option + ": the file " + path + " can't be read, or is empty", option};
  }
  const auto first = line.find_first_not_of(" \t\r");
  const auto last = line.find_last_not_of(" \t\r");
  if (first == std::string::npos) {
    return Error{Code::kInvalidArgument, option + ": the first line of " + path + " is empty", option};
  }
  return line.substr(first, last - first + 1);
}

std::string model_name_of(const std::string& path) {
  const std::filesystem::path file(path);
  return file.extension() == ".gguf" ? file.stem().string() : file.filename().string();
}

std::string cache_folder() {
  if (const char* given = std::getenv("WAYSTATION_CACHE")) return given;
  const char* home = std::getenv("HOME");
  return home == nullptr ? std::string() : std::string(home) + "/.cache/waystation";
}

int fail(const Error& error) {
  std::fprintf(stderr, "waystation: %s\n", error.message.c_str());
  return exit_code(error.code);
}

}  // namespace waystation::app
