// Runs one fuzz target on inputs that were kept, without libFuzzer: what `make test` does with each
// corpus. Arguments: folders, of which every file is an input, or single files. A folder without
// files is a failure, since it would test nothing.
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <unistd.h>

#include "fuzz/fuzz.h"

namespace {

namespace fs = std::filesystem;

std::string current;  // the input that runs

void say(const char* text) {
  (void)!::write(STDERR_FILENO, text, std::strlen(text));
}

// Says which input it was, then dies as it would have.
void on_signal(int number) {
  say("the input that did it: ");
  say(current.c_str());
  say("\n");
  std::signal(number, SIG_DFL);
  ::raise(number);
}

std::vector<fs::path> inputs_of(const fs::path& place) {
  std::error_code ec;
  if (fs::is_regular_file(place, ec)) return {place};
  std::vector<fs::path> files;
  for (fs::recursive_directory_iterator at(place, ec), end; !ec && at != end; at.increment(ec)) {
    if (at->is_regular_file()) files.push_back(at->path());
  }
  return files;
}

void run(const fs::path& path) {
  current = path.string();
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  // A copy of exactly its size, so that a sanitizer sees what reads beyond it.
  const std::vector<std::uint8_t> bytes(text.begin(), text.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s CORPUS_FOLDER|FILE…\n", argv[0]);
    return 2;
  }
  for (const int number : {SIGABRT, SIGSEGV, SIGFPE, SIGBUS, SIGILL}) {
    std::signal(number, on_signal);
  }
  std::size_t count = 0;
  for (int i = 1; i < argc; ++i) {
    const std::vector<fs::path> inputs = inputs_of(argv[i]);
    if (inputs.empty()) {
      std::fprintf(stderr, "%s: no inputs there: the corpus is missing or empty\n", argv[i]);
      return 1;
    }
    for (const fs::path& input : inputs) {
      try {
        run(input);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: an exception came out: %s\n", current.c_str(), error.what());
        return 1;
      }
    }
    count += inputs.size();
  }
  std::printf("%zu inputs\n", count);
  return 0;
}
