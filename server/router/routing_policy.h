// Which workers serve a request: pure functions over snapshots of them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/handoff/worker_services.h"
#include "server/router/prefix_record.h"
#include "server/router/router_options.h"

namespace tessera::router {

/// A ready worker at the moment of a choice.
struct WorkerView {
  WorkerId id = 0;
  std::string address;
  std::string layout_fingerprint;
  int64_t max_local_prefill_tokens = 0;
  WorkerLoad load;
  int64_t num_placed_requests = 0;  ///< by this router since `load`
  int64_t num_placed_tokens = 0;
  int64_t num_matched_tokens = 0;  ///< of the prompt, by the prefix record
};

struct RouteQuery {
  int64_t num_prompt_tokens = 0;
  int64_t local_prefill_max_tokens = 0;
  int32_t max_decode_candidates = 4;
  std::span<const WorkerId>
      avoid;              ///< workers that failed this request, used only for want of others
  uint64_t rotation = 0;  ///< counts choices: settles ties, and is all of round robin
};

struct Route {
  WorkerId prefill = 0;            ///< 0 with candidates: the first of them prefills itself
  std::vector<WorkerId> decode;    ///< best first; empty: no pair is ready
  int64_t num_matched_tokens = 0;  ///< at the worker that prefills
  [[nodiscard]] bool is_found() const noexcept { return !decode.empty(); }
  [[nodiscard]] bool is_local() const noexcept { return prefill == 0; }
};

/// Prompt tokens that `worker` would compute before this prompt's first token is there.
[[nodiscard]] int64_t prefill_cost(const WorkerView& worker, int64_t num_prompt_tokens);
/// How full `worker` is, blocks and sequences (0 to about 2), less a bonus of up to
/// 0.5 for the part of the prompt that it need not be sent.
[[nodiscard]] double decode_cost(const WorkerView& worker, int64_t num_prompt_tokens);
/// Blocks and a sequence for the prompt are free.
[[nodiscard]] bool has_room(const WorkerView& worker, int64_t num_prompt_tokens);

/// Pairs only workers with one layout. Prefill: the lowest cost. Decode: those with room first,
/// then by cost. Avoided workers are taken when nothing else is left.
[[nodiscard]] Route choose_route(PolicyKind policy,
                                 const RouteQuery& query,
                                 std::span<const WorkerView> prefill,
                                 std::span<const WorkerView> decode);

}  // namespace tessera::router
