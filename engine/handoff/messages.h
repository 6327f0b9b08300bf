// The control messages of KVH/1 between a prefill worker and the leader of a decode group, as plain
// data. They travel in order and at most once on one link (a stream that breaks as a whole): a
// message can be missing only together with everything after it. README.md gives the protocol.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "engine/base/status.h"
#include "engine/request/handoff_key.h"
#include "engine/request/token_event.h"
#include "engine/transport/landing.h"
#include "kernels/ops/latent_window.h"

namespace tessera {

inline constexpr uint32_t kHandoffProtocol = 1;

/// How a decode group deals out block images. Prefill derives from it who receives what.
struct DecodeLayout {
  enum class Dealing : uint8_t {
    kImages,  ///< rank r gets image r mod num_images of every block
    kBlocks,  ///< rank r gets image 0 of the blocks whose index is r mod num_ranks
  };
  Dealing dealing = Dealing::kImages;
  int32_t num_ranks = 1;
  int32_t num_images = 1;  ///< images of one block in the prefill worker's cache
  /// Tokens of the prompt of which every rank gets all images; only with kImages.
  kernels::LatentWindow window = {};
};

// Prefill to decode.

/// First message on a link.
struct Hello {
  uint32_t protocol = kHandoffProtocol;
  uint64_t epoch = 0;       ///< random per process start
  std::string worker_name;  ///< for logs
  std::string fingerprint;  ///< of the cache layout, see layout_fingerprint.h
};
struct Reserve {
  HandoffKey key;
  std::vector<int32_t> prompt_ids;
  int32_t num_choices = 1;
  int64_t max_total_tokens = 0;  ///< of one choice, prompt included, when it ends by length
};
/// Everything is sent: the first token of each choice, and what proves that nothing was dealt
/// wrong.
struct Seal {
  HandoffKey key;
  std::vector<TokenEvent> first_tokens;  ///< one a choice, in order; some may have finished
  std::vector<double> probes;            ///< expected sum of each image; empty: not checked
};
struct Abort {
  HandoffKey key;
  std::string reason;
};

// Decode to prefill.

struct Welcome {
  uint64_t epoch = 0;
  DecodeLayout layout;
  std::vector<LandingRegion> regions;  ///< one a rank
};
struct Grant {
  HandoffKey key;
  int64_t num_held_tokens = 0;  ///< leading tokens that decode holds already, full blocks
};
struct Busy {
  HandoffKey key;
  int64_t retry_after_ms = 0;
};
struct Reject {
  HandoffKey key;
  Status status;
};
struct Committed {
  HandoffKey key;
};
/// The decode side dropped the key: everything of it is fenced there.
struct Aborted {
  HandoffKey key;
  Status status;
};

/// Both ways, every kKeepAlivePeriod: renews the lease of the link and lists what the sender holds
/// as live. A key that the other side does not list (and had time to) is dropped.
struct KeepAlive {
  std::vector<HandoffKey> live;
};

using PrefillMessage = std::variant<Hello, Reserve, Seal, Abort, KeepAlive>;
using DecodeMessage = std::variant<Welcome, Grant, Busy, Reject, Committed, Aborted, KeepAlive>;

}  // namespace tessera
