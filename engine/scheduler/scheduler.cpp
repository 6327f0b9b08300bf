#include "engine/scheduler/scheduler.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"

namespace tessera {
namespace {

void insert_by_age(std::vector<Sequence*>& queue, Sequence& sequence) {
  const auto is_older = [](const Sequence* a, const Sequence* b) { return a->is_older_than(*b); };
  queue.insert(std::upper_bound(queue.begin(), queue.end(), &sequence, is_older), &sequence);
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options,
                     BlockAllocator& allocator,
                     PrefixCache* prefix_cache,
                     StartGate* gate)
    : options_(options), allocator_(allocator), prefix_cache_(prefix_cache), gate_(gate) {
  TESSERA_CHECK(options.max_num_seqs > 0, "a step needs a sequence");
  TESSERA_CHECK(options.max_num_batched_tokens >= options.max_num_seqs,
                "every running sequence decodes one token a step");
  if (!options.ring.window.is_empty()) {
    rings_.emplace(options.ring, options.max_num_seqs);
  }
  running_.reserve(static_cast<size_t>(options.max_num_seqs));
  plan_.decodes.reserve(static_cast<size_t>(options.max_num_seqs));
  plan_.prefills.reserve(static_cast<size_t>(options.max_num_seqs));
}

void Scheduler::add(SequenceGroup& group) {
  TESSERA_CHECK(group.num_choices() >= 1 && group.num_choices() <= options_.max_num_seqs,
                "a group's choices fit into one step");
  insert_by_age(waiting_, *group.choices.front());
}

void Scheduler::adopt_running(Sequence& sequence, BlockTable table) {
  sequence.table() = std::move(table);
  sequence.set_num_computed(sequence.num_tokens() - 1);
  take_ring(sequence);
  sequence.group().has_started = true;
  sequence.move_to(SequenceState::kRunning);
  insert_by_age(running_, sequence);
  publish(sequence, 0);
}

const StepPlan& Scheduler::schedule() {
  plan_.clear();
  plan_decodes();
  prefill_budget_ = options_.max_num_batched_tokens - static_cast<int64_t>(plan_.decodes.size());
  plan_prefills();
  admit_waiting();
  TESSERA_CHECK(!plan_.is_empty() || gate_ != nullptr || (running_.empty() && waiting_.empty()),
                "the oldest sequence always progresses");
  return plan_;
}

void Scheduler::plan_decodes() {
  for (size_t i = 0; i < running_.size(); ++i) {  // preemption shortens running_ at its end
    if (running_[i]->state() == SequenceState::kRunning && reserve_next_token(i)) {
      plan_.decodes.push_back(running_[i]);
    }
  }
}

void Scheduler::plan_prefills() {
  for (Sequence* sequence : running_) {
    if (sequence->state() == SequenceState::kPrefilling) {
      plan_prefill(*sequence);
    }
  }
}

void Scheduler::admit_waiting() {
  int64_t num_seats = num_seats_taken();
  auto next = waiting_.begin();
  while (next != waiting_.end() && prefill_budget_ > 0) {
    Sequence& oldest = **next;
    if (gate_ != nullptr && !gate_->may_start(oldest.group())) {
      ++next;
      continue;
    }
    num_seats += oldest.group().num_seats();
    const bool is_too_long = oldest.group().is_one_chunk && oldest.num_tokens() > prefill_budget_;
    if (num_seats > options_.max_num_seqs || is_too_long || !try_start(oldest)) {
      return;  // nobody overtakes
    }
    next = waiting_.erase(next);
    insert_by_age(running_, oldest);
    plan_prefill(oldest);
  }
}

bool Scheduler::reserve_next_token(size_t running_index) {
  BlockTable& table = running_[running_index]->table();
  while (table.capacity_tokens() < running_[running_index]->num_tokens()) {
    Block block = allocator_.try_allocate(table.num_blocks());
    if (block.is_valid()) {
      table.append(std::move(block));
      continue;
    }
    if (running_index + 1 == running_.size()) {
      return false;  // the youngest keeps what it has until an older one ends or takes it
    }
    preempt_youngest();
  }
  return true;
}

bool Scheduler::try_start(Sequence& sequence) {
  take_cached_prefix(sequence);
  BlockTable& table = sequence.table();
  const int64_t num_missing = blocks_for_tokens(sequence.num_tokens()) - table.num_blocks();
  if (!allocator_.can_allocate(table.num_blocks(), num_missing)) {
    table.clear();
    return false;
  }
  sequence.set_num_computed(table.capacity_tokens());
  take_ring(sequence);
  for (int64_t i = 0; i < num_missing; ++i) {
    table.append(allocator_.try_allocate(table.num_blocks()));
  }
  SequenceGroup& group = sequence.group();
  if (!group.has_started) {
    group.has_started = true;
    group.num_cached_tokens = sequence.num_computed();
  }
  sequence.move_to(SequenceState::kPrefilling);
  return true;
}

void Scheduler::take_ring(Sequence& sequence) {
  // Only what is in running_ holds one, and that is never more than num_seats_taken(), which the
  // gate and admit_waiting() keep at max_num_seqs.
  if (rings_) {
    sequence.set_ring(rings_->take());
  }
}

void Scheduler::take_cached_prefix(Sequence& sequence) {
  // With a window: a cached block has this rank's slice only, the rows of the window are not there.
  if (prefix_cache_ == nullptr || sequence.group().is_one_chunk || rings_) {
    return;
  }
  // The last token is computed in any case: its logits are wanted.
  const int64_t max_blocks = (sequence.num_tokens() - 1) / kBlockTokens;
  for (int64_t i = 0; i < max_blocks; ++i) {
    Block block =
        prefix_cache_->find(sequence.block_hash(*prefix_cache_, i), sequence.block_tokens(i));
    if (!block.is_valid()) {
      return;
    }
    sequence.table().append(std::move(block));
  }
}

void Scheduler::plan_prefill(Sequence& sequence) {
  const int64_t num_tokens =
      std::min(prefill_budget_, sequence.num_tokens() - sequence.num_computed());
  if (num_tokens > 0) {
    plan_.prefills.push_back({&sequence, num_tokens});
    prefill_budget_ -= num_tokens;
  }
}

void Scheduler::preempt_youngest() {
  Sequence& youngest = *running_.back();
  running_.pop_back();
  set_aside(youngest);
}

void Scheduler::set_aside(Sequence& sequence) {
  sequence.release_blocks();
  sequence.move_to(SequenceState::kPreempted);
  ++num_preemptions_;
  if (options_.recomputes_preempted) {
    insert_by_age(waiting_, sequence);
  } else {
    given_up_.push_back(&sequence);
  }
}

void Scheduler::take_given_up(std::vector<SequenceGroup*>& groups) {
  groups.clear();
  for (const Sequence* sequence : given_up_) {
    if (std::find(groups.begin(), groups.end(), &sequence->group()) == groups.end()) {
      groups.push_back(&sequence->group());
    }
  }
  given_up_.clear();
}

void Scheduler::complete(const StepPlan& plan) {
  for (Sequence* sequence : plan.decodes) {
    advance(*sequence, 1);
  }
  for (const PlannedPrefill& prefill : plan.prefills) {
    const bool is_last = prefill.is_last();
    advance(*prefill.sequence, prefill.num_tokens);
    if (is_last) {
      prefill.sequence->move_to(SequenceState::kRunning);
    }
  }
}

void Scheduler::advance(Sequence& sequence, int64_t num_tokens) {
  const int64_t first_full = sequence.num_computed() / kBlockTokens;
  sequence.set_num_computed(sequence.num_computed() + num_tokens);
  publish(sequence, first_full);
}

void Scheduler::publish(Sequence& sequence, int64_t first_full) {
  if (prefix_cache_ == nullptr) {
    return;
  }
  const int64_t num_tokens =
      std::min(sequence.num_computed(), sequence.group().max_published_tokens);
  for (int64_t i = first_full; i < num_tokens / kBlockTokens; ++i) {
    prefix_cache_->insert(sequence.block_hash(*prefix_cache_, i),
                          sequence.block_tokens(i),
                          sequence.table().block(i));
  }
}

void Scheduler::fork(SequenceGroup& group, ForkCopies& copies) {
  group.is_forked = true;
  const Sequence& first = *group.choices.front();
  for (size_t i = 1; i < group.choices.size(); ++i) {
    Sequence& choice = *group.choices[i];
    if (choice.state() == SequenceState::kFinished) {
      continue;
    }
    if (share_blocks(first, choice, copies)) {
      choice.move_to(SequenceState::kRunning);
      insert_by_age(running_, choice);
      continue;
    }
    set_aside(choice);
  }
}

bool Scheduler::share_blocks(const Sequence& from, Sequence& to, ForkCopies& copies) {
  const int64_t num_computed = from.num_computed();
  const int64_t num_full = num_computed / kBlockTokens;
  for (int64_t i = 0; i < num_full; ++i) {
    to.table().append(from.table().block(i));
  }
  if (num_computed % kBlockTokens != 0) {
    Block partial = allocator_.try_allocate(num_full);
    if (!partial.is_valid()) {
      return false;
    }
    copies.blocks.push_back({from.table().block(num_full).id(), partial.id()});
    to.table().append(std::move(partial));
  }
  to.set_num_computed(num_computed);
  take_ring(to);
  if (rings_) {
    copies.rings.push_back({from.ring().id(), to.ring().id()});
  }
  return true;
}

void Scheduler::finish(Sequence& sequence) {
  std::erase(running_, &sequence);
  std::erase(waiting_, &sequence);
  std::erase(given_up_, &sequence);
  sequence.release_blocks();
  sequence.move_to(SequenceState::kFinished);
}

int64_t Scheduler::num_seats_taken() const noexcept {
  int64_t num_seats = 0;
  for (const Sequence* sequence : running_) {
    num_seats += sequence->group().num_seats();
  }
  return num_seats;
}

int64_t Scheduler::num_uncomputed_tokens() const noexcept {
  int64_t num_tokens = 0;
  for (const Sequence* sequence : waiting_) {
    num_tokens += sequence->num_tokens();
  }
  for (const Sequence* sequence : running_) {
    num_tokens += sequence->state() == SequenceState::kPrefilling
                      ? sequence->num_tokens() - sequence->num_computed()
                      : 0;
  }
  return num_tokens;
}

int64_t Scheduler::num_running_groups() const noexcept {
  int64_t num_groups = 0;
  const SequenceGroup* last = nullptr;  // choices of one group are neighbours
  for (const Sequence* sequence : running_) {
    num_groups += &sequence->group() != last ? 1 : 0;
    last = &sequence->group();
  }
  return num_groups;
}

}  // namespace tessera
