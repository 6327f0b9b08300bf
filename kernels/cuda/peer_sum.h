// The sum of a tensor over GPUs that reach each other's memory, in one kernel a call: every member
// writes its values into the others' inboxes and adds up, in the order of the members, what it was
// sent, so that all of them get the same bits. No host, so a graph can record it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/core/device.h"
#include "kernels/ops/transform_params.h"

namespace tessera::kernels::cuda {

class PeerSum {
 public:
  static constexpr int kMaxMembers = 8;

  /// For up to kMaxMembers devices of create_cuda_backend(), all different and each on its own GPU,
  /// and tensors of up to `max_elements`; null where a GPU cannot reach another's memory. The
  /// devices outlive it. Throws DeviceError.
  [[nodiscard]] static std::unique_ptr<PeerSum> create(std::span<Device* const> devices,
                                                       int64_t max_elements);
  virtual ~PeerSum() = default;
  PeerSum(const PeerSum&) = delete;
  PeerSum& operator=(const PeerSum&) = delete;

  /// x [count] = the members' sum, float32, for every member's call with as many elements. Throws
  /// DeviceError.
  virtual void run(int member, float* x, int64_t count, StreamView stream) = 0;
  /// norm.x += the members' sum of norm.add, which is left as it was, and the norm of that, with as
  /// many rows of one width in every member's call; all aligned to 16 bytes. False: rows too wide
  /// or too many for one pass, or a width or a stride that is no multiple of four, and nothing has
  /// been done; the same for every member. Throws DeviceError.
  virtual bool run_norm(int member, const RmsNormParams& norm, StreamView stream) = 0;
  /// out [rows, width] = the members' sum of this one's part of each row of `partial` [rows,
  /// members, width], rounded to out's type (float32 or bfloat16, contiguous), for every member's
  /// call with as many rows of one width; both aligned to 16 bytes. False: too many, or a width
  /// that is no multiple of four, and nothing has been done; the same for every member. Throws
  /// DeviceError.
  virtual bool run_scatter(int member,
                           const float* partial,
                           const TensorView& out,
                           StreamView stream) = 0;
  /// Ends kernels that wait for a member, now and later, with sums that mean nothing. Any thread.
  virtual void abort() noexcept = 0;
  [[nodiscard]] virtual int64_t max_elements() const noexcept = 0;

 protected:
  PeerSum() = default;
};

}  // namespace tessera::kernels::cuda
