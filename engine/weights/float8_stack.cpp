#include "engine/weights/float8_stack.h"

#include "engine/base/check.h"

namespace tessera {
namespace {

using kernels::ConstTensorView;
using kernels::DType;
using kernels::kScaleBlock;

}  // namespace

bool can_stack_float8(const std::vector<Float8Part>& parts) {
  for (const Float8Part& part : parts) {
    if (part.blocks.block_columns != kScaleBlock || part.columns != parts.front().columns) {
      return false;
    }
  }
  return !parts.empty();
}

kernels::BlockScales stacked_scales(const std::vector<Float8Part>& parts) {
  kernels::BlockScales scales{.first_column = parts.front().columns.begin % kScaleBlock};
  int64_t row = 0;
  for (const Float8Part& part : parts) {
    const bool is_whole = part.blocks.block_rows == kScaleBlock &&
                          part.rows.begin % kScaleBlock == 0 && row % kScaleBlock == 0;
    if (!is_whole) {
      scales.rows = 1;
    }
    row += part.rows.size();
  }
  return scales;
}

void Float8Stack::begin(const std::vector<Float8Part>& parts) {
  TESSERA_CHECK(can_stack_float8(parts), "parts that cannot be stacked");
  parts_ = parts;
  num_added_ = 0;
  layout_ = stacked_scales(parts);
  values_.clear();
  scales_.clear();
}

void Float8Stack::add(const kernels::Float8Matrix& stored) {
  const Float8Part& part = parts_.at(num_added_++);
  const ConstTensorView values = stored.values.slice(0, part.rows.begin, part.rows.size())
                                     .slice(1, part.columns.begin, part.columns.size());
  for (int64_t row = 0; row < values.dim(0); ++row) {
    const auto* begin = values.as<uint8_t>() + row * values.stride[0];
    values_.insert(values_.end(), begin, begin + values.dim(1));
  }
  add_scales(part, stored.scales);
}

void Float8Stack::add_scales(const Float8Part& part, const ConstTensorView& stored) {
  const int64_t first = part.columns.begin / kScaleBlock;
  const int64_t last = (part.columns.end - 1) / kScaleBlock;
  for (int64_t row = part.rows.begin; row < part.rows.end; row += layout_.rows) {
    const auto* scales = stored.as<float>() + row / part.blocks.block_rows * stored.dim(1);
    scales_.insert(scales_.end(), scales + first, scales + last + 1);
  }
}

kernels::Float8Matrix Float8Stack::matrix() const {
  TESSERA_CHECK(num_added_ == parts_.size(), "a stack with parts missing");
  const int64_t columns = parts_.front().columns.size();
  const auto rows = static_cast<int64_t>(values_.size()) / columns;
  const int64_t scale_columns = (layout_.first_column + columns + kScaleBlock - 1) / kScaleBlock;
  const auto scale_rows = static_cast<int64_t>(scales_.size()) / scale_columns;
  return {{values_.data(), DType::kFloat8E4M3, {rows, columns}},
          {scales_.data(), DType::kFloat32, {scale_rows, scale_columns}}};
}

}  // namespace tessera
