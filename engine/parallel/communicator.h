// Collectives among the ranks of one group, in the order of a stream. Every member calls the same
// collectives in the same order. Public members check shapes, then call the private virtual, as
// kernels/ops does; nothing here needs the values on the host, so that NCCL can implement it.
#pragma once

#include <string>

#include "kernels/core/device.h"
#include "kernels/core/tensor_view.h"
#include "kernels/ops/ops.h"

namespace tessera {

class Communicator {
 public:
  Communicator() = default;
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  [[nodiscard]] virtual int rank() const noexcept = 0;
  [[nodiscard]] virtual int size() const noexcept = 0;

  // All of these throw DeviceError once the group has been aborted, a waiting member too.
  // Operands stay valid until the stream has passed the call.

  /// x = sum over the members: every one of them gets the same bits. The order of adding is that of
  /// the ranks, but for what NCCL adds. `x`: float32, contiguous.
  void all_reduce(const kernels::TensorView& x, kernels::StreamView stream);
  /// all_reduce(add), then norm.x += add and the norm, by `ops`; in one pass where the members
  /// reach each other's memory. `norm.add` is `add`, which means nothing afterwards.
  void all_reduce_norm(const kernels::TensorView& add,
                       const kernels::RmsNormParams& norm,
                       kernels::Ops& ops,
                       kernels::StreamView stream);
  /// Member m gets heads [m h, (m + 1) h) of the sum of all partials, rounded to out's type by
  /// `ops`; in one pass where the members reach each other's memory. `partial` [B, G h, d] of each
  /// of the G members, `sum` [B, h, d]: float32; `out` [B, h, d]: float32 or bfloat16; all
  /// contiguous. `sum` is `out` if that is float32; otherwise it means nothing afterwards.
  void reduce_scatter_heads(const kernels::ConstTensorView& partial,
                            const kernels::TensorView& sum,
                            const kernels::TensorView& out,
                            kernels::Ops& ops,
                            kernels::StreamView stream);
  /// The members' columns side by side: `own` [n, Vm] of each, `out` [n, sum of Vm]: float32,
  /// contiguous. A member whose `out` has no data contributes only.
  void all_gather_columns(const kernels::ConstTensorView& own,
                          const kernels::TensorView& out,
                          kernels::StreamView stream);
  /// The members' tensors one after another: `own` of n elements, `out` of G n: float32,
  /// contiguous.
  void all_gather(const kernels::ConstTensorView& own,
                  const kernels::TensorView& out,
                  kernels::StreamView stream);

  /// Makes every member that waits, now or later, throw DeviceError(`reason`). For good. Any
  /// thread; the first reason counts.
  virtual void abort(const std::string& reason) noexcept = 0;

 private:
  virtual void do_all_reduce(const kernels::TensorView& x, kernels::StreamView stream) = 0;
  /// False: there is no such pass for these shapes, and nothing has been done.
  virtual bool do_all_reduce_norm(const kernels::RmsNormParams& norm,
                                  kernels::StreamView stream) = 0;
  /// As do_all_reduce_norm().
  virtual bool do_reduce_scatter_rounded(const kernels::ConstTensorView& partial,
                                         const kernels::TensorView& out,
                                         kernels::StreamView stream) = 0;
  virtual void do_reduce_scatter_heads(const kernels::ConstTensorView& partial,
                                       const kernels::TensorView& sum,
                                       kernels::StreamView stream) = 0;
  virtual void do_all_gather_columns(const kernels::ConstTensorView& own,
                                     const kernels::TensorView& out,
                                     kernels::StreamView stream) = 0;
  virtual void do_all_gather(const kernels::ConstTensorView& own,
                             const kernels::TensorView& out,
                             kernels::StreamView stream) = 0;
};

}  // namespace tessera
