#include "engine/parallel/communicator.h"

#include "engine/base/check.h"
#include "kernels/core/shape_check.h"

namespace tessera {

using kernels::ConstTensorView;
using kernels::Dim;
using kernels::DType;
using kernels::ShapeCheck;
using kernels::StreamView;
using kernels::TensorView;

namespace {

void check_dense(const ShapeCheck& check, const char* name, const ConstTensorView& view) {
  check.is_true(view.dtype == DType::kFloat32, "float32 only");
  check.is_true(view.data != nullptr || view.num_elements() == 0, "a tensor has no data");
  check.contiguous(name, view);
}

}  // namespace

void Communicator::all_reduce(const TensorView& x, StreamView stream) {
  const ShapeCheck check("all_reduce");
  check_dense(check, "x", x);
  if (size() > 1) {
    do_all_reduce(x, stream);
  }
}

void Communicator::all_reduce_norm(const TensorView& add,
                                   const kernels::RmsNormParams& norm,
                                   kernels::Ops& ops,
                                   StreamView stream) {
  const ShapeCheck check("all_reduce_norm");
  check_dense(check, "add", add);
  check.is_true(norm.add.data == add.data, "norm.add is another tensor than add");
  if (size() > 1 && do_all_reduce_norm(norm, stream)) {
    return;
  }
  all_reduce(add, stream);
  ops.rms_norm(norm, stream);
}

void Communicator::reduce_scatter_heads(const ConstTensorView& partial,
                                        const TensorView& sum,
                                        const TensorView& out,
                                        kernels::Ops& ops,
                                        StreamView stream) {
  Dim rows{"B"}, all_heads{"G h"}, heads{"h"}, width{"d"};
  const ShapeCheck check("reduce_scatter_heads");
  check_dense(check, "partial", partial);
  check_dense(check, "sum", sum);
  check.tensor("partial", partial, {&rows, &all_heads, &width}, {DType::kFloat32});
  check.tensor("sum", sum, {&rows, &heads, &width}, {DType::kFloat32});
  check.tensor("out", out, {&rows, &heads, &width}, {DType::kFloat32, DType::kBFloat16});
  check.contiguous("out", out);
  check.is_true(all_heads.size == heads.size * size(), "partial has not h heads for each member");
  check.is_true(out.data != nullptr || rows.size == 0, "out has no data");
  check.is_true(rows.size == 0 || (sum.data == out.data) == (out.dtype == DType::kFloat32),
                "sum has to be out in float32, and only then");
  if (size() > 1 && do_reduce_scatter_rounded(partial, out, stream)) {
    return;
  }
  do_reduce_scatter_heads(partial, sum, stream);
  if (out.dtype != DType::kFloat32) {
    const auto in_rows = [&](const TensorView& view) {
      return TensorView(view.data, view.dtype, {rows.size, heads.size * width.size});
    };
    ops.cast({.x = in_rows(sum), .out = in_rows(out)}, stream);
  }
}

void Communicator::all_gather_columns(const ConstTensorView& own,
                                      const TensorView& out,
                                      StreamView stream) {
  Dim rows{"n"}, columns{"Vm"}, all_columns{"V"};
  const ShapeCheck check("all_gather_columns");
  check_dense(check, "own", own);
  check.tensor("own", own, {&rows, &columns}, {DType::kFloat32});
  if (out.data != nullptr) {
    check_dense(check, "out", out);
    check.tensor("out", out, {&rows, &all_columns}, {DType::kFloat32});
  }
  do_all_gather_columns(own, out, stream);
}

void Communicator::all_gather(const ConstTensorView& own,
                              const TensorView& out,
                              StreamView stream) {
  const ShapeCheck check("all_gather");
  check_dense(check, "own", own);
  check_dense(check, "out", out);
  check.is_true(out.num_elements() == own.num_elements() * size(),
                "out has not room for every member");
  do_all_gather(own, out, stream);
}

}  // namespace tessera
