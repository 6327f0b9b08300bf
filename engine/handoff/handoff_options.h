// Times and bounds of the handoff. Plain data; the defaults suit a network of one site.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/handoff/messages.h"

namespace tessera {

struct HandoffTimes {
  using Duration = std::chrono::steady_clock::duration;
  Duration keep_alive_period = std::chrono::seconds(2);
  /// A link without a message for so long is lost. Longer than the longest step plus a period.
  Duration lease = std::chrono::seconds(10);
  Duration connect_limit = std::chrono::seconds(10);    ///< from open to usable
  Duration progress_limit = std::chrono::seconds(5);    ///< without an ack, though parcels are out
  Duration attach_limit = std::chrono::seconds(3);      ///< from Grant to Attach
  Duration answer_memory = std::chrono::seconds(60);    ///< of terminal answers
  Duration reserve_patience = std::chrono::seconds(5);  ///< for leaders that cannot be reached
  Duration back_off_min = std::chrono::milliseconds(20);
  Duration back_off_max = std::chrono::seconds(2);
};

struct PrefillSideOptions {
  HandoffTimes times;
  uint64_t epoch = 0;
  std::string worker_name;
  std::string fingerprint;
  int64_t max_model_len = 0;
  kernels::LatentWindow window = {};  ///< that decode groups fed from here have to have
  /// Waiting requests that may hold or seek a reservation: so many, and more while their prompts
  /// have at most `early_reservation_tokens` together and decode has room. An answer takes up to
  /// one step of decode; with fewer of them, short prompts would start no faster than that.
  int32_t num_early_reservations = 2;
  int64_t early_reservation_tokens = 0;
  size_t max_links = 256;
};

struct DecodeSideOptions {
  HandoffTimes times;
  uint64_t epoch = 0;
  std::string fingerprint;
  DecodeLayout layout;
  int64_t vocab_size = 0;
  int64_t max_model_len = 0;
  int64_t max_num_seqs = 256;
  /// Blocks that each running choice is given room for beyond what it holds.
  int64_t growth_blocks = 2;
  /// Publish blocks with tokens computed here: only where this engine computes exactly.
  bool publishes_own_blocks = true;
  size_t max_links = 64;
  size_t max_answers = 65536;  ///< terminal answers kept
};

}  // namespace tessera
