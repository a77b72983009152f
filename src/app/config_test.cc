#include "app/config.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "app/serve_options.h"

namespace waystation::app {
namespace {

struct Parsed {
  ServeOptions options;
  Status status;
};

// Parses a command line, with `toml` as its --config file unless it is empty.
Parsed parsed(std::vector<std::string> arguments, const std::string& toml = "") {
  Parsed result;
  const std::string path =
      (std::filesystem::path(testing::TempDir()) /
       (std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + ".toml"))
          .string();
  if (!toml.empty()) {
    std::ofstream(path) << toml;
    arguments.insert(arguments.begin(), {"--config", path});
  }
  CLI::App app;
  CLI::App& serve = *app.add_subcommand("serve");
  add_serve_options(serve, result.options);
  arguments.insert(arguments.begin(), "serve");
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  app.parse(reversed);
  result.status = finish_serve_options(serve, result.options);
  return result;
}

// The message of the error that a file gives, without the file's path.
std::string complaint(const std::string& toml) {
  const Parsed result = parsed({}, toml);
  if (result.status) return "";
  const std::string& message = result.status.error().message;
  return message.substr(message.find(".toml:") + 6);
}

TEST(Config, SetsWhatFlagsWouldAndFlagsWin) {
  const Parsed result =
      parsed({"--slots", "3", "--model", "x.gguf"},
             "listen = \"127.0.0.1:9\"\nslots = 5\nworkers = 2\nretain_hours = 1\n"
             "model = [\"a.gguf\", \"b.gguf\"]\ncors-origin = \"https://a\"\n"
             "idempotency-ttl-hours = 0.5\ndurability = \"os\"\n"
             "journal-bytes-max = 99999999999\nscripted = \"tokens=2\"\n");
  ASSERT_TRUE(result.status.has_value()) << result.status.error().message;
  const ServeOptions& o = result.options;
  EXPECT_EQ(o.listen, "127.0.0.1:9");
  EXPECT_EQ(o.slots, 3u);
  EXPECT_EQ(o.workers, 2);
  EXPECT_EQ(o.retain_hours, 1.0);
  EXPECT_EQ(o.models, std::vector<std::string>{"x.gguf"});
  EXPECT_EQ(o.cors_origins, std::vector<std::string>{"https://a"});
  EXPECT_EQ(o.idempotency_ttl_hours, 0.5);
  EXPECT_EQ(o.durability, "os");
  EXPECT_EQ(o.journal_bytes_max, 99999999999u);
  EXPECT_TRUE(o.scripted_given);
}

TEST(Config, AListMaySetSeveral) {
  const Parsed result = parsed({}, "model = [\"a.gguf\", \"b.gguf\"]\n");
  EXPECT_EQ(result.options.models, (std::vector<std::string>{"a.gguf", "b.gguf"}));
}

TEST(Config, AnUnknownKeyNamesTheNearestAndItsLine) {
  EXPECT_EQ(complaint("\nlisen = \"x\"\n"), "2: unknown key 'lisen'; did you mean 'listen'?");
  EXPECT_EQ(complaint("[[upsteam]]\nurl = \"x\"\n"),
            "1: unknown key 'upsteam'; did you mean 'upstream'?");
  EXPECT_EQ(complaint("[[upstream]]\nurl = \"http://a/v1\"\nwieght = 2\n"),
            "3: unknown key 'wieght' in [[upstream]]; did you mean 'weight'?");
  EXPECT_NE(complaint("config = \"other.toml\"\n").find("unknown key"), std::string::npos);
  EXPECT_NE(
      complaint("[[upstream]]\nurl = \"http://a/v1\"\n[upstream.models]\nm = {modell = \"x\"}\n")
          .find("4: unknown key 'modell' of the model 'm'; did you mean 'model'?"),
      std::string::npos);
}

TEST(Config, AWrongTypeNamesKeyLineAndWhatIsWanted) {
  EXPECT_EQ(complaint("slots = \"8\"\n"), "1: 'slots' must be a whole number, not a text");
  EXPECT_EQ(complaint("slots = 8.5\n"), "1: 'slots' must be a whole number, not a number");
  EXPECT_EQ(complaint("listen = 8080\n"), "1: 'listen' must be a text, not a whole number");
  EXPECT_EQ(complaint("retain-hours = true\n"),
            "1: 'retain-hours' must be a number, not true or false");
  EXPECT_EQ(complaint("model = [1]\n"),
            "1: 'model' must be a text, or a list of them, not a whole number");
  EXPECT_EQ(complaint("listen = [\"a\"]\n"), "1: 'listen' must be a text, not a list");
  EXPECT_EQ(complaint("[upstream]\nurl = \"x\"\n"), "1: write [[upstream]], with two brackets");
  const std::string head = "[[upstream]]\nurl = \"http://a/v1\"\nmodels = [\"m\"]\n";
  EXPECT_EQ(complaint(head + "weight = \"2\"\n"), "4: 'weight' must be a whole number, not a text");
  EXPECT_EQ(complaint(head + "weight = 0\n"), "4: 'weight' must be 1 to 1000000");
  EXPECT_EQ(complaint(head + "continuation = \"magic\"\n"),
            "4: 'continuation' must be one of \"none\", \"prefill\"");
  EXPECT_EQ(complaint(head + "always_stream = 1\n"),
            "4: 'always_stream' must be true or false, not a whole number");
  EXPECT_EQ(complaint(head + "headers = [\"a\"]\n"),
            "4: 'headers' must be a table of texts, not a list");
  EXPECT_EQ(complaint("[fallback]\nm = \"other\"\n"), "2: 'm' must be a list of texts, not a text");
}

TEST(Config, WhatIsOutOfRangeOrNoTomlIsSaid) {
  EXPECT_NE(complaint("slots = 0\n").find("1: "), std::string::npos);
  EXPECT_NE(complaint("durability = \"maybe\"\n").find("durability"), std::string::npos);
  EXPECT_NE(complaint("slots = = 1\n").find("1: "), std::string::npos);
  EXPECT_NE(complaint("a = 1\na = 2\n").find("2: "), std::string::npos);
  EXPECT_NE(complaint("\n[%[upstream\n").find("2: "), std::string::npos);
  EXPECT_EQ(parsed({"--config", "/nowhere/x.toml"}).status.error().code, Code::kNotFound);
}

TEST(Config, TheTwoListenersDoNotShareAPort) {
  const std::string one = "127.0.0.1:9";
  for (const Parsed& same : {parsed({"--listen", one, "--queue-listen", one}),
                             parsed({"--queue-listen", one}, "listen = \"" + one + "\"\n"),
                             parsed({"--queue-listen", ServeOptions{}.listen})}) {
    ASSERT_FALSE(same.status);
    EXPECT_EQ(same.status.error().code, Code::kInvalidArgument);
    EXPECT_EQ(same.status.error().param, "queue-listen");
    EXPECT_NE(same.status.error().message.find("give each its port"), std::string::npos);
  }
  EXPECT_TRUE(parsed({"--listen", one, "--queue-listen", "127.0.0.1:10"}).status);
  EXPECT_TRUE(parsed({"--listen", one}).status);
  const std::string any = "127.0.0.1:0";  // two different ones then
  EXPECT_TRUE(parsed({"--listen", any, "--queue-listen", any}).status);
}

TEST(Config, Upstreams) {
  ::setenv("WAYSTATION_TEST_KEY", "s3cret", 1);
  const Parsed result = parsed({}, R"(
[[upstream]]
url = "https://api.example.com/v1"
key_env = "WAYSTATION_TEST_KEY"
models = ["a", "b=theirs"]
weight = 3
rank = 1
continuation = "prefill"
continue_flags = { flag = true, text = "x", number = 3 }
headers = { "X-A" = "b" }
echo = "strip"
[[upstream]]
name = "two"
url = "http://127.0.0.1:1"
[upstream.models]
c = "x"
d = { model = "y", tasks = ["embedding"], embedding_length = 7 }
[fallback]
a = ["c", "d"]
)");
  ASSERT_TRUE(result.status.has_value()) << result.status.error().message;
  ASSERT_EQ(result.options.upstreams.size(), 2u);
  const upstream::Options& first = result.options.upstreams[0];
  EXPECT_EQ(first.name, "api.example.com");
  EXPECT_EQ(first.key, "s3cret");
  EXPECT_EQ(first.models[1].name, "b");
  EXPECT_EQ(first.models[1].theirs, "theirs");
  EXPECT_EQ(first.weight, 3u);
  EXPECT_EQ(first.rank, 1u);
  EXPECT_EQ(first.continuation, upstream::Continuation::kPrefill);
  EXPECT_EQ(first.echo, upstream::Echo::kStrip);
  const std::vector<std::pair<std::string, std::string>> flags{
      {"flag", "true"}, {"number", "3"}, {"text", "\"x\""}};
  EXPECT_EQ(first.continue_flags, flags);
  const upstream::Options& second = result.options.upstreams[1];
  EXPECT_EQ(second.models[1].tasks, std::vector<std::string>{"embedding"});
  EXPECT_EQ(second.models[1].embedding_length, 7u);
  EXPECT_EQ(result.options.fallback.at("a"), (std::vector<std::string>{"c", "d"}));
}

TEST(Config, AnUpstreamThatCantWorkIsRefusedWithItsLine) {
  EXPECT_EQ(complaint("[[upstream]]\nmodels = [\"m\"]\n"), "1: this [[upstream]] has no url");
  EXPECT_NE(complaint("[[upstream]]\nurl = \"a\"\nmodels = [\"m\"]\n").find("1: "),
            std::string::npos);
  EXPECT_NE(complaint("[[upstream]]\nurl = \"http://a\"\n").find("models"), std::string::npos);
  const std::string unset = complaint(
      "[[upstream]]\nurl = \"http://a\"\nmodels = [\"m\"]\nkey_env = \"WAYSTATION_TEST_UNSET\"\n");
  EXPECT_NE(unset.find("WAYSTATION_TEST_UNSET"), std::string::npos);
}

TEST(UpstreamFlags, BelongToTheUpstreamBeforeThem) {
  ::setenv("WAYSTATION_TEST_KEY", "s3cret", 1);
  const Parsed result = parsed(
      {"--upstream", "http://a:1/v1", "--upstream-model", "m=theirs", "--upstream-model", "n",
       "--slots", "2", "--upstream", "http://b:1/v1", "--upstream-key-env", "WAYSTATION_TEST_KEY",
       "--upstream-model", "o", "--upstream", "http://a:1/other", "--upstream-model", "p"});
  ASSERT_TRUE(result.status.has_value()) << result.status.error().message;
  const auto& upstreams = result.options.upstreams;
  ASSERT_EQ(upstreams.size(), 3u);
  EXPECT_EQ(upstreams[0].name, "a:1");
  ASSERT_EQ(upstreams[0].models.size(), 2u);
  EXPECT_EQ(upstreams[0].models[0].theirs, "theirs");
  EXPECT_EQ(upstreams[0].key, "");
  EXPECT_EQ(upstreams[1].key, "s3cret");
  EXPECT_EQ(upstreams[1].models[0].name, "o");
  EXPECT_EQ(upstreams[2].name, "a:1-2");
}

TEST(UpstreamFlags, WhatHasNoUpstreamBeforeItIsRefused) {
  EXPECT_FALSE(parsed({"--upstream-model", "m", "--upstream", "http://a"}).status.has_value());
  EXPECT_FALSE(parsed({"--upstream", "http://a"}).status.has_value());  // no model
  EXPECT_FALSE(parsed({"--upstream", "http://a", "--upstream-model", "m", "--upstream-key-env",
                       "WAYSTATION_TEST_UNSET"})
                   .status.has_value());
}

TEST(UpstreamFlags, JoinTheFilesAndReplaceTheirNamesakes) {
  const Parsed result = parsed({"--upstream", "http://a/new", "--upstream-model", "m"},
                               "[[upstream]]\nurl = \"http://a/old\"\nmodels = [\"m\"]\n"
                               "[[upstream]]\nurl = \"http://b\"\nmodels = [\"m\"]\n");
  ASSERT_TRUE(result.status.has_value());
  ASSERT_EQ(result.options.upstreams.size(), 2u);
  EXPECT_EQ(result.options.upstreams[0].name, "b");
  EXPECT_EQ(result.options.upstreams[1].url, "http://a/new");
}

// The sample says all there is to say, and every line of it works.
TEST(Config, TheSampleFileIsTrue) {
  std::ifstream file(WAYSTATION_SAMPLE);
  ASSERT_TRUE(file.good()) << WAYSTATION_SAMPLE;
  std::string plain;
  std::string all;
  for (std::string line; std::getline(file, line);) {
    plain += line + "\n";
    const bool setting = line.size() > 1 && line[0] == '#' && line[1] != ' ';
    all += (setting ? line.substr(1) : line) + "\n";
  }
  const Parsed commented = parsed({}, plain);
  ASSERT_TRUE(commented.status.has_value()) << commented.status.error().message;
  EXPECT_TRUE(commented.options.upstreams.empty());

  ::setenv("EXAMPLE_KEY", "k", 1);
  const Parsed everything = parsed({}, all);
  ASSERT_TRUE(everything.status.has_value()) << everything.status.error().message;
  EXPECT_EQ(everything.options.upstreams.size(), 2u);
  EXPECT_EQ(everything.options.fallback.size(), 1u);
  const ServeOptions defaults;
  EXPECT_EQ(everything.options.listen, defaults.listen);
  EXPECT_EQ(everything.options.queue_max, defaults.queue_max);
  EXPECT_EQ(everything.options.segment_bytes, defaults.segment_bytes);
  EXPECT_EQ(everything.options.journal_bytes_max, defaults.journal_bytes_max);
  EXPECT_EQ(everything.options.context, defaults.context);
  EXPECT_EQ(everything.options.upstreams[0].idle_timeout_ms, upstream::Options().idle_timeout_ms);
  EXPECT_EQ(everything.options.upstreams[0].event_bytes_max, upstream::Options().event_bytes_max);

  CLI::App app;
  ServeOptions options;
  add_serve_options(app, options);
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;  // hidden: for tests only
    for (const std::string& name : option->get_lnames()) {
      if (name == "help" || name == "config" || name.starts_with("upstream")) continue;
      EXPECT_NE(plain.find("#" + name + " = "), std::string::npos)
          << "docs/waystation.toml doesn't show '" << name << "'";
    }
  }
}

}  // namespace
}  // namespace waystation::app
