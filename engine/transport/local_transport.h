// Senders and receivers of one process that share memory, for tests of what lies above: the same
// slots, announcements and answers as over UCX, without a wire.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/transport/kv_receiver.h"
#include "engine/transport/kv_sender.h"
#include "engine/transport/transport_options.h"

namespace tessera {

/// Runs all its senders and receivers on one thread. Outlives them. Any thread.
class LocalTransport final {
 public:
  LocalTransport();
  ~LocalTransport();
  LocalTransport(const LocalTransport&) = delete;
  LocalTransport& operator=(const LocalTransport&) = delete;

  /// Listeners outlive what is made here; `options` and `blocks` as for UCX.
  [[nodiscard]] std::unique_ptr<KvSender> create_sender(const SenderOptions& options,
                                                        KvSender::Listener& listener);
  [[nodiscard]] std::unique_ptr<KvReceiver> create_receiver(const ReceiverOptions& options,
                                                            int32_t rank,
                                                            const CacheBlocks& blocks,
                                                            KvReceiver::Listener& listener);
  /// As if the wire had broken: both ends are told.
  void break_connection(uint64_t connection);

 private:
  class Hub;
  std::shared_ptr<Hub> hub_;  // shared with what was made
};

}  // namespace tessera
