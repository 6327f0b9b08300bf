// Keeps a device's exceptions on this side of UCX and of the transport's threads.
#pragma once

#include "engine/base/check.h"
#include "engine/base/log.h"
#include "engine/base/result.h"
#include "kernels/core/image_mover.h"

namespace tessera {

/// Runs `work`. Errors: UNAVAILABLE, when the device fails in it.
template <typename Work>
[[nodiscard]] Status guard_device(Work&& work) {
  try {
    work();
  } catch (const DeviceError& error) {
    return unavailable(error.what());
  }
  return Status::ok();
}

/// Makes the mover's device the thread's current one, which UCX asks for. A device that fails here
/// fails again where it is needed.
inline void enter_device(kernels::ImageMover* mover) {
  if (mover == nullptr) {
    return;
  }
  const Status status = guard_device([mover] { mover->enter(); });
  if (!status.is_ok()) {
    log_error("transport_device_failed", "status", status.to_string());
  }
}

}  // namespace tessera
