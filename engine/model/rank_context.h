// Where one rank computes and by what it reaches the others. Plain pointers to parts that outlive
// the model.
#pragma once

#include "engine/model/latent_observer.h"
#include "engine/parallel/communicator.h"
#include "kernels/ops/backend.h"

namespace tessera {

struct RankContext {
  /// A single rank: no communicators.
  RankContext(kernels::Backend& own) : backend(&own) {}  // NOLINT(google-explicit-constructor)
  RankContext(kernels::Backend& own, Communicator& all, Communicator& subgroup)
      : backend(&own), world(&all), attention(&subgroup) {}

  kernels::Backend* backend;
  Communicator* world = nullptr;       ///< all ranks
  Communicator* attention = nullptr;   ///< ranks whose decode values are parts of the same heads
  LatentObserver* observer = nullptr;  ///< null: nobody looks
};

}  // namespace tessera
