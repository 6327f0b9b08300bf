#include "engine/weights/weight_packer.h"

#include <algorithm>

#include "engine/base/check.h"
#include "engine/weights/float_convert.h"

namespace tessera {
namespace {

using kernels::BFloat16;
using kernels::ConstTensorView;
using kernels::DType;

constexpr int64_t kChunkElements = int64_t{1} << 20;  // staged at a time for a table

}  // namespace

LinearWeightPtr WeightPacker::make(const kernels::LinearShape& shape) {
  auto weight = backend_.ops().make_linear_weight(shape);
  num_bytes_ += weight->num_bytes();
  return weight;
}

LinearWeightPtr WeightPacker::make_linear(int64_t num_groups, int64_t rows, int64_t columns) {
  return make({.num_groups = num_groups,
               .out_features = rows,
               .in_features = columns,
               .dtype = options_.dtype});
}

void WeightPacker::load(kernels::LinearWeight& weight,
                        int64_t group,
                        const ConstTensorView& matrix) {
  const int64_t before = weight.num_bytes();  // some backends allocate as they are filled
  backend_.ops().load_linear_weight(weight, group, matrix);
  num_bytes_ += weight.num_bytes() - before;
}

void WeightPacker::load_float8(kernels::LinearWeight& weight,
                               int64_t group,
                               const std::vector<Part>& parts) {
  const std::vector<Float8Part> stored = float8_parts(parts);
  float8_.begin(stored);
  for (size_t i = 0; i < parts.size(); ++i) {
    float8_.add(source_.read_float8(parts[i].name, stored[i].rows, stored[i].columns));
    report(parts[i].name);
  }
  const int64_t before = weight.num_bytes();
  backend_.ops().load_float8_weight(weight, group, float8_.matrix());
  num_bytes_ += weight.num_bytes() - before;
}

bool WeightPacker::take_random(kernels::LinearWeight& weight,
                               int64_t group,
                               const std::vector<Part>& parts) {
  std::vector<kernels::RandomRows> random;
  for (const Part& part : parts) {
    if (const auto rows = source_.take_random(part.name)) {
      random.push_back(*rows);
      report(part.name);
    }
  }
  TESSERA_CHECK(random.empty() || random.size() == parts.size(),
                "a source that makes some of its matrices only");
  if (random.empty()) {
    return false;
  }
  const int64_t before = weight.num_bytes();
  backend_.ops().fill_linear_weight(weight, group, random);
  num_bytes_ += weight.num_bytes() - before;
  return true;
}

std::vector<Float8Part> WeightPacker::float8_parts(const std::vector<Part>& parts) const {
  std::vector<Float8Part> stored;
  for (const Part& part : parts) {
    const auto blocks = source_.stored_blocks(part.name);
    if (!blocks) {
      return {};
    }
    stored.push_back({.rows = part.rows.value_or(IndexRange{0, blocks->rows}),
                      .columns = part.columns.value_or(IndexRange{0, blocks->columns}),
                      .blocks = blocks->blocks});
  }
  const bool is_possible = options_.dtype == DType::kBFloat16 &&
                           backend_.ops().multiplies_float8() && can_stack_float8(stored);
  return is_possible ? stored : std::vector<Float8Part>{};
}

LinearWeightPtr WeightPacker::linear(const std::vector<Part>& parts) {
  const std::vector<Float8Part> stored = float8_parts(parts);
  if (stored.empty()) {
    return linear(read_stacked(parts), options_.dtype);
  }
  int64_t rows = 0;
  for (const Float8Part& part : stored) {
    rows += part.rows.size();
  }
  auto weight = make({.out_features = rows,
                      .in_features = stored.front().columns.size(),
                      .dtype = options_.dtype,
                      .scales = stacked_scales(stored)});
  load_float8(*weight, 0, parts);
  return weight;
}

LinearWeightPtr WeightPacker::make_linear(const std::vector<std::vector<Part>>& groups,
                                          int64_t rows,
                                          int64_t columns) {
  kernels::LinearShape shape{.num_groups = static_cast<int64_t>(groups.size()),
                             .out_features = rows,
                             .in_features = columns,
                             .dtype = options_.dtype};
  const bool is_float8 = std::all_of(groups.begin(), groups.end(), [&](const auto& parts) {
    return !float8_parts(parts).empty();
  });
  if (is_float8) {
    shape.scales = stacked_scales(float8_parts(groups.front()));
  }
  return make(shape);
}

void WeightPacker::load(kernels::LinearWeight& weight,
                        int64_t group,
                        const std::vector<Part>& parts) {
  if (take_random(weight, group, parts)) {
    return;
  }
  if (weight.shape().scales) {
    load_float8(weight, group, parts);
  } else {
    load(weight, group, read_stacked(parts));
  }
}

LinearWeightPtr WeightPacker::linear(const ConstTensorView& matrix, DType dtype) {
  auto weight = make({1, matrix.dim(0), matrix.dim(1), dtype});
  load(*weight, 0, matrix);
  return weight;
}

std::vector<float> WeightPacker::floats(const std::vector<std::string>& names, int64_t num_zeros) {
  std::vector<float> values(static_cast<size_t>(num_zeros));
  for (const std::string& name : names) {
    const ConstTensorView part = read(name);
    const size_t begin = values.size();
    values.resize(begin + static_cast<size_t>(part.num_elements()));
    convert_to_float(part, values.data() + begin);
  }
  return values;
}

WeightTensor WeightPacker::upload(const std::vector<float>& values) {
  const auto count = static_cast<int64_t>(values.size());
  const auto bytes = count * static_cast<int64_t>(sizeof(float));
  kernels::Device& device = backend_.device();
  WeightTensor tensor;
  tensor.buffer = device.allocate(bytes);
  tensor.view = {tensor.buffer.data(), DType::kFloat32, {count}};
  device.copy_from_host(tensor.buffer.data(), values.data(), bytes, {});
  device.synchronize_blocking({});  // `values` may die
  num_bytes_ += bytes;
  return tensor;
}

WeightTensor WeightPacker::vector(const std::vector<std::string>& names, int64_t num_zeros) {
  return upload(floats(names, num_zeros));
}

WeightTensor WeightPacker::table(const ConstTensorView& matrix) {
  const int64_t columns = matrix.dim(1);
  const int64_t row_bytes = columns * kernels::dtype_bytes(options_.dtype);
  kernels::Device& device = backend_.device();
  WeightTensor tensor;
  tensor.buffer = device.allocate(matrix.dim(0) * row_bytes);
  tensor.view = {tensor.buffer.data(), options_.dtype, {matrix.dim(0), columns}};
  num_bytes_ += tensor.buffer.num_bytes();
  if (matrix.dtype == options_.dtype) {
    device.copy_from_host(tensor.buffer.data(), matrix.data, tensor.buffer.num_bytes(), {});
    device.synchronize_blocking({});
    return tensor;
  }
  const int64_t chunk_rows = std::max<int64_t>(1, kChunkElements / columns);
  std::vector<float> floats(static_cast<size_t>(chunk_rows * columns));
  std::vector<BFloat16> halves(options_.dtype == DType::kBFloat16 ? floats.size() : 0);
  for (int64_t row = 0; row < matrix.dim(0); row += chunk_rows) {
    const int64_t rows = std::min(chunk_rows, matrix.dim(0) - row);
    convert_to_float(matrix.slice(0, row, rows), floats.data());
    const void* staged = floats.data();
    if (options_.dtype == DType::kBFloat16) {
      std::transform(floats.begin(), floats.end(), halves.begin(), BFloat16::from_float);
      staged = halves.data();
    }
    device.copy_from_host(tensor.view.slice(0, row, rows).data, staged, rows * row_bytes, {});
    device.synchronize_blocking({});  // the next chunk reuses the staging
  }
  return tensor;
}

ConstTensorView WeightPacker::read(const std::string& name) {
  const ConstTensorView view = source_.read(name);
  report(name);
  return view;
}

void WeightPacker::report(const std::string& name) const {
  if (options_.progress) {
    options_.progress(source_.num_bytes_read(), source_.num_bytes(), name);
  }
}

ConstTensorView WeightPacker::read_stacked(const std::vector<Part>& parts) {
  const bool has_columns = std::any_of(
      parts.begin(), parts.end(), [](const Part& part) { return part.columns.has_value(); });
  TESSERA_CHECK(parts.size() == 1 || !has_columns, "rows are stacked whole");
  if (parts.size() > 1) {
    return stack(parts);
  }
  const Part& part = parts.front();
  ConstTensorView matrix = read(part.name);
  if (part.rows) {
    matrix = matrix.slice(0, part.rows->begin, part.rows->size());
  }
  if (part.columns) {
    matrix = matrix.slice(1, part.columns->begin, part.columns->size());
  }
  return matrix;
}

kernels::TensorView WeightPacker::stack(const std::vector<Part>& parts) {
  staging_.clear();
  int64_t rows = 0;
  int64_t columns = 0;
  for (const Part& part : parts) {
    ConstTensorView matrix = read(part.name);
    TESSERA_CHECK(rows == 0 || columns == matrix.dim(1), "stacked tensors of different widths");
    if (part.rows) {
      matrix = matrix.slice(0, part.rows->begin, part.rows->size());
    }
    columns = matrix.dim(1);
    rows += matrix.dim(0);
    staging_.resize(static_cast<size_t>(rows * columns));
    convert_to_float(matrix, staging_.data() + (rows - matrix.dim(0)) * columns);
  }
  return {staging_.data(), DType::kFloat32, {rows, columns}};
}

}  // namespace tessera
