// What the engine thread does, turn after turn: take submissions and cancels, expire deadlines,
// plan a step, run it, hand out its tokens, free what ended. Owns every live request, the block
// tables and the scheduler. Of a request that two engines serve it does this one's part; links and
// reservations are the HandoffSide's. Engine thread only, but for heartbeat().
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <unordered_map>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/cache/block_allocator.h"
#include "engine/cache/prefix_cache.h"
#include "engine/handoff/handoff_side.h"
#include "engine/model/model_input.h"
#include "engine/runner/step_runner.h"
#include "engine/scheduler/scheduler.h"
#include "engine/scheduler/stop_criteria.h"
#include "engine/serving/engine_inbox.h"
#include "engine/serving/engine_metrics.h"
#include "engine/serving/engine_options.h"

namespace tessera {

class EngineLoop final : private EngineHost {
 public:
  /// All references outlive the loop; `options` are valid. `side` is null in a combined engine.
  EngineLoop(const EngineOptions& options,
             StepRunner& runner,
             EngineInbox& inbox,
             EngineMetrics& metrics,
             HandoffSide* side = nullptr);
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  /// Runs until `stop`. Throws what the runner throws; call fail_all() then.
  void run_blocking(const std::stop_token& stop);
  /// Ends every live request, those still in the inbox included, with `status`, and shuts the side
  /// down. The last call.
  void fail_all(const Status& status);

  /// When the last turn began. Any thread.
  [[nodiscard]] Deadline::Clock::time_point heartbeat() const noexcept;

 private:
  using Clock = Deadline::Clock;

  // EngineHost
  [[nodiscard]] BlockAllocator& allocator() noexcept override { return allocator_; }
  [[nodiscard]] PrefixCache* prefix_cache() noexcept override { return prefix_cache_.get(); }
  [[nodiscard]] std::span<Sequence* const> running() const noexcept override {
    return scheduler_.running();
  }
  [[nodiscard]] int64_t num_seats_taken() const noexcept override {
    return scheduler_.num_seats_taken();
  }
  [[nodiscard]] bool try_claim(const HandoffKey& key) override { return inbox_.try_claim(key); }
  void adopt_running(std::unique_ptr<SequenceGroup> group,
                     LandedPrompt prompt,
                     const std::vector<bool>& ended) override;
  void fail_group(SequenceGroup& group, const Status& status) override;
  void end_group(SequenceGroup& group) override;

  void run_turn();
  void take_work();
  [[nodiscard]] Clock::time_point idle_until() const;
  void adopt(std::unique_ptr<SequenceGroup> group);
  void apply_cancels();
  void expire_deadlines();
  void fail_live(const Status& status);
  void run_step();
  void run_plan(const StepPlan& plan);
  void note_decodes(const StepPlan& plan);
  void end_given_up();
  void note_starts(const StepPlan& plan);
  void accept_tokens();
  void accept_rows(Sequence& computed, size_t row_begin, int64_t num_rows);
  bool accept_token(Sequence& choice, size_t row);
  void fork(SequenceGroup& group);
  void fill_window(const Sequence& adopted, const std::vector<Block>& other_images);
  bool hand_over(SequenceGroup& group);
  void end_choice(Sequence& choice);
  void complete_group(SequenceGroup& group);
  [[nodiscard]] int64_t num_running_groups() const;
  void update_gauges();

  StepRunner& runner_;
  EngineInbox& inbox_;
  EngineMetrics& metrics_;
  HandoffSide* side_;  // null: combined
  StopCriteria stop_;
  BlockAllocator allocator_;
  std::unique_ptr<PrefixCache> prefix_cache_;  // null: off
  Scheduler scheduler_;
  std::unordered_map<HandoffKey, std::unique_ptr<SequenceGroup>, HandoffKeyHash> live_;

  uint64_t next_arrival_ = 0;
  int64_t num_preemptions_ = 0;        // those already counted in the metrics
  int64_t num_started_ = 0;            // live requests that have run
  int64_t num_handing_over_ = 0;       // of them, those that wait for another engine
  int64_t num_preempted_waiting_ = 0;  // of them, those counted as waiting again
  bool is_stalled_ = false;            // nothing can run until something arrives or is due
  bool has_other_work_ = false;        // as the inbox knows it
  Clock::time_point now_;              // of this turn, then of this step's result
  Clock::time_point next_deadline_ = Clock::time_point::max();
  std::atomic<Clock::rep> heartbeat_;

  // Reused from turn to turn, so that they allocate nothing after warm-up.
  EngineInbox::Work work_;
  ModelInput input_;
  SamplingInput sampling_;
  StepOutput output_;
  std::vector<Sequence*> sampled_;
  std::vector<Sequence*> choices_;
  ForkCopies copies_;
  std::vector<SequenceGroup*> given_up_;
  std::vector<TokenEvent> first_events_;  // of one group; only with a side
  TokenEvent event_;
};

}  // namespace tessera
