#include "engine/calibration/observed_step.h"

#include "engine/weights/float_convert.h"

namespace tessera {
namespace {

using kernels::ConstTensorView;

/// Bytes from the first element of a view to behind its last.
int64_t spanned_bytes(const ConstTensorView& view) {
  int64_t last = 0;
  for (int axis = 0; axis < view.rank; ++axis) {
    last += (view.dim(axis) - 1) * view.stride[static_cast<size_t>(axis)];
  }
  return (last + 1) * kernels::dtype_bytes(view.dtype);
}

}  // namespace

ObservedStep::ObservedStep(const ObservedLatents& step,
                           kernels::Device& device,
                           kernels::StreamView stream)
    : step_(step), device_(device) {
  device_.synchronize_blocking(stream);
}

FloatMatrix ObservedStep::latents(const std::vector<float>& norm) {
  FloatMatrix rows = download(step_.latent);
  const Eigen::Map<const Eigen::VectorXf> weights(norm.data(), rows.cols());
  const Eigen::VectorXf factors =
      (weights.array() != 0.0F).select(weights.array().inverse(), 0.0F).matrix();
  rows *= factors.asDiagonal();
  return rows;
}

FloatMatrix ObservedStep::rope() {
  return download(step_.rope);
}

FloatMatrix ObservedStep::queries() {
  return download(step_.query);
}

FloatMatrix ObservedStep::download(const ConstTensorView& view) {
  bytes_.resize(static_cast<size_t>(spanned_bytes(view)));
  device_.copy_to_host(bytes_.data(), view.data, static_cast<int64_t>(bytes_.size()), {});
  device_.synchronize_blocking({});
  ConstTensorView host = view;
  host.data = bytes_.data();
  const int64_t num_groups = view.rank == 3 ? view.dim(1) : 1;
  const int64_t width = view.dim(view.rank - 1);
  FloatMatrix rows(view.dim(0), num_groups * width);
  float* out = rows.data();
  for (int64_t row = 0; row < view.dim(0); ++row) {
    const ConstTensorView whole = host.slice(0, row, 1);
    for (int64_t group = 0; group < num_groups; ++group) {
      const ConstTensorView part = view.rank == 3 ? whole.slice(1, group, 1) : whole;
      convert_to_float({part.data, part.dtype, {width}}, out);
      out += width;
    }
  }
  return rows;
}

}  // namespace tessera
