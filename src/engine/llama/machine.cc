#include "engine/llama/machine.h"

#include <ggml-cpu.h>
#include <gguf.h>

#include <algorithm>
#include <memory>
#include <system_error>
#include <utility>

#include "engine/llama/gguf_file.h"

namespace waystation::engine {
namespace {

using Gguf = std::unique_ptr<gguf_context, decltype(&gguf_free)>;

// 0 when it isn't there, or isn't one number (some models have one a layer).
std::uint64_t number_of(const gguf_context* gguf, const std::string& key) {
  const std::int64_t at = gguf_find_key(gguf, key.c_str());
  if (at < 0 || gguf_get_kv_type(gguf, at) != GGUF_TYPE_UINT32) return 0;
  return gguf_get_val_u32(gguf, at);
}

std::string text_of(const gguf_context* gguf, const char* key) {
  const std::int64_t at = gguf_find_key(gguf, key);
  if (at < 0 || gguf_get_kv_type(gguf, at) != GGUF_TYPE_STRING) return {};
  return gguf_get_val_str(gguf, at);
}

// Two bytes for each number: llama.cpp's default.
std::uint64_t cache_bytes_per_token(const gguf_context* gguf, const std::string& architecture) {
  const std::uint64_t layers = number_of(gguf, architecture + ".block_count");
  const std::uint64_t width = number_of(gguf, architecture + ".embedding_length");
  const std::uint64_t heads = number_of(gguf, architecture + ".attention.head_count");
  if (layers == 0 || width == 0 || heads == 0) return 0;
  std::uint64_t kept_heads = number_of(gguf, architecture + ".attention.head_count_kv");
  if (kept_heads == 0) kept_heads = heads;
  std::uint64_t key = number_of(gguf, architecture + ".attention.key_length");
  std::uint64_t value = number_of(gguf, architecture + ".attention.value_length");
  if (key == 0) key = width / heads;
  if (value == 0) value = width / heads;
  return layers * kept_heads * (key + value) * 2;
}

}  // namespace

std::vector<std::string> cpu_features_needed() {
  const std::vector<std::pair<int, const char*>> built{
      {ggml_cpu_has_ssse3(), "ssse3"},
      {ggml_cpu_has_avx(), "avx"},
      {ggml_cpu_has_avx2(), "avx2"},
      {ggml_cpu_has_fma(), "fma"},
      {ggml_cpu_has_f16c(), "f16c"},
      {ggml_cpu_has_bmi2(), "bmi2"},
      {ggml_cpu_has_avx_vnni(), "avx_vnni"},
      {ggml_cpu_has_avx512(), "avx512f"},
      {ggml_cpu_has_avx512_vbmi(), "avx512vbmi"},
      {ggml_cpu_has_avx512_vnni(), "avx512_vnni"},
      {ggml_cpu_has_avx512_bf16(), "avx512_bf16"},
      {ggml_cpu_has_amx_int8(), "amx_int8"},
      {ggml_cpu_has_neon(), "asimd"},
      {ggml_cpu_has_dotprod(), "asimddp"},
      {ggml_cpu_has_matmul_int8(), "i8mm"},
      {ggml_cpu_has_sve(), "sve"},
  };
  std::vector<std::string> needed;
  for (const auto& [has, name] : built) {
    if (has != 0) needed.emplace_back(name);
  }
  return needed;
}

Result<GgufFacts> read_gguf_facts(const std::filesystem::path& file) {
  if (const Status good = check_gguf(file); !good) return good.error();
  const Gguf gguf(gguf_init_from_file(file.c_str(), {.no_alloc = true, .ctx = nullptr}),
                  &gguf_free);
  if (!gguf) {
    return Error{Code::kCorruption,
                 "the header of " + file.string() +
                     " can't be read: the file is damaged or cut off; fetch it again"};
  }
  GgufFacts facts;
  std::error_code error;
  facts.file_bytes = std::filesystem::file_size(file, error);
  std::uint64_t wanted = gguf_get_data_offset(gguf.get());
  const std::uint64_t data = wanted;
  for (std::int64_t i = 0; i < gguf_get_n_tensors(gguf.get()); ++i) {
    wanted = std::max<std::uint64_t>(
        wanted, data + gguf_get_tensor_offset(gguf.get(), i) + gguf_get_tensor_size(gguf.get(), i));
  }
  if (facts.file_bytes < wanted) {
    return Error{Code::kCorruption, file.string() + " is cut off: it has " +
                                        std::to_string(facts.file_bytes) + " bytes of " +
                                        std::to_string(wanted) + "; fetch it again"};
  }
  facts.architecture = text_of(gguf.get(), "general.architecture");
  facts.context_trained = number_of(gguf.get(), facts.architecture + ".context_length");
  facts.cache_bytes_per_token = cache_bytes_per_token(gguf.get(), facts.architecture);
  return facts;
}

}  // namespace waystation::engine
