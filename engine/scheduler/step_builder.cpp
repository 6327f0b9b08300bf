#include "engine/scheduler/step_builder.h"

#include <algorithm>

namespace tessera {
namespace {

int64_t longest_table(const StepPlan& plan) {
  int64_t num_blocks = 1;
  for (const Sequence* sequence : plan.decodes) {
    num_blocks = std::max(num_blocks, sequence->table().num_blocks());
  }
  for (const PlannedPrefill& prefill : plan.prefills) {
    num_blocks = std::max(num_blocks, prefill.sequence->table().num_blocks());
  }
  return num_blocks;
}

void add_table(const BlockTable& table, ModelInput& input) {
  const auto ids = table.ids();
  const size_t row_end =
      input.block_tables.size() + static_cast<size_t>(input.max_blocks_per_sequence);
  input.block_tables.insert(input.block_tables.end(), ids.begin(), ids.end());
  input.block_tables.resize(row_end, 0);
}

void add_tokens(const Sequence& sequence, int64_t num_tokens, ModelInput& input) {
  const int64_t begin = sequence.num_computed();
  const int64_t end = begin + num_tokens;
  const RingHandle& ring = sequence.ring();
  for (int64_t position = begin; position < end; ++position) {
    input.token_ids.push_back(sequence.tokens()[static_cast<size_t>(position)]);
    input.positions.push_back(static_cast<int32_t>(position));
    input.slots.push_back(sequence.table().slot(position));
    if (ring.is_valid()) {
      input.window_slots.push_back(ring.slot(position, end));
    }
  }
}

}  // namespace

void build_model_input(const StepPlan& plan, ModelInput& input, std::vector<Sequence*>& sampled) {
  input.clear();
  sampled.clear();
  input.max_blocks_per_sequence = longest_table(plan);
  input.num_decode = static_cast<int64_t>(plan.decodes.size());
  for (Sequence* sequence : plan.decodes) {
    input.logits_rows.push_back(static_cast<int32_t>(input.num_tokens()));
    sampled.push_back(sequence);
    add_tokens(*sequence, 1, input);
    add_table(sequence->table(), input);
    input.decode_lengths.push_back(static_cast<int32_t>(sequence->num_tokens()));
    if (sequence->ring().is_valid()) {
      input.window_first_slots.push_back(sequence->ring().first_slot());
    }
  }
  int64_t table_row = input.num_decode;
  for (const PlannedPrefill& prefill : plan.prefills) {
    const Sequence& sequence = *prefill.sequence;
    input.chunks.push_back({.row_begin = input.num_tokens(),
                            .num_tokens = prefill.num_tokens,
                            .context_begin = sequence.num_computed(),
                            .table_row = table_row++});
    add_tokens(sequence, prefill.num_tokens, input);
    add_table(sequence.table(), input);
    if (prefill.is_last()) {
      input.logits_rows.push_back(static_cast<int32_t>(input.num_tokens() - 1));
      sampled.push_back(prefill.sequence);
    }
  }
}

}  // namespace tessera
