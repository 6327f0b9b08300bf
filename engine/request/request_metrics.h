// What requests look like, counted alike by engines and routers. Written by one thread, read by
// /metrics.
#pragma once

#include "engine/base/metrics.h"

namespace tessera {

struct RequestShapeMetrics {
  CountHistogram prompt_tokens;
  CountHistogram num_choices;
  CountHistogram max_tokens;                       ///< asked for
  CountHistogram generation_tokens;                ///< of each choice of a finished request
  CountHistogram longest_generation_tokens;        ///< of the longest choice of one
  LatencyHistogram time_per_output_token_seconds;  ///< mean of one request, after its first token
};

}  // namespace tessera
