// Ranks that are threads of one process, each on its own NVIDIA GPU: collectives by NCCL, in the
// order of the rank's stream, without a host round trip. A thread of its own looks for errors that
// NCCL finds while nobody calls it; any error aborts all communicators of the group, so that a
// kernel that waits for a lost member ends.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/parallel/small_sum.h"
#include "engine/parallel/thread_communicator.h"
#include "kernels/core/device.h"

namespace tessera {

struct NcclOptions {
  std::string library;       ///< path of libnccl; empty: as the system finds it
  std::vector<int> devices;  ///< CUDA ordinal of each rank, all different
  /// By rank: device memory for transposing operands; null for a group of one.
  std::vector<kernels::Device*> memory;
  /// The cudaStream_t behind a StreamView of the rank's device.
  std::function<void*(int rank, kernels::StreamView stream)> native_stream;
  /// Of the largest operand of reduce_scatter_heads and all_gather_columns.
  int64_t staging_bytes = 0;
  SmallSum small_sum;  ///< for sums over all ranks, where it is the faster way
};

/// Whether NCCL can be loaded: the errors of NcclLibrary::load().
[[nodiscard]] Status check_nccl(const std::string& library);

/// As make_thread_communicators(), for operands in device memory. An operand above `staging_bytes`
/// is a bug: TESSERA_CHECK. Errors: those of NcclLibrary::load(); UNAVAILABLE with NCCL's reason.
/// Throws DeviceError.
[[nodiscard]] Result<std::vector<RankCommunicators>> make_nccl_communicators(
    const NcclOptions& options, int subgroup_size);

}  // namespace tessera
