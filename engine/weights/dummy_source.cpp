#include "engine/weights/dummy_source.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "engine/base/check.h"
#include "engine/weights/tensor_table.h"

namespace tessera {
namespace {

using kernels::BFloat16;

// FNV-1a, 64 bits: the same on every platform, unlike std::hash.
uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325U;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  }
  return hash;
}

constexpr float kHalfWidth = 0.034641016F;  // 0.02 * sqrt(3): a uniform's standard deviation

}  // namespace

DummySource::DummySource(const ModelConfig& config, uint64_t seed)
    : seed_(seed), blocks_(config.quantization) {
  for (TensorSpec& spec : expected_tensors(config)) {
    num_bytes_ += spec.num_elements() * static_cast<int64_t>(sizeof(BFloat16));
    shapes_.emplace(std::move(spec.name), std::move(spec.shape));
  }
}

const std::vector<int64_t>& DummySource::shape(const std::string& name) const {
  const auto found = shapes_.find(name);
  TESSERA_CHECK(found != shapes_.end(), name + " is not one of expected_tensors()");
  return found->second;
}

uint64_t DummySource::counter(const std::string& name) const {
  return kernels::random_word(seed_ ^ hash_name(name)) + 1;
}

kernels::ConstTensorView DummySource::read(const std::string& name) {
  const std::vector<int64_t>& sizes = shape(name);
  kernels::ConstTensorView view;
  view.dtype = kernels::DType::kBFloat16;
  view.rank = static_cast<int>(sizes.size());
  std::copy(sizes.begin(), sizes.end(), view.shape.begin());
  view.stride = view.rank == 2 ? std::array<int64_t, 4>{view.dim(1), 1} : std::array<int64_t, 4>{1};
  values_.resize(static_cast<size_t>(view.num_elements()));

  const float center = name.ends_with("norm.weight") ? 1.0F : 0.0F;
  uint64_t next = counter(name);
  for (BFloat16& value : values_) {
    value = BFloat16::from_float(center + kHalfWidth * kernels::random_unit(next++));
  }
  num_bytes_read_ += view.num_elements() * static_cast<int64_t>(sizeof(BFloat16));
  view.data = values_.data();
  return view;
}

std::optional<kernels::RandomRows> DummySource::take_random(const std::string& name) {
  const std::vector<int64_t>& sizes = shape(name);
  if (sizes.size() != 2) {
    return std::nullopt;
  }
  num_bytes_read_ += sizes[0] * sizes[1] * static_cast<int64_t>(sizeof(BFloat16));
  return kernels::RandomRows{.counter = counter(name), .rows = sizes[0], .half_width = kHalfWidth};
}

std::optional<StoredBlocks> DummySource::stored_blocks(const std::string& name) const {
  const std::vector<int64_t>& sizes = shape(name);
  const bool is_plain = sizes.size() != 2 || name.ends_with("embed_tokens.weight") ||
                        name.ends_with("lm_head.weight") || name.ends_with("mlp.gate.weight");
  if (!blocks_ || is_plain) {
    return std::nullopt;
  }
  return StoredBlocks{sizes[0], sizes[1], *blocks_};
}

kernels::Float8Matrix DummySource::read_float8(const std::string& name,
                                               const IndexRange& /*rows*/,
                                               const IndexRange& /*columns*/) {
  const auto stored = stored_blocks(name);
  TESSERA_CHECK(stored.has_value(), name + " is not made in FP8");
  const int64_t count = stored->rows * stored->columns;
  float8_.resize(static_cast<size_t>(count));
  uint64_t next = counter(name);
  for (uint8_t& value : float8_) {
    value = kernels::random_float8(next++);
  }
  const int64_t scale_rows =
      (stored->rows + stored->blocks.block_rows - 1) / stored->blocks.block_rows;
  const int64_t scale_columns =
      (stored->columns + stored->blocks.block_columns - 1) / stored->blocks.block_columns;
  scales_.assign(static_cast<size_t>(scale_rows * scale_columns),
                 kernels::random_float8_scale(kHalfWidth));
  num_bytes_read_ += count * static_cast<int64_t>(sizeof(BFloat16));
  return {{float8_.data(), kernels::DType::kFloat8E4M3, {stored->rows, stored->columns}},
          {scales_.data(), kernels::DType::kFloat32, {scale_rows, scale_columns}}};
}

}  // namespace tessera
