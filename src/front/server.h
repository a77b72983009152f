// The front door: accepts connections and spreads them over its I/O threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/meter.h"
#include "base/result.h"
#include "broker/api.h"
#include "front/options.h"
#include "front/parts.h"
#include "guard/keys.h"

namespace waystation::front {

// start() and stop() from one thread. Everything handed in must outlive the server, and the broker
// must not call back any more once the server is destroyed (its callbacks after stop() do nothing).
class Server {
 public:
  // `keys`: null = no API keys, every caller is the tenant "default".
  // `render_metrics`: the text of /metrics; may be empty.
  Server(Options options, broker::Api& api, const guard::KeyFile* keys,
         std::function<std::string()> render_metrics, Clock& clock, Meter& meter, Parts parts = {});
  // Stops without grace if it still runs.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Listens, and gives the port (of use when port 0 was asked for). kBusy: the address is in use;
  // kIo: it can't be listened on.
  Result<std::uint16_t> start();

  // Refuses new connections, lets running answers end for up to `grace_ms`, then ends them (streams
  // are told that they can be read on after the next start) and returns.
  void stop(int grace_ms);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace waystation::front
