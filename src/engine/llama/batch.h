// The tokens of one llama_decode.
#pragma once

#include <cstddef>
#include <cstdint>

#include <llama.h>

namespace waystation::engine {

class Batch {
 public:
  explicit Batch(std::uint32_t capacity)
      : batch_(llama_batch_init(static_cast<std::int32_t>(capacity), 0, 1)) {}
  ~Batch() { llama_batch_free(batch_); }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  void clear() { batch_.n_tokens = 0; }
  bool empty() const { return batch_.n_tokens == 0; }
  std::size_t size() const { return static_cast<std::size_t>(batch_.n_tokens); }
  const llama_batch& get() const { return batch_; }

  // Returns the token's row.
  std::int32_t add(llama_token token, std::size_t position, llama_seq_id sequence, bool output) {
    const std::int32_t row = batch_.n_tokens++;
    batch_.token[row] = token;
    batch_.pos[row] = static_cast<llama_pos>(position);
    batch_.n_seq_id[row] = 1;
    batch_.seq_id[row][0] = sequence;
    batch_.logits[row] = output ? 1 : 0;
    return row;
  }

 private:
  llama_batch batch_;
};

}  // namespace waystation::engine
