#include "app/serve_options.h"

#include <filesystem>
#include <set>

#include "app/paths.h"
#include "engine/llama/gguf_file.h"

namespace waystation::app {
namespace {

constexpr char kSmallModel[] = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

// Beside the current folder, or beside the source tree that this program was built in.
std::vector<std::string> usual_places() {
  const auto build = std::filesystem::path(own_executable()).parent_path();
  return {kSmallModel, (build / "../.." / kSmallModel).lexically_normal().string()};
}

}  // namespace

Result<std::vector<ModelFile>> models_of(const ServeOptions& options) {
  std::vector<ModelFile> models;
  std::set<std::string> names;
  for (const std::string& given : options.models) {
    const auto equals = given.find('=');
    const bool named = equals != std::string::npos && !std::filesystem::exists(given);
    ModelFile model{named ? given.substr(0, equals) : model_name_of(given),
                    named ? given.substr(equals + 1) : given};
    if (!names.insert(model.name).second) {
      return Error{Code::kInvalidArgument, "--model: two models are called '" + model.name +
                                               "'; name one of them with --model NAME=FILE",
                   "model"};
    }
    models.push_back(std::move(model));
  }
  if (models.empty() && !options.scripted_given && options.link_listen.empty()) {
    for (const std::string& place : usual_places()) {
      if (models.empty() && std::filesystem::exists(place)) {
        models.push_back({model_name_of(place), place});
      }
    }
  }
  for (const ModelFile& model : models) {
    if (const Status good = engine::check_gguf(model.path); !good) return good.error();
  }
  return models;
}

}  // namespace waystation::app
