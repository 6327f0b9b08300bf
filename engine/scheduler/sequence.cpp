#include "engine/scheduler/sequence.h"

#include <array>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/text.h"
#include "engine/scheduler/sequence_group.h"

namespace tessera {
namespace {

// Row: from; column: to; both in the order of SequenceState.
constexpr std::array<std::array<bool, kNumSequenceStates>, kNumSequenceStates> kAllowedMoves = {{
    // waiting, prefilling, running, preempted, finished
    {false, true, true, true, true},     // waiting: running and preempted by a fork
    {false, false, true, true, true},    // prefilling
    {false, false, false, true, true},   // running
    {false, true, false, false, true},   // preempted
    {false, false, false, false, false}  // finished
}};

}  // namespace

std::string_view sequence_state_name(SequenceState state) noexcept {
  switch (state) {
    case SequenceState::kWaiting:
      return "waiting";
    case SequenceState::kPrefilling:
      return "prefilling";
    case SequenceState::kRunning:
      return "running";
    case SequenceState::kPreempted:
      return "preempted";
    case SequenceState::kFinished:
      return "finished";
  }
  return "unknown";
}

bool is_allowed_move(SequenceState from, SequenceState to) noexcept {
  return kAllowedMoves[static_cast<size_t>(from)][static_cast<size_t>(to)];
}

Sequence::Sequence(SequenceGroup& group,
                   int32_t choice,
                   std::vector<int32_t> prompt_ids,
                   int64_t num_replayed)
    : group_(&group),
      choice_(choice),
      num_prompt_tokens_(static_cast<int64_t>(prompt_ids.size()) - num_replayed),
      tokens_(std::move(prompt_ids)) {
  TESSERA_CHECK(num_prompt_tokens_ > 0, "a sequence has at least one token");
}

bool Sequence::is_older_than(const Sequence& other) const noexcept {
  if (group_->arrival != other.group_->arrival) {
    return group_->arrival < other.group_->arrival;
  }
  return choice_ < other.choice_;
}

void Sequence::move_to(SequenceState next) {
  TESSERA_CHECK(is_allowed_move(state_, next),
                str_cat("a sequence does not go from ",
                        sequence_state_name(state_),
                        " to ",
                        sequence_state_name(next)));
  state_ = next;
}

void Sequence::reserve_tokens(int64_t num_tokens) {
  tokens_.reserve(static_cast<size_t>(num_tokens));
  table_.reserve(blocks_for_tokens(num_tokens));
  hashes_.reserve(static_cast<size_t>(num_tokens / kBlockTokens));
}

void Sequence::keep_history() {
  const auto num_prompt = static_cast<size_t>(num_prompt_tokens_);
  history_.emplace(tokens().first(num_prompt));
  for (const int32_t id : tokens().subspan(num_prompt)) {
    history_->add_generated(id);
  }
}

void Sequence::append_token(int32_t token_id) {
  tokens_.push_back(token_id);
  if (history_) {
    history_->add_generated(token_id);
  }
}

void Sequence::set_num_computed(int64_t num_computed) {
  TESSERA_DCHECK(
      num_computed >= 0 && num_computed <= num_tokens() && num_computed <= table_.capacity_tokens(),
      "computed tokens exist and have blocks");
  num_computed_ = num_computed;
}

void Sequence::release_blocks() noexcept {
  table_.clear();
  ring_.reset();
  num_computed_ = 0;
}

const BlockHash& Sequence::block_hash(PrefixCache& cache, int64_t index) {
  TESSERA_DCHECK((index + 1) * kBlockTokens <= num_tokens(), "only full blocks have a hash");
  while (static_cast<int64_t>(hashes_.size()) <= index) {
    const BlockHash parent = hashes_.empty() ? BlockHash{} : hashes_.back();
    hashes_.push_back(cache.hash(parent, block_tokens(static_cast<int64_t>(hashes_.size()))));
  }
  return hashes_[static_cast<size_t>(index)];
}

std::span<const int32_t> Sequence::block_tokens(int64_t index) const noexcept {
  return tokens().subspan(static_cast<size_t>(index * kBlockTokens),
                          static_cast<size_t>(kBlockTokens));
}

}  // namespace tessera
