// HTTP with the OpenAI-style API, and the gRPC API beside it, in front of a GenerationService: what
// clients reach.
#pragma once

#include <functional>
#include <memory>

#include "engine/base/deadline.h"
#include "engine/base/result.h"
#include "engine/config/model_config.h"
#include "engine/request/generation_service.h"
#include "server/cli/options.h"
#include "server/metrics/family_list.h"
#include "server/text_parts.h"

namespace tessera {

class FrontDoor final {
 public:
  /// All references outlive the door.
  struct Parts {
    const ModelConfig& config;
    const TextParts& text;
    GenerationService& service;
    int64_t max_model_len = 0;
    std::function<Status()> liveness;
    std::function<void(metrics::FamilyList&)> add_service_families;
    std::function<std::string()> cluster_json;  ///< for /cluster
  };

  /// What open() would refuse of keys and ports, before anything is loaded.
  [[nodiscard]] static Status check_options(const cli::Options& options);
  /// Listens on both ports, and on --metrics-port; logs URLs and address. Errors: INVALID_ARGUMENT,
  /// NOT_FOUND (keys), UNAVAILABLE (port).
  [[nodiscard]] static Result<std::unique_ptr<FrontDoor>> open(const cli::Options& options,
                                                               Parts parts);
  ~FrontDoor();
  FrontDoor(const FrontDoor&) = delete;
  FrontDoor& operator=(const FrontDoor&) = delete;

  /// Reads --api-key-file again, for both; keeps the old keys when that fails.
  void reload_keys();
  /// The gRPC API's health checks fail from here on.
  void set_draining();
  /// Stops accepting clients, and waits for the last bytes of answers whose requests have ended.
  /// True when all were sent.
  [[nodiscard]] bool drain_blocking(Deadline deadline);

 private:
  struct State;
  explicit FrontDoor(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace tessera
