// Groups, and a scheduler whose steps are "run" by appending token 1 to each sampled sequence.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "engine/cache/block_allocator.h"
#include "engine/cache/prefix_cache.h"
#include "engine/scheduler/scheduler.h"

namespace tessera::testing {

inline std::unique_ptr<SequenceGroup> make_group(uint64_t arrival,
                                                 int64_t num_prompt_tokens,
                                                 int32_t num_choices = 1,
                                                 int32_t first_id = 5) {
  auto group = std::make_unique<SequenceGroup>();
  group->arrival = arrival;
  std::vector<int32_t> prompt(static_cast<size_t>(num_prompt_tokens), first_id);
  for (int32_t i = 0; i < num_choices; ++i) {
    group->choices.push_back(std::make_unique<Sequence>(*group, i, prompt));
  }
  return group;
}

class SchedulingFixture {
 public:
  SchedulingFixture(const SchedulerOptions& options, int32_t num_blocks, bool with_cache = false)
      : allocator(num_blocks),
        cache(allocator, ""),
        scheduler(options, allocator, with_cache ? &cache : nullptr) {}
  ~SchedulingFixture() {
    for (const auto& group : groups_) {
      finish(*group);
    }
  }
  SchedulingFixture(const SchedulingFixture&) = delete;
  SchedulingFixture& operator=(const SchedulingFixture&) = delete;

  SequenceGroup& add(int64_t num_prompt_tokens, int32_t num_choices = 1, int32_t first_id = 5) {
    groups_.push_back(make_group(groups_.size(), num_prompt_tokens, num_choices, first_id));
    scheduler.add(*groups_.back());
    return *groups_.back();
  }

  /// Plans and completes one step. The plan's is_last() no longer tells: see `sampled`.
  const StepPlan& step() {
    const StepPlan& plan = scheduler.schedule();
    sampled = plan.decodes;
    for (const PlannedPrefill& prefill : plan.prefills) {
      if (prefill.is_last()) {
        sampled.push_back(prefill.sequence);
      }
    }
    scheduler.complete(plan);
    copies = {};
    for (Sequence* sequence : sampled) {
      accept_token(*sequence);
    }
    return plan;
  }

  void finish(SequenceGroup& group) {
    for (const auto& choice : group.choices) {
      if (choice->state() != SequenceState::kFinished) {
        scheduler.finish(*choice);
      }
    }
  }

  BlockAllocator allocator;
  PrefixCache cache;
  Scheduler scheduler;
  std::vector<Sequence*> sampled;
  ForkCopies copies;

 private:
  void accept_token(Sequence& sequence) {
    SequenceGroup& group = sequence.group();
    if (group.is_forked) {
      sequence.append_token(1);
      return;
    }
    for (const auto& choice : group.choices) {
      choice->append_token(1);
    }
    scheduler.fork(group, copies);
  }

  std::vector<std::unique_ptr<SequenceGroup>> groups_;
};

}  // namespace tessera::testing
