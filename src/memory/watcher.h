// Reads along with one request, for the store. It only keeps the blocks, which the hub holds
// anyway; they are rendered on the store's thread when the request has ended.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "memory/memory.h"
#include "stream/reader.h"

namespace waystation::memory {

// Called on the broker's thread.
class Watcher final : public stream::Reader {
 public:
  Watcher(Memory& memory, std::string tenant, RequestId id)
      : memory_(memory), tenant_(std::move(tenant)), id_(id) {}

  bool on_block(stream::BlockPtr block) override;
  void on_end(const stream::Ending& ending) override;
  void on_interrupted(const Error& error) override;
  bool observes() const override { return true; }

  const std::string& tenant() const { return tenant_; }
  RequestId id() const { return id_; }
  const std::shared_ptr<std::vector<stream::BlockPtr>>& blocks() const { return blocks_; }

 private:
  Memory& memory_;
  const std::string tenant_;
  const RequestId id_;
  const std::shared_ptr<std::vector<stream::BlockPtr>> blocks_ =
      std::make_shared<std::vector<stream::BlockPtr>>();
};

}  // namespace waystation::memory
