// Small things that several roles need.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "engine/base/deadline.h"
#include "engine/base/result.h"
#include "engine/serving/handoff_settings.h"
#include "engine/serving/model_parts.h"
#include "server/cli/options.h"

namespace tessera {

/// The last part of a model folder's path: its default name.
[[nodiscard]] std::string folder_name(const std::string& model);

/// What people call a worker of this role.
[[nodiscard]] std::string_view plan_title(WorkerRole role) noexcept;

/// Loads a worker's model with a progress bar on stderr, then prints its memory plan there.
[[nodiscard]] Result<std::unique_ptr<ModelParts>> load_model(const cli::Options& options,
                                                             const ModelConfig& config,
                                                             WorkerRole role);

/// Errors: INVALID_ARGUMENT (--handoff-faults).
[[nodiscard]] Result<HandoffSettings> handoff_settings(const cli::Options& options);

/// UNAVAILABLE when an engine has been silent for so long that it must be stuck.
[[nodiscard]] Status check_heartbeat(Deadline::Clock::duration age);

/// For the last bytes of answers that an engine has already ended.
inline constexpr std::chrono::seconds kLastWrites{2};

}  // namespace tessera
