// The transport over UCX: what servers use.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/base/result.h"
#include "engine/transport/kv_receiver.h"
#include "engine/transport/kv_sender.h"
#include "engine/transport/transport_options.h"
#include "kernels/core/image_mover.h"

namespace tessera {

/// `listener` outlives the sender. One per process; registered memory outlives it too. Destroy it
/// when no parcel's memory is to be read any more: it waits for what is being read.
/// `mover`, which outlives it, is of the device that registered memory is of; null: the host's.
/// Errors: UNAVAILABLE, FAILED_PRECONDITION (UCX without support for that device).
[[nodiscard]] Result<std::unique_ptr<KvSender>> create_ucx_sender(
    const SenderOptions& options,
    KvSender::Listener& listener,
    kernels::ImageMover* mover = nullptr);

/// `listener`, `mover` and the memory of `blocks` outlive the receiver. With a mover, `blocks` are
/// in its device's memory, and so is the arena of max_regions landing regions that is made at once.
/// Errors: UNAVAILABLE, FAILED_PRECONDITION (UCX without support for that device),
/// RESOURCE_EXHAUSTED (no memory for the arena).
[[nodiscard]] Result<std::unique_ptr<KvReceiver>> create_ucx_receiver(
    const ReceiverOptions& options,
    int32_t rank,
    const CacheBlocks& blocks,
    KvReceiver::Listener& listener,
    kernels::ImageMover* mover = nullptr);

}  // namespace tessera
