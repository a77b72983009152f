// The configuration file of `serve`. The input is the file.
#include "app/config.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "app/serve_options.h"
#include "base/utf8.h"
#include "fuzz/fuzz.h"
#include "upstream/options.h"

namespace waystation::fuzz {
namespace {

using namespace waystation::app;

// A file without a disk: made anew for each content, always of the same path.
class MemoryFile {
 public:
  MemoryFile() : file_(::memfd_create("config", 0)) {
    REQUIRE(file_ >= 0, "memfd_create");
    path_ = "/proc/self/fd/" + std::to_string(file_);
  }
  const std::string& write(std::string_view content) {
    REQUIRE(::ftruncate(file_, 0) == 0, "ftruncate");
    for (std::size_t at = 0; at < content.size();) {
      const auto wrote =
          ::pwrite(file_, content.data() + at, content.size() - at, static_cast<off_t>(at));
      REQUIRE(wrote > 0, "pwrite");
      at += static_cast<std::size_t>(wrote);
    }
    return path_;
  }

 private:
  const int file_;
  std::string path_;
};

// All that a file sets, as text.
std::string shown(const ServeOptions& o) {
  std::string text = o.listen + "|" + o.data + "|" + o.scripted + "|" + o.durability + "|" +
                     o.log_level + "|" + o.cache + "|" + o.conversation_busy;
  for (const double number : {o.batch_hours, o.retain_hours, o.idempotency_ttl_hours,
                              o.response_days, o.cache_ttl_seconds}) {
    text += "|" + std::to_string(number);
  }
  for (const std::uint64_t number : {o.queue_max, o.body_bytes_max, o.file_bytes_max,
                                     o.store_bytes_max, o.journal_bytes_max, o.segment_bytes}) {
    text += "|" + std::to_string(number);
  }
  for (const int number : {o.workers, o.threads, o.connections_max, o.grace_seconds}) {
    text += "|" + std::to_string(number);
  }
  for (const auto* list : {&o.models, &o.embed_models, &o.cors_origins, &o.allow_hosts}) {
    for (const std::string& each : *list) text += "," + each;
    text += "|";
  }
  for (const upstream::Options& each : o.upstreams) {
    text += "\n" + each.name + "|" + each.url + "|" + std::to_string(each.weight);
    for (const auto& model : each.models) text += "," + model.name + "=" + model.theirs;
    for (const auto& [name, value] : each.headers) text += "," + name + ":" + value;
    for (const auto& [name, value] : each.continue_flags) text += "," + name + ":" + value;
  }
  for (const auto& [model, others] : o.fallback) {
    text += "\n" + model;
    for (const std::string& other : others) text += "," + other;
  }
  return text;
}

// What the file sets, or the refusal without the path.
Result<std::string> loaded(const std::string& path) {
  ServeOptions options;
  CLI::App parser;
  add_serve_options(parser, options);
  parser.parse("", false);
  options.config = path;
  if (Status status = finish_serve_options(parser, options); !status) return status.error();
  for (const upstream::Options& each : options.upstreams) {
    REQUIRE(upstream::check_options(each), "an upstream that can't work");
    REQUIRE(each.weight >= 1 && each.answer_bytes_max >= 1024, "a number out of its range");
  }
  REQUIRE(options.workers >= 0 && options.workers <= 256, std::to_string(options.workers));
  REQUIRE(options.slots >= 1 && options.slots <= 1024, std::to_string(options.slots));
  return shown(options);
}

// "PATH:LINE: what"; 0 when it isn't that.
long line_of(const std::string& message, const std::string& path) {
  if (!message.starts_with(path + ":")) return 0;
  return std::strtol(message.c_str() + path.size() + 1, nullptr, 10);
}

void check(std::string_view content) {
  static MemoryFile file;
  const std::string path = file.write(content);
  const auto once = loaded(path);
  const auto again = loaded(path);
  REQUIRE(once.has_value() == again.has_value(), "another outcome");
  // A line above it changes nothing but the lines' numbers. (A byte order mark must come first.)
  if (content.starts_with("\xef\xbb\xbf")) return;
  const auto moved = loaded(file.write("# a comment\n" + std::string(content)));
  REQUIRE(once.has_value() == moved.has_value(), "a comment changes the outcome");
  if (once) {
    REQUIRE(*once == *again && *once == *moved, *once + "\n" + *moved);
    return;
  }
  require_sayable(once.error());
  REQUIRE(once.error().code == Code::kInvalidArgument, once.error().message);
  const long line = line_of(once.error().message, path);
  REQUIRE(line >= 1, once.error().message);
  // toml++ looks for what isn't UTF-8 some bytes ahead, so of two mistakes either may be named.
  if (!is_utf8(content)) return;
  REQUIRE(line_of(moved.error().message, path) == line + 1, moved.error().message);
}

}  // namespace
}  // namespace waystation::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace waystation::fuzz;
  be_quiet();
  check(Input(data, size).rest());
  return 0;
}
