// The seam between the engine loop and one side of the handoff. The loop knows requests, steps and
// tokens; the side knows links, reservations and parcels. A combined engine has no side. Engine
// thread only.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/base/status.h"
#include "engine/cache/block_allocator.h"
#include "engine/cache/block_table.h"
#include "engine/cache/prefix_cache.h"
#include "engine/request/token_event.h"
#include "engine/scheduler/sequence_group.h"
#include "engine/scheduler/start_gate.h"

namespace tessera {

/// Where a prompt lies that another engine computed.
struct LandedPrompt {
  BlockTable table;
  /// Images of other slices, see num_other_images(); the exact window is filled from them, then
  /// they are free.
  std::vector<Block> other_images;
};

/// What a side may ask of the loop that calls it.
class EngineHost {
 public:
  EngineHost() = default;
  virtual ~EngineHost() = default;
  EngineHost(const EngineHost&) = delete;
  EngineHost& operator=(const EngineHost&) = delete;

  [[nodiscard]] virtual BlockAllocator& allocator() noexcept = 0;
  /// Null: off.
  [[nodiscard]] virtual PrefixCache* prefix_cache() noexcept = 0;
  /// Sequences that run or prefill now.
  [[nodiscard]] virtual std::span<Sequence* const> running() const noexcept = 0;
  [[nodiscard]] virtual int64_t num_seats_taken() const noexcept = 0;
  /// Makes the key live, so that adopt_running() may follow; false when it is live already (a local
  /// request under the same key).
  [[nodiscard]] virtual bool try_claim(const HandoffKey& key) = 0;
  /// Takes a live group that another engine computed: every choice has its first token, those in
  /// `ended` ended with it. Not all choices have ended. The key is claimed.
  virtual void adopt_running(std::unique_ptr<SequenceGroup> group,
                             LandedPrompt prompt,
                             const std::vector<bool>& ended) = 0;
  /// Ends a live group: with on_error(), or silently when its sink heard its end already. Calls the
  /// side's on_group_end().
  virtual void fail_group(SequenceGroup& group, const Status& status) = 0;
  virtual void end_group(SequenceGroup& group) = 0;
};

class HandoffSide : public StartGate {
 public:
  using TimePoint = Deadline::Clock::time_point;

  /// Once, before any other call. `wake` ends a wait of the engine thread; any thread may call it.
  virtual void bind(EngineHost& host, std::function<void()> wake) = 0;
  /// Handles what has arrived and what is due. Called first in each turn.
  virtual void begin_turn(TimePoint now) = 0;
  /// A submitted group became live.
  virtual void on_adopted(SequenceGroup& group) = 0;
  /// The sequence's blocks up to num_computed() are in the cache and will not change.
  virtual void on_computed(Sequence& sequence, TimePoint now) = 0;
  /// A group that is not forked has its first tokens, one event a choice; its sink has them too.
  /// True: the side takes it from here, the loop neither forks nor decodes it.
  [[nodiscard]] virtual bool on_first_tokens(SequenceGroup& group,
                                             const std::vector<TokenEvent>& events,
                                             TimePoint now) = 0;
  /// A decode row of the group has run.
  virtual void on_decoded(SequenceGroup& group, TimePoint now) = 0;
  /// The group ends, for whatever reason, before its blocks are released.
  virtual void on_group_end(SequenceGroup& group) = 0;
  /// When begin_turn() has to be called next even if nothing arrives.
  [[nodiscard]] virtual TimePoint next_deadline() const = 0;
  /// Something is live that is not a live group of the loop.
  [[nodiscard]] virtual bool has_work() const = 0;
  /// Ends everything that is not a live group of the loop, with `status`; links stay.
  virtual void fail_all(const Status& status) = 0;
  /// fail_all(), then closes every link. The last call.
  virtual void shut_down(const Status& status) = 0;
};

}  // namespace tessera
