#include "tools/bench/attention_case.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>

namespace tessera::bench {
namespace {

using kernels::BFloat16;
using kernels::DType;
using kernels::kBlockTokens;
using kernels::TensorView;

constexpr int64_t kWholeWidth = 512;  ///< of the rows of a window
constexpr float kScale = 0.0722F;     ///< 1 / sqrt(128 + 64)
constexpr std::array<int64_t, 8> kMixedLengths = {32768, 1, 4096, 63, 1000, 64, 65, 0};
constexpr int kPoison = 0xff;  ///< NaN in all types
constexpr double kFailed = std::numeric_limits<double>::quiet_NaN();

int64_t blocks_of(int64_t length) {
  return (length + kBlockTokens - 1) / kBlockTokens;
}

template <typename T>
std::vector<T> download(const void* data, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  check_cuda_call(
      cudaMemcpy(values.data(), data, values.size() * sizeof(T), cudaMemcpyDeviceToHost));
  return values;
}

std::vector<double> download_numbers(const void* data, int64_t count) {
  const std::vector<BFloat16> numbers = download<BFloat16>(data, count);
  std::vector<double> values(numbers.size());
  std::transform(numbers.begin(), numbers.end(), values.begin(), [](BFloat16 number) {
    return static_cast<double>(number.to_float());
  });
  return values;
}

const void* element(const kernels::DeviceBuffer& buffer, int64_t index) {
  return static_cast<const char*>(buffer.data()) + index * 2;
}

}  // namespace

int64_t AttentionShape::length(int64_t sequence) const {
  const int64_t length = context == kMixed
                             ? kMixedLengths[static_cast<size_t>(sequence) % kMixedLengths.size()]
                             : context;
  return length == 0 ? 0 : std::max(length, tokens);
}

double AttentionShape::num_tokens() const {
  double total = 0.0;
  for (int64_t sequence = 0; sequence < batch; ++sequence) {
    total += static_cast<double>(length(sequence));
  }
  return total;
}

double AttentionShape::cache_bytes() const {
  return num_tokens() *
         static_cast<double>(kernels::latent_row_layout(cache_dtype(), width, rope).row_bytes);
}

double AttentionShape::operations() const {
  const double pairs = num_tokens() * static_cast<double>(heads * tokens);
  return 2.0 * pairs * static_cast<double>(2 * width + rope);
}

AttentionCase::AttentionCase(GpuBench& bench,
                             const AttentionShape& shape,
                             int64_t num_copies,
                             DecodeWay way)
    : bench_(bench), shape_(shape), ring_(kernels::WindowRing::create(shape.window, shape.tokens)) {
  make_tables();
  for (int64_t copy = 0; copy < num_copies; ++copy) {
    caches_.push_back(bench.random_bytes(num_blocks_ * block_bytes()));
    if (shape.float8 != 0) {
      fill_float8(copy);
    }
    poison(copy);
  }
  const int64_t rows = shape.batch * shape.tokens;
  std::vector<int32_t> tables;
  std::vector<int32_t> lengths;
  std::vector<int64_t> first_slots;
  for (int64_t row = 0; row < rows; ++row) {
    const auto begin = tables_.begin() + row / shape.tokens * max_blocks_;
    tables.insert(tables.end(), begin, begin + max_blocks_);
    lengths.push_back(static_cast<int32_t>(row_length(row)));
    first_slots.push_back(row / shape.tokens * ring_.rows_per_sequence());
  }
  device_tables_ = bench.upload(tables);
  lengths_ = bench.upload(lengths);
  first_slots_ = bench.upload(first_slots);
  const int64_t queries = rows * shape.heads;
  q_ = bench.random_bytes(queries * row_elements() * 2);
  q_whole_ = bench.random_bytes(queries * kWholeWidth * 2);
  const int64_t ring_blocks = blocks_of(shape.batch * ring_.rows_per_sequence()) + 1;
  rings_ = bench.random_bytes(ring_blocks * kBlockTokens * (kWholeWidth + shape.rope) * 2);
  out_ = bench.device().allocate(queries * shape.width * 2);
  lse_ = bench.device().allocate(queries * 4);
  if (way == DecodeWay::kFlashMla) {
    baseline_ = create_flash_mla(bench, params(0));
  }
}

int64_t AttentionCase::row_length(int64_t row) const {
  const int64_t length = shape_.length(row / shape_.tokens);
  return length == 0 ? 0 : length - (shape_.tokens - 1 - row % shape_.tokens);
}

void AttentionCase::make_tables() {
  int64_t used = 0;
  for (int64_t sequence = 0; sequence < shape_.batch; ++sequence) {
    const int64_t blocks = blocks_of(shape_.length(sequence));
    used += blocks;
    max_blocks_ = std::max(max_blocks_, blocks);
  }
  num_blocks_ = used + used / 64 + 2;
  std::vector<int32_t> ids(static_cast<size_t>(num_blocks_));
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), std::mt19937(11));
  spare_blocks_.assign(ids.begin() + used, ids.end());
  tables_.assign(static_cast<size_t>(shape_.batch * max_blocks_), spare_blocks_.front());
  auto next = ids.begin();
  for (int64_t sequence = 0; sequence < shape_.batch; ++sequence) {
    const int64_t blocks = blocks_of(shape_.length(sequence));
    std::copy_n(next, blocks, tables_.begin() + sequence * max_blocks_);
    next += blocks;
  }
}

kernels::LatentCacheView AttentionCase::paged_cache(int64_t copy) const {
  return {.base = caches_[static_cast<size_t>(copy)].data(),
          .block_stride_bytes = block_bytes(),
          .num_blocks = num_blocks_,
          .latent_width = shape_.width,
          .rope_width = shape_.rope,
          .dtype = shape_.cache_dtype()};
}

/// As decode steps do, many tokens at a time.
void AttentionCase::fill_float8(int64_t copy) {
  constexpr int64_t kPiece = 65536;
  std::mt19937 random(17);
  std::normal_distribution<float> normal;
  std::vector<float> numbers(static_cast<size_t>(kPiece * row_elements()));
  std::generate(numbers.begin(), numbers.end(), [&] { return normal(random); });
  const kernels::DeviceBuffer source = bench_.upload(numbers);
  for (int64_t begin = 0; begin < num_blocks_ * kBlockTokens; begin += kPiece) {
    std::vector<int64_t> slots(
        static_cast<size_t>(std::min(kPiece, num_blocks_ * kBlockTokens - begin)));
    std::iota(slots.begin(), slots.end(), begin);
    const auto count = static_cast<int64_t>(slots.size());
    const kernels::DeviceBuffer device_slots = bench_.upload(slots);
    const TensorView rows(source.data(), DType::kFloat32, {count, row_elements()});
    bench_.ops().latent_write({.latent = rows.slice(1, 0, shape_.width),
                               .rope = rows.slice(1, shape_.width, shape_.rope),
                               .slots = TensorView(device_slots.data(), DType::kInt64, {count}),
                               .columns = kernels::LatentColumns::all(shape_.width),
                               .cache = paged_cache(copy)},
                              bench_.stream());
    check_cuda_call(cudaDeviceSynchronize());
  }
}

void AttentionCase::poison(int64_t copy) {
  char* base = static_cast<char*>(caches_[static_cast<size_t>(copy)].data());
  for (const int32_t block : spare_blocks_) {
    check_cuda_call(
        cudaMemset(base + block * block_bytes(), kPoison, static_cast<size_t>(block_bytes())));
  }
  for (int64_t sequence = 0; sequence < shape_.batch; ++sequence) {
    const int64_t length = shape_.length(sequence);
    poison_tokens(copy, sequence, 0, shape_.window.outside_begin(length));
    // What is outside of one row's window at least is paged, and so is all before.
    poison_tokens(
        copy, sequence, shape_.window.outside_end(length), blocks_of(length) * kBlockTokens);
  }
  check_cuda_call(cudaDeviceSynchronize());
}

void AttentionCase::poison_tokens(int64_t copy, int64_t sequence, int64_t begin, int64_t end) {
  char* base = static_cast<char*>(caches_[static_cast<size_t>(copy)].data());
  for (int64_t token = begin; token < end;) {
    const int64_t within = token % kBlockTokens;
    const int64_t count = std::min(kBlockTokens - within, end - token);
    const int64_t block =
        tables_[static_cast<size_t>(sequence * max_blocks_ + token / kBlockTokens)];
    check_cuda_call(cudaMemset(base + block * block_bytes() + within * layout().row_bytes,
                               kPoison,
                               static_cast<size_t>(count * layout().row_bytes)));
    token += count;
  }
}

kernels::MlaDecodeParams AttentionCase::params(int64_t copy) const {
  const int64_t rows = shape_.batch * shape_.tokens;
  const TensorView query(q_.data(), DType::kBFloat16, {rows, shape_.heads, row_elements()});
  kernels::MlaDecodeParams params{
      .q_latent = query.slice(2, 0, shape_.width),
      .q_rope = query.slice(2, shape_.width, shape_.rope),
      .cache = paged_cache(copy),
      .block_tables = TensorView(device_tables_.data(), DType::kInt32, {rows, max_blocks_}),
      .lengths = TensorView(lengths_.data(), DType::kInt32, {rows}),
      .scale = kScale,
      .row_tokens = shape_.tokens,
      .out = {out_.data(), DType::kBFloat16, {rows, shape_.heads, shape_.width}},
      .log_sum_exp = {lse_.data(), DType::kFloat32, {rows, shape_.heads}}};
  if (!shape_.window.is_empty()) {
    params.window = kernels::DecodeWindow{
        .cache = {.base = rings_.data(),
                  .block_stride_bytes = kBlockTokens * (kWholeWidth + shape_.rope) * 2,
                  .num_blocks = blocks_of(shape_.batch * ring_.rows_per_sequence()) + 1,
                  .latent_width = kWholeWidth,
                  .rope_width = shape_.rope,
                  .dtype = DType::kBFloat16},
        .ring = ring_,
        .columns = {.ranges = {{{0, shape_.width}}}},
        .q_latent =
            TensorView(q_whole_.data(), DType::kBFloat16, {rows, shape_.heads, kWholeWidth}),
        .first_slots = TensorView(first_slots_.data(), DType::kInt64, {rows})};
  }
  return params;
}

void AttentionCase::run(int number) {
  const kernels::MlaDecodeParams params =
      this->params(number % static_cast<int64_t>(caches_.size()));
  if (baseline_ != nullptr) {
    baseline_->run(params);
    return;
  }
  bench_.ops().mla_decode(params, bench_.stream());
}

AttentionError AttentionCase::error_blocking() {
  const int64_t rows = shape_.batch * shape_.tokens;
  const int64_t queries = rows * shape_.heads;
  check_cuda_call(
      cudaMemset(out_.data(), kPoison, static_cast<size_t>(queries * shape_.width * 2)));
  check_cuda_call(cudaMemset(lse_.data(), kPoison, static_cast<size_t>(queries * 4)));
  check_cuda_call(cudaDeviceSynchronize());
  run(0);
  check_cuda_call(cudaDeviceSynchronize());
  const std::vector<double> out = download_numbers(out_.data(), queries * shape_.width);
  const std::vector<float> lse = download<float>(lse_.data(), queries);
  const auto is_finite = [](double value) { return std::isfinite(value); };
  if (!std::all_of(out.begin(), out.end(), is_finite)) {
    return {.values = kFailed};
  }
  AttentionError error;
  double difference = 0.0;
  double norm = 0.0;
  constexpr int64_t kSamples = 8;
  for (int64_t i = 0; i < std::min(rows, kSamples); ++i) {
    // Rows of all lengths, first and last ones among them; heads of both halves.
    const Row at{.row = i % 2 == 0 ? i / 2 : rows - 1 - i / 2,
                 .head = i * (shape_.heads - 1) / std::max<int64_t>(1, kSamples - 1)};
    if (baseline_ != nullptr && row_length(at.row) == 0) {
      continue;  // FlashMLA calls the sum over no tokens +inf
    }
    const Exact want = exact(at);
    const int64_t query = at.row * shape_.heads + at.head;
    for (int64_t c = 0; c < shape_.width; ++c) {
      const double value = want.values[static_cast<size_t>(c)];
      const double off = out[static_cast<size_t>(query * shape_.width + c)] - value;
      difference += off * off;
      norm += value * value;
    }
    const auto sum = static_cast<double>(lse[static_cast<size_t>(query)]);
    const bool is_same = sum == want.log_sum_exp;  // infinities
    const double off = is_same ? 0.0 : std::fabs(sum - want.log_sum_exp);
    if (std::isnan(off)) {
      return {.values = kFailed};
    }
    error.log_sum_exp = std::max(error.log_sum_exp, off);
  }
  error.values = norm > 0.0 ? std::sqrt(difference / norm) : std::sqrt(difference);
  return error;
}

std::vector<double> AttentionCase::block(int64_t sequence, int64_t position) const {
  const int64_t id = tables_[static_cast<size_t>(sequence * max_blocks_ + position / kBlockTokens)];
  const char* at = static_cast<const char*>(caches_.front().data()) + id * block_bytes();
  if (shape_.float8 == 0) {
    return download_numbers(at, block_bytes() / 2);
  }
  const std::vector<char> bytes = download<char>(at, block_bytes());
  std::vector<double> numbers;
  for (int64_t token = 0; token < kBlockTokens; ++token) {
    const char* row = bytes.data() + token * layout().row_bytes;
    float scale = 0.0F;
    std::memcpy(&scale, row + layout().scale, sizeof(scale));
    for (int64_t c = 0; c < shape_.width; ++c) {
      numbers.push_back(
          static_cast<double>(kernels::float8_e4m3_to_float(static_cast<uint8_t>(row[c])) * scale));
    }
    std::vector<BFloat16> rope(static_cast<size_t>(shape_.rope));
    std::memcpy(rope.data(), row + layout().rope, rope.size() * sizeof(BFloat16));
    for (const BFloat16 number : rope) {
      numbers.push_back(static_cast<double>(number.to_float()));
    }
  }
  return numbers;
}

std::vector<double> AttentionCase::window_row(int64_t sequence, int64_t position) const {
  const int64_t slot = sequence * ring_.rows_per_sequence() + ring_.row(position);
  return download_numbers(element(rings_, slot * (kWholeWidth + shape_.rope)),
                          kWholeWidth + shape_.rope);
}

AttentionCase::Exact AttentionCase::exact(const Row& at) const {
  const int64_t length = row_length(at.row);
  const int64_t query = at.row * shape_.heads + at.head;
  const std::vector<double> q =
      download_numbers(element(q_, query * row_elements()), row_elements());
  std::vector<double> q_window =
      download_numbers(element(q_whole_, query * kWholeWidth), kWholeWidth);
  q_window.insert(q_window.end(), q.begin() + shape_.width, q.end());
  Exact result{std::vector<double>(static_cast<size_t>(shape_.width)),
               -std::numeric_limits<double>::infinity()};
  double sum = 0.0;
  double largest = -std::numeric_limits<double>::infinity();
  const auto add = [&](const double* row, const std::vector<double>& own) {
    const double logit =
        static_cast<double>(kScale) * std::inner_product(own.begin(), own.end(), row, 0.0);
    const double top = std::max(largest, logit);
    const double keep = std::exp(largest - top);
    const double weight = std::exp(logit - top);
    sum = sum * keep + weight;
    for (size_t c = 0; c < result.values.size(); ++c) {
      result.values[c] = result.values[c] * keep + weight * row[c];
    }
    largest = top;
  };
  const int64_t sequence = at.row / shape_.tokens;
  std::vector<double> rows;
  for (int64_t position = 0; position < length; ++position) {
    if (position % kBlockTokens == 0) {
      rows = block(sequence, position);
    }
    if (shape_.window.contains(position, length)) {
      add(window_row(sequence, position).data(), q_window);
    } else {
      add(rows.data() + position % kBlockTokens * row_elements(), q);
    }
  }
  for (double& value : result.values) {
    value /= length > 0 ? sum : 1.0;
  }
  result.log_sum_exp = length > 0 ? largest + std::log(sum) : result.log_sum_exp;
  return result;
}

}  // namespace tessera::bench
