#include "app/application_data.h"

#include <iterator>
#include <random>
#include <utility>
#include <vector>

#include "app/paths.h"
#include "store/batches.h"
#include "store/bound_keys.h"
#include "store/conversations.h"
#include "store/responses.h"

namespace waystation::app {
namespace {

constexpr double kDayMs = 24.0 * 3600 * 1000;

// For ids that are made on any thread.
std::uint64_t random_bits() {
  thread_local std::mt19937_64 engine{
      (std::uint64_t{std::random_device{}()} << 32) ^ std::random_device{}()};
  return engine();
}

std::vector<store::Migration> schema() {
  std::vector<store::Migration> all;
  for (auto part : {store::files_schema(), store::batches_schema(), store::responses_schema(),
                    store::conversations_schema(), store::bound_keys_schema()}) {
    all.insert(all.end(), std::make_move_iterator(part.begin()),
               std::make_move_iterator(part.end()));
  }
  return all;
}

}  // namespace

ApplicationData::ApplicationData() = default;
ApplicationData::ApplicationData(ApplicationData&&) noexcept = default;

ApplicationData::~ApplicationData() {
  if (batches_) batches_->stop();
  if (database_) database_->stop();
}

Result<ApplicationData> ApplicationData::open(const ServeOptions& options, Executor& disk,
                                              Clock& clock) {
  ApplicationData data;
  const std::string folder = options.data + "/store";
  if (const Status made = make_folder(folder); !made) return made.error();
  auto database = store::Database::open({.path = folder + "/waystation.db"}, schema());
  if (!database) return database.error();
  data.database_ = std::move(*database);

  store::FilesOptions files;
  files.folder = folder;
  files.file_bytes_max = options.file_bytes_max;
  files.store_bytes_max = options.store_bytes_max;
  data.files_ = std::make_unique<store::Files>(files, *data.database_, disk, clock);
  if (const Status started = data.files_->start(); !started) return started.error();

  data.runner_options_.completion_ms = static_cast<TimeMs>(options.batch_hours * kDayMs / 24);
  data.runner_options_.line_bytes_max = options.body_bytes_max;

  memory::Options memory;
  memory.retention_ms = static_cast<TimeMs>(options.response_days * kDayMs);
  memory.refuse_busy = options.conversation_busy == "refuse";
  data.memory_ = std::make_unique<memory::Memory>(
      memory::Deps{*data.database_, clock, random_bits}, memory);
  return data;
}

Status ApplicationData::start(broker::Api& api, const Clock& clock, Meter& meter) {
  if (const Status started = memory_->start(api); !started) return started;
  batches_ = std::make_unique<batch::Runner>(runner_options_, api, *database_, *files_,
                                             clock, meter);
  return batches_->start();
}

front::Parts ApplicationData::parts() {
  front::Parts parts;
  parts.files = files_.get();
  parts.batches = batches_.get();
  parts.memory = memory_.get();
  parts.submit_turn = [memory = memory_.get()](broker::Submission submission,
                                               broker::Callback<broker::Submitted> done) {
    return memory->submit_turn(std::move(submission), std::move(done));
  };
  parts.find_echo = [memory = memory_.get()](std::string tenant, RequestId id,
                                             broker::Callback<std::string> done) {
    auto failed = done;
    const Status asked = memory->find_echo(std::move(tenant), id, std::move(done));
    if (!asked) failed(asked.error());
  };
  return parts;
}

void ApplicationData::stop_batches() { batches_->stop(); }

void ApplicationData::stop_store() { database_->stop(); }

}  // namespace waystation::app
