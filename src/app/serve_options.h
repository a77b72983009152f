// What `waystation serve` can be told, as plain values.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "upstream/options.h"

namespace waystation::app {

struct ServeOptions {
  std::string listen = "127.0.0.1:8080";
  std::string data = "data";
  std::vector<std::string> models;        // "FILE.gguf" or "NAME=FILE.gguf"
  std::vector<std::string> embed_models;  // the same, for embeddings
  std::string scripted;                   // "": no scripted workers
  bool scripted_given = false;
  int workers = 1;               // local ones for each model
  std::uint32_t slots = 8;       // requests at once in one local worker
  std::uint32_t context = 4096;  // tokens per slot; 0: what the model was trained for
  int threads = 0;               // for all local workers together; 0: all cores

  std::string api_key_file;
  std::string link_listen;  // "": no remote workers
  std::string join_token_file;
  std::string link_cert, link_key, link_ca;

  std::string queue_listen;  // "": queues over HTTP only
  std::string queue_cert, queue_key;

  std::string durability = "disk";
  std::uint64_t queue_max = 10'000;
  std::uint64_t body_bytes_max = 4u << 20;
  std::uint64_t file_bytes_max = 200u << 20;    // of one uploaded file
  std::uint64_t store_bytes_max = 20ull << 30;  // of all of them
  double batch_hours = 24;                      // what a batch hasn't done by then expires
  std::uint64_t journal_bytes_max = 8ull << 30;
  std::uint64_t segment_bytes = 32u << 20;
  double retain_hours = 24;
  double idempotency_ttl_hours = 24;
  double response_days = 30;                // stored responses are kept this long
  std::string conversation_busy = "queue";  // or "refuse": a turn of one that has one in flight
  std::string on_dead = "skip";             // or "block": a conversation whose request died waits
  std::string cache = "on";                 // answers of deterministic requests are given again
  double cache_ttl_seconds = 3600;
  int connections_max = 10'000;
  int header_timeout_ms = 10'000;
  int body_timeout_ms = 60'000;
  int idle_timeout_ms = 75'000;
  std::vector<std::string> cors_origins;
  std::vector<std::string> allow_hosts;  // names that the server may be called by
  int grace_seconds = 10;
  std::string log_level = "info";

  std::string config;                        // "": no configuration file
  std::vector<upstream::Options> upstreams;  // with their keys
  // Who answers for a model when nobody serves it: other models, in order of preference.
  std::map<std::string, std::vector<std::string>> fallback;
};

// Adds every option of `serve` to its command line. `options` outlives the parser.
void add_serve_options(CLI::App& parser, ServeOptions& options);

// After the command line was parsed: the configuration file, where one was named (flags win over
// it), and the upstreams. Errors: kInvalidArgument, kNotFound, with the file's line.
Status finish_serve_options(CLI::App& parser, ServeOptions& options);

// One model file and how it is called.
struct ModelFile {
  std::string name;
  std::string path;
  bool embeds = false;  // makes embeddings instead of answers
};

// The models to serve: as given, or the small one of `make models` when nothing was said and it is
// there. kInvalidArgument, kNotFound: a file is missing or no GGUF.
Result<std::vector<ModelFile>> models_of(const ServeOptions& options);

}  // namespace waystation::app
