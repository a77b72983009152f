#include "memory/watcher.h"

namespace waystation::memory {

bool Watcher::on_block(stream::BlockPtr block) {
  blocks_->push_back(std::move(block));
  return true;
}

void Watcher::on_end(const stream::Ending& ending) {
  memory_.ended(*this, ending);
}

void Watcher::on_interrupted(const Error& error) {
  memory_.interrupted(id_, error);
}

}  // namespace waystation::memory
