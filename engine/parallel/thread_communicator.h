// Ranks that are threads of one process on host memory: a collective copies its operand to the
// member's staging, meets the others at one barrier, then reads theirs. Streams run in order at
// submission, as the CPU backend's do.
#pragma once

#include <memory>
#include <vector>

#include "engine/parallel/communicator.h"

namespace tessera {

/// What one rank reaches the others by.
struct RankCommunicators {
  std::unique_ptr<Communicator> world;      ///< all ranks
  std::unique_ptr<Communicator> attention;  ///< ranks [k s, (k + 1) s) of the rank's subgroup
};

/// Communicators of `num_ranks` ranks in subgroups of `subgroup_size` consecutive ranks, which
/// divides `num_ranks`. Aborting any of them aborts them all. A rank's communicators are used by
/// one thread at a time. Works with more ranks than cores.
[[nodiscard]] std::vector<RankCommunicators> make_thread_communicators(int num_ranks,
                                                                       int subgroup_size);

}  // namespace tessera
