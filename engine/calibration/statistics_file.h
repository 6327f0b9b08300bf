// Statistics on disk: what a calibration that was interrupted goes on from.
#pragma once

#include <cstdint>
#include <string>

#include "engine/base/result.h"
#include "engine/calibration/latent_statistics.h"

namespace tessera {

/// Writes the file as a whole or not at all (beside it, then renamed). `key` says what the sums are
/// of (model, text, options); `num_windows` how much of it they contain. Errors: INTERNAL naming
/// the path and the system's reason.
[[nodiscard]] Status save_statistics(const std::string& path,
                                     const std::string& key,
                                     int64_t num_windows,
                                     const LatentStatistics& statistics);

/// Fills `statistics` and returns the number of windows. The sums are bit for bit those that were
/// saved. Errors, all of which leave `statistics` as they are: NOT_FOUND; INVALID_ARGUMENT for
/// another key, size or format; DATA_LOSS for a damaged file.
[[nodiscard]] Result<int64_t> load_statistics(const std::string& path,
                                              const std::string& key,
                                              LatentStatistics& statistics);

}  // namespace tessera
