// Chooses what the next step runs: continuous batching with chunked prefill under a token budget.
// All queues are in the order of age. A sequence takes the blocks of all its tokens when it starts
// (so a prefill never runs short) and one more each kBlockTokens decoded tokens; when none is left
// the youngest running sequence is preempted for an older one. Hence the oldest running sequence
// always progresses, provided that it fits into the cache alone. Engine thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/cache/block_allocator.h"
#include "engine/cache/prefix_cache.h"
#include "engine/cache/ring_pool.h"
#include "engine/scheduler/sequence_group.h"
#include "engine/scheduler/start_gate.h"
#include "engine/scheduler/step_plan.h"

namespace tessera {

struct SchedulerOptions {
  int64_t max_num_seqs = 256;
  int64_t max_num_batched_tokens = 2048;  ///< at least max_num_seqs
  /// A preempted sequence is computed again; else its group is given up, see take_given_up().
  bool recomputes_preempted = true;
  /// Rings of the runner's window cache, max_num_seqs of them; an empty window: there is none.
  kernels::WindowRing ring = {};
};

class Scheduler final {
 public:
  /// `prefix_cache` and `gate` may be null. All outlive the scheduler.
  Scheduler(const SchedulerOptions& options,
            BlockAllocator& allocator,
            PrefixCache* prefix_cache,
            StartGate* gate = nullptr);

  /// Queues a new group. Its num_choices is at most max_num_seqs, and each of its choices fits into
  /// the cache alone.
  void add(SequenceGroup& group);
  /// Takes a new sequence that was computed elsewhere but for its last token: it runs with `table`,
  /// its full blocks are published.
  void adopt_running(Sequence& sequence, BlockTable table);
  /// Plans the next step. Without a gate it is empty only when no sequence waits or runs; with one
  /// also when those that may run lack blocks that are promised elsewhere. Valid until the next
  /// call.
  [[nodiscard]] const StepPlan& schedule();
  /// The planned step has run: its tokens are in the cache.
  void complete(const StepPlan& plan);
  /// The group's prompt is computed and every choice has its first token: the unfinished choices
  /// get the first one's full blocks, and a copy of its partial block and of its ring, added to
  /// `copies`. Without a block for the copy a choice becomes a preempted sequence. Call before the
  /// first is finished.
  void fork(SequenceGroup& group, ForkCopies& copies);
  /// Ends a sequence in any state but finished and frees its blocks.
  void finish(Sequence& sequence);

  /// Moves the groups that lost blocks and are not computed again to `groups` (cleared first), each
  /// once. The caller ends them.
  void take_given_up(std::vector<SequenceGroup*>& groups);

  /// Choices of the groups that run.
  [[nodiscard]] int64_t num_seats_taken() const noexcept;
  /// Tokens of waiting and prefilling sequences that are not computed yet.
  [[nodiscard]] int64_t num_uncomputed_tokens() const noexcept;
  /// Prefilling or running, oldest first. Valid until the next change.
  [[nodiscard]] std::span<Sequence* const> running() const noexcept { return running_; }
  [[nodiscard]] int64_t num_running_groups() const noexcept;
  [[nodiscard]] int64_t num_preemptions() const noexcept { return num_preemptions_; }

 private:
  void plan_decodes();
  void plan_prefills();
  void admit_waiting();
  bool reserve_next_token(size_t running_index);
  bool try_start(Sequence& sequence);
  void take_cached_prefix(Sequence& sequence);
  void take_ring(Sequence& sequence);
  void plan_prefill(Sequence& sequence);
  void preempt_youngest();
  void set_aside(Sequence& sequence);
  void publish(Sequence& sequence, int64_t first_full);
  void advance(Sequence& sequence, int64_t num_tokens);
  bool share_blocks(const Sequence& from, Sequence& to, ForkCopies& copies);

  const SchedulerOptions options_;
  BlockAllocator& allocator_;
  PrefixCache* prefix_cache_;
  StartGate* gate_;
  std::optional<RingPool> rings_;   // none without a window
  std::vector<Sequence*> running_;  // prefilling or running; oldest first
  std::vector<Sequence*> waiting_;  // waiting or preempted; oldest first
  std::vector<Sequence*> given_up_;
  StepPlan plan_;
  int64_t prefill_budget_ = 0;
  int64_t num_preemptions_ = 0;
};

}  // namespace tessera
