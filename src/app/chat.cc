// `waystation chat`: a chat in the terminal whose answers survive a restart of the server. Every turn
// has an Idempotency-Key, so asking again is safe; an answer that breaks off is read on from the
// number of its last event.
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <random>
#include <thread>

#include "app/commands.h"
#include "app/http_client.h"
#include "app/paths.h"
#include "base/clock.h"
#include "message/sse.h"

namespace waystation::app {
namespace {

struct ChatCommand {
  std::string url = "http://127.0.0.1:8080";
  std::string model;
  std::string system;
  std::string api_key;
  double temperature = 0.7;
  int max_tokens = 512;
  int retry_seconds = 300;
};

// One answer on its way to the screen.
struct Answer {
  std::string text;
  std::string request_id;
  std::int64_t last_sequence = -1;
  bool ended = false;
  std::string problem;  // why there is no (whole) answer
};

class Chat {
 public:
  Chat(ChatCommand command, Url server) : command_(std::move(command)), server_(std::move(server)) {
    if (!command_.api_key.empty()) headers_["Authorization"] = "Bearer " + command_.api_key;
  }

  // The model to talk to: the one asked for, or the first that the server has.
  Status choose_model();
  const std::string& model() const { return command_.model; }
  // One turn; prints the answer as it comes.
  void turn(const std::string& text);

 private:
  void ask(const std::string& body, const std::string& key, Answer& answer);
  void read_on(Answer& answer);
  void take(std::string_view piece, message::SseParser& parser, Answer& answer);
  void take_frame(const message::SseFrame& frame, Answer& answer);
  void refuse(const HttpAnswer& head, const std::string& body, Answer& answer);

  ChatCommand command_;
  const Url server_;
  std::map<std::string, std::string> headers_;
  boost::json::array messages_;
  std::mt19937_64 random_{std::random_device{}()};
};

std::string error_text(const std::string& body) {
  boost::system::error_code bad;
  const boost::json::value json = boost::json::parse(body, bad);
  if (bad || !json.is_object()) return body.substr(0, 200);
  if (const auto* message = json.find_pointer("/error/message", bad); message && message->is_string()) {
    return std::string(message->as_string());
  }
  return body.substr(0, 200);
}

void notice(const std::string& text) {
  std::fprintf(stderr, "\n[%s]\n", text.c_str());
}

Status Chat::choose_model() {
  const auto reply = http_get(server_, "/v1/models", headers_);
  if (!reply) {
    return Error{reply.error().code, reply.error().message + "; start a server with: waystation serve"};
  }
  if (reply->head.status != 200) return Error{Code::kUnavailable, error_text(reply->body)};
  if (!command_.model.empty()) return {};
  boost::system::error_code bad;
  const boost::json::value json = boost::json::parse(reply->body, bad);
  const boost::json::value* id = bad ? nullptr : json.find_pointer("/data/0/id", bad);
  if (id == nullptr || !id->is_string()) {
    return Error{Code::kModelNotFound, "the server has no model ready yet; try again in a moment"};
  }
  command_.model = std::string(id->as_string());
  return {};
}

void Chat::turn(const std::string& text) {
  if (messages_.empty() && !command_.system.empty()) {
    messages_.push_back({{"role", "system"}, {"content", command_.system}});
  }
  messages_.push_back({{"role", "user"}, {"content", text}});
  const std::string body = boost::json::serialize(boost::json::object{
      {"model", command_.model}, {"messages", messages_}, {"stream", true},
      {"temperature", command_.temperature}, {"max_tokens", command_.max_tokens}});
  const std::string key =
      RequestId::make(SystemClock().wall_ms(), random_(), random_()).to_string();

  Answer answer;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(command_.retry_seconds);
  auto pause = std::chrono::milliseconds(100);
  for (bool noticed = false; !answer.ended;) {
    const std::int64_t before = answer.last_sequence;
    if (answer.request_id.empty()) {
      ask(body, key, answer);
    } else {
      read_on(answer);
    }
    if (answer.ended) break;
    if (std::chrono::steady_clock::now() > until) {
      answer.problem = "the server did not come back";
      break;
    }
    if (answer.last_sequence != before) pause = std::chrono::milliseconds(100);
    if (!noticed) notice("connection lost, the answer goes on when the server is back");
    noticed = true;
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::milliseconds(2000));
  }
  std::printf("\n");
  std::fflush(stdout);
  if (!answer.problem.empty()) notice(answer.problem);
  if (answer.text.empty()) {
    messages_.pop_back();
  } else {
    messages_.push_back({{"role", "assistant"}, {"content", answer.text}});
  }
}

void Chat::ask(const std::string& body, const std::string& key, Answer& answer) {
  HttpRequest request{"POST", "/v1/chat/completions", headers_, body};
  request.headers["Content-Type"] = "application/json";
  request.headers["Idempotency-Key"] = key;
  request.headers["X-Resumable"] = "true";
  HttpAnswer head;
  std::string refusal;
  message::SseParser parser;
  const Status done = http_call(
      server_, request,
      [&](const HttpAnswer& given) {
        head = given;
        if (head.status == 200) answer.request_id = head.headers["x-request-id"];
        return true;
      },
      [&](std::string_view piece) {
        if (head.status == 200) {
          take(piece, parser, answer);
        } else {
          refusal += piece;
        }
        return true;
      });
  if (done && head.status != 200) refuse(head, refusal, answer);
}

// Busy and failing servers are asked again with the same key; other refusals are final.
void Chat::refuse(const HttpAnswer& head, const std::string& body, Answer& answer) {
  if (head.status == 429 || head.status == 503 || head.status == 408) return;
  answer.problem = error_text(body);
  answer.ended = true;
}

void Chat::read_on(Answer& answer) {
  const std::string target = "/v1/requests/" + answer.request_id + "/events" +
                             (answer.last_sequence < 0 ? "" : "?starting_after=" +
                                                                  std::to_string(answer.last_sequence));
  HttpAnswer head;
  std::string refusal;
  message::SseParser parser;
  const Status done = http_call(
      server_, {"GET", target, headers_, ""},
      [&](const HttpAnswer& given) {
        head = given;
        return true;
      },
      [&](std::string_view piece) {
        if (head.status == 200) {
          take(piece, parser, answer);
        } else {
          refusal += piece;
        }
        return !answer.ended;
      });
  if (done && head.status != 200) refuse(head, refusal, answer);
}

void Chat::take(std::string_view piece, message::SseParser& parser, Answer& answer) {
  std::vector<message::SseFrame> frames;
  parser.feed(piece, frames);
  for (const message::SseFrame& frame : frames) take_frame(frame, answer);
}

void Chat::take_frame(const message::SseFrame& frame, Answer& answer) {
  if (frame.data == "[DONE]") {
    answer.ended = true;
    return;
  }
  boost::system::error_code bad;
  const boost::json::value json = boost::json::parse(frame.data, bad);
  if (bad || !json.is_object()) return;
  const boost::json::object& chunk = json.as_object();
  if (const auto* number = chunk.if_contains("sequence_number")) {
    const auto sequence = number->to_number<std::int64_t>(bad);
    if (bad || sequence <= answer.last_sequence) return;  // seen before the connection broke
    answer.last_sequence = sequence;
  }
  if (const auto* text = json.find_pointer("/choices/0/delta/content", bad); text && text->is_string()) {
    const std::string delta(text->as_string());
    answer.text += delta;
    std::fwrite(delta.data(), 1, delta.size(), stdout);
    std::fflush(stdout);
  }
  if (const auto* error = chunk.if_contains("error"); error && error->is_object()) {
    // An interrupted stream goes on after the restart; any other error is the end.
    const auto* code = error->as_object().if_contains("code");
    if (code && code->is_string() && code->as_string() == "unavailable") return;
    answer.problem = error_text(frame.data);
    answer.ended = true;
  }
  if (frame.event.starts_with("waystation.request.")) answer.ended = true;
}

int run_chat(const ChatCommand& command) {
  const auto server = parse_url(command.url);
  if (!server) return fail(server.error());
  Chat chat(command, *server);
  if (const Status ready = chat.choose_model(); !ready) return fail(ready.error());
  const bool person = ::isatty(STDIN_FILENO) == 1;
  if (person) {
    std::printf("Chatting with %s. An empty line or Ctrl-D ends it.\n", chat.model().c_str());
  }
  std::string line;
  while (true) {
    if (person) {
      std::printf("\n> ");
      std::fflush(stdout);
    }
    if (!std::getline(std::cin, line) || line.empty()) break;
    chat.turn(line);
  }
  return 0;
}

}  // namespace

Run add_chat(CLI::App& parser) {
  auto command = std::make_shared<ChatCommand>();
  ChatCommand& c = *command;
  parser.add_option("--url", c.url, "The server")->capture_default_str();
  parser.add_option("--model", c.model, "Model to talk to; default: the server's first");
  parser.add_option("--system", c.system, "What the model is told before the first turn");
  parser.add_option("--api-key", c.api_key, "API key, if the server wants one")
      ->envname("WAYSTATION_API_KEY");
  parser.add_option("--temperature", c.temperature, "0: always the likeliest word")
      ->capture_default_str()->check(CLI::Range(0.0, 2.0));
  parser.add_option("--max-tokens", c.max_tokens, "Longest answer")->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  parser.add_option("--retry-seconds", c.retry_seconds, "Wait this long for a lost server")
      ->capture_default_str();
  parser.footer(
      "Examples:\n"
      "  waystation chat\n"
      "  echo 'Why is the sky blue?' | waystation chat --temperature 0");
  return [command] { return run_chat(*command); };
}

}  // namespace waystation::app
