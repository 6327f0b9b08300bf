// The transport over UCX: what servers use.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/base/result.h"
#include "engine/transport/kv_receiver.h"
#include "engine/transport/kv_sender.h"
#include "engine/transport/transport_options.h"

namespace tessera {

/// `listener` outlives the sender. One per process; registered memory outlives it too. Destroy it
/// when no parcel's memory is to be read any more: it waits for what is being read.
/// Errors: UNAVAILABLE.
[[nodiscard]] Result<std::unique_ptr<KvSender>> create_ucx_sender(const SenderOptions& options,
                                                                  KvSender::Listener& listener);

/// `listener` and the memory of `blocks` outlive the receiver. Errors: UNAVAILABLE.
[[nodiscard]] Result<std::unique_ptr<KvReceiver>> create_ucx_receiver(
    const ReceiverOptions& options,
    int32_t rank,
    const CacheBlocks& blocks,
    KvReceiver::Listener& listener);

}  // namespace tessera
