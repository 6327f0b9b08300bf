// Starts attempts: chooses workers for a part and opens the calls.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "server/router/leg_table.h"
#include "server/router/prefix_record.h"
#include "server/router/request_state.h"
#include "server/router/router_metrics.h"
#include "server/router/router_options.h"
#include "server/router/worker_pool.h"

namespace tessera::router {

enum class StartOutcome : uint8_t {
  kStarted,
  kNoWorker,  ///< nothing ready that fits; no attempt was made
  kRefused,   ///< the worker said no; the attempt names it, the part's last_error says why
};

/// Router thread only.
class Dispatcher final {
 public:
  /// All outlive the dispatcher.
  struct Parts {
    const RouterOptions& options;
    WorkerPool& pool;
    LegTable& legs;
    RouterMetrics& metrics;
  };
  explicit Dispatcher(Parts parts) : parts_(parts), record_(parts.options.max_prefix_blocks) {}

  /// A new attempt of request.parts[part].
  [[nodiscard]] StartOutcome start(ClientRequest& request, size_t part, TimePoint now);
  /// Prefill has room at `address`: opens the decode leg of the running attempt there. Errors: as
  /// DecodeWorker::attach(), INTERNAL when that was not offered or is the second time.
  [[nodiscard]] Status attach(ClientRequest& request, size_t part, const std::string& address);

 private:
  struct Choice {
    Route route;
    std::vector<std::string> addresses;  // of route.decode
  };
  [[nodiscard]] Choice choose(const ClientRequest& request,
                              const Part& part,
                              int64_t num_prompt_tokens);
  [[nodiscard]] Result<LegId> open(LegOwner owner,
                                   const Attempt& attempt,
                                   GenerationRequest generation);
  void count_attempt(const Route& route, int64_t num_prompt_tokens);

  const Parts parts_;
  PrefixRecord record_;
  uint64_t num_choices_made_ = 0;
};

}  // namespace tessera::router
