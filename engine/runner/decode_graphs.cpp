#include "engine/runner/decode_graphs.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace tessera {
namespace {

/// Tables grow by powers of two from here: few sizes, and splits of a context that suit its length.
constexpr int64_t kMinTableWidth = 16;

int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace

int64_t padded_decode_rows(int64_t num_rows, int64_t max_rows) noexcept {
  int64_t rows = num_rows;
  if (num_rows <= 8) {
    rows = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(num_rows)));
  } else {
    const auto power = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(num_rows)));
    rows = round_up(num_rows, std::max<int64_t>(4, power / 8));
  }
  return std::min(rows, max_rows);
}

void pad_decode_step(const ModelInput& input,
                     int64_t num_rows,
                     int64_t table_width,
                     ModelInput& padded) {
  const auto rows = static_cast<size_t>(num_rows);
  padded.token_ids = input.token_ids;
  padded.positions = input.positions;
  padded.slots = input.slots;
  padded.decode_lengths = input.decode_lengths;
  padded.token_ids.resize(rows, 0);
  padded.positions.resize(rows, 0);
  padded.slots.resize(rows, -1);
  padded.decode_lengths.resize(rows, 0);
  padded.num_decode = num_rows;
  padded.window_slots = input.window_slots;
  padded.window_first_slots = input.window_first_slots;
  if (!input.window_slots.empty()) {
    padded.window_slots.resize(rows, -1);
    padded.window_first_slots.resize(rows, 0);
  }
  padded.logits_rows.resize(rows);
  std::iota(padded.logits_rows.begin(), padded.logits_rows.end(), 0);
  padded.max_blocks_per_sequence = table_width;
  padded.block_tables.assign(static_cast<size_t>(num_rows * table_width), 0);
  for (int64_t row = 0; row < input.num_decode; ++row) {
    std::copy_n(input.block_tables.begin() + row * input.max_blocks_per_sequence,
                input.max_blocks_per_sequence,
                padded.block_tables.begin() + row * table_width);
  }
}

DecodeGraphs::DecodeGraphs(CausalLm& model,
                           const StepCache& cache,
                           const StepLimits& limits,
                           kernels::Device& device)
    : model_(model),
      cache_(cache),
      device_(device),
      max_rows_(std::min({limits.max_tokens, limits.max_sequences, limits.max_logits_rows})),
      max_table_width_(blocks_for_tokens(limits.max_model_len)),
      is_enabled_(device.can_record()) {}

bool DecodeGraphs::can_run(const ModelInput& input) const noexcept {
  return is_enabled_ && input.num_decode > 0 && input.chunks.empty() &&
         input.num_decode <= max_rows_ && input.max_blocks_per_sequence <= max_table_width_ &&
         static_cast<int64_t>(input.logits_rows.size()) == input.num_decode;
}

kernels::TensorView DecodeGraphs::run(const ModelInput& input, kernels::StreamView stream) {
  const int64_t rows = padded_decode_rows(input.num_decode, max_rows_);
  const auto wanted =
      static_cast<uint64_t>(std::max(input.max_blocks_per_sequence, kMinTableWidth));
  const int64_t width = std::min(max_table_width_, static_cast<int64_t>(std::bit_ceil(wanted)));
  pad_decode_step(input, rows, width, padded_);
  const ModelInput& local = model_.upload(padded_, stream);
  Size& size = sizes_[{rows, width}];
  if (size.graph == nullptr && size.has_run) {
    size.graph = device_.record(stream, [this, &size, &local, stream] {
      size.logits = model_.compute(local, cache_, stream);
    });
  }
  if (size.graph != nullptr) {
    size.graph->launch(stream);
  } else {
    // Libraries choose their algorithms now, and not while they are being recorded.
    size.logits = model_.compute(local, cache_, stream);
    size.has_run = true;
  }
  const bool has_logits = size.logits.data != nullptr;  // they come together on one rank
  return has_logits ? first_rows(size.logits, input.num_decode) : size.logits;
}

}  // namespace tessera
