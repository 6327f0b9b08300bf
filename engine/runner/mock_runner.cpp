#include "engine/runner/mock_runner.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/deadline.h"
#include "engine/base/log.h"
#include "engine/base/steady_time.h"

namespace tessera {
namespace {

constexpr uint64_t kEmptySequence = 0x7e55e3aU;
constexpr float kLogprob = -1.0F;

size_t at(int64_t index) noexcept {
  return static_cast<size_t>(index);
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
/// generators).
uint64_t mix(uint64_t hash, uint64_t value) noexcept {
  uint64_t z = hash + 0x9e3779b97f4a7c15U * (value + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

void collect_forbidden(const SamplingInput& sampling,
                       const kernels::SampleRow& row,
                       std::vector<int32_t>& forbidden) {
  forbidden.clear();
  for (int64_t i = row.bias_begin; i < row.bias_end; ++i) {
    if (sampling.bias_values[at(i)] == -std::numeric_limits<float>::infinity()) {
      forbidden.push_back(sampling.bias_ids[at(i)]);
    }
  }
}

}  // namespace

Result<std::unique_ptr<MockRunner>> MockRunner::create(
    const ParallelSetup& setup,
    const MockSpeed& speed,
    std::vector<std::unique_ptr<kernels::Backend>> backends) {
  if (!setup.sharding.window.is_empty()) {
    return Status(StatusCode::kUnimplemented, "the mock engine keeps no exact windows");
  }
  std::vector<Rank> ranks;
  for (auto& backend : backends) {
    TESSERA_TRY(
        const ShardPlan plan,
        ShardPlan::create(setup.config, setup.sharding, static_cast<int64_t>(ranks.size())));
    TESSERA_TRY(auto cache, create_rank_cache(setup, plan, backend->device()));
    ranks.push_back({.backend = std::move(backend), .cache = std::move(cache)});
  }
  return std::unique_ptr<MockRunner>(new MockRunner(setup, speed, std::move(ranks)));
}

MockRunner::MockRunner(const ParallelSetup& setup, const MockSpeed& speed, std::vector<Rank> ranks)
    : speed_(speed),
      first_token_(static_cast<int32_t>(setup.config.vocab_size / 4)),
      num_tokens_(std::max(1, static_cast<int32_t>(setup.config.vocab_size / 2))),
      eos_ids_(setup.config.eos_token_ids),
      is_striped_(setup.sharding.attention == AttentionSharding::kDcp),
      ranks_(std::move(ranks)) {}

void MockRunner::run_blocking(const ModelInput& input,
                              const SamplingInput& sampling,
                              StepOutput& output) {
  const Deadline end = Deadline::after(step_time(input));
  hashes_.resize(input.token_ids.size());
  for (int64_t row = 0; row < input.num_decode; ++row) {
    run_rows(input, row, 1, row);
  }
  for (const PrefillChunk& chunk : input.chunks) {
    run_rows(input, chunk.row_begin, chunk.num_tokens, chunk.table_row);
  }
  const auto num_rows = static_cast<int64_t>(sampling.rows.size());
  output.token_ids.resize(at(num_rows));
  output.logprobs.assign(at(num_rows), kLogprob);
  output.top_ids.resize(at(num_rows * kernels::kMaxTopLogprobs));
  output.top_logprobs.resize(at(num_rows * kernels::kMaxTopLogprobs));
  for (int64_t i = 0; i < num_rows; ++i) {
    const kernels::SampleRow& row = sampling.rows[at(i)];
    uint64_t hash = hashes_[at(input.logits_rows[at(row.logits_row)])];
    if (row.temperature > 0.0F) {
      hash = mix(mix(hash, row.seed), row.choice);
    }
    collect_forbidden(sampling, row, forbidden_);
    output.token_ids[at(i)] = draw(hash, forbidden_);
    for (int64_t k = 0; k < row.num_top_logprobs; ++k) {
      const int64_t entry = i * kernels::kMaxTopLogprobs + k;
      output.top_ids[at(entry)] = static_cast<int32_t>(
          first_token_ + (output.token_ids[at(i)] - first_token_ + k) % num_tokens_);
      output.top_logprobs[at(entry)] = kLogprob - static_cast<float>(k);
    }
  }
  std::this_thread::sleep_until(end.at());
  log_trace("mock_step", "rows", num_rows, "at_us", steady_us(Deadline::Clock::now()));
}

std::chrono::nanoseconds MockRunner::step_time(const ModelInput& input) const {
  const auto num_prompt_tokens = static_cast<double>(input.num_tokens() - input.num_decode);
  const std::chrono::duration<double> prefill(num_prompt_tokens /
                                              static_cast<double>(speed_.prefill_tokens_per_s));
  return std::chrono::duration_cast<std::chrono::nanoseconds>(prefill) +
         (input.num_decode > 0 ? speed_.decode_step : std::chrono::milliseconds(0));
}

void MockRunner::run_rows(const ModelInput& input,
                          int64_t begin,
                          int64_t num_rows,
                          int64_t table_row) {
  const int64_t context = input.positions[at(begin)];
  uint64_t hash = kEmptySequence;
  if (context > 0) {
    const int64_t last = context - 1;
    hash = load(
        input.block_tables[at(table_row * input.max_blocks_per_sequence + last / kBlockTokens)],
        last);
  }
  for (int64_t row = begin; row < begin + num_rows; ++row) {
    hash = mix(hash, static_cast<uint64_t>(input.token_ids[at(row)]));
    store(input.slots[at(row)], hash);
    hashes_[at(row)] = hash;
  }
}

uint64_t MockRunner::load(int32_t block, int64_t position) const {
  const auto size = static_cast<int64_t>(ranks_.size());
  // Whoever keeps the block; where all do, each rank's copy gets its turn to be the one that
  // counts.
  const Rank& rank = ranks_[at((is_striped_ ? block : position) % size)];
  const int64_t own_block = is_striped_ ? block / size : block;
  const auto* image = static_cast<const std::byte*>(rank.cache.image_address(own_block, 0));
  uint64_t hash = 0;
  std::memcpy(
      &hash, image + rank.cache.shard().row_offset_bytes(0, position % kBlockTokens), sizeof(hash));
  return hash;
}

void MockRunner::store(int64_t slot, uint64_t hash) {
  const auto size = static_cast<int64_t>(ranks_.size());
  const int64_t block = slot / kBlockTokens;
  for (int64_t index = 0; index < size; ++index) {
    if (is_striped_ && block % size != index) {
      continue;
    }
    PagedLatentCache& cache = ranks_[at(index)].cache;
    for (int64_t image = 0; image < cache.num_images(); ++image) {
      auto* const base =
          static_cast<std::byte*>(cache.image_address(is_striped_ ? block / size : block, image));
      std::memcpy(
          base + cache.shard(image).row_offset_bytes(0, slot % kBlockTokens), &hash, sizeof(hash));
    }
  }
}

int32_t MockRunner::draw(uint64_t hash, std::span<const int32_t> forbidden) const {
  const auto contains = [](const auto& ids, int32_t id) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  const auto begin = static_cast<int32_t>(hash % static_cast<uint64_t>(num_tokens_));
  for (int32_t i = 0; i < num_tokens_; ++i) {
    const int32_t id = first_token_ + (begin + i) % num_tokens_;
    if (!contains(forbidden, id) && !contains(eos_ids_, id)) {
      return id;
    }
  }
  return first_token_ + begin;  // everything is forbidden
}

void MockRunner::copy_block(int32_t source, int32_t destination) {
  const auto size = static_cast<int32_t>(ranks_.size());
  TESSERA_CHECK(!is_striped_ || source % size == destination % size,
                "copy_block: blocks of two ranks");
  if (is_striped_) {
    ranks_[at(source % size)].cache.copy_block(source / size, destination / size, {});
    return;
  }
  for (Rank& rank : ranks_) {
    rank.cache.copy_block(source, destination, {});
  }
}

std::vector<kernels::ProbeSum> MockRunner::landed_probes_blocking(
    std::span<const int32_t> /*block_ids*/, int64_t /*begin*/, int64_t /*end*/) {
  TESSERA_CHECK(false, "probes of a group that has none");
}

}  // namespace tessera
