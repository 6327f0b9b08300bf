// What an operator asks of the handoff. Written by the engine thread, read by /metrics; one
// instance a worker, of which each role fills its part.
#pragma once

#include <array>
#include <cstddef>

#include "engine/base/metrics.h"
#include "engine/base/status.h"

namespace tessera {

struct HandoffMetrics {
  static constexpr size_t kNumCodes = 17;  ///< of StatusCode

  // Prefill.
  LatencyHistogram reserve_wait_seconds;  ///< first Reserve to Grant
  LatencyHistogram transfer_seconds;      ///< end of prefill to the last acknowledgement
  LatencyHistogram commit_wait_seconds;   ///< Seal to Committed
  Counter sent_bytes;                     ///< of parcels, resends not included
  Counter sent_parcels;
  Counter acked_parcels;
  Counter acked_parcels_before_end;  ///< of them, before their prefill ended
  Counter failed_parcels;            ///< refused too often
  Counter busy_answers;
  ByteHistogram handoff_bytes;     ///< of one committed handoff
  CountHistogram handoff_parcels;  ///< of the same
  Gauge waiting_for_room;          ///< requests that no decode group has reserved room for
  Gauge pinned_blocks;             ///< of handoffs that are over here but still in flight

  // Decode.
  LatencyHistogram landing_seconds;      ///< Seal to landed on every rank
  LatencyHistogram attach_wait_seconds;  ///< Grant to Attach
  LatencyHistogram first_step_seconds;   ///< Seal (the end of prefill) to the end of the first step
  Counter busy_given;
  Gauge reserved_blocks;  ///< of reservations that are not committed
  Gauge reservations;
  Counter prompt_tokens_held;  ///< found in decode's prefix cache: not transferred
  Counter probe_mismatches;

  // Both.
  std::array<Counter, kNumCodes> terminal;  ///< handoffs by outcome; kOk: committed
  Counter leases_expired;
  Counter links_failed;
  Gauge links;

  void count_terminal(StatusCode code) noexcept { terminal[static_cast<size_t>(code)].add(); }
};

}  // namespace tessera
