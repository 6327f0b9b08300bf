#include "engine/serving/engine_loop.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/base/check.h"
#include "engine/scheduler/step_builder.h"
#include "engine/serving/event_builder.h"
#include "engine/serving/request_times.h"
#include "engine/serving/sampling_builder.h"

namespace tessera {
namespace {

// An idle engine turns this often, so that its heartbeat tells a hang from a rest.
constexpr std::chrono::milliseconds kIdleTurn{500};

}  // namespace

EngineLoop::EngineLoop(const EngineOptions& options,
                       StepRunner& runner,
                       EngineInbox& inbox,
                       EngineMetrics& metrics,
                       HandoffSide* side)
    : runner_(runner),
      inbox_(inbox),
      metrics_(metrics),
      side_(side),
      stop_(options.eos_ids, options.max_model_len),
      allocator_(static_cast<int32_t>(options.num_blocks), options.num_stripes),
      prefix_cache_(options.enable_prefix_caching
                        ? std::make_unique<PrefixCache>(allocator_, options.cache_fingerprint)
                        : nullptr),
      scheduler_({.max_num_seqs = options.max_num_seqs,
                  .max_num_batched_tokens = options.max_num_batched_tokens,
                  .recomputes_preempted = options.recomputes_preempted,
                  .ring = options.ring},
                 allocator_,
                 prefix_cache_.get(),
                 side),
      now_(Clock::now()),
      heartbeat_(now_.time_since_epoch().count()) {
  metrics_.num_blocks_total.set(options.num_blocks);
  if (side_ != nullptr) {
    side_->bind(*this, [&inbox] { inbox.wake(); });
  }
}

void EngineLoop::run_blocking(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    run_turn();
  }
}

Deadline::Clock::time_point EngineLoop::heartbeat() const noexcept {
  return Clock::time_point(Clock::duration(heartbeat_.load(std::memory_order_relaxed)));
}

void EngineLoop::run_turn() {
  take_work();
  now_ = Clock::now();
  heartbeat_.store(now_.time_since_epoch().count(), std::memory_order_relaxed);
  for (auto& group : work_.submissions) {
    adopt(std::move(group));
  }
  if (side_ != nullptr) {
    side_->begin_turn(now_);
  }
  apply_cancels();
  if (work_.abort) {
    fail_live(*work_.abort);
    if (side_ != nullptr) {
      side_->fail_all(*work_.abort);
    }
  }
  expire_deadlines();
  if (!live_.empty()) {
    run_step();
  }
  update_gauges();
}

void EngineLoop::take_work() {
  if (live_.empty() || is_stalled_) {
    inbox_.collect_blocking(work_, Deadline(idle_until()));
  } else {
    inbox_.collect(work_);
  }
}

EngineLoop::Clock::time_point EngineLoop::idle_until() const {
  const Clock::time_point until = std::min(Clock::now() + kIdleTurn, next_deadline_);
  return side_ != nullptr ? std::min(until, side_->next_deadline()) : until;
}

void EngineLoop::adopt(std::unique_ptr<SequenceGroup> group) {
  group->arrival = next_arrival_++;
  next_deadline_ = std::min(next_deadline_, group->deadline.at());
  SequenceGroup& adopted = *group;
  live_.emplace(adopted.key(), std::move(group));
  scheduler_.add(adopted);
  if (side_ != nullptr) {
    side_->on_adopted(adopted);  // last: it may end the group
  }
}

void EngineLoop::adopt_running(std::unique_ptr<SequenceGroup> group,
                               LandedPrompt prompt,
                               const std::vector<bool>& ended) {
  SequenceGroup& adopted = *group;
  adopted.arrival = next_arrival_++;
  adopted.started_at = now_;
  adopted.first_token_at = now_;
  adopted.last_token_at = now_;
  adopted.is_first_step_due = true;
  next_deadline_ = std::min(next_deadline_, adopted.deadline.at());
  live_.emplace(adopted.key(), std::move(group));
  ++num_started_;
  scheduler_.adopt_running(*adopted.choices.front(), std::move(prompt.table));
  fill_window(*adopted.choices.front(), prompt.other_images);
  prompt.other_images.clear();
  for (size_t i = 1; i < ended.size(); ++i) {
    if (ended[i]) {
      end_choice(*adopted.choices[i]);
    }
  }
  fork(adopted);
  if (ended.front()) {  // last: the fork copies its blocks
    end_choice(*adopted.choices.front());
  }
}

void EngineLoop::fill_window(const Sequence& adopted, const std::vector<Block>& other_images) {
  if (!adopted.ring().is_valid()) {
    return;
  }
  std::vector<int32_t> other_ids;
  other_ids.reserve(other_images.size());
  for (const Block& image : other_images) {
    other_ids.push_back(image.id());
  }
  runner_.fill_window({.ring = adopted.ring().id(),
                       .num_tokens = adopted.num_computed(),
                       .blocks = adopted.table().ids(),
                       .other_images = other_ids});
}

void EngineLoop::apply_cancels() {
  for (const HandoffKey& key : work_.cancels) {
    const auto live = live_.find(key);
    if (live != live_.end()) {
      metrics_.requests_cancelled.add();
      end_group(*live->second);
    }
  }
}

void EngineLoop::expire_deadlines() {
  if (now_ < next_deadline_) {
    return;
  }
  next_deadline_ = Clock::time_point::max();
  for (auto live = live_.begin(); live != live_.end();) {
    SequenceGroup& group = *live++->second;  // ending the group erases its entry
    if (!group.deadline.is_expired(now_)) {
      next_deadline_ = std::min(next_deadline_, group.deadline.at());
      continue;
    }
    metrics_.requests_failed.add();
    group.sink->on_error({StatusCode::kDeadlineExceeded, "the request's deadline has passed"});
    end_group(group);
  }
}

void EngineLoop::fail_all(const Status& status) {
  inbox_.collect(work_);
  for (auto& group : work_.submissions) {
    adopt(std::move(group));
  }
  fail_live(status);
  if (side_ != nullptr) {
    side_->shut_down(status);
  }
  update_gauges();
}

void EngineLoop::fail_live(const Status& status) {
  while (!live_.empty()) {
    fail_group(*live_.begin()->second, status);
  }
}

void EngineLoop::fail_group(SequenceGroup& group, const Status& status) {
  metrics_.requests_failed.add();
  group.sink->on_error(status);
  end_group(group);
}

void EngineLoop::run_step() {
  const StepPlan& plan = scheduler_.schedule();
  scheduler_.take_given_up(given_up_);
  is_stalled_ = plan.is_empty() && given_up_.empty();
  if (!plan.is_empty()) {
    run_plan(plan);
  }
  end_given_up();
}

void EngineLoop::run_plan(const StepPlan& plan) {
  note_starts(plan);
  build_model_input(plan, input_, sampled_);
  build_sampling_input(sampled_, stop_, sampling_, choices_);
  runner_.run_blocking(input_, sampling_, output_);
  now_ = Clock::now();
  metrics_.steps.add();
  metrics_.step_tokens.observe(static_cast<double>(input_.num_tokens()));
  scheduler_.complete(plan);
  if (side_ != nullptr) {
    note_decodes(plan);
    for (const PlannedPrefill& prefill : plan.prefills) {
      side_->on_computed(*prefill.sequence, now_);
    }
  }
  accept_tokens();
}

void EngineLoop::note_decodes(const StepPlan& plan) {
  for (const Sequence* sequence : plan.decodes) {
    SequenceGroup& group = sequence->group();
    if (std::exchange(group.is_first_step_due, false)) {
      side_->on_decoded(group, now_);
    }
  }
}

void EngineLoop::end_given_up() {
  for (SequenceGroup* group : given_up_) {
    fail_group(*group, resource_exhausted("preempted: the cache has no more blocks"));
  }
  given_up_.clear();
}

void EngineLoop::note_starts(const StepPlan& plan) {
  // Before a request stops waiting: it must not be missing from both gauges in between.
  metrics_.num_requests_running.set(num_running_groups());
  for (const PlannedPrefill& prefill : plan.prefills) {
    SequenceGroup& group = prefill.sequence->group();
    if (group.started_at != Clock::time_point{}) {
      continue;
    }
    note_request_start(group, now_, metrics_);
    inbox_.note_started();
    metrics_.num_requests_waiting.add(-1);
    ++num_started_;
    if (side_ != nullptr) {
      side_->on_computed(*prefill.sequence, now_);  // what the prefix cache had is ready to go
    }
  }
}

void EngineLoop::accept_tokens() {
  TESSERA_CHECK(output_.token_ids.size() == choices_.size(), "the runner samples every row");
  size_t row = 0;
  for (Sequence* computed : sampled_) {
    SequenceGroup& group = computed->group();
    const int64_t num_rows = group.num_seats();
    accept_rows(*computed, row, num_rows);
    row += static_cast<size_t>(num_rows);
    if (group.is_finished()) {
      complete_group(group);
    }
  }
}

void EngineLoop::accept_rows(Sequence& computed, size_t row_begin, int64_t num_rows) {
  SequenceGroup& group = computed.group();
  bool has_computed_ended = false;
  first_events_.clear();
  for (size_t row = row_begin; row < row_begin + static_cast<size_t>(num_rows); ++row) {
    Sequence& choice = *choices_[row];
    const bool has_ended = accept_token(choice, row);
    if (&choice == &computed) {
      has_computed_ended = has_ended;
    } else if (has_ended) {
      end_choice(choice);
    }
  }
  note_request_token(group, now_, metrics_);
  if (!group.is_forked && hand_over(group)) {
    group.num_finished += has_computed_ended ? 1 : 0;
    return;
  }
  if (!group.is_forked) {
    fork(group);
  }
  if (has_computed_ended) {  // last: a fork copies its blocks
    end_choice(computed);
  }
}

bool EngineLoop::accept_token(Sequence& choice, size_t row) {
  choice.append_token(output_.token_ids[row]);
  SequenceGroup& group = choice.group();
  const StopDecision decision = stop_.check(
      group.sampling, choice.tokens().back(), choice.num_prompt_tokens(), choice.num_generated());
  group.is_cut_by_length |= decision.reason == FinishReason::kLength;
  fill_token_event(choice, decision, output_, row, event_);
  metrics_.generation_tokens.add();
  group.sink->on_token(event_);
  if (side_ != nullptr && !group.is_forked) {
    first_events_.push_back(event_);
  }
  return decision.reason.has_value();
}

void EngineLoop::fork(SequenceGroup& group) {
  copies_.blocks.clear();
  copies_.rings.clear();
  scheduler_.fork(group, copies_);
  for (const BlockCopy& copy : copies_.blocks) {
    runner_.copy_block(copy.source, copy.destination);
  }
  for (const RingCopy& copy : copies_.rings) {
    runner_.copy_window(copy.source, copy.destination);
  }
}

bool EngineLoop::hand_over(SequenceGroup& group) {
  if (side_ == nullptr || !side_->on_first_tokens(group, first_events_, now_)) {
    return false;
  }
  group.is_forked = true;
  group.is_handing_over = true;
  ++num_handing_over_;
  for (const auto& choice : group.choices) {
    if (choice->state() != SequenceState::kFinished) {
      scheduler_.finish(*choice);
    }
  }
  return true;
}

void EngineLoop::end_choice(Sequence& choice) {
  scheduler_.finish(choice);
  ++choice.group().num_finished;
}

void EngineLoop::complete_group(SequenceGroup& group) {
  note_request_finish(group, metrics_);
  end_group(group);
}

void EngineLoop::end_group(SequenceGroup& group) {
  if (side_ != nullptr) {
    side_->on_group_end(group);
  }
  for (const auto& choice : group.choices) {
    if (choice->state() != SequenceState::kFinished) {
      scheduler_.finish(*choice);
    }
  }
  note_request_end(group, now_, metrics_);
  const HandoffKey key = group.key();
  const bool has_started = group.started_at != Clock::time_point{};
  num_handing_over_ -= group.is_handing_over ? 1 : 0;
  live_.erase(key);
  if (has_started) {
    --num_started_;
  } else {
    metrics_.num_requests_waiting.add(-1);
  }
  if (live_.empty()) {
    update_gauges();  // before anyone who waits for the end can read them
  }
  inbox_.note_ended(key, has_started);
}

int64_t EngineLoop::num_running_groups() const {
  return scheduler_.num_running_groups() + num_handing_over_;
}

void EngineLoop::update_gauges() {
  const int64_t num_running = num_running_groups();
  metrics_.num_requests_running.set(num_running);
  // Requests that have not started are counted as they come and go; here the preempted ones.
  const int64_t num_preempted = num_started_ - num_running;
  metrics_.num_requests_waiting.add(num_preempted - num_preempted_waiting_);
  num_preempted_waiting_ = num_preempted;
  metrics_.num_blocks_used.set(allocator_.num_used());
  metrics_.preemptions.add(scheduler_.num_preemptions() - num_preemptions_);
  num_preemptions_ = scheduler_.num_preemptions();
  metrics_.num_queued_prompt_tokens.set(scheduler_.num_uncomputed_tokens());
  if (side_ != nullptr && side_->has_work() != has_other_work_) {
    has_other_work_ = !has_other_work_;
    inbox_.note_other_work(has_other_work_);
  }
}

}  // namespace tessera
