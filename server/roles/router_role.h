// The router: HTTP and gRPC in front, workers behind.
#pragma once

#include <functional>
#include <memory>

#include "engine/base/deadline.h"
#include "engine/base/result.h"
#include "engine/config/model_config.h"
#include "server/cli/options.h"
#include "server/metrics/family_list.h"
#include "server/metrics/stats_line.h"
#include "server/text_parts.h"

namespace tessera {

class RouterRole final {
 public:
  /// Workers that share the process, for its one front door.
  struct Neighbours {
    std::function<void(metrics::FamilyList&)> add_families;  ///< empty: none
    std::function<Status()> liveness;
  };

  /// Reads no weights. Listens at once; requests wait for workers. `config` and `text` outlive the
  /// role. Errors: those of FrontDoor::open() and of the options.
  [[nodiscard]] static Result<std::unique_ptr<RouterRole>> open(const cli::Options& options,
                                                                const ModelConfig& config,
                                                                const TextParts& text,
                                                                Neighbours neighbours);
  ~RouterRole();
  RouterRole(const RouterRole&) = delete;
  RouterRole& operator=(const RouterRole&) = delete;

  void reload_keys();
  [[nodiscard]] metrics::StatsReading stats() const;
  /// Refuses new requests, lets open ones end until `deadline`, then ends the rest. Errors:
  /// DEADLINE_EXCEEDED when some had to be ended.
  [[nodiscard]] Status drain_blocking(Deadline deadline);

 private:
  struct Parts;
  explicit RouterRole(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace tessera
